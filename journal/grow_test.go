package journal_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/e2e/natscluster"
	"sluice/journal"
	"sluice/journal/event"
)

// servers is where the server was built for the tests.
var servers struct {
	sync.Mutex
	dir, binary string
}

// buildServer builds the server, for the first test that needs it.
func buildServer(ctx context.Context) (string, error) {
	servers.Lock()
	defer servers.Unlock()
	if servers.binary != "" {
		return servers.binary, nil
	}
	var err error
	if servers.dir, err = os.MkdirTemp("", "sluice-nats-"); err != nil {
		return "", err
	}
	servers.binary, err = natscluster.Build(ctx, servers.dir)
	return servers.binary, err
}

// cluster starts servers; the end of the test ends them.
func cluster(t *testing.T, cfg natscluster.Config) *natscluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	if cfg.Binary, err = buildServer(ctx); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = t.TempDir()
	c, err := natscluster.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func remote(c *natscluster.Cluster) journal.Remote {
	return journal.Remote{URLs: []string{c.URL()}, Name: "main"}
}

// grown is a store with events and chunks, and places of removed ones.
func grown(t *testing.T, dir string) journal.Head {
	t.Helper()
	j := openDir(t, journal.Config{Dir: dir})
	mustPut(t, j, "orphan-first", noise(1, 5000), noise(2, 5000))
	head := mustAppend(t, j, journal.Head{}, loaded(mustPut(t, j, "kept", noise(3, 300_000), noise(4, 700_000))))
	mustPut(t, j, "orphan-between", noise(5, 5000))
	head = mustAppend(t, j, head, loaded(mustPut(t, j, "kept-too", noise(6, 100_000))))
	var many []event.Event
	for i := range 700 {
		many = append(many, changed(i))
	}
	mustAppend(t, j, head, many...)
	mustPut(t, j, "orphan-last", noise(7, 5000))
	if _, err := j.SweepOrphans(t.Context(), time.Hour, time.Now().Add(2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	head, err := j.Head(t.Context(), zone)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return head
}

func mustStatus(t *testing.T, j journal.Journal) journal.Status {
	t.Helper()
	s, err := j.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// What they take on disk is each server's own affair, and so are headers.
	s.Events.Bytes, s.Bulk.Bytes = 0, 0
	return s
}

func TestGrow_ClusterGoesOnWhereTheStoreEnded(t *testing.T) {
	dir := t.TempDir()
	head := grown(t, dir)
	old := openDir(t, journal.Config{Dir: dir})
	before, report := mustStatus(t, old), mustVerify(t, old)
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	c := cluster(t, natscluster.Config{Nodes: 3})
	cfg := journal.GrowConfig{Dir: dir, Remote: remote(c)}

	cfg.Plan = true
	plan, err := journal.Grow(t.Context(), cfg)
	if err != nil || plan.Moved || plan.Replicas != 3 {
		t.Fatalf("plan: %+v, %v", plan, err)
	}

	// It ends in the middle, and once more when it is about to switch.
	cfg.Plan = false
	ctx, cancel := context.WithCancel(t.Context())
	cfg.Progress = func(stage string, p journal.CopyProgress) {
		if stage == "copy" && p.Stream == "EVENTS" && p.Done > 300 {
			cancel()
		}
	}
	if _, err := journal.Grow(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Fatalf("cut off: %v", err)
	}
	cfg.Progress = nil
	if _, err := journal.Connect(t.Context(), journal.Config{Remote: remote(c)}); !errors.Is(err, journal.ErrServer) {
		t.Fatalf("connect to an unfinished copy: %v", err)
	}
	cfg.Timeout = 2 * time.Second
	cfg.Checked = func(check journal.GrowCheck) {
		if check.Name == "copy" {
			for i := range 2 {
				if err := c.Kill(i); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if _, err := journal.Grow(t.Context(), cfg); err == nil {
		t.Fatal("switched to a cluster that has no majority")
	}
	if _, err := journal.Open(t.Context(), journal.Config{Dir: dir}); !errors.Is(err, journal.ErrMode) {
		t.Fatalf("open a store on its way: %v", err)
	}
	cfg.Timeout, cfg.Checked = 0, nil
	for i := range 2 {
		if err := c.Restart(i); err != nil {
			t.Fatal(err)
		}
	}
	ready, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	if err := c.AwaitCurrent(ready, "EVENTS"); err != nil {
		t.Fatal(err)
	}
	grow, err := journal.Grow(t.Context(), cfg)
	if err != nil || !grow.Moved || grow.Same == nil || grow.Same.Hash != head.Hash {
		t.Fatalf("grow: %+v, %v", grow, err)
	}
	if _, err := journal.Open(t.Context(), journal.Config{Dir: dir}); !errors.Is(err, journal.ErrMode) {
		t.Fatalf("open a store that moved: %v", err)
	}
	if _, err := journal.Grow(t.Context(), cfg); !errors.Is(err, journal.ErrMode) {
		t.Fatalf("grow a store that moved: %v", err)
	}

	j, err := journal.Connect(t.Context(), journal.Config{Remote: remote(c)})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close() //nolint:errcheck // the test is over
	if d := cmp.Diff(before, mustStatus(t, j)); d != "" {
		t.Errorf("status (-old +new):\n%s", d)
	}
	if d := cmp.Diff(report, mustVerify(t, j)); d != "" {
		t.Errorf("verify (-old +new):\n%s", d)
	}
	mustPut(t, j, "next", noise(8, 5000))
	if next := mustAppend(t, j, head, changed(1000)); next.Seq != before.Events.LastSeq+1 || next.N != head.N+1 {
		t.Errorf("next event is %+v behind %+v", next, head)
	}
	if after := mustStatus(t, j); after.Bulk.LastSeq != before.Bulk.LastSeq+1 {
		t.Errorf("next chunk is %d behind %d", after.Bulk.LastSeq, before.Bulk.LastSeq)
	}
}
