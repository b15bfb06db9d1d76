package api

import (
	"context"
	"net/http"
	"net/url"

	"sluice/pipeline"
)

func (s *server) diffPolicy(w http.ResponseWriter, r *http.Request) error {
	plan, err := s.engine.DiffPolicy(r.Context(), r.PathValue("policy"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, plan)
}

func (s *server) putPolicy(w http.ResponseWriter, r *http.Request) error {
	var n pipeline.NewPolicy
	if err := readBody(r, &n); err != nil {
		return err
	}
	plan, err := s.engine.PutPolicy(r.Context(), actorOf(r.Context()), r.PathValue("policy"), n)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, plan)
}

func (s *server) removePolicy(w http.ResponseWriter, r *http.Request) error {
	err := s.engine.RemovePolicy(r.Context(), actorOf(r.Context()), r.PathValue("policy"), r.URL.Query().Get("reason"))
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) outlook(w http.ResponseWriter, r *http.Request) error {
	var wish pipeline.FleetWish
	if err := readBody(r, &wish); err != nil {
		return err
	}
	out, err := s.engine.Outlook(r.Context(), actorOf(r.Context()), wish, !seesSealed(r.Context()))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, out)
}

// policyPath is the path of a policy.
func policyPath(name string) string { return "/policies/" + url.PathEscape(name) }

// DiffPolicy says what reading the policy files again would do to a policy and
// its zones.
func (c *Client) DiffPolicy(ctx context.Context, name string) (pipeline.PolicyPlan, error) {
	return fetch[pipeline.PolicyPlan](ctx, c, http.MethodGet, policyPath(name)+"/diff", nil, nil)
}

// PutPolicy writes a policy into the daemon's policy folder, and binds its zones
// to it.
func (c *Client) PutPolicy(ctx context.Context, name string, n pipeline.NewPolicy) (pipeline.PolicyPlan, error) {
	return fetch[pipeline.PolicyPlan](ctx, c, http.MethodPut, policyPath(name), nil, n)
}

// RemovePolicy removes a policy, which no zone may be bound to, from the
// daemon's policy folder.
func (c *Client) RemovePolicy(ctx context.Context, name, reason string) error {
	query := url.Values{}
	if reason != "" {
		query.Set("reason", reason)
	}
	return c.act(ctx, http.MethodDelete, policyPath(name), query)
}

// Outlook says what would change where a wish came true; nothing changes.
func (c *Client) Outlook(ctx context.Context, wish pipeline.FleetWish) (pipeline.FleetOutlook, error) {
	return fetch[pipeline.FleetOutlook](ctx, c, http.MethodPost, "/outlook", nil, wish)
}
