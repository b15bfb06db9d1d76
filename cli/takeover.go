package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
)

func keyExport(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "export", Usage: "write a key as BIND's K*.private, K*.key and K*.state files, for another signer", ArgsUsage: "ZONE ID",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Value: ".", Usage: "the folder `DIR` to write to; files that are there are not replaced"},
			&urfave.BoolFlag{Name: "i-understand", Usage: "I understand that whoever reads the .private file can sign the zone"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if !c.Bool("i-understand") {
				return &usageError{
					msg:  "the private part of the key would leave its keystore: whoever reads the file can sign the zone",
					hint: "where that is meant: sluice key export " + args[0] + " " + args[1] + " --i-understand",
				}
			}
			dir, err := filepath.Abs(c.String("output"))
			if err != nil {
				return err
			}
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				return usagef("%s is no folder", dir)
			}
			files, err := client.ExportKey(c.Context, args[0], args[1])
			if err != nil {
				return err
			}
			defer clear(files.Private)
			paths, err := writeKeyFiles(dir, files)
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"id": args[1], "files": paths})
			}
			return e.printf("%s\n", strings.Join(paths, "\n"))
		}, "ID"),
	}
}

// writeKeyFiles writes the files of a key, for their owner alone. Where one
// cannot be written, none stays.
func writeKeyFiles(dir string, files keymgr.KeyFiles) (paths []string, err error) {
	if files.Name != filepath.Base(files.Name) {
		return nil, fmt.Errorf("the daemon names the key %q", files.Name)
	}
	defer func() {
		if err != nil {
			for _, path := range paths {
				err = errors.Join(err, os.Remove(path))
			}
		}
	}()
	for _, f := range []struct {
		suffix string
		text   []byte
	}{{".private", files.Private}, {".key", files.Public}, {".state", files.State}} {
		path := filepath.Join(dir, files.Name+f.suffix)
		out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return paths, fmt.Errorf("%s is there already, and is not replaced: give another folder, -o DIR", path)
		}
		if err != nil {
			return paths, err
		}
		paths = append(paths, path)
		if _, err = out.Write(f.text); err == nil {
			err = out.Sync()
		}
		if err = errors.Join(err, out.Close()); err != nil {
			return paths, fmt.Errorf("write %s: %w", path, err)
		}
	}
	return paths, nil
}

// lifeNotes tells how the notes of the former signer of keys were read.
func (e *env) lifeNotes(keys []keymgr.Key) {
	if e.json {
		return
	}
	for _, k := range keys {
		if l := k.Life; l != nil {
			text := fmt.Sprintf("%s %d was %s where it was before", strings.ToUpper(k.Role), k.Tag, l.State)
			if len(l.Notes) > 0 {
				text += ": " + strings.Join(l.Notes, "; ")
			}
			e.note("%s", text)
		}
	}
}

// planTakeover prints how a zone would be taken over.
func (e *env) planTakeover(c *urfave.Context, client *api.Client, z pipeline.NewZone) error {
	plan, err := client.PlanTakeover(c.Context, z)
	if err != nil {
		return err
	}
	if e.json {
		err = e.printJSON(plan)
	} else {
		err = e.printTakeover(plan)
	}
	if err == nil && plan.Refused != "" {
		err = errSilent
	}
	return err
}

func (e *env) printTakeover(plan pipeline.TakeoverPlan) error {
	rows := make([][]string, 0, len(plan.Keys))
	for _, k := range plan.Keys {
		since, notes := "", []string(nil)
		if k.Since != nil {
			since = when(*k.Since)
		}
		if k.Life != nil {
			notes = k.Life.Notes
		}
		rows = append(rows, []string{k.ID, k.Role, fmt.Sprint(k.Tag), keymgr.AlgorithmName(k.Algorithm), string(k.State), since, strings.Join(notes, "; ")})
	}
	if err := e.table([]string{"KEY", "ROLE", "TAG", "ALGORITHM", "STATE", "SINCE", "NOTES"}, rows); err != nil {
		return err
	}
	serial := ""
	if plan.Serial != nil {
		serial = fmt.Sprintf("above %d, which the public servers show", *plan.Serial)
	}
	pairs := []string{"parent", plan.DS, "DS wanted of", strings.Join(plan.Wanted, ", "), "serials", serial}
	for _, r := range plan.Rollovers {
		text := fmt.Sprintf("of %s goes on at step %d: %s", r.Kind, r.Step, r.Text)
		if r.Since != nil {
			text += ", its wait counts from " + when(*r.Since)
		}
		pairs = append(pairs, "rollover", text)
	}
	for _, n := range plan.Notes {
		pairs = append(pairs, "note", n)
	}
	if plan.Refused != "" {
		pairs = append(pairs, "refused", e.paint(red, plan.Refused))
	}
	return e.fields(pairs...)
}
