package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/journal"
	"sluice/pipeline"
)

func workerCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:            "worker",
		Usage:           "run a further process on a journal elsewhere; enroll, list and remove such workers",
		HideHelpCommand: true,
		Description:     "With --creds it runs a worker; see also: sluice help workers.",
		OnUsageError:    onUsageError,
		Flags:           append(processFlags(), workerFlags()...),
		Action: func(c *urfave.Context) error {
			if c.Args().Present() || c.NumFlags() == 0 {
				return commandMissing(c)
			}
			s, err := newServing(e, c, true)
			if err != nil {
				return err
			}
			return s.run(c.Context)
		},
		Subcommands: []*urfave.Command{workerEnroll(e), workerList(e), workerRemove(e)},
	}
}

func workerEnroll(e *env) *urfave.Command {
	const usage = "usage: sluice worker enroll NAME --roles LIST -o FILE"
	return &urfave.Command{
		Name: "enroll", Usage: "let a further process join the journal, and make its credentials", ArgsUsage: "NAME",
		Description: "The secrets are made here and go into FILE alone (0600); the journal keeps the public\n" +
			"parts. Take the file to the machine of the worker: sluice worker --creds FILE.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "roles", Usage: "what it may do: `LIST` of load, review, sign, keys, observe, publish"},
			&urfave.StringSliceFlag{Name: "url", Usage: "where it is to connect to, `URL`; may be given again", DefaultText: "what the daemon says"},
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the credentials to `FILE`, which must not be there yet"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			for _, flag := range []string{"roles", "output"} {
				if c.String(flag) == "" {
					return &usageError{msg: "--" + flag + " is missing", hint: usage}
				}
			}
			if !journal.ValidWorker(args[0]) {
				return usagef("name of a worker %q: want 1 to 32 lower-case letters, digits and hyphens", args[0])
			}
			roles, err := pipeline.ParseRoles(c.String("roles"))
			if err != nil {
				return usagef("%v", err)
			}
			for _, u := range c.StringSlice("url") {
				if err := checkNATSURL(u); err != nil {
					return usagef("%v", err)
				}
			}
			return e.clientAction(func(client *api.Client) error {
				return e.enroll(c, client, args[0], roles)
			})
		},
	}
}

// enroll enrolls a worker and writes its credentials.
func (e *env) enroll(c *urfave.Context, client *api.Client, name string, roles []pipeline.Role) error {
	creds, public, err := newCredentials()
	if err != nil {
		return err
	}
	public.Name, public.Roles = name, roles
	// The file first: a worker that is enrolled has its credentials.
	path := c.String("output")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return withHint(fmt.Errorf("%s is there already", path), "choose another file with -o")
	}
	if err != nil {
		return err
	}
	enrolled, err := client.EnrollWorker(c.Context, public)
	if err != nil {
		return errors.Join(err, f.Close(), os.Remove(path))
	}
	creds.Name, creds.Journal, creds.URLs = name, enrolled.Journal, enrolled.URLs
	creds.Gate, creds.Pin, creds.Roots = enrolled.Gate, enrolled.Pin, enrolled.Roots
	for _, r := range enrolled.Roles {
		creds.Roles = append(creds.Roles, string(r))
	}
	if c.IsSet("url") {
		creds.URLs = c.StringSlice("url")
	}
	if err := errors.Join(creds.write(f), f.Sync(), f.Close()); err != nil {
		return withHint(fmt.Errorf("write %s: %w", path, err), "the worker is enrolled, its credentials are lost: sluice worker remove %s", name)
	}
	if e.json {
		return e.printJSON(enrolled)
	}
	if err := e.printf("worker %s enrolled for %s; take %s to its machine, then: sluice worker --creds %s --data DIR\n",
		name, roleList(enrolled.Roles), path, path); err != nil {
		return err
	}
	if enrolled.Access != nil {
		if err := e.printf("\nThe servers at %s need to know it, among their users:\n\n", strings.Join(enrolled.URLs, ", ")); err != nil {
			return err
		}
		return writeServerUser(e.stdout, enrolled)
	}
	return nil
}

// writeServerUser writes a user for the config of nats-server.
func writeServerUser(w io.Writer, n pipeline.Enrolment) error {
	list := func(subjects []string) string {
		quoted := make([]string, 0, len(subjects))
		for _, s := range subjects {
			quoted = append(quoted, strconv.Quote(s))
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	_, err := fmt.Fprintf(w, `    # worker %s
    { nkey: %s, permissions: {
        publish: { allow: %s, deny: %s },
        subscribe: { allow: %s },
        allow_responses: { max: 1, expires: "10m" } } }
`, n.Name, n.NKey, list(n.Access.Publish), list(n.Access.Deny), list(n.Access.Subscribe))
	return err
}

// roleList lists roles for people.
func roleList(roles []pipeline.Role) string {
	words := make([]string, 0, len(roles))
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}

func workerList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the processes that share the journal: who lives, who holds what, who lags",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.Workers(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(st)
				}
				return e.printWorkers(st)
			})
		},
	}
}

func (e *env) printWorkers(st pipeline.WorkersStatus) error {
	rows := make([][]string, 0, len(st.Workers))
	for _, w := range st.Workers {
		alive, holds := "away", []string{}
		if w.Alive {
			alive = "since " + when(w.Since)
		}
		for _, r := range pipeline.AllRoles() {
			if n := w.Holds[r]; n > 0 {
				holds = append(holds, fmt.Sprintf("%s %d", r, n))
			}
		}
		name := w.Name
		if w.This {
			name += " *"
		}
		lag := "-"
		if w.Alive {
			lag = strconv.FormatUint(w.Lag, 10)
		}
		rows = append(rows, []string{name, roleList(w.Roles), alive, orDash(strings.Join(holds, ", ")), strconv.FormatUint(w.Folded, 10), lag, orDash(w.Version)})
	}
	if err := e.table([]string{"NAME", "ROLES", "ALIVE", "HOLDS OF " + strconv.Itoa(st.Partitions), "FOLDED", "LAG", "VERSION"}, rows); err != nil {
		return err
	}
	unheld := []string{}
	for _, r := range pipeline.AllRoles() {
		if n := st.Unheld[r]; n > 0 {
			unheld = append(unheld, fmt.Sprintf("%s (%d of %d partitions)", r, n, st.Partitions))
		}
	}
	for _, w := range st.Workers {
		if w.Lacks > 0 {
			if err := e.printf("%s lacks private keys and signs no zones of %d partitions meanwhile: sluice key distribute\n", w.Name, w.Lacks); err != nil {
				return err
			}
		}
	}
	if len(unheld) > 0 {
		return e.printf("nobody does %s: start a worker with it\n", strings.Join(unheld, ", "))
	}
	return nil
}

func workerRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "end what a worker may do; it is cut off at once", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				st, err := client.Workers(c.Context)
				if err != nil {
					return err
				}
				if err := client.RemoveWorker(c.Context, args[0]); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"worker": args[0], "removed": true})
				}
				had := slices.IndexFunc(st.Workers, func(w pipeline.WorkerStatus) bool { return w.Name == args[0] })
				if had >= 0 && (slices.Contains(st.Workers[had].Roles, pipeline.RoleKeys) || slices.Contains(st.Workers[had].Roles, pipeline.RoleSign)) {
					return e.printf("worker %s removed; it may still have private keys: if its machine is not to be trusted, roll them\n", args[0])
				}
				return e.printf("worker %s removed\n", args[0])
			})
		},
	}
}
