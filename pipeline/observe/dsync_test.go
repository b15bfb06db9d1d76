package observe

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// dsync is a DSYNC record in the form of RFC 3597: CDS, NOTIFY, a port and a
// target of one label below example.
func dsync(t *testing.T, owner string, rrtype uint16, scheme byte, port uint16, label string) dns.RR {
	t.Helper()
	target := fmt.Sprintf("%02x%x076578616d706c6500", len(label), label)
	data := fmt.Sprintf("%04x%02x%04x%s", rrtype, scheme, port, target)
	rr, err := dns.NewRR(fmt.Sprintf("%s 300 IN TYPE66 \\# %d %s", owner, len(data)/2, data))
	if err != nil {
		t.Fatal(err)
	}
	return rr
}

// agentText is the parent's agents in a few words.
func agentText(a Agents) string {
	text := a.Owner
	for _, t := range a.Targets {
		text += fmt.Sprintf(" %s:%d", t.Host, t.Port)
	}
	if a.Validated {
		text += " validated"
	}
	return text
}

func TestRFC9859_4_1_AgentsAreFoundBelowTheParent(t *testing.T) {
	for _, c := range []struct {
		name  string
		child string
		setup func(*tree)
		want  string
	}{
		{"of the child", "child.example.", func(tr *tree) {
			tr.parent.records = append(tr.parent.records, dsync(t, "child._dsync.example.", dns.TypeCDS, 1, 5300, "agent"))
		}, "child._dsync.example. agent.example.:5300 validated"},
		{"of all children", "child.example.", func(tr *tree) {
			tr.parent.records = append(tr.parent.records, dsync(t, "_dsync.example.", dns.TypeCDS, 1, 53, "agent"))
		}, "_dsync.example. agent.example.:53 validated"},
		{"just below a parent further up", "a.b.c.example.", func(tr *tree) {
			tr.parent.records = append(tr.parent.records, dsync(t, "a.b.c._dsync.example.", dns.TypeCDS, 1, 53, "agent"))
		}, "a.b.c._dsync.example. agent.example.:53 validated"},
		{"of all children further up", "a.b.c.example.", func(tr *tree) {
			tr.parent.records = append(tr.parent.records, dsync(t, "_dsync.example.", dns.TypeCDS, 1, 53, "agent"))
		}, "_dsync.example. agent.example.:53 validated"},
		{"none", "child.example.", func(*tree) {}, ""},
		{"of other types and schemes", "child.example.", func(tr *tree) {
			tr.parent.records = append(tr.parent.records,
				dsync(t, "_dsync.example.", dns.TypeCSYNC, 1, 53, "csync"), dsync(t, "_dsync.example.", dns.TypeCDS, 2, 53, "update"),
				dsync(t, "_dsync.example.", dns.TypeCDS, 1, 0, "null"))
		}, "_dsync.example. validated"},
		{"of a parent that is not signed", "child.example.", func(tr *tree) {
			tr.root.records = slicesWithout(tr.root.records, dns.TypeDS)
			tr.parent.records = append(tr.parent.records, dsync(t, "_dsync.example.", dns.TypeCDS, 1, 53, "agent"))
		}, "_dsync.example. agent.example.:53"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := newTree(t)
			c.setup(tr)
			o := tr.observer(tr.root.ds())
			a, err := o.Agents(t.Context(), parse(t, c.child), now)
			if got := agentText(a); err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
}

func TestAgents_OfASignedParentOnlyWhatValidatesCounts(t *testing.T) {
	tr := newTree(t)
	tr.parent.records = append(tr.parent.records, dsync(t, "_dsync.example.", dns.TypeCDS, 1, 53, "agent"))
	o := tr.observer(tr.root.ds())
	tr.resolver.twist = func(m *dns.Msg) *dns.Msg {
		if m.Question[0].Qtype == uint16(typeDSYNC) {
			m.Answer = slicesWithout(m.Answer, dns.TypeRRSIG)
		}
		return m
	}
	if a, err := o.Agents(t.Context(), parse(t, "child.example."), now); err == nil {
		t.Errorf("unsigned: %+v", a)
	}
	other := dsync(t, "_dsync.example.", dns.TypeCDS, 1, 53, "thief")
	tr.change(func() {
		tr.resolver.twist = func(m *dns.Msg) *dns.Msg {
			for i, rr := range m.Answer {
				if rr.Header().Rrtype == uint16(typeDSYNC) {
					m.Answer[i] = other
				}
			}
			return m
		}
	})
	if a, err := o.Agents(t.Context(), parse(t, "child.example."), now); err == nil {
		t.Errorf("forged: %+v", a)
	}
}

// TestAgents_AWildcardWantsProofThatThereIsNoCloserName lets the parent answer
// out of *._dsync.example.
func TestAgents_AWildcardWantsProofThatThereIsNoCloserName(t *testing.T) {
	tr := newTree(t)
	wild := dsync(t, "*._dsync.example.", dns.TypeCDS, 1, 53, "agent")
	proof := true
	tr.resolver.twist = func(m *dns.Msg) *dns.Msg {
		q := m.Question[0]
		if q.Qtype != uint16(typeDSYNC) || !strings.EqualFold(q.Name, "child._dsync.example.") {
			return m
		}
		m.Rcode, m.Ns = dns.RcodeSuccess, nil
		m.Answer = tr.parent.sign([]dns.RR{wild})
		for i := range m.Answer {
			m.Answer[i] = dns.Copy(m.Answer[i])
			m.Answer[i].Header().Name = q.Name
		}
		if proof {
			m.Ns = tr.parent.sign([]dns.RR{&dns.NSEC{
				Hdr:        dns.RR_Header{Name: "*._dsync.example.", Rrtype: dns.TypeNSEC, Class: dns.ClassINET, Ttl: 300},
				NextDomain: "ns1.example.", TypeBitMap: []uint16{dns.TypeRRSIG, dns.TypeNSEC, uint16(typeDSYNC)},
			}})
		}
		return m
	}
	o := tr.observer(tr.root.ds())
	a, err := o.Agents(t.Context(), parse(t, "child.example."), now)
	if got := agentText(a); err != nil || got != "child._dsync.example. agent.example.:53 validated" {
		t.Errorf("got %q, %v", got, err)
	}
	tr.change(func() { proof = false })
	if a, err := o.Agents(t.Context(), parse(t, "child.example."), now); err == nil {
		t.Errorf("without a proof: %+v", a)
	}
}

func TestObserve_CDSAndCDNSKEYOfEachServer(t *testing.T) {
	w := newWorld(t)
	z := newZone(t, "example.", "example. 3600 IN NS ns1.example.")
	z.records = append(z.records, z.key.ToDS(dns.SHA256).ToCDS(), z.key.ToCDNSKEY())
	gone := newZone(t, "example.", "example. 3600 IN NS ns1.example.", "example. 3600 IN CDS 0 0 0 00", "example. 3600 IN CDNSKEY 0 3 0 AA==")
	foreign := newZone(t, "example.", "example. 3600 IN NS ns1.example.", "example. 3600 IN CDS 4711 13 2 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f")
	for i, at := range []*fakeZone{z, gone, foreign} {
		w.serve(fmt.Sprintf("192.0.2.%d:53", i+1), &fakeServer{zones: []*fakeZone{at}})
	}
	seen := w.observer().Observe(t.Context(), Question{Zone: parse(t, "example."), SkipParent: true, Now: now, Servers: At(addrs("192.0.2.1:53", "192.0.2.2:53", "192.0.2.3:53"))}).Zone
	for i, want := range []string{
		fmt.Sprint(seen[0].Keys, seen[0].Keys), "[delete] [delete]", "[tag 4711, algorithm 13, digest type 2] []",
	} {
		if got := fmt.Sprint(seen[i].CDS, seen[i].CDNSKEY); seen[i].Error != "" || strings.ReplaceAll(got, "][", "] [") != strings.ReplaceAll(want, "][", "] [") {
			t.Errorf("server %d shows %s (%s), want %s", i+1, got, seen[i].Error, want)
		}
		signed := func(s keymgr.SeenSignature) bool { return s.Type == "CDS" && s.Key != "" }
		n := 0
		for _, s := range seen[i].Signed {
			if signed(s) {
				n++
			}
		}
		if n != 1 {
			t.Errorf("server %d: %d signatures over CDS verify: %+v", i+1, n, seen[i].Signed)
		}
	}
}

func FuzzDSYNC(f *testing.F) {
	f.Add([]byte("\x00\x3b\x01\x00\x35\x05agent\x07example\x00"))
	f.Add([]byte("\x00\x3b\x01\x00\x35\xc0\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if a, ok := parseDSYNC(data); ok {
			if n, err := zone.NameFromWire([]byte(a.Host)); err != nil || n != a.Host || !a.Host.IsFolded() || a.Port == 0 {
				t.Errorf("%x is read as %+v, %v", data, a, err)
			}
		}
	})
}

func FuzzCDS(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0})
	f.Add([]byte{0, 0, 3, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := &round{q: Question{Zone: "\x07example\x00"}}
		set := &validate.RRset{Data: [][]byte{data}}
		for _, text := range []string{r.nameCDS(data, set), r.nameCDNSKEY(data, set)} {
			if text == "" || len(text) > 64 {
				t.Errorf("%x is named %q", data, text)
			}
		}
	})
}
