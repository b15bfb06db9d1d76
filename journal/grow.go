package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// GrowConfig is what Grow needs.
type GrowConfig struct {
	// Dir is the embedded store that is to move; no process may have it open.
	Dir string
	// Remote is where it moves to. Replicas is how many servers shall hold it:
	// 0 is three in a cluster, else one.
	Remote Remote
	// Plan makes the checks and changes nothing that stays.
	Plan bool
	// Synced reports whether each server syncs every write, with what was seen;
	// nil where it cannot be seen.
	Synced func(ctx context.Context) (bool, string, error)
	// Timeout is how long to wait for one answer; 0 means ten seconds.
	Timeout time.Duration
	Logger  *slog.Logger // nil drops what the servers have to say
	// Checked, where not nil, is called after each check, Progress while
	// messages are copied and compared.
	Checked  func(GrowCheck)
	Progress func(stage string, p CopyProgress)
}

// GrowCheck is one thing that must hold before or after the move.
type GrowCheck struct {
	Name string `json:"name"`
	OK   bool   `json:"ok"`
	Text string `json:"text"` // what was found, and what to do where it is not right
}

// GrowReport is what a move found and did.
type GrowReport struct {
	Identity string      `json:"identity"`
	From     string      `json:"from"` // the directory
	To       string      `json:"to"`   // the servers
	Replicas int         `json:"replicas"`
	Events   uint64      `json:"events"`
	Bytes    uint64      `json:"bytes"` // of both streams
	Checks   []GrowCheck `json:"checks"`
	Moved    bool        `json:"moved"`
	Same     *Same       `json:"same,omitempty"` // both stores, compared before the switch
}

// ErrRefused reports a check that does not hold: nothing was switched.
var ErrRefused = errors.New("refused")

// Grow moves an embedded journal into a server or a cluster elsewhere, so that
// identity, sequences and bytes stay as they are. The streams are copied, then
// read again at both ends and compared, and only then is the old store marked
// as moved and the new one opened for use. A Grow that was interrupted goes on
// where it was; until the switch the old store is as good as before.
func Grow(ctx context.Context, cfg GrowConfig) (GrowReport, error) {
	g := &growth{cfg: cfg, report: GrowReport{From: cfg.Dir, Checks: []GrowCheck{}}}
	if g.cfg.Progress == nil {
		g.cfg.Progress = func(string, CopyProgress) {}
	}
	if g.cfg.Timeout == 0 {
		g.cfg.Timeout = 10 * time.Second
	}
	var err error
	if g.old, g.mark, err = openOld(ctx, Config{Dir: cfg.Dir, Logger: cfg.Logger, Timeout: g.cfg.Timeout}); err != nil {
		return g.report, err
	}
	err = g.move(ctx)
	return g.report, errors.Join(err, g.old.Close())
}

// openOld opens a store that is about to move, or that began to.
func openOld(ctx context.Context, cfg Config) (*NATS, marker, error) {
	j := newNATS(cfg)
	var err error
	if j.lock, err = lockStore(cfg.Dir); err != nil {
		return nil, marker{}, errors.Join(err, j.Close())
	}
	m, err := peekMarker(cfg.Dir)
	switch {
	case err != nil:
	case m == nil:
		err = fmt.Errorf("%s holds no journal: nothing to move", cfg.Dir)
	case m.Mode == moved && m.Finished:
		err = modeError(cfg.Dir, *m)
	case m.Mode == moved:
		j.cfg.mode = moved
	}
	if err == nil {
		err = j.init(ctx)
	}
	if err != nil {
		return nil, marker{}, errors.Join(err, j.Close())
	}
	return j, *m, nil
}

// growth is one Grow under way.
type growth struct {
	cfg    GrowConfig
	old    *NATS
	mark   marker
	from   end
	to     end
	report GrowReport
}

func (g *growth) move(ctx context.Context) error {
	s, err := g.old.session()
	if err != nil {
		return err
	}
	g.from = end{nc: s.nc, js: s.js, timeout: g.cfg.Timeout}
	g.report.Identity, g.report.To = g.old.identity, strings.Join(g.cfg.Remote.URLs, ",")
	if g.to, err = dialEnd(g.cfg.Remote, g.old.log, g.cfg.Timeout); err != nil {
		return fmt.Errorf("connect to %s: %w", g.report.To, err)
	}
	defer g.to.nc.Close()
	resumed, err := g.checkBefore(ctx)
	if err != nil || g.cfg.Plan {
		return err
	}
	if !resumed {
		if err := g.makeStreams(ctx); err != nil {
			return err
		}
	}
	if err := g.copyAll(ctx); err != nil {
		return err
	}
	if err := g.checkAfter(ctx); err != nil {
		return err
	}
	return g.switchOver(ctx)
}

// dialEnd connects to a server elsewhere.
func dialEnd(r Remote, log *slog.Logger, timeout time.Duration) (end, error) {
	j := newNATS(Config{Remote: r, Logger: log, Timeout: timeout})
	options, err := j.options(&session{}, func(error) {})
	if err != nil {
		return end{}, err
	}
	nc, err := nats.Connect(r.servers(), append(options, nats.ReconnectHandler(nil), nats.RetryOnFailedConnect(false))...)
	if err != nil {
		return end{}, connectError(err)
	}
	if err := checkServer(nc); err != nil {
		nc.Close()
		return end{}, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		nc.Close()
		return end{}, err
	}
	return end{nc: nc, js: js, timeout: timeout}, nil
}

// check notes one check; where it fails nothing goes on.
func (g *growth) check(name string, ok bool, format string, args ...any) error {
	c := GrowCheck{Name: name, OK: ok, Text: fmt.Sprintf(format, args...)}
	g.report.Checks = append(g.report.Checks, c)
	if g.cfg.Checked != nil {
		g.cfg.Checked(c)
	}
	if !ok {
		return fmt.Errorf("%s: %s: %w", name, c.Text, ErrRefused)
	}
	return nil
}

// makeStreams makes both streams, marked as unfinished copies.
func (g *growth) makeStreams(ctx context.Context) error {
	for _, want := range g.old.streams() {
		want.Replicas = g.report.Replicas
		want.Metadata = maps.Clone(want.Metadata)
		want.Metadata[copyKey] = copying
		if former := g.old.Former(); len(former) > 0 {
			text, err := json.Marshal(former)
			if err != nil {
				return err
			}
			want.Metadata[formerKey] = string(text)
		}
		err := g.to.insist(ctx, func(ctx context.Context) error {
			_, err := g.to.js.CreateStream(ctx, want)
			return err
		})
		if err != nil {
			return fmt.Errorf("make stream %s with %d replicas: %w", want.Name, want.Replicas, err)
		}
	}
	return nil
}

// copyAll brings both streams up to date.
func (g *growth) copyAll(ctx context.Context) error {
	for _, stream := range []string{eventsStream, bulkStream} {
		info, err := g.from.info(ctx, stream)
		if err != nil {
			return err
		}
		if err := skipTo(ctx, g.to, stream, info.State.FirstSeq); err != nil {
			return err
		}
		c := copier{from: g.from, to: g.to, stream: stream, tell: func(p CopyProgress) { g.cfg.Progress("copy", p) }}
		if err := c.run(ctx, info.State.LastSeq); err != nil {
			return err
		}
	}
	return dropGaps(ctx, g.to)
}

// skipTo lets an empty stream begin at a sequence.
func skipTo(ctx context.Context, to end, stream string, first uint64) error {
	info, err := to.info(ctx, stream)
	if err != nil || first <= 1 || info.State.LastSeq > 0 || stream == eventsStream {
		return err
	}
	if err = to.purge(ctx, stream, jetstream.WithPurgeSequence(first)); err != nil {
		return fmt.Errorf("let stream %s begin at %d: %w", stream, first, err)
	}
	return nil
}

// checkAfter compares both stores.
func (g *growth) checkAfter(ctx context.Context) error {
	if err := g.awaitReplicas(ctx, eventsStream, bulkStream); err != nil {
		return err
	}
	same, err := compare(ctx, g.from, g.to, func(p CopyProgress) { g.cfg.Progress("compare", p) })
	if err != nil {
		return errors.Join(g.check("copy", false, "%v", err), err)
	}
	g.report.Same = &same
	return g.check("copy", true, "%d events with root %s and %d chunks are the same at both ends", same.Events, same.Root, same.Chunks)
}

// switchOver ends the old store's life and begins the new one's.
func (g *growth) switchOver(ctx context.Context) error {
	// From here on the old store takes no events, and the new one not yet: a
	// crash in between is finished by the next Grow.
	m := g.mark
	m.Mode, m.MovedTo = moved, g.report.To
	if err := writeMarker(g.cfg.Dir, m); err != nil {
		return err
	}
	for _, stream := range []string{bulkStream, eventsStream} {
		info, err := g.to.info(ctx, stream)
		if err != nil {
			return err
		}
		next := info.Config
		next.Metadata = maps.Clone(next.Metadata)
		delete(next.Metadata, copyKey)
		err = g.to.insist(ctx, func(ctx context.Context) error {
			_, err := g.to.js.UpdateStream(ctx, next)
			return err
		})
		if err != nil {
			return fmt.Errorf("open stream %s for use: %w", stream, err)
		}
	}
	m.Finished = true
	if err := writeMarker(g.cfg.Dir, m); err != nil {
		return err
	}
	g.report.Moved = true
	return nil
}
