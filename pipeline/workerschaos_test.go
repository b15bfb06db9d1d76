package pipeline

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// slowKeys is a keystore whose signing takes its time, so that what happens
// meanwhile meets it.
type slowKeys struct {
	keymgr.Keystore
	took time.Duration
}

func (s slowKeys) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	timer := time.NewTimer(s.took)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Keystore.Signer(ctx, ref)
}

// TestWorkers_Chaos lets workers die, come back and be cut off for longer than
// their leases while zones and policies change and signing takes long.
func TestWorkers_Chaos(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := &seeded{state: seed}
	c := newCrew(t)
	policies := map[string]Policy{}
	for name, denial := range map[string]string{"default": "nsec", "other": "nsec3"} {
		p, err := Parse(name, []byte("version = \"v1\"\n[signer.denial]\ntype = \""+denial+"\"\n"))
		if err != nil {
			t.Fatal(err)
		}
		policies[name] = p
	}
	keys := slowKeys{Keystore: c.keys, took: 60 * time.Millisecond}
	start := func(name string) *worker {
		return c.add(name, "", func(cfg *Config) { cfg.Keystore, cfg.Policies = keys, policies })
	}
	names := zoneNames(5)
	for _, name := range []string{"a", "b", "c"} {
		start(name)
	}
	version := map[string]int{}
	write := func(name string) {
		version[name]++
		text := smallZone + fmt.Sprintf("v IN TXT \"version %d of %s\"\n", version[name], name)
		if err := os.WriteFile(filepath.Join(c.dir, "next"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c.rename(filepath.Join(c.dir, "next"), filepath.Join(c.dir, name+".zone"))
	}
	for _, name := range names {
		c.all[0].zone(name, smallZone)
	}
	c.allServe(names...)
	anyOf := func() *worker { return c.all[random.below(len(c.all))] }
	for range 30 {
		name := names[random.below(len(names))]
		w := anyOf()
		switch random.below(6) {
		case 0, 1:
			write(name)
			// Nobody may hold the work at this moment.
			if err := w.e.Reload(t.Context(), testActor, name, false); err != nil && !errors.Is(err, ErrState) {
				t.Logf("reload of %s at %s: %v", name, w.name, err)
			}
		case 2:
			policy := []string{"default", "other"}[random.below(2)]
			if _, err := w.e.SetZone(t.Context(), testActor, name, ZoneChange{Policy: policy}); err != nil {
				t.Fatal(err)
			}
		case 3:
			if err := w.e.Resign(t.Context(), testActor, name, random.below(2) == 0); err != nil && !errors.Is(err, ErrState) {
				t.Logf("resign of %s at %s: %v", name, w.name, err)
			}
		case 4:
			w.kill()
			start(w.name)
		case 5:
			w.cut.away.Store(true)
			until(t, w.name+"'s leases are over", func() bool {
				st, err := c.coord.Standing(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range st.Leases {
					if l.Holder == w.name {
						return false
					}
				}
				return true
			})
			w.cut.away.Store(false)
		}
	}
	for _, name := range names {
		write(name)
		last := fmt.Sprintf("version %d of %s", version[name], name)
		until(t, name+" can be loaded", func() bool { return anyOf().e.Reload(t.Context(), testActor, name, false) == nil })
		for _, w := range c.all {
			until(t, w.name+" serves the last "+name, func() bool { return strings.Contains(w.servedBy(name), last) })
		}
	}
	if stale := c.check(); stale != 0 {
		t.Errorf("%d stale events stand in the journal", stale)
	}
	took := map[string]int{}
	for _, rec := range c.events() {
		if f, ok := rec.Event.Facts.(*event.WorkerGranted); ok {
			took[f.Worker]++
		}
		if f, ok := rec.Event.Facts.(*event.SignFailed); ok {
			t.Errorf("event %d: %s", rec.Seq, f.Reason)
		}
	}
	t.Logf("grants: %v, events: %d", took, len(c.events()))
	for _, name := range names {
		for _, w := range c.all[1:] {
			until(t, "all serve the same "+name, func() bool { return w.servedBy(name) == c.all[0].servedBy(name) })
		}
		if err := c.all[0].e.Replay(t.Context(), name, "", true, nil, func(ReplayStep) error { return nil }); err != nil {
			t.Errorf("replay of %s: %v", name, err)
		}
	}
}
