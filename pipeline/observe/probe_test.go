package observe

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

func TestValidate_TellsWhatAResolverSays(t *testing.T) {
	bogus := func(m *dns.Msg) *dns.Msg {
		m.Rcode, m.Answer = dns.RcodeServerFailure, nil
		m.SetEdns0(1232, true)
		m.IsEdns0().Option = []dns.EDNS0{
			&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeSignatureExpired, ExtraText: strings.Repeat("x", 900)},
			&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus},
			&dns.EDNS0_EDE{InfoCode: dns.ExtendedErrorCodeDNSBogus},
		}
		return m
	}
	for _, c := range []struct {
		name  string
		tcp   bool
		twist func(m *dns.Msg) *dns.Msg
		want  Validated
		asked int
	}{
		{"an answer with AD", false, func(m *dns.Msg) *dns.Msg {
			m.AuthenticatedData = !m.CheckingDisabled
			return m
		}, Validated{AD: true}, 1},
		{"over TCP", true, func(m *dns.Msg) *dns.Msg { return m }, Validated{TCP: true}, 1},
		{"over TCP where UDP is truncated", false, func(m *dns.Msg) *dns.Msg {
			m.Truncated = true
			return m
		}, Validated{TCP: true, Error: errTruncated.Error()}, 2},
		{"an answer that does not validate, and is there unchecked", false, func(m *dns.Msg) *dns.Msg {
			if m.CheckingDisabled {
				return m
			}
			return bogus(m)
		}, Validated{Rcode: dns.RcodeServerFailure, Unchecked: true, Extended: []Extended{
			{dns.ExtendedErrorCodeSignatureExpired, strings.Repeat("x", maxExtendedText)}, {dns.ExtendedErrorCodeDNSBogus, ""},
		}}, 2},
		{"a failure for another reason", false, func(m *dns.Msg) *dns.Msg {
			m.Rcode, m.Answer = dns.RcodeServerFailure, nil
			return m
		}, Validated{Rcode: dns.RcodeServerFailure}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newTree(t)
			w.change(func() { w.resolver.twist, w.resolver.asked = c.twist, 0 })
			got := w.observer().Validate(t.Context(), Probe{
				Resolver: netip.MustParseAddrPort("192.0.2.53:53"), Name: parse(t, w.child.apex), Type: zone.TypeSOA, TCP: c.tcp,
			})
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			w.change(func() {
				if w.resolver.asked != c.asked {
					t.Errorf("asked %d times, want %d", w.resolver.asked, c.asked)
				}
			})
		})
	}
	if v := newWorld(t).observer().Validate(t.Context(), Probe{Resolver: netip.MustParseAddrPort("192.0.2.1:53"), Name: zone.Root, Type: zone.TypeSOA}); v.Error == "" {
		t.Errorf("of a resolver that is not there: %+v", v)
	}
}
