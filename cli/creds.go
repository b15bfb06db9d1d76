package cli

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"github.com/nats-io/nkeys"
	"github.com/pelletier/go-toml/v2"

	"sluice/journal"
	"sluice/pipeline"
	"sluice/xfr"
)

// credentials is what a worker needs to join the journal: whoever has the file
// is that worker.
type credentials struct {
	Name    string   `toml:"name"`
	Roles   []string `toml:"roles"`
	Journal string   `toml:"journal"` // identity of the stream
	URLs    []string `toml:"urls"`
	Gate    bool     `toml:"gate"`                      // the server is a process of this program
	Pin     string   `toml:"pin,omitempty"`             // of the server's public key
	Roots   string   `toml:"roots,multiline,omitempty"` // certificates that it is trusted by
	NKey    string   `toml:"nkey"`                      // seed, SU...
	Age     string   `toml:"age"`                       // AGE-SECRET-KEY-1...
}

// maxCredentials bounds a file of credentials.
const maxCredentials = 256 << 10

// newCredentials makes the secrets of a worker.
func newCredentials() (c credentials, public pipeline.NewWorker, err error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return c, public, fmt.Errorf("make an nkey: %w", err)
	}
	if public.NKey, err = pair.PublicKey(); err != nil {
		return c, public, fmt.Errorf("make an nkey: %w", err)
	}
	seed, err := pair.Seed()
	if err != nil {
		return c, public, fmt.Errorf("make an nkey: %w", err)
	}
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return c, public, fmt.Errorf("make an age identity: %w", err)
	}
	c.NKey, c.Age, public.Age = string(seed), id.String(), id.Recipient().String()
	return c, public, nil
}

// write writes the credentials as a file.
func (c *credentials) write(w io.Writer) error {
	text, err := toml.Marshal(c)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "# Credentials of worker %s for sluice worker --creds. Whoever has this file is\n"+
		"# that worker: nobody else may read it. sluice worker remove %s ends it.\n%s", c.Name, c.Name, text)
	return err
}

// readCredentials reads a file of credentials that nobody else may read. Its
// errors show nothing of what is secret.
func readCredentials(path string) (credentials, error) {
	var c credentials
	info, err := os.Stat(path)
	if err != nil {
		return c, fmt.Errorf("read credentials: %w", err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return c, withHint(fmt.Errorf("%s is open to others (mode %04o): credentials must not be", path, mode.Perm()), "chmod 600 %s", path)
	}
	if info.Size() > maxCredentials {
		return c, fmt.Errorf("read credentials: %s is too long for that", path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return c, fmt.Errorf("read credentials: %w", err)
	}
	defer clear(text)
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&c); err != nil {
		return credentials{}, withHint(fmt.Errorf("%s is no file of credentials", path), "make one at the main process: sluice worker enroll NAME --roles LIST -o FILE")
	}
	pair, err := nkeys.FromSeed([]byte(c.NKey))
	if err == nil {
		pair.Wipe()
		if c.Age != "" { // only workers need one
			_, err = age.ParseX25519Identity(c.Age)
		}
	}
	if err != nil || !journal.ValidWorker(c.Name) {
		return credentials{}, withHint(fmt.Errorf("%s is no file of credentials: name or secrets are damaged", path), "make one at the main process: sluice worker enroll NAME --roles LIST -o FILE")
	}
	return c, nil
}

// remote is how the journal is reached with the credentials.
func (c *credentials) remote() (journal.Remote, error) {
	r := journal.Remote{
		URLs: c.URLs, Name: c.Name, Seed: c.NKey, HandshakeFirst: c.Gate, Identity: c.Journal,
	}
	var err error
	switch {
	case c.Pin != "":
		r.TLS, err = xfr.PinnedTLS(c.Pin)
	case c.Gate, overTLS(c.URLs):
		r.TLS, err = rootsTLS(c.Roots)
	}
	return r, err
}

// overTLS reports whether one of the URLs wants TLS.
func overTLS(urls []string) bool {
	return strings.Contains(strings.Join(urls, ","), "tls://")
}

// parseRoots reads certificates in PEM form; nil is the system's.
func parseRoots(pem string) (*x509.CertPool, error) {
	if pem == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(pem)) {
		return nil, errors.New("no certificate in PEM form among the trusted ones")
	}
	return pool, nil
}
