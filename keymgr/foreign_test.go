package keymgr

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sluice/journal/event"
)

// other is another signer of the world's zone, which has all keys of ours in
// its DNSKEY RRset as soon as we publish them. It begins to answer when it may,
// and resolvers go on asking it for as long as they know the delegation.
type other struct {
	keys    []Key
	serving bool      // its servers stand in the NS RRset
	until   time.Time // when resolvers ask it last, once they do not
	number  int       // of its version in the model, from 1; 0 for none
	version string    // what that is
}

// joins brings the other signer's keys in.
func (w *world) joins(algorithm uint8) error {
	if len(w.other.keys) == 0 {
		f := &event.KeyImported{Foreign: true}
		for _, role := range []Role{KSK, ZSK} {
			w.made++
			k := event.Key{ID: fmt.Sprintf("foreign-%s-%d", role, w.made), Role: string(role), Algorithm: algorithm, Tag: uint16(w.made)} //nolint:gosec // few
			f.Keys = append(f.Keys, k)
			w.other.keys = append(w.other.keys, Key{Key: k})
		}
		w.add(f)
	}
	return w.start(RollForeign, "", 0, false)
}

// leaves takes its keys out again.
func (w *world) leaves() error {
	var failed error
	for _, k := range w.other.keys {
		plan, err := w.ks.PlanLeave(k.ID)
		if err == nil && !w.ks.taken(k.ID) {
			var do []event.Facts
			if do, err = w.ks.Begin(plan, w.p, w.known()); err == nil {
				w.add(do...)
			}
		}
		if err != nil {
			failed = err
		}
	}
	return failed
}

// mayServe reports whether its servers may be named in the NS RRset: all its
// keys came in, and have the one algorithm that there is.
func (o *other) mayServe(w *world) bool {
	if len(o.keys) == 0 || w.unsigned {
		return false
	}
	for _, k := range o.keys {
		own, ok := w.ks.ByID(k.ID)
		if !ok || own.State != Published || w.ks.taken(k.ID) {
			return false
		}
		if w.ks.DS.Wanted != nil && own.SignsKeys() && !slices.Contains(w.ks.DS.Wanted, k.ID) {
			return false
		}
	}
	for _, k := range w.ks.Keys {
		if (k.InRRset() || k.Signs()) && k.Algorithm != o.keys[0].Algorithm {
			return false
		}
	}
	return true
}

func (o *other) answers(now time.Time) bool { return o.serving || now.Before(o.until) }

// stop takes its servers out of the NS RRset.
func (o *other) stop(w *world) {
	if o.serving {
		o.serving, o.until = false, w.now.Add(delegationTTL)
	}
}

// pass notes what it hands out: the newest version's keys and signatures of its
// own.
func (o *other) pass(w *world) {
	last := w.now
	if !o.serving && o.until.Before(last) {
		last = o.until
	}
	v := w.zones[len(w.zones)-1]
	v.signing, v.sets, v.at, v.serial = o.keys, nil, time.Time{}, 0
	now := fmt.Sprint(ids(v.keys), v.keyTTL, v.sigTTL)
	if o.number > 0 {
		w.HandOut(o.number-1, last)
	}
	switch {
	case !o.answers(w.now):
		o.number = 0
	case o.number == 0 || o.version != now:
		o.version, o.number = now, w.Elsewhere(v.forValidators())+1
		w.HandOut(o.number-1, last)
	}
}

// shows is what its server shows who looks.
func (o *other) shows(w *world) []Seen {
	if !o.serving {
		return nil
	}
	v := w.zones[len(w.zones)-1]
	s := Seen{Server: "ns.other.", Address: netip.MustParseAddrPort("198.51.100.1:53"), Serial: 1, Keys: ids(v.keys), KeyTTL: v.keyTTL}
	for _, k := range o.keys {
		t := "DNSKEY"
		if k.SignsZone() {
			t = "SOA"
		}
		s.Signed = append(s.Signed, SeenSignature{Owner: "example.", Type: t, Tag: k.Tag, Algorithm: k.Algorithm, Key: k.ID})
	}
	return []Seen{s}
}

// shares is something that may happen to the other signer.
func (w *world) shares(random func(int) int) {
	o := &w.other
	switch random(4) {
	case 0, 1:
		if !o.answers(w.now) && o.mayServe(w) {
			o.serving = true
			o.pass(w)
		} else {
			_ = w.joins(w.algorithm()) // refused where it may not
		}
	case 2:
		o.stop(w)
	case 3:
		_ = w.leaves()
	}
}

// standsBy makes keys ahead, publishes or marks one, or demands marks.
func (w *world) standsBy(random func(int) int) {
	switch random(4) {
	case 0:
		if role := w.ks.PoolLacks(Pool{KSK: 1, ZSK: 2, CSK: 1}, random(2) == 0, w.algorithm()); role != "" {
			w.newKeys([]Role{role}, w.algorithm())
		}
	case 1:
		for _, k := range w.ks.InState(Generated) {
			do := &event.KeyPublished{IDs: []string{k.ID}}
			if !k.Foreign && !w.ks.taken(k.ID) && w.ks.MayStandBy(k.ID) == nil {
				w.add(do)
				break
			}
		}
	case 2:
		for _, k := range w.ks.ToBackUp(time.Time{}) {
			w.add(&event.KeyBackedUp{IDs: []string{k.ID}})
		}
	case 3:
		w.p.Backup = !w.p.Backup
	}
}

// settle lets time pass until no rollover runs.
func (w *world) settle(t *testing.T, what string) {
	t.Helper()
	for range 800 {
		w.tick(15*time.Minute, 3600)
		if why := w.bogus(); why != "" {
			t.Fatalf("%s: %s", what, why)
		}
		if len(w.ks.Rollovers) == 0 {
			return
		}
	}
	t.Fatalf("%s does not end: %+v", what, Next(w.ks, w.ks.Rollovers[0], w.p, w.known()))
}

// shared is a world with two signers that both answer.
func shared(t *testing.T, w *world) {
	t.Helper()
	w.secure(t, false)
	w.settle(t, "the first DS")
	if err := w.joins(13); err != nil {
		t.Fatal(err)
	}
	w.settle(t, "the way in")
	if !w.other.mayServe(w) {
		t.Fatalf("the other signer may not answer: %+v", w.ks.Keys)
	}
	w.other.serving = true
}

func TestRFC8901_KeysOfAnotherSignerComeAndGo(t *testing.T) {
	w := newWorld(half)
	shared(t, w)
	want := []string{"foreign-ksk-3", "ksk-1"}
	if got := w.ks.CDS(); !slices.Equal(got, want) {
		t.Errorf("CDS names %v, want %v", got, want)
	}
	for _, k := range w.ks.Signing() {
		if k.Foreign {
			t.Errorf("%s signs", k.ID)
		}
	}
	for _, kind := range []Kind{RollZSK, RollKSK, RollCSK} {
		if err := w.start(kind, "", 13, false); err != nil {
			t.Fatal(err)
		}
		w.settle(t, string(kind))
		if got := len(w.ks.filter((*Key).usesForeign)); got != 2 {
			t.Errorf("after %s %d foreign keys are published", kind, got)
		}
	}
	if err := w.leaves(); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		w.tick(time.Hour, 3600)
	}
	if len(w.ks.Rollovers) != 2 || Next(w.ks, w.ks.Rollovers[0], w.p, w.known()).Phase != PhaseSee {
		t.Errorf("leaves while the other signer answers: %+v", w.ks.Rollovers)
	}
	w.other.stop(w)
	w.settle(t, "the way out")
	if got := w.ks.CDS(); len(got) != 1 || len(w.ks.filter((*Key).usesForeign)) != 0 {
		t.Errorf("CDS %v, keys %+v", got, w.ks.Published())
	}
	// It comes back with the same keys.
	w.add(&event.KeyImported{Foreign: true, Keys: []event.Key{w.other.keys[0].Key, w.other.keys[1].Key}})
	if err := w.joins(13); err != nil {
		t.Fatal(err)
	}
	w.settle(t, "the way back in")
	if !w.other.mayServe(w) {
		t.Errorf("%+v", w.ks.Keys)
	}
}

// Without the waits the model finds what does not validate.
func TestRFC8901_EachWaitIsNeeded(t *testing.T) {
	for _, name := range []string{"Ipub", "IpubP", "IretForeign"} {
		w := newWorld(half)
		w.secure(t, false)
		w.settle(t, "the first DS")
		ttl := uint32(3600)
		if w.cut = name; name == "Ipub" {
			ttl, w.above = 60, time.Second // else the wait for the DS is enough
			w.publish(14400, 7200)
		}
		if err := w.joins(13); err != nil {
			t.Fatal(err)
		}
		found := ""
		for i := range 2000 {
			w.tick(5*time.Minute, ttl)
			if found == "" {
				found = w.bogus()
			}
			if !w.other.serving && w.other.until.IsZero() && w.other.mayServe(w) {
				w.other.serving = true
				w.other.pass(w)
			}
			if i == 500 {
				w.other.stop(w)
				if err := w.leaves(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if found == "" {
			t.Errorf("without %s nothing becomes bogus", name)
		}
	}
}

func TestRFC8901_4_OtherAlgorithmsAreRefused(t *testing.T) {
	w := newWorld(half)
	w.secure(t, false)
	w.settle(t, "the first DS")
	if err := w.joins(15); err == nil {
		t.Error("keys of another algorithm come in")
	}
}

// An algorithm does not go while another signer's keys have it.
func TestRFC8901_4_AlgorithmStaysForOtherSigners(t *testing.T) {
	w := newWorld(half)
	shared(t, w)
	if err := w.start(RollAlgorithm, "", 15, false); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		w.tick(time.Hour, 3600)
		if why := w.bogus(); why != "" {
			t.Fatal(why)
		}
	}
	if r := w.ks.Rollovers[0]; r.StepName() != "introduce" {
		t.Errorf("at step %s though the other signer has but one algorithm", r.StepName())
	}
	// That signer is gone, its keys are not: the old algorithm must not go.
	w.other.stop(w)
	for range 600 {
		w.tick(time.Hour, 3600)
		if why := w.bogus(); why != "" {
			t.Fatal(why)
		}
	}
	if s := Next(w.ks, w.ks.Rollovers[0], w.p, w.known()); s.Phase != PhaseSee || w.ks.Rollovers[0].StepName() != "introduce" {
		t.Errorf("step %s: %+v", w.ks.Rollovers[0].StepName(), s)
	}
	if err := w.ks.MayBecome([]event.Facts{&event.KeyWithdrawn{IDs: w.ks.Rollovers[0].Old}}, w.known()); err == nil {
		t.Error("the hard stop lets the algorithm go")
	}
	if err := w.leaves(); err != nil {
		t.Fatal(err)
	}
	w.settle(t, "both")
}

func TestHardStop_ForeignKSKMakesNothingValid(t *testing.T) {
	w := newWorld(half)
	shared(t, w)
	var own []string
	for _, k := range w.ks.Signing() {
		own = append(own, k.ID)
	}
	if err := w.ks.MayBecome([]event.Facts{&event.KeyRemoved{IDs: own}}, w.known()); err == nil {
		t.Error("our keys may go, since a DS matches a foreign one")
	}
}

// A ZSK that every server has shown for long signs at once.
func TestStandby_ZSKSeenLongAgoNeedsNoFurtherWait(t *testing.T) {
	w := newWorld(half)
	w.secure(t, false)
	w.settle(t, "the first DS")
	w.newKeys([]Role{ZSK}, 13)
	w.add(&event.KeyPublished{IDs: []string{w.ks.Keys[len(w.ks.Keys)-1].ID}})
	for range 20 {
		w.tick(15*time.Minute, 3600)
	}
	if err := w.start(RollZSK, "", 13, false); err != nil {
		t.Fatal(err)
	}
	w.observe(func() bool { return false })
	w.decide()
	if r := w.ks.Rollovers[0]; r.StepName() != "sign" {
		t.Errorf("waits in step %s until %+v", r.StepName(), r.Wait)
	}
	w.settle(t, "the rollover")

	// One that was seen a moment ago waits for the rest.
	w.newKeys([]Role{ZSK}, 13)
	w.add(&event.KeyPublished{IDs: []string{w.ks.Keys[len(w.ks.Keys)-1].ID}})
	for range 4 {
		w.tick(15*time.Minute, 3600)
	}
	if err := w.start(RollZSK, "", 13, false); err != nil {
		t.Fatal(err)
	}
	w.observe(func() bool { return false })
	w.decide()
	r := w.ks.Rollovers[0]
	if r.StepName() != "publish" || r.Wait == nil || time.Unix(r.Wait.Earliest, 0).Sub(w.now) >= time.Duration(r.Wait.Seconds)*time.Second {
		t.Errorf("step %s, wait %+v", r.StepName(), r.Wait)
	}
	w.settle(t, "the rollover")
}

func TestBackup_KeyWithoutMarkIsNotUsed(t *testing.T) {
	for _, c := range courses() {
		if c.kind == RollInsecure {
			continue
		}
		w := newWorld(half)
		w.secure(t, c.csk)
		w.settle(t, "the first DS")
		w.p.Backup = true
		before := ids(w.ks.Published())
		if err := w.start(c.kind, c.method, c.algorithm, c.toCSK); err != nil {
			t.Fatal(err)
		}
		for range 20 {
			w.tick(15*time.Minute, 3600)
		}
		r := w.ks.Rollovers[0]
		if s := Next(w.ks, r, w.p, w.known()); s.Phase != PhaseBackup || r.Step != 0 || !slices.Equal(before, ids(w.ks.Published())) || len(w.ks.DS.Wanted) != 1 {
			t.Errorf("%s: step %d, %+v", c.name, r.Step, s)
		}
		w.add(&event.KeyBackedUp{IDs: r.New})
		w.settle(t, c.name)
	}
}
