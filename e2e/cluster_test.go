package e2e

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sluice/e2e/natscluster"
)

// natsServer builds nats-server, for the first test that needs it.
var natsServer = sync.OnceValues(func() (string, error) {
	return natscluster.Build(context.Background(), binaries)
})

// startNATS starts NATS servers; the end of the test ends them.
func startNATS(t *testing.T, cfg natscluster.Config) *natscluster.Cluster {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var err error
	if cfg.Binary, err = natsServer(); err != nil {
		t.Fatal(err)
	}
	cfg.Dir = t.TempDir()
	c, err := natscluster.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		for i := range cfg.Nodes {
			if t.Failed() {
				t.Logf("NATS server %d:\n%s", i, c.Complaints(i))
			}
		}
	})
	return c
}

// A daemon's journal moves into a server elsewhere, a copy of it is kept in
// another place, and is promoted when the first place is gone: the zone goes on
// with its keys and a higher serial.
func TestCluster_GrowStandbyPromote(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "", exampleZone())
	serial := d.awaitServed(t, "example.com")
	keys := d.must(t, "key", "ds", "example.com")
	if out := d.must(t, "cluster", "status"); !strings.Contains(out, "embedded") || !strings.Contains(out, "EVENTS") {
		t.Errorf("status:\n%s", out)
	}
	sluice := program(t)
	c := startNATS(t, natscluster.Config{Nodes: 1})
	grow := []string{"cluster", "grow", "--data", d.data, "--nats-url", c.URL()}
	if r := run(t, sluice, grow...); r.code != 4 || !strings.Contains(r.stderr, "in use") {
		t.Fatalf("grow beside the daemon: %v", r)
	}
	d.stop()
	if r := run(t, sluice, append(grow, "--replicas", "3")...); r.code != 4 || !strings.Contains(r.stdout, "routes") {
		t.Fatalf("three replicas in one server: %v", r)
	}
	if out := must(t, sluice, append(grow, "--plan")...); !strings.Contains(out, "Nothing was changed") {
		t.Fatalf("plan:\n%s", out)
	}
	var moved struct {
		Moved bool `json:"moved"`
		Same  struct {
			Events uint64 `json:"events"`
			Root   string `json:"root"`
		} `json:"same"`
	}
	if err := json.Unmarshal([]byte(must(t, sluice, append(grow, "--json")...)), &moved); err != nil || !moved.Moved {
		t.Fatalf("grow: %+v, %v", moved, err)
	}
	if r := run(t, sluice, "serve", "--data", d.data, "--listen", d.addr); r.code != 4 || !strings.Contains(r.stderr, c.URL()) {
		t.Fatalf("serve from the old store: %v", r)
	}

	second := filepath.Join(shortDir(t), "data")
	must(t, "mkdir", "-p", second)
	must(t, "cp", "-r", filepath.Join(d.data, "keys"), second)
	out := must(t, sluice, "cluster", "standby", "--data", second, "--nats-url", c.URL(), "--once", "--json")
	var copied struct {
		Events  uint64 `json:"events"`
		InTouch bool   `json:"in_touch"`
	}
	if err := json.Unmarshal([]byte(out), &copied); err != nil || !copied.InTouch || copied.Events != moved.Same.Events {
		t.Fatalf("standby: %s, %v", out, err)
	}
	promote := []string{"cluster", "promote", "--data", second, "--serial-floor", "+1000"}
	if r := run(t, sluice, promote...); r.code != 4 || !strings.Contains(r.stdout, "still answers") {
		t.Fatalf("promote beside the first place: %v", r)
	}
	c.Close()
	if r := run(t, sluice, promote...); r.code != 4 || !strings.Contains(r.stdout, "nothing answers") || !strings.Contains(r.stdout, "FAIL  keys") {
		t.Fatalf("promote without public servers: %v", r)
	}
	var promoted struct {
		Promoted    bool     `json:"promoted"`
		Root        string   `json:"root"`
		KeysMissing []string `json:"keys_missing"`
	}
	out = must(t, sluice, append(promote, "--json", "--force", "--reason", "the zone has no public servers")...)
	if err := json.Unmarshal([]byte(out), &promoted); err != nil || !promoted.Promoted || promoted.Root != moved.Same.Root || len(promoted.KeysMissing) > 0 {
		t.Fatalf("promote: %s, %v", out, err)
	}
	if r := run(t, sluice, append(promote, "--force", "--reason", "again")...); r.code != 4 {
		t.Errorf("promote again: %v", r)
	}
	if err := os.RemoveAll(d.data); err != nil {
		t.Fatal(err)
	}
	next := &daemon{data: second, addr: freeAddr(t)}
	next.start(t)
	next.awaitServed(t, "example.com")
	next.must(t, "zone", "resign", "example.com")
	if again := next.awaitChange(t, "example.com", serial); again <= serial+1000 {
		t.Errorf("serial %d, the first place had published %d", again, serial)
	}
	if now := next.must(t, "key", "ds", "example.com"); now != keys {
		t.Errorf("keys are now\n%swere\n%s", now, keys)
	}
	next.must(t, "zone", "verify", "example.com")
	next.must(t, "journal", "verify")
	if status := next.must(t, "journal", "status"); !strings.Contains(status, "promoted") {
		t.Errorf("journal status does not say that the log goes on from another:\n%s", status)
	}
}
