package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func tsigCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:            "tsig",
		Usage:           "keep the TSIG keys of transfers and NOTIFY",
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action:          commandMissing,
		Subcommands:     []*urfave.Command{tsigAdd(e), tsigList(e), tsigRemove(e), tsigExport(e)},
	}
}

func tsigAdd(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "add", Usage: "add a TSIG key", ArgsUsage: "NAME ALGORITHM",
		Description:  "ALGORITHM is hmac-sha224, hmac-sha256, hmac-sha384 or hmac-sha512; hmac-sha1 and hmac-md5\nonly where the daemon's config has weak-tsig.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "secret-file", Usage: "read the secret, in base64, from `FILE`"},
			&urfave.BoolFlag{Name: "generate", Usage: "make a new secret"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME", "ALGORITHM")
			if err != nil {
				return err
			}
			if c.Bool("generate") == (c.String("secret-file") != "") {
				return &usageError{msg: "want --secret-file FILE or --generate", hint: "usage: sluice tsig add NAME ALGORITHM (--secret-file FILE | --generate)"}
			}
			k := pipeline.NewTSIG{Name: args[0], Algorithm: args[1]}
			if path := c.String("secret-file"); path != "" {
				if k.Secret, err = readSecret(path); err != nil {
					return err
				}
			}
			return e.clientAction(func(client *api.Client) error {
				key, err := client.AddTSIG(c.Context, k)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(key)
				}
				return e.printf("TSIG key %s added, %s; for the other side: sluice tsig export %s\n", key.Name, key.Algorithm, key.Name)
			})
		},
	}
}

// maxSecret bounds a secret's file in bytes.
const maxSecret = 4 << 10

func readSecret(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxSecret))
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return secret, nil
}

func tsigList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the TSIG keys, without their secrets",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				keys, err := client.TSIGKeys(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(keys)
				}
				rows := make([][]string, 0, len(keys))
				for _, k := range keys {
					note := "-"
					if k.Missing {
						note = "its secret is not here"
					}
					rows = append(rows, []string{k.Name, k.Algorithm, orDash(strings.Join(k.UsedBy, ", ")), note})
				}
				return e.table([]string{"NAME", "ALGORITHM", "USED BY", "NOTE"}, rows)
			})
		},
	}
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

func tsigRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "delete a TSIG key that nothing uses", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				if err := client.RemoveTSIG(c.Context, args[0]); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"tsig": args[0], "removed": true})
				}
				return e.printf("TSIG key %s removed\n", args[0])
			})
		},
	}
}

func tsigExport(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "export", Usage: "print a TSIG key with its secret, as another server wants it", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.StringFlag{Name: "format", Value: "bind", Usage: "bind, knot, nsd, or dig (for its option -y)"}},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			format := c.String("format")
			if tsigText(format, pipeline.TSIGSecret{}) == "" {
				return usagef("--format %q: want bind, knot, nsd or dig", format)
			}
			return e.clientAction(func(client *api.Client) error {
				key, err := client.ExportTSIG(c.Context, args[0])
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(key)
				}
				return e.printf("%s", tsigText(format, key))
			})
		},
	}
}

// tsigText is a key in another program's words; "" for an unknown program.
func tsigText(format string, k pipeline.TSIGSecret) string {
	name := strings.TrimSuffix(k.Name, ".")
	switch format {
	case "bind":
		return fmt.Sprintf("key %q {\n\talgorithm %s;\n\tsecret %q;\n};\n", name, k.Algorithm, k.Secret)
	case "knot":
		return fmt.Sprintf("key:\n  - id: %s\n    algorithm: %s\n    secret: %s\n", name, k.Algorithm, k.Secret)
	case "nsd":
		return fmt.Sprintf("key:\n\tname: %q\n\talgorithm: %s\n\tsecret: %q\n", name, k.Algorithm, k.Secret)
	case "dig":
		return fmt.Sprintf("%s:%s:%s\n", k.Algorithm, name, k.Secret)
	}
	return ""
}
