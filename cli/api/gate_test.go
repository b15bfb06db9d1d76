package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// gated is a rig with a gate before its API, as it stands on the network.
type gated struct {
	*rig
	gate *Gate
	url  string
}

func newGated(t *testing.T, cfg GateConfig) *gated {
	t.Helper()
	g := &gated{rig: newRig(t)}
	cfg.Engine, cfg.Logger = g.engine, slog.New(slog.DiscardHandler)
	if cfg.Requests == 0 {
		cfg.Requests, cfg.Burst = 1000, 1000
	}
	if cfg.Failures == 0 {
		cfg.Failures = 1000
	}
	g.gate = NewGate(cfg)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.gate.Run(t.Context())
	}()
	srv := httptest.NewServer(g.gate.Wrap(Handler(g.engine, cfg.Logger)))
	g.url = srv.URL
	t.Cleanup(func() {
		srv.Close()
		<-ended // t.Context has ended by now
	})
	return g
}

// token makes a token with roles, and a client that shows it.
func (g *gated) token(t *testing.T, n pipeline.NewToken) *Client {
	t.Helper()
	made, err := g.client.AddToken(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Secret, TokenPrefix) || len(made.Secret) != len(TokenPrefix)+43 {
		t.Fatalf("token %q", made.Secret)
	}
	return g.dial(t, made.Secret)
}

func (g *gated) dial(t *testing.T, token string) *Client {
	t.Helper()
	c, err := Dial(ClientConfig{Address: g.url, Token: token, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// ask sends a request with an Authorization header.
func (g *gated) ask(t *testing.T, method, path, authorization string) (status int, header http.Header) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, g.url+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return res.StatusCode, res.Header
}

func TestGate_NothingWithoutAToken(t *testing.T) {
	g := newGated(t, GateConfig{})
	for _, path := range []string{"/", Prefix + "/health", Prefix + "/zones", Prefix + "/nothing", "/metrics"} {
		for _, authorization := range []string{"", "Bearer", "Bearer ", "Bearer sluice_AAAA", "Basic YTpi", "sluice_x"} {
			status, header := g.ask(t, http.MethodGet, path, authorization)
			if status != http.StatusUnauthorized {
				t.Errorf("%s with %q: status %d", path, authorization, status)
			}
			if !strings.HasPrefix(header.Get("WWW-Authenticate"), "Bearer") || header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("%s with %q: header %v", path, authorization, header)
			}
		}
	}
}

func TestGate_TokensActByTheirNameAndRole(t *testing.T) {
	g := newGated(t, GateConfig{})
	g.add(t, "example.com")
	ada := g.token(t, pipeline.NewToken{Name: "ada", Roles: []string{"operator"}})
	eve := g.token(t, pipeline.NewToken{Name: "eve", Roles: []string{"viewer"}})
	if _, err := eve.Zones(t.Context()); err != nil {
		t.Errorf("a viewer sees no zones: %v", err)
	}
	_, err := eve.SetMaintenance(t.Context(), "example.com", SetMaintenance{Enabled: true})
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != http.StatusForbidden || !strings.Contains(p.Detail, "operator") || !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a viewer's maintenance: %v", err)
	}
	status, err := ada.SetMaintenance(t.Context(), "example.com", SetMaintenance{Enabled: true})
	if err != nil || status.Maintenance == nil || status.Maintenance.Actor != "ada" {
		t.Errorf("maintenance %+v, %v; want it by ada", status.Maintenance, err)
	}
	line := g.awaitEvent(t, "access.refused")
	if line.Actor != "eve" || line.Door != "api" || !strings.Contains(line.Text, "operator") || !strings.Contains(line.Text, "/zones/{zone}/maintenance") {
		t.Errorf("event of the refusal: %+v", line)
	}
	line = g.awaitEvent(t, "maintenance.changed")
	if line.Actor != "ada" || line.Door != "api" {
		t.Errorf("event of the maintenance: %+v", line)
	}
}

// awaitEvent waits for the first event of a type.
func (g *gated) awaitEvent(t *testing.T, kind string) (found Event) {
	t.Helper()
	stop := errors.New("found")
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := g.client.Tail(ctx, "", "1", func(ev Event) error {
		if ev.Type != kind {
			return nil
		}
		found = ev
		return stop
	})
	if !errors.Is(err, stop) {
		t.Fatalf("no event %s: %v", kind, err)
	}
	return found
}

func TestGate_WithdrawnTokenEndsWhatItRuns(t *testing.T) {
	g := newGated(t, GateConfig{})
	ada := g.token(t, pipeline.NewToken{Name: "ada", Roles: []string{"viewer"}})
	saw := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- ada.Tail(t.Context(), "", "1", func(Event) error {
			saw <- struct{}{}
			return nil
		})
	}()
	<-saw // it runs
	if err := g.client.RemoveToken(t.Context(), "ada"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the tail ended without an error")
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the tail goes on")
	}
	if _, err := ada.Zones(t.Context()); !errors.Is(err, ErrNotAllowed) {
		t.Errorf("a withdrawn token: %v", err)
	}
	if err := g.client.RemoveToken(t.Context(), "ada"); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}

func TestGate_TooManyRequestsWait(t *testing.T) {
	g := newGated(t, GateConfig{Requests: 1, Burst: 5, Failures: 5})
	ada := g.token(t, pipeline.NewToken{Name: "ada", Roles: []string{"viewer"}})
	limited := func(do func() error) {
		t.Helper()
		for range 20 {
			if err := do(); errors.Is(err, ErrTooMany) {
				return
			}
		}
		t.Error("20 requests at once were answered")
	}
	limited(func() error {
		_, err := ada.Zones(t.Context())
		return err
	})
	limited(func() error {
		_, err := g.dial(t, "sluice_wrong").Zones(t.Context())
		return err
	})
	status, header := g.ask(t, http.MethodGet, Prefix+"/zones", "")
	if status != http.StatusTooManyRequests || header.Get("Retry-After") == "" {
		t.Errorf("status %d, Retry-After %q", status, header.Get("Retry-After"))
	}
	// Other limits hold at once, also for those who are known already.
	g.gate.SetLimits(1_000_000, 1_000_000, 1_000_000)
	for range 20 {
		if _, err := ada.Zones(t.Context()); err != nil {
			t.Fatalf("with room for all: %v", err)
		}
	}
	if status, _ := g.ask(t, http.MethodGet, Prefix+"/zones", ""); status != http.StatusUnauthorized {
		t.Errorf("with room for all, without a token: status %d", status)
	}
	g.gate.SetLimits(1, 2, 5)
	limited(func() error {
		_, err := ada.Zones(t.Context())
		return err
	})
	// Whoever has a token is not kept out by those who try.
	bob := g.token(t, pipeline.NewToken{Name: "bob", Roles: []string{"viewer"}})
	if _, err := bob.Zones(t.Context()); err != nil {
		t.Errorf("another token: %v", err)
	}
}

func TestTokens_WhatCannotBeOne(t *testing.T) {
	g := newGated(t, GateConfig{})
	past := time.Now().Add(-time.Hour)
	for _, n := range []pipeline.NewToken{
		{Name: "", Roles: []string{"viewer"}},
		{Name: "Ada", Roles: []string{"viewer"}},
		{Name: "unknown", Roles: []string{"viewer"}},
		{Name: "sluice", Roles: []string{"viewer"}},
		{Name: "ada", Roles: nil},
		{Name: "ada", Roles: []string{"king"}},
		{Name: "ada", Roles: []string{"viewer"}, Expires: &past},
		{Name: "ada", Roles: []string{"viewer"}, ExpiresIn: -1},
	} {
		if _, err := g.client.AddToken(t.Context(), n); !errors.Is(err, pipeline.ErrInvalid) {
			t.Errorf("%+v: %v", n, err)
		}
	}
	g.token(t, pipeline.NewToken{Name: "ada", Roles: []string{"viewer", "operator", "viewer"}})
	if _, err := g.client.AddToken(t.Context(), pipeline.NewToken{Name: "ada", Roles: []string{"viewer"}}); !errors.Is(err, pipeline.ErrState) {
		t.Errorf("a name that is taken: %v", err)
	}
	tokens, err := g.client.Tokens(t.Context())
	if err != nil || len(tokens) != 1 || strings.Join(tokens[0].Roles, " ") != "operator viewer" {
		t.Errorf("tokens %+v, %v", tokens, err)
	}
}

func TestDial_AddressesThatCannotBe(t *testing.T) {
	for _, address := range []string{
		"", "unix:", "ftp://x", "https://", "https://u:p@host", "https://host/path", "https://host?q", "https://host#sha256:short",
		"http://192.0.2.1:80", "http://signer.example:80", "tcp:1.2.3.4",
	} {
		if _, err := Dial(ClientConfig{Address: address, Logger: slog.New(slog.DiscardHandler)}); !errors.Is(err, ErrRequest) {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestLimiters_ManyKeysShareWhatIsLeft(t *testing.T) {
	l := newLimiters(0.001, 1)
	for i := range maxLimiters {
		if _, ok := l.allow(string(rune('a'+i%26)) + time.Duration(i).String()); !ok {
			t.Fatalf("key %d was refused", i)
		}
	}
	if _, ok := l.allow("one more"); !ok {
		t.Error("the first beyond was refused")
	}
	if _, ok := l.allow("and another"); ok {
		t.Error("the second beyond has a limit of its own")
	}
	if len(l.known) > maxLimiters {
		t.Errorf("%d are kept", len(l.known))
	}
}
