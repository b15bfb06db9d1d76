package pipeline

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// catalogServer is a primary of a catalog and its members.
type catalogServer struct {
	t    *testing.T
	addr string

	mu    sync.Mutex
	zones map[string][]dns.RR // by name; SOA first
}

func newCatalogServer(t *testing.T) *catalogServer {
	t.Helper()
	s := &catalogServer{t: t, zones: map[string][]dns.RR{}}
	l, u := bothPorts(t, "127.0.0.1")
	s.addr = l.Addr().String()
	for _, srv := range []*dns.Server{{Listener: l, Handler: s}, {PacketConn: u, Handler: s}} {
		go func() { _ = srv.ActivateAndServe() }() // ends with the listener
		t.Cleanup(func() { _ = srv.Shutdown() })
	}
	return s
}

// serve makes lines the records of a zone besides its SOA and NS.
func (s *catalogServer) serve(name string, serial int, lines ...string) {
	s.t.Helper()
	text := fmt.Sprintf("$TTL 0\n@ SOA invalid. invalid. %d 3600 600 2147483646 0\n@ NS invalid.\n%s\n", serial, strings.Join(lines, "\n"))
	var rrs []dns.RR
	zp := dns.NewZoneParser(strings.NewReader(text), dns.Fqdn(name), "")
	for rr, ok := zp.Next(); ok; rr, ok = zp.Next() {
		rrs = append(rrs, rr)
	}
	if err := zp.Err(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.zones[dns.Fqdn(name)] = rrs
	s.mu.Unlock()
}

// members serves a catalog of version 2 with these member nodes: label zone.
func (s *catalogServer) members(name string, serial int, nodes ...string) {
	s.t.Helper()
	lines := []string{`version TXT "2"`}
	for _, node := range nodes {
		f := strings.Fields(node)
		lines = append(lines, f[0]+".zones PTR "+f[1]+".")
		for _, property := range f[2:] {
			kind, value, _ := strings.Cut(property, "=")
			switch kind {
			case "group":
				lines = append(lines, "group."+f[0]+".zones TXT "+value)
			case "coo":
				lines = append(lines, "coo."+f[0]+".zones PTR "+value+".")
			}
		}
	}
	s.serve(name, serial, lines...)
}

func (s *catalogServer) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	s.mu.Lock()
	zone := s.zones[q.Question[0].Name]
	s.mu.Unlock()
	r := new(dns.Msg)
	r.SetReply(q)
	r.Authoritative = true
	switch {
	case zone == nil:
		r.Rcode = dns.RcodeRefused
	case q.Question[0].Qtype == dns.TypeSOA:
		r.Answer = zone[:1]
	default:
		r.Answer = append(slices.Clone(zone), zone[0])
	}
	_ = w.WriteMsg(r) // a client that left
}

// catalogRig is an engine beside a catalogServer, on a clock that is moved by
// hand.
type catalogRig struct {
	*rig
	*byHand
	server *catalogServer
}

func newCatalogRig(t *testing.T) *catalogRig {
	t.Helper()
	t.Parallel()
	r := &catalogRig{rig: &rig{t: t, dir: t.TempDir(), journal: journaltest.New()}, byHand: newHand(dayOne), server: newCatalogServer(t)}
	r.rig.clock = r.byHand.clock()
	r.policies = map[string]Policy{"default": Default()}
	for name, text := range map[string]string{
		"dense": "[signer.denial]\ntype = \"nsec3\"\n", "listed": "[signer]\nmode = \"unsigned\"\n", "kept": "[signer]\nmode = \"unsigned\"\nserial-policy = \"keep\"\n",
	} {
		p, err := Parse(name, []byte("version = \"v1\"\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		r.policies[name] = p
	}
	r.start(r.policies)
	for _, name := range []string{"a", "b", "c", "d"} {
		r.server.serve(name+".example", 1, "www A 192.0.2.1")
	}
	return r
}

func (r *catalogRig) follow(name string, change func(*NewCatalog)) CatalogStatus {
	r.t.Helper()
	n := NewCatalog{Name: name, Kind: event.CatalogConsumed, Source: r.server.addr}
	if change != nil {
		change(&n)
	}
	st, err := r.e.AddCatalog(r.t.Context(), testActor, n)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// reload has a catalog's source read now.
func (r *catalogRig) reload(name string) {
	r.t.Helper()
	if err := r.e.Reload(r.t.Context(), testActor, name, false); err != nil {
		r.t.Fatal(err)
	}
}

// zones are the zones that are published but for catalogs, with their policies.
func (r *catalogRig) zones() map[string]string {
	out := map[string]string{}
	for _, s := range r.e.states() {
		if _, ok := r.e.catalogOf(s.Zone); !ok && s.Published != nil {
			out[strings.TrimSuffix(s.Name, ".example.")] = s.Policy.Name
		}
	}
	return out
}

// wants waits until these zones are published with these policies: "a b=dense".
func (r *catalogRig) wants(zones string) {
	r.t.Helper()
	want := map[string]string{}
	for z := range strings.FieldsSeq(zones) {
		name, policy, ok := strings.Cut(z, "=")
		if !ok {
			policy = "default"
		}
		want[name] = policy
	}
	r.until("zones "+zones, func() bool { return maps.Equal(r.zones(), want) }, func() any { return r.zones() })
}

func (r *catalogRig) until(what string, met func() bool, is func() any) {
	r.t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-deadline:
			r.t.Fatalf("after 30 s still not: %s; there is %v", what, is())
		case <-tick.C:
		}
	}
}

func (r *catalogRig) catalog(name string) CatalogStatus {
	r.t.Helper()
	st, err := r.e.Catalog(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *catalogRig) codes(name string) string {
	r.t.Helper()
	st, err := r.e.Zone(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	var codes []string
	for _, n := range st.Notices {
		codes = append(codes, string(n.Code))
	}
	return strings.Join(codes, " ")
}

// wantCode waits until a zone has a notice, or has it no more.
func (r *catalogRig) wantCode(name string, code NoticeCode, there bool) {
	r.t.Helper()
	r.until(fmt.Sprintf("%s at %s: %v", code, name, there), func() bool { return strings.Contains(r.codes(name), string(code)) == there },
		func() any { return r.codes(name) })
}

func (r *catalogRig) state(name string) State {
	r.t.Helper()
	run, err := r.e.find(name)
	if err != nil {
		r.t.Fatal(err)
	}
	return run.snapshot()
}

func TestCatalog_MembersComeChangeAndGo(t *testing.T) {
	r := newCatalogRig(t)
	r.server.members("catz.example", 1, "m1 a.example", "m2 b.example group=n3", "m3 c.example group=other")
	r.follow("Catz.Example", func(n *NewCatalog) { n.Groups = []event.CatalogGroup{{Group: "n3", Policy: "dense"}} })
	r.wants("a b=dense c")
	r.wantCode("catz.example", NoticeCatalogGroup, true)
	if m := r.state("b.example").Member; m == nil || m.Catalog != "catz.example." || m.Label != "m2" || m.Group != "n3" {
		t.Errorf("b.example came as %+v", m)
	}
	if err := r.e.RemoveZone(t.Context(), testActor, "a.example", true); !errors.Is(err, ErrState) {
		t.Errorf("a listed zone was removed: %v", err)
	}
	if err := r.e.RemoveZone(t.Context(), testActor, "catz.example", true); !errors.Is(err, ErrState) {
		t.Errorf("a catalog was removed as a zone: %v", err)
	}

	// Another group, one member gone, one new.
	keys := r.state("b.example").Keys.Published()
	r.server.members("catz.example", 2, "m1 a.example group=n3", "m3 c.example", "m4 d.example")
	r.reload("catz.example")
	r.wants("a=dense b=dense c d")
	r.wantCode("b.example", NoticeCatalogRemoval, true)
	r.move(dayOne.Add(6 * day))
	r.server.members("catz.example", 3, "m1 a.example group=n3", "m2 b.example group=n3", "m3 c.example", "m4 d.example")
	r.reload("catz.example")
	r.wantCode("b.example", NoticeCatalogRemoval, false)

	// Gone again, and for good.
	r.server.members("catz.example", 4, "m1 a.example group=n3", "m3 c.example", "m4 d.example")
	r.reload("catz.example")
	r.wantCode("b.example", NoticeCatalogRemoval, true)
	r.move(dayOne.Add(13*day - time.Minute))
	if _, ok := r.zones()["b"]; !ok {
		t.Error("removed before its time")
	}
	r.move(dayOne.Add(13*day + 2*time.Minute))
	r.wants("a=dense c d")

	// It comes back with its keys.
	r.server.members("catz.example", 5, "m1 a.example group=n3", "m2 b.example group=n3", "m3 c.example", "m4 d.example")
	r.reload("catz.example")
	r.wants("a=dense b=dense c d")
	if diff := cmp.Diff(keys[0].ID, r.state("b.example").Keys.Published()[0].ID); diff != "" {
		t.Errorf("its keys are others:\n%s", diff)
	}
}

func TestCatalog_BrokenVersionsDoNotCount(t *testing.T) {
	r := newCatalogRig(t)
	r.server.members("catz.example", 1, "m1 a.example")
	r.follow("catz.example", nil)
	r.wants("a")
	r.server.serve("catz.example", 2, `version TXT "1"`, "m2.zones PTR b.example.")
	r.reload("catz.example")
	r.wantCode("catz.example", NoticeLoadFailed, true)
	if st := r.catalog("catz.example"); *st.Serial != 1 || st.State != "failed" || st.Members != 1 {
		t.Errorf("after a broken version: %+v", st)
	}
	r.server.members("catz.example", 3, "m1 a.example", "m2 b.example")
	r.reload("catz.example")
	r.wants("a b")
	r.wantCode("catz.example", NoticeLoadFailed, false)
}

func TestCatalog_AnEmptyOneIsHeldUntilAPersonApprovesIt(t *testing.T) {
	r := newCatalogRig(t)
	r.server.members("catz.example", 1, "m1 a.example", "m2 b.example")
	r.follow("catz.example", func(n *NewCatalog) { n.RemovalDelay = new(uint64(0)) })
	r.wants("a b")
	if _, err := r.e.ApproveCatalog(t.Context(), testActor, "catz.example", "?"); !errors.Is(err, ErrState) {
		t.Errorf("nothing is held, and was approved: %v", err)
	}
	r.server.members("catz.example", 2)
	r.reload("catz.example")
	r.wantCode("catz.example", NoticeCatalogHeld, true)
	r.stop()
	r.start(r.policies)
	r.wantCode("catz.example", NoticeCatalogHeld, true)
	r.wants("a b")
	if st := r.catalog("catz.example"); st.State != "held" || st.Held.Gone != 2 || st.Held.Serial != 2 {
		t.Errorf("held: %+v", st)
	}
	// The catalog comes back by itself.
	r.server.members("catz.example", 3, "m1 a.example", "m2 b.example")
	r.reload("catz.example")
	r.wantCode("catz.example", NoticeCatalogHeld, false)
	// It is empty again, and that is right.
	r.server.members("catz.example", 4)
	r.reload("catz.example")
	r.wantCode("catz.example", NoticeCatalogHeld, true)
	if _, err := r.e.ApproveCatalog(t.Context(), testActor, "catz.example", ""); !errors.Is(err, ErrInvalid) {
		t.Errorf("approved without a reason: %v", err)
	}
	if _, err := r.e.ApproveCatalog(t.Context(), testActor, "catz.example", "all moved"); err != nil {
		t.Fatal(err)
	}
	r.wants("")
}

func TestCatalog_ANewLabelLoadsTheZoneAnewAndKeepsItsKeys(t *testing.T) {
	r := newCatalogRig(t)
	r.server.members("catz.example", 1, "m1 a.example")
	r.follow("catz.example", nil)
	r.wants("a")
	before := r.state("a.example")
	r.server.members("catz.example", 2, "m9 a.example")
	r.reload("catz.example")
	r.until("loaded anew", func() bool {
		s := r.state("a.example")
		return s.Member.Reset != 0 && s.Loaded.Seq > s.Member.Reset
	}, func() any { return r.state("a.example").Member })
	s := r.state("a.example")
	if s.Keys.Published()[0].ID != before.Keys.Published()[0].ID || s.Loaded.Facts.Base != 0 || s.Loaded.Facts.Transfer != "AXFR" {
		t.Errorf("after a reset: %+v", s.Loaded.Facts)
	}
}

func TestCatalog_AMemberMovesWhereItsCatalogGivesItAway(t *testing.T) {
	r := newCatalogRig(t)
	r.server.members("old.example", 1, "m1 a.example")
	r.server.members("new.example", 1, "m1 a.example")
	r.follow("old.example", nil)
	r.wants("a")
	key := r.state("a.example").Keys.Published()[0].ID
	r.follow("new.example", nil)
	r.wantCode("new.example", NoticeCatalogConflict, true)
	r.server.members("old.example", 2, "m1 a.example coo=new.example")
	r.reload("old.example")
	r.until("a.example comes from new.example", func() bool { return r.state("a.example").Member.Catalog == "new.example." }, func() any { return r.codes("new.example") })
	r.server.members("old.example", 3)
	r.reload("old.example")
	r.until("the old one is empty", func() bool { return *r.catalog("old.example").Serial == 3 }, func() any { return r.catalog("old.example") })
	r.wantCode("new.example", NoticeCatalogConflict, false)
	if s := r.state("a.example"); s.Member.Unlisted != nil || s.Member.Reset != 0 || s.Keys.Published()[0].ID != key {
		t.Errorf("after it moved: %+v", s.Member)
	}
}

func TestCatalog_AZoneOnItsOwnIsNeverTakenOver(t *testing.T) {
	r := newCatalogRig(t)
	if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: "a.example", Source: r.server.addr}); err != nil {
		t.Fatal(err)
	}
	r.server.members("catz.example", 1, "m1 a.example", "m2 b.example", "m3 catz.example")
	r.follow("catz.example", nil)
	r.wants("a b")
	r.wantCode("catz.example", NoticeCatalogConflict, true)
	if r.state("a.example").Member != nil {
		t.Error("it was taken over")
	}
	members, err := r.e.CatalogMembers(t.Context(), "catz.example")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range members {
		got = append(got, m.Zone+" "+m.State)
	}
	if diff := cmp.Diff([]string{"a.example. conflict", "b.example. listed", "catz.example. conflict"}, got); diff != "" {
		t.Error(diff)
	}
	// What a person gives a member by hand stays, whatever the catalog changes.
	if _, err := r.e.SetZone(t.Context(), testActor, "b.example", ZoneChange{Policy: "dense"}); err != nil {
		t.Fatal(err)
	}
	policy := "listed"
	if _, err := r.e.SetCatalog(t.Context(), testActor, "catz.example", CatalogChange{Policy: policy}); err != nil {
		t.Fatal(err)
	}
	r.until("the new policy is noted", func() bool { return r.state("b.example").Member.Policy == policy }, func() any { return r.state("b.example").Member })
	r.wants("a b=dense")
}

// Members whose policy is not there wait for it, and come once it is put: nothing
// else has to happen.
func TestCatalog_MembersThatWaitForAPolicyComeOnceItIsPut(t *testing.T) {
	r := newCatalogRig(t)
	r.e.cfg.PolicyDir = t.TempDir()
	r.server.members("catz.example", 1, "m1 a.example")
	r.follow("catz.example", func(n *NewCatalog) { n.Groups = []event.CatalogGroup{{Group: "n3", Policy: "dense"}} })
	r.wants("a")
	if ch, err := r.e.ReloadPolicies(t.Context(), testActor); err != nil || !slices.Contains(ch.Removed, "dense") {
		t.Fatalf("%+v, %v", ch, err)
	}
	r.server.members("catz.example", 2, "m1 a.example", "m2 b.example group=n3")
	r.reload("catz.example")
	r.wantCode("catz.example", NoticeCatalogMember, true)
	r.wants("a")
	if _, err := r.e.PutPolicy(t.Context(), testActor, "dense", NewPolicy{Text: "version = \"v1\"\n[signer.denial]\ntype = \"nsec3\"\n"}); err != nil {
		t.Fatal(err)
	}
	r.wants("a b=dense")
	r.wantCode("catz.example", NoticeCatalogMember, false)
}

func TestCatalog_RemovedItKeepsItsMembersOrEndsWithThem(t *testing.T) {
	r := newCatalogRig(t)
	r.server.members("catz.example", 1, "m1 a.example", "m2 b.example")
	short := func(n *NewCatalog) { n.RemovalDelay = new(uint64(3600)) }
	r.follow("catz.example", short)
	r.wants("a b")
	if err := r.e.RemoveCatalog(t.Context(), testActor, "catz.example", true); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Catalog(t.Context(), "catz.example"); !errors.Is(err, ErrNotFound) {
		t.Errorf("it is still there: %v", err)
	}
	r.wants("a b")
	r.follow("catz.example", short) // its members are taken up again
	r.until("a.example is its member", func() bool { _, ok := r.e.listedBy(r.state("a.example")); return ok }, func() any { return r.codes("catz.example") })
	if err := r.e.RemoveCatalog(t.Context(), testActor, "catz.example", false); err != nil {
		t.Fatal(err)
	}
	r.wantCode("a.example", NoticeCatalogRemoval, true)
	r.wantCode("b.example", NoticeCatalogRemoval, true)
	if err := r.e.RemoveCatalog(t.Context(), testActor, "catz.example", false); !errors.Is(err, ErrState) {
		t.Errorf("removed twice: %v", err)
	}
	r.move(dayOne.Add(2 * time.Hour))
	r.wants("")
	r.until("the catalog is gone", func() bool { _, err := r.e.Catalog(t.Context(), "catz.example"); return errors.Is(err, ErrNotFound) }, func() any { return r.e.catalogsNow() })
}

// However often the process ends meanwhile, each member is added once.
func TestCatalog_AddingGoesOnAfterEachStart(t *testing.T) {
	r := newCatalogRig(t)
	const n = 40
	var nodes []string
	for i := range n {
		name := fmt.Sprintf("m%d.example", i)
		r.server.serve(name, 1)
		nodes = append(nodes, fmt.Sprintf("l%d %s", i, name))
	}
	r.server.members("catz.example", 1, nodes...)
	r.follow("catz.example", nil)
	for range 3 {
		r.stop()
		r.start(r.policies)
	}
	r.until("all are published", func() bool { return len(r.zones()) == n }, func() any { return len(r.zones()) })
	r.e.mu.RLock()
	zones := r.e.registry.Zones
	r.e.mu.RUnlock()
	if zones != n+1 {
		t.Errorf("%d zones, want %d and the catalog", zones, n)
	}
}

func TestCatalog_ProducedListsWhatIsPublished(t *testing.T) {
	r := newCatalogRig(t)
	for _, name := range []string{"kept", "default", "nothing"} {
		if _, err := r.e.AddCatalog(t.Context(), testActor, NewCatalog{Name: "out.example", Kind: event.CatalogProduced, Policy: name}); err == nil {
			t.Errorf("produced with policy %s", name)
		}
	}
	for _, name := range []string{"a.example", "b.example"} {
		if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: name, Source: r.server.addr}); err != nil {
			t.Fatal(err)
		}
	}
	r.wants("a b")
	if _, err := r.e.AddCatalog(t.Context(), testActor, NewCatalog{
		Name: "out.example", Kind: event.CatalogProduced, Policy: "listed", Groups: []event.CatalogGroup{{Group: `n"3`, Policy: "dense"}},
	}); err != nil {
		t.Fatal(err)
	}
	wants := func(want string) uint32 {
		t.Helper()
		var serial uint32
		listed := func() string {
			s := r.state("out.example")
			c, ok := r.e.catalogOf(s.Zone)
			if s.Published == nil || !ok {
				return "-"
			}
			serial = s.Published.Signed.Facts.Serial
			c.Settings.MaxMembers = 100
			entries, err := r.e.entriesOf(c, s)
			if err != nil {
				return err.Error()
			}
			var names []string
			for _, e := range entries {
				names = append(names, strings.Join(append([]string{strings.TrimSuffix(e.Name, ".example.")}, e.Groups...), "/"))
			}
			slices.Sort(names)
			return strings.Join(names, " ")
		}
		r.until("it lists "+want, func() bool { return listed() == want }, func() any { return listed() })
		return serial
	}
	first := wants("a b")
	if _, err := r.e.SetZone(t.Context(), testActor, "b.example", ZoneChange{Policy: "dense"}); err != nil {
		t.Fatal(err)
	}
	second := wants(`a b/n"3`)
	r.stop()
	r.start(r.policies)
	if got := wants(`a b/n"3`); got != second || second <= first {
		t.Errorf("serials %d, %d, after a restart %d", first, second, got)
	}
	if _, err := r.e.SetCatalog(t.Context(), testActor, "out.example", CatalogChange{Policies: new([]string{"dense"})}); err != nil {
		t.Fatal(err)
	}
	wants(`b/n"3`)
	if err := r.e.RemoveZone(t.Context(), testActor, "b.example", true); err != nil {
		t.Fatal(err)
	}
	wants("")
	if err := r.e.RemoveCatalog(t.Context(), testActor, "out.example", false); err != nil {
		t.Fatal(err)
	}
	if _, err := r.e.Zone(t.Context(), "out.example"); !errors.Is(err, ErrNotFound) {
		t.Errorf("its zone is still there: %v", err)
	}
}
