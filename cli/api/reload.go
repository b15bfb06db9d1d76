package api

import (
	"context"
	"net/http"

	"sluice/pipeline"
)

func (s *server) reloadConfig(w http.ResponseWriter, r *http.Request) error {
	done, err := s.engine.ReloadConfig(r.Context(), actorOf(r.Context()))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, done)
}

// ReloadConfig has the daemon read its config and its policies again.
func (c *Client) ReloadConfig(ctx context.Context) (pipeline.Reloaded, error) {
	return fetch[pipeline.Reloaded](ctx, c, http.MethodPost, "/reload", nil, nil)
}
