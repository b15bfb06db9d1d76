package cli

import (
	"context"
	"errors"
	"os"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/journal"
	"sluice/pipeline"
)

func clusterStandby(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "standby", Usage: "keep a copy of the journal at --nats-url in another place, ready to be promoted",
		Description: "Runs until it is stopped, and may be stopped and started at any time. Every event is checked as it comes.\n" +
			"Private keys are not in the journal: copy keys/ into the data directory as well.",
		OnUsageError: onUsageError,
		Flags: append(remoteFlags(), dataFlag(),
			&urfave.BoolFlag{Name: "once", Usage: "end when all that is there now was copied"},
		),
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			remote, err := e.remoteOf(c)
			if err != nil {
				return err
			}
			return e.standby(c.Context, c.String("data"), journal.StandbyConfig{Remote: remote, Once: c.Bool("once"), Logger: e.log})
		},
	}
}

// openForStandby opens a data directory that has, or is to get, the copy of a
// journal. Keys may be there already.
func openForStandby(path string, create bool) (*dataDir, error) {
	if create {
		if err := os.MkdirAll(path, 0o700); err != nil {
			return nil, err
		}
	}
	d := &dataDir{path: path, beside: "keys"}
	if create {
		if err := d.checkOurs(); err != nil {
			return nil, err
		}
	}
	if err := d.takeLock(create); err != nil {
		return nil, err
	}
	if err := d.checkMarker(realClock, create); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// tellEvery is how often a standby that is in touch tells how far it is.
const tellEvery = time.Minute

// standby keeps a copy in a data directory.
func (e *env) standby(ctx context.Context, path string, cfg journal.StandbyConfig) (err error) {
	dir, err := openForStandby(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	m := e.newMeter()
	defer m.end()
	cfg.Dir = dir.journal()
	first := true
	cfg.Progress = func(p journal.CopyProgress) {
		if first { // later there is little to show
			m.show(pipeline.Progress{Stage: "copy " + p.Stream, Done: int64(p.Done), Total: int64(p.Last)})
		}
	}
	var last journal.StandbyStatus
	var told time.Time
	cfg.Told = func(s journal.StandbyStatus) {
		m.end()
		news := first || s.InTouch != last.InTouch || s.Problem != last.Problem
		if news || s.Events != last.Events && time.Since(told) >= tellEvery {
			e.tellStandby(s)
			told, last = time.Now(), s
		}
		first = false
	}
	return journal.Standby(ctx, cfg)
}

func (e *env) tellStandby(s journal.StandbyStatus) {
	switch { // a broken pipe does not end the copying
	case e.json:
		_ = e.printLine(s)
	case s.InTouch:
		_ = e.printf("copy of journal %s: up to event %d, %s behind, chunks up to %d\n", s.Identity, s.Events, count(s.Behind, "event"), s.Bulk)
	default:
		_ = e.printf("copy of journal %s: up to event %d; %s\n", s.Identity, s.Events, e.paint(red, "not in touch: "+s.Problem))
	}
}
