package zone

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// record is one sorted record of an RRset.
type record struct {
	ttl        uint32
	file, line int
	owner      []byte // in wire form where it has upper case, else empty
	rdata      []byte
}

// grouper reads sorted entries RRset by RRset. It holds one RRset, whatever
// the size of the zone.
type grouper struct {
	in      Iterator
	pending bool // in stands on an entry that is not yet used
	key     []byte
	arena   []byte
	records []record
	tooLong bool // some records were left out
	dropped int  // duplicates
	dropAt  record
}

// maxGroup is how much of an RRset is collected before duplicates are
// dropped.
const maxGroup = 4 * MaxValue

// next reads the next RRset; false at the end or after an error of in.
func (g *grouper) next() bool {
	if !g.pending && !g.in.Next() {
		return false
	}
	g.key = append(g.key[:0], g.in.Key()...)
	g.arena, g.records, g.tooLong, g.dropped = g.arena[:0], g.records[:0], false, 0
	for {
		g.take(g.in.Value())
		if g.pending = g.in.Next(); !g.pending || !bytes.Equal(g.in.Key(), g.key) {
			break
		}
	}
	if len(g.records) > 1 {
		g.sort()
	}
	return g.in.Err() == nil
}

// take parses an entry's payload as reader.put wrote it.
func (g *grouper) take(payload []byte) {
	if len(g.arena)+len(payload) > maxGroup {
		g.tooLong = true
		return
	}
	if need := len(g.arena) + len(payload); need > cap(g.arena) {
		// What records point to stays where it is.
		g.arena = make([]byte, 0, min(max(2*need, 4096), maxGroup))
	}
	at := len(g.arena)
	g.arena = append(g.arena, payload...)
	p := g.arena[at:]
	r := record{ttl: binary.BigEndian.Uint32(p)}
	p = p[4:]
	file, n := binary.Uvarint(p)
	line, m := binary.Uvarint(p[n:])
	p = p[n+m:]
	r.file, r.line = int(file), int(line)
	r.owner, r.rdata = p[1:1+int(p[0])], p[1+int(p[0]):]
	g.records = append(g.records, r)
}

// sort puts the records in canonical order and drops duplicates.
func (g *grouper) sort() {
	// The owner of the first record in the file is that of the RRset.
	owner := g.records[0].owner
	t := g.recordType()
	slices.SortStableFunc(g.records, func(a, b record) int { return CompareRData(t, a.rdata, b.rdata) })
	kept := g.records[:1]
	for _, r := range g.records[1:] {
		last := &kept[len(kept)-1]
		if CompareRData(t, last.rdata, r.rdata) != 0 {
			kept = append(kept, r)
			continue
		}
		last.ttl = min(last.ttl, r.ttl)
		if g.dropped++; g.dropped == 1 {
			g.dropAt = r
		}
	}
	g.records = kept
	kept[0].owner = owner
}

// recordType is the type of the records themselves.
func (g *grouper) recordType() Type {
	if k := Kind(g.key[0]); k == KindSigs || k == KindChainSigs {
		return TypeRRSIG
	}
	return Type(binary.BigEndian.Uint16(g.key[len(g.key)-2:]))
}

// last is the record that stands last in the files.
func (g *grouper) last() *record {
	last := &g.records[0]
	for i := range g.records {
		if r := &g.records[i]; r.file > last.file || (r.file == last.file && r.line > last.line) {
			last = r
		}
	}
	return last
}

var errRRsetLong = fmt.Errorf("RRset longer than %d bytes", MaxValue)

// assembler is Loaded.Items: it makes items of sorted records, checks them,
// counts them and computes the content digest.
type assembler struct {
	r       *reader
	l       *Loaded
	g       grouper
	checker *Checker
	check   *zoneDigest // not nil where a ZONEMD is to be verified
	digest  *digester
	value   []byte
	steps   int
	ended   bool
	closed  bool
	err     error
}

func newAssembler(r *reader, l *Loaded, items Iterator) *assembler {
	a := &assembler{r: r, l: l, g: grouper{in: items}, digest: newDigester()}
	a.checker = NewChecker(r.opts.Origin, r.opts.Glue, a.problem)
	return a
}

// problem takes a finding of the checker; it concerns the present RRset, one
// that the checker names, or the whole zone once the walk has ended.
func (a *assembler) problem(p Problem) {
	e := FileError{File: a.r.opts.File, Err: p}
	switch {
	case p.placed:
		e.File, e.Line = a.r.files[p.place.file], p.place.line
	case !a.ended:
		last := a.g.last()
		e.File, e.Line = a.r.files[last.file], last.line
	}
	if p.Notice {
		a.r.notices.add(p.Err.Error(), e.File, e.Line)
		return
	}
	a.r.errs.add(e)
}

// Next moves to the next item. After the first error it reads on by itself to
// the end, to find the others.
func (a *assembler) Next() bool {
	if a.ended || a.closed {
		return false
	}
	for a.g.next() {
		if a.steps++; a.steps%4096 == 0 && a.r.cancelled() != nil {
			a.err = a.r.cancelled()
			break
		}
		a.item()
		if a.r.errs.list.Total == 0 {
			return true
		}
	}
	a.finish()
	return false
}

// item makes the item of the present RRset.
func (a *assembler) item() {
	g := &a.g
	first := &g.records[0]
	highest := a.r.highestTTL()
	ttl := min(first.ttl, highest)
	for _, r := range g.records[1:] {
		if min(r.ttl, highest) != ttl {
			a.r.notices.add(noticeMixedTTL, a.r.files[r.file], r.line)
			for _, r := range g.records {
				ttl = min(ttl, r.ttl)
			}
			break
		}
	}
	if g.dropped > 0 {
		a.r.notices.addN(noticeDuplicates, a.r.files[g.dropAt.file], g.dropAt.line, g.dropped)
	}
	v := binary.BigEndian.AppendUint32(a.value[:0], ttl)
	v = append(append(v, byte(len(first.owner))), first.owner...)
	for i := range g.records {
		v = AppendRData(v, g.records[i].rdata)
	}
	a.value = v
	if g.tooLong || len(v) > MaxValue {
		a.problem(Problem{Type: g.recordType(), Err: errRRsetLong})
		return
	}
	if Kind(g.key[0]) == KindContents {
		a.l.RRsets++
		a.l.Records += uint64(len(g.records))
		if g.recordType() == TypeNS {
			last := g.last()
			a.checker.place = place{last.file, last.line}
		}
		a.checker.Item(g.key, v)
	} else {
		a.l.Kept.Add(g.key, v)
	}
	if a.l.ContentState != nil {
		a.digest.add(g.key, v)
	}
	if a.check != nil {
		if err := a.check.contents(g); err != nil {
			a.err = err
		}
	}
}

// finish ends the walk.
func (a *assembler) finish() {
	a.ended = true
	if a.err == nil {
		if a.err = a.g.in.Err(); a.err != nil {
			a.err = fmt.Errorf("sort zone: %w", a.err)
		}
	}
	state, err := a.digest.finish()
	if a.err == nil {
		a.err = err
	}
	if a.err != nil {
		return
	}
	a.checker.Finish()
	if a.l.ContentState != nil {
		*a.l.ContentState = state
	}
	if a.check != nil && a.r.errs.list.Total == 0 {
		outcome, err := a.check.finish()
		switch {
		case errors.Is(err, ErrZONEMD):
			a.r.errs.add(FileError{File: a.r.opts.File, Err: err})
		case err != nil:
			a.err = err
			return
		}
		if a.l.ZONEMD = outcome; outcome == ZONEMDUnsupported {
			a.r.notices.add(noticeZONEMD, "", 0)
		}
	}
	a.err = a.r.errs.err()
	a.l.Notices = a.r.notices.lines()
}

func (a *assembler) Key() []byte   { return a.g.key }
func (a *assembler) Value() []byte { return a.value }

func (a *assembler) Err() error { return a.err }

func (a *assembler) Close() error {
	if a.closed {
		return nil
	}
	a.closed = true
	_, err := a.digest.finish()
	if a.check != nil {
		err = errors.Join(err, a.check.own.in.Close())
	}
	return errors.Join(err, a.g.in.Close())
}
