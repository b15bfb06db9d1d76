package pipeline

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/keymgr/file"
)

// pretended is tokens whose keys are in files: they go away, come back and
// stand still as a test wants.
type pretended struct {
	dir string

	mu   sync.Mutex
	away map[string]error         // guarded by mu; by label
	hold map[string]chan struct{} // guarded by mu; what is signed waits for it
	held int                      // guarded by mu; signings that wait
	pins map[string]string        // guarded by mu; kept, by keystore
}

type pretendedToken struct {
	*file.Store
	p     *pretended
	token keymgr.Token

	mu    sync.Mutex
	state keymgr.TokenState // guarded by mu
}

var errAway = errors.New("token is not there")

func newPretended(t *testing.T) *pretended {
	return &pretended{dir: t.TempDir(), away: map[string]error{}, hold: map[string]chan struct{}{}, pins: map[string]string{}}
}

func (p *pretended) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

// Find implements keymgr.Tokens.
func (p *pretended) Find(_ context.Context, t keymgr.Token, pin string) (keymgr.Token, error) {
	if pin != "1234" {
		return t, errors.New("the token refuses the PIN")
	}
	t.Serial = "serial of " + t.Label
	return t, nil
}

// KeepPIN implements keymgr.Tokens.
func (p *pretended) KeepPIN(name, pin string) error {
	p.set(func() { p.pins[name] = pin })
	return nil
}

// ForgetPIN implements keymgr.Tokens.
func (p *pretended) ForgetPIN(name string) error {
	p.set(func() { delete(p.pins, name) })
	return nil
}

// Open implements keymgr.Tokens.
func (p *pretended) Open(t keymgr.Token) keymgr.TokenKeystore {
	store, err := file.Open(file.Config{Name: t.Name, Dir: filepath.Join(p.dir, t.Label), StdlibECDSA: true})
	if err != nil {
		panic(err)
	}
	return &pretendedToken{Store: store, p: p, token: t}
}

// Token implements keymgr.TokenKeystore.
func (t *pretendedToken) Token() keymgr.Token { return t.token }

// State implements keymgr.TokenKeystore.
func (t *pretendedToken) State() keymgr.TokenState {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.state
}

// Check implements keymgr.TokenKeystore.
func (t *pretendedToken) Check(context.Context) error {
	t.p.mu.Lock()
	err := t.p.away[t.token.Label]
	t.p.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.state = keymgr.TokenState{Connected: err == nil, Since: dayOne}
	if err != nil {
		t.state.Problem, t.state.Hint = err.Error(), "put it back"
	}
	return err
}

// Test implements keymgr.TokenKeystore.
func (t *pretendedToken) Test(ctx context.Context, algorithm uint8, _ string) (keymgr.TokenTest, error) {
	return keymgr.TokenTest{Algorithm: max(algorithm, 13), Sessions: 8, Signatures: 1, PerSecond: 1}, t.Check(ctx)
}

// Close implements keymgr.TokenKeystore.
func (t *pretendedToken) Close() error { return nil }

// Generate implements keymgr.Keystore.
func (t *pretendedToken) Generate(ctx context.Context, spec keymgr.Spec, avoid []uint16) (event.Key, error) {
	if err := t.Check(ctx); err != nil {
		return event.Key{}, err
	}
	return t.Store.Generate(ctx, spec, avoid)
}

// Signer implements keymgr.Keystore.
func (t *pretendedToken) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	if err := t.Check(ctx); err != nil {
		return nil, err
	}
	s, err := t.Store.Signer(ctx, ref)
	return slowSigner{s, t}, err
}

type slowSigner struct {
	crypto.Signer
	t *pretendedToken
}

// Sign implements crypto.Signer.
func (s slowSigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	p := s.t.p
	p.mu.Lock()
	hold := p.hold[s.t.token.Label]
	if hold != nil {
		p.held++
	}
	p.mu.Unlock()
	if hold != nil {
		<-hold
	}
	if err := s.t.Check(context.Background()); err != nil {
		return nil, err
	}
	return s.Signer.Sign(r, digest, opts)
}

func keystorePolicies(t *testing.T, more string) map[string]Policy {
	t.Helper()
	out := map[string]Policy{}
	for name, text := range map[string]string{"default": "", "hsm": "[key-manager.generation]\nkeystore = \"hsm\"\n"} {
		p, err := Parse(name, []byte("version = \"v1\"\n"+text+more))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = p
	}
	return out
}

func newTokenRig(t *testing.T, h *byHand) (*rig, *pretended) {
	t.Helper()
	p := newPretended(t)
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), tokens: p, clock: h.clock()}
	r.start(keystorePolicies(t, ""))
	if _, err := r.e.AddKeystore(t.Context(), testActor, NewKeystore{Name: "hsm", Module: "/lib/x.so", Token: "zones", PIN: "1234"}); err != nil {
		t.Fatal(err)
	}
	return r, p
}

func TestKeystore_DoorsSayWhatIsWrong(t *testing.T) {
	r, p := newTokenRig(t, newHand(dayOne))
	good := NewKeystore{Name: "two", Module: "/lib/x.so", Token: "others", PIN: "1234"}
	for fact, row := range map[string]struct {
		change func(*NewKeystore)
		kind   error
		text   string
	}{
		"the name of that in files": {func(n *NewKeystore) { n.Name = "file" }, ErrInvalid, "in files"},
		"bad name":                  {func(n *NewKeystore) { n.Name = "Two!" }, ErrInvalid, "name of a keystore"},
		"relative module":           {func(n *NewKeystore) { n.Module = "x.so" }, ErrInvalid, "absolute path"},
		"no token":                  {func(n *NewKeystore) { n.Token = "" }, ErrInvalid, "label"},
		"no PIN":                    {func(n *NewKeystore) { n.PIN = "" }, ErrInvalid, "PIN"},
		"sessions":                  {func(n *NewKeystore) { n.Sessions = 1000 }, ErrInvalid, "sessions"},
		"time-out":                  {func(n *NewKeystore) { n.TimeoutMS = 1 }, ErrInvalid, "time-out"},
		"taken name":                {func(n *NewKeystore) { n.Name = "hsm" }, ErrState, "already here"},
		"taken token":               {func(n *NewKeystore) { n.Token = "zones" }, ErrState, "is keystore hsm already"},
		"wrong PIN":                 {func(n *NewKeystore) { n.PIN = "4321" }, ErrState, "refuses the PIN"},
	} {
		n := good
		row.change(&n)
		_, err := r.e.AddKeystore(t.Context(), testActor, n)
		if !errors.Is(err, row.kind) || !strings.Contains(fmt.Sprint(err), row.text) {
			t.Errorf("%s: %v", fact, err)
		}
		if err != nil && n.PIN != "" && strings.Contains(err.Error(), n.PIN) {
			t.Errorf("%s: the PIN stands in %v", fact, err)
		}
	}
	if len(p.pins) != 1 {
		t.Errorf("PINs of %v are kept", p.pins)
	}
	if _, err := r.e.AddKeystore(t.Context(), testActor, good); err != nil {
		t.Fatal(err)
	}
	r.addWith("hsm", r.zoneFile(smallZone))
	list, err := r.e.Keystores(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range list {
		got = append(got, fmt.Sprintf("%s %s %d", k.Name, k.Kind, k.Keys))
	}
	if diff := cmp.Diff([]string{"file file 0", "hsm pkcs11 2", "two pkcs11 0"}, got); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]error{"file": ErrState, "hsm": ErrState, "none": ErrNotFound, "two": nil} {
		if err := r.e.RemoveKeystore(t.Context(), testActor, name); !errors.Is(err, want) {
			t.Errorf("remove keystore %s: %v", name, err)
		}
	}
	if _, kept := p.pins["two"]; kept {
		t.Error("the PIN of a removed keystore is kept")
	}
	if _, err := r.e.GenerateKey(t.Context(), testActor, "example.com", keymgr.ZSK, "", "two"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a key in a removed keystore: %v", err)
	}
	k, err := r.e.GenerateKey(t.Context(), testActor, "example.com", keymgr.ZSK, "", "file")
	if err != nil || k[0].Keystore != "file" {
		t.Errorf("a key in files: %+v, %v", k, err)
	}
	// All of it comes back from the journal.
	r.stop()
	r.start(keystorePolicies(t, ""))
	if k, err := r.e.Keystore(t.Context(), "hsm"); err != nil || k.Token != "zones" || k.TokenSerial != "serial of zones" || k.Keys != 2 {
		t.Errorf("after a restart %+v, %v", k, err)
	}
}

func TestKeystore_SlowTokenHoldsUpItsZonesAlone(t *testing.T) {
	r, p := newTokenRig(t, newHand(dayOne))
	hold := make(chan struct{})
	path := r.zoneFile(smallZone)
	// More zones than there are places for signings, all of which stand still.
	for i := range 2 * cap(r.e.heavy) {
		name := fmt.Sprintf("slow%d.example", i)
		if _, err := r.e.AddZone(t.Context(), testActor, NewZone{Name: name, Source: path, Policy: "hsm"}); err != nil {
			t.Fatal(err)
		}
		if _, err := r.e.Await(t.Context(), name, nil); err != nil {
			t.Fatal(err)
		}
	}
	p.set(func() { p.hold["zones"] = hold })
	for i := range 2 * cap(r.e.heavy) {
		if err := r.e.Resign(t.Context(), testActor, fmt.Sprintf("slow%d.example", i), true); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "signings wait for the token", func() bool { p.mu.Lock(); defer p.mu.Unlock(); return p.held >= cap(r.e.heavy) })
	if st := r.add(smallZone); st.Published == nil {
		t.Errorf("a zone with keys in files is not published: %+v", st)
	}
	close(hold)
	p.set(func() { delete(p.hold, "zones") })
	for i := range 2 * cap(r.e.heavy) {
		if st, err := r.e.Await(t.Context(), fmt.Sprintf("slow%d.example", i), nil); err != nil || st.LastError != "" {
			t.Errorf("a zone on the token: %q, %v", st.LastError, err)
		}
	}
}

func TestKeystore_AwayIsToldAndBackGoesOnByItself(t *testing.T) {
	h := newHand(dayOne)
	r, p := newTokenRig(t, h)
	st := r.addWith("hsm", r.zoneFile(smallZone))
	end, serial := *st.NextExpiry, *st.PublishedSerial
	p.set(func() { p.away["zones"] = errAway })
	h.move(end.Add(-Default().RemainTime() / 8))
	until(t, "the token is missed", func() bool { return strings.Contains(r.overdue().Text, errAway.Error()) })
	n := r.overdue()
	if n.Severity != severityAlarm || !strings.Contains(n.Text, "expire in 1d18h") || n.Hint != "put it back" {
		t.Errorf("notice %+v", n)
	}
	until(t, "health tells", func() bool {
		return slices.ContainsFunc(r.e.Alarms(), func(a string) bool {
			return strings.Contains(a, errAway.Error()) && strings.Contains(a, "zones that sign with it: 1")
		})
	})
	if st := r.await(); *st.PublishedSerial != serial {
		t.Errorf("serial %d is published without keys", *st.PublishedSerial)
	}
	p.set(func() { delete(p.away, "zones") })
	// The clock stands still: no back-off ends.
	until(t, "the zone goes on", func() bool { return *r.await().PublishedSerial != serial })
	until(t, "the alarm ends", func() bool { return len(r.e.Alarms()) == 0 && r.overdue() == Notice{} })
}

// A policy that names another keystore plans rollovers: those of ZSKs begin by
// themselves, those of KSKs wait for a person.
func TestRollover_ToAnotherKeystoreByPolicy(t *testing.T) {
	w := &rolling{h: newHand(dayOne)}
	w.rig = &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: w.h.clock(), tokens: newPretended(t)}
	o := &outside{shows: w.shows}
	w.rig.observe = o.observe
	w.start(keystorePolicies(t, "[key-manager]\npropagation-margin = \"30m\"\n"))
	w.add(smallZone)
	w.runs("the first DS", func(st ZoneStatus) bool { return len(st.Rollovers) == 0 })
	in := func(st ZoneStatus) (where []string) {
		for _, k := range st.Keys {
			if k.State == keymgr.Active {
				where = append(where, k.Role+" "+k.Keystore)
			}
		}
		slices.Sort(where)
		return where
	}
	if _, err := w.e.GenerateKey(t.Context(), testActor, "example.com", keymgr.ZSK, "", ""); err != nil {
		t.Fatal(err) // one that waits, in files: it is not what the policy wants
	}
	if _, err := w.turn("hsm"); err != nil {
		t.Fatal(err)
	}
	st := w.runs("a try without the keystore", func(st ZoneStatus) bool { return st.LastError != "" })
	if !strings.Contains(st.LastError, `keystore "hsm" is not known`) {
		t.Errorf("error %q", st.LastError)
	}
	if st = w.reload(strings.NewReplacer(" 7 ", " 8 ", "192.0.2.80", "192.0.2.81").Replace(smallZone)); !strings.Contains(w.dump(), "192.0.2.81") {
		t.Fatalf("new content waits for a keystore that it does not need: %+v", st.ZoneSummary)
	}
	if !strings.Contains(st.LastError, `keystore "hsm" is not known`) {
		t.Errorf("after something else was done, error %q", st.LastError)
	}
	if _, err := w.e.AddKeystore(t.Context(), testActor, NewKeystore{Name: "hsm", Module: "/lib/x.so", Token: "zones", PIN: "1234"}); err != nil {
		t.Fatal(err)
	}
	st = w.settle()
	if !slices.ContainsFunc(st.Notices, func(n Notice) bool {
		return n.Text == "the policy wants its ksk in keystore hsm instead of file" && n.Hint == "sluice key roll example.com. ksk"
	}) {
		t.Errorf("notices %+v", st.Notices)
	}
	plan, err := w.e.KeyPlan(t.Context(), "example.com", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(plan, func(s PlannedStep) bool {
		return s.Kind == keymgr.RollKSK && s.Person && strings.Contains(s.Text, "in keystore hsm instead of file")
	}) {
		t.Errorf("plan %+v", plan)
	}
	st = w.runs("the ZSK is on the token", func(st ZoneStatus) bool { return len(st.Rollovers) == 0 && !slices.Contains(in(st), "zsk file") })
	if diff := cmp.Diff([]string{"ksk file", "zsk hsm"}, in(st)); diff != "" {
		t.Error(diff)
	}
	if _, err := w.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollKSK}); err != nil {
		t.Fatal(err)
	}
	st = w.runs("the KSK is on the token", func(st ZoneStatus) bool { return len(st.Rollovers) == 0 })
	if diff := cmp.Diff([]string{"ksk hsm", "zsk hsm"}, in(st)); diff != "" {
		t.Error(diff)
	}
	// And back: what the policy does not say changes nothing.
	if _, err := w.turn("default"); err != nil {
		t.Fatal(err)
	}
	if st := w.settle(); len(st.Rollovers) > 0 {
		t.Errorf("rollovers %+v under a policy that names no keystore", st.Rollovers)
	}
}

func TestPolicy_Keystores(t *testing.T) {
	p, err := Parse("p", []byte("version = \"v1\"\n[key-manager.generation]\nkeystore = \"hsm\"\n[key-manager.zsk]\nkeystore = \"file\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	for role, want := range map[keymgr.Role]string{keymgr.KSK: "hsm", keymgr.ZSK: "file", keymgr.CSK: "hsm"} {
		if got, wished := p.Keystore(role); got != want || !wished {
			t.Errorf("%s in %q, %v", role, got, wished)
		}
	}
	if diff := cmp.Diff([]string{"hsm", ""}, p.keystoresOf([]keymgr.Role{keymgr.KSK, keymgr.ZSK})); diff != "" {
		t.Error(diff)
	}
	if !p.namesKeystore("hsm") || !p.namesKeystore("file") || p.namesKeystore("other") {
		t.Error("the policy names hsm and file")
	}
	if got, wished := Default().Keystore(keymgr.KSK); got != "file" || wished || Default().namesKeystore("file") {
		t.Errorf("the built-in policy wants %q, %v", got, wished)
	}
	for text, want := range map[string]string{
		"[key-manager.generation]\nkeystore = \"No!\"\n":      `line 3: key-manager.generation.keystore = "No!" is no name of a keystore`,
		"[key-manager.ksk]\nkeystore = 3\n":                   "line 3: key-manager.ksk.keystore = 3: want a string",
		"[key-manager.generation]\nhsm-server-id = \"hsm\"\n": "is called keystore here",
	} {
		if _, err := Parse("p", []byte("version = \"v1\"\n"+text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q gives %v", text, err)
		}
	}
}
