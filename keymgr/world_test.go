package keymgr

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// world is a zone, its servers, its parent and all caches, in short: what a
// validator somewhere may hold together at a time. Answers come from observed
// servers and from sites behind them that nobody observes, which are late by
// up to margin.
type world struct {
	now    time.Time
	margin time.Duration // of the sites that nobody observes
	extra  time.Duration // what the policy adds to it

	ks     KeySet
	events []event.Event
	p      RollPolicy
	cut    string
	blind  bool  // without the hard stop
	unset  []int // events after which the zone was published unsigned

	zones   []zoneVersion
	sites   [2]site // of the zone
	keyTTLs TTLs
	sigTTLs TTLs

	sets    []dsVersion
	parents [2]site
	dsTTLs  TTLs

	seen     *Observation
	unsigned bool
	made     int // keys so far
	random   func(n int) int
}

// zoneVersion is a version of the zone as it is published.
type zoneVersion struct {
	keys    []Key // in the DNSKEY RRset
	signing []Key
	at      time.Time
	serial  uint32
	keyTTL  uint32
	sigTTL  uint32
	last    time.Time // when a site handed it out last
}

type dsVersion struct {
	ids  []string // of keys
	ttl  uint32
	last time.Time
}

// site is an observed server and the late one behind it: the version that each
// has, and when it takes the next one.
type site struct {
	shown, late int
	next        []arrival
}

type arrival struct {
	version    int
	shown, all time.Time
}

func newWorld(random func(n int) int) *world {
	auto := Auto{Start: true, Report: true, Expire: true, Done: true}
	w := &world{
		now: time.Unix(1_800_000_000, 0).UTC(), margin: 30 * time.Minute, random: random, unsigned: true,
		p: RollPolicy{KSK: RolePolicy{Auto: auto}, ZSK: RolePolicy{Auto: auto}, CSK: RolePolicy{Auto: auto}, Algorithm: auto, CDS: true},
	}
	w.zones = []zoneVersion{{at: w.now, serial: 1, keyTTL: 3600, sigTTL: 7200, last: w.now}}
	w.sets = []dsVersion{{ttl: 3600, last: w.now}}
	w.sigTTLs = w.sigTTLs.See(7200, w.now)
	return w
}

// add records facts as the journal would.
func (w *world) add(facts ...event.Facts) {
	for _, f := range facts {
		e := event.Event{Time: w.now, N: uint64(len(w.events) + 1), Facts: f}
		w.events = append(w.events, e)
		w.ks = Evolve(w.ks, e)
	}
}

// newKeys makes keys; their public parts are never used.
func (w *world) newKeys(roles []Role, algorithm uint8) {
	made := &event.KeyGenerated{}
	for _, r := range roles {
		w.made++
		made.Keys = append(made.Keys, event.Key{
			ID: fmt.Sprintf("%s-%d", r, w.made), Role: string(r), Algorithm: algorithm, Tag: uint16(w.made), //nolint:gosec // few
		})
	}
	w.add(made)
}

// start begins a rollover and reports whether it may.
func (w *world) start(kind Kind, m Method, algorithm uint8, useCSK bool) error {
	plan, err := w.ks.NewPlan(kind, m, w.p)
	if err != nil {
		return err
	}
	if roles := NewRoles(kind, useCSK); len(roles) > 0 {
		_, lacking := w.ks.Spare(roles, algorithm)
		if len(lacking) > 0 {
			w.newKeys(lacking, algorithm)
		}
		plan.New, _ = w.ks.Spare(roles, algorithm)
	}
	do, err := w.ks.Begin(plan, w.p, w.known())
	if err == nil {
		w.add(do...)
	}
	return err
}

// first signs the zone with new keys.
func (w *world) first(roles []Role, algorithm uint8) error {
	w.newKeys(roles, algorithm)
	ids, _ := w.ks.Spare(roles, algorithm)
	do, err := w.ks.Begin(Plan{Kind: RollSecure, Method: FirstDS, New: ids}, w.p, w.known())
	if err == nil {
		w.unsigned = false
		w.add(do...)
	}
	return err
}

func (w *world) served() Served {
	n := len(w.zones) - 1
	v := w.zones[n]
	if len(v.keys) == 0 {
		return Served{}
	}
	return Served{Keys: ids(v.keys), Signers: ids(v.signing), Serial: zone.Serial(v.serial), At: v.at}
}

func (w *world) known() Known {
	// The servers are late by up to margin, and the sites behind them again.
	late := w.now.Add(-2 * w.margin)
	dsTTL := w.dsTTLs.Largest(w.now.Add(-w.margin))
	term := func(ttl uint32) Term { return Term{time.Duration(ttl) * time.Second, "model"} }
	return Known{
		Now: w.now, Served: w.served(), Observation: w.seen,
		Timing: Timing{
			Margin: Term{w.margin + w.extra, "model"}, KeyTTL: term(w.keyTTLs.Largest(late)), SigTTL: term(w.sigTTLs.Largest(late)),
			DSTTL: term(dsTTL), cut: w.cut, blind: w.blind,
		},
	}
}

// publish makes a version where keys changed, or at random with other TTLs.
func (w *world) publish(keyTTL, sigTTL uint32) {
	last := &w.zones[len(w.zones)-1]
	v := zoneVersion{at: w.now, serial: last.serial + 1, keyTTL: keyTTL, sigTTL: sigTTL, last: w.now}
	if !w.unsigned {
		v.keys, v.signing = w.ks.Published(), w.ks.Signing()
		if slices.Equal(ids(v.keys), ids(last.keys)) && slices.Equal(ids(v.signing), ids(last.signing)) {
			v.at, v.serial = last.at, last.serial // Served is of the first one
		}
	}
	w.keyTTLs, w.sigTTLs = w.keyTTLs.See(last.keyTTL, w.now).See(keyTTL, w.now), w.sigTTLs.See(last.sigTTL, w.now).See(sigTTL, w.now)
	w.zones = append(w.zones, v)
	for i := range w.sites {
		w.sites[i].take(len(w.zones)-1, w.now.Add(w.delay(w.margin)), w.delay(w.margin))
	}
}

func (w *world) delay(most time.Duration) time.Duration {
	return time.Duration(w.random(int(most/time.Second)+1)) * time.Second
}

func (s *site) take(version int, at time.Time, late time.Duration) {
	if n := len(s.next); n > 0 && at.Before(s.next[n-1].shown) {
		at = s.next[n-1].shown
	}
	all := at.Add(late)
	if n := len(s.next); n > 0 && all.Before(s.next[n-1].all) {
		all = s.next[n-1].all
	}
	s.next = append(s.next, arrival{version, at, all})
}

// setDS gives the parent another DS RRset.
func (w *world) setDS(keys []string, ttl uint32) {
	w.sets = append(w.sets, dsVersion{ids: keys, ttl: ttl, last: w.now})
	for i := range w.parents {
		w.parents[i].take(len(w.sets)-1, w.now.Add(w.delay(w.margin)), w.delay(w.margin))
	}
}

// pass lets time pass: versions arrive, and what is handed out until then is
// noted.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	for i := range w.sites {
		w.sites[i].pass(w.now, func(v int, at time.Time) { w.zones[v].last = later(w.zones[v].last, at) })
	}
	for i := range w.parents {
		w.parents[i].pass(w.now, func(v int, at time.Time) { w.sets[v].last = later(w.sets[v].last, at) })
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func (s *site) pass(now time.Time, handed func(version int, at time.Time)) {
	kept := s.next[:0]
	for _, a := range s.next {
		if !now.Before(a.shown) && s.shown < a.version {
			handed(s.shown, a.shown)
			handed(a.version, a.shown)
			s.shown = a.version
		}
		if !now.Before(a.all) && s.late < a.version {
			handed(s.late, a.all)
			handed(a.version, a.all)
			s.late = a.version
		}
		if now.Before(a.all) {
			kept = append(kept, a)
		}
	}
	s.next = kept
	handed(s.shown, now)
	handed(s.late, now)
}

// observe asks the servers; fails says which do not answer.
func (w *world) observe(fails func() bool) {
	o := &Observation{At: w.now}
	since := w.now.Add(-time.Hour)
	for i, s := range w.sites {
		seen := Seen{Server: fmt.Sprintf("ns%d.example.", i+1), Address: netip.MustParseAddrPort("192.0.2.1:53"), Since: since}
		if fails() {
			seen.Error = "time-out"
			o.Zone = append(o.Zone, seen)
			continue
		}
		v := w.zones[s.shown]
		seen.Serial, seen.Keys, seen.KeyTTL = v.serial, ids(v.keys), v.keyTTL
		for _, k := range v.signing {
			if k.SignsZone() {
				seen.Signed = append(seen.Signed, SeenSignature{Owner: "example.", Type: "SOA", Tag: k.Tag, Algorithm: k.Algorithm, Key: k.ID})
			}
		}
		o.Zone = append(o.Zone, seen)
	}
	var sets []event.DSSet
	for i, s := range w.parents {
		seen := Seen{Server: fmt.Sprintf("a%d.parent.", i+1), Since: since, Validated: true}
		if fails() {
			seen.Error, seen.Validated = "time-out", false
			o.Parent = append(o.Parent, seen)
			continue
		}
		v := w.sets[s.shown]
		seen.NoDS, seen.DSTTL = len(v.ids) == 0, v.ttl
		for _, id := range v.ids {
			k, _ := w.ks.ByID(id)
			seen.DS = append(seen.DS, event.DS{Tag: k.Tag, Algorithm: k.Algorithm, DigestType: 2, Key: id})
		}
		w.dsTTLs = w.dsTTLs.See(v.ttl, w.now)
		o.Parent = append(o.Parent, seen)
		set := event.DSSet{DS: seen.DS, TTL: v.ttl}
		if !slices.ContainsFunc(sets, func(s event.DSSet) bool { return slices.Equal(s.DS, set.DS) && s.TTL == set.TTL }) {
			sets = append(sets, set)
		}
	}
	if len(sets) > 0 && !cmp.Equal(sets, w.ks.DS.Sets) {
		w.add(&event.DSObserved{Sets: sets, Servers: 2, Time: w.now.Unix()})
	}
	w.seen = o
}

// decide takes what steps there are, and publishes what follows. It returns
// what each rollover waits for.
func (w *world) decide() []Step {
	var out []Step
	for again := true; again; {
		again, out = false, nil
		for _, r := range w.ks.Rollovers {
			s := Next(w.ks, r, w.p, w.known())
			if s.Phase == PhaseDo {
				w.add(s.Do...)
				again = true
				break
			}
			out = append(out, s)
		}
		v := w.zones[len(w.zones)-1]
		if !w.unsigned && (!slices.Equal(ids(v.keys), ids(w.ks.Published())) || !slices.Equal(ids(v.signing), ids(w.ks.Signing()))) {
			w.publish(v.keyTTL, v.sigTTL)
			w.pass(0)
			again = true
		}
	}
	return out
}

// bogus looks for what a validator may hold together that does not validate.
func (w *world) bogus() string {
	for _, d := range w.sets {
		if !w.now.Before(d.last.Add(time.Duration(d.ttl)*time.Second)) || len(d.ids) == 0 {
			continue
		}
		for _, k := range w.zones {
			if !w.now.Before(k.last.Add(time.Duration(k.keyTTL) * time.Second)) {
				continue
			}
			for _, z := range w.zones {
				if !w.now.Before(z.last.Add(time.Duration(z.sigTTL) * time.Second)) {
					continue
				}
				if why := w.validate(d, k, z); why != "" {
					return fmt.Sprintf("%s: DS of %v with DNSKEY %v signed by %v and an RRset signed by %v: %s",
						w.now.Format(time.RFC3339), d.ids, ids(k.keys), ids(k.signing), ids(z.signing), why)
				}
			}
		}
	}
	return ""
}

// validate is a strict validator (RFC 4035, 5; all algorithms of the DNSKEY
// RRset and of the DS RRset must have signed, 2.2).
func (w *world) validate(d dsVersion, k, z zoneVersion) string {
	in := func(keys []Key, id string) bool {
		return slices.ContainsFunc(keys, func(k Key) bool { return k.ID == id })
	}
	trusted := false
	need := map[uint8]bool{}
	for _, id := range d.ids {
		key, _ := w.ks.ByID(id)
		need[key.Algorithm] = true
		trusted = trusted || in(k.keys, id) && in(k.signing, id) && key.SignsKeys()
	}
	if !trusted {
		return "no DS matches a key that signs"
	}
	for _, key := range k.keys {
		need[key.Algorithm] = true
	}
	for a := range need {
		signsKeys := slices.ContainsFunc(k.signing, func(s Key) bool { return s.Algorithm == a && s.SignsKeys() && in(k.keys, s.ID) })
		signsZone := slices.ContainsFunc(z.signing, func(s Key) bool { return s.Algorithm == a && s.SignsZone() && in(k.keys, s.ID) })
		if !signsKeys {
			return fmt.Sprintf("the DNSKEY RRset has no signature of algorithm %d", a)
		}
		if !signsZone {
			return fmt.Sprintf("the RRset has no signature of algorithm %d by a key that is held", a)
		}
	}
	return ""
}

// parentActs lets the parent follow what the zone wants: CDS once it is seen,
// a person else.
func (w *world) parentActs(ttl uint32) {
	have := w.sets[len(w.sets)-1].ids
	d := w.ks.DS
	want := d.Wanted
	if d.Since.IsZero() {
		return
	}
	if d.CDS && !d.Withdrawn {
		want = w.ks.CDS()
		if len(want) == 0 {
			return // no CDS: nothing to follow
		}
	}
	if !slices.Equal(have, want) {
		w.setDS(want, ttl)
	}
}

// unsign publishes the zone unsigned.
func (w *world) unsign(keyTTL, sigTTL uint32) {
	w.unsigned, w.ks = true, w.ks.Unsigned()
	w.unset = append(w.unset, len(w.events))
	w.publish(keyTTL, sigTTL)
}

// again is a restart.
func (w *world) again() KeySet {
	var ks KeySet
	for i, e := range w.events {
		if slices.Contains(w.unset, i) {
			ks = ks.Unsigned()
		}
		ks = Evolve(ks, e)
	}
	if slices.Contains(w.unset, len(w.events)) {
		ks = ks.Unsigned()
	}
	return ks
}

// refold checks that a restart, by way of JSON, changes nothing.
func (w *world) refold() string {
	ks := w.again()
	a, err := json.Marshal(w.ks)
	if err != nil {
		return err.Error()
	}
	b, err := json.Marshal(ks)
	if err != nil {
		return err.Error()
	}
	var back KeySet
	if err := json.Unmarshal(a, &back); err != nil {
		return err.Error()
	}
	w.ks = back
	return cmp.Diff(string(a), string(b))
}
