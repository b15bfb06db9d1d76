package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
	"pgregory.net/rapid"

	"sluice/journal/journaltest"
)

// modelZone is a zone as RFC 2136 speaks of it: records by owner and type. It
// shares nothing with what it is compared to.
type modelZone map[string]map[uint16]*modelSet

type modelSet struct {
	ttl  uint32
	data map[string]bool
}

func dataOf(rr dns.RR) string { return strings.TrimPrefix(rr.String(), rr.Header().String()) }

func (z modelZone) set(name string, t uint16) *modelSet {
	if s := z[name][t]; s != nil && len(s.data) > 0 {
		return s
	}
	return nil
}

func (z modelZone) types(name string) (types []uint16) {
	for t := range z[name] {
		if z.set(name, t) != nil {
			types = append(types, t)
		}
	}
	return types
}

func (z modelZone) clone() modelZone {
	out := modelZone{}
	for name, sets := range z {
		out[name] = map[uint16]*modelSet{}
		for t, s := range sets {
			out[name][t] = &modelSet{s.ttl, maps.Clone(s.data)}
		}
	}
	return out
}

func (z modelZone) put(rr dns.RR) {
	h := rr.Header()
	name := strings.ToLower(h.Name)
	if z[name] == nil {
		z[name] = map[uint16]*modelSet{}
	}
	s := z[name][h.Rrtype]
	if s == nil || h.Rrtype == dns.TypeCNAME || h.Rrtype == dns.TypeSOA {
		s = &modelSet{data: map[string]bool{}}
		z[name][h.Rrtype] = s
	}
	s.ttl = h.Ttl
	s.data[dataOf(rr)] = true
}

// prerequisites is section 3.2.5.
func (z modelZone) prerequisites(m *dns.Msg) int {
	type key struct {
		name string
		t    uint16
	}
	temp := map[key]map[string]bool{}
	for _, rr := range m.Answer {
		h := rr.Header()
		name := strings.ToLower(h.Name)
		switch h.Class {
		case dns.ClassANY:
			if h.Rrtype == dns.TypeANY {
				if len(z.types(name)) == 0 {
					return dns.RcodeNameError
				}
			} else if z.set(name, h.Rrtype) == nil {
				return dns.RcodeNXRrset
			}
		case dns.ClassNONE:
			if h.Rrtype == dns.TypeANY {
				if len(z.types(name)) != 0 {
					return dns.RcodeYXDomain
				}
			} else if z.set(name, h.Rrtype) != nil {
				return dns.RcodeYXRrset
			}
		default:
			k := key{name, h.Rrtype}
			if temp[k] == nil {
				temp[k] = map[string]bool{}
			}
			temp[k][dataOf(rr)] = true
		}
	}
	for k, data := range temp {
		if s := z.set(k.name, k.t); s == nil || !maps.Equal(s.data, data) {
			return dns.RcodeNXRrset
		}
	}
	return dns.RcodeSuccess
}

// update is section 3.4.2.7.
func (z modelZone) update(m *dns.Msg) {
	const apex = "example.com."
	for _, rr := range m.Ns {
		h := rr.Header()
		name, t := strings.ToLower(h.Name), h.Rrtype
		kept := name == apex && (t == dns.TypeSOA || t == dns.TypeNS)
		switch h.Class {
		case dns.ClassINET:
			others := slices.ContainsFunc(z.types(name), func(o uint16) bool { return o != dns.TypeCNAME })
			if t == dns.TypeCNAME && others || t != dns.TypeCNAME && z.set(name, dns.TypeCNAME) != nil {
				continue
			}
			z.put(rr)
		case dns.ClassANY:
			for _, have := range z.types(name) {
				stays := name == apex && (have == dns.TypeSOA || have == dns.TypeNS)
				if (t == dns.TypeANY || t == have) && !stays {
					delete(z[name], have)
				}
			}
		case dns.ClassNONE:
			s := z.set(name, t)
			if s == nil || t == dns.TypeSOA || kept && len(s.data) == 1 && s.data[dataOf(rr)] {
				continue
			}
			delete(s.data, dataOf(rr))
		}
	}
}

// lines is the zone as rig.contents has it.
func (z modelZone) lines() (out []string) {
	for name, sets := range z {
		for t, s := range sets {
			for data := range s.data {
				if t != dns.TypeSOA {
					out = append(out, fmt.Sprintf("%s %d IN %s %s", name, s.ttl, dns.TypeToString[t], strings.ReplaceAll(data, "\t", " ")))
				}
			}
		}
	}
	slices.Sort(out)
	return out
}

func drawRecord(rt *rapid.T, t testing.TB) dns.RR {
	name := rapid.SampledFrom([]string{"@", "a", "b", "x.b", "*.w", "www"}).Draw(rt, "name")
	data := rapid.SampledFrom([]string{
		"A 192.0.2.1", "A 192.0.2.2", `TXT "one"`, `TXT "two"`, "CNAME a.example.com.", "CNAME b.example.com.", "MX 10 a.example.com.", "MX 20 a.example.com.",
		"NS ns.example.net.", "NS ns2.example.net.",
	}).Draw(rt, "data")
	if name == "*.w" && strings.HasPrefix(data, "NS") {
		name = "w" // a load refuses NS at a wildcard, and so is such an update
	}
	ttl := rapid.SampledFrom([]int{60, 300}).Draw(rt, "TTL")
	return rrs(t, fmt.Sprintf("%s %d %s", name, ttl, data))[0]
}

func drawUpdate(rt *rapid.T, t testing.TB) *dns.Msg {
	return updatingMsg(func(m *dns.Msg) {
		for range rapid.SampledFrom([]int{0, 0, 0, 1, 2}).Draw(rt, "prerequisites") {
			rr := drawRecord(rt, t)
			one := []dns.RR{rr}
			switch rapid.IntRange(0, 4).Draw(rt, "form") {
			case 0:
				m.NameUsed(one)
			case 1:
				m.NameNotUsed(one)
			case 2:
				m.RRsetUsed(one)
			case 3:
				m.RRsetNotUsed(one)
			case 4:
				m.Used(one)
				m.Answer[len(m.Answer)-1].Header().Ttl = 0
			}
		}
		for range rapid.IntRange(1, 4).Draw(rt, "changes") {
			rr := drawRecord(rt, t)
			one := []dns.RR{rr}
			switch rapid.IntRange(0, 5).Draw(rt, "change") {
			case 0, 1, 2:
				m.Insert(one)
			case 3:
				m.Remove(one)
			case 4:
				m.RemoveRRset(one)
			case 5:
				m.RemoveName(one)
			}
		}
	})
}

// Any sequence of updates has the answers and leads to the contents that RFC 2136
// says; made one by one or several at once, and signed as the whole would be.
func TestRFC2136_UpdatesEqualAPlainModel(t *testing.T) {
	r := newRig(t, journaltest.New(), map[string]Policy{"default": reviewPolicy(t, allUpdates)})
	r.add(smallZone)
	model := modelZone{}
	for _, rr := range records(t, smallZone) {
		model.put(rr)
	}
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(rt, "updates") {
			m := drawUpdate(rt, t)
			next, want := model.clone(), model.prerequisites(m)
			if want == dns.RcodeSuccess {
				next.update(m)
			}
			if got := r.e.Update(t.Context(), message(t, m)); got != want {
				rt.Fatalf("answered %s, want %s: %v", dns.RcodeToString[got], dns.RcodeToString[want], m)
			}
			model = next
		}
		r.await()
		if d := cmp.Diff(model.lines(), r.contents()); d != "" {
			rt.Fatalf("contents (-model +zone):\n%s", d)
		}
	})
	rep, err := r.e.VerifyZone(t.Context(), "example.com", nil)
	if err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	// The digest of the contents, kept up change by change, is that of the whole.
	before := r.state().Loaded.Facts
	if err := r.e.Replay(t.Context(), "example.com", "", true, nil, func(s ReplayStep) error {
		if !s.Equal {
			t.Errorf("%s differs", s.Instance)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	r.zoneFile("$TTL 3600\n" + strings.Join(append([]string{"@ IN SOA ns1 hostmaster 7 7200 3600 1209600 300"}, r.contents()...), "\n") + "\n")
	if err := r.e.Replace(t.Context(), testActor, "example.com"); err != nil {
		t.Fatal(err)
	}
	r.await()
	after := r.state().Loaded.Facts
	if after.ContentDigest != before.ContentDigest || after.RRsets != before.RRsets || after.Records != before.Records {
		t.Errorf("read as a file: %d RRsets, %d records, digest %x; by updates: %d, %d, %x",
			after.RRsets, after.Records, after.ContentDigest[:4], before.RRsets, before.Records, before.ContentDigest[:4])
	}
}

// FuzzReadChanges: what stands in chunks is read or refused, and what is read is
// what was written.
func FuzzReadChanges(f *testing.F) {
	some := message(f, updatingMsg(func(m *dns.Msg) {
		m.Insert(rrs(f, "www 60 A 192.0.2.1", "@ 60 MX 10 www"))
		m.RemoveName(rrs(f, "a A 192.0.2.1"))
	}))
	f.Add(appendChanges(appendChanges(nil, some.Changes), nil))
	f.Add([]byte{0, 1, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 200})
	f.Fuzz(func(t *testing.T, raw []byte) {
		messages, err := readChanges(raw)
		if err != nil {
			return
		}
		var again []byte
		for _, m := range messages {
			again = appendChanges(again, m)
		}
		if string(again) != string(raw) {
			t.Errorf("%x was read as %x", raw, again)
		}
	})
}

// FuzzUpdate: no update section breaks the zone, whatever it says.
func FuzzUpdate(f *testing.F) {
	for _, fill := range []func(*dns.Msg){
		func(m *dns.Msg) { m.Insert(rrs(f, "www 60 A 192.0.2.1", "@ 60 MX 10 www")) },
		func(m *dns.Msg) { m.RemoveName(rrs(f, "@ A 192.0.2.1")) },
		func(m *dns.Msg) {
			m.Insert(rrs(f, "*.w 60 NS ns", "w 60 DNAME x", "w CNAME y", "@ DNSKEY 256 3 13 AQ=="))
		},
	} {
		f.Add(appendChanges(nil, message(f, updatingMsg(fill)).Changes))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		messages, err := readChanges(raw)
		if err != nil || len(raw) > 2000 {
			return
		}
		r := newUpdated(t, allUpdates)
		r.add(smallZone)
		for _, changes := range messages {
			m := message(t, updatingMsg(func(*dns.Msg) {}))
			m.Changes = changes
			r.e.Update(t.Context(), m)
		}
		if st := r.await(); st.LastError != "" || st.Updates.Waiting != 0 {
			t.Errorf("%+v, updates %+v", st.ZoneSummary, st.Updates)
		}
	})
}
