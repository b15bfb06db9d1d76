package observe

import (
	"testing"

	"github.com/miekg/dns"
)

// What verified once is not verified again; what never did is, each time.
func TestMemo_OnlyWhatVerifiedIsRemembered(t *testing.T) {
	tr := newTree(t)
	tr.serve("192.0.2.11:53", &fakeServer{zones: []*fakeZone{tr.child}})
	spoilt := &fakeServer{zones: []*fakeZone{tr.child}}
	tr.serve("192.0.2.12:53", spoilt)
	o := tr.observer()
	q := Question{Zone: parse(t, "child.example."), Now: now, SkipParent: true, Servers: At(addrs("192.0.2.11:53", "192.0.2.12:53"))}
	spoil := func(m *dns.Msg) *dns.Msg {
		for _, rr := range m.Answer {
			if soa, ok := rr.(*dns.SOA); ok {
				soa.Minttl++
			}
		}
		return m
	}
	tr.change(func() { spoilt.twist = spoil })
	for range 3 {
		obs := o.Observe(t.Context(), q)
		for i, seen := range obs.Zone {
			for _, s := range seen.Signed {
				if verified := s.Key != ""; verified != (i == 0 || s.Type != "SOA") {
					t.Errorf("server %d: the signature over %s verifies: %v", i, s.Type, verified)
				}
			}
		}
	}
	if o.memo.Len() == 0 {
		t.Error("nothing is remembered")
	}
}
