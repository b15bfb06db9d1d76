package pipeline

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// outside is a world that shows what it is told to show.
type outside struct {
	mu    sync.Mutex
	asked []observe.Question                            // guarded by mu
	shows func(q observe.Question) (z, p []keymgr.Seen) // guarded by mu
}

func (o *outside) observe(_ context.Context, q observe.Question) keymgr.Observation {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, q)
	z, p := o.shows(q)
	return keymgr.Observation{At: q.Now, Zone: z, Parent: p}
}

func (o *outside) show(fn func(q observe.Question) (z, p []keymgr.Seen)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.shows = fn
}

func (o *outside) questions() []observe.Question {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

// dsOf is the DS of the zone's key-signing key.
func (r *rig) dsOf() event.DS {
	r.t.Helper()
	apex, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, k := range r.status().Keys {
		if !k.SignsKeys() {
			continue
		}
		rdata, err := keymgr.RData(k.Key)
		if err != nil {
			r.t.Fatal(err)
		}
		ds, err := keymgr.DS(apex, rdata, keymgr.DigestSHA256)
		if err != nil {
			r.t.Fatal(err)
		}
		return event.DS{Tag: k.Tag, Algorithm: k.Algorithm, DigestType: keymgr.DigestSHA256, Digest: hex.EncodeToString(ds[4:])}
	}
	r.t.Fatal("no key-signing key")
	return event.DS{}
}

// observes asks the world now.
func (r *rig) observes() ZoneStatus {
	r.t.Helper()
	st, err := r.e.Observe(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *rig) historyOf(types ...string) []string {
	r.t.Helper()
	var out []string
	err := r.e.History(r.t.Context(), "example.com", HistoryQuery{Types: types}, func(l HistoryLine) error {
		out = append(out, l.Text)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return out
}

func parentHas(ttl uint32, servers int, list ...event.DS) (out []keymgr.Seen) {
	for i := range servers {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}), 53)
		out = append(out, keymgr.Seen{Server: "ns.parent.", Address: at, Validated: true, NoDS: len(list) == 0, DS: slices.Clone(list), DSTTL: ttl})
	}
	return out
}

func newObserved(t *testing.T, policy string) (*rig, *outside) {
	t.Helper()
	p, err := Parse("default", []byte("version = \"v1\"\n"+policy))
	if err != nil {
		t.Fatal(err)
	}
	o := &outside{shows: func(observe.Question) (z, p []keymgr.Seen) { return nil, nil }}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), observe: o.observe}
	r.start(map[string]Policy{"default": p})
	r.add(smallZone)
	return r, o
}

func TestObserve_AsksThePublishedServersOrThoseOfThePolicy(t *testing.T) {
	r, o := newObserved(t, "")
	r.observes()
	q := o.questions()[0]
	if q.Zone.String() != "example.com." || len(q.Parent) != 0 || !q.Fresh {
		t.Errorf("asked %+v", q)
	}
	var got []string
	for _, s := range q.Servers {
		line := s.Name
		for _, a := range s.Addresses {
			line += " " + a.String()
		}
		got = append(got, line)
	}
	if diff := cmp.Diff([]string{"ns1.example.com. 192.0.2.1:53", "ns2.example.net."}, got); diff != "" {
		t.Error(diff)
	}
	if len(q.Samples) < 3 {
		t.Errorf("%d samples", len(q.Samples))
	}
	v, err := r.e.store.Published(event.ZoneID(r.status().ID))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	for _, s := range q.Samples {
		if sigs, err := v.Get(zone.AppendKey(nil, zone.KindSigs, s.Owner, s.Type)); err != nil || sigs == nil {
			t.Errorf("%s %s is not signed (%v)", s.Owner, s.Type, err)
		}
	}

	r, o = newObserved(t, "[key-manager]\npublication-nameservers = [\"127.0.0.9:5353\"]\nparent-nameservers = [\"[::1]:53\", \"127.0.0.8\"]\n")
	r.observes()
	want := observe.Question{
		Servers: observe.At([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.9:5353")}),
		Parent:  observe.At([]netip.AddrPort{netip.MustParseAddrPort("[::1]:53"), netip.MustParseAddrPort("127.0.0.8:53")}),
	}
	q = o.questions()[0]
	if diff := cmp.Diff(want, observe.Question{Servers: q.Servers, Parent: q.Parent}, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestObserve_DSObservedOnlyWhenWhatCountsChanges(t *testing.T) {
	r, o := newObserved(t, "")
	ds := r.dsOf()
	dead := keymgr.Seen{Server: "ns.dead.", Error: "no answer in time"}
	unproven := parentHas(3600, 1, ds)
	unproven[0].Validated, unproven[0].Unvalidated = false, "no trust anchor"
	for _, step := range []struct {
		fact   string
		parent []keymgr.Seen
		events int
	}{
		{"nobody answers", []keymgr.Seen{dead}, 0},
		{"what is not validated does not count", unproven, 0},
		{"absence is proven", parentHas(0, 2), 1},
		{"the same again", parentHas(0, 2), 1},
		{"one server has the DS", append(parentHas(3600, 1, ds), parentHas(0, 1)...), 2},
		{"all have it", parentHas(3600, 2, ds), 3},
		{"one does not answer", append(parentHas(3600, 1, ds), dead), 3},
		{"its TTL grows", parentHas(7200, 2, ds), 4},
		{"while one does not answer the other has it no more", append(parentHas(0, 1), dead), 5},
		{"and still", append(parentHas(0, 1), dead), 5},
		{"it is gone", parentHas(0, 2), 6},
	} {
		o.show(func(observe.Question) (z, p []keymgr.Seen) { return nil, step.parent })
		r.observes()
		if got := r.historyOf("ds.observed"); len(got) != step.events {
			t.Fatalf("%s: %d events, want %d: %q", step.fact, len(got), step.events, got)
		}
	}
	lines := r.historyOf("ds.observed")
	for i, want := range []string{
		"the parent has no DS, seen at all 2 servers",
		"the parent has no DS; on other servers, or lately, DS",
		"TTL 1h0m, seen at all 2 servers",
		"TTL 2h0m, seen at all 2 servers",
		"1 of 2 servers gave no answer that counts: ns.dead.",
		"the parent has no DS, seen at all 2 servers",
	} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("event %d: %q, want %q", i, lines[i], want)
		}
	}
	// A restart does not tell it again.
	r.stop()
	r.start(nil)
	r.observes()
	if got := r.historyOf("ds.observed"); len(got) != 6 {
		t.Errorf("%d events after a restart", len(got))
	}
}

func TestObserve_StatusNamesWhatIsWrong(t *testing.T) {
	r, o := newObserved(t, "")
	ds := r.dsOf()
	extra := event.DS{Tag: 4711, Algorithm: 13, DigestType: 2, Digest: "aabb"}
	foreign := event.DS{Tag: 4712, Algorithm: 8, DigestType: 2, Digest: "aabb"}
	unvalidated := parentHas(60, 1, ds)
	unvalidated[0].Validated, unvalidated[0].Unvalidated = false, "no trust anchor is at or above com."
	good := func(q observe.Question) keymgr.Seen {
		s := keymgr.Seen{Server: "ns.example.com.", Serial: *r.status().PublishedSerial, KeyTTL: 3600}
		for _, k := range r.status().Keys {
			s.Keys = append(s.Keys, k.ID)
		}
		s.Signed = []keymgr.SeenSignature{{Owner: "example.com.", Type: "SOA", Key: s.Keys[0]}}
		return s
	}
	for _, tt := range []struct {
		fact   string
		zone   func(*keymgr.Seen)
		parent []keymgr.Seen
		want   []string // severity and a part of each notice
	}{
		{"all is well", func(*keymgr.Seen) {}, parentHas(60, 2, ds), nil},
		{"without a DS", func(*keymgr.Seen) {}, parentHas(0, 2), nil},
		{
			"a silent server", func(s *keymgr.Seen) { *s = keymgr.Seen{Server: s.Server, Error: "no answer in time"} }, parentHas(60, 2, ds),
			[]string{"warning name server ns.example.com. gives no usable answer since 20"},
		},
		{
			"another DNSKEY RRset", func(s *keymgr.Seen) { s.Keys = s.Keys[:1] }, parentHas(60, 2, ds),
			[]string{"alarm name server ns.example.com. has serial"},
		},
		{
			"a bad signature", func(s *keymgr.Seen) { s.Signed[0].Key = "" }, parentHas(60, 2, ds),
			[]string{"alarm name server ns.example.com. shows no signature over example.com. SOA"},
		},
		{
			"a DS without a key", func(*keymgr.Seen) {}, parentHas(60, 2, ds, extra),
			[]string{"warning DS 4711 (algorithm 13, digest type 2) at the parent matches no key"},
		},
		{
			"a DS of another algorithm", func(*keymgr.Seen) {}, parentHas(60, 2, ds, foreign),
			[]string{"alarm DS 4712 (algorithm 8, digest type 2) at the parent is of an algorithm that no key"},
		},
		{
			"no DS of our keys", func(*keymgr.Seen) {}, parentHas(60, 2, extra),
			[]string{"warning DS 4711", "alarm no DS at the parent is of a key that signs"},
		},
		{
			"answers that do not count", func(*keymgr.Seen) {}, unvalidated,
			[]string{"warning what the parent's server ns.parent. at 192.0.2.1:53 says of the DS does not count: no trust anchor is at or above com."},
		},
		{
			"a silent parent", func(*keymgr.Seen) {},
			[]keymgr.Seen{{Server: "ns.parent.", Error: "refused"}},
			[]string{"warning the parent's server ns.parent. gives no usable answer since 20"},
		},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			o.show(func(q observe.Question) (z, p []keymgr.Seen) {
				s := good(q)
				tt.zone(&s)
				return []keymgr.Seen{s}, tt.parent
			})
			st := r.observes()
			var got []string
			for _, n := range st.Notices {
				got = append(got, n.Severity+" "+n.Text)
			}
			if len(got) != len(tt.want) {
				t.Fatalf("notices %q", got)
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("notice %q, want %q", got[i], want)
				}
			}
		})
	}
	if text := r.status().Observation.Text; text != "1 of 1 addresses of the zone's servers answer, 1 with serial "+servedSerial(r)+"; the parent gives no answer that counts, at 1 of 1 addresses" {
		t.Error(text)
	}
}

func servedSerial(r *rig) string { return fmt.Sprint(*r.status().PublishedSerial) }

func TestObserve_SinceIsKeptWhileNothingChanges(t *testing.T) {
	r, o := newObserved(t, "")
	errText := ""
	o.show(func(observe.Question) (z, p []keymgr.Seen) {
		return []keymgr.Seen{{Server: "ns.example.com.", Error: errText, Serial: 1, KeyTTL: 60}}, nil
	})
	first := r.observes().Observation
	second := r.observes().Observation
	if !second.At.After(first.At) || !second.Zone[0].Since.Equal(first.Zone[0].Since) {
		t.Errorf("since %s, then %s", first.Zone[0].Since, second.Zone[0].Since)
	}
	errText = "no answer in time"
	third := r.observes().Observation
	if !third.Zone[0].Since.Equal(third.At) || third.KeyTTL != 60 {
		t.Errorf("since %s of %s, TTL %d", third.Zone[0].Since, third.At, third.KeyTTL)
	}
}

func TestObserve_IntervalsAndBackOff(t *testing.T) {
	h := newHand(dayOne)
	errText := ""
	o := &outside{shows: func(observe.Question) (z, p []keymgr.Seen) {
		return []keymgr.Seen{{Server: "ns.example.com.", Error: errText}}, parentHas(0, 1)
	}}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: h.clock(), observe: o.observe}
	// Nothing but the interval asks.
	p, err := Parse("default", []byte("version = \"v1\"\nsigner.mode = \"unsigned\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	r.start(map[string]Policy{"default": p})
	r.add(smallZone)
	next := func() time.Time {
		t.Helper()
		var at *time.Time
		until(t, "the zone is to be observed", func() bool {
			st := r.status().Observation
			if st == nil || st.Running || st.NextAt == nil || !st.NextAt.After(h.now()) {
				return false
			}
			at = st.NextAt
			return true
		})
		return *at
	}
	if wait := next().Sub(dayOne); wait > firstLook {
		t.Errorf("observed first after %s", wait)
	}
	for i, step := range []struct {
		err  string
		wait time.Duration
	}{
		{"", time.Hour},
		{"no answer in time", time.Minute},
		{"no answer in time", 2 * time.Minute},
		{"no answer in time", 4 * time.Minute},
		{"", time.Hour},
	} {
		o.show(func(observe.Question) (z, p []keymgr.Seen) {
			return []keymgr.Seen{{Server: "ns.example.com.", Error: step.err}}, parentHas(0, 1)
		})
		h.move(next())
		until(t, "the zone is observed", func() bool { return len(o.questions()) == i+1 })
		if wait := next().Sub(h.now()); wait != step.wait {
			t.Errorf("after observation %d: %s, want %s", i+1, wait, step.wait)
		}
	}
}

func TestObserve_ZeroIntervalAsksOnlyWhenAsked(t *testing.T) {
	r, o := newObserved(t, "[key-manager]\nobservation-interval = \"0s\"\n")
	if st := r.status(); st.Observation != nil {
		t.Errorf("observation %+v", st.Observation)
	}
	if st := r.observes(); st.Observation == nil || st.Observation.NextAt != nil || len(o.questions()) != 1 {
		t.Errorf("observation %+v", st.Observation)
	}
}

func TestObserve_WithoutAnythingToAskIsAnError(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	if _, err := r.e.Observe(t.Context(), "example.com"); !errors.Is(err, ErrState) {
		t.Errorf("nobody asks: %v", err)
	}
	if _, err := r.e.Observe(t.Context(), "example.net"); !errors.Is(err, ErrNotFound) {
		t.Errorf("no such zone: %v", err)
	}
}

func TestRemoveZone_WantsAbsenceProven(t *testing.T) {
	for _, tt := range []struct {
		fact   string
		parent []keymgr.Seen
		want   string // of the error; "" for none
	}{
		{"a DS that is not validated", []keymgr.Seen{{Server: "p.", DS: []event.DS{{Tag: 7, Algorithm: 13, DigestType: 2}}}}, "its parent has a DS (p. shows DS 7 (algorithm 13, digest type 2))"},
		{"absence that is not validated", []keymgr.Seen{{Server: "p.", Unvalidated: "no anchor"}}, "that its parent has no DS is not proven (p.: no anchor)"},
		{"one server of two answers", []keymgr.Seen{{Server: "p.", Validated: true, NoDS: true}, {Server: "q.", Error: "refused"}}, "could not be asked for a DS (q.: refused)"},
		{"no server", nil, "no server of its parent is known"},
		{"an unsigned parent", []keymgr.Seen{{Server: "p.", Insecure: true}}, ""},
		{"absence proven", parentHas(0, 2), ""},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			r, o := newObserved(t, "")
			o.show(func(q observe.Question) (z, p []keymgr.Seen) {
				if len(q.Servers) > 0 {
					t.Error("the zone's servers were asked too")
				}
				return nil, tt.parent
			})
			err := r.e.RemoveZone(t.Context(), testActor, "example.com", false)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !errors.Is(err, ErrState) || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v", err)
			}
		})
	}
}
