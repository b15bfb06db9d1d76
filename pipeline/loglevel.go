package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"sluice/journal/event"
)

// ParseLogLevel reads debug, info, warn or error. Errors: ErrInvalid.
func ParseLogLevel(text string) (slog.Level, error) {
	switch text {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("%w: log level %q: want debug, info, warn or error", ErrInvalid, text)
}

// LogLevel is what this process logs; "" where that cannot be told.
func (e *Engine) LogLevel() string {
	if e.cfg.LogLevel == nil {
		return ""
	}
	return strings.ToLower(e.cfg.LogLevel.Level().String())
}

// SetLogLevel changes what this process logs, until it ends, and returns what it
// logged before. Errors: ErrInvalid, ErrState (it is not ours to change).
func (e *Engine) SetLogLevel(ctx context.Context, actor event.Actor, text string) (was string, err error) {
	level, err := ParseLogLevel(text)
	if err != nil {
		return "", err
	}
	if e.cfg.LogLevel == nil {
		return "", errorState("the log level of this process cannot be changed")
	}
	was = e.LogLevel()
	// Who makes the log silent stands in it.
	told := e.log.Enabled(ctx, slog.LevelWarn)
	tell := func() {
		e.log.WarnContext(ctx, "log level changed", "from", was, "to", text, "actor", actor.Name, "door", actor.Door)
	}
	if told {
		tell()
	}
	e.cfg.LogLevel.Set(level)
	if !told {
		tell()
	}
	return was, nil
}
