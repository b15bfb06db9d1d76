package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const example = "example.com"

func exampleZone() string { return example + "=" + testdata("example.com.zone") }

// facts are answers that every server of the signed zone must give.
var facts = []struct {
	what  string
	name  string
	qtype uint16
	rcode int
	holds func(*dns.Msg) bool
}{
	{"a positive answer is signed", "mail.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return has(m.Answer, dns.TypeA) && signed(m.Answer, dns.TypeA)
	}},
	{"the DNSKEY set is signed", "example.com", dns.TypeDNSKEY, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return has(m.Answer, dns.TypeDNSKEY) && signed(m.Answer, dns.TypeDNSKEY)
	}},
	{"a CNAME leads to its target", "ftp.example.com", dns.TypeAAAA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return signed(m.Answer, dns.TypeCNAME) && signed(m.Answer, dns.TypeAAAA)
	}},
	{"no such name is proved", "nothing.example.com", dns.TypeA, dns.RcodeNameError, proved},
	{"no such type is proved", "mail.example.com", dns.TypeMX, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return len(m.Answer) == 0 && proved(m)
	}},
	{"an empty non-terminal has no type", "ent.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return len(m.Answer) == 0 && proved(m)
	}},
	{"a wildcard answers with its own signature", "any.wild.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return expanded(m.Answer, 3) && denies(m.Ns)
	}},
	{"a wildcard below an empty non-terminal", "any.x.went.example.com", dns.TypeMX, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return expanded(m.Answer, 4) && denies(m.Ns)
	}},
	{"a secure delegation shows its DS", "host.secure.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return has(m.Ns, dns.TypeNS) && !signed(m.Ns, dns.TypeNS) && signed(m.Ns, dns.TypeDS)
	}},
	{"an insecure delegation has proof of no DS", "host.plain.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return has(m.Ns, dns.TypeNS) && !has(m.Ns, dns.TypeDS) && denies(m.Ns)
	}},
	{"glue comes along", "host.insecure.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return has(m.Ns, dns.TypeNS) && has(m.Extra, dns.TypeA) && !signed(m.Extra, dns.TypeA)
	}},
	{"a DNAME gives a CNAME", "host.old.example.com", dns.TypeA, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return signed(m.Answer, dns.TypeDNAME) && has(m.Answer, dns.TypeCNAME)
	}},
	{"a type without a name is served", "unknown.example.com", 65280, dns.RcodeSuccess, func(m *dns.Msg) bool {
		return has(m.Answer, 65280) && signed(m.Answer, 65280)
	}},
}

func has(rrs []dns.RR, rrtype uint16) bool {
	for _, rr := range rrs {
		if rr.Header().Rrtype == rrtype {
			return true
		}
	}
	return false
}

func signed(rrs []dns.RR, covered uint16) bool {
	for _, rr := range rrs {
		if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == covered {
			return true
		}
	}
	return false
}

func denies(rrs []dns.RR) bool {
	return has(rrs, dns.TypeNSEC) && signed(rrs, dns.TypeNSEC) || has(rrs, dns.TypeNSEC3) && signed(rrs, dns.TypeNSEC3)
}

// proved says whether a negative answer has a signed SOA and a signed denial.
func proved(m *dns.Msg) bool { return signed(m.Ns, dns.TypeSOA) && denies(m.Ns) }

// expanded says whether an answer was made from a wildcard: its signature
// counts fewer labels than its owner has.
func expanded(rrs []dns.RR, labels uint8) bool {
	for _, rr := range rrs {
		if sig, ok := rr.(*dns.RRSIG); ok {
			return sig.Labels == labels && dns.CountLabel(sig.Hdr.Name) > int(labels)
		}
	}
	return false
}

func TestServe_SecondariesTransferAndAnswer(t *testing.T) {
	need(t, "named", "knotd", "nsd", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) {
			d := startDaemon(t, denialPolicy(denial), exampleZone())
			serial := d.awaitServed(t, example)
			file, ours := d.dumpTo(t, example)
			acceptedByAll(t, example, file)
			if want := map[string]uint16{"nsec": dns.TypeNSEC}[denial]; want != 0 != has(ours, dns.TypeNSEC) {
				t.Errorf("NSEC records are there: %v", has(ours, dns.TypeNSEC))
			}
			for _, peer := range secondaries {
				t.Run(peer.name, func(t *testing.T) {
					s := peer.start(t, example, d.addr)
					s.awaitSerial(t, example, serial)
					for _, f := range facts {
						// NSD's old process may still answer beside its new one.
						ok, saw := eventually(10*time.Second, func() (bool, string) {
							m, err := query(s.addr, f.name, f.qtype)
							return err == nil && m.Rcode == f.rcode && f.holds(m), fmt.Sprintf("%v\n%v", err, m)
						})
						if !ok {
							t.Errorf("%s: answer is %s", f.what, saw)
						}
					}
					sameZone(t, "what "+peer.name+" serves", ours, axfr(t, s.addr, example))
				})
			}
		})
	}
}

func TestServe_RareTypesAndOccludedNamesReachNamed(t *testing.T) {
	need(t, "named", "dnssec-verify")
	const zone = "odd.example"
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) {
			d := startDaemon(t, denialPolicy(denial), zone+"="+testdata("odd.zone"))
			serial := d.awaitServed(t, zone)
			file, ours := d.dumpTo(t, zone)
			if r := run(t, "dnssec-verify", "-q", "-o", zone, file); r.code != 0 {
				t.Errorf("dnssec-verify: %v", r)
			}
			s := startNamed(t, namedSecondary(zone, d.addr))
			s.awaitSerial(t, zone, serial)
			sameZone(t, "what named serves", ours, axfr(t, s.addr, zone))
			m := ask(t, s.addr, "_dsboot.child.example._signal.ns1.odd.example", dns.TypeCDS)
			if !has(m.Answer, dns.TypeCDS) || !signed(m.Answer, dns.TypeCDS) {
				t.Errorf("CDS below the apex is data (RFC 9615) and signed: %v", m)
			}
			for _, rr := range ours {
				if sig, ok := rr.(*dns.RRSIG); ok && dns.IsSubDomain("old.odd.example.", sig.Hdr.Name) && sig.Hdr.Name != "old.odd.example." {
					t.Errorf("a name below a DNAME is signed: %v", rr)
				}
			}
		})
	}
}

func TestServe_EveryAlgorithmIsTakenBySecondaries(t *testing.T) {
	need(t, "named", "knotd", "nsd", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	names := map[int]string{8: "RSASHA256", 10: "RSASHA512", 13: "ECDSAP256SHA256", 14: "ECDSAP384SHA384", 15: "ED25519", 16: "ED448"}
	for _, algorithm := range algorithms {
		t.Run(names[algorithm], func(t *testing.T) {
			policy := fmt.Sprintf("version = \"v1\"\n[key-manager.generation]\nalgorithm = %q\n", names[algorithm])
			d := startDaemon(t, policy, exampleZone())
			serial := d.awaitServed(t, example)
			file, ours := d.dumpTo(t, example)
			acceptedByAll(t, example, file)
			for _, rr := range ours {
				if key, ok := rr.(*dns.DNSKEY); ok && int(key.Algorithm) != algorithm {
					t.Errorf("a key of algorithm %d", key.Algorithm)
				}
			}
			for _, peer := range secondaries {
				peer.start(t, example, d.addr).awaitSerial(t, example, serial)
			}
		})
	}
}

func TestServe_UnboundValidates(t *testing.T) {
	need(t, "named", "unbound")
	for _, denial := range denials {
		t.Run(denial, func(t *testing.T) {
			d := startDaemon(t, denialPolicy(denial), exampleZone())
			serial := d.awaitServed(t, example)
			// The child behind the insecure delegation, unsigned.
			child := writeFile(t, shortDir(t)+"/child.zone", "@ 60 IN SOA ns.provider.example. h.example. 1 60 60 60 60\n@ 60 IN NS ns.provider.example.\nhost 60 IN A 192.0.2.222\n")
			auth := startNamed(t, namedSecondary(example, d.addr)+namedPrimary("plain.example.com", child))
			auth.awaitSerial(t, example, serial)
			resolver := startUnbound(t, anchor(t, d), map[string]string{example: auth.addr, "plain.example.com": auth.addr})
			await(t, "unbound answers", 20e9, func() (bool, string) {
				m, err := query(resolver.addr, example, dns.TypeSOA)
				return err == nil && m.Rcode == dns.RcodeSuccess, fmt.Sprint(m, err)
			})
			for _, c := range []struct {
				what   string
				name   string
				qtype  uint16
				rcode  int
				secure bool
			}{
				{"positive", "mail.example.com", dns.TypeA, dns.RcodeSuccess, true},
				{"apex", "example.com", dns.TypeMX, dns.RcodeSuccess, true},
				// An opt-out span proves no name's absence (RFC 5155, 9.2).
				{"no such name", "nothing.example.com", dns.TypeA, dns.RcodeNameError, denial != "nsec3-opt-out"},
				{"no such type", "mail.example.com", dns.TypeMX, dns.RcodeSuccess, true},
				{"empty non-terminal", "ent.example.com", dns.TypeA, dns.RcodeSuccess, true},
				{"wildcard", "any.wild.example.com", dns.TypeTXT, dns.RcodeSuccess, denial != "nsec3-opt-out"},
				{"wildcard of another type", "any.wild.example.com", dns.TypeAAAA, dns.RcodeSuccess, denial != "nsec3-opt-out"},
				{"DS of a secure delegation", "secure.example.com", dns.TypeDS, dns.RcodeSuccess, true},
				{"no DS of an insecure delegation", "plain.example.com", dns.TypeDS, dns.RcodeSuccess, denial != "nsec3-opt-out"},
				{"below an insecure delegation", "host.plain.example.com", dns.TypeA, dns.RcodeSuccess, false},
				{"DNAME", "old.example.com", dns.TypeDNAME, dns.RcodeSuccess, true},
				{"escaped name", `dot\.in\.label.example.com`, dns.TypeA, dns.RcodeSuccess, true},
			} {
				m := ask(t, resolver.addr, c.name, c.qtype)
				if m.Rcode != c.rcode || m.AuthenticatedData != c.secure {
					t.Errorf("%s: want %s, AD %v; answer is\n%v", c.what, dns.RcodeToString[c.rcode], c.secure, m)
				}
			}
		})
	}
}

// anchor is the DS record of the zone's key-signing key, as the client shows it.
func anchor(t *testing.T, d *daemon) string {
	t.Helper()
	for line := range strings.Lines(d.must(t, "key", "ds", example, "--format", "ds")) {
		line = strings.TrimSpace(line)
		if rr, err := dns.NewRR(line); err == nil && rr != nil && rr.Header().Rrtype == dns.TypeDS {
			return rr.String()
		}
	}
	t.Fatal("key ds shows no DS record")
	return ""
}
