package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal/audit"
	"sluice/pipeline"
)

func auditCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "audit",
		Usage:        "signed checkpoints of the journal, and exports that prove themselves",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{auditHead(e), auditCosign(e), auditExport(e), auditVerify(e), auditReport(e)},
	}
}

func auditHead(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "head", Usage: "the newest signed checkpoint of the journal, and the public key",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "now", Usage: "make one over everything that is there now"},
			&urfave.BoolFlag{Name: "note", Usage: "print the signed note alone, to be kept elsewhere"},
		},
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				get := client.AuditHead
				if c.Bool("now") {
					get = client.Seal
				}
				h, err := get(c.Context)
				if err != nil {
					return err
				}
				if c.Bool("note") {
					return e.printNote(h)
				}
				return e.printAuditHead(h)
			})
		},
	}
}

func (e *env) printNote(h pipeline.AuditHead) error {
	if h.Checkpoint == nil {
		return withHint(fmt.Errorf("there is no checkpoint yet: %w", pipeline.ErrState), "make one: sluice audit head --now")
	}
	return e.printf("%s", h.Checkpoint.Note)
}

func (e *env) printAuditHead(h pipeline.AuditHead) error {
	if e.json {
		return e.printJSON(h)
	}
	if h.Checkpoint == nil {
		return e.fields("audit key", h.Key, "checkpoint", "none yet", "events", fmt.Sprint(h.Later), "trouble", h.Trouble)
	}
	c := h.Checkpoint
	return e.fields("audit key", h.Key,
		"checkpoint", fmt.Sprintf("%s of %s, signed %s (seq %d)", count(c.Size, "event"), count(c.Zones, "chain"), when(c.Time), c.Seq),
		"root", c.Root,
		"cosigned by", strings.Join(c.Cosigned, ", "),
		"later", count(h.Later, "event"),
		"trouble", h.Trouble)
}

func auditCosign(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "cosign", Usage: "take the newest checkpoint back with the signatures of witnesses", ArgsUsage: "FILE",
		Description:  "FILE is the signed note with their lines added, - is standard input. Their keys stand\nin audit.witnesses of the config.",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "FILE")
			if err != nil {
				return err
			}
			note, err := e.readNote(args[0])
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				h, err := client.Cosign(c.Context, note)
				if err != nil {
					return err
				}
				return e.printAuditHead(h)
			})
		},
	}
}

// maxNote bounds a signed checkpoint, in bytes.
const maxNote = 64 << 10

func (e *env) readNote(path string) (string, error) {
	in := e.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		in = f
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxNote+1))
	if err == nil && len(raw) > maxNote {
		err = fmt.Errorf("%s: more than %d bytes, not a checkpoint", path, maxNote)
	}
	return string(raw), err
}

func auditExport(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "export", Usage: "write events with their proofs into a new folder", ArgsUsage: "[FIELD...]",
		Description:  "Without --zone, --since and --until it is the whole journal. cli/docs/audit-format.md has the\nformat; sluice audit verify checks it, without a daemon.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringSliceFlag{Name: "zone", Usage: "events of the zone `NAME` only; may be given again"},
			&urfave.StringFlag{Name: "since", Usage: "from this `TIME` on"},
			&urfave.StringFlag{Name: "until", Usage: "up to this `TIME`"},
			&urfave.BoolFlag{Name: "chunks", Usage: "contents of zones go along"},
			&urfave.BoolFlag{Name: "drop-sealed", Usage: "leave sealed values out: all, or only those named behind it: actor, reason, output, peer, or a field such as facts.reason"},
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write into `DIR`, which must not be there yet"},
		},
		Action: func(c *urfave.Context) error {
			q := pipeline.ExportQuery{Zones: c.StringSlice("zone"), Chunks: c.Bool("chunks"), DropSealed: c.Bool("drop-sealed")}
			if q.Drop = c.Args().Slice(); len(q.Drop) > 0 && !q.DropSealed {
				return usagef("%q: fields are named behind --drop-sealed", q.Drop[0])
			}
			if c.String("output") == "" {
				return usagef("name a new folder with -o DIR")
			}
			var err error
			if q.Since, err = timeFlag(c, "since"); err != nil {
				return err
			}
			if q.Until, err = timeFlag(c, "until"); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error { return e.writeExport(c.Context, client, q, c.String("output")) })
		},
	}
}

// writeExport writes an export into a folder beside dir, and moves it there
// once it is whole.
func (e *env) writeExport(ctx context.Context, client *api.Client, q pipeline.ExportQuery, dir string) (err error) {
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fmt.Errorf("%s is already there: %w", dir, pipeline.ErrState)
		}
		return withHint(err, "choose another folder with -o")
	}
	tmp, err := os.MkdirTemp(filepath.Dir(filepath.Clean(dir)), "."+filepath.Base(dir)+"-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone already once it was renamed
	root, err := os.OpenRoot(tmp)
	if err != nil {
		return err
	}
	defer root.Close()
	files, size := uint64(0), uint64(0)
	err = client.AuditExport(ctx, q, func(path string, n int64, content io.Reader) error {
		files, size = files+1, size+uint64(n)
		return writeBelow(root, path, content)
	})
	if err != nil {
		return err
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return err
	}
	if e.json {
		return e.printJSON(map[string]any{"dir": dir, "files": files, "bytes": size})
	}
	return e.printf("%s: %s, %s; check it anywhere: sluice audit verify %s --key KEY (the key: sluice audit head)\n",
		dir, count(files, "file"), sizeText(size), dir)
}

// writeBelow writes a file below root; a path that leads out of it is an
// error.
func writeBelow(root *os.Root, path string, content io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

func auditVerify(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "verify", Usage: "check an export; needs no daemon", ArgsUsage: "DIR",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "key", Usage: "public audit key `NAME+HASH+KEY`, as it was handed over, or @FILE"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			if c.String("key") == "" {
				return usagef("name the public audit key with --key; it proves something only if it came another way than the export")
			}
			r, err := verifyExport(args[0], c.String("key"))
			if err != nil {
				return err
			}
			return e.printExportReport(args[0], r)
		},
	}
}

// readAuditKey reads a public audit key, or the name of a file with it behind
// an @.
func readAuditKey(text string) (*audit.Verifier, error) {
	if path, named := strings.CutPrefix(text, "@"); named {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		text = strings.TrimSpace(string(raw))
	}
	key, err := audit.ParseVerifier(text)
	if err != nil {
		return nil, usagef("--key: %v", err)
	}
	return key, nil
}

// verifyExport verifies the export in dir; key is as
// readAuditKey takes it.
func verifyExport(dir, key string) (audit.Report, error) {
	v, err := readAuditKey(key)
	if err != nil {
		return audit.Report{}, err
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return audit.Report{}, fmt.Errorf("no folder %s: %w", dir, pipeline.ErrNotFound)
	}
	return audit.Verify(os.DirFS(dir), v)
}

// printExportReport prints what was proved; faults end in exit code 1.
func (e *env) printExportReport(dir string, r audit.Report) error {
	if e.json {
		if err := e.printJSON(r); err != nil {
			return err
		}
	} else if err := e.printExportText(dir, r); err != nil {
		return err
	}
	if r.FaultCount > 0 {
		return errSilent
	}
	return nil
}

// sealedText tells how many fields are sealed; empty for none.
func sealedText(all, dropped uint64) string {
	switch {
	case all == 0:
		return ""
	case dropped == 0:
		return fmt.Sprintf("%d, all of them here", all)
	case dropped == all:
		return fmt.Sprintf("%d, all of them dropped", all)
	}
	return fmt.Sprintf("%d: %d here, %d dropped", all, all-dropped, dropped)
}

func (e *env) printExportText(dir string, r audit.Report) error {
	for _, f := range r.Faults {
		where := f.File
		if f.Seq > 0 {
			where += fmt.Sprintf(", event %d", f.Seq)
		}
		if err := e.printf("%s: %s\n", where, f.What); err != nil {
			return err
		}
	}
	if more := r.FaultCount - len(r.Faults); more > 0 {
		if err := e.printf("and %d more\n", more); err != nil {
			return err
		}
	}
	if r.FaultCount > 0 {
		return e.printf("%s: %s: not what was signed\n", dir, e.paint(red, "FAILED"))
	}
	what := fmt.Sprintf("%d of %s", r.Events, count(uint64(r.Size), "event"))
	if r.Whole {
		what = fmt.Sprintf("all %s", count(uint64(r.Size), "event"))
	}
	return e.fields("export", dir+": "+e.paint(green, "proved"), "log", r.Origin, "root", r.Root,
		"holds", what, "zones", strings.Join(r.Zones, ", "),
		"chains", fmt.Sprintf("%d, the end of none is missing", r.Chains),
		"earlier checkpoints", fmt.Sprintf("%d, all within this one", r.Checkpoints),
		"chunks", fmt.Sprint(r.Chunks), "sealed fields", sealedText(r.Sealed, r.SealedDropped), "further signatures by", strings.Join(r.Cosigners, ", "))
}
