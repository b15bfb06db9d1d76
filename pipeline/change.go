package pipeline

import (
	"context"
	"errors"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

func errorState(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrState}, args...)...)
}

// ZoneChange is what SetZone is asked for; "" leaves as it is.
type ZoneChange struct {
	Source string `json:"source,omitempty"`
	Policy string `json:"policy,omitempty"`
	// DryRun tells what would change, and changes nothing.
	DryRun bool `json:"dry_run,omitempty"`
	// Reason is why, for the history.
	Reason string `json:"reason,omitempty"`
	// At, where not 0, refuses where source or policy were changed after that
	// sequence, which is the position of a zone's outlook.
	At uint64 `json:"at,omitempty"`
}

// ZonePlan is what a change of a zone does.
type ZonePlan struct {
	Zone    string   `json:"zone"`
	Changes []string `json:"changes"` // a sentence each
	Done    bool     `json:"done"`
	// Proposed: the policy that the zone is bound to wants a second person, who
	// asks for the same.
	Proposed bool `json:"proposed,omitempty"`
}

// SetZone gives a zone another source, another policy, or both. The source is
// then loaded in full. Errors: ErrInvalid, ErrNotFound (zone, policy, TSIG
// key).
func (e *Engine) SetZone(ctx context.Context, actor event.Actor, name string, c ZoneChange) (ZonePlan, error) {
	if err := checkReason(c.Reason); err != nil {
		return ZonePlan{}, err
	}
	r, err := e.find(name)
	if err != nil {
		return ZonePlan{}, err
	}
	if c.Source != "" {
		if c.Source, err = e.checkSource(c.Source); err != nil {
			return ZonePlan{}, err
		}
		if err := e.catalogKeepsSource(r.id, c.Source); err != nil {
			return ZonePlan{}, err
		}
	}
	if c.Policy != "" {
		if _, ok := e.policy(c.Policy); !ok {
			return ZonePlan{}, fmt.Errorf("policy %q: %w", c.Policy, ErrNotFound)
		}
	}
	plan := ZonePlan{Zone: r.snapshot().Name, Changes: []string{}}
	err = e.appendCaused(ctx, actor, r, func(s State) (event.Facts, uint64, error) {
		if err := s.isAt(c.At); err != nil {
			return nil, 0, err
		}
		var facts event.Facts
		facts, plan.Changes, err = e.planChange(ctx, s, c)
		if err != nil || facts == nil || c.DryRun {
			return nil, 0, err
		}
		facts, cause, err := e.changeTogether(ctx, s, actor, facts)
		if err != nil {
			return nil, 0, err
		}
		_, plan.Proposed = facts.(*event.ReviewProposed)
		plan.Done = !plan.Proposed
		return facts, cause, nil
	})
	return plan, err
}

// planChange says what a change means, and the event that makes it; nil where
// nothing changes.
func (e *Engine) planChange(ctx context.Context, s State, c ZoneChange) (event.Facts, []string, error) {
	p, ok := e.policy(c.Policy)
	if !ok {
		c.Policy = ""
	}
	return e.planTurn(ctx, s, c, p)
}

// planTurn is planChange with the policy that c names.
func (e *Engine) planTurn(ctx context.Context, s State, c ZoneChange, p Policy) (event.Facts, []string, error) {
	if s.Policy.Name == "" {
		return nil, nil, errorState("zone %s is being added", s.Name)
	}
	changes := []string{}
	source := s.Source
	if err := e.fitsChange(s, c); err != nil {
		return nil, nil, err
	}
	if c.Source != "" && c.Source != s.Source {
		source = c.Source
		if s.updated() {
			changes = append(changes, "what dynamic updates made of the zone is replaced; to keep it: sluice zone dump --loaded "+s.Name)
		}
		changes = append(changes, fmt.Sprintf("source %s becomes %s; it is loaded in full, and what differs is signed and published", s.Source, source))
	}
	if s.Held != nil && source != s.Source {
		changes = append(changes, "the zone is "+heldText(s)+": that source is read once it is released")
	}
	if c.Policy == "" || s.Policy.Name == c.Policy && s.Policy.SHA256 == p.SHA256 {
		if len(changes) == 0 {
			return nil, changes, nil
		}
		return &event.ZoneChanged{Source: source, Reason: c.Reason}, changes, nil
	}
	effects, err := e.turnEffects(ctx, s, p)
	if err != nil {
		return nil, nil, err
	}
	if s.Policy.Name == p.Name {
		changes = append(changes, fmt.Sprintf("policy %s takes effect as it reads now", p.Name))
	} else {
		changes = append(changes, fmt.Sprintf("policy %s becomes %s", s.Policy.Name, p.Name))
	}
	return &event.PolicyBound{
		Zone: s.Name, Source: source, Policy: p.Name, SHA256: p.SHA256, Text: string(p.Text), SerialFloor: s.SerialFloor, Reason: c.Reason,
	}, append(changes, effects...), nil
}

// appendZone appends one event of a zone that a door asked for, and waits
// until it is folded. facts is asked again after each conflict; nil appends
// nothing.
func (e *Engine) appendZone(ctx context.Context, actor event.Actor, r *runner, facts func(State) (event.Facts, error)) error {
	return e.appendCaused(ctx, actor, r, func(s State) (event.Facts, uint64, error) {
		f, err := facts(s)
		return f, 0, err
	})
}

// appendCaused is appendZone for what follows from an earlier event.
func (e *Engine) appendCaused(ctx context.Context, actor event.Actor, r *runner, facts func(State) (event.Facts, uint64, error)) error {
	if !e.running() {
		return errorState("the journal is still being read")
	}
	for {
		s := r.snapshot()
		if s.Removed != 0 {
			return fmt.Errorf("zone %s: %w", s.Name, ErrNotFound)
		}
		f, cause, err := facts(s)
		if err != nil || f == nil {
			return err
		}
		head, err := e.append(ctx, r.id, s.Head, cause, actor, f)
		if errors.Is(err, journal.ErrConflict) {
			if err := r.await(ctx, func(now State) bool { return now.Head.Seq > s.Head.Seq }); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		return r.await(ctx, func(now State) bool { return now.Head.Seq >= head.Seq })
	}
}

// ZoneSerials is who holds which serial of a zone.
type ZoneSerials struct {
	Zone      string            `json:"zone"`
	Upstream  []ServerSerial    `json:"upstream,omitempty"` // the source's servers, asked now
	Loaded    *uint32           `json:"loaded,omitempty"`
	Signed    *uint32           `json:"signed,omitempty"`
	Published *uint32           `json:"published,omitempty"`
	Floor     *uint32           `json:"floor,omitempty"` // published serials stand above it
	Policy    string            `json:"serial_policy"`
	Announced []SecondaryStatus `json:"secondaries,omitempty"`
}

// ServerSerial is the serial that a server holds, or why it is not known.
type ServerSerial struct {
	Server string  `json:"server"`
	Serial *uint32 `json:"serial,omitempty"`
	Error  string  `json:"error,omitempty"`
}

// Serials asks the source's servers, and tells which serials are where.
func (e *Engine) Serials(ctx context.Context, name string) (ZoneSerials, error) {
	r, err := e.find(name)
	if err != nil {
		return ZoneSerials{}, err
	}
	s := r.snapshot()
	p, err := e.boundPolicy(s)
	if err != nil {
		return ZoneSerials{}, err
	}
	out := ZoneSerials{Zone: s.Name, Floor: s.SerialFloor, Policy: string(p.SerialPolicy())}
	if s.Loaded != nil {
		out.Loaded = &s.Loaded.Facts.Serial
	}
	if s.Signed != nil {
		out.Signed = &s.Signed.Facts.Serial
	}
	if s.Published != nil {
		out.Published = &s.Published.Signed.Facts.Serial
	}
	r.mu.Lock()
	out.Announced = r.secondaries()
	r.mu.Unlock()
	servers, err := ParseSource(s.Source)
	if err != nil {
		return out, err
	}
	apex, err := apexOf(s)
	if err != nil {
		return out, err
	}
	for _, ep := range servers {
		at := ServerSerial{Server: ep.String()}
		serial, _, err := e.client.SOA(ctx, ep, apex)
		if err != nil {
			at.Error = reasonOf(err)
		} else {
			n := uint32(serial)
			at.Serial = &n
		}
		out.Upstream = append(out.Upstream, at)
	}
	return out, nil
}

// RaiseSerial makes serial, or one after it, the next that is published, and
// publishes it. Errors: ErrInvalid where it is not after the published one
// (RFC 1982); ErrState under serial-policy keep-strict.
func (e *Engine) RaiseSerial(ctx context.Context, actor event.Actor, name string, serial uint32) error {
	r, err := e.find(name)
	if err != nil {
		return err
	}
	return e.appendZone(ctx, actor, r, func(s State) (event.Facts, error) {
		p, err := e.boundPolicy(s)
		if err != nil {
			return nil, err
		}
		switch {
		case p.passThrough():
			return nil, errorState("the zone is passed through under its source's serial: raise it there")
		case p.SerialPolicy() == SerialKeepStrict:
			return nil, errorState("serial-policy keep-strict publishes the source's serial or nothing: raise it there")
		}
		for _, have := range []*uint32{publishedSerial(s), s.SerialFloor} {
			if have != nil && !zone.Serial(*have).Before(zone.Serial(serial)) {
				return nil, fmt.Errorf("%w: serial %d is not after %d (RFC 1982); the highest that can be set now is %d",
					ErrInvalid, serial, *have, *have+1<<31-1)
			}
		}
		return &event.SerialRaised{Floor: serial - 1, Reason: "zone serial"}, nil
	})
}

func publishedSerial(s State) *uint32 {
	if s.Signed == nil {
		return nil
	}
	return &s.Signed.Facts.Serial
}

// Resign asks for a zone to be signed now: with full, every signature is made
// again. It returns at once; Await tells when it was. Errors: ErrNotFound,
// ErrState where nothing was signed yet, or where the serial cannot move.
func (e *Engine) Resign(ctx context.Context, _ event.Actor, name string, full bool) error {
	r, err := e.find(name)
	if err != nil {
		return err
	}
	s := r.snapshot()
	p, err := e.boundPolicy(s)
	switch {
	case err != nil:
		return err
	case p.Mode() != ModeSign:
		return errorState("zone %s is not signed here: its policy says signer.mode = %q", s.Name, p.Mode())
	case s.Signed == nil:
		return errorState("zone %s was not signed yet", s.Name)
	}
	if p.set.serial == SerialKeepStrict && s.Published != nil {
		if source, waits := waitsForSource(s, p); waits {
			return errorState("serial-policy keep-strict publishes the source's serial or nothing, and what is approved has %d: raise it at the source above %d",
				source, s.Signed.Facts.Serial)
		}
	}
	return r.ask(ctx, RoleSign, question{Do: askResign, Full: full}, func() { r.askResign(full) })
}

// askResign notes a request to sign.
func (r *runner) askResign(full bool) {
	r.mu.Lock()
	r.requests++
	r.resign = r.requests
	r.resignFull = r.resignFull || full
	r.lanes[SigningLane].LaneState, r.lanes[RollLane].LaneState = LaneState{}, LaneState{}
	r.notify()
	r.mu.Unlock()
	r.step()
}
