package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"sluice/pipeline"
	"sluice/signer/zone"
)

// Bounds of what is read.
const (
	maxZonesFile  = 64 << 20 // in bytes: some 500,000 zones
	maxPolicyFile = 1 << 20  // in bytes; a policy may have fewer, which Check says
)

// Read reads a folder: its files, names, and that no zone stands twice. Check
// says whether it makes sense. Errors name the file and the line, a line each.
func Read(dir string) (Fleet, error) {
	f := Fleet{Policies: map[string][]byte{}, Dir: dir}
	sum := sha256.New()
	policies, err := tomlFiles(filepath.Join(dir, "policies"))
	if err != nil {
		return f, err
	}
	for _, path := range policies {
		text, err := readFile(path, maxPolicyFile)
		if err != nil {
			return f, err
		}
		f.Policies[strings.TrimSuffix(filepath.Base(path), ".toml")] = text
		digest(sum, dir, path, text)
	}
	files, err := tomlFiles(filepath.Join(dir, "zones"))
	if err != nil {
		return f, err
	}
	var faults []error
	for _, path := range append([]string{filepath.Join(dir, "zones.toml")}, files...) {
		text, err := readFile(path, maxZonesFile)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return f, err
		}
		digest(sum, dir, path, text)
		zones, err := parseZones(path, text)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		f.Zones = append(f.Zones, zones...)
	}
	faults = append(faults, twice(f.Zones)...)
	slices.SortStableFunc(f.Zones, func(a, b Zone) int { return strings.Compare(a.Name, b.Name) })
	f.Digest = hex.EncodeToString(sum.Sum(nil))
	return f, errors.Join(faults...)
}

// tomlFiles lists the *.toml of a folder, which need not be there. Another file
// is an error, so that a misspelt name is not passed over; hidden ones and *.md
// are left alone.
func tomlFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case strings.HasPrefix(name, "."), strings.HasSuffix(name, ".md"):
		case entry.IsDir(), !strings.HasSuffix(name, ".toml"):
			return nil, fmt.Errorf("%s: only files NAME.toml belong here", filepath.Join(dir, name))
		default:
			out = append(out, filepath.Join(dir, name))
		}
	}
	return out, nil
}

func readFile(path string, most int64) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	if err == nil && int64(len(text)) > most {
		err = fmt.Errorf("%s: larger than %d bytes", path, most)
	}
	return text, err
}

// digest adds a file to the digest of the folder.
func digest(sum hash.Hash, dir, path string, text []byte) {
	rel, err := filepath.Rel(dir, path)
	if err != nil {
		rel = path
	}
	fmt.Fprintf(sum, "%q %d\n", rel, len(text))
	sum.Write(text)
}

// parseZones reads a file of zones.
func parseZones(path string, text []byte) ([]Zone, error) {
	z, err := decodeZones(text)
	if err != nil {
		return nil, decodeFault(path, text, err)
	}
	if z.Version != Version {
		return nil, fmt.Errorf("%s: version %q: want version = %q", path, z.Version, Version)
	}
	lines := zoneLines(text)
	var faults []error
	for i := range z.Zones {
		one := &z.Zones[i]
		one.File = path
		if len(lines) == len(z.Zones) {
			one.Line = lines[i]
		}
		if _, err := zone.ParseName(one.Name); err != nil {
			faults = append(faults, one.fault("zone %v", err))
		}
	}
	return z.Zones, errors.Join(faults...)
}

func decodeZones(text []byte) (z zonesFile, err error) {
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&z)
	return z, err
}

// fault is an error that says where the zone was read.
func (z Zone) fault(format string, args ...any) error {
	where := z.File
	if z.Line > 0 {
		where += ", line " + strconv.Itoa(z.Line)
	}
	return fmt.Errorf("%s: %w", where, fmt.Errorf(format, args...))
}

// zoneLines are the lines on which the tables [[zone]] begin.
func zoneLines(text []byte) []int {
	var out []int
	n := 0
	for line := range bytes.Lines(text) {
		n++
		head, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("[["))
		name, _, end := bytes.Cut(head, []byte("]]"))
		if ok && end && string(bytes.Trim(name, " \t\"'")) == "zone" {
			out = append(out, n)
		}
	}
	return out
}

// decodeFault gives the decoder's errors the file and the line.
func decodeFault(path string, text []byte, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var all []error
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, _ := e.Position()
			all = append(all, fmt.Errorf("%s, line %d: unknown key %s", path, row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := decode.Position()
		return fmt.Errorf("%s, line %d: %s", path, row, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	// The decoder names Go types here and no line.
	const fault = "a value of the wrong type: texts stand in quotes, public is true or false, [[zone]] and [[zone.key]] are tables"
	if line := wrongZone(text); line > 0 {
		return fmt.Errorf("%s, line %d: the zone that begins here has %s", path, line, fault)
	}
	return fmt.Errorf("%s: %s", path, fault)
}

// wrongZone is the line on which the first [[zone]] begins that cannot be
// decoded; 0 where it cannot be told.
func wrongZone(text []byte) int {
	lines := zoneLines(text)
	ends := make([]int, 0, len(lines)) // of the text up to the zone behind each
	at, n := 0, 0
	for line := range bytes.Lines(text) {
		if n++; len(ends) < len(lines)-1 && n == lines[len(ends)+1] {
			ends = append(ends, at)
		}
		at += len(line)
	}
	if len(lines) == 0 {
		return 0
	}
	ends = append(ends, len(text))
	i := sort.Search(len(ends)-1, func(i int) bool {
		_, err := decodeZones(text[:ends[i]])
		return err != nil
	})
	return lines[i]
}

// twice finds zones that stand more than once.
func twice(zones []Zone) []error {
	var faults []error
	seen := make(map[string]Zone, len(zones))
	for _, z := range zones {
		name := canonical(z.Name)
		if first, ok := seen[name]; ok {
			where := first.File
			if first.Line > 0 {
				where += ", line " + strconv.Itoa(first.Line)
			}
			faults = append(faults, z.fault("zone %s stands in %s already", z.Name, where))
			continue
		}
		seen[name] = z
	}
	return faults
}

// canonical is a zone's name as the daemon writes it: in lower case, with the
// final dot. What is no name stays as it is.
func canonical(name string) string {
	n, err := zone.ParseName(name)
	if err != nil {
		return name
	}
	return n.Fold().String()
}

// Check says whether what the folder says makes sense, as far as that can be
// told without the daemon: policies have no fault, and each zone a source and
// usable keys. remote says that the daemon runs on another machine, where no
// path below the folder leads anywhere.
func (f Fleet) Check(remote bool) error {
	if len(f.Policies) == 0 && len(f.Zones) == 0 {
		return fmt.Errorf("%s: it has no zones.toml, zones/*.toml or policies/*.toml, and would be a fleet of nothing", f.Dir)
	}
	var faults []error
	for name, text := range f.Policies {
		err := pipeline.CheckPolicyName(name)
		if err == nil {
			_, err = pipeline.Parse(name, text)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", filepath.Join(f.Dir, "policies", name+".toml"), err))
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	for _, z := range f.Zones {
		faults = append(faults, z.check(f.Dir, remote)...)
	}
	return errors.Join(faults...)
}

// check lists what is wrong with a zone.
func (z Zone) check(dir string, remote bool) []error {
	var faults []error
	if _, err := z.source(dir, remote); err != nil {
		faults = append(faults, z.fault("zone %s: %w", z.Name, err))
	}
	if z.Policy != "" {
		if err := pipeline.CheckPolicyName(z.Policy); err != nil {
			faults = append(faults, z.fault("zone %s: %w", z.Name, err))
		}
	}
	if text := z.SerialFloor; text != "" && text != "auto" {
		if _, err := strconv.ParseUint(text, 10, 32); err != nil {
			faults = append(faults, z.fault("zone %s: serial-floor %q: want a serial, 0 to 4294967295, or auto", z.Name, text))
		}
	}
	for _, k := range z.Keys {
		if err := k.check(remote); err != nil {
			faults = append(faults, z.fault("zone %s: key %s: %w", z.Name, k.File, err))
		}
	}
	return faults
}

func (k Key) check(remote bool) error {
	switch _, err := hex.DecodeString(k.ID); {
	case k.File == "":
		return errors.New("its file is missing")
	case remote && !filepath.IsAbs(k.File):
		return errors.New("the daemon runs on another machine: give the file's path there, from / on")
	case k.Public && k.Role != "":
		return errors.New("a key of another signer (public = true) has no role here")
	case !k.Public && k.Role != "ksk" && k.Role != "zsk" && k.Role != "csk":
		return fmt.Errorf("role %q: want ksk, zsk or csk", k.Role)
	case (k.Keystore == "") != (k.ID == ""):
		return errors.New("keystore and id belong together: the keystore's name, and CKA_ID in hex")
	case k.Public && k.Keystore != "":
		return errors.New("a key of another signer (public = true) is in no keystore here")
	case err != nil:
		return fmt.Errorf("id %q: want CKA_ID in hex", k.ID)
	}
	return nil
}

// source is the zone's source as the daemon writes it.
func (z Zone) source(dir string, remote bool) (string, error) {
	text := z.Source
	switch {
	case text == "":
		return "", errors.New("it has no source")
	case pipeline.IsTransfer(text), filepath.IsAbs(text):
	case remote:
		return "", fmt.Errorf("source %q: the daemon runs on another machine: give the file's path there, from / on", text)
	default:
		path := filepath.Join(dir, text)
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("source %q is neither a file of the folder nor a server: a server is IP[:PORT][^TSIGKEY]", text)
		}
		text = path
	}
	return pipeline.CanonicalSource(text)
}

// below is a path of the folder, in full.
func below(dir, path string) (string, error) {
	if filepath.IsAbs(path) {
		return path, nil
	}
	return filepath.Abs(filepath.Join(dir, path))
}
