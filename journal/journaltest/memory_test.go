package journaltest

import (
	"testing"

	"go.uber.org/goleak"

	"sluice/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemory_Conforms(t *testing.T) {
	Conform(t, func(*testing.T) journal.Journal { return New() })
}
