package e2e

import (
	"crypto"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rrset is an RRset and its signatures, as a server hands it out.
type rrset struct {
	rrs  []dns.RR
	sigs []*dns.RRSIG
}

// served is an answer that a server gave for a while, and so what caches may
// hold for a TTL longer.
type served struct {
	server      string
	text        string // all of it
	sets        []rrset
	ttl         time.Duration
	first, last time.Time // simulated
}

// until is when a cache has it no more.
func (s *served) until() time.Time { return s.last.Add(s.ttl) }

// asked is a question whose answers are kept.
type asked struct {
	what  string
	below string // the owner is this below the zone's name
	qtype uint16
}

var (
	askDS   = asked{"DS", "", dns.TypeDS}
	askKeys = asked{"DNSKEY", "", dns.TypeDNSKEY}
	askData = []asked{
		{"SOA", "", dns.TypeSOA},
		{"A", "www.", dns.TypeA},
		{"no such name", "none.", dns.TypeA},
	}
)

// caches is all that caches may hold: what was served, and when.
type caches struct {
	clock simClock
	mu    sync.Mutex
	all   map[string][]*served // by zone and question; guarded by mu
	asked int                  // guarded by mu
}

// note keeps an answer that was asked for between two times. Where the same
// server gave the same before, with nothing else between, it did so all the time.
func (c *caches) note(server string, z *lifeZone, q asked, m *dns.Msg, before, after time.Time) {
	s := &served{server: server, first: c.clock.at(after), last: c.clock.at(before)}
	s.read(m)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	key := z.label + " " + q.what
	for _, old := range slices.Backward(c.all[key]) {
		if old.server == server {
			if old.text == s.text {
				old.last = s.last
				return
			}
			break
		}
	}
	c.all[key] = append(c.all[key], s)
}

// still notes that a server serves all of a zone as it did.
func (c *caches) still(server string, z *lifeZone, questions []asked, before time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked++
	for _, q := range questions {
		for _, old := range slices.Backward(c.all[z.label+" "+q.what]) {
			if old.server == server {
				old.last = c.clock.at(before)
				break
			}
		}
	}
}

// read takes the RRsets of an answer: those of its answer section, or those
// that prove that there is none.
func (s *served) read(m *dns.Msg) {
	section := m.Answer
	if len(section) == 0 {
		section = m.Ns
	}
	ttl, lines := uint32(1<<31-1), []string(nil)
	find := func(owner string, t uint16) *rrset {
		for i := range s.sets {
			if h := s.sets[i].rrs[0].Header(); h.Name == owner && h.Rrtype == t {
				return &s.sets[i]
			}
		}
		return nil
	}
	for _, rr := range section {
		h := rr.Header()
		ttl = min(ttl, h.Ttl)
		if soa, ok := rr.(*dns.SOA); ok && len(m.Answer) == 0 {
			ttl = min(ttl, soa.Minttl)
		}
		lines = append(lines, normal(rr))
		if h.Rrtype == dns.TypeRRSIG {
			continue
		}
		if set := find(h.Name, h.Rrtype); set != nil {
			set.rrs = append(set.rrs, rr)
		} else {
			s.sets = append(s.sets, rrset{rrs: []dns.RR{rr}})
		}
	}
	for _, rr := range section {
		if sig, ok := rr.(*dns.RRSIG); ok {
			if set := find(sig.Hdr.Name, sig.TypeCovered); set != nil {
				set.sigs = append(set.sigs, sig)
			}
		}
	}
	slices.Sort(lines)
	s.text = strings.Join(lines, "\n")
	s.ttl = time.Duration(ttl) * time.Second
}

// watch asks a server for the zones again and again. An answer is asked for
// anew when the serial of its zone has changed: in between, the server has the
// same zone.
func (c *caches) watch(server *secondary, zones []*lifeZone, apex func(*lifeZone) string, questions []asked) func(stop <-chan struct{}) {
	return func(stop <-chan struct{}) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		serials := map[string]uint32{}
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
			}
			seen := map[string]uint32{}
			for _, z := range zones {
				at := apex(z)
				serial, known := seen[at]
				before := time.Now()
				if !known {
					var err error
					if serial, err = serialAt(server.addr, at); err != nil {
						continue
					}
					seen[at] = serial
				}
				if serials[z.label] == serial {
					c.still(server.name, z, questions, before)
				} else if c.ask(server, z, questions, at, serial) {
					serials[z.label] = serial
				}
			}
		}
	}
}

// ask asks all questions about a zone, and reports whether all answers are of
// a serial.
func (c *caches) ask(server *secondary, z *lifeZone, questions []asked, apex string, serial uint32) bool {
	answers := make([]*dns.Msg, len(questions))
	before := time.Now()
	for i, q := range questions {
		m, err := query(server.addr, q.below+z.name(), q.qtype)
		if err != nil || m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
			return false
		}
		answers[i] = m
	}
	if again, err := serialAt(server.addr, apex); err != nil || again != serial {
		return false
	}
	for i, q := range questions {
		c.note(server.name, z, q, answers[i], before, time.Now())
	}
	return true
}

// mixture is what a cache may hold of a zone at the same time.
type mixture struct {
	ds, keys, data *served
	what           string
	from, until    time.Time
	fault          string
}

func (m mixture) String() string {
	one := func(what string, s *served) string {
		return fmt.Sprintf("%s that %s served from %s to %s, TTL %s", what, s.server, s.first.Format("02T15:04:05"), s.last.Format("02T15:04:05"), s.ttl)
	}
	return fmt.Sprintf("%s: from %s to %s a cache may hold: %s; %s; %s", m.fault, m.from.Format("02T15:04:05"), m.until.Format("02T15:04:05"),
		one("DS", m.ds), one("DNSKEY", m.keys), one(m.what, m.data))
}

// together finds from when to when a cache may hold all of it; false for never.
func (m *mixture) together() bool {
	m.from, m.until = m.ds.first, m.ds.until()
	for _, s := range []*served{m.keys, m.data} {
		if s.first.After(m.from) {
			m.from = s.first
		}
		if s.until().Before(m.until) {
			m.until = s.until()
		}
	}
	return !m.from.After(m.until)
}

// check validates every mixture of answers that a cache may hold at a time,
// and returns those that do not validate, and how many there were of all.
func (c *caches) check(z *lifeZone) (bogus []mixture, all int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := newStrict(dns.Fqdn(z.name()))
	for _, ds := range c.all[z.label+" DS"] {
		for _, keys := range c.all[z.label+" DNSKEY"] {
			for _, q := range askData {
				for _, data := range c.all[z.label+" "+q.what] {
					m := mixture{ds: ds, keys: keys, data: data, what: q.what}
					if !m.together() {
						continue
					}
					all++
					if m.fault = v.validate(m); m.fault != "" {
						bogus = append(bogus, m)
					}
				}
			}
		}
	}
	return bogus, all
}

// strict is a validator that wants a signature by each algorithm that is
// promised (RFC 4035, 2.2): by the DS RRset for the keys, by the keys for the
// data.
type strict struct {
	zone     string
	known    map[string]string // faults
	verified map[string]bool
}

func newStrict(zone string) *strict {
	return &strict{zone: zone, known: map[string]string{}, verified: map[string]bool{}}
}

func (v *strict) validate(m mixture) string {
	ds := ofType[*dns.DS](m.ds)
	if len(ds) == 0 {
		return "" // the parent proves that the zone is insecure
	}
	id := strings.Join([]string{m.ds.text, m.keys.text, m.data.text}, "\n\n")
	fault, known := v.known[id]
	if !known {
		fault = v.chain(ds, m.keys, m.data)
		v.known[id] = fault
	}
	if fault != "" {
		return fault
	}
	for _, s := range []*served{m.keys, m.data} {
		for _, set := range s.sets {
			for _, sig := range set.sigs {
				if !sig.ValidityPeriod(m.from) || !sig.ValidityPeriod(m.until) {
					return "the signature by " + fmt.Sprint(sig.KeyTag) + " over " + dns.TypeToString[sig.TypeCovered] + " is not valid then"
				}
			}
		}
	}
	return ""
}

// chain follows the chain of trust.
func (v *strict) chain(ds []*dns.DS, keys, data *served) string {
	all := ofType[*dns.DNSKEY](keys)
	if len(all) == 0 {
		return "there is a DS and no DNSKEY"
	}
	var trusted []*dns.DNSKEY
	for _, d := range ds {
		for _, k := range all {
			if own := k.ToDS(d.DigestType); own != nil && own.KeyTag == d.KeyTag && own.Algorithm == d.Algorithm && strings.EqualFold(own.Digest, d.Digest) {
				trusted = append(trusted, k)
			}
		}
	}
	for _, d := range ds {
		if !v.signedBy(keys.sets[0], trusted, d.Algorithm) {
			return fmt.Sprintf("no key with a DS signs the DNSKEY RRset with algorithm %d", d.Algorithm)
		}
	}
	for _, set := range data.sets {
		for _, k := range all {
			if !v.signedBy(set, all, k.Algorithm) {
				return fmt.Sprintf("no key signs %s with algorithm %d", dns.TypeToString[set.rrs[0].Header().Rrtype], k.Algorithm)
			}
		}
	}
	return ""
}

// signedBy reports whether a set has a good signature of an algorithm by one
// of the keys.
func (v *strict) signedBy(set rrset, keys []*dns.DNSKEY, algorithm uint8) bool {
	for _, sig := range set.sigs {
		for _, k := range keys {
			if sig.Algorithm != algorithm || k.Algorithm != algorithm || sig.KeyTag != k.KeyTag() || !strings.EqualFold(sig.SignerName, v.zone) {
				continue
			}
			id := sig.Signature + k.PublicKey
			good, known := v.verified[id]
			if !known {
				good = sig.Verify(k, set.rrs) == nil
				v.verified[id] = good
			}
			if good {
				return true
			}
		}
	}
	return false
}

// ofType is the records of a type in an answer.
func ofType[T dns.RR](s *served) (out []T) {
	for _, set := range s.sets {
		for _, rr := range set.rrs {
			if one, ok := rr.(T); ok {
				out = append(out, one)
			}
		}
	}
	return out
}

// A mixture is noticed where the times overlap and something does not validate,
// and only there.
func TestCaches_WhatDoesNotValidateIsNoticed(t *testing.T) {
	t.Parallel()
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	hour := func(n float64) time.Time { return start.Add(time.Duration(n * float64(time.Hour))) }
	parse := func(text string) dns.RR {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		return rr
	}
	type made struct {
		key  *dns.DNSKEY
		sign func(rrs ...dns.RR) dns.RR
	}
	generate := func(algorithm uint8) made {
		key := &dns.DNSKEY{Hdr: dns.RR_Header{Name: "z.com.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600}, Flags: 257, Protocol: 3, Algorithm: algorithm}
		private, err := key.Generate(256)
		if err != nil {
			t.Fatal(err)
		}
		return made{key, func(rrs ...dns.RR) dns.RR {
			sig := &dns.RRSIG{
				Hdr: dns.RR_Header{Ttl: rrs[0].Header().Ttl}, Algorithm: algorithm, KeyTag: key.KeyTag(), SignerName: "z.com.",
				Inception: uint32(start.Unix()) - 86400, Expiration: uint32(start.Unix()) + 86400,
			}
			if err := sig.Sign(private.(crypto.Signer), rrs); err != nil {
				t.Fatal(err)
			}
			return sig
		}}
	}
	one, two := generate(dns.ED25519), generate(dns.ECDSAP256SHA256)
	ds, data := one.key.ToDS(dns.SHA256), parse("www.z.com. 3600 IN A 192.0.2.1")
	ds.Hdr = dns.RR_Header{Name: "z.com.", Rrtype: dns.TypeDS, Class: dns.ClassINET, Ttl: 3600}
	both := []dns.RR{one.key, two.key, one.sign(one.key, two.key)}
	alone := []dns.RR{one.key, one.sign(one.key)}
	for _, c := range []struct {
		what           string
		ds, keys, data []dns.RR
		from           float64 // when the data were served, in hours
		want           string
	}{
		{"all is well", []dns.RR{ds}, alone, []dns.RR{data, one.sign(data)}, 0, ""},
		{"no DS", nil, nil, []dns.RR{data}, 0, ""},
		{"unsigned data below a DS", []dns.RR{ds}, alone, []dns.RR{data}, 0, "no key signs A with algorithm 15"},
		{"never at the same time", []dns.RR{ds}, alone, []dns.RR{data}, 1.5, ""},
		{"no keys", []dns.RR{ds}, nil, []dns.RR{data}, 0, "there is a DS and no DNSKEY"},
		{"a DS of another key", []dns.RR{ds}, []dns.RR{two.key, two.sign(two.key)}, []dns.RR{data, two.sign(data)}, 0, "no key with a DS signs the DNSKEY RRset with algorithm 15"},
		{"an algorithm that does not sign", []dns.RR{ds}, both, []dns.RR{data, one.sign(data)}, 0, "no key signs A with algorithm 13"},
		{"a signature that has run out", []dns.RR{ds}, alone, []dns.RR{data, one.sign(data)}, 30, "the signature by"},
	} {
		all := caches{clock: simClock{sim: start, real: start}, all: map[string][]*served{}}
		z := &lifeZone{label: "z"}
		serve := func(q asked, rrs []dns.RR, at float64) {
			m := &dns.Msg{Answer: rrs}
			if len(rrs) == 0 {
				m.Ns = []dns.RR{parse("com. 3600 IN SOA . . 1 1 1 1 3600")}
			}
			real := start.Add(hour(at).Sub(start) / lifeRate)
			all.note("server", z, q, m, real, real)
		}
		early := 0.0
		if c.from > 24 {
			early = c.from
		}
		serve(askDS, c.ds, early)
		serve(askKeys, c.keys, early)
		serve(askData[1], c.data, c.from)
		bogus, _ := all.check(z)
		got := ""
		if len(bogus) > 0 {
			got = bogus[0].fault
		}
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}
