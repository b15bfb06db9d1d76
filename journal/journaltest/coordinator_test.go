package journaltest_test

import (
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/journaltest"
)

func TestCoordinator_Conforms(t *testing.T) {
	journaltest.ConformCoordinator(t, func(*testing.T) journal.Coordinator { return journaltest.NewCoordinator(200 * time.Millisecond) })
}
