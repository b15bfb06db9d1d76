package kmip

import (
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/keystoretest"
	"sluice/signer"
)

func makeKey(t *testing.T, s *Store, algorithm uint8) event.Key {
	t.Helper()
	k, err := s.Generate(t.Context(), keymgr.Spec{Zone: "example.", Role: keymgr.ZSK, Algorithm: algorithm}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func open(t *testing.T, s *Store, k event.Key) signer.MessageSigner {
	t.Helper()
	signs, err := s.Signer(t.Context(), k.Reference)
	if err != nil {
		t.Fatal(err)
	}
	whole, ok := signs.(signer.MessageSigner)
	if !ok {
		t.Fatalf("%T signs no messages", signs)
	}
	return whole
}

// sign has a key sign some messages, each with 40 bytes.
func sign(s signer.MessageSigner, count int) error {
	var texts []byte
	var ends []int
	for i := range count {
		texts = fmt.Appendf(texts, "%040d", i)
		ends = append(ends, len(texts))
	}
	sigs, err := s.SignMessages(nil, texts, ends, crypto.SHA256)
	if err == nil && len(sigs) != 64*count {
		return fmt.Errorf("%d messages give %d bytes", count, len(sigs))
	}
	return err
}

func TestStore_Suite(t *testing.T) {
	for name, change := range map[string]func(*fakeServer){
		"KMIP 2.1":                  func(*fakeServer) {},
		"KMIP 1.2 alone":            func(f *fakeServer) { f.versions = []version{{1, 2}} },
		"KMIP 2.1 alone, integers":  func(f *fakeServer) { f.versions, f.integers = []version{{2, 1}}, true },
		"KMIP 1.4, digests, r|s":    func(f *fakeServer) { f.versions, f.digests, f.plain = []version{{1, 4}}, true, true },
		"EC alone, no protection":   func(f *fakeServer) { f.onlyEC, f.open, f.active, f.format = true, true, true, formatEC },
		"batches of three at most":  func(f *fakeServer) { f.batch, f.batchHow = 3, "message" },
		"transparent, no batches":   func(f *fakeServer) { f.format, f.convert, f.batch, f.batchHow = formatEC, false, 1, "one" },
		"raw points, X.509 on wish": func(f *fakeServer) { f.format = 0x7F },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fresh := func(t *testing.T) keystoretest.Open {
				f := newFakeServer(t)
				f.set(func() { change(f) })
				return func(t *testing.T) keymgr.Keystore { return f.store(t) }
			}
			keystoretest.Run(t, fresh)
		})
	}
}

func TestStore_SpeaksTheBestVersionOfBoth(t *testing.T) {
	for _, row := range []struct {
		server []version
		want   version
	}{
		{[]version{{1, 2}}, version{1, 2}},
		{[]version{{2, 1}}, version{2, 1}},
		{[]version{{3, 0}, {2, 0}, {1, 0}}, version{2, 0}},
		{[]version{{1, 0}, {1, 1}, {1, 2}, {1, 3}, {1, 4}}, version{1, 4}},
	} {
		f := newFakeServer(t)
		f.set(func() { f.versions = row.server })
		s := f.store(t)
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("%v: %v", row.server, err)
			continue
		}
		if got := f.seen[len(f.seen)-1]; got != row.want {
			t.Errorf("%v: spoken to in %v, want %v", row.server, got, row.want)
		}
	}
	f := newFakeServer(t)
	f.set(func() { f.versions = []version{{1, 0}, {1, 1}} })
	if err := f.store(t).Check(t.Context()); err == nil || !strings.Contains(err.Error(), "1.2 to 2.1") {
		t.Errorf("a server that is too old: %v", err)
	}
}

func TestStore_ServersProveThemselves(t *testing.T) {
	f := newFakeServer(t)
	other := newAuthority(t)
	host := func(change func(*keymgr.Token, *keymgr.ServerLogin)) error {
		return f.store(t, change).Check(t.Context())
	}
	for name, row := range map[string]struct {
		change func(*keymgr.Token, *keymgr.ServerLogin)
		want   string // "" works
		hint   string
	}{
		"the CA, by address":       {func(*keymgr.Token, *keymgr.ServerLogin) {}, "", ""},
		"the CA, by name":          {func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Server.Name = "kmip.test" }, "", ""},
		"another name":             {func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Server.Name = "other.test" }, "other.test", "--server-name"},
		"another CA":               {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.CA = other.pem }, "unknown authority", "--ca-file"},
		"no CA":                    {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.CA = "" }, "how the KMIP server proves itself", "--server-pin"},
		"a CA that is none":        {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.CA = "x" }, "no certificate in PEM", "--ca-file"},
		"the pin, no CA":           {func(k *keymgr.Token, l *keymgr.ServerLogin) { k.Server.Pin, l.CA = f.pin(), "" }, "", ""},
		"another pin":              {func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Server.Pin = pinPrefix + strings.Repeat("A", 43) + "=" }, f.pin(), "right server"},
		"a pin that is none":       {func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Server.Pin = "sha256:x" }, "44 characters", ""},
		"another CA's client":      {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.Certificate, l.Key = other.issue(t, "x", false) }, "", "--cert-file"},
		"no client's certificate":  {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.Certificate, l.Key, l.Username = "", "", "x" }, "", "--cert-file"},
		"nobody":                   {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.Certificate, l.Key = "", "" }, "how this client proves itself", "--username"},
		"a key of another":         {func(_ *keymgr.Token, l *keymgr.ServerLogin) { _, l.Key = f.ca.issue(t, "x", false) }, "private key does not match", "PEM"},
		"a certificate and no key": {func(_ *keymgr.Token, l *keymgr.ServerLogin) { l.Key = "" }, "needs its key", ""},
		"an address that is none":  {func(k *keymgr.Token, _ *keymgr.ServerLogin) { k.Server.Address = "kmip.test" }, "HOST:PORT", ""},
	} {
		err := host(row.change)
		works := row.want == "" && row.hint == ""
		if works != (err == nil) || err != nil && (!strings.Contains(err.Error(), row.want) || !strings.Contains(keymgr.HintOf(err), row.hint)) {
			t.Errorf("%s: %v (hint %q), want %q (hint %q)", name, err, keymgr.HintOf(err), row.want, row.hint)
		}
	}
}

func TestStore_PasswordIsTriedOnce(t *testing.T) {
	f := newFakeServer(t)
	f.set(func() { f.password = "swordfish" })
	login := f.login(t)
	login.Username, login.Password = "sluice", "wrong-guess"
	servers := NewServers(filepath.Join(t.TempDir(), "kmip"), time.Now)
	token := keymgr.Token{Name: "kms", Server: keymgr.Server{Address: f.listener.Addr().String()}}
	secret := func() string {
		text, err := login.Secret()
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	if _, err := servers.Find(t.Context(), token, secret()); err == nil || strings.Contains(err.Error(), "wrong-guess") {
		t.Errorf("found with a wrong password: %v", err)
	}
	if err := servers.KeepPIN("kms", secret()); err != nil {
		t.Fatal(err)
	}
	s := servers.open(token)
	defer s.Close()
	for range 3 {
		if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "not tried again") {
			t.Errorf("a wrong password: %v", err)
		}
	}
	// Nor does a later process try it.
	later := NewServers(servers.logins.Dir, time.Now).open(token)
	defer later.Close()
	if err := later.Check(t.Context()); err == nil || !later.State().Stopped {
		t.Errorf("a wrong password later: %v, %+v", err, later.State())
	}
	if f.logins != 2 {
		t.Errorf("the server was asked %d times, want once by Find and once by the keystore", f.logins)
	}
	if st := s.State(); !st.Stopped || !strings.Contains(st.Hint, "--password-file") {
		t.Errorf("state %+v", st)
	}
	login.Password = "also-wrong"
	if _, err := s.Test(t.Context(), 0, secret()); err == nil {
		t.Error("a test with another wrong password works")
	}
	login.Password = "swordfish"
	if _, err := s.Test(t.Context(), 0, secret()); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	again := servers.open(token)
	defer again.Close()
	if err := again.Check(t.Context()); err != nil {
		t.Errorf("the right password was not kept: %v", err)
	}
}

func TestStore_LoginIsSecret(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	path := filepath.Join(s.refused.Dir, "kms"+s.refused.Suffix)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info.Mode(), err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil || !strings.Contains(keymgr.HintOf(err), "chmod 600") {
		t.Errorf("a login that others may read: %v", err)
	}
	if err := s.servers.ForgetPIN("kms"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a forgotten login: %v", err)
	}
	if err := s.servers.KeepPIN("../x", "{}"); err == nil {
		t.Error("a login outside of the folder")
	}
}

func TestStore_BatchesAsLargeAsTheServerTakes(t *testing.T) {
	for _, how := range []string{"message", "item", "drop", "one"} {
		t.Run(how, func(t *testing.T) {
			f := newFakeServer(t)
			s := f.store(t)
			k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
			if err := sign(k, 100); err != nil {
				t.Fatal(err)
			}
			if f.largest != 25 {
				t.Errorf("100 messages by 4 connections in batches of %d, want 25", f.largest)
			}
			f.set(func() { f.batch, f.batchHow, f.largest = 5, how, 0 })
			if err := sign(k, 100); err != nil {
				t.Fatal(err)
			}
			if got := int(s.batch.Load()); got > 5 || got < 1 {
				t.Errorf("batches of up to %d go on to be sent, the server takes 5", got)
			}
			before := f.calls[opSign]
			if err := sign(k, 100); err != nil {
				t.Fatal(err)
			}
			if made := f.calls[opSign] - before; made != 100 {
				t.Errorf("%d signatures asked for, want 100", made)
			}
		})
	}
}

func TestStore_WrongSignaturesAreNotUsed(t *testing.T) {
	for _, v := range []version{{1, 2}, {2, 1}} {
		f := newFakeServer(t)
		f.set(func() { f.versions = []version{v} })
		s := f.store(t)
		made := makeKey(t, s, dns.ECDSAP256SHA256)
		k := open(t, s, made)
		for range 2 { // before and after the way is known
			f.set(func() { f.spoil = true })
			err := sign(k, 3)
			bad, ok := errors.AsType[*BadSignatureError](err)
			if !ok || bad.Reference != made.Reference || len(bad.Signature) == 0 || !strings.Contains(err.Error(), f.listener.Addr().String()) {
				t.Errorf("KMIP %v: %v", v, err)
			}
			if err := keymgr.Prove(t.Context(), s, made); err == nil {
				t.Error("a key proves itself with wrong signatures")
			}
			f.set(func() { f.spoil = false })
			if err := sign(k, 3); err != nil {
				t.Errorf("KMIP %v: %v", v, err)
			}
		}
	}
}

func TestStore_DigestsWhereTheServerTakesThem(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	sum := sha256.Sum256([]byte("x"))
	k := open(t, s, makeKey(t, s, dns.ECDSAP256SHA256))
	if _, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil {
		t.Error(err)
	}
	if _, err := k.Sign(nil, sum[:5], crypto.SHA256); err == nil {
		t.Error("five bytes are signed as a digest")
	}
	f.set(func() { f.versions = []version{{1, 3}} })
	old := f.store(t)
	k = open(t, old, makeKey(t, old, dns.ECDSAP256SHA256))
	if _, err := k.Sign(nil, sum[:], crypto.SHA256); err == nil || !strings.Contains(err.Error(), "KMIP 1.3") {
		t.Errorf("a digest with KMIP 1.3: %v", err)
	}
}

func TestStore_OneNameOneKey(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	made := makeKey(t, s, dns.ECDSAP256SHA256)
	other := makeKey(t, s, dns.ECDSAP256SHA256)
	var first, second *fakeObject
	f.set(func() {
		first, second = f.objects[1], f.objects[3]
		second.name = first.name
	})
	_, err := f.store(t).Signer(t.Context(), made.Reference)
	if err == nil || !strings.Contains(err.Error(), "2 private keys have the name") || !strings.Contains(err.Error(), "object-3") {
		t.Errorf("two private keys of one name: %v", err)
	}
	if _, err := f.store(t).Signer(t.Context(), other.Reference); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("no private key of the name: %v", err)
	}
	// Another key pair under the name.
	f.set(func() {
		delete(f.objects, 1)
		f.objects[4].name = f.objects[2].name
		delete(f.objects, 2)
	})
	if _, err := f.store(t).Signer(t.Context(), made.Reference); err == nil || !strings.Contains(err.Error(), "is another one") {
		t.Errorf("another key of the name: %v", err)
	}
}

func TestStore_StatesOfKeys(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	made := makeKey(t, s, dns.ECDSAP256SHA256)
	k := open(t, s, made)
	state := func(n uint32) { f.set(func() { f.objects[1].state = n }) }
	// One that was put back in its first state is activated.
	state(statePreActive)
	if err := sign(k, 3); err != nil {
		t.Errorf("a pre-active key: %v", err)
	}
	state(3)
	if err := sign(k, 3); err == nil || !strings.Contains(err.Error(), "deactivated") {
		t.Errorf("a deactivated key: %v", err)
	}
	state(stateActive)
	if err := sign(k, 3); err != nil {
		t.Error(err)
	}
	f.set(func() { clear(f.objects) })
	if err := sign(k, 1); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("a key that is gone: %v", err)
	}
	if len(f.objects) != 0 {
		t.Error("objects came back")
	}
}

func TestStore_UnusedKeysAreDeleted(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	k := makeKey(t, s, dns.ECDSAP256SHA256)
	if err := s.Remove(t.Context(), k.Reference); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Test(t.Context(), dns.ED25519, ""); err != nil {
		t.Fatal(err)
	}
	// What was made when the connection broke, too.
	broke := false
	f.set(func() {
		f.reply = func(request, response []byte) []byte {
			f.mu.Lock()
			defer f.mu.Unlock()
			root, err := decode(request)
			op, _ := root.find(tagBatchItem, tagOperation).number()
			if err == nil && op == opCreateKeyPair && !broke {
				broke = true
				return nil
			}
			return response
		}
	})
	made := makeKey(t, s, dns.ECDSAP256SHA256)
	if !broke || f.calls[opCreateKeyPair] < 4 || len(f.objects) != 2 {
		t.Errorf("%d key pairs made, %d objects left, want those of one", f.calls[opCreateKeyPair], len(f.objects))
	}
	if err := keymgr.Prove(t.Context(), s, made); err != nil {
		t.Error(err)
	}
}

func TestStore_TestMeasures(t *testing.T) {
	f := newFakeServer(t)
	s := f.store(t)
	r, err := s.Test(t.Context(), 0, "")
	if err != nil {
		t.Fatal(err)
	}
	if r.Algorithm != dns.ECDSAP256SHA256 || r.Protocol != "KMIP 2.1" || r.Manufacturer != "fake" || r.Signatures == 0 || r.Sign <= 0 ||
		r.PerSecond <= 0 || r.Batch < 2 || r.BatchedPerSecond <= 0 || r.Sessions != 4 {
		t.Errorf("%+v", r)
	}
	if len(f.objects) != 0 {
		t.Errorf("the test left %d objects", len(f.objects))
	}
	f.set(func() { f.batch, f.batchHow = 1, "item" })
	if r, err = s.Test(t.Context(), dns.RSASHA256, ""); err != nil || r.Batch != 0 || r.BatchedPerSecond != 0 {
		t.Errorf("without batches: %+v, %v", r, err)
	}
}

func TestStore_FindTellsWhatIsLacking(t *testing.T) {
	f := newFakeServer(t)
	f.set(func() { f.lacks = []uint32{opSign} })
	secret, err := f.login(t).Secret()
	if err != nil {
		t.Fatal(err)
	}
	servers := NewServers(t.TempDir(), time.Now)
	token := keymgr.Token{Name: "kms", Server: keymgr.Server{Address: f.listener.Addr().String()}}
	if _, err := servers.Find(t.Context(), token, secret); err == nil || !strings.Contains(err.Error(), "does not do Sign") {
		t.Errorf("a server that does not sign: %v", err)
	}
	f.set(func() { f.lacks = nil })
	if _, err := servers.Find(t.Context(), token, secret); err != nil {
		t.Error(err)
	}
	if _, err := servers.Find(t.Context(), token, "{"); err == nil {
		t.Error("a login that is none")
	}
}

func TestReference_OneForm(t *testing.T) {
	r := reference{name: "sluice zsk ex;am%ple 01"}
	r.print[0] = 7
	got, err := parseReference(r.String())
	if err != nil || got != r {
		t.Errorf("%q gives %+v, %v", r.String(), got, err)
	}
	for _, bad := range []string{
		"", "kmip:", "kmip:name=;public=" + strings.Repeat("0", 32), "kmip:name=a;public=00", "kmip:name=a%2;public=" + strings.Repeat("0", 32),
		"kmip:name=a;public=" + strings.Repeat("0", 31) + "G", "kmip:name=a;public=" + strings.Repeat("A", 32), r.String() + " ",
	} {
		if _, err := parseReference(bad); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if !slices.Equal(versions()[:1], []version{{2, 1}}) {
		t.Error("the best version comes first")
	}
}
