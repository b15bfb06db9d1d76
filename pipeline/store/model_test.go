package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// tester is what a testing.TB and a rapid.T have in common.
type tester interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// picker makes the choices of a random test.
type picker interface{ pick(n int) int } // from 0 to n-1

// instance is what the model knows of one instance.
type instance struct {
	seq        uint64
	signed     bool
	generation uint64
	loaded     uint64
	serial     zone.Serial
	items      map[string]string
	state      *zone.SetHash
}

// model makes events of one zone and knows what a store must then hold.
type model struct {
	id        event.ZoneID
	apex      zone.Name
	names     int
	events    []journal.Record
	chunks    map[string][][]byte // by manifest subject
	instances map[uint64]*instance
	published uint64
	served    []uint64          // published instances, oldest first
	breaks    map[uint64]bool   // publications that came over a new generation
	states    map[uint64]string // pipeline state after each event
	now       int64             // when the next instance is signed
	serial    zone.Serial
}

func newModel(apex string, names int) *model {
	m := &model{
		id: "0011223344556677", names: names, chunks: map[string][][]byte{},
		instances: map[uint64]*instance{}, breaks: map[uint64]bool{}, states: map[uint64]string{}, serial: 100,
		now: 1_900_000_000,
	}
	m.apex, _ = zone.ParseName(apex)
	m.add(event.Instance, &event.ZoneAdded{Name: apex, ID: m.id})
	return m
}

func (m *model) add(id event.ZoneID, f event.Facts) uint64 {
	seq := uint64(3*len(m.events) + 1)
	rec := journal.Record{Seq: seq, Event: event.Event{Type: f.EventType(), Zone: id, Facts: f}}
	binary.BigEndian.PutUint64(rec.Hash[:], seq)
	m.events = append(m.events, rec)
	m.states[seq] = fmt.Sprintf("state %d", seq)
	return seq
}

func (m *model) next() uint64 { return uint64(3*len(m.events) + 1) }

// source hands out the chunks of the model.
func (m *model) source(_ context.Context, list event.Manifest, fn func([]byte) error) error {
	for _, raw := range m.chunks[list.Subject] {
		if err := fn(bytes.Clone(raw)); err != nil {
			return err
		}
	}
	return nil
}

// manifest packs items, given in the order of their keys, a few to a chunk
// and the kinds in turns.
func (m *model) manifest(seq uint64, items map[string]string, state *zone.SetHash, per int) event.Manifest {
	list := event.Manifest{Subject: fmt.Sprintf("bulk.%d", seq)}
	byKind := map[byte][]string{}
	for _, k := range slices.Sorted(maps.Keys(items)) {
		byKind[k[0]] = append(byKind[k[0]], k)
	}
	put := func(keys []string) {
		var b zone.ChunkBuilder
		for _, k := range keys {
			if _, err := b.Add([]byte(k), []byte(items[k])); err != nil {
				panic(err)
			}
		}
		m.put(&list, bytes.Clone(b.Bytes()), b.Items())
	}
	for left := true; left; {
		left = false
		for _, kind := range slices.Sorted(maps.Keys(byKind)) {
			keys := byKind[kind]
			n := min(per, len(keys))
			if byKind[kind] = keys[n:]; n > 0 {
				put(keys[:n])
				left = true
			}
		}
	}
	var b zone.ChunkBuilder
	if _, err := b.Add([]byte{byte(zone.KindDigest)}, state.AppendState(nil)); err != nil {
		panic(err)
	}
	m.put(&list, bytes.Clone(b.Bytes()), 1)
	return list
}

func (m *model) put(list *event.Manifest, raw []byte, items uint64) {
	m.chunks[list.Subject] = append(m.chunks[list.Subject], raw)
	list.Chunks = append(list.Chunks, event.Chunk{Items: items, Bytes: uint64(len(raw))})
	list.Count++
}

// key is the key of a name: 0 is the apex.
func (m *model) key(kind zone.Kind, n int, t zone.Type) string {
	owner := m.apex
	if n > 0 {
		owner = zone.Name(fmt.Sprintf("\x04n%03d", n)) + m.apex
	}
	return string(zone.AppendKey(nil, kind, owner, t))
}

// value makes an RRset with some records; some have an owner in upper case,
// some another TTL.
func (m *model) value(p picker, kind zone.Kind, n int, t zone.Type) string {
	owner, ttl := m.apex, uint32(3600)
	if n > 0 {
		owner = zone.Name(fmt.Sprintf("\x04n%03d", n)) + m.apex
		if p.pick(5) == 0 {
			owner = zone.Name(fmt.Sprintf("\x04N%03d", n)) + m.apex
		}
	}
	if p.pick(5) == 0 {
		ttl = 60
	}
	set := zone.RRset{Owner: owner, Type: t, TTL: ttl}
	for i := 1 + p.pick(4); i > 0; i-- {
		data := []byte{byte(p.pick(6))}
		switch {
		case isSigs(kind):
			data = binary.BigEndian.AppendUint32(make([]byte, 8), uint32(m.now+validity-int64(p.pick(validity/2))))
			data = append(data, byte(p.pick(6)))
		case t == zone.TypeNS:
			data = []byte{2, "nN"[p.pick(2)], byte('a' + p.pick(3)), 0}
		}
		set.Data = append(set.Data, data)
	}
	return string(set.Value())
}

// soaExpire is EXPIRE in the model's SOA RRsets, in seconds.
const soaExpire = 1000

// soa is an SOA RRset; only serial and EXPIRE matter.
func (m *model) soa(serial zone.Serial) string {
	data := []byte{0, 0}
	for _, n := range []uint32{uint32(serial), 0, 0, soaExpire, 0} {
		data = binary.BigEndian.AppendUint32(data, n)
	}
	return string(zone.AppendValue(nil, m.apex, 3600, data))
}

func stateOf(seq uint64) *zone.SetHash {
	h := new(zone.SetHash)
	h.Add(zone.HashRRset, binary.BigEndian.AppendUint64(nil, seq))
	return h
}

// change makes the items of a new instance: whole where base is nil, else a
// diff to it.
func (m *model) change(p picker, base map[string]string, signed bool) (diff, items map[string]string) {
	items, diff = maps.Clone(base), map[string]string{}
	if items == nil {
		items = map[string]string{}
	}
	ks, types := []zone.Kind{zone.KindContents}, []zone.Type{zone.TypeA, zone.TypeNS, zone.TypeTXT, zone.TypeCDS}
	if signed {
		ks = kinds[1:]
	}
	count := 1 + p.pick(4)
	if base == nil {
		count = m.names
	}
	for range count {
		kind, n, t := ks[p.pick(len(ks))], p.pick(m.names), types[p.pick(len(types))]
		if kind == zone.KindMade {
			t = []zone.Type{zone.TypeCDS, zone.TypeNSEC, zone.TypeDNSKEY}[p.pick(3)]
		}
		k := m.key(kind, n, t)
		if base != nil && p.pick(3) == 0 {
			diff[k] = ""
			delete(items, k)
			continue
		}
		diff[k] = m.value(p, kind, n, t)
		items[k] = diff[k]
	}
	if signed {
		diff[m.key(zone.KindMade, 0, zone.TypeSOA)] = m.soa(m.serial)
		items[m.key(zone.KindMade, 0, zone.TypeSOA)] = m.soa(m.serial)
	} else if base == nil || p.pick(3) == 0 {
		k := m.key(zone.KindContents, 0, zone.TypeSOA)
		diff[k] = m.soa(zone.Serial(p.pick(1000)))
		items[k] = diff[k]
	}
	return diff, items
}

func (m *model) load(p picker, base *instance) uint64 {
	in := &instance{seq: m.next(), state: stateOf(m.next()), serial: 7}
	f := &event.InstanceLoaded{Serial: 7, ContentDigest: in.state.Sum(), Records: uint64(m.names)}
	in.generation = in.seq
	var diff, from map[string]string
	if base != nil {
		f.Base, in.generation, from = base.seq, base.generation, base.items
	}
	diff, in.items = m.change(p, from, false)
	f.Manifest = m.manifest(in.seq, diff, in.state, 1+p.pick(5))
	m.instances[in.seq] = in
	return m.add(m.id, f)
}

func (m *model) sign(p picker, loaded, base *instance) uint64 {
	m.serial++
	in := &instance{seq: m.next(), signed: true, state: stateOf(m.next()), serial: m.serial, loaded: loaded.seq}
	f := &event.InstanceSigned{Loaded: loaded.seq, Serial: uint32(m.serial), SignedDigest: in.state.Sum(), Records: uint64(m.names)}
	in.generation = in.seq
	var diff, from map[string]string
	if base != nil {
		f.Base, in.generation, from = base.seq, base.generation, base.items
	}
	m.now += int64(p.pick(validity / 8))
	diff, in.items = m.change(p, from, true)
	if p.pick(2) == 0 {
		m.refresh(p, diff, in.items)
	}
	f.Inception, f.Expiration, f.Earliest = m.now, m.now+validity, m.now+validity
	for _, at := range in.expiries() {
		f.Earliest = min(f.Earliest, at)
	}
	f.Earliest -= int64(p.pick(2) * p.pick(100))
	f.Manifest = m.manifest(in.seq, diff, in.state, 1+p.pick(5))
	if p.pick(4) == 0 {
		f.Manifest.Chunks[0].Bytes = blockDiff // as if it were as large as that
	}
	m.instances[in.seq] = in
	return m.add(m.id, f)
}

func (m *model) publish(in *instance) uint64 {
	before := m.instances[m.published]
	if before == nil || before.generation != in.generation ||
		m.instances[before.loaded].generation != m.instances[in.loaded].generation {
		m.breaks[in.seq] = true
	}
	m.published = in.seq
	m.served = append(m.served, in.seq)
	return m.add(m.id, &event.InstancePublished{Signed: in.seq, Loaded: in.loaded, Serial: uint32(in.serial)})
}

// step adds one event that a pipeline could make: it builds on what is
// published or newer.
func (m *model) step(p picker, held []InstanceMeta) {
	var loaded, signed, upcoming []*instance
	floor := uint64(0)
	if at := m.instances[m.published]; at != nil {
		floor = at.loaded
	}
	for _, h := range held {
		in := m.instances[h.Seq]
		switch {
		case in.signed && in.seq >= m.published:
			signed = append(signed, in)
			if in.seq > m.published {
				upcoming = append(upcoming, in)
			}
		case !in.signed && in.seq >= floor:
			loaded = append(loaded, in)
		}
	}
	any := func(from []*instance) *instance {
		if len(from) == 0 || p.pick(6) == 0 {
			return nil
		}
		// Mostly the newest, at times a branch.
		if p.pick(3) > 0 {
			return from[len(from)-1]
		}
		return from[p.pick(len(from))]
	}
	switch c := p.pick(10); {
	case c < 4 || len(loaded) == 0:
		m.load(p, any(loaded))
	case c < 7 || len(upcoming) == 0:
		in := any(loaded)
		if in == nil {
			in = loaded[len(loaded)-1]
		}
		m.sign(p, in, any(signed))
	default:
		m.publish(upcoming[p.pick(len(upcoming))])
	}
}

func (m *model) apply(tb tester, s *Store, rec journal.Record) {
	tb.Helper()
	if err := m.tryApply(s, rec); err != nil {
		tb.Fatal(err)
	}
}

func (m *model) tryApply(s *Store, rec journal.Record) error {
	return s.Apply(context.Background(), rec, m.source, m.state(rec))
}

// state is what the pipeline keeps at an event; a part of it is what others keep,
// too.
func (m *model) state(rec journal.Record) ZoneState {
	common := fmt.Sprintf("policy %d", rec.Seq/3%3)
	return ZoneState{Zone: m.id, Data: []byte(m.states[rec.Seq]), Common: common, CommonHash: sha256.Sum256([]byte(common))}
}

func openTest(tb tester, fs vfs.FS, cfg Config) *Store {
	tb.Helper()
	cfg.FS, cfg.Stream = fs, "stream"
	cfg.Cache, cfg.Memtable = 1<<20, 256<<10
	s, err := Open("store", cfg)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func collect(tb tester, it zone.Iterator, err error) (keys []string, items map[string]string) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	items = map[string]string{}
	for it.Next() {
		keys = append(keys, string(it.Key()))
		items[string(it.Key())] = string(it.Value())
	}
	if err := it.Err(); err != nil {
		tb.Fatal(err)
	}
	if err := it.Close(); err != nil {
		tb.Fatal(err)
	}
	return keys, items
}

// check compares the store with the model.
func (m *model) check(tb tester, s *Store) {
	tb.Helper()
	held, err := s.Instances(m.id)
	if err != nil {
		tb.Fatal(err)
	}
	m.checkHeld(tb, held)
	for _, h := range held {
		in := m.instances[h.Seq]
		if !in.signed {
			_, got := collect2(tb)(s.Contents(m.id, in.seq))
			if d := cmp.Diff(in.items, got); d != "" {
				tb.Fatalf("l%d differs:\n%s", in.seq, d)
			}
			continue
		}
		m.checkSigned(tb, s, in)
	}
	if m.published != 0 {
		m.checkPublished(tb, s)
	}
	m.checkNoGarbage(tb, s)
}

func collect2(tb tester) func(it zone.Iterator, err error) ([]string, map[string]string) {
	return func(it zone.Iterator, err error) ([]string, map[string]string) { return collect(tb, it, err) }
}

// checkHeld: what is published, what is newest, and what these were made of
// must be there.
func (m *model) checkHeld(tb tester, held []InstanceMeta) {
	tb.Helper()
	have := map[uint64]bool{}
	for _, h := range held {
		have[h.Seq] = true
	}
	var loaded, signed *instance
	for _, seq := range slices.Sorted(maps.Keys(m.instances)) {
		if in := m.instances[seq]; in.signed {
			signed = in
		} else {
			loaded = in
		}
	}
	need := []*instance{loaded, signed, m.instances[m.published]}
	for _, in := range need {
		if in != nil && (!have[in.seq] || (in.signed && !have[in.loaded])) {
			tb.Fatalf("instance %d or what it was made of is not held: %v", in.seq, have)
		}
	}
}

func (m *model) checkSigned(tb tester, s *Store, in *instance) {
	tb.Helper()
	v, err := s.Signed(m.id, in.seq)
	if err != nil {
		tb.Fatal(err)
	}
	defer v.Close()
	want := m.visible(in)
	keys, got := collect2(tb)(v.Items())
	if d := cmp.Diff(want, got); d != "" {
		tb.Fatalf("s%d differs:\n%s", in.seq, d)
	}
	if !slices.IsSortedFunc(keys, viewOrder) {
		tb.Fatalf("s%d: items out of order: %q", in.seq, keys)
	}
	if v.Apex() != m.apex || v.Serial() != in.serial {
		tb.Fatalf("s%d: apex %s, serial %d, want %s, %d", in.seq, v.Apex(), v.Serial(), m.apex, in.serial)
	}
	if _, soa := v.SOA(); string(soa) != m.soa(in.serial) {
		tb.Fatalf("s%d: SOA %x", in.seq, soa)
	}
	all := maps.Clone(in.items)
	maps.Copy(all, m.instances[in.loaded].items)
	for _, kind := range kinds {
		for n := range m.names {
			for _, t := range []zone.Type{zone.TypeSOA, zone.TypeA, zone.TypeNS, zone.TypeTXT, zone.TypeCDS} {
				k := m.key(kind, n, t)
				if got, err := v.Get([]byte(k)); err != nil || string(got) != all[k] {
					tb.Fatalf("s%d: get %x: %x, %v; want %x", in.seq, k, got, err, all[k])
				}
			}
		}
	}
	checkDue(tb, v, in)
	if h, err := v.SetHash(); err != nil || h.Sum() != in.state.Sum() {
		tb.Fatalf("s%d: set hash differs, %v", in.seq, err)
	}
}

// viewOrder is the order of View.Items.
func viewOrder(a, b string) int {
	late := func(k string) bool { return k[0] >= byte(zone.KindChain) }
	if late(a) != late(b) {
		if late(a) {
			return 1
		}
		return -1
	}
	if a[1:] == b[1:] {
		return int(a[0]) - int(b[0])
	}
	return bytes.Compare([]byte(a[1:]), []byte(b[1:]))
}

// checkPublished: the view is the published one, and each diff leads to it.
func (m *model) checkPublished(tb tester, s *Store) {
	tb.Helper()
	v, err := s.Published(m.id)
	if err != nil {
		tb.Fatal(err)
	}
	defer v.Close()
	now := m.instances[m.published]
	if v.Meta().Seq != now.seq {
		tb.Fatalf("s%d is published, want s%d", v.Meta().Seq, now.seq)
	}
	want := records(m.visible(now))
	known := true
	for i, seq := range slices.Backward(m.served) {
		from := m.instances[seq]
		steps, ok := v.Diffs(from.serial)
		// Small changes only: nothing but a new generation breaks the way.
		if steps := len(m.served) - 1 - i; ok != known && steps <= 3 {
			tb.Fatalf("way from s%d to s%d known %v, want %v", from.seq, now.seq, ok, known)
		}
		known = known && !m.breaks[from.seq]
		if !ok {
			continue
		}
		got, soa := records(m.visible(from)), m.soa(from.serial)
		for _, d := range steps {
			if string(d.FromSOA()) != soa {
				tb.Fatalf("step from %d to %d has another SOA", d.From(), d.To())
			}
			soa = string(d.ToSOA())
			_, gone := collect2(tb)(d.Removed())
			for k, v := range gone {
				addRecords(got, k, v, -1)
			}
			_, came := collect2(tb)(d.Added())
			for k, v := range came {
				addRecords(got, k, v, 1)
			}
		}
		if d := cmp.Diff(want, got); d != "" || soa != m.soa(now.serial) {
			tb.Fatalf("diffs from s%d do not lead to s%d:\n%s", from.seq, now.seq, d)
		}
	}
}

// checkNoGarbage: after a publication each entry is read by an instance, and
// each other key belongs to one.
func (m *model) checkNoGarbage(tb tester, s *Store) {
	tb.Helper()
	last := m.events[len(m.events)-1]
	if _, ok := last.Event.Facts.(*event.InstancePublished); !ok {
		return
	}
	known, _, err := s.zone(s.db, m.id)
	if err != nil {
		tb.Fatal(err)
	}
	all, _, err := s.metas(s.db, known.Number)
	if err != nil {
		tb.Fatal(err)
	}
	used := map[string]bool{}
	for _, in := range all {
		if in.Past {
			continue
		}
		l := all.lens(in)
		r, err := s.entries(s.db, known.Number, in.Generation)
		if err != nil {
			tb.Fatal(err)
		}
		for k := range m.instances[in.Seq].items {
			if err := r.seek([]byte(k), nil); err != nil {
				tb.Fatal(err)
			}
			i := r.find(&l)
			used[string(appendVersion(r.key, r.list[i].version))] = true
		}
		if err := r.closeWith(nil); err != nil {
			tb.Fatal(err)
		}
	}
	floors := map[uint64]int64{}
	for _, in := range all {
		if was, ok := floors[in.Generation]; !in.Past && (!ok || in.Earliest < was) {
			floors[in.Generation] = in.Earliest
		}
	}
	err = s.Walk(func(k, v []byte) error {
		switch {
		case k[0] == spaceDue:
			return checkDueEntry(k, known.Number, used, floors)
		case k[0] == spaceData && len(v) > 0 && !used[string(k)]:
			return fmt.Errorf("entry %x is read by nobody", k)
		case k[0] == spaceLists && all.find(binary.BigEndian.Uint64(k[5:])) == nil,
			k[0] == spaceMeta && (k[5] == tagDigest) && all.find(binary.BigEndian.Uint64(k[6:])) == nil:
			return fmt.Errorf("key %x belongs to no instance", k)
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}
