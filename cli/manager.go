package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"sluice/cli/api"
)

// What the service manager is told (sd_notify(3)).
const (
	// startStep is how long a start that gets on may take until its next sign
	// of life.
	startStep = time.Minute
	// statusEvery is how often the status line is renewed where no watchdog
	// asks for more.
	statusEvery = time.Minute
)

// manager is the service manager that started this process. Without one all
// that it is told goes nowhere.
type manager struct {
	log *slog.Logger
	// watchdog is how long it waits for a sign of life; 0 is for ever.
	watchdog time.Duration
	present  bool
}

// newManager finds the service manager by the environment.
func newManager(log *slog.Logger) (manager, error) {
	m := manager{log: log, present: os.Getenv("NOTIFY_SOCKET") != ""}
	var err error
	if m.watchdog, err = daemon.SdWatchdogEnabled(false); err != nil {
		return m, fmt.Errorf("watchdog of the service manager: %w", err)
	}
	return m, nil
}

// tell sends assignments such as READY=1 in one message. What cannot be sent
// is logged: the daemon works without.
func (m manager) tell(ctx context.Context, lines ...string) {
	if !m.present {
		return
	}
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		m.log.WarnContext(ctx, "service manager not told", "what", lines[0], "error", err)
	}
}

// status is the assignment of the line that systemctl status shows.
func status(format string, args ...any) string {
	return "STATUS=" + strings.ReplaceAll(fmt.Sprintf(format, args...), "\n", "; ")
}

// starting says that the start gets on, so that it is not given up.
func (m manager) starting(ctx context.Context, format string, args ...any) {
	m.tell(ctx, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", startStep.Microseconds()), status(format, args...))
}

// reloading says that the config is read again; told by the clock that systemd
// compares it with.
func (m manager) reloading(ctx context.Context) {
	m.tell(ctx, daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
}

// ready says that the daemon serves.
func (m manager) ready(ctx context.Context, text string) {
	m.tell(ctx, daemon.SdNotifyReady, status("%s", text))
}

// stopping says that the daemon ends.
func (m manager) stopping(ctx context.Context) {
	m.tell(ctx, daemon.SdNotifyStopping, status("stopping: answers under way are finished"))
}

// keepAlive says time and again that the daemon is alive, as alive finds, and
// how it is, until ctx ends. While alive fails the watchdog is told nothing.
func (m manager) keepAlive(ctx context.Context, alive func(context.Context) error, how func() string) {
	if !m.present {
		return
	}
	every := statusEvery
	if m.watchdog > 0 {
		every = min(every, m.watchdog/4)
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := m.checkAlive(ctx, alive); err != nil {
			if ctx.Err() != nil {
				return
			}
			m.log.ErrorContext(ctx, "the daemon does not answer itself: the watchdog is not told that it is alive", "error", err)
			m.tell(ctx, status("%v", err))
		} else {
			m.tell(ctx, daemon.SdNotifyWatchdog, status("%s", how()))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (m manager) checkAlive(ctx context.Context, alive func(context.Context) error) error {
	limit := m.watchdog / 2
	if limit == 0 {
		limit = statusEvery / 2
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return alive(ctx)
}

// attach takes from the service manager what it holds for this process.
func (s *serving) attach(ctx context.Context) (err error) {
	if s.manager, err = newManager(s.log); err != nil {
		return err
	}
	if s.sockets, err = takeHanded(); err != nil {
		return err
	}
	s.takeNamed()
	s.manager.starting(ctx, "opening the journal")
	return nil
}

// attend keeps the service manager told from the start to the end, and does what
// is asked by signals.
func (s *serving) attend(ctx context.Context, hup <-chan os.Signal) {
	if s.awaitStart(ctx) != nil {
		return
	}
	s.served.Store(true)
	s.manager.ready(ctx, s.how())
	var told sync.WaitGroup
	told.Go(func() { s.manager.keepAlive(ctx, s.alive, s.how) })
	told.Go(func() { s.reloadOnSignal(ctx, hup) })
	told.Wait()
}

// awaitStart is awaitServing with word to the service manager that the start
// gets on.
func (s *serving) awaitStart(ctx context.Context) error {
	var was uint64
	for {
		part, cancel := context.WithTimeout(ctx, startStep/6)
		err := s.awaitServing(part)
		cancel()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if seq, _ := s.engine.Folded(); seq != was {
			was = seq
			s.manager.starting(ctx, "reading the journal, at event %d", seq)
		}
	}
}

// awaitServing waits until zones are served.
func (s *serving) awaitServing(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !s.engine.Serves() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// alive finds out whether this daemon answers: its engine, and its API by the
// way that clients take. That it says what is wrong is an answer.
func (s *serving) alive(ctx context.Context) error {
	if err := s.engine.Alive(ctx); err != nil {
		return err
	}
	client, err := api.NewClient("unix:"+s.socket, s.log)
	if err != nil {
		return err
	}
	defer client.Close()
	if _, err := client.Health(ctx); ctx.Err() != nil || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("API on %s: does not answer: %w", s.socket, err)
	}
	return nil
}

// how is the daemon in one line.
func (s *serving) how() string {
	_, zones := s.engine.Folded()
	text := count(uint64(zones), "zone")
	alarms := s.engine.Alarms()
	if err := s.engine.Health(context.Background()); err != nil {
		alarms = append([]string{err.Error()}, alarms...)
	}
	switch len(alarms) {
	case 0:
		return text + ", no alarm"
	case 1:
		return text + ", alarm: " + alarms[0]
	}
	return fmt.Sprintf("%s, %d alarms: %s; see: sluice health", text, len(alarms), alarms[0])
}
