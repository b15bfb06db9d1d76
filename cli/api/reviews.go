package api

import (
	"context"
	"net/http"

	"sluice/pipeline"
)

// Reason is why a person asks for something.
type Reason struct {
	Reason string `json:"reason,omitempty"`
}

// SetMaintenance blocks new work on a zone, or lets it go on.
type SetMaintenance struct {
	Enabled bool   `json:"enabled"`
	Reason  string `json:"reason,omitempty"`
}

func (s *server) approve(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, func(v pipeline.NewVerdict) (pipeline.ZoneStatus, error) {
		return s.engine.Approve(r.Context(), actorOf(r.Context()), r.PathValue("zone"), r.PathValue("stage"), v)
	})
}

func (s *server) reject(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, func(v pipeline.NewVerdict) (pipeline.ZoneStatus, error) {
		return s.engine.Reject(r.Context(), actorOf(r.Context()), r.PathValue("zone"), r.PathValue("stage"), v)
	})
}

func (s *server) override(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, func(d pipeline.NewDecision) (pipeline.ZoneStatus, error) {
		return s.engine.Override(r.Context(), actorOf(r.Context()), r.PathValue("zone"), r.PathValue("stage"), d)
	})
}

func (s *server) reset(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, func(d pipeline.NewDecision) (pipeline.ZoneStatus, error) {
		return s.engine.Reset(r.Context(), actorOf(r.Context()), r.PathValue("zone"), d)
	})
}

func (s *server) maintenance(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, func(v SetMaintenance) (pipeline.ZoneStatus, error) {
		return s.engine.SetMaintenance(r.Context(), actorOf(r.Context()), r.PathValue("zone"), v.Enabled, v.Reason)
	})
}

// act reads a body, does what it asks for and answers with the zone's status.
func act[T any](w http.ResponseWriter, r *http.Request, fn func(T) (pipeline.ZoneStatus, error)) error {
	var body T
	if err := readBody(r, &body); err != nil {
		return err
	}
	status, err := fn(body)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

// Approve gives a good verdict on the instance under review; stage is loaded
// or signed.
func (c *Client) Approve(ctx context.Context, name, stage string, v pipeline.NewVerdict) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "reviews", stage, "approve"), nil, v)
}

// Reject gives a bad verdict on the instance under review.
func (c *Client) Reject(ctx context.Context, name, stage string, v pipeline.NewVerdict) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "reviews", stage, "reject"), nil, v)
}

// Override passes what is under review, or what halted the zone.
func (c *Client) Override(ctx context.Context, name, stage string, d pipeline.NewDecision) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "reviews", stage, "override"), nil, d)
}

// Reset ends a halt and drops what led to it.
func (c *Client) Reset(ctx context.Context, name string, d pipeline.NewDecision) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "reset"), nil, d)
}

// SetMaintenance blocks new work on a zone, or lets it go on.
func (c *Client) SetMaintenance(ctx context.Context, name string, v SetMaintenance) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "maintenance"), nil, v)
}
