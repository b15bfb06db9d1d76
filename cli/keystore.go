package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/pipeline"
)

func keystoreCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:            "keystore",
		Usage:           "keep the places of private keys: files, and tokens (HSMs) by PKCS#11",
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action:          commandMissing,
		Subcommands:     []*urfave.Command{keystoreAdd(e), keystoreList(e), keystoreShow(e), keystoreTest(e), keystoreRemove(e)},
	}
}

func keystoreAdd(e *env) *urfave.Command {
	const usage = "usage: sluice keystore add NAME --pkcs11 MODULE --token LABEL --pin-file FILE"
	return &urfave.Command{
		Name: "add", Usage: "keep keys on a PKCS#11 token", ArgsUsage: "NAME",
		Description: "The token is logged in to before it is taken up. It is known by its label and its\n" +
			"serial number from then on. The PIN is kept in the data directory, keys/pkcs11/NAME.pin.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "pkcs11", Usage: "the vendor's library, such as /usr/lib/softhsm/libsofthsm2.so (`MODULE`)"},
			&urfave.StringFlag{Name: "token", Usage: "`LABEL` of the token"},
			&urfave.StringFlag{Name: "serial", Usage: "serial `NUMBER` of the token, where several have the label"},
			&urfave.StringFlag{Name: "pin-file", Usage: "read the user's PIN from `FILE`, which nobody else may read"},
			&urfave.IntFlag{Name: "sessions", Usage: "let at most `N` calls be with the token at a time", DefaultText: "8"},
			&urfave.StringFlag{Name: "timeout", Usage: "give up a call after `DURATION`", DefaultText: "10s"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			for _, flag := range []string{"pkcs11", "token", "pin-file"} {
				if c.String(flag) == "" {
					return &usageError{msg: "--" + flag + " is missing", hint: usage}
				}
			}
			n := pipeline.NewKeystore{Name: args[0], Token: c.String("token"), TokenSerial: c.String("serial"), Sessions: c.Int("sessions")}
			if c.IsSet("sessions") && n.Sessions < 1 {
				return usagef("--sessions %d: want at least 1", n.Sessions)
			}
			if text := c.String("timeout"); text != "" {
				d, err := pipeline.ParseDuration(text)
				if err != nil || d < time.Second {
					return usagef("--timeout %q: want a duration of at least a second, such as 30s", text)
				}
				n.TimeoutMS = d.Milliseconds()
			}
			if n.Module, err = filepath.Abs(c.String("pkcs11")); err != nil {
				return err
			}
			if n.PIN, err = readPIN(c.String("pin-file")); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				added, err := client.AddKeystore(c.Context, n)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(added)
				}
				return e.printf("keystore %s added: token %q, serial number %s; try it: sluice keystore test %s\n",
					added.Name, added.Token, added.TokenSerial, added.Name)
			})
		},
	}
}

// readPIN reads a PIN from a file that nobody else may read.
func readPIN(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("read the PIN: %w", err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return "", withHint(fmt.Errorf("%s is open to others (mode %04o): a PIN must not be", path, mode.Perm()), "chmod 600 %s", path)
	}
	return readSecret(path)
}

func keystoreList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "list the keystores, and whether they can be used",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				list, err := client.Keystores(c.Context)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(list)
				}
				rows := make([][]string, 0, len(list))
				for _, k := range list {
					token := "-"
					if k.Token != "" {
						token = k.Token + " (" + k.TokenSerial + ")"
					}
					rows = append(rows, []string{k.Name, k.Kind, k.State, token, strconv.Itoa(k.Keys), orDash(k.Problem)})
				}
				return e.table([]string{"NAME", "KIND", "STATE", "TOKEN", "KEYS", "PROBLEM"}, rows)
			})
		},
	}
}

func keystoreShow(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "show", Usage: "tell how a keystore is, and who uses it", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				k, err := client.Keystore(c.Context, args[0])
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(k)
				}
				return e.printf("%s", keystoreText(k))
			})
		},
	}
}

// keystoreText tells of a keystore in lines.
func keystoreText(k pipeline.KeystoreInfo) string {
	var b strings.Builder
	fmt.Fprintf(&b, "keystore %s (%s), %s", k.Name, k.Kind, k.State)
	if k.Since != nil {
		fmt.Fprintf(&b, " since %s", when(*k.Since))
	}
	b.WriteString("\n")
	if k.Token != "" {
		fmt.Fprintf(&b, "token     %q, serial number %s\nmodule    %s\n", k.Token, k.TokenSerial, k.Module)
		fmt.Fprintf(&b, "at most   %d calls at a time, %s each\n", k.Sessions, time.Duration(k.TimeoutMS)*time.Millisecond)
	}
	fmt.Fprintf(&b, "keys      %d\nused by   %s\n", k.Keys, orDash(strings.Join(k.UsedBy, ", ")))
	if k.Problem != "" {
		fmt.Fprintf(&b, "problem   %s\n", k.Problem)
	}
	if k.Hint != "" {
		fmt.Fprintf(&b, "hint      %s\n", k.Hint)
	}
	return b.String()
}

func keystoreTest(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "test", Usage: "sign on a token with a key that it forgets again, and measure that", ArgsUsage: "NAME",
		Description: "Connects at once to a token that was away. A PIN that the token refused is tried once\n" +
			"more; with --pin-file, another one is tried, and kept if the token takes it.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "algorithm", Usage: "`NAME` such as ECDSAP256SHA256 or RSASHA256", DefaultText: "ECDSAP256SHA256 where the token has it"},
			&urfave.StringFlag{Name: "pin-file", Usage: "read a new PIN from `FILE`, which nobody else may read"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			q := pipeline.KeystoreTest{Algorithm: c.String("algorithm")}
			if path := c.String("pin-file"); path != "" {
				if q.PIN, err = readPIN(path); err != nil {
					return err
				}
			}
			return e.clientAction(func(client *api.Client) error {
				r, err := client.TestKeystore(c.Context, args[0], q)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(r)
				}
				return e.printf("keystore %s works: token %q, serial number %s, %s %s\n"+
					"%s: key made in %.1f ms; %d signatures made and verified, %.2f ms each (median; longest %.2f ms), %.0f/s in %d sessions\n",
					r.Keystore, r.Token, r.TokenSerial, r.Manufacturer, r.Model,
					r.Algorithm, r.GenerateMS, r.Signatures, r.SignMS, r.SlowestMS, r.PerSecond, r.Sessions)
			})
		},
	}
}

func keystoreRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "end the use of a token that nothing uses; its keys stay on it", ArgsUsage: "NAME",
		OnUsageError: onUsageError,
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			return e.clientAction(func(client *api.Client) error {
				if err := client.RemoveKeystore(c.Context, args[0]); err != nil {
					return err
				}
				if e.json {
					return e.printJSON(map[string]any{"keystore": args[0], "removed": true})
				}
				return e.printf("keystore %s removed; its keys stay on the token\n", args[0])
			})
		},
	}
}
