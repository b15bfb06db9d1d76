package signer

import (
	"bytes"
	"errors"
	"fmt"

	"sluice/signer/zone"
)

// Split cuts a zone into ranges that are signed by themselves and hands them to
// fn in order, each as soon as it is known. contents walks the KindContents
// items of the whole zone; values are not read. A range ends with the first name
// at which it has more than size RRsets and empty non-terminals. After an error
// of fn it returns that.
func Split(contents zone.Iterator, apex zone.Name, size uint64, fn func(Range) error) error {
	cut := func(_ []byte, cost uint64) bool { return cost > size }
	return split(contents, apex, cut, fn)
}

// split asks, at each name but the first, whether a range is to end before it;
// cost is what it has.
func split(contents zone.Iterator, apex zone.Name, cut func(ownerKey []byte, cost uint64) bool, fn func(Range) error) error {
	s := &splitter{apexKey: zone.AppendOwnerKey(nil, apex), cutHere: cut, fn: fn}
	for contents.Next() {
		_, ownerKey, t, err := zone.SplitKey(contents.Key())
		if err == nil {
			err = s.rrset(ownerKey, t)
		}
		if err != nil {
			return fmt.Errorf("split %v: %w", apex, err)
		}
	}
	if err := contents.Err(); err != nil {
		return fmt.Errorf("split %v: %w", apex, err)
	}
	if len(s.owner) == 0 {
		return fmt.Errorf("split %v: no contents", apex)
	}
	s.waiting = append(s.waiting, s.now)
	return s.flush(s.apexKey)
}

// splitter follows a zone name by name.
type splitter struct {
	apexKey []byte
	cutHere func(ownerKey []byte, cost uint64) bool
	fn      func(Range) error

	owner    []byte // the present name
	hides    bool   // it is a delegation or a DNAME
	occluded bool   // it is hidden
	cut      []byte // owner key prefix of what hides the names below it
	names    entStack
	now      Range
	cost     uint64
	waiting  []Range // want the next name that is not hidden
}

// rrset takes one RRset.
func (s *splitter) rrset(ownerKey []byte, t zone.Type) error {
	if !bytes.Equal(ownerKey, s.owner) {
		if err := s.name(ownerKey); err != nil {
			return err
		}
	}
	s.hides = s.hides || t == zone.TypeDNAME || t == zone.TypeNS && len(ownerKey) != len(s.apexKey)
	s.now.RRsets++
	s.cost++
	return nil
}

// name takes the next name.
func (s *splitter) name(ownerKey []byte) error {
	if len(s.owner) == 0 {
		if !bytes.Equal(ownerKey, s.apexKey) {
			return errors.New("contents do not begin with the apex")
		}
	} else if err := s.next(ownerKey); err != nil {
		return err
	}
	s.owner, s.hides = append(s.owner[:0], ownerKey...), false
	s.cost += uint64(s.names.enter(ownerKey, len(s.apexKey)))
	s.names.path[len(s.names.path)-1].hasHash = true
	return nil
}

// next closes the present name and, maybe, the range.
func (s *splitter) next(ownerKey []byte) error {
	if !bytes.HasPrefix(ownerKey, s.apexKey[:len(s.apexKey)-1]) || bytes.Compare(ownerKey, s.owner) < 0 {
		return errors.New("contents out of order")
	}
	if s.hides && !s.occluded {
		s.occluded, s.cut = true, append(s.cut[:0], s.owner[:len(s.owner)-1]...)
	}
	if s.occluded && !bytes.HasPrefix(ownerKey, s.cut) {
		s.occluded = false
	}
	if s.cutHere(ownerKey, s.cost) {
		s.now.To = bytes.Clone(ownerKey)
		s.waiting = append(s.waiting, s.now)
		s.now, s.cost = s.begin(ownerKey), 0
	}
	if s.occluded {
		return nil
	}
	return s.flush(ownerKey)
}

// begin is the range that begins with a name.
func (s *splitter) begin(ownerKey []byte) Range {
	r := Range{From: bytes.Clone(ownerKey)}
	if s.occluded {
		r.Hidden = bytes.Clone(s.cut)
	}
	prefix := ownerKey[:len(ownerKey)-1]
	for _, e := range s.names.path {
		if e.hasHash && e.end < len(prefix) && bytes.HasPrefix(prefix, s.names.prefix[:e.end]) {
			r.Owners = append(r.Owners, e.end)
		}
	}
	return r
}

// flush hands out the ranges that waited for the next name.
func (s *splitter) flush(next []byte) error {
	for _, r := range s.waiting {
		r.Next = bytes.Clone(next)
		if err := s.fn(r); err != nil {
			return err
		}
	}
	s.waiting = s.waiting[:0]
	return nil
}
