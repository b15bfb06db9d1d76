package alarm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config says whom to tell of what. Command and Webhook may be set both; with
// neither nobody is told.
type Config struct {
	// Command is run for each message by RunCommand, which bounds its time and
	// its output.
	Command    string
	RunCommand func(ctx context.Context, command string, env []string) error
	Webhook    Webhook

	// Timeout bounds a run of the command, and a POST.
	Timeout     time.Duration
	MinSeverity string        // warning or alarm
	Delay       time.Duration // for how long something is so, or is no more, before it is told
	Repeat      time.Duration // after which it is told again; 0 is never
	Most        int           // messages at once; more are summed up in one
	// Every is how often it is looked; 0 is 5 seconds. Where looking takes long,
	// it is done less often.
	Every time.Duration

	// Current lists what needs a person now; false where that cannot be told
	// yet.
	Current func(ctx context.Context) (all []Alarm, known bool)
	File    string // where it is kept what was told; "" is nowhere
	Worker  string // this process's name, "" where it is alone
	Logger  *slog.Logger
	// Now is the machine's clock.
	Now func() time.Time
}

const (
	defaultEvery = 5 * time.Second
	// lookShare is what part of the time looking may take, one in so many.
	lookShare = 20
	// firstRetry and lastRetry bound the wait after a message that could not be
	// sent; it doubles.
	firstRetry = 2 * time.Second
	lastRetry  = 10 * time.Minute
)

// Sender tells targets. Its methods are safe for concurrent use.
type Sender struct {
	cfg     Config
	targets []*target

	mu    sync.Mutex
	watch *watch // guarded by mu
}

// target is one way of telling.
type target struct {
	name, to string
	send     func(ctx context.Context, m Message) error
	wake     chan struct{}

	mu     sync.Mutex
	told   map[string]Told // guarded by mu
	failed int             // guarded by mu; tries in a row
	fault  string          // guarded by mu; of the last one
	since  time.Time       // guarded by mu; of the first of them
	retry  time.Time       // guarded by mu
	tested *Tested         // guarded by mu; see TargetStatus
}

// Tested is what became of the last test of a target.
type Tested struct {
	At    time.Time `json:"at"`
	OK    bool      `json:"ok"`
	Error string    `json:"error,omitempty"`
}

// TargetStatus is how it is with one way of telling.
type TargetStatus struct {
	Target string     `json:"target"` // command, webhook
	To     string     `json:"to"`
	Told   []Told     `json:"told"`             // what it was told and is still so
	Failed int        `json:"failed,omitempty"` // tries in a row that did
	Error  string     `json:"last_error,omitempty"`
	Since  *time.Time `json:"since,omitempty"` // of the first of these
	Retry  *time.Time `json:"retry_at,omitempty"`
	// Tested is what became of the last test since this process began; nil where
	// there was none, and where something was sent after one that failed.
	Tested *Tested `json:"tested,omitempty"`
}

// TestResult is what became of a test message.
type TestResult struct {
	Target string `json:"target"`
	To     string `json:"to"`
	OK     bool   `json:"ok"`
	Error  string `json:"error,omitempty"`
	TookMS int64  `json:"took_ms"`
}

// New makes a sender, and takes up what was told before. Errors: a webhook whose
// files cannot be read.
func New(cfg Config) (*Sender, error) {
	if cfg.Every <= 0 {
		cfg.Every = defaultEvery
	}
	s := &Sender{cfg: cfg, watch: newWatch()}
	add := func(name, to string, send func(context.Context, Message) error) {
		s.targets = append(s.targets, &target{name: name, to: to, send: send, wake: make(chan struct{}, 1), told: map[string]Told{}})
	}
	if cfg.Command != "" {
		add("command", cfg.Command, func(ctx context.Context, m Message) error { return cfg.RunCommand(ctx, cfg.Command, m.env()) })
	}
	if cfg.Webhook.URL != "" {
		hook, err := newWebhook(cfg.Webhook, cfg.Timeout)
		if err != nil {
			return nil, err
		}
		add("webhook", hook.shown(), hook.post)
	}
	return s, s.read()
}

// Run looks and tells until ctx ends.
func (s *Sender) Run(ctx context.Context) {
	if len(s.targets) == 0 {
		return
	}
	var all sync.WaitGroup
	defer all.Wait()
	for _, t := range s.targets {
		all.Go(func() { s.tell(ctx, t) })
	}
	for {
		began := s.cfg.Now()
		if current, known := s.cfg.Current(ctx); known {
			s.mu.Lock()
			s.watch.look(s.cfg.Now(), current, s.cfg.Delay)
			s.mu.Unlock()
			for _, t := range s.targets {
				select {
				case t.wake <- struct{}{}:
				default:
				}
			}
		}
		timer := time.NewTimer(max(s.cfg.Every, lookShare*s.cfg.Now().Sub(began)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// tell sends one target what it is to know, whenever somebody looked.
func (s *Sender) tell(ctx context.Context, t *target) {
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return
		}
		for _, b := range s.due(t) {
			err := t.send(ctx, b.Message)
			if ctx.Err() != nil {
				return
			}
			s.sent(ctx, t, b, err)
			if err != nil {
				break
			}
		}
	}
}

// due is what a target is to be told now.
func (s *Sender) due(t *target) []batch {
	now := s.cfg.Now()
	t.mu.Lock()
	told, retry := maps.Clone(t.told), t.retry
	t.mu.Unlock()
	if now.Before(retry) {
		return nil
	}
	s.mu.Lock()
	changes := s.watch.changes(now, told, s.cfg)
	s.mu.Unlock()
	if len(s.targets) == 1 {
		changes = slices.DeleteFunc(changes, func(c change) bool { return c.Code == CodeNotSent })
	}
	return batches(changes, now.UTC().Truncate(time.Second), s.cfg.Worker, s.cfg.Most)
}

// sent takes note of what became of a message.
func (s *Sender) sent(ctx context.Context, t *target, b batch, err error) {
	now := s.cfg.Now().UTC().Truncate(time.Second)
	t.mu.Lock()
	failed := t.failed
	if err != nil {
		if t.failed++; t.failed == 1 {
			t.since = now
		}
		t.fault = err.Error()
		t.retry = s.cfg.Now().Add(min(lastRetry, firstRetry<<min(t.failed-1, 12)))
		t.mu.Unlock()
		if failed == 0 {
			s.cfg.Logger.WarnContext(ctx, "alarm not sent", "target", t.name, "error", err, "hint", "it is tried again; see: sluice alarms list")
		}
		return
	}
	t.failed, t.fault, t.retry = 0, "", time.Time{}
	if t.tested != nil && !t.tested.OK {
		t.tested = nil
	}
	for _, c := range b.tells {
		if c.state == Cleared {
			delete(t.told, c.key())
			continue
		}
		since := c.Since
		if was, ok := t.told[c.key()]; ok {
			since = was.Since
		} else if since.IsZero() {
			since = now
		}
		t.told[c.key()] = Told{Zone: c.Zone, Code: c.Code, Severity: c.Severity, Text: c.Text, Since: since, Sent: now}
	}
	t.mu.Unlock()
	if failed > 0 {
		s.cfg.Logger.InfoContext(ctx, "alarms are sent again", "target", t.name)
	}
	if err := s.write(); err != nil {
		s.cfg.Logger.WarnContext(ctx, "alarms that were told not noted", "error", err)
	}
}

// Status tells how it is with each target.
func (s *Sender) Status() []TargetStatus {
	out := []TargetStatus{}
	for _, t := range s.targets {
		t.mu.Lock()
		st := TargetStatus{Target: t.name, To: t.to, Failed: t.failed, Error: t.fault, Told: []Told{}, Tested: t.tested}
		if t.failed > 0 {
			since, retry := t.since, t.retry.UTC().Truncate(time.Second)
			st.Since, st.Retry = &since, &retry
		}
		for _, k := range slices.Sorted(maps.Keys(t.told)) {
			st.Told = append(st.Told, t.told[k])
		}
		t.mu.Unlock()
		out = append(out, st)
	}
	return out
}

// Test sends each target a message that says that it is a test.
func (s *Sender) Test(ctx context.Context) []TestResult {
	out := make([]TestResult, len(s.targets))
	var all sync.WaitGroup
	for i, t := range s.targets {
		all.Go(func() {
			began := s.cfg.Now()
			now := began.UTC().Truncate(time.Second)
			err := t.send(ctx, Message{
				State: Test, Code: Test, Severity: "warning", Text: "this is a test: alarms of this signer get here",
				Hint: "nothing is to be done", Since: now, Time: now, Worker: s.cfg.Worker,
			})
			out[i] = TestResult{Target: t.name, To: t.to, OK: err == nil, TookMS: s.cfg.Now().Sub(began).Milliseconds()}
			if err != nil {
				out[i].Error = err.Error()
			}
			t.mu.Lock()
			t.tested = &Tested{At: now, OK: out[i].OK, Error: out[i].Error}
			t.mu.Unlock()
		})
	}
	all.Wait()
	return out
}

// stored is what is kept over a restart.
type stored struct {
	Targets map[string]map[string]Told `json:"targets"`
}

// read takes up what was told before. What cannot be read was never told: it is
// told once more.
func (s *Sender) read() error {
	if s.cfg.File == "" {
		return nil
	}
	text, err := os.ReadFile(s.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read what alarms were told: %w", err)
	}
	var before stored
	if json.Unmarshal(text, &before) != nil {
		return nil //nolint:nilerr // damaged: it is told once more
	}
	for _, t := range s.targets {
		maps.Copy(t.told, before.Targets[t.name])
	}
	return nil
}

// write keeps what was told.
func (s *Sender) write() error {
	if s.cfg.File == "" {
		return nil
	}
	s.mu.Lock() // one writer at a time
	defer s.mu.Unlock()
	now := stored{Targets: map[string]map[string]Told{}}
	for _, t := range s.targets {
		t.mu.Lock()
		now.Targets[t.name] = maps.Clone(t.told)
		t.mu.Unlock()
	}
	text, err := json.Marshal(now)
	if err != nil {
		return err
	}
	tmp := s.cfg.File + ".new"
	if err := os.WriteFile(tmp, append(bytes.TrimSpace(text), '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Clean(s.cfg.File))
}

// Faults says of each target that fails since when, and why.
func (s *Sender) Faults() []string {
	var out []string
	for _, st := range s.Status() {
		if st.Failed > 0 {
			out = append(out, fmt.Sprintf("the %s for alarms fails since %s (try %d): %s",
				st.Target, st.Since.Format(time.RFC3339), st.Failed, strings.ReplaceAll(st.Error, "\n", " ")))
		}
	}
	return out
}
