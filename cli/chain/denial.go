package chain

import (
	"encoding/binary"
	"fmt"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// denial is what an answer without the records that were asked for says.
type denial struct {
	ok       bool
	optOut   bool // a signed delegation could not hide there, an unsigned one may
	cut      bool // the name is a delegation, or may be one
	kind     string
	exists   bool   // the name does, or has names below it
	ignored  bool   // it has more iterations than validators compute
	open     string // why validators do not count it as proven, though nothing is wrong
	problems []problem
}

// The kinds of denial chains.
const (
	kindNSEC   = "nsec"
	kindNSEC3  = "nsec3"
	kindOptOut = "nsec3-opt-out"
)

// proof is the records of one answer that are to prove an absence.
type proof struct {
	*judge
	name     zone.Name
	t        zone.Type
	nxdomain bool
	nsec     []validate.NSEC
	nsec3    []validate.NSEC3
}

// proofOf reads the records of an answer that are to prove an absence. broken
// are those that are not valid, iterations the most that an NSEC3 has.
func (j *judge) proofOf(r *reply) (p *proof, broken []problem, iterations uint16) {
	p = &proof{judge: j, nxdomain: r.nxdomain()}
	read := 0
	for i := range r.authority {
		set := &r.authority[i]
		if set.Type == zone.TypeSOA {
			// Without it there is no telling for how long it holds (RFC 4035, 3.1.3).
			if v := j.set(set); !v.ok {
				broken = append(broken, v.problems...)
			}
		}
		if set.Type != zone.TypeNSEC && set.Type != zone.TypeNSEC3 || len(set.Data) == 0 {
			continue
		}
		if read++; read > validate.MaxProof {
			break
		}
		v := j.set(set)
		if !v.ok || len(set.Data) > 1 {
			broken = append(broken, v.problems...)
			continue
		}
		if set.Type == zone.TypeNSEC {
			if n, ok := validate.ParseNSEC(set); ok && v.sig != nil && !v.sig.Synthesized(set) {
				p.nsec = append(p.nsec, n)
			}
			continue
		}
		iterations = max(iterations, iterationsOf(set.Data[0]))
		if h, ok := validate.ParseNSEC3(set, j.apex); ok {
			p.nsec3 = append(p.nsec3, h)
		}
	}
	p.nsec3 = p.nsec3[:min(len(p.nsec3), maxProof3)]
	return p, broken, iterations
}

// denies judges the proof that a name does not exist, or has no records of a
// type (RFC 4035, 5.4; RFC 5155, 8).
func (j *judge) denies(r *reply, name zone.Name, t zone.Type) (d denial) {
	p, broken, iterations := j.proofOf(r)
	p.name, p.t = name, t
	switch {
	case len(broken) > 0:
		d.problems = broken[:1]
	case iterations > validate.MaxIterations:
		d.ok, d.kind, d.open = true, kindNSEC3, p.tooMany(iterations)
		d.ignored = true
	case len(p.nsec) > 0:
		d = p.byNSEC()
	case len(p.nsec3) > 0:
		d = p.byNSEC3()
	default:
		d.problems = []problem{p.say(CodeDenialMissing, "nothing proves that %s does not exist", "nothing proves that %s has no %s")}
	}
	if d.ok && d.optOut {
		d.open = p.underOptOut()
	}
	if iterations > 0 {
		d.problems = append(d.problems, j.iterated(iterations))
	}
	return d
}

// iterated tells of iterations.
func (j *judge) iterated(n uint16) problem {
	return problem{code: CodeDenialIterations, owner: j.apex, text: fmt.Sprintf("the NSEC3 records of %s have %d iterations", j.apex, n)}
}

// underOptOut says why validators do not count a proof, and nothing is wrong: a
// delegation that is not signed may hide there (RFC 5155, 9.2).
func (j *judge) underOptOut() string {
	return fmt.Sprintf("the NSEC3 records of %s around the name have opt-out (RFC 5155, 9.2)", j.apex)
}

// tooMany says why a proof counts for nothing, and is no fault (RFC 9276, 3.2).
func (j *judge) tooMany(iterations uint16) string {
	return fmt.Sprintf("the NSEC3 records of %s have %d iterations, more than validators compute", j.apex, iterations)
}

// noCloser judges the proof that a name that a wildcard answered for does not
// exist itself, nor one between it and the wildcard's parent, which has so many
// labels (RFC 4035, 5.3.4; RFC 5155, 8.8).
func (j *judge) noCloser(r *reply, name zone.Name, labels int) (d denial) {
	p, _, iterations := j.proofOf(r)
	if iterations > 0 {
		d.problems = []problem{j.iterated(iterations)}
	}
	if iterations > validate.MaxIterations {
		d.ok, d.open = true, p.tooMany(iterations)
		return d
	}
	closer := name
	for closer.Labels() > labels+1 {
		closer = closer.Parent()
	}
	if cover := p.find3(func(h *validate.NSEC3) bool { return h.Covers(closer) }); cover != nil {
		d.ok = true
		if cover.OptOut {
			d.open = p.underOptOut()
		}
	}
	for i := range p.nsec {
		n := &p.nsec[i]
		speaks := !name.Under(n.Owner) || !validate.CannotSpeak(n.Types)
		d.ok = d.ok || speaks && n.Covers(name, j.apex) && !n.Next.Under(name) && n.Encloser(name).Labels() == labels
	}
	return d
}

// maxProof3 is how many NSEC3 records are computed with: a proof needs three.
const maxProof3 = 4

// iterationsOf reads NSEC3 RDATA.
func iterationsOf(data []byte) uint16 {
	if len(data) < 5 {
		return 0
	}
	return binary.BigEndian.Uint16(data[2:])
}

// say makes a problem with one of two texts: where the name, or the type, is
// said not to be there.
func (p *proof) say(code Code, noName, noData string) problem {
	out := problem{code: code, owner: p.name, t: p.t}
	if p.nxdomain && noName != "" || noData == "" {
		out.text = fmt.Sprintf(noName, p.name)
	} else {
		out.text = fmt.Sprintf(noData, p.name, p.t)
	}
	return out
}

func (p *proof) fail(code Code, noName, noData string) denial {
	return denial{problems: []problem{p.say(code, noName, noData)}}
}

// rcode is an NXDOMAIN whose proof says that the name exists. Some validators
// take the proof's word, others refuse it.
func (p *proof) rcode(kind string) denial {
	return denial{ok: true, exists: true, kind: kind, problems: []problem{p.say(CodeDenialRcode, rcodeName, "")}}
}

// hasType judges the bitmap of a record that is the name's own, or its
// wildcard's.
func (p *proof) hasType(types []byte, kind string) denial {
	d := denial{ok: true, exists: true, kind: kind, cut: validate.HasType(types, zone.TypeNS) && !validate.HasType(types, zone.TypeSOA)}
	if validate.HasType(types, zone.TypeNXNAME) {
		d.exists = false // RFC 9824, 3.1
	}
	listed := p.t
	switch {
	case validate.HasType(types, p.t):
	case validate.HasType(types, zone.TypeCNAME):
		listed = zone.TypeCNAME
	case p.t == zone.TypeDS && validate.HasType(types, zone.TypeSOA) && !p.name.Equal(p.apex):
		listed = zone.TypeSOA // it is the zone's own word, not its parent's (RFC 6840, 4.4)
	case p.t != zone.TypeDS && d.cut:
		listed = zone.TypeNS // it is the parent's word, not the zone's
	default:
		return d
	}
	return p.fail(CodeDenialBitmap, "", "the proof that %s has no %s lists the type "+listed.String())
}

const (
	rcodeName = "the answer about %s says NXDOMAIN, and its proof that the name exists"
	noCover   = "the proof that %s does not exist does not cover the name"
	noCoverT  = "the proof that %s has no %s does not cover the name"
	noWild    = "nothing proves that no wildcard answers for %s"
	noWildT   = "nothing proves that a wildcard that answers for %s has no %s"
)

// byNSEC judges a proof by NSEC.
func (p *proof) byNSEC() denial {
	for i := range p.nsec {
		if n := &p.nsec[i]; n.Owner.Equal(p.name) {
			if p.nxdomain && !validate.HasType(n.Types, zone.TypeNXNAME) {
				return p.rcode(kindNSEC)
			}
			return p.hasType(n.Types, kindNSEC)
		}
	}
	for i := range p.nsec {
		n := &p.nsec[i]
		if !n.Covers(p.name, p.apex) || p.name.Under(n.Owner) && validate.CannotSpeak(n.Types) {
			continue
		}
		if n.Next.Under(p.name) {
			if p.nxdomain {
				return p.rcode(kindNSEC)
			}
			return denial{ok: true, exists: true, kind: kindNSEC}
		}
		return p.wildcardNSEC("\x01*" + n.Encloser(p.name))
	}
	return p.fail(CodeDenialNotCovering, noCover, noCoverT)
}

// wildcardNSEC judges what is proven of the wildcard of a name that does not
// exist.
func (p *proof) wildcardNSEC(wildcard zone.Name) denial {
	for i := range p.nsec {
		n := &p.nsec[i]
		if n.Owner.Equal(wildcard) && !p.nxdomain {
			d := p.hasType(n.Types, kindNSEC)
			d.cut = false
			return d
		}
		if n.Covers(wildcard, p.apex) && (p.nxdomain || p.t == zone.TypeDS) {
			return denial{ok: true, kind: kindNSEC}
		}
	}
	if p.t == zone.TypeDS {
		return denial{ok: true, kind: kindNSEC} // no wildcard makes a DS
	}
	return p.fail(CodeDenialWildcard, noWild, noWildT)
}

func (p *proof) find3(is func(*validate.NSEC3) bool) *validate.NSEC3 {
	for i := range p.nsec3 {
		if is(&p.nsec3[i]) {
			return &p.nsec3[i]
		}
	}
	return nil
}

// byNSEC3 judges a proof by NSEC3.
func (p *proof) byNSEC3() denial {
	if h := p.find3(func(h *validate.NSEC3) bool { return h.Is(p.name) }); h != nil {
		if p.nxdomain {
			return p.rcode(kindOf(h))
		}
		return p.hasType(h.Types, kindOf(h))
	}
	for closer := p.name; !closer.Equal(p.apex) && closer.Under(p.apex); closer = closer.Parent() {
		above := closer.Parent()
		h := p.find3(func(h *validate.NSEC3) bool { return h.Is(above) })
		if h == nil {
			continue
		}
		cover := p.find3(func(h *validate.NSEC3) bool { return h.Covers(closer) })
		if cover == nil || validate.CannotSpeak(h.Types) {
			break
		}
		return p.wildcardNSEC3("\x01*"+above, cover)
	}
	return p.fail(CodeDenialNotCovering, noCover, noCoverT)
}

func kindOf(h *validate.NSEC3) string {
	if h.OptOut {
		return kindOptOut
	}
	return kindNSEC3
}

// wildcardNSEC3 judges what is proven of the wildcard of a name that does not
// exist, or is under opt-out.
func (p *proof) wildcardNSEC3(wildcard zone.Name, cover *validate.NSEC3) denial {
	d := denial{ok: true, kind: kindOf(cover), optOut: cover.OptOut, cut: cover.OptOut}
	if p.t == zone.TypeDS && !p.nxdomain {
		if !cover.OptOut {
			return p.fail(CodeDenialOptOut, "", "the NSEC3 that denies %s has no opt-out, and so does not prove that a delegation has no %s")
		}
		return d
	}
	if h := p.find3(func(h *validate.NSEC3) bool { return h.Is(wildcard) }); h != nil && !p.nxdomain {
		d := p.hasType(h.Types, kindOf(h))
		d.cut, d.optOut = false, cover.OptOut
		return d
	}
	covered := p.find3(func(h *validate.NSEC3) bool { return h.Covers(wildcard) })
	if !p.nxdomain && cover.OptOut || p.nxdomain && covered != nil {
		return d
	}
	return p.fail(CodeDenialWildcard, noWild, noWildT)
}
