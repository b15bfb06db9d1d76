package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
)

const testSoftware = "v1.2.3/0123456789abcdef"

// eventsOf is the events of a journal with facts of type T, and these.
func eventsOf[T event.Facts](t *testing.T, j journal.Journal) (events []event.Event, facts []T) {
	t.Helper()
	err := j.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(T); ok {
			events, facts = append(events, rec.Event), append(facts, f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return events, facts
}

// Instances name the software that made them and what it changed; evidence shows
// it.
func TestEvents_NameSoftwareAndChanges(t *testing.T) {
	memory := journaltest.New()
	r := &rig{t: t, dir: t.TempDir(), journal: memory, software: func() string { return testSoftware }}
	r.start(nil)
	r.add(zoneFileOf(1, "a A 192.0.2.7", "b A 192.0.2.8"))
	r.reload(zoneFileOf(2, "a A 192.0.2.9", "b A 192.0.2.8"))
	_, loads := eventsOf[*event.InstanceLoaded](t, memory)
	signings, signed := eventsOf[*event.InstanceSigned](t, memory)
	_, published := eventsOf[*event.InstancePublished](t, memory)
	if len(loads) != 2 || len(signed) != 2 || len(published) != 2 {
		t.Fatalf("%d loads, %d signed, %d published", len(loads), len(signed), len(published))
	}
	for i := range loads {
		if loads[i].Software != testSoftware || signed[i].Software != testSoftware || published[i].Software != testSoftware {
			t.Errorf("software of version %d: %q, %q, %q", i, loads[i].Software, signed[i].Software, published[i].Software)
		}
	}
	first, second := signed[0], signed[1]
	// NSEC at the apex, ns1, a and b; every RRset is signed.
	if first.DenialChanged != 4 || first.Dropped != 0 || first.NewSets == 0 || first.Reused != 0 {
		t.Errorf("the first version: %+v", first)
	}
	// The SOA and a's address.
	if second.NewSets != 2 || second.Made != second.Dropped || second.DenialChanged != 0 || second.Reused+second.Made != first.Made {
		t.Errorf("the second version: %+v", second)
	}
	got := map[string]string{}
	for _, p := range Evidence(signings[1]) {
		got[p.Name] = p.Value
	}
	for name, want := range map[string]string{
		"software": testSoftware, "rrsets_signed": "2", "denial_changed": "0", "signed_digest": second.SignedDigest.String(),
	} {
		if got[name] != want {
			t.Errorf("evidence %s is %q, want %q", name, got[name], want)
		}
	}
}

func TestTransfer_SaysWhatTheServerProvedToBe(t *testing.T) {
	p := newPrimary(t, zoneFileOf(1))
	memory := journaltest.New()
	r := newRig(t, memory, nil)
	r.addFrom(p.addr)
	_, loads := eventsOf[*event.InstanceLoaded](t, memory)
	if len(loads) != 1 {
		t.Fatalf("%d loads", len(loads))
	}
	if diff := cmp.Diff(&event.PeerIdentity{Address: "127.0.0.1"}, loads[0].PeerIdentity); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
}

// What a verdict answers is its cause: the instance, or the halt.
func TestDoors_EventsNameWhatTheyAnswer(t *testing.T) {
	memory := journaltest.New()
	r := newRig(t, memory, map[string]Policy{"default": reviewPolicy(t, "[loader.review]\nmode = \"manual\"\non-reject = \"halt\"\n")})
	r.add(smallZone)
	r.approve(event.StageLoaded)
	r.reload(strings.Replace(smallZone, "192.0.2.1", "192.0.2.2", 1))
	r.reject(event.StageLoaded)
	if _, err := r.e.Override(t.Context(), testActor, "example.com", event.StageLoaded, NewDecision{Reason: "it is good"}); err != nil {
		t.Fatal(err)
	}
	r.await()
	halts, _ := eventsOf[*event.ZoneHalted](t, memory)
	approvals, approved := eventsOf[*event.ReviewApproved](t, memory)
	rejections, rejected := eventsOf[*event.ReviewRejected](t, memory)
	overrides, _ := eventsOf[*event.ReviewOverridden](t, memory)
	if len(halts) != 1 || len(approvals) != 1 || len(rejections) != 1 || len(overrides) != 1 {
		t.Fatalf("%d halts, %d approvals, %d rejections, %d overrides", len(halts), len(approvals), len(rejections), len(overrides))
	}
	if approvals[0].Cause != approved[0].Instance || rejections[0].Cause != rejected[0].Instance {
		t.Errorf("approval answers %d, rejection %d", approvals[0].Cause, rejections[0].Cause)
	}
	state := r.zone()
	if overrides[0].Cause <= rejected[0].Instance || overrides[0].Cause >= state.Head.Seq {
		t.Errorf("the override answers %d, not the halt", overrides[0].Cause)
	}
}

func TestRunHook_HashesAllOfItsOutputAndItsPrograms(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "check")
	script := []byte("#!/bin/sh\nhead -c 10000 /dev/zero | tr '\\0' x; exit 3\n")
	if err := os.WriteFile(program, script, 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	secret := filepath.Join(dir, "pin")
	if err := os.WriteFile(secret, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := runHook(t.Context(), Hook{Command: program + " --pin-file " + secret, Timeout: time.Minute}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(bytes.Repeat([]byte("x"), 10000))
	if out.ExitCode != 3 || out.OutputBytes != 10000 || len(out.Output) != maxHookOutput || out.OutputSHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("exit code %d, %d bytes, %d kept, hash %s", out.ExitCode, out.OutputBytes, len(out.Output), out.OutputSHA256)
	}
	want := []event.ProgramFile{{Path: program, SHA256: sha256.Sum256(script)}}
	if diff := cmp.Diff(want, out.Programs); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
}

func TestProgramsOf_LooksIntoPathAndPassesOverWhatCannotRun(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	for name, mode := range map[string]os.FileMode{"check": 0o700, "notes": 0o600, "other": 0o700} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), mode); err != nil {
			t.Fatal(err)
		}
	}
	other := filepath.Join(dir, "other")
	got := programsOf("check " + filepath.Join(dir, "notes") + " | '" + other + "' " + other + " other " + dir)
	want := []event.ProgramFile{
		{Path: filepath.Join(dir, "check"), SHA256: sha256.Sum256([]byte("check"))},
		{Path: other, SHA256: sha256.Sum256([]byte("other"))},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("programs (-want +got):\n%s", diff)
	}
	if got := programsOf("missing " + dir); got != nil {
		t.Errorf("no program: %v", got)
	}
}

// Keys have the lives that the policy means them to have; the facts given stay.
func TestWithLives_AddsPlannedLives(t *testing.T) {
	p := reviewPolicy(t, "[key-manager.ksk]\nvalidity = \"forever\"\n[key-manager.zsk]\nvalidity = \"90d\"\n")
	ks := keymgr.KeySet{Keys: []keymgr.Key{
		{Key: event.Key{ID: "k", Role: "ksk"}}, {Key: event.Key{ID: "z", Role: "zsk"}},
	}}
	activated, retired := &event.KeyActivated{IDs: []string{"k", "z"}}, &event.KeyRetired{IDs: []string{"o"}}
	got := withLives(ks, p, []event.Facts{activated, retired})
	want := []event.Facts{
		&event.KeyActivated{IDs: []string{"k", "z"}, Lives: []event.PlannedLife{{ID: "z", Seconds: 90 * 24 * 3600}}}, retired,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
	if activated.Lives != nil {
		t.Error("the facts given were changed")
	}
}

// The journal tells who was given an export, or a secret.
func TestExports_AreEvents(t *testing.T) {
	r, _ := newSealed(t, nil)
	r.add(smallZone)
	auditor := event.Actor{Name: "anne", Door: "api", Role: "auditor"}
	err := r.e.AuditExport(t.Context(), auditor, ExportQuery{Zones: []string{"EXAMPLE.com"}, Chunks: true, DropSealed: true},
		func(string, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	events, facts := eventsOf[*event.JournalExported](t, r.journal)
	if len(facts) != 1 || events[0].Actor != auditor {
		t.Fatalf("%d exports by %+v", len(facts), events)
	}
	want := &event.JournalExported{Zones: []string{"example.com."}, Chunks: true, Dropped: []string{"all"}}
	if diff := cmp.Diff(want, facts[0]); diff != "" {
		t.Errorf("export (-want +got):\n%s", diff)
	}
	if got := Describe(events[0]); got != "audit export of example.com., with contents, without sealed values: all" {
		t.Errorf("told as %q", got)
	}
}

// Sealing what peers are leaves nothing of what a server proved to be in the
// public line.
func TestSealPeer_HidesIdentitiesOfServers(t *testing.T) {
	who := &event.PeerIdentity{
		Address: "192.0.2.1", Key: "transfer.example.", Algorithm: "hmac-sha256", Pin: "sha256:AQ==", Certificate: "0102", Name: "ns1.example",
	}
	e := event.New(dayOne, event.ZoneID("0123456789abcdef"), event.Program, &event.InstanceLoaded{
		Source: "elsewhere", Peer: "tls://192.0.2.1:853^transfer.example.#ns1.example", PeerIdentity: who,
	})
	e.Version, e.N = 1, 1
	if err := sealEvent(&e, []string{SealPeer}); err != nil {
		t.Fatal(err)
	}
	_, line, err := event.EncodeMessage(&e)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{who.Address, who.Key, who.Pin, who.Certificate, who.Name} {
		if strings.Contains(string(line), secret) {
			t.Errorf("the public line has %s: %s", secret, line)
		}
	}
	if diff := cmp.Diff(who, event.Open(e, e.Values).Facts.(*event.InstanceLoaded).PeerIdentity); diff != "" {
		t.Errorf("opened (-want +got):\n%s", diff)
	}
}
