package xfr

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// certificateLook is how long a certificate is used before its files are
// looked at again.
const certificateLook = time.Minute

// Certificate is a server's certificate with its key, from files in PEM form.
// Files that change are read again within a minute; while what they hold
// cannot be used, the certificate before stays in use.
type Certificate struct {
	certFile, keyFile string

	mu     sync.Mutex
	cert   *tls.Certificate // guarded by mu
	read   [2]fileState     // guarded by mu: the files as they were read
	looked time.Time        // guarded by mu
	err    error            // guarded by mu: why newer files are not used
	told   time.Time        // guarded by mu: when trouble was told last
}

// fileState tells one content of a file from another.
type fileState struct {
	modified time.Time
	size     int64
}

// LoadCertificate reads a certificate chain and its private key.
func LoadCertificate(certFile, keyFile string) (*Certificate, error) {
	c := &Certificate{certFile: certFile, keyFile: keyFile}
	if err := c.load(); err != nil {
		return nil, err
	}
	c.looked = time.Now()
	return c, nil
}

// Err is why files that changed are not used; nil where they are.
func (c *Certificate) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// load reads the files where they changed. The caller holds mu or is alone.
func (c *Certificate) load() error {
	var now [2]fileState
	for i, name := range []string{c.certFile, c.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return fmt.Errorf("read certificate: %w", err)
		}
		now[i] = fileState{info.ModTime(), info.Size()}
	}
	if c.cert != nil && now == c.read {
		return nil
	}
	cert, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return fmt.Errorf("read certificate %q with key %q: %w", c.certFile, c.keyFile, err)
	}
	c.cert, c.read = &cert, now
	return nil
}

// get implements tls.Config.GetCertificate.
func (c *Certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.looked) >= certificateLook {
		c.looked = now
		c.err = c.load()
	}
	return c.cert, nil
}

// Reload reads the files now where they changed. While they cannot be used,
// which the error says, the certificate before stays in use.
func (c *Certificate) Reload() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.looked = time.Now()
	c.err = c.load()
	return c.err
}

// ServerTLS is how a server proves itself by the certificate where it speaks
// something else than DNS: TLS 1.3.
func (c *Certificate) ServerTLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: c.get}
}

// PinnedTLS is how a server is spoken to that proves itself by the public key of
// a pin, as Pin gives it, and by nothing else.
func PinnedTLS(pin string) (*tls.Config, error) {
	peer, err := parseProofs(pin)
	if err != nil {
		return nil, err
	}
	if len(peer.Pins) == 0 {
		return nil, errBadPin
	}
	cfg := clientTLS(peer, nil, nil)
	cfg.NextProtos = nil
	return cfg, nil
}

// How long before its end a certificate is trouble, and how often that is told.
const (
	certificateSoon = 7 * 24 * time.Hour
	certificateTold = time.Hour
)

// trouble is what is wrong with the certificate, told once an hour; nil where
// nothing is, or it was told lately.
func (c *Certificate) trouble(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.err
	if end := c.cert.Leaf.NotAfter; err == nil && end.Sub(now) < certificateSoon {
		err = fmt.Errorf("the certificate of %s ends at %s", c.certFile, end.UTC().Format(time.RFC3339))
	}
	if err == nil || now.Sub(c.told) < certificateTold {
		return nil
	}
	c.told = now
	return err
}

// Pin is the pin of the public key now in use, as ParseEndpoint reads it.
func (c *Certificate) Pin() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	hash := sha256.Sum256(c.cert.Leaf.RawSubjectPublicKeyInfo)
	return pinScheme + base64.StdEncoding.EncodeToString(hash[:])
}

// OwnCertificate is the self-signed certificate of a folder, cert.pem with
// key.pem, for peers that know its pin. It is made where there is none: names
// are the DNS names and addresses that it is for, and it has no well-defined
// end (RFC 5280, 4.1.2.5). Only the owner can read the folder.
func OwnCertificate(dir string, names []string) (*Certificate, error) {
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	_, err := os.Stat(certFile)
	if errors.Is(err, os.ErrNotExist) {
		err = makeCertificate(dir, certFile, keyFile, names)
	}
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return LoadCertificate(certFile, keyFile)
}

func makeCertificate(dir, certFile, keyFile string, names []string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "sluice"},
		NotBefore:    time.Unix(0, 0).UTC(), // the peers' clocks are not ours
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	// The certificate last: a key without one was never used.
	if err := writeBlockFile(keyFile, "PRIVATE KEY", secret); err != nil {
		return err
	}
	return writeBlockFile(certFile, "CERTIFICATE", cert)
}

// writeBlockFile writes a PEM file of one block, durably and at once.
func writeBlockFile(path, kind string, data []byte) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: data})
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// ReadRoots reads the certificates of a PEM file that others are trusted by.
func ReadRoots(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read trusted certificates: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("read trusted certificates: no certificate in PEM form in %s", path)
	}
	return pool, nil
}
