package pipeline

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/journaltest"
)

// A list says of a zone what its status says.
func TestFindZones_SaysWhatTheStatusSays(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	same := func(when string) {
		t.Helper()
		status, err := r.e.Zone(t.Context(), "example.com")
		if err != nil {
			t.Fatal(err)
		}
		zones, err := r.e.FindZones(t.Context(), ZoneQuery{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]ZoneSummary{status.ZoneSummary}, zones); diff != "" {
			t.Errorf("%s: %s", when, diff)
		}
	}
	r.add(smallZone)
	same("published")
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", true, "moving"); err != nil {
		t.Fatal(err)
	}
	same("in maintenance")
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", false, ""); err != nil {
		t.Fatal(err)
	}
	r.reload("no zone file")
	same("its load failed")
}

func TestFindZones_WantsASeverityThatThereIs(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	if _, err := r.e.FindZones(t.Context(), ZoneQuery{Severity: "loud"}); !errors.Is(err, ErrInvalid) {
		t.Errorf("error %v", err)
	}
}
