package natscluster

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestCluster_FailsAsTold(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	binary, err := Build(ctx, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	c, err := Start(ctx, Config{Binary: binary, Dir: t.TempDir(), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer func() {
		if t.Failed() {
			for i := range c.nodes {
				t.Logf("%s:\n%s", c.nodes[i].name, c.Log(i))
			}
		}
	}()
	t.Logf("three nodes after %v", time.Since(begun))
	nc, err := nats.Connect(c.URL(), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3}); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitCurrent(ctx, "S"); err != nil {
		t.Fatal(err)
	}
	old, err := c.Leader(ctx, "S")
	if err != nil {
		t.Fatal(err)
	}
	c.Cut(old)
	next, err := c.Leader(ctx, "S", old)
	if err != nil {
		t.Fatal(err)
	}
	c.Heal(old)
	if err := c.AwaitCurrent(ctx, "S"); err != nil {
		t.Fatal(err)
	}
	if err := c.Kill(next); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Leader(ctx, "S", next); err != nil {
		t.Fatal(err)
	}
	if err := c.Restart(next); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitCurrent(ctx, "S"); err != nil {
		t.Fatal(err)
	}
	t.Logf("all over after %v", time.Since(begun))
}
