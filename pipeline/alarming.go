package pipeline

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"sluice/pipeline/alarm"
)

// alarmsFile is where it is kept what was told, in Config.RunDir.
const alarmsFile = "alarms.json"

// openAlarms makes what tells others of what needs a person.
func (e *Engine) openAlarms() (err error) {
	cfg := e.cfg.Alarms
	cfg.RunCommand, cfg.Current, cfg.Logger, cfg.Now = e.runAlarmCommand, e.currentAlarms, e.log, machineTime
	if e.cfg.RunDir != "" {
		cfg.File = filepath.Join(e.cfg.RunDir, alarmsFile)
	}
	if e.duties != nil {
		cfg.Worker = e.worker
	}
	e.alarms, err = alarm.New(cfg)
	return err
}

// runAlarmCommand runs a command that is told of an alarm.
func (e *Engine) runAlarmCommand(ctx context.Context, command string, env []string) error {
	timeout := e.cfg.Alarms.Timeout
	out, err := runHook(ctx, Hook{Command: command, Timeout: timeout}, env)
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
	c := e.cfg.Alarms
	return AlarmsStatus{
		MinSeverity: c.MinSeverity, Delay: int64(c.Delay / time.Second), Repeat: int64(c.Repeat / time.Second), Targets: e.alarms.Status(),
	}
}

// TestAlarms sends each target a test. Errors: ErrState (there is none).
func (e *Engine) TestAlarms(ctx context.Context) ([]alarm.TestResult, error) {
	if c := e.cfg.Alarms; c.Command == "" && c.Webhook.URL == "" {
		return nil, errorState("nobody is told of alarms: name a command or a webhook in the config, [alarms]")
	}
	return e.alarms.Test(ctx), nil
}
