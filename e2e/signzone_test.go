package e2e

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"sluice/e2e/zonegen"
)

var (
	algorithms = []int{8, 10, 13, 14, 15, 16}
	denials    = []string{"nsec", "nsec3", "nsec3-opt-out"}
)

// validators are the tools of the field that judge a signed zone file; each
// returns the tool's exit code and what it said.
var validators = []struct {
	name  string
	judge func(t *testing.T, zone, file string) result
}{
	{"dnssec-verify", func(t *testing.T, zone, file string) result {
		return run(t, "dnssec-verify", "-q", "-o", zone, file)
	}},
	{"ldns-verify-zone", func(t *testing.T, _, file string) result {
		return run(t, "ldns-verify-zone", "-V", "1", file)
	}},
	{"kzonecheck", func(t *testing.T, zone, file string) result {
		return run(t, "kzonecheck", "-v", "-d", "on", "-o", zone, file)
	}},
}

// acceptedByAll fails the test for each validator that finds a fault.
func acceptedByAll(t *testing.T, zone, file string) {
	t.Helper()
	for _, v := range validators {
		if r := v.judge(t, zone, file); r.code != 0 {
			t.Errorf("%s: %v", v.name, r)
		}
	}
}

// makeKeys has BIND make a KSK and a ZSK and returns their private files.
func makeKeys(t *testing.T, zone string, algorithm int) []string {
	t.Helper()
	dir := t.TempDir()
	var files []string
	for _, role := range [][]string{{"-f", "KSK"}, nil} {
		args := append([]string{"-q", "-K", dir, "-a", strconv.Itoa(algorithm)}, role...)
		if algorithm < 13 {
			args = append(args, "-b", "2048")
		}
		name := strings.TrimSpace(must(t, "dnssec-keygen", append(args, zone)...))
		files = append(files, filepath.Join(dir, name+".private"))
	}
	return files
}

// signZone signs a file and returns the signed one.
func signZone(t *testing.T, zone, file string, keys []string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "signed.zone")
	args := append([]string{"signzone"}, flags...)
	for _, key := range keys {
		args = append(args, "--key", key)
	}
	must(t, program(t), append(args, "-o", out, zone, file)...)
	return out
}

func testdata(name string) string { return filepath.Join("testdata", name) }

func TestSignzone_EveryAlgorithmAndDenialSatisfiesThePeers(t *testing.T) {
	need(t, "dnssec-keygen", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	for _, algorithm := range algorithms {
		for _, denial := range denials {
			t.Run(fmt.Sprintf("%d %s", algorithm, denial), func(t *testing.T) {
				keys := makeKeys(t, "example.com", algorithm)
				signed := signZone(t, "example.com", testdata("example.com.zone"), keys, "--denial", denial)
				acceptedByAll(t, "example.com", signed)
				must(t, program(t), "verify", "example.com", signed)
			})
		}
	}
}

func TestSignzone_OneKeyDoesForBothRoles(t *testing.T) {
	need(t, "dnssec-keygen", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	ksk := makeKeys(t, "example.com", 13)[:1]
	signed := signZone(t, "example.com", testdata("example.com.zone"), ksk)
	if r := run(t, "dnssec-verify", "-q", "-z", "-o", "example.com", signed); r.code != 0 {
		t.Errorf("dnssec-verify: %v", r)
	}
	for _, v := range validators[1:] {
		if r := v.judge(t, "example.com", signed); r.code != 0 {
			t.Errorf("%s: %v", v.name, r)
		}
	}
}

func TestSignzone_RareTypesAndOccludedNamesAreSigned(t *testing.T) {
	need(t, "dnssec-keygen", "dnssec-verify")
	keys := makeKeys(t, "odd.example", 13)
	for _, denial := range denials {
		signed := signZone(t, "odd.example", testdata("odd.zone"), keys, "--denial", denial)
		if r := run(t, "dnssec-verify", "-q", "-o", "odd.example", signed); r.code != 0 {
			t.Errorf("%s: dnssec-verify: %v", denial, r)
		}
		must(t, program(t), "verify", "odd.example", signed)
	}
}

func TestSignzone_ZONEMDIsRight(t *testing.T) {
	need(t, "dnssec-keygen", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	keys := makeKeys(t, "example.com", 13)
	for _, denial := range denials {
		signed := signZone(t, "example.com", testdata("example.com.zone"), keys, "--denial", denial, "--zonemd")
		if !regexp.MustCompile(`(?m)^example\.com\.\s.*\sZONEMD\s`).MatchString(readFile(t, signed)) {
			t.Errorf("%s: no ZONEMD at the apex", denial)
		}
		// -ZZ wants a ZONEMD to be there and right.
		if r := run(t, "ldns-verify-zone", "-V", "1", "-ZZ", signed); r.code != 0 {
			t.Errorf("%s: ldns-verify-zone -ZZ: %v", denial, r)
		}
		acceptedByAll(t, "example.com", signed)
	}
}

func TestSignzone_GeneratedZonesSatisfyThePeers(t *testing.T) {
	need(t, "dnssec-keygen", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	for _, kind := range []zonegen.Kind{zonegen.TLD, zonegen.Hosting} {
		c := zonegen.Config{Kind: kind, Names: 3000}
		file := writeZone(t, c)
		keys := makeKeys(t, c.Apex(), 13)
		for _, denial := range denials {
			signed := signZone(t, c.Apex(), file, keys, "--denial", denial)
			acceptedByAll(t, c.Apex(), signed)
		}
	}
}

// writeZone writes a generated zone into a folder of its own.
func writeZone(t *testing.T, c zonegen.Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := zonegen.Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return writeFile(t, filepath.Join(t.TempDir(), "zone"), b.String())
}

// damages are faults that a validator must see; they show that the runs above
// can fail. What BIND and ldns are known to overlook is left to Knot and to us.
var damages = []struct {
	name string
	edit func(zone string) string
	seen []string
}{
	{"an address changed after signing", func(zone string) string {
		return strings.Replace(zone, "192.0.2.80", "192.0.2.81", 1)
	}, []string{"dnssec-verify", "ldns-verify-zone", "kzonecheck", "sluice"}},
	{
		"a denial record left out", dropLine(`^text\.example\.com\.\s.*\sNSEC\s`),
		[]string{"dnssec-verify", "ldns-verify-zone", "kzonecheck", "sluice"},
	},
	{
		"a signature left out", dropLine(`^text\.example\.com\.\s.*\sRRSIG\s+TXT\s`),
		[]string{"dnssec-verify", "ldns-verify-zone", "kzonecheck", "sluice"},
	},
	{"a signature over glue", func(zone string) string {
		sig := regexp.MustCompile(`(?m)^mail\.example\.com\.(\s.*\sRRSIG\s+A\s.*\n)`).FindStringSubmatch(strings.ReplaceAll(zone, "MAIL.example", "mail.example"))
		return zone + "ns.insecure.example.com." + sig[1]
	}, []string{"kzonecheck", "sluice"}},
}

func dropLine(pattern string) func(string) string {
	line := regexp.MustCompile(`(?m)` + pattern + `.*\n`)
	return func(zone string) string { return line.ReplaceAllString(zone, "") }
}

func TestVerify_DamageIsFoundByUsAndThePeers(t *testing.T) {
	need(t, "dnssec-keygen", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	keys := makeKeys(t, "example.com", 13)
	zone := readFile(t, signZone(t, "example.com", testdata("example.com.zone"), keys, "--denial", "nsec"))
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			damaged := d.edit(zone)
			if damaged == zone {
				t.Fatal("the edit changed nothing")
			}
			file := writeFile(t, filepath.Join(t.TempDir(), "damaged.zone"), damaged)
			codes := map[string]int{"sluice": run(t, program(t), "verify", "example.com", file).code}
			for _, v := range validators {
				codes[v.name] = v.judge(t, "example.com", file).code
			}
			for _, name := range d.seen {
				if codes[name] == 0 {
					t.Errorf("%s overlooks it", name)
				}
			}
			if codes["sluice"] != 1 {
				t.Errorf("sluice verify ends with %d, want 1", codes["sluice"])
			}
		})
	}
}
