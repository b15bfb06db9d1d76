package cli

import (
	"fmt"
	"path/filepath"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
)

func keyCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "key",
		Usage:        "list, make, import and exchange keys; records for the parent",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{
			keyList(e), keyGenerate(e), keyImport(e), keyExport(e), keyDS(e), keyRoll(e), keyStatus(e), keyPlan(e), keyStep(e), keyAbort(e), keyRemove(e),
			keyPublish(e), keyBackup(e), keyDistribute(e),
		},
	}
}

func keyList(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "list", Usage: "all keys that a zone has or had", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			keys, err := client.Keys(c.Context, args[0])
			if err != nil {
				return err
			}
			return e.printKeys(keys)
		}),
	}
}

// printKeys prints keys as a list.
func (e *env) printKeys(keys []keymgr.Key) error {
	if e.json {
		return e.printJSON(keys)
	}
	return e.keyTable(keys)
}

func (e *env) keyTable(keys []keymgr.Key) error {
	rows := make([][]string, 0, len(keys))
	for _, k := range keys {
		rows = append(rows, []string{
			k.ID, k.Role, fmt.Sprint(k.Tag), keymgr.AlgorithmName(k.Algorithm), string(k.State), when(keySince(k)), keyPlace(k),
		})
	}
	return e.table([]string{"KEY", "ROLE", "TAG", "ALGORITHM", "STATE", "SINCE", "KEYSTORE"}, rows)
}

// keyPlace is where the private part of a key is.
func keyPlace(k keymgr.Key) string {
	if k.Foreign {
		return "foreign"
	}
	return k.Keystore + ":" + k.Reference
}

func keyGenerate(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "generate", Usage: "make a key; it waits in state generated", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "role", Usage: "`ROLE`: ksk, zsk or csk"},
			&urfave.StringFlag{Name: "algorithm", Usage: "`NAME` such as ECDSAP256SHA256 or RSASHA256:3072; by default the policy's"},
			&urfave.StringFlag{Name: "keystore", Usage: "make it in the keystore `NAME`, see sluice keystore list; by default the policy's"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			role, err := parseRole(c.String("role"))
			if err != nil {
				return err
			}
			keys, err := client.GenerateKey(c.Context, args[0], api.NewKey{Role: role, Algorithm: c.String("algorithm"), Keystore: c.String("keystore")})
			if err != nil {
				return err
			}
			return e.printKeys(keys)
		}),
	}
}

func parseRole(text string) (keymgr.Role, error) {
	switch role := keymgr.Role(text); role {
	case keymgr.KSK, keymgr.ZSK, keymgr.CSK:
		return role, nil
	case "":
		return "", usagef("--role is missing: ksk, zsk or csk")
	}
	return "", usagef("--role %q: want ksk, zsk or csk", text)
}

func keyImport(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "import", Usage: "take keys from BIND's K*.private files, the .key files beside them, or from a token; --public: another signer's keys", ArgsUsage: "ZONE FILE...",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "role", Usage: "`ROLE`: ksk, zsk or csk; by default what the key's flags say"},
			&urfave.StringFlag{Name: "keystore", Usage: "the private part is in keystore `NAME` already, FILE is the K*.key file"},
			&urfave.StringFlag{Name: "id", Usage: "what the key pair has in the keystore: CKA_ID in hex (`HEX`)"},
			&urfave.BoolFlag{Name: "public", Usage: "publish the DNSKEY records of FILE, which another signer of the zone signs with (RFC 8901)"},
		},
		Action: func(c *urfave.Context) error {
			args := c.Args().Slice()
			if len(args) < 2 {
				_, err := arguments(c, "ZONE", "FILE...")
				return err
			}
			if _, err := parseZone(args[0]); err != nil {
				return err
			}
			var role keymgr.Role
			var err error
			if c.IsSet("role") {
				if role, err = parseRole(c.String("role")); err != nil {
					return err
				}
				if c.Bool("public") {
					return usagef("--role: the role of another signer's key follows from its flags")
				}
			}
			if c.IsSet("keystore") != c.IsSet("id") {
				return usagef("--keystore and --id belong together: sluice key import ZONE --keystore NAME --id HEX FILE")
			}
			if c.IsSet("id") && len(args) != 2 {
				return usagef("--id: want one FILE, the K*.key file of that key")
			}
			var files []pipeline.KeyFile
			for _, path := range args[1:] {
				if path, err = filepath.Abs(path); err != nil {
					return err
				}
				files = append(files, pipeline.KeyFile{Path: path, Role: role, Public: c.Bool("public"), Keystore: c.String("keystore"), ID: c.String("id")})
			}
			return e.clientAction(func(client *api.Client) error {
				keys, err := client.ImportKeys(c.Context, args[0], files)
				if err != nil {
					return err
				}
				e.lifeNotes(keys)
				return e.printKeys(keys)
			})
		},
	}
}

func keyDS(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "ds", Usage: "the records for the zone's parent", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "format", Value: "ds", Usage: "`FORMAT`: ds, cds, cdnskey or dnskey; signal for the operator of its name servers (RFC 9615)"},
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			switch c.String("format") {
			case "ds", "cds", "cdnskey", "dnskey", pipeline.FormatSignal:
			default:
				return usagef("--format %q: want ds, cds, cdnskey, dnskey or signal", c.String("format"))
			}
			records, err := client.DS(c.Context, args[0], c.String("format"))
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(records)
			}
			return e.printDS(records)
		}),
	}
}

// printDS prints records in a form that a parent's tools read: what is to be
// known about them stands in comments.
func (e *env) printDS(records []pipeline.DSRecord) error {
	note := ""
	for _, r := range records {
		if r.Note != note {
			note = r.Note
			if err := e.printf("; key %s, tag %d, %s: %s\n", r.KeyID, r.Tag, r.State, e.paint(yellow, note)); err != nil {
				return err
			}
		}
		if err := e.printf("%s\n", r.Record); err != nil {
			return err
		}
	}
	return nil
}

// keySince is when a key came into its state.
func keySince(k keymgr.Key) time.Time {
	switch k.State {
	case keymgr.Published, keymgr.Ready, keymgr.Revoked:
		return k.Published
	case keymgr.Active, keymgr.Introduced, keymgr.Withdrawn:
		return k.Activated
	case keymgr.Retired, keymgr.Dead:
		return k.Retired
	case keymgr.Removed:
		return k.Removed
	case keymgr.Generated:
	}
	return k.Generated
}
