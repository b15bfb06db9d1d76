package alarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// world is what is so, and what was told of it.
type world struct {
	mu     sync.Mutex
	now    []Alarm   // guarded by mu
	fails  error     // guarded by mu; of every message
	told   []Message // guarded by mu
	env    []string  // guarded by mu; of the last one
	tries  int       // guarded by mu
	slowly chan struct{}
}

func (w *world) set(all ...Alarm) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = all
}

func (w *world) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fails = err
}

func (w *world) current(context.Context) ([]Alarm, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.now), true
}

func (w *world) run(ctx context.Context, _ string, env []string) error {
	if w.slowly != nil {
		select {
		case <-w.slowly:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries++
	if w.fails != nil {
		return w.fails
	}
	get := func(name string) string {
		for _, v := range env {
			if text, ok := strings.CutPrefix(v, "SLUICE_ALARM_"+name+"="); ok {
				return text
			}
		}
		return "?"
	}
	w.env = env
	w.told = append(w.told, Message{State: get("STATE"), Zone: get("ZONE"), Code: get("CODE"), Severity: get("SEVERITY"), Text: get("TEXT")})
	return nil
}

// lines empties what was told.
func (w *world) lines() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := []string{}
	for _, m := range w.told {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", m.State, m.Severity, m.Zone, m.Code)))
	}
	w.told = nil
	return out
}

func (w *world) config() Config {
	return Config{
		Command: "page", RunCommand: w.run, MinSeverity: "warning", Delay: time.Minute, Most: 3,
		Current: w.current, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}
}

// sends runs a sender in a bubble while fn looks on.
func sends(t *testing.T, w *world, cfg Config, fn func(s *Sender)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			s.Run(ctx)
			close(done)
		}()
		fn(s)
		stop()
		<-done
	})
}

// after lets time go by, and returns what was told.
func (w *world) after(d time.Duration) []string {
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
	return w.lines()
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if want == nil {
		want = []string{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +told):\n%s", what, diff)
	}
}

var (
	late   = Alarm{Zone: "a.example.", Code: "expiry-near", Severity: "warning", Text: "soon", Hint: "do"}
	broken = Alarm{Zone: "b.example.", Code: "sign-failed", Severity: "alarm", Text: "broken", Hint: "mend"}
)

func TestSender_RaisesOnceAndClearsOnce(t *testing.T) {
	w := &world{}
	sends(t, w, w.config(), func(*Sender) {
		w.set(late)
		expect(t, "before the delay", w.after(50*time.Second))
		expect(t, "after it", w.after(20*time.Second), "raised warning a.example. expiry-near")
		expect(t, "later", w.after(time.Hour))
		w.set()
		expect(t, "gone for a moment", w.after(50*time.Second))
		expect(t, "gone for longer", w.after(20*time.Second), "cleared warning a.example. expiry-near")
		expect(t, "later still", w.after(time.Hour))
	})
}

// What comes and goes faster than the delay is not told.
func TestSender_FlappingIsNotTold(t *testing.T) {
	w := &world{}
	sends(t, w, w.config(), func(*Sender) {
		for range 20 {
			w.set(late)
			expect(t, "while it is so", w.after(30*time.Second))
			w.set()
			expect(t, "while it is not", w.after(70*time.Second))
		}
		w.set(late)
		expect(t, "when it stays", w.after(70*time.Second), "raised warning a.example. expiry-near")
		for range 20 {
			w.set()
			expect(t, "gone for a moment", w.after(30*time.Second))
			w.set(late)
			expect(t, "back", w.after(70*time.Second))
		}
	})
}

func TestSender_TellsWhatBecomesWorseAndRepeats(t *testing.T) {
	w := &world{}
	cfg := w.config()
	cfg.Repeat = 6 * time.Hour
	sends(t, w, cfg, func(*Sender) {
		w.set(late)
		expect(t, "first", w.after(70*time.Second), "raised warning a.example. expiry-near")
		worse := late
		worse.Severity = "alarm"
		w.set(worse)
		expect(t, "worse", w.after(70*time.Second), "raised alarm a.example. expiry-near")
		expect(t, "five hours later", w.after(5*time.Hour))
		expect(t, "seven hours later", w.after(2*time.Hour), "raised alarm a.example. expiry-near")
		if !slices.Contains(w.env, "SLUICE_ALARM_REPEATED=true") || !slices.Contains(w.env, "SLUICE_ALARM_HINT=do") {
			t.Errorf("environment %q", w.env)
		}
	})
}

func TestSender_MinSeverityLeavesOutWarnings(t *testing.T) {
	w := &world{}
	cfg := w.config()
	cfg.MinSeverity = "alarm"
	sends(t, w, cfg, func(*Sender) {
		w.set(late, broken)
		expect(t, "one of two", w.after(2*time.Minute), "raised alarm b.example. sign-failed")
	})
}

// A restart tells nothing again, and does not clear what it cannot know yet.
func TestSender_RestartTellsNothingTwice(t *testing.T) {
	w := &world{}
	cfg := w.config()
	cfg.File = filepath.Join(t.TempDir(), "alarms.json")
	sends(t, w, cfg, func(*Sender) {
		w.set(late, broken)
		expect(t, "at first", w.after(2*time.Minute), "raised alarm b.example. sign-failed", "raised warning a.example. expiry-near")
	})
	w.set(broken) // late is not known for a while after the start
	sends(t, w, cfg, func(s *Sender) {
		expect(t, "at the start", w.after(100*time.Second))
		w.set(late, broken)
		expect(t, "later", w.after(time.Hour))
		w.set(broken)
		expect(t, "when one is gone", w.after(2*time.Minute), "cleared warning a.example. expiry-near")
		if st := s.Status(); len(st) != 1 || len(st[0].Told) != 1 || st[0].Told[0].Code != "sign-failed" {
			t.Errorf("status %+v", st)
		}
	})
}

// While a target fails nothing piles up: it is told how things are then.
func TestSender_ATargetThatWasAwayIsToldWhatIsSo(t *testing.T) {
	w := &world{}
	w.fail(errors.New("no way there"))
	sends(t, w, w.config(), func(s *Sender) {
		w.set(late)
		expect(t, "while it fails", w.after(30*time.Minute))
		if f := s.Faults(); len(f) != 1 || !strings.Contains(f[0], "no way there") {
			t.Errorf("faults %q", f)
		}
		w.mu.Lock()
		tries := w.tries
		w.mu.Unlock()
		if tries < 5 || tries > 15 {
			t.Errorf("%d tries in half an hour", tries)
		}
		w.set(broken) // and late is gone: nobody ever knew of it
		w.after(5 * time.Minute)
		w.fail(nil)
		expect(t, "when it is back", w.after(15*time.Minute), "raised alarm b.example. sign-failed")
		if len(s.Faults()) != 0 {
			t.Errorf("faults %q", s.Faults())
		}
	})
}

func TestSender_ATestThatFailedIsToldUntilSomethingGetsThere(t *testing.T) {
	w := &world{}
	w.fail(errors.New("no way there"))
	sends(t, w, w.config(), func(s *Sender) {
		if s.Test(t.Context())[0].OK {
			t.Fatal("the test got there")
		}
		if st := s.Status()[0]; st.Tested == nil || st.Tested.OK || st.Tested.Error != "no way there" {
			t.Errorf("after the test: %+v", st)
		}
		w.fail(nil)
		w.set(late)
		w.after(30 * time.Minute)
		if st := s.Status()[0]; st.Tested != nil {
			t.Errorf("after an alarm got there: %+v", st.Tested)
		}
		if !s.Test(t.Context())[0].OK || !s.Status()[0].Tested.OK {
			t.Errorf("after a test that got there: %+v", s.Status()[0])
		}
	})
}

func TestSender_ManyAtOnceAreSummedUp(t *testing.T) {
	w := &world{}
	sends(t, w, w.config(), func(s *Sender) {
		var all []Alarm
		for i := range 300 {
			all = append(all, Alarm{Zone: fmt.Sprintf("z%03d.example.", i), Code: "load-failed", Severity: "warning", Text: "no"})
		}
		w.set(all...)
		expect(t, "all", w.after(2*time.Minute), "raised warning  load-failed")
		if !slices.Contains(w.env, "SLUICE_ALARM_COUNT=300") || !slices.Contains(w.env, "SLUICE_ALARM_TEXT=300 at once, of 300 zones: load-failed 300") {
			t.Errorf("environment %q", w.env)
		}
		w.set(append(all[:299:299], broken)...)
		expect(t, "one gone, one new", w.after(2*time.Minute), "raised alarm b.example. sign-failed", "cleared warning z299.example. load-failed")
		w.set()
		expect(t, "all gone", w.after(2*time.Minute), "cleared alarm  many")
		if st := s.Status(); len(st[0].Told) != 0 {
			t.Errorf("%d are still told", len(st[0].Told))
		}
	})
}

// A target that hangs holds up neither looking nor asking.
func TestSender_ATargetThatHangsHoldsUpNobody(t *testing.T) {
	w := &world{}
	sends(t, w, w.config(), func(s *Sender) {
		w.slowly = make(chan struct{}) // of the bubble; nothing is told for a minute
		w.set(broken)
		w.after(10 * time.Minute)
		if st := s.Status(); len(st) != 1 || len(st[0].Told) != 0 {
			t.Errorf("status %+v", st)
		}
		close(w.slowly)
		expect(t, "when it goes on", w.after(time.Minute), "raised alarm b.example. sign-failed")
	})
}

// Several of a kind in one zone are one condition; of the worst severity.
func TestWatch_OneZoneAndCodeAreOneCondition(t *testing.T) {
	w := newWatch()
	start := time.Unix(1_800_000_000, 0)
	more := late
	more.Severity = "alarm"
	w.look(start, []Alarm{late, more, late}, 0)
	got := w.changes(start, nil, Config{MinSeverity: "warning"})
	if len(got) != 1 || got[0].Severity != "alarm" || !strings.HasSuffix(got[0].Text, "(and 2 more of this kind)") {
		t.Errorf("changes %+v", got)
	}
}
