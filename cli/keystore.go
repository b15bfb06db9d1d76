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
		Usage:           "keep the places of private keys: files, tokens (HSMs) by PKCS#11, servers by KMIP",
		HideHelpCommand: true,
		OnUsageError:    onUsageError,
		Action:          commandMissing,
		Subcommands:     []*urfave.Command{keystoreAdd(e), keystoreList(e), keystoreShow(e), keystoreTest(e), keystoreRemove(e)},
	}
}

const keystoreAddUsage = "usage: sluice keystore add NAME --pkcs11 MODULE --token LABEL --pin-file FILE, or NAME --kmip HOST:PORT --ca-file FILE --cert-file FILE --key-file FILE"

func keystoreAdd(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "add", Usage: "keep keys on a PKCS#11 token or a KMIP server", ArgsUsage: "NAME",
		Description: "A token is logged in to before it is taken up. It is known by its label and its\n" +
			"serial number from then on. The PIN is kept in the data directory, keys/pkcs11/NAME.pin.\n\n" +
			"A KMIP server is connected to as well, and asked what it can. It proves itself by a CA\n" +
			"or a pinned public key, and is given a certificate, a user's password, or both, which\n" +
			"are kept in the data directory, keys/kmip/NAME.login.",
		OnUsageError: onUsageError,
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "pkcs11", Usage: "the vendor's library, such as /usr/lib/softhsm/libsofthsm2.so (`MODULE`)"},
			&urfave.StringFlag{Name: "token", Usage: "`LABEL` of the token"},
			&urfave.StringFlag{Name: "serial", Usage: "serial `NUMBER` of the token, where several have the label"},
			&urfave.StringFlag{Name: "pin-file", Usage: "read the user's PIN from `FILE`, which nobody else may read"},
			&urfave.StringFlag{Name: "kmip", Usage: "the KMIP server, `HOST:PORT`; its usual port is 5696"},
			&urfave.StringFlag{Name: "server-name", Usage: "`NAME` that the server's certificate must be for", DefaultText: "the host"},
			&urfave.StringFlag{Name: "server-pin", Usage: "public key that the server's certificate must have, sha256:... (`PIN`)"},
			&urfave.IntFlag{Name: "sessions", Usage: "let at most `N` calls be with it at a time", DefaultText: "8"},
			&urfave.StringFlag{Name: "timeout", Usage: "give up a call after `DURATION`", DefaultText: "10s"},
		}, serverLoginFlags()...),
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "NAME")
			if err != nil {
				return err
			}
			n := pipeline.NewKeystore{Name: args[0], Sessions: c.Int("sessions")}
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
			if c.IsSet("kmip") {
				err = readServer(c, &n)
			} else {
				err = readTokenPlace(c, &n)
			}
			if err != nil {
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
				return e.printf("keystore %s added: %s; try it: sluice keystore test %s\n", added.Name, keystorePlace(added), added.Name)
			})
		},
	}
}

// readTokenPlace reads what names a token, and its PIN.
func readTokenPlace(c *urfave.Context, n *pipeline.NewKeystore) (err error) {
	for _, flag := range []string{"server-name", "server-pin", "ca-file", "cert-file", "key-file", "username", "password-file"} {
		if c.IsSet(flag) {
			return &usageError{msg: "--" + flag + " is for a KMIP server: --kmip HOST:PORT is missing", hint: keystoreAddUsage}
		}
	}
	for _, flag := range []string{"pkcs11", "token", "pin-file"} {
		if c.String(flag) == "" {
			return &usageError{msg: "--" + flag + " is missing", hint: keystoreAddUsage}
		}
	}
	n.Token, n.TokenSerial = c.String("token"), c.String("serial")
	if n.Module, err = filepath.Abs(c.String("pkcs11")); err != nil {
		return err
	}
	n.PIN, err = readPIN(c.String("pin-file"))
	return err
}

// keystorePlace tells where a keystore is.
func keystorePlace(k pipeline.KeystoreInfo) string {
	if k.Address != "" {
		return "KMIP server " + k.Address
	}
	return fmt.Sprintf("token %q, serial number %s", k.Token, k.TokenSerial)
}

// readPIN reads a PIN from a file that nobody else may read.
func readPIN(path string) (string, error) {
	if err := closedToOthers(path, "PIN"); err != nil {
		return "", err
	}
	return readSecret(path)
}

// closedToOthers refuses a file with a secret that others may read.
func closedToOthers(path, what string) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("read the %s: %w", what, err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return withHint(fmt.Errorf("%s is open to others (mode %04o): a %s must not be", path, mode.Perm(), what), "chmod 600 %s", path)
	}
	return nil
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
					} else if k.Address != "" {
						token = k.Address
					}
					rows = append(rows, []string{k.Name, k.Kind, k.State, token, strconv.Itoa(k.Keys), orDash(k.Problem)})
				}
				return e.table([]string{"NAME", "KIND", "STATE", "PLACE", "KEYS", "PROBLEM"}, rows)
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
	}
	if k.Address != "" {
		fmt.Fprintf(&b, "server    %s%s\n", k.Address, serverProof(k))
	}
	if k.Sessions > 0 {
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
		Name: "test", Usage: "sign with a key that is deleted again, and measure that", ArgsUsage: "NAME",
		Description: "Connects at once to a token or server that was away. A PIN or password that was\n" +
			"refused is tried once more; with --pin-file, or --cert-file and the other options for a\n" +
			"KMIP server, another one is tried, and kept if it is taken.",
		OnUsageError: onUsageError,
		Flags: append([]urfave.Flag{
			&urfave.StringFlag{Name: "algorithm", Usage: "`NAME` such as ECDSAP256SHA256 or RSASHA256", DefaultText: "ECDSAP256SHA256 where it has that"},
			&urfave.StringFlag{Name: "pin-file", Usage: "read a new PIN from `FILE`, which nobody else may read"},
		}, serverLoginFlags()...),
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
			login, err := readServerLogin(c)
			if err != nil {
				return err
			}
			if login != (pipeline.ServerLogin{}) {
				q.KMIP = &login
			}
			return e.clientAction(func(client *api.Client) error {
				r, err := client.TestKeystore(c.Context, args[0], q)
				if err != nil {
					return err
				}
				if e.json {
					return e.printJSON(r)
				}
				return e.printf("%s", keystoreTestText(r))
			})
		},
	}
}

func keystoreRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "end the use of a token or server that nothing uses; its keys stay there", ArgsUsage: "NAME",
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
				return e.printf("keystore %s removed; its keys stay where they are\n", args[0])
			})
		},
	}
}
