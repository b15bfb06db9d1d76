package alarm

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hookServer is a web server that is told.
type hookServer struct {
	*httptest.Server
	status int
	header http.Header
	body   []byte
	asked  int
}

func newHookServer(t *testing.T) *hookServer {
	h := &hookServer{status: http.StatusNoContent}
	h.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.asked++
		h.header = r.Header
		h.body, _ = io.ReadAll(r.Body)
		if h.status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(h.status)
		if h.status != http.StatusNoContent {
			_, _ = w.Write([]byte("not today"))
		}
	}))
	t.Cleanup(h.Close)
	return h
}

// roots is a file with the server's certificate.
func (h *hookServer) roots(t *testing.T) string {
	return secretFile(t, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})))
}

func secretFile(t *testing.T, text string) string {
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestWebhook_PostsSignedJSONWithItsToken(t *testing.T) {
	h := newHookServer(t)
	w, err := newWebhook(Webhook{
		URL: h.URL + "/hook?key=hidden", Roots: h.roots(t), TokenFile: secretFile(t, "abc\n"), SecretFile: secretFile(t, "s3cret"),
	}, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(w.shown(), "hidden") {
		t.Errorf("it is shown as %s", w.shown())
	}
	m := Message{State: Raised, Code: "ds-mismatch", Severity: "alarm", Zone: "example.com.", Text: "bogus", Since: time.Unix(1_800_000_000, 0).UTC()}
	if err := w.post(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte("s3cret"))
	mac.Write(h.body)
	if want := "sha256=" + hex.EncodeToString(mac.Sum(nil)); h.header.Get(SignatureHeader) != want || h.header.Get("Authorization") != "Bearer abc" {
		t.Errorf("header %v, want the signature %s", h.header, want)
	}
	var got map[string]any
	if err := json.Unmarshal(h.body, &got); err != nil || got["state"] != "raised" || got["zone"] != "example.com." || got["since"] != "2027-01-15T08:00:00Z" {
		t.Errorf("body %s, %v", h.body, err)
	}
}

func TestWebhook_FailsWhereItWasNotTaken(t *testing.T) {
	h := newHookServer(t)
	w, err := newWebhook(Webhook{URL: h.URL + "/?key=hidden", Roots: h.roots(t)}, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, status := range []int{http.StatusFound, http.StatusForbidden, http.StatusInternalServerError} {
		h.status, h.asked = status, 0
		err := w.post(t.Context(), Message{})
		if err == nil || !strings.Contains(err.Error(), "not today") || h.asked != 1 {
			t.Errorf("status %d: %v, asked %d times", status, err, h.asked)
		}
	}
	h.Close()
	if err := w.post(t.Context(), Message{}); err == nil || strings.Contains(err.Error(), "hidden") {
		t.Errorf("without a server: %v", err)
	}
}

// A server that nobody vouches for is told nothing.
func TestWebhook_TrustsNoStranger(t *testing.T) {
	h := newHookServer(t)
	w, err := newWebhook(Webhook{URL: h.URL}, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.post(t.Context(), Message{}); err == nil || h.asked != 0 {
		t.Errorf("%v, asked %d times", err, h.asked)
	}
}

func TestWebhook_EndsWithItsTime(t *testing.T) {
	release := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	defer s.Close()
	defer close(release)
	w, err := newWebhook(Webhook{URL: s.URL}, 50*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.post(context.Background(), Message{}); err == nil {
		t.Error("a server that hangs counts as told")
	}
}

func TestCheckURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://alarms.example/x": true,
		"http://127.0.0.1:80/x":    true,
		"http://[::1]/x":           true,
		"http://localhost:1":       true,
		"http://alarms.example/x":  false,
		"http://192.0.2.1/x":       false,
		"https://user:pw@host/":    false,
		"ftp://alarms.example":     false,
		"alarms.example":           false,
		"https://":                 false,
	} {
		if err := CheckURL(url); (err == nil) != ok || err != nil && strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// Many servers take whoever knows the path: it is shown to nobody.
func TestWebhook_ShowsNoPath(t *testing.T) {
	for url, want := range map[string]string{
		"https://hooks.example.net/services/T0/B0/s3cret?key=s3cret#s3cret": "https://hooks.example.net/...",
		"https://hooks.example.net:8443":                                    "https://hooks.example.net:8443",
	} {
		w, err := newWebhook(Webhook{URL: url}, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.shown(); got != want {
			t.Errorf("%s is shown as %s, want %s", url, got, want)
		}
	}
}

func TestWebhook_SecretsOpenToOthersAreRefused(t *testing.T) {
	file := secretFile(t, "abc")
	if err := os.Chmod(file, 0o644); err != nil { //nolint:gosec // it is what must be refused
		t.Fatal(err)
	}
	for _, cfg := range []Webhook{{URL: "https://192.0.2.1/", TokenFile: file}, {URL: "https://192.0.2.1/", SecretFile: file}} {
		if _, err := newWebhook(cfg, time.Second); err == nil || !strings.Contains(err.Error(), "chmod 600 "+file) {
			t.Errorf("error = %v, want one that says what to do", err)
		}
	}
}
