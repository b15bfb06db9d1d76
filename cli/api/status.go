package api

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"sluice/pipeline"
)

// overview tells how everything is, with at most so many needs as the
// parameter limit says; 0 is all.
func (s *server) overview(w http.ResponseWriter, r *http.Request) error {
	most := 0
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if most, err = strconv.Atoi(text); err != nil || most < 0 {
			return fmt.Errorf("%w: limit %q: want a number, 0 for all", ErrRequest, text)
		}
	}
	o, err := s.engine.Overview(r.Context(), most)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, o)
}

// Overview tells how everything is, with at most so many needs; 0 is all.
func (c *Client) Overview(ctx context.Context, most int) (pipeline.Overview, error) {
	query := url.Values{}
	if most > 0 {
		query.Set("limit", strconv.Itoa(most))
	}
	return fetch[pipeline.Overview](ctx, c, http.MethodGet, "/status", query, nil)
}
