package zone

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

// Problem is something wrong with a zone's contents as a whole.
type Problem struct {
	Owner  Name // "" for the zone
	Type   Type
	Target Name // the name in the RDATA that is to blame; "" for none
	Err    error
	Notice bool // it is worth knowing but no reason to refuse the zone

	place  place // where the RRset to blame stands
	placed bool  // it is not the present RRset but stands in place
}

// Error names owner, type and reason.
func (p Problem) Error() string {
	switch {
	case p.Target != "":
		return fmt.Sprintf("%s %s %s: %s", p.Owner, p.Type, p.Target, p.Err)
	case p.Owner != "" && p.Type != 0:
		return fmt.Sprintf("%s %s: %s", p.Owner, p.Type, p.Err)
	case p.Owner != "":
		return fmt.Sprintf("%s: %s", p.Owner, p.Err)
	}
	return p.Err.Error()
}

// Unwrap is the reason.
func (p Problem) Unwrap() error { return p.Err }

var (
	errCNAMEOther = errors.New("CNAME and other data at one name (RFC 1034, 3.6.2)")
	errSingleton  = errors.New("more than one record of this type at one name")
	errDNAMECut   = errors.New("DNAME and NS at one name below the apex (RFC 6672, 2.3)")
	errDSNoNS     = errors.New("DS records without NS records at their name")
	errBelowDNAME = errors.New("names below a DNAME cannot be reached (RFC 6672, 2.4): Knot refuses the zone")
	errWildcardNS = errors.New("NS records at a wildcard (RFC 4592, 4.2): BIND refuses the zone")
	errRRsetWire  = errors.New("the RRset does not fit into a DNS message of 65535 bytes")
	errRRsetMany  = fmt.Errorf("RRsets have more than %d records, which BIND refuses unless its max-records-per-type is raised", manyRecords)
)

// manyRecords is the longest RRset that BIND takes by default.
const manyRecords = 100

// Checker checks a stream of KindContents items for what concerns whole
// RRsets and the zone: one SOA and NS at the apex, owners in the zone, CNAME
// alone at its name and single, DNAME single and not at a zone cut, no DS at
// the apex, no NS at a wildcard, no types that cannot stand in a zone, no
// RRset too long for a message; that names stand below a DNAME is a notice, and
// so is one that looks as if its final dot were missing;
// addresses of name servers as glue says. It keeps nothing but the present
// owner, the last DNAME's, and the name servers of the apex and of the present
// delegation.
type Checker struct {
	glue    GlueCheck
	place   place   // of the item, where it is an NS RRset
	top     servers // of the apex
	cut     servers // of the delegation at or above the present name
	apex    []byte  // owner key
	name    Name    // of the apex
	twice   []byte  // prefix of owner keys below the apex's name in the zone; nil: it is one label, or none
	dname   []byte  // prefix of owner keys below the last DNAME
	report  func(Problem)
	owner   []byte // owner key of the present name
	present nameState
	soa, ns bool
}

// nameState is what is known of the present name.
type nameState struct {
	cname, ns, other, reported, address bool
}

// NewChecker makes a Checker for the zone apex. report is called for each
// finding, those of Item while the RRset to blame is the present one; only that
// a name server has no address is known later.
func NewChecker(apex Name, glue GlueCheck, report func(Problem)) *Checker {
	c := &Checker{apex: AppendOwnerKey(nil, apex), name: apex.Fold(), glue: glue, report: report}
	if apex.Labels() > 1 {
		twice := AppendOwnerKey(nil, apex[:len(apex)-1]+apex)
		c.twice = twice[:len(twice)-1]
	}
	return c
}

// Item checks the next item.
func (c *Checker) Item(key, value []byte) {
	kind, owner, t, err := SplitKey(key)
	if err != nil || kind != KindContents {
		c.report(Problem{Err: errBadKey})
		return
	}
	if !bytes.Equal(owner, c.owner) {
		c.owner = append(c.owner[:0], owner...)
		c.present = nameState{}
		if len(c.cut.owner) > 0 && !c.cut.holds(owner) {
			c.leave(&c.cut)
		}
		if !bytes.HasPrefix(owner, c.apex[:len(c.apex)-1]) {
			c.problem(t, errOutOfZone)
		}
		if len(c.dname) > 0 && bytes.HasPrefix(owner, c.dname) {
			c.report(Problem{Owner: c.ownerName(), Type: t, Err: errBelowDNAME, Notice: true})
		}
		if c.twice != nil && bytes.HasPrefix(owner, c.twice) {
			c.report(Problem{Owner: c.ownerName(), Type: t, Err: errFinalDot, Notice: true})
		}
	}
	if err := CheckType(t); err != nil {
		c.problem(t, errNotData)
	}
	c.shape(t, Value(value), len(owner) == len(c.apex))
	if c.glue != GlueIgnore {
		c.servers(t, Value(value), len(owner) == len(c.apex))
	}
	c.size(t, Value(value))
	c.finalDot(t, Value(value))
}

// size checks that the RRset fits into an answer, its owner compressed, and
// counts its records.
func (c *Checker) size(t Type, v Value) {
	body := len(v.body())
	if body <= manyRecords*2 {
		return
	}
	n := v.Count()
	// A record of the value has the length of its RDATA before it; on the wire
	// it has a pointer to the owner and the fixed fields, that length among
	// them.
	if messageHeader+len(c.ownerName())+questionFields+body+n*recordFields > maxMessage {
		c.problem(t, errRRsetWire)
	} else if n > manyRecords {
		c.report(Problem{Owner: c.ownerName(), Type: t, Err: errRRsetMany, Notice: true})
	}
}

// shape checks which types stand together at a name. Types come in ascending
// order, so that NS is seen before DNAME and DS.
func (c *Checker) shape(t Type, v Value, atApex bool) {
	s := &c.present
	switch t {
	case TypeCNAME:
		s.cname = true
	case TypeRRSIG, TypeNSEC, Type(dns.TypeKEY), Type(dns.TypeSIG), Type(dns.TypeNXT):
	default:
		s.other = true
	}
	if s.cname && s.other && !s.reported {
		s.reported = true
		c.problem(t, errCNAMEOther)
	}
	switch t {
	case TypeNS:
		s.ns = true
		c.ns = c.ns || atApex
		if isWildcardKey(c.owner) {
			c.problem(t, errWildcardNS)
		}
	case TypeSOA:
		c.soa = c.soa || atApex
		if !atApex {
			c.problem(t, errSOABelow)
		}
		c.single(t, v)
	case TypeCNAME:
		c.single(t, v)
	case TypeDNAME:
		c.single(t, v)
		if s.ns && !atApex {
			c.problem(t, errDNAMECut)
		}
		c.dname = append(c.dname[:0], c.owner[:len(c.owner)-1]...)
	case TypeDS:
		if atApex {
			c.problem(t, errApexDS)
		} else if !s.ns {
			c.report(Problem{Owner: c.ownerName(), Type: t, Err: errDSNoNS, Notice: true})
		}
	default:
	}
}

// isWildcardKey reports whether the first label of an owner key's name is "*".
func isWildcardKey(owner []byte) bool {
	n := len(owner) - 3
	return n >= 0 && owner[n] == '*' && owner[n+1] == 0 && (n == 0 || owner[n-1] == 0)
}

func (c *Checker) single(t Type, v Value) {
	if v.Count() > 1 {
		c.problem(t, errSingleton)
	}
}

func (c *Checker) problem(t Type, err error) {
	c.report(Problem{Owner: c.ownerName(), Type: t, Err: err})
}

// ownerName is the present owner; "" where its key is malformed.
func (c *Checker) ownerName() Name {
	n, err := NameOfKey(c.owner)
	if err != nil {
		return ""
	}
	return n
}

// Finish reports what is missing once all items were seen.
func (c *Checker) Finish() {
	c.leave(&c.cut)
	c.leave(&c.top)
	if !c.soa {
		c.report(Problem{Err: errNoSOA})
	}
	if !c.ns {
		c.report(Problem{Err: errNoApexNS})
	}
}
