package observe

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// FuzzAnswer reads any message as the answer to a question about the parent,
// and validates what it says.
func FuzzAnswer(f *testing.F) {
	parent := newZone(f, "example.", "child.example. 3600 IN NS ns1.child.example.")
	opt := *parent
	opt.nsec3 = true
	name, apex := parse(f, "child.example."), parse(f, "example.")
	q := question{name: name, t: zone.TypeDS}
	seed := func(answer, authority []dns.RR) {
		m := new(dns.Msg)
		m.SetQuestion("child.example.", dns.TypeDS)
		m.Id, m.Response, m.Authoritative = 1, true, true
		m.Answer, m.Ns = answer, authority
		msg, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(msg)
	}
	ds, err := dns.NewRR("child.example. 60 IN DS 1 13 2 aabb")
	if err != nil {
		f.Fatal(err)
	}
	seed(parent.sign([]dns.RR{ds}), nil)
	seed(nil, parent.deny("child.example."))
	seed(nil, opt.deny("none.example."))
	_, data, err := validate.Wire(parent.key)
	if err != nil {
		f.Fatal(err)
	}
	keys := validate.ZoneKeys([][]byte{data})
	r := round{q: Question{Zone: name}}
	f.Fuzz(func(t *testing.T, msg []byte) {
		m, err := q.check(1, msg)
		if err != nil {
			return
		}
		a, err := q.read(m)
		if err != nil {
			return
		}
		set := a.of(name, zone.TypeDS)
		if _, err := r.parentApex(a, set); err != nil {
			return
		}
		if set != nil {
			if _, _, err := set.Verified(apex, keys, now); err == nil && len(set.Data) != 1 {
				t.Errorf("a DS RRset of %d records that nobody signed", len(set.Data))
			}
			return
		}
		if _, err := validate.NoDS(name, apex, a.authority, keys, now); err == nil && len(a.authority) < 2 {
			t.Error("absence without a proof")
		}
	})
}

func TestNoDS_WhatProvesNothing(t *testing.T) {
	z := newZone(t, "example.")
	_, data, err := validate.Wire(z.key)
	if err != nil {
		t.Fatal(err)
	}
	keys := validate.ZoneKeys([][]byte{data})
	hash := func(name string) string { return dns.HashName(name, dns.SHA1, 0, "") }
	apexHash, childHash := hash("example."), hash("a.b.example.")
	for _, tt := range []struct {
		fact    string
		records []string
		ok      bool
	}{
		{"a name between owner and next", []string{"a.example. 60 IN NSEC c.example. A RRSIG NSEC"}, true},
		{"the last NSEC", []string{"a.example. 60 IN NSEC example. A RRSIG NSEC"}, true},
		{"an empty non-terminal", []string{"a.example. 60 IN NSEC x.a.b.example. A RRSIG NSEC"}, true},
		{"the name is outside", []string{"c.example. 60 IN NSEC d.example. A RRSIG NSEC"}, false},
		{"a zone above it that is another's (RFC 6840, 4.1)", []string{"b.example. 60 IN NSEC c.example. NS RRSIG NSEC"}, false},
		{"a DNAME above it", []string{"b.example. 60 IN NSEC c.example. DNAME RRSIG NSEC"}, false},
		{"the name has a DS", []string{"a.b.example. 60 IN NSEC c.example. NS DS RRSIG NSEC"}, false},
		{"the apex below the cut (RFC 6840, 4.4)", []string{"a.b.example. 60 IN NSEC c.example. NS SOA RRSIG NSEC"}, false},
		{"an alias", []string{"a.b.example. 60 IN NSEC c.example. CNAME RRSIG NSEC"}, false},
		{"the name's own NSEC3", []string{childHash + ".example. 60 IN NSEC3 1 0 0 - " + shift(childHash, 1) + " NS"}, true},
		{"its NSEC3 has the DS", []string{childHash + ".example. 60 IN NSEC3 1 0 0 - " + shift(childHash, 1) + " NS DS"}, false},
		{"an NSEC3 alone that covers it", []string{shift(childHash, -1) + ".example. 60 IN NSEC3 1 0 0 - " + shift(childHash, 2) + " A"}, false},
		{"the closest encloser alone", []string{apexHash + ".example. 60 IN NSEC3 1 1 0 - " + shift(apexHash, 1) + " SOA NS"}, false},
		{"the closest encloser, and all of the ring", []string{apexHash + ".example. 60 IN NSEC3 1 1 0 - " + apexHash + " SOA NS"}, true},
		{"a hash of too many rounds", []string{dns.HashName("a.b.example.", dns.SHA1, 101, "") + ".example. 60 IN NSEC3 1 0 101 - " + childHash + " NS"}, false},
		{"an unknown flag", []string{childHash + ".example. 60 IN NSEC3 1 2 0 - " + shift(childHash, 1) + " NS"}, false},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			var authority []dns.RR
			for _, line := range tt.records {
				rr, err := dns.NewRR(line)
				if err != nil {
					t.Fatal(err)
				}
				authority = append(authority, z.sign([]dns.RR{rr})...)
			}
			sets, err := validate.Group(authority)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := validate.NoDS(parse(t, "a.b.example."), parse(t, "example."), sets, keys, now); (err == nil) != tt.ok {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestAddresses_FollowsAliasesToAnEnd(t *testing.T) {
	tr := newTree(t)
	records := map[uint16][]string{dns.TypeA: {
		"ns.example. 60 IN CNAME a.example.", "a.example. 60 IN CNAME b.example.", "b.example. 60 IN A 192.0.2.7", "c.example. 60 IN A 192.0.2.8",
	}, dns.TypeAAAA: {"ns.example. 60 IN CNAME a.example.", "a.example. 60 IN CNAME ns.example."}}
	tr.change(func() {
		tr.resolver.twist = func(m *dns.Msg) *dns.Msg {
			m.Answer, m.Ns = nil, nil
			for _, line := range records[m.Question[0].Qtype] {
				rr, err := dns.NewRR(line)
				if err != nil {
					t.Error(err)
					continue
				}
				m.Answer = append(m.Answer, rr)
			}
			return m
		}
	})
	got, err := tr.observer().Addresses(t.Context(), parse(t, "ns.example."))
	if diff := cmp.Diff("[192.0.2.7]", fmt.Sprint(got)); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestResolve_TruncatedAnswersAreTakenOverTCPAndTheNextResolverIsAsked(t *testing.T) {
	tr := newTree(t)
	tr.change(func() {
		tr.parent.add("big.example. 60 IN TXT " + strings.Repeat(`"`+strings.Repeat("x", 200)+`" `, 20))
	})
	o := tr.observer(tr.root.ds())
	o.cfg.Resolvers = func() ([]netip.AddrPort, error) { return addrs("192.0.2.99:53", "192.0.2.53:53"), nil }
	tr.change(func() {
		tr.resolver.twist = func(m *dns.Msg) *dns.Msg {
			if m.Len() > udpSize && !tr.resolver.tcp {
				m.Truncated, m.Answer = true, nil
			}
			return m
		}
	})
	a, err := o.resolve(t.Context(), parse(t, "big.example."), zone.TypeTXT)
	if err != nil || a.of(parse(t, "big.example."), zone.TypeTXT) == nil {
		t.Errorf("%+v, %v", a, err)
	}
	o.cfg.Resolvers = nil
	if _, err := o.resolve(t.Context(), parse(t, "big.example."), zone.TypeTXT); err == nil || err.Error() != ErrNoResolver.Error() {
		t.Errorf("without a resolver: %v", err)
	}
}

func TestObserve_EndsWithItsContext(t *testing.T) {
	tr := newTree(t)
	stuck := &fakeServer{twist: func(*dns.Msg) *dns.Msg { return nil }}
	tr.serve("192.0.2.11:53", stuck)
	o := tr.observer()
	o.cfg.Timeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	stuck.onAsk = cancel
	obs := o.Observe(ctx, Question{Zone: parse(t, "child.example."), Now: now, SkipParent: true, Servers: At(addrs("192.0.2.11:53"))})
	if got := zoneLines(obs.Zone); got != "192.0.2.11:53 error SOA: context canceled" {
		t.Error(got)
	}
}

// BenchmarkObserve asks two servers of a zone and two of its parent, on one
// machine with them.
func BenchmarkObserve(b *testing.B) {
	tr := newTree(b)
	for _, at := range []string{"192.0.2.11:53", "192.0.2.12:53"} {
		tr.serve(at, &fakeServer{zones: []*fakeZone{tr.child}})
	}
	o := tr.observer(tr.root.ds())
	q := Question{
		Zone: parse(b, "child.example."), Now: now, Servers: At(addrs("192.0.2.11:53", "192.0.2.12:53")),
		Parent: At(addrs("192.0.2.1:53", "192.0.2.2:53")), Samples: []Sample{{parse(b, "child.example."), zone.TypeMX}},
	}
	for b.Loop() {
		if obs := o.Observe(b.Context(), q); len(obs.Zone) != 2 || !obs.Parent[0].Validated {
			b.Fatalf("%+v", obs)
		}
	}
}
