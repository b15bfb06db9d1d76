package chain

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// resolve starts a resolver that validates nothing: it asks the servers of the
// zone that a name is in one after the other, and hands on the first answer that
// is authoritative. It returns its address.
func (tr *tree) resolve() *testServer {
	tr.t.Helper()
	tr.start()
	serving := map[string][]*testServer{".": {tr.rootAt}, "example.": tr.parentAt, "zone.example.": tr.zoneAt}
	for _, z := range tr.extra {
		serving[z.apex] = tr.zoneAt
	}
	s := &testServer{twist: func(r, _ *dns.Msg, _ bool) *dns.Msg {
		q := r.Question[0]
		name := strings.ToLower(q.Name)
		if q.Qtype == dns.TypeDS && name != "." {
			name = above(name)
		}
		for serving[name] == nil {
			name = above(name)
		}
		refused := new(dns.Msg).SetRcode(r, dns.RcodeServerFailure)
		for _, at := range serving[name] {
			ask := r.Copy()
			ask.SetEdns0(4096, true)
			got, _, err := (&dns.Client{UDPSize: 4096}).Exchange(ask, at.addr.String())
			if err == nil && got.Truncated {
				got, _, err = (&dns.Client{Net: "tcp"}).Exchange(ask, at.addr.String())
			}
			if err == nil && got.Authoritative && !got.Truncated {
				got.Authoritative, got.RecursionAvailable = false, true
				return got
			}
		}
		return refused
	}}
	s.start(tr.t, 0)
	return s
}

// validated is what a validator makes of an answer.
type validated struct {
	refused bool
	secure  bool
	text    string
}

// delv asks delv, which validates what the tree's servers say.
func (tr *tree) delv(name string, t uint16) validated {
	tr.t.Helper()
	at := tr.resolve()
	text := "trust-anchors {\n"
	var anchor string
	for _, a := range tr.anchors {
		rr, err := dns.NewRR(a)
		if err != nil {
			tr.t.Fatal(err)
		}
		anchor = rr.Header().Name
		switch rr := rr.(type) {
		case *dns.DS:
			text += fmt.Sprintf("\t%q static-ds %d %d %d \"%s\";\n", anchor, rr.KeyTag, rr.Algorithm, rr.DigestType, rr.Digest)
		case *dns.DNSKEY:
			text += fmt.Sprintf("\t%q static-key %d %d %d \"%s\";\n", anchor, rr.Flags, rr.Protocol, rr.Algorithm, rr.PublicKey)
		}
	}
	file := filepath.Join(tr.t.TempDir(), "anchors")
	if err := os.WriteFile(file, []byte(text+"};\n"), 0o600); err != nil {
		tr.t.Fatal(err)
	}
	out, err := exec.CommandContext(tr.t.Context(), peerPath(tr.t, "delv"),
		"@"+at.addr.Addr().String(), "-p", fmt.Sprint(at.addr.Port()), "-a", file, "+root="+anchor, "-t", dns.Type(t).String(), "-q", name).CombinedOutput()
	v := validated{text: string(out)}
	_, failure, failed := strings.Cut(v.text, "resolution failed: ")
	switch {
	case failed && !strings.HasPrefix(failure, "ncache"), strings.Contains(v.text, "pending validation"):
		v.refused = true
	case strings.Contains(v.text, "unsigned answer"):
	case strings.Contains(v.text, "fully validated"):
		v.secure = true
	default:
		tr.t.Fatalf("delv says nothing that is known: %v\n%s", err, out)
	}
	return v
}

// byUnbound asks an unbound that validates the tree.
func (tr *tree) byUnbound(name string, t uint16) validated {
	tr.t.Helper()
	m := new(dns.Msg)
	m.SetQuestion(name, t)
	m.SetEdns0(4096, true)
	got, _, err := (&dns.Client{Timeout: 20 * time.Second}).Exchange(m, tr.unbound())
	if err != nil {
		tr.t.Fatal(err)
	}
	return validated{refused: got.Rcode == dns.RcodeServerFailure, secure: got.AuthenticatedData, text: got.String()}
}

// question is what a validator is asked about a fault.
func (f *fault) question() (string, uint16) {
	name, t := "www.zone.example.", dns.TypeA
	if f.bogus != "" {
		name = f.bogus
	}
	if f.bogusT != 0 {
		t = f.bogusT
	}
	return name, t
}

// delv comes to the same verdict as the check, and as unbound does; an NXDOMAIN
// whose proof says that the name exists it refuses.
func TestDelv_AgreesWithTheVerdict(t *testing.T) {
	peerPath(t, "delv")
	for _, f := range append(allFaults(), fault{fact: "healthy", verdict: Secure}) {
		if f.bogus == "-" {
			continue
		}
		t.Run(fmt.Sprintf("%s/%s", f.code, f.fact), func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			if f.make != nil {
				f.make(tr)
			}
			r := f.check(tr)
			name, q := f.question()
			got := tr.delv(name, q)
			refused := slices.Contains([]Verdict{Bogus, Unreachable}, r.Verdict)
			if f.code == CodeDenialRcode && got.refused {
				return
			}
			if got.refused != refused || got.secure != (r.Verdict == Secure) {
				t.Errorf("the check says %s: %s; delv about %s:\n%s", r.Verdict, r.Summary, name, got.text)
			}
		})
	}
}
