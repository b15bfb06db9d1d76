package journaltest

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"sluice/journal"
	"sluice/journal/event"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory_Conforms(t *testing.T) {
	Conform(t, func(*testing.T) journal.Journal { return New() })
}

func TestMemory_FailAt(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		m := New()
		head := mustAppend(t, m, zoneA, journal.Head{}, changed(zoneA, 0))
		m.FailAt(1, persisted)
		head = mustAppend(t, m, zoneA, head, changed(zoneA, 1))
		if m.Failed() {
			t.Error("failed too early")
		}
		_, err := m.Append(t.Context(), zoneA, head, changed(zoneA, 2), changed(zoneA, 3))
		if !errors.Is(err, ErrInjected) || !errors.Is(err, journal.ErrStorage) || !m.Failed() {
			t.Fatalf("append: %v, want ErrInjected", err)
		}
		m = m.Reopen()
		want := 2
		if persisted {
			want = 4
		}
		if n := len(readAll(t, m, "")); n != want {
			t.Errorf("persisted %v: %d events stored, want %d", persisted, n, want)
		}
		mustAppend(t, m, zoneA, head, changed(zoneA, 2), changed(zoneA, 3))
		if n := len(readAll(t, m, "")); n != 4 {
			t.Errorf("persisted %v: %d events after the second try, want 4", persisted, n)
		}
	}
}

func TestMemory_FailAtChunk(t *testing.T) {
	for _, persisted := range []bool{false, true} {
		m := New()
		m.FailAt(1, persisted)
		w := m.NewChunks(zoneA, "x")
		first := w.Put(t.Context(), journal.RawChunk{Raw: content(1, 10)})
		second := w.Put(t.Context(), journal.RawChunk{Raw: content(2, 10)})
		_, err := w.Finish(t.Context())
		if first != nil || !errors.Is(second, ErrInjected) || !errors.Is(err, ErrInjected) {
			t.Errorf("put: %v, %v, finish: %v", first, second, err)
		}
		st, err := m.Status(t.Context())
		if want := map[bool]uint64{false: 1, true: 2}[persisted]; err != nil || st.Bulk.Messages != want {
			t.Errorf("persisted %v: %d chunks stored, want %d, %v", persisted, st.Bulk.Messages, want, err)
		}
		if m.Writes() != 2 {
			t.Errorf("%d writes counted", m.Writes())
		}
	}
}

// Every kind of damage shows, at the event where it stands.
func TestVerify_NamesDamage(t *testing.T) {
	type damage struct {
		do   func(t *testing.T, m *Memory, rs []journal.Record)
		seq  uint64
		what string
	}
	for name, d := range map[string]damage{
		"line that does not decode": {func(_ *testing.T, m *Memory, _ []journal.Record) {
			m.SetLine(2, []byte("{"))
		}, 2, "decode"},
		"line that is not canonical": {func(_ *testing.T, m *Memory, rs []journal.Record) {
			m.SetLine(2, append(rs[1].Line, ' '))
		}, 2, "decode"},
		"changed facts": {func(_ *testing.T, m *Memory, rs []journal.Record) {
			m.SetLine(2, bytes.Replace(rs[1].Line, []byte("file2"), []byte("file3"), 1))
		}, 3, "link"},
		"event of another zone": {func(t *testing.T, m *Memory, rs []journal.Record) {
			m.SetLine(2, bytes.Replace(rs[1].Line, []byte(zoneA), []byte(zoneB), 1))
		}, 2, "stands under"},
		"dropped in the middle": {func(_ *testing.T, m *Memory, rs []journal.Record) {
			m.SetLine(2, rs[2].Line)
			m.SetLine(3, rs[3].Line)
		}, 2, "number 3 follows 1"},
		"reordered": {func(_ *testing.T, m *Memory, rs []journal.Record) {
			m.SetLine(2, rs[2].Line)
			m.SetLine(3, rs[1].Line)
		}, 2, "number 3 follows 1"},
		"damaged chunk": {func(_ *testing.T, m *Memory, _ []journal.Record) { m.SetChunk(1, []byte("x")) }, 4, "chunk"},
		"missing chunk": {func(_ *testing.T, m *Memory, _ []journal.Record) { m.SetChunk(2, nil) }, 4, "chunk"},
	} {
		t.Run(name, func(t *testing.T) {
			m := New()
			head := mustAppend(t, m, zoneA, journal.Head{}, changed(zoneA, 1), changed(zoneA, 2), changed(zoneA, 4))
			facts := &event.InstanceLoaded{Source: "file", Manifest: putAll(t, m, "x", content(1, 10), content(2, 10))}
			mustAppend(t, m, zoneA, head, event.New(at(5), zoneA, event.Program, facts))
			d.do(t, m, readAll(t, m, ""))
			var progress uint64
			r, err := journal.Verify(t.Context(), m, journal.VerifyOptions{
				Chunks: true, Progress: func(seq, _ uint64) { progress = seq },
			})
			if err != nil || r.FaultCount == 0 || progress != 4 {
				t.Fatalf("verify: %+v, %v, progress to %d", r, err, progress)
			}
			if f := r.Faults[0]; f.Seq != d.seq || !strings.Contains(f.What, d.what) {
				t.Errorf("first fault %+v, want %q at %d", f, d.what, d.seq)
			}
		})
	}
}

func TestMemory_FollowsUnderSynctest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New()
		f := follow(t, m, "", 1)
		<-f.caught
		mustAppend(t, m, zoneA, journal.Head{}, changed(zoneA, 1))
		f.want(t, 1)
		synctest.Wait()
		f.end(t)
	})
}
