package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// sample is one run of one contender.
type sample struct {
	wall, cpu  time.Duration
	rss        int64 // bytes, peak
	signatures int
	records    int // transferred, for AXFR
}

// series is all runs of one contender.
type series struct {
	name    string
	samples []sample
}

// inTurn runs each contender once, then each once more, and so on.
func (b *bench) inTurn(ctx context.Context, contenders []contender) ([]series, error) {
	all := make([]series, len(contenders))
	for i, c := range contenders {
		all[i].name = c.name
	}
	for n := range b.runs {
		for i, c := range contenders {
			got, err := c.run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			fmt.Fprintf(os.Stderr, "bench: run %d/%d %s: %.2f s wall, %.2f s CPU, %d MiB\n",
				n+1, b.runs, c.name, got.wall.Seconds(), got.cpu.Seconds(), got.rss>>20)
			all[i].samples = append(all[i].samples, got)
		}
	}
	return all, nil
}

// measure runs a command to its end. Its peak memory and its time come from
// the kernel's account of the process.
func measure(ctx context.Context, command string, args ...string) (sample, error) {
	cmd := exec.CommandContext(ctx, command, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	start := time.Now()
	err := cmd.Run()
	wall := time.Since(start)
	if err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, lastBytes(said.Bytes()))
	}
	return account(cmd, wall), nil
}

func account(cmd *exec.Cmd, wall time.Duration) sample {
	s := sample{wall: wall, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = usage.Maxrss << 10
	}
	return s
}

func lastBytes(b []byte) []byte { return b[max(0, len(b)-2000):] }

// median of the runs; of an even count the lower one.
func median[T int | int64 | time.Duration](samples []sample, of func(sample) T) T {
	values := make([]T, len(samples))
	for i, s := range samples {
		values[i] = of(s)
	}
	slices.Sort(values)
	return values[(len(values)-1)/2]
}
