package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"sluice/signer/zone"
)

// Bounds of what Sign keeps in memory for sorting.
const (
	nsec3Memory  = 32 << 20
	zonemdMemory = 32 << 20
)

// verifiedAlways is how many new signatures of a run are all checked.
const verifiedAlways = 1000

// partVerified is the same for the parts of a zone but the first.
const partVerified = 16

// SampleEvery is which of the signatures above the first 1,000 a sample
// checks.
const SampleEvery = 64

// Result says what one run made.
type Result struct {
	Records    uint64 // of the whole signed zone, RRSIG and NSEC3 with them
	RRsets     uint64 // of the whole signed zone, RRSIGs not counted
	Signatures uint64 // RRSIG records of the whole signed zone
	Made       uint64 // of these, new ones
	Reused     uint64 // of these, taken over from the previous instance
	Verified   uint64 // new ones that were checked
	// Against the previous instance: NewSets is how many RRsets have a new
	// signature, Dropped how many RRSIG records of it are not taken over, and
	// DenialChanged how many NSEC or NSEC3 records came, went or are others.
	// Without one nothing is dropped, and all denial records came.
	NewSets, Dropped, DenialChanged uint64
	// Earliest is the first expiration among all RRSIGs.
	Earliest    time.Time
	ContentSum  [32]byte // content digest of the contents
	SignedSum   [32]byte // signed digest of the instance
	SignedState *zone.SetHash
	Denial      Denial
	Delta       Delta // set by Update
	// SignedBy counts RRsets by the keys whose signatures they have, a bit for
	// each of the keys given, the lowest for the first: those of the whole zone,
	// and by how many they became more or less where Update made them. DNSKEY,
	// CDS and CDNSKEY at the apex are not among them. It is nil where keys
	// cannot be told apart.
	SignedBy map[uint64]int64
}

// run is one call of Sign.
type run struct {
	params    Params
	given     []Key
	keys      []*signingKey
	forKeys   []int         // indices of the keys that sign DNSKEY, CDS and CDNSKEY
	forZone   []int         // and of those that sign all else
	former    []*signingKey // keys given that do not sign all else
	named     []givenKey    // all keys given
	countable bool          // these can be told apart
	updates   bool          // called by Update
	part      *part         // nil where the whole zone is signed
	// algorithms is those of the DNSKEY RRset.
	algorithms []uint8
	apex       zone.Name
	apexKey    []byte
	inception  uint32
	expires    uint32
	refresh    uint32
	jitter     uint64 // seconds
	// expiresUnix is expires without the wrap of RFC 4034, 3.1.5.
	expiresUnix uint64
	full        bool   // no previous instance
	denialTTL   uint32 // set when the apex is read
	soaTTL      uint32
	workers     []*worker
	batches     []*batch
	signatures  atomic.Uint64 // new ones so far
	always      uint64        // how many of them are all checked
	every       uint64        // which of the others are
	hasher      zone.Hasher   // of the producer
	counts      counts        // of the producer
	read        uint64        // RRsets of the contents

	sink       Sink
	held       heldUnit
	zonemdMu   sync.Mutex
	zonemdSort *zone.Sorter // guarded by zonemdMu while a pipeline runs
	zonemdKey  []byte       // likewise
}

// Sign signs a zone: it makes SOA, DNSKEY, CDS, CDNSKEY, NSEC3PARAM, ZONEMD,
// the denial chain and all RRSIGs, and hands them to sink, last of all the
// KindDigest item with the state of the signed digest. Without a previous
// instance the items are complete; with one they are a diff to it, in which
// an RRset whose value, keys and times still fit keeps its RRSIGs. The items
// do not depend on Params.Workers. Sign reads the iterators to their end, or
// up to its first error, and closes none. After an error what the sink holds
// is worthless.
func Sign(ctx context.Context, in Input, keys []Key, p Params, sink Sink) (*Result, error) {
	r, err := newRun(in, keys, p)
	if err != nil {
		return nil, fmt.Errorf("sign %v: %w", p.Apex, err)
	}
	res, err := r.sign(ctx, in, sink)
	if err != nil {
		return nil, fmt.Errorf("sign %v: %w", p.Apex, err)
	}
	return res, nil
}

func newRun(in Input, keys []Key, p Params) (*run, error) { return newPartRun(in, keys, p, nil) }

func newPartRun(in Input, keys []Key, p Params, of *part) (*run, error) {
	if in.Contents == nil || in.ContentState == nil && !p.NoDigest {
		return nil, errors.New("no contents")
	}
	if p.NoDigest && in.Previous != nil {
		return nil, errors.New("a previous instance without the digest")
	}
	if p := in.Previous; p != nil {
		if p.SignedState == nil {
			return nil, errors.New("previous instance without its signed state")
		}
		for _, it := range []zone.Iterator{p.Contents, p.Made, p.Sigs, p.Chain, p.ChainSigs} {
			if it == nil {
				return nil, errors.New("previous instance without one of its iterators")
			}
		}
	}
	if err := p.check(in); err != nil {
		return nil, err
	}
	r := &run{
		params:      p,
		given:       keys,
		apex:        p.Apex.Fold(),
		apexKey:     zone.AppendOwnerKey(nil, p.Apex),
		inception:   uint32(p.Inception.Unix()),
		expires:     uint32(p.Expiration.Unix()),
		refresh:     uint32(p.Refresh.Unix()),
		jitter:      uint64(p.Jitter / time.Second),
		expiresUnix: uint64(p.Expiration.Unix()),
		full:        in.Previous == nil,
		always:      verifiedAlways,
		every:       SampleEvery,
		part:        of,
	}
	if of != nil {
		r.denialTTL = of.frame.DenialTTL
		if !of.atApex() {
			r.always = partVerified
		}
	}
	if p.VerifyAll {
		r.every = 1
	}
	if err := r.prepareKeys(keys); err != nil {
		return nil, err
	}
	n := p.Workers
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	for range n {
		r.workers = append(r.workers, newWorker(r))
	}
	return r, nil
}

// check finds parameters that make no zone.
func (p *Params) check(in Input) error {
	if _, err := zone.NameFromWire([]byte(p.Apex)); err != nil {
		return fmt.Errorf("apex: %w", err)
	}
	switch p.Denial {
	case NSEC:
	case NSEC3, NSEC3OptOut:
		if len(p.Salt) > 255 {
			return fmt.Errorf("NSEC3 salt of %d bytes, at most 255 fit", len(p.Salt))
		}
		if len(p.Apex)+1+nsec3Hashed > zone.MaxNameLength {
			return errors.New("apex too long for NSEC3")
		}
		if in.Spill == nil {
			return errors.New("NSEC3 needs a spill")
		}
	default:
		return fmt.Errorf("unknown denial type %q", p.Denial)
	}
	if !p.Inception.Before(p.Expiration) {
		return errors.New("expiration is not after inception")
	}
	if p.Expiration.Sub(p.Inception) >= 1<<31*time.Second {
		return errors.New("more than 68 years from inception to expiration")
	}
	if p.Jitter < 0 || !p.Inception.Add(p.Jitter).Before(p.Expiration) ||
		!p.Refresh.IsZero() && p.Expiration.Add(-p.Jitter).Before(p.Refresh) {
		return errors.New("jitter leaves no validity")
	}
	return nil
}

// prepareKeys sorts the keys by what they sign and demands that each
// algorithm in the DNSKEY RRset signs every RRset (RFC 4035, 2.2).
func (r *run) prepareKeys(keys []Key) error {
	var published, signsKeys, signsZone [256]bool
	for i, k := range keys {
		if len(k.DNSKEY) < 5 {
			return fmt.Errorf("key %d: DNSKEY RDATA too short", i)
		}
		for _, o := range keys[:i] {
			if bytes.Equal(k.DNSKEY, o.DNSKEY) {
				return fmt.Errorf("key %d of algorithm %d is given twice", zone.KeyTag(k.DNSKEY), k.DNSKEY[3])
			}
		}
		alg := k.DNSKEY[3]
		published[alg] = published[alg] || k.Published
		if !k.SignsKeys && !k.SignsZone {
			continue
		}
		if k.Signer == nil && (k.SignsZone || r.part == nil || r.part.atApex()) {
			return fmt.Errorf("key %d of algorithm %d has to sign and has no private key", zone.KeyTag(k.DNSKEY), alg)
		}
		sk, err := newSigningKey(k)
		if err != nil {
			return fmt.Errorf("key %d: %w", zone.KeyTag(k.DNSKEY), err)
		}
		r.keys = append(r.keys, sk)
		if k.SignsKeys {
			r.forKeys, signsKeys[alg] = append(r.forKeys, len(r.keys)-1), true
		}
		if k.SignsZone {
			r.forZone, signsZone[alg] = append(r.forZone, len(r.keys)-1), true
		}
	}
	none := true
	for alg, p := range published {
		if !p {
			continue
		}
		none = false
		r.algorithms = append(r.algorithms, uint8(alg)) //nolint:gosec // an index of 256
		if !signsKeys[alg] {
			return fmt.Errorf("no key of algorithm %d signs the DNSKEY RRset, yet one is published", alg)
		}
		if !signsZone[alg] {
			return fmt.Errorf("no key of algorithm %d signs the zone, yet one is published", alg)
		}
	}
	if none {
		return errors.New("no key is published")
	}
	r.noteGiven(keys)
	return nil
}

// signers gives the keys that sign an RRset.
func (r *run) signers(apexKeys bool) []int {
	if apexKeys {
		return r.forKeys
	}
	return r.forZone
}

// expiration is when the signatures of an RRset end: at the RRset's place in
// one of the windows, the last one that Expiration allows.
func (r *run) expiration(key []byte) uint32 {
	if r.jitter == 0 {
		return r.expires
	}
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range key[1:] {
		h = (h ^ uint64(c)) * 1099511628211
	}
	// The lowest bits of FNV follow the lowest bits of the input alone.
	h ^= h >> 32
	h *= 0x9e3779b97f4a7c15
	place, end := (h>>32)%r.jitter, r.expiresUnix%r.jitter
	return r.expires - uint32((end+r.jitter-place)%r.jitter) //nolint:gosec // below 2^31
}

// wantsCheck counts a new signature and says whether it is to be checked.
func (r *run) wantsCheck() bool {
	n := r.signatures.Add(1)
	return n <= r.always || n%r.every == 0
}

// isApexSOA reports whether key is that of the zone's SOA.
func (r *run) isApexSOA(key []byte) bool {
	return len(key) == 1+len(r.apexKey)+2 && key[len(key)-2] == 0 && key[len(key)-1] == byte(zone.TypeSOA) &&
		string(key[1:len(key)-2]) == string(r.apexKey)
}

func (r *run) sign(ctx context.Context, in Input, sink Sink) (res *Result, err error) {
	r.sink = sink
	var wait *delayed
	if r.params.ZONEMD {
		if wait, err = newDelayed(in.Spill); err != nil {
			return nil, err
		}
		r.zonemdSort = zone.NewSorter(in.Spill, zonemdMemory)
		r.sink = wait
		defer func() { err = errors.Join(err, r.zonemdSort.Close(), wait.close()) }()
	}
	if err := r.chains(ctx, in); err != nil {
		return nil, err
	}
	if wait != nil {
		items, err := r.signZONEMD()
		if err != nil {
			return nil, err
		}
		if err := wait.replay(sink, items); err != nil {
			return nil, err
		}
	}
	return r.result(in, sink)
}

// chains runs the two passes: contents with NSEC, then the NSEC3 chain.
func (r *run) chains(ctx context.Context, in Input) (err error) {
	var sorter *zone.Sorter
	if r.params.Denial != NSEC {
		sorter = zone.NewSorter(in.Spill, nsec3Memory)
		defer func() { err = errors.Join(err, sorter.Close()) }()
	}
	err = r.pipeline(ctx,
		func(f *feed) error { return r.contentsPass(f, in) },
		func(b *batch) error {
			for i := range b.entries {
				e := &b.entries[i]
				if err := sorter.Add(e.hash[:], b.bytes(e.bitmap)); err != nil {
					return fmt.Errorf("sort NSEC3 hashes: %w", err)
				}
			}
			return r.collect(b)
		})
	if err != nil {
		return err
	}
	var sorted zone.Iterator
	if sorter != nil {
		if sorted, err = sorter.Sort(); err != nil {
			return fmt.Errorf("sort NSEC3 hashes: %w", err)
		}
		defer func() { err = errors.Join(err, sorted.Close()) }()
	}
	return r.pipeline(ctx, func(f *feed) error { return r.chainPass(f, in, sorted) }, r.collect)
}

// collect hands a batch's items on.
func (r *run) collect(b *batch) error {
	for _, o := range b.outputs {
		key, value := b.out[o.key.from:o.key.to], b.out[o.value.from:o.value.to]
		if len(value) > 0 {
			if err := r.digestForZONEMD(key, value); err != nil {
				return err
			}
		}
		if !o.changed {
			continue
		}
		if err := r.sink.Put(key, value); err != nil {
			return err
		}
	}
	return nil
}

// signZONEMD makes the ZONEMD RRset and its RRSIGs.
func (r *run) signZONEMD() ([]zone.Item, error) {
	value, err := r.zonemdValue()
	if err != nil {
		return nil, err
	}
	b := r.held.batch(value)
	if err := r.workers[0].process(b); err != nil {
		return nil, err
	}
	var items []zone.Item
	for _, o := range b.outputs {
		if o.changed {
			items = append(items, zone.Item{Key: b.out[o.key.from:o.key.to], Value: b.out[o.value.from:o.value.to]})
		}
	}
	return items, nil
}

// result joins what the goroutines counted and puts the digest.
func (r *run) result(in Input, sink Sink) (*Result, error) {
	former := (*zone.SetHash)(nil)
	if !r.full {
		former = in.Previous.SignedState
	}
	res := Join(r.params, in.ContentState, former, r.made())
	if r.params.NoDigest {
		return res, nil
	}
	if err := sink.Put([]byte{byte(zone.KindDigest)}, res.SignedState.AppendState(nil)); err != nil {
		return nil, err
	}
	return res, nil
}
