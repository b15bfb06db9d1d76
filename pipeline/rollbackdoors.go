package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// RollbackRequest asks for an earlier version's content.
type RollbackRequest struct {
	// To names the version: a serial that was published, an instance (l12, s14),
	// seq:N or a time.
	To     string `json:"to"`
	Reason string `json:"reason"`
	// Yes takes any difference of DS and NS records for confirmed; Confirm those
	// that a plan with this digest has shown.
	Yes     bool   `json:"yes,omitempty"`
	Confirm string `json:"confirm,omitempty"`
	// DryRun tells what would change, and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
}

// RollbackPlan is what a rollback does, or did.
type RollbackPlan struct {
	Zone string      `json:"zone"`
	From ZoneVersion `json:"from"` // what is published
	To   ZoneVersion `json:"to"`   // whose content is wanted
	// NextSerial is what the serial policy gives as things stand.
	NextSerial uint32 `json:"next_serial"`
	Removed    uint64 `json:"removed"` // records of the content
	Added      uint64 `json:"added"`
	DSChanges  uint64 `json:"ds_changes"`
	NSChanges  uint64 `json:"ns_changes"`
	// Differences is those of DS and NS records, the first thousand.
	Differences []DiffLine `json:"differences"`
	// Confirm is the digest of all of these, "" where there is none.
	Confirm string   `json:"confirm,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	Done    bool     `json:"done"`
	// Proposed: the policy wants a second person, who asks for the same.
	Proposed bool `json:"proposed,omitempty"`
}

// ZoneVersion names a version.
type ZoneVersion struct {
	Serial uint32    `json:"serial"`
	Signed string    `json:"signed,omitempty"` // s<sequence>; "" where it never was signed
	Loaded string    `json:"loaded"`           // l<sequence> of the contents
	Time   time.Time `json:"time"`             // when it was published, or else loaded
}

// maxDifferences bounds the differences that a plan lists.
const maxDifferences = 1000

// Rollback publishes an earlier version's content anew, with today's keys and a
// higher serial, through the reviews, and holds the zone there until Release.
// Where DS or NS records differ and that is not confirmed, it changes nothing
// and returns the plan that shows them. Await tells when it is published.
// Errors: ErrInvalid, ErrNotFound (the zone, the version, or its contents, which
// the journal holds no longer), ErrState.
func (e *Engine) Rollback(ctx context.Context, actor event.Actor, name string, q RollbackRequest) (RollbackPlan, error) {
	r, err := e.find(name)
	if err != nil {
		return RollbackPlan{}, err
	}
	switch {
	case !q.DryRun && strings.TrimSpace(q.Reason) == "":
		return RollbackPlan{}, fmt.Errorf("%w: a rollback needs a reason", ErrInvalid)
	case len(q.Reason) > maxReason:
		return RollbackPlan{}, fmt.Errorf("%w: the reason is longer than %d bytes", ErrInvalid, maxReason)
	case !e.running():
		return RollbackPlan{}, errorState("the journal is still being read")
	}
	for {
		s := r.snapshot()
		plan, facts, err := e.planRollback(ctx, s, q.To)
		if err != nil {
			return plan, err
		}
		confirmed := plan.Confirm == "" || q.Yes || q.Confirm == plan.Confirm
		if q.DryRun || !confirmed {
			return plan, nil
		}
		facts.Reason = q.Reason
		err = e.appendCaused(ctx, actor, r, func(now State) (event.Facts, uint64, error) {
			if now.Published == nil || now.Published.Loaded.Seq != s.Published.Loaded.Seq || now.Retained.purged() != s.Retained.purged() {
				return nil, 0, errOvertaken
			}
			p, err := e.boundPolicy(now)
			if err == nil {
				err = e.mayRollBack(now)
			}
			if err != nil {
				return nil, 0, err
			}
			all, cause, err := e.together(ctx, now, p, actor, &event.ReviewProposed{
				Action: event.ProposeRollback, Instance: facts.Loaded, Digest: facts.ContentDigest, Serial: facts.Serial, Target: oneLine(q.To), Reason: q.Reason,
			}, []event.Facts{facts})
			if err != nil {
				return nil, 0, err
			}
			_, plan.Proposed = all[0].(*event.ReviewProposed)
			return all[0], cause, nil
		})
		if errors.Is(err, errOvertaken) {
			continue // what was compared is not what is published, or held, any more
		}
		plan.Proposed = plan.Proposed && err == nil
		plan.Done = err == nil && !plan.Proposed
		return plan, err
	}
}

// errOvertaken reports that something else was published, or versions were purged,
// meanwhile.
var errOvertaken = errors.New("something else was published, or versions were purged, meanwhile")

// mayRollBack says what keeps a zone from being taken back.
func (e *Engine) mayRollBack(s State) error {
	p, err := e.boundPolicy(s)
	switch {
	case err != nil:
		return err
	case s.Removed != 0:
		return fmt.Errorf("zone %s: %w", s.Name, ErrNotFound)
	case s.Published == nil:
		return errorState("zone %s is not published: there is nothing to go back from", s.Name)
	case s.Halted != nil:
		return errorState("zone %s: %s; see: sluice journal verify", s.Name, s.Halted.Reason)
	case s.Stopped != nil:
		return errorState("zone %s is halted at its %s review; %s", s.Name, s.Stopped.Stage, overrideOrReset(s, s.Stopped.Stage))
	case s.Maintenance != nil:
		return errorState("zone %s is in maintenance; sluice zone maintenance disable %s", s.Name, s.Name)
	case p.passThrough():
		return errorState("zone %s is passed through with its source's signatures, under its serial: go back there; or bind it to a policy with signer.mode sign", s.Name)
	case p.SerialPolicy() == SerialKeepStrict:
		return errorState("serial-policy keep-strict publishes the source's serial or nothing, and the earlier version's lies behind %d: publish its content at the source with a higher one, or bind the zone to a policy with serial-policy keep",
			s.Signed.Facts.Serial)
	}
	return nil
}

// planRollback compares what is published with the version to go back to.
func (e *Engine) planRollback(ctx context.Context, s State, to string) (RollbackPlan, *event.ZoneHeld, error) {
	plan := RollbackPlan{Zone: s.Name, Differences: []DiffLine{}}
	if err := e.mayRollBack(s); err != nil {
		return plan, nil, err
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return plan, nil, err
	}
	v, err := e.versionNamed(ctx, s, to)
	if err != nil {
		return plan, nil, err
	}
	plan.To = v.named()
	from := s.Published
	plan.From = ZoneVersion{
		Serial: from.Signed.Facts.Serial, Signed: instanceWordOf(event.StageSigned, from.Signed.Seq),
		Loaded: instanceWordOf(event.StageLoaded, from.Loaded.Seq), Time: from.Time,
	}
	if !v.facts.PassThrough && !from.Loaded.Facts.PassThrough && v.facts.ContentDigest == from.Loaded.Facts.ContentDigest {
		return plan, nil, errorState("zone %s is published with that very content, as serial %d; to keep newer content out: sluice zone maintenance enable %s",
			s.Name, from.Signed.Facts.Serial, s.Name)
	}
	serial, err := s.NextSerial(p, v.facts.Serial, e.clock.Now())
	if err != nil {
		return plan, nil, err
	}
	plan.NextSerial = uint32(serial)
	plan.Notes = rollbackNotes(s, p, e.clock.Now())
	if err := e.compareContents(ctx, s, v, &plan); err != nil {
		return plan, nil, err
	}
	return plan, &event.ZoneHeld{
		Serial: plan.To.Serial, Instance: v.signed, Loaded: v.loaded, ContentDigest: v.facts.ContentDigest,
		From: from.Loaded.Seq, FromSerial: from.Signed.Facts.Serial, DSChanges: plan.DSChanges, NSChanges: plan.NSChanges,
	}, nil
}

// rollbackNotes tells what a person should know beforehand.
func rollbackNotes(s State, p Policy, now time.Time) []string {
	var notes []string
	if s.Held != nil {
		notes = append(notes, "the zone is "+heldText(s)+"; this takes that one's place")
	}
	switch at := signedStanding(s, p, now); {
	case loadedStanding(s, p) == pending:
		notes = append(notes, fmt.Sprintf("l%d is under review: its verdict comes first", s.Loaded.Seq))
	case at == pending || at == toOpen:
		notes = append(notes, fmt.Sprintf("s%d is under review: its verdict comes first", s.Signed.Seq))
	}
	if p.SerialPolicy() == SerialKeep {
		notes = append(notes, "serial-policy keep: the serial is not the source's until that is higher again")
	}
	return notes
}

// compareContents walks both contents and notes what differs.
func (e *Engine) compareContents(ctx context.Context, s State, v wantedVersion, plan *RollbackPlan) error {
	if err := take(ctx, e.heavy); err != nil {
		return err
	}
	defer give(e.heavy)
	old, err := e.open(ctx, target{id: s.Zone, loaded: true, seq: s.Published.Loaded.Seq, upTo: s.Published.Loaded.Seq})
	if err != nil {
		return err
	}
	defer old.close() //nolint:errcheck // read only
	now, err := e.open(ctx, target{id: s.Zone, loaded: true, seq: v.loaded, upTo: v.loaded})
	if err != nil {
		return err
	}
	defer now.close() //nolint:errcheck // read only
	d := differences{plan: plan, sum: sha256.New()}
	if err := zone.DiffItems(old.contents(), now.contents(), d.item); err != nil {
		return err
	}
	if plan.DSChanges+plan.NSChanges > 0 {
		plan.Confirm = hex.EncodeToString(d.sum.Sum(nil))
	}
	return ctx.Err()
}

// differences notes what differs between two contents.
type differences struct {
	plan *RollbackPlan
	sum  hash.Hash
}

func (d *differences) item(key, old, now []byte) error {
	removed, added := recordChanges(old, now)
	d.plan.Removed += removed
	d.plan.Added += added
	_, _, t, err := zone.SplitKey(key)
	if err != nil || t != zone.TypeDS && t != zone.TypeNS {
		return err
	}
	return diffRecords(key, old, now, func(l DiffLine) error {
		if t == zone.TypeDS {
			d.plan.DSChanges++
		} else {
			d.plan.NSChanges++
		}
		fmt.Fprintf(d.sum, "%t %s\n", l.Removed, l.Record)
		if len(d.plan.Differences) < maxDifferences {
			d.plan.Differences = append(d.plan.Differences, l)
		}
		return nil
	})
}

// wantedVersion is a version to go back to.
type wantedVersion struct {
	loaded uint64 // of its instance.loaded
	facts  event.InstanceLoaded
	signed uint64 // of its instance.signed; 0 where it never was signed
	serial uint32 // that it was signed with, or else loaded
	time   time.Time
}

func (v wantedVersion) named() ZoneVersion {
	n := ZoneVersion{Serial: v.serial, Loaded: instanceWordOf(event.StageLoaded, v.loaded), Time: v.time}
	if v.signed != 0 {
		n.Signed = instanceWordOf(event.StageSigned, v.signed)
	}
	return n
}

// versionNamed finds the contents behind what names a version.
func (e *Engine) versionNamed(ctx context.Context, s State, word string) (wantedVersion, error) {
	t, err := e.named(ctx, s.Name, word)
	if err != nil {
		return wantedVersion{}, err
	}
	v := wantedVersion{loaded: t.seq}
	if !t.loaded {
		v.signed = t.seq
		f, _, err := factsAt[*event.InstanceSigned](ctx, e.journal, s.Zone, t.seq)
		if err != nil {
			return v, err
		}
		v.loaded, v.serial = f.Loaded, f.Serial
	}
	f, at, err := factsAt[*event.InstanceLoaded](ctx, e.journal, s.Zone, v.loaded)
	if err != nil {
		return v, err
	}
	v.facts, v.time = *f, at
	if t.loaded {
		v.serial = f.Serial
		return v, nil
	}
	return v, e.journal.Read(ctx, s.Zone, t.upTo, t.upTo, func(rec journal.Record) error {
		v.time = rec.Event.Time
		return nil
	})
}

// factsAt is the facts of the zone's event of that sequence, ErrNotFound where
// there is none of that type.
func factsAt[T event.Facts](ctx context.Context, j journal.Journal, id event.ZoneID, seq uint64) (facts T, at time.Time, err error) {
	found := false
	err = j.Read(ctx, id, seq, seq, func(rec journal.Record) error {
		facts, found = rec.Event.Facts.(T)
		at = rec.Event.Time
		return nil
	})
	if err == nil && !found {
		err = fmt.Errorf("no instance of sequence %d: %w", seq, ErrNotFound)
	}
	return facts, at, err
}

// Release ends a hold: the source is read in full, and what differs is taken
// over through the reviews. Errors: ErrState where the zone is not held.
func (e *Engine) Release(ctx context.Context, actor event.Actor, name, reason string) (ZoneStatus, error) {
	if len(reason) > maxReason {
		return ZoneStatus{}, fmt.Errorf("%w: the reason is longer than %d bytes", ErrInvalid, maxReason)
	}
	return e.throughDoor(ctx, actor, name, func(s State, _ Policy) ([]event.Facts, error) {
		if s.Held == nil {
			return nil, errorState("zone %s is not held by a rollback", s.Name)
		}
		return []event.Facts{&event.ZoneReleased{Reason: reason}}, nil
	})
}
