package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"sluice/pipeline"
)

// AbortRollover asks for a rollover to be aborted.
type AbortRollover struct {
	Rollover uint64 `json:"rollover,omitempty"` // 0: the only one that runs
	Reason   string `json:"reason,omitempty"`
}

func (s *server) listRollovers(w http.ResponseWriter, r *http.Request) error {
	list, err := s.engine.Rollovers(r.Context(), r.PathValue("zone"))
	return replyList(w, http.StatusOK, list, err)
}

func (s *server) roll(w http.ResponseWriter, r *http.Request) error {
	var q pipeline.RolloverRequest
	if err := readBody(r, &q); err != nil {
		return err
	}
	status, err := s.engine.Roll(r.Context(), actorOf(r.Context()), r.PathValue("zone"), q)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, status)
}

func (s *server) abortRollover(w http.ResponseWriter, r *http.Request) error {
	var q AbortRollover
	if err := readBody(r, &q); err != nil {
		return err
	}
	status, err := s.engine.AbortRollover(r.Context(), actorOf(r.Context()), r.PathValue("zone"), q.Rollover, q.Reason)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

func (s *server) reportStep(w http.ResponseWriter, r *http.Request) error {
	var q pipeline.StepReport
	if err := readBody(r, &q); err != nil {
		return err
	}
	status, err := s.engine.ReportStep(r.Context(), actorOf(r.Context()), r.PathValue("zone"), q)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

func (s *server) keyPlan(w http.ResponseWriter, r *http.Request) error {
	until, err := timeParam(r, "until")
	if err != nil {
		return err
	}
	plan, err := s.engine.KeyPlan(r.Context(), r.PathValue("zone"), until)
	return replyList(w, http.StatusOK, plan, err)
}

func (s *server) removeKey(w http.ResponseWriter, r *http.Request) error {
	status, err := s.engine.RemoveKey(r.Context(), actorOf(r.Context()), r.PathValue("zone"), r.PathValue("key"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

// Rollovers lists the rollovers of a zone that run.
func (c *Client) Rollovers(ctx context.Context, name string) ([]pipeline.RolloverStatus, error) {
	return fetch[[]pipeline.RolloverStatus](ctx, c, http.MethodGet, zonePath(name, "rollovers"), nil, nil)
}

// Roll begins a rollover.
func (c *Client) Roll(ctx context.Context, name string, q pipeline.RolloverRequest) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "rollovers"), nil, q)
}

// AbortRollover ends a rollover, or has it go the way back.
func (c *Client) AbortRollover(ctx context.Context, name string, q AbortRollover) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "rollovers", "abort"), nil, q)
}

// ReportStep tells what a person has seen, or lets the next step begin.
func (c *Client) ReportStep(ctx context.Context, name string, q pipeline.StepReport) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodPost, zonePath(name, "rollovers", "report"), nil, q)
}

// KeyPlan lists what will happen to a zone's keys, up to a time; zero is no
// bound.
func (c *Client) KeyPlan(ctx context.Context, name string, until time.Time) ([]pipeline.PlannedStep, error) {
	query := url.Values{}
	if !until.IsZero() {
		query.Set("until", formatTime(until))
	}
	return fetch[[]pipeline.PlannedStep](ctx, c, http.MethodGet, zonePath(name, "rollovers", "plan"), query, nil)
}

// RemoveKey takes a key out that is not in use.
func (c *Client) RemoveKey(ctx context.Context, name, id string) (pipeline.ZoneStatus, error) {
	return fetch[pipeline.ZoneStatus](ctx, c, http.MethodDelete, zonePath(name, "keys", id), nil, nil)
}
