package pipeline

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

const bindPrivateKey = `Private-key-format: v1.3
Algorithm: 13 (ECDSAP256SHA256)
PrivateKey: GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=
Created: 20261101000000
Publish: 20261101000000
Activate: 20261101000000
`

// A key that is named as a source by mistake must not end up in the journal,
// which is kept for ever and read by many.
func TestLoadFailed_TellsNothingOfAPrivateKeyNamedAsSource(t *testing.T) {
	j, log := journaltest.New(), &lines{}
	r := &rig{t: t, dir: t.TempDir(), journal: j}
	r.logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r.start(nil)
	key := filepath.Join(r.dir, "Kexample.com.+013+00001.private")
	if err := os.WriteFile(key, []byte(bindPrivateKey), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: key}); err != nil {
		t.Fatal(err)
	}
	st := r.await()
	if !strings.Contains(st.LastError, "6 errors") {
		t.Errorf("the error is %q", st.LastError)
	}
	var told strings.Builder
	failed := 0
	err := j.Read(t.Context(), event.ZoneID(st.ID), 1, 0, func(rec journal.Record) error {
		text, err := json.Marshal(rec.Event)
		told.Write(text)
		fmt.Fprintf(&told, "\n%+v\n", rec.Event.Facts)
		if f, ok := rec.Event.Facts.(*event.LoadFailed); ok {
			if failed++; f.Total != 6 || len(f.Errors) != 6 || !strings.HasSuffix(f.Errors[2], ":3: cannot be read as a record: unknown record type") {
				t.Errorf("load.failed: %+v", f)
			}
		}
		return err
	})
	if err != nil || failed != 1 {
		t.Fatalf("%d load.failed, %v", failed, err)
	}
	status, err := json.Marshal(st)
	if err != nil {
		t.Fatal(err)
	}
	told.Write(status)
	err = r.e.History(t.Context(), "example.com", HistoryQuery{}, func(l HistoryLine) error {
		text, err := json.Marshal(l)
		told.Write(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	told.WriteString(strings.Join(log.about(""), ""))
	told.WriteString(strings.Join(r.e.Alarms(), "\n"))
	// What the template of a policy has, too, says nothing.
	for _, word := range []string{"Private-key-format", "v1.3", "Algorithm: 13", "PrivateKey:", "GU6SnQ", "38Et6mQ", "20261101000000", "Activate"} {
		if strings.Contains(told.String(), word) {
			t.Errorf("%q is told", word)
		}
	}
	if !strings.Contains(told.String(), "cannot be read as a record") {
		t.Errorf("no reason is told: %s", told.String())
	}
}
