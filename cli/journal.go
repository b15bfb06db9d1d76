package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal"
	"sluice/pipeline"
)

func journalCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "journal",
		Usage:        "the state of the journal, its proof, its copies",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{journalStatus(e), journalVerify(e), journalBackup(e), journalRestore(e), journalCompact(e)},
	}
}

func journalStatus(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "streams, sizes, positions of projections and zones",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				s, err := client.JournalStatus(c.Context)
				if err != nil {
					return err
				}
				return e.printJournal(s)
			})
		},
	}
}

func (e *env) printJournal(s pipeline.JournalStatus) error {
	if e.json {
		return e.printJSON(s)
	}
	if err := e.fields("journal", s.Identity); err != nil {
		return err
	}
	var rows [][]string
	for _, part := range []struct {
		name   string
		stream journal.StreamStatus
	}{{"EVENTS", s.Events}, {"BULK", s.Bulk}} {
		limit := "none"
		if part.stream.MaxBytes > 0 {
			limit = fmt.Sprintf("%s, %d %% full", sizeText(uint64(part.stream.MaxBytes)), part.stream.Bytes*100/uint64(part.stream.MaxBytes))
		}
		rows = append(rows, []string{
			part.name, fmt.Sprint(part.stream.Messages), sizeText(part.stream.Bytes), limit,
			fmt.Sprintf("%d to %d", part.stream.FirstSeq, part.stream.LastSeq),
		})
	}
	if err := e.table([]string{"STREAM", "MESSAGES", "SIZE", "LIMIT", "SEQUENCES"}, rows); err != nil {
		return err
	}
	for _, p := range s.Projections {
		if err := e.printf("projection %s: at sequence %d, %s behind\n", p.Name, p.Seq, count(p.Lag, "event")); err != nil {
			return err
		}
	}
	if err := e.printReserve(s.Reserve); err != nil {
		return err
	}
	if err := e.printCopies(s); err != nil || len(s.Zones) == 0 {
		return err
	}
	rows = nil
	for _, z := range s.Zones {
		from := fmt.Sprintf("%d, all versions", z.OldestFrom)
		if z.OldestSerial != 0 {
			from = fmt.Sprintf("%d, serial %d", z.OldestFrom, z.OldestSerial)
		}
		held, goes := "-", "-"
		if z.Held != nil && z.Purgeable != nil {
			held, goes = sizeText(*z.Held), sizeText(*z.Purgeable)
		}
		rows = append(rows, []string{z.Zone, z.ID, fmt.Sprint(z.N), fmt.Sprint(z.Seq), from, held, z.Retention, goes})
	}
	return e.table([]string{"ZONE", "ID", "EVENTS", "LAST SEQUENCE", "REBUILDABLE FROM", "HELD", "RETENTION", "WOULD GO"}, rows)
}

func (e *env) printReserve(r *pipeline.ReserveStatus) error {
	switch {
	case r == nil:
		return nil
	case r.State == "none":
		return e.printf("disk reserve: none (reserve-max in the config)\n")
	}
	return e.printf("disk reserve: %s, %s of %s in %s\n", r.State, sizeText(r.Bytes), sizeText(r.Wanted), r.Path)
}

// sizeText writes a number of bytes.
func sizeText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, u := float64(n), 0
	for v >= 1024 && u < len(units)-1 {
		v /= 1024
		u++
	}
	if u == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[u])
}

func journalVerify(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "verify", Usage: "read the whole journal: encoding, links, gaps, every chunk",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "data", Usage: "without a daemon: verify a copy of the journal in this data `DIR`"},
			&urfave.StringSliceFlag{Name: "checkpoint", Usage: "what this checkpoint counts, kept in `FILE`, must be there; may be given again"},
			&urfave.StringFlag{Name: "key", Usage: "public audit key `NAME+HASH+KEY`, as it was handed over, or @FILE", DefaultText: "the daemon's own"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			q, err := e.verifyQuery(c)
			if err != nil {
				return err
			}
			m := e.newMeter()
			defer m.end()
			if dir := c.String("data"); dir != "" {
				report, err := e.verifyData(c.Context, dir, q, m)
				m.end()
				if err != nil {
					return err
				}
				return e.printVerify(report)
			}
			return e.clientAction(func(client *api.Client) error {
				report, err := client.VerifyJournal(c.Context, q, m.show)
				m.end()
				if err != nil {
					return err
				}
				return e.printVerify(report)
			})
		},
	}
}

// verifyQuery reads what a verification relies on.
func (e *env) verifyQuery(c *urfave.Context) (q pipeline.VerifyQuery, err error) {
	for _, path := range c.StringSlice("checkpoint") {
		note, err := e.readNote(path)
		if err != nil {
			return q, err
		}
		q.Checkpoints = append(q.Checkpoints, note)
	}
	if c.String("key") != "" {
		q.Key, err = readAuditKey(c.String("key"))
	} else if c.String("data") != "" && len(q.Checkpoints) > 0 {
		err = usagef("--checkpoint without a daemon needs --key")
	}
	return q, err
}

// verifyData verifies a copy of the journal of a data directory that no
// daemon runs on, so that the original stays as it is.
func (e *env) verifyData(ctx context.Context, path string, q pipeline.VerifyQuery, m *meter) (report journal.VerifyReport, err error) {
	dir, err := openDataDir(path, "", false)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	// With the lock held, what stands there was left by a run that was killed.
	stale, err := filepath.Glob(filepath.Join(path, ".verify-*"))
	for i := 0; i < len(stale) && err == nil; i++ {
		err = os.RemoveAll(stale[i])
	}
	if err != nil {
		return report, err
	}
	copied, err := os.MkdirTemp(path, ".verify-*")
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(copied)) }()
	m.show(pipeline.Progress{Stage: "copy"})
	if err := os.CopyFS(copied, os.DirFS(dir.journal())); err != nil {
		return report, fmt.Errorf("copy journal: %w", err)
	}
	j, err := journal.Open(ctx, journal.Config{Dir: copied, Logger: e.log})
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	return journal.Verify(ctx, j, journal.VerifyOptions{
		Chunks: true, Key: q.Key, Outside: q.Checkpoints,
		Progress: func(done, total uint64) {
			m.show(pipeline.Progress{Stage: "verify", Done: int64(done), Total: int64(total)})
		},
	})
}

// printVerify prints what a verification of the journal found; faults end in
// exit code 1.
func (e *env) printVerify(r journal.VerifyReport) error {
	if e.json {
		if err := e.printJSON(r); err != nil {
			return err
		}
	} else if err := e.printVerifyText(r); err != nil {
		return err
	}
	if r.FaultCount > 0 {
		return errSilent
	}
	return nil
}

func (e *env) printVerifyText(r journal.VerifyReport) error {
	for _, f := range r.Faults {
		where := fmt.Sprintf("seq %d", f.Seq)
		if f.Zone != "" {
			where += ", zone " + string(f.Zone)
		}
		if err := e.printf("%s: %s\n", where, e.paint(red, f.What)); err != nil {
			return err
		}
	}
	if more := r.FaultCount - uint64(len(r.Faults)); more > 0 {
		if err := e.printf("and %d more\n", more); err != nil {
			return err
		}
	}
	verdict := e.paint(green, "sound")
	if r.FaultCount > 0 {
		verdict = e.paint(red, "NOT sound, "+count(r.FaultCount, "fault"))
	}
	text := fmt.Sprintf("journal %s %s: %s of %s, %s, %s, %s in %s", r.Identity, verdict, count(r.Events, "event"),
		count(r.Chains, "chain"), count(r.Checkpoints, "checkpoint"), count(r.Manifests, "manifest"), sizeText(r.ChunkBytes), count(r.Chunks, "chunk"))
	if r.Purged > 0 {
		text += fmt.Sprintf("; %s purged by retention", count(r.Purged, "manifest"))
	}
	if r.Sealed > 0 {
		text += "; sealed fields: " + sealedText(r.Sealed, r.Dropped)
	}
	if r.Unknown > 0 {
		text += fmt.Sprintf("; %s of types that this program does not know", count(r.Unknown, "event"))
	}
	return e.printf("%s\n", text)
}
