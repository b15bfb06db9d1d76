package natscluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"
)

// Build builds the server into a folder and returns its path. The working
// directory must be inside the module.
func Build(ctx context.Context, dir string) (string, error) {
	name := filepath.Join(dir, "nats-server")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", name, "github.com/nats-io/nats-server/v2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build nats-server: %w\n%s", err, out)
	}
	return name, nil
}

// Config is what Start needs.
type Config struct {
	Binary string // of the server, as Build returns it
	Dir    string // takes configs, stores and logs
	Nodes  int    // 1 or 3
	Domain string // of JetStream; empty for none
	// NoSync leaves the server's own interval of two minutes between syncs.
	NoSync bool
	// Options are further lines of every node's config.
	Options string
}

// Cluster is some servers that run beside a test.
type Cluster struct {
	cfg   Config
	nodes []*node
	// lines carry the routes from one node (first index) to another.
	lines [][]*proxy
}

type node struct {
	name, config, log string
	client            string // address for clients
	mu                sync.Mutex
	cmd               *exec.Cmd     // guarded by mu; nil while not running
	exited            chan struct{} // guarded by mu: of cmd
}

// Start starts the servers and waits until each answers and, where they are
// several, until they have a leader. Close ends them.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	c := &Cluster{cfg: cfg}
	if err := c.prepare(); err != nil {
		c.Close()
		return nil, err
	}
	for i := range c.nodes {
		if err := c.launch(i); err != nil {
			c.Close()
			return nil, err
		}
	}
	if err := c.AwaitReady(ctx); err != nil {
		err = fmt.Errorf("%w; the first node says:\n%s", err, c.Log(0))
		c.Close()
		return nil, err
	}
	return c, nil
}

// prepare chooses ports and writes the configs.
func (c *Cluster) prepare() error {
	var routes []string // where each node takes routes
	for i := range c.cfg.Nodes {
		ports, err := freePorts(2)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("n%d", i+1)
		c.nodes = append(c.nodes, &node{
			name: name, client: ports[0],
			config: filepath.Join(c.cfg.Dir, name+".conf"), log: filepath.Join(c.cfg.Dir, name+".log"),
		})
		routes = append(routes, ports[1])
	}
	for i := range c.nodes {
		c.lines = append(c.lines, make([]*proxy, len(c.nodes)))
		for k := range c.nodes {
			if i == k {
				continue
			}
			line, err := newProxy(routes[k])
			if err != nil {
				return err
			}
			c.lines[i][k] = line
		}
	}
	for i, n := range c.nodes {
		if err := os.WriteFile(n.config, []byte(c.configOf(i, routes[i])), 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) configOf(i int, route string) string {
	n := c.nodes[i]
	var b strings.Builder
	fmt.Fprintf(&b, "server_name: %s\nlisten: %q\nmax_payload: 1MB\n", n.name, n.client)
	fmt.Fprintf(&b, "jetstream {\n  store_dir: %q\n  max_mem: 64MB\n  max_file: 64GB\n", filepath.Join(c.cfg.Dir, n.name))
	if !c.cfg.NoSync {
		b.WriteString("  sync_interval: always\n")
	}
	if c.cfg.Domain != "" {
		fmt.Fprintf(&b, "  domain: %q\n", c.cfg.Domain)
	}
	b.WriteString("}\n" + c.cfg.Options + "\n")
	if len(c.nodes) == 1 {
		return b.String()
	}
	// Routes go through the lines alone: what the nodes tell each other of
	// their addresses leads nowhere.
	fmt.Fprintf(&b, "cluster {\n  name: test\n  listen: %q\n  advertise: \"127.0.0.1:1\"\n  no_advertise: true\n  routes: [", route)
	for k, line := range c.lines[i] {
		if k != i {
			fmt.Fprintf(&b, " %q,", "nats-route://"+line.address())
		}
	}
	b.WriteString(" ]\n}\n")
	return b.String()
}

// freePorts returns addresses that nobody listens on.
func freePorts(n int) (addresses []string, err error) {
	for range n {
		l, lerr := net.Listen("tcp", "127.0.0.1:0")
		if lerr != nil {
			return nil, lerr
		}
		defer func() { err = errors.Join(err, l.Close()) }()
		addresses = append(addresses, l.Addr().String())
	}
	return addresses, nil
}

// launch starts the process of a node.
func (c *Cluster) launch(i int) error {
	n := c.nodes[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	log, err := os.OpenFile(n.log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the process has its own handle
	cmd := exec.Command(c.cfg.Binary, "-c", n.config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	exited := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it is told by signals how to end
		close(exited)
	}()
	n.cmd, n.exited = cmd, exited
	return nil
}

// signal sends a signal to a node; with wait, it returns once the process has
// ended.
func (c *Cluster) signal(i int, sig syscall.Signal, wait bool) error {
	n := c.nodes[i]
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cmd == nil {
		return fmt.Errorf("%s does not run", n.name)
	}
	if err := n.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("signal %s: %w", n.name, err)
	}
	if wait {
		<-n.exited
		n.cmd = nil
	}
	return nil
}

// Kill ends a node at once, as kill -9 does.
func (c *Cluster) Kill(i int) error { return c.signal(i, syscall.SIGKILL, true) }

// Stop halts a node where it stands; Continue lets it go on.
func (c *Cluster) Stop(i int) error { return c.signal(i, syscall.SIGSTOP, false) }

// Continue lets a halted node go on.
func (c *Cluster) Continue(i int) error { return c.signal(i, syscall.SIGCONT, false) }

// Restart starts a node that was killed, on its own store.
func (c *Cluster) Restart(i int) error { return c.launch(i) }

// Cut breaks all routes between a node and the others: connections end, and
// no new ones come about until Heal. Its clients stay connected.
func (c *Cluster) Cut(i int) { c.setLines(i, broken) }

// Stall holds back all that passes between a node and the others until Heal,
// as a line does that drops everything: what was sent comes late.
func (c *Cluster) Stall(i int) { c.setLines(i, stalled) }

// Heal joins a node with the others again.
func (c *Cluster) Heal(i int) { c.setLines(i, passing) }

func (c *Cluster) setLines(i int, to lineState) {
	for k := range c.nodes {
		if k != i {
			c.lines[i][k].set(to)
			c.lines[k][i].set(to)
		}
	}
}

// URL is where clients reach the cluster: every node, separated by commas.
func (c *Cluster) URL() string {
	var urls []string
	for i := range c.nodes {
		urls = append(urls, c.NodeURL(i))
	}
	return strings.Join(urls, ",")
}

// NodeURL is where clients reach one node.
func (c *Cluster) NodeURL(i int) string { return "nats://" + c.nodes[i].client }

// Store is the folder that a node keeps its streams in.
func (c *Cluster) Store(i int) string { return filepath.Join(c.cfg.Dir, c.nodes[i].name) }

// Log is what a node has written.
func (c *Cluster) Log(i int) string {
	text, err := os.ReadFile(c.nodes[i].log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Complaints are the last lines of a node's log that are not mere news.
func (c *Cluster) Complaints(i int) string {
	var lines []string
	for line := range strings.Lines(c.Log(i)) {
		if !strings.Contains(line, "[INF]") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-60):], "")
}

// Close ends all nodes by force and waits for them.
func (c *Cluster) Close() {
	for i, n := range c.nodes {
		if n.cmd != nil {
			_ = c.signal(i, syscall.SIGKILL, true) // it may have ended by itself
		}
	}
	for _, from := range c.lines {
		for _, line := range from {
			if line != nil {
				line.close()
			}
		}
	}
}

// replica is what the cluster says of one copy of a stream.
type replica struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
}

// streamInfo is what the cluster says of a stream.
type streamInfo struct {
	Error   *struct{} `json:"error"`
	Cluster struct {
		Leader   string    `json:"leader"`
		Replicas []replica `json:"replicas"`
	} `json:"cluster"`
}

// Leader returns the index of the node that leads a stream, asking by way of
// any node but those left out.
func (c *Cluster) Leader(ctx context.Context, stream string, without ...int) (int, error) {
	found := -1
	err := c.until(ctx, "leader of "+stream, func(nc *nats.Conn) bool {
		info, ok := askStream(nc, stream)
		for i, n := range c.nodes {
			if ok && n.name == info.Cluster.Leader {
				found = i
			}
		}
		for _, i := range without {
			if i == found {
				found = -1
			}
		}
		return found >= 0
	}, without)
	return found, err
}

// AwaitCurrent waits until every copy of a stream has all of it.
func (c *Cluster) AwaitCurrent(ctx context.Context, stream string) error {
	return c.until(ctx, "copies of "+stream, func(nc *nats.Conn) bool {
		info, ok := askStream(nc, stream)
		if !ok || info.Cluster.Leader == "" || len(info.Cluster.Replicas) != len(c.nodes)-1 {
			return false
		}
		for _, r := range info.Cluster.Replicas {
			if !r.Current {
				return false
			}
		}
		return true
	}, nil)
}

// AwaitReady waits until every node answers requests to JetStream, and a stream
// can have a copy on each: a leader learns of the others one by one.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	for i := range c.nodes {
		var others []int
		for k := range c.nodes {
			if k != i {
				others = append(others, k)
			}
		}
		err := c.until(ctx, "JetStream of "+c.nodes[i].name, func(nc *nats.Conn) bool {
			return answersWell(nc, "$JS.API.STREAM.NAMES", nil)
		}, others)
		if err != nil {
			return err
		}
	}
	probe := fmt.Appendf(nil, `{"name":"PROBE","subjects":["probe"],"storage":"memory","num_replicas":%d}`, len(c.nodes))
	return c.until(ctx, "room for copies on all nodes", func(nc *nats.Conn) bool {
		if !answersWell(nc, "$JS.API.STREAM.CREATE.PROBE", probe) {
			return false
		}
		return answersWell(nc, "$JS.API.STREAM.DELETE.PROBE", nil)
	}, nil)
}

// answersWell reports whether a request to JetStream gives no error.
func answersWell(nc *nats.Conn, subject string, data []byte) bool {
	m, err := nc.Request(subject, data, time.Second)
	var answer struct {
		Error *struct{} `json:"error"`
	}
	return err == nil && json.Unmarshal(m.Data, &answer) == nil && answer.Error == nil
}

func askStream(nc *nats.Conn, stream string) (info streamInfo, ok bool) {
	m, err := nc.Request("$JS.API.STREAM.INFO."+stream, nil, time.Second)
	return info, err == nil && json.Unmarshal(m.Data, &info) == nil && info.Error == nil
}

// until asks again and again, by way of any node but those left out, until the
// answer is what is wished.
func (c *Cluster) until(ctx context.Context, what string, met func(*nats.Conn) bool, without []int) error {
	left := make(map[int]bool)
	for _, i := range without {
		left[i] = true
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		for i := range c.nodes {
			if left[i] {
				continue
			}
			nc, err := nats.Connect(c.NodeURL(i), nats.Timeout(time.Second), nats.NoReconnect())
			if err != nil {
				continue
			}
			ok := met(nc)
			nc.Close()
			if ok {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}
