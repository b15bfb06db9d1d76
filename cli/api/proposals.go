package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"sluice/journal/event"
	"sluice/pipeline"
)

func (s *server) recallApproval(w http.ResponseWriter, r *http.Request) error {
	return s.recall(w, r, event.ProposeApprove)
}

func (s *server) recallOverride(w http.ResponseWriter, r *http.Request) error {
	return s.recall(w, r, event.ProposeOverride)
}

func (s *server) recallRollback(w http.ResponseWriter, r *http.Request) error {
	return s.recall(w, r, event.ProposeRollback)
}

func (s *server) recallPolicy(w http.ResponseWriter, r *http.Request) error {
	return s.recall(w, r, event.ProposePolicy)
}

// recall takes back what was proposed; the stage is that of the path, if any.
func (s *server) recall(w http.ResponseWriter, r *http.Request, action string) error {
	status, err := s.engine.Recall(r.Context(), actorOf(r.Context()), r.PathValue("zone"), action, r.PathValue("stage"), r.URL.Query().Get("reason"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

// Recall takes back what was proposed and waits for a second person.
func (c *Client) Recall(ctx context.Context, name string, p pipeline.ProposalStatus, reason string) (pipeline.ZoneStatus, error) {
	var path string
	switch p.Action {
	case event.ProposeApprove, event.ProposeOverride:
		path = zonePath(name, "reviews", p.Stage, p.Action)
	case event.ProposeRollback, event.ProposePolicy:
		path = zonePath(name, p.Action)
	default:
		return pipeline.ZoneStatus{}, fmt.Errorf("%w: this program does not know the proposal %q", ErrRequest, p.Action)
	}
	query := url.Values{}
	if reason != "" {
		query.Set("reason", reason)
	}
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodDelete, path, query, nil)
}
