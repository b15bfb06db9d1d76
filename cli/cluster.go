package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal"
	"sluice/pipeline"
)

func clusterCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "cluster",
		Usage:        "the servers that keep the journal: their state, and the way from one store to several",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{clusterStatus(e), clusterGrow(e), clusterStandby(e), clusterPromote(e)},
	}
}

func clusterStatus(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "servers, leaders and replicas of the journal, and what is wrong with them",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.Cluster(c.Context)
				if err != nil {
					return err
				}
				return e.printCluster(st)
			})
		},
	}
}

func (e *env) printCluster(st journal.ClusterStatus) error {
	if e.json {
		return e.printJSON(st)
	}
	if st.Mode == journal.ModeEmbedded {
		if err := e.printf("The journal is one store in the daemon's own directory: what the disk loses is lost.\n" +
			"sluice cluster grow moves it to NATS servers elsewhere, three for a start, of which one may fail;\n" +
			"sluice cluster standby keeps a copy of it in another place.\n\n"); err != nil {
			return err
		}
	}
	if err := e.fields("journal", st.Identity, "mode", st.Mode, "cluster", st.Cluster, "connected to", st.Server,
		"version", st.Version, "known servers", strings.Join(st.URLs, " ")); err != nil {
		return err
	}
	var rows [][]string
	for _, s := range st.Streams {
		var peers []string
		for _, p := range s.Peers {
			switch {
			case p.Offline:
				peers = append(peers, p.Name+" "+e.paint(red, "away"))
			case !p.Current:
				peers = append(peers, fmt.Sprintf("%s %s", p.Name, e.paint(yellow, fmt.Sprintf("lags by %d", p.Lag))))
			default:
				peers = append(peers, p.Name+" "+e.paint(green, "current"))
			}
		}
		rows = append(rows, []string{
			s.Name, fmt.Sprint(s.Replicas), orDash(s.Leader), orDash(strings.Join(peers, ", ")),
			fmt.Sprint(s.Messages), sizeText(s.Bytes), fmt.Sprint(s.LastSeq),
		})
	}
	if err := e.table([]string{"STREAM", "REPLICAS", "LEADER", "OTHERS", "MESSAGES", "SIZE", "LAST SEQUENCE"}, rows); err != nil {
		return err
	}
	for _, p := range st.Problems {
		if err := e.printf("%s\n", e.paint(yellow, p)); err != nil {
			return err
		}
	}
	return nil
}

// dataFlag is the data directory of a command that needs no daemon.
func dataFlag() urfave.Flag {
	return &urfave.StringFlag{Name: "data", Usage: "data `DIR`ectory", Value: "./sluice-data"}
}

func clusterGrow(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "grow", Usage: "move the journal of a stopped daemon into NATS servers elsewhere, with checks before and after",
		Description: "Stop the daemon first. Identity, sequences and bytes stay as they are. What was interrupted goes on when the\n" +
			"command is run again; the old store stays in use until the copy was compared with it, message by message.",
		OnUsageError: onUsageError,
		Flags: append(remoteFlags(), dataFlag(),
			&urfave.IntFlag{Name: "replicas", Usage: "how many servers hold the journal: `N` is 1, 3 or 5", DefaultText: "3 in a cluster, else 1"},
			&urfave.StringSliceFlag{Name: "monitor", Usage: "monitoring `URL` of a server, http://HOST:8222, to see whether it syncs every write; may be given again"},
			&urfave.BoolFlag{Name: "plan", Usage: "only make the checks that come before"},
		),
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			remote, err := e.remoteOf(c)
			if err != nil {
				return err
			}
			remote.Replicas = c.Int("replicas")
			if remote.Replicas < 0 || remote.Replicas > 5 {
				return usagef("--replicas %d: want 1, 3 or 5", remote.Replicas)
			}
			cfg := journal.GrowConfig{Remote: remote, Plan: c.Bool("plan"), Logger: e.log}
			if monitors := c.StringSlice("monitor"); len(monitors) > 0 {
				cfg.Synced = func(ctx context.Context) (bool, string, error) { return allSynced(ctx, monitors) }
			}
			return e.grow(c.Context, c.String("data"), cfg)
		},
	}
}

// grow moves the journal of a data directory.
func (e *env) grow(ctx context.Context, path string, cfg journal.GrowConfig) (err error) {
	dir, err := openDataDir(path, "", false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	m := e.newMeter()
	defer m.end()
	cfg.Dir = dir.journal()
	cfg.Progress = func(stage string, p journal.CopyProgress) {
		m.show(pipeline.Progress{Stage: stage + " " + p.Stream, Done: int64(p.Done), Total: int64(p.Last)})
	}
	if !e.json {
		cfg.Checked = func(c journal.GrowCheck) {
			m.end()
			mark := e.paint(green, "ok  ")
			if !c.OK {
				mark = e.paint(red, "FAIL")
			}
			_ = e.printf("%s  %-9s %s\n", mark, c.Name, c.Text) // a broken pipe shows at the end
		}
	}
	report, err := journal.Grow(ctx, cfg)
	m.end()
	if err != nil {
		return err
	}
	if e.json {
		return e.printJSON(report)
	}
	if !report.Moved {
		return e.printf("Nothing was changed. Without --plan, the journal moves now.\n")
	}
	return e.printf("The journal moved to %s. The old store in %s is marked and takes nothing any more; keep it until a backup was made.\n"+
		"Start the daemon with: sluice serve --data %s --nats-url %s\n", report.To, cfg.Dir, path, report.To)
}

// remoteFlags are how a command reaches NATS servers elsewhere.
func remoteFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringSliceFlag{Name: "nats-url", Usage: "`URL` of a NATS server, nats://HOST:PORT or tls://HOST:PORT; several with commas, or given again", DefaultText: "those in --creds"},
		&urfave.StringFlag{Name: "creds", Usage: "credentials `FILE` of a worker that was enrolled, or of a main process"},
		&urfave.StringFlag{Name: "roots", Usage: "certificates that vouch for servers with tls://: `FILE` in PEM form", DefaultText: "the system's"},
	}
}

// remoteOf reads the flags of remoteFlags.
func (e *env) remoteOf(c *urfave.Context) (r journal.Remote, err error) {
	if path := c.String("creds"); path != "" {
		creds, err := readCredentials(path)
		if err != nil {
			return r, err
		}
		if r, err = creds.remote(); err != nil {
			return r, err
		}
	}
	r.Name = cmp.Or(r.Name, "main")
	if c.IsSet("nats-url") {
		r.URLs = nil
		for _, text := range c.StringSlice("nats-url") {
			r.URLs = append(r.URLs, strings.Split(text, ",")...)
		}
	}
	for _, u := range r.URLs {
		if err := checkNATSURL(u); err != nil {
			return r, usagef("--nats-url: %v", err)
		}
	}
	if len(r.URLs) == 0 {
		return r, &usageError{msg: "it is not said where the NATS servers are", hint: "say it with --nats-url URL, or with --creds FILE"}
	}
	if path := c.String("roots"); path != "" || r.TLS == nil && overTLS(r.URLs) {
		var pem []byte
		if path != "" {
			if pem, err = os.ReadFile(path); err != nil {
				return r, err
			}
		}
		if r.TLS, err = rootsTLS(string(pem)); err != nil {
			return r, err
		}
	}
	return r, nil
}

// allSynced asks each server's monitoring port whether it syncs every write.
func allSynced(ctx context.Context, monitors []string) (ok bool, seen string, err error) {
	client := http.Client{Timeout: 10 * time.Second}
	defer client.CloseIdleConnections()
	var good, bad []string
	for _, m := range monitors {
		name, synced, err := askSync(ctx, &client, m)
		if err != nil {
			return false, "", fmt.Errorf("ask %s: %w", m, err)
		}
		if synced {
			good = append(good, name)
		} else {
			bad = append(bad, name)
		}
	}
	if len(bad) > 0 {
		return false, strings.Join(bad, ", ") + " does not sync every write: set sync_interval: always in its jetstream block, and restart it", nil
	}
	return true, strings.Join(good, ", ") + " syncs every write", nil
}

func askSync(ctx context.Context, client *http.Client, monitor string) (name string, synced bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(monitor, "/")+"/varz", nil)
	if err != nil {
		return "", false, err
	}
	res, err := client.Do(req)
	if err != nil {
		return "", false, err
	}
	defer res.Body.Close() //nolint:errcheck // it was read
	var varz struct {
		Name      string `json:"server_name"`
		JetStream struct {
			Config *struct {
				SyncAlways bool `json:"sync_always"`
			} `json:"config"`
		} `json:"jetstream"`
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&varz); err != nil {
		return "", false, err
	}
	if varz.JetStream.Config == nil {
		return varz.Name, false, errors.New("it has no JetStream")
	}
	return varz.Name, varz.JetStream.Config.SyncAlways, nil
}
