package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
)

// zonePage is what every page of a zone shows above its own part.
type zonePage struct {
	Zone  pipeline.ZoneStatus
	Group group
	Tab   string
	// Now is the page of the moment.
	Stages  []stage
	Notices []pipeline.Notice
	Reviews []reviewView
	// Proposals is what waits for a second person.
	Proposals []proposalView
	Facts     []fact
}

// proposalView is a proposal, and what can be done about it here.
type proposalView struct {
	pipeline.ProposalStatus
	Role  string // by which it is taken back
	Below bool   // somebody else agrees in its review
	Plan  string // or on this page; "" for nowhere
}

func viewProposal(z pipeline.ZoneStatus, p pipeline.ProposalStatus) proposalView {
	out := proposalView{ProposalStatus: p, Role: string(api.RoleOperator)}
	switch p.Action {
	case event.ProposeApprove:
		out.Role = string(api.RoleReviewer)
		out.Below = slices.ContainsFunc(z.Reviews, func(rv pipeline.ReviewStatus) bool { return rv.Instance == p.Instance })
	case event.ProposeOverride:
		out.Below = slices.ContainsFunc(z.Reviews, func(rv pipeline.ReviewStatus) bool { return rv.Instance == p.Instance && rv.State == "halted" })
	case event.ProposeRollback:
		out.Plan = zoneURL(z.Name) + "/rollback?to=" + p.Instance
	}
	return out
}

// fact is one line of what a zone is.
type fact struct {
	Name  string
	Text  string
	At    *time.Time
	Since bool // At is when it began
	Bad   bool
}

// reviewView is a review with what it is to be compared with.
type reviewView struct {
	pipeline.ReviewStatus
	// From is what is published, at the same stage; "" where nothing is.
	From    string
	Lines   []pipeline.DiffLine
	More    bool
	Problem string // why there is no diff
}

// Halted reports whether it halted the zone.
func (r reviewView) Halted() bool { return r.State == "halted" }

// ByHand reports whether a person may approve it: else hooks are asked.
func (r reviewView) ByHand() bool {
	for _, a := range r.Actions {
		if strings.Contains(a, " approve ") {
			return true
		}
	}
	return false
}

// name is the zone that the path names.
func (v *visit) name() string { return zoneArg(v.r.PathValue("zone")) }

// now is what the daemon's clock shows.
func (v *visit) now() time.Time {
	if clock, err := v.client.Clock(v.ctx()); err == nil {
		return clock.Now
	}
	return time.Now()
}

// zone reads a zone's status for a page of it.
func (v *visit) zone(tab string) (zonePage, error) {
	st, err := v.client.Zone(v.ctx(), v.name())
	if err != nil {
		return zonePage{}, err
	}
	return zonePage{Zone: st, Group: groupOf(st.ZoneSummary), Tab: tab}, nil
}

// previewLines is how much of a diff stands beside a review.
const previewLines = 60

// zoneNow is a zone's first page: how it is, and what a person can do.
func zoneNow(v *visit) error {
	p, err := v.zone("now")
	if err != nil {
		return err
	}
	p.Stages = stagesOf(p.Zone)
	p.Notices = byRank(p.Zone.Notices)
	p.Facts = factsOf(p.Zone)
	for _, rv := range p.Zone.Reviews {
		p.Reviews = append(p.Reviews, v.review(p.Zone, rv))
	}
	for _, proposed := range p.Zone.Proposals {
		p.Proposals = append(p.Proposals, viewProposal(p.Zone, proposed))
	}
	v.render(http.StatusOK, "zone", titleOf(p.Zone.Name), p)
	return nil
}

// titleOf is a zone's name for a window's title.
func titleOf(name string) string {
	if other := unicodeName(name); other != "" {
		return clean(other)
	}
	if name == "." {
		return "the root"
	}
	return strings.TrimSuffix(name, ".")
}

// maxComing bounds what is told of what comes.
const maxComing = 4

// factsOf says in short lines what a zone is, waits for and does next.
func factsOf(z pipeline.ZoneStatus) []fact {
	out := []fact{{Name: "Waits for", Text: z.WaitsFor, At: z.Since, Since: true}}
	for i, c := range z.Coming[:min(len(z.Coming), maxComing)] {
		name := "Next"
		if i > 0 {
			name = "Then"
		}
		out = append(out, fact{Name: name, Text: c.Text, At: &c.At})
	}
	if z.NextExpiry != nil {
		out = append(out, fact{Name: "Signatures end", At: z.NextExpiry})
	}
	if x := z.Exchange; x != nil {
		out = append(out, fact{Name: "Signatures replaced", Text: fmt.Sprintf("%s of %s are left, of keys that sign no longer; done", num(x.Left), plural(x.RRsets, "RRset")), At: &x.Until})
	}
	out = append(out, fact{Name: "Catalog", Text: catalogText(z)}, updatesFact(z.Updates))
	if o := z.Observation; o != nil {
		f := fact{Name: "Seen from outside", Text: o.Text}
		if !o.At.IsZero() {
			f.At = &o.At
		}
		out = append(out, f)
	}
	if p := z.Probe; p != nil {
		out = append(out, fact{Name: "Resolvers", Text: p.Text, At: p.At})
	}
	if t := z.ParentTold; t != nil {
		text := "has what it is to have"
		if !t.Settled {
			text = "is to be told: " + map[string]string{"ds-ready": "the DS is ready", "ds-gone": "the DS is to go"}[t.Event]
		}
		out = append(out, fact{Name: "Parent", Text: text, At: &t.Since, Since: true})
	}
	if !slices.ContainsFunc(z.Notices, func(n pipeline.Notice) bool { return strings.Contains(n.Text, z.LastError) }) {
		out = append(out, fact{Name: "Last error", Text: z.LastError, Bad: true})
	}
	return slices.DeleteFunc(out, func(f fact) bool { return f.Text == "" && (f.At == nil || f.Since) })
}

// catalogText says what a zone has to do with catalogs.
func catalogText(z pipeline.ZoneStatus) string {
	m := z.Member
	switch {
	case z.Catalog != "":
		return "it is one, " + z.Catalog + ": sluice catalog show " + z.Name
	case m == nil:
		return ""
	case m.RemovalAt != nil:
		return m.Catalog + " lists it no more"
	case m.Group != "":
		return fmt.Sprintf("%s lists it in group %q", m.Catalog, m.Group)
	}
	return m.Catalog + " lists it"
}

// updatesFact tells what dynamic updates did to a zone.
func updatesFact(u *pipeline.UpdatesStatus) fact {
	f := fact{Name: "Updates"}
	if u == nil {
		return f
	}
	f.Text = num(u.Taken) + " taken since the source was read"
	if u.Waiting > 0 {
		f.Text += ", " + num(u.Waiting) + " wait"
	}
	if u.LastAt != nil {
		f.Text, f.At = f.Text+"; the last by key "+u.LastKey, u.LastAt
	}
	return f
}

// errEnough ends a walk that has seen what it wanted.
var errEnough = errors.New("enough")

// review compares what is under review with what is published.
func (v *visit) review(z pipeline.ZoneStatus, rv pipeline.ReviewStatus) reviewView {
	out := reviewView{ReviewStatus: rv}
	if z.Published == nil {
		return out
	}
	out.From = z.Published.Instance
	if rv.Stage == stageLoaded {
		out.From = v.publishedLoaded(z.Published.Instance)
	}
	if out.From == "" {
		return out
	}
	err := v.client.Diff(v.ctx(), z.Name, out.From, rv.Instance, func(l pipeline.DiffLine) error {
		if len(out.Lines) == previewLines {
			out.More = true
			return errEnough
		}
		out.Lines = append(out.Lines, shortened(l))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		out.Problem = err.Error()
	}
	return out
}

// The stages of a review.
const (
	stageLoaded = "loaded"
	stageSigned = "signed"
)

// publishedLoaded is the loaded instance behind what is published; "" where
// that is not known.
func (v *visit) publishedLoaded(signed string) string {
	seq, err := strconv.ParseUint(strings.TrimPrefix(signed, "s"), 10, 63)
	if err != nil {
		return ""
	}
	var made versionFacts
	q := pipeline.HistoryQuery{Types: []string{"instance.signed"}, Before: seq + 1, Limit: 1}
	err = v.client.History(v.ctx(), v.name(), q, func(e api.Event) error {
		if e.Seq == seq {
			readEvent(e, &made) // what cannot be read names nothing
		}
		return nil
	})
	if err != nil || made.Facts.Loaded == 0 {
		return ""
	}
	return fmt.Sprintf("l%d", made.Facts.Loaded)
}

// act does what one of the buttons of a zone says.
func act(v *visit) error {
	name, action, ctx := v.name(), v.r.PathValue("action"), v.ctx()
	reason, full := strings.TrimSpace(v.r.PostFormValue("reason")), v.r.PostFormValue("full") != ""
	to := zoneURL(name)
	switch action {
	case "reload":
		return v.after(v.client.Reload(ctx, name, full), "The source is being loaded.", to)
	case "resign":
		return v.after(v.client.Resign(ctx, name, full), "The zone is being signed.", to)
	case "notify":
		return v.after(v.client.NotifySecondaries(ctx, name), "The secondaries are being told.", to)
	case "reset":
		_, err := v.client.Reset(ctx, name, pipeline.NewDecision{Reason: reason, Instance: v.r.PostFormValue("instance")})
		return v.after(err, "The halt is over, what led to it is dropped.", to)
	case "release":
		_, err := v.client.Release(ctx, name, reason)
		return v.after(err, "The zone follows its source again.", to)
	case "recall":
		proposed := pipeline.ProposalStatus{Action: v.r.PostFormValue("proposed"), Stage: v.r.PostFormValue("stage")}
		_, err := v.client.Recall(ctx, name, proposed, reason)
		return v.after(err, "The proposal is taken back.", to)
	}
	return notFound(v)
}

// after shows an error, or goes on with a sentence.
func (v *visit) after(err error, text, to string) error {
	if err != nil {
		return err
	}
	return v.done(text, to)
}

func observe(v *visit) error {
	_, err := v.client.Observe(v.ctx(), v.name())
	return v.after(err, "The zone's public servers and its parent were asked.", zoneURL(v.name()))
}

func maintenance(v *visit) error {
	enable := v.r.PathValue("switch") == "enable"
	text := "Maintenance has ended."
	if enable {
		text = "Maintenance: new work on the zone is blocked."
	}
	_, err := v.client.SetMaintenance(v.ctx(), v.name(), api.SetMaintenance{Enabled: enable, Reason: v.r.PostFormValue("reason")})
	return v.after(err, text, zoneURL(v.name()))
}

// verdict gives a verdict on what the person was shown: the form carries the
// instance and its digest.
func verdict(v *visit) error {
	name, stage, reason := v.name(), v.r.PathValue("stage"), strings.TrimSpace(v.r.PostFormValue("reason"))
	given := pipeline.NewVerdict{Instance: v.r.PostFormValue("instance"), Digest: v.r.PostFormValue("digest"), Reason: reason}
	give := map[string]struct {
		do   func(context.Context, string, string, pipeline.NewVerdict) (pipeline.ZoneStatus, error)
		text string
	}{
		"approve": {v.client.Approve, "Approved"},
		"reject":  {v.client.Reject, "Rejected"},
		"override": {func(ctx context.Context, name, stage string, n pipeline.NewVerdict) (pipeline.ZoneStatus, error) {
			return v.client.Override(ctx, name, stage, pipeline.NewDecision{Reason: n.Reason, Instance: n.Instance})
		}, "Overridden"},
	}
	g, ok := give[v.r.PostFormValue("verdict")]
	if !ok {
		return fmt.Errorf("%w: the verdict is neither approve, reject nor override", errForm)
	}
	st, err := g.do(v.ctx(), name, stage, given)
	if err != nil {
		return err
	}
	for _, p := range st.Proposals {
		if p.Action == v.r.PostFormValue("verdict") && p.Stage == stage && p.Instance == given.Instance {
			return v.done(fmt.Sprintf("Proposed: %s %s. It takes effect once a second person asks for the same.", p.Action, p.Instance), zoneURL(name))
		}
	}
	return v.done(fmt.Sprintf("%s: %s.", g.text, given.Instance), zoneURL(name))
}
