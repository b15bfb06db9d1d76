package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/backup"
	"sluice/keymgr/file"
	"sluice/pipeline"
)

// printCopies tells of the last copy of the journal, and of the log that this
// one goes on from.
func (e *env) printCopies(s pipeline.JournalStatus) error {
	if c := s.Continued; c != nil {
		if err := e.printf("log: goes on from %s of %s since %s: %s\n", count(c.Size, "event"), c.Origin, when(c.Time), c.Reason); err != nil {
			return err
		}
	}
	b := s.Backup
	if b == nil {
		return e.printf("backup: none was made by sluice journal backup\n")
	}
	return e.printf("backup: %s up to %s, in %s; %s came since\n",
		when(b.Time), count(b.Size, "event"), b.Place, count(s.Events.LastSeq-b.Size, "event"))
}

func journalBackup(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "backup", Usage: "copy the journal of a running daemon into a folder, verified on the way", ArgsUsage: "DIR",
		Description: "What DIR holds already is kept, and what came since is added. Until it is done, DIR is\n" +
			"the backup that it was before. keys/ of the data directory is not in it. With --data no\n" +
			"daemon is needed, and none may run there.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "data", Usage: "without a daemon: the journal in this data `DIR`"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			folder, err := backup.OpenFolder(args[0])
			if err != nil {
				return backupHint(err)
			}
			s, err := e.backUp(c, folder, args[0])
			if err = errors.Join(backupHint(err), folder.Close()); err != nil {
				return err
			}
			return e.printBackup(s)
		},
	}
}

// backupHint says what to do about what is wrong with a backup.
func backupHint(err error) error {
	switch {
	case errors.Is(err, backup.ErrOther):
		return withHint(fmt.Errorf("%w: %w", err, pipeline.ErrState), "choose a folder of its own for each journal; one that was restored is another one")
	case errors.Is(err, backup.ErrNoBackup):
		return fmt.Errorf("%w: %w", err, pipeline.ErrNotFound)
	case errors.Is(err, backup.ErrDamaged):
		return withHint(err, "look where the damage is: sluice journal verify for the journal, sluice journal restore --check for a backup; a damaged one is replaced by a new one in another folder")
	}
	return err
}

// backUp writes into the folder what the journal of a daemon, or of a data
// directory, has.
func (e *env) backUp(c *urfave.Context, folder *backup.Folder, dir string) (s backup.Summary, err error) {
	m := e.newMeter()
	defer m.end()
	opts := backup.WriteOptions{Now: time.Now(), Program: "sluice " + readVersion().Version, Progress: progressOf(m, "backup")}
	if data := c.String("data"); data != "" {
		return e.backUpData(c.Context, folder, data, opts)
	}
	err = e.clientAction(func(client *api.Client) error {
		err := client.BackupJournal(c.Context, folder.Position(), func(head backup.Head, source backup.Source) (err error) {
			s, err = folder.Write(c.Context, head, source, opts)
			return err
		})
		if err != nil {
			return err
		}
		place, err := filepath.Abs(dir)
		if err != nil {
			return err
		}
		return client.RecordBackup(c.Context, pipeline.BackupDone{
			Size: s.Size, Hash: s.Hash, Chunks: s.Chunks, Missing: s.Missing, Place: place,
		})
	})
	return s, err
}

// progressOf shows events as they are done.
func progressOf(m *meter, stage string) func(done, total uint64) {
	return func(done, total uint64) {
		m.show(pipeline.Progress{Stage: stage, Done: int64(done), Total: int64(total)})
	}
}

// backUpData copies the journal of a data directory that no daemon runs on.
func (e *env) backUpData(ctx context.Context, folder *backup.Folder, data string, opts backup.WriteOptions) (s backup.Summary, err error) {
	dir, err := openDataDir(data, "", false)
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	j, err := journal.Open(ctx, journal.Config{Dir: dir.journal(), Logger: e.log})
	if err != nil {
		return s, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	head := backup.Head{}
	if head.Rehearsal, err = dir.rehearsal(); err != nil {
		return s, err
	}
	if head, err = backup.Complete(ctx, j, head); err != nil {
		return s, err
	}
	key, err := auditKeyOf(dir, j, head.Identity)
	if err != nil {
		return s, err
	}
	if key != nil {
		head.Origin, head.Key, opts.Key = key.Name(), key.Verifier().String(), key
	}
	if after := folder.Position(); after.Seq > 0 {
		if ours, err := j.Check(ctx, after); err != nil || !ours {
			return s, errors.Join(err, fmt.Errorf("the backup there ends with event %d of journal %s, which is not part of this journal %s: %w",
				after.Seq, after.Stream, head.Identity, backup.ErrOther))
		}
	}
	return folder.Write(ctx, head, backup.OfJournal(j), opts)
}

// auditKeyOf is the audit key of a data directory; nil where it has none.
func auditKeyOf(dir *dataDir, j *journal.NATS, identity string) (*audit.Key, error) {
	path := filepath.Join(dir.keys(), auditKeyFile(j.Former(), identity))
	if _, err := os.Stat(path); err != nil {
		return nil, nil //nolint:nilerr,nilnil // without it the backup is not signed
	}
	return file.ReadAudit(path)
}

// printBackup tells what was written; chunks that should have been there end
// in exit code 1.
func (e *env) printBackup(s backup.Summary) error {
	if e.json {
		if err := e.printJSON(s); err != nil {
			return err
		}
	} else if err := e.printBackupText(s); err != nil {
		return err
	}
	if len(s.Gone) > 0 {
		return errSilent
	}
	return nil
}

func (e *env) printBackupText(s backup.Summary) error {
	for _, g := range s.Gone {
		if err := e.printf("event %d: %s\n", g.Seq, e.paint(red, "the journal does not hold its chunk "+g.SHA256.String())); err != nil {
			return err
		}
	}
	added := "nothing was new"
	if s.Size >= s.From {
		added = fmt.Sprintf("%s new", count(s.Size-s.From+1, "event"))
	}
	text := fmt.Sprintf("%s: journal %s, %s (%s), %s, %s\n", s.Dir, s.Identity, count(s.Size, "event"), added, count(s.Chunks, "chunk"), sizeText(uint64(s.Bytes)))
	if len(s.Gone) > 0 {
		text += "it is whole but for the chunks above; see: sluice journal verify\n"
	}
	return e.printf("%sprivate keys are not in it: copy keys/ of the data directory too\n", text)
}

// firstOf lists names, the first ones of many.
func firstOf(names []string, most int) string {
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
