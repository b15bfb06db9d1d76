package pipeline

import (
	"cmp"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// Moment is what a decision sees besides the zone's state.
type Moment struct {
	Now time.Time
	// ClockDoubted: Now is not trusted, so nothing is made or let out that
	// depends on it.
	ClockDoubted bool
	// ClockSet is when a clock in doubt was last accepted; zero for never.
	ClockSet time.Time
	// Reload is the number of the newest request to load that was not yet
	// served; 0 for none.
	Reload uint64
	// Full: one of the requests wants everything, whatever its serial.
	Full bool
	// Resign is the number of the newest request to sign that was not yet
	// served, 0 for none; ResignFull: all signatures are to be made again.
	Resign     uint64
	ResignFull bool
	// Inbound is where the zone stands with its servers.
	Inbound Inbound
	// Sights is what the world shows of the zone.
	Sights Sights
	// Elsewhere are the roles whose work in the zone others do. What depends on
	// what they alone know is left to them.
	Elsewhere []Role
	// Workers is the others on the stream; empty where there are none.
	Workers Workers
	// Lacks is the IDs of keys that sign and whose private parts are not here:
	// others sign meanwhile.
	Lacks []string
	// Lanes is what this process does for the zone, and what failed before.
	Lanes [lanes]LaneState
}

// LaneState is where a lane stands in this process.
type LaneState struct {
	// FailedFor is the command that failed last; RetryAt when it may be tried
	// again. Another command runs at once.
	FailedFor string
	RetryAt   time.Time
}

// Decision is what is to be done, at most one command a lane, and when to
// decide again though nothing happened.
type Decision struct {
	Commands []Command
	WakeAt   time.Time // zero: not before something happens
	WakeFor  string    // what is to be done then, a sentence
	Later    []Coming  // all that is to be done by itself later, in no order
	LookAt   time.Time // when a rollover wants to see what the world shows; zero: it does not
}

// Decide says what a zone needs. It is pure.
func Decide(s State, p Policy, m Moment) Decision {
	d := decide(s, p, m)
	if len(s.Quarantines) > 0 {
		d.Commands = slices.DeleteFunc(d.Commands, func(c Command) bool {
			_, rests := s.Quarantines[RoleOf(c)]
			return rests
		})
	}
	return d
}

func decide(s State, p Policy, m Moment) Decision {
	var d Decision
	if s.Removed != 0 || s.Halted != nil {
		return d
	}
	if s.Policy.Name == "" {
		d.add(m, BindPolicy{Policy: s.Added.Facts.Policy})
		return d
	}
	if c := decideContent(&d, s, p, m); c != nil {
		d.add(m, c)
	}
	if c := decideSigning(&d, s, p, m); c != nil {
		d.add(m, c)
	}
	if c := decideShare(s, p, m); c != nil {
		d.add(m, c)
	}
	decideReviews(&d, s, p, m)
	decideParent(&d, s, p, m)
	return d
}

// add takes a command up unless it failed lately, and reports whether it did.
func (d *Decision) add(m Moment, c Command) bool {
	lane := m.Lanes[failLane(c)]
	if lane.FailedFor == c.Identity() && m.Now.Before(lane.RetryAt) {
		d.wake(lane.RetryAt, "what failed is tried again")
		return false
	}
	d.Commands = append(d.Commands, c)
	return true
}

func (d *Decision) wake(at time.Time, reason string) {
	d.Later = append(d.Later, Coming{at, reason})
	if d.WakeAt.IsZero() || at.Before(d.WakeAt) {
		d.WakeAt, d.WakeFor = at, reason
	}
}

func decideContent(d *Decision, s State, p Policy, m Moment) Command {
	if s.Maintenance != nil || s.Stopped != nil {
		return nil
	}
	switch loadedStanding(s, p) {
	case toOpen:
		return OpenReview{Stage: event.StageLoaded, Instance: s.Loaded.Seq}
	case pending:
		return nil // what is asked for meanwhile is loaded after the verdict
	case none, halted, rejected, approved:
	}
	if s.Held == nil {
		if c, done := decideUpdates(s, p, m); done {
			return c
		}
	}
	remote := IsTransfer(s.Source)
	switch {
	case s.Held != nil:
		return decideHeld(s, p)
	case s.Released != nil:
		return Load{Source: s.Source, PassThrough: p.passThrough(), Base: loadBase(s, p), Full: remote, Released: s.Released.Seq, Asked: m.Reload}
	case s.Loaded == nil || s.Loaded.Broken != "":
		return Load{Source: s.Source, PassThrough: p.passThrough(), Full: remote && m.Full, Asked: m.Reload}
	case s.resetWanted():
		return Load{Source: s.Source, PassThrough: p.passThrough(), Full: remote, Asked: m.Reload}
	case !s.Loaded.fits(p):
		// It has not what the mode wants, whatever its serial.
		return Load{Source: s.Source, PassThrough: p.passThrough(), Full: remote, Asked: m.Reload}
	case m.Reload != 0:
		return Load{Source: s.Source, PassThrough: p.passThrough(), Base: loadBase(s, p), Full: remote && m.Full, Asked: m.Reload}
	case s.LoadFailure != nil && s.LoadFailure.Source != s.Source:
		// What failed was another source, which was given up: only what this one
		// holds, though it be the same as before, says how its input is.
		return Load{Source: s.Source, PassThrough: p.passThrough(), Base: loadBase(s, p), Full: remote}
	case s.Loaded.Facts.Source != s.Source && m.Inbound.Read != s.Source:
		// Other servers: their serials say nothing of what is loaded.
		return Load{Source: s.Source, PassThrough: p.passThrough(), Base: loadBase(s, p), Full: remote}
	case remote && !m.Now.Before(m.Inbound.Next):
		return Load{Source: s.Source, PassThrough: p.passThrough(), Base: loadBase(s, p)}
	case remote:
		d.wake(m.Inbound.Next, "the source is asked for news")
	}
	return nil
}

// expired reports whether a zone's contents are too old to be vouched for and
// the policy wants it to end then (RFC 1035, 3.3.13).
func expired(p Policy, m Moment) bool {
	return p.StopsOnExpire() && !m.Inbound.Expires.IsZero() && !m.Now.Before(m.Inbound.Expires)
}

func decideSigning(d *Decision, s State, p Policy, m Moment) Command {
	if m.ClockDoubted {
		return nil
	}
	if s.Maintenance == nil || s.Published != nil {
		if c := decideKeys(s, p, m); c != nil {
			return c
		}
		// Who keeps the keys knows what the world sees of them.
		if !s.elsewhere(m)[RoleKeys] {
			if decideKeyLife(d, s, p, m) {
				return nil
			}
		}
	}
	if at := signedStanding(s, p, m.Now); at == toOpen || at == approved {
		switch {
		case s.newContentHeld(s.Signed.Facts.Loaded):
		case at == toOpen:
			return OpenReview{Stage: event.StageSigned, Instance: s.Signed.Seq}
		default:
			return Publish{Signed: s.Signed.Seq}
		}
	}
	if expired(p, m) {
		return nil
	}
	if p.StopsOnExpire() && !m.Inbound.Expires.IsZero() {
		d.wake(m.Inbound.Expires, "the zone expires unless a server of its source answers")
	}
	if len(m.Lacks) == 0 {
		if c := decideSign(d, s, p, m); c != nil {
			return c
		}
	}
	return decidePool(s, p)
}

// decideKeyLife has done what rollovers and the end of keys ask for, and reports
// whether the lane has nothing else to do now. What keeps it from that keeps
// nothing else: the zone is signed with the keys that it has.
func decideKeyLife(d *Decision, s State, p Policy, m Moment) bool {
	if c := decideRollovers(d, s, p, m); c != nil && d.add(m, c) {
		return true
	}
	c := decideDestroy(d, s, p, m)
	return c != nil && d.add(m, c)
}

// decideKeys makes up for the keys that a zone lacks. All keys of a new zone
// are published and active at once: nobody can have cached anything of a
// zone that was never signed here.
func decideKeys(s State, p Policy, m Moment) Command {
	if p.Mode() != ModeSign {
		return nil
	}
	missing := missingRoles(s.Keys, p.UseCSK())
	if len(missing) > 0 {
		// What completes keys that are there has their algorithm: each
		// algorithm must sign everything (RFC 4035, 2.2).
		for _, k := range s.Keys.Keys {
			if k.State != keymgr.Removed && fills(k) {
				return GenerateKeys{Roles: missing, Algorithm: k.Algorithm, Bits: p.Bits(), Keystores: p.keystoresOf(missing)}
			}
		}
		return GenerateKeys{Roles: missing, Algorithm: p.Algorithm(), Bits: p.Bits(), Keystores: p.keystoresOf(missing)}
	}
	if len(s.Keys.Signing()) > 0 {
		return nil
	}
	ids := waitingKeys(s.Keys)
	switch {
	case len(ids) == 0 || p.Rollovers().Backup && len(s.Keys.Unsaved(ids)) > 0:
		return nil
	case len(s.Keys.Unproved(ids, m.Workers.Provers)) > 0:
		return nil
	case s.Keys.Imports():
		return AdoptKeys{IDs: ids}
	}
	return ActivateKeys{IDs: ids}
}

// missingRoles lists the roles that no usable key fills.
func missingRoles(ks keymgr.KeySet, useCSK bool) []keymgr.Role {
	has := map[keymgr.Role]bool{}
	for _, k := range ks.Keys {
		if !fills(k) {
			continue
		}
		switch k.State {
		case keymgr.Generated, keymgr.Published, keymgr.Ready, keymgr.Active, keymgr.Introduced:
			has[keymgr.Role(k.Role)] = true
		case keymgr.Retired, keymgr.Dead, keymgr.Removed, keymgr.Revoked, keymgr.Withdrawn:
		}
	}
	switch {
	case has[keymgr.CSK], has[keymgr.KSK] && has[keymgr.ZSK]:
		return nil
	case has[keymgr.KSK]:
		return []keymgr.Role{keymgr.ZSK}
	case has[keymgr.ZSK]:
		return []keymgr.Role{keymgr.KSK}
	case useCSK:
		return []keymgr.Role{keymgr.CSK}
	}
	return []keymgr.Role{keymgr.KSK, keymgr.ZSK}
}

// signCommand makes of a loaded instance what the policy's mode says.
func signCommand(s State, p Policy, loaded uint64) Sign {
	mode := p.Mode()
	if mode == ModeSign {
		return resignCommand(s, p, loaded)
	}
	return Sign{AsIs: mode, Loaded: loaded, Base: reusable(s, mode), Params: p.Parameters()}
}

// resignCommand signs a loaded instance with today's keys and parameters.
func resignCommand(s State, p Policy, loaded uint64) Sign {
	return Sign{
		Loaded:  loaded,
		Base:    reusable(s, ModeSign),
		Params:  p.signParameters(),
		Keys:    keyIDs(s.Keys.Published()),
		Signers: keyIDs(s.Keys.Signing()),
		CDS:     cdsOf(s.Keys),
		AtOnce:  atOnce(s),
	}
}

// possible reports whether there are the keys that the mode needs.
func (c Sign) possible() bool { return c.AsIs != "" || len(c.Signers) > 0 }

// mode is how it makes an instance.
func (c Sign) mode() Mode { return cmp.Or(c.AsIs, ModeSign) }

func decideSign(d *Decision, s State, p Policy, m Moment) Command {
	now := m.Now
	content := wantedContent(s, p)
	if content == nil {
		return decideRefresh(d, s, p, m)
	}
	c := signCommand(s, p, content.Seq)
	if !c.possible() {
		return nil
	}
	if !m.ResignFull {
		c.Asked = m.Resign
	}
	if signWait(s, p, c, now) {
		return decideRefresh(d, s, p, m)
	}
	last := s.Signed
	if last == nil || last.Broken != "" {
		return c
	}
	if f := s.SignFailure; f != nil && f.Seq > last.Seq {
		if fresh := decideRefresh(d, s, p, m); fresh != nil &&
			(c.Loaded != s.Published.Loaded.Seq || c.mode() != s.Published.Signed.mode()) {
			return fresh
		}
		again := f.Time.Add(backoff(f.Count))
		// What did not pass was made as the next one would be, unless several made
		// it: after a failure one signs alone.
		same := len(last.Facts.Parts) == 0 && f.Loaded == last.Facts.Loaded && sameInput(s, content) && madeOf(last.Facts).sameWay(c.made())
		if f.Stage == "verify" && same && stampHolds(f.Time, again, now) {
			d.wake(again, "what failed is tried again")
			return nil
		}
		return c
	}
	made := madeOf(last.Facts)
	if !sameInput(s, content) || !made.sameWay(c.made()) {
		return c
	}
	if c.AsIs != "" {
		if c.AsIs == ModeUnsigned && belowFloor(s) {
			c.Refresh = last.Seq
			return c
		}
		return nil // nothing in it grows old, or the source must renew it
	}
	due, exchange := resignAt(s, last, p, content.Facts.Serial), exchangeAt(s, last, p, content.Facts.Serial)
	if m.Resign == 0 && now.Before(due) && now.Before(exchange) && !belowFloor(s) && !signedAhead(last, now) {
		d.wakeResign(due, s, p, content.Facts.Serial)
		d.wakeExchange(exchange)
		return nil
	}
	c.Refresh, c.Asked = last.Seq, m.Resign
	if m.ResignFull {
		c.Base = 0
	}
	return c
}

// belowFloor reports whether the newest serial does not stand above the floor.
func belowFloor(s State) bool {
	return s.SerialFloor != nil && !zone.Serial(*s.SerialFloor).Before(zone.Serial(s.Signed.Facts.Serial))
}

// sameInput reports whether the newest signed instance was made of contents
// like the given ones, serial included.
func sameInput(s State, content *Loaded) bool {
	if s.Signed.Facts.Loaded == content.Seq {
		return true
	}
	p := s.Published
	return p != nil && p.Signed.Seq == s.Signed.Seq && sameContent(&p.Loaded, content)
}

// sameContent reports whether two loaded instances are alike, serial included.
func sameContent(a, b *Loaded) bool {
	return a.Facts.Serial == b.Facts.Serial && a.Facts.ContentDigest == b.Facts.ContentDigest
}

// reusable is the signed instance to build on: the one that is served, so
// that diffs follow each other. It is 0 where that cannot be read, or was made
// in another mode.
func reusable(s State, mode Mode) uint64 {
	if p := s.Published; p != nil && p.Signed.Broken == "" && p.Loaded.Broken == "" && p.Signed.mode() == mode {
		return p.Signed.Seq
	}
	return 0
}

// cdsOf is what CDS and CDNSKEY say, as events have it.
func cdsOf(ks keymgr.KeySet) []string {
	if ks.CDSDelete() {
		return []string{event.CDSDelete}
	}
	return slices.Sorted(slices.Values(ks.CDS()))
}

func keyIDs(keys []keymgr.Key) []string {
	ids := make([]string, 0, len(keys))
	for _, k := range keys {
		ids = append(ids, k.ID)
	}
	slices.Sort(ids)
	return ids
}
