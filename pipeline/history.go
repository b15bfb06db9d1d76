package pipeline

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
)

// History calls fn for a zone's events, newest last. Those of the whole
// instance that concern the zone are among them. It reads those that it tells
// from the journal, and where one of them is about keys those about keys before.
func (e *Engine) History(ctx context.Context, name string, q HistoryQuery, fn func(HistoryLine) error) error {
	ids, err := e.lives(ctx, name)
	if err != nil {
		return err
	}
	p, err := e.past(ctx, ids...)
	if err != nil {
		return err
	}
	asked := store.EventFilter{UpTo: math.MaxUint64, Match: q.matches}
	if q.Before > 0 {
		asked.UpTo = q.Before - 1
	}
	if asked.From, err = p.begin(asked, q.Limit); err != nil || asked.From == 0 {
		return err
	}
	n := e.newNarrator(q.Closed)
	told, err := n.before(ctx, p, asked)
	if err != nil {
		return err
	}
	read := asked
	read.Match = func(r store.EventRef) bool { return q.matches(r) || r.OfKeys() && r.Seq < told }
	return p.each(ctx, read, func(r store.EventRef, rec journal.Record) error {
		if !q.matches(r) {
			n.pass(rec)
			return nil
		}
		return fn(q.evident(rec, n.line(rec)))
	})
}

// evident is the line with the event's evidence, where that is asked for.
func (q HistoryQuery) evident(rec journal.Record, l HistoryLine) HistoryLine {
	if q.Evidence {
		l.Evidence = Evidence(shown(rec, q.Closed).Event)
	}
	return l
}

// matches reports whether an event is asked for, wherever it stands.
func (q HistoryQuery) matches(r store.EventRef) bool {
	return (q.Since.IsZero() || !r.Time.Before(q.Since)) && (q.Until.IsZero() || !r.Time.After(q.Until)) &&
		(len(q.Types) == 0 || slices.Contains(q.Types, r.Type))
}

// Tail calls fn for events as they come, from a sequence on (0: new ones
// only), of one zone or, with an empty name, of all. It ends with ctx. closed
// leaves out what is sealed.
func (e *Engine) Tail(ctx context.Context, name string, from uint64, closed bool, fn func(HistoryLine) error) error {
	var id event.ZoneID
	if name != "" {
		var err error
		if id, err = e.historyID(ctx, name); err != nil {
			return err
		}
	}
	if from == 0 {
		_, last, err := e.journal.Stream(ctx)
		if err != nil {
			return err
		}
		from = last + 1
	}
	n := e.newNarrator(closed)
	n.lives = true
	defer e.recent.follow()()
	return e.journal.Follow(ctx, "", from, nil, func(rec journal.Record) error {
		if r, _ := store.RefOf(rec); id != "" && r.Zone != id {
			return nil
		}
		if err := n.catchUp(ctx, rec); err != nil {
			return err
		}
		return fn(n.line(rec))
	})
}

// SeqAt is the first sequence whose event was decided at or after t.
func (e *Engine) SeqAt(ctx context.Context, t time.Time) (uint64, error) {
	_, last, err := e.journal.Stream(ctx)
	if err != nil {
		return 0, err
	}
	seq := last + 1
	found := fmt.Errorf("found")
	err = e.journal.Read(ctx, "", 1, last, func(rec journal.Record) error {
		if !rec.Event.Time.Before(t) {
			seq = rec.Seq
			return found
		}
		return nil
	})
	if err != nil && err != found { //nolint:errorlint // this very value
		return 0, err
	}
	return seq, nil
}

// line makes an event readable; closed leaves out what is sealed.
func (e *Engine) line(rec journal.Record, closed bool) HistoryLine {
	sealed := sealedNotes(rec, closed)
	rec = shown(rec, closed)
	name := e.zoneName(rec.Event.Zone)
	switch f := rec.Event.Facts.(type) {
	case *event.ZoneAdded:
		name = f.Name
	case *event.ZoneRemoved:
		name = f.Name
	}
	return HistoryLine{
		Seq: rec.Seq, Time: rec.Event.Time, Zone: name, Type: rec.Event.Type,
		Actor: rec.Event.Actor.Name, Door: rec.Event.Actor.Door, Role: rec.Event.Actor.Role,
		Text: Describe(rec.Event), Sealed: sealed, Event: rec.Line,
	}
}

// Describe tells an event as a sentence.
func Describe(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.ZoneAdded:
		return fmt.Sprintf("zone added, source %s, policy %s", f.Source, f.Policy) + because(f.Reason)
	case *event.ZoneRemoved:
		return "zone removed; its history and keys stay" + because(f.Reason)
	case *event.ZoneChanged:
		return "source is now " + f.Source + because(f.Reason)
	case *event.PolicyBound:
		return fmt.Sprintf("policy %s bound (sha256 %x)", f.Policy, f.SHA256[:4]) + because(f.Reason)
	case *event.LoadFailed:
		return "load failed: " + oneLine(f.Reason)
	case *event.InstanceLoaded:
		from := f.Source
		if f.Rollback != 0 {
			return fmt.Sprintf("content of l%d taken back: serial %d, %d records, %d added, %d removed",
				f.Rollback, f.Serial, f.Records, f.Added, f.Removed)
		}
		if f.Transfer == event.ByUpdate {
			return loadedByUpdate(f)
		}
		if f.Peer != "" {
			from = f.Peer + " by " + f.Transfer
		}
		return fmt.Sprintf("loaded from %s: serial %d, %d records, %d added, %d removed%s",
			from, f.Serial, f.Records, f.Added, f.Removed, stripped(f.Stripped))
	case *event.InstanceSigned:
		if f.Mode != "" {
			return fmt.Sprintf("l%d to be published %s: serial %d, %d records, %d signatures of the source (%d verified)",
				f.Loaded, f.Mode, f.Serial, f.Records, f.Signatures, f.Verified)
		}
		return fmt.Sprintf("l%d signed: serial %d, %d records, %d signatures (%d made, %d kept), %s, valid until %s",
			f.Loaded, f.Serial, f.Records, f.Signatures, f.Made, f.Reused, f.Denial,
			time.Unix(f.Expiration, 0).UTC().Format(time.RFC3339)) + PartsText(f.Parts) + describeExchange(f)
	case *event.SignFailed:
		return fmt.Sprintf("%s of l%d failed: %s", f.Stage, f.Loaded, f.Reason)
	case *event.InstancePublished:
		return fmt.Sprintf("s%d published: serial %d", f.Signed, f.Serial)
	case *event.InstanceFetched:
		parts := make([]string, 0, len(f.Fetches))
		for _, fetch := range f.Fetches {
			parts = append(parts, fetchText(fetch))
		}
		return "fetched by " + strings.Join(parts, "; by ")
	case *event.SerialRaised:
		return fmt.Sprintf("serials stand above %d from here on", f.Floor)
	case *event.TSIGAdded:
		return fmt.Sprintf("TSIG key %s added, %s", f.Name, f.Algorithm)
	case *event.TSIGRemoved:
		return fmt.Sprintf("TSIG key %s removed", f.Name)
	case *event.KeystoreAdded:
		return keystoreAddedText(f)
	case *event.KeystoreRemoved:
		return fmt.Sprintf("keystore %s removed; its keys stay where they are", f.Name)
	case *event.WorkerEnrolled:
		return fmt.Sprintf("worker %s enrolled for %s", f.Name, strings.Join(f.Roles, ", "))
	case *event.WorkerRemoved:
		return fmt.Sprintf("worker %s removed; it can no longer reach the journal", f.Name)
	case *event.ClockDoubted:
		return "clock not trusted, nothing is signed: " + clockText(*f)
	case *event.ClockAccepted:
		return fmt.Sprintf("clock trusted as it is, %s%s", time.Unix(f.Shown, 0).UTC().Format(time.RFC3339), because(f.Reason))
	case *event.DSObserved:
		return observedText(f)
	case *event.BulkSwept:
		return fmt.Sprintf("%d unused chunks swept, %d bytes", f.Chunks, f.Bytes)
	default:
		for _, describe := range []func(event.Event) string{
			describeJournal, describeRetention, describeReview, describeHold, describeRollover, describeTold, describeUpdate, describeWorkers, describeAccess, describeProposal, describeCatalog,
		} {
			if text := describe(ev); text != "" {
				return text
			}
		}
		return describeKeys(ev)
	}
}

// describeReview tells an event of the reviews as a sentence; empty for
// others.
func describeReview(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.ReviewRequested:
		text := fmt.Sprintf("%s waits for its %s review", instanceWordOf(f.Stage, f.Instance), f.Stage)
		if len(f.Checks) > 0 {
			text += "; passed: " + strings.Join(f.Checks, ", ")
		}
		return text
	case *event.ReviewApproved:
		text := fmt.Sprintf("%s approved by %s", instanceWordOf(f.Stage, f.Instance), checkerWords(f.Checker))
		if f.Hook != nil {
			text += fmt.Sprintf(" (%s, %d ms)", oneLine(f.Hook.Command), f.Hook.DurationMS)
		}
		return text + because(f.Reason)
	case *event.ReviewRejected:
		text := fmt.Sprintf("%s rejected by %s", instanceWordOf(f.Stage, f.Instance), checkerWords(f.Checker))
		if f.Hook != nil {
			text += fmt.Sprintf(" (%s, %d ms)", oneLine(f.Hook.Command), f.Hook.DurationMS)
		}
		return text + because(f.Reason)
	case *event.ReviewOverridden:
		return fmt.Sprintf("%s review of %s overridden%s", f.Stage, instanceWordOf(f.Stage, f.Instance), because(f.Reason))
	case *event.ZoneHalted:
		return fmt.Sprintf("halted at the %s review of %s%s", f.Stage, instanceWordOf(f.Stage, f.Instance), because(f.Reason))
	case *event.ZoneReset:
		return "halt ended, what led to it is dropped" + because(f.Reason)
	case *event.InstanceAbandoned:
		return instanceWordOf(f.Stage, f.Instance) + " dropped" + because(f.Reason)
	case *event.MaintenanceChanged:
		if f.Enabled {
			return "maintenance begins: new work is blocked" + because(f.Reason)
		}
		return "maintenance ends" + because(f.Reason)
	}
	return ""
}

func checkerWords(checker string) string {
	switch checker {
	case checkerManual:
		return "hand"
	case checkerBuiltIn:
		return "the built-in checks"
	case checkerPolicy:
		return "the policy"
	}
	return checker
}

func because(reason string) string {
	if reason = oneLine(reason); reason == "" {
		return ""
	}
	return ": " + reason
}

// describeKeys tells a key event as a sentence.
func describeKeys(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.KeyGenerated:
		if f.Ahead {
			return "made ahead, for the pool: " + keyList(f.Keys)
		}
		return "made " + keyList(f.Keys)
	case *event.KeyBackedUp:
		return "marked as backed up: " + strings.Join(f.IDs, ", ")
	case *event.KeyProved:
		return fmt.Sprintf("worker %s proved that it holds %s", f.Worker, strings.Join(f.IDs, ", "))
	case *event.KeyImported:
		if f.Foreign {
			return "imported public keys of another signer: " + keyList(f.Keys) + " from " + f.From
		}
		return "imported " + keyList(f.Keys) + " from " + f.From + lifeNotes(f.Keys)
	case *event.KeyPublished:
		return "published in the next DNSKEY RRset: " + strings.Join(f.IDs, ", ")
	case *event.KeyActivated:
		return "proved and signing from now on: " + strings.Join(f.IDs, ", ")
	case *event.KeyIntroduced:
		return "proved and signing from now on, not yet in the DNSKEY RRset: " + strings.Join(f.IDs, ", ")
	case *event.KeyWithdrawn:
		return "leaving the DNSKEY RRset, still signing: " + strings.Join(f.IDs, ", ")
	case *event.KeyRetired:
		return "signing no longer: " + strings.Join(f.IDs, ", ")
	case *event.KeyDestroyed:
		return "private part deleted: " + strings.Join(f.IDs, ", ")
	case *event.KeyRemoved:
		return "leaving the DNSKEY RRset: " + strings.Join(f.IDs, ", ")
	}
	if text := describeLife(ev); text != "" {
		return text
	}
	return ev.Type + " (this program does not know the event)"
}

func keyList(keys []event.Key) string {
	parts := make([]string, 0, len(keys))
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s %s (tag %d, algorithm %d)", strings.ToUpper(k.Role), k.ID, k.Tag, k.Algorithm))
	}
	return strings.Join(parts, ", ")
}

// stripped lists the signer's own records that the input brought.
func stripped(by map[string]uint64) string {
	if len(by) == 0 {
		return ""
	}
	types := make([]string, 0, len(by))
	for t := range by {
		types = append(types, t)
	}
	slices.Sort(types)
	for i, t := range types {
		types[i] = fmt.Sprintf("%d %s", by[t], t)
	}
	return "; left out of the input: " + strings.Join(types, ", ")
}
