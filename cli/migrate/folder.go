package migrate

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/miekg/dns"

	"sluice/cli/fleet"
	"sluice/keymgr/file"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// rdataOf is the RDATA of a DNSKEY record.
func rdataOf(k *dns.DNSKEY) ([]byte, error) {
	public, err := base64.StdEncoding.DecodeString(k.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return append([]byte{byte(k.Flags >> 8), byte(k.Flags), k.Protocol, k.Algorithm}, public...), nil
}

// baseName is the name of a key's files without their suffix.
func baseName(apex zone.Name, algorithm uint8, tag uint16) string {
	return file.FileName(apex, algorithm, tag)
}

// Write makes a plan of what was read, and writes its folder: for the owner
// alone, and where the superuser writes it, for the owner of the folder that it
// stands in. Where a plan of the same source is there, it is replaced; policies,
// sources and serials that a person changed in it stay. Errors: pipeline.ErrState
// where another plan is there.
func Write(dir, kind, source string, f Former, o Options) (Plan, error) {
	p, keys, err := plan(kind, source, f, o)
	if err != nil {
		return p, err
	}
	flt := p.fleet(f)
	if err := p.replace(dir, &flt); err != nil {
		return p, err
	}
	if err := os.MkdirAll(filepath.Join(dir, keyFolder), 0o700); err != nil {
		return p, err
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return p, err
	}
	for i, k := range f.TSIG {
		if err := writeSecret(filepath.Join(dir, p.TSIG[i].File), []byte(base64.StdEncoding.EncodeToString(k.Secret)+"\n")); err != nil {
			return p, err
		}
	}
	for i, k := range f.Keystores {
		if len(k.PIN) > 0 {
			if err := writeSecret(filepath.Join(dir, p.Keystores[i].PINFile), append(slices.Clip(k.PIN), '\n')); err != nil {
				return p, err
			}
		}
	}
	for i, z := range p.Zones {
		if z.Refused != "" {
			continue
		}
		for _, k := range keys[i] {
			if err := k.write(dir, z.Zone); err != nil {
				return p, fmt.Errorf("zone %s: %w", z.Zone, err)
			}
		}
	}
	if err := flt.Write(dir); err != nil {
		return p, err
	}
	if err := writeSecret(filepath.Join(dir, planFile), []byte(p.Markdown(dir))); err != nil {
		return p, err
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return p, err
	}
	if err := writeSecret(filepath.Join(dir, noteFile), append(text, '\n')); err != nil {
		return p, err
	}
	return p, giveAway(dir)
}

// replace takes the plan of the same source away that is in a folder, and keeps
// what a person changed in it.
func (p *Plan) replace(dir string, flt *fleet.Fleet) error {
	before, err := Load(dir)
	switch {
	case errors.Is(err, pipeline.ErrNotFound):
		return isEmpty(dir)
	case err != nil:
		return err
	case !slices.Equal(before.Only, p.Only):
		return fmt.Errorf("%s holds a plan of other zones (%s): give another folder, -o DIR, or the same --zone: %w", dir, cmp.Or(strings.Join(before.Only, ", "), "all"), pipeline.ErrState)
	case before.Kind != p.Kind || before.Source != p.Source:
		return fmt.Errorf("%s holds the plan of %s %s: give another folder, -o DIR: %w", dir, before.Kind, before.Source, pipeline.ErrState)
	}
	has, err := fleet.Read(dir)
	if err != nil {
		return err
	}
	p.keepRules(before, has, flt)
	for name, text := range has.Policies {
		path := filepath.Join("policies", name+".toml")
		if _, new := flt.Policies[name]; new && digest(text) != before.Written[name] {
			flt.Policies[name] = text
			p.Kept = append(p.Kept, path+" stays as it was changed")
		}
		if _, ours := before.Written[name]; !ours {
			if _, new := flt.Policies[name]; new {
				return fmt.Errorf("%s was not written by a plan, and one of that name is to be written: move it away: %w", path, pipeline.ErrState)
			}
			continue
		}
		if err := os.Remove(filepath.Join(dir, path)); err != nil {
			return err
		}
	}
	p.keepZones(before, has, flt)
	return errors.Join(remove(filepath.Join(dir, "zones.toml")), p.removeKeys(dir, before))
}

// isEmpty refuses a folder that holds something else: it is not closed to
// others, nor given away.
func isEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("%s is there, and holds no plan: give a new folder, -o DIR: %w", dir, pipeline.ErrState)
	}
	return err
}

// keepRules keeps the policies of zones whose key management was ended there
// since the plan before: they are what the zones are to have here.
func (p *Plan) keepRules(before Plan, has fleet.Fleet, flt *fleet.Fleet) {
	was, rules := before.byName(), map[string]string{}
	left := false
	for i := range p.Zones {
		z := &p.Zones[i]
		if z.Policy != byHand || z.Refused != "" {
			continue
		}
		name := was[z.Zone].Policy
		if name == byHand || has.Policies[name] == nil || before.Written[name] == "" {
			left = true
			continue
		}
		z.Policy, rules[z.Zone] = name, name
		if flt.Policies[name] == nil {
			flt.Policies[name], p.Written[name] = has.Policies[name], before.Written[name]
			for _, policy := range before.Policies {
				if policy.Name == name {
					p.Policies = append(p.Policies, policy)
				}
			}
		}
	}
	if len(rules) == 0 {
		return
	}
	for i := range flt.Zones {
		if name, ok := rules[flt.Zones[i].Name]; ok {
			flt.Zones[i].Policy = name
		}
	}
	p.Kept = append(p.Kept, fmt.Sprintf("%d zones have no policy there any longer: they keep the one that the plan before read", len(rules)))
	if !left {
		delete(flt.Policies, byHand)
		delete(p.Written, byHand)
		p.Policies = slices.DeleteFunc(p.Policies, func(o PlannedPolicy) bool { return o.Name == byHand })
	}
}

// byName is a plan's zones by their names.
func (p Plan) byName() map[string]PlannedZone {
	out := make(map[string]PlannedZone, len(p.Zones))
	for _, z := range p.Zones {
		out[z.Zone] = z
	}
	return out
}

// keepZones keeps what a person changed of zones.
func (p *Plan) keepZones(before Plan, has fleet.Fleet, flt *fleet.Fleet) {
	was, old := before.byName(), map[string]fleet.Zone{}
	for _, z := range has.Zones {
		old[z.Name] = z
	}
	for i := range flt.Zones {
		z := &flt.Zones[i]
		planned, ok := was[z.Name]
		mine, there := old[z.Name]
		if !ok || !there {
			continue
		}
		if mine.Source != planned.Source && mine.Source != z.Source {
			p.Kept = append(p.Kept, fmt.Sprintf("zone %s stays with the source %s", z.Name, mine.Source))
			z.Source = mine.Source
		}
		if mine.Policy != planned.Policy && mine.Policy != z.Policy {
			p.Kept = append(p.Kept, fmt.Sprintf("zone %s stays with the policy %s", z.Name, mine.Policy))
			z.Policy = mine.Policy
		}
	}
}

// removeKeys removes the files of an earlier plan's keys.
func (p *Plan) removeKeys(dir string, before Plan) error {
	var errs []error
	for _, k := range before.TSIG {
		errs = append(errs, remove(filepath.Join(dir, keyFolder, filepath.Base(k.File))))
	}
	for _, k := range before.Keystores {
		if filepath.Dir(k.PINFile) == keyFolder { // not where the former signer has it
			errs = append(errs, remove(filepath.Join(dir, k.PINFile)))
		}
	}
	for _, z := range before.Zones {
		for _, k := range z.Keys {
			base := strings.TrimSuffix(filepath.Base(k.File), filepath.Ext(k.File))
			for _, suffix := range []string{".private", ".key", ".state"} {
				errs = append(errs, remove(filepath.Join(dir, keyFolder, base+suffix)))
			}
		}
	}
	return errors.Join(errs...)
}

// remove removes a file that may be there.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// write writes the files of a key.
func (k plannedKey) write(dir, name string) error {
	base := filepath.Join(dir, strings.TrimSuffix(k.File, filepath.Ext(k.File)))
	if len(k.former.Private) > 0 {
		if err := writeSecret(base+".private", k.former.Private); err != nil {
			return err
		}
	}
	if err := writeSecret(base+".key", []byte(k.record)); err != nil {
		return err
	}
	if k.former.Life == nil || k.former.Life.DNSKEY == nil {
		return nil
	}
	apex, err := zone.ParseName(name)
	if err != nil {
		return err
	}
	text, err := file.StateText(apex, k.key)
	if err != nil {
		return err
	}
	return writeSecret(base+".state", text)
}

// writeSecret writes a file for its owner alone: it is there in full or as it
// was before.
func writeSecret(path string, text []byte) error {
	out, err := os.CreateTemp(filepath.Dir(path), ".new-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(out.Name()) //nolint:errcheck // gone already once it was renamed
	if _, err = out.Write(text); err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(out.Name(), path)
}

// giveAway gives what the superuser wrote to the owner of the folder around it,
// who is likely whom the daemon runs as.
func giveAway(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	full, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Dir(full))
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || owner.Uid == 0 {
		return nil
	}
	root, err := os.OpenRoot(full)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // opened for reading
	var paths []string
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	})
	if err != nil {
		return err
	}
	// Folders come after what is in them: nobody else can put anything in its
	// place meanwhile.
	for _, path := range slices.Backward(paths) {
		if err := root.Lchown(path, int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
	}
	return nil
}
