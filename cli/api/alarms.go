package api

import (
	"context"
	"net/http"

	"sluice/pipeline"
	"sluice/pipeline/alarm"
)

func (s *server) listAlarms(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, s.engine.AlarmsStatus())
}

func (s *server) testAlarms(w http.ResponseWriter, r *http.Request) error {
	results, err := s.engine.TestAlarms(r.Context())
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, results)
}

// AlarmsStatus tells whom the daemon tells of what needs a person.
func (c *Client) AlarmsStatus(ctx context.Context) (pipeline.AlarmsStatus, error) {
	return fetch[pipeline.AlarmsStatus](ctx, c, http.MethodGet, "/alarms", nil, nil)
}

// TestAlarms sends a test wherever the daemon tells of alarms.
func (c *Client) TestAlarms(ctx context.Context) ([]alarm.TestResult, error) {
	return fetch[[]alarm.TestResult](ctx, c, http.MethodPost, "/alarms/test", nil, nil)
}
