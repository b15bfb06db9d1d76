package api

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/pipeline"
)

// TokenPrefix is what every token begins with, so that one that stands where it
// should not is found.
const TokenPrefix = "sluice_"

// MakeToken makes a token of 256 random bits, and what the daemon is to know of
// it: the hash of its text.
func MakeToken() (text string, hash event.Hash) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // it never fails
	text = TokenPrefix + base64.RawURLEncoding.EncodeToString(secret[:])
	return text, sha256.Sum256([]byte(text))
}

// GrantedToken is a token that was made.
type GrantedToken struct {
	pipeline.TokenInfo
	// Secret is the token's text where the daemon made it; it is shown this once.
	Secret string `json:"secret,omitempty"`
}

func (s *server) listTokens(w http.ResponseWriter, r *http.Request) error {
	tokens, err := s.engine.Tokens(r.Context())
	return replyList(w, http.StatusOK, tokens, err)
}

func (s *server) addToken(w http.ResponseWriter, r *http.Request) error {
	var n pipeline.NewToken
	if err := readBody(r, &n); err != nil {
		return err
	}
	for _, role := range n.Roles {
		if !slices.Contains(Roles(), Role(role)) {
			return fmt.Errorf("%w: role %q is none of %s", pipeline.ErrInvalid, role, roleList(Roles()))
		}
	}
	var out GrantedToken
	if n.SHA256 == nil {
		var hash event.Hash
		out.Secret, hash = MakeToken()
		n.SHA256 = &hash
	}
	var err error
	if out.TokenInfo, err = s.engine.GrantAccess(r.Context(), actorOf(r.Context()), n); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	return reply(w, http.StatusCreated, out)
}

func (s *server) removeToken(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.WithdrawAccess(r.Context(), actorOf(r.Context()), r.PathValue("token")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// ParseTokenRoles reads roles that are separated by commas.
func ParseTokenRoles(list string) ([]string, error) {
	var out []string
	for word := range strings.SplitSeq(list, ",") {
		word = strings.TrimSpace(word)
		if !slices.Contains(Roles(), Role(word)) {
			return nil, fmt.Errorf("role %q: want some of %s", word, roleList(Roles()))
		}
		out = append(out, word)
	}
	return out, nil
}

// Tokens lists who may use the API over the network.
func (c *Client) Tokens(ctx context.Context) ([]pipeline.TokenInfo, error) {
	return fetch[[]pipeline.TokenInfo](ctx, c, http.MethodGet, "/tokens", nil, nil)
}

// AddToken makes a token known.
func (c *Client) AddToken(ctx context.Context, n pipeline.NewToken) (GrantedToken, error) {
	return fetch[GrantedToken](ctx, c, http.MethodPost, "/tokens", nil, n)
}

// RemoveToken ends what a token may do.
func (c *Client) RemoveToken(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodDelete, "/tokens/"+url.PathEscape(name), nil)
}
