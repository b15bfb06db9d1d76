package api

import (
	"context"
	"net/http"

	"sluice/pipeline"
)

// rollback answers with the plan; done in it says whether it was carried out.
func (s *server) rollback(w http.ResponseWriter, r *http.Request) error {
	var q pipeline.RollbackRequest
	if err := readBody(r, &q); err != nil {
		return err
	}
	plan, err := s.engine.Rollback(r.Context(), actorOf(r.Context()), r.PathValue("zone"), q)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, plan)
}

func (s *server) release(w http.ResponseWriter, r *http.Request) error {
	return act(w, r, func(v Reason) (pipeline.ZoneStatus, error) {
		return s.engine.Release(r.Context(), actorOf(r.Context()), r.PathValue("zone"), v.Reason)
	})
}

// Rollback publishes an earlier version's content anew. Where DS or NS records
// differ and the request does not confirm it, the plan that comes back is not
// done and shows them.
func (c *Client) Rollback(ctx context.Context, name string, q pipeline.RollbackRequest) (pipeline.RollbackPlan, error) {
	return fetch[pipeline.RollbackPlan](ctx, c, http.MethodPost, zonePath(name, "rollback"), nil, q)
}

// Release ends a hold.
func (c *Client) Release(ctx context.Context, name, reason string) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "release"), nil, Reason{Reason: reason})
}
