package api

import (
	"context"
	"net/http"

	"sluice/pipeline"
)

// compactJournal streams progress; the one item is the report.
func (s *server) compactJournal(w http.ResponseWriter, r *http.Request) error {
	var q pipeline.CompactQuery
	if err := readBody(r, &q); err != nil {
		return err
	}
	return streamFrames(w, true, func(f *frames) error {
		report, err := s.engine.Compact(r.Context(), actorOf(r.Context()), q, f.progress)
		if err != nil {
			return err
		}
		return f.item(report)
	})
}

// CompactJournal applies retention now. It goes on until it is done, or until ctx
// ends.
func (c *Client) CompactJournal(ctx context.Context, q pipeline.CompactQuery, progress func(pipeline.Progress)) (report pipeline.CompactReport, err error) {
	res, err := c.do(ctx, http.MethodPost, "/journal/compact", nil, q)
	if err != nil {
		return report, err
	}
	defer res.Body.Close()
	err = walkFrames(ctx, c, res.Body, progress, func(item pipeline.CompactReport) error {
		report = item
		return nil
	})
	return report, err
}
