package pipeline

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// jane is a person whose name stands in no test data.
var jane = event.Actor{Name: "jane.doe", Door: "cli"}

// sealedHistory is what a zone's history shows, and all its public lines.
func sealedHistory(t *testing.T, r *rig) (text, lines string) {
	t.Helper()
	err := r.e.History(t.Context(), "example.com", HistoryQuery{}, func(l HistoryLine) error {
		text += l.Actor + " " + l.Text + "\n"
		for _, s := range l.Sealed {
			text += s.Field + "=" + s.Value + "\n"
			if s.Dropped != (s.Value == "") {
				t.Errorf("event %d: %+v", l.Seq, s)
			}
		}
		lines += string(l.Event) + "\n"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return text, lines
}

// What is sealed is in no public line; history shows it until it is dropped, and
// states are the same without it.
func TestSeal_StatesNeedNoSealedValue(t *testing.T) {
	policies := map[string]Policy{"default": reviewPolicy(t,
		"[signer.review]\nmode = \"script\"\nhook = \"echo written by $(echo the) hook; exit 3\"\non-reject = \"halt\"\n")}
	memory := journaltest.New()
	r := &rig{t: t, dir: t.TempDir(), journal: memory, seal: SealKinds()}
	r.start(policies)
	r.add(smallZone)
	if _, err := r.e.Reset(t.Context(), jane, "example.com", NewDecision{Reason: "given by a person"}); err != nil {
		t.Fatal(err)
	}
	until(t, "the halt is over", func() bool { return r.count("zone.reset") == 1 })
	secrets := []string{"written by the hook", "given by a person", jane.Name}
	text, lines := sealedHistory(t, r)
	for _, s := range secrets {
		if !strings.Contains(text, s) || strings.Contains(lines, s) {
			t.Errorf("%q: history:\n%s\npublic lines:\n%s", s, text, lines)
		}
	}
	before := foldedStates(t, memory)
	if strings.Contains(before, "written by the hook") || strings.Contains(before, "given by a person") || !strings.Contains(before, event.SealedText) {
		t.Errorf("states hold sealed values: %s", before)
	}
	r.stop()
	dropSealed(t, memory)
	if diff := cmp.Diff(before, foldedStates(t, memory)); diff != "" {
		t.Errorf("states (-with -without):\n%s", diff)
	}
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(policies)
	text, again := sealedHistory(t, r)
	if strings.Contains(text, "written by the hook") || !strings.Contains(text, event.Dropped) || !strings.HasPrefix(again, lines) {
		t.Errorf("history without sealed values:\n%s", text)
	}
	r.stop()
}

// foldedStates is the states of all zones, as JSON.
func foldedStates(t *testing.T, m *journaltest.Memory) string {
	t.Helper()
	states := map[event.ZoneID]State{}
	err := m.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
		states[rec.Event.Zone] = Evolve(states[rec.Event.Zone], rec, "")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(states)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// dropSealed takes every sealed line out of a journal.
func dropSealed(t *testing.T, m *journaltest.Memory) {
	t.Helper()
	dropped := 0
	err := m.ReadRaw(t.Context(), 1, func(seq uint64, _ string, message []byte) error {
		if line := event.PublicLine(message); len(line) < len(message) {
			m.SetLine(seq, line)
			dropped++
		}
		return nil
	})
	if err != nil || dropped == 0 {
		t.Fatalf("%d sealed lines, %v", dropped, err)
	}
}

// An export leaves out kinds or fields, and proves all the same.
func TestAuditExport_DropsSealedFields(t *testing.T) {
	secret, err := audit.NewKey("log.example/sluice")
	if err != nil {
		t.Fatal(err)
	}
	key, err := audit.ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), seal: SealKinds(), sealing: Sealing{Key: key, Interval: 1 << 60, Events: 1 << 30}}
	r.start(nil)
	r.add(smallZone)
	if _, err := r.e.SetMaintenance(t.Context(), jane, "example.com", true, "given by a person"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name          string
		q             ExportQuery
		actor, reason bool
	}{
		{"nothing dropped", ExportQuery{}, true, true},
		{"all", ExportQuery{DropSealed: true}, false, false},
		{"a kind", ExportQuery{DropSealed: true, Drop: []string{SealReason}}, true, false},
		{"a field", ExportQuery{DropSealed: true, Drop: []string{event.ActorName}}, false, true},
		{"both", ExportQuery{DropSealed: true, Drop: []string{SealActor, "facts.reason"}}, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			var all bytes.Buffer
			err := r.e.AuditExport(t.Context(), jane, tt.q, func(path string, content []byte) error {
				all.Write(content)
				return os.WriteFile(filepath.Join(dir, path), content, 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			report, err := audit.Verify(os.DirFS(dir), key.Verifier())
			if err != nil || report.FaultCount != 0 || report.Sealed == 0 {
				t.Errorf("%v, %+v", err, report)
			}
			if got := strings.Contains(all.String(), "given by a person"); got != tt.reason {
				t.Errorf("the reason is there: %t", got)
			}
			if got := strings.Contains(all.String(), `"`+jane.Name+`"`); got != tt.actor {
				t.Errorf("the actor is there: %t", got)
			}
		})
	}
	err = r.e.AuditExport(t.Context(), jane, ExportQuery{DropSealed: true, Drop: []string{"names"}}, func(string, []byte) error { return io.ErrUnexpectedEOF })
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "facts.reason") {
		t.Errorf("a field that cannot be: %v", err)
	}
}
