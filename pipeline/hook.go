package pipeline

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"sluice/journal/event"
)

const (
	// maxHookOutput is how much of a hook's output is kept: its end.
	maxHookOutput = 4 << 10
	// hookGrace is how long output is waited for once a hook has ended.
	hookGrace = 2 * time.Second
)

// errHookStart reports a hook that could not be started.
var errHookStart = errors.New("cannot be started")

// runHook runs a command by sh -c in a process group of its own and waits
// for it, at most for its timeout. What is left of the group then is killed.
// env comes on top of the daemon's environment.
func runHook(ctx context.Context, h Hook, env []string) (event.HookOutcome, error) {
	out := event.HookOutcome{Command: h.Command, Programs: programsOf(h.Command)}
	limited, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	output := tail{sum: sha256.New()}
	cmd := exec.CommandContext(limited, "sh", "-c", h.Command)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	cmd.WaitDelay = hookGrace
	began := machineTime()
	if err := cmd.Start(); err != nil {
		return out, fmt.Errorf("%w: %w", errHookStart, err)
	}
	err := cmd.Wait()
	_ = killGroup(cmd.Process.Pid) // mostly nothing is left
	out.DurationMS = uint64(max(0, machineTime().Sub(began).Milliseconds()))
	out.ExitCode = cmd.ProcessState.ExitCode()
	out.Output, out.OutputBytes = output.text(), output.total
	out.OutputSHA256 = hex.EncodeToString(output.sum.Sum(nil))
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	out.TimedOut = limited.Err() != nil && out.ExitCode < 0
	// The shell's own answers where there is no such command, or none that it
	// may run.
	if out.ExitCode == 126 || out.ExitCode == 127 {
		return out, fmt.Errorf("%w: exit code %d: %s", errHookStart, out.ExitCode, oneLine(out.Output))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited && !errors.Is(err, exec.ErrWaitDelay) && !out.TimedOut {
		return out, err
	}
	return out, nil
}

// killGroup kills a process group.
func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// tail keeps the end of what is written to it, and the hash of all of it.
type tail struct {
	kept  []byte
	total uint64
	sum   hash.Hash
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.total += uint64(len(p))
	t.sum.Write(p)
	if len(p) >= maxHookOutput {
		t.kept = append(t.kept[:0], p[len(p)-maxHookOutput:]...)
		return len(p), nil
	}
	if over := len(t.kept) + len(p) - maxHookOutput; over > 0 {
		t.kept = append(t.kept[:0], t.kept[over:]...)
	}
	t.kept = append(t.kept, p...)
	return len(p), nil
}

// text is what was kept, as valid text.
func (t *tail) text() string {
	return strings.ToValidUTF8(string(bytes.ReplaceAll(t.kept, []byte{0}, []byte("?"))), "?")
}

// hookReason says in a line why a hook's verdict is a bad one.
func hookReason(o event.HookOutcome, timeout time.Duration) string {
	var text string
	switch {
	case o.TimedOut:
		text = fmt.Sprintf("killed after its timeout of %s", timeout)
	case o.ExitCode < 0:
		text = "killed"
	default:
		text = fmt.Sprintf("exit code %d", o.ExitCode)
	}
	lines := strings.Split(strings.TrimSpace(o.Output), "\n")
	if last := oneLine(lines[len(lines)-1]); last != "" {
		text += ": " + last
	}
	return text
}
