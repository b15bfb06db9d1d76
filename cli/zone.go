package cli

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
)

func zoneCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "zone",
		Usage:        "add, look at, review, compare and take back zones",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands: []*urfave.Command{
			zoneAdd(e), zoneRemove(e), zoneList(e), zoneStatus(e), zoneSet(e), zoneReload(e), zoneResign(e), zoneSerial(e), zoneNotify(e), zoneObserve(e),
			zoneApprove(e), zoneReject(e), zoneOverride(e), zoneReset(e), zoneMaintenance(e),
			zoneHistory(e), zoneTail(e), zoneReplay(e), zoneDump(e), zoneDiff(e), zoneRollback(e), zoneRelease(e), zoneRecall(e), zoneCheck(e), zoneVerify(e),
		},
	}
}

// zoneAction is a command with a zone as its first argument: names are those
// of its further arguments.
func (e *env) zoneAction(fn func(c *urfave.Context, client *api.Client, args []string) error, names ...string) urfave.ActionFunc {
	return func(c *urfave.Context) error {
		args, err := arguments(c, append([]string{"ZONE"}, names...)...)
		if err != nil {
			return err
		}
		if _, err := parseZone(args[0]); err != nil {
			return err
		}
		return e.clientAction(func(client *api.Client) error {
			err := fn(c, client, args)
			if hintOf(err) == "" && errors.Is(err, pipeline.ErrNotFound) {
				err = withHint(err, "%s", missingHint(err, args[0]))
			}
			return err
		})
	}
}

// missingHint says where to look for what an error of a zone's command calls
// missing.
func missingHint(err error, zone string) string {
	what, _, _ := strings.Cut(err.Error(), " ")
	text := err.Error()
	switch {
	case what == "policy":
		return "see: sluice policy list"
	case what == "TSIG":
		return "see: sluice tsig list; make it with: sluice tsig add"
	case what == "key":
		return "see: sluice key list " + zone
	case what == "rollover":
		return "see: sluice key status " + zone
	case what == "keystore":
		return "see: sluice keystore list"
	case strings.Contains(text, "instance"), strings.Contains(text, "version "):
		return "see: sluice zone history " + zone
	default:
		return "see: sluice zone list; of a zone that was removed: sluice zone history " + zone
	}
}

// clientAction runs fn with a client.
func (e *env) clientAction(fn func(client *api.Client) error) error {
	client, err := e.client()
	if err != nil {
		return err
	}
	defer client.Close()
	return explain(fn(client))
}

func noWaitFlag() urfave.Flag {
	return &urfave.BoolFlag{Name: "no-wait", Usage: "return at once, not only when the zone is published or has failed"}
}

func zoneAdd(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "add", Usage: "add a zone: it is loaded, signed and published", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "source", Usage: "where the zone comes from: a zone file, or servers as IP[:PORT][^TSIGKEY], separated by commas, or update:NS,... for one that begins empty and takes dynamic updates (`SOURCE`)"},
			&urfave.StringFlag{Name: "policy", Value: "default", Usage: "`NAME` of its policy"},
			&urfave.StringSliceFlag{Name: "import-ksk-file", Usage: "take this key as KSK: BIND's K*.private `FILE`, the .key file beside it"},
			&urfave.StringSliceFlag{Name: "import-zsk-file", Usage: "take this key as ZSK: `FILE` as above"},
			&urfave.StringSliceFlag{Name: "import-csk-file", Usage: "take this key as CSK: `FILE` as above"},
			&urfave.StringSliceFlag{Name: "import-ksk-key", Usage: "take this key as KSK, which is on a token already: `KEYSTORE:ID:FILE`, ID is CKA_ID in hex, FILE the K*.key file"},
			&urfave.StringSliceFlag{Name: "import-zsk-key", Usage: "take this key as ZSK: `KEYSTORE:ID:FILE` as above"},
			&urfave.StringSliceFlag{Name: "import-csk-key", Usage: "take this key as CSK: `KEYSTORE:ID:FILE` as above"},
			&urfave.StringSliceFlag{Name: "import-public-key", Usage: "publish the DNSKEY records of `FILE`, which another signer of the zone signs with"},
			&urfave.StringFlag{Name: "serial-floor", Usage: "published serials stand above `N`; auto asks the zone's public servers for the one they have"},
			&urfave.BoolFlag{Name: "dry-run", Usage: "tell how imported keys would be taken over; nothing is added"},
			&urfave.BoolFlag{Name: "force", Usage: "add it even where the world would not trust the imported keys"},
			&urfave.BoolFlag{Name: "new-keys", Usage: "make new keys, also where the zone was here before and had some"},
			reasonFlag(),
			noWaitFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			z, err := newZone(c, args[0])
			if err != nil {
				return err
			}
			if c.Bool("dry-run") {
				return e.planTakeover(c, client, z)
			}
			status, err := client.AddZone(c.Context, z)
			if err != nil {
				return err
			}
			if c.Bool("no-wait") {
				return e.printStatus(status, false)
			}
			err = e.awaitZone(c, client, args[0])
			if len(z.Import) > 0 {
				if keys, keysErr := client.Keys(c.Context, args[0]); keysErr == nil {
					e.lifeNotes(keys)
				}
			}
			return err
		}),
	}
}

// newZone reads the flags of zone add.
func newZone(c *urfave.Context, name string) (pipeline.NewZone, error) {
	z := pipeline.NewZone{Name: name, Policy: c.String("policy"), Force: c.Bool("force"), NewKeys: c.Bool("new-keys"), Reason: c.String("reason")}
	if c.String("source") == "" {
		return z, &usageError{msg: "--source is missing", hint: "usage: sluice zone add ZONE --source SOURCE"}
	}
	var err error
	if z.Source, err = absoluteSource(c.String("source")); err != nil {
		return z, err
	}
	if text := c.String("serial-floor"); text != "" {
		if z.SerialFloor, err = serialFloor(c.Context, name, text); err != nil {
			return z, err
		}
	}
	for _, role := range []keymgr.Role{keymgr.KSK, keymgr.ZSK, keymgr.CSK} {
		for _, path := range c.StringSlice("import-" + string(role) + "-file") {
			if path, err = filepath.Abs(path); err != nil {
				return z, err
			}
			z.Import = append(z.Import, pipeline.KeyFile{Path: path, Role: role})
		}
		for _, text := range c.StringSlice("import-" + string(role) + "-key") {
			f, err := tokenKey(text)
			if err != nil {
				return z, err
			}
			f.Role = role
			z.Import = append(z.Import, f)
		}
	}
	for _, path := range c.StringSlice("import-public-key") {
		if path, err = filepath.Abs(path); err != nil {
			return z, err
		}
		z.Import = append(z.Import, pipeline.KeyFile{Path: path, Public: true})
	}
	return z, nil
}

// tokenKey reads KEYSTORE:ID:FILE.
func tokenKey(text string) (pipeline.KeyFile, error) {
	parts := strings.SplitN(text, ":", 3)
	if len(parts) < 3 || slices.Contains(parts, "") {
		return pipeline.KeyFile{}, usagef("key on a token %q: want KEYSTORE:ID:FILE, with the CKA_ID in hex and the K*.key file", text)
	}
	path, err := filepath.Abs(parts[2])
	return pipeline.KeyFile{Keystore: parts[0], ID: parts[1], Path: path}, err
}

// serialFloor reads a serial, or with "auto" asks the zone's public servers.
func serialFloor(ctx context.Context, name, text string) (*uint32, error) {
	if text != "auto" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return nil, usagef("--serial-floor %q: want a serial, 0 to 4294967295, or auto", text)
		}
		floor := uint32(n)
		return &floor, nil
	}
	apex, err := parseZone(name)
	if err != nil {
		return nil, err
	}
	floor, err := floorFinder{resolver: net.DefaultResolver, port: 53, timeout: 3 * time.Second}.find(ctx, apex)
	if err != nil {
		return nil, withHint(err, "give the highest serial that the public servers hold: --serial-floor N")
	}
	return &floor, nil
}

// awaitZone waits until a zone is at rest and tells how it is; what failed is
// an error.
func (e *env) awaitZone(c *urfave.Context, client *api.Client, name string) error {
	m := e.newMeter()
	status, err := client.Await(c.Context, name, m.show)
	m.end()
	if err != nil {
		return err
	}
	out := zoneOutcome{ZoneStatus: status}
	var listErr error
	if status.LastError != "" {
		out.LoadErrors, listErr = loadErrors(status.LastError, func(fn func(line []byte) error) error {
			return client.History(c.Context, name, lastLoadFailure(), func(ev api.Event) error { return fn(ev.Event) })
		})
	}
	if e.json {
		err = e.printJSON(out)
	} else {
		err = e.printStatus(status, false)
	}
	if err != nil || status.LastError == "" {
		return err
	}
	if !e.json && len(out.LoadErrors) > 1 {
		for _, text := range out.LoadErrors {
			e.note("  %s", text)
		}
	}
	if listErr != nil { // the failure itself is told already
		e.note("the list of errors cannot be read: %v", listErr)
	}
	return errSilent
}

func zoneRemove(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "remove", Usage: "stop serving a zone; its history and keys stay", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.BoolFlag{Name: "force", Usage: "even where a check advises against it"}, reasonFlag()},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if err := client.EndZone(c.Context, args[0], pipeline.Removal{Force: c.Bool("force"), Reason: c.String("reason")}); err != nil {
				return err
			}
			name, err := fullName(args[0])
			if err != nil {
				return err
			}
			if e.json {
				return e.printJSON(map[string]any{"zone": name, "removed": true})
			}
			return e.printf("zone %s removed; its history and keys stay\n", name)
		}),
	}
}

func zoneStatus(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "status", Usage: "what a zone is, what it waits for, what comes next", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags:        []urfave.Flag{&urfave.BoolFlag{Name: "detailed", Usage: "add keys, digests and timings"}},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			status, err := client.Zone(c.Context, args[0])
			if err != nil {
				return err
			}
			return e.printStatus(status, c.Bool("detailed"))
		}),
	}
}

func zoneReload(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "reload", Usage: "load a zone now; what changed is signed and published", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.BoolFlag{Name: "full", Usage: "take everything from the zone's servers by AXFR, whatever its serial"},
			&urfave.BoolFlag{Name: "replace", Usage: "with --full: put the source's contents in the place of what dynamic updates made"}, noWaitFlag(),
		},
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			if c.Bool("replace") && !c.Bool("full") {
				return usagef("--replace needs --full")
			}
			reload := func() error { return client.Reload(c.Context, args[0], c.Bool("full")) }
			if c.Bool("replace") {
				reload = func() error { return client.Replace(c.Context, args[0]) }
			}
			if err := reload(); err != nil {
				return err
			}
			return e.asked(c, client, args[0])
		}),
	}
}

func zoneVerify(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "verify", Usage: "verify every signature and the denial chain of what is published", ArgsUsage: "ZONE",
		OnUsageError: onUsageError,
		Action: e.zoneAction(func(c *urfave.Context, client *api.Client, args []string) error {
			m := e.newMeter()
			report, err := client.VerifyZone(c.Context, args[0], m.show)
			m.end()
			if err != nil {
				return err
			}
			return e.printReport(report)
		}),
	}
}
