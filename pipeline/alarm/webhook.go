package alarm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Webhook is a web server that is told by POST, with a Message in JSON as body.
type Webhook struct {
	URL string
	// TokenFile has what Authorization: Bearer says, SecretFile the key of the
	// HMAC-SHA-256 over the body in SignatureHeader; "" is none. They are read
	// for each message.
	TokenFile, SecretFile string
	// Roots are certificates in PEM form that the server is trusted by; "" is the
	// system's.
	Roots string
}

// SignatureHeader has "sha256=" and the HMAC of a message in hex.
const SignatureHeader = "X-Sluice-Signature"

// maxSecret and maxAnswer bound the files of secrets, and what is read of an
// answer, in bytes.
const (
	maxSecret = 4 << 10
	maxAnswer = 1 << 10
)

// CheckURL says what is wrong with where a webhook is.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return fmt.Errorf("URL %q: want https://HOST/PATH", text)
	}
	if u.User != nil {
		return fmt.Errorf("URL %s: a user or password in it would be shown; name a file with a token", u.Redacted())
	}
	if ip := net.ParseIP(u.Hostname()); u.Scheme == "http" && u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("URL %q: want https; http goes to this machine alone", text)
	}
	return nil
}

type webhook struct {
	Webhook
	client *http.Client
}

func newWebhook(cfg Webhook, timeout time.Duration) (*webhook, error) {
	if err := CheckURL(cfg.URL); err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.Roots != "" {
		pem, err := os.ReadFile(cfg.Roots)
		if err != nil {
			return nil, fmt.Errorf("read certificates for the webhook: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificates for the webhook: %s has none in PEM form", cfg.Roots)
		}
	}
	w := &webhook{Webhook: cfg, client: &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{TLSClientConfig: conf, Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
		// A redirect would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	for _, file := range []string{cfg.TokenFile, cfg.SecretFile} {
		if _, err := readSecret(file); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// shown is the URL without what may be secret in it: many servers take whoever
// knows the path.
func (w *webhook) shown() string {
	u, err := url.Parse(w.URL)
	if err != nil {
		return ""
	}
	shown := u.Scheme + "://" + u.Host
	if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
		shown += "/..."
	}
	return shown
}

// readSecret reads a file with a secret, of one line, that nobody else may read;
// "" for no file.
func readSecret(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	f, err := os.Open(file)
	if err != nil {
		return "", fmt.Errorf("read a secret for the webhook: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("read a secret for the webhook: %w", err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return "", fmt.Errorf("secret for the webhook: %s is open to others (mode %04o): chmod 600 %s", file, mode.Perm(), file)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("read a secret for the webhook: %w", err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" || len(text) > maxSecret || strings.ContainsAny(secret, "\r\n") {
		return "", fmt.Errorf("secret for the webhook: %s: want one line of at most %d bytes", file, maxSecret)
	}
	return secret, nil
}

// post sends a message; an answer with 2xx is a success.
func (w *webhook) post(ctx context.Context, m Message) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(body))
	if err != nil {
		return errors.New("the webhook's URL cannot be used")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sluice")
	token, err := readSecret(w.TokenFile)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	secret, err := readSecret(w.SecretFile)
	if err != nil {
		return err
	}
	if secret != "" {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write(body)
		req.Header.Set(SignatureHeader, "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	res, err := w.client.Do(req)
	if err != nil {
		if inner, ok := errors.AsType[*url.Error](err); ok {
			err = inner.Err // the URL may have a secret in its query
		}
		return err
	}
	defer res.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer)) // it only helps to explain
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return fmt.Errorf("it answers %s: %s", res.Status, strings.TrimSpace(strings.ToValidUTF8(string(answer), "?")))
	}
	return nil
}
