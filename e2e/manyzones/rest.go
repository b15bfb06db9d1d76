package manyzones

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// resting is how long the daemon is watched with nothing to do.
const resting = 2 * time.Minute

// Rest runs one daemon with many zones at the pace of the clock: all are added,
// it starts again, is left alone, is asked, and gets another policy. Where the
// folder is that of an earlier run, its zones are there already.
func Rest(ctx context.Context, cfg Config) (*Report, error) {
	cfg.Rate = 1
	r := newRun(cfg)
	_, err := os.Stat(r.data())
	if r.late = err == nil; r.late {
		// Later than all that happened.
		r.base = r.base.Add(day)
		for _, dir := range []string{"zones", "policies"} {
			if err := os.RemoveAll(filepath.Join(r.Dir, dir)); err != nil {
				return &r.report, err
			}
		}
	}
	return &r.report, r.finish(r.prepare(ctx, "1h"), func() error { return r.rest(ctx) })
}

// day is the longest that adding all zones may take.
const day = 24 * time.Hour

func (r *run) rest(ctx context.Context) error {
	if !r.late {
		if err := r.start(ctx); err != nil {
			return err
		}
		if err := r.added(ctx); err != nil {
			return err
		}
		if err := r.daemon.stop(); err != nil {
			return err
		}
	}
	if err := r.start(ctx); err != nil {
		return err
	}
	r.report.Parts = append(r.report.Parts, r.daemon.part("started again, all zones served"))
	if err := r.part("left alone for "+resting.String(), func() error { return r.await(ctx, "at rest", nothing, 0, resting) }); err != nil {
		return err
	}
	if err := r.scrape(ctx); err != nil {
		return err
	}
	for _, ask := range []struct{ name, path string }{
		{"list of zones, first page of 1,000", "/zones?limit=1000"},
		{"list of zones, all", "/zones"},
		{"status of all", "/status"},
	} {
		if err := r.part(ask.name, func() error {
			c := r.daemon.client()
			defer c.CloseIdleConnections()
			_, err := getText(ctx, c, api+ask.path)
			return err
		}); err != nil {
			return err
		}
	}
	return r.part("another policy, bound by all zones", func() error { return r.rebind(ctx) })
}

// nothing counts nothing.
func nothing(*seen) int { return -1 }

// rebind changes the policy of all zones but those with the silent server, and
// waits until all of them have it.
func (r *run) rebind(ctx context.Context) error {
	path := filepath.Join(r.Dir, "policies", "default.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	changed := strings.Replace(string(text), `signature-refresh-interval = "1d"`, `signature-refresh-interval = "2d"`, 1)
	if err := os.WriteFile(path, []byte(changed), 0o600); err != nil {
		return err
	}
	r.mu.Lock()
	clear(r.seen.bound)
	r.mu.Unlock()
	c := r.daemon.client()
	defer c.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, api+"/policies/reload", http.NoBody)
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(res.Body); err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK || !json.Valid(answer.Bytes()) {
		return fmt.Errorf("reload the policies: %s: %.200s", res.Status, answer.Bytes())
	}
	return r.await(ctx, "bound", func(s *seen) int { return len(s.bound) }, r.Zones-r.report.Silent, 0)
}
