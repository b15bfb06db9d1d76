package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
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

func clusterPromote(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "promote", Usage: "make a journal of a standby's copy, when the place that it is the copy of is lost",
		Description: "Stop the standby first. What the lost place did last, and was not copied, is not known here: serials go on\n" +
			"above what public servers hold (--serial-floor), and the journal records that it is a new log.",
		OnUsageError: onUsageError,
		Flags: append(remoteFlags(), dataFlag(),
			&urfave.StringFlag{Name: "reason", Usage: "why, for the journal"},
			&urfave.StringSliceFlag{
				Name: "serial-floor", DefaultText: "auto",
				Usage: "put `[ZONE=]FLOOR` under the serials to come: auto asks each zone's public servers, +N is so much above the last one here, N a serial, none nothing; may be given again",
			},
			&urfave.BoolFlag{Name: "plan", Usage: "only make the checks"},
			&urfave.BoolFlag{Name: "force", Usage: "go on where a check does not hold; needs --reason"},
		),
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			p := promoting{
				e: e, data: c.String("data"), plan: c.Bool("plan"), force: c.Bool("force"), reason: c.String("reason"),
				keys: restoring{e: e, keys: map[event.ZoneID]keymgr.KeySet{}}, zones: map[event.ZoneID]*promotedZone{},
				publicKeys: keyFinder{resolver: net.DefaultResolver, port: 53, timeout: 5 * time.Second}.find,
				serials:    floorFinder{resolver: net.DefaultResolver, port: 53, timeout: 3 * time.Second}.find,
			}
			if p.force && p.reason == "" {
				return usagef("--force needs --reason: why is it right all the same?")
			}
			if p.reason == "" {
				p.reason = "promoted"
			}
			var err error
			if p.floors, err = parseFloors(c.StringSlice("serial-floor")); err != nil {
				return err
			}
			if c.IsSet("nats-url") || c.IsSet("creds") {
				if p.remote, err = e.remoteOf(c); err != nil {
					return err
				}
			}
			return p.run(c.Context)
		},
	}
}

// promoting is one promotion.
type promoting struct {
	e      *env
	data   string
	plan   bool
	force  bool
	reason string
	remote journal.Remote // of the place that is lost; as the copy says where empty
	floors serialFloors
	// How public servers are asked.
	publicKeys func(context.Context, zone.Name) (map[string]bool, error)
	serials    func(context.Context, zone.Name) (uint32, error)

	j     *journal.NATS
	keys  restoring // folds the keys of the zones
	zones map[event.ZoneID]*promotedZone
	tree  audit.Tree
	hash  event.Hash
	// origin is the name of the log that goes on here, former those before it.
	origin    string
	former    []string
	continued bool // journal.continued is there, from a promotion that was interrupted
	out       promotion
}

// promotedZone is what the events say of a zone.
type promotedZone struct {
	backup.Zone
	grants map[string]uint64 // epochs by role
}

// promotion is what a promotion tells.
type promotion struct {
	Data        string              `json:"data"`
	From        string              `json:"from"`               // where the lost place was
	Former      string              `json:"former"`             // identity of the journal that it was
	Identity    string              `json:"identity,omitempty"` // of the new one
	Size        uint64              `json:"size"`               // events taken over
	Root        event.Hash          `json:"root"`
	Checks      []journal.GrowCheck `json:"checks"`
	Zones       []restoredZone      `json:"zones"`
	KeysMissing []string            `json:"keys_missing"`
	Promoted    bool                `json:"promoted"`
}

func (p *promoting) run(ctx context.Context) (err error) {
	dir, err := openForStandby(p.data, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.close()) }()
	p.out = promotion{Data: p.data, Checks: []journal.GrowCheck{}, Zones: []restoredZone{}}
	if p.j, p.out.From, err = journal.OpenStandby(ctx, journal.Config{Dir: dir.journal(), Logger: p.e.log}); err != nil {
		return err
	}
	defer func() {
		if p.j != nil {
			err = errors.Join(err, p.j.Close())
		}
	}()
	if err := p.look(ctx); err != nil {
		return err
	}
	p.out.KeysMissing = p.keys.missingKeys(dir)
	floors, err := p.checks(ctx)
	if err != nil {
		return err
	}
	if !p.plan {
		if err := p.promote(ctx, floors); err != nil {
			return err
		}
	}
	return p.print()
}

// look reads all events.
func (p *promoting) look(ctx context.Context) (err error) {
	if p.out.Former, p.out.Size, err = p.j.Stream(ctx); err != nil {
		return err
	}
	p.origin = backup.Origin(p.out.Former)
	err = p.j.Read(ctx, "", 1, 0, func(rec journal.Record) error {
		p.hash = rec.Hash
		p.tree.Append(rec.Hash)
		p.keys.each(rec)
		p.take(rec)
		return nil
	})
	p.out.Root = p.tree.Root()
	return err
}

// take notes what an event says of zones and of the log.
func (p *promoting) take(rec journal.Record) {
	z := p.zones[rec.Event.Zone]
	switch f := rec.Event.Facts.(type) {
	case *event.ZoneAdded:
		p.zones[f.ID] = &promotedZone{Zone: backup.Zone{ID: f.ID, Name: f.Name, Floor: f.SerialFloor}, grants: map[string]uint64{}}
	case *event.ZoneRemoved:
		delete(p.zones, f.ID)
	case *event.SerialRaised:
		if z != nil {
			z.Floor = &f.Floor
		}
	case *event.InstancePublished:
		if z != nil {
			z.Serial = &f.Serial
		}
	case *event.WorkerGranted:
		if z != nil {
			z.grants[f.WorkerRole] = max(z.grants[f.WorkerRole], f.Epoch)
		}
	case *event.JournalCheckpointed:
		// The first line of a checkpoint is the origin (C2SP tlog-checkpoint).
		p.origin, _, _ = strings.Cut(f.Note, "\n")
	case *event.JournalContinued:
		p.former = append(p.former, f.Origin)
		p.continued = f.Stream == p.out.Former
	}
}

// all are the zones, by name.
func (p *promoting) all() []backup.Zone {
	var zones []backup.Zone
	for _, z := range p.zones {
		zones = append(zones, z.Zone)
	}
	slices.SortFunc(zones, func(a, b backup.Zone) int { return strings.Compare(a.Name, b.Name) })
	return zones
}

// check notes one check; without --force nothing goes on where it fails.
func (p *promoting) check(name string, ok bool, format string, args ...any) error {
	c := journal.GrowCheck{Name: name, OK: ok, Text: fmt.Sprintf(format, args...)}
	p.out.Checks = append(p.out.Checks, c)
	if !p.e.json {
		mark := p.e.paint(green, "ok  ")
		if !ok {
			mark = p.e.paint(red, "FAIL")
		}
		if err := p.e.printf("%s  %-9s %s\n", mark, c.Name, c.Text); err != nil {
			return err
		}
	}
	if ok || p.force || p.plan {
		return nil
	}
	return withHint(fmt.Errorf("%s: %s: %w", name, c.Text, journal.ErrRefused),
		"if it is right all the same: --force --reason TEXT")
}

// checks looks at all that must hold, and finds the floors of serials.
func (p *promoting) checks(ctx context.Context) (map[event.ZoneID]uint32, error) {
	if err := p.checkGone(ctx); err != nil {
		return nil, err
	}
	m := p.e.newMeter()
	report, err := journal.Verify(ctx, p.j, journal.VerifyOptions{Chunks: true, Progress: func(done, total uint64) {
		m.show(pipeline.Progress{Stage: "verify", Done: int64(done), Total: int64(total)})
	}})
	m.end()
	if err != nil {
		return nil, err
	}
	var faults []string
	for _, f := range report.Faults {
		faults = append(faults, fmt.Sprintf("event %d of zone %s: %s", f.Seq, p.zoneName(f.Zone), f.What))
	}
	if len(faults) > 0 {
		err = p.check("copy", false, "%s: %s; let the standby catch up if the other place is still there: sluice cluster standby --once",
			count(report.FaultCount, "fault"), firstOf(faults, 5))
	} else {
		err = p.check("copy", true, "%s, %s, all there and sound", count(report.Events, "event"), count(report.Chunks, "chunk"))
	}
	if err != nil {
		return nil, err
	}
	if err := p.checkKeys(ctx); err != nil {
		return nil, err
	}
	floors, err := p.floors.findWith(ctx, p.all(), p.serials)
	switch {
	case err == nil:
		err = p.check("serials", true, "%s raised above what public servers hold, %d stand above it", count(uint64(len(floors)), "zone"), len(p.zones)-len(floors))
	case p.plan:
		err = p.check("serials", false, "%v", err)
	}
	for _, z := range p.all() {
		told := restoredZone{Zone: z.Name, Serial: z.Serial}
		if floor, ok := floors[z.ID]; ok {
			told.Floor = &floor
		}
		p.out.Zones = append(p.out.Zones, told)
	}
	return floors, err
}

func (p *promoting) zoneName(id event.ZoneID) string {
	if z := p.zones[id]; z != nil {
		return z.Name
	}
	return string(id)
}

// checkGone looks whether the place that is to be replaced still answers.
func (p *promoting) checkGone(ctx context.Context) error {
	remote := p.remote
	if len(remote.URLs) == 0 {
		remote = journal.Remote{URLs: strings.Split(p.out.From, ","), Name: "promote"}
	}
	answers, err := journal.Answers(ctx, journal.Config{Remote: remote, Logger: p.e.log, Timeout: 5 * time.Second}, p.out.Former)
	switch {
	case err != nil:
		return p.check("gone", false, "something answers at %s: %v", p.out.From, err)
	case answers:
		return p.check("gone", false, "the journal at %s still answers: two places would sign on by themselves; stop it first", p.out.From)
	}
	return p.check("gone", true, "nothing answers at %s", p.out.From)
}

// checkKeys compares the keys that public servers show with those that the
// journal knows: one that it does not was made after the last event that was
// copied, and what it signed would become bogus.
func (p *promoting) checkKeys(ctx context.Context) error {
	zones := p.all()
	seen, failed := make([]map[string]bool, len(zones)), make([]error, len(zones))
	eachOf(len(zones), maxAsking, func(i int) {
		apex, err := parseZone(zones[i].Name)
		if err == nil {
			seen[i], err = p.publicKeys(ctx, apex)
		}
		failed[i] = err
	})
	var silent, strange []string
	for i, z := range zones {
		if failed[i] != nil {
			silent = append(silent, fmt.Sprintf("%s (%v)", z.Name, failed[i]))
			continue
		}
		known := map[string]bool{}
		for _, k := range p.keys.keys[z.ID].Keys {
			known[k.ID] = true
			if rdata, err := base64.StdEncoding.DecodeString(k.DNSKEY); err == nil && len(rdata) > 4 {
				rdata[1] &^= 0x80 // RFC 5011, 2.1
				known[keyID(rdata)] = true
			}
		}
		for id := range seen[i] {
			if !known[id] {
				strange = append(strange, fmt.Sprintf("%s has %s", z.Name, id))
			}
		}
	}
	if len(strange) > 0 {
		slices.Sort(strange)
		return p.check("keys", false, "public servers show %s that the copy does not know: %s; get the rest of the journal, or that key", count(uint64(len(strange)), "key"), firstOf(strange, 5))
	}
	if len(silent) > 0 {
		return p.check("keys", false, "the public servers of %s were not all heard: %s", count(uint64(len(silent)), "zone"), firstOf(silent, 3))
	}
	return p.check("keys", true, "public servers show no key that the copy does not know")
}

// promote makes the copy a journal of its own.
func (p *promoting) promote(ctx context.Context, floors map[event.ZoneID]uint32) error {
	if _, err := p.j.BeginPromotion(); err != nil {
		return err
	}
	if !p.continued {
		p.former = append(p.former, p.origin)
		err := p.append(ctx, event.Instance, localActor(), 0, &event.JournalContinued{
			Origin: p.origin, Stream: p.out.Former, Size: p.out.Size, Hash: p.hash, Root: p.out.Root,
			Reason: "standby of " + p.out.From + " promoted: " + p.reason,
		})
		if err != nil {
			return err
		}
	}
	for _, z := range p.all() {
		if floor, ok := floors[z.ID]; ok {
			if err := p.append(ctx, z.ID, localActor(), 0, &event.SerialRaised{Floor: floor, Reason: "standby promoted"}); err != nil {
				return err
			}
		}
		// Whoever wrote for the lost place writes here in vain.
		grants := p.zones[z.ID].grants
		for _, role := range slices.Sorted(maps.Keys(grants)) {
			epoch := grants[role]
			err := p.append(ctx, z.ID, event.Program, epoch+1, &event.WorkerGranted{Worker: "main", WorkerRole: role, Epoch: epoch + 1})
			if err != nil {
				return err
			}
		}
	}
	var err error
	if p.out.Identity, err = p.j.FinishPromotion(p.former); err != nil {
		return err
	}
	p.out.Promoted = true
	j := p.j
	p.j = nil
	return j.Close()
}

// append stores one event of the new log.
func (p *promoting) append(ctx context.Context, id event.ZoneID, actor event.Actor, epoch uint64, f event.Facts) error {
	head, err := p.j.Head(ctx, id)
	if err != nil {
		return err
	}
	e := event.New(time.Now(), id, actor, f)
	e.Epoch, e.MustUnderstand = epoch, true
	_, err = p.j.Append(ctx, id, head, e)
	return err
}

func (p *promoting) print() error {
	if p.e.json {
		return p.e.printJSON(p.out)
	}
	if err := p.e.printRestoredZones(restored{Data: p.data, Zones: p.out.Zones}); err != nil {
		return err
	}
	if len(p.out.KeysMissing) > 0 {
		err := p.e.printf("%s of %s not in %s/keys: %s; without them zones are served as they are, and not signed\n",
			count(uint64(len(p.out.KeysMissing)), "private key"), p.out.Former, p.data, firstOf(p.out.KeysMissing, 5))
		if err != nil {
			return err
		}
	}
	if !p.out.Promoted {
		return p.e.printf("Nothing was changed. Without --plan, the copy becomes a journal now.\n")
	}
	return p.e.printf("The copy is journal %s now, a new log behind %s of %s.\nThe daemon of the other place must not run any more.\nnext: sluice serve --data %s\n",
		p.out.Identity, count(p.out.Size, "event"), p.origin, p.data)
}
