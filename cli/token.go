package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func tokenCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:            "token",
		Usage:           "who may use the API and the web page over the network: add, list and remove tokens",
		HideHelpCommand: true,
		Description:     "See also: sluice help access.",
		OnUsageError:    onUsageError,
		Action:          commandMissing,
		Subcommands:     []*urfave.Command{tokenAdd(e), tokenList(e), tokenRemove(e)},
	}
}

func tokenAdd(e *env) *urfave.Command {
	const usage = "usage: sluice token add NAME --role ROLE[,ROLE] [--expires T] -o FILE"
	return &urfave.Command{
		Name: "add", Usage: "let a person or a machine in, and make its token", ArgsUsage: "NAME",
		Description: "The token is made here and goes into FILE alone (0600), or to standard output with -o -;\n" +
			"the journal keeps its hash. What is done with it is done by NAME: one token for each person.\n" +
			"Roles: viewer sees, reviewer approves and rejects, operator works on zones and keys,\n" +
			"auditor takes exports, admin may do everything.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "role", Usage: "what it may do: `LIST` of viewer, reviewer, operator, auditor, admin"},
			&urfave.StringFlag{Name: "expires", Usage: "it ends at `T`, a time or a duration from now such as 90d", DefaultText: "never"},
			&urfave.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the token to `FILE`, which must not be there yet; - is standard output"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			for _, flag := range []string{"role", "output"} {
				if c.String(flag) == "" {
					return &usageError{msg: "--" + flag + " is missing", hint: usage}
				}
			}
			n := pipeline.NewToken{Name: args[0]}
			if !pipeline.ValidTokenName(n.Name) {
				return usagef("name of a token %q: want 1 to 64 lower-case letters, digits and . _ @ -", n.Name)
			}
			if n.Roles, err = api.ParseTokenRoles(c.String("role")); err != nil {
				return usagef("%v", err)
			}
			if text := c.String("expires"); text != "" {
				if err := setExpiry(&n, text); err != nil {
					return err
				}
			}
			return e.clientAction(func(client *api.Client) error { return e.addToken(c, client, n) })
		},
	}
}

// setExpiry reads when a token ends: a time, or a duration from now, by the
// daemon's clock.
func setExpiry(n *pipeline.NewToken, text string) error {
	if len(text) != len("20060102150405") {
		if d, err := pipeline.ParseDuration(strings.TrimPrefix(text, "+")); err == nil && d >= time.Second {
			n.ExpiresIn = int64(d / time.Second)
			return nil
		}
	}
	at, err := parseTime(text, time.Now())
	if err != nil {
		return usagef("--expires %q: want a time such as 2027-01-31T00:00:00Z, or a duration such as 90d", text)
	}
	n.Expires = &at
	return nil
}

// addToken makes a token and has the daemon know it.
func (e *env) addToken(c *urfave.Context, client *api.Client, n pipeline.NewToken) error {
	text, hash := api.MakeToken()
	n.SHA256 = &hash
	path := c.String("output")
	if path == "-" {
		granted, err := client.AddToken(c.Context, n)
		if err != nil {
			return err
		}
		e.note("this token is shown once; who has it is %s: keep it in a file that nobody else reads (0600)", n.Name)
		if e.json {
			granted.Secret = text
			return e.printJSON(granted)
		}
		return e.printf("%s\n", text)
	}
	// The file first: a token that is known is in its file.
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return withHint(fmt.Errorf("%s is there already", path), "choose another file with -o")
	}
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, text+"\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(path))
	}
	granted, err := client.AddToken(c.Context, n)
	if err != nil {
		if errors.Is(err, api.ErrUnreachable) {
			return withHint(err, "it is not known whether the token was taken; %s has it, see: sluice token list", path)
		}
		return errors.Join(err, os.Remove(path))
	}
	if e.json {
		return e.printJSON(granted)
	}
	until := ""
	if granted.Expires != nil {
		until = ", until " + when(*granted.Expires)
	}
	return e.printf("token %s for %s%s is in %s; with it: sluice --api https://HOST:PORT[#PIN] --token-file %s zone list\n(the pin of a certificate that the daemon made: sluice help access)\n",
		granted.Name, strings.Join(granted.Roles, ", "), until, path, path)
}

func tokenList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the tokens: who may do what, until when",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				tokens, err := client.Tokens(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(tokens)
				}
				rows := make([][]string, 0, len(tokens))
				for _, t := range tokens {
					until := "for ever"
					if t.Expires != nil {
						until = when(*t.Expires)
					}
					if t.Expired {
						until = e.paint(red, "expired "+until)
					}
					rows = append(rows, []string{t.Name, strings.Join(t.Roles, ", "), when(t.Created), t.CreatedBy, until})
				}
				return e.table([]string{"NAME", "ROLES", "MADE", "BY", "UNTIL"}, rows)
			})
		},
	}
}

func tokenRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "end what a token may do, at once", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				err := client.RemoveToken(c.Context, args[0])
				if errors.Is(err, pipeline.ErrNotFound) {
					return withHint(err, "see: sluice token list")
				}
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"token": args[0], "removed": true})
				}
				return e.printf("token %s removed; what it was used for has ended\n", args[0])
			})
		},
	}
}

// maxTokenFile bounds a file with a token.
const maxTokenFile = 4 << 10

// readToken reads a file with a token that nobody else may read. Its errors show
// nothing of what is secret.
func readToken(path string) (string, error) {
	const make = "make one at the daemon: sluice token add NAME --role ROLE -o FILE"
	info, err := os.Stat(path)
	if err != nil {
		return "", withHint(fmt.Errorf("read token: %w", err), make)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return "", withHint(fmt.Errorf("%s is open to others (mode %04o): a token must not be", path, mode.Perm()), "chmod 600 %s", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read token: %w", err)
	}
	text := strings.TrimSpace(string(raw))
	if !strings.HasPrefix(text, api.TokenPrefix) || strings.ContainsAny(text, " \t\r\n") {
		return "", withHint(fmt.Errorf("%s holds no token: one begins with %s", path, api.TokenPrefix), make)
	}
	return text, nil
}
