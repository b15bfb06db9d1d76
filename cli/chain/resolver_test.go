package chain

import (
	"testing"

	"github.com/miekg/dns"
)

// A resolver that does not validate is asked everything, and what it shows is
// validated here.
func TestCheck_ByAResolver(t *testing.T) {
	for _, c := range []struct {
		fact    string
		make    func(*tree)
		verdict Verdict
		code    Code
	}{
		{"a healthy zone", func(*tree) {}, Secure, ""},
		{"an unsigned zone", func(tr *tree) { tr.zone.unsigned = true }, Insecure, ""},
		{"the DS is of another key", func(tr *tree) { tr.parent.add(wrongDigest(tr.zone)) }, Bogus, CodeDSNoKey},
		{"no signature", func(tr *tree) { tr.zone.signing = without(dns.TypeA) }, Bogus, CodeSignatureMissing},
	} {
		t.Run(c.fact, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			c.make(tr)
			tr.start()
			resolver := &testServer{zones: []*testZone{tr.root, tr.parent, tr.zone}}
			resolver.twist = func(r, m *dns.Msg, _ bool) *dns.Msg {
				m.Authoritative, m.RecursionAvailable = false, true
				if !r.RecursionDesired || !r.CheckingDisabled {
					m.Rcode, m.Answer, m.Ns = dns.RcodeRefused, nil, nil
				}
				return m
			}
			resolver.start(t, 0)
			cfg := tr.config()
			cfg.Roots, cfg.Resolver = nil, resolver.addr
			r, err := Check(t.Context(), cfg, "\x03www\x04zone\x07example\x00", nil)
			if err != nil || r.Verdict != c.verdict || len(r.Links) != 3 {
				t.Fatalf("%v: %+v", err, r)
			}
			if c.code != "" {
				f := fault{code: c.code, severity: Broken}
				f.seek(t, r)
			}
			if r.Healthy != (c.code == "") {
				t.Errorf("healthy %v: %v", r.Healthy, told(r))
			}
		})
	}
}
