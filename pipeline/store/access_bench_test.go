package store

import (
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

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
				s.update(b, k, false)
			}
		})
		b.Run(strconv.Itoa(k)+"-drop", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.update(b, k, true)
			}
		})
	}
}

// update is one update of k DS RRsets that change or go. The new contents are an overlay, since
// what is measured is reading the store.
func (s *signedStore) update(b *testing.B, k int, drop bool) {
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
		if value[len(value)-1] ^= 1; drop {
			value = []byte{}
		}
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

// overlay shows other values for some items, none for those with an empty one.
type overlay struct {
	*Access
	changed map[string][]byte
}

func (o overlay) Get(key []byte) ([]byte, error) {
	switch v := o.changed[string(key)]; {
	case v == nil:
		return o.Access.Get(key)
	case len(v) == 0:
		return nil, nil
	default:
		return v, nil
	}
}

func (o overlay) Walk(from []byte) zone.Iterator { return overlaid{o.Access.Walk(from), o.changed} }

type overlaid struct {
	zone.Iterator
	changed map[string][]byte
}

func (o overlaid) Next() bool {
	for o.Iterator.Next() {
		if v := o.changed[string(o.Key())]; v == nil || len(v) > 0 {
			return true
		}
	}
	return false
}

func (o overlaid) Value() []byte {
	if v := o.changed[string(o.Key())]; v != nil {
		return v
	}
	return o.Iterator.Value()
}
