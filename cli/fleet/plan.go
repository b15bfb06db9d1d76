package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// PlanVersion is the form of a plan that is kept in a file.
const PlanVersion = "v1"

// What becomes of a policy or a zone.
const (
	Add    = "add"
	Change = "change"
	Remove = "remove"
)

// Options says what a plan covers.
type Options struct {
	// Zones are the only ones that are looked at; none: all.
	Zones []string
	// Prune removes zones and policies that the folder does not have; else they
	// are told as drift.
	Prune bool
	// Remote says that the daemon runs on another machine.
	Remote bool
}

// Plan is what there is to do until what runs is as the folder says.
type Plan struct {
	Version string `json:"version"` // PlanVersion
	Folder  string `json:"folder"`
	Digest  string `json:"digest"` // SHA-256 of the folder's files
	Commit  Commit `json:"commit"`
	// Prune and Only are the options that it was made with.
	Prune    bool           `json:"prune"`
	Only     []string       `json:"only,omitempty"`
	Policies []PolicyChange `json:"policies"` // by name
	Zones    []ZoneChange   `json:"zones"`    // by name
	// Drift is what differs and is left as it is.
	Drift   []Drift `json:"drift,omitempty"`
	Summary Summary `json:"summary"`

	fleet  Fleet
	remote bool
}

// PolicyChange is what becomes of a policy.
type PolicyChange struct {
	Policy string `json:"policy"`
	Action string `json:"action"` // add, change, remove
	// At is the SHA-256 of the present text, or none; SHA256 that of the new one.
	At      string                  `json:"at"`
	SHA256  string                  `json:"sha256,omitempty"`
	Diff    string                  `json:"diff,omitempty"`
	Zones   []string                `json:"zones,omitempty"`   // that are bound to it now
	Effects []pipeline.PolicyEffect `json:"effects,omitempty"` // on them
	Notices []string                `json:"notices,omitempty"`
	Refused string                  `json:"refused,omitempty"` // why it is not possible now
}

// ZoneChange is what becomes of a zone.
type ZoneChange struct {
	Zone   string `json:"zone"`
	Action string `json:"action"`         // add, change, remove
	File   string `json:"file,omitempty"` // where the folder says so
	Line   int    `json:"line,omitempty"`
	Source string `json:"source"` // as it is to be; of one that is removed as it is
	Policy string `json:"policy"`
	// WasSource and WasPolicy are what it has now, where that is something else.
	WasSource string `json:"was_source,omitempty"`
	WasPolicy string `json:"was_policy,omitempty"`
	// Keys are what it is added with.
	Keys    []string `json:"keys,omitempty"`
	Changes []string `json:"changes,omitempty"` // what it means, a sentence each
	// Bound is the event that gave it its source or policy last; nil of a new one.
	Bound *pipeline.ZoneBinding `json:"bound,omitempty"`
	// ByHand: that was done otherwise than by applying a folder.
	ByHand  bool   `json:"by_hand,omitempty"`
	Refused string `json:"refused,omitempty"` // why it is not possible now
}

// Drift is a difference that a plan leaves as it is.
type Drift struct {
	Zone   string                `json:"zone,omitempty"`
	Policy string                `json:"policy,omitempty"`
	Text   string                `json:"text"`
	Bound  *pipeline.ZoneBinding `json:"bound,omitempty"`
	ByHand bool                  `json:"by_hand,omitempty"`
}

// Summary counts.
type Summary struct {
	Add       int `json:"add"`    // zones
	Change    int `json:"change"` // zones
	Remove    int `json:"remove"` // zones
	Unchanged int `json:"unchanged"`
	Policies  int `json:"policies"` // that are added, changed or removed
	Drift     int `json:"drift"`
	Refused   int `json:"refused"`  // zones and policies
	Catalogs  int `json:"catalogs"` // zones that are left to catalogs
	Running   int `json:"running"`  // zones that run now
}

// Empty reports whether there is nothing to do.
func (p Plan) Empty() bool { return len(p.Zones) == 0 && len(p.Policies) == 0 }

// Make compares a folder with what a daemon runs. Nothing is changed. What the
// daemon refuses stands in the plan; an error is a folder that makes no sense, or
// a daemon that does not answer.
func Make(ctx context.Context, client *api.Client, f Fleet, o Options) (Plan, error) {
	p := Plan{
		Version: PlanVersion, Folder: f.Dir, Digest: f.Digest, Prune: o.Prune,
		Policies: []PolicyChange{}, Zones: []ZoneChange{}, fleet: f, remote: o.Remote,
	}
	if err := f.Check(o.Remote); err != nil {
		return p, err
	}
	only := map[string]bool{}
	for _, name := range o.Zones {
		only[canonical(name)] = true
	}
	p.Only = slices.Sorted(maps.Keys(only))
	m := maker{client: client, plan: &p, only: only, with: map[string]bool{}}
	if err := m.ask(ctx); err != nil {
		return p, err
	}
	if err := m.zones(); err != nil {
		return p, err
	}
	if err := m.policies(ctx); err != nil {
		return p, err
	}
	if err := m.outlook(ctx); err != nil {
		return p, err
	}
	m.finish()
	return p, nil
}

// maker makes one plan.
type maker struct {
	client *api.Client
	plan   *Plan
	only   map[string]bool // canonical names; empty: all

	running map[string]pipeline.ZoneSummary
	rules   map[string]pipeline.PolicyInfo
	names   map[string]bool // of policies that zones of the folder name
	with    map[string]bool // policies that are new or change
	wishes  []pipeline.ZoneWish
	// wanted has, wish by wish, the change that it is about; one without an
	// action only wants to be told of.
	wanted []ZoneChange
}

func (m *maker) covers(name string) bool { return len(m.only) == 0 || m.only[name] }

// ask asks the daemon what runs.
func (m *maker) ask(ctx context.Context) error {
	zones, err := m.client.Zones(ctx)
	if err != nil {
		return err
	}
	policies, err := m.client.Policies(ctx)
	if err != nil {
		return err
	}
	m.running = make(map[string]pipeline.ZoneSummary, len(zones))
	for _, z := range zones {
		m.running[z.Name] = z
	}
	m.plan.Summary.Running = len(zones)
	m.rules = make(map[string]pipeline.PolicyInfo, len(policies))
	for _, p := range policies {
		m.rules[p.Name] = p
	}
	return nil
}

// zones finds which zones differ.
func (m *maker) zones() error {
	p := m.plan
	m.names = map[string]bool{}
	there := make(map[string]bool, len(p.fleet.Zones))
	for _, z := range p.fleet.Zones {
		name := canonical(z.Name)
		there[name] = true
		if !m.covers(name) {
			continue
		}
		if err := m.zone(name, z); err != nil {
			return err
		}
	}
	for name := range m.only {
		if _, runs := m.running[name]; !runs && !there[name] {
			return fmt.Errorf("zone %s is neither in %s nor here: %w", name, p.Folder, pipeline.ErrNotFound)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.running)) {
		if there[name] || !m.covers(name) {
			continue
		}
		z := m.running[name]
		change := ZoneChange{Zone: name, Source: z.Source, Policy: z.Policy}
		if p.Prune {
			change.Action = Remove
		}
		m.wish(pipeline.ZoneWish{Name: name, Remove: true}, change)
	}
	return nil
}

// zone compares one zone of the folder with what runs.
func (m *maker) zone(name string, z Zone) error {
	source, err := z.source(m.plan.fleet.Dir, m.plan.remote)
	if err != nil {
		return z.fault("zone %s: %w", z.Name, err)
	}
	policy := z.Policy
	if policy == "" {
		policy = "default"
	}
	m.names[policy] = true
	change := ZoneChange{Zone: name, File: z.File, Line: z.Line, Source: source, Policy: policy}
	wish := pipeline.ZoneWish{Name: name, Source: source, Policy: policy}
	runs, ok := m.running[name]
	switch {
	case !ok:
		change.Action = Add
		for _, k := range z.Keys {
			change.Keys = append(change.Keys, k.text())
		}
		change.Refused = m.lacking(z)
	case runs.Source != source || runs.Policy != policy:
		change.Action = Change
		if runs.Source != source {
			change.WasSource = runs.Source
		}
		if runs.Policy != policy {
			change.WasPolicy = runs.Policy
		}
		wish.Keys = m.keyIDs(z)
	default:
		m.plan.Summary.Unchanged++
		if wish.Keys = m.keyIDs(z); len(wish.Keys) == 0 {
			return nil
		}
	}
	m.wish(wish, change)
	return nil
}

func (m *maker) wish(w pipeline.ZoneWish, c ZoneChange) {
	m.wishes = append(m.wishes, w)
	m.wanted = append(m.wanted, c)
}

// text names a key for people.
func (k Key) text() string {
	switch {
	case k.Public:
		return "public " + k.File
	case k.Keystore != "":
		return fmt.Sprintf("%s %s:%s %s", k.Role, k.Keystore, k.ID, k.File)
	}
	return k.Role + " " + k.File
}

// publicFile is the file with a key's DNSKEY record.
func (k Key) publicFile() string {
	if base, ok := strings.CutSuffix(k.File, ".private"); ok {
		return base + ".key"
	}
	return k.File
}

// lacking says which key file of a zone that is to be added is not there.
func (m *maker) lacking(z Zone) string {
	if m.plan.remote {
		return ""
	}
	for _, k := range z.Keys {
		for _, file := range []string{k.File, k.publicFile()} {
			path, err := below(m.plan.fleet.Dir, file)
			if err == nil {
				_, err = os.Stat(path)
			}
			if err != nil && !os.IsPermission(err) {
				return fmt.Sprintf("key file %s cannot be read: %v", file, err)
			}
		}
	}
	return ""
}

// keyIDs are the IDs of the keys that the folder wishes for a zone, as far as
// their public parts can be read here.
func (m *maker) keyIDs(z Zone) []string {
	var out []string
	apex, err := zone.ParseName(z.Name)
	if err != nil {
		return nil
	}
	for _, k := range z.Keys {
		path, err := below(m.plan.fleet.Dir, k.publicFile())
		if err != nil {
			continue
		}
		text, err := readFile(path, maxPolicyFile)
		if err != nil {
			continue // the daemon may read what we may not
		}
		if keys, err := keymgr.ReadPublic(text, apex); err == nil {
			for _, key := range keys {
				out = append(out, key.ID)
			}
		}
	}
	return out
}

// policies finds which policies differ, and asks what that means.
func (m *maker) policies(ctx context.Context) error {
	p := m.plan
	for _, name := range slices.Sorted(maps.Keys(p.fleet.Policies)) {
		text := p.fleet.Policies[name]
		has, ok := m.rules[name]
		if len(m.only) > 0 && !m.names[name] {
			continue
		}
		if ok && has.SHA256 == shaOf(text) {
			m.stale(has)
			continue
		}
		m.with[name] = true
		out, err := m.client.Outlook(ctx, pipeline.FleetWish{Policies: []pipeline.PolicyWish{{Name: name, Text: string(text)}}})
		if err != nil {
			return err
		}
		one := PolicyChange{Policy: name, Action: Add, SHA256: shaOf(text)}
		if ok {
			one.Action = Change
		}
		for _, plan := range out.Policies {
			one.At, one.Diff, one.Zones, one.Effects = plan.At, plan.Diff, plan.Zones, plan.Effects
			one.Notices, one.Refused = plan.Notices, plan.Refused
		}
		p.Policies = append(p.Policies, one)
	}
	if len(m.only) > 0 {
		return nil
	}
	kept := map[string]bool{}
	for _, z := range p.fleet.Zones {
		kept[z.Policy] = true
	}
	for _, name := range slices.Sorted(maps.Keys(m.rules)) {
		has := m.rules[name]
		if _, ours := p.fleet.Policies[name]; ours || name == "default" || kept[name] {
			continue
		}
		if p.Prune {
			p.Policies = append(p.Policies, PolicyChange{Policy: name, Action: Remove, At: has.SHA256, Zones: has.Zones})
			continue
		}
		p.Drift = append(p.Drift, Drift{Policy: name, Text: fmt.Sprintf("it is here and not in the folder; %d zones are bound to it", len(has.Zones))})
	}
	return nil
}

// stale tells of zones that are bound to an older text of their policy.
func (m *maker) stale(p pipeline.PolicyInfo) {
	for _, name := range p.Stale {
		if m.covers(name) {
			m.plan.Drift = append(m.plan.Drift, Drift{
				Zone: name, Text: "it is bound to an older text of policy " + p.Name + ": sluice policy reload says why",
			})
		}
	}
}

func shaOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// Bounds of one question to the daemon, which takes a mebibyte.
const (
	maxAsked      = 1000
	maxAskedBytes = 600 << 10
)

// outlook asks what the changes of zones mean, many at a time.
func (m *maker) outlook(ctx context.Context) error {
	// Zones of one policy stand together, so that its text is sent seldom.
	order := make([]int, len(m.wishes))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(m.wishes[a].Policy, m.wishes[b].Policy) })
	for len(order) > 0 {
		var wish pipeline.FleetWish
		sent, size, n := map[string]bool{}, 0, 0
		for _, i := range order {
			w := m.wishes[i]
			more := len(w.Name) + len(w.Source) + len(w.Policy) + 20*len(w.Keys) + 100
			text := m.plan.fleet.Policies[w.Policy]
			if m.with[w.Policy] && !sent[w.Policy] {
				more += len(text) + len(text)/8 + 100
			}
			if n > 0 && (n == maxAsked || size+more > maxAskedBytes) {
				break
			}
			if m.with[w.Policy] && !sent[w.Policy] {
				sent[w.Policy] = true
				wish.With = append(wish.With, pipeline.PolicyWish{Name: w.Policy, Text: string(text)})
			}
			wish.Zones = append(wish.Zones, w)
			size += more
			n++
		}
		out, err := m.client.Outlook(ctx, wish)
		if err != nil {
			return err
		}
		if len(out.Zones) != n {
			return fmt.Errorf("the daemon told of %d zones in place of %d", len(out.Zones), n)
		}
		for j, i := range order[:n] {
			m.told(m.wanted[i], out.Zones[j])
		}
		order = order[n:]
	}
	return nil
}

// told takes what the daemon says of a zone into the plan.
func (m *maker) told(c ZoneChange, out pipeline.ZoneOutlook) {
	p := m.plan
	byHand := out.Bound != nil && !applied(out.Bound.Reason)
	for _, id := range out.MissingKeys {
		p.Drift = append(p.Drift, Drift{Zone: c.Zone, Text: "it never had key " + id + ", which the folder has: sluice key import " + c.Zone + " --help"})
	}
	switch {
	case c.File == "" && out.Catalog != "": // the catalog says what becomes of it
		p.Summary.Catalogs++
	case c.Action == "" && c.File == "":
		p.Drift = append(p.Drift, Drift{Zone: c.Zone, Text: "it runs and is not in the folder", Bound: out.Bound, ByHand: byHand})
	case c.Action != "":
		c.Changes, c.Bound, c.ByHand = out.Changes, out.Bound, byHand
		if c.Refused == "" {
			c.Refused = out.Refused
		}
		p.Zones = append(p.Zones, c)
	}
}

// finish sorts and counts.
func (m *maker) finish() {
	p := m.plan
	slices.SortFunc(p.Zones, func(a, b ZoneChange) int { return strings.Compare(a.Zone, b.Zone) })
	slices.SortFunc(p.Policies, func(a, b PolicyChange) int { return strings.Compare(a.Policy, b.Policy) })
	slices.SortStableFunc(p.Drift, func(a, b Drift) int { return strings.Compare(a.Zone+"\x00"+a.Policy, b.Zone+"\x00"+b.Policy) })
	leaving := map[string]int{}
	for _, z := range p.Zones {
		switch z.Action {
		case Add:
			p.Summary.Add++
		case Change:
			p.Summary.Change++
		case Remove:
			p.Summary.Remove++
		}
		if z.Refused != "" {
			p.Summary.Refused++
			continue
		}
		if z.Action == Remove {
			leaving[z.Policy]++
		} else if z.WasPolicy != "" {
			leaving[z.WasPolicy]++
		}
	}
	for i := range p.Policies {
		one := &p.Policies[i]
		if left := len(one.Zones) - leaving[one.Policy]; one.Action == Remove && left > 0 {
			one.Refused = fmt.Sprintf("%d zones stay bound to it", left)
		}
		if one.Refused != "" {
			p.Summary.Refused++
		}
	}
	p.Summary.Policies, p.Summary.Drift = len(p.Policies), len(p.Drift)
}

// keyFiles are the keys that a zone is added with, as the daemon takes them.
func (z Zone) keyFiles(dir string) ([]pipeline.KeyFile, error) {
	var out []pipeline.KeyFile
	for _, k := range z.Keys {
		path, err := below(dir, k.File)
		if err != nil {
			return nil, err
		}
		out = append(out, pipeline.KeyFile{Path: filepath.Clean(path), Role: keymgr.Role(k.Role), Public: k.Public, Keystore: k.Keystore, ID: k.ID})
	}
	return out, nil
}
