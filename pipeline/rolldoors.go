package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
)

// RolloverRequest asks for a rollover.
type RolloverRequest struct {
	Kind      keymgr.Kind   `json:"kind"`
	Method    keymgr.Method `json:"method,omitempty"`    // "" is what the policy says
	Algorithm string        `json:"algorithm,omitempty"` // "" is what the policy says
	Emergency bool          `json:"emergency,omitempty"`
	Reason    string        `json:"reason,omitempty"`
	Start     time.Time     `json:"start,omitzero"` // zero: at once
}

// StepReport is what a person reports of a rollover.
type StepReport struct {
	// Rollover is its number; 0 where Key or the report itself names it.
	Rollover uint64 `json:"rollover,omitempty"`
	Key      string `json:"key,omitempty"` // ID of a key that takes part
	// Seen is what was seen, or next to let the next step begin.
	Seen keymgr.Sight `json:"seen"`
	// TTL is that of the DS RRset in seconds, for ds-seen.
	TTL uint32 `json:"ttl,omitempty"`
}

// Roll begins a rollover. Errors: ErrNotFound, ErrInvalid, ErrState where the
// keys or another rollover do not allow it.
func (e *Engine) Roll(ctx context.Context, actor event.Actor, name string, q RolloverRequest) (ZoneStatus, error) {
	if keymgr.Methods(q.Kind) == nil {
		return ZoneStatus{}, fmt.Errorf("%w: %q is no kind of rollover: want zsk, ksk, csk, algorithm, secure or insecure", ErrInvalid, q.Kind)
	}
	if q.Kind == keymgr.RollForeign {
		return ZoneStatus{}, fmt.Errorf("%w: keys of another signer come by sluice key import --public, and go by sluice key remove", ErrInvalid)
	}
	if err := e.keepsKeys(); err != nil {
		return ZoneStatus{}, err
	}
	if q.Reason == "" {
		q.Reason = "asked for"
	}
	made := &event.KeyGenerated{}
	st, err := e.changeKeys(ctx, actor, name, func(s State, p Policy, _ Moment) ([]event.Facts, error) {
		if p.Mode() != ModeSign {
			return nil, errorState("zone %s is not signed here: its policy says signer.mode = %q", s.Name, p.Mode())
		}
		if s.Published == nil || s.Published.Signed.mode() != ModeSign {
			return nil, errorState("zone %s is not published signed yet", s.Name)
		}
		return e.begin(ctx, s, q, made)
	})
	if errors.Is(err, ErrState) || errors.Is(err, ErrInvalid) { // else it is not known what became of the event
		e.discardUnused(ctx, name, made.Keys)
	}
	return st, err
}

// AbortRollover ends a rollover, or has it go the way back. id is its number;
// 0 where only one runs. Errors: ErrNotFound, ErrState where there is no way
// back any more.
func (e *Engine) AbortRollover(ctx context.Context, actor event.Actor, name string, id uint64, reason string) (ZoneStatus, error) {
	if err := e.keepsKeys(); err != nil { // keys of before prove themselves
		return ZoneStatus{}, err
	}
	return e.changeKeys(ctx, actor, name, func(s State, p Policy, m Moment) ([]event.Facts, error) {
		r, err := onlyRollover(s, id)
		if err != nil {
			return nil, err
		}
		do, err := keymgr.Abort(s.Keys, r, p.Rollovers(), reason)
		if err == nil {
			err = s.Keys.MayBecome(do, s.known(p, m))
		}
		if err != nil {
			return nil, errorState("rollover %d (%s) cannot be aborted: %v", r.ID, r.Kind, err)
		}
		return do, e.prove(ctx, s.Keys, do)
	})
}

// onlyRollover finds a rollover by number, or the only one.
func onlyRollover(s State, id uint64) (keymgr.Rollover, error) {
	if id != 0 {
		if r, ok := s.Keys.Rollover(id); ok {
			return r, nil
		}
		return keymgr.Rollover{}, fmt.Errorf("rollover %d of zone %s: %w", id, s.Name, ErrNotFound)
	}
	switch all := s.Keys.Rollovers; len(all) {
	case 0:
		return keymgr.Rollover{}, errorState("no rollover of zone %s runs", s.Name)
	case 1:
		return all[0], nil
	default:
		return keymgr.Rollover{}, errorState("several rollovers of zone %s run: name one by its number (sluice key status %s)", s.Name, s.Name)
	}
}

// ReportStep notes what a person has seen, or lets the next step begin.
// Errors: ErrNotFound, ErrInvalid, ErrState where no rollover waits for it.
func (e *Engine) ReportStep(ctx context.Context, actor event.Actor, name string, q StepReport) (ZoneStatus, error) {
	return e.changeKeys(ctx, actor, name, func(s State, p Policy, m Moment) ([]event.Facts, error) {
		return s.Report(p, m, q)
	})
}

// Report is what the report of a person records. Errors: as of
// Engine.ReportStep. It is pure.
func (s State) Report(p Policy, m Moment, q StepReport) ([]event.Facts, error) {
	r, err := concerned(s, p, m, q)
	if err != nil {
		return nil, err
	}
	step := &event.RolloverAdvanced{
		Rollover: r.ID, Step: uint64(r.Step), Name: r.StepName(), Reported: string(q.Seen), //nolint:gosec // small
	}
	if q.Seen != keymgr.SeeDS && q.Seen != keymgr.SeeDSGone {
		return []event.Facts{step}, nil
	}
	seen, err := reportedDS(s, r, q, m.Now)
	if err != nil {
		return nil, err
	}
	return []event.Facts{seen, step}, nil
}

// concerned finds the rollover that a report is about.
func concerned(s State, p Policy, m Moment, q StepReport) (keymgr.Rollover, error) {
	if q.Key != "" {
		if _, ok := s.Keys.ByID(q.Key); !ok {
			return keymgr.Rollover{}, fmt.Errorf("key %s of zone %s: %w", q.Key, s.Name, ErrNotFound)
		}
	}
	var fit []keymgr.Rollover
	var wants []string
	early := false
	for _, r := range s.Keys.Rollovers {
		if q.Rollover != 0 && r.ID != q.Rollover || q.Key != "" && !r.Concerns(q.Key) {
			continue
		}
		needs := r.Needs()
		switch keymgr.Next(s.Keys, r, p.Rollovers(), s.known(p, m)).Phase {
		case keymgr.PhasePerson:
			needs = append(needs, keymgr.ReportNext)
		case keymgr.PhasePublish: // nobody can have seen what is not published
			if early = early || q.Seen == keymgr.SeeKeys || q.Seen == keymgr.SeeSigs; early {
				continue
			}
		default:
		}
		for _, n := range needs {
			wants = append(wants, fmt.Sprintf("--%s (rollover %d, %s)", n, r.ID, r.Kind))
		}
		if slices.Contains(needs, q.Seen) {
			fit = append(fit, r)
		}
	}
	switch {
	case len(fit) == 1:
		return fit[0], nil
	case len(fit) > 1:
		return fit[0], errorState("several rollovers of zone %s wait for --%s: name one with --rollover or a key with --key", s.Name, q.Seen)
	case early:
		return keymgr.Rollover{}, errorState("nobody can have seen it yet: the zone is not published with the keys of this step; see: sluice key status %s", s.Name)
	case len(wants) > 0:
		return keymgr.Rollover{}, errorState("no rollover of zone %s waits for --%s now, but for %s", s.Name, q.Seen, strings.Join(wants, ", "))
	}
	return keymgr.Rollover{}, errorState("no rollover of zone %s waits for a report now; see: sluice key status %s", s.Name, s.Name)
}

// reportedDS is what the parent has according to a person: what was known of
// it, with the DS of the keys that come, or without that of those that leave.
func reportedDS(s State, r keymgr.Rollover, q StepReport, now time.Time) (*event.DSObserved, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	have := event.DSSet{TTL: q.TTL}
	for _, set := range s.Keys.DS.Sets {
		have.DS = append(have.DS, set.DS...)
		have.TTL = max(have.TTL, set.TTL)
	}
	if q.Seen == keymgr.SeeDSGone {
		have.DS = slices.DeleteFunc(have.DS, func(d event.DS) bool {
			return r.Kind == keymgr.RollInsecure || slices.Contains(r.Old, d.Key)
		})
	} else {
		if q.TTL == 0 {
			return nil, fmt.Errorf("%w: the TTL of the DS RRset is needed: --ds-seen TTL", ErrInvalid)
		}
		for _, id := range r.New {
			k, ok := s.Keys.ByID(id)
			if !ok || !k.SignsKeys() {
				continue
			}
			ds, err := keymgr.DSOf(apex, k, keymgr.DigestSHA256)
			if err != nil {
				return nil, err
			}
			have.DS = append(have.DS, ds)
		}
	}
	have.DS = sortedDS(have.DS)
	have.DS = slices.Compact(have.DS)
	return &event.DSObserved{Sets: []event.DSSet{have}, Time: now.Unix()}, nil
}

// RemoveKey takes a key out that neither signs nor takes part in a rollover.
// Errors: ErrNotFound, ErrState.
func (e *Engine) RemoveKey(ctx context.Context, actor event.Actor, name, id string) (ZoneStatus, error) {
	return e.changeKeys(ctx, actor, name, func(s State, p Policy, m Moment) ([]event.Facts, error) {
		k, ok := s.Keys.ByID(id)
		switch {
		case !ok:
			return nil, fmt.Errorf("key %s of zone %s: %w", id, s.Name, ErrNotFound)
		case k.State == keymgr.Removed:
			return nil, errorState("key %s is removed already", id)
		case k.Foreign && !slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool { return r.Concerns(id) }):
			return removeForeign(s, p, m, k)
		case k.Signs():
			return nil, errorState("key %s signs: have it replaced first, sluice key roll %s %s", id, s.Name, k.Role)
		case k.State == keymgr.Retired:
			return nil, errorState("caches may hold signatures of key %s: its rollover removes it when they are gone", id)
		}
		for _, r := range s.Keys.Rollovers {
			if r.Concerns(id) {
				return nil, errorState("key %s takes part in rollover %d: sluice key abort %s --rollover %d", id, r.ID, s.Name, r.ID)
			}
		}
		do := []event.Facts{&event.KeyRemoved{IDs: []string{id}}}
		if err := s.Keys.MayBecome(do, s.known(p, m)); err != nil {
			return nil, errorState("key %s cannot be removed: %v", id, err)
		}
		return do, nil
	})
}

// changeKeys appends events of a zone's keys that a door asked for, and waits
// until they are folded. facts is asked again after each conflict.
func (e *Engine) changeKeys(ctx context.Context, actor event.Actor, name string, facts func(State, Policy, Moment) ([]event.Facts, error)) (ZoneStatus, error) {
	r, err := e.find(name)
	if err != nil {
		return ZoneStatus{}, err
	}
	if !e.running() {
		return ZoneStatus{}, errorState("the journal is still being read")
	}
	for {
		s := r.snapshot()
		if s.Removed != 0 {
			return ZoneStatus{}, fmt.Errorf("zone %s: %w", s.Name, ErrNotFound)
		}
		p, m, err := e.moment(s)
		if err != nil {
			return ZoneStatus{}, err
		}
		if m.ClockDoubted {
			return ZoneStatus{}, errorState("the clock is not trusted: keys do not change; set it, or: sluice clock accept")
		}
		do, err := facts(s, p, m)
		if errors.Is(err, keymgr.ErrConflicts) {
			err = fmt.Errorf("%w: %w", ErrState, err)
		}
		if err != nil {
			return ZoneStatus{}, err
		}
		head, err := e.append(ctx, r.id, s.Head, 0, actor, do...)
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return ZoneStatus{}, err
			}
			continue
		}
		if err != nil {
			return ZoneStatus{}, err
		}
		if err := r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq }); err != nil {
			return ZoneStatus{}, err
		}
		r.awaitRollovers(ctx)
		return e.Zone(ctx, name)
	}
}

// reaction is how long a door waits for what follows at once from what it
// asked for.
const reaction = 2 * time.Second

// awaitRollovers waits a moment until no rollover has something to record.
func (r *runner) awaitRollovers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, reaction)
	defer cancel()
	for {
		r.mu.Lock()
		changed, busy := r.changed, r.lanes[RollLane].failure == nil
		if busy {
			busy = false
			for _, c := range r.decide().Commands {
				_, begins := c.(BeginRollover)
				_, goesOn := c.(AdvanceRollover)
				_, hands := c.(HandKeys) // a rollover may wait for that
				busy = busy || begins || goesOn || hands
			}
		}
		r.mu.Unlock()
		if !busy {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}
