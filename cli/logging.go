package cli

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/journal"
)

// logFormat is how the daemon writes its log.
type logFormat string

// The formats of the log.
const (
	logAuto     logFormat = "auto" // journald where standard error goes there, else text
	logText     logFormat = "text"
	logJSON     logFormat = "json"
	logJournald logFormat = "journald"
)

// UnmarshalText implements encoding.TextUnmarshaler.
func (f *logFormat) UnmarshalText(text []byte) error {
	if !slices.Contains([]logFormat{logAuto, logText, logJSON, logJournald}, logFormat(text)) {
		return fmt.Errorf("log format %q: want auto, text, json or journald", text)
	}
	*f = logFormat(text)
	return nil
}

// newLogger makes the daemon's log: on w, or in the systemd journal.
func newLogger(w io.Writer, format logFormat, level *slog.LevelVar) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == logAuto {
		format = logText
		if to, err := journal.StderrIsJournalStream(); err == nil && to && journal.Enabled() {
			format = logJournald
		}
	}
	switch format {
	case logJSON:
		return slog.New(slog.NewJSONHandler(w, opts))
	case logJournald:
		return slog.New(&journald{level: level, send: journal.Send, otherwise: slog.NewTextHandler(w, opts)})
	case logText, logAuto:
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// journald is a slog.Handler that speaks the systemd journal's own protocol:
// each attribute is a field, so that journalctl ZONE=example.com. finds all
// that is about a zone. The message has them too, for people.
type journald struct {
	level slog.Leveler
	send  func(message string, priority journal.Priority, vars map[string]string) error
	// otherwise takes what the journal does not.
	otherwise slog.Handler
	attrs     []slog.Attr // with the prefixes of their groups
	prefix    string      // of the open groups
}

// Enabled implements slog.Handler.
func (j *journald) Enabled(_ context.Context, l slog.Level) bool { return l >= j.level.Level() }

// Handle implements slog.Handler.
func (j *journald) Handle(ctx context.Context, r slog.Record) error {
	vars := map[string]string{"SYSLOG_IDENTIFIER": "sluice"}
	var text strings.Builder
	text.WriteString(r.Message)
	add := func(a slog.Attr) {
		value := a.Value.Resolve().String()
		vars[journalField(a.Key)] = value
		fmt.Fprintf(&text, " %s=%s", a.Key, quoted(value))
	}
	for _, a := range j.attrs {
		add(a)
	}
	r.Attrs(func(a slog.Attr) bool {
		for _, flat := range flatten(j.prefix, a) {
			add(flat)
		}
		return true
	})
	priority := journal.PriDebug
	switch {
	case r.Level >= slog.LevelError:
		priority = journal.PriErr
	case r.Level >= slog.LevelWarn:
		priority = journal.PriWarning
	case r.Level >= slog.LevelInfo:
		priority = journal.PriInfo
	}
	if err := j.send(text.String(), priority, vars); err != nil {
		return j.otherwise.Handle(ctx, r)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (j *journald) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *j
	next.attrs = slices.Clone(j.attrs)
	for _, a := range attrs {
		next.attrs = append(next.attrs, flatten(j.prefix, a)...)
	}
	next.otherwise = j.otherwise.WithAttrs(attrs)
	return &next
}

// WithGroup implements slog.Handler.
func (j *journald) WithGroup(name string) slog.Handler {
	next := *j
	if name != "" {
		next.prefix += name + "."
	}
	next.otherwise = j.otherwise.WithGroup(name)
	return &next
}

// flatten is an attribute without groups: their names are prefixes.
func flatten(prefix string, a slog.Attr) []slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		if a.Equal(slog.Attr{}) {
			return nil
		}
		return []slog.Attr{{Key: prefix + a.Key, Value: v}}
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	var out []slog.Attr
	for _, inner := range v.Group() {
		out = append(out, flatten(prefix, inner)...)
	}
	return out
}

// journalField is the field of the systemd journal for a key: upper case, and
// none of those that mean something to the journal itself.
func journalField(key string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, key)
	taken := []string{
		"MESSAGE", "MESSAGE_ID", "PRIORITY", "ERRNO", "CODE_FILE", "CODE_LINE", "CODE_FUNC", "INVOCATION_ID", "USER_INVOCATION_ID",
		"DOCUMENTATION", "TID", "UNIT", "USER_UNIT",
	}
	if name == "" || name[0] == '_' || name[0] >= '0' && name[0] <= '9' || strings.HasPrefix(name, "SYSLOG_") || slices.Contains(taken, name) {
		name = "SLUICE_" + name
	}
	return name[:min(len(name), 64)]
}

// quoted puts a value in quotes where it would not be told apart without.
func quoted(value string) string {
	if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r == '"' || r == '=' || r == 0x7f || r == 0xfffd }) {
		return strconv.Quote(value)
	}
	return value
}
