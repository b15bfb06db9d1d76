package api

import (
	"context"
	"net/http"
)

// LogLevel is what the daemon logs.
type LogLevel struct {
	Level string `json:"level"` // debug, info, warn, error
	// Was is the level before, where it was changed.
	Was string `json:"was,omitempty"`
}

// NewLogLevel is what it is to log.
type NewLogLevel struct {
	Level string `json:"level"`
}

func (s *server) logLevel(w http.ResponseWriter, _ *http.Request) error {
	return reply(w, http.StatusOK, LogLevel{Level: s.engine.LogLevel()})
}

func (s *server) setLogLevel(w http.ResponseWriter, r *http.Request) error {
	var l NewLogLevel
	if err := readBody(r, &l); err != nil {
		return err
	}
	was, err := s.engine.SetLogLevel(r.Context(), actorOf(r.Context()), l.Level)
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, LogLevel{Level: s.engine.LogLevel(), Was: was})
}

// LogLevel tells what the daemon logs.
func (c *Client) LogLevel(ctx context.Context) (LogLevel, error) {
	return fetch[LogLevel](ctx, c, http.MethodGet, "/log-level", nil, nil)
}

// SetLogLevel changes what the daemon logs, until it ends.
func (c *Client) SetLogLevel(ctx context.Context, level string) (LogLevel, error) {
	return fetch[LogLevel](ctx, c, http.MethodPut, "/log-level", nil, NewLogLevel{Level: level})
}
