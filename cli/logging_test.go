package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/coreos/go-systemd/v22/journal"
	"github.com/google/go-cmp/cmp"
)

// sentToJournal is what the systemd journal was given.
type sentToJournal struct {
	message  string
	priority journal.Priority
	vars     map[string]string
}

func TestJournald_AttributesAreFields(t *testing.T) {
	var got sentToJournal
	var level slog.LevelVar
	send := func(message string, priority journal.Priority, vars map[string]string) error {
		got = sentToJournal{message, priority, vars}
		return nil
	}
	log := slog.New(&journald{level: &level, send: send, otherwise: slog.DiscardHandler}).With("part", "api")
	log.WithGroup("peer").Error("transfer refused", "zone", "example.com.", "error", errors.New("no such key"), slog.Group("tls", "pin", 7))
	want := sentToJournal{
		`transfer refused part=api peer.zone=example.com. peer.error="no such key" peer.tls.pin=7`, journal.PriErr,
		map[string]string{
			"SYSLOG_IDENTIFIER": "sluice", "PART": "api", "PEER_ZONE": "example.com.", "PEER_ERROR": "no such key", "PEER_TLS_PIN": "7",
		},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sentToJournal{})); diff != "" {
		t.Error(diff)
	}
	for _, tt := range []struct {
		level    slog.Level
		priority journal.Priority
	}{{slog.LevelInfo, journal.PriInfo}, {slog.LevelWarn, journal.PriWarning}} {
		log.Log(t.Context(), tt.level, "x")
		if got.priority != tt.priority {
			t.Errorf("%s has the priority %d", tt.level, got.priority)
		}
	}
	got = sentToJournal{}
	log.Debug("not wanted")
	if got.message != "" {
		t.Errorf("a debug line at level info: %q", got.message)
	}
	level.Set(slog.LevelDebug)
	if log.Debug("wanted"); got.message != "wanted part=api" || got.priority != journal.PriDebug {
		t.Errorf("after the level changed: %+v", got)
	}
}

func TestJournald_FieldsOfTheJournalItselfAreNotOverwritten(t *testing.T) {
	for key, want := range map[string]string{
		"zone": "ZONE", "again_in": "AGAIN_IN", "priority": "SLUICE_PRIORITY", "message": "SLUICE_MESSAGE", "_uid": "SLUICE__UID",
		"1st": "SLUICE_1ST", "syslog_facility": "SLUICE_SYSLOG_FACILITY", "": "SLUICE_", "ä": "SLUICE__", "unit": "SLUICE_UNIT",
	} {
		if got := journalField(key); got != want {
			t.Errorf("%q becomes %q, want %q", key, got, want)
		}
	}
}

// What the journal does not take is not lost.
func TestJournald_FallsBackToText(t *testing.T) {
	var level slog.LevelVar
	var b bytes.Buffer
	send := func(string, journal.Priority, map[string]string) error { return errors.New("no journal") }
	log := slog.New(&journald{level: &level, send: send, otherwise: slog.NewTextHandler(&b, nil)}).With("part", "api")
	log.Info("zone added", "zone", "example.com.")
	if !strings.Contains(b.String(), `msg="zone added" part=api zone=example.com.`) {
		t.Errorf("logged %q", b.String())
	}
}

func TestLogger_Formats(t *testing.T) {
	var level slog.LevelVar
	for _, format := range []logFormat{logText, logAuto, logJSON} {
		var b bytes.Buffer
		newLogger(&b, format, &level).Warn("command failed", "zone", "example.com.")
		var line map[string]any
		err := json.Unmarshal(b.Bytes(), &line)
		if isJSON := err == nil && line["zone"] == "example.com."; isJSON != (format == logJSON) || !strings.Contains(b.String(), "example.com.") {
			t.Errorf("%s: %q", format, b.String())
		}
	}
}
