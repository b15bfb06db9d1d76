package pipeline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/journaltest"
	"sluice/keymgr"
)

// publicKeys writes a file with the DNSKEY records of another signer.
func publicKeys(t *testing.T, algorithm uint8, flags ...uint16) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("; an answer of another signer's server\nexample.com. 60 IN SOA ns h 1 1 1 1 1\n")
	for _, f := range flags {
		k := &dns.DNSKEY{
			Hdr:   dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 60},
			Flags: f, Protocol: 3, Algorithm: algorithm,
		}
		if _, err := k.Generate(256); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&text, k)
	}
	path := filepath.Join(t.TempDir(), "other.key")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (w *rolling) imports(path string) []keymgr.Key {
	w.t.Helper()
	keys, err := w.e.ImportKey(w.t.Context(), testActor, "example.com", []KeyFile{{Path: path, Public: true}})
	if err != nil {
		w.t.Fatal(err)
	}
	return keys
}

func TestEngine_KeysOfAnotherSignerArePublishedAndStay(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	path := publicKeys(t, dns.ECDSAP256SHA256, 257, 256)
	keys := w.imports(path)
	if len(keys) != 2 || !keys[0].Foreign || keys[0].State != keymgr.Published || keys[0].Reference != "" {
		t.Fatalf("imported %+v", keys)
	}
	if _, err := w.e.ExportKey(t.Context(), testActor, "example.com", keys[0].ID); !errors.Is(err, ErrState) {
		t.Errorf("a foreign key is given out: %v", err)
	}
	w.settle()
	if n := strings.Count(w.dump(), "\tDNSKEY\t"); n != 4 {
		t.Errorf("%d DNSKEY records", n)
	}
	if n := strings.Count(w.dump(), "\tCDS\t"); n != 1 {
		t.Errorf("%d CDS records before every cache has the keys", n)
	}
	w.verifies()
	w.runs("the way in", quiet)
	if n := strings.Count(w.dump(), "\tCDS\t"); n != 2 {
		t.Errorf("%d CDS records, want one of each signer", n)
	}
	if ds, err := w.e.DS(t.Context(), "example.com", "ds"); err != nil || len(ds) != 2 || !ds[1].Submit {
		t.Errorf("DS %+v, %v", ds, err)
	}
	for _, kind := range []keymgr.Kind{keymgr.RollZSK, keymgr.RollKSK} {
		w.rolls(RolloverRequest{Kind: kind})
		w.runs("the rollover", quiet)
		w.verifies()
	}
	st := w.settle()
	if got := fmt.Sprint(inState(st.Keys, keymgr.Published)); got != "[ksk/13 zsk/13]" {
		t.Errorf("published only: %s", got)
	}
	if _, err := w.e.ImportKey(t.Context(), testActor, "example.com", []KeyFile{{Path: path, Public: true}}); !errors.Is(err, ErrState) {
		t.Errorf("imported twice: %v", err)
	}
	// A restart changes nothing.
	w.stop()
	w.start(nil)
	w.settle()
	for _, k := range keys {
		if _, err := w.e.RemoveKey(t.Context(), testActor, "example.com", k.ID); err != nil {
			t.Fatal(err)
		}
	}
	st = w.runs("the wait", func(st ZoneStatus) bool { return quiet(st) || st.Rollovers[0].Phase == keymgr.PhaseWait })
	if len(st.Rollovers) != 2 || st.Rollovers[0].Phase != keymgr.PhaseWait || !strings.Contains(st.Rollovers[0].Wait.Formula, "TTLns") {
		t.Errorf("leaves at once: %+v", st.Rollovers)
	}
	st = w.runs("the way out", quiet)
	if n := strings.Count(w.dump(), "\tDNSKEY\t"); n != 2 || strings.Count(w.dump(), "\tCDS\t") != 1 {
		t.Errorf("%d DNSKEY records:\n%s", n, w.dump())
	}
	// There is no private part to delete.
	w.h.move(w.h.now().Add(100 * day))
	if st = w.settle(); st.LastError != "" {
		t.Error(st.LastError)
	}
	if got := w.historyOf("key.imported"); len(got) != 1 || !strings.Contains(got[0], "imported public keys of another signer") {
		t.Errorf("history %q", got)
	}
	if back := w.imports(path); len(back) != 2 || back[0].State != keymgr.Published {
		t.Errorf("the way back in: %+v", back)
	}
}

func TestEngine_OddPublicKeysAreRefused(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	write := func(text string) string {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own, err := w.e.DS(t.Context(), "example.com", "dnskey")
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ path, want string }{
		{publicKeys(t, dns.ED25519, 256), "all signers need the same algorithms"},
		{publicKeys(t, dns.ECDSAP256SHA256, 0), "no zone key"},
		{publicKeys(t, dns.ECDSAP256SHA256, 256|128), "revoked"},
		{write("www A 192.0.2.1\n"), "no DNSKEY record"},
		{write("example.net. DNSKEY 256 3 13 AAAA\n"), "belongs to zone example.net."},
		{write("@ DNSKEY 256 3 13 AAAA\n"), "malformed public key"},
		{write(own[0].Record + "\n"), "here already"},
		{publicKeys(t, dns.ECDSAP256SHA256, slices.Repeat([]uint16{256}, keymgr.MaxForeign+1)...), "at most 16"},
		{filepath.Join(t.TempDir(), "none"), "no such file"},
	} {
		_, err := w.e.ImportKey(t.Context(), testActor, "example.com", []KeyFile{{Path: row.path, Public: true}})
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("want %q, got %v", row.want, err)
		}
	}
}

func TestEngine_NewZoneBringsKeysOfAnotherSigner(t *testing.T) {
	r := newRig(t, journaltest.New(), map[string]Policy{"default": Default()})
	source := r.zoneFile(smallZone)
	add := func(algorithm uint8) error {
		_, err := r.e.AddZone(t.Context(), testActor, NewZone{
			Name: "example.com", Source: source, Import: []KeyFile{{Path: publicKeys(t, algorithm, 256), Public: true}},
		})
		return err
	}
	if err := add(dns.ED25519); !errors.Is(err, ErrState) {
		t.Errorf("another algorithm than the policy's: %v", err)
	}
	if err := add(dns.ECDSAP256SHA256); err != nil {
		t.Fatal(err)
	}
	r.await()
	if n := strings.Count(r.dump(), "\tDNSKEY\t"); n != 3 {
		t.Errorf("%d DNSKEY records in the first version", n)
	}
}

func TestEngine_KeysAreMadeAheadAndUsedFirst(t *testing.T) {
	w := newRolling(t, "[key-manager]\npool = { zsk = 2 }\n")
	st := w.secure()
	if got := fmt.Sprint(inState(st.Keys, keymgr.Generated)); got != "[zsk/13 zsk/13]" {
		t.Fatalf("made ahead: %s", got)
	}
	first := st.Keys[slices.IndexFunc(st.Keys, func(k keymgr.Key) bool { return k.State == keymgr.Generated })]
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	st = w.settle()
	if got := st.Rollovers[0].New; !slices.Equal(got, []string{first.ID}) {
		t.Errorf("the rollover takes %v, not %s", got, first.ID)
	}
	if got := fmt.Sprint(inState(st.Keys, keymgr.Generated)); got != "[zsk/13 zsk/13]" {
		t.Errorf("the pool has %s", got)
	}
	w.runs("the end", quiet)
	if got := w.historyOf("key.generated"); len(got) != 4 || !strings.Contains(got[1], "made ahead") {
		t.Errorf("history %q", got)
	}
}

func TestEngine_KeysWaitForTheirBackup(t *testing.T) {
	w := newRolling(t, "[key-manager]\nrequire-backup = true\npool = { zsk = 1 }\n")
	st := w.await()
	if st.Published != nil || st.WaitsFor != "its keys to be marked as backed up" || len(st.Keys) != 2 {
		t.Fatalf("published %v, waits for %q, keys %+v", st.Published, st.WaitsFor, st.Keys)
	}
	mark := func(q BackupRequest) []BackupKey {
		t.Helper()
		keys, err := w.e.MarkBackup(t.Context(), testActor, q)
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	if got := mark(BackupRequest{Before: st.Keys[0].Generated}); len(got) != 0 {
		t.Errorf("keys made after the copy are marked: %+v", got)
	}
	if got := mark(BackupRequest{Zones: []string{"example.com"}, Keys: []string{st.Keys[0].ID}}); len(got) != 1 {
		t.Errorf("marked %+v", got)
	}
	if st = w.await(); st.Published != nil {
		t.Error("published with one key backed up")
	}
	if got := mark(BackupRequest{}); len(got) != 1 || got[0].Zone != "example.com." {
		t.Errorf("marked %+v", got)
	}
	w.secure()

	// The key that the pool has made is not used before it is marked.
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	st = w.settle()
	ro := st.Rollovers[0]
	if ro.Phase != keymgr.PhaseBackup || ro.Step != 0 || !strings.Contains(ro.Text, "sluice key backup mark") {
		t.Fatalf("rollover %+v", ro)
	}
	if !slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.Contains(n.Hint, "sluice key backup mark example.com.") }) {
		t.Errorf("notices %+v", st.Notices)
	}
	if _, err := w.e.PublishKey(t.Context(), testActor, "example.com", ro.New[0]); !errors.Is(err, ErrState) {
		t.Errorf("a key that takes part is published: %v", err)
	}
	missing, err := w.e.Backups(t.Context(), "", true)
	if err != nil || len(missing) != 2 { // that one, and what the pool made since
		t.Errorf("missing %+v, %v", missing, err)
	}
	mark(BackupRequest{Zones: []string{"example.com"}})
	st = w.runs("the end", quiet)
	all, err := w.e.Backups(t.Context(), "example.com", false)
	if err != nil || len(all) != len(st.Keys) {
		t.Errorf("backups %+v, %v", all, err)
	}
	if got := w.historyOf("key.backed-up"); len(got) != 3 || !strings.Contains(got[0], "marked as backed up") {
		t.Errorf("history %q", got)
	}
	for q, want := range map[string]BackupRequest{
		"without a zone": {Keys: []string{"0011223344556677"}}, "that is not there": {Zones: []string{"example.com"}, Keys: []string{"0011223344556677"}},
	} {
		if _, err := w.e.MarkBackup(t.Context(), testActor, want); err == nil {
			t.Errorf("a key %s is marked", q)
		}
	}
}

func TestEngine_StandbyKeySignsAtOnce(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	keys, err := w.e.GenerateKey(t.Context(), testActor, "example.com", keymgr.ZSK, "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.e.PublishKey(t.Context(), testActor, "example.com", keys[0].ID); err != nil {
		t.Fatal(err)
	}
	w.settle()
	w.verifies()
	for range 20 {
		w.h.move(w.h.now().Add(time.Hour))
		w.settle()
	}
	st := w.rolls(RolloverRequest{Kind: keymgr.RollZSK})
	if st.Rollovers[0].New[0] != keys[0].ID {
		t.Errorf("takes %v", st.Rollovers[0].New)
	}
	w.h.move(w.h.now().Add(10 * time.Second)) // for the look
	st = w.settle()
	if got := st.Rollovers[0]; got.Name != "sign" {
		t.Errorf("waits in step %s: %s", got.Name, got.Text)
	}
	w.runs("the end", quiet)
	w.verifies()
	if _, err := w.e.PublishKey(t.Context(), testActor, "example.com", keys[0].ID); !errors.Is(err, ErrState) {
		t.Errorf("a key that signs is published: %v", err)
	}
}

func TestEngine_ConflictSaysWhatToDo(t *testing.T) {
	w := newRolling(t, "")
	w.settle()
	_, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollKSK})
	if !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "sluice key abort") {
		t.Errorf("a KSK beside the way to the first DS: %v", err)
	}
	if _, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollForeign}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a rollover of kind foreign: %v", err)
	}
}

func TestState_ParentMarginIsTheParents(t *testing.T) {
	m := Moment{Sights: Sights{Refresh: time.Hour, Retry: time.Hour, Observation: &keymgr.Observation{ParentMargin: 900}}}
	for policy, want := range map[string]time.Duration{
		"":                               15 * time.Minute,
		"propagation-margin = \"30m\"\n": 30 * time.Minute,
		"propagation-margin = \"30m\"\nparent-propagation-margin = \"2h\"\n": 2 * time.Hour,
		"parent-propagation-margin = \"3h\"\n":                               3 * time.Hour,
	} {
		p, err := Parse("p", []byte("version = \"v1\"\n[key-manager]\n"+policy))
		if err != nil {
			t.Fatal(err)
		}
		if got := (State{}).known(p, m).Timing.ParentMargin; got.Value != want || got.Source == "" {
			t.Errorf("%q: %+v, want %s", policy, got, want)
		}
	}
	m.Sights.Observation = nil
	if got := (State{}).known(Default(), m).Timing.ParentMargin; got.Value != 2*time.Hour || !strings.Contains(got.Source, "not seen") {
		t.Errorf("unseen: %+v", got)
	}
}
