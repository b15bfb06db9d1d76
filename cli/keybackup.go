package cli

import (
	"fmt"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func keyBackup(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "backup", Usage: "which keys were backed up",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{keyBackupList(e), keyBackupMark(e)},
	}
}

func keyBackupList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "the keys with a private part here, of a zone or of all, and when they were backed up", ArgsUsage: "[ZONE]",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "missing", Usage: "only those without a backup mark"},
		},
		Action: func(c *urfave.Context) error {
			name, err := zoneOrAll(c.Args().Slice())
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				keys, err := client.Backups(c.Context, name, c.Bool("missing"))
				if err != nil {
					return err
				}
				return e.printBackups(keys)
			})
		},
	}
}

// zoneOrAll is the zone that arguments name; "" for none.
func zoneOrAll(args []string) (string, error) {
	switch len(args) {
	case 0:
		return "", nil
	case 1:
		_, err := parseZone(args[0])
		return args[0], err
	}
	return "", usagef("want one ZONE, or none for all")
}

func keyBackupMark(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "mark", Usage: "say that keys were backed up: these, all of a zone, or all there are", ArgsUsage: "[ZONE [ID...]]",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "all", Usage: "the keys of all zones"},
			&urfave.StringFlag{Name: "before", Usage: "only keys made before `TIME`: when the copy began"},
		},
		Action: func(c *urfave.Context) error {
			args := c.Args().Slice()
			q := pipeline.BackupRequest{}
			switch {
			case c.Bool("all") && len(args) > 0:
				return usagef("--all is the keys of all zones: it takes no ZONE")
			case !c.Bool("all") && len(args) == 0:
				return &usageError{msg: "ZONE is missing", hint: "for the keys of all zones: sluice key backup mark --all"}
			case len(args) > 0:
				if _, err := parseZone(args[0]); err != nil {
					return err
				}
				q.Zones, q.Keys = args[:1], args[1:]
			}
			if text := c.String("before"); text != "" {
				var err error
				if q.Before, err = parseTime(text, time.Now()); err != nil {
					return err
				}
			}
			return e.clientAction(func(client *api.Client) error {
				keys, err := client.MarkBackup(c.Context, q)
				if err != nil {
					return err
				}
				if len(keys) == 0 && !e.json {
					return e.printf("no key was without a backup mark\n")
				}
				return e.printBackups(keys)
			})
		},
	}
}

func (e *env) printBackups(keys []pipeline.BackupKey) error {
	if e.json {
		return e.printJSON(keys)
	}
	rows := make([][]string, 0, len(keys))
	for _, k := range keys {
		backed := "no"
		if !k.BackedUp.IsZero() {
			backed = when(k.BackedUp)
		}
		rows = append(rows, []string{k.Zone, k.ID, k.Role, fmt.Sprint(k.Tag), string(k.State), when(k.Generated), backed, keyPlace(k.Key)})
	}
	return e.table([]string{"ZONE", "KEY", "ROLE", "TAG", "STATE", "MADE", "BACKED UP", "KEYSTORE"}, rows)
}

func keyPublish(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "publish", Usage: "have a key stand by in the DNSKEY RRset; a rollover then takes it first", ArgsUsage: "ZONE ID",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.PublishKey(c.Context, args[0], args[1])
			if err != nil {
				return err
			}
			return e.printKeys(status.Keys)
		}, "ID"),
	}
}
