package api

import (
	"context"
	"net/http"

	"sluice/journal"
)

func (s *server) cluster(w http.ResponseWriter, r *http.Request) error {
	st, err := s.engine.ClusterStatus(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

// Cluster tells of the servers that keep the journal.
func (c *Client) Cluster(ctx context.Context) (journal.ClusterStatus, error) {
	return fetch[journal.ClusterStatus](ctx, c, http.MethodGet, "/cluster", nil, nil)
}
