package simulate

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
)

// timeline collects the lines of a moment, so that the last of each rollover
// can say what comes next.
type timeline struct {
	fn  func(Line) error
	now []Line
	// wanted is the number of the newest version with other keys that not all
	// servers have; 0 where they do.
	wanted int
}

func (t *timeline) add(l Line) { t.now = append(t.now, l) }

// flush hands the lines on.
func (t *timeline) flush() error {
	for _, l := range t.now {
		if err := t.fn(l); err != nil {
			return err
		}
	}
	t.now = t.now[:0]
	return nil
}

// sign tells of the versions that were published since it last did, with
// nothing but fresh signatures.
func (t *timeline) sign(now time.Time, s *signatures) {
	if s.runs == 0 {
		return
	}
	text := fmt.Sprintf("%d versions with fresh signatures since %s, %d in each", s.runs, rfc(s.since), s.runLeast)
	switch {
	case s.runs == 1:
		text = fmt.Sprintf("a version with %d fresh signatures at %s", s.runMade, rfc(s.since))
	case s.runMax > s.runLeast:
		text = fmt.Sprintf("%d versions with fresh signatures since %s, %d to %d in each", s.runs, rfc(s.since), s.runLeast, s.runMax)
	}
	t.add(Line{Time: now, Kind: KindSigning, Text: text})
	s.runs, s.runMade, s.runLeast, s.runMax = 0, 0, 0, 0
}

// everywhere tells that all public servers have a version with new keys.
func (t *timeline) everywhere(r *run, newest int) {
	if t.wanted == 0 || newest < t.wanted {
		return
	}
	v := r.versions[t.wanted]
	t.wanted = 0
	t.add(Line{
		Time: r.now, Kind: KindWorld, Text: fmt.Sprintf("all public servers show serial %d", v.serial),
		Next: "caches may hold what was before until its TTLs have run out",
	})
}

// tell makes lines of an event.
func (r *run) tell(before pipeline.State, ev event.Event) {
	l := Line{Time: r.now, Kind: KindEvent, Type: ev.Type}
	switch f := ev.Facts.(type) {
	case *event.InstancePublished:
		r.tellPublished(before, l)
		return
	case *event.PolicyBound, *event.InstanceLoaded, *event.InstanceSigned, *event.ReviewApproved:
		return
	case *event.RolloverStarted:
		l.Rollover, l.Of, l.Why = r.number(ev.N), keymgr.Kind(f.Kind), r.lives.replace(f.Reason)
		l.Text = fmt.Sprintf("rollover %d of %s begins by %s: %s", l.Rollover, f.Kind, f.Method, r.lives.exchange(f.Old, f.New))
		if f.Start == 0 {
			ro, _ := r.state.Keys.Rollover(ev.N)
			l.Step, l.Next = 1, ro.StepText()
		}
	case *event.RolloverAdvanced:
		r.advanced(&l, before, f)
	case *event.RolloverCompleted:
		ro, _ := before.Keys.Rollover(f.Rollover)
		l.Rollover, l.Of = r.number(f.Rollover), ro.Kind
		l.Text = fmt.Sprintf("rollover %d of %s is done", l.Rollover, ro.Kind)
	case *event.RolloverAborted:
		ro, _ := before.Keys.Rollover(f.Rollover)
		l.Rollover, l.Of, l.Why = r.number(f.Rollover), ro.Kind, r.lives.replace(f.Reason)
		l.Text = fmt.Sprintf("rollover %d of %s is aborted", l.Rollover, ro.Kind)
		if f.Step != 0 {
			l.Step = int(f.Step) //nolint:gosec // small
			l.Text += fmt.Sprintf(", it goes the way back from step %d, %s", f.Step, f.Name)
		}
	case *event.KeyGenerated:
		l.Text = "made " + r.lives.described(f.Keys)
	case *event.DSObserved:
		l.Text = "seen at the parent: " + r.lives.sets(f.Sets)
	default:
		l.Text = r.lives.replace(pipeline.Describe(ev))
		ids := event.KeyIDs(f)
		if submitted, ok := f.(*event.DSSubmitted); ok {
			ids = submitted.IDs
		}
		if len(ids) > 0 {
			if i := slices.IndexFunc(before.Keys.Rollovers, func(ro keymgr.Rollover) bool { return ro.Concerns(ids[0]) }); i >= 0 {
				l.Rollover, l.Of = r.number(before.Keys.Rollovers[i].ID), before.Keys.Rollovers[i].Kind
			}
		}
	}
	r.out.sign(r.now, &r.sigs)
	r.out.add(l)
}

// advanced tells how a rollover goes on.
func (r *run) advanced(l *Line, before pipeline.State, f *event.RolloverAdvanced) {
	ro, _ := r.state.Keys.Rollover(f.Rollover)
	was, _ := before.Keys.Rollover(f.Rollover)
	l.Rollover, l.Of, l.Step, l.Wait = r.number(ro.ID), ro.Kind, ro.Step, f.Wait
	head := fmt.Sprintf("rollover %d of %s, step %d of %d, %s: ", l.Rollover, ro.Kind, ro.Step, ro.Steps(), f.Name)
	switch {
	case f.Lost != "":
		l.Text, l.Why = head+"what was seen is not so any more, the wait begins anew", f.Lost
	case f.Reported == string(keymgr.ReportNext):
		l.Text = head + "a person lets it go on"
	case f.Reported != "":
		l.Text = head + "a person reports " + f.Reported
	case f.Seen != 0:
		l.Text, l.Why = head+"seen everywhere", sightWords(was.Needs())
		if len(was.Needs()) == 0 {
			l.Text = head + "the wait grows"
		}
	default:
		l.Text = head + ro.StepText()
		if was.Wait != nil {
			l.Why = "the wait is over, " + keymgr.WaitText(was.Wait)
		}
	}
}

func sightWords(sights []keymgr.Sight) string {
	words := make([]string, 0, len(sights))
	for _, s := range sights {
		words = append(words, string(s))
	}
	return strings.Join(words, ", ")
}

// tellPublished tells of a version with other keys than the one before, and
// counts the others.
func (r *run) tellPublished(before pipeline.State, l Line) {
	f := r.state.Published.Signed.Facts
	if p := before.Published; p != nil {
		was := p.Signed.Facts
		if slices.Equal(was.Keys, f.Keys) && slices.Equal(was.Signers, f.Signers) && slices.Equal(was.CDS, f.CDS) {
			r.sigs.refreshed(r.now, int(f.Made)) //nolint:gosec // few
			return
		}
	}
	l.Text = fmt.Sprintf("published: serial %d, DNSKEY %s, signed by %s, %d of %d signatures new", f.Serial, r.lives.list(f.Keys), r.lives.list(f.Signers), f.Made, f.Signatures)
	switch {
	case slices.Equal(f.CDS, []string{event.CDSDelete}):
		l.Text += ", CDS delete"
	case len(f.CDS) > 0:
		l.Text += ", CDS " + r.lives.list(f.CDS)
	}
	if x := f.Exchange; x != nil {
		l.Next, l.NextAt = fmt.Sprintf("the signatures of %d RRsets are replaced, slice by slice", r.state.Served.Left), new(time.Unix(x.Until, 0).UTC())
	}
	r.out.sign(r.now, &r.sigs)
	r.out.add(l)
	r.out.wanted = len(r.versions)
}

// refreshed counts a version with nothing but fresh signatures.
func (s *signatures) refreshed(now time.Time, made int) {
	if s.runs == 0 {
		s.since, s.runLeast = now, made
	}
	s.runs, s.runMade, s.runLeast, s.runMax = s.runs+1, s.runMade+made, min(s.runLeast, made), max(s.runMax, made)
}

// whatNext lets the last line of each rollover say what comes next.
func (r *run) whatNext() {
	if len(r.out.now) == 0 {
		return
	}
	rolling := r.state.Rolling(r.set.Policy, r.view())
	told := map[uint64]bool{}
	for i := len(r.out.now) - 1; i >= 0; i-- {
		l := &r.out.now[i]
		if l.Kind != KindEvent || l.Rollover == 0 || told[l.Rollover] {
			continue
		}
		told[l.Rollover] = true
		at := slices.IndexFunc(rolling, func(s pipeline.RolloverStatus) bool { return r.number(s.ID) == l.Rollover })
		if at < 0 {
			l.Next, l.NextAt = r.nextDue()
			continue
		}
		s := rolling[at]
		l.Next, l.NextAt, l.Person = r.lives.replace(s.Text), s.Until, s.Phase == keymgr.PhasePerson
	}
}

// nextDue is the rollover that the age of keys asks for next.
func (r *run) nextDue() (text string, at *time.Time) {
	for _, due := range r.state.Dues(r.set.Policy, r.view()) {
		if at == nil || due.At.Before(*at) {
			t := due.At
			text, at = fmt.Sprintf("a rollover of %s, %s", due.Kind, r.lives.replace(due.Reason)), &t
			if !due.Auto {
				text += "; a person is to begin it"
			}
		}
	}
	return text, at
}
