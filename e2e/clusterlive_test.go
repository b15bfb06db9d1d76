package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/e2e/natscluster"
)

// clusterStatus is what `cluster status --json` says, as far as the tests read
// it.
type clusterStatus struct {
	Server   string   `json:"server"`
	Problems []string `json:"problems"`
	Streams  []struct {
		Name     string `json:"name"`
		Replicas int    `json:"replicas"`
		Leader   string `json:"leader"`
		Peers    []struct {
			Current bool `json:"current"`
		} `json:"peers"`
	} `json:"streams"`
}

func (d *daemon) cluster(t *testing.T) (st clusterStatus, err error) {
	t.Helper()
	r := d.cli(t, "cluster", "status", "--json")
	if r.code != 0 {
		return st, fmt.Errorf("cluster status: %v", r)
	}
	return st, json.Unmarshal([]byte(r.stdout), &st)
}

// liveCluster is a daemon whose journal is in three NATS servers, with a zone
// that changes.
type liveCluster struct {
	*daemon
	nats      *natscluster.Cluster
	source    string
	changes   int
	serial    uint32
	published []uint32
}

func startLiveCluster(t *testing.T) *liveCluster {
	t.Helper()
	l := &liveCluster{nats: startNATS(t, natscluster.Config{Nodes: 3})}
	dir := shortDir(t)
	l.source = writeFile(t, filepath.Join(dir, "live.zone"), liveZone)
	l.daemon = &daemon{
		data: filepath.Join(dir, "data"), addr: freeAddr(t),
		flags: []string{"--nats-url", l.nats.URL(), "--review-loaded", "", "--review-signed", "", "--zone", example + "=" + l.source},
	}
	l.daemon.start(t)
	l.flags = l.flags[:len(l.flags)-2] // the zone is there from now on
	l.serial = l.awaitServed(t, example)
	return l
}

// change changes the zone and waits until that is published.
func (l *liveCluster) change(t *testing.T) {
	t.Helper()
	l.changes++
	text := strings.Replace(liveZone, "hostmaster 1 ", fmt.Sprintf("hostmaster %d ", l.changes+1), 1)
	writeFile(t, l.source, text+fmt.Sprintf("n%d TXT \"change\"\n", l.changes))
	await(t, fmt.Sprintf("change %d taken", l.changes), time.Minute, func() (bool, string) {
		r := l.cli(t, "zone", "reload", example)
		return r.code == 0, r.String()
	})
	l.serial = l.awaitChange(t, example, l.serial)
	l.published = append(l.published, l.serial)
}

// index is the number of a server by its name.
func (l *liveCluster) index(t *testing.T, name string) int {
	t.Helper()
	i := slices.Index([]string{"n1", "n2", "n3"}, name)
	if i < 0 {
		t.Fatalf("no server %q", name)
	}
	return i
}

// check looks whether everything that was published is in the journal, once,
// and that all of it is sound.
func (l *liveCluster) check(t *testing.T) {
	t.Helper()
	l.must(t, "journal", "verify")
	l.must(t, "zone", "replay", example, "--verify")
	seen := map[uint32]int{}
	for line := range strings.Lines(l.must(t, "zone", "history", example, "--type", "instance.published", "--json")) {
		var e struct {
			Event struct {
				Facts struct {
					Serial uint32 `json:"serial"`
				} `json:"facts"`
			} `json:"event"`
			Facts struct {
				Serial uint32 `json:"serial"`
			} `json:"facts"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("history: %v in %q", err, line)
		}
		seen[max(e.Event.Facts.Serial, e.Facts.Serial)]++
	}
	for _, serial := range l.published {
		if seen[serial] != 1 {
			t.Errorf("serial %d was published, the journal says so %d times", serial, seen[serial])
		}
	}
	for serial, times := range seen {
		if times > 1 {
			t.Errorf("serial %d was published %d times", serial, times)
		}
	}
}

// Servers of the cluster are killed, cut off and come back; the zone goes on
// whenever most of them are there, is served all the time, and nothing that was
// published is lost.
func TestCluster_ZoneSurvivesItsServers(t *testing.T) {
	t.Parallel()
	l := startLiveCluster(t)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	current := func() {
		t.Helper()
		for _, stream := range []string{"EVENTS", "BULK"} {
			if err := l.nats.AwaitCurrent(ctx, stream); err != nil {
				t.Fatal(err)
			}
		}
	}
	current()
	st, err := l.cluster(t)
	if err != nil || len(st.Streams) != 2 || st.Streams[0].Replicas != 3 || len(st.Streams[0].Peers) != 2 || len(st.Problems) > 0 {
		t.Fatalf("cluster: %+v, %v", st, err)
	}
	l.change(t)

	leader := l.index(t, st.Streams[0].Leader)
	if err := l.nats.Kill(leader); err != nil {
		t.Fatal(err)
	}
	l.change(t)
	await(t, "word of the server that is away", time.Minute, func() (bool, string) {
		st, err := l.cluster(t)
		return err == nil && len(st.Problems) > 0, fmt.Sprint(st, err)
	})
	if err := l.nats.Restart(leader); err != nil {
		t.Fatal(err)
	}
	current()
	l.change(t)

	rounds := 1
	if long() {
		rounds = 10
	}
	for round := range rounds {
		// The server that the daemon talks to is cut off from the others: it
		// goes over to one of those.
		if st, err = l.cluster(t); err != nil {
			t.Fatal(err)
		}
		alone := l.index(t, st.Server)
		if round%2 == 0 {
			l.nats.Cut(alone)
		} else {
			l.nats.Stall(alone)
		}
		if serial, err := serialAt(l.addr, example); err != nil || serial != l.serial {
			t.Errorf("served while a server was cut off: %d, %v, want %d", serial, err, l.serial)
		}
		l.change(t)
		l.nats.Heal(alone)
		current()
		l.change(t)
	}

	if long() {
		l.loseMajority(t)
		current()
		l.change(t)
	}
	l.kill()
	l.start(t)
	if serial := l.awaitServed(t, example); serial != l.serial {
		t.Errorf("serial %d after the daemon was killed, it was %d", serial, l.serial)
	}
	l.change(t)
	l.check(t)
}

// loseMajority kills two of three servers and starts them again. Meanwhile
// nothing new is published, and what was is served.
func (l *liveCluster) loseMajority(t *testing.T) {
	t.Helper()
	for i := range 2 {
		if err := l.nats.Kill(i); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "word that the journal does not answer", time.Minute, func() (bool, string) {
		r := l.cli(t, "zone", "reload", example)
		return r.code != 0 && strings.Contains(r.stderr, "journal"), r.String()
	})
	if serial, err := serialAt(l.addr, example); err != nil || serial != l.serial {
		t.Errorf("served without a majority: %d, %v, want %d", serial, err, l.serial)
	}
	for i := range 2 {
		if err := l.nats.Restart(i); err != nil {
			t.Fatal(err)
		}
	}
}
