package signer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/signer/zone"
)

// hashCheck brings the NSEC3 records that must be together with those that
// are: both are sorted by hash and compared in one walk.
type hashCheck struct {
	begun      bool         // parameters are known
	sorter     *zone.Sorter // nil until then
	iterations uint16
	salt       []byte
	levels     []level
	prefix     []byte // owner key of the present name without its last byte
	key        []byte
	buf        []byte
	entry      []byte
	name2      []byte
}

// level is a name on the way from the apex to the present one.
type level struct {
	end      int  // length of its owner key prefix
	exists   bool // it owns records
	required bool // it or a name below must have an NSEC3 record
}

// The kinds of entries; they follow the hash in the sorter's key. An entry
// for a name says first whether opt-out may leave its record out.
const (
	entryExpected = 0
	entryFound    = 1
)

func (h *hashCheck) begin(iterations uint16, salt []byte) {
	h.iterations, h.salt, h.begun = iterations, bytes.Clone(salt), true
}

// ready makes the sorter; nothing is checked without valid parameters.
func (h *hashCheck) ready(v *verifier) error {
	if !h.begun || h.sorter != nil {
		return nil
	}
	if v.opts.Spill == nil {
		return errors.New("a zone with NSEC3 needs a spill")
	}
	h.sorter = zone.NewSorter(v.opts.Spill, nsec3Memory)
	return nil
}

// name takes a name that owns authoritative data or is a delegation; the types
// are in v.denial.want.
func (h *hashCheck) name(v *verifier, is standing) error {
	if h.sorter == nil {
		return nil
	}
	g := &v.group
	prefix := g.ownerKey[:len(g.ownerKey)-1]
	if err := h.leave(func(l level) bool { return !bytes.HasPrefix(prefix, h.prefix[:l.end]) }); err != nil {
		return err
	}
	at := len(v.apexKey) - 1
	if len(h.levels) > 0 {
		at = h.levels[len(h.levels)-1].end
	} else {
		h.levels = append(h.levels, level{end: at})
	}
	for i := at; i < len(prefix); i++ {
		if prefix[i] == 0 {
			h.levels = append(h.levels, level{end: i + 1})
		}
	}
	h.prefix = append(h.prefix[:0], prefix...)
	own := &h.levels[len(h.levels)-1]
	own.exists = true
	own.required = is == authoritative || slices.Contains(v.denial.want, zone.TypeDS)
	return h.expect(g.name, v.denial.want, !own.required)
}

// leave ends the levels for which done holds, the deepest first. One that
// owns nothing is an empty non-terminal.
func (h *hashCheck) leave(done func(level) bool) error {
	for len(h.levels) > 0 {
		l := h.levels[len(h.levels)-1]
		if !done(l) {
			return nil
		}
		h.levels = h.levels[:len(h.levels)-1]
		if l.required && len(h.levels) > 0 {
			h.levels[len(h.levels)-1].required = true
		}
		if l.exists {
			continue
		}
		var err error
		h.key = append(append(h.key[:0], h.prefix[:l.end]...), 0)
		if h.name2, err = zone.AppendNameOfKey(h.name2[:0], h.key); err != nil {
			return err
		}
		if err := h.expect(h.name2, nil, !l.required); err != nil {
			return err
		}
	}
	return nil
}

// expect notes a name's record.
func (h *hashCheck) expect(name []byte, types []zone.Type, optional bool) error {
	sum := nsec3Hash(name, h.salt, h.iterations, &h.buf)
	h.key = append(append(h.key[:0], sum[:]...), entryExpected)
	h.entry = append(h.entry[:0], 0, byte(len(name)))
	if optional {
		h.entry[0] = 1
	}
	h.entry = append(h.entry, name...)
	for _, t := range types {
		h.entry = binary.BigEndian.AppendUint16(h.entry, uint16(t))
	}
	return h.sorter.Add(h.key, h.entry)
}

// chainRecords checks the NSEC3 records of the present name by themselves and
// notes them.
func (v *verifier) chainRecords() error {
	g := &v.group
	for i := range g.items {
		it := &g.items[i]
		if it.kind != zone.KindChain {
			continue
		}
		if v.unsigned {
			continue
		}
		if !v.denial.nsec3 {
			v.fault(zone.TypeNSEC3, RuleChain, "NSEC3 in a zone without NSEC3PARAM")
			continue
		}
		if v.denial.hashes.sorter == nil {
			continue
		}
		if err := v.chainRecord(g.value(it)); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) chainRecord(value zone.Value) error {
	g, h := &v.group, &v.denial.hashes
	var hash [nsec3Hashed]byte
	label := g.name[1:]
	if len(g.name) != 1+nsec3Hashed+len(v.apex) || g.name[0] != nsec3Hashed {
		v.fault(zone.TypeNSEC3, RuleChain, "the owner is not a hash under the apex")
		return nil
	}
	if n, err := nsec3Encoding().Decode(hash[:], label[:nsec3Hashed]); err != nil || n != 20 {
		v.fault(zone.TypeNSEC3, RuleChain, "the owner is not a hash under the apex")
		return nil
	}
	if n := value.Count(); n != 1 {
		v.fault(zone.TypeNSEC3, RuleChain, "%d NSEC3 records, want 1", n)
		return nil
	}
	v.denial.checkTTL(v, value.TTL())
	for rdata := range value.Records() {
		f, err := parseNSEC3(rdata)
		if err != nil {
			v.fault(zone.TypeNSEC3, RuleChain, "%v", err)
			return nil
		}
		if f.iterations != h.iterations || !bytes.Equal(f.salt, h.salt) {
			v.fault(zone.TypeNSEC3, RuleChain, "iterations or salt differ from NSEC3PARAM")
		}
		if f.flags&1 == 1 {
			v.report.Denial = NSEC3OptOut
		}
		if f.flags > 1 {
			v.fault(zone.TypeNSEC3, RuleChain, "unknown flags %#x", f.flags)
		}
		if v.denial.types, err = decodeTypes(v.denial.types[:0], f.bitmap); err != nil {
			v.fault(zone.TypeNSEC3, RuleBitmap, "%v", err)
			return nil
		}
		h.key = append(append(h.key[:0], hash[:20]...), entryFound)
		h.entry = append(append(h.entry[:0], f.flags), f.next...)
		for _, t := range v.denial.types {
			h.entry = binary.BigEndian.AppendUint16(h.entry, uint16(t))
		}
		if err := h.sorter.Add(h.key, h.entry); err != nil {
			return err
		}
	}
	return nil
}

// hashWalk is the walk over both kinds of entries.
type hashWalk struct {
	v         *verifier
	found     bool // a record was seen
	first, at [20]byte
	next      [20]byte
	optOut    bool      // of the last record
	before    zone.Name // a name without a record before the first one
	expecting bool      // the name below waits for its record
	hash      [20]byte
	name      zone.Name
	types     []byte
	optional  bool
}

func (h *hashCheck) finish(v *verifier) (err error) {
	if h.sorter == nil {
		return nil
	}
	if err := h.leave(func(level) bool { return true }); err != nil {
		return err
	}
	sorted, err := h.sorter.Sort()
	if err != nil {
		return fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	defer func() { err = errors.Join(err, sorted.Close()) }()
	w := &hashWalk{v: v}
	for sorted.Next() {
		v.seq++
		key, entry := sorted.Key(), sorted.Value()
		hash := [20]byte(key)
		if w.expecting && hash != w.hash {
			w.missing()
		}
		if key[20] == entryExpected {
			w.expected(hash, entry)
		} else {
			w.record(hash, entry)
		}
	}
	if err := sorted.Err(); err != nil {
		return fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	w.end()
	return nil
}

func (w *hashWalk) expected(hash [20]byte, entry []byte) {
	name := entry[2 : 2+int(entry[1])]
	if w.expecting {
		w.v.faultAt(zone.Name(name), zone.TypeNSEC3, RuleChain, "has the same hash as %v", w.name)
	}
	w.expecting, w.hash, w.name = true, hash, zone.Name(name)
	w.optional = entry[0] == 1
	w.types = append(w.types[:0], entry[2+len(name):]...)
}

// missing judges a name that has no record of its own.
func (w *hashWalk) missing() {
	w.expecting = false
	switch {
	case !w.optional:
		w.v.faultAt(w.name, zone.TypeNSEC3, RuleChain, "no NSEC3 record")
	case !w.found:
		w.before = w.name
	case !w.optOut:
		w.v.faultAt(w.name, zone.TypeNSEC3, RuleChain, "no NSEC3 record, and none with opt-out covers it")
	}
}

func (w *hashWalk) record(hash [20]byte, entry []byte) {
	v, owner := w.v, w.owner(hash)
	if !w.found {
		w.found, w.first = true, hash
	} else if w.next != hash {
		v.faultAt(w.owner(w.at), zone.TypeNSEC3, RuleChain, "the next hash is not that of the next record")
	}
	w.at, w.next, w.optOut = hash, [20]byte(entry[1:21]), entry[0]&1 == 1
	switch {
	case !w.expecting:
		v.faultAt(owner, zone.TypeNSEC3, RuleChain, "NSEC3 of a name that is not there")
	case !bytes.Equal(w.types, entry[21:]):
		v.faultAt(owner, zone.TypeNSEC3, RuleBitmap, "of %v: shows %v, want %v", w.name, typeList(entry[21:]), typeList(w.types))
	}
	w.expecting = false
}

func (w *hashWalk) end() {
	if w.expecting {
		w.missing()
	}
	switch {
	case !w.found:
		w.v.faultAt(w.v.apex, zone.TypeNSEC3, RuleChain, "no NSEC3 records")
	case w.next != w.first:
		w.v.faultAt(w.owner(w.at), zone.TypeNSEC3, RuleChain, "the last record does not lead to the first")
	case w.before != "" && !w.optOut:
		w.v.faultAt(w.before, zone.TypeNSEC3, RuleChain, "no NSEC3 record, and none with opt-out covers it")
	}
}

// owner is the name of an NSEC3 record.
func (w *hashWalk) owner(hash [20]byte) zone.Name {
	label := nsec3Encoding().EncodeToString(hash[:])
	return zone.Name(rune(nsec3Hashed)) + zone.Name(label) + w.v.apex
}

func typeList(b []byte) []zone.Type {
	var out []zone.Type
	for ; len(b) >= 2; b = b[2:] {
		out = append(out, zone.Type(binary.BigEndian.Uint16(b)))
	}
	return out
}
