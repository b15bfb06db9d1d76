package e2e

import (
	"crypto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// answerOf is an answer that servers gave from one time to another.
func answerOf(rrs []dns.RR, first, last time.Time) *served {
	s := &served{server: "any site", first: first, last: last}
	s.read(&dns.Msg{Answer: rrs})
	return s
}

// held lists what sites handed out of one kind of answer, by name and in
// order: each until the last of them gave up the version that had it.
func (w *yearsWorld) held(keys bool) map[string][]*served {
	out := map[string][]*served{}
	fastest, slowest := slices.Min(w.lags), slices.Max(w.lags)+w.late
	for i, v := range w.versions {
		end := w.clock.now()
		if i+1 < len(w.versions) {
			end = w.versions[i+1].taken.Add(slowest)
		}
		for name, rrs := range w.rrsetsOf(v.records, keys) {
			one := answerOf(rrs, v.taken.Add(fastest), end)
			if n := len(out[name]); n > 0 && out[name][n-1].text == one.text {
				out[name][n-1].last = end
			} else {
				out[name] = append(out[name], one)
			}
		}
	}
	return out
}

// bogus validates every DS with every DNSKEY RRset and every other RRset that a
// cache may have held at the same time. all is how many there were.
func (w *yearsWorld) bogus() (found []string, all int) {
	keys, data := w.held(true)["DNSKEY"], w.held(false)
	v := newStrict(w.zone)
	for i, set := range w.sets {
		until := w.clock.now()
		if i+1 < len(w.sets) {
			until = w.sets[i+1].at
		}
		ds := answerOf(set.set, set.at, until)
		if len(set.set) == 0 {
			continue // insecure
		}
		for _, k := range keys {
			for what, answers := range data {
				for _, d := range answers {
					m := mixture{ds: ds, keys: k, data: d, what: what}
					if !m.together() {
						continue
					}
					all++
					if m.fault = v.validate(m); m.fault != "" {
						found = append(found, m.String())
					}
				}
			}
		}
	}
	return found, all
}

// rrsetsOf is the RRsets of a version with their signatures, by name and type:
// the DNSKEY RRset alone, or all others but the NS RRsets of delegations, which
// nobody signs.
func (w *yearsWorld) rrsetsOf(records []dns.RR, keys bool) map[string][]dns.RR {
	out := map[string][]dns.RR{}
	for _, rr := range records {
		t := rr.Header().Rrtype
		if sig, ok := rr.(*dns.RRSIG); ok {
			t = sig.TypeCovered
		}
		switch {
		case t == dns.TypeNS && !strings.EqualFold(rr.Header().Name, w.zone):
		case keys && t == dns.TypeDNSKEY:
			out["DNSKEY"] = append(out["DNSKEY"], rr)
		case !keys && t != dns.TypeDNSKEY:
			name := rr.Header().Name + " " + dns.TypeToString[t]
			out[name] = append(out[name], rr)
		}
	}
	return out
}

// What does not validate is found where caches may hold it together, and only
// there.
func TestYears_WhatDoesNotValidateIsFound(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	sign := func(k *dns.DNSKEY, signer crypto.Signer, rrs ...dns.RR) []dns.RR {
		sig := &dns.RRSIG{
			Hdr: dns.RR_Header{Ttl: rrs[0].Header().Ttl}, Algorithm: k.Algorithm, KeyTag: k.KeyTag(), SignerName: "example.com.",
			Inception: uint32(start.Unix()) - 86400, Expiration: uint32(start.Unix()) + 30*86400, //nolint:gosec // this century
		}
		if err := sig.Sign(signer, rrs); err != nil {
			t.Fatal(err)
		}
		return append(rrs, sig)
	}
	data, err := dns.NewRR("www.example.com. 3600 IN A 192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	// version is the zone with one key.
	version := func() (records, ds []dns.RR) {
		k := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: dns.ED25519}
		private, err := k.Generate(256)
		if err != nil {
			t.Fatal(err)
		}
		one := k.ToDS(dns.SHA256)
		one.Hdr.Name = "example.com."
		return append(sign(k, private.(crypto.Signer), k), sign(k, private.(crypto.Signer), data)...), []dns.RR{one}
	}
	before, beforeDS := version()
	after, afterDS := version()
	for _, c := range []struct {
		what  string
		days  float64 // from the one to the other
		sets  []yearsDS
		bogus bool
	}{
		{"a key exchanged at once", 10, []yearsDS{{}, {at: start, set: beforeDS}}, true},
		{"insecure meanwhile", 10, []yearsDS{{}}, false},
		{"secure once caches hold nothing else", 10, []yearsDS{{}, {at: start.Add(10*24*time.Hour + 3*time.Hour), set: afterDS}}, false},
		{"secure an hour too soon", 10, []yearsDS{{}, {at: start.Add(10*24*time.Hour + time.Hour), set: afterDS}}, true},
		{"signatures that have run out", 40, []yearsDS{{}, {at: start, set: beforeDS}, {at: start.Add(39 * 24 * time.Hour)}}, true},
	} {
		end := start.Add(time.Duration(c.days * 24 * float64(time.Hour)))
		w := &yearsWorld{
			clock: yearsClock{sim: end.Add(24 * time.Hour), real: time.Now()}, zone: "example.com.",
			lags: []time.Duration{time.Minute, 10 * time.Minute}, late: 30 * time.Minute, reads: parentHabits{ttl: 3600 * time.Second},
			sets: c.sets, versions: []yearsVersion{{taken: start, serial: 1, records: before}, {taken: end, serial: 2, records: after}},
		}
		if found, _ := w.bogus(); len(found) > 0 != c.bogus {
			t.Errorf("%s: found %q", c.what, found)
		}
	}
}
