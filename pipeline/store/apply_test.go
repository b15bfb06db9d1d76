package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// tap calls fn before each chunk.
func tap(source ChunkSource, fn func()) ChunkSource {
	return func(ctx context.Context, list event.Manifest, take func([]byte) error) error {
		return source(ctx, list, func(raw []byte) error {
			fn()
			return take(raw)
		})
	}
}

// Two stores that applied the same events hold the same keys and values,
// however they wrote them and whether they were reopened.
func TestStore_SameEventsSameBytes(t *testing.T) {
	for seed := range 10 {
		p := newSeeded(seed + 2000)
		m, hashes := journalOf(t, p, 40, Config{})
		fs, cfg := vfs.NewMem(), Config{BatchLimit: 1, TableSize: 300}
		s := openTest(t, fs, cfg)
		for _, rec := range m.events {
			s.many = uint64(p.pick(2) * 1000)
			m.apply(t, s, rec)
			if p.pick(4) == 0 {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openTest(t, fs, cfg)
			}
			// Again: nothing changes.
			m.apply(t, s, rec)
			if got, err := s.LiveHash(); err != nil || got != hashes[rec.Seq] {
				t.Fatalf("seed %d: stores differ after event %d, %v", seed, rec.Seq, err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// published is a model with one published instance, and its store.
func published(t *testing.T) (*model, *Store) {
	t.Helper()
	s := openTest(t, vfs.NewMem(), Config{})
	t.Cleanup(func() { s.Close() })
	m, p := newModel("example.", 4), newSeeded(1)
	l := m.load(p, nil)
	sg := m.sign(p, m.instances[l], nil)
	m.publish(m.instances[sg])
	for _, rec := range m.events {
		m.apply(t, s, rec)
	}
	return m, s
}

func TestApply_BadChunksChangeNothing(t *testing.T) {
	for _, tc := range []struct {
		fact   string
		signed bool
		spoil  func(m *model, list *event.Manifest)
	}{
		{"damaged bytes", false, func(m *model, l *event.Manifest) { c := m.chunks[l.Subject]; c[0] = c[0][:len(c[0])-1] }},
		{"a chunk too few", false, func(m *model, l *event.Manifest) { m.chunks[l.Subject] = m.chunks[l.Subject][1:] }},
		{"a chunk too many", true, func(m *model, l *event.Manifest) {
			m.chunks[l.Subject] = append(m.chunks[l.Subject], m.chunks[l.Subject][0])
		}},
		{"chunks in another order", false, func(m *model, l *event.Manifest) {
			c := m.chunks[l.Subject]
			c[0], c[1] = c[1], c[0]
			l.Chunks[0], l.Chunks[1] = l.Chunks[1], l.Chunks[0]
		}},
		{"no digest state", true, func(m *model, l *event.Manifest) {
			c := m.chunks[l.Subject]
			m.chunks[l.Subject] = c[:len(c)-1]
			l.Chunks, l.Count = l.Chunks[:len(l.Chunks)-1], l.Count-1
		}},
		{"another digest state", true, func(m *model, l *event.Manifest) {
			var b zone.ChunkBuilder
			if _, err := b.Add([]byte{byte(zone.KindDigest)}, stateOf(999).AppendState(nil)); err != nil {
				panic(err)
			}
			c := m.chunks[l.Subject]
			c[len(c)-1] = b.Bytes()
		}},
		{"item count differs", false, func(_ *model, l *event.Manifest) { l.Chunks[0].Items++ }},
		{"kinds of a loaded instance in a signed one", true, func(m *model, l *event.Manifest) {
			m.chunks[l.Subject] = m.chunks["bulk.4"]
			*l = m.events[1].Event.Facts.(*event.InstanceLoaded).Manifest
		}},
	} {
		for _, large := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, large %v", tc.fact, large), func(t *testing.T) {
				m, s := published(t)
				if large {
					s.cfg.BatchLimit = 1
				}
				before, err := s.LiveHash()
				if err != nil {
					t.Fatal(err)
				}
				p := newSeeded(3)
				seq := m.load(p, nil)
				rec := &m.events[len(m.events)-1]
				list := &rec.Event.Facts.(*event.InstanceLoaded).Manifest
				if tc.signed {
					m.events = m.events[:len(m.events)-1]
					seq = m.sign(p, m.instances[4], nil)
					rec = &m.events[len(m.events)-1]
					list = &rec.Event.Facts.(*event.InstanceSigned).Manifest
				}
				tc.spoil(m, list)
				err = m.tryApply(s, *rec)
				if !errors.Is(err, ErrBroken) {
					t.Fatalf("error %v, want ErrBroken", err)
				}
				if want := fmt.Sprintf("event %d", seq); !bytes.Contains([]byte(err.Error()), []byte(want)) {
					t.Errorf("error %q does not name %q", err, want)
				}
				if after, err := s.LiveHash(); err != nil || after != before {
					t.Fatalf("the store changed, %v", err)
				}
				if s.Position().Seq >= seq {
					t.Errorf("position %d moved", s.Position().Seq)
				}
			})
		}
	}
}

func TestApply_FailingSourceIsReturned(t *testing.T) {
	m, s := published(t)
	m.load(newSeeded(3), nil)
	rec := m.events[len(m.events)-1]
	err := s.Apply(t.Context(), rec, func(context.Context, event.Manifest, func([]byte) error) error {
		return fmt.Errorf("chunk 3: %w", journal.ErrNoChunk)
	})
	if !errors.Is(err, journal.ErrNoChunk) || errors.Is(err, ErrBroken) {
		t.Fatalf("error %v, want ErrNoChunk", err)
	}
	if err := s.Skip(t.Context(), rec, ZoneState{Zone: m.id, Data: []byte("broken")}); err != nil {
		t.Fatal(err)
	}
	if s.Position().Seq != rec.Seq {
		t.Errorf("position %d after Skip, want %d", s.Position().Seq, rec.Seq)
	}
	m.sign(newSeeded(4), m.instances[rec.Seq], nil)
	if err := m.tryApply(s, m.events[len(m.events)-1]); !errors.Is(err, ErrBroken) {
		t.Errorf("signed instance of a skipped one: %v, want ErrBroken", err)
	}
}

func TestApply_ZoneRemovedLeavesItsStateOnly(t *testing.T) {
	m, s := published(t)
	m.add(event.Instance, &event.ZoneRemoved{Name: "example.", ID: m.id})
	rec := m.events[len(m.events)-1]
	if err := s.Apply(t.Context(), rec, m.source, ZoneState{Zone: event.Instance, Data: []byte("registry")}, ZoneState{Zone: m.id, Data: []byte("gone")}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Published(m.id); !errors.Is(err, xfr.ErrUnknownZone) {
		t.Errorf("published: %v, want ErrUnknownZone", err)
	}
	// A late event of the zone brings nothing back.
	m.load(newSeeded(5), nil)
	m.apply(t, s, m.events[len(m.events)-1])
	var keys []string
	if err := s.Walk(func(k, _ []byte) error {
		if !bytes.Contains([]byte{spaceTree, spaceHeads, spaceRefs, spaceNames, spaceCommon}, k[:1]) { // of events, or of many zones: they stay
			keys = append(keys, fmt.Sprintf("%x", k))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	id, mark := fmt.Sprintf("01%x", string(m.id)), func(seq uint64) string { return fmt.Sprintf("%x", markKey(seq)) }
	if d := cmp.Diff([]string{"00", mark(0), mark(s.Position().Seq), id, "02", "030000000001", "030000000101"}, keys); d != "" {
		t.Errorf("keys left:\n%s", d)
	}
	states := map[event.ZoneID]string{}
	if err := s.States(func(id event.ZoneID, state []byte) error { states[id] = string(state); return nil }); err != nil {
		t.Fatal(err)
	}
	want := map[event.ZoneID]string{event.Instance: "registry", m.id: m.states[m.events[len(m.events)-1].Seq]}
	if d := cmp.Diff(want, states); d != "" {
		t.Errorf("states:\n%s", d)
	}
}

func TestApply_WhatStatesHaveInCommonIsKeptOnce(t *testing.T) {
	m, s := published(t)
	last := m.state(m.events[len(m.events)-1])
	if got, err := s.Common(last.CommonHash); err != nil || string(got) != last.Common {
		t.Errorf("common part: %q, %v; want %q", got, err, last.Common)
	}
	if got, err := s.Common(event.Hash{1}); err != nil || got != nil {
		t.Errorf("common part that nobody has: %q, %v", got, err)
	}
	n := 0
	if err := s.Walk(func(k, _ []byte) error {
		if k[0] == spaceCommon {
			n++
		}
		return nil
	}); err != nil || n != min(3, len(m.events)) {
		t.Errorf("%d common parts, %v", n, err)
	}
}

func TestView_StaysAsItWasOpened(t *testing.T) {
	m, s := published(t)
	first := m.instances[m.published]
	v, err := s.Published(m.id)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	p := newSeeded(9)
	for range 5 {
		l := m.load(p, m.instances[m.instances[m.published].loaded])
		m.apply(t, s, m.events[len(m.events)-1])
		sg := m.sign(p, m.instances[l], m.instances[m.published])
		m.apply(t, s, m.events[len(m.events)-1])
		m.publish(m.instances[sg])
		m.apply(t, s, m.events[len(m.events)-1])
	}
	if err := s.db.Compact(t.Context(), []byte{0}, []byte{0xff}, false); err != nil {
		t.Fatal(err)
	}
	_, got := collect2(t)(v.Items())
	if d := cmp.Diff(m.visible(first), got); d != "" {
		t.Errorf("the view changed:\n%s", d)
	}
	if _, err := s.Signed(m.id, first.seq); !errors.Is(err, ErrNoInstance) {
		t.Errorf("superseded instance: %v, want ErrNoInstance", err)
	}
}

func TestChanges_LeadFromOneInstanceToAnother(t *testing.T) {
	m, s := published(t)
	p := newSeeded(11)
	from := m.instances[m.published].loaded
	at := from
	for range 6 {
		at = m.load(p, m.instances[at])
		m.apply(t, s, m.events[len(m.events)-1])
	}
	got := maps.Clone(m.instances[from].items)
	known, err := s.Changes(m.id, from, at, func(key, before, after []byte) error {
		if got[string(key)] != string(before) {
			t.Errorf("%x: before %x, want %x", key, before, got[string(key)])
		}
		if got[string(key)] = string(after); after == nil {
			delete(got, string(key))
		}
		return nil
	})
	if err != nil || !known {
		t.Fatalf("changes known %v, %v", known, err)
	}
	if d := cmp.Diff(m.instances[at].items, got); d != "" {
		t.Errorf("changes lead elsewhere:\n%s", d)
	}
	whole := m.load(p, nil)
	m.apply(t, s, m.events[len(m.events)-1])
	if known, err := s.Changes(m.id, at, whole, nil); known || err != nil {
		t.Errorf("way into a new generation known %v, %v", known, err)
	}
}

// publishNext applies one more published version of the model's zone, with
// what the event says of the diffs to keep, at a time in epoch seconds.
func publishNext(t *testing.T, m *model, s *Store, p picker, keep *event.DiffLimits, at int64) {
	t.Helper()
	l := m.load(p, m.instances[m.instances[m.published].loaded])
	sg := m.sign(p, m.instances[l], m.instances[m.published])
	m.publish(m.instances[sg])
	last := &m.events[len(m.events)-1].Event
	last.Facts.(*event.InstancePublished).Keep, last.Time = keep, time.Unix(at, 0)
	for _, rec := range m.events[len(m.events)-3:] {
		m.apply(t, s, rec)
	}
}

// stepsOf are the diffs that the store holds of the model's zone.
func stepsOf(t *testing.T, m *model, s *Store) []diffMeta {
	t.Helper()
	v, err := s.Published(m.id)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	steps, err := s.steps(v.snap, v.z, head{})
	if err != nil {
		t.Fatal(err)
	}
	for i, d := range steps {
		if way, ok := v.Diffs(d.From); !ok || len(way) != len(steps)-i {
			t.Errorf("from step %d of %d: a way of %d, known %v", i, len(steps), len(way), ok)
		}
	}
	return steps
}

func TestStore_DiffsKeepToTheEventsLimits(t *testing.T) {
	m, s := published(t)
	p := newSeeded(17)
	want := func(fact string, n int) {
		t.Helper()
		if got := len(stepsOf(t, m, s)); got != n {
			t.Errorf("%s: %d steps, want %d", fact, got, n)
		}
	}
	for i := range 6 {
		publishNext(t, m, s, p, &event.DiffLimits{Steps: 3}, 1000)
		want("by number", min(i+1, 3))
	}
	publishNext(t, m, s, p, nil, 1000)
	want("no limits of its own", 4)
	publishNext(t, m, s, p, &event.DiffLimits{Steps: 100}, 1000+soaExpire)
	want("EXPIRE is over with the end of the second", 5)
	publishNext(t, m, s, p, &event.DiffLimits{Steps: 100}, 1001+soaExpire)
	want("older than EXPIRE", 2)
	for range 4 {
		publishNext(t, m, s, p, nil, 1001+soaExpire)
	}
	want("before the limit of size", 6)
	steps := stepsOf(t, m, s)
	room := steps[len(steps)-1].Bytes + steps[len(steps)-2].Bytes + steps[len(steps)-3].Bytes
	publishNext(t, m, s, p, &event.DiffLimits{Steps: 100, Bytes: uint64(room)}, 1001+soaExpire)
	steps = stepsOf(t, m, s)
	sum := int64(0)
	for _, d := range steps {
		sum += d.Bytes
	}
	if len(steps) == 0 || len(steps) > 6 || sum > room {
		t.Errorf("%d steps with %d bytes within %d", len(steps), sum, room)
	}
	publishNext(t, m, s, p, &event.DiffLimits{Steps: 100, Bytes: 1}, 1001+soaExpire)
	want("one that is too large alone", 0)
	publishNext(t, m, s, p, &event.DiffLimits{}, 1001+soaExpire)
	want("none at all", 0)
	publishNext(t, m, s, p, nil, 1001+soaExpire)
	want("after none", 1)
}

func TestStore_DiffsAreBounded(t *testing.T) {
	m, s := published(t)
	p := newSeeded(13)
	for range 2 * maxSteps {
		l := m.load(p, m.instances[m.instances[m.published].loaded])
		sg := m.sign(p, m.instances[l], m.instances[m.published])
		m.publish(m.instances[sg])
		for _, rec := range m.events[len(m.events)-3:] {
			m.apply(t, s, rec)
		}
	}
	v, err := s.Published(m.id)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	steps, err := s.steps(v.snap, v.z, head{})
	if err != nil {
		t.Fatal(err)
	}
	total := uint64(0)
	for _, d := range steps {
		total += d.Records
	}
	if len(steps) > maxSteps || len(steps) < 10 || total > minRoom {
		t.Errorf("%d steps with %d records", len(steps), total)
	}
	if d, ok := v.Diffs(steps[0].From); !ok || len(d) != len(steps) {
		t.Errorf("%d of %d steps, known %v", len(d), len(steps), ok)
	}
	if _, ok := v.Diffs(1); ok {
		t.Error("a serial never served is known")
	}
	if d, ok := v.Diffs(v.Serial()); !ok || len(d) != 0 {
		t.Error("no step is needed from the serial itself")
	}
}

func TestOpen_DamageIsTold(t *testing.T) {
	fs := vfs.NewMem()
	s := openTest(t, fs, Config{})
	m := newModel("example.", 4)
	m.load(newSeeded(1), nil)
	for _, rec := range m.events {
		m.apply(t, s, rec)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := fs.List("store")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".sst") && !strings.HasPrefix(name, "MANIFEST") {
			continue
		}
		for _, how := range []string{"removed", "overwritten"} {
			t.Run(name+" "+how, func(t *testing.T) {
				broken := vfs.NewMem()
				if _, err := vfs.Clone(fs, broken, "store", "store"); err != nil {
					t.Fatal(err)
				}
				spoil(t, broken, "store/"+name, how)
				s, err := Open("store", Config{FS: broken, Stream: "stream"})
				if err == nil {
					// Tables are read when they are needed.
					_, err = s.LiveHash()
					s.Close()
				}
				if !errors.Is(err, ErrDamaged) {
					t.Errorf("error %v, want ErrDamaged", err)
				}
			})
		}
	}
}

func spoil(t *testing.T, fs vfs.FS, path, how string) {
	t.Helper()
	f, err := fs.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := fs.Remove(path); err != nil {
		t.Fatal(err)
	}
	if how == "removed" {
		return
	}
	for i := range raw {
		raw[i] ^= 0x55
	}
	w, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	w.Close()
}
