package web

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
)

// keysPage is what the page of a zone's keys and its parent shows.
type keysPage struct {
	zonePage
	Keys      []keyRow
	Timeline  timeline
	Rollovers []rolloverView
	Plan      []pipeline.PlannedStep
	DS        []pipeline.DSRecord
	DSText    string // all records to hand over, a line each
	Format    string
	Formats   []string
	Kinds     []keymgr.Kind
	Methods   []keymgr.Method
	Problem   string // why there is no plan or no DS
}

// keyRow is a key in the table.
type keyRow struct {
	keymgr.Key
	AlgorithmName string
	SinceState    time.Time
}

// rolloverView is a rollover that runs.
type rolloverView struct {
	pipeline.RolloverStatus
	Marks []stepMark
	// Sights are what a person can report, the likeliest first.
	Sights []keymgr.Sight
}

// stepMark is a step in the row of steps.
type stepMark struct {
	N     int
	State string // done, current, ahead
}

// dsFormats are the forms in which a parent may take a key.
func dsFormats() []string { return []string{"ds", "cds", "dnskey", "cdnskey"} }

// zoneKeys shows a zone's keys, what happens to them, and what the parent is
// to have.
func zoneKeys(v *visit) error {
	head, err := v.zone("keys")
	if err != nil {
		return err
	}
	p := keysPage{zonePage: head, Formats: dsFormats(), Format: v.r.URL.Query().Get("format")}
	if !slices.Contains(p.Formats, p.Format) {
		p.Format = p.Formats[0]
	}
	p.Kinds = []keymgr.Kind{keymgr.RollZSK, keymgr.RollKSK, keymgr.RollCSK, keymgr.RollAlgorithm, keymgr.RollSecure, keymgr.RollInsecure}
	for _, k := range p.Kinds {
		for _, m := range keymgr.Methods(k) {
			if !slices.Contains(p.Methods, m) {
				p.Methods = append(p.Methods, m)
			}
		}
	}
	if p.Plan, err = v.client.KeyPlan(v.ctx(), head.Zone.Name, time.Time{}); err != nil {
		p.Problem = err.Error()
	}
	if p.DS, err = v.client.DS(v.ctx(), head.Zone.Name, p.Format); err != nil {
		p.Problem = err.Error()
	}
	for _, d := range p.DS {
		if d.Submit {
			p.DSText += d.Record + "\n"
		}
	}
	for _, k := range head.Zone.Keys {
		p.Keys = append(p.Keys, keyRow{Key: k, AlgorithmName: keymgr.AlgorithmName(k.Algorithm), SinceState: stateSince(k)})
	}
	slices.SortStableFunc(p.Keys, func(a, b keyRow) int { return keyOrder(a.Key) - keyOrder(b.Key) })
	for _, ro := range head.Zone.Rollovers {
		p.Rollovers = append(p.Rollovers, viewRollover(ro))
	}
	p.Timeline = timelineOf(p.Keys, p.Plan, v.now())
	v.render(http.StatusOK, "keys", titleOf(head.Zone.Name)+": keys", p)
	return nil
}

// keyOrder puts keys in use first, and those that sign keys before the others.
func keyOrder(k keymgr.Key) int {
	n := map[string]int{"ksk": 0, "csk": 1, "zsk": 2}[k.Role]
	if k.State == keymgr.Removed {
		n += 10
	}
	return n
}

// stateSince is when a key came into its state.
func stateSince(k keymgr.Key) time.Time {
	switch k.State {
	case keymgr.Removed:
		return k.Removed
	case keymgr.Retired, keymgr.Dead, keymgr.Revoked:
		return k.Retired
	case keymgr.Active, keymgr.Introduced, keymgr.Withdrawn:
		return k.Activated
	case keymgr.Published, keymgr.Ready:
		return k.Published
	case keymgr.Generated:
	}
	return k.Generated
}

func viewRollover(ro pipeline.RolloverStatus) rolloverView {
	out := rolloverView{RolloverStatus: ro}
	for n := 1; n <= ro.Steps; n++ {
		m := stepMark{N: n, State: "ahead"}
		switch {
		case n < ro.Step:
			m.State = "done"
		case n == ro.Step:
			m.State = "current"
		}
		out.Marks = append(out.Marks, m)
	}
	all := []keymgr.Sight{keymgr.SeeKeys, keymgr.SeeSigs, keymgr.SeeDS, keymgr.SeeDSGone, keymgr.ReportNext}
	slices.SortStableFunc(all, func(a, b keymgr.Sight) int { return likely(ro, b) - likely(ro, a) })
	out.Sights = all
	return out
}

// likely guesses what a person wants to report from the sentence that asks for
// it.
func likely(ro pipeline.RolloverStatus, s keymgr.Sight) int {
	switch {
	case strings.Contains(ro.Text, "--"+string(s)):
		return 2
	case s == keymgr.SeeDS && strings.Contains(ro.Text, "DS") && !strings.Contains(ro.Text, "gone"),
		s == keymgr.SeeDSGone && strings.Contains(ro.Text, "gone"):
		return 1
	}
	return 0
}

// KindText says what a kind of rollover exchanges.
func (keysPage) KindText(k keymgr.Kind) string {
	switch k {
	case keymgr.RollZSK:
		return "the zone-signing key (ZSK)"
	case keymgr.RollKSK:
		return "the key-signing key (KSK)"
	case keymgr.RollCSK:
		return "all keys, for a CSK or for KSK and ZSK"
	case keymgr.RollAlgorithm:
		return "all keys, for another algorithm"
	case keymgr.RollSecure:
		return "nothing: have the first DS published"
	case keymgr.RollInsecure:
		return "nothing: have the last DS removed"
	case keymgr.RollForeign:
	}
	return string(k)
}

// SightText says what a sight is.
func (rolloverView) SightText(s keymgr.Sight) string {
	switch s {
	case keymgr.SeeKeys:
		return "all public servers show the DNSKEY RRset"
	case keymgr.SeeSigs:
		return "all public servers show the new signatures"
	case keymgr.SeeDS:
		return "the parent shows the new DS"
	case keymgr.SeeDSGone:
		return "the parent shows the old DS no longer"
	case keymgr.ReportNext:
	}
	return "nothing: let it go on"
}

func keysURL(name string) string { return zoneURL(name) + "/keys" }

// roll begins a rollover.
func roll(v *visit) error {
	q := pipeline.RolloverRequest{
		Kind: keymgr.Kind(v.r.PostFormValue("kind")), Method: keymgr.Method(v.r.PostFormValue("method")),
		Algorithm: v.r.PostFormValue("algorithm"), Emergency: v.r.PostFormValue("emergency") != "",
		Reason: strings.TrimSpace(v.r.PostFormValue("reason")),
	}
	_, err := v.client.Roll(v.ctx(), v.name(), q)
	return v.after(err, fmt.Sprintf("The rollover of %s has begun.", strings.ToUpper(string(q.Kind))), keysURL(v.name()))
}

// abortRollover ends a rollover, or has it go the way back.
func abortRollover(v *visit) error {
	n, err := number(v.r, "rollover")
	if err != nil {
		return err
	}
	_, err = v.client.AbortRollover(v.ctx(), v.name(), api.AbortRollover{Rollover: n, Reason: strings.TrimSpace(v.r.PostFormValue("reason"))})
	return v.after(err, fmt.Sprintf("Rollover %d is aborted.", n), keysURL(v.name()))
}

// reportStep tells what a person has seen.
func reportStep(v *visit) error {
	n, err := number(v.r, "rollover")
	if err != nil {
		return err
	}
	q := pipeline.StepReport{Rollover: n, Seen: keymgr.Sight(v.r.PostFormValue("seen"))}
	if q.Seen == keymgr.SeeDS && v.r.PostFormValue("ttl") != "" {
		ttl, err := number(v.r, "ttl")
		if err != nil {
			return err
		}
		q.TTL = uint32(min(ttl, 1<<31-1))
	}
	_, err = v.client.ReportStep(v.ctx(), v.name(), q)
	return v.after(err, "Reported.", keysURL(v.name()))
}

// number reads a whole number from a form.
func number(r *http.Request, field string) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSpace(r.PostFormValue(field)), 10, 63)
	if err != nil {
		return 0, fmt.Errorf("%w: %s %q is no number", errForm, field, r.PostFormValue(field))
	}
	return n, nil
}
