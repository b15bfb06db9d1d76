package keymgr

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	model "sluice/keymgr/world"
	"sluice/signer/zone"
)

// world is a zone whose keys live in a model of its servers, its parent and all
// caches. The observed servers, and the sites behind them that nobody observes,
// are late by up to margin each.
type world struct {
	now    time.Time
	margin time.Duration // of the sites that nobody observes
	above  time.Duration // likewise, of the parent
	extra  time.Duration // what the policy adds to both
	other  other

	ks     KeySet
	events []event.Event
	p      RollPolicy
	cut    string
	blind  bool  // without the hard stop
	unset  []int // events after which the zone was published unsigned

	zones   []zoneVersion
	keyTTLs TTLs
	sigTTLs TTLs

	sets   []dsVersion
	dsTTLs TTLs

	*model.World // what validators may hold of all that

	seen     *Observation
	unsigned bool
	made     int // keys so far
	random   func(n int) int
	spread   spreadModel
}

// zoneVersion is a version of the zone as it is published.
type zoneVersion struct {
	keys    []Key // in the DNSKEY RRset
	signing []Key
	sets    [][]Key // those that sign each sort of RRset but the keys'; none: all alike
	at      time.Time
	serial  uint32
	keyTTL  uint32
	sigTTL  uint32
}

type dsVersion struct {
	ids []string // of keys
	ttl uint32
}

// forValidators is what validators know of keys.
func forValidators(keys []Key) []model.Key {
	var out []model.Key
	for _, k := range keys {
		out = append(out, model.Key{ID: k.ID, Algorithm: k.Algorithm, SignsKeys: k.SignsKeys(), SignsZone: k.SignsZone()})
	}
	return out
}

func (v zoneVersion) forValidators() model.Version {
	var mixed [][]model.Key
	for _, set := range v.sets {
		mixed = append(mixed, forValidators(set))
	}
	return model.Version{
		Published: forValidators(v.keys), Signers: forValidators(v.signing), Mixed: mixed, Serial: v.serial,
		KeyTTL: time.Duration(v.keyTTL) * time.Second, SigTTL: time.Duration(v.sigTTL) * time.Second,
	}
}

func newWorld(random func(n int) int) *world {
	auto := Auto{Start: true, Report: true, Expire: true, Done: true}
	w := &world{
		now: time.Unix(1_800_000_000, 0).UTC(), margin: 30 * time.Minute, above: 30 * time.Minute, random: random, unsigned: true,
		p: RollPolicy{KSK: RolePolicy{Auto: auto}, ZSK: RolePolicy{Auto: auto}, CSK: RolePolicy{Auto: auto}, Algorithm: auto, CDS: true},
	}
	w.zones = []zoneVersion{{at: w.now, serial: 1, keyTTL: 3600, sigTTL: 7200}}
	w.sets = []dsVersion{{ttl: 3600}}
	w.World = model.New(w.now, 2, 2, w.zones[0].forValidators(), model.DSSet{TTL: time.Hour})
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
	out := Served{Keys: ids(v.keys), Signers: v.signers(), Serial: zone.Serial(v.serial), At: v.at}
	for _, set := range v.sets {
		out.Sets = append(out.Sets, ids(set))
	}
	if w.spread.lies {
		out.Signers = ids(v.signing)
	}
	return out
}

func (w *world) known() Known {
	// The servers are late by up to margin, and the sites behind them again.
	late := w.now.Add(-2 * w.margin)
	dsTTL := w.dsTTLs.Largest(w.now.Add(-w.above))
	term := func(ttl uint32) Term { return Term{time.Duration(ttl) * time.Second, "model"} }
	return Known{
		Now: w.now, Served: w.served(), Observation: w.seen,
		Timing: Timing{
			Margin: Term{w.margin + w.extra, "model"}, ParentMargin: Term{w.above + w.extra, "model"}, KeyTTL: term(w.keyTTLs.Largest(late)), SigTTL: term(w.sigTTLs.Largest(late)),
			DSTTL: term(dsTTL), cut: w.cut, blind: w.blind,
		},
	}
}

// publish makes a version where keys changed, or at random with other TTLs.
func (w *world) publish(keyTTL, sigTTL uint32) {
	last := &w.zones[len(w.zones)-1]
	v := zoneVersion{at: w.now, serial: last.serial + 1, keyTTL: keyTTL, sigTTL: sigTTL}
	if !w.unsigned {
		v.keys, v.signing = w.ks.Published(), w.ks.Signing()
		v.sets = w.spreadSets(last)
		same := slices.Equal(v.signers(), last.signers())
		if w.spread.lies {
			same = slices.Equal(ids(v.signing), ids(last.signing))
		}
		if slices.Equal(ids(v.keys), ids(last.keys)) && same {
			v.at, v.serial = last.at, last.serial // Served is of the first one
		}
	}
	w.other.pass(w)
	w.keyTTLs, w.sigTTLs = w.keyTTLs.See(last.keyTTL, w.now).See(keyTTL, w.now), w.sigTTLs.See(last.sigTTL, w.now).See(sigTTL, w.now)
	w.zones = append(w.zones, v)
	w.Publish(v.forValidators(), w.lag)
}

// lag is how late a site is, and the one behind it.
func (w *world) lag(int) model.Lag {
	return model.Lag{Shown: w.delay(w.margin), Late: w.delay(w.margin)}
}

func (w *world) delay(most time.Duration) time.Duration {
	return time.Duration(w.random(int(most/time.Second)+1)) * time.Second
}

// setDS gives the parent another DS RRset.
func (w *world) setDS(keys []string, ttl uint32) {
	w.sets = append(w.sets, dsVersion{ids: keys, ttl: ttl})
	set := model.DSSet{TTL: time.Duration(ttl) * time.Second}
	for _, id := range keys {
		k, _ := w.ks.ByID(id)
		set.Keys = append(set.Keys, forValidators([]Key{k})...)
	}
	w.SetDS(set, func(int) model.Lag { return model.Lag{Shown: w.delay(w.above), Late: w.delay(w.above)} })
}

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	w.Pass(w.now)
	w.other.pass(w)
}

// observe asks the servers; fails says which do not answer.
func (w *world) observe(fails func() bool) {
	o := &Observation{At: w.now}
	since := w.now.Add(-time.Hour)
	for i := range 2 {
		seen := Seen{Server: fmt.Sprintf("ns%d.example.", i+1), Address: netip.MustParseAddrPort("192.0.2.1:53"), Since: since}
		if fails() {
			seen.Error = "time-out"
			o.Zone = append(o.Zone, seen)
			continue
		}
		v := w.zones[w.Shown(i)]
		seen.Serial, seen.Keys, seen.KeyTTL = v.serial, ids(v.keys), v.keyTTL
		for _, k := range v.signing {
			if k.SignsZone() {
				seen.Signed = append(seen.Signed, SeenSignature{Owner: "example.", Type: "SOA", Tag: k.Tag, Algorithm: k.Algorithm, Key: k.ID})
			}
			if k.SignsKeys() && slices.Contains(seen.Keys, k.ID) {
				seen.Signed = append(seen.Signed, SeenSignature{Owner: "example.", Type: "DNSKEY", Tag: k.Tag, Algorithm: k.Algorithm, Key: k.ID})
			}
		}
		o.Zone = append(o.Zone, seen)
	}
	o.Zone = append(o.Zone, w.other.shows(w)...)
	var sets []event.DSSet
	for i := range 2 {
		seen := Seen{Server: fmt.Sprintf("a%d.parent.", i+1), Since: since, Validated: true}
		if fails() {
			seen.Error, seen.Validated = "time-out", false
			o.Parent = append(o.Parent, seen)
			continue
		}
		v := w.sets[w.ShownDS(i)]
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
	o.Note(w.seen, w.ks.InState(Published), w.now)
	w.seen = o
}

// decide takes what steps there are, and publishes what follows. It returns
// what each rollover waits for.
func (w *world) decide() []Step {
	var out []Step
	for again := true; again; {
		again, out = false, nil
		for _, r := range w.ks.Rollovers {
			if w.unsigned {
				break
			}
			s := Next(w.ks, r, w.p, w.known())
			if s.Phase == PhaseDo {
				w.add(s.Do...)
				again = true
				break
			}
			out = append(out, s)
		}
		v := w.zones[len(w.zones)-1]
		if !w.unsigned && (!slices.Equal(ids(v.keys), ids(w.ks.Published())) || !slices.Equal(ids(v.signing), ids(w.ks.Signing())) || w.lastSlice(v)) {
			w.publish(v.keyTTL, v.sigTTL)
			w.pass(0)
			again = true
		}
	}
	return out
}

// bogus looks for what a validator may hold together that does not validate.
func (w *world) bogus() string {
	if b := w.Bogus(); b != nil {
		return b.String()
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

// mayUnsign reports whether the zone may be published unsigned: its DS went, or it
// has none and the parent was not told to add one.
func (w *world) mayUnsign() bool {
	margin := w.known().Timing.DSMargin()
	none := !w.ks.MayGetDS() && w.ks.DS.absent() && w.ks.DS.HeldUntil(w.now, margin).IsZero()
	return !w.unsigned && !w.other.answers(w.now) && (none || w.ks.Gone(w.now, margin))
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
