package migrate

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/cli/fleet"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// What a plan's folder holds beside what package fleet says.
const (
	planFile  = "PLAN.md"        // for people
	noteFile  = "migration.json" // Plan
	keyFolder = "keys"           // private keys and TSIG secrets, for their owner alone
)

// planVersion is what migration.json begins with.
const planVersion = "v1"

// Plan is what was read of a former signer, and what is to be done: migration.json.
// It holds no secrets.
type Plan struct {
	Version  string    `json:"version"`
	Kind     string    `json:"kind"`   // bind, knot, opendnssec, powerdns, cascade
	Source   string    `json:"source"` // what was read
	Only     []string  `json:"only,omitempty"`
	At       time.Time `json:"at"`
	Software string    `json:"software"`
	Digest   string    `json:"digest"` // over those of all zones
	// Written is the SHA-256 of each policy as the plan wrote it, by name.
	Written   map[string]string `json:"written"`
	Policies  []PlannedPolicy   `json:"policies"`
	TSIG      []PlannedTSIG     `json:"tsig,omitempty"`
	Keystores []PlannedKeystore `json:"keystores,omitempty"`
	Zones     []PlannedZone     `json:"zones"`
	Unequal   []string          `json:"unequal,omitempty"`
	Stop      []string          `json:"stop,omitempty"`
	Back      []string          `json:"back,omitempty"`
	// Kept is what a person changed in the folder, and what stays so.
	Kept []string `json:"kept,omitempty"`
}

// PlannedPolicy is a policy of the folder.
type PlannedPolicy struct {
	Name    string   `json:"name"`
	Former  string   `json:"former"` // its name at the former signer
	Unequal []string `json:"unequal,omitempty"`
}

// PlannedTSIG is a TSIG key; File, in the folder, has its secret in base64.
type PlannedTSIG struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	File      string `json:"file"`
}

// PlannedKeystore is a token.
type PlannedKeystore struct {
	Name    string `json:"name"`
	Module  string `json:"module"`
	Token   string `json:"token"`
	PINFile string `json:"pin_file,omitempty"`
}

// PlannedZone is a zone.
type PlannedZone struct {
	Zone   string  `json:"zone"`
	Source string  `json:"source"`
	Policy string  `json:"policy"`
	Serial *uint32 `json:"serial,omitempty"` // the highest that the former signer is known to have published
	// Primary is where the former signer gives it out, Secondaries who takes it
	// from there.
	Primary     string       `json:"primary,omitempty"`
	Secondaries []string     `json:"secondaries,omitempty"`
	Keys        []PlannedKey `json:"keys"`
	Digest      string       `json:"digest"` // over its keys and their states
	Notes       []string     `json:"notes,omitempty"`
	Unequal     []string     `json:"unequal,omitempty"`
	Refused     string       `json:"refused,omitempty"`
	Stop        []string     `json:"stop,omitempty"`
	Back        []string     `json:"back,omitempty"`
}

// PlannedKey is a key of a zone.
type PlannedKey struct {
	ID        string       `json:"id"`
	Role      keymgr.Role  `json:"key_role,omitempty"`
	Algorithm uint8        `json:"algorithm"`
	Tag       uint16       `json:"tag"`
	State     keymgr.State `json:"state,omitempty"` // by its notes
	// File is in the folder: K*.private, or the .key file of one that is on a
	// token or another signer's.
	File     string `json:"file"`
	Keystore string `json:"keystore,omitempty"`
	TokenID  string `json:"token_id,omitempty"` // CKA_ID in hex
	Public   bool   `json:"public,omitempty"`   // another signer's
}

// plannedKey is a key with what is written of it.
type plannedKey struct {
	PlannedKey
	former Key
	record string
	key    event.Key
}

// Make reads nothing: it makes a plan of what was read.
func Make(kind, source string, f Former, o Options) (Plan, error) {
	p, _, err := plan(kind, source, f, o)
	return p, err
}

// plan makes a plan, and the keys of each zone as they are written.
func plan(kind, source string, f Former, o Options) (Plan, [][]plannedKey, error) {
	p := Plan{
		Version: planVersion, Kind: kind, Source: source, Only: slices.Sorted(slices.Values(o.Zones)), At: o.Now.UTC().Truncate(time.Second), Software: f.Software,
		Written: map[string]string{}, Policies: []PlannedPolicy{}, Zones: []PlannedZone{},
		Unequal: f.Unequal, Stop: f.Stop, Back: f.Back,
	}
	known := map[string]bool{}
	for _, policy := range f.Policies {
		if _, err := pipeline.Parse(policy.Name, policy.Text); err != nil {
			return p, nil, fmt.Errorf("%s %q does not become a policy: %w", p.Kind, policy.Former, err)
		}
		known[policy.Name] = true
		p.Written[policy.Name] = digest(policy.Text)
		p.Policies = append(p.Policies, PlannedPolicy{policy.Name, policy.Former, policy.Unequal})
	}
	for _, k := range f.TSIG {
		p.TSIG = append(p.TSIG, PlannedTSIG{k.Name, k.Algorithm, filepath.Join(keyFolder, "tsig-"+safeName(k.Name))})
	}
	for _, k := range f.Keystores {
		one := PlannedKeystore{k.Name, k.Module, k.Token, k.PINFile}
		if len(k.PIN) > 0 {
			one.PINFile = filepath.Join(keyFolder, k.Name+".pin")
		}
		p.Keystores = append(p.Keystores, one)
	}
	zones := slices.Clone(f.Zones)
	slices.SortFunc(zones, func(a, b Zone) int { return strings.Compare(a.Name, b.Name) })
	var all [][]plannedKey
	h := sha256.New()
	for _, z := range zones {
		if z.Refused == "" && !known[z.Policy] {
			return p, nil, fmt.Errorf("zone %s has policy %q, which was not read", z.Name, z.Policy)
		}
		planned, keys, err := planZone(z, o.Now)
		if err != nil {
			return p, nil, fmt.Errorf("zone %s: %w", z.Name, err)
		}
		fmt.Fprintf(h, "%s %s\n", planned.Zone, planned.Digest)
		p.Zones, all = append(p.Zones, planned), append(all, keys)
	}
	p.Digest = hex.EncodeToString(h.Sum(nil))
	return p, all, nil
}

func digest(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// safeName is a name as a file may have it.
func safeName(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '_'
	}, strings.TrimSuffix(name, "."))
}

// planZone makes the plan of one zone.
func planZone(z Zone, now time.Time) (PlannedZone, []plannedKey, error) {
	apex, err := zone.ParseName(z.Name)
	if err != nil {
		return PlannedZone{}, nil, err
	}
	out := PlannedZone{
		Zone: zoneName(apex), Source: z.Source, Policy: z.Policy, Serial: z.Serial, Primary: z.Primary, Secondaries: z.Secondaries,
		Keys: []PlannedKey{}, Notes: z.Notes, Unequal: z.Unequal, Refused: z.Refused, Stop: z.Stop, Back: z.Back,
	}
	var keys []plannedKey
	names := map[string]bool{}
	for _, k := range z.Keys {
		one, err := planKey(apex, k, now)
		if err != nil {
			return out, nil, err
		}
		if names[one.File] {
			one.File = strings.TrimSuffix(one.File, filepath.Ext(one.File)) + "-" + one.ID + filepath.Ext(one.File)
		}
		names[one.File] = true
		keys = append(keys, one)
	}
	slices.SortFunc(keys, func(a, b plannedKey) int { return cmp.Compare(a.File, b.File) })
	if slices.ContainsFunc(keys, exchanged) {
		out.Notes = append(slices.Clone(out.Notes), "keys of it are being exchanged there: that goes on here by itself; `migrate import --dry-run` tells at which step")
	}
	h := sha256.New()
	for _, k := range keys {
		out.Keys = append(out.Keys, k.PlannedKey)
		life := event.KeyLife{}
		if k.former.Life != nil {
			life = *k.former.Life
		}
		life.State, life.Notes = "", nil // they follow from the rest, and from the time
		if err := json.NewEncoder(h).Encode([]any{k.ID, k.Role, k.Keystore, k.TokenID, life}); err != nil {
			return out, nil, err
		}
	}
	out.Digest = hex.EncodeToString(h.Sum(nil))
	return out, keys, nil
}

// exchanged reports whether a key is on its way in or out.
func exchanged(k plannedKey) bool {
	if k.Public || k.former.Life == nil {
		return false
	}
	leaves := k.former.Life.Goal == "hidden" && k.State != keymgr.Removed && k.State != keymgr.Generated
	return leaves || k.State == keymgr.Published || k.State == keymgr.Retired
}

// zoneName is a zone's name as the files have it: without its final dot.
func zoneName(apex zone.Name) string {
	text := apex.Fold().String()
	if text == "." {
		return text
	}
	return strings.TrimSuffix(text, ".")
}

// planKey makes the plan of one key.
func planKey(apex zone.Name, k Key, now time.Time) (plannedKey, error) {
	rr, err := dns.NewRR(k.DNSKEY)
	if err != nil {
		return plannedKey{}, fmt.Errorf("key %d: %w", k.Tag, err)
	}
	record, ok := rr.(*dns.DNSKEY)
	if !ok {
		return plannedKey{}, fmt.Errorf("key %d: %q is no DNSKEY record", k.Tag, k.DNSKEY)
	}
	rdata, err := rdataOf(record)
	if err != nil {
		return plannedKey{}, fmt.Errorf("key %d: %w", k.Tag, err)
	}
	out := plannedKey{former: k, key: keymgr.Describe(k.Role, rdata)}
	out.key.Life = k.Life
	ttl := ""
	if record.Hdr.Ttl != 0 {
		ttl = fmt.Sprintf("%d ", record.Hdr.Ttl)
	}
	out.record = fmt.Sprintf("%s %sIN DNSKEY %d %d %d %s\n", apex.Fold(), ttl, record.Flags, record.Protocol, record.Algorithm, record.PublicKey)
	out.PlannedKey = PlannedKey{
		ID: out.key.ID, Role: k.Role, Algorithm: out.key.Algorithm, Tag: out.key.Tag, Keystore: k.Keystore, TokenID: k.ID,
		Public: len(k.Private) == 0 && k.Keystore == "",
	}
	suffix := ".private"
	if len(k.Private) == 0 {
		suffix = ".key"
	}
	if out.Public {
		out.Role = ""
	} else {
		state, _ := keymgr.ReadLife(k.Life, k.Role, now)
		out.State = state
	}
	out.File = filepath.Join(keyFolder, baseName(apex, out.Algorithm, out.Tag)+suffix)
	return out, nil
}

// fleet is the folder's zones and policies.
func (p Plan) fleet(f Former) fleet.Fleet {
	out := fleet.Fleet{Policies: map[string][]byte{}}
	for _, policy := range f.Policies {
		out.Policies[policy.Name] = policy.Text
	}
	for _, z := range p.Zones {
		if z.Refused != "" {
			continue
		}
		one := fleet.Zone{Name: z.Zone, Source: z.Source, Policy: z.Policy}
		if z.Serial != nil {
			one.SerialFloor = fmt.Sprint(*z.Serial)
		}
		for _, k := range z.Keys {
			one.Keys = append(one.Keys, fleet.Key{Role: string(k.Role), File: k.File, Keystore: k.Keystore, ID: k.TokenID, Public: k.Public})
		}
		out.Zones = append(out.Zones, one)
	}
	return out
}

// Load reads the plan of a folder.
func Load(dir string) (Plan, error) {
	path := filepath.Join(dir, noteFile)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Plan{}, fmt.Errorf("%s holds no plan (%s is not there): %w", dir, noteFile, pipeline.ErrNotFound)
	}
	if err != nil {
		return Plan{}, err
	}
	var p Plan
	if err := json.Unmarshal(text, &p); err != nil {
		return Plan{}, fmt.Errorf("%s: %w", path, err)
	}
	if p.Version != planVersion {
		return Plan{}, fmt.Errorf("%s: version %q: want %q", path, p.Version, planVersion)
	}
	return p, nil
}

// Select is the zones of a plan that are named, all where none is. Errors:
// pipeline.ErrNotFound.
func (p Plan) Select(names []string) ([]PlannedZone, error) {
	if len(names) == 0 {
		return p.Zones, nil
	}
	var out []PlannedZone
	for _, name := range names {
		apex, err := zone.ParseName(name)
		if err != nil {
			return nil, fmt.Errorf("%w: zone %q: %w", pipeline.ErrInvalid, name, err)
		}
		i := slices.IndexFunc(p.Zones, func(z PlannedZone) bool { return z.Zone == zoneName(apex) })
		if i < 0 {
			return nil, fmt.Errorf("zone %s is not in the plan: %w", zoneName(apex), pipeline.ErrNotFound)
		}
		out = append(out, p.Zones[i])
	}
	return out, nil
}
