package chain

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

func TestCheck_AddressesWithoutAWayAreNoFault(t *testing.T) {
	tr := newTree(t)
	tr.start()
	cfg := tr.config()
	away := tr.zoneAt[1].addr.String()
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address == away {
			return nil, &net.OpError{Op: "dial", Err: syscall.ENETUNREACH}
		}
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	r, err := Check(t.Context(), cfg, "\x03www\x04zone\x07example\x00", nil)
	if err != nil || r.Verdict != Secure || !r.Healthy {
		t.Fatalf("%v %+v", err, r)
	}
	f := fault{code: CodeServerUnreachable, severity: Info, text: "no way to the address"}
	f.seek(t, r)
}

// referral refers a question to name servers, with their addresses.
func referral(m *dns.Msg, apex, ns string, addr netip.Addr) {
	m.Authoritative, m.Rcode = false, dns.RcodeSuccess
	m.Answer, m.Extra = nil, nil
	m.Ns = []dns.RR{&dns.NS{Hdr: dns.RR_Header{Name: apex, Rrtype: dns.TypeNS, Class: dns.ClassINET, Ttl: 60}, Ns: ns}}
	if addr.IsValid() {
		m.Extra = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: ns, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: addr.AsSlice()}}
	}
}

func TestCheck_HostileServersCannotMakeItGoOn(t *testing.T) {
	deep := strings.Repeat("a.", 100) + "zone.example."
	for _, c := range []struct {
		fact string
		make func(*tree)
		ask  string
		most int64
	}{
		{"delegations without end", func(tr *tree) {
			tr.zone.unsigned = true
			addr := tr.zoneAt[0].addr.Addr()
			for _, s := range tr.zoneAt {
				s.twist = func(r, m *dns.Msg, _ bool) *dns.Msg {
					if q := r.Question[0]; strings.HasPrefix(q.Name, "a.") && q.Qtype == dns.TypeSOA {
						referral(m, q.Name, "ns."+q.Name, addr)
					}
					return m
				}
			}
		}, deep, 1000},
		{"name servers that need each other", func(tr *tree) {
			tr.zone.unsigned = true
			tr.parent.drop("ns1.zone.example.", dns.TypeA)
			tr.parent.drop("ns2.zone.example.", dns.TypeA)
			tr.parent.drop("zone.example.", dns.TypeNS)
			tr.parent.add("zone.example. 60 IN NS ns.one.test.")
			tr.root.add("one.test. 60 IN NS ns.two.test.", "two.test. 60 IN NS ns.one.test.")
		}, "www.zone.example.", maxQuestions},
		{"hundreds of name servers without addresses, each in a zone of its own", func(tr *tree) {
			tr.zone.unsigned = true
			for i := range 300 {
				tr.parent.add(fmt.Sprintf("zone.example. 60 IN NS ns.n%d.test.", i))
				tr.root.add(fmt.Sprintf("n%d.test. 60 IN NS ns.n%d.test.", i, (i+1)%300))
			}
		}, "www.zone.example.", maxQuestions},
		{"aliases without end", func(tr *tree) {
			for i := range 100 {
				tr.zone.add(fmt.Sprintf("c%d.zone.example. 60 IN CNAME c%d.zone.example.", i, i+1))
			}
		}, "c0.zone.example.", 1000},
		{"hundreds of signatures", func(tr *tree) {
			tr.zone.build()
			set := tr.zone.sets["www.zone.example."]
			for i := range 400 {
				sig := *set[dns.TypeA][len(set[dns.TypeA])-1].(*dns.RRSIG)
				sig.Expiration += uint32(i + 1)
				set[dns.TypeA] = append(set[dns.TypeA], &sig)
			}
		}, "www.zone.example.", 1000},
		{"servers that say nothing", func(tr *tree) {
			for _, s := range tr.parentAt {
				s.twist = func(_, _ *dns.Msg, _ bool) *dns.Msg { return nil }
			}
		}, "www.zone.example.", 1000},
	} {
		t.Run(c.fact, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			c.make(tr)
			begin := time.Now()
			r := tr.check(c.ask)
			if took := time.Since(begin); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if r.Questions > c.most {
				t.Errorf("%d questions", r.Questions)
			}
			if r.Verdict == Secure && r.Healthy {
				t.Errorf("it is well: %s", r.Summary)
			}
		})
	}
}

func TestCheck_ItEndsInTime(t *testing.T) {
	tr := newTree(t)
	for _, s := range tr.parentAt {
		s.twist = func(_, _ *dns.Msg, _ bool) *dns.Msg { return nil }
	}
	tr.start()
	cfg := tr.config()
	cfg.Limit, cfg.Timeout = 100*time.Millisecond, time.Minute
	r, err := Check(t.Context(), cfg, "\x03www\x04zone\x07example\x00", nil)
	if err != nil {
		t.Fatal(err)
	}
	f := fault{code: CodeNotAsked, severity: Warning, text: "the check's time of 100ms was up"}
	f.seek(t, r)
	if r.Healthy {
		t.Error("what was not asked is well")
	}
}

// FuzzReply judges any message as an answer about a name that exists: nobody
// without the zone's keys can make another address of it, or deny it.
func FuzzReply(f *testing.F) {
	var all []*testZone
	for _, nsec3 := range []bool{false, true} {
		z := newZone(f, "zone.example.", "zone.example. 60 IN NS ns.zone.example.", "www.zone.example. 600 IN A 192.0.2.80", "*.wild.zone.example. 600 IN A 192.0.2.81")
		z.nsec3 = nsec3
		z.build()
		all = append(all, z)
	}
	q := question{name: "\x03www\x04zone\x07example\x00", t: zone.TypeA}
	for _, z := range all {
		for _, name := range []string{"www.zone.example.", "none.zone.example.", "x.wild.zone.example."} {
			for _, t := range []uint16{dns.TypeA, dns.TypeDS, dns.TypeTXT} {
				m := new(dns.Msg)
				m.SetQuestion(name, t)
				z.answer(m, m.Question[0])
				m.Id, m.Response = 1, true
				m.SetQuestion("www.zone.example.", dns.TypeA)
				m.Id, m.Response = 1, true
				msg, err := m.Pack()
				if err != nil {
					f.Fatal(err)
				}
				f.Add(msg)
			}
		}
	}
	var keys []validate.Key
	for _, z := range all {
		for _, k := range z.keys {
			_, data, err := validate.Wire(k.DNSKEY)
			if err != nil {
				f.Fatal(err)
			}
			keys = append(keys, validate.ZoneKeys([][]byte{data})...)
		}
	}
	now := time.Now()
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := check(q, 1, msg)
		if err != nil {
			return
		}
		r := (&asker{}).read(q, m)
		if r.lame("\x04zone\x07example\x00") != nil || r.referral("\x04zone\x07example\x00") != nil {
			return
		}
		j := judge{apex: "\x04zone\x07example\x00", keys: keys, now: now}
		o := j.outcome(r, q, true)
		if o.ok && (o.set == nil || !bytes.Equal(o.set.Data[0], []byte{192, 0, 2, 80})) {
			t.Errorf("validated: %+v", o)
		}
		j.dsOr(r, r.of(q.name, zone.TypeDS), q.name)
		if set := r.of(q.name, zone.TypeDNSKEY); set != nil {
			j.dnskey(set, trust{by: func(validate.Key) bool { return true }})
		}
	})
}
