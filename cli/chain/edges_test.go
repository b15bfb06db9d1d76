package chain

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// edge is a zone that is right or wrong in a way that few are.
type edge struct {
	fact    string
	make    func(*tree)
	name    string
	t       uint16
	verdict Verdict
	secure  bool     // the answer is validated
	told    []string // findings
	// unbound and delv say why that validator comes to something else; empty:
	// it does not.
	unbound, delv string
}

func nsec3(tr *tree)  { tr.zone.nsec3 = true }
func optOut(tr *tree) { tr.zone.nsec3, tr.zone.optOut = true, true }

func both(all ...func(*tree)) func(*tree) {
	return func(tr *tree) {
		for _, fn := range all {
			fn(tr)
		}
	}
}

func iterations(n uint16) func(*tree) {
	return func(tr *tree) { tr.zone.nsec3, tr.zone.iterations = true, n }
}

// beside puts another zone on the zone's servers, with a delegation in the root.
func beside(apex string, change func(*testZone)) func(*tree) {
	return func(tr *tree) {
		z := newZone(tr.t, apex)
		for i, s := range tr.zoneAt {
			ns := fmt.Sprintf("ns%d.%s", i+1, apex)
			for _, in := range []*testZone{z, tr.root} {
				in.add(fmt.Sprintf("%s 3600 IN NS %s", apex, ns), fmt.Sprintf("%s 3600 IN A %s", ns, s.addr.Addr()))
			}
		}
		z.add("www." + apex + " 600 IN A 192.0.2.90")
		change(z)
		if !z.unsigned {
			tr.root.add(z.ds())
		}
		tr.extra = append(tr.extra, z)
	}
}

func add(lines ...string) func(*tree) { return func(tr *tree) { tr.zone.add(lines...) } }

// dsOf puts DS of the zone's first key at the parent; a digest that is wrong
// where bad says so.
func dsOf(digest uint8, bad bool) func(*tree) {
	return func(tr *tree) {
		ds := tr.zone.keys[0].ToDS(digest)
		if bad {
			ds.Digest = strings.Repeat("ab", len(ds.Digest)/2)
		}
		tr.parent.add(ds.String())
	}
}

// answerEdges are of wildcards, aliases and names.
func answerEdges() []edge {
	const wild = "a.wild.zone.example."
	shadow := func(tr *tree) {
		tr.zone.add("*.zone.example. 60 IN TXT \"from a wildcard\"", "near.zone.example. 60 IN A 192.0.2.82")
	}
	// forge answers for a name from a wildcard that does not reach it: the name's
	// neighbour exists.
	forge := func(tr *tree) {
		tr.start()
		twistZone(tr, "a.near.zone.example.", dns.TypeTXT, func(m *dns.Msg) {
			m.Rcode, m.Answer, m.Ns = dns.RcodeSuccess, nil, tr.zone.cover("a.near.zone.example.")
			for _, rr := range tr.zone.sets["*.zone.example."][dns.TypeTXT] {
				rr = dns.Copy(rr)
				rr.Header().Name = "a.near.zone.example."
				m.Answer = append(m.Answer, rr)
			}
		})
	}
	return []edge{
		{fact: "several labels below a wildcard", name: "a.b." + wild, t: dns.TypeTXT, verdict: Secure, secure: true},
		{fact: "several labels below a wildcard, NSEC3", make: nsec3, name: "a.b." + wild, t: dns.TypeTXT, verdict: Secure, secure: true},
		{fact: "a type that a wildcard lacks", name: wild, t: dns.TypeMX, verdict: Secure, secure: true},
		{fact: "a type that a wildcard lacks, NSEC3", make: nsec3, name: wild, t: dns.TypeMX, verdict: Secure, secure: true},
		{fact: "the wildcard itself", name: "*.wild.zone.example.", t: dns.TypeTXT, verdict: Secure, secure: true},
		{fact: "an alias by a wildcard", make: add("*.to.zone.example. 60 IN CNAME www.zone.example."), name: "x.to.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
		{
			fact: "a wildcard's answer for a name with a closer one", make: both(shadow, forge), name: "a.near.zone.example.", t: dns.TypeTXT,
			verdict: Bogus, told: []string{"broken denial-wildcard"},
		},
		{fact: "a name below a DNAME", make: add("moved.zone.example. 60 IN DNAME wild.zone.example."), name: "x.moved.zone.example.", t: dns.TypeTXT, verdict: Secure, secure: true},
		{fact: "the alias that a DNAME makes", make: add("moved.zone.example. 60 IN DNAME wild.zone.example."), name: "x.moved.zone.example.", t: dns.TypeCNAME, verdict: Secure, secure: true, unbound: "it looks for a delegation below the DNAME, and fails"},
		{fact: "a DNAME to another zone", make: both(beside("other.", func(*testZone) {}), add("moved.zone.example. 60 IN DNAME other.")), name: "www.moved.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
		{
			fact: "a DNAME without signature", name: "x.moved.zone.example.", t: dns.TypeTXT, verdict: Bogus, told: []string{"broken signature-missing"},
			make: both(add("moved.zone.example. 60 IN DNAME wild.zone.example."), func(tr *tree) { tr.zone.signing = without(dns.TypeDNAME) }),
		},
		{
			fact: "an alias below a DNAME that leads elsewhere", name: "x.moved.zone.example.", t: dns.TypeTXT, verdict: Secure, secure: true,
			make: both(add("moved.zone.example. 60 IN DNAME wild.zone.example."), func(tr *tree) {
				twistZone(tr, "x.moved.zone.example.", 0, func(m *dns.Msg) {
					for _, rr := range m.Answer {
						if alias, ok := rr.(*dns.CNAME); ok {
							alias.Target = "www.zone.example."
						}
					}
				})
			}),
		},
		{fact: "an alias to another signed zone", make: both(beside("other.", func(*testZone) {}), add("to.zone.example. 60 IN CNAME www.other.")), name: "to.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "an alias to a zone that is not signed", make: both(beside("other.", func(z *testZone) { z.unsigned = true }), add("to.zone.example. 60 IN CNAME www.other.")), name: "to.zone.example.", t: dns.TypeA, verdict: Insecure},
		{
			fact: "an alias to a zone that is broken", name: "to.zone.example.", t: dns.TypeA, verdict: Bogus, told: []string{"broken signature-missing"},
			make: both(beside("other.", func(z *testZone) { z.signing = without(dns.TypeA) }), add("to.zone.example. 60 IN CNAME www.other.")),
		},
		{fact: "an alias to a name that is not there", make: add("to.zone.example. 60 IN CNAME none.zone.example."), name: "to.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "below an empty non-terminal", name: "x.empty.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "below an empty non-terminal, NSEC3", make: nsec3, name: "x.empty.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "a name in odd case", name: "wWw.ZONE.eXample.", t: dns.TypeA, verdict: Secure, secure: true},
		{
			fact: "names in odd case in records", name: "odd.zone.example.", t: dns.TypeMX, verdict: Secure, secure: true,
			make: add("odd.zone.example. 60 IN MX 10 MAIL.Zone.Example.", "odd.zone.example. 60 IN MX 20 mail.zone.example."),
		},
		{
			fact: "an owner in odd case", name: "odd.zone.example.", t: dns.TypeA, verdict: Secure, secure: true,
			make: both(add("odd.zone.example. 60 IN A 192.0.2.83"), func(tr *tree) {
				twistZone(tr, "odd.zone.example.", 0, func(m *dns.Msg) {
					for i, rr := range slices.Concat(m.Answer, m.Ns) {
						rr = dns.Copy(rr)
						rr.Header().Name = strings.ToUpper(rr.Header().Name)
						if sig, ok := rr.(*dns.RRSIG); ok {
							sig.SignerName = "Zone.EXAMPLE."
						}
						if i < len(m.Answer) {
							m.Answer[i] = rr
						} else {
							m.Ns[i-len(m.Answer)] = rr
						}
					}
				})
			}),
		},
		{fact: "a type that nobody knows", make: add(`x.zone.example. 60 IN TYPE65300 \# 4 01020304`), name: "x.zone.example.", t: 65300, verdict: Secure, secure: true},
		{fact: "the DS of the zone", name: "zone.example.", t: dns.TypeDS, verdict: Secure, secure: true},
		{fact: "the DS that an unsigned zone has not", make: func(tr *tree) { tr.zone.unsigned = true }, name: "zone.example.", t: dns.TypeDS, verdict: Insecure, secure: true},
		{fact: "the DS of a name", name: "www.zone.example.", t: dns.TypeDS, verdict: Secure, secure: true},
		{fact: "the DS of the root", name: ".", t: dns.TypeDS, verdict: Secure, secure: true},
		{fact: "the keys", name: "zone.example.", t: dns.TypeDNSKEY, verdict: Secure, secure: true},
		{fact: "the NSEC of a name", name: "www.zone.example.", t: dns.TypeNSEC, verdict: Secure, secure: true},
	}
}

// denialEdges are of proofs that something is not there.
func denialEdges() []edge {
	const none, empty = "none.zone.example.", "empty.zone.example."
	compact := func(tr *tree) { tr.zone.compact = true }
	return []edge{
		{fact: "no such name", name: none, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "no such name, NSEC3", make: nsec3, name: none, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "no such name, opt-out", make: optOut, name: none, t: dns.TypeA, verdict: Insecure, delv: "RFC 5155, 9.2 is left to who asks"},
		{fact: "no such type, opt-out", make: optOut, name: "www.zone.example.", t: dns.TypeMX, verdict: Secure, secure: true},
		{fact: "a wildcard's answer, opt-out", make: optOut, name: "a.wild.zone.example.", t: dns.TypeTXT, verdict: Insecure},
		{fact: "a type that a wildcard lacks, opt-out", make: optOut, name: "a.wild.zone.example.", t: dns.TypeMX, verdict: Insecure, delv: "RFC 5155, 9.2 is left to who asks"},
		{fact: "a delegation, opt-out", make: func(tr *tree) { tr.parent.nsec3, tr.parent.optOut, tr.zone.unsigned = true, true, true }, name: "www.zone.example.", t: dns.TypeA, verdict: Insecure},
		{fact: "NXNAME", make: compact, name: none, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "NXNAME several labels down", make: compact, name: "a.b." + none, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "compact: no such type", make: compact, name: "www.zone.example.", t: dns.TypeMX, verdict: Secure, secure: true},
		{fact: "compact: an empty non-terminal", make: compact, name: empty, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "compact: a wildcard", make: compact, name: "a.wild.zone.example.", t: dns.TypeTXT, verdict: Secure, secure: true},
		{fact: "compact: a type that a wildcard lacks", make: compact, name: "a.wild.zone.example.", t: dns.TypeMX, verdict: Secure, secure: true},
		{fact: "compact: a delegation", make: func(tr *tree) { tr.parent.compact, tr.zone.unsigned = true, true }, name: "www.zone.example.", t: dns.TypeA, verdict: Insecure},
		{fact: "compact, in the times before NXNAME", name: none, t: dns.TypeA, verdict: Secure, secure: true, make: func(tr *tree) {
			proofOf(tr, func(m *dns.Msg) {
				if m.Rcode == dns.RcodeNameError {
					m.Rcode = dns.RcodeSuccess
					m.Ns = append(keep(m.Ns, func(rr dns.RR) bool { return !isProof(rr) }), tr.zone.nsecAt(strings.ToLower(m.Question[0].Name))...)
				}
			})
		}},
		{fact: "NSEC made around the name", name: none, t: dns.TypeA, verdict: Secure, secure: true, make: func(tr *tree) {
			proofOf(tr, func(m *dns.Msg) { // RFC 4470
				if name := strings.ToLower(m.Question[0].Name); m.Rcode == dns.RcodeNameError && above(name) == "zone.example." {
					label := strings.TrimSuffix(name, ".zone.example.")
					around := tr.zone.nsecFrom(label[:len(label)-1]+`\000.zone.example.`, label+"0.zone.example.")
					wild := tr.zone.nsecFrom(`\)~.zone.example.`, "+.zone.example.")
					m.Ns = slices.Concat(keep(m.Ns, func(rr dns.RR) bool { return !isProof(rr) }), around, wild)
				}
			})
		}},
		{fact: "the SOA beside a proof has no signature", name: none, t: dns.TypeA, verdict: Bogus, told: []string{"broken signature-missing"}, make: func(tr *tree) {
			proofOf(tr, func(m *dns.Msg) {
				m.Ns = keep(m.Ns, func(rr dns.RR) bool {
					sig, ok := rr.(*dns.RRSIG)
					return !ok || sig.TypeCovered != dns.TypeSOA
				})
			})
		}},
		{fact: "a proof has no SOA", name: none, t: dns.TypeA, verdict: Secure, secure: true, make: func(tr *tree) {
			proofOf(tr, func(m *dns.Msg) { m.Ns = keep(m.Ns, isProof) })
		}},
		{fact: "51 iterations", make: iterations(51), name: none, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning denial-iterations"}},
		{fact: "50 iterations", make: iterations(50), name: none, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning denial-iterations"}},
		{fact: "100 iterations", make: iterations(100), name: none, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning denial-iterations"}},
		{fact: "151 iterations", make: iterations(151), name: none, t: dns.TypeA, verdict: Insecure, told: []string{"warning denial-iterations"}},
		{fact: "151 iterations, an answer", make: iterations(151), name: "www.zone.example.", t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning denial-iterations"}},
		{fact: "151 iterations, a wildcard's answer", make: iterations(151), name: "a.wild.zone.example.", t: dns.TypeTXT, verdict: Insecure, told: []string{"warning denial-iterations"}},
		{fact: "2500 iterations, no such type", make: iterations(2500), name: "www.zone.example.", t: dns.TypeMX, verdict: Insecure, told: []string{"warning denial-iterations"}},
		{fact: "151 iterations at the parent", make: func(tr *tree) { tr.parent.nsec3, tr.parent.iterations, tr.zone.unsigned = true, 151, true }, name: "www.zone.example.", t: dns.TypeA, verdict: Insecure, told: []string{"warning denial-iterations"}},
		{fact: "151 iterations at the parent of a signed zone", make: func(tr *tree) { tr.parent.nsec3, tr.parent.iterations = true, 151 }, name: "www.zone.example.", t: dns.TypeA, verdict: Secure, secure: true},
	}
}

// keyEdges are of DS and keys.
func keyEdges() []edge {
	const www = "www.zone.example."
	algorithm := func(a uint8) func(*tree) {
		return func(tr *tree) {
			tr.zone.keys = []*testKey{newKey(tr.t, "zone.example.", 257, a), newKey(tr.t, "zone.example.", 256, a)}
		}
	}
	revoked := func(tr *tree) *testKey {
		k := newKey(tr.t, "zone.example.", 257, dns.ECDSAP256SHA256)
		k.Flags |= 0x80
		tr.zone.keys = append(tr.zone.keys, k)
		return k
	}
	return []edge{
		{fact: "RSASHA256", make: algorithm(dns.RSASHA256), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "RSASHA512", make: algorithm(dns.RSASHA512), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "ECDSAP384SHA384", make: algorithm(dns.ECDSAP384SHA384), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "ED25519", make: algorithm(dns.ED25519), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "SHA-256 and SHA-1", make: both(dsOf(dns.SHA256, false), dsOf(dns.SHA1, false)), name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning ds-sha1"}},
		{fact: "SHA-256 and a wrong SHA-1", make: both(dsOf(dns.SHA256, false), dsOf(dns.SHA1, true)), name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning ds-sha1"}},
		{fact: "a wrong SHA-256 and SHA-1", make: both(dsOf(dns.SHA256, true), dsOf(dns.SHA1, false)), name: www, t: dns.TypeA, verdict: Bogus, told: []string{"broken ds-no-key"}, unbound: "RFC 4509 is for harden-algo-downgrade"},
		{fact: "SHA-1 alone", make: dsOf(dns.SHA1, false), name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning ds-sha1"}},
		{fact: "a wrong SHA-1 alone", make: dsOf(dns.SHA1, true), name: www, t: dns.TypeA, verdict: Bogus, told: []string{"broken ds-no-key"}},
		{
			fact: "RSASHA1 alone", make: algorithm(dns.RSASHA1), name: www, t: dns.TypeA, verdict: Insecure, told: []string{"warning algorithm-sha1"},
			unbound: "RFC 9905 is younger", delv: "RFC 9905 is younger",
		},
		{fact: "SHA-384", make: dsOf(dns.SHA384, false), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "SHA-256 and a wrong SHA-384", make: both(dsOf(dns.SHA256, false), dsOf(dns.SHA384, true)), name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"info ds-standby"}},
		{fact: "a wrong SHA-256 and SHA-384", make: both(dsOf(dns.SHA256, true), dsOf(dns.SHA384, false)), name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"info ds-standby"}},
		{fact: "an unknown digest beside", make: both(dsOf(dns.SHA256, false), func(tr *tree) { tr.parent.add("zone.example. 60 IN DS 1 13 200 aabbcc") }), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "an unknown algorithm beside", make: both(dsOf(dns.SHA256, false), func(tr *tree) {
			tr.parent.add("zone.example. 60 IN DS 1 200 2 " + strings.Repeat("ab", 32))
		}), name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "an unknown digest alone, and a broken zone", make: func(tr *tree) {
			tr.parent.add("zone.example. 60 IN DS 1 13 200 aabbcc")
			tr.zone.signing = func(*dns.RRSIG) bool { return false }
		}, name: www, t: dns.TypeA, verdict: Insecure, told: []string{"warning ds-unusable"}},
		{fact: "a DS of an algorithm that the zone has not", make: both(dsOf(dns.SHA256, false), func(tr *tree) {
			tr.parent.add(newKey(tr.t, "zone.example.", 257, dns.ED25519).ToDS(dns.SHA256).String())
		}), name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"fault algorithm-unsigned", "info ds-standby"}},
		{fact: "the DS of a key without SEP", make: func(tr *tree) {
			tr.zone.keys = []*testKey{newKey(tr.t, "zone.example.", 256, dns.ECDSAP256SHA256)}
			tr.zone.keys[0].signsKeys = true
		}, name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "a revoked key that signs the keys, and its DS", make: func(tr *tree) {
			k := revoked(tr)
			tr.zone.keys[0].signsKeys = false
			tr.parent.add(k.ToDS(dns.SHA256).String())
		}, name: www, t: dns.TypeA, verdict: Bogus, told: []string{"broken ds-no-key"}, unbound: "it lets revoked keys go on"},
		{fact: "a revoked key that signs the keys, beside another", make: func(tr *tree) { revoked(tr) }, name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"info key-revoked"}},
		{fact: "a revoked key alone signs the records", make: func(tr *tree) {
			revoked(tr).signsZone = true
			tr.zone.keys[1].signsZone = false
		}, name: www, t: dns.TypeA, verdict: Bogus, told: []string{"broken signature-no-key", "info key-revoked"}, unbound: "it lets revoked keys go on"},
		{fact: "the anchor is a DNSKEY", make: func(tr *tree) { tr.anchors = []string{tr.root.keys[0].String()} }, name: www, t: dns.TypeA, verdict: Secure, secure: true},
		{fact: "the anchor is a DNSKEY, revoked since", make: func(tr *tree) {
			tr.anchors = []string{tr.root.keys[0].String()}
			tr.root.keys[0].Flags |= 0x80
		}, name: www, t: dns.TypeA, verdict: Bogus, told: []string{"broken anchor-no-key"}},
	}
}

// serverEdges are of servers.
func serverEdges() []edge {
	const www = "www.zone.example."
	mute := func(m *dns.Msg) { m.Rcode, m.Answer, m.Ns, m.Extra = dns.RcodeServerFailure, nil, nil, nil }
	return []edge{
		{fact: "every answer is too long for UDP", name: www, t: dns.TypeA, verdict: Secure, secure: true, make: func(tr *tree) {
			for _, s := range append(tr.parentAt, tr.zoneAt...) {
				s.twist = func(_, m *dns.Msg, tcp bool) *dns.Msg {
					if !tcp {
						m.Truncated, m.Answer, m.Ns, m.Extra = true, nil, nil, nil
					}
					return m
				}
			}
		}},
		{fact: "a server of the parent is lame", name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning server-lame"}, make: func(tr *tree) {
			tr.parentAt[1].twist = twisted("", 0, mute)
		}},
		{fact: "a server of the parent denies the zone", name: www, t: dns.TypeA, verdict: Secure, secure: true, told: []string{"fault server-no-dnssec"}, make: func(tr *tree) {
			tr.parentAt[1].twist = twisted("zone.example.", dns.TypeDS, func(m *dns.Msg) {
				m.Answer, m.Ns = nil, keep(m.Ns, func(rr dns.RR) bool { return rr.Header().Rrtype != dns.TypeRRSIG })
				m.Ns = append(m.Ns, tr.parent.sets["example."][dns.TypeSOA][0])
			})
		}},
		{fact: "a server knows the name before the other does", name: "new.zone.example.", t: dns.TypeA, verdict: Secure, secure: true, told: []string{"warning servers-serial"}, make: func(tr *tree) {
			old := tr.zone.other(func(z *testZone) { z.serial = 6 })
			tr.zone.add("new.zone.example. 60 IN A 192.0.2.85")
			tr.zoneAt[1].zones = []*testZone{old}
		}},
	}
}

func allEdges() []edge {
	return slices.Concat(answerEdges(), denialEdges(), keyEdges(), serverEdges())
}

func (e *edge) check(t testing.TB) (*tree, *Report) {
	t.Helper()
	tr := newTree(t)
	if e.make != nil {
		e.make(tr)
	}
	return tr, tr.check(e.name, zone.Type(e.t))
}

// validated reports whether all answers about the name are.
func (r *Report) validated() bool {
	for _, l := range r.Links {
		if slices.ContainsFunc(l.Answers, func(a Answer) bool { return !a.Secure }) {
			return false
		}
	}
	return true
}

func TestCheck_Edges(t *testing.T) {
	for _, e := range allEdges() {
		t.Run(e.fact, func(t *testing.T) {
			t.Parallel()
			_, r := e.check(t)
			if r.Verdict != e.verdict || r.Verdict != Bogus && r.validated() != e.secure {
				t.Errorf("verdict %s, validated %v: %s", r.Verdict, r.validated(), r.Summary)
			}
			if diff := cmp.Diff(e.told, told(r)); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if t.Failed() {
				t.Logf("%+v", r.Links[len(r.Links)-1])
			}
		})
	}
}

// agrees holds what a validator says against a check.
func (e *edge) agrees(t *testing.T, r *Report, got validated) {
	t.Helper()
	refused := r.Verdict == Bogus || r.Verdict == Unreachable
	if got.refused != refused || !refused && got.secure != r.validated() {
		t.Errorf("the check says %s, validated %v: %s; the validator:\n%s", r.Verdict, r.validated(), r.Summary, got.text)
	}
}

func TestUnbound_AgreesAboutEdges(t *testing.T) {
	peerPath(t, "unbound")
	for _, e := range allEdges() {
		if e.unbound == "" {
			t.Run(e.fact, func(t *testing.T) {
				t.Parallel()
				tr, r := e.check(t)
				e.agrees(t, r, tr.byUnbound(e.name, e.t))
			})
		}
	}
}

func TestDelv_AgreesAboutEdges(t *testing.T) {
	peerPath(t, "delv")
	for _, e := range allEdges() {
		if e.delv == "" {
			t.Run(e.fact, func(t *testing.T) {
				t.Parallel()
				tr, r := e.check(t)
				e.agrees(t, r, tr.delv(e.name, e.t))
			})
		}
	}
}
