package pipeline

import (
	"context"
	"crypto"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
)

// A key that another program made on a pretended token has its reference in hex
// for an ID.

// Public implements keymgr.Adopter.
func (t *pretendedToken) Public(ctx context.Context, id string) (crypto.PublicKey, error) {
	ref, err := hex.DecodeString(id)
	if err != nil {
		return nil, err
	}
	s, err := t.Signer(ctx, string(ref))
	if err != nil {
		return nil, err
	}
	return s.Public(), nil
}

// Adopt implements keymgr.Adopter.
func (t *pretendedToken) Adopt(ctx context.Context, id string, key event.Key) (event.Key, error) {
	ref, err := hex.DecodeString(id)
	if err != nil {
		return key, err
	}
	key.Keystore, key.Reference, key.Adopted = t.token.Name, string(ref), true
	return key, keymgr.Prove(ctx, t, key)
}

// keysElsewhere makes a KSK and a ZSK of example.com on the token zones, past
// the engine, and writes their .key files.
func (r *rig) keysElsewhere(p *pretended) (files []KeyFile) {
	r.t.Helper()
	token := p.Open(keymgr.Token{Name: "elsewhere", Label: "zones"})
	for _, role := range []keymgr.Role{keymgr.KSK, keymgr.ZSK} {
		k, err := token.Generate(r.t.Context(), keymgr.Spec{Zone: "example.com.", Role: role, Algorithm: dns.ECDSAP256SHA256}, nil)
		if err != nil {
			r.t.Fatal(err)
		}
		rdata, err := keymgr.RData(k)
		if err != nil {
			r.t.Fatal(err)
		}
		path := filepath.Join(r.t.TempDir(), fmt.Sprintf("Kexample.com.+013+%05d.key", k.Tag))
		text := fmt.Sprintf("example.com. 3600 IN DNSKEY %d 3 13 %s\n", int(rdata[0])<<8|int(rdata[1]), base64.StdEncoding.EncodeToString(rdata[4:]))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			r.t.Fatal(err)
		}
		files = append(files, KeyFile{Path: path, Role: role, Keystore: "hsm", ID: hex.EncodeToString([]byte(k.Reference))})
	}
	return files
}

func TestAdopt_KeysOnATokenSignAndStayThere(t *testing.T) {
	p := newPretended(t)
	w := &rolling{h: newHand(dayOne)}
	w.rig = &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: w.h.clock(), tokens: p}
	w.rig.observe = (&outside{shows: w.shows}).observe
	w.start(keystorePolicies(t, "[key-manager]\nauto-remove-delay = \"5d\"\n"))
	if _, err := w.e.AddKeystore(t.Context(), testActor, NewKeystore{Name: "hsm", Module: "/lib/x.so", Token: "zones", PIN: "1234"}); err != nil {
		t.Fatal(err)
	}
	files := w.keysElsewhere(p)
	z := NewZone{Name: "example.com", Source: w.zoneFile(smallZone), Policy: "hsm", Import: files}
	plan, err := w.e.PlanTakeover(t.Context(), z)
	if err != nil || len(plan.Keys) != 2 || plan.Keys[0].State != keymgr.Active || plan.Refused != "" {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	if _, err := w.e.AddZone(t.Context(), testActor, z); err != nil {
		t.Fatal(err)
	}
	st := w.await()
	for _, k := range st.Keys {
		if !k.Adopted || k.Keystore != "hsm" || k.State != keymgr.Active {
			t.Errorf("key %+v", k)
		}
	}
	w.verifies()
	st = w.runs("the first DS", func(st ZoneStatus) bool { return len(st.Rollovers) == 0 })
	adopted := inKeys(st.Keys, keymgr.Active)
	for i := range 2 { // the adopted ZSK goes, then one that was made here
		w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
		st = w.runs("the end", quiet)
		var gone keymgr.Key
		for _, k := range st.Keys {
			if k.State == keymgr.Removed && k.Adopted == (i == 0) {
				gone = k
			}
		}
		if gone.ID == "" {
			t.Fatalf("no removed key in %+v", st.Keys)
		}
		w.h.move(gone.Removed.Add(6 * day))
		st = w.settle()
		j := slices.IndexFunc(st.Keys, func(k keymgr.Key) bool { return k.ID == gone.ID })
		_, err := p.Open(keymgr.Token{Name: "elsewhere", Label: "zones"}).Signer(t.Context(), gone.Reference)
		switch {
		case i == 0 && (err != nil || !st.Keys[j].Destroyed.IsZero()):
			t.Errorf("the private part that another program made was deleted: %v", err)
		case i == 1 && (!errors.Is(err, keymgr.ErrNoKey) || st.Keys[j].Destroyed.IsZero()):
			t.Errorf("the private part that was made here is still there: %v", err)
		}
	}
	// Nor is it deleted by a mistake of the callers.
	w.e.discard(t.Context(), []event.Key{adopted.Key})
	if _, err := p.Open(keymgr.Token{Name: "elsewhere", Label: "zones"}).Signer(t.Context(), adopted.Reference); err != nil {
		t.Error(err)
	}
	w.replayed()
}

func TestAdopt_RefusesWhatIsNotThere(t *testing.T) {
	r, p := newTokenRig(t, newHand(dayOne))
	files := r.keysElsewhere(p)
	r.add(smallZone)
	for _, row := range []struct {
		name   string
		change func(*KeyFile)
		kind   error
		want   string
	}{
		{"no keystore", func(f *KeyFile) { f.Keystore = "" }, ErrInvalid, "name of the keystore is missing"},
		{"no ID", func(f *KeyFile) { f.ID = "" }, ErrInvalid, "its ID there is missing"},
		{"that in files", func(f *KeyFile) { f.Keystore = "file" }, ErrInvalid, "give the .private file alone"},
		{"unknown keystore", func(f *KeyFile) { f.Keystore = "other" }, ErrNotFound, `keystore "other" is not known`},
		{"a private file", func(f *KeyFile) { f.Path = strings.TrimSuffix(f.Path, "key") + "private" }, ErrInvalid, "want the .key file"},
		{"a file that is not there", func(f *KeyFile) { f.Path = "/nowhere.key" }, ErrInvalid, "no such file"},
		{"another key", func(f *KeyFile) { f.ID = files[1].ID }, ErrState, "signs with another key"},
		{"no such key", func(f *KeyFile) { f.ID = hex.EncodeToString([]byte("none.pem")) }, ErrState, "no such private key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := files[0]
			row.change(&f)
			if _, err := r.e.ImportKey(t.Context(), testActor, "example.com", []KeyFile{f}); !errors.Is(err, row.kind) || !strings.Contains(fmt.Sprint(err), row.want) {
				t.Errorf("error %v, want %v with %q", err, row.kind, row.want)
			}
		})
	}
	keys, err := r.e.ImportKey(t.Context(), testActor, "example.com", files[:1])
	if err != nil || len(keys) != 1 || !keys[0].Adopted || keys[0].State != keymgr.Generated {
		t.Errorf("imported %+v, %v", keys, err)
	}
}
