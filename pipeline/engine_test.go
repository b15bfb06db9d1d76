package pipeline

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
	"sluice/xfr"
)

const smallZone = `$TTL 3600
@ IN SOA ns1 hostmaster 7 7200 3600 1209600 300
  IN NS ns1
  IN NS ns2.example.net.
ns1 IN A 192.0.2.1
www IN A 192.0.2.80
*.wild IN TXT "any"
a.ent IN TXT "below an empty non-terminal"
sub IN NS ns.sub
ns.sub IN A 192.0.2.53
secure IN NS ns.example.net.
secure IN DS 12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
`

// rig is an engine on a journal in memory.
type rig struct {
	t           *testing.T
	dir         string
	journal     journal.Journal
	clock       Clock
	tsig        TSIGStore
	client      xfr.ClientConfig
	resolve     func(context.Context, string) ([]netip.Addr, error)
	observe     func(context.Context, observe.Question) keymgr.Observation
	agents      func(context.Context, zone.Name, time.Time) (observe.Agents, error)
	logger      *slog.Logger // nil: the test's log
	wrap        func(keymgr.Keystore) keymgr.Keystore
	tokens      keymgr.Tokens
	sealing     Sealing
	seal        []string
	archive     *journal.Archive
	coordinator journal.Coordinator
	software    func() string
	e           *Engine
	stop        func()

	policies map[string]Policy // for tests that start it more than once
}

func newRig(t *testing.T, j journal.Journal, policies map[string]Policy) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), journal: j}
	r.start(policies)
	return r
}

func (r *rig) start(policies map[string]Policy) {
	r.t.Helper()
	ks, err := file.Open(file.Config{Dir: filepath.Join(r.dir, "keys")})
	if err != nil {
		r.t.Fatal(err)
	}
	var keys keymgr.Keystore = ks
	if r.wrap != nil {
		keys = r.wrap(ks)
	}
	r.e, err = NewEngine(r.t.Context(), Config{
		Journal: r.journal, Keystore: keys, StoreDir: filepath.Join(r.dir, "projections"), Clock: r.clock,
		SpillDir: filepath.Join(r.dir, "spill"), Policies: policies, Logger: cmp.Or(r.logger, testLogger(r.t)), TSIG: r.tsig,
		HintFile: filepath.Join(r.dir, "upstream.json"), Client: r.client, Resolve: r.resolve, Observe: r.observe, Agents: r.agents,
		Tokens: r.tokens, Sealing: r.sealing, Seal: r.seal, Archive: r.archive, Coordinator: r.coordinator, Software: r.software,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.e.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("engine ended with %v", err)
		}
		if err := r.e.Close(); err != nil {
			r.t.Errorf("projection closed with %v", err)
		}
		r.stop = func() {}
	}
	r.t.Cleanup(func() { r.stop() })
	until(r.t, "the engine is ready", func() bool { return r.e.Health(r.t.Context()) == nil })
}

// until polls a named condition.
func until(t *testing.T, what string, met func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !met() {
		select {
		case <-deadline:
			t.Fatalf("after 30 s still not: %s", what)
		case <-tick.C:
		}
	}
}

func (r *rig) zoneFile(text string) string {
	r.t.Helper()
	path := filepath.Join(r.dir, "example.com.zone")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	return path
}

// add adds example.com and waits until it is at rest.
func (r *rig) add(text string) ZoneStatus {
	r.t.Helper()
	ctx := r.t.Context()
	if _, err := r.e.AddZone(ctx, testActor, NewZone{Name: "example.com", Source: r.zoneFile(text)}); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

func (r *rig) await() ZoneStatus {
	r.t.Helper()
	st, err := r.e.Await(r.t.Context(), "example.com", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func (r *rig) reload(text string) ZoneStatus {
	r.t.Helper()
	r.zoneFile(text)
	if err := r.e.Reload(r.t.Context(), testActor, "example.com", false); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

var testActor = event.Actor{Name: "test", Door: "cli"}

// dump is the published zone as text.
func (r *rig) dump() string {
	r.t.Helper()
	var b bytes.Buffer
	if err := r.e.Dump(r.t.Context(), "example.com", DumpQuery{}, &b); err != nil {
		r.t.Fatal(err)
	}
	return b.String()
}

// served is every item that the listener would serve.
func (r *rig) served() string {
	r.t.Helper()
	name, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := r.e.Source().View(name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer v.Close()
	it, err := v.Items()
	if err != nil {
		r.t.Fatal(err)
	}
	defer it.Close()
	var b strings.Builder
	for it.Next() {
		b.Write(it.Key())
		b.Write(it.Value())
	}
	return b.String()
}

func TestEngine_SignsAZoneFromStartToFinish(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	st := r.add(smallZone)
	if st.State != "published" || st.Published == nil || st.Published.Serial != 7 && st.Published.Serial < 2026000000 {
		t.Fatalf("status %+v, error %q", st.ZoneSummary, st.LastError)
	}
	if len(st.Keys) != 2 {
		t.Errorf("%d keys, want KSK and ZSK", len(st.Keys))
	}
	rep, err := r.e.VerifyZone(t.Context(), "example.com", nil)
	if err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	if text := r.dump(); !strings.Contains(text, "RRSIG") || !strings.Contains(text, "NSEC") {
		t.Errorf("the dump is not signed:\n%s", text)
	}
	var types []string
	if err := r.e.History(t.Context(), "example.com", HistoryQuery{}, func(l HistoryLine) error {
		types = append(types, l.Type)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"zone.added", "policy.bound", "key.generated", "key.activated",
		"instance.loaded", "instance.signed", "instance.published",
	} {
		if !strings.Contains(strings.Join(types, " "), want) {
			t.Errorf("history %v lacks %s", types, want)
		}
	}
}

func TestEngine_ReloadKeepsSignaturesOfUnchangedRRsets(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	first := r.add(smallZone)
	before := *first.Published
	st := r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
	if st.Published.Serial == before.Serial {
		t.Fatalf("no new serial: %+v", st)
	}
	// SOA and the address changed.
	if st.Published.Made != 2 || st.Published.Reused != before.Signatures-2 {
		t.Errorf("made %d, reused %d of %d signatures", st.Published.Made, st.Published.Reused, before.Signatures)
	}
	name, _ := zone.ParseName("example.com")
	v, err := r.e.Source().View(name)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	diffs, ok := v.Diffs(zone.Serial(before.Serial))
	if !ok || len(diffs) != 1 {
		t.Errorf("%d diffs, known %v", len(diffs), ok)
	}
	if st := r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1)); st.Published.Serial == before.Serial {
		t.Error("an unchanged file published another serial")
	}
}

func TestEngine_BadInputKeepsTheLastGoodZoneServed(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	before := r.served()
	st := r.reload(smallZone + "www IN CNAME elsewhere\nbad line here\n")
	if st.LastError == "" || !strings.Contains(st.State, "failed") {
		t.Errorf("status %+v says nothing of the failure", st.ZoneSummary)
	}
	if r.served() != before {
		t.Error("what is served changed")
	}
	st = r.reload(smallZone)
	if st.LastError != "" || st.State != "published" || r.served() != before {
		t.Errorf("the good file again: state %q, error %q, same zone served: %v", st.State, st.LastError, r.served() == before)
	}
	st = r.reload(strings.Replace(smallZone, " 7 ", " 8 ", 1))
	if st.LastError != "" || st.State != "published" {
		t.Errorf("after the correction: state %q, error %q", st.State, st.LastError)
	}
}

func TestEngine_ProjectionIsRebuiltByteForByte(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	for i, to := range []string{"192.0.2.81", "192.0.2.82", "192.0.2.83"} {
		text := strings.Replace(smallZone, "192.0.2.80", to, 1)
		if i == 1 {
			text = strings.Replace(text, "a.ent", "b.ent", 1)
		}
		r.reload(text)
	}
	served, hash := r.served(), r.liveHash()
	r.stop()
	if err := os.RemoveAll(filepath.Join(r.dir, "projections")); err != nil {
		t.Fatal(err)
	}
	r.start(nil)
	if r.served() != served {
		t.Error("what is served differs after the rebuild")
	}
	if r.liveHash() != hash {
		t.Error("the projection's keys and values differ after the rebuild")
	}
	steps := 0
	err := r.e.Replay(t.Context(), "example.com", "", true, nil, func(s ReplayStep) error {
		steps++
		if !s.Equal {
			t.Errorf("%s differs", s.Instance)
		}
		return nil
	})
	if err != nil || steps != 8 {
		t.Errorf("replay: %d instances, want 8; %v", steps, err)
	}
}

func (r *rig) liveHash() [32]byte {
	r.t.Helper()
	h, err := r.e.store.LiveHash()
	if err != nil {
		r.t.Fatal(err)
	}
	return h
}

func TestEngine_RemovedZoneIsServedNoMore(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	before := r.add(smallZone)
	if err := r.e.RemoveZone(t.Context(), testActor, "EXAMPLE.com.", false); err != nil {
		t.Fatal(err)
	}
	name, _ := zone.ParseName("example.com")
	if _, err := r.e.Source().View(name); !errors.Is(err, xfr.ErrUnknownZone) {
		t.Errorf("view of a removed zone: %v", err)
	}
	lines := 0
	if err := r.e.History(t.Context(), "example.com", HistoryQuery{}, func(HistoryLine) error { lines++; return nil }); err != nil || lines < 8 {
		t.Errorf("history of a removed zone: %d lines, %v", lines, err)
	}
	again := r.add(smallZone)
	if again.State != "published" || again.Published.Serial <= before.Published.Serial {
		t.Errorf("added again: %q, serial %d after %d", again.State, again.Published.Serial, before.Published.Serial)
	}
	for i, k := range again.Keys {
		if k.ID != before.Keys[i].ID {
			t.Errorf("added again with key %s, before %s: a DS may still name that", k.ID, before.Keys[i].ID)
		}
	}
}
