package signer

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"sluice/signer/zone"
)

// worker turns the units of a batch into items. Each belongs to one goroutine
// at a time.
type worker struct {
	run    *run
	hasher zone.Hasher // what this worker added to and took from the signed digest
	counts counts
	keys   []keyWork // beside run.keys
	tbs    []byte    // what the present unit's signatures cover
	sets   []sigSet  // the RRSIG set of each unit
	refs   []sigRef  // the RRSIGs of all units, in the order of the units
	heads  []byte    // RRSIG RDATA without signatures
	rdata  [][]byte
	buf    []byte
	value  []byte
}

// counts is what a worker did.
type counts struct {
	records, rrsets, signatures, made, reused, verified uint64
	newSets, dropped, denial                            uint64
	earliest                                            uint32
	any                                                 bool
	delta                                               Delta
	by                                                  byKeys
}

// keyWork is what one key has to sign in this batch.
type keyWork struct {
	signed []byte
	ends   []int
	sigs   []byte
	units  []int32 // for errors
}

// sigSet says which refs and which head belong to a unit.
type sigSet struct {
	refs       span
	head       span
	ttl        uint32
	expiration uint32
}

// sigRef is one RRSIG: signature number job of a key, or one taken over.
type sigRef struct {
	key   int
	job   int
	taken []byte // RDATA in the batch; nil: a new one
	bit   uint64 // of the key
}

func newWorker(r *run) *worker { return &worker{run: r, keys: make([]keyWork, len(r.keys))} }

func (w *worker) process(b *batch) error {
	w.hashNames(b)
	w.prepare(b)
	for i := range w.keys {
		k := &w.keys[i]
		if len(k.ends) == 0 {
			continue
		}
		var err error
		if k.sigs, err = w.run.keys[i].appendSignatures(k.sigs[:0], k.signed, k.ends); err != nil {
			return fmt.Errorf("%v and others: %w", b.units[k.units[0]].describe(b), err)
		}
		if err := w.verify(b, i); err != nil {
			return err
		}
	}
	return w.finish(b)
}

// describe names a unit in errors.
func (u *unit) describe(b *batch) string {
	return zone.Name(b.bytes(u.owner)).String() + " " + u.typ.String()
}

// hashNames makes the NSEC3 hashes of the batch's names (RFC 5155, 5).
func (w *worker) hashNames(b *batch) {
	p := w.run.params
	for i := range b.entries {
		e := &b.entries[i]
		e.hash = nsec3Hash(b.bytes(e.name), p.Salt, p.Iterations, &w.buf)
	}
}

// nsec3Hash is the hash of a name in wire form and lower case.
func nsec3Hash(name, salt []byte, iterations uint16, buf *[]byte) [20]byte {
	*buf = append(append((*buf)[:0], name...), salt...)
	sum := sha1.Sum(*buf)
	for range iterations {
		*buf = append(append((*buf)[:0], sum[:]...), salt...)
		sum = sha1.Sum(*buf)
	}
	return sum
}

// prepare finds out which signatures can be taken over and makes what has to
// be signed for the others.
func (w *worker) prepare(b *batch) {
	w.sets, w.refs, w.heads = w.sets[:0], w.refs[:0], w.heads[:0]
	for i := range w.keys {
		k := &w.keys[i]
		k.signed, k.ends, k.units = k.signed[:0], k.ends[:0], k.units[:0]
	}
	for i := range b.units {
		u := &b.units[i]
		if u.delete {
			w.sets = append(w.sets, sigSet{})
			continue
		}
		w.prepareUnit(b, i, u)
	}
}

func (w *worker) prepareUnit(b *batch, i int, u *unit) {
	r := w.run
	owner, value := b.bytes(u.owner), zone.Value(b.bytes(u.value))
	set := sigSet{ttl: value.TTL(), expiration: r.expiration(b.bytes(u.key))}
	set.head.from = len(w.heads)
	w.heads = appendSigPrefix(w.heads, u.typ, sigLabelCount(owner), set.ttl, set.expiration, r.inception, r.apex)
	set.head.to = len(w.heads)
	head := w.heads[set.head.from:set.head.to]

	w.tbs = append(w.tbs[:0], head...)
	set.refs.from = len(w.refs)
	reuse := u.same && !u.fresh && !u.sigs.empty()
	if reuse && r.params.Spread != nil && !r.updates && !u.apexKeys && w.keep(b, u, head) {
		set.refs.to = len(w.refs)
		w.sets = append(w.sets, set)
		return
	}
	for _, ki := range r.signers(u.apexKeys) {
		k := r.keys[ki]
		if reuse {
			if old := w.reusable(b, u, k, head); old != nil {
				w.refs = append(w.refs, sigRef{taken: old, bit: k.bit})
				continue
			}
		}
		if len(w.tbs) == len(head) {
			w.tbs = appendSignedRRs(w.tbs, owner, u.typ, set.ttl, value)
		}
		setSigKey(w.tbs, k.alg, k.tag)
		kw := &w.keys[ki]
		w.refs = append(w.refs, sigRef{key: ki, job: len(kw.ends), bit: k.bit})
		kw.signed = k.appendToSign(kw.signed, w.tbs)
		kw.ends = append(kw.ends, len(kw.signed))
		kw.units = append(kw.units, int32(i))
	}
	set.refs.to = len(w.refs)
	w.sets = append(w.sets, set)
}

// reusable finds the previous RRSIG by k that still fits, or nil.
func (w *worker) reusable(b *batch, u *unit, k *signingKey, head []byte) []byte {
	r := w.run
	for old := range zone.Value(b.bytes(u.sigs)).Records() {
		if len(old) != len(head)+k.sigSize || old[sigAlgorithm] != k.alg ||
			binary.BigEndian.Uint16(old[sigTag:]) != k.tag ||
			!bytes.Equal(old[:sigAlgorithm], head[:sigAlgorithm]) ||
			!bytes.Equal(old[sigLabels:sigExpiration], head[sigLabels:sigExpiration]) ||
			!bytes.Equal(old[sigName:len(head)], head[sigName:]) {
			continue
		}
		expiration := binary.BigEndian.Uint32(old[sigExpiration:])
		inception := binary.BigEndian.Uint32(old[sigInception:])
		if serialTimeBefore(expiration, r.refresh) || serialTimeBefore(r.inception, inception) {
			continue
		}
		if !k.trusted {
			w.buf = append(w.buf[:0], old[:len(head)]...)
			w.buf = appendSignedRRs(w.buf, b.bytes(u.owner), u.typ, zone.Value(b.bytes(u.value)).TTL(), b.bytes(u.value))
			w.value = k.appendSigned(w.value[:0], w.buf)
			if k.check(w.value, old[len(head):]) != nil {
				continue
			}
		}
		return old
	}
	return nil
}

// verify checks the new signatures of one key.
func (w *worker) verify(b *batch, ki int) error {
	kw, k := &w.keys[ki], w.run.keys[ki]
	start := 0
	for i, end := range kw.ends {
		if w.run.wantsCheck() {
			w.counts.verified++
			if err := k.checkSigned(kw.signed[start:end], kw.sigs[i*k.sigSize:(i+1)*k.sigSize]); err != nil {
				return fmt.Errorf("%v: new signature by %v: %w", b.units[kw.units[i]].describe(b), k, err)
			}
		}
		start = end
	}
	return nil
}

// finish writes the batch's items in the order of its units.
func (w *worker) finish(b *batch) error {
	for i := range b.units {
		u := &b.units[i]
		if u.delete {
			if err := w.remove(b, u.kind, u.key, u.before); err != nil {
				return err
			}
			switch {
			case u.kind == zone.KindSigs || u.kind == zone.KindChainSigs:
				w.counts.dropped += uint64(zone.Value(b.bytes(u.before)).Count())
				w.uncount(b.bytes(u.before), w.run.isApexKeys(b.bytes(u.key)))
			case isDenial(u.kind, typeOfKey(b.bytes(u.key))):
				w.counts.denial++
			}
			b.put(u.kind, u.key, nil, true)
			continue
		}
		if err := w.finishUnit(b, u, &w.sets[i]); err != nil {
			return err
		}
	}
	return nil
}

func (w *worker) finishUnit(b *batch, u *unit, set *sigSet) error {
	value := b.bytes(u.value)
	w.counts.rrsets++
	sigKind := zone.KindSigs
	if u.kind == zone.KindChain {
		sigKind = zone.KindChainSigs
	}
	if u.kind != zone.KindContents {
		w.counts.records += uint64(zone.Value(value).Count())
		changed := !u.existed || !u.same
		o := b.put(u.kind, u.key, value, changed)
		if changed {
			if isDenial(u.kind, u.typ) {
				w.counts.denial++
			}
			if u.existed {
				if err := w.remove(b, u.kind, u.key, u.before); err != nil {
					return err
				}
			}
			if err := w.add(b, o); err != nil {
				return err
			}
		}
	}
	made, reused := w.counts.made, w.counts.reused
	w.value = w.appendSigs(w.value[:0], set)
	if w.counts.made > made {
		w.counts.newSets++
	}
	if !u.sigs.empty() {
		w.counts.dropped += uint64(zone.Value(b.bytes(u.sigs)).Count()) - (w.counts.reused - reused)
	}
	w.count(set, u.apexKeys)
	w.uncount(b.bytes(u.sigs), u.apexKeys)
	changed := !bytes.Equal(w.value, b.bytes(u.sigs))
	o := b.put(sigKind, u.key, w.value, changed)
	if !changed {
		return nil
	}
	if !u.sigs.empty() {
		if err := w.remove(b, sigKind, u.key, u.sigs); err != nil {
			return err
		}
	}
	return w.add(b, o)
}

// isDenial reports whether items of a kind and type are denial records.
func isDenial(kind zone.Kind, t zone.Type) bool {
	return kind == zone.KindChain || kind == zone.KindMade && t == zone.TypeNSEC
}

// typeOfKey is the type at the end of a key.
func typeOfKey(key []byte) zone.Type {
	return zone.Type(key[len(key)-2])<<8 | zone.Type(key[len(key)-1])
}

// count counts an RRset by the keys that sign it.
func (w *worker) count(set *sigSet, apexKeys bool) {
	if apexKeys {
		return
	}
	mask := uint64(0)
	for _, ref := range w.refs[set.refs.from:set.refs.to] {
		mask |= ref.bit
	}
	w.counts.by.add(mask, 1)
}

// uncount takes out an RRset with the signatures that it had, where only the
// difference is counted.
func (w *worker) uncount(sigs zone.Value, apexKeys bool) {
	if !w.run.updates || apexKeys || len(sigs) == 0 {
		return
	}
	mask, known := w.run.maskOf(sigs)
	w.counts.by.unknown = w.counts.by.unknown || !known
	w.counts.by.add(mask, -1)
}

// appendSigs appends the value of a unit's RRSIG set.
func (w *worker) appendSigs(dst []byte, set *sigSet) []byte {
	refs := w.refs[set.refs.from:set.refs.to]
	w.rdata, w.buf = w.rdata[:0], w.buf[:0]
	for _, ref := range refs {
		w.counts.signatures++
		if ref.taken != nil {
			w.counts.reused++
			w.note(binary.BigEndian.Uint32(ref.taken[sigExpiration:]))
			w.rdata = append(w.rdata, ref.taken)
			continue
		}
		w.counts.made++
		w.note(set.expiration)
		k := w.run.keys[ref.key]
		from := len(w.buf)
		w.buf = append(w.buf, w.heads[set.head.from:set.head.to]...)
		setSigKey(w.buf[from:], k.alg, k.tag)
		w.buf = append(w.buf, w.keys[ref.key].sigs[ref.job*k.sigSize:(ref.job+1)*k.sigSize]...)
		w.rdata = append(w.rdata, w.buf[from:len(w.buf):len(w.buf)])
	}
	w.counts.records += uint64(len(refs))
	if len(w.rdata) > 1 {
		slices.SortFunc(w.rdata, bytes.Compare)
	}
	dst = zone.AppendValueHeader(dst, zone.Root, set.ttl)
	for _, d := range w.rdata {
		dst = zone.AppendRData(dst, d)
	}
	return dst
}

// note keeps the earliest expiration.
func (w *worker) note(expiration uint32) {
	if !w.counts.any || serialTimeBefore(expiration, w.counts.earliest) {
		w.counts.earliest, w.counts.any = expiration, true
	}
}

// put appends an output.
func (b *batch) put(kind zone.Kind, key span, value []byte, changed bool) output {
	o := output{changed: changed}
	o.key.from = len(b.out)
	b.out = append(b.out, b.bytes(key)...)
	b.out[o.key.from] = byte(kind)
	o.key.to, o.value.from = len(b.out), len(b.out)
	b.out = append(b.out, value...)
	o.value.to = len(b.out)
	b.outputs = append(b.outputs, o)
	return o
}

func (w *worker) add(b *batch, o output) error {
	w.counts.delta.add(zone.Kind(b.out[o.key.from]), b.out[o.value.from:o.value.to])
	if w.run.params.NoDigest {
		return nil
	}
	return w.hasher.AddItem(b.out[o.key.from:o.key.to], b.out[o.value.from:o.value.to])
}

// remove takes a previous item out of the signed digest.
func (w *worker) remove(b *batch, kind zone.Kind, key, value span) error {
	k := b.bytes(key)
	k[0] = byte(kind)
	w.counts.delta.remove(kind, b.bytes(value))
	if w.run.params.NoDigest {
		return nil
	}
	return w.hasher.RemoveItem(k, b.bytes(value))
}

func (c *counts) merge(o counts) {
	c.records += o.records
	c.rrsets += o.rrsets
	c.signatures += o.signatures
	c.made += o.made
	c.reused += o.reused
	c.verified += o.verified
	c.newSets += o.newSets
	c.dropped += o.dropped
	c.denial += o.denial
	c.by.merge(&o.by)
	if o.any && (!c.any || serialTimeBefore(o.earliest, c.earliest)) {
		c.earliest, c.any = o.earliest, true
	}
}

// near turns an RRSIG time into the time closest to base.
func near(t uint32, base time.Time) time.Time {
	b := base.Unix()
	return time.Unix(b+int64(int32(t-uint32(b))), 0).UTC()
}
