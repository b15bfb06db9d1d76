package pipeline

import (
	"context"
	"errors"
	"path/filepath"
	"sync"
	"time"

	"sluice/pipeline/alarm"
)

// alarmsFile is where it is kept what was told, in Config.RunDir.
const alarmsFile = "alarms.json"

// alarming is what tells others of what needs a person.
type alarming struct {
	mu     sync.Mutex
	cfg    alarm.Config  // guarded by mu; as the process's config has it
	sender *alarm.Sender // guarded by mu
	// renew asks for a sender by another config.
	renew chan struct{}
}

// get is the present sender, and its config.
func (a *alarming) get() (*alarm.Sender, alarm.Config) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sender, a.cfg
}

// openAlarms makes what tells others of what needs a person.
func (e *Engine) openAlarms() (err error) {
	e.alarms.renew = make(chan struct{}, 1)
	e.alarms.cfg = e.cfg.Alarms
	e.alarms.sender, err = alarm.New(e.alarmConfig(e.cfg.Alarms))
	return err
}

// alarmConfig is cfg with what this process adds.
func (e *Engine) alarmConfig(cfg alarm.Config) alarm.Config {
	cfg.RunCommand, cfg.Current, cfg.Logger, cfg.Now = e.runAlarmCommand, e.currentAlarms, e.log, machineTime
	if e.cfg.RunDir != "" {
		cfg.File = filepath.Join(e.cfg.RunDir, alarmsFile)
	}
	if e.duties != nil {
		cfg.Worker = e.worker
	}
	return cfg
}

// PrepareAlarms checks who is to be told of what needs a person, and returns
// what puts that in place of who is told now. What was told already is not told
// again.
func (e *Engine) PrepareAlarms(cfg alarm.Config) (apply func(), err error) {
	if _, err := alarm.New(e.alarmConfig(cfg)); err != nil {
		return nil, err
	}
	return func() {
		e.alarms.mu.Lock()
		e.alarms.cfg = cfg
		e.alarms.mu.Unlock()
		poke(e.alarms.renew)
	}, nil
}

// sendAlarms tells of what needs a person until ctx ends.
func (e *Engine) sendAlarms(ctx context.Context) {
	for {
		sender, _ := e.alarms.get()
		part, cancel := context.WithCancel(ctx)
		var run sync.WaitGroup
		run.Go(func() { sender.Run(part) })
		select {
		case <-e.alarms.renew:
		case <-ctx.Done():
		}
		cancel()
		run.Wait()
		if ctx.Err() != nil {
			return
		}
		_, cfg := e.alarms.get()
		// Only now: the one before has written down what it told.
		next, err := alarm.New(e.alarmConfig(cfg))
		if err != nil {
			e.log.ErrorContext(ctx, "alarms go on by the config before", "error", err)
			continue
		}
		e.alarms.mu.Lock()
		e.alarms.sender = next
		e.alarms.mu.Unlock()
	}
}

// runAlarmCommand runs a command that is told of an alarm.
func (e *Engine) runAlarmCommand(ctx context.Context, command string, env []string) error {
	_, cfg := e.alarms.get()
	timeout := cfg.Timeout
	out, err := e.hook(ctx, "alarm", Hook{Command: command, Timeout: timeout}, env)
	switch {
	case err != nil:
		return err
	case out.ExitCode != 0 || out.TimedOut:
		return errors.New(hookReason(out, timeout))
	}
	return nil
}

// currentAlarms lists what needs a person now, of this process, and of the
// zones whose keys are its work: what the world shows of them is known here.
// It is false while the journal is being read.
func (e *Engine) currentAlarms(ctx context.Context) ([]alarm.Alarm, bool) {
	if !e.running() {
		return nil, false
	}
	var out []alarm.Alarm
	add := func(zone string, n Notice) {
		if n.Severity == severityInfo {
			return
		}
		a := alarm.Alarm{Zone: zone, Code: string(n.Code), Severity: n.Severity, Text: n.Text, Hint: n.Hint, Topic: n.Topic}
		if n.Since != nil {
			a.Since = *n.Since
		}
		out = append(out, a)
	}
	for _, n := range e.ProcessNotices() {
		add("", n)
	}
	for _, r := range e.allRunners() {
		if ctx.Err() != nil {
			return nil, false
		}
		if e.duties != nil && !e.duties.owns(duty{RoleKeys, PartitionOf(r.id)}) {
			continue
		}
		st := r.status()
		if !e.isHere(st) {
			continue
		}
		for _, n := range st.Notices {
			if !ProcessNotice(n.Code) {
				add(st.Name, n)
			}
		}
	}
	return out, true
}

// isHere reports whether a zone was not removed.
func (e *Engine) isHere(st ZoneStatus) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return string(e.names[st.Name]) == st.ID
}

// AlarmsStatus tells whom this process tells of what, and what it told.
type AlarmsStatus struct {
	MinSeverity string               `json:"min_severity"`
	Delay       int64                `json:"delay"`  // seconds
	Repeat      int64                `json:"repeat"` // seconds; 0 is never
	Targets     []alarm.TargetStatus `json:"targets"`
}

// AlarmsStatus tells whom this process tells of what, and what it told.
func (e *Engine) AlarmsStatus() AlarmsStatus {
	sender, c := e.alarms.get()
	return AlarmsStatus{
		MinSeverity: c.MinSeverity, Delay: int64(c.Delay / time.Second), Repeat: int64(c.Repeat / time.Second), Targets: sender.Status(),
	}
}

// TestAlarms sends each target a test. Errors: ErrState (there is none).
func (e *Engine) TestAlarms(ctx context.Context) ([]alarm.TestResult, error) {
	sender, c := e.alarms.get()
	if c.Command == "" && c.Webhook.URL == "" {
		return nil, errorState("nobody is told of alarms: name a command or a webhook in the config, [alarms]")
	}
	return sender.Test(ctx), nil
}
