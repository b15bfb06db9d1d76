package observe

import (
	"testing"

	"github.com/miekg/dns"
)

func (tr *tree) margins(o *Observer) (out []uint32) {
	tr.t.Helper()
	obs := o.Observe(tr.t.Context(), Question{Zone: parse(tr.t, "child.example."), Now: now, Fresh: true})
	for _, s := range obs.Parent {
		if !s.Validated {
			tr.t.Errorf("%s is not validated: %s", s.Server, s.Unvalidated)
		}
		out = append(out, s.Margin)
	}
	return out
}

func TestObserve_MarginOfTheParentIsItsRefreshAndRetry(t *testing.T) {
	tr := newTree(t)
	soa := func(refresh, retry uint32) {
		tr.change(func() {
			for _, rr := range tr.parent.records {
				if s, ok := rr.(*dns.SOA); ok {
					s.Refresh, s.Retry = refresh, retry
				}
			}
		})
	}
	soa(7200, 900)
	o := tr.observer(tr.root.ds())
	if got := tr.margins(o); len(got) != 2 || got[0] != 8100 || got[1] != 8100 {
		t.Errorf("margins %v", got)
	}
	soa(1<<31, 1<<31)
	if got := tr.margins(o); got[0] != maxMargin {
		t.Errorf("margins %v without bound", got)
	}
	// A stranger's SOA does not count, and is no error.
	stranger := newZone(t, "example.")
	tr.change(func() {
		tr.p1.twist = func(m *dns.Msg) *dns.Msg {
			if m.Question[0].Qtype == dns.TypeSOA {
				m.Answer = stranger.sign(stranger.find("example.", dns.TypeSOA))
			}
			return m
		}
	})
	if got := tr.margins(o); got[0] != 0 || got[1] != maxMargin {
		t.Errorf("margins %v by a stranger", got)
	}
}
