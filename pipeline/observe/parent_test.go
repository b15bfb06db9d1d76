package observe

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

// parentLines are what the parent's servers show, in a few words.
func parentLines(seen []keymgr.Seen) string {
	var lines []string
	for _, s := range seen {
		line := s.Server
		for _, ds := range s.DS {
			line += fmt.Sprintf(" DS %d ttl %d", ds.Tag, s.DSTTL)
		}
		if s.NoDS {
			line += " none"
		}
		if s.Validated {
			line += " validated"
		}
		if s.Insecure {
			line += " insecure"
		}
		if s.Unvalidated != "" {
			line += " because " + s.Unvalidated
		}
		if s.Error != "" {
			line += " error " + s.Error
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "; ")
}

func (tr *tree) askParent(o *Observer) string {
	tr.t.Helper()
	return parentLines(o.Observe(tr.t.Context(), Question{Zone: parse(tr.t, "child.example."), Now: now, Fresh: true}).Parent)
}

func TestObserve_ParentDSIsValidatedFromTheAnchorDown(t *testing.T) {
	tr := newTree(t)
	o := tr.observer(tr.root.ds())
	ds := fmt.Sprintf("DS %d ttl 3600 validated", tr.child.key.KeyTag())
	if got, want := tr.askParent(o), "ns1.example. "+ds+"; ns2.example. "+ds; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	asked := func() (n int) {
		tr.change(func() { n = tr.resolver.asked })
		return n
	}
	before := asked()
	if tr.askParent(o); asked()-before > 6 { // SOA, NS and addresses
		t.Errorf("the chain was walked again: %d questions", asked()-before)
	}
}

func TestObserve_ParentAbsence(t *testing.T) {
	noDS := func(tr *tree) {
		var kept []dns.RR
		for _, rr := range tr.parent.records {
			if rr.Header().Rrtype != dns.TypeDS {
				kept = append(kept, rr)
			}
		}
		tr.parent.records = kept
	}
	const both = "ns1.example. %s; ns2.example. %[1]s"
	for _, tt := range []struct {
		fact string
		make func(*tree)
		want string
	}{
		{"proven by NSEC", noDS, "none validated"},
		{"proven by opt-out", func(tr *tree) { noDS(tr); tr.parent.nsec3 = true }, "none validated"},
		{"a name that does not exist has no DS", func(tr *tree) {
			noDS(tr)
			tr.parent.records = tr.parent.records[:5]
			tr.parent.records = append(tr.parent.records, tr.parent.key)
		}, "none validated"},
		{"without a proof nothing counts", func(tr *tree) {
			noDS(tr)
			for _, s := range []*fakeServer{tr.p1, tr.p2} {
				s.twist = func(m *dns.Msg) *dns.Msg { m.Ns = m.Ns[:min(len(m.Ns), 2)]; return m }
			}
		}, " because the answer does not prove that there is no DS"},
		{"the apex of the zone proves nothing", func(tr *tree) {
			for _, s := range []*fakeServer{tr.p1, tr.p2} {
				s.zones = []*fakeZone{tr.parent}
				s.twist = func(m *dns.Msg) *dns.Msg {
					if m.Question[0].Qtype == dns.TypeDS {
						m.Answer = nil
						m.Ns = tr.child.deny("child.example.")
					}
					return m
				}
			}
		}, " error DS: the server answers for the zone itself, not for its parent"},
		{"an expired proof does not count", func(tr *tree) {
			noDS(tr)
			for _, s := range []*fakeServer{tr.p1, tr.p2} {
				s.twist = func(m *dns.Msg) *dns.Msg {
					if m.Question[0].Qtype == dns.TypeDS {
						old := *tr.parent
						old.expired = true
						m.Ns = old.deny("child.example.")
					}
					return m
				}
			}
		}, " because the signature has expired"},
		{"a stranger's signatures do not count", func(tr *tree) {
			noDS(tr)
			stranger := newZone(tr.t, "example.")
			stranger.records = append(stranger.records, tr.parent.find("child.example.", dns.TypeNS)...)
			for _, s := range []*fakeServer{tr.p1, tr.p2} {
				s.twist = func(m *dns.Msg) *dns.Msg {
					if m.Question[0].Qtype == dns.TypeDS {
						m.Ns = stranger.deny("child.example.")
					}
					return m
				}
			}
		}, " because no signature is by a key of example."},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			tr := newTree(t)
			tr.change(func() { tt.make(tr) })
			got := tr.askParent(tr.observer(tr.root.ds()))
			if want := strings.ReplaceAll(fmt.Sprintf(both, tt.want), "  ", " "); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

func TestObserve_ParentWithoutAChainDoesNotCount(t *testing.T) {
	for _, tt := range []struct {
		fact   string
		anchor func(*tree) []string
		make   func(*tree)
		want   string
	}{
		{"no anchor", func(*tree) []string { return nil }, func(*tree) {}, "no trust anchor is at or above example."},
		{"another anchor", func(tr *tree) []string { return []string{newZone(tr.t, ".").ds()} }, func(*tree) {}, "chain of trust at .: no DNSKEY that the DS or the trust anchor stands for"},
		{"a parent proven unsigned", func(tr *tree) []string { return []string{tr.root.ds()} }, func(tr *tree) {
			tr.root.records = slicesWithout(tr.root.records, dns.TypeDS)
		}, "insecure because .: the zone is proven not to be signed"},
		{"a parent with a DS that is not supported", func(tr *tree) []string { return []string{tr.root.ds()} }, func(tr *tree) {
			tr.root.records = slicesWithout(tr.root.records, dns.TypeDS)
			tr.root.add("example. 3600 IN DS 1 7 1 AABBCCDD")
		}, "chain of trust at example.: its DS records have algorithms or digest types that are not supported here"},
		{"a parent with another key", func(tr *tree) []string { return []string{tr.root.ds()} }, func(tr *tree) {
			tr.root.records = slicesWithout(tr.root.records, dns.TypeDS)
			tr.root.add(newZone(tr.t, "example.").ds())
		}, "chain of trust at example.: no DNSKEY that the DS or the trust anchor stands for"},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			tr := newTree(t)
			tr.change(func() { tt.make(tr) })
			got := tr.askParent(tr.observer(tt.anchor(tr)...))
			if !strings.Contains(got, tt.want) || strings.Contains(got, "validated") {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if !strings.Contains(got, fmt.Sprint("DS ", tr.child.key.KeyTag())) {
				t.Errorf("what is seen is not shown: %s", got)
			}
		})
	}
}

// A TTL is not signed: one above that of the signature is not believed.
func TestObserve_TTLsAreThoseOfTheSignatures(t *testing.T) {
	tr := newTree(t)
	child := &fakeServer{zones: []*fakeZone{tr.child}}
	tr.serve("192.0.2.11:53", child)
	tr.change(func() {
		for _, s := range []*fakeServer{tr.p1, tr.p2, child} {
			s.twist = func(m *dns.Msg) *dns.Msg {
				for i, rr := range m.Answer {
					m.Answer[i] = dns.Copy(rr)
					m.Answer[i].Header().Ttl = 1 << 20
				}
				return m
			}
		}
	})
	obs := tr.observer(tr.root.ds()).Observe(t.Context(), Question{
		Zone: parse(t, "child.example."), Now: now, Servers: At(addrs("192.0.2.11:53")),
	})
	if obs.Parent[0].DSTTL != 3600 || obs.Parent[1].DSTTL != 3600 || obs.Zone[0].KeyTTL != 3600 {
		t.Errorf("TTLs %d, %d, %d", obs.Parent[0].DSTTL, obs.Parent[1].DSTTL, obs.Zone[0].KeyTTL)
	}
}

func slicesWithout(records []dns.RR, t uint16) (out []dns.RR) {
	for _, rr := range records {
		if rr.Header().Rrtype != t {
			out = append(out, rr)
		}
	}
	return out
}

func TestObserve_AnAnchorForTheParentNeedsNoResolver(t *testing.T) {
	tr := newTree(t)
	o := tr.observer(tr.parent.key.String())
	delete(tr.at, "192.0.2.53:53")
	q := Question{Zone: parse(t, "child.example."), Now: now, Parent: At(addrs("192.0.2.1:53", "192.0.2.2:53"))}
	ds := fmt.Sprintf("DS %d ttl 3600 validated", tr.child.key.KeyTag())
	if got, want := parentLines(o.Observe(t.Context(), q).Parent), "192.0.2.1:53 "+ds+"; 192.0.2.2:53 "+ds; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	q.Parent = nil
	if got := parentLines(o.Observe(t.Context(), q).Parent); !strings.HasPrefix(got, "parent error the parent's servers are not known: resolver 192.0.2.53:53, example. SOA") {
		t.Errorf("got %s", got)
	}
}

func TestObserve_NewKeysOfTheParentAreFoundAtOnce(t *testing.T) {
	tr := newTree(t)
	o := tr.observer(tr.root.ds())
	tr.askParent(o)
	// The parent changes to a new key, which its DNSKEY RRset has beside the
	// old one.
	next := newZone(t, "example.")
	tr.change(func() {
		tr.parent.records = append(tr.parent.records, next.key)
		for _, s := range []*fakeServer{tr.p1, tr.p2} {
			s.twist = func(m *dns.Msg) *dns.Msg {
				if m.Question[0].Qtype == dns.TypeDS {
					m.Answer = next.sign(tr.parent.find("child.example.", dns.TypeDS))
				}
				return m
			}
		}
	})
	if got := tr.askParent(o); strings.Count(got, " validated") != 2 {
		t.Errorf("got %s", got)
	}
}
