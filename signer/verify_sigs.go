package signer

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"sluice/signer/zone"
)

// checkPool verifies signatures and hashes items on several goroutines. Its
// memory is that of a fixed number of batches.
type checkPool struct {
	ctx     context.Context //nolint:containedctx // lives as long as one run
	group   *errgroup.Group
	workers []*checker
	aside   *checker // for the goroutine that reads
	now     *checkBatch
	free    chan *checkBatch
	jobs    chan *checkBatch
	rrsets  uint64 // with signatures to check so far
}

// checkBatch is what one worker takes at a time.
type checkBatch struct {
	data  []byte
	owner span
	units []checkUnit
	items []hashUnit
}

// checkUnit is one RRset with its RRSIGs.
type checkUnit struct {
	seq         uint64
	typ         zone.Type
	owner       span
	value, sigs span // no sigs: there are none
	full        bool // verify with the public key
}

// hashUnit is one item for the digests.
type hashUnit struct {
	key, value span
	content    bool
}

func (b *checkBatch) add(p []byte) span {
	from := len(b.data)
	b.data = append(b.data, p...)
	return span{from, len(b.data)}
}

func newCheckPool(ctx context.Context, v *verifier) *checkPool {
	p := &checkPool{aside: &checker{v: v}, now: &checkBatch{}}
	p.group, p.ctx = errgroup.WithContext(ctx)
	n := v.opts.Workers
	p.free, p.jobs = make(chan *checkBatch, 2*n+1), make(chan *checkBatch, 2*n+1)
	for range 2 * n {
		p.free <- &checkBatch{}
	}
	for range n {
		w := &checker{v: v}
		p.workers = append(p.workers, w)
		p.group.Go(func() error {
			for b := range p.jobs {
				if err := w.process(b); err != nil {
					return err
				}
				p.free <- b
			}
			return nil
		})
	}
	return p
}

// check feeds an RRset of the present name; sigs is nil without RRSIGs.
func (p *checkPool) check(v *verifier, set, sigs *groupItem) {
	g, b := &v.group, p.now
	p.rrsets++
	u := checkUnit{
		seq: v.seq, typ: set.typ,
		full: v.opts.Every <= 1 || p.rrsets <= verifiedAlways || p.rrsets%v.opts.Every == 0,
	}
	if b.owner.empty() || string(b.data[b.owner.from:b.owner.to]) != string(g.name) {
		b.owner = b.add(g.name)
	}
	u.owner = b.owner
	u.value = b.add(g.value(set))
	if sigs != nil {
		u.sigs = b.add(g.value(sigs))
	}
	b.units = append(b.units, u)
}

// hash feeds an item for the digests.
func (p *checkPool) hash(g *group, it *groupItem, content bool) {
	if p.aside.v.partial || !content && p.aside.v.opts.SignedSum == nil {
		return
	}
	b := p.now
	b.items = append(b.items, hashUnit{b.add(g.bytes(it.key)), b.add(g.value(it)), content})
}

// next hands a full batch over.
func (p *checkPool) next() error {
	if len(p.now.units) < share(int(min(p.rrsets, 4*batchUnits))) && len(p.now.items) < 2*batchUnits && len(p.now.data) < batchBytes {
		return nil
	}
	return p.flush()
}

func (p *checkPool) flush() error {
	select {
	case p.jobs <- p.now:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	select {
	case p.now = <-p.free:
	case <-p.ctx.Done():
		return p.ctx.Err()
	}
	b := p.now
	b.data, b.units, b.items, b.owner = b.data[:0], b.units[:0], b.items[:0], span{}
	return nil
}

// finish waits for all that was fed and joins what the workers counted.
func (p *checkPool) finish() error {
	err := p.flush()
	close(p.jobs)
	if werr := p.group.Wait(); werr != nil {
		return werr
	}
	if err != nil {
		return err
	}
	r := p.aside.v.report
	earliest, some := uint32(0), false
	for _, w := range append(p.workers, p.aside) {
		r.Checked += w.checked
		if w.any && (!some || serialTimeBefore(w.earliest, earliest)) {
			earliest, some = w.earliest, true
		}
	}
	if some {
		r.Earliest = near(earliest, p.aside.v.opts.At)
	}
	return nil
}

// checker is one worker of the pool.
type checker struct {
	v        *verifier
	content  zone.Hasher
	signed   zone.Hasher
	checked  uint64
	earliest uint32
	any      bool
	found    []*publicKey
	message  []byte
	digest   []byte
}

// checkJob is a checkUnit taken out of its batch.
type checkJob struct {
	seq         uint64
	typ         zone.Type
	owner       []byte
	value, sigs zone.Value
	full        bool
}

func (w *checker) process(b *checkBatch) error {
	for i := range b.items {
		it := &b.items[i]
		key, value := b.data[it.key.from:it.key.to], b.data[it.value.from:it.value.to]
		if it.content {
			if err := w.content.AddContent(key, value); err != nil {
				return err
			}
		}
		if w.v.opts.SignedSum != nil {
			if err := w.signed.AddItem(key, value); err != nil {
				return err
			}
		}
	}
	for i := range b.units {
		u := &b.units[i]
		w.judge(&checkJob{
			seq: u.seq, typ: u.typ, full: u.full,
			owner: b.data[u.owner.from:u.owner.to],
			value: b.data[u.value.from:u.value.to],
			sigs:  b.data[u.sigs.from:u.sigs.to],
		}, nil)
	}
	return nil
}

func (w *checker) fault(j *checkJob, rule Rule, format string, args ...any) {
	w.v.faults.add(j.seq, Fault{zone.Name(j.owner), j.typ, rule, fmt.Sprintf(format, args...)})
}

// judge checks all RRSIGs over one RRset; valid hears of each key whose
// signature holds.
func (w *checker) judge(j *checkJob, valid func(*publicKey)) {
	if len(j.sigs) == 0 {
		w.fault(j, RuleUnsigned, "no RRSIG")
		return
	}
	if j.sigs.TTL() != j.value.TTL() {
		w.fault(j, RuleTTL, "the RRSIG has a TTL of %d, the RRset one of %d", j.sigs.TTL(), j.value.TTL())
	}
	var good [256]bool
	for rdata := range j.sigs.Records() {
		if k := w.signature(j, rdata); k != nil {
			good[k.alg] = true
			if valid != nil {
				valid(k)
			}
		}
	}
	for _, alg := range w.v.keys.algorithms {
		if !good[alg] {
			w.fault(j, RuleUnsigned, "no valid RRSIG of algorithm %d", alg)
		}
	}
}

// signature checks one RRSIG and gives the key whose it is, nil when it does
// not hold.
func (w *checker) signature(j *checkJob, rdata []byte) *publicKey {
	v := w.v
	head := sigName + len(v.apex)
	if len(rdata) < sigName {
		w.fault(j, RuleSignature, "malformed RRSIG")
		return nil
	}
	alg, tag := rdata[sigAlgorithm], binary.BigEndian.Uint16(rdata[sigTag:])
	n, err := zone.NameLength(rdata[sigName:])
	if err != nil || sigName+n >= len(rdata) {
		w.fault(j, RuleSignature, "malformed RRSIG by key %d", tag)
		return nil
	}
	switch signer := zone.Name(rdata[sigName : sigName+n]); {
	case !signer.Equal(v.apex):
		w.fault(j, RuleSignature, "RRSIG by key %d with the signer's name %v", tag, signer)
		return nil
	case zone.Type(binary.BigEndian.Uint16(rdata)) != j.typ:
		w.fault(j, RuleSignature, "RRSIG by key %d covers another type", tag)
		return nil
	case int(rdata[sigLabels]) != labelsOf(j.owner):
		w.fault(j, RuleSignature, "RRSIG by key %d counts %d labels, want %d", tag, rdata[sigLabels], labelsOf(j.owner))
		return nil
	}
	if w.found = v.keys.find(w.found[:0], alg, tag); len(w.found) == 0 {
		if slices.Contains(v.keys.unknown, sigKey{alg, tag}) {
			return nil
		}
		w.fault(j, RuleOrphan, "RRSIG by key %d of algorithm %d, which is not published", tag, alg)
		return nil
	}
	ok := true
	if original := binary.BigEndian.Uint32(rdata[sigOriginal:]); j.value.TTL() != original { // RFC 4035, 2.2
		w.fault(j, RuleTTL, "TTL %d is not the original TTL %d of the RRSIG by key %d", j.value.TTL(), original, tag)
		ok = false
	}
	if !w.inTime(j, rdata, tag) {
		ok = false
	}
	k := w.found[0]
	if j.full {
		if k = w.verify(j, rdata, head); k == nil {
			w.fault(j, RuleSignature, "RRSIG by key %d does not verify", tag)
		}
	}
	if !ok {
		return nil
	}
	return k
}

// inTime checks the validity period.
func (w *checker) inTime(j *checkJob, rdata []byte, tag uint16) bool {
	expiration := binary.BigEndian.Uint32(rdata[sigExpiration:])
	inception := binary.BigEndian.Uint32(rdata[sigInception:])
	if !w.any || serialTimeBefore(expiration, w.earliest) {
		w.earliest, w.any = expiration, true
	}
	switch {
	case serialTimeBefore(expiration, inception):
		w.fault(j, RuleTime, "RRSIG by key %d expires before its inception", tag)
	case serialTimeBefore(expiration, w.v.at):
		w.fault(j, RuleTime, "RRSIG by key %d has expired", tag)
	case serialTimeBefore(w.v.at, inception):
		w.fault(j, RuleTime, "RRSIG by key %d is not yet valid", tag)
	default:
		return true
	}
	return false
}

// verify gives the key whose signature it is.
func (w *checker) verify(j *checkJob, rdata []byte, head int) *publicKey {
	w.checked++
	original := binary.BigEndian.Uint32(rdata[sigOriginal:])
	w.message = append(w.message[:0], rdata[:sigName]...)
	w.message = zone.AppendFold(w.message, rdata[sigName:head])
	w.message = appendSignedRRs(w.message, j.owner, j.typ, original, j.value)
	for _, k := range w.found {
		w.digest = k.appendSigned(w.digest[:0], w.message)
		if k.check(w.digest, rdata[head:]) == nil {
			return k
		}
	}
	return nil
}

// labelsOf counts the labels of an owner as RRSIG does.
func labelsOf(owner []byte) int {
	n := zone.Name(owner)
	if n.IsWildcard() {
		return n.Labels() - 1
	}
	return n.Labels()
}
