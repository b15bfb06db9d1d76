package pipeline

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/journal/journaltest"
)

func TestHints_ExpireGoesOnOverARestart(t *testing.T) {
	p := newPrimary(t, zoneFileOf(1))
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: hourASecond()}
	r.start(nil)
	loaded := r.addFrom(p.addr).Loaded.Time
	// Nothing newer is no event, but counts.
	if r.ask(false).Upstream.CheckedAt.Equal(loaded) {
		t.Fatal("asking again did not count")
	}
	p.set(true)
	r.ask(false)
	before := *r.status().Upstream
	r.stop()
	file := filepath.Join(r.dir, "upstream.json")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	id := r.status().ID
	again := func() UpstreamStatus {
		t.Helper()
		r.start(nil)
		defer r.stop()
		return *r.status().Upstream
	}
	if st := again(); !st.ExpiresAt.Equal(*before.ExpiresAt) || st.CheckedAt == nil || !st.CheckedAt.Equal(*before.CheckedAt) {
		t.Errorf("before %v, %v; after a restart %v, %v", before.CheckedAt, before.ExpiresAt, st.CheckedAt, st.ExpiresAt)
	}
	hint := func(zone, source, good string) string {
		return `{"zones":{"` + zone + `":{"source":"` + source + `","good":"` + good + `"}}}`
	}
	for fact, content := range map[string]string{
		"lost":              "",
		"damaged":           string(text[:len(text)/2]),
		"of a time to come": hint(id, p.addr, "2099-01-01T00:00:00Z"),
		"of another source": hint(id, "192.0.2.1:53", "2026-01-01T00:00:00Z"),
		"of another zone":   hint("0123", p.addr, "2026-01-01T00:00:00Z"),
	} {
		err := os.WriteFile(file, []byte(content), 0o600)
		if content == "" {
			err = os.Remove(file)
		}
		if err != nil {
			t.Fatal(err)
		}
		st := again()
		if late := st.ExpiresAt.Sub(*before.ExpiresAt); late <= 0 || late > 365*24*time.Hour {
			t.Errorf("%s: expires at %v, before %v", fact, st.ExpiresAt, before.ExpiresAt)
		}
	}
}
