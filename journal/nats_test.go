package journal_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"sluice/journal"
	"sluice/journal/journaltest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if servers.dir != "" {
			_ = os.RemoveAll(servers.dir) // a temporary folder
		}
		os.Exit(code)
	}))
}

func openDir(t testing.TB, cfg journal.Config) *journal.NATS {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	j, err := journal.Open(t.Context(), cfg)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { j.Close() }) //nolint:errcheck // a test may have closed it
	return j
}

func TestNATS_Conforms(t *testing.T) {
	journaltest.Conform(t, func(t *testing.T) journal.Journal { return openDir(t, journal.Config{}) })
}
