package journal_test

import (
	"context"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/journaltest"
)

func coordinator(t *testing.T, j *journal.NATS) journal.Coordinator {
	t.Helper()
	c, err := j.Coordinator(t.Context(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNATSCoordinator_Conforms(t *testing.T) {
	journaltest.ConformCoordinator(t, func(t *testing.T) journal.Coordinator {
		return coordinator(t, openDir(t, journal.Config{}))
	})
}

// What is asked goes on to be answered, and leases can be taken, after the
// store was opened anew.
func TestNATSCoordinator_OutlivesReopen(t *testing.T) {
	j := openDir(t, journal.Config{})
	c := coordinator(t, j)
	stop, err := c.Answer("to.a", "", func(context.Context, []byte) ([]byte, error) { return []byte("here"), nil })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if _, err := c.TakeLease(t.Context(), "load.1", "a"); err != nil {
		t.Fatal(err)
	}
	if err := j.Reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Ask(t.Context(), "to.a", nil); err != nil || string(got) != "here" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := c.TakeLease(t.Context(), "load.1", "b"); err != nil {
		t.Fatalf("a lease that went with the server: %v", err)
	}
	again, err := j.Coordinator(t.Context(), 0)
	if err != nil || again != c {
		t.Fatalf("a second coordination: %v, %v", again, err)
	}
}
