package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/cli/api"
	"sluice/pipeline"
)

// versionsPage is what the page of a zone's versions shows.
type versionsPage struct {
	zonePage
	Versions []version
	Bounded  bool // there are older ones
}

// version is one that was published.
type version struct {
	Serial  uint32
	Time    time.Time
	Signed  string // s<sequence>
	Loaded  string // l<sequence>
	Before  string // the signed instance that was published before; "" for the first
	Current bool
	// What is known of it; 0 where its events are too old.
	Records, Signatures, Made uint64
	Added, Removed            uint64 // records of the content, where it is a new one
	NewContent                bool
	Source                    string
}

// maxVersionEvents bounds the events that the list of versions is made from.
const maxVersionEvents = 600

// versionFacts is what the list of versions reads of events.
type versionFacts struct {
	Facts struct {
		Serial     uint32 `json:"serial"`
		Signed     uint64 `json:"signed"`
		Loaded     uint64 `json:"loaded"`
		Records    uint64 `json:"records"`
		Signatures uint64 `json:"signatures"`
		Made       uint64 `json:"made"`
		Added      uint64 `json:"added"`
		Removed    uint64 `json:"removed"`
		Source     string `json:"source"`
	} `json:"facts"`
}

// zoneVersions lists what was published, newest first.
func zoneVersions(v *visit) error {
	head, err := v.zone("versions")
	if err != nil {
		return err
	}
	p := versionsPage{zonePage: head}
	events := 0
	made, loaded := map[uint64]versionFacts{}, map[uint64]versionFacts{}
	q := pipeline.HistoryQuery{Types: []string{"instance.loaded", "instance.signed", "instance.published"}, Limit: maxVersionEvents}
	var before, content uint64
	err = v.client.History(v.ctx(), head.Zone.Name, q, func(e api.Event) error {
		events++
		var f versionFacts
		if !readEvent(e, &f) {
			return nil
		}
		switch e.Type {
		case "instance.loaded":
			loaded[e.Seq] = f
		case "instance.signed":
			made[e.Seq] = f
		case "instance.published":
			row := version{Serial: f.Facts.Serial, Time: e.Time, Signed: fmt.Sprintf("s%d", f.Facts.Signed), Loaded: fmt.Sprintf("l%d", f.Facts.Loaded)}
			if before != 0 {
				row.Before = fmt.Sprintf("s%d", before)
			}
			m, l := made[f.Facts.Signed].Facts, loaded[f.Facts.Loaded].Facts
			row.Records, row.Signatures, row.Made, row.Source = m.Records, m.Signatures, m.Made, l.Source
			if row.NewContent = content != f.Facts.Loaded; row.NewContent {
				row.Added, row.Removed = l.Added, l.Removed
			}
			before, content = f.Facts.Signed, f.Facts.Loaded
			p.Versions = append(p.Versions, row)
		}
		return nil
	})
	if err != nil {
		return err
	}
	p.Bounded = events == maxVersionEvents
	slices.Reverse(p.Versions)
	if len(p.Versions) > 0 {
		p.Versions[0].Current = true
	}
	v.render(http.StatusOK, "versions", titleOf(head.Zone.Name)+": versions", p)
	return nil
}

// diffPage is what the page of a diff shows.
type diffPage struct {
	zonePage
	From, To       string
	Lines          []pipeline.DiffLine
	First          int // number of the first line
	Removed, Added int // on this page
	Earlier, Later string
	Bare           bool // without what the signer makes
}

// diffLines is how many lines of a diff one page has.
const diffLines = 400

// zoneDiff shows the records that differ between two versions, page by page.
func zoneDiff(v *visit) error {
	query := v.r.URL.Query()
	head, err := v.zone("versions")
	if err != nil {
		return err
	}
	p := diffPage{zonePage: head, From: query.Get("from"), To: query.Get("to"), Bare: query.Get("bare") != ""}
	if p.From == "" || p.To == "" {
		return &api.Problem{Status: http.StatusBadRequest, Detail: "Choose two versions to compare."}
	}
	page, err := strconv.Atoi(query.Get("page"))
	if err != nil || page < 1 || page > 1<<20 {
		page = 1
	}
	p.First = (page-1)*diffLines + 1
	n, more := 0, false
	err = v.client.Diff(v.ctx(), head.Zone.Name, p.From, p.To, func(l pipeline.DiffLine) error {
		if p.Bare && signersOwn(l.Record) {
			return nil
		}
		if n++; n < p.First {
			return nil
		}
		if len(p.Lines) == diffLines {
			more = true
			return errEnough
		}
		if l.Removed {
			p.Removed++
		} else {
			p.Added++
		}
		p.Lines = append(p.Lines, shortened(l))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	at := func(page int) string {
		q := url.Values{"from": {p.From}, "to": {p.To}, "page": {strconv.Itoa(page)}}
		if p.Bare {
			q.Set("bare", "1")
		}
		return "?" + q.Encode()
	}
	if page > 1 {
		p.Earlier = at(page - 1)
	}
	if more {
		p.Later = at(page + 1)
	}
	v.render(http.StatusOK, "diff", titleOf(head.Zone.Name)+": differences", p)
	return nil
}

// maxRecord is how much of a record a page shows, in bytes.
const maxRecord = 4 << 10

// shortened is a line without the end of a record that is very long; it says so.
func shortened(l pipeline.DiffLine) pipeline.DiffLine {
	if over := len(l.Record) - maxRecord; over > 0 {
		l.Record = strings.ToValidUTF8(l.Record[:maxRecord], "") + " … " + num(over) + " more bytes are left out here: sluice zone diff"
	}
	return l
}

// signersOwn reports whether a record in presentation form is of a type that
// the signer makes.
func signersOwn(record string) bool {
	fields := strings.Fields(record)
	for _, f := range fields[:min(len(fields), 4)] {
		switch f {
		case "RRSIG", "NSEC", "NSEC3", "NSEC3PARAM", "ZONEMD":
			return true
		}
	}
	return false
}

// rollbackPage is what a rollback would do.
type rollbackPage struct {
	zonePage
	Plan pipeline.RollbackPlan
	To   string
}

// rollbackPlan shows what a rollback would do; it changes nothing.
func rollbackPlan(v *visit) error {
	head, err := v.zone("versions")
	if err != nil {
		return err
	}
	to := v.r.URL.Query().Get("to")
	plan, err := v.client.Rollback(v.ctx(), head.Zone.Name, pipeline.RollbackRequest{To: to, DryRun: true})
	if err != nil {
		return err
	}
	v.render(http.StatusOK, "rollback", titleOf(head.Zone.Name)+": go back", rollbackPage{zonePage: head, Plan: plan, To: to})
	return nil
}

// rollback goes back to an earlier version as its plan was shown.
func rollback(v *visit) error {
	q := pipeline.RollbackRequest{
		To: v.r.PostFormValue("to"), Reason: strings.TrimSpace(v.r.PostFormValue("reason")), Confirm: v.r.PostFormValue("confirm"),
	}
	plan, err := v.client.Rollback(v.ctx(), v.name(), q)
	if err != nil {
		return err
	}
	if plan.Proposed {
		return v.done("Proposed: it takes effect once a second person asks for the same.", zoneURL(v.name()))
	}
	if !plan.Done {
		v.session.say(flash{Bad: true, Text: "The DS and NS records that differ are others by now. Look at the plan again."})
		http.Redirect(v.w, v.r, zoneURL(v.name())+"/rollback?to="+url.QueryEscape(q.To), http.StatusSeeOther)
		return nil
	}
	return v.done(fmt.Sprintf("The content of serial %d is on its way, with a higher serial. The zone is held there until it is released.", plan.To.Serial), zoneURL(v.name()))
}

// indented is JSON for people, cut where it is very long.
func indented(raw json.RawMessage) string {
	const most = 8 << 10
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return ""
	}
	text := b.String()
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "\n… the rest is left out here: sluice zone history --json"
	}
	return text
}
