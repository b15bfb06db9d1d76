package manyzones

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// daemon is the process under test.
type daemon struct {
	cmd    *exec.Cmd
	socket string
	exited chan struct{} // closed once it has ended
	began  time.Time     // of the part that is measured
	cpu    time.Duration // used when that began
}

var errEnded = errors.New("the daemon has ended; see daemon.log in its folder")

// stop ends the daemon as an administrator does.
func (d *daemon) stop() error {
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-d.exited:
		return nil
	case <-time.After(time.Minute):
		return errors.Join(errors.New("the daemon does not end"), d.cmd.Process.Kill())
	}
}

func (d *daemon) begin() {
	d.began = time.Now()
	d.cpu, _, _ = d.usage()
}

func (d *daemon) part(name string) Part {
	cpu, rss, peak := d.usage()
	return Part{Name: name, Wall: time.Since(d.began), CPU: cpu - d.cpu, RSS: rss, Peak: peak}
}

// usage reads the CPU time and the memory of the daemon.
func (d *daemon) usage() (cpu time.Duration, rss, peak int64) {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	dir := fmt.Sprintf("/proc/%d/", d.cmd.Process.Pid)
	if stat, err := os.ReadFile(filepath.Join(dir, "stat")); err == nil {
		// The name in brackets may hold spaces; the fields after it do not.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		for _, f := range fields[11:13] {
			n, _ := strconv.ParseInt(f, 10, 64)
			cpu += time.Duration(n) * tick
		}
	}
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		return cpu, 0, 0
	}
	for line := range strings.Lines(string(status)) {
		for prefix, to := range map[string]*int64{"VmRSS:": &rss, "VmHWM:": &peak} {
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				n, _ := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
				*to = n << 10
			}
		}
	}
	return cpu, rss, peak
}

func (d *daemon) client() *http.Client {
	var dialer net.Dialer
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", d.socket)
		},
	}}
}

const api = "http://sluice/api/v1"

// awaitHealth waits until the daemon serves all that it has.
func (d *daemon) awaitHealth(ctx context.Context) error {
	c := d.client()
	defer c.CloseIdleConnections()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/health", nil)
		if err != nil {
			return err
		}
		res, err := c.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close() // read to its end
			if res.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-tick.C:
		case <-d.exited:
			return errEnded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// adders is how many zones are added at a time.
const adders = 8

// add adds all zones.
func (r *run) add(ctx context.Context) error {
	c := r.daemon.client()
	defer c.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var work sync.WaitGroup
	for range adders {
		work.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= r.Zones || ctx.Err() != nil {
					return
				}
				if err := r.addOne(ctx, c, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	work.Wait()
	return context.Cause(ctx)
}

func (r *run) addOne(ctx context.Context, c *http.Client, i int) error {
	policy := "default"
	if held(i) {
		policy = "silent"
	}
	body, err := json.Marshal(map[string]string{"name": zoneName(i), "source": r.zoneFile(i), "policy": policy})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/zones", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusCreated {
		err = fmt.Errorf("zone add: %s: %s", res.Status, text)
	}
	return err
}

// follow reads the daemon's events until it ends.
func (r *run) follow(d *daemon) {
	c := d.client()
	defer c.CloseIdleConnections()
	r.mu.Lock()
	from := fmt.Sprintf("?from=%d", r.seen.last+1)
	if r.late {
		from = ""
	}
	r.mu.Unlock()
	req, err := http.NewRequest(http.MethodGet, api+"/events"+from, nil)
	if err != nil {
		return
	}
	res, err := c.Do(req)
	if err != nil {
		return // await tells that nothing comes
	}
	defer res.Body.Close()
	lines := bufio.NewReaderSize(res.Body, 64<<10)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			r.take([]byte(data))
		}
	}
}

// take takes note of an event.
func (r *run) take(data []byte) {
	var ev struct {
		Seq   uint64
		Time  time.Time
		Zone  string
		Type  string
		Event struct {
			Facts struct{ Kind string }
		}
	}
	if json.Unmarshal(data, &ev) != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &r.seen
	s.last = max(s.last, ev.Seq)
	note := func(to map[string]time.Time) {
		if to[ev.Zone].IsZero() {
			to[ev.Zone] = ev.Time
		}
	}
	switch ev.Type {
	case "policy.bound":
		note(s.bound)
	case "instance.published":
		note(s.published)
	case "rollover.started":
		if ev.Event.Facts.Kind == "zsk" {
			note(s.begun)
		}
	case "rollover.completed":
		// The way to the first DS ends before the first ZSK is exchanged.
		if _, begun := s.begun[ev.Zone]; begun {
			note(s.ended)
		} else {
			note(s.secured)
		}
	}
}

// await waits until so many zones are where they are to be, or for a time where
// one is given.
func (r *run) await(ctx context.Context, what string, count func(*seen) int, want int, within time.Duration) error {
	var over <-chan time.Time
	if within > 0 {
		over = time.After(within)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	said := time.Now()
	for {
		r.mu.Lock()
		n := count(&r.seen)
		r.mu.Unlock()
		if over == nil && n >= want {
			return nil
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			cpu, rss, _ := r.daemon.usage()
			fmt.Fprintf(r.Log, "%s: %d of %d, %s, %.0f s CPU, %d MiB\n", what, n, want, r.now().Format(time.DateTime), cpu.Seconds(), rss>>20)
		}
		select {
		case <-tick.C:
		case <-over:
			return nil
		case <-r.daemon.exited:
			return errEnded
		case <-ctx.Done():
			return fmt.Errorf("%w: %s %d of %d zones", context.Cause(ctx), what, n, want)
		}
	}
}
