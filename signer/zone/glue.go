package zone

import (
	"bytes"
	"errors"
	"slices"
)

// GlueCheck says what becomes of a zone in which a name server has no address
// where it needs one: one of the zone's own that lies in the zone, and one of
// a delegation that lies at or below it (RFC 9471).
type GlueCheck int

// What is done about name servers without an address.
const (
	GlueNotice  GlueCheck = iota // it is told
	GlueRequire                  // the zone is refused
	GlueIgnore                   // nobody looks
)

var (
	// ErrGlue reports a delegation to a name server at or below it that has no
	// address in the zone.
	ErrGlue = errors.New("glue is missing: a name server at or below its own delegation has no address in the zone (RFC 9471)")
	// ErrServerAddress reports a name server of the zone itself that lies in
	// it and has no address there.
	ErrServerAddress = errors.New("a name server of the zone lies in it and has no address in it")
)

// MissingAddress is the finding for a name server that has none. ns is the
// owner key of its NS RRset, target that of the server.
func (g GlueCheck) MissingAddress(apex, ns, target []byte) Problem {
	p := Problem{Type: TypeNS, Err: ErrGlue, Notice: g != GlueRequire}
	if bytes.Equal(apex, ns) {
		p.Err = ErrServerAddress
	}
	p.Owner, _ = NameOfKey(ns)
	p.Target, _ = NameOfKey(target)
	return p
}

// ServersBelow calls fn with the owner key of each name server of an NS RRset
// that lies at or below its owner, given as an owner key. What fn gets is valid
// until it returns.
func ServersBelow(owner []byte, v Value, fn func(target []byte)) {
	var key []byte // most name servers are elsewhere: for them, nothing is allocated
	prefix := owner[:len(owner)-1]
	plain := bytes.IndexByte(owner, 1) < 0
	first := byte(len(prefix) - 1 - bytes.LastIndexByte(prefix[:max(len(prefix)-1, 0)], 0) - 1)
	for data := range v.Records() {
		// A name without escapes is as long as its key: what does not have a
		// label of the owner's length in its place is told in no time.
		if at := len(data) - len(owner); plain && (at < 0 || len(prefix) > 0 && data[at] != first) {
			continue
		}
		if key = appendOwnerKey(key[:0], data); bytes.HasPrefix(key, prefix) {
			fn(key)
		}
	}
}

// CoversKey reports whether a wildcard's owner key is that of an ancestor's
// wildcard of a name, given as an owner key.
func CoversKey(wildcard, name []byte) bool {
	if !isWildcardKey(wildcard) {
		return false
	}
	above := wildcard[:len(wildcard)-3] // without *
	return len(name) > len(above)+1 && bytes.HasPrefix(name, above)
}

// place is where an RRset stands in a zone file.
type place struct{ file, line int }

// servers is the name servers of an NS RRset that need an address in the zone.
type servers struct {
	owner   []byte // owner key; empty: there is no RRset
	place   place
	targets []target // in the order of their keys
	keys    []byte
}

// target is a name server; its owner key is servers.keys[from:to].
type target struct {
	from, to int
	found    bool // its address
}

func (s *servers) key(i int) []byte { return s.keys[s.targets[i].from:s.targets[i].to] }

// begin takes up an NS RRset.
func (s *servers) begin(owner []byte, v Value, at place) {
	s.owner, s.place = append(s.owner[:0], owner...), at
	s.targets, s.keys = s.targets[:0], s.keys[:0]
	ServersBelow(owner, v, func(key []byte) {
		s.targets = append(s.targets, target{from: len(s.keys), to: len(s.keys) + len(key)})
		s.keys = append(s.keys, key...)
	})
	if len(s.targets) > 1 {
		slices.SortFunc(s.targets, func(a, b target) int { return bytes.Compare(s.keys[a.from:a.to], s.keys[b.from:b.to]) })
	}
}

// holds reports whether a name is the owner or below it.
func (s *servers) holds(owner []byte) bool {
	return len(s.owner) > 0 && bytes.HasPrefix(owner, s.owner[:len(s.owner)-1])
}

// address notes that a name has one.
func (s *servers) address(owner []byte) {
	if len(s.targets) == 0 {
		return
	}
	i, ok := slices.BinarySearchFunc(s.targets, owner, func(t target, key []byte) int {
		return bytes.Compare(s.keys[t.from:t.to], key)
	})
	// Two records may name one server in different case.
	for ; ok && i < len(s.targets) && bytes.Equal(s.key(i), owner); i++ {
		s.targets[i].found = true
	}
}

// wildcard notes that names below a wildcard's parent may have one by it.
func (s *servers) wildcard(owner []byte) {
	for i := range s.targets {
		if CoversKey(owner, s.key(i)) {
			s.targets[i].found = true
		}
	}
}

// servers follows NS RRsets and addresses: glue stands right behind its
// delegation.
func (c *Checker) servers(t Type, v Value, atApex bool) {
	switch t {
	case TypeNS:
		switch {
		case atApex:
			c.begin(&c.top, v)
		case !c.cut.holds(c.owner) && (len(c.dname) == 0 || !bytes.HasPrefix(c.owner, c.dname)):
			c.begin(&c.cut, v)
		}
	case TypeA, TypeAAAA:
		c.present.address = true
		c.cut.address(c.owner)
		if len(c.top.targets) == 0 {
			return
		}
		c.top.address(c.owner)
		// Closer names that would stop the wildcard are not looked for: what
		// is refused here for certain has no address.
		if isWildcardKey(c.owner) {
			c.top.wildcard(c.owner)
		}
	default:
	}
}

// begin takes up the present NS RRset. A comes before NS at a name.
func (c *Checker) begin(s *servers, v Value) {
	s.begin(c.owner, v, c.place)
	if c.present.address {
		s.address(c.owner)
	}
}

// leave tells which servers got no address.
func (c *Checker) leave(s *servers) {
	for i := range s.targets {
		if !s.targets[i].found {
			p := c.glue.MissingAddress(c.apex, s.owner, s.key(i))
			p.place, p.placed = s.place, true
			c.report(p)
		}
	}
	s.owner, s.targets = s.owner[:0], s.targets[:0]
}
