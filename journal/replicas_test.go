package journal_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sluice/e2e/natscluster"
	"sluice/journal"
	"sluice/journal/event"
)

// zoneWriter appends event after event to one zone and keeps what was
// acknowledged.
type zoneWriter struct {
	name  string
	j     *journal.NATS
	acked map[uint64]event.Hash // by sequence
	count atomic.Int64          // of acked
	// unknown counts appends whose outcome was not told, lost those that
	// another writer was faster than.
	unknown, lost int
	longest       time.Duration // without an acknowledgement
}

// run appends until ctx ends. After an outcome that is not known it calls
// again with the same event, after a conflict with a new one behind the new
// head, as whoever decides does.
func (w *zoneWriter) run(ctx context.Context) error {
	last := time.Now()
	for i := 0; ctx.Err() == nil; {
		head, err := w.j.Head(ctx, zone)
		if err != nil {
			if !errors.Is(err, journal.ErrStorage) && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			continue
		}
		e := event.New(time.Unix(1_700_000_000, int64(i)*1000), zone, event.Program, &event.ZoneChanged{Source: fmt.Sprintf("%s%d", w.name, i)})
		for ctx.Err() == nil {
			next, err := w.j.Append(ctx, zone, head, e)
			if errors.Is(err, journal.ErrStorage) {
				w.unknown++
				continue
			}
			if errors.Is(err, journal.ErrConflict) {
				w.lost++
				break
			}
			if err != nil {
				if ctx.Err() == nil {
					return fmt.Errorf("%s: %w", w.name, err)
				}
				break
			}
			w.acked[next.Seq] = next.Hash
			w.count.Add(1)
			w.longest = max(w.longest, time.Since(last))
			last = time.Now()
			i++
			head = next
			e = event.New(time.Unix(1_700_000_000, int64(i)*1000), zone, event.Program, &event.ZoneChanged{Source: fmt.Sprintf("%s%d", w.name, i)})
		}
	}
	return nil
}

// awaitMore waits until n further events were acknowledged.
func (w *zoneWriter) awaitMore(t *testing.T, n int64) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for goal := w.count.Load() + n; w.count.Load() < goal; {
		select {
		case <-deadline.Done():
			t.Fatalf("%s: %d of %d events acknowledged", w.name, w.count.Load(), goal)
		case <-tick.C:
		}
	}
}

// startWriters lets several write to one zone; stop ends them, then reads the
// journal and looks for every acknowledged event where it was said to be.
func startWriters(t *testing.T, writers ...*zoneWriter) (stop func(reader journal.Journal)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, w := range writers {
		w.acked = make(map[uint64]event.Hash)
		running.Go(func() {
			if err := w.run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return func(reader journal.Journal) {
		t.Helper()
		cancel()
		running.Wait()
		there := make(map[uint64]event.Hash)
		err := reader.Read(t.Context(), zone, 1, 0, func(r journal.Record) error {
			there[r.Seq] = r.Hash
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		taken := make(map[uint64]string)
		for _, w := range writers {
			t.Logf("%s: %d acknowledged, %d not known, %d conflicts, longest wait %v", w.name, len(w.acked), w.unknown, w.lost, w.longest)
			for seq, hash := range w.acked {
				if there[seq] != hash {
					t.Errorf("%s: event %d was acknowledged with hash %s, the journal has %s", w.name, seq, hash, there[seq])
				}
				if other := taken[seq]; other != "" {
					t.Errorf("event %d was acknowledged to %s and to %s", seq, other, w.name)
				}
				taken[seq] = w.name
			}
		}
		if r := mustVerify(t, reader); r.FaultCount > 0 {
			t.Errorf("journal: %+v", r.Faults)
		}
	}
}

// join connects to some servers of a cluster.
func join(t *testing.T, name string, urls ...string) *journal.NATS {
	t.Helper()
	j, err := journal.Connect(t.Context(), journal.Config{
		Remote: journal.Remote{URLs: urls, Name: name}, Timeout: 2 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := j.Close(); err != nil && !errors.Is(err, journal.ErrClosed) {
			t.Error(err)
		}
	})
	return j
}

func await(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestReplicas_LeaderKilledAndBack(t *testing.T) {
	c := cluster(t, natscluster.Config{Nodes: 3})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := &zoneWriter{name: "a", j: join(t, "main", c.URL())}
	await(t, c.AwaitCurrent(ctx, "EVENTS"))
	stop := startWriters(t, w)
	rounds := 1
	if os.Getenv("SLUICE_LONG") == "1" {
		rounds = 8
	}
	for range rounds {
		w.awaitMore(t, 50)
		leader, err := c.Leader(ctx, "EVENTS")
		await(t, err)
		await(t, c.Kill(leader))
		w.awaitMore(t, 50)
		if st, err := w.j.Cluster(ctx); err == nil && len(st.Problems) == 0 {
			t.Errorf("a server is away and no problem shown: %+v", st)
		}
		await(t, c.Restart(leader))
		await(t, c.AwaitCurrent(ctx, "EVENTS"))
	}
	w.awaitMore(t, 50)
	stop(w.j)
	awaitWhole(t, ctx, w.j)
}

// awaitWhole waits until each stream has three copies, and none of them lacks
// anything: after a stream has its servers back, another may still catch up.
func awaitWhole(t *testing.T, ctx context.Context, j *journal.NATS) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		st, err := j.Cluster(ctx)
		whole := err == nil && len(st.Problems) == 0 && !slices.ContainsFunc(st.Streams, func(s journal.ClusterStream) bool {
			return len(s.Peers) != 2 || s.Replicas != 3
		})
		if whole {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the cluster is not whole again: %+v, %v", st, err)
		case <-tick.C:
		}
	}
}

// Two sides of a partition write to one zone. The smaller side gets nothing
// acknowledged; whatever it sent, late or not, never wins beside the other.
func TestReplicas_PartitionHasOneWinner(t *testing.T) {
	c := cluster(t, natscluster.Config{Nodes: 3})
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	first := join(t, "main", c.URL())
	await(t, c.AwaitCurrent(ctx, "EVENTS"))
	cuts := []func(int){c.Cut}
	if os.Getenv("SLUICE_LONG") == "1" {
		cuts = []func(int){c.Cut, c.Stall, c.Cut, c.Stall}
	}
	leader, err := c.Leader(ctx, "EVENTS")
	await(t, err)
	var others []string
	for i := range 3 {
		if i != leader {
			others = append(others, c.NodeURL(i))
		}
	}
	alone := &zoneWriter{name: "alone", j: join(t, "alone", c.NodeURL(leader))}
	many := &zoneWriter{name: "many", j: join(t, "many", others...)}
	stop := startWriters(t, alone, many)
	for _, cut := range cuts {
		alone.awaitMore(t, 20)
		many.awaitMore(t, 5)
		cut(leader)
		many.awaitMore(t, 50) // a new leader is chosen, and the zone goes on
		c.Heal(leader)
		await(t, c.AwaitCurrent(ctx, "EVENTS"))
	}
	alone.awaitMore(t, 20)
	stop(first)
}
