package chain

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// fault is one that a test makes for real.
type fault struct {
	code     Code
	severity Severity
	verdict  Verdict
	fact     string
	make     func(*tree)
	text     string // of the finding, in part
	ask      string // www.zone.example. where it is empty
	t        zone.Type
	// bogus is what a validator is asked, where that is not the same; where it is
	// "-" it is asked nothing: it knows other bounds, or waits longer for a server
	// that is silent than a test may.
	bogus  string
	bogusT uint16
}

// without leaves out the signatures over one type.
func without(t uint16) func(*dns.RRSIG) bool {
	return func(sig *dns.RRSIG) bool { return sig.TypeCovered != t }
}

// spoil changes the bytes of a zone's signatures over a type, once it is built.
func spoil(z *testZone, t uint16) {
	z.build()
	for _, sets := range z.sets {
		for _, rr := range sets[t] {
			if sig, ok := rr.(*dns.RRSIG); ok {
				first := "A"
				if sig.Signature[0] == 'A' {
					first = "B"
				}
				sig.Signature = first + sig.Signature[1:]
			}
		}
	}
}

// wrongDigest is the DS of a zone's key with other bytes in its digest.
func wrongDigest(z *testZone) string {
	ds := z.keys[0].ToDS(dns.SHA256)
	ds.Digest = strings.Repeat("ab", 32)
	return ds.String()
}

// twistZone changes what the zone's servers answer to one question.
func twistZone(tr *tree, name string, t uint16, change func(m *dns.Msg)) {
	for _, s := range tr.zoneAt {
		s.twist = twisted(name, t, change)
	}
}

func twisted(name string, t uint16, change func(m *dns.Msg)) func(r, m *dns.Msg, _ bool) *dns.Msg {
	return func(r, m *dns.Msg, _ bool) *dns.Msg {
		if q := r.Question[0]; (t == 0 || q.Qtype == t) && (name == "" || strings.EqualFold(q.Name, name)) {
			change(m)
		}
		return m
	}
}

// keep keeps the records of some types in a section.
func keep(section []dns.RR, keep func(dns.RR) bool) []dns.RR {
	return slices.DeleteFunc(slices.Clone(section), func(rr dns.RR) bool { return !keep(rr) })
}

func isProof(rr dns.RR) bool {
	if sig, ok := rr.(*dns.RRSIG); ok {
		return sig.TypeCovered == dns.TypeNSEC || sig.TypeCovered == dns.TypeNSEC3
	}
	return rr.Header().Rrtype == dns.TypeNSEC || rr.Header().Rrtype == dns.TypeNSEC3
}

// keyFaults are those of anchors, DS and DNSKEY.
func keyFaults() []fault {
	return []fault{
		{code: CodeAnchorNoKey, severity: Broken, verdict: Bogus, fact: "the anchor is of another key", text: "no key of . (", make: func(tr *tree) {
			tr.anchors = []string{newKey(tr.t, ".", 257, dns.ECDSAP256SHA256).ToDS(dns.SHA256).String()}
		}},
		{code: CodeDSNoKey, severity: Broken, verdict: Bogus, fact: "the DS is of another key", text: "and the zone has key", make: func(tr *tree) {
			tr.parent.add(newKey(tr.t, "zone.example.", 257, dns.ECDSAP256SHA256).ToDS(dns.SHA256).String())
		}},
		{code: CodeDSNoKey, severity: Broken, verdict: Bogus, fact: "the digest is wrong", text: "the digest in the DS", make: func(tr *tree) { tr.parent.add(wrongDigest(tr.zone)) }},
		{code: CodeDSNoKey, severity: Broken, verdict: Bogus, fact: "the algorithm of the DS is another", text: "the DS of zone.example. is of key", make: func(tr *tree) {
			ds := tr.zone.keys[0].ToDS(dns.SHA256)
			ds.Algorithm = dns.ED25519
			tr.parent.add(ds.String())
		}},
		{code: CodeDSNoKey, severity: Broken, verdict: Bogus, fact: "the key of the DS has been revoked", text: "has been revoked and now has tag", make: func(tr *tree) {
			tr.parent.add(tr.zone.ds())
			tr.zone.keys[0].Flags |= 0x80
		}},
		{code: CodeDSKeyNotSigning, severity: Broken, verdict: Bogus, fact: "the key of the DS signs nothing", text: "and only key", make: func(tr *tree) {
			tr.zone.keys[0].signsKeys, tr.zone.keys[1].signsKeys = false, true
		}},
		{code: CodeDSAbsenceUnproven, severity: Broken, verdict: Bogus, fact: "the parent proves nothing", text: "nothing proves that zone.example. has no DS", make: func(tr *tree) {
			tr.zone.unsigned = true
			for _, s := range tr.parentAt {
				s.twist = func(_, m *dns.Msg, _ bool) *dns.Msg {
					m.Ns = keep(m.Ns, func(rr dns.RR) bool { return !isProof(rr) })
					return m
				}
			}
		}},
		{code: CodeDSAbsenceUnproven, severity: Broken, verdict: Bogus, fact: "the parent's NSEC lists a DS", text: "lists the type DS", make: func(tr *tree) {
			tr.zone.unsigned = true
			tr.parent.denying = func(rr dns.RR) {
				if n, ok := rr.(*dns.NSEC); ok && n.Hdr.Name == "zone.example." {
					n.TypeBitMap = []uint16{dns.TypeNS, dns.TypeDS, dns.TypeRRSIG, dns.TypeNSEC}
				}
			}
		}},
		{code: CodeDSAbsenceUnproven, severity: Broken, verdict: Bogus, fact: "the parent's NSEC says it is no delegation", text: "says that this is no delegation", make: func(tr *tree) {
			tr.zone.unsigned = true
			tr.parent.denying = func(rr dns.RR) {
				if n, ok := rr.(*dns.NSEC); ok && n.Hdr.Name == "zone.example." {
					n.TypeBitMap = []uint16{dns.TypeTXT, dns.TypeRRSIG, dns.TypeNSEC}
				}
			}
		}},
		{code: CodeDenialOptOut, severity: Broken, verdict: Bogus, fact: "a span hides a delegation and has no opt-out", text: "has no opt-out", make: func(tr *tree) {
			tr.zone.unsigned, tr.parent.nsec3, tr.parent.optOut = true, true, true
			tr.parent.denying = func(rr dns.RR) { rr.(*dns.NSEC3).Flags = 0 }
		}},
		{code: CodeDSUnusable, severity: Warning, verdict: Insecure, fact: "an unknown digest type", text: "that validators do not use", make: func(tr *tree) {
			tr.parent.add("zone.example. 60 IN DS 1 13 200 aabbcc")
		}},
		{code: CodeDSUnusable, severity: Warning, verdict: Insecure, fact: "an unknown algorithm", text: "that validators do not use", make: func(tr *tree) {
			tr.parent.add("zone.example. 60 IN DS 1 200 2 " + strings.Repeat("ab", 32))
		}},
		{code: CodeDSMissing, severity: Warning, verdict: Insecure, fact: "an island", text: "has no DS of it", make: func(tr *tree) {
			tr.parent.add("zone.example. 60 IN TXT x") // below the cut: nothing
			tr.zone.build()
			tr.zone.unsigned = true
		}},
		{code: CodeDSStandby, severity: Info, verdict: Secure, fact: "a DS of a key in the safe", text: "which zone.example. does not have", make: func(tr *tree) {
			tr.parent.add(tr.zone.ds(), newKey(tr.t, "zone.example.", 257, dns.ECDSAP256SHA256).ToDS(dns.SHA256).String())
		}},
		{code: CodeDSSHA1, severity: Warning, verdict: Secure, fact: "a DS with SHA-1 beside another", text: "SHA-1", make: func(tr *tree) {
			tr.parent.add(tr.zone.ds(), tr.zone.keys[0].ToDS(dns.SHA1).String())
		}},
		{code: CodeAlgorithmSHA1, severity: Warning, verdict: Secure, fact: "a key for SHA-1 beside others", text: "RSASHA1", make: func(tr *tree) {
			k := newKey(tr.t, "zone.example.", 256, dns.RSASHA1)
			k.signsZone = false
			tr.zone.keys = append(tr.zone.keys, k)
		}},
		{code: CodeDNSKEYMissing, severity: Broken, verdict: Bogus, fact: "the zone went unsigned", text: "no DNSKEY", make: func(tr *tree) {
			tr.parent.add(tr.zone.ds())
			tr.zone.unsigned = true
		}},
		{code: CodeKeyRevoked, severity: Info, verdict: Secure, fact: "an old key is revoked", text: "is revoked", make: func(tr *tree) {
			k := newKey(tr.t, "zone.example.", 257, dns.ECDSAP256SHA256)
			k.Flags |= 0x80
			k.signsKeys = false
			tr.zone.keys = append(tr.zone.keys, k)
		}},
		{code: CodeAlgorithmUnsigned, severity: Fault, verdict: Secure, fact: "a key of an algorithm that has signed nothing", text: "has no signature of ED25519", make: func(tr *tree) {
			k := newKey(tr.t, "zone.example.", 256, dns.ED25519)
			k.signsZone = false
			tr.zone.keys = append(tr.zone.keys, k)
		}},
		{code: CodeTooMany, severity: Broken, verdict: Bogus, fact: "a hundred keys", text: "keys, more than", bogus: "-", make: func(tr *tree) {
			for i := range 100 {
				tr.zone.add(fmt.Sprintf("zone.example. 3600 IN DNSKEY 256 3 13 %s", keyText(byte(i))))
			}
		}},
	}
}

// keyText is the public key field of a key that signs nothing.
func keyText(n byte) string {
	return base64.StdEncoding.EncodeToString(append(bytes.Repeat([]byte{10}, 63), n))
}

// signatureFaults are those of signatures.
func signatureFaults() []fault {
	now := time.Now()
	timed := func(from, to time.Duration) func(*tree) {
		return func(tr *tree) {
			tr.zone.signing = func(sig *dns.RRSIG) bool {
				if sig.TypeCovered == dns.TypeA {
					sig.Inception, sig.Expiration = uint32(now.Add(from).Unix()), uint32(now.Add(to).Unix())
				}
				return true
			}
		}
	}
	return []fault{
		{code: CodeSignatureMissing, severity: Broken, verdict: Bogus, fact: "of an RRset", text: "www.zone.example. A has no signature", make: func(tr *tree) { tr.zone.signing = without(dns.TypeA) }},
		{code: CodeSignatureMissing, severity: Broken, verdict: Bogus, fact: "of the keys", text: "zone.example. DNSKEY has no signature", make: func(tr *tree) { tr.zone.signing = without(dns.TypeDNSKEY) }},
		{code: CodeSignatureMissing, severity: Broken, verdict: Bogus, fact: "of the DS", text: "zone.example. DS has no signature", make: func(tr *tree) { tr.parent.signing = without(dns.TypeDS) }},
		{code: CodeSignatureExpired, severity: Broken, verdict: Bogus, fact: "of an RRset", text: "expired 2 days ago", make: timed(-5*24*time.Hour, -50*time.Hour)},
		{code: CodeSignatureExpired, severity: Broken, verdict: Bogus, fact: "of all in the zone", text: "zone.example. DNSKEY by key", make: func(tr *tree) {
			tr.zone.from, tr.zone.to = now.Add(-5*24*time.Hour), now.Add(-50*time.Hour)
		}},
		{code: CodeSignatureNotYet, severity: Broken, verdict: Bogus, fact: "the signer's clock is ahead", text: "so the signer's clock is ahead", make: timed(50*time.Hour, 90*time.Hour)},
		{code: CodeSignatureNotYet, severity: Broken, verdict: Bogus, fact: "all the way down", text: "the clock of this machine may be behind", make: func(tr *tree) {
			for _, z := range []*testZone{tr.root, tr.parent, tr.zone} {
				z.from, z.to = now.Add(50*time.Hour), now.Add(900*time.Hour)
			}
		}},
		{code: CodeSignatureNoKey, severity: Broken, verdict: Bogus, fact: "the ZSK is not published", text: "which the DNSKEY RRset does not have", make: func(tr *tree) { tr.zone.keys[1].hidden = true }},
		{code: CodeSignatureWrong, severity: Broken, verdict: Bogus, fact: "the bytes are wrong", text: "does not fit the data", make: func(tr *tree) { spoil(tr.zone, dns.TypeA) }},
		{code: CodeSignatureWrong, severity: Broken, verdict: Bogus, fact: "the data was changed", text: "does not fit the data", make: func(tr *tree) {
			tr.zone.build()
			for _, rr := range tr.zone.sets["www.zone.example."][dns.TypeA] {
				if a, ok := rr.(*dns.A); ok {
					a.A = a.A.To4()
					a.A[3]++
				}
			}
		}},
		{code: CodeSignatureSigner, severity: Broken, verdict: Bogus, fact: "the parent's name", text: "is in the name of example.", make: func(tr *tree) {
			tr.zone.signing = func(sig *dns.RRSIG) bool {
				if sig.TypeCovered == dns.TypeA {
					sig.SignerName = "example."
				}
				return true
			}
		}},
		{code: CodeSignatureSoon, severity: Warning, verdict: Secure, fact: "in a few hours", text: "expires in 9 hours", make: timed(-time.Hour, 10*time.Hour-time.Minute)},
		{code: CodeSignatureExpire, severity: Warning, verdict: Secure, fact: "EXPIRE is a week", text: "(SOA EXPIRE)", make: timed(-time.Hour, 100*time.Hour)},
	}
}

func proofOf(tr *tree, change func(m *dns.Msg)) {
	for _, s := range tr.zoneAt {
		s.twist = func(_, m *dns.Msg, _ bool) *dns.Msg {
			if len(m.Answer) == 0 {
				change(m)
			}
			return m
		}
	}
}

// denialFaults are those of proofs that something is not there, and of aliases.
func denialFaults() []fault {
	const none, noneT = "none.zone.example.", zone.TypeA
	return []fault{
		{code: CodeDenialMissing, severity: Broken, verdict: Bogus, fact: "no NSEC", text: "nothing proves that", bogus: none, make: func(tr *tree) {
			proofOf(tr, func(m *dns.Msg) { m.Ns = keep(m.Ns, func(rr dns.RR) bool { return !isProof(rr) }) })
		}},
		{code: CodeDenialNotCovering, severity: Broken, verdict: Bogus, fact: "the NSEC of another name", text: "does not cover the name", bogus: none, make: func(tr *tree) {
			tr.start()
			other := tr.zone.sets["www.zone.example."][dns.TypeNSEC]
			proofOf(tr, func(m *dns.Msg) {
				if m.Rcode == dns.RcodeNameError {
					m.Ns = append(keep(m.Ns, func(rr dns.RR) bool { return !isProof(rr) }), other...)
				}
			})
		}},
		{code: CodeDenialNotCovering, severity: Broken, verdict: Bogus, fact: "the closest encloser is missing", text: "does not cover the name", bogus: none, make: func(tr *tree) {
			tr.zone.nsec3 = true
			tr.start()
			apex := tr.zone.match("zone.example.")[0].Header().Name
			proofOf(tr, func(m *dns.Msg) {
				if m.Rcode == dns.RcodeNameError {
					m.Ns = keep(m.Ns, func(rr dns.RR) bool { return rr.Header().Name != apex })
				}
			})
		}},
		{code: CodeDenialBitmap, severity: Broken, verdict: Bogus, fact: "the type is listed", text: "lists the type AAAA", make: func(tr *tree) {
			twistZone(tr, "www.zone.example.", dns.TypeAAAA, func(m *dns.Msg) {
				m.Answer, m.Ns = nil, slices.Concat(tr.zone.sets["zone.example."][dns.TypeSOA], tr.zone.match("www.zone.example."))
			})
		}, bogus: "www.zone.example.", bogusT: dns.TypeAAAA},
		{code: CodeDenialWildcard, severity: Broken, verdict: Bogus, fact: "the wildcard is not denied", text: "no wildcard", bogus: none, make: func(tr *tree) {
			proofOf(tr, func(m *dns.Msg) { // that of the apex covers the wildcard
				if m.Rcode == dns.RcodeNameError {
					m.Ns = keep(m.Ns, func(rr dns.RR) bool { return !isProof(rr) || rr.Header().Name != "zone.example." })
				}
			})
		}},
		{code: CodeDenialWildcard, severity: Broken, verdict: Bogus, fact: "a wildcard's answer without proof", text: "comes from a wildcard, and nothing proves", ask: "any.wild.zone.example.", t: zone.TypeTXT, bogus: "any.wild.zone.example.", bogusT: dns.TypeTXT, make: func(tr *tree) {
			twistZone(tr, "any.wild.zone.example.", dns.TypeTXT, func(m *dns.Msg) { m.Ns = nil })
		}},
		{code: CodeDenialRcode, severity: Fault, verdict: Secure, fact: "NXDOMAIN for an empty non-terminal", text: "its proof that the name exists", ask: "empty.zone.example.", bogus: "empty.zone.example.", make: func(tr *tree) {
			twistZone(tr, "empty.zone.example.", 0, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError })
		}},
		{code: CodeDenialIterations, severity: Warning, verdict: Secure, fact: "ten iterations", text: "10 iterations", make: func(tr *tree) { tr.zone.nsec3, tr.zone.iterations = true, 10 }},
		{code: CodeSignatureExpired, severity: Broken, verdict: Bogus, fact: "of the proof", text: "NSEC by key", bogus: none, bogusT: uint16(noneT), make: func(tr *tree) {
			tr.zone.signing = func(sig *dns.RRSIG) bool {
				if sig.TypeCovered == dns.TypeNSEC {
					sig.Inception, sig.Expiration = uint32(time.Now().Add(-190*time.Hour).Unix()), uint32(time.Now().Add(-90*time.Hour).Unix())
				}
				return true
			}
		}},
		{code: CodeAliasLoop, severity: Broken, verdict: Bogus, fact: "two aliases of each other", text: "lead in a circle", ask: "a.zone.example.", bogus: "a.zone.example.", make: func(tr *tree) {
			tr.zone.add("a.zone.example. 60 IN CNAME b.zone.example.", "b.zone.example. 60 IN CNAME a.zone.example.")
		}},
	}
}

// serverFaults are those of servers.
func serverFaults() []fault {
	one := func(change func(s *testServer, tr *tree)) func(*tree) {
		return func(tr *tree) { change(tr.zoneAt[1], tr) }
	}
	stale := func(change func(z *testZone)) func(*tree) {
		return func(tr *tree) {
			tr.start()
			tr.zoneAt[1].zones = []*testZone{tr.zone.other(change)}
		}
	}
	cds := func(k *testKey) string { return k.ToDS(dns.SHA256).ToCDS().String() }
	return []fault{
		{code: CodeServerSilent, severity: Fault, verdict: Secure, fact: "one of two", text: "no answer over UDP", bogus: "-", make: one(func(s *testServer, _ *tree) {
			s.twist = func(_, _ *dns.Msg, _ bool) *dns.Msg { return nil }
		})},
		{code: CodeServerSilent, severity: Fault, verdict: Unreachable, fact: "both", text: "no answer over UDP", bogus: "-", make: func(tr *tree) {
			for _, s := range tr.zoneAt {
				s.twist = func(_, _ *dns.Msg, _ bool) *dns.Msg { return nil }
			}
		}},
		{code: CodeServerLame, severity: Fault, verdict: Secure, fact: "it refuses", text: "answers REFUSED", make: one(func(s *testServer, tr *tree) { s.zones = []*testZone{newZone(tr.t, "other.test.")}; s.zones[0].build() })},
		{code: CodeServerLame, severity: Fault, verdict: Secure, fact: "it is not authoritative", text: "is not authoritative", make: one(func(s *testServer, _ *tree) {
			s.twist = func(_, m *dns.Msg, _ bool) *dns.Msg { m.Authoritative = false; return m }
		})},
		{code: CodeServerTCP, severity: Fault, verdict: Secure, fact: "refused", text: "does not answer over TCP", make: one(func(s *testServer, _ *tree) {
			s.twist = func(_, m *dns.Msg, tcp bool) *dns.Msg {
				if tcp {
					return nil
				}
				return m
			}
		})},
		{code: CodeServerEDNS, severity: Fault, verdict: Secure, fact: "FORMERR", text: "answers FORMERR to questions with EDNS", make: one(func(s *testServer, _ *tree) {
			s.twist = func(r, m *dns.Msg, _ bool) *dns.Msg {
				if r.IsEdns0() != nil {
					m.Rcode, m.Answer, m.Ns, m.Extra = dns.RcodeFormatError, nil, nil, nil
				}
				return m
			}
		})},
		{code: CodeServerEDNS, severity: Fault, verdict: Secure, fact: "silence", text: "answers nothing to questions with EDNS", bogus: "-", make: one(func(s *testServer, _ *tree) {
			s.twist = func(r, m *dns.Msg, _ bool) *dns.Msg {
				if r.IsEdns0() != nil {
					return nil
				}
				return m
			}
		})},
		{code: CodeServerTruncation, severity: Fault, verdict: Secure, fact: "over TCP too", text: "truncates the answer even over TCP", make: one(func(s *testServer, _ *tree) {
			s.twist = func(_, m *dns.Msg, _ bool) *dns.Msg { m.Truncated = true; return m }
		})},
		{code: CodeServerMalformed, severity: Fault, verdict: Secure, fact: "too many records", text: "records in a section", make: one(func(s *testServer, _ *tree) {
			s.twist = func(_, m *dns.Msg, tcp bool) *dns.Msg {
				m.Truncated = !tcp
				for i := range 600 {
					m.Extra = append(m.Extra, &dns.A{Hdr: dns.RR_Header{Name: "x.", Rrtype: dns.TypeA, Class: dns.ClassINET}, A: []byte{10, 0, byte(i >> 8), byte(i)}})
				}
				return m
			}
		})},
		{code: CodeServerNoDNSSEC, severity: Fault, verdict: Secure, fact: "the unsigned version", text: "no DNSKEY", make: stale(func(z *testZone) { z.unsigned = true })},
		{code: CodeServerNoAddress, severity: Fault, verdict: Secure, fact: "a name without one", text: "ns3.zone.example. of zone.example. has no address", make: func(tr *tree) {
			for _, z := range []*testZone{tr.zone, tr.parent} {
				z.add("zone.example. 3600 IN NS ns3.zone.example.")
			}
		}},
		{code: CodeServersSerial, severity: Warning, verdict: Secure, fact: "an old version", text: "7 at 1 of them, 6 at 1 of them", make: stale(func(z *testZone) { z.serial = 6 })},
		{code: CodeServersDNSKEY, severity: Fault, verdict: Secure, fact: "a key is not everywhere", text: "2 different DNSKEY RRsets", make: stale(func(z *testZone) {
			k := newKey(z.t, z.apex, 256, dns.ECDSAP256SHA256)
			k.signsZone = false
			z.keys = append(z.keys, k)
		})},
		{code: CodeDelegationNS, severity: Warning, verdict: Secure, fact: "the zone names one more", text: "and zone.example. names", make: func(tr *tree) {
			s := &testServer{}
			s.start(tr.t, tr.rootAt.addr.Port())
			tr.zoneAt = append(tr.zoneAt, s)
			tr.zone.add("zone.example. 3600 IN NS ns9.zone.example.", "ns9.zone.example. 3600 IN A "+s.addr.Addr().String())
		}},
		{code: CodeCDSAhead, severity: Info, verdict: Secure, fact: "a new key", text: "and the parent has that of key", make: func(tr *tree) {
			k := newKey(tr.t, "zone.example.", 257, dns.ECDSAP256SHA256)
			tr.parent.add(tr.zone.ds())
			tr.zone.keys = append(tr.zone.keys, k)
			tr.zone.add(cds(k))
		}},
		{code: CodeCDSAhead, severity: Info, verdict: Secure, fact: "the zone wants to go unsigned", text: "asks its parent to remove the DS", make: func(tr *tree) { tr.zone.add("zone.example. 60 IN CDS 0 0 0 00") }},
		{code: CodeCDSNoKey, severity: Fault, verdict: Secure, fact: "the CDS is of no key", text: "which the zone does not have", make: func(tr *tree) {
			tr.zone.add(cds(newKey(tr.t, "zone.example.", 257, dns.ECDSAP256SHA256)))
		}},
		{code: CodeCDSDisagree, severity: Fault, verdict: Secure, fact: "the CDNSKEY is of another key", text: "and no CDNSKEY of it", make: func(tr *tree) {
			tr.zone.add(cds(tr.zone.keys[0]), tr.zone.keys[1].ToCDNSKEY().String())
		}},
		{code: CodeSignatureExpired, severity: Fault, verdict: Secure, fact: "at one server", text: "expired", make: stale(func(z *testZone) {
			z.from, z.to = time.Now().Add(-90*24*time.Hour), time.Now().Add(-24*time.Hour)
		})},
	}
}

// notMade are the codes that no test of a tree can make, and what tests them.
func notMade() []Code {
	return []Code{
		CodeServerUnreachable, // TestCheck_AddressesWithoutAWayAreNoFault
		CodeNotAsked,          // TestCheck_HostileServersCannotMakeItGoOn
	}
}

func allFaults() []fault {
	return slices.Concat(keyFaults(), signatureFaults(), denialFaults(), serverFaults())
}

func TestCheck_EachFaultIsMadeAndFound(t *testing.T) {
	made := map[Code]bool{}
	for _, f := range allFaults() {
		made[f.code] = true
		t.Run(fmt.Sprintf("%s/%s", f.code, f.fact), func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			f.make(tr)
			r := f.check(tr)
			if r.Verdict != f.verdict {
				t.Errorf("verdict %s, want %s: %s", r.Verdict, f.verdict, r.Summary)
			}
			f.seek(t, r)
			if r.Healthy != (f.severity.Rank() > Fault.Rank()) {
				t.Errorf("healthy %v with a finding that is %s", r.Healthy, f.severity)
			}
			if f.severity == Broken && (r.Do == "" || !strings.Contains(r.Summary, f.text)) {
				t.Errorf("the summary does not name it: %s", r.Summary)
			}
		})
	}
	for _, m := range Meanings() {
		if !made[m.Code] && !slices.Contains(notMade(), m.Code) {
			t.Errorf("%s: no test makes it", m.Code)
		}
	}
}

func (f *fault) check(tr *tree) *Report {
	name := "www.zone.example."
	if f.ask != "" {
		name = f.ask
	}
	var types []zone.Type
	if f.t != 0 {
		types = []zone.Type{f.t}
	}
	return tr.check(name, types...)
}

// seek looks for the finding in a report.
func (f *fault) seek(t *testing.T, r *Report) {
	t.Helper()
	var all []string
	for _, l := range r.Links {
		for _, got := range l.Findings {
			if got.Code == f.code && got.Severity == f.severity && strings.Contains(got.Text, f.text) {
				if m, ok := MeaningOf(got.Code); !ok || got.Do != m.Do {
					t.Errorf("what is to be done is %q", got.Do)
				}
				return
			}
			all = append(all, fmt.Sprintf("%s %s: %s", got.Severity, got.Code, got.Text))
		}
	}
	t.Errorf("not found with %q; found:\n%s", f.text, strings.Join(all, "\n"))
}
