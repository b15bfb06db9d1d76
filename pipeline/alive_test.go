package pipeline

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/journal/journaltest"
)

func TestAlive_AnEngineAtWorkAnswers(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	for range 3 {
		if err := r.e.Alive(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if seq, zones := r.e.Folded(); seq == 0 || zones != 1 {
		t.Errorf("folded up to %d, %d zones", seq, zones)
	}
}

// A zone whose lock is never given back is what a watchdog is there for.
func TestAlive_AZoneThatHangsIsNamed(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	r.add(smallZone)
	stuck := r.e.allRunners()[0]
	stuck.mu.Lock()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	err := r.e.Alive(ctx)
	if !errors.Is(err, errNoAnswer) || !strings.Contains(err.Error(), "states of the zones") {
		t.Errorf("alive says %v", err)
	}
	// While that look hangs, no further one is begun.
	if err := r.e.Alive(t.Context()); !errors.Is(err, errNoAnswer) {
		t.Errorf("the second time alive says %v", err)
	}
	stuck.mu.Unlock()
	until(t, "it answers again", func() bool { return r.e.Alive(t.Context()) == nil })
}

func TestPulse_AFoldThatStandsStill(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, test := range []struct {
		name  string
		beats func(p *pulse) error
		want  bool
	}{
		{"gets on", func(p *pulse) error {
			return errors.Join(p.beat(7, false, now), p.beat(8, false, now.Add(2*foldStuck)))
		}, false},
		{"has nothing to do", func(p *pulse) error {
			return errors.Join(p.beat(7, true, now), p.beat(7, true, now.Add(2*foldStuck)))
		}, false},
		{"takes its time", func(p *pulse) error {
			return errors.Join(p.beat(7, false, now), p.beat(7, false, now.Add(foldStuck)))
		}, false},
		{"had nothing to do until now", func(p *pulse) error {
			return errors.Join(p.beat(7, true, now), p.beat(7, false, now.Add(2*foldStuck)))
		}, false},
		{"stands still", func(p *pulse) error {
			return errors.Join(p.beat(7, false, now), p.beat(7, false, now.Add(foldStuck+time.Second)))
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.beats(new(pulse)); (err != nil) != test.want {
				t.Errorf("error %v, want one: %t", err, test.want)
			}
		})
	}
}
