package signer

import (
	"crypto"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"testing"

	"sluice/signer/zone"
)

// constantKey signs without cryptography, to show what the rest costs.
type constantKey struct{ crypto.Signer }

func (constantKey) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return []byte{0x30, 6, 2, 1, 1, 2, 1, 1}, nil
}

func (constantKey) SignBatch(dst, digests []byte) ([]byte, error) {
	return append(dst, make([]byte, 2*len(digests))...), nil
}

// delegations makes a zone as a TLD has it: n delegations, three of five with
// DS, each with two or three name servers.
func delegations(b testing.TB, n int) ([]zone.Item, *zone.SetHash) {
	b.Helper()
	m := memZone{}
	apex := mustName(b, "tld.")
	soa := append([]byte("\x02ns\x03tld\x00\x04root\x03tld\x00"), make([]byte, 20)...)
	binary.BigEndian.PutUint32(soa[len(soa)-4:], 3600)
	m.set(zone.KindContents, apex, zone.TypeSOA, 3600, soa)
	m.set(zone.KindContents, apex, zone.TypeNS, 3600, []byte("\x02ns\x03tld\x00"))
	ds := make([]byte, 36)
	for i := range n {
		h := fnv.New64a()
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(i)))
		sum := h.Sum64()
		owner := mustName(b, fmt.Sprintf("d%08x%d.tld.", uint32(sum), i))
		servers := make([][]byte, 2+i&1)
		for j := range servers {
			servers[j] = []byte(mustName(b, fmt.Sprintf("ns%d.provider%d.tld.", j+1, sum%1000)))
		}
		m.set(zone.KindContents, owner, zone.TypeNS, 3600, servers...)
		if i%5 < 3 {
			copy(ds, []byte{byte(i), byte(i >> 8), 13, 2})
			binary.BigEndian.PutUint64(ds[4:], sum)
			m.set(zone.KindContents, owner, zone.TypeDS, 3600, slices.Clone(ds))
		}
	}
	var items []zone.Item
	for _, key := range m.keys() {
		items = append(items, zone.Item{Key: []byte(key), Value: m[key]})
	}
	return items, m.contentState(b)
}

// countSink counts items.
type countSink struct{ items, bytes int }

func (s *countSink) Put(key, value []byte) error {
	s.items++
	s.bytes += len(key) + len(value)
	return nil
}

func benchmarkSign(b *testing.B, items []zone.Item, state *zone.SetHash, denial Denial, constant bool) {
	keys := testKeys(b, algP256)
	p := testParams("tld.", denial)
	p.VerifyAll = false
	p.Apex = mustName(b, "tld.")
	if constant {
		for i := range keys {
			keys[i].Signer = constantKey{keys[i].Signer}
		}
	}
	b.ReportAllocs()
	var signatures uint64
	for b.Loop() {
		r, err := newRun(Input{Contents: zone.Slice(items...), ContentState: state, Spill: memSpill{}}, keys, p)
		if err != nil {
			b.Fatal(err)
		}
		if constant {
			r.always, r.every = 0, 1<<40
		}
		res, err := r.sign(b.Context(), Input{Contents: zone.Slice(items...), ContentState: state, Spill: memSpill{}}, &countSink{})
		if err != nil {
			b.Fatal(err)
		}
		signatures += res.Made
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(signatures), "ns/sig")
}

func BenchmarkSignFull(b *testing.B) {
	var once sync.Once
	var items []zone.Item
	var state *zone.SetHash
	for _, denial := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		for _, constant := range []bool{false, true} {
			name := fmt.Sprintf("%s-100k", denial)
			if constant {
				name += "-constant-key"
			}
			b.Run(name, func(b *testing.B) {
				once.Do(func() { items, state = delegations(b, 100_000) })
				benchmarkSign(b, items, state, denial, constant)
			})
		}
	}
}

// BenchmarkVerify shows what the checks cost beside the signatures.
func BenchmarkVerify(b *testing.B) {
	for _, denial := range []Denial{NSEC, NSEC3OptOut} {
		b.Run(string(denial)+"-100k-sample", func(b *testing.B) {
			items, state := delegations(b, 100_000)
			signed := memZone{}
			for _, it := range items {
				signed[string(it.Key)] = it.Value
			}
			p := testParams("tld.", denial)
			p.VerifyAll = false
			res, err := Sign(b.Context(), Input{Contents: zone.Slice(items...), ContentState: state, Spill: memSpill{}}, testKeys(b, algP256), p, signed)
			if err != nil {
				b.Fatal(err)
			}
			var all []zone.Item
			for it := signed.merged(); it.Next(); {
				all = append(all, zone.Item{Key: slices.Clone(it.Key()), Value: slices.Clone(it.Value())})
			}
			b.ReportAllocs()
			for b.Loop() {
				o := VerifyOptions{Apex: p.Apex, At: testTime(), Every: 512, Spill: memSpill{}, ContentSum: &res.ContentSum}
				r, err := Verify(b.Context(), zone.Slice(all...), o)
				if err != nil || !r.OK() {
					b.Fatal(err, r.Err())
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(res.Records), "ns/record")
		})
	}
}

// BenchmarkSignOnPrevious shows what an unchanged zone costs.
func BenchmarkSignOnPrevious(b *testing.B) {
	for _, denial := range []Denial{NSEC, NSEC3OptOut} {
		b.Run(string(denial)+"-100k", func(b *testing.B) {
			items, state := delegations(b, 100_000)
			keys := testKeys(b, algP256)
			p := testParams("tld.", denial)
			p.VerifyAll = false
			signed := memZone{}
			first, err := Sign(b.Context(), Input{Contents: zone.Slice(items...), ContentState: state, Spill: memSpill{}}, keys, p, signed)
			if err != nil {
				b.Fatal(err)
			}
			kinds := map[zone.Kind][]zone.Item{}
			for _, k := range signed.keys() {
				kinds[zone.Kind(k[0])] = append(kinds[zone.Kind(k[0])], zone.Item{Key: []byte(k), Value: signed[k]})
			}
			p.Serial++
			b.ReportAllocs()
			for b.Loop() {
				res, err := Sign(b.Context(), Input{
					Contents: zone.Slice(items...), ContentState: state, Spill: memSpill{},
					Previous: &Previous{
						Contents: zone.Slice(items...), Made: zone.Slice(kinds[zone.KindMade]...),
						Sigs: zone.Slice(kinds[zone.KindSigs]...), Chain: zone.Slice(kinds[zone.KindChain]...),
						ChainSigs: zone.Slice(kinds[zone.KindChainSigs]...), SignedState: first.SignedState,
					},
				}, keys, p, &countSink{})
				if err != nil || res.Made != 1 {
					b.Fatal(err, res)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(first.Signatures), "ns/sig")
		})
	}
}
