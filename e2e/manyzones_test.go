package e2e

import (
	"context"
	"io"
	"testing"
	"time"

	"sluice/cli/metrics"
	"sluice/e2e/manyzones"
)

// Many zones whose keys are due on the same day: their rollovers begin all over
// that day, end in time, and a public server that says nothing holds up only the
// zones that have it. With SLUICE_LONG these are 10,000 zones.
func TestManyZones_KeysDueOnOneDay(t *testing.T) {
	t.Parallel()
	cfg := manyzones.Config{Sluice: program(t), Dir: shortDir(t), Zones: 200, Rate: 500, Log: io.Discard}
	within := 10 * time.Minute
	if long() {
		cfg.Zones, cfg.Rate, within = 10_000, 60, 2*time.Hour
		cfg.Log = t.Output()
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	r, err := manyzones.Run(ctx, cfg)
	if err != nil {
		t.Fatalf("%v\n%s", err, r.Markdown())
	}
	if len(r.Held) != r.Silent {
		t.Errorf("%d zones were held up, want the %d that have the silent server: %v", len(r.Held), r.Silent, r.Held)
	}
	most, hours := r.Busiest()
	if rolled := len(r.Begun); hours < 8 || most > rolled/4 {
		t.Errorf("of %d rollovers %d began in one hour, and all within %d", rolled, most, hours)
	}
	for zone, at := range r.Ended {
		if took := at.Sub(r.Begun[zone]); took > 24*time.Hour {
			t.Errorf("the rollover of %s took %s", zone, took)
		}
	}
	for _, p := range r.Parts {
		// Some 10 KB a zone on top of what one zone takes.
		if most := int64(600<<20) + int64(cfg.Zones)*40<<10; p.Peak > most {
			t.Errorf("%s: %d MiB, want less than %d", p.Name, p.Peak>>20, most>>20)
		}
	}
	// Of more zones those alone have series that need a person.
	if s := r.Scrape; s.Series < 20*cfg.Zones && cfg.Zones <= metrics.DefaultZonesLimit || s.CPU > time.Duration(cfg.Zones)*2*time.Millisecond {
		t.Errorf("a scrape has %d series, %d bytes, and takes %s of CPU", s.Series, s.Bytes, s.CPU)
	}
	t.Log("\n" + r.Markdown())
}
