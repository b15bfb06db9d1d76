package zone

import (
	"errors"

	"github.com/miekg/dns"
)

// errFinalDot is what a name without its final dot leads to: the zone's name
// was put behind it, where that stood already.
var errFinalDot = errors.New("names end in the zone's own name twice: is a final dot missing?")

// finalDot looks for names in RDATA that end in the zone's name twice. Where
// that is one label, such a name may be meant; a name server whose name ends in
// that of its delegation, and then in the zone's, is not.
func (c *Checker) finalDot(t Type, v Value) {
	at := 0
	switch t {
	case TypeNS, TypeCNAME, TypeDNAME, Type(dns.TypePTR):
	case Type(dns.TypeMX):
		at = 2
	case Type(dns.TypeSRV):
		at = 6
	default:
		return
	}
	if len(c.name) < 2 || c.twice == nil && t != TypeNS {
		return
	}
	owner := Name("")
	for data := range v.Records() {
		if len(data) < at+2*len(c.name)-1 {
			continue
		}
		target := data[at:]
		if !endsIn(target, len(target), c.name) {
			continue
		}
		// What stands before the zone's name, without the root.
		before := len(target) - len(c.name)
		bad := c.twice != nil && endsIn(target, before, c.name[:len(c.name)-1])
		if !bad && t == TypeNS {
			if owner == "" {
				owner = c.ownerName()
			}
			bad = owner != "" && endsIn(target, before, owner[:len(owner)-1])
		}
		if bad {
			c.report(Problem{Owner: c.ownerName(), Type: t, Target: Name(target), Err: errFinalDot, Notice: true})
			return // one of an RRset is enough
		}
	}
}

// endsIn reports whether the labels of a name up to an offset end in others.
func endsIn(name []byte, end int, labels Name) bool {
	from := end - len(labels)
	if from < 0 {
		return false
	}
	for i := range labels {
		if foldByte(name[from+i]) != foldByte(labels[i]) {
			return false
		}
	}
	at := 0
	for at < from {
		at += 1 + int(name[at])
	}
	return at == from
}
