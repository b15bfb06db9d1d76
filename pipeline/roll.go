package pipeline

import (
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// BeginRollover begins a rollover: it makes the keys that are lacking and does
// what the first step changes.
type BeginRollover struct {
	Kind   keymgr.Kind
	Reason string
}

// AdvanceRollover records what a rollover has seen, or begins its next step.
type AdvanceRollover struct {
	Rollover uint64
	Step     int
	What     string // the types of the events, and what is the matter
}

// DestroyKeys deletes the private parts of removed keys.
type DestroyKeys struct {
	IDs []string
}

// Lane implements Command.
func (DestroyKeys) Lane() Lane { return SigningLane }

// Identity implements Command.
func (c DestroyKeys) Identity() string { return identity("destroy", c) }

func (DestroyKeys) command() {}

// Lane implements Command.
func (BeginRollover) Lane() Lane { return SigningLane }

// Lane implements Command.
func (AdvanceRollover) Lane() Lane { return SigningLane }

// Identity implements Command.
func (c BeginRollover) Identity() string { return identity("begin rollover", c) }

// Identity implements Command.
func (c AdvanceRollover) Identity() string { return identity("advance rollover", c) }

func (BeginRollover) command()   {}
func (AdvanceRollover) command() {}

// Sights is what this process knows of the world outside, for rollovers.
type Sights struct {
	Observation *keymgr.Observation // nil where nobody has looked yet
	// Refresh, Retry and Expire are the zone's SOA's.
	Refresh, Retry, Expire time.Duration
}

// noDSTTL is taken for the TTL of the DS where none was ever seen.
const noDSTTL = 48 * time.Hour

// known is what rollovers are decided from.
func (s State) known(p Policy, m Moment) keymgr.Known {
	k := keymgr.Known{Now: m.Now, Served: s.Served, Observation: m.Sights.Observation, Provers: m.Workers.Provers, ClockSet: m.ClockSet}
	k.Timing.Place = placeOf(s.Name)
	k.Timing.Margin = keymgr.Term{Value: m.Sights.Refresh + m.Sights.Retry, Source: "SOA REFRESH + RETRY"}
	if margin, fixed := p.Margin(); fixed {
		k.Timing.Margin = keymgr.Term{Value: margin, Source: "key-manager.propagation-margin"}
	}
	k.Timing.ParentMargin = s.parentMargin(p, m, k.Timing.Margin)
	// A secondary that is late hands out what it has until the zone expires
	// there.
	late := m.Now.Add(-m.Sights.Expire)
	keyTTL, dsTTL := max(s.KeyTTLs.Largest(late), p.DNSKEYTTL()), uint32(0)
	if o := m.Sights.Observation; o != nil {
		keyTTL, dsTTL = max(keyTTL, o.KeyTTL), o.DSTTL
	}
	for _, set := range s.Keys.DS.Sets {
		if len(set.DS) > 0 {
			dsTTL = max(dsTTL, set.TTL)
		}
	}
	for _, past := range s.Keys.DS.Before {
		end := past.Last.Add(time.Duration(past.TTL)*time.Second + k.Timing.DSMargin())
		if len(past.DS) > 0 && end.After(m.Now) {
			dsTTL = max(dsTTL, past.TTL)
		}
	}
	sigTTL := max(s.ZoneTTLs.Largest(late), keyTTL)
	k.Timing.KeyTTL = ttlTerm(keyTTL, "the largest TTL of the DNSKEY RRset that caches may hold")
	k.Timing.SigTTL = ttlTerm(sigTTL, "the largest TTL of the zone that caches may hold")
	k.Timing.DSTTL = ttlTerm(dsTTL, "the largest TTL of the DS that caches may hold")
	k.Timing.Signing = s.signingTerm(p, m.Now)
	if dsTTL == 0 {
		k.Timing.DSTTL = keymgr.Term{Value: noDSTTL, Source: "no DS was seen yet"}
	}
	return k
}

// placeOf is a zone's own place among all others, the same wherever it is signed.
func placeOf(name string) uint64 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint64(sum[:])
}

// parentMargin is for how long a site of the parent may hand out what its
// server shows no longer.
func (s State) parentMargin(p Policy, m Moment, own keymgr.Term) keymgr.Term {
	if margin, fixed := p.ParentMargin(); fixed {
		source := "key-manager.parent-propagation-margin"
		if p.set.above < 0 {
			source = own.Source
		}
		return keymgr.Term{Value: margin, Source: source}
	}
	if o := m.Sights.Observation; o != nil && o.ParentMargin > 0 {
		return ttlTerm(o.ParentMargin, "REFRESH + RETRY of the parent's SOA")
	}
	return keymgr.Term{Value: own.Value, Source: own.Source + ", the parent's was not seen"}
}

func ttlTerm(ttl uint32, source string) keymgr.Term {
	return keymgr.Term{Value: time.Duration(ttl) * time.Second, Source: source}
}

// decideRollovers moves the rollovers that run, and begins those that are due.
func decideRollovers(d *Decision, s State, p Policy, m Moment) Command {
	if p.Mode() != ModeSign || len(s.Keys.Signing()) == 0 {
		return nil
	}
	roll, k := p.Rollovers(), s.known(p, m)
	for _, r := range s.Keys.Rollovers {
		step := keymgr.Next(s.Keys, r, roll, k)
		switch step.Phase {
		case keymgr.PhaseDo:
			return AdvanceRollover{Rollover: r.ID, Step: r.Step, What: whatOf(step.Do)}
		case keymgr.PhaseWait:
			d.wake(step.Until, "rollover of "+string(r.Kind)+": "+r.StepText()+" is waited for no longer")
		case keymgr.PhaseSee:
			d.look(lookAt(r, k, p.ObservationInterval()))
		case keymgr.PhasePublish, keymgr.PhasePerson, keymgr.PhaseBackup, keymgr.PhaseProof, keymgr.PhaseBlocked:
		}
	}
	if s.Maintenance != nil {
		return nil
	}
	if plan, err := s.Keys.NewPlan(keymgr.RollForeign, "", roll); err == nil {
		return BeginRollover{Kind: plan.Kind, Reason: "keys of another signer were imported"}
	}
	if s.Served.At.IsZero() {
		return nil
	}
	if c := decideCDS(s, p); c != nil {
		return c
	}
	if _, err := s.Keys.NewPlan(keymgr.RollSecure, "", roll); err == nil && s.Keys.DS.Since.IsZero() && !s.Keys.DS.Declined {
		return BeginRollover{Kind: keymgr.RollSecure, Reason: "the zone is signed, and its parent was not told yet"}
	}
	for _, due := range s.Keys.Dues(roll, k.Timing) {
		if !due.Auto {
			continue
		}
		if m.Now.Before(due.At) {
			d.wake(due.At, "a rollover of "+string(due.Kind)+" begins: "+due.Reason)
		} else if _, err := s.Keys.NewPlan(due.Kind, "", roll); err == nil {
			return BeginRollover{Kind: due.Kind, Reason: due.Reason}
		}
	}
	return decideOtherKeys(s, p, roll)
}

// decideDestroy deletes what was removed long enough ago.
func decideDestroy(d *Decision, s State, p Policy, m Moment) Command {
	after, ok := p.DestroyAfter()
	if !ok || s.Maintenance != nil {
		return nil
	}
	var due []string
	for _, k := range s.Keys.InState(keymgr.Removed) {
		if k.Foreign || k.Adopted || !k.Destroyed.IsZero() {
			continue
		}
		if at := k.Removed.Add(after); m.Now.Before(at) {
			d.wake(at, "the private part of a removed key is deleted")
		} else {
			due = append(due, k.ID)
		}
	}
	if len(due) == 0 {
		return nil
	}
	return DestroyKeys{IDs: due}
}

// decideOtherKeys begins a rollover to what the policy says of new keys, where
// those that sign are others.
func decideOtherKeys(s State, p Policy, roll keymgr.RollPolicy) Command {
	for _, want := range otherKeys(s, p) {
		if !roll.Auto(want.Kind).Start {
			continue
		}
		if _, err := s.Keys.NewPlan(want.Kind, "", roll); err == nil {
			return BeginRollover(want)
		}
	}
	return nil
}

// wantedRoll is a rollover to the keys that a policy wants.
type wantedRoll struct {
	Kind   keymgr.Kind
	Reason string
}

// otherKeys says which rollovers would lead to the keys that the policy wants;
// none where they are there.
func otherKeys(s State, p Policy) []wantedRoll {
	csk := false
	for _, k := range s.Keys.InState(keymgr.Active) {
		if k.Algorithm != p.Algorithm() {
			return []wantedRoll{{keymgr.RollAlgorithm, "the policy wants algorithm " + strconv.Itoa(int(p.Algorithm()))}}
		}
		csk = csk || k.HasRole(keymgr.CSK)
	}
	switch {
	case csk && !p.UseCSK():
		return []wantedRoll{{keymgr.RollCSK, "the policy wants a KSK and a ZSK instead of a CSK"}}
	case !csk && p.UseCSK():
		return []wantedRoll{{keymgr.RollCSK, "the policy wants a CSK instead of a KSK and a ZSK"}}
	}
	return otherKeystore(s, p)
}

// whatOf names what is to be recorded, without the times in it.
func whatOf(facts []event.Facts) string {
	var parts []string
	for _, f := range facts {
		part := f.EventType()
		if a, ok := f.(*event.RolloverAdvanced); ok {
			part += " " + strconv.FormatUint(a.Step, 10) + " " + a.Name
			switch {
			case a.Lost != "":
				part += " lost"
			case a.Seen != 0:
				part += " seen"
			}
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, ", ")
}

// leastLook is the least time between two looks for what a rollover waits for.
const leastLook = 3 * time.Second

// lookAt is when it is looked again whether the world shows what a rollover
// waits for: the sooner the shorter it has waited, within most.
func lookAt(r keymgr.Rollover, k keymgr.Known, most time.Duration) time.Time {
	since := r.Since
	if k.Served.At.After(since) {
		since = k.Served.At
	}
	if r.Wait != nil {
		since = time.Unix(r.Wait.Earliest, 0)
	}
	if k.Observation == nil || k.Observation.At.Before(since) {
		return since.Add(leastLook)
	}
	return k.Observation.At.Add(min(max(k.Now.Sub(since)/4, leastLook), most))
}

// look asks for an observation at a time.
func (d *Decision) look(at time.Time) {
	if d.LookAt.IsZero() || at.Before(d.LookAt) {
		d.LookAt = at
	}
}

// evolveServed notes since when which keys and TTLs are published.
func evolveServed(s State, before *Published) State {
	p := s.Published
	for _, pub := range []*Published{before, p} {
		if pub == nil {
			continue
		}
		s.ZoneTTLs = s.ZoneTTLs.See(pub.Loaded.Facts.MaxTTL, p.Time)
		if pub.Signed.mode() == ModeSign {
			s.KeyTTLs = s.KeyTTLs.See(dnskeyTTLOf(pub.Signed.Facts.Params), p.Time)
		}
	}
	f := p.Signed.Facts
	switch p.Signed.mode() {
	case ModeSign:
		now := servedOf(s.Keys, f)
		if now.Serial, now.At = s.Served.Serial, s.Served.At; now.At.IsZero() || !slices.Equal(s.Served.Keys, now.Keys) || !slices.Equal(s.Served.Signers, now.Signers) {
			now.Serial, now.At = zone.Serial(f.Serial), p.Time
		}
		s.Served = now
	case ModeUnsigned:
		s.Served, s.Keys, s.Told = keymgr.Served{}, s.Keys.Unsigned(), nil
	case ModePassThrough:
		s.Served, s.Keys = keymgr.Served{}, s.Keys.Unseen()
	}
	return s
}

// dnskeyTTLOf reads the TTL of the DNSKEY RRset out of an instance's
// parameters.
func dnskeyTTLOf(params string) uint32 {
	for word := range strings.FieldsSeq(params) {
		if text, ok := strings.CutPrefix(word, "dnskey-ttl="); ok {
			n, err := strconv.ParseUint(text, 10, 32)
			if err == nil {
				return uint32(n)
			}
		}
	}
	return 0
}
