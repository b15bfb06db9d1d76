package migrate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/miekg/dns"
	"github.com/pelletier/go-toml/v2"

	"sluice/pipeline"
	"sluice/signer/zone"
)

// ReadCascade reads the configuration of Cascade (config.toml, or the folder that
// it is in), its policies, the state of its zones, and the key sets that dnst
// keeps for them. Nothing is changed.
func ReadCascade(ctx context.Context, source string, o Options) (Former, error) {
	path := source
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "config.toml")
	}
	c := &cascadeReader{path: path, o: o, policies: policySet{kind: "cascade"}}
	if err := c.config(); err != nil {
		return Former{}, fmt.Errorf("read the configuration of Cascade: %w", err)
	}
	return c.read(ctx)
}

// cascadeReader is the work on one configuration.
type cascadeReader struct {
	path     string
	o        Options
	conf     cascadeConf
	out      Former
	policies policySet
	serials  serials
}

// cascadeConf is what counts here of config.toml.
type cascadeConf struct {
	PolicyDir string `toml:"policy-dir"`
	StateDir  string `toml:"zone-state-dir"`
	TSIGStore string `toml:"tsig-store-path"`
	KeysDir   string `toml:"keys-dir"`
	Server    struct {
		Servers []any `toml:"servers"`
	} `toml:"server"`
}

func (c *cascadeReader) config() error {
	text, err := os.ReadFile(c.path)
	if err != nil {
		return err
	}
	c.conf = cascadeConf{
		PolicyDir: "/etc/cascade/policies", StateDir: "/var/lib/cascade/zone-state",
		TSIGStore: "/var/lib/cascade/tsig-keys.db", KeysDir: "/var/lib/cascade/keys",
	}
	if err := toml.Unmarshal(text, &c.conf); err != nil {
		return tomlFault(c.path, err)
	}
	dir := filepath.Dir(c.path)
	for _, p := range []*string{&c.conf.PolicyDir, &c.conf.StateDir, &c.conf.TSIGStore, &c.conf.KeysDir} {
		*p = below(dir, *p)
	}
	return nil
}

// tomlFault names the line of a mistake in a TOML file.
func tomlFault(path string, err error) error {
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		line, _ := decode.Position()
		return place{path, line}.fault("%w", err)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// primary is where Cascade gives zones out.
func (c *cascadeReader) primary() string {
	for _, s := range c.conf.Server.Servers {
		text, _ := s.(string)
		text = strings.TrimPrefix(strings.TrimPrefix(text, "udp://"), "tcp://")
		if at, err := netip.ParseAddrPort(text); err == nil {
			return reachable(at).String()
		}
	}
	return "127.0.0.1:4542"
}

// cascadeZone is the state of a zone.
type cascadeZone struct {
	Version string `json:"version"`
	Policy  *struct {
		Name string `json:"name"`
	} `json:"policy"`
	Source     json.RawMessage `json:"source"`
	Previous   *uint32         `json:"previous-serial"`
	LastSigned *uint32         `json:"last-signed-serial"` // until 0.1.0-alpha
	Instances  struct {
		Persisted *struct {
			Signed struct {
				SOA []int `json:"soa"` // bytes, in wire form
			} `json:"signed"`
		} `json:"persisted"`
	} `json:"instances"`
}

// serial is the highest that it signed.
func (z *cascadeZone) serial() *uint32 {
	out := higher(z.Previous, z.LastSigned)
	if p := z.Instances.Persisted; p != nil {
		wire, _ := bytesOf(p.Signed.SOA)
		if rr, _, err := dns.UnpackRR(wire, 0); err == nil {
			if soa, ok := rr.(*dns.SOA); ok {
				out = higher(out, &soa.Serial)
			}
		}
	}
	return out
}

// bytesOf is bytes that stand as a list of numbers.
func bytesOf(list []int) (out []byte, ok bool) {
	for _, n := range list {
		if n < 0 || n > 255 {
			return nil, false
		}
		out = append(out, byte(n))
	}
	return out, true
}

// readJSON reads a file of JSON. Errors name the line.
func readJSON(path string, to any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	defer clear(text) // it may hold secrets
	if err := json.Unmarshal(text, to); err != nil {
		if at, ok := errors.AsType[*json.SyntaxError](err); ok {
			line := 1 + strings.Count(string(text[:min(int(at.Offset), len(text))]), "\n")
			return place{path, line}.fault("%w", err)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (c *cascadeReader) read(ctx context.Context) (Former, error) {
	c.out.Software = "Cascade"
	if text, err := runTool(ctx, "cascaded", "--version"); err == nil {
		c.out.Software = "Cascade " + lastWord(text)
	}
	if err := c.tsig(); err != nil {
		return Former{}, err
	}
	names, err := c.names()
	if err != nil {
		return Former{}, err
	}
	wanted, err := wantedNames(c.o.Zones)
	if err != nil {
		return Former{}, err
	}
	for _, name := range names {
		if !wanted.has(name) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return Former{}, err
		}
		one, err := c.zone(ctx, name)
		if err != nil {
			return Former{}, fmt.Errorf("zone %s: %w", name.Fold(), err)
		}
		c.out.Zones = append(c.out.Zones, one)
	}
	if missing := wanted.missing(); missing != "" {
		return Former{}, fmt.Errorf("%s: zone %s is not there", c.path, missing)
	}
	c.out.Policies = c.policies.list
	c.out.Stop = []string{
		"In each policy set auto-start, auto-report, auto-expire and auto-done to false for ksk, zsk, csk and algorithm, and have Cascade read them:",
		"$ cascade policy reload",
		"Cascade goes on signing with the keys that it has.",
	}
	c.out.Back = []string{
		"Where no key was exchanged meanwhile, the key sets in " + c.conf.KeysDir + " still hold: set auto-start and the others to true again, and reload the policies.",
		"Where keys were exchanged here, take the zone out of Cascade, keep its old files elsewhere, and add it with the keys that are written; the serial policy must give a higher serial than the one that is named, so date-counter or unix-time:",
		"$ cascade zone remove ZONE",
		"$ cascade zone add ZONE --source SOURCE --policy POLICY --import-ksk-file K*.private --import-zsk-file K*.private",
	}
	return c.out, nil
}

// names lists the zones.
func (c *cascadeReader) names() ([]zone.Name, error) {
	files, err := filepath.Glob(filepath.Join(c.conf.StateDir, "*.db"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s: no state of a zone is there: run this where Cascade's files are, as a user who may read them", c.conf.StateDir)
	}
	// State stays when a zone is removed: the whole state says which are there.
	var whole struct {
		Zones []string `json:"zones"`
	}
	state := filepath.Join(filepath.Dir(c.conf.StateDir), "state.db")
	known := map[string]bool{}
	switch err := readJSON(state, &whole); {
	case errors.Is(err, fs.ErrNotExist):
		c.out.Unequal = append(c.out.Unequal, fmt.Sprintf("%s is not there: zones that were removed from Cascade may be among these.", state))
	case err != nil:
		return nil, err
	}
	for _, text := range whole.Zones {
		known[strings.ToLower(strings.TrimSuffix(text, "."))] = true
	}
	var list []zone.Name
	for _, file := range files {
		text := strings.TrimSuffix(filepath.Base(file), ".db")
		if text == "" {
			text = "."
		}
		name, err := zone.ParseName(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(known) == 0 || known[strings.TrimSuffix(name.Fold().String(), ".")] {
			list = append(list, name)
		}
	}
	return list, nil
}

// tsig reads the store of TSIG keys.
func (c *cascadeReader) tsig() error {
	var store struct {
		Map map[string]struct {
			Alg string `json:"alg"`
			Raw []int  `json:"data"` // bytes
		} `json:"map"`
	}
	err := readJSON(c.conf.TSIGStore, &store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for name, k := range store.Map {
		secret, ok := bytesOf(k.Raw)
		if !ok {
			return fmt.Errorf("%s: the secret of key %s is not a list of bytes", c.conf.TSIGStore, name)
		}
		c.out.TSIG = append(c.out.TSIG, TSIGKey{strings.TrimSuffix(name, "."), "hmac-" + strings.ToLower(k.Alg), secret})
	}
	slices.SortFunc(c.out.TSIG, func(a, b TSIGKey) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// zone reads one zone.
func (c *cascadeReader) zone(ctx context.Context, name zone.Name) (Zone, error) {
	out := Zone{Name: zoneName(name), Primary: c.primary()}
	bare := strings.TrimSuffix(name.String(), ".")
	var state cascadeZone
	if err := readJSON(filepath.Join(c.conf.StateDir, bare+".db"), &state); err != nil {
		return out, err
	}
	if state.Policy == nil || state.Policy.Name == "" {
		return out, fmt.Errorf("%s: it has no policy", filepath.Join(c.conf.StateDir, bare+".db"))
	}
	if err := c.source(state.Source, &out); err != nil {
		return out, err
	}
	out.Serial = higher(state.serial(), c.serials.ask(ctx, out.Primary, name))
	d, err := c.policy(state.Policy.Name, &out)
	if err != nil {
		return out, err
	}
	if key := keyOfAll(d.lists["server.outbound.provide-xfr-to"]); key != "" {
		out.Primary += caret(key)
	}
	c.policies.give(&out, state.Policy.Name, d)
	if out.Refused == "" {
		p, err := pipeline.Parse("cascade", d.text())
		if err != nil {
			return out, err
		}
		if out.Keys, err = c.keys(name, p.DNSKEYTTL(), &out); err != nil {
			out.Keys, out.Refused = nil, "its keys cannot be read: "+err.Error()
		}
	}
	return out, nil
}

// source settles where the zone comes from.
func (c *cascadeReader) source(text json.RawMessage, out *Zone) error {
	var source struct {
		File *struct {
			Path string `json:"path"`
		} `json:"zonefile"`
		Server *struct {
			Addr string `json:"addr"`
			Key  string `json:"tsig_key"`
		} `json:"server"`
	}
	var word string
	if len(text) == 0 || json.Unmarshal(text, &word) == nil {
		out.Refused = "Cascade has no source for it: give it one there (cascade zone add), or add it here as a new zone"
		return nil
	}
	if err := json.Unmarshal(text, &source); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	switch {
	case source.File != nil && filepath.IsAbs(source.File.Path):
		out.Source = source.File.Path
	case source.File != nil:
		out.Refused = fmt.Sprintf("its source %q is relative to where Cascade was started: give the whole path there first", source.File.Path)
	case source.Server != nil:
		out.Source = source.Server.Addr + caret(source.Server.Key)
	default:
		return fmt.Errorf("source %s is not known", text)
	}
	return nil
}
