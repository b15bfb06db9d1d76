package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	urfave "github.com/urfave/cli/v2"

	"sluice/journal"
	"sluice/journal/audit"
	"sluice/journal/backup"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
)

func journalRestore(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "restore", Usage: "make a journal of a backup, verified before it is put into its place; needs no daemon", ArgsUsage: "DIR",
		Description: "The data directory must have no journal. What was published after the backup is not\n" +
			"known to it, so serials go on above what public servers hold (--serial-floor), and\n" +
			"the journal records that it is a new log. Copy keys/ too before the daemon starts.",
		OnUsageError: onUsageError,
		Flags: []urfave.Flag{
			&urfave.StringFlag{Name: "data", Usage: "restore into this data `DIR`ectory", DefaultText: "./sluice-data"},
			&urfave.StringSliceFlag{
				Name: "serial-floor", DefaultText: "auto",
				Usage: "put `[ZONE=]FLOOR` under the serials to come: auto asks each zone's public servers, +N is so much above the last one here, N a serial, none nothing; may be given again",
			},
			&urfave.StringFlag{Name: "key", Usage: "the backup must be signed by this public audit key `NAME+HASH+KEY`, as it was handed over, or @FILE"},
			&urfave.BoolFlag{Name: "check", Usage: "verify the backup and restore nothing"},
		},
		Action: func(c *urfave.Context) error {
			args, err := arguments(c, "DIR")
			if err != nil {
				return err
			}
			r := restoring{e: e, from: args[0], data: c.String("data"), check: c.Bool("check"), keys: map[event.ZoneID]keymgr.KeySet{}}
			if r.data == "" {
				r.data = defaultConfig().DataDir
			}
			if r.floors, err = parseFloors(c.StringSlice("serial-floor")); err != nil {
				return err
			}
			if text := c.String("key"); text != "" {
				if r.key, err = readAuditKey(text); err != nil {
					return err
				}
			}
			return backupHint(r.run(c.Context))
		},
	}
}

// restoring is one restore.
type restoring struct {
	e      *env
	from   string
	data   string
	check  bool
	key    *audit.Verifier
	floors serialFloors
	keys   map[event.ZoneID]keymgr.KeySet
}

// restored is what a restore tells.
type restored struct {
	Backup      string         `json:"backup"`
	Data        string         `json:"data,omitempty"` // absent where the backup was only checked
	Taken       time.Time      `json:"taken"`
	From        string         `json:"from"`               // origin of the log in the backup
	Origin      string         `json:"origin,omitempty"`   // of the new log, where the config names none
	Identity    string         `json:"identity,omitempty"` // of the new journal
	Size        uint64         `json:"size"`               // events taken over
	Root        string         `json:"root"`
	Signed      uint64         `json:"signed"` // events that a verified signature counts
	Checkpoints uint64         `json:"checkpoints"`
	Chunks      uint64         `json:"chunks"`
	Missing     uint64         `json:"missing"`
	Zones       []restoredZone `json:"zones"`
	KeysMissing []string       `json:"keys_missing"` // files that keys/ lacks
}

// restoredZone is a zone of a restore.
type restoredZone struct {
	Zone   string  `json:"zone"`
	Serial *uint32 `json:"serial,omitempty"` // last published in the backup
	Floor  *uint32 `json:"floor,omitempty"`  // serials stand above it from here on, where it was raised
}

func (r *restoring) run(ctx context.Context) error {
	m := r.e.newMeter()
	defer m.end()
	var dir *dataDir
	if !r.check {
		manifest, err := backup.ReadManifest(r.from)
		if err != nil {
			return err
		}
		if dir, err = openForRestore(r.data, manifest.Rehearsal); err != nil {
			return err
		}
		defer dir.close() //nolint:errcheck // nothing was written to the lock
	}
	checked, err := backup.Check(ctx, r.from, backup.CheckOptions{Key: r.key, Each: r.each, Progress: progressOf(m, "verify")})
	if err != nil {
		return err
	}
	out := r.told(checked)
	if !r.check {
		floors, err := r.floors.find(ctx, checked.Zones)
		if err != nil {
			return err
		}
		for i, z := range checked.Zones {
			if floor, ok := floors[z.ID]; ok {
				out.Zones[i].Floor = &floor
			}
		}
		out.Data, out.KeysMissing = r.data, r.missingKeys(dir)
		if out.Identity, err = r.fill(ctx, dir, checked, floors, m); err != nil {
			return err
		}
		out.Origin = backup.Origin(out.Identity)
	}
	m.end()
	out.Zones = slices.DeleteFunc(out.Zones, func(z restoredZone) bool { return z.Zone == "" })
	return r.e.printRestored(out)
}

// each folds the keys of the zones.
func (r *restoring) each(rec journal.Record) {
	if noun, _, _ := strings.Cut(rec.Event.Type, "."); noun == "key" {
		r.keys[rec.Event.Zone] = keymgr.Evolve(r.keys[rec.Event.Zone], rec.Event)
	}
	if f, ok := rec.Event.Facts.(*event.ZoneRemoved); ok {
		delete(r.keys, f.ID)
	}
}

// told is what there is to tell of a backup. Zones that were removed have no
// name there yet, so that both lists have the same order.
func (r *restoring) told(c *backup.Checked) restored {
	out := restored{
		Backup: r.from, Taken: c.Manifest.Taken, From: c.Manifest.Origin, Size: c.Manifest.Size, Root: c.Root,
		Signed: c.Signed, Checkpoints: c.Checkpoints, Zones: make([]restoredZone, len(c.Zones)), KeysMissing: []string{},
	}
	out.Chunks, out.Missing = c.Manifest.Chunks()
	for i, z := range c.Zones {
		if !z.Removed {
			out.Zones[i] = restoredZone{Zone: z.Name, Serial: z.Serial}
		}
	}
	return out
}

// missingKeys lists the key files that zones need and keys/ lacks.
func (r *restoring) missingKeys(dir *dataDir) []string {
	missing := []string{}
	for _, id := range slices.Sorted(maps.Keys(r.keys)) {
		for _, k := range r.keys[id].Keys {
			if k.Foreign || k.Keystore != "file" || k.State == keymgr.Removed || !k.Destroyed.IsZero() {
				continue
			}
			if _, err := os.Stat(filepath.Join(dir.keys(), k.Reference)); errors.Is(err, fs.ErrNotExist) {
				missing = append(missing, k.Reference)
			}
		}
	}
	return missing
}

// openForRestore opens a data directory that is to get a journal.
func openForRestore(path string, rehearsal bool) (*dataDir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	clock := realClock
	if rehearsal {
		clock = rehearsalClock
	}
	d := &dataDir{path: path, beside: "keys"} // they may be there already
	if err := d.checkOurs(); err != nil {
		return nil, err
	}
	if err := d.takeLock(true); err != nil {
		return nil, err
	}
	err := d.checkMarker(clock, true)
	if err == nil {
		err = d.noJournal()
	}
	if err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// noJournal refuses a directory with a journal.
func (d *dataDir) noJournal() error {
	entries, err := os.ReadDir(d.journal())
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return withHint(fmt.Errorf("%s is there already: %w", d.journal(), pipeline.ErrState),
		"a restore replaces nothing: name another directory with --data, or move that journal away first")
}

// fill makes the journal of a verified backup beside its place, and puts it
// there once it is whole.
func (r *restoring) fill(ctx context.Context, dir *dataDir, checked *backup.Checked, floors map[event.ZoneID]uint32, m *meter) (identity string, err error) {
	// With the lock held, what stands there was left by a run that was killed.
	stale, err := filepath.Glob(filepath.Join(dir.path, ".restore-*"))
	for i := 0; i < len(stale) && err == nil; i++ {
		err = os.RemoveAll(stale[i])
	}
	if err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(dir.path, ".restore-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // gone already once it was renamed
	former := append(slices.Clone(checked.Former), checked.Manifest.Origin)
	fill, err := journal.NewRebuild(ctx, journal.Config{Dir: tmp, Logger: r.e.log}, former, checked.Manifest.BulkLast)
	if err != nil {
		return "", err
	}
	again, err := backup.Check(ctx, r.from, backup.CheckOptions{Key: r.key, Fill: fill, Progress: progressOf(m, "restore")})
	if err == nil && again.Root != checked.Root {
		err = fmt.Errorf("the backup changed while it was read: %w", pipeline.ErrState)
	}
	var j *journal.NATS
	if err == nil {
		j, err = fill.Finish(ctx)
	}
	if err == nil {
		err = again.Continue(ctx, j, backup.Continuation{
			Now: time.Now(), Actor: localActor(), Floors: floors, FloorReason: "restored from a backup",
			Reason: "restored from the backup of " + when(checked.Manifest.Taken),
		})
	}
	if err == nil {
		identity, _, err = j.Stream(ctx)
	}
	if err = errors.Join(err, fill.Close()); err != nil {
		return "", err
	}
	if err := os.Remove(dir.journal()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	// Commit: the journal is whole, on disk, and says that it is a new log.
	if err := os.Rename(tmp, dir.journal()); err != nil {
		return "", err
	}
	return identity, syncDir(dir.path)
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// localActor is who runs this command.
func localActor() event.Actor {
	actor := event.Actor{Name: "unknown", Door: "cli"}
	if u, err := user.Current(); err == nil {
		actor.Name = u.Username
	}
	return actor
}

// printRestored tells what a restore, or a check, came to.
func (e *env) printRestored(r restored) error {
	if e.json {
		return e.printJSON(r)
	}
	signed := "not signed"
	if r.Signed > 0 {
		signed = fmt.Sprintf("signed up to event %d", r.Signed)
	}
	if err := e.fields("backup", fmt.Sprintf("%s: %s, of %s", r.Backup, e.paint(green, "sound"), when(r.Taken)),
		"log", fmt.Sprintf("%s, %s, %s", r.From, count(r.Size, "event"), signed), "root", r.Root,
		"chunks", fmt.Sprintf("%d, %d were missing in the journal", r.Chunks, r.Missing)); err != nil {
		return err
	}
	if err := e.printRestoredZones(r); err != nil || r.Data == "" {
		return err
	}
	if err := e.printf("restored into %s as a new log, %s\n"+
		"what was published after the backup is not known here: the daemon that this one replaces must not run any more\n",
		r.Data, r.Origin); err != nil {
		return err
	}
	keys := filepath.Join(r.Data, "keys")
	if len(r.KeysMissing) == 0 {
		return e.printf("next: sluice serve --data %s\n", r.Data)
	}
	return e.printf("%s lacks %s: %s\n"+
		"next: copy them from the copy of keys/, then: sluice serve --data %s (without them zones are served as they were, and not signed)\n",
		keys, count(uint64(len(r.KeysMissing)), "private key"), firstOf(r.KeysMissing, 5), r.Data)
}

func (e *env) printRestoredZones(r restored) error {
	rows := make([][]string, 0, len(r.Zones))
	for _, z := range r.Zones {
		floor := "as it was"
		if z.Floor != nil {
			floor = fmt.Sprintf("above %d", *z.Floor)
		}
		if r.Data == "" {
			floor = ""
		}
		rows = append(rows, []string{z.Zone, serialText(z.Serial), floor})
	}
	if len(rows) == 0 {
		return nil
	}
	return e.table([]string{"ZONE", "LAST SERIAL", "GOES ON"}, rows)
}

// serialFloors says which floor is to be put under the serials of which zone;
// "" is all that are not named.
type serialFloors map[string]serialFloorRule

// serialFloorRule is one of them.
type serialFloorRule struct {
	auto, none bool
	above      bool   // n is counted from the last serial
	n          uint32 // else a serial
}

// parseFloors reads what --serial-floor takes.
func parseFloors(texts []string) (serialFloors, error) {
	out := serialFloors{"": {auto: true}}
	for _, text := range texts {
		name, value, named := strings.Cut(text, "=")
		if !named {
			name, value = "", text
		} else {
			apex, err := parseZone(name)
			if err != nil {
				return nil, err
			}
			name = apex.String()
		}
		rule := serialFloorRule{auto: value == "auto", none: value == "none"}
		if !rule.auto && !rule.none {
			number, above := strings.CutPrefix(value, "+")
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil || above && (n == 0 || n >= 1<<31) {
				return nil, usagef("--serial-floor %q: want auto, none, a serial, or + and a number up to 2147483647, with ZONE= before it for one zone", text)
			}
			rule.n, rule.above = uint32(n), above
		}
		out[name] = rule
	}
	return out, nil
}

// find is the floors of zones, where they are to be raised.
func (f serialFloors) find(ctx context.Context, zones []backup.Zone) (map[event.ZoneID]uint32, error) {
	for name := range f {
		if name != "" && !slices.ContainsFunc(zones, func(z backup.Zone) bool { return !z.Removed && z.Name == name }) {
			return nil, fmt.Errorf("--serial-floor: the backup has no zone %s: %w", name, pipeline.ErrNotFound)
		}
	}
	finder := floorFinder{resolver: net.DefaultResolver, port: 53, timeout: 3 * time.Second}
	return f.findWith(ctx, zones, finder.find)
}

// findWith is find with a way to ask public servers.
func (f serialFloors) findWith(ctx context.Context, zones []backup.Zone, ask func(context.Context, zone.Name) (uint32, error)) (map[event.ZoneID]uint32, error) {
	out := map[event.ZoneID]uint32{}
	asked := f.asked(zones)
	answers := make([]uint32, len(asked))
	failed := make([]error, len(asked))
	eachOf(len(asked), maxAsking, func(i int) {
		apex, err := parseZone(asked[i].Name)
		if err == nil {
			answers[i], err = ask(ctx, apex)
		}
		failed[i] = err
	})
	var faults []string
	for i, z := range asked {
		if failed[i] != nil {
			faults = append(faults, fmt.Sprintf("%s (%v)", z.Name, failed[i]))
			continue
		}
		raise(out, z, answers[i])
	}
	if len(faults) > 0 {
		return nil, withHint(
			fmt.Errorf("which serials were published after the backup is not known of %s: %s: %w", count(uint64(len(faults)), "zone"), firstOf(faults, 5), pipeline.ErrState),
			"say it with --serial-floor: +1000 goes on so much above the last serial here, ZONE=N is for one zone, none leaves serials as they are")
	}
	for _, z := range zones {
		rule := f.of(z)
		base := z.Serial
		if base == nil {
			base = z.Floor
		}
		switch {
		case z.Removed || rule.auto || rule.none:
		case !rule.above:
			raise(out, z, rule.n)
		case base != nil:
			raise(out, z, *base+rule.n)
		}
	}
	return out, nil
}

// maxAsking bounds the zones whose servers are asked at a time.
const maxAsking = 32

// eachOf calls fn with the numbers below n, some at a time.
func eachOf(n, atATime int, fn func(i int)) {
	places := make(chan struct{}, atATime)
	for i := range n {
		places <- struct{}{}
		go func() {
			defer func() { <-places }()
			fn(i)
		}()
	}
	for range atATime {
		places <- struct{}{}
	}
}

// of is the rule for a zone.
func (f serialFloors) of(z backup.Zone) serialFloorRule {
	if rule, ok := f[z.Name]; ok {
		return rule
	}
	return f[""]
}

// asked are the zones whose public servers are to be asked.
func (f serialFloors) asked(zones []backup.Zone) []backup.Zone {
	var out []backup.Zone
	for _, z := range zones {
		if !z.Removed && f.of(z).auto {
			out = append(out, z)
		}
	}
	return out
}

// raise puts a floor under a zone's serials where they do not stand above it
// anyway.
func raise(floors map[event.ZoneID]uint32, z backup.Zone, floor uint32) {
	for _, have := range []*uint32{z.Serial, z.Floor} {
		if have != nil && !zone.Serial(*have).Before(zone.Serial(floor)) {
			return
		}
	}
	floors[z.ID] = floor
}
