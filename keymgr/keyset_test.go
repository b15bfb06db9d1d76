package keymgr_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/journal/event"
	"sluice/keymgr"
)

func exponent(public crypto.PublicKey) int {
	if p, ok := public.(*rsa.PublicKey); ok {
		return p.E
	}
	return 0
}

// noon is when the tests' first event is; the later ones follow by the hour.
func noon() time.Time { return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC) }

func madeKey(t testing.TB, role keymgr.Role, seed byte) (event.Key, crypto.Signer) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(slices.Repeat([]byte{seed}, 32))
	key, err := keymgr.NewKey(role, 15, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	key.Keystore, key.Reference = "memory", string(rune('a'+seed))
	return key, private
}

func fold(facts ...event.Facts) keymgr.KeySet {
	var ks keymgr.KeySet
	for i, f := range facts {
		ks = keymgr.Evolve(ks, event.Event{Time: noon().Add(time.Duration(i) * time.Hour), Facts: f})
	}
	return ks
}

func TestEvolve_LifeOfAKey(t *testing.T) {
	key, _ := madeKey(t, keymgr.ZSK, 1)
	ids := []string{key.ID}
	at := func(i int) time.Time { return noon().Add(time.Duration(i) * time.Hour) }
	facts := []event.Facts{
		&event.KeyGenerated{Keys: []event.Key{key}}, &event.KeyPublished{IDs: ids}, &event.KeyActivated{IDs: ids},
		&event.KeyRetired{IDs: ids}, &event.KeyRemoved{IDs: ids},
	}
	want := []keymgr.Key{
		{Key: key, State: keymgr.Generated, Generated: at(0)},
		{Key: key, State: keymgr.Published, Generated: at(0), Published: at(1)},
		{Key: key, State: keymgr.Active, Generated: at(0), Published: at(1), Activated: at(2)},
		{Key: key, State: keymgr.Retired, Generated: at(0), Published: at(1), Activated: at(2), Retired: at(3)},
		{Key: key, State: keymgr.Removed, Generated: at(0), Published: at(1), Activated: at(2), Retired: at(3), Removed: at(4)},
	}
	published := []bool{false, true, true, true, false}
	for i := range facts {
		ks := fold(facts[:i+1]...)
		got, ok := ks.ByID(key.ID)
		if !ok {
			t.Fatal("the key is not there")
		}
		if diff := cmp.Diff(want[i], got); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", facts[i].EventType(), diff)
		}
		if (len(ks.Published()) == 1) != published[i] || (len(ks.Signing()) == 1) != (i == 2) || len(ks.InState(want[i].State)) != 1 {
			t.Errorf("after %s: published %v, signing %v", facts[i].EventType(), ks.Published(), ks.Signing())
		}
	}
}

func TestEvolve_Steps(t *testing.T) {
	key, _ := madeKey(t, keymgr.KSK, 1)
	ids := []string{key.ID}
	generated, imported := &event.KeyGenerated{Keys: []event.Key{key}}, &event.KeyImported{Keys: []event.Key{key}, From: "K.private"}
	active := &event.KeyActivated{IDs: ids}
	rows := []struct {
		fact  string
		facts []event.Facts
		want  keymgr.State
	}{
		{"activation publishes", []event.Facts{generated, active}, keymgr.Active},
		{"an imported key begins as generated", []event.Facts{imported}, keymgr.Generated},
		{"a retired key may be active again", []event.Facts{generated, active, &event.KeyRetired{IDs: ids}, active}, keymgr.Active},
		{"a removed key stays removed", []event.Facts{generated, &event.KeyRemoved{IDs: ids}, active, &event.KeyPublished{IDs: ids}}, keymgr.Removed},
		{"publishing an active key changes nothing", []event.Facts{generated, active, &event.KeyPublished{IDs: ids}}, keymgr.Active},
		{"a key that never signed is not retired", []event.Facts{generated, &event.KeyRetired{IDs: ids}}, keymgr.Generated},
		{"a key that comes twice keeps its life", []event.Facts{generated, active, generated}, keymgr.Active},
		{"unknown IDs change nothing", []event.Facts{generated, &event.KeyActivated{IDs: []string{"x"}}}, keymgr.Generated},
		{"other events change nothing", []event.Facts{generated, &event.InstancePublished{}, nil}, keymgr.Generated},
	}
	for _, row := range rows {
		t.Run(row.fact, func(t *testing.T) {
			ks := fold(row.facts...)
			if len(ks.Keys) != 1 || ks.Keys[0].State != row.want {
				t.Errorf("keys %+v, want one in state %s", ks.Keys, row.want)
			}
			if again := ks.Keys[0]; row.want == keymgr.Active && (again.Published.IsZero() || again.Activated.IsZero() || !again.Retired.IsZero()) {
				t.Errorf("times of an active key: %+v", again)
			}
			if ks.Keys[0].Imported != (row.facts[0] == event.Facts(imported)) {
				t.Error("imported is wrong")
			}
		})
	}
}

// The fold is pure: a set that was folded on is as it was, whatever follows,
// and its JSON gives it back.
func TestEvolve_LeavesItsInputAlone(t *testing.T) {
	var made []event.Key
	for i := range byte(4) {
		key, _ := madeKey(t, []keymgr.Role{keymgr.KSK, keymgr.ZSK, keymgr.CSK}[i%3], i)
		made = append(made, key)
	}
	rapid.Check(t, func(t *rapid.T) {
		var ks keymgr.KeySet
		for i := range rapid.IntRange(1, 20).Draw(t, "events") {
			key := rapid.SampledFrom(made).Draw(t, "key")
			ids := []string{key.ID, rapid.SampledFrom(made).Draw(t, "other").ID}
			f := rapid.SampledFrom([]event.Facts{
				&event.KeyGenerated{Keys: []event.Key{key}}, &event.KeyImported{Keys: []event.Key{key}},
				&event.KeyPublished{IDs: ids}, &event.KeyActivated{IDs: ids}, &event.KeyRetired{IDs: ids}, &event.KeyRemoved{IDs: ids},
			}).Draw(t, "facts")
			before, err := json.Marshal(ks)
			if err != nil {
				t.Fatal(err)
			}
			next := keymgr.Evolve(ks, event.Event{Time: noon().Add(time.Duration(i) * time.Second), Facts: f})
			after, err := json.Marshal(ks)
			if err != nil {
				t.Fatal(err)
			}
			if string(before) != string(after) {
				t.Fatalf("%s changed its input from %s to %s", f.EventType(), before, after)
			}
			text, err := json.Marshal(next)
			if err != nil {
				t.Fatal(err)
			}
			var back keymgr.KeySet
			if err := json.Unmarshal(text, &back); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(next, back); diff != "" {
				t.Fatal(diff)
			}
			for _, k := range next.Published() {
				if k.Published.IsZero() || !k.Removed.IsZero() {
					t.Fatalf("key %+v is in the DNSKEY RRset", k)
				}
			}
			ks = next
		}
	})
}

func TestTags_HoldRevokedFormsOfEveryKey(t *testing.T) {
	one, _ := madeKey(t, keymgr.KSK, 1)
	two, _ := madeKey(t, keymgr.ZSK, 2)
	ks := fold(&event.KeyGenerated{Keys: []event.Key{one, two}}, &event.KeyRemoved{IDs: []string{two.ID}})
	var want []uint16
	for _, k := range []event.Key{one, two} {
		raw, err := keymgr.RData(k)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, k.Tag, keymgr.RevokedTag(raw))
	}
	slices.Sort(want)
	if got := ks.Tags(); !slices.Equal(got, want) {
		t.Errorf("tags %v, want %v", got, want)
	}
}

// RFC 7583, 3.1: time alone makes a published key ready and a retired one
// dead.
func TestStateAt(t *testing.T) {
	const hour = time.Hour
	published := keymgr.Key{State: keymgr.Published, Published: noon()}
	retired := keymgr.Key{State: keymgr.Retired, Published: noon().Add(-hour), Retired: noon()}
	active := keymgr.Key{State: keymgr.Active, Published: noon(), Activated: noon()}
	for _, row := range []struct {
		key   keymgr.Key
		after time.Duration
		want  keymgr.State
	}{
		{published, 2*hour - 1, keymgr.Published},
		{published, 2 * hour, keymgr.Ready},
		{retired, 3*hour - 1, keymgr.Retired},
		{retired, 3 * hour, keymgr.Dead},
		{active, 1000 * hour, keymgr.Active},
	} {
		if got := row.key.StateAt(noon().Add(row.after), 2*hour, 3*hour); got != row.want {
			t.Errorf("a %s key after %s is %s, want %s", row.key.State, row.after, got, row.want)
		}
	}
}

func TestSignerKeys_RolesSayWhatIsSigned(t *testing.T) {
	ksk, private1 := madeKey(t, keymgr.KSK, 1)
	zsk, private2 := madeKey(t, keymgr.ZSK, 2)
	csk, private3 := madeKey(t, keymgr.CSK, 3)
	private := map[string]crypto.Signer{ksk.Reference: private1, zsk.Reference: private2, csk.Reference: private3}
	standby, _ := madeKey(t, keymgr.KSK, 4)
	waiting, _ := madeKey(t, keymgr.ZSK, 5)
	old, _ := madeKey(t, keymgr.ZSK, 6)
	ks := fold(
		&event.KeyGenerated{Keys: []event.Key{ksk, zsk, csk, standby, waiting, old}},
		&event.KeyActivated{IDs: []string{ksk.ID, zsk.ID, csk.ID, old.ID}},
		&event.KeyPublished{IDs: []string{standby.ID}}, &event.KeyRetired{IDs: []string{old.ID}},
		&event.DSSubmitted{IDs: []string{ksk.ID, csk.ID, waiting.ID}, CDS: true},
	)
	// A key that the DNSKEY RRset does not hold stands in no CDS.
	type role struct{ keys, zone, cds, signs bool }
	want := map[string]role{
		ksk.DNSKEY: {true, false, true, true}, zsk.DNSKEY: {false, true, false, true}, csk.DNSKEY: {true, true, true, true},
		standby.DNSKEY: {}, old.DNSKEY: {},
	}
	asked := map[string]bool{}
	got, err := keymgr.SignerKeys(ks, func(k keymgr.Key) (crypto.Signer, error) {
		asked[k.Reference] = true
		return private[k.Reference], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || len(asked) != 3 {
		t.Fatalf("%d keys, %v were opened", len(got), asked)
	}
	for _, g := range got {
		k := keymgr.Describe("", g.DNSKEY)
		if r := (role{g.SignsKeys, g.SignsZone, g.CDS, g.Signer != nil}); r != want[k.DNSKEY] || !g.Published {
			t.Errorf("key %s: %+v, want %+v", k.ID, r, want[k.DNSKEY])
		}
	}
	if _, err := keymgr.SignerKeys(ks, func(keymgr.Key) (crypto.Signer, error) { return nil, keymgr.ErrNoKey }); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("a lost private key gives %v, want ErrNoKey", err)
	}
	_, err = keymgr.SignerKeys(ks, func(keymgr.Key) (crypto.Signer, error) { return private1, nil })
	if err == nil || !strings.Contains(err.Error(), "holds another key") {
		t.Errorf("the private part of another key gives %v", err)
	}
}

// lying is a keystore that signs with whatever it was given.
type lying struct {
	keymgr.Keystore
	s crypto.Signer
}

func (l lying) Name() string { return "lying" }

func (l lying) Signer(context.Context, string) (crypto.Signer, error) { return l.s, nil }

// pair is two devices behind one name, which take turns.
type pair struct {
	crypto.Signer
	other crypto.Signer
	turn  atomic.Int64
}

func (p *pair) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if p.turn.Add(1)%2 == 0 {
		return p.other.Sign(r, digest, opts)
	}
	return p.Signer.Sign(r, digest, opts)
}

// Of .DE's devices behind one label each had a key pair of its own.
func TestIncident_DE2026_EachDeviceBehindANameProvesTheKey(t *testing.T) {
	key, private := madeKey(t, keymgr.ZSK, 1)
	_, other := madeKey(t, keymgr.ZSK, 2)
	if err := keymgr.Prove(t.Context(), lying{s: &pair{Signer: private, other: private}}, key); err != nil {
		t.Errorf("both have the key: %v", err)
	}
	if err := keymgr.Prove(t.Context(), lying{s: &pair{Signer: private, other: other}}, key); err == nil {
		t.Error("a device that has another key proves the key")
	}
}

func TestProve_FindsAnotherPrivateKey(t *testing.T) {
	key, private := madeKey(t, keymgr.ZSK, 1)
	_, other := madeKey(t, keymgr.ZSK, 2)
	if err := keymgr.Prove(t.Context(), lying{s: private}, key); err != nil {
		t.Errorf("the right key: %v", err)
	}
	if err := keymgr.Prove(t.Context(), lying{s: other}, key); err == nil {
		t.Error("another private key proves the key")
	}
}
