package api

import (
	"context"
	"net/http"
	"net/url"

	"sluice/pipeline"
)

func (s *server) listKeystores(w http.ResponseWriter, r *http.Request) error {
	list, err := s.engine.Keystores(r.Context())
	return replyList(w, http.StatusOK, list, err)
}

func (s *server) showKeystore(w http.ResponseWriter, r *http.Request) error {
	one, err := s.engine.Keystore(r.Context(), r.PathValue("keystore"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, one)
}

func (s *server) addKeystore(w http.ResponseWriter, r *http.Request) error {
	var n pipeline.NewKeystore
	if err := readBody(r, &n); err != nil {
		return err
	}
	added, err := s.engine.AddKeystore(r.Context(), actorOf(r.Context()), n)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, added)
}

func (s *server) removeKeystore(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.RemoveKeystore(r.Context(), actorOf(r.Context()), r.PathValue("keystore")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) testKeystore(w http.ResponseWriter, r *http.Request) error {
	var q pipeline.KeystoreTest
	if err := readBody(r, &q); err != nil {
		return err
	}
	report, err := s.engine.TestKeystore(r.Context(), r.PathValue("keystore"), q)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, report)
}

// Keystores lists the keystores.
func (c *Client) Keystores(ctx context.Context) ([]pipeline.KeystoreInfo, error) {
	return fetch[[]pipeline.KeystoreInfo](ctx, c, http.MethodGet, "/keystores", nil, nil)
}

// Keystore tells of one keystore.
func (c *Client) Keystore(ctx context.Context, name string) (pipeline.KeystoreInfo, error) {
	return fetch[pipeline.KeystoreInfo](ctx, c, http.MethodGet, "/keystores/"+url.PathEscape(name), nil, nil)
}

// AddKeystore takes up a token.
func (c *Client) AddKeystore(ctx context.Context, n pipeline.NewKeystore) (pipeline.KeystoreInfo, error) {
	return fetch[pipeline.KeystoreInfo](ctx, c, http.MethodPost, "/keystores", nil, n)
}

// RemoveKeystore ends the use of a token.
func (c *Client) RemoveKeystore(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodDelete, "/keystores/"+url.PathEscape(name), nil)
}

// TestKeystore signs on a token with a key that it forgets again.
func (c *Client) TestKeystore(ctx context.Context, name string, q pipeline.KeystoreTest) (pipeline.KeystoreReport, error) {
	return fetch[pipeline.KeystoreReport](ctx, c, http.MethodPost, "/keystores/"+url.PathEscape(name)+"/test", nil, q)
}
