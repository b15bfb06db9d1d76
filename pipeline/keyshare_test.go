package pipeline

import (
	"context"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/keymgr/share"
)

// keyCrew is workers on one journal, each with keys of its own.
type keyCrew struct {
	*crew
	ids map[string]*share.Identity
	// tokens reach the tokens of workers; none where nil.
	tokens   map[string]keymgr.Tokens
	policies map[string]Policy
}

// keyWorker is one of them.
type keyWorker struct {
	*worker
	s     *keyCrew
	files *file.Store
	tsig  *file.TSIG
}

func newKeyCrew(t *testing.T) *keyCrew {
	t.Helper()
	return &keyCrew{crew: newCrew(t), ids: map[string]*share.Identity{}}
}

func newIdentity(t *testing.T, name string) *share.Identity {
	t.Helper()
	secret, seed, err := share.NewSecrets()
	if err != nil {
		t.Fatal(err)
	}
	id, err := share.ParseIdentity(name, secret, seed)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// folder is where a worker keeps its secrets.
func (s *keyCrew) folder(name string) string { return filepath.Join(s.dir, name, "keys") }

// start starts a worker with a data directory of its own; main enrolls itself.
func (s *keyCrew) start(name, roles string) *keyWorker {
	s.t.Helper()
	if s.ids[name] == nil {
		s.ids[name] = newIdentity(s.t, name)
	}
	w := &keyWorker{s: s}
	var err error
	if w.files, err = file.Open(file.Config{Dir: s.folder(name)}); err != nil {
		s.t.Fatal(err)
	}
	if w.tsig, err = file.OpenTSIG(filepath.Join(s.folder(name), "tsig")); err != nil {
		s.t.Fatal(err)
	}
	w.worker = s.add(name, roles, func(cfg *Config) {
		cfg.Keystore, cfg.TSIG = w.files, w.tsig
		cfg.Sharing.Identity = s.ids[name]
		cfg.Tokens, cfg.Policies = s.tokens[name], s.policies
		if name == "main" {
			list, err := ParseRoles(roles)
			if err != nil {
				s.t.Fatal(err)
			}
			for _, r := range list {
				cfg.Sharing.Enroll = append(cfg.Sharing.Enroll, string(r))
			}
		}
	})
	return w
}

// enroll has a worker stand in the journal.
func (w *keyWorker) enroll(name, roles string) {
	w.s.t.Helper()
	id := w.s.ids[name]
	if id == nil {
		id = newIdentity(w.s.t, name)
		w.s.ids[name] = id
	}
	err := w.e.appendInstance(w.s.t.Context(), testActor, &event.WorkerEnrolled{
		Name: name, Roles: strings.Split(roles, ","), NKey: id.NKey(), Age: id.Recipient(),
	}, func() error { return nil })
	if err != nil {
		w.s.t.Fatal(err)
	}
}

// secrets is the private parts that a worker holds, in DER, by ID.
func (w *keyWorker) secrets() map[string][]byte {
	w.s.t.Helper()
	out := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(w.s.folder(w.name), "*.pem"))
	if err != nil {
		w.s.t.Fatal(err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			w.s.t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != 0o600 {
			w.s.t.Errorf("%s has mode %v, %v", path, info.Mode(), err)
		}
		block, _ := pem.Decode(text)
		out[strings.TrimSuffix(path[strings.LastIndex(path, "+")+1:], ".pem")] = block.Bytes
	}
	return out
}

// notices are what status says to a person.
func (w *keyWorker) notices(name string) string {
	st, err := w.e.Zone(w.s.t.Context(), name)
	if err != nil {
		return ""
	}
	var b strings.Builder
	for _, n := range st.Notices {
		b.WriteString(n.Text + "; " + n.Hint + "\n")
	}
	return b.String()
}

// silent fails where a private part stands in the journal, plain or in base64.
func (s *keyCrew) silent(secrets map[string][]byte) {
	s.t.Helper()
	err := s.journal.Read(context.Background(), "", 1, 0, func(rec journal.Record) error {
		for id, secret := range secrets {
			// The last bytes are those that are secret in each of the formats.
			for _, shape := range []string{string(secret), base64.StdEncoding.EncodeToString(secret), base64.StdEncoding.EncodeToString(secret[36:66])} {
				if strings.Contains(string(rec.Line), shape) {
					s.t.Errorf("event %d shows the private part of key %s", rec.Seq, id)
				}
			}
		}
		return nil
	})
	if err != nil {
		s.t.Error(err)
	}
}

func TestShare_WorkerSignsWithTheKeysThatMainMade(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "load,review,keys,publish")
	main.enroll("west", "sign")
	west := s.start("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })

	st := main.state("example.com")
	if g := st.Grants[RoleSign]; g.Worker != "west" {
		t.Errorf("signed by %q", g.Worker)
	}
	provers := main.e.otherWorkers().Provers
	if len(provers) != 2 {
		t.Fatalf("to prove: %v", provers)
	}
	for _, k := range st.Keys.Keys {
		for _, p := range provers {
			if !k.ProvedBy(p) {
				t.Errorf("key %s is not proved by %s", k.ID, p.Worker)
			}
		}
	}
	mine, theirs := main.secrets(), west.secrets()
	if len(theirs) != 2 || len(mine) != 2 {
		t.Fatalf("main holds %d keys, the worker %d", len(mine), len(theirs))
	}
	for id, secret := range mine {
		if string(theirs[id]) != string(secret) {
			t.Errorf("key %s is not the same there", id)
		}
	}
	s.silent(mine)
	var order []string
	if err := s.journal.Read(t.Context(), st.Zone, 1, 0, func(rec journal.Record) error {
		if strings.HasPrefix(rec.Event.Type, "key.") {
			order = append(order, rec.Event.Type)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if i := slices.Index(order, "key.activated"); i < 3 || !slices.Equal(order[1:3], []string{"key.proved", "key.proved"}) {
		t.Errorf("the keys sign before they are proved: %v", order)
	}
}

func TestShare_WorkerThatIsAwayHoldsKeysBackAndIsNamed(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "status names whom keys wait for", func() bool {
		return strings.Contains(main.notices("example.com"), "waits for worker west to prove possession")
	})
	shares, err := main.e.DistributeKeys(t.Context(), "example.com")
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(shares, func(sh KeyShare) bool { return sh.Worker == "west" })
	if i < 0 || shares[i].State != handAway || len(shares[i].Lacks) != 2 {
		t.Errorf("distribution: %+v", shares)
	}
	if main.published("example.com") != 0 || len(main.state("example.com").Keys.Signing()) != 0 {
		t.Error("the zone is signed by keys that a worker has not proved")
	}
	s.start("west", "sign")
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	shares, err = main.e.DistributeKeys(t.Context(), "")
	if err != nil || len(shares) != 2 || shares[0].State != handProved || shares[1].State != handProved {
		t.Errorf("distribution: %+v, %v", shares, err)
	}
}

func TestShare_RemovedWorkerHoldsNothingBack(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "status names whom keys wait for", func() bool {
		return strings.Contains(main.notices("example.com"), "sluice worker remove west")
	})
	if err := main.e.appendInstance(t.Context(), testActor, &event.WorkerRemoved{Name: "west"}, func() error { return nil }); err != nil {
		t.Fatal(err)
	}
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
}

func TestShare_WorkerThatJoinsLaterGetsTheKeysInUse(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.zone("example.com", smallZone)
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	for _, k := range main.state("example.com").Keys.Keys {
		if len(k.Proved) != 0 {
			t.Errorf("alone, key %s was proved to others", k.ID)
		}
	}
	main.enroll("west", "sign,keys")
	west := s.start("west", "sign,keys")
	until(t, "the worker holds the keys", func() bool { return len(west.secrets()) == 2 })
	until(t, "their proofs are recorded", func() bool {
		provers := main.e.otherWorkers().Provers
		return len(provers) == 2 && !slices.ContainsFunc(main.state("example.com").Keys.Keys, func(k keymgr.Key) bool {
			return !k.ProvedBy(provers[0]) || !k.ProvedBy(provers[1])
		})
	})
	if got := west.e.lacking(); len(got) != 0 {
		t.Errorf("the worker lacks keys of %v", got)
	}
}

func TestShare_LostFileIsAskedForAndOthersSignMeanwhile(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "load,review,keys,publish")
	main.enroll("west", "sign")
	west := s.start("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	west.stop()
	paths, err := filepath.Glob(filepath.Join(s.folder("west"), "*.pem"))
	if err != nil || len(paths) != 2 {
		t.Fatalf("%v, %v", paths, err)
	}
	for _, path := range paths {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	west = s.start("west", "sign")
	if len(west.e.lacks(west.state("example.com"))) > 0 && !strings.Contains(west.notices("example.com"), "it lacks the private parts of") {
		t.Errorf("status says nothing of it: %s", west.notices("example.com"))
	}
	until(t, "the worker has its keys again", func() bool { return len(west.secrets()) == 2 })
	until(t, "and lacks none", func() bool { return len(west.e.lacks(west.state("example.com"))) == 0 })
}

func TestSigners_PassOverThoseThatLackKeys(t *testing.T) {
	st := journal.Standing{Workers: []journal.Living{
		{Worker: "a", About: []byte(`{"lacks":[3,5]}`)}, {Worker: "b", About: []byte(`{}`)}, {Worker: "c", About: []byte(`{"lacks":[5]}`)},
	}}
	for partition, want := range map[int]string{1: "a b c", 3: "b c", 5: "b"} {
		if got := strings.Join(signers(st, []string{"a", "b", "c"}, partition), " "); got != want {
			t.Errorf("partition %d: %s, want %s", partition, got, want)
		}
	}
	if got := signers(st, []string{"a", "c"}, 5); len(got) != 2 {
		t.Errorf("where all lack keys, %v are to sign", got)
	}
}

func TestShare_DestroyedKeyIsDeletedEverywhere(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("west", "sign")
	west := s.start("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	keys, err := main.e.GenerateKey(t.Context(), testActor, "example.com", keymgr.ZSK, "", "")
	if err != nil {
		t.Fatal(err)
	}
	k := keys[0]
	until(t, "the worker has the new key", func() bool { return len(west.secrets()) == 3 })
	r, err := main.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []event.Facts{&event.KeyRemoved{IDs: []string{k.ID}}, &event.KeyDestroyed{IDs: []string{k.ID}}} {
		if err := main.e.appendZone(t.Context(), testActor, r, func(State) (event.Facts, error) { return f, nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range []*keyWorker{main, west} {
		until(t, w.name+" has deleted it", func() bool { return !w.files.Holds(k.Reference) })
		if len(w.secrets()) != 2 {
			t.Errorf("%s holds %d keys", w.name, len(w.secrets()))
		}
	}
}

func TestShare_PublishWorkerGetsNoKey(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("thief", "publish")
	main.zone("example.com", smallZone)
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	thief := s.start("thief", "publish")
	st := main.state("example.com")
	k := st.Keys.Keys[0]
	until(t, "main knows that it is enrolled", func() bool {
		_, ok := main.e.enrolled("main")
		return ok
	})
	var err error
	until(t, "the thief sees main, and main takes parcels", func() bool {
		err = thief.e.want(t.Context(), "", share.Context{Zone: st.Zone, Name: st.Name, Key: k.ID})
		return !errors.Is(err, journal.ErrNobody)
	})
	if err == nil || !strings.Contains(err.Error(), "gets no private keys") {
		t.Errorf("asked for a key: %v", err)
	}
	// Nor by asking in another's name.
	main.enroll("west", "sign")
	other, err := share.Seal(s.ids["thief"], s.ids["main"].Peer(), share.Parcel{
		Kind: share.KindWanted, Context: share.Context{Stream: "x", Zone: st.Zone, Name: st.Name, Key: k.ID},
	})
	if err != nil {
		t.Fatal(err)
	}
	forged := []byte(strings.Replace(string(other), "\x00\x05thief", "\x00\x04west", 1))
	if _, err := s.coord.Ask(t.Context(), journal.ToSubject("main"), forged); err == nil || !strings.Contains(err.Error(), "not signed by worker") {
		t.Errorf("asked in another's name: %v", err)
	}
	// Nor does it hand out what others take.
	_, err = thief.e.send(t.Context(), mustEnrolled(t, thief.e, "main"), share.Parcel{
		Kind: share.KindTSIG, Context: share.Context{Stream: stream(t, s), Zone: event.Instance, Name: "x."}, Algorithm: "hmac-sha256", Secret: make([]byte, 32),
	})
	if err == nil || !strings.Contains(err.Error(), "may hand out no secrets") {
		t.Errorf("handed out a secret: %v", err)
	}
	if got := thief.secrets(); len(got) != 0 {
		t.Errorf("it holds %d keys", len(got))
	}
}

func mustEnrolled(t *testing.T, e *Engine, name string) Enrolled {
	t.Helper()
	w, ok := e.enrolled(name)
	if !ok {
		t.Fatalf("worker %s is not enrolled", name)
	}
	return w
}

func stream(t *testing.T, s *keyCrew) string {
	t.Helper()
	identity, _, err := s.journal.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return identity
}

func TestShare_ParcelForSomethingElseIsRefused(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("west", "sign")
	west := s.start("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "the first zone is published", func() bool { return main.published("example.com") != 0 })
	main.zone("example.net", strings.ReplaceAll(smallZone, "example.net", "example.org"))
	until(t, "the second zone is published", func() bool { return main.published("example.net") != 0 })
	com, net := main.state("example.com"), main.state("example.net")
	k := com.Keys.Keys[0]
	secret, err := main.files.Share(t.Context(), k.Reference)
	if err != nil {
		t.Fatal(err)
	}
	other, err := main.files.Share(t.Context(), net.Keys.Keys[0].Reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(s.folder("west"), k.Reference)); err != nil {
		t.Fatal(err)
	}
	here := share.Context{Stream: stream(t, s), Zone: com.Zone, Name: com.Name, Key: k.ID}
	for what, row := range map[string]struct {
		change func(*share.Context)
		secret []byte
	}{
		"another journal":            {func(c *share.Context) { c.Stream = strings.Repeat("0", 32) }, secret},
		"another zone's id":          {func(c *share.Context) { c.Zone = net.Zone }, secret},
		"another zone's name":        {func(c *share.Context) { c.Name = net.Name }, secret},
		"another key":                {func(c *share.Context) { c.Key = com.Keys.Keys[1].ID }, secret},
		"another key's private part": {func(*share.Context) {}, other},
		"a damaged private part":     {func(*share.Context) {}, secret[:len(secret)-3]},
	} {
		p := share.Parcel{Kind: share.KindKey, Context: here, Secret: row.secret}
		row.change(&p.Context)
		if _, err := main.e.send(t.Context(), mustEnrolled(t, main.e, "west"), p); err == nil {
			t.Errorf("%s was taken", what)
		} else if _, ok := errors.AsType[journal.Refused](err); !ok {
			t.Errorf("%s: %v", what, err)
		}
		if west.files.Holds(k.Reference) {
			t.Fatalf("%s: the worker keeps it", what)
		}
	}
	p := share.Parcel{Kind: share.KindKey, Context: here, Secret: secret}
	if _, err := main.e.send(t.Context(), mustEnrolled(t, main.e, "west"), p); err != nil || !west.files.Holds(k.Reference) {
		t.Errorf("what is right is not taken: %v", err)
	}
}

func TestShare_KeysOnATokenAreProvedByEachWorkersOwnAccess(t *testing.T) {
	s := newKeyCrew(t)
	here := newPretended(t)
	there := newPretended(t)
	there.dir = here.dir // one token, two ways to it
	s.tokens = map[string]keymgr.Tokens{"main": here, "west": there}
	p, err := Parse("default", []byte("version = \"v1\"\n[key-manager.generation]\nkeystore = \"hsm\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.policies = map[string]Policy{"default": p}
	main := s.start("main", "load,review,keys,publish")
	if _, err := main.e.AddKeystore(t.Context(), testActor, NewKeystore{Name: "hsm", Module: "/lib/p11.so", Token: "zones", PIN: "1234"}); err != nil {
		t.Fatal(err)
	}
	there.set(func() { there.away["zones"] = errAway })
	main.enroll("west", "sign")
	west := s.start("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "who cannot reach the token is named", func() bool {
		shares, err := main.e.DistributeKeys(t.Context(), "example.com")
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(shares, func(sh KeyShare) bool { return sh.Worker == "west" })
		return i >= 0 && shares[i].State == handFailed && strings.Contains(shares[i].Reason, errAway.Error())
	})
	if main.published("example.com") != 0 {
		t.Error("the zone is signed by keys that the signer cannot reach")
	}
	there.set(func() { delete(there.away, "zones") })
	if _, err := main.e.DistributeKeys(t.Context(), "example.com"); err != nil {
		t.Fatal(err)
	}
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	if got := west.secrets(); len(got) != 0 {
		t.Errorf("%d private keys have travelled", len(got))
	}
}

func TestShare_RolloverWaitsForAWorkerThatIsAway(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("west", "sign")
	west := s.start("west", "sign")
	main.zone("example.com", smallZone)
	until(t, "the zone is published", func() bool { return main.published("example.com") != 0 })
	west.stop()
	until(t, "the worker is gone", func() bool { return !slices.Contains(main.e.otherWorkers().Living, "west") })
	if _, err := main.e.AbortRollover(t.Context(), testActor, "example.com", 0, "no parent is there"); err != nil {
		t.Fatal(err)
	}
	if _, err := main.e.Roll(t.Context(), testActor, "example.com", RolloverRequest{Kind: keymgr.RollZSK}); err != nil {
		t.Fatal(err)
	}
	var ro RolloverStatus
	until(t, "the rollover says for whom it waits", func() bool {
		all, err := main.e.Rollovers(t.Context(), "example.com")
		i := slices.IndexFunc(all, func(r RolloverStatus) bool { return r.Kind == keymgr.RollZSK })
		if err != nil || i < 0 {
			return false
		}
		ro = all[i]
		return ro.Phase == keymgr.PhaseProof && ro.Step == 0 && strings.Contains(ro.Text, "waits for worker west to prove possession of "+ro.New[0])
	})
	s.start("west", "sign")
	until(t, "the new key is published", func() bool {
		k, _ := main.state("example.com").Keys.ByID(ro.New[0])
		return k.State == keymgr.Published
	})
}
