package pipeline

import (
	"fmt"
	"strings"
	"testing"

	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

// Each change of the denial chain is one more version on top of the last, and
// changes of the contents follow it as before.
func TestEngine_DenialChangesLive(t *testing.T) {
	policies := map[string]Policy{}
	order := []string{"default", "nsec3", "opt-out", "nsec3", "salt", "opt-out", "ttl", "ed25519", "nsec"}
	for name, text := range map[string]string{
		"default": "",
		"nsec3":   "[signer.denial]\ntype = \"nsec3\"\n",
		"salt":    "[signer.denial]\ntype = \"nsec3\"\nsalt = \"c0ffee\"\niterations = 2\n",
		"opt-out": "[signer.denial]\ntype = \"nsec3\"\nopt-out = true\n",
		"ttl":     "[signer.denial]\ntype = \"nsec3\"\nopt-out = true\n[key-manager.records]\nttl = \"2h\"\n",
		"ed25519": "[key-manager.generation]\nalgorithm = \"ED25519\"\n[signer.denial]\ntype = \"nsec3\"\n",
		"nsec":    "[signer.denial]\ntype = \"nsec\"\n",
	} {
		p, err := Parse(name, []byte("version = \"v1\"\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		policies[name] = p
	}
	r := newRig(t, journaltest.New(), policies)
	first := r.add(smallZone)
	last := first.Published.Serial
	name, _ := zone.ParseName("example.com")
	for i, policy := range order[1:] {
		st, err := r.turn(policy)
		if err != nil || st.LastError != "" || st.Published.Serial != last+1 {
			t.Fatalf("%s: %v, serial %d after %d, error %q", policy, err, st.Published.Serial, last, st.LastError)
		}
		if policy == "opt-out" && st.Published.Reused == 0 {
			t.Errorf("%s: no signature was taken over", policy)
		}
		if asks := strings.Contains(fmt.Sprint(st.Notices), "algorithm"); asks != (policy == "ed25519") || len(st.Keys) != 2 {
			t.Errorf("%s: %d keys, notices %v", policy, len(st.Keys), st.Notices)
		}
		st = r.reload(strings.Replace(smallZone, "a.ent", fmt.Sprintf("n%d.ent", i), 1))
		if st.LastError != "" || st.Published.Serial != last+2 || st.Published.Made > 6 {
			t.Errorf("%s: a change made %d signatures, serial %d, error %q", policy, st.Published.Made, st.Published.Serial, st.LastError)
		}
		if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
			t.Errorf("%s: verify: %v, %v", policy, err, rep)
		}
		v, err := r.e.Source().View(name)
		if err != nil {
			t.Fatal(err)
		}
		if diffs, ok := v.Diffs(zone.Serial(last)); !ok || len(diffs) != 2 {
			t.Errorf("%s: %d diffs, known %v", policy, len(diffs), ok)
		}
		v.Close()
		last = st.Published.Serial
	}
	r.replayed()
}

// Two algorithms sign everything, each, and go on to.
func TestEngine_TwoAlgorithmsSignEverything(t *testing.T) {
	keys := append(bindKeys(t), bindKeysOf(t, 15, 256)...)
	r := newRig(t, journaltest.New(), nil)
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: r.zoneFile(smallZone), Import: keys}); err != nil {
		t.Fatal(err)
	}
	st := r.await()
	if st.LastError != "" || len(st.Keys) != 4 {
		t.Fatalf("%d keys, error %q", len(st.Keys), st.LastError)
	}
	for range 2 {
		if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() || rep.Keys != 4 {
			t.Errorf("verify: %v, %+v", err, rep)
		}
		st = r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
		if st.LastError != "" || st.Published.Made != 4 {
			t.Errorf("a change made %d signatures, want two of each algorithm; error %q", st.Published.Made, st.LastError)
		}
	}
}
