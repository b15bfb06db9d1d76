package chain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// outcome is what one server's answer to a question is worth.
type outcome struct {
	answered bool
	ok       bool
	result   string
	problems []problem
	set      *validate.RRset
	verdict  verdict
	target   zone.Name // of an alias
	kind     string    // of the denial chain
	open     string    // why validators do not count it as validated, though nothing is wrong
}

// The results of questions.
const (
	resultRecords = "records"
	resultAlias   = "alias"
	resultNoData  = "no-data"
	resultNoName  = "no-name"
	resultNone    = "none"
)

// typeUnused is of the range for private use, where no zone has records.
const typeUnused = zone.Type(65280)

// examine asks all servers of the last zone on the way all that is to be asked
// about the zone and the name. target is what the name is an alias of.
func (w *walk) examine(ctx context.Context, r *Report, z *zoneLink, name zone.Name, types []zone.Type) (target zone.Name, absent bool) {
	w.ownServers(ctx, z)
	ask := []question{
		{name: z.apex, t: zone.TypeSOA, tcp: true},
		{name: z.apex, t: zone.TypeSOA},
		{name: z.apex, t: zone.TypeNS},
		{name: z.apex, t: zone.TypeCDS},
		{name: z.apex, t: zone.TypeCDNSKEY},
	}
	own := len(ask)
	for _, t := range types {
		if t == zone.TypeDS && name.Equal(z.apex) && z.above != nil {
			w.parents(ctx, r, z.above, name)
			continue
		}
		ask = append(ask, question{name: name, t: t})
	}
	named := len(ask)
	if len(types) > 0 {
		ask = append(ask, question{name: name, t: typeUnused})
	}
	if unlikely, ok := w.unlikely(z.apex); ok {
		ask = append(ask, question{name: unlikely, t: zone.TypeA})
	}
	all := w.askAll(ctx, z, ask)
	for i, q := range ask[1:] {
		w.tell(z, q, all[i+1])
	}
	for i := own; i < named; i++ {
		best := bestOf(all[i])
		r.answer(z, ask[i], best)
		if best.target != "" {
			target = best.target
		}
		absent = absent || best.ok && best.result == resultNoName
	}
	w.serials(z)
	w.expire(z, bestOf(all[1]))
	w.children(z, bestOf(all[3]).set, bestOf(all[4]).set)
	z.troubles(true)
	z.seen()
	return target, absent
}

// parents asks for the DS of a zone, which its parent has (RFC 4035, 3.1.4.1).
func (w *walk) parents(ctx context.Context, r *Report, up *zoneLink, name zone.Name) {
	q := question{name: name, t: zone.TypeDS}
	r.answer(up, q, bestOf(w.askAll(ctx, up, []question{q})[0]))
}

// unlikely is a name of the zone that nobody has made.
func (w *walk) unlikely(apex zone.Name) (zone.Name, bool) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", apex, w.cfg.Now.Unix()))
	label := "sluice-check-" + hex.EncodeToString(sum[:6])
	name, err := zone.NameFromWire([]byte(string(rune(len(label))) + label + string(apex)))
	return name, err == nil
}

// ownServers adds the servers that the zone names itself, and tells where the
// parent names others.
func (w *walk) ownServers(ctx context.Context, z *zoneLink) {
	if z.above == nil || w.cfg.Resolver.IsValid() {
		return
	}
	r := w.well(ctx, z, question{name: z.apex, t: zone.TypeNS})
	if r == nil || r.of(z.apex, zone.TypeNS) == nil {
		return
	}
	d := delegationOf(r.of(z.apex, zone.TypeNS), r.extras, z.apex)
	if slices.Equal(d.names, z.parent) {
		return
	}
	z.say(CodeDelegationNS, fmt.Sprintf("%s names the servers %s, and %s names %s", z.above.apex, names(z.parent), z.apex, names(d.names)))
	d.names = slices.DeleteFunc(d.names, func(name zone.Name) bool { return slices.Contains(z.parent, name) })
	more, without := w.servers(ctx, d, 0)
	for _, name := range without {
		z.say(CodeServerNoAddress, fmt.Sprintf("the name server %s of %s has no address", name, z.apex))
	}
	for _, s := range more {
		if len(z.servers) < maxAddresses && !slices.ContainsFunc(z.servers, func(o *server) bool { return o.addr == s.addr }) {
			z.servers = append(z.servers, s)
		}
	}
}

func names(all []zone.Name) string {
	var out []string
	for _, n := range all {
		out = append(out, n.String())
	}
	return strings.Join(firstOf(out, 6), ", ")
}

// askAll asks each server all questions; outcomes are by question, then by
// server. A question over TCP is about the server alone.
func (w *walk) askAll(ctx context.Context, z *zoneLink, ask []question) [][]outcome {
	all := make([][]outcome, len(ask))
	for i := range all {
		all[i] = make([]outcome, len(z.servers))
	}
	j := w.judge(z)
	w.each(z, func(n int, s *server) {
		for i, q := range slices.Backward(ask) { // TCP last: it may take long
			r := w.ask.ask(ctx, s, q)
			if q.tcp && r.problem != nil && (r.problem.code == CodeServerSilent || r.problem.code == CodeServerUnreachable) && s.answers() {
				s.note(trouble{CodeServerTCP, "does not answer over TCP: " + strings.TrimPrefix(r.problem.text, "over TCP: ")})
			}
			if q.tcp {
				continue
			}
			if t := r.lame(z.apex); t != nil {
				s.note(*t)
				continue
			}
			if down := r.referral(z.apex); down != nil {
				s.note(trouble{CodeServerLame, fmt.Sprintf("refers to the servers of %s", down.Owner.Fold())})
				continue
			}
			all[i][n] = j.outcome(r, q, z.keys != nil)
		}
	})
	return all
}

// answers reports whether a server has answered, and forgets that it did not
// where it had before.
func (s *server) answers() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.millis == 0 {
		return false
	}
	s.dead = nil
	return true
}

// outcome judges an answer; secure says that the zone has keys to validate it.
func (j *judge) outcome(r *reply, q question, secure bool) (o outcome) {
	o.answered, o.ok, o.result = true, true, resultNoData
	set := r.renamed(q.name)
	if set == nil {
		set = r.of(q.name, q.t)
	}
	if set == nil {
		set = r.of(q.name, zone.TypeCNAME)
	}
	if set == nil {
		if r.nxdomain() {
			o.result = resultNoName
		}
		if secure {
			d := j.denies(r, q.name, q.t)
			o.ok, o.kind, o.problems, o.open = d.ok, d.kind, d.problems, d.open
			switch {
			case d.exists:
				o.result = resultNoData
			case d.ok && compact(r, q.name):
				o.result = resultNoName
			}
		}
		return o
	}
	o.set, o.result = set, resultRecords
	if set.Type != q.t {
		o.result = resultAlias
		if q.t != zone.TypeCNAME {
			o.target = aliasOf(set, q.name)
		}
	}
	if !secure {
		return o
	}
	o.verdict = j.set(set)
	o.ok = o.verdict.ok
	o.problems = append(o.verdict.problems, j.unsignedBy(set, o.verdict)...)
	if o.ok && o.verdict.sig.Synthesized(set) && !set.Owner.IsWildcard() {
		d := j.noCloser(r, set.Owner, int(o.verdict.sig.Labels))
		o.ok, o.open = d.ok, d.open
		o.problems = append(o.problems, d.problems...)
		if !o.ok {
			o.problems = append(o.problems, problem{code: CodeDenialWildcard, owner: set.Owner.Fold(), t: set.Type, text: fmt.Sprintf("%s %s comes from a wildcard, and nothing proves that there is no closer name", set.Owner.Fold(), set.Type)})
		}
	}
	return o
}

// renamed finds the DNAME that an answer about a name below it comes of; nil
// where there is none. The CNAME beside it is made of it and never signed
// (RFC 6672, 5.3.1).
func (r *reply) renamed(name zone.Name) *validate.RRset {
	for i := range r.answer {
		if d := &r.answer[i]; d.Type == zone.TypeDNAME && name.Under(d.Owner) && !name.Equal(d.Owner) {
			return d
		}
	}
	return nil
}

// compact reports whether the proof says by NXNAME that a name does not exist
// (RFC 9824, 3.1).
func compact(r *reply, name zone.Name) bool {
	set := validate.Find(r.authority, name, zone.TypeNSEC)
	if set == nil {
		return false
	}
	n, ok := validate.ParseNSEC(set)
	return ok && validate.HasType(n.Types, zone.TypeNXNAME)
}

// aliasOf is what a CNAME or DNAME makes of a name; empty where nothing.
func aliasOf(set *validate.RRset, name zone.Name) zone.Name {
	target, err := zone.NameFromWire(set.Data[0])
	if err != nil {
		return ""
	}
	if set.Type == zone.TypeDNAME {
		if target, err = zone.NameFromWire([]byte(name[:len(name)-len(set.Owner)] + target)); err != nil {
			return ""
		}
	}
	return target.Fold()
}

// tell adds what came of a question to the link.
func (w *walk) tell(z *zoneLink, q question, all []outcome) {
	var t tally
	for i, o := range all {
		if !o.answered {
			continue
		}
		t.add(z.servers[i], o.ok, o.problems)
		w.expiry(z, o.verdict)
		if o.kind == kindOptOut || z.out.Denial == "" {
			z.out.Denial = o.kind
		}
		if q.t == zone.TypeSOA && o.set != nil && len(o.set.Data[0]) >= 22 {
			n := soaNumber(o.set.Data[0], 0)
			s := z.servers[i]
			s.mu.Lock()
			s.serial = &n
			s.mu.Unlock()
		}
	}
	t.into(z)
	if t.broken() {
		z.out.Verdict = Bogus
	}
	if t.asked == 0 && q.t == zone.TypeSOA {
		z.out.Verdict = Unreachable
	}
}

// soaNumber is one of the five numbers at the end of SOA RDATA.
func soaNumber(data []byte, n int) uint32 {
	at := data[len(data)-20+4*n:]
	return uint32(at[0])<<24 | uint32(at[1])<<16 | uint32(at[2])<<8 | uint32(at[3])
}

// bestOf is the first outcome that is well, else the first.
func bestOf(all []outcome) (best outcome) {
	best.result = resultNone
	for _, o := range all {
		if o.ok {
			return o
		}
		if o.answered && !best.answered {
			best = o
		}
	}
	return best
}

// answer takes note of what was asked for.
func (r *Report) answer(z *zoneLink, q question, o outcome) {
	a := Answer{Owner: q.name.String(), Type: q.t.String(), Result: o.result, Secure: o.answered && o.ok && o.open == "" && z.out.Verdict == Secure, open: o.open}
	if o.set != nil {
		for _, data := range o.set.Data[:min(len(o.set.Data), maxAddresses)] {
			a.Data = append(a.Data, dataText(o.set.Type, data))
		}
		r.sets = append(r.sets, found{set: o.set, secure: a.Secure})
	}
	z.out.Answers = append(z.out.Answers, a)
}

// dataText is RDATA as a zone file has it.
func dataText(t zone.Type, data []byte) string {
	wire := append([]byte{0, byte(t >> 8), byte(t), 0, 1, 0, 0, 0, 0, byte(len(data) >> 8), byte(len(data))}, data...)
	rr, _, err := dns.UnpackRR(wire, 0)
	if err != nil {
		return hex.EncodeToString(data)
	}
	return strings.TrimPrefix(rr.String(), rr.Header().String())
}

// serials compares those of the servers.
func (w *walk) serials(z *zoneLink) {
	by := map[uint32]int{}
	var order []uint32
	for _, s := range z.servers {
		if s.serial == nil {
			continue
		}
		if by[*s.serial]++; by[*s.serial] == 1 {
			order = append(order, *s.serial)
		}
	}
	if len(order) < 2 {
		return
	}
	slices.SortFunc(order, func(a, b uint32) int {
		if zone.Serial(a).Before(zone.Serial(b)) {
			return 1
		}
		return -1
	})
	var parts []string
	for _, n := range order {
		parts = append(parts, fmt.Sprintf("%d at %d of them", n, by[n]))
	}
	z.say(CodeServersSerial, fmt.Sprintf("the servers of %s have different serials: %s", z.apex, strings.Join(firstOf(parts, 4), ", ")))
}

// expire compares the signatures' end with SOA EXPIRE.
func (w *walk) expire(z *zoneLink, soa outcome) {
	if z.keys == nil || z.out.Expires == nil || soa.set == nil || len(soa.set.Data[0]) < 22 {
		return
	}
	expire := time.Duration(soaNumber(soa.set.Data[0], 3)) * time.Second
	if left := z.out.Expires.Sub(w.cfg.Now); left > 0 && left < expire {
		z.say(CodeSignatureExpire, fmt.Sprintf("a signature of %s expires in %s, and a secondary serves what it has for %s (SOA EXPIRE)", z.apex, about(left), about(expire)))
	}
}

// children compares what the zone says its parent is to have (RFC 7344) with
// the parent and with the zone's keys.
func (w *walk) children(z *zoneLink, cds, cdnskey *validate.RRset) {
	if z.keys == nil || z.above == nil && z.ds == nil {
		return
	}
	inCDNSKEY := func(ds []byte) bool {
		return slices.ContainsFunc(cdnskey.Data, func(data []byte) bool {
			own, err := keymgr.DS(z.apex, data, ds[3])
			return err == nil && bytes.Equal(own, ds)
		})
	}
	if cdnskey != nil && cdnskey.Type == zone.TypeCDNSKEY {
		for _, data := range cdnskey.Data {
			if len(data) > 5 && !slices.ContainsFunc(z.keys, func(k validate.Key) bool { return bytes.Equal(k.RData, data) }) {
				z.say(CodeCDSNoKey, fmt.Sprintf("a CDNSKEY of %s is of key %d, which the zone does not have", z.apex, zone.KeyTag(data)))
			}
		}
	}
	if cds == nil || cds.Type != zone.TypeCDS {
		return
	}
	var want [][]byte
	for _, ds := range cds.Data[:min(len(cds.Data), maxDS)] {
		switch {
		case len(ds) < 5:
			continue
		case bytes.Equal(ds, []byte{0, 0, 0, 0, 0}):
			z.say(CodeCDSAhead, fmt.Sprintf("%s asks its parent to remove the DS, and it is still there", z.apex))
			return
		case ds[3] != keymgr.DigestSHA256 && ds[3] != keymgr.DigestSHA384:
			continue
		case !slices.ContainsFunc(z.keys, func(k validate.Key) bool { return k.Matches(z.apex, ds) }):
			z.say(CodeCDSNoKey, fmt.Sprintf("a CDS of %s is of key %s, which the zone does not have", z.apex, dsTags([][]byte{ds})))
		case cdnskey != nil && cdnskey.Type == zone.TypeCDNSKEY && !inCDNSKEY(ds):
			z.say(CodeCDSDisagree, fmt.Sprintf("%s has a CDS of key %s and no CDNSKEY of it", z.apex, dsTags([][]byte{ds})))
		}
		want = append(want, ds)
	}
	same := func(a, b [][]byte) bool { // by key: a parent may make digests of its own
		return dsTags(long(a)) == dsTags(long(b))
	}
	if len(want) > 0 && z.ds != nil && !same(want, z.ds) {
		z.say(CodeCDSAhead, fmt.Sprintf("%s asks its parent for a DS of key %s, and the parent has that of key %s", z.apex, dsTags(want), dsTags(long(z.ds))))
	}
}
