package e2e

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// chain validates what caches may hold together of a zone: as strictly as a
// validator may, with each algorithm of the DS and DNSKEY RRsets (RFC 4035, 2.2).
type chain struct {
	zone  string
	known map[string]bool // signatures that were verified, by signature and key
}

func newChain(zone string) *chain { return &chain{zone: zone, known: map[string]bool{}} }

// typed is the records of a type among others.
func typed[T dns.RR](rrs []dns.RR) (out []T) {
	for _, rr := range rrs {
		if one, ok := rr.(T); ok {
			out = append(out, one)
		}
	}
	return out
}

// matching is the keys that have a DS.
func matching(keys []*dns.DNSKEY, ds []dns.RR) (out []*dns.DNSKEY) {
	for _, k := range keys {
		for _, d := range typed[*dns.DS](ds) {
			if own := k.ToDS(d.DigestType); own != nil && own.KeyTag == d.KeyTag && own.Algorithm == d.Algorithm && strings.EqualFold(own.Digest, d.Digest) {
				out = append(out, k)
				break
			}
		}
	}
	return out
}

// signs reports whether a key made a good signature over the RRset of an answer.
func (c *chain) signs(answer []dns.RR, k *dns.DNSKEY) bool {
	set := slices.DeleteFunc(slices.Clone(answer), func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
	for _, sig := range typed[*dns.RRSIG](answer) {
		if sig.KeyTag != k.KeyTag() || sig.Algorithm != k.Algorithm || !strings.EqualFold(sig.SignerName, c.zone) {
			continue
		}
		id := sig.Signature + " " + k.PublicKey
		good, known := c.known[id]
		if !known {
			good = sig.Verify(k, set) == nil
			c.known[id] = good
		}
		if good {
			return true
		}
	}
	return false
}

// keysFault says why a DNSKEY RRset does not validate with a DS RRset.
func (c *chain) keysFault(ds, keys []dns.RR) string {
	if len(ds) == 0 {
		return ""
	}
	trusted := matching(typed[*dns.DNSKEY](keys), ds)
	for _, d := range typed[*dns.DS](ds) {
		if !slices.ContainsFunc(trusted, func(k *dns.DNSKEY) bool { return k.Algorithm == d.Algorithm && c.signs(keys, k) }) {
			return fmt.Sprintf("no key with a DS signs the DNSKEY RRset with algorithm %d", d.Algorithm)
		}
	}
	return ""
}

// dataFault says why an RRset does not validate with a DNSKEY RRset.
func (c *chain) dataFault(keys, data []dns.RR) string {
	all := typed[*dns.DNSKEY](keys)
	for _, want := range all {
		if !slices.ContainsFunc(all, func(k *dns.DNSKEY) bool { return k.Algorithm == want.Algorithm && c.signs(data, k) }) {
			return fmt.Sprintf("no key that is held signs %s %s with algorithm %d",
				data[0].Header().Name, dns.TypeToString[data[0].Header().Rrtype], want.Algorithm)
		}
	}
	return ""
}

// cached is an answer, and for how long caches may have it.
type cached struct {
	answer      []dns.RR
	text        string
	from, until time.Time
}

// held lists what caches may have held of one kind of answer, in order: each
// until its TTL after the last site gave up the version that had it.
func (w *yearsWorld) held(answers func(v yearsVersion) map[string][]dns.RR) map[string][]*cached {
	out := map[string][]*cached{}
	fastest, slowest := slices.Min(w.lags), slices.Max(w.lags)+w.late
	for i, v := range w.versions {
		end := w.clock.now()
		if i+1 < len(w.versions) {
			end = w.versions[i+1].taken.Add(slowest)
		}
		for name, answer := range answers(v) {
			texts := make([]string, 0, len(answer))
			for _, rr := range answer {
				texts = append(texts, rr.String())
			}
			slices.Sort(texts)
			one := &cached{answer: answer, text: strings.Join(texts, "\n"), from: v.taken.Add(fastest)}
			if n := len(out[name]); n > 0 && out[name][n-1].text == one.text {
				one = out[name][n-1]
			} else {
				out[name] = append(out[name], one)
			}
			one.until = end.Add(time.Duration(answer[0].Header().Ttl) * time.Second)
		}
	}
	return out
}

// bogus validates every DS with every DNSKEY RRset and every other RRset that a
// cache may have held at the same time. all is how many there were.
func (w *yearsWorld) bogus() (found []string, all int) {
	keys := w.held(func(v yearsVersion) map[string][]dns.RR { return w.rrsetsOf(v.records, true) })
	data := w.held(func(v yearsVersion) map[string][]dns.RR { return w.rrsetsOf(v.records, false) })
	c := newChain(w.zone)
	for i, ds := range w.sets {
		until := w.clock.now()
		if i+1 < len(w.sets) {
			until = w.sets[i+1].at.Add(w.reads.ttl)
		}
		for _, k := range keys["DNSKEY"] {
			from, until := latest(ds.at, k.from), earliest(until, k.until)
			if len(ds.set) == 0 || until.Before(from) {
				continue // insecure, or not together
			}
			fault := c.keysFault(ds.set, k.answer)
			for _, answers := range data {
				for _, d := range answers {
					from, until := latest(from, d.from), earliest(until, d.until)
					if until.Before(from) {
						continue
					}
					all++
					why := fault
					if why == "" {
						why = c.dataFault(k.answer, d.answer)
					}
					for _, sig := range typed[*dns.RRSIG](slices.Concat(k.answer, d.answer)) {
						if why == "" && (!sig.ValidityPeriod(from) || !sig.ValidityPeriod(until)) {
							why = fmt.Sprintf("a signature by key %d is not valid then", sig.KeyTag)
						}
					}
					if why != "" {
						found = append(found, fmt.Sprintf("%s to %s: %s", from.Format(time.RFC3339), until.Format(time.RFC3339), why))
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
			name := rr.Header().Name + dns.TypeToString[t]
			out[name] = append(out[name], rr)
		}
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
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
