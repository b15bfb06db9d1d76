package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// tld is a synthetic zone of delegations, 60 % with DS, NSEC3 with opt-out.
type tld struct {
	loaded, signed [][]byte // raw chunks
	manifests      [2]event.Manifest
	records        [2]uint64
	sums           [2]event.Hash
}

// add packs items into chunks.
func (z *tld) pack(part int, b *zone.ChunkBuilder, key, value []byte) {
	if key != nil {
		z.records[part] += uint64(max(zone.Value(value).Count(), 1))
		if full, err := b.Add(key, value); err != nil {
			panic(err)
		} else if !full {
			return
		}
	}
	list := &z.manifests[part]
	list.Chunks = append(list.Chunks, event.Chunk{Items: b.Items(), Bytes: uint64(len(b.Bytes()))})
	list.Count++
	chunks := &z.loaded
	if part == 1 {
		chunks = &z.signed
	}
	*chunks = append(*chunks, bytes.Clone(b.Bytes()))
	b.Reset()
	if key != nil {
		if _, err := b.Add(key, value); err != nil {
			panic(err)
		}
	}
}

func newTLD(names int) *tld {
	z := &tld{}
	z.manifests[0].Subject, z.manifests[1].Subject = "loaded", "signed"
	rnd := newSeeded(1)
	random := func(n int) []byte {
		out := make([]byte, n)
		for i := range out {
			out[i] = byte(rnd.Uint64())
		}
		return out
	}
	apex := zone.Name("\x07example\x00")
	rrsig := func() []byte {
		return append(append(append(random(8), 0x77, byte(rnd.pick(16)), byte(rnd.pick(256)), 0), append(random(6), apex...)...), random(64)...)
	}
	soa := zone.AppendValue(nil, apex, 3600, append([]byte{0, 0}, random(20)...))
	var builders [5]zone.ChunkBuilder
	put := func(kind zone.Kind, owner zone.Name, t zone.Type, value []byte) {
		part := min(kindIndex(kind), 1)
		z.pack(part, &builders[kindIndex(kind)], zone.AppendKey(nil, kind, owner, t), value)
	}
	put(zone.KindContents, apex, zone.TypeSOA, soa)
	put(zone.KindMade, apex, zone.TypeSOA, soa)
	for i := range names {
		owner := zone.Name(fmt.Sprintf("\x0cname%08d", i)) + apex
		ns := []byte(fmt.Sprintf("\x03ns1\x08host%04d\x03net\x00", i%5000))
		ns2 := []byte(fmt.Sprintf("\x03ns2\x08host%04d\x03net\x00", i%5000))
		put(zone.KindContents, owner, zone.TypeNS, zone.AppendValue(nil, owner, 3600, ns, ns2))
		if i%10 < 6 {
			put(zone.KindContents, owner, zone.TypeDS, zone.AppendValue(nil, owner, 3600, random(36)))
			put(zone.KindSigs, owner, zone.TypeDS, zone.AppendValue(nil, owner, 3600, rrsig()))
			hash := zone.Name(fmt.Sprintf("\x20%032x", i)) + apex
			put(zone.KindChain, hash, zone.TypeNSEC3, zone.AppendValue(nil, hash, 900, append([]byte{1, 1, 0, 0, 0, 20}, random(28)...)))
			put(zone.KindChainSigs, hash, zone.TypeNSEC3, zone.AppendValue(nil, hash, 900, rrsig()))
		}
	}
	for part, ks := range [][]zone.Kind{kinds[:1], kinds[1:]} {
		for _, k := range ks {
			z.pack(part, &builders[kindIndex(k)], nil, nil)
		}
		h := stateOf(uint64(part))
		z.sums[part] = h.Sum()
		var b zone.ChunkBuilder
		if _, err := b.Add([]byte{byte(zone.KindDigest)}, h.AppendState(nil)); err != nil {
			panic(err)
		}
		z.pack(part, &b, nil, nil)
	}
	return z
}

func (z *tld) source(_ context.Context, list event.Manifest, fn func([]byte) error) error {
	chunks := z.loaded
	if list.Subject == "signed" {
		chunks = z.signed
	}
	for _, raw := range chunks {
		if err := fn(raw); err != nil {
			return err
		}
	}
	return nil
}

const benchZone = event.ZoneID("00000000000000aa")

// fill loads, signs and publishes the zone.
func (z *tld) fill(b *testing.B, s *Store, seq uint64) {
	b.Helper()
	facts := []event.Facts{
		&event.InstanceLoaded{Manifest: z.manifests[0], ContentDigest: z.sums[0], Records: z.records[0]},
		&event.InstanceSigned{
			Loaded: seq, Manifest: z.manifests[1], SignedDigest: z.sums[1], Records: z.records[0] + z.records[1],
			Inception: 0x77000000 - 1<<20, Expiration: 0x77000000 + 1<<20, Earliest: 0x77000000,
		},
		&event.InstancePublished{Signed: seq + 1, Loaded: seq},
	}
	for i, f := range facts {
		rec := journal.Record{Seq: seq + uint64(i), Event: event.Event{Zone: benchZone, Facts: f}}
		if err := s.Apply(b.Context(), rec, z.source); err != nil {
			b.Fatal(err)
		}
	}
}

func openBench(b *testing.B) *Store {
	b.Helper()
	s, err := Open(b.TempDir(), Config{Stream: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

const benchNames = 300_000

func BenchmarkLoad(b *testing.B) {
	z := newTLD(benchNames)
	s := openBench(b)
	seq := uint64(1)
	for b.Loop() {
		z.fill(b, s, seq)
		seq += 3
	}
	b.ReportMetric(float64(z.records[0]+z.records[1])*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

func walkAll(b *testing.B, s *Store, records uint64) {
	b.Helper()
	v, err := s.Published(benchZone)
	if err != nil {
		b.Fatal(err)
	}
	it, err := v.Items()
	if err != nil {
		b.Fatal(err)
	}
	n, bytes := uint64(0), 0
	for it.Next() {
		bytes += len(it.Key())
		// As a transfer would: each record.
		for v := it.Value()[5:]; len(v) > 0; n++ {
			v = v[2+int(binary.BigEndian.Uint16(v)):]
		}
	}
	if err := it.Err(); err != nil || n < records {
		b.Fatalf("%d records, want %d: %v", n, records, err)
	}
	if err := it.Close(); err != nil {
		b.Fatal(err)
	}
	if err := v.Close(); err != nil {
		b.Fatal(err)
	}
	runtime.KeepAlive(bytes)
}

func BenchmarkViewItems(b *testing.B) {
	z := newTLD(benchNames)
	s := openBench(b)
	z.fill(b, s, 1)
	records := z.records[0] + z.records[1] - 1 // one SOA is hidden
	b.ReportAllocs()
	for b.Loop() {
		walkAll(b, s, records)
	}
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// BenchmarkChange is one changed RRset, from its loaded instance to what is
// published, in zones of two sizes.
func BenchmarkChange(b *testing.B) {
	for _, names := range []int{1000, benchNames} {
		b.Run(fmt.Sprintf("names %d", names), func(b *testing.B) {
			z := newTLD(names)
			s := openBench(b)
			z.fill(b, s, 1)
			seq, loaded, signed := uint64(4), uint64(1), uint64(2)
			for b.Loop() {
				small := z.change(names, seq)
				facts := []event.Facts{
					&event.InstanceLoaded{Base: loaded, Manifest: small.manifests[0], ContentDigest: small.sums[0], Records: z.records[0]},
					&event.InstanceSigned{
						Base: signed, Loaded: seq, Serial: uint32(seq), Manifest: small.manifests[1], SignedDigest: small.sums[1], Records: z.records[0] + z.records[1],
					},
					&event.InstancePublished{Signed: seq + 1, Loaded: seq},
				}
				for i, f := range facts {
					rec := journal.Record{Seq: seq + uint64(i), Event: event.Event{Zone: benchZone, Facts: f}}
					if err := s.Apply(b.Context(), rec, small.source); err != nil {
						b.Fatal(err)
					}
				}
				loaded, signed = seq, seq+1
				seq += 3
			}
		})
	}
}

// change replaces a DS, its signature and the SOA.
func (z *tld) change(names int, seq uint64) *tld {
	out := &tld{}
	out.manifests[0].Subject, out.manifests[1].Subject = "loaded", "signed"
	apex := zone.Name("\x07example\x00")
	owner := zone.Name(fmt.Sprintf("\x0cname%08d", int(seq*7919)%names/10*10)) + apex
	data := binary.BigEndian.AppendUint64(make([]byte, 100), seq)
	for part, items := range [][]zone.Item{
		{{Key: zone.AppendKey(nil, zone.KindContents, owner, zone.TypeDS), Value: zone.AppendValue(nil, owner, 3600, data)}},
		{
			{Key: zone.AppendKey(nil, zone.KindMade, apex, zone.TypeSOA), Value: zone.AppendValue(nil, apex, 3600, append([]byte{0, 0}, data[88:]...))},
			{Key: zone.AppendKey(nil, zone.KindSigs, owner, zone.TypeDS), Value: zone.AppendValue(nil, owner, 3600, data)},
		},
	} {
		var b zone.ChunkBuilder
		for _, it := range items {
			out.pack(part, &b, it.Key, it.Value)
		}
		out.pack(part, &b, nil, nil)
		h := stateOf(seq + uint64(part))
		out.sums[part] = h.Sum()
		if _, err := b.Add([]byte{byte(zone.KindDigest)}, h.AppendState(nil)); err != nil {
			panic(err)
		}
		out.pack(part, &b, nil, nil)
	}
	return out
}

// BenchmarkPublished is what a query for the SOA costs.
func BenchmarkPublished(b *testing.B) {
	z := newTLD(benchNames)
	s := openBench(b)
	z.fill(b, s, 1)
	b.ReportAllocs()
	for b.Loop() {
		v, err := s.Published(benchZone)
		if err != nil {
			b.Fatal(err)
		}
		if _, soa := v.SOA(); soa == nil {
			b.Fatal("no SOA")
		}
		if err := v.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
