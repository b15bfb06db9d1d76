package xfr

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/signer/zone"
)

// newCertificate writes a self-signed certificate for name and returns its
// pin and the pool that trusts it.
func newCertificate(tb testing.TB, dir, name string) (pin string, roots *x509.CertPool) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	hash := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return pinScheme + base64.StdEncoding.EncodeToString(hash[:]), roots
}

// startTLS runs a server with an XoT listener.
func startTLS(tb testing.TB, cfg Config, cert *Certificate) (addr string, s *Server) {
	tb.Helper()
	s, err := NewServer(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	ap, err := s.ListenTLS(tb.Context(), "127.0.0.1:0", cert)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Errorf("Run: %v", err)
		}
	})
	return ap.String(), s
}

func loadCertificate(tb testing.TB, dir string) *Certificate {
	tb.Helper()
	c, err := LoadCertificate(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

func TestRFC9103_TransfersOverTLS(t *testing.T) {
	dir := t.TempDir()
	pin, roots := newCertificate(t, dir, "ns1.example")
	keys, _ := tsigKeys(t, "hmac-sha256")
	view := ixfrView(t)
	view.allow = func(p Peer) bool { return p.TLS }
	var seen noticed
	addr, _ := startTLS(t, Config{
		Source: memSource{exampleName: view}, Keys: keys,
		AllowsNotify: func(zone.Name, Peer) error { return nil }, Notified: seen.note,
	}, loadCertificate(t, dir))
	c := NewClient(ClientConfig{Keys: keys, Roots: roots})
	for _, text := range []string{
		"tls://" + addr + "#ns1.example", "tls://" + addr + "#" + pin,
		"tls://" + addr + "^transfer.key#ns1.example#" + pin,
	} {
		ep := endpoint(t, text)
		for have, want := range map[*zone.Serial]TransferKind{nil: AXFR, serialOf(3): IXFR} {
			r, err := c.Transfer(t.Context(), ep, exampleName, have, new(memSink))
			if err != nil || r.Kind != want {
				t.Errorf("%s: %+v, %v", text, r, err)
			}
			checkProof(t, r, ep, pin)
		}
		if serial, _, err := c.SOA(t.Context(), ep, exampleName); err != nil || serial != 7 {
			t.Errorf("%s: %d, %v", text, serial, err)
		}
		if err := c.Notify(t.Context(), ep, exampleName, nil); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := seen.take(); len(got) != 1 || !strings.HasSuffix(got[0], "TLS true") {
			t.Errorf("%s: noticed %v", text, got)
		}
	}
}

// checkProof holds what a transfer says of the server against what it was.
func checkProof(t *testing.T, r TransferResult, ep Endpoint, pin string) {
	t.Helper()
	switch {
	case r.Proof == nil || r.Proof.Pin != pin || r.Proof.Certificate == [32]byte{} || r.Proof.Name != ep.TLS.Name:
		t.Errorf("%s: proof %+v, want pin %s and name %q", ep, r.Proof, pin, ep.TLS.Name)
	case ep.Key != "" && r.Algorithm != "hmac-sha256", ep.Key == "" && r.Algorithm != "":
		t.Errorf("%s: algorithm %q", ep, r.Algorithm)
	}
}

func TestRFC9103_ServersThatDoNotProveThemselves(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	pin, roots := newCertificate(t, dir, "ns1.example")
	otherPin, otherRoots := newCertificate(t, other, "ns1.example")
	addr, s := startTLS(t, Config{Source: memSource{exampleName: exampleView(t, 7)}}, loadCertificate(t, dir))
	clear, _ := startServer(t, Config{Source: memSource{exampleName: exampleView(t, 7)}})
	for _, tc := range []struct {
		fact, text string
		roots      *x509.CertPool
	}{
		{"other name", "tls://" + addr + "#ns2.example", roots},
		{"not trusted", "tls://" + addr + "#ns1.example", otherRoots},
		{"trusted by nobody", "tls://" + addr + "#ns1.example", nil},
		{"other pin", "tls://" + addr + "#" + otherPin, roots},
		{"right name, other pin", "tls://" + addr + "#ns1.example#" + otherPin, roots},
		{"other name, right pin", "tls://" + addr + "#ns2.example#" + pin, roots},
		{"clear text", "tls://" + clear + "#ns1.example", roots},
	} {
		c := NewClient(ClientConfig{Roots: tc.roots, Limits: Limits{Idle: 5 * time.Second}})
		if _, err := c.Transfer(t.Context(), endpoint(t, tc.text), exampleName, nil, new(memSink)); err == nil || !strings.Contains(err.Error(), "TLS") {
			t.Errorf("%s: %v", tc.fact, err)
		}
		if _, _, err := c.SOA(t.Context(), endpoint(t, tc.text), exampleName); err == nil {
			t.Errorf("%s: SOA told", tc.fact)
		}
	}
	if st := s.Stats(); st.Requests != 0 {
		t.Errorf("%+v", st)
	}
}

func TestRFC9103_7_1_TLS13AndDotAlone(t *testing.T) {
	dir := t.TempDir()
	_, roots := newCertificate(t, dir, "ns1.example")
	addr, s := startTLS(t, Config{Source: memSource{exampleName: exampleView(t, 7)}}, loadCertificate(t, dir))
	for fact, cfg := range map[string]*tls.Config{
		"TLS 1.2":        {MaxVersion: tls.VersionTLS12, NextProtos: []string{"dot"}},
		"other ALPN":     {NextProtos: []string{"h2"}},
		"no ALPN at all": {},
	} {
		cfg.RootCAs, cfg.ServerName = roots, "ns1.example"
		conn, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			continue // refused in the handshake
		}
		if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
			t.Errorf("%s: %d bytes, %v", fact, n, err)
		}
		_ = conn.Close() // the server has closed it
	}
	if st := s.Stats(); st.Requests != 0 {
		t.Errorf("%+v", st)
	}
	// A server without the protocol is not spoken to either.
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if conn, err := l.Accept(); err == nil {
			_ = conn.(*tls.Conn).Handshake() // the client tells
			_ = conn.Close()
		}
	}()
	ep := endpoint(t, "tls://"+l.Addr().String()+"#ns1.example")
	if _, _, err := NewClient(ClientConfig{Roots: roots}).SOA(t.Context(), ep, exampleName); err == nil || !strings.Contains(err.Error(), `not "dot"`) {
		t.Errorf("%v", err)
	}
	<-done
	_ = l.Close() // the test is over
}

func TestCertificate_ChangedFilesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	newCertificate(t, dir, "ns1.example")
	c := loadCertificate(t, dir)
	first, err := c.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	look := func() *tls.Certificate {
		c.looked = c.looked.Add(-certificateLook)
		cert, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	if look() != first || c.Err() != nil {
		t.Error("unchanged files read again")
	}
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if look() != first || c.Err() == nil {
		t.Error("damaged files used")
	}
	newCertificate(t, dir, "ns1.example")
	if look() == first || c.Err() != nil {
		t.Errorf("changed files not used: %v", c.Err())
	}
	if _, err := LoadCertificate(filepath.Join(dir, "none.pem"), filepath.Join(dir, "key.pem")); err == nil {
		t.Error("missing file loaded")
	}
}

func TestTLS_SilentClientIsGivenUp(t *testing.T) {
	dir := t.TempDir()
	newCertificate(t, dir, "ns1.example")
	addr, s := startTLS(t, Config{Source: memSource{}, IdleTimeout: 50 * time.Millisecond}, loadCertificate(t, dir))
	c := dial(t, addr)
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil || os.IsTimeout(err) {
		t.Errorf("%d bytes, %v", n, err)
	}
	for deadline := time.Now().Add(5 * time.Second); s.Stats().Dropped != 1; time.Sleep(time.Millisecond) { // polls a named condition
		if time.Now().After(deadline) {
			t.Fatalf("%+v", s.Stats())
		}
	}
}

func TestOwnCertificate_IsMadeOnce(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys", "tls")
	c, err := OwnCertificate(dir, []string{"signer.example", "127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, "key.pem"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	again, err := OwnCertificate(dir, nil)
	if err != nil || again.Pin() != c.Pin() {
		t.Errorf("pin %s, then %s, %v", c.Pin(), again.Pin(), err)
	}
	addr, _ := startTLS(t, Config{Source: memSource{exampleName: exampleView(t, 7)}}, again)
	if serial, _, err := NewClient(ClientConfig{}).SOA(t.Context(), endpoint(t, "tls://"+addr+"#"+c.Pin()), exampleName); err != nil || serial != 7 {
		t.Errorf("%d, %v", serial, err)
	}
	roots, err := ReadRoots(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"signer.example": true, "127.0.0.1": true, "other.example": false} {
		_, _, err := NewClient(ClientConfig{Roots: roots}).SOA(t.Context(), endpoint(t, "tls://"+addr+"#"+name), exampleName)
		if (err == nil) != want {
			t.Errorf("as %s: %v", name, err)
		}
	}
	// A key without its certificate was never used.
	if err := os.Remove(filepath.Join(dir, "cert.pem")); err != nil {
		t.Fatal(err)
	}
	if anew, err := OwnCertificate(dir, nil); err != nil || anew.Pin() == c.Pin() {
		t.Errorf("%v", err)
	}
}

func TestReadRoots_WithoutACertificateIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "roots.pem")
	for range 2 { // not there, then empty
		if _, err := ReadRoots(file); err == nil || !strings.Contains(err.Error(), "roots.pem") {
			t.Errorf("%v", err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRFC9103_9_3_ClientsProveThemselves(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	pin, _ := newCertificate(t, dir, "ns1.example")
	_, clients := newCertificate(t, other, "secondary.example")
	fetched := make(chan Peer, 1)
	addr, s := startTLS(t, Config{
		Source: memSource{exampleName: exampleView(t, 7)}, ClientRoots: clients,
		Transferred: func(p Peer, _ View, _ TransferKind) { fetched <- p },
	}, loadCertificate(t, dir))
	ep := endpoint(t, "tls://"+addr+"#"+pin)
	if r, err := NewClient(ClientConfig{Certificate: loadCertificate(t, other)}).Transfer(t.Context(), ep, exampleName, nil, new(memSink)); err != nil || r.Serial != 7 {
		t.Fatalf("%+v, %v", r, err)
	}
	if p := <-fetched; p.Name != "secondary.example" || !p.TLS {
		t.Errorf("%+v", p)
	}
	for fact, own := range map[string]*Certificate{"none": nil, "of another": loadCertificate(t, dir)} {
		before := s.Stats().Dropped
		if _, err := NewClient(ClientConfig{Certificate: own}).Transfer(t.Context(), ep, exampleName, nil, new(memSink)); err == nil {
			t.Errorf("certificate %s: served", fact)
		}
		for deadline := time.Now().Add(5 * time.Second); s.Stats().Dropped != before+1; time.Sleep(time.Millisecond) { // polls a named condition
			if time.Now().After(deadline) {
				t.Fatalf("certificate %s: %+v", fact, s.Stats())
			}
		}
	}
}

func TestTLS_TroubleOfTheCertificateIsLoggedOnce(t *testing.T) {
	dir := t.TempDir()
	pin, _ := newCertificate(t, dir, "ns1.example") // it ends in an hour
	var mu sync.Mutex
	var out strings.Builder
	log := slog.New(slog.NewTextHandler(lockedWriter{&mu, &out}, nil))
	cert := loadCertificate(t, dir)
	addr, _ := startTLS(t, Config{Source: memSource{exampleName: exampleView(t, 7)}, Logger: log}, cert)
	ask := func() string {
		t.Helper()
		if _, _, err := NewClient(ClientConfig{}).SOA(t.Context(), endpoint(t, "tls://"+addr+"#"+pin), exampleName); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		return out.String()
	}
	ask()
	if got := ask(); strings.Count(got, "wants renewal") != 1 || !strings.Contains(got, "ends at") {
		t.Errorf("logged\n%s", got)
	}
	// Files that cannot be used are told an hour later.
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cert.mu.Lock()
	cert.looked, cert.told = time.Time{}, time.Time{}
	cert.mu.Unlock()
	if got := ask(); strings.Count(got, "wants renewal") != 2 || !strings.Contains(got, "read certificate") {
		t.Errorf("logged\n%s", got)
	}
}

// lockedWriter is a writer for several goroutines.
type lockedWriter struct {
	mu *sync.Mutex
	w  io.Writer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
