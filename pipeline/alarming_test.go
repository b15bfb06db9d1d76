package pipeline

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/journal/journaltest"
	"sluice/pipeline/alarm"
)

func TestAlarms_WhoIsToldChangesWhileTheEngineRuns(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	if _, err := r.e.TestAlarms(t.Context()); !errors.Is(err, ErrState) {
		t.Fatalf("with nobody to tell: %v", err)
	}
	told := filepath.Join(t.TempDir(), "told")
	cfg := alarm.Config{Command: "echo $SLUICE_ALARM_STATE > " + told, Timeout: 10 * time.Second, MinSeverity: "warning", Most: 1}
	apply, err := r.e.PrepareAlarms(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(r.e.AlarmsStatus().Targets); n != 0 {
		t.Errorf("what is only prepared has %d targets", n)
	}
	apply()
	until(t, "the command is told", func() bool { return len(r.e.AlarmsStatus().Targets) == 1 })
	results, err := r.e.TestAlarms(t.Context())
	if err != nil || len(results) != 1 || !results[0].OK {
		t.Fatalf("test: %+v, %v", results, err)
	}
	if text, err := os.ReadFile(told); err != nil || string(text) != alarm.Test+"\n" {
		t.Errorf("told %q, %v", text, err)
	}
	bad := cfg
	bad.Webhook.URL, bad.Webhook.Roots = "https://192.0.2.1/", filepath.Join(t.TempDir(), "none")
	if _, err := r.e.PrepareAlarms(bad); err == nil {
		t.Error("roots that cannot be read are taken")
	}
	if n := len(r.e.AlarmsStatus().Targets); n != 1 {
		t.Errorf("%d targets after a config that was refused", n)
	}
}
