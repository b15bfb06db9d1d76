package chain

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// judge is what validates in the zone of a link.
func (w *walk) judge(z *zoneLink) *judge {
	return &judge{apex: z.apex, keys: z.keys, now: w.cfg.Now, trusted: w.inTime(z)}
}

// inTime reports whether something above a zone, or the zone's own keys, were
// valid at the time of the check.
func (w *walk) inTime(z *zoneLink) bool {
	return z.keys != nil || z.above != nil && z.above.keys != nil
}

// delegated asks the parent's servers for the DS of a zone; secure is false
// where nothing from here down can be validated, and the link says so.
func (w *walk) delegated(ctx context.Context, up, z *zoneLink) (by trust, secure bool) {
	type said struct {
		r   *reply
		set *validate.RRset
		ok  bool
		all []problem
	}
	answers := make([]said, len(up.servers))
	j := w.judge(up)
	w.each(up, func(i int, s *server) {
		r := w.ask.ask(ctx, s, question{name: z.apex, t: zone.TypeDS})
		if t := r.lame(up.apex); t != nil {
			s.note(*t)
			return
		}
		a := said{r: r, set: r.of(z.apex, zone.TypeDS)}
		a.ok, a.all = j.dsOr(r, a.set, z.apex)
		answers[i] = a
	})
	var t tally
	var absent bool
	for i, a := range answers {
		if a.r == nil {
			continue
		}
		t.add(up.servers[i], a.ok, a.all)
		if a.ok && a.set != nil && z.ds == nil {
			z.ds = a.set.Data
		}
		absent = absent || a.ok && a.set == nil
	}
	t.into(z)
	switch {
	case t.asked == 0:
		z.out.Verdict = Unreachable
		return by, false
	case t.broken():
		z.out.Verdict = Bogus
		return by, false
	case z.ds == nil && absent:
		z.out.Verdict = Insecure
		return by, false
	}
	by, ok := byDS(z.apex, z.ds)
	z.out.DS = shownDS(z.apex, z.ds, nil)
	if !ok && !slices.ContainsFunc(long(z.ds), func(ds []byte) bool { return ds[2] != algRSASHA1 && ds[2] != algNSEC3RSA1 }) {
		z.say(CodeAlgorithmSHA1, fmt.Sprintf("the DS of %s, of key %s, are of algorithms with SHA-1, which validators are to treat as if they did not know them", z.apex, dsTags(long(z.ds))))
		z.out.Verdict = Insecure
		return by, false
	}
	if !ok {
		z.say(CodeDSUnusable, fmt.Sprintf("the DS of %s, of key %s, have algorithms or digest types that validators do not use", z.apex, dsTags(long(z.ds))))
		z.out.Verdict = Insecure
		return by, false
	}
	return by, true
}

// long are the DS that have all their fields.
func long(all [][]byte) [][]byte {
	return slices.DeleteFunc(slices.Clone(all), func(ds []byte) bool { return len(ds) < 5 })
}

// dsOr judges what a server of the parent says of a zone's DS: the RRset, or
// that there is none.
func (j *judge) dsOr(r *reply, set *validate.RRset, child zone.Name) (ok bool, all []problem) {
	if set != nil {
		v := j.set(set)
		if v.ok && v.sig.Synthesized(set) {
			return false, []problem{{code: CodeSignatureWrong, owner: child, t: zone.TypeDS, text: fmt.Sprintf("the DS of %s comes from a wildcard", child)}}
		}
		return v.ok, v.problems
	}
	d := j.denies(r, child, zone.TypeDS)
	if d.ok && (d.cut || d.ignored) {
		return true, d.problems
	}
	if d.ok {
		return false, []problem{{
			code: CodeDSAbsenceUnproven, owner: child, t: zone.TypeDS,
			text: fmt.Sprintf("%s refers to servers of %s, and its proof that there is no DS says that this is no delegation", j.apex, child),
		}}
	}
	for i := range d.problems {
		p := &d.problems[i]
		if strings.HasPrefix(string(p.code), "denial-") && p.code != CodeDenialOptOut && p.code != CodeDenialIterations {
			p.code = CodeDSAbsenceUnproven
		}
	}
	return false, d.problems
}

// keyed asks a zone's servers for its keys, and trusts those that a DS or an
// anchor stands for.
func (w *walk) keyed(ctx context.Context, z *zoneLink, by trust) {
	type said struct {
		answered bool
		set      *validate.RRset
		keyed    keyed
	}
	answers := make([]said, len(z.servers))
	j := w.judge(z)
	w.each(z, func(i int, s *server) {
		r := w.ask.ask(ctx, s, question{name: z.apex, t: zone.TypeDNSKEY})
		if t := r.lame(z.apex); t != nil {
			s.note(*t)
			return
		}
		a := said{answered: true, set: r.of(z.apex, zone.TypeDNSKEY)}
		if a.set == nil {
			a.keyed.problems = []problem{{code: CodeDNSKEYMissing, owner: z.apex, t: zone.TypeDNSKEY, text: fmt.Sprintf("%s has a DS at its parent and no DNSKEY", z.apex)}}
			if by.ds == nil {
				a.keyed.problems[0].text = fmt.Sprintf("%s has a trust anchor and no DNSKEY", z.apex)
			}
		} else {
			a.keyed = j.dnskey(a.set, by)
		}
		answers[i] = a
	})
	var t tally
	sets := map[string][]string{}
	for i, a := range answers {
		if !a.answered {
			continue
		}
		t.add(z.servers[i], a.keyed.ok, a.keyed.problems)
		if a.keyed.ok && z.keys == nil {
			z.keys, z.out.Keys = a.keyed.keys, a.keyed.shown
			z.out.DS = shownDS(z.apex, z.ds, z.keys)
			w.expiry(z, a.keyed.verdict)
		} else if z.out.Keys == nil {
			z.out.Keys = a.keyed.shown
		}
		if a.set != nil {
			print := string(fingerprint(a.set))
			sets[print] = append(sets[print], z.servers[i].String())
		}
	}
	t.into(z)
	if len(sets) > 1 {
		var groups []string
		for _, who := range sets {
			groups = append(groups, strings.Join(firstOf(who, 3), ", "))
		}
		slices.Sort(groups)
		z.say(CodeServersDNSKEY, fmt.Sprintf("servers of %s have %d different DNSKEY RRsets: %s", z.apex, len(sets), strings.Join(groups, " against ")))
	}
	switch {
	case t.asked == 0:
		z.out.Verdict = Unreachable
	case t.broken():
		z.out.Verdict, z.keys = Bogus, nil
	default:
		z.out.Verdict = Secure
	}
	z.seen()
}

// fingerprint is the data of an RRset in one piece.
func fingerprint(set *validate.RRset) (out []byte) {
	for _, data := range set.Data {
		out = binary.BigEndian.AppendUint16(out, uint16(len(data))) //nolint:gosec // RDATA
		out = append(out, data...)
	}
	return out
}

// present asks the servers of a zone that is not validated whether they are
// there, and whether the zone is signed all the same.
func (w *walk) present(ctx context.Context, z *zoneLink) {
	signed := make([]bool, len(z.servers))
	answered := make([]bool, len(z.servers))
	w.each(z, func(i int, s *server) {
		r := w.ask.ask(ctx, s, question{name: z.apex, t: zone.TypeDNSKEY})
		if t := r.lame(z.apex); t != nil {
			s.note(*t)
			return
		}
		answered[i] = true
		if set := r.of(z.apex, zone.TypeDNSKEY); set != nil && len(set.Data) <= maxKeys {
			own := judge{apex: z.apex, keys: validate.ZoneKeys(set.Data), now: w.cfg.Now}
			signed[i] = own.set(set).ok
		}
	})
	z.seen()
	if !slices.Contains(answered, true) {
		z.out.Verdict = Unreachable
		return
	}
	if slices.Contains(signed, true) && z.ds == nil && z.above != nil && z.above.keys != nil {
		z.say(CodeDSMissing, fmt.Sprintf("%s is signed, and %s has no DS of it", z.apex, z.above.apex))
	}
}

// seen tells of the servers how they answered.
func (z *zoneLink) seen() {
	z.out.Servers = make([]ServerSeen, 0, len(z.servers))
	for _, s := range z.servers {
		s.mu.Lock()
		one := ServerSeen{Name: s.name, Address: s.addr, Millis: s.millis, Serial: s.serial}
		if s.dead != nil {
			one.Error = s.dead.text
		} else if len(s.seen) > 0 {
			one.Error = s.seen[0].text
		}
		s.mu.Unlock()
		z.out.Servers = append(z.out.Servers, one)
	}
}

// expiry keeps when the first of a zone's signatures that were seen expires.
func (w *walk) expiry(z *zoneLink, v verdict) {
	if v.sig == nil {
		return
	}
	if at := v.expires(w.cfg.Now); z.out.Expires == nil || at.Before(*z.out.Expires) {
		z.out.Expires = &at
	}
}
