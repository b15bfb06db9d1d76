package journal_test

import (
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// sealed is a journal with some events and a checkpoint over all before it;
// change alters what the checkpoint says.
func sealed(t *testing.T, reasons []string, change func(*event.JournalCheckpointed)) (j journal.Journal, note string, key *audit.Key) {
	t.Helper()
	secret, err := audit.NewKey("log.example")
	if err != nil {
		t.Fatal(err)
	}
	if key, err = audit.ParseKey(secret); err != nil {
		t.Fatal(err)
	}
	j = journaltest.New()
	const zone event.ZoneID = "00000000000000aa"
	var tree, zones audit.Tree
	var head journal.Head
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, reason := range reasons {
		if head, err = j.Append(t.Context(), zone, head, event.New(at, zone, event.Program, &event.LoadFailed{Source: "x", Reason: reason, Total: 1})); err != nil {
			t.Fatal(err)
		}
		tree.Append(head.Hash)
	}
	zones.Append(event.RecordHash(audit.Head{Zone: zone, N: head.N, Hash: head.Hash}.Line()))
	c := audit.Checkpoint{Origin: "log.example", Size: tree.Size(), Root: tree.Root(), Zones: 1, ZonesRoot: zones.Root()}
	if note, err = c.Sign(key); err != nil {
		t.Fatal(err)
	}
	f := &event.JournalCheckpointed{Size: uint64(c.Size), Root: c.Root, Zones: 1, ZonesRoot: c.ZonesRoot, Note: note}
	if change != nil {
		change(f)
	}
	if _, err := j.Append(t.Context(), event.Instance, journal.Head{}, event.New(at, event.Instance, event.Program, f)); err != nil {
		t.Fatal(err)
	}
	return j, note, key
}

func TestVerify_HoldsCheckpointsAgainstTheEvents(t *testing.T) {
	for name, change := range map[string]func(*event.JournalCheckpointed){
		"":                    nil,
		"another root":        func(f *event.JournalCheckpointed) { f.Root[0]++ },
		"other ends of zones": func(f *event.JournalCheckpointed) { f.ZonesRoot[0]++ },
		"another number":      func(f *event.JournalCheckpointed) { f.Zones++ },
		"a size to come":      func(f *event.JournalCheckpointed) { f.Size += 5 },
		"another note":        func(f *event.JournalCheckpointed) { f.Note = strings.Replace(f.Note, "log", "LOG", 1) },
	} {
		j, _, key := sealed(t, []string{"one", "two", "three"}, change)
		r, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Key: key.Verifier()})
		if err != nil || (r.FaultCount > 0) != (name != "") || (r.Checkpoints == 1) != (name == "") {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// A whole journal that was made anew fits itself, but no checkpoint that was
// kept outside.
func TestVerify_CheckpointKeptOutsideShowsAnotherHistory(t *testing.T) {
	_, note, key := sealed(t, []string{"one", "two", "three"}, nil)
	for name, reasons := range map[string][]string{
		"changed": {"one", "2", "three"}, "dropped": {"one", "three"}, "moved": {"two", "one", "three"}, "cut off": {"one"},
	} {
		j, _, _ := sealed(t, reasons, nil)
		r, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Key: key.Verifier(), Outside: []string{note}})
		if err != nil || r.FaultCount == 0 {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
	j, _, _ := sealed(t, []string{"one", "two", "three"}, nil)
	if _, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Outside: []string{note}}); err == nil {
		t.Error("a checkpoint without a key is believed")
	}
}
