package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluice/signer/zone"
)

// Range is a run of names of a zone that is signed by itself: Split makes them,
// SignRange signs one. It may travel to another process.
type Range struct {
	// From is the owner key of its first name; empty: it begins with the apex.
	From []byte `json:"from,omitempty"`
	// To is the owner key of the first name after it; empty: it ends with the
	// zone.
	To []byte `json:"to,omitempty"`
	// Hidden is the owner key, without its last byte, of the delegation or DNAME
	// that hides From; empty where none does.
	Hidden []byte `json:"hidden,omitempty"`
	// Owners are the names above From that own something, each as the length of
	// its owner key without the last byte.
	Owners []int `json:"owners,omitempty"`
	// Next is the owner key of the first name from To on that is not hidden, or
	// of the apex.
	Next []byte `json:"next"`
	// RRsets is how many RRsets of the contents it has.
	RRsets uint64 `json:"rrsets"`
}

// Frame is what every part of a zone has to know of its apex.
type Frame struct {
	// DenialTTL is the TTL of denial records (RFC 9077, 3).
	DenialTTL uint32 `json:"denial_ttl"`
	// DNSKEY is the DNSKEY RRset of the previous instance, where there is one.
	DNSKEY zone.Value `json:"dnskey,omitempty"`
}

// NewFrame is the frame of a zone with that SOA, on top of an instance with
// that DNSKEY RRset, nil for none.
func NewFrame(soa, dnskey zone.Value) (Frame, error) {
	for rdata := range soa.Records() {
		_, minimum, err := soaFields(rdata)
		return Frame{DenialTTL: min(soa.TTL(), minimum), DNSKEY: bytes.Clone(dnskey)}, err
	}
	return Frame{}, errors.New("no SOA record")
}

// ChainRange is a run of the NSEC3 chain that is signed by itself.
type ChainRange struct {
	// After is the hash that follows its last one in the circle.
	After [HashSize]byte
	// Hashes walks the hashes, ascending; the value is the type bitmap. Nil
	// where there is no chain any more.
	Hashes zone.Iterator
}

// HashSize is how many bytes an NSEC3 hash has.
const HashSize = 20

// Part is what was made of a range.
type Part struct {
	Read uint64 // RRsets of the contents that were read
	// Of what the part holds of the signed zone, as in Result.
	Records, RRsets, Signatures, Made, Reused, Verified uint64
	NewSets, Dropped, DenialChanged                     uint64
	SignedBy                                            map[uint64]int64
	// Earliest is the first expiration among its RRSIGs, in seconds of RFC
	// 4034, 3.1.5, where there are any.
	Earliest uint32
	Any      bool
	// Edges are the names, in wire form, of the empty non-terminals with an
	// NSEC3 record of their own that this range shares with others: the name
	// and its hash.
	Edges map[string][HashSize]byte
	// Change is what the part adds to the signed digest.
	Change *zone.SetHash
}

// part is the run's own view of what it signs.
type part struct {
	Range
	frame Frame
	after *[HashSize]byte
	edges map[string][HashSize]byte
}

var errBeyond = errors.New("contents are not those of the range")

// ErrWhole reports a zone that can only be signed as a whole: its ZONEMD record
// covers all of it.
var ErrWhole = errors.New("it cannot be signed in parts")

func (p *part) atApex() bool { return len(p.From) == 0 && p.after == nil }

// ends reports whether a name lies behind the range. A nil part has no end.
func (p *part) ends(ownerKey []byte) bool {
	return p != nil && len(p.To) > 0 && bytes.Compare(ownerKey, p.To) >= 0
}

// cuts reports whether the names below a prefix lie in several ranges. A nil
// part has no ends.
func (p *part) cuts(prefix []byte) bool {
	return p != nil && (bytes.HasPrefix(p.From, prefix) || bytes.HasPrefix(p.To, prefix))
}

// addEdge takes note of an empty non-terminal of which another range may know
// as well.
func (r *run) addEdge(name []byte) {
	if r.part.edges == nil {
		r.part.edges = map[string][HashSize]byte{}
	}
	var buf []byte
	r.part.edges[string(name)] = nsec3Hash(name, r.params.Salt, r.params.Iterations, &buf)
}

// resume takes up the names above the first one of a range.
func (s *entStack) resume(rng Range, apexLength int) error {
	prefix := rng.From[:len(rng.From)-1]
	if len(prefix) < apexLength {
		return errBeyond
	}
	s.prefix = append(s.prefix[:0], prefix...)
	s.path = append(s.path[:0], ent{end: apexLength - 1, hasHash: true})
	for i := apexLength - 1; i < len(prefix)-1; i++ {
		if prefix[i] == 0 {
			s.path = append(s.path, ent{end: i + 1, hasHash: slices.Contains(rng.Owners, i+1)})
		}
	}
	return nil
}

// SignRange signs the names of a range as Sign would: what it hands to sink and
// to hashes is what Sign makes for them. in.Contents and the iterators of
// in.Previous walk the names of the range alone; Chain and ChainSigs of it are
// not read, no state is. hashes is given the hash and the type bitmap of each
// name that has an NSEC3 record, in no order, but for those in Part.Edges; the
// slices are valid during the call. Keys that sign the zone need their private
// part; those that sign keys need it where the range begins with the apex.
func SignRange(ctx context.Context, rng Range, frame Frame, in Input, keys []Key, p Params, sink Sink, hashes func(hash, bitmap []byte) error) (*Part, error) {
	of := &part{Range: rng, frame: frame}
	r, err := partRun(in, keys, p, of)
	if err == nil {
		r.sink = sink
		err = r.pipeline(ctx,
			func(f *feed) error { return r.contentsPass(f, in) },
			func(b *batch) error {
				for i := range b.entries {
					e := &b.entries[i]
					if err := hashes(e.hash[:], b.bytes(e.bitmap)); err != nil {
						return err
					}
				}
				return r.collect(b)
			})
	}
	if err == nil && r.read != rng.RRsets {
		err = errBeyond
	}
	if err != nil {
		return nil, fmt.Errorf("sign a range of %v: %w", p.Apex, err)
	}
	return r.made(), nil
}

// SignChain signs a run of the NSEC3 chain as Sign would. Of in only Chain and
// ChainSigs of Previous are read: they walk the records of the run alone. Keys
// are as for SignRange.
func SignChain(ctx context.Context, rng ChainRange, frame Frame, in Input, keys []Key, p Params, sink Sink) (*Part, error) {
	of := &part{frame: frame, after: &rng.After}
	in.Contents = zone.Slice()
	if in.Previous != nil {
		previous := *in.Previous
		previous.Contents, previous.Made, previous.Sigs = in.Contents, in.Contents, in.Contents
		in.Previous = &previous
	}
	r, err := partRun(in, keys, p, of)
	if err == nil {
		r.sink = sink
		r.trustKeys(frame.DNSKEY)
		err = r.pipeline(ctx, func(f *feed) error { return r.chainPass(f, in, rng.Hashes) }, r.collect)
	}
	if err != nil {
		return nil, fmt.Errorf("sign a part of the chain of %v: %w", p.Apex, err)
	}
	return r.made(), nil
}

// partRun makes the run of a part.
func partRun(in Input, keys []Key, p Params, of *part) (*run, error) {
	if p.ZONEMD {
		return nil, ErrWhole
	}
	none := new(zone.SetHash)
	in.ContentState = none
	if in.Previous != nil {
		previous := *in.Previous
		previous.SignedState = none
		for _, it := range []*zone.Iterator{&previous.Contents, &previous.Made, &previous.Sigs, &previous.Chain, &previous.ChainSigs} {
			if *it == nil {
				*it = zone.Slice()
			}
		}
		in.Previous = &previous
	}
	in.Spill = noSpill{}
	return newPartRun(in, keys, p, of)
}

// noSpill is for a run that sorts nothing.
type noSpill struct{}

// Create implements zone.Spill.
func (noSpill) Create() (zone.SpillFile, error) { return nil, errors.New("no spill") }

// made is what the run has made.
func (r *run) made() *Part {
	total := r.counts
	for _, w := range r.workers {
		total.merge(w.counts)
	}
	p := &Part{
		Read: r.read, Records: total.records, RRsets: total.rrsets, Signatures: total.signatures,
		Made: total.made, Reused: total.reused, Verified: total.verified,
		NewSets: total.newSets, Dropped: total.dropped, DenialChanged: total.denial,
		Earliest: total.earliest, Any: total.any,
	}
	if r.part != nil {
		p.Edges = r.part.edges
	}
	if r.countable && !total.by.unknown {
		if p.SignedBy = total.by.counts; p.SignedBy == nil {
			p.SignedBy = map[uint64]int64{}
		}
	}
	if r.params.NoDigest {
		return p
	}
	p.Change = new(zone.SetHash)
	p.Change.AddSet(&r.hasher.Set)
	for _, w := range r.workers {
		p.Change.AddSet(&w.hasher.Set)
	}
	return p
}

// Join makes the result of a zone of all its parts. contents is the state of its
// content digest; former is that of the signed digest of the previous instance,
// nil where there is none.
func Join(p Params, contents, former *zone.SetHash, parts ...*Part) *Result {
	res := &Result{Denial: p.Denial, SignedBy: map[uint64]int64{}}
	var total counts
	for _, part := range parts {
		total.merge(counts{
			records: part.Records, rrsets: part.RRsets, signatures: part.Signatures, made: part.Made,
			reused: part.Reused, verified: part.Verified, earliest: part.Earliest, any: part.Any,
			newSets: part.NewSets, dropped: part.Dropped, denial: part.DenialChanged,
		})
		if part.SignedBy == nil {
			res.SignedBy = nil
		}
		if res.SignedBy != nil {
			for mask, n := range part.SignedBy {
				res.SignedBy[mask] += n
			}
		}
	}
	maps.DeleteFunc(res.SignedBy, func(_ uint64, n int64) bool { return n == 0 })
	res.Records, res.RRsets, res.Signatures = total.records, total.rrsets, total.signatures
	res.Made, res.Reused, res.Verified = total.made, total.reused, total.verified
	res.NewSets, res.Dropped, res.DenialChanged = total.newSets, total.dropped, total.denial
	res.Earliest = near(total.earliest, p.Inception)
	if p.NoDigest {
		return res
	}
	state := new(zone.SetHash)
	state.AddSet(contents)
	if former != nil {
		state = new(zone.SetHash)
		state.AddSet(former)
	}
	for _, part := range parts {
		state.AddSet(part.Change)
	}
	res.ContentSum, res.SignedSum, res.SignedState = contents.Sum(), state.Sum(), state
	return res
}

// ChainOwnerKey is the owner key of the NSEC3 record with that hash.
func ChainOwnerKey(apex zone.Name, hash [HashSize]byte) []byte {
	key := zone.AppendOwnerPrefix(nil, apex)
	return append(nsec3Encoding().AppendEncode(key, hash[:]), 0, 0)
}
