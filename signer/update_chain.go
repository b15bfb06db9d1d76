package signer

import (
	"bytes"
	"errors"
	"fmt"

	"sluice/signer/zone"
)

// What stands first in an entry of update.hashes; the bitmap follows.
const (
	eventPresent  byte = 1 << iota // the name has a record; without it and eventDue, none
	eventDue                       // nothing but the signatures
	eventNew                       // the name was not there before
	eventExchange                  // nothing but whose signatures
)

// appendHashKey appends the owner key of an NSEC3 record.
func appendHashKey(dst, apexKey []byte, hash [20]byte) []byte {
	dst = append(dst, apexKey[:len(apexKey)-1]...)
	dst = nsec3Encoding().AppendEncode(dst, hash[:])
	return append(dst, 0, 0)
}

var (
	errNotHash     = errors.New("an NSEC3 record whose owner is not a hash")
	errBrokenChain = errors.New("the NSEC3 chain is broken")
)

// hashOfKey is the hash in the owner key of an NSEC3 record.
func hashOfKey(apexKey, ownerKey []byte) (hash [20]byte, err error) {
	prefix := apexKey[:len(apexKey)-1]
	if len(ownerKey) != len(prefix)+nsec3Hashed+2 || !bytes.HasPrefix(ownerKey, prefix) ||
		!bytes.HasSuffix(ownerKey, []byte{0, 0}) {
		return hash, errNotHash
	}
	if n, err := nsec3Encoding().Decode(hash[:], ownerKey[len(prefix):len(prefix)+nsec3Hashed]); err != nil || n != len(hash) {
		return hash, errNotHash
	}
	return hash, nil
}

// hash is the NSEC3 hash of a name in wire form and lower case.
func (u *update) hash(name []byte) [20]byte {
	p := &u.run.params
	return nsec3Hash(name, p.Salt, p.Iterations, &u.hashBuf)
}

// noteHashes notes whether the present name has an NSEC3 record and that the
// names above it without contents may win or lose theirs.
func (u *update) noteHashes() error {
	n, r := &u.node, u.run
	wants := len(n.sets) > 0 && !(n.delegation && !n.secure && r.params.Denial == NSEC3OptOut)
	exists, err := len(n.sets) > 0, error(nil)
	if u.hidden {
		if exists, err = u.now.below(zone.KindContents, n.ownerKey); err != nil {
			return err
		}
	}
	if exists {
		u.types = u.types[:0]
		flags := byte(0)
		if wants {
			flags = eventPresent
			u.types = n.nsec3Types(u.types)
			if isNew, err := u.isNew(n.ownerKey); err != nil {
				return err
			} else if isNew {
				flags |= eventNew
			}
		}
		if err := u.noteHash(u.walk.name, flags, u.types); err != nil {
			return err
		}
	} else if len(n.ownerKey) != len(r.apexKey) {
		if err := u.ents.Add(n.ownerKey, []byte{0}); err != nil {
			return err
		}
	}
	for i := len(u.above.levels) - 1; i > 0 && !u.above.levels[i].exists; i-- {
		u.other = append(append(u.other[:0], n.ownerKey[:u.above.levels[i].end]...), 0)
		var gain byte
		if wants {
			gain = 1
		}
		if err := u.ents.Add(u.other, []byte{gain}); err != nil {
			return err
		}
	}
	return nil
}

// isNew reports whether the previous contents had neither the present name
// nor one below it.
func (u *update) isNew(ownerKey []byte) (bool, error) {
	for _, s := range u.node.sets {
		if s.isMade || u.marked(s.typ)&markAdded == 0 {
			return false, nil
		}
	}
	had, err := u.old.below(zone.KindContents, ownerKey[:len(ownerKey)-1])
	return !had, err
}

// noteHash adds what is wanted of a name's NSEC3 record.
func (u *update) noteHash(name []byte, flags byte, types []zone.Type) error {
	hash := u.hash(name)
	u.entry = appendBitmap(append(u.entry[:0], flags), types)
	return u.hashes.Add(hash[:], u.entry)
}

// emptyNonTerminals decides which of the names without contents have an NSEC3
// record.
func (u *update) emptyNonTerminals() error {
	sorted, err := u.ents.Sort()
	if err != nil {
		return fmt.Errorf("sort names: %w", err)
	}
	defer sorted.Close() //nolint:errcheck // Err tells
	var ownerKey []byte
	gain := false
	for sorted.Next() {
		if !bytes.Equal(sorted.Key(), ownerKey) {
			if err := u.emptyNonTerminal(ownerKey, gain); err != nil {
				return err
			}
			ownerKey, gain = append(ownerKey[:0], sorted.Key()...), false
		}
		gain = gain || sorted.Value()[0] != 0
	}
	if err := sorted.Err(); err != nil {
		return fmt.Errorf("sort names: %w", err)
	}
	return u.emptyNonTerminal(ownerKey, gain)
}

// emptyNonTerminal notes the record of one name without contents; gain says
// that a name below it which changed has one.
func (u *update) emptyNonTerminal(ownerKey []byte, gain bool) (err error) {
	if len(ownerKey) == 0 {
		return nil
	}
	if u.walk.name, err = zone.AppendNameOfKey(u.walk.name[:0], ownerKey); err != nil {
		return fmt.Errorf("read contents: %w", err)
	}
	prefix := ownerKey[:len(ownerKey)-1]
	if gain {
		had, err := u.old.below(zone.KindContents, prefix)
		if err != nil {
			return err
		}
		if !had {
			return u.noteHash(u.walk.name, eventPresent|eventNew, nil)
		}
		return u.noteHash(u.walk.name, eventPresent, nil)
	}
	u.other = appendHashKey(u.other[:0], u.run.apexKey, u.hash(u.walk.name))
	before, err := u.old.get(zone.KindChain, u.other, zone.TypeNSEC3)
	if err != nil || before == nil {
		return err // nothing to lose
	}
	hidden, err := u.above.find(ownerKey)
	if err != nil {
		return err
	}
	needed := false
	switch {
	case hidden >= 0:
	case u.run.params.Denial == NSEC3OptOut:
		needed, err = u.recordBelow(prefix)
	default:
		needed, err = u.now.below(zone.KindContents, prefix)
	}
	if err != nil {
		return err
	}
	flags := byte(0)
	if needed {
		flags = eventPresent
	}
	return u.noteHash(u.walk.name, flags, nil)
}

// recordBelow reports, with opt-out, whether a name below has an NSEC3 record
// in the new zone, no name with changes having won one. So it had one before,
// and therefore signatures, which delegations left out by opt-out have not: of
// the names met on the walk over signatures all but the last have changed.
func (u *update) recordBelow(prefix []byte) (found bool, err error) {
	var seen []byte
	err = u.old.each(zone.KindSigs, prefix, func(ownerKey []byte, _ zone.Type, _ zone.Value) (bool, error) {
		if bytes.Equal(ownerKey, seen) {
			return true, nil
		}
		seen = append(seen[:0], ownerKey...)
		hidden, err := u.elsewhere.find(ownerKey)
		if err != nil || hidden >= 0 {
			return true, err
		}
		here, err := u.now.below(zone.KindContents, ownerKey)
		if err != nil || !here {
			return true, err
		}
		ns, err := u.now.get(zone.KindContents, ownerKey, zone.TypeNS)
		if err != nil {
			return false, err
		}
		found = ns == nil
		if !found {
			ds, err := u.now.get(zone.KindContents, ownerKey, zone.TypeDS)
			found = ds != nil
			return !found, err
		}
		return !found, nil
	})
	return found, err
}

// resolver finds out which NSEC3 records are written, given in the order of
// the hashes what is wanted of some: their neighbours follow.
type resolver struct {
	u    *update
	out  *zone.Sorter
	from side // the previous instance
	key  []byte

	begun    bool
	last     [20]byte // the last hash looked at
	firstSet bool
	first    [20]byte // the first hash of the new chain
	wrap     bool     // the last record of the chain gets another next hash

	pending    bool // this record waits for its next hash
	hash       [20]byte
	due        byte // eventDue, eventExchange
	bitmap     []byte
	prevBitmap []byte
	prevHash   [20]byte
}

// resolveChain gives the records to delete and to write in the order of their
// hashes: no value, or whether signatures are due, the next hash, the bitmap.
func (u *update) resolveChain() (_ zone.Iterator, err error) {
	if err := u.emptyNonTerminals(); err != nil {
		return nil, err
	}
	sorted, err := u.hashes.Sort()
	if err != nil {
		return nil, fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	defer func() { err = errors.Join(err, sorted.Close()) }()
	r := &resolver{u: u, out: u.sorter(), from: u.old}
	var hash [20]byte
	var flags byte
	var bitmap []byte
	wanted := false // something but eventDue or eventExchange was said of hash
	for begun := false; sorted.Next(); begun = true {
		next, entry := [20]byte(sorted.Key()), sorted.Value()
		if begun && next != hash {
			if err := r.event(hash, flags, wanted, bitmap); err != nil {
				return nil, err
			}
			flags, wanted = 0, false
		}
		hash = next
		flags |= entry[0]
		if entry[0] == eventDue || entry[0] == eventExchange {
			continue
		}
		if wanted {
			return nil, r.collision(hash)
		}
		wanted, bitmap = true, append(bitmap[:0], entry[1:]...)
	}
	if err := sorted.Err(); err != nil {
		return nil, fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	if err := r.event(hash, flags, wanted, bitmap); err != nil { // at least the apex was noted
		return nil, err
	}
	if err := r.finish(); err != nil {
		return nil, err
	}
	rewrites, err := r.out.Sort()
	if err != nil {
		return nil, fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	return rewrites, nil
}

func (r *resolver) collision(hash [20]byte) error {
	return fmt.Errorf("two names have the NSEC3 hash %s: change the salt", nsec3Encoding().EncodeToString(hash[:]))
}

// event takes what is wanted of one hash.
func (r *resolver) event(hash [20]byte, flags byte, wanted bool, bitmap []byte) error {
	if err := r.reach(hash); err != nil {
		return err
	}
	had, err := r.had(hash)
	if err != nil {
		return err
	}
	if had && flags&eventNew != 0 {
		return r.collision(hash)
	}
	present := flags&eventPresent != 0
	if !wanted {
		present, bitmap = had, r.prevBitmap
	}
	switch {
	case present:
		err = r.present(hash, had, flags&(eventDue|eventExchange), bitmap)
	case had:
		if err = r.out.Add(hash[:], nil); err == nil && !r.pending {
			err = r.take(hash, nil)
		}
	}
	r.begun, r.last = true, hash
	return err
}

// present makes a record pending.
func (r *resolver) present(hash [20]byte, had bool, due byte, bitmap []byte) error {
	if r.pending {
		if err := r.write(hash); err != nil {
			return err
		}
	} else if !had {
		if err := r.take(hash, &hash); err != nil {
			return err
		}
	}
	if !r.firstSet {
		r.firstSet, r.first = true, hash
	}
	r.pending, r.hash, r.due = true, hash, due
	r.bitmap = append(r.bitmap[:0], bitmap...)
	return nil
}

// take makes the record before hash pending, or writes it where its next hash
// is known. It is one that did not change: those that did are pending until
// an unchanged one behind them was met. Without any, the chain's last record
// comes before hash.
func (r *resolver) take(hash [20]byte, next *[20]byte) error {
	if !r.firstSet {
		r.wrap = true
		return nil
	}
	r.key = appendHashKey(r.key[:0], r.u.run.apexKey, hash)
	ok, err := r.before(r.key)
	if err != nil {
		return err
	}
	if !ok {
		return r.from.wrap(errBrokenChain)
	}
	r.pending, r.hash, r.due = true, r.prevHash, 0
	r.bitmap = append(r.bitmap[:0], r.prevBitmap...)
	if next != nil {
		return r.write(*next)
	}
	return nil
}

// reach looks for an unchanged record between the last hash and this one: the
// pending record leads to it.
func (r *resolver) reach(hash [20]byte) error {
	if !r.pending && r.firstSet {
		return nil
	}
	next, ok, err := r.after()
	if err != nil || !ok || bytes.Compare(next[:], hash[:]) >= 0 {
		return err
	}
	return r.met(next)
}

// met takes an unchanged record behind the last hash.
func (r *resolver) met(next [20]byte) error {
	if !r.firstSet {
		r.firstSet, r.first = true, next
	}
	if r.pending {
		return r.write(next)
	}
	return nil
}

// finish closes the chain.
func (r *resolver) finish() error {
	if r.pending || !r.firstSet || r.wrap {
		next, ok, err := r.after()
		if err == nil && ok {
			err = r.met(next)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case r.pending:
		return r.write(r.first)
	case !r.wrap:
		return nil
	}
	r.key = append(append(r.key[:0], r.u.run.apexKey[:len(r.u.run.apexKey)-1]...), 0xff)
	ok, err := r.before(r.key)
	if err != nil {
		return err
	}
	if !ok {
		return r.from.wrap(errBrokenChain)
	}
	r.pending, r.hash, r.due = true, r.prevHash, 0
	r.bitmap = append(r.bitmap[:0], r.prevBitmap...)
	return r.write(r.first)
}

// write gives the pending record its next hash.
func (r *resolver) write(next [20]byte) error {
	r.pending = false
	entry := append(make([]byte, 0, 64), r.due)
	entry = append(entry, next[:]...)
	return r.out.Add(r.hash[:], append(entry, r.bitmap...))
}

// had reads the previous record with a hash into prevBitmap.
func (r *resolver) had(hash [20]byte) (bool, error) {
	r.key = appendHashKey(r.key[:0], r.u.run.apexKey, hash)
	value, err := r.from.get(zone.KindChain, r.key, zone.TypeNSEC3)
	if err != nil || value == nil {
		return false, err
	}
	return true, r.parse(value)
}

// before reads the previous instance's record before an owner key.
func (r *resolver) before(ownerKey []byte) (bool, error) {
	owner, value, err := r.from.last(zone.KindChain, ownerKey)
	if err != nil || owner == nil {
		return false, err
	}
	if r.prevHash, err = hashOfKey(r.u.run.apexKey, owner); err != nil {
		return false, r.from.wrap(err)
	}
	return true, r.parse(value)
}

func (r *resolver) parse(value zone.Value) error {
	r.prevBitmap = r.prevBitmap[:0]
	for rdata := range value.Records() {
		f, err := parseNSEC3(rdata)
		if err != nil {
			return r.from.wrap(err)
		}
		r.prevBitmap = append(r.prevBitmap, f.bitmap...)
	}
	return nil
}

// after is the first hash of the previous chain behind the last one looked
// at.
func (r *resolver) after() (hash [20]byte, ok bool, err error) {
	apexKey := r.u.run.apexKey
	r.key = append(r.key[:0], apexKey[:len(apexKey)-1]...)
	if r.begun {
		r.key = appendHashKey(r.key[:0], apexKey, r.last)
		r.key[len(r.key)-1] = 1
	}
	owner, err := r.from.first(zone.KindChain, r.key, apexKey[:len(apexKey)-1])
	if err != nil || owner == nil {
		return hash, false, err
	}
	if hash, err = hashOfKey(apexKey, owner); err != nil {
		return hash, false, r.from.wrap(err)
	}
	return hash, true, nil
}

// chainPass feeds the NSEC3 records that are written or deleted.
func (u *update) chainPass(f *feed, rewrites zone.Iterator) error {
	c := &chainPass{run: u.run, feed: f}
	encoding := nsec3Encoding()
	for rewrites.Next() {
		c.last = [20]byte(rewrites.Key())
		entry := rewrites.Value()
		var next [20]byte
		if len(entry) > 0 {
			next = [20]byte(entry[1:])
			c.bitmap = append(c.bitmap[:0], entry[1+len(next):]...)
		}
		c.build(encoding, next)
		owner := c.key[1 : len(c.key)-2]
		sigs, err := u.old.get(zone.KindChainSigs, owner, zone.TypeNSEC3)
		if err != nil {
			return err
		}
		before, err := u.old.get(zone.KindChain, owner, zone.TypeNSEC3)
		if err != nil {
			return err
		}
		if len(entry) == 0 {
			if err := f.gone(zone.KindChain, c.key, before); err != nil {
				return err
			}
			if sigs != nil {
				if err := f.gone(zone.KindChainSigs, c.key, sigs); err != nil {
					return err
				}
			}
			continue
		}
		one := unit{
			kind: zone.KindChain, typ: zone.TypeNSEC3, fresh: entry[0]&eventDue != 0,
			existed: before != nil, same: bytes.Equal(before, c.value),
		}
		if one.same && sigs != nil && !one.fresh && (entry[0]&eventExchange == 0 || u.run.signedSo(sigs, false)) {
			continue
		}
		if err := f.put(one, c.owner, c.key, c.value, before, sigs); err != nil {
			return err
		}
	}
	if err := rewrites.Err(); err != nil {
		return fmt.Errorf("sort NSEC3 hashes: %w", err)
	}
	return nil
}
