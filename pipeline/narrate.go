package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/store"
)

// narrator tells the events of zones as sentences that know what came before:
// which keys and rollovers an event is about, and what comes next. It folds the
// keys of the zones that it reads.
type narrator struct {
	e      *Engine
	closed bool // what is sealed is left out
	lives  bool // events are told as they are folded
	all    map[event.ZoneID]keymgr.KeySet
}

// maxNarrated bounds the zones whose keys are kept while all are followed.
const maxNarrated = 1000

// newNarrator tells events that are read from each zone's first on.
func (e *Engine) newNarrator(closed bool) *narrator {
	return &narrator{e: e, closed: closed, all: map[event.ZoneID]keymgr.KeySet{}}
}

// pass takes note of an event.
func (n *narrator) pass(rec journal.Record) {
	if keyMatter(rec.Event) {
		n.all[rec.Event.Zone] = keymgr.Evolve(n.all[rec.Event.Zone], rec.Event)
	}
}

// line takes note of an event and makes it readable.
func (n *narrator) line(rec journal.Record) HistoryLine {
	l := n.e.line(rec, n.closed)
	if !keyMatter(rec.Event) {
		return l
	}
	before := n.all[rec.Event.Zone]
	n.pass(rec)
	l.Text, l.Next = Narrate(shown(rec, n.closed).Event, before, n.all[rec.Event.Zone], l.Zone)
	return l
}

// catchUp reads what a zone's keys were before an event, where that is the first
// that is told of the zone.
func (n *narrator) catchUp(ctx context.Context, rec journal.Record) error {
	if _, ok := n.all[rec.Event.Zone]; ok || !keyMatter(rec.Event) {
		return nil
	}
	if len(n.all) >= maxNarrated {
		clear(n.all)
	}
	n.all[rec.Event.Zone] = keymgr.KeySet{}
	if rec.Event.N <= 1 || rec.Seq <= 1 {
		return nil
	}
	if before, ok := n.folded(ctx, rec.Seq); ok {
		n.all[rec.Event.Zone] = before
		return nil
	}
	p, err := n.e.past(ctx, rec.Event.Zone)
	if err != nil {
		return err
	}
	return n.passAll(ctx, p, rec.Seq-1)
}

// waitFolded is how long an event waits to be told until it is folded.
const waitFolded = 10 * time.Second

// folded is what the keys of an event's zone were before it, where it was folded
// lately, or is folded soon.
func (n *narrator) folded(ctx context.Context, seq uint64) (keymgr.KeySet, bool) {
	if !n.lives || n.e.Trouble() != nil {
		return keymgr.KeySet{}, false
	}
	ctx, done := context.WithTimeout(ctx, waitFolded)
	defer done()
	if n.e.awaitFold(ctx, seq) != nil {
		n.lives = false // the fold is far behind, or stands
		return keymgr.KeySet{}, false
	}
	return n.e.recent.of(seq)
}

// before reads what the keys were before events that are to be told, where one
// of them is about keys. last is the sequence of the last such one: those about
// keys up to it have to be passed, too; 0 where there is none.
func (n *narrator) before(ctx context.Context, p *past, told store.EventFilter) (last uint64, err error) {
	told.Keys, told.Newest, told.Max = true, true, 1
	refs, err := p.find(told)
	if err != nil || len(refs) == 0 {
		return 0, err
	}
	return refs[0].Seq, n.passAll(ctx, p, told.From-1)
}

// passAll takes note of what was before.
func (n *narrator) passAll(ctx context.Context, p *past, upTo uint64) error {
	return p.each(ctx, store.EventFilter{UpTo: upTo, Keys: true}, func(_ store.EventRef, rec journal.Record) error {
		n.pass(rec)
		return nil
	})
}

// keyMatter reports whether an event is about keys, rollovers or the parent.
func keyMatter(ev event.Event) bool { return ev.Zone != event.Instance && event.OfKeys(ev.Type) }

// Narrate tells an event about keys, rollovers or the parent: what happened and
// why, and what comes next, "" where nothing does. before and after are the
// zone's keys before and after the event.
func Narrate(ev event.Event, before, after keymgr.KeySet, zone string) (text, next string) {
	text = Describe(ev)
	if id := rolloverOf(ev); id != 0 {
		r, ok := after.Rollover(id)
		if !ok {
			r, ok = before.Rollover(id)
		}
		if ok {
			text = inRollover(ev, text, r)
		}
	}
	return withNames(text, before, after), nextOf(ev, before, after, zone)
}

// rolloverOf is the number of the rollover that an event is about; 0 for none.
func rolloverOf(ev event.Event) uint64 {
	switch f := ev.Facts.(type) {
	case *event.RolloverStarted:
		return ev.N
	case *event.RolloverAdvanced:
		return f.Rollover
	case *event.RolloverCompleted:
		return f.Rollover
	case *event.RolloverAborted:
		return f.Rollover
	}
	return 0
}

// inRollover says of which kind the rollover is, and at which of its steps.
func inRollover(ev event.Event, text string, r keymgr.Rollover) string {
	number := fmt.Sprintf("rollover %d", r.ID)
	rest, ok := strings.CutPrefix(text, number)
	if _, started := ev.Facts.(*event.RolloverStarted); !ok || started {
		return text
	}
	if f, ok := ev.Facts.(*event.RolloverAdvanced); ok {
		step := fmt.Sprintf(", step %d, ", f.Step)
		if tail, ok := strings.CutPrefix(rest, step); ok {
			rest = fmt.Sprintf(", step %d of %d, %s", f.Step, r.Steps(), tail)
		}
		if tail := f.Name + " begins"; strings.HasSuffix(rest, tail) {
			rest = strings.TrimSuffix(rest, tail) + f.Name + ", begins: " + r.StepText()
		}
	}
	return fmt.Sprintf("%s of %s%s", number, r.Kind, rest)
}

// withNames puts role and tag before the IDs of keys.
func withNames(text string, sets ...keymgr.KeySet) string {
	var pairs []string
	seen := map[string]bool{}
	for _, ks := range sets {
		for _, k := range ks.Keys {
			if seen[k.ID] || !strings.Contains(text, k.ID) || strings.Contains(text, " "+k.ID+" (tag ") {
				continue
			}
			seen[k.ID] = true
			pairs = append(pairs, k.ID, fmt.Sprintf("%s %s (tag %d)", strings.ToUpper(k.Role), k.ID, k.Tag))
		}
	}
	if len(pairs) == 0 {
		return text
	}
	text = strings.NewReplacer(pairs...).Replace(text)
	for _, role := range []string{"KSK", "ZSK", "CSK"} {
		text = strings.ReplaceAll(text, "key "+role+" ", role+" ")
	}
	return text
}

// nextOf tells what comes after an event.
func nextOf(ev event.Event, before, after keymgr.KeySet, zone string) string {
	switch f := ev.Facts.(type) {
	case *event.RolloverStarted:
		return outlook(after, ev.N)
	case *event.RolloverAdvanced:
		return outlook(after, f.Rollover)
	case *event.RolloverAborted:
		if f.Step == 0 {
			return "the keys from before go on; what comes: sluice key plan " + zone
		}
		return outlook(after, f.Rollover)
	case *event.RolloverCompleted:
		r, _ := before.Rollover(f.Rollover)
		switch r.Kind {
		case keymgr.RollSecure:
			return "validators follow the DS; keys are exchanged as the policy says, see: sluice key plan " + zone
		case keymgr.RollInsecure:
			return "the zone may be published unsigned: signer.mode in its policy"
		case keymgr.RollZSK, keymgr.RollKSK, keymgr.RollCSK, keymgr.RollAlgorithm, keymgr.RollForeign:
		}
		return "nothing of it is left to do; what comes: sluice key plan " + zone
	case *event.DSSubmitted:
		text := "the parent follows CDS, or takes what sluice key ds " + zone + " prints"
		if !f.CDS {
			text = "hand the parent what sluice key ds " + zone + " prints"
		}
		return text + waitingFor(after, keymgr.SeeDS)
	case *event.DSWithdrawn:
		text := "the parent follows CDS, or removes its DS by hand"
		if !f.CDS {
			text = "have the parent remove its DS"
		}
		return text + waitingFor(after, keymgr.SeeDSGone)
	case *event.DSObserved:
		for _, r := range after.Rollovers {
			if needs := r.Needs(); slices.Contains(needs, keymgr.SeeDS) || slices.Contains(needs, keymgr.SeeDSGone) {
				return fmt.Sprintf("rollover %d of %s looks whether that is what it waits for", r.ID, r.Kind)
			}
		}
		return ""
	case *event.DSPushed:
		if f.Error != "" {
			return "it is tried again, less and less often; by hand: sluice key ds " + zone
		}
		return "the parent's servers are asked whether they have it" + waitingFor(after, keymgr.SeeDS) + waitingFor(after, keymgr.SeeDSGone)
	case *event.DSNotified:
		if f.Error != "" {
			return "it is tried again, less and less often"
		}
	case *event.HookRan:
		if f.Error != "" {
			return "it runs again, less and less often"
		}
	}
	return nextOfKeys(ev, after, zone)
}

func outlook(ks keymgr.KeySet, id uint64) string {
	r, ok := ks.Rollover(id)
	if !ok {
		return ""
	}
	return r.Outlook()
}

// waitingFor names the rollover that waits for a sight.
func waitingFor(ks keymgr.KeySet, sight keymgr.Sight) string {
	for _, r := range ks.Rollovers {
		if slices.Contains(r.Needs(), sight) {
			return fmt.Sprintf("; rollover %d of %s waits for it", r.ID, r.Kind)
		}
	}
	return ""
}

// nextOfKeys tells what comes after an event about keys.
func nextOfKeys(ev event.Event, after keymgr.KeySet, zone string) string {
	const version = "the next version of the zone has it so"
	switch f := ev.Facts.(type) {
	case *event.KeyGenerated, *event.KeyImported:
		if len(after.Signing()) == 0 {
			return "they prove themselves, and the zone is signed with them"
		}
		return "they wait until a rollover puts them to use: sluice key roll " + zone
	case *event.KeyPublished:
		return version + partOf(after, f.IDs)
	case *event.KeyActivated:
		return version + partOf(after, f.IDs)
	case *event.KeyIntroduced:
		return version + partOf(after, f.IDs)
	case *event.KeyWithdrawn:
		return version + partOf(after, f.IDs)
	case *event.KeyRetired:
		return "published until no cache needs it" + partOf(after, f.IDs)
	case *event.KeyRemoved:
		return version + "; the private part is deleted when the policy says (key-manager.auto-remove-delay)"
	case *event.KeyAdopted:
		return "rollovers go on from there: sluice key status " + zone
	case *event.KeyExported:
		return "who has it can sign for the zone: exchange the key unless that is meant"
	}
	return ""
}

// partOf names the rollover that keys take part in.
func partOf(ks keymgr.KeySet, ids []string) string {
	for _, r := range ks.Rollovers {
		if slices.ContainsFunc(ids, r.Concerns) {
			return fmt.Sprintf("; part of rollover %d of %s", r.ID, r.Kind)
		}
	}
	return ""
}
