package api

import (
	"context"
	"net/http"
	"net/url"

	"sluice/pipeline"
)

func (s *server) listWorkers(w http.ResponseWriter, r *http.Request) error {
	st, err := s.engine.Workers(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

func (s *server) enrollWorker(w http.ResponseWriter, r *http.Request) error {
	var n pipeline.NewWorker
	if err := readBody(r, &n); err != nil {
		return err
	}
	enrolled, err := s.engine.EnrollWorker(r.Context(), actorOf(r.Context()), n)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, enrolled)
}

func (s *server) removeWorker(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.RemoveWorker(r.Context(), actorOf(r.Context()), r.PathValue("worker")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// Workers lists who may join the journal, and who lives.
func (c *Client) Workers(ctx context.Context) (pipeline.WorkersStatus, error) {
	return fetch[pipeline.WorkersStatus](ctx, c, http.MethodGet, "/workers", nil, nil)
}

// EnrollWorker lets a further process join the journal.
func (c *Client) EnrollWorker(ctx context.Context, n pipeline.NewWorker) (pipeline.Enrolment, error) {
	return fetch[pipeline.Enrolment](ctx, c, http.MethodPost, "/workers", nil, n)
}

// RemoveWorker ends what a worker may do.
func (c *Client) RemoveWorker(ctx context.Context, name string) error {
	return c.act(ctx, http.MethodDelete, "/workers/"+url.PathEscape(name), nil)
}
