package journaltest

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
)

// sealedFailure is a failure whose reason is sealed.
func sealedFailure(t *testing.T, i int) event.Event {
	t.Helper()
	e := failed(i)
	if err := event.Seal(&e, []string{"facts.reason"}, func(salt []byte) { salt[0] = byte(i) }); err != nil {
		t.Fatal(err)
	}
	return e
}

func sealedValues(t *testing.T, j journal.Journal) {
	first, second := sealedFailure(t, 1), sealedFailure(t, 2)
	head := mustAppend(t, j, zoneA, journal.Head{}, first)
	if again := mustAppend(t, j, zoneA, journal.Head{}, first); again != head {
		t.Errorf("the same event again: head %+v, want %+v", again, head)
	}
	head = mustAppend(t, j, zoneA, head, second, changed(zoneA, 3))
	mustAppend(t, j, zoneA, head, failed(4))
	rs := readAll(t, j, zoneA)
	for i, want := range []map[string]event.SealedValue{first.Values, second.Values, nil, nil} {
		if diff := cmp.Diff(want, rs[i].Sealed); diff != "" {
			t.Errorf("event %d (-sealed +read):\n%s", i+1, diff)
		}
		if rs[i].Event.Values != nil || bytes.ContainsRune(rs[i].Line, '\n') || event.RecordHash(rs[i].Line) != rs[i].Hash {
			t.Errorf("event %d is more than its public line: %q", i+1, rs[i].Line)
		}
	}
	if strings.Contains(string(rs[0].Line), "reason 1") {
		t.Errorf("the public line shows what is sealed: %s", rs[0].Line)
	}
	id, _, err := j.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := j.Check(t.Context(), journal.Position{Stream: id, Seq: 1, Hash: rs[0].Hash}); err != nil || !ok {
		t.Errorf("position at a sealed event: %t, %v", ok, err)
	}
	report, err := journal.Verify(t.Context(), j, journal.VerifyOptions{})
	if err != nil || report.FaultCount != 0 || report.Sealed != 2 || report.Dropped != 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	long := failed(5)
	long.Facts = &event.LoadFailed{Source: "file", Reason: strings.Repeat("x", event.MaxLine-600)}
	if err := event.Seal(&long, []string{"facts.reason"}, func([]byte) {}); err != nil {
		t.Fatal(err)
	}
	mustAppend(t, j, zoneA, rs[3].Head(), long)
	long = failed(6)
	long.Facts = &event.LoadFailed{Source: "file", Reason: strings.Repeat("x", event.MaxLine-100)}
	if err := event.Seal(&long, []string{"facts.reason"}, func([]byte) {}); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Append(t.Context(), zoneB, journal.Head{}, event.Event{Type: long.Type, Time: long.Time, Actor: long.Actor, Facts: long.Facts, Sealed: long.Sealed, Values: long.Values}); err == nil {
		t.Error("an event that is too long with its sealed line was taken")
	}
}
