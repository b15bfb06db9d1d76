package api

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"sluice/pipeline"
)

// ClockAcceptance goes with the acceptance of a clock.
type ClockAcceptance struct {
	Reason string `json:"reason,omitempty"`
}

// ClockMove moves the clock of a rehearsal.
type ClockMove struct {
	Seconds int64 `json:"seconds"` // negative: back
}

// maxClockMove bounds a move, in seconds: a century.
const maxClockMove = 100 * 366 * 86400

func (s *server) clock(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, s.engine.ClockStatus())
}

func (s *server) acceptClock(w http.ResponseWriter, r *http.Request) error {
	var a ClockAcceptance
	if err := readBody(r, &a); err != nil {
		return err
	}
	st, err := s.engine.AcceptClock(r.Context(), actorOf(r.Context()), a.Reason)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

func (s *server) moveClock(w http.ResponseWriter, r *http.Request) error {
	var m ClockMove
	if err := readBody(r, &m); err != nil {
		return err
	}
	if m.Seconds > maxClockMove || m.Seconds < -maxClockMove {
		return fmt.Errorf("%w: the clock moves by at most %d seconds", ErrRequest, maxClockMove)
	}
	st, err := s.engine.MoveClock(time.Duration(m.Seconds) * time.Second)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, st)
}

// Clock tells how the daemon's clock is.
func (c *Client) Clock(ctx context.Context) (pipeline.ClockStatus, error) {
	return fetch[pipeline.ClockStatus](ctx, c, http.MethodGet, "/clock", nil, nil)
}

// AcceptClock trusts the daemon's clock as it is.
func (c *Client) AcceptClock(ctx context.Context, reason string) (pipeline.ClockStatus, error) {
	return fetch[pipeline.ClockStatus](ctx, c, http.MethodPost, "/clock/accept", nil, ClockAcceptance{Reason: reason})
}

// MoveClock moves the clock of a rehearsal, in whole seconds.
func (c *Client) MoveClock(ctx context.Context, by time.Duration) (pipeline.ClockStatus, error) {
	return fetch[pipeline.ClockStatus](ctx, c, http.MethodPost, "/clock/move", nil, ClockMove{Seconds: int64(by / time.Second)})
}
