package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

// Access gives what a model of whole maps has, whatever branches and versions
// stand in the store.
func TestAccess_EqualsModel(t *testing.T) {
	for seed := range 12 {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			p := newSeeded(seed + 500)
			s := openTest(t, vfs.NewMem(), Config{})
			defer func() { s.Close() }()
			m := newModel("example.", 2+p.pick(5))
			m.apply(t, s, m.events[0])
			for range 30 {
				held, err := s.Instances(m.id)
				if err != nil {
					t.Fatal(err)
				}
				m.step(p, held)
				m.apply(t, s, m.events[len(m.events)-1])
			}
			held, err := s.Instances(m.id)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range held {
				m.checkAccess(t, p, s, m.instances[h.Seq])
			}
		})
	}
}

func (m *model) checkAccess(t *testing.T, p picker, s *Store, in *instance) {
	t.Helper()
	open, all := s.Loaded, maps.Clone(in.items)
	if in.signed {
		open = s.Signed
		maps.Copy(all, m.instances[in.loaded].items)
	}
	v, err := open(m.id, in.seq)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	a := v.Access()
	defer a.Close()
	sorted := slices.Sorted(maps.Keys(all))
	for range 60 {
		key := m.key(kinds[p.pick(len(kinds))], p.pick(m.names+2), []zone.Type{0, zone.TypeSOA, zone.TypeNS, zone.TypeTXT, 0xffff}[p.pick(5)])
		if got, err := a.Get([]byte(key)); err != nil || string(got) != all[key] || (got == nil) != (all[key] == "") {
			t.Fatalf("get %x: %x, %v; want %x", key, got, err, all[key])
		}
		if p.pick(3) == 0 {
			key = key[:1+p.pick(len(key))] // the beginning of a key
		}
		at, _ := slices.BinarySearch(sorted, key)
		want := ""
		if at > 0 && sorted[at-1][0] == key[0] {
			want = sorted[at-1]
		}
		k, value, err := a.Last([]byte(key))
		if err != nil || string(k) != want || string(value) != all[want] {
			t.Fatalf("last before %x: %x, %x, %v; want %x, %x", key, k, value, err, want, all[want])
		}
		it := a.Walk([]byte(key))
		for n := p.pick(20); it.Next(); n-- {
			if at == len(sorted) || string(it.Key()) != sorted[at] || string(it.Value()) != all[sorted[at]] {
				t.Fatalf("walk from %x: %x, %x", key, it.Key(), it.Value())
			}
			// Other reads do not disturb a walk.
			if _, err := a.Get([]byte(sorted[0])); err != nil {
				t.Fatal(err)
			}
			if at++; n == 0 {
				break
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		if it.Key() == nil && at < len(sorted) && sorted[at][0] == key[0] {
			t.Fatalf("walk from %x ends before %x", key, sorted[at])
		}
	}
}

func TestAccess_KindsThatAnInstanceLacksAreEmpty(t *testing.T) {
	m, s := published(t)
	v, err := s.Loaded(m.id, m.instances[m.published].loaded)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	a := v.Access()
	for _, key := range []string{"", "\x7f", string([]byte{byte(zone.KindSigs)}), m.key(zone.KindMade, 0, zone.TypeSOA)} {
		value, err := a.Get([]byte(key))
		k, last, err2 := a.Last([]byte(key))
		it := a.Walk([]byte(key))
		if value != nil || k != nil || last != nil || it.Next() || errors.Join(err, err2, it.Err()) != nil {
			t.Errorf("key %x: %x, %x, %x, %v", key, value, k, last, errors.Join(err, err2, it.Err()))
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if it := a.Walk([]byte(m.key(zone.KindContents, 0, zone.TypeSOA))); it.Next() {
		t.Error("closed access walks")
	}
}

// Updates that read a store make what signing anew makes, and their check
// finds nothing.
func TestAccess_CarriesUpdates(t *testing.T) {
	for seed, denial := range []signer.Denial{signer.NSEC, signer.NSEC3, signer.NSEC3OptOut} {
		t.Run(string(denial), func(t *testing.T) {
			u := &updated{
				model: newModel("example.", 1), t: t, p: newSeeded(seed), s: openTest(t, vfs.NewMem(), Config{}),
				keys: benchKeys(t), contents: sink{}, signed: sink{},
			}
			t.Cleanup(func() { // after the views
				if err := u.s.Close(); err != nil {
					t.Error(err)
				}
			})
			u.model.apply(t, u.s, u.events[0])
			now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
			u.params = signer.Params{
				Apex: u.apex, Inception: now, Expiration: now.Add(time.Hour), Denial: denial, DNSKEYTTL: 60, VerifyAll: true,
			}
			u.put(u.apex, zone.TypeSOA, append([]byte("\x02ns\x00\x04root\x00"), make([]byte, 20)...))
			u.put(u.apex, zone.TypeNS, []byte("\x02ns\x00"))
			for range 20 {
				u.step()
			}
		})
	}
}

// sink keeps the items that a run puts, deletions as empty values.
type sink map[string]string

func (s sink) Put(key, value []byte) error {
	s[string(key)] = string(value)
	return nil
}

func (s sink) items() []zone.Item {
	var items []zone.Item
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if k[0] != byte(zone.KindDigest) {
			items = append(items, zone.Item{Key: []byte(k), Value: []byte(s[k])})
		}
	}
	return items
}

// updated is a zone that changes, is signed and published in a store.
type updated struct {
	*model
	t                *testing.T
	p                picker
	s                *Store
	keys             []signer.Key
	params           signer.Params
	contents, signed sink
	loaded           uint64 // the last loaded instance
	last             uint64 // the last signed one
}

func (u *updated) put(owner zone.Name, typ zone.Type, rdata []byte) {
	u.contents[string(zone.AppendKey(nil, zone.KindContents, owner, typ))] = string(zone.AppendValue(nil, owner, 60, rdata))
}

// change changes some names.
func (u *updated) change() {
	for range 1 + u.p.pick(6) {
		owner := u.apex
		for range 1 + u.p.pick(3) {
			owner = zone.Name([]byte{1, byte('a' + u.p.pick(4))}) + owner
		}
		switch u.p.pick(6) {
		case 0:
			u.put(owner, zone.TypeNS, []byte("\x02ns\x00"))
		case 1:
			u.put(owner, zone.TypeNS, []byte("\x02ns\x00"))
			u.put(owner, zone.TypeDS, []byte{1, 2, 13, 2, 5})
		case 2, 3:
			u.put(owner, zone.TypeA, []byte{192, 0, 2, byte(u.p.pick(9))})
		default:
			for _, typ := range []zone.Type{zone.TypeNS, zone.TypeDS, zone.TypeA} {
				delete(u.contents, string(zone.AppendKey(nil, zone.KindContents, owner, typ)))
			}
		}
	}
}

// step makes a version of the zone: in full the first time, then by Update.
func (u *updated) step() {
	before := u.contents.items()
	u.change()
	u.params.Serial++
	var hasher zone.Hasher
	for _, it := range u.contents.items() {
		if err := hasher.AddContent(it.Key, it.Value); err != nil {
			u.t.Fatal(err)
		}
	}
	content, full, diff := &hasher.Set, sink{}, u.contents
	in := signer.Input{Contents: zone.Slice(u.contents.items()...), ContentState: content, Spill: fileSpill{u.t.TempDir()}}
	res, err := signer.Sign(u.t.Context(), in, u.keys, u.params, full)
	if err != nil {
		u.t.Fatal(err)
	}
	if u.loaded != 0 {
		diff = sink{}
		if err := zone.DiffItems(zone.Slice(before...), zone.Slice(u.contents.items()...), func(key, _, after []byte) error {
			return diff.Put(key, after)
		}); err != nil {
			u.t.Fatal(err)
		}
	}
	from := u.loaded
	u.loaded = u.take(&event.InstanceLoaded{Base: from, ContentDigest: content.Sum(), Manifest: u.manifest(u.next(), diff, content, 3)})
	diff = full
	if u.last != 0 {
		diff = u.update(from, content)
	}
	delete(diff, string([]byte{byte(zone.KindDigest)}))
	delete(full, string([]byte{byte(zone.KindDigest)}))
	base := u.last
	u.last = u.take(&event.InstanceSigned{
		Loaded: u.loaded, Base: base, Serial: uint32(u.params.Serial), ContentDigest: content.Sum(), SignedDigest: res.SignedSum,
		Manifest: u.manifest(u.next(), diff, res.SignedState, 3),
	})
	u.compare(full)
	if base != 0 {
		u.check(from, base, res)
	}
	u.take(&event.InstancePublished{Signed: u.last, Loaded: u.loaded})
}

func (u *updated) take(f event.Facts) uint64 {
	seq := u.add(u.id, f)
	u.model.apply(u.t, u.s, u.events[len(u.events)-1])
	return seq
}

// access opens random access to an instance until the test ends.
func (u *updated) access(open func(event.ZoneID, uint64) (*View, error), seq uint64) *Access {
	v, err := open(u.id, seq)
	if err != nil {
		u.t.Fatal(err)
	}
	a := v.Access()
	u.t.Cleanup(func() {
		if err := errors.Join(a.Close(), v.Close()); err != nil {
			u.t.Error(err)
		}
	})
	return a
}

// update is what Update makes of the last loaded instance.
func (u *updated) update(from uint64, content *zone.SetHash) sink {
	state, err := u.s.SignedState(u.id, u.last)
	if err != nil {
		u.t.Fatal(err)
	}
	out := sink{}
	_, err = signer.Update(u.t.Context(), signer.UpdateInput{
		Contents: u.access(u.s.Loaded, u.loaded), Previous: u.access(u.s.Signed, u.last),
		Changes:      func(fn func(key, before, after []byte) error) error { return u.changes(from, u.loaded, fn) },
		ContentState: content, SignedState: state, Spill: fileSpill{u.t.TempDir()},
	}, u.keys, u.params, out)
	if err != nil {
		u.t.Fatal(err)
	}
	return out
}

func (u *updated) changes(from, to uint64, fn func(key, before, after []byte) error) error {
	known, err := u.s.Changes(u.id, from, to, fn)
	if err == nil && !known {
		err = errors.New("the way is not known")
	}
	return err
}

// compare compares the last signed instance with one signed in full.
func (u *updated) compare(full sink) {
	got := sink{}
	for _, k := range kinds[1:] {
		it, err := u.s.Made(u.id, u.last, k)
		_, items := collect(u.t, it, err)
		maps.Copy(got, items)
	}
	if !maps.Equal(got, full) {
		u.t.Fatalf("s%d differs from full signing:\n%q\n%q", u.last, got, full)
	}
}

// check checks the changes from an earlier instance to the last one.
func (u *updated) check(loaded, signed uint64, res *signer.Result) {
	contents, err := u.s.ContentState(u.id, loaded)
	if err != nil {
		u.t.Fatal(err)
	}
	state, err := u.s.SignedState(u.id, signed)
	if err != nil {
		u.t.Fatal(err)
	}
	r, err := signer.CheckChanges(u.t.Context(), signer.CheckInput{
		Previous: u.access(u.s.Signed, signed), Signed: u.access(u.s.Signed, u.last),
		ContentState: contents, SignedState: state,
		Changes: func(fn func(key, before, after []byte) error) error {
			return errors.Join(u.changes(loaded, u.loaded, fn), u.changes(signed, u.last, fn))
		},
	}, signer.VerifyOptions{
		Apex: u.apex, At: u.params.Inception, Spill: fileSpill{u.t.TempDir()}, ContentSum: &res.ContentSum, SignedSum: &res.SignedSum,
	})
	if err != nil || !r.OK() {
		u.t.Fatal(err, r.Err())
	}
}

// signedStore is a store with a signed zone of delegations.
type signedStore struct {
	*Store
	apex   zone.Name
	keys   []signer.Key
	params signer.Params
	state  *zone.SetHash
	ds     []zone.Item
}

// packSink packs items into the chunks of a zone, one list a kind.
type packSink struct {
	tld
	part     int
	builders map[byte]*zone.ChunkBuilder
}

func (p *packSink) Put(key, value []byte) error {
	b := p.builders[key[0]]
	if b == nil {
		b = &zone.ChunkBuilder{}
		p.builders[key[0]] = b
	}
	if zone.Kind(key[0]) == zone.KindDigest {
		_, err := b.Add(key, value)
		return err
	}
	p.pack(p.part, b, key, value)
	return nil
}

func (p *packSink) flush() {
	for _, k := range slices.Sorted(maps.Keys(p.builders)) {
		p.pack(p.part, p.builders[k], nil, nil)
	}
	clear(p.builders)
}

func newPackSink() *packSink {
	p := &packSink{builders: map[byte]*zone.ChunkBuilder{}}
	p.manifests[0].Subject, p.manifests[1].Subject = "loaded", "signed"
	return p
}

// fileSpill makes temporary files.
type fileSpill struct{ dir string }

type tempFile struct{ *os.File }

func (f tempFile) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }

func (s fileSpill) Create() (zone.SpillFile, error) {
	f, err := os.CreateTemp(s.dir, "spill")
	return tempFile{f}, err
}

func benchKeys(b testing.TB) []signer.Key {
	b.Helper()
	var keys []signer.Key
	for i, flags := range []byte{1, 0} {
		scalar := bytes.Repeat([]byte{byte(i + 1)}, 32)
		priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
		if err != nil {
			b.Fatal(err)
		}
		point, err := priv.PublicKey.Bytes()
		if err != nil {
			b.Fatal(err)
		}
		keys = append(keys, signer.Key{
			DNSKEY: append([]byte{1, flags, 3, 13}, point[1:]...), Signer: priv,
			Published: true, SignsKeys: flags == 1, SignsZone: flags == 0,
		})
	}
	return keys
}

// newSignedStore loads, signs and publishes a zone of n delegations, three of
// five with DS.
func newSignedStore(b *testing.B, n int) *signedStore {
	b.Helper()
	s := &signedStore{Store: openBench(b), apex: "\x07example\x00", keys: benchKeys(b)}
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	s.params = signer.Params{
		Apex: s.apex, Serial: 1, Inception: now, Expiration: now.Add(14 * 24 * time.Hour),
		Denial: signer.NSEC3OptOut, DNSKEYTTL: 3600,
	}
	soa := append([]byte("\x02ns\x00\x04root\x00"), make([]byte, 20)...)
	items := []zone.Item{
		{Key: zone.AppendKey(nil, zone.KindContents, s.apex, zone.TypeNS), Value: zone.AppendValue(nil, s.apex, 3600, []byte("\x02ns\x00"))},
		{Key: zone.AppendKey(nil, zone.KindContents, s.apex, zone.TypeSOA), Value: zone.AppendValue(nil, s.apex, 3600, soa)},
	}
	for i := range n {
		h := fnv.New64a()
		fmt.Fprint(h, i)
		owner := zone.Name(fmt.Sprintf("\x10%016x", h.Sum64())) + s.apex
		items = append(items, zone.Item{Key: zone.AppendKey(nil, zone.KindContents, owner, zone.TypeNS), Value: zone.AppendValue(nil, owner, 3600, []byte("\x03ns1\x04host\x03net\x00"), []byte("\x03ns2\x04host\x03net\x00"))})
		if i%5 < 3 {
			ds := zone.Item{Key: zone.AppendKey(nil, zone.KindContents, owner, zone.TypeDS), Value: zone.AppendValue(nil, owner, 3600, append([]byte{1, 2, 13, 2}, h.Sum(make([]byte, 24))...))}
			items, s.ds = append(items, ds), append(s.ds, ds)
		}
	}
	slices.SortFunc(items, func(a, b zone.Item) int { return bytes.Compare(a.Key, b.Key) })
	out := newPackSink()
	hasher := &zone.Hasher{}
	for _, it := range items {
		if err := errors.Join(hasher.AddContent(it.Key, it.Value), out.Put(it.Key, it.Value)); err != nil {
			b.Fatal(err)
		}
	}
	s.state = &hasher.Set
	if err := out.Put([]byte{byte(zone.KindDigest)}, s.state.AppendState(nil)); err != nil {
		b.Fatal(err)
	}
	out.flush()
	out.part = 1
	res, err := signer.Sign(b.Context(), signer.Input{Contents: zone.Slice(items...), ContentState: s.state, Spill: fileSpill{b.TempDir()}}, s.keys, s.params, out)
	if err != nil {
		b.Fatal(err)
	}
	out.flush()
	out.sums = [2]event.Hash{s.state.Sum(), res.SignedSum}
	s.take(b, 1, out)
	return s
}

// take applies a loaded and a signed instance and publishes them.
func (s *signedStore) take(b *testing.B, seq uint64, z *packSink) {
	b.Helper()
	facts := []event.Facts{
		&event.InstanceLoaded{Manifest: z.manifests[0], ContentDigest: z.sums[0], Records: z.records[0]},
		&event.InstanceSigned{Loaded: seq, Manifest: z.manifests[1], SignedDigest: z.sums[1], Records: z.records[0] + z.records[1]},
		&event.InstancePublished{Signed: seq + 1, Loaded: seq},
	}
	for i, f := range facts {
		rec := journal.Record{Seq: seq + uint64(i), Event: event.Event{Zone: benchZone, Facts: f}}
		if err := s.Apply(b.Context(), rec, z.source); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate changes DS RRsets in a store of the size that
// SLUICE_BENCH_NAMES says: what an update reads, signs and checks.
func BenchmarkUpdate(b *testing.B) {
	names := 100_000
	if n, err := strconv.Atoi(os.Getenv("SLUICE_BENCH_NAMES")); err == nil {
		names = n
	}
	s := newSignedStore(b, names)
	for _, k := range []int{1, 100, 10_000} {
		b.Run(strconv.Itoa(k), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.update(b, k)
			}
		})
	}
}

// update is one update of k DS RRsets. The new contents are an overlay, since
// what is measured is reading the store.
func (s *signedStore) update(b *testing.B, k int) {
	b.Helper()
	v, err := s.Signed(benchZone, 2)
	if err != nil {
		b.Fatal(err)
	}
	a, c := v.Access(), v.Access()
	defer func() {
		if err := errors.Join(a.Close(), c.Close(), v.Close()); err != nil {
			b.Fatal(err)
		}
	}()
	over := overlay{Access: c, changed: map[string][]byte{}}
	var keys []string
	for i := range k {
		ds := s.ds[i*(len(s.ds)/k)]
		value := bytes.Clone(ds.Value)
		value[len(value)-1] ^= 1
		over.changed[string(ds.Key)] = value
		keys = append(keys, string(ds.Key))
	}
	slices.Sort(keys)
	signed, err := v.SetHash()
	if err != nil {
		b.Fatal(err)
	}
	in := signer.UpdateInput{
		Contents: over, Previous: a, ContentState: s.state, SignedState: signed, Spill: fileSpill{b.TempDir()},
		Changes: func(fn func(key, before, after []byte) error) error {
			for _, key := range keys {
				before, err := c.Get([]byte(key))
				if err == nil {
					err = fn([]byte(key), before, over.changed[key])
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	p := s.params
	p.Serial = 2
	if _, err := signer.Update(b.Context(), in, s.keys, p, discard{}); err != nil {
		b.Fatal(err)
	}
}

type discard struct{}

func (discard) Put([]byte, []byte) error { return nil }

// overlay shows other values for some items.
type overlay struct {
	*Access
	changed map[string][]byte
}

func (o overlay) Get(key []byte) ([]byte, error) {
	if v := o.changed[string(key)]; v != nil {
		return v, nil
	}
	return o.Access.Get(key)
}

func (o overlay) Walk(from []byte) zone.Iterator { return overlaid{o.Access.Walk(from), o.changed} }

type overlaid struct {
	zone.Iterator
	changed map[string][]byte
}

func (o overlaid) Value() []byte {
	if v := o.changed[string(o.Key())]; v != nil {
		return v
	}
	return o.Iterator.Value()
}
