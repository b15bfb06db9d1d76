package pipeline

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
	"sluice/xfr"
)

const allUpdates = `
[[loader.update]]
key = "all."
names = ["@", "*"]
types = ["A", "AAAA", "TXT", "NS", "SOA", "CNAME", "MX", "DS", "DNAME", "DNSKEY"]
`

const acmeUpdates = `
[[loader.update]]
key = "acme."
names = ["_acme-challenge.*"]
types = ["TXT"]
from = ["192.0.2.0/24"]
max-records = 3

[[loader.update]]
key = "*.hosts.example."
names = ["$key", "*.dyn"]
`

// newUpdated is a rig whose policy has rules.
func newUpdated(t *testing.T, rules string) *rig {
	t.Helper()
	return newRig(t, journaltest.New(), map[string]Policy{"default": reviewPolicy(t, rules)})
}

// updateRecords makes records of an update of dns's.
func updateRecords(t testing.TB, rrs []dns.RR) []xfr.UpdateRecord {
	t.Helper()
	var out []xfr.UpdateRecord
	for _, rr := range rrs {
		buf := make([]byte, 4096)
		n, err := dns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		at, err := zone.NameLength(buf)
		if err != nil {
			t.Fatal(err)
		}
		h := rr.Header()
		u := xfr.UpdateRecord{Owner: zone.Name(buf[:at]), Type: zone.Type(h.Rrtype), Class: h.Class, TTL: h.Ttl}
		if n > at+10 {
			u.RData = bytes.Clone(buf[at+10 : n])
		}
		out = append(out, u)
	}
	return out
}

// message is an update of example.com by key all.
func message(t testing.TB, m *dns.Msg) *xfr.UpdateMessage {
	t.Helper()
	apex, _ := zone.ParseName("example.com")
	return &xfr.UpdateMessage{
		Zone: apex, Peer: xfr.Peer{Addr: netip.MustParseAddrPort("192.0.2.7:53000"), Key: "all."},
		Prerequisites: updateRecords(t, m.Answer), Changes: updateRecords(t, m.Ns),
	}
}

func rrs(t testing.TB, lines ...string) (out []dns.RR) {
	t.Helper()
	for _, line := range lines {
		rr, err := dns.NewRR("$ORIGIN example.com.\n$TTL 300\n" + line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		out = append(out, rr)
	}
	return out
}

// updating is an update of example.com that fill makes.
func updatingMsg(fill func(*dns.Msg)) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate("example.com.")
	fill(m)
	return m
}

// update sends an update and returns its RCODE in words.
func (r *rig) update(fill func(*dns.Msg)) string {
	r.t.Helper()
	return r.updateBy("all.", "192.0.2.7", fill)
}

func (r *rig) updateBy(key, from string, fill func(*dns.Msg)) string {
	r.t.Helper()
	m := message(r.t, updatingMsg(fill))
	m.Peer.Key, m.Peer.Addr = key, netip.AddrPortFrom(netip.MustParseAddr(from), 53000)
	return dns.RcodeToString[r.e.Update(r.t.Context(), m)]
}

// contents is the newest loaded contents, a record a line, sorted, the SOA left
// out.
func (r *rig) contents() []string {
	r.t.Helper()
	s := r.state()
	it, err := r.e.store.LoadedItems(s.Zone, s.Loaded.Seq)
	if err != nil {
		r.t.Fatal(err)
	}
	defer it.Close()
	var out []string
	for it.Next() {
		set, err := zone.RRsetOf(it.Key(), it.Value())
		if err != nil {
			r.t.Fatal(err)
		}
		if set.Type == zone.TypeSOA {
			continue
		}
		for _, d := range set.Data {
			out = append(out, recordLine(r.t, set.Owner, set.Type, set.TTL, d))
		}
	}
	slices.Sort(out)
	return out
}

func recordLine(t testing.TB, owner zone.Name, rtype zone.Type, ttl uint32, data []byte) string {
	t.Helper()
	wire := append([]byte(owner), byte(rtype>>8), byte(rtype), 0, 1, byte(ttl>>24), byte(ttl>>16), byte(ttl>>8), byte(ttl), byte(len(data)>>8), byte(len(data)))
	rr, _, err := dns.UnpackRR(append(wire, data...), 0)
	if err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(rr.String(), "\t", " ")
}

func (r *rig) state() State {
	r.t.Helper()
	run, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	return run.snapshot()
}

func (r *rig) historyTexts(eventType string) (out []string) {
	r.t.Helper()
	err := r.e.History(r.t.Context(), "example.com", HistoryQuery{}, func(l HistoryLine) error {
		if l.Type == eventType {
			out = append(out, l.Text)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func TestUpdate_IsLoadedSignedAndPublished(t *testing.T) {
	r := newUpdated(t, allUpdates)
	before := r.add(smallZone)
	if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, "new 60 A 192.0.2.9")) }); got != "NOERROR" {
		t.Fatalf("answered %s", got)
	}
	st := r.await()
	if st.State != "published" || st.Published.Serial == before.Published.Serial || *st.LoadedSerial != *before.LoadedSerial+1 {
		t.Fatalf("after the update: %+v, loaded serial %d", st.ZoneSummary, *st.LoadedSerial)
	}
	if !strings.Contains(r.dump(), "new.example.com.") {
		t.Error("the record is not published")
	}
	rep, err := r.e.VerifyZone(t.Context(), "example.com", nil)
	if err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	want := []string{"update by key all. from 192.0.2.7: 1 record added"}
	if diff := cmp.Diff(want, r.historyTexts("update.accepted")); diff != "" {
		t.Error(diff)
	}
	loads := r.historyTexts("instance.loaded")
	if len(loads) != 2 || !strings.HasPrefix(loads[1], "1 update taken up: serial 8, ") || !strings.HasSuffix(loads[1], " 2 added, 1 removed") {
		t.Errorf("loads: %q", loads)
	}
	if u := st.Updates; u == nil || u.Taken != 1 || u.Waiting != 0 || u.LastKey != "all." {
		t.Errorf("status: %+v", u)
	}
	// SOA, the new RRset, and the NSEC records of its place.
	if st.Published.Made > 5 {
		t.Errorf("%d signatures made for one record", st.Published.Made)
	}
}

func TestUpdate_ThatChangesNothingIsNoEvent(t *testing.T) {
	r := newUpdated(t, allUpdates)
	before := r.add(smallZone)
	for range 3 {
		if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, "www 3600 A 192.0.2.80")) }); got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
	}
	if st := r.await(); st.Published.Serial != before.Published.Serial || len(r.historyTexts("update.accepted")) != 0 {
		t.Errorf("serial %d, events %v", st.Published.Serial, r.historyTexts("update.accepted"))
	}
}

// What an update may require, in all five forms, in the order in which it is
// judged.
func TestRFC2136_3_2_Prerequisites(t *testing.T) {
	r := newUpdated(t, allUpdates)
	r.add(smallZone)
	soa := func(serial int) string {
		return fmt.Sprintf("@ 0 SOA ns1 hostmaster %d 7200 3600 1209600 300", serial)
	}
	published := int(r.await().Published.Serial)
	raw := func(line string, class uint16, ttl uint32) dns.RR {
		rr := rrs(t, line)[0]
		rr.Header().Class, rr.Header().Ttl = class, ttl
		return rr
	}
	for _, tc := range []struct {
		name string
		fill func(*dns.Msg)
		want string
	}{
		{"RRset exists", func(m *dns.Msg) { m.RRsetUsed(rrs(t, "www A 192.0.2.80")) }, "NOERROR"},
		{"RRset exists, and does not", func(m *dns.Msg) { m.RRsetUsed(rrs(t, "www AAAA 2001:db8::1")) }, "NXRRSET"},
		{"RRset exists with these records", func(m *dns.Msg) { m.Used(rrs(t, "@ 0 NS NS1", "@ 0 NS ns2.example.net.")) }, "NOERROR"},
		{"RRset exists with fewer records", func(m *dns.Msg) { m.Used(rrs(t, "@ 0 NS ns1")) }, "NXRRSET"},
		{"RRset exists with other records", func(m *dns.Msg) { m.Used(rrs(t, "www 0 A 192.0.2.81")) }, "NXRRSET"},
		{"RRset does not exist", func(m *dns.Msg) { m.RRsetNotUsed(rrs(t, "www AAAA 2001:db8::1")) }, "NOERROR"},
		{"RRset does not exist, and does", func(m *dns.Msg) { m.RRsetNotUsed(rrs(t, "www A 192.0.2.80")) }, "YXRRSET"},
		{"name in use", func(m *dns.Msg) { m.NameUsed(rrs(t, "www A 192.0.2.80")) }, "NOERROR"},
		{"name in use, and is not", func(m *dns.Msg) { m.NameUsed(rrs(t, "nobody A 192.0.2.80")) }, "NXDOMAIN"},
		{"an empty non-terminal is not in use", func(m *dns.Msg) { m.NameUsed(rrs(t, "ent A 192.0.2.80")) }, "NXDOMAIN"},
		{"name not in use", func(m *dns.Msg) { m.NameNotUsed(rrs(t, "nobody A 192.0.2.80")) }, "NOERROR"},
		{"name not in use, and is", func(m *dns.Msg) { m.NameNotUsed(rrs(t, "WWW A 192.0.2.80")) }, "YXDOMAIN"},
		{"the SOA as loaded", func(m *dns.Msg) { m.Used(rrs(t, soa(7))) }, "NOERROR"},
		{"the SOA as published", func(m *dns.Msg) { m.Used(rrs(t, soa(published))) }, "NOERROR"},
		{"an SOA of another serial", func(m *dns.Msg) { m.Used(rrs(t, soa(5))) }, "NXRRSET"},
		{"with a TTL", func(m *dns.Msg) { m.Answer = append(m.Answer, raw("www A 192.0.2.80", dns.ClassINET, 1)) }, "FORMERR"},
		{"not in the zone", func(m *dns.Msg) { m.NameUsed(rrs(t, "www.example.net. A 192.0.2.80")) }, "NOTZONE"},
		{"of another class", func(m *dns.Msg) { m.Answer = append(m.Answer, raw("www A 192.0.2.80", dns.ClassCHAOS, 0)) }, "FORMERR"},
		{"class ANY with data", func(m *dns.Msg) { m.Answer = append(m.Answer, raw("www A 192.0.2.80", dns.ClassANY, 0)) }, "FORMERR"},
		{"class NONE with data", func(m *dns.Msg) { m.Answer = append(m.Answer, raw("www A 192.0.2.80", dns.ClassNONE, 0)) }, "FORMERR"},
		{"the first that fails counts", func(m *dns.Msg) {
			m.RRsetUsed(rrs(t, "www A 192.0.2.80"))
			m.NameUsed(rrs(t, "nobody A 192.0.2.80"))
			m.RRsetNotUsed(rrs(t, "www A 192.0.2.80"))
		}, "NXDOMAIN"},
		{"sets are compared last", func(m *dns.Msg) {
			m.Used(rrs(t, "www 0 A 192.0.2.81"))
			m.NameNotUsed(rrs(t, "www A 192.0.2.80"))
		}, "YXDOMAIN"},
	} {
		if got := r.update(tc.fill); got != tc.want {
			t.Errorf("%s: answered %s, want %s", tc.name, got, tc.want)
		}
	}
	before := r.contents()
	got := r.update(func(m *dns.Msg) {
		m.NameUsed(rrs(t, "nobody A 192.0.2.80"))
		m.Insert(rrs(t, "nobody A 192.0.2.80"))
	})
	if r.await(); got != "NXDOMAIN" || !slices.Equal(before, r.contents()) {
		t.Errorf("answered %s, and the zone changed: %v", got, !slices.Equal(before, r.contents()))
	}
}

// What an update section does, on top of smallZone each time.
func TestRFC2136_3_4_Changes(t *testing.T) {
	raw := func(line string, class, rtype uint16, ttl uint32) dns.RR {
		rr := rrs(t, line)[0]
		rr.Header().Class, rr.Header().Ttl, rr.Header().Rrtype = class, ttl, rtype
		return rr
	}
	insert := func(lines ...string) func(*dns.Msg) {
		return func(m *dns.Msg) { m.Insert(rrs(t, lines...)) }
	}
	remove := func(lines ...string) func(*dns.Msg) {
		return func(m *dns.Msg) { m.Remove(rrs(t, lines...)) }
	}
	for _, tc := range []struct {
		name string
		fill func(*dns.Msg)
		want string
		diff []string // "+ record" and "- record"
	}{
		{"add to an RRset", insert("www 3600 A 192.0.2.81"), "NOERROR", []string{"+www.example.com. 3600 IN A 192.0.2.81"}},
		{
			"add with another TTL", insert("www 60 A 192.0.2.81"), "NOERROR",
			[]string{"+www.example.com. 60 IN A 192.0.2.80", "+www.example.com. 60 IN A 192.0.2.81", "-www.example.com. 3600 IN A 192.0.2.80"},
		},
		{"the same again", insert("www 3600 A 192.0.2.80"), "NOERROR", nil},
		{"the TTL alone", insert("www 60 A 192.0.2.80"), "NOERROR", []string{"+www.example.com. 60 IN A 192.0.2.80", "-www.example.com. 3600 IN A 192.0.2.80"}},
		{"a TTL above 2^31", insert("new 2147483648 A 192.0.2.80"), "NOERROR", []string{"+new.example.com. 0 IN A 192.0.2.80"}},
		{"a CNAME beside others is passed over", insert("www CNAME elsewhere", "new 60 A 192.0.2.9"), "NOERROR", []string{"+new.example.com. 60 IN A 192.0.2.9"}},
		{"others beside a CNAME are passed over", insert("new 60 CNAME www", "new 60 A 192.0.2.9"), "NOERROR", []string{"+new.example.com. 60 IN CNAME www.example.com."}},
		{"a CNAME takes the place of one", insert("new 60 CNAME www", "new 60 CNAME ns1"), "NOERROR", []string{"+new.example.com. 60 IN CNAME ns1.example.com."}},
		{"delete a record", remove("www A 192.0.2.80"), "NOERROR", []string{"-www.example.com. 3600 IN A 192.0.2.80"}},
		{"delete a record that is not there", remove("www A 192.0.2.81", "nobody A 192.0.2.81"), "NOERROR", nil},
		{"delete an RRset", func(m *dns.Msg) { m.RemoveRRset(rrs(t, "www A 192.0.2.80")) }, "NOERROR", []string{"-www.example.com. 3600 IN A 192.0.2.80"}},
		{"delete a name", func(m *dns.Msg) { m.RemoveName(rrs(t, "secure A 192.0.2.80")) }, "NOERROR", []string{
			"-secure.example.com. 3600 IN DS 12345 13 2 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
			"-secure.example.com. 3600 IN NS ns.example.net.",
		}},
		{"delete the apex: SOA and NS stay", func(m *dns.Msg) { m.RemoveName(rrs(t, "@ A 192.0.2.80")) }, "NOERROR", nil},
		{"delete the NS of the apex: they stay", func(m *dns.Msg) { m.RemoveRRset(rrs(t, "@ NS ns1")) }, "NOERROR", nil},
		{"delete each NS of the apex: one stays", remove("@ NS ns1", "@ NS ns2.example.net."), "NOERROR", []string{"-example.com. 3600 IN NS ns1.example.com."}},
		{"delete the SOA: it stays", remove("@ SOA ns1 hostmaster 7 7200 3600 1209600 300"), "NOERROR", nil},
		{"exchange all NS of the apex", func(m *dns.Msg) {
			m.Remove(rrs(t, "@ NS ns1"))
			m.Insert(rrs(t, "@ 3600 NS ns3.example.net."))
			m.Remove(rrs(t, "@ NS ns2.example.net."))
		}, "NOERROR", []string{"+example.com. 3600 IN NS ns3.example.net.", "-example.com. 3600 IN NS ns1.example.com.", "-example.com. 3600 IN NS ns2.example.net."}},
		{"add and delete in their order", func(m *dns.Msg) {
			m.Insert(rrs(t, "new 60 A 192.0.2.9"))
			m.RemoveName(rrs(t, "new A 192.0.2.9"))
			m.Insert(rrs(t, "new 60 A 192.0.2.10"))
		}, "NOERROR", []string{"+new.example.com. 60 IN A 192.0.2.10"}},
		{"all or nothing", func(m *dns.Msg) {
			m.Insert(rrs(t, "new 60 A 192.0.2.9", "*.new 60 NS ns1"))
		}, "REFUSED", nil},
		{"DS at the apex", insert("@ DS 12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"), "REFUSED", nil},
		{"the signer's own", insert("@ DNSKEY 256 3 13 oJMRESz5E4gYzS/q6XDrvU1qMPYIjCWzJaOau8XNEZeqCYKD5ar0IRd8KqXXFJkqmVfRvMGPmM1x8fGAa2XhSA=="), "REFUSED", nil},
		{"a type that no rule has", insert("new HINFO a b"), "REFUSED", nil},
		{"not in the zone", insert("www.example.net. A 192.0.2.80"), "NOTZONE", nil},
		{"add type ANY", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("www A 192.0.2.80", dns.ClassINET, dns.TypeANY, 1)) }, "FORMERR", nil},
		{"add type AXFR", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("www A 192.0.2.80", dns.ClassINET, dns.TypeAXFR, 1)) }, "FORMERR", nil},
		{"delete with a TTL", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("www A 192.0.2.80", dns.ClassNONE, dns.TypeA, 1)) }, "FORMERR", nil},
		{"delete an RRset with data", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("www A 192.0.2.80", dns.ClassANY, dns.TypeA, 0)) }, "FORMERR", nil},
		{"delete one record of type ANY", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("www A 192.0.2.80", dns.ClassNONE, dns.TypeANY, 0)) }, "FORMERR", nil},
		{"another class", func(m *dns.Msg) { m.Ns = append(m.Ns, raw("www A 192.0.2.80", dns.ClassCHAOS, dns.TypeA, 0)) }, "FORMERR", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newUpdated(t, allUpdates)
			r.add(smallZone)
			before := r.contents()
			if got := r.update(tc.fill); got != tc.want {
				t.Fatalf("answered %s, want %s", got, tc.want)
			}
			r.await()
			var diff []string
			after := r.contents()
			for _, line := range before {
				if !slices.Contains(after, line) {
					diff = append(diff, "-"+line)
				}
			}
			for _, line := range after {
				if !slices.Contains(before, line) {
					diff = append(diff, "+"+line)
				}
			}
			slices.Sort(diff)
			if d := cmp.Diff(tc.diff, diff); d != "" {
				t.Errorf("the zone changed so (-want +got):\n%s", d)
			}
		})
	}
}

func TestRFC2136_3_4_2_2_SOATakesAHigherSerialOnly(t *testing.T) {
	r := newUpdated(t, allUpdates+"[signer]\nserial-policy = \"keep\"\n")
	r.add(smallZone)
	for _, tc := range []struct {
		serial, refresh uint32
		want            string
	}{
		{6, 100, "7 7200"},
		{7, 100, "7 7200"},
		{20, 100, "20 100"},
		{20 + 1<<31 + 1, 50, "20 100"},
	} {
		got := r.update(func(m *dns.Msg) {
			m.Insert(rrs(t, fmt.Sprintf("@ 3600 SOA ns1 hostmaster %d %d 3600 1209600 300", tc.serial, tc.refresh)))
		})
		if got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
		r.await()
		if text := r.dump(); !strings.Contains(strings.ReplaceAll(text, "\t", " "), "hostmaster.example.com. "+tc.want+" ") {
			t.Errorf("after serial %d: want %s in\n%s", tc.serial, tc.want, text[:200])
		}
	}
}

func TestUpdate_OnlyWhatTheRulesAllow(t *testing.T) {
	r := newUpdated(t, acmeUpdates)
	r.add(smallZone)
	for _, tc := range []struct{ key, from, record, want string }{
		{"acme.", "192.0.2.7", `_acme-challenge 60 TXT a`, "NOERROR"},
		{"acme.", "192.0.2.7", `_ACME-challenge.www.deep 60 TXT a`, "NOERROR"},
		{"acme.", "192.0.2.7", `x._acme-challenge.www 60 TXT a`, "REFUSED"},
		{"acme.", "192.0.2.7", `_acme-challenge 60 A 192.0.2.1`, "REFUSED"},
		{"acme.", "192.0.2.7", `www 60 TXT a`, "REFUSED"},
		{"acme.", "198.51.100.7", `_acme-challenge 60 TXT b`, "REFUSED"},
		{"other.", "192.0.2.7", `_acme-challenge 60 TXT b`, "REFUSED"},
		{"a.hosts.example.", "198.51.100.7", `b.dyn 60 A 192.0.2.1`, "NOERROR"},
		{"a.hosts.example.", "198.51.100.7", `dyn 60 A 192.0.2.1`, "REFUSED"},
		{"a.hosts.example.", "198.51.100.7", `b.dyn 60 DS 1 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef`, "REFUSED"},
		{"hosts.example.", "198.51.100.7", `b.dyn 60 A 192.0.2.1`, "REFUSED"},
	} {
		if got := r.updateBy(tc.key, tc.from, func(m *dns.Msg) { m.Insert(rrs(t, tc.record)) }); got != tc.want {
			t.Errorf("%s from %s, %s: answered %s, want %s", tc.key, tc.from, tc.record, got, tc.want)
		}
	}
	many := func(m *dns.Msg) {
		m.Insert(rrs(t, "_acme-challenge 60 TXT a", "_acme-challenge 60 TXT b", "_acme-challenge 60 TXT c", "_acme-challenge 60 TXT d"))
	}
	if got := r.updateBy("acme.", "192.0.2.7", many); got != "REFUSED" {
		t.Errorf("more than max-records: answered %s", got)
	}
	until(t, "the refusals are recorded", func() bool {
		refused := false
		err := r.journal.Read(t.Context(), event.Instance, 1, 0, func(rec journal.Record) error {
			f, ok := rec.Event.Facts.(*event.AccessRefused)
			refused = refused || ok && f.Why == event.RefusedUpdate && f.Route == "example.com." && rec.Event.Actor.Name == "acme."
			return nil
		})
		return err == nil && refused
	})
}

// Many updates at once become few instances, and each has its own answer.
func TestUpdate_BurstIsBundledWithoutLosingAnswers(t *testing.T) {
	r := newUpdated(t, allUpdates)
	r.add(smallZone)
	const n = 120
	codes := make([]string, n)
	var all sync.WaitGroup
	for i := range n {
		m := message(t, updatingMsg(func(m *dns.Msg) {
			if i%3 == 0 {
				m.NameNotUsed(rrs(t, "www A 192.0.2.80")) // fails
			}
			m.Insert(rrs(t, fmt.Sprintf("h%d 60 A 192.0.2.%d", i, i)))
		}))
		all.Go(func() { codes[i] = dns.RcodeToString[r.e.Update(t.Context(), m)] })
	}
	all.Wait()
	r.await()
	contents := strings.Join(r.contents(), "\n")
	for i, code := range codes {
		want := "NOERROR"
		if i%3 == 0 {
			want = "YXDOMAIN"
		}
		there := strings.Contains(contents, fmt.Sprintf("\nh%d.example.com. ", i))
		if code != want || there != (i%3 != 0) {
			t.Errorf("update %d: answered %s, want %s; its record is there: %v", i, code, want, there)
		}
	}
	if loads := r.historyTexts("instance.loaded"); len(loads) > n/2 {
		t.Errorf("%d updates made %d instances", n-n/3, len(loads)-1)
	}
	if st := r.await(); st.Updates.Taken != n-n/3 {
		t.Errorf("%d taken, want %d", st.Updates.Taken, n-n/3)
	}
}
