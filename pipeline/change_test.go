package pipeline

import (
	"encoding/base64"
	"errors"
	"strings"
	"sync"
	"testing"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
	"sluice/xfr"
)

func TestSetZone_PlansThenChangesSourceAndPolicy(t *testing.T) {
	nsec3, err := Parse("second", []byte("version = \"v1\"\n[signer.denial]\ntype = \"nsec3\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	p := newPrimary(t, zoneFileOf(3, "remote A 192.0.2.3"))
	r := newRig(t, journaltest.New(), map[string]Policy{"second": nsec3})
	r.add(smallZone) // serial 7
	before := r.served()
	change := ZoneChange{Source: p.addr, Policy: "second", DryRun: true}
	plan, err := r.e.SetZone(t.Context(), testActor, "example.com", change)
	if err != nil || plan.Done || len(plan.Changes) != 3 || r.served() != before {
		t.Fatalf("plan %+v, %v", plan, err)
	}
	if len(r.history("zone.changed", "policy.bound")) != 1 {
		t.Error("a dry run wrote an event")
	}
	change.DryRun = false
	if plan, err = r.e.SetZone(t.Context(), testActor, "example.com", change); err != nil || !plan.Done {
		t.Fatalf("%+v, %v", plan, err)
	}
	st := r.await()
	if st.Policy != "second" || st.Source != p.addr || st.Loaded.Serial != 3 || !strings.Contains(r.dump(), "NSEC3PARAM") || !strings.Contains(r.dump(), "remote.") {
		t.Errorf("%+v\n%s", st.ZoneSummary, r.dump())
	}
	if plan, err = r.e.SetZone(t.Context(), testActor, "example.com", change); err != nil || plan.Done || len(plan.Changes) != 0 {
		t.Errorf("the same again: %+v, %v", plan, err)
	}
	for _, c := range []struct {
		change ZoneChange
		want   error
	}{
		{ZoneChange{Policy: "nothing"}, ErrNotFound},
		{ZoneChange{Source: "192.0.2.1^nokey"}, ErrNotFound},
		{ZoneChange{Source: "192.0.2.1,/file"}, ErrInvalid},
	} {
		if _, err := r.e.SetZone(t.Context(), testActor, "example.com", c.change); !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c.change, err)
		}
	}
}

func TestSetZone_TheSameContentsFromAnotherSourceSettle(t *testing.T) {
	a, b := newPrimary(t, zoneFileOf(3)), newPrimary(t, zoneFileOf(3))
	r := newRig(t, journaltest.New(), nil)
	r.addFrom(a.addr)
	if _, err := r.e.SetZone(t.Context(), testActor, "example.com", ZoneChange{Source: b.addr}); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.LastError != "" || st.Loaded.Serial != 3 {
		t.Errorf("%+v", st)
	}
	if got := b.questions(); got != "AXFR" {
		t.Errorf("the new source was asked for %q", got)
	}
}

func TestRaiseSerial_PublishesThatSerialAndNeverGoesBack(t *testing.T) {
	counter, err := Parse("default", []byte("version = \"v1\"\n[signer]\nserial-policy = \"counter\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, journaltest.New(), map[string]Policy{"default": counter})
	r.add(smallZone)
	if err := r.e.RaiseSerial(t.Context(), testActor, "example.com", 5000); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.Published.Serial != 5000 {
		t.Errorf("published %d", st.Published.Serial)
	}
	for _, serial := range []uint32{5000, 4999, 5000 + 1<<31} {
		if err := r.e.RaiseSerial(t.Context(), testActor, "example.com", serial); !errors.Is(err, ErrInvalid) {
			t.Errorf("%d: %v", serial, err)
		}
	}
	if st := r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1)); st.Published.Serial != 5001 {
		t.Errorf("published %d after it", st.Published.Serial)
	}
	r.stop()
	r.start(map[string]Policy{"default": counter})
	serials, err := r.e.Serials(t.Context(), "example.com")
	if err != nil || serials.Floor == nil || *serials.Floor != 4999 || *serials.Published != 5001 {
		t.Errorf("%+v, %v", serials, err)
	}
}

func TestResign_FullMakesEverySignatureAgain(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	first := r.add(smallZone)
	all := first.Published.Signatures
	for _, c := range []struct {
		full bool
		made uint64
	}{{false, 1}, {true, all}} {
		before := r.await().Published.Serial
		if err := r.e.Resign(t.Context(), testActor, "example.com", c.full); err != nil {
			t.Fatal(err)
		}
		st := r.await()
		if st.Published.Serial == before || st.Published.Made != c.made || st.Published.Signatures != all {
			t.Errorf("full %v: %+v", c.full, st.Published)
		}
	}
}

// memoryTSIG is a TSIGStore.
type memoryTSIG struct {
	mu   sync.Mutex
	keys map[zone.Name][2]string
}

func (m *memoryTSIG) Secret(name zone.Name) (string, []byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.keys[name]
	return k[0], []byte(k[1]), ok
}

func (m *memoryTSIG) Put(name zone.Name, algorithm string, secret []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.keys[name] = [2]string{algorithm, string(secret)}
	return nil
}

func (m *memoryTSIG) Remove(name zone.Name) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.keys, name)
	return nil
}

func TestTSIG_SecretsStayOutOfTheJournalAndUsedKeysStay(t *testing.T) {
	j := journaltest.New()
	store := &memoryTSIG{keys: map[zone.Name][2]string{}}
	r := &rig{t: t, dir: t.TempDir(), journal: j, tsig: store}
	r.start(nil)
	ctx := t.Context()
	secret := base64.StdEncoding.EncodeToString([]byte("a secret of thirty-two octets .."))
	key, err := r.e.AddTSIG(ctx, testActor, NewTSIG{Name: "Transfer.Example", Algorithm: "HMAC-SHA256", Secret: secret})
	if err != nil || key.Name != "transfer.example." || key.Algorithm != "hmac-sha256" {
		t.Fatalf("%+v, %v", key, err)
	}
	for _, c := range []struct {
		k    NewTSIG
		want error
	}{
		{NewTSIG{Name: "transfer.example", Algorithm: "hmac-sha512"}, ErrState},
		{NewTSIG{Name: "a", Algorithm: "hmac-md5"}, ErrInvalid},
		{NewTSIG{Name: "a", Algorithm: "hmac-sha1"}, ErrInvalid},
		{NewTSIG{Name: "a", Algorithm: "rot13"}, ErrInvalid},
		{NewTSIG{Name: "a", Secret: "c2hvcnQ="}, ErrInvalid},
		{NewTSIG{Name: "a", Secret: "no base64!"}, ErrInvalid},
		{NewTSIG{Name: "bad..name"}, ErrInvalid},
	} {
		if _, err := r.e.AddTSIG(ctx, testActor, c.k); !errors.Is(err, c.want) || strings.Contains(err.Error(), "no base64!") {
			t.Errorf("%+v: %v", c.k, err)
		}
	}
	name, _ := zone.ParseName("transfer.example")
	if algorithm, raw, ok := r.e.TSIG().Secret(name); !ok || algorithm != "hmac-sha256" || len(raw) != 32 {
		t.Errorf("%s, %d bytes, %v", algorithm, len(raw), ok)
	}
	if k, err := r.e.ExportTSIG(ctx, jane, "transfer.example"); err != nil || k.Secret != secret {
		t.Errorf("given out %+v, %v", k, err)
	}
	if given, _ := eventsOf[*event.TSIGExported](t, j); len(given) != 1 || given[0].Actor != jane {
		t.Errorf("events of it: %+v", given)
	}
	p := newPrimary(t, zoneFileOf(1))
	p.set(true)
	r.addFrom(p.addr + "^transfer.example")
	if err := r.e.RemoveTSIG(ctx, testActor, "transfer.example"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "zone example.com.") {
		t.Errorf("a key in use: %v", err)
	}
	if err := r.e.RemoveZone(ctx, testActor, "example.com", false); err != nil {
		t.Fatal(err)
	}
	r.stop()
	r.start(nil)
	if err := r.e.RemoveTSIG(ctx, testActor, "transfer.example"); err != nil {
		t.Errorf("a key that nothing uses: %v", err)
	}
	if _, err := r.e.ExportTSIG(ctx, jane, "transfer.example"); !errors.Is(err, ErrNotFound) || len(store.keys) != 0 {
		t.Errorf("after its removal: %v", err)
	}
	if err := r.e.Tail(ctx, "", 1, false, func(l HistoryLine) error {
		if strings.Contains(string(l.Event), secret) || strings.Contains(string(l.Event), "thirty-two") {
			t.Errorf("a secret in %s", l.Event)
		}
		if l.Type == "tsig.removed" {
			return errEnough
		}
		return nil
	}); !errors.Is(err, errEnough) {
		t.Error(err)
	}
}

func TestNotifySecondaries_AcknowledgedSerialsAreTold(t *testing.T) {
	s := newSecondary(t)
	policy, err := Parse("default", []byte("version = \"v1\"\n[server.outbound]\nsend-notify-to = [\""+s.addr+"\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, journaltest.New(), map[string]Policy{"default": policy})
	st := r.add(smallZone)
	acknowledged := func(serial uint32) {
		t.Helper()
		until(t, "the secondary acknowledged", func() bool {
			st, err := r.e.Zone(t.Context(), "example.com")
			return err == nil && len(st.Secondaries) == 1 && st.Secondaries[0].Serial != nil && *st.Secondaries[0].Serial == serial
		})
	}
	acknowledged(st.Published.Serial)
	told := s.told()
	if len(told) != 1 || told[0] != st.Published.Serial {
		t.Errorf("told %v", told)
	}
	st = r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
	acknowledged(st.Published.Serial)
	if err := r.e.NotifySecondaries(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is told again", func() bool { return len(s.told()) == 3 })
	s.refuse(true)
	if err := r.e.NotifySecondaries(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	until(t, "the refusal is told", func() bool {
		st, err := r.e.Zone(t.Context(), "example.com")
		return err == nil && strings.Contains(st.Secondaries[0].LastError, "REFUSED") && st.Secondaries[0].RetryAt != nil
	})
	if _, err := xfr.ParseEndpoint(s.addr); err != nil {
		t.Error(err)
	}
}
