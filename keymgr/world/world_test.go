package world

import (
	"slices"
	"testing"
	"time"
)

var start = time.Unix(1_800_000_000, 0).UTC()

func key(id string, algorithm uint8) Key {
	return Key{ID: id, Algorithm: algorithm, SignsKeys: true, SignsZone: true}
}

func signedBy(serial uint32, keys ...Key) Version {
	return Version{Published: keys, Signers: keys, Serial: serial, KeyTTL: time.Hour, SigTTL: time.Hour}
}

// at lets time pass arrival by arrival and returns what was bogus first.
func (w *World) at(d time.Duration) *Bogus {
	end := start.Add(d)
	for {
		next := w.Next()
		if next.IsZero() || next.After(end) {
			w.Pass(end)
			return w.Bogus()
		}
		w.Pass(next)
		if b := w.Bogus(); b != nil {
			return b
		}
	}
}

func noLag(int) Lag { return Lag{} }

// A key that is exchanged at once for another is bogus for who has the old DS,
// and it is not where both stand beside each other for as long as that lasts.
func TestBogus_KeyExchangedBeforeTheDS(t *testing.T) {
	a, b := key("a", 13), key("b", 13)
	w := New(start, 2, 1, signedBy(1, a), DSSet{Keys: []Key{a}, TTL: time.Hour})
	w.Publish(signedBy(2, b), noLag)
	found := w.at(time.Minute)
	if found == nil || !slices.Equal(found.DS, []string{"a"}) || !slices.Equal(found.Signers, []string{"b"}) {
		t.Fatalf("found %v", found)
	}

	w = New(start, 2, 1, signedBy(1, a), DSSet{Keys: []Key{a}, TTL: time.Hour})
	w.Publish(signedBy(2, a, b), noLag)
	if found := w.at(time.Hour); found != nil {
		t.Fatal(found)
	}
	w.SetDS(DSSet{Keys: []Key{b}, TTL: time.Hour}, noLag)
	if found := w.at(2*time.Hour + time.Second); found != nil {
		t.Fatal(found)
	}
	w.Publish(signedBy(3, b), noLag)
	if found := w.at(5 * time.Hour); found != nil {
		t.Error(found)
	}
	if n := len(w.live) + len(w.liveDS); n != 2 {
		t.Errorf("%d versions and sets are kept that no cache holds", n-2)
	}
}

// A DS set that is withdrawn one second before its TTL has run out is held
// together with what is published then.
func TestBogus_CacheHoldsDSUntilItsTTL(t *testing.T) {
	a, b := key("a", 13), key("b", 13)
	for left, want := range map[time.Duration]bool{time.Second: true, 0: false} {
		w := New(start, 1, 1, signedBy(1, a, b), DSSet{Keys: []Key{a}, TTL: 3 * time.Hour})
		w.SetDS(DSSet{Keys: []Key{b}, TTL: time.Hour}, noLag)
		if found := w.at(3*time.Hour - left); found != nil {
			t.Fatal(found)
		}
		w.Publish(signedBy(2, b), noLag)
		if found := w.at(3*time.Hour - left); (found != nil) != want {
			t.Errorf("%s before the TTL is over: found %v", left, found)
		}
	}
}

// Where some RRsets are signed by one key and the rest by another, both keys
// must be held.
func TestBogus_MixedSigners(t *testing.T) {
	ksk := Key{ID: "ksk", Algorithm: 13, SignsKeys: true}
	old, fresh := Key{ID: "old", Algorithm: 13, SignsZone: true}, Key{ID: "new", Algorithm: 13, SignsZone: true}
	v := Version{
		Published: []Key{ksk, old, fresh}, Signers: []Key{ksk, old, fresh}, Mixed: [][]Key{{old}, {fresh}}, KeyTTL: time.Hour, SigTTL: time.Hour,
	}
	w := New(start, 1, 1, v, DSSet{Keys: []Key{ksk}, TTL: time.Hour})
	if found := w.at(0); found != nil {
		t.Fatal(found)
	}
	v.Published = []Key{ksk, fresh}
	w.Publish(v, noLag)
	if found := w.at(0); found == nil || !slices.Equal(found.Signers, []string{"old"}) {
		t.Errorf("found %v", found)
	}
}

// A new algorithm in the DNSKEY RRset must have signed all that caches hold.
func TestBogus_AlgorithmThatSignedNothingCached(t *testing.T) {
	a, b := key("a", 13), key("b", 15)
	w := New(start, 1, 1, signedBy(1, a), DSSet{Keys: []Key{a}, TTL: time.Hour})
	w.Publish(signedBy(2, a, b), noLag)
	if found := w.at(0); found == nil || !slices.Equal(found.Signers, []string{"a"}) {
		t.Errorf("found %v", found)
	}
}

// A server that is cut off goes on handing out what it has until that expires,
// shows nothing to who observes it, and takes the newest once it is back.
func TestWorld_OutageHoldsAServerBack(t *testing.T) {
	a, b := key("a", 13), key("b", 13)
	outage := Outage{From: start.Add(time.Hour), Until: start.Add(10 * time.Hour), Expire: 2 * time.Hour}
	w := New(start, 2, 1, signedBy(1, a), DSSet{TTL: time.Hour})
	w.Fail(1, outage)
	w.Pass(outage.From)
	w.Publish(signedBy(2, a, b), noLag)
	w.Pass(start.Add(9 * time.Hour))
	if w.Shown(0) != 1 || w.Shown(1) != 0 || !w.Down(0).IsZero() || !w.Down(1).Equal(outage.From) {
		t.Fatalf("servers show %d and %d, the second is down since %s", w.Shown(0), w.Shown(1), w.Down(1))
	}
	if _, keys, _ := w.held(); len(keys) != 1 || keys[0] != &w.versions[1] {
		t.Errorf("six hours after the first version expired caches hold %v", keys)
	}
	if next := w.Next(); !next.Equal(outage.Until) {
		t.Errorf("something arrives next at %s", next)
	}
	w.Pass(outage.Until)
	if w.Shown(1) != 1 || !w.Down(1).IsZero() {
		t.Errorf("back, it shows %d and is down since %s", w.Shown(1), w.Down(1))
	}
}

// What another signer hands out counts, for as long as caches may hold it.
func TestBogus_OtherSignersSignaturesNeedItsKeyHere(t *testing.T) {
	a, b := key("a", 13), key("b", 13)
	w := New(start, 1, 1, signedBy(1, a), DSSet{Keys: []Key{a, b}, TTL: time.Hour})
	n := w.Elsewhere(signedBy(1, b))
	if found := w.at(0); found != nil {
		t.Errorf("found %v before it answers", found)
	}
	w.HandOut(n, start)
	if found := w.at(0); found == nil {
		t.Error("its signatures validate with a DNSKEY RRset that lacks its key")
	}
	if found := w.at(48 * time.Hour); found != nil {
		t.Errorf("found %v when all has run out", found)
	}
}
