package api

import (
	"context"
	"net/http"

	"sluice/pipeline"
)

// DistributeKeys asks for keys to be handed to the workers that are to have them.
type DistributeKeys struct {
	Zone string `json:"zone,omitempty"` // "" is all zones
}

func (s *server) distributeKeys(w http.ResponseWriter, r *http.Request) error {
	var q DistributeKeys
	if err := readBody(r, &q); err != nil {
		return err
	}
	list, err := s.engine.DistributeKeys(r.Context(), q.Zone)
	return replyList(w, http.StatusOK, list, err)
}

// DistributeKeys has keys handed to workers now.
func (c *Client) DistributeKeys(ctx context.Context, zone string) ([]pipeline.KeyShare, error) {
	return fetch[[]pipeline.KeyShare](ctx, c, http.MethodPost, "/keys/distribute", nil, DistributeKeys{Zone: zone})
}
