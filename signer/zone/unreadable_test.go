package zone

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// secretFiles are files that are no zone files, and words of them that nobody
// must see.
func secretFiles() map[string][]string {
	return map[string][]string{
		"BIND's private key": {
			"Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: c2VjcmV0LXNlY3JldA==\nCreated: 20261122000000\nPublish: 20261122000000\n",
			"v1.3", "ECDSAP256SHA256", "c2VjcmV0LXNlY3JldA", "20261122", "Private",
		},
		"shadow":              {"root:$6$salt$hashhash:20000:0:99999:7:::\ndaemon:*:20000:0:99999:7:::\n", "root", "hashhash", "daemon"},
		"PEM":                 {"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMG\nByqGSM49AgEG\n-----END PRIVATE KEY-----\n", "BEGIN", "MIGH", "Byq", "PRIVATE"},
		"names of types":      {"secret1 A secret2\nsecret3 MX secret4 x\nsecret5 IN TXT\nsecret6 CH TXT secret7\nsecret8 SVCB 1 . secret9=1\nsecret10.org. A 192.0.2.1\n", "secret"},
		"numbers and times":   {"a 5secret A 192.0.2.1\nb 60 RRSIG A 13 2 60 secret secret 1 x. AA==\nc 60 DS 1 13 2 secret\nd 60 LOC secret\ne 60 CAA 0 secret-1 x\n", "secret"},
		"directives":          {"$SECRET\n$TTL secret\n$ORIGIN secret..x\n$INCLUDE secret\n$GENERATE secret-1 a A b\n$GENERATE 1-2 secret A secret$\n", "secret", "SECRET"},
		"quotes and brackets": {"a \"secret\nb secret )\nc (secret\n", "secret"},
		"control characters":  {"a secret\x01secret\nb secret\x02\n", "secret"},
		"NUL":                 {"secret\x00secret\n", "secret"},
	}
}

func TestLoad_NothingIsToldOfAFileThatIsNoZoneFile(t *testing.T) {
	for fact, file := range secretFiles() {
		t.Run(fact, func(t *testing.T) {
			_, _, err := loadText(t, file[0], nil)
			saysNothing(t, err, file[1:])
			// Nor where a zone file includes it.
			_, _, err = loadFS(t, fstest.MapFS{"zone": {Data: []byte(head + "$INCLUDE inc\nbad A x\n")}, "inc": {Data: []byte(file[0])}}, nil)
			saysNothing(t, err, file[1:])
			if !strings.Contains(strings.Join(errorLines(err), "\n"), "bad A x") {
				t.Errorf("the zone file's own error is not told: %q", errorLines(err))
			}
		})
	}
}

func errorLines(err error) (out []string) {
	le, ok := errors.AsType[*LoadError](err)
	if !ok {
		return nil
	}
	for _, e := range le.Errors {
		out = append(out, e.Error())
	}
	return out
}

// saysNothing checks that an error names lines and holds none of the words,
// however it is printed.
func saysNothing(t *testing.T, err error, words []string) {
	t.Helper()
	lines := errorLines(err)
	if len(lines) == 0 || !strings.Contains(lines[0], ":1: cannot be read as a record") {
		t.Errorf("errors are %q (%v)", lines, err)
	}
	all := fmt.Sprintf("%v %+v %q", err, err, lines)
	for _, word := range words {
		if strings.Contains(all, word) {
			t.Errorf("%q is told: %s", word, all)
		}
	}
}

func TestLoad_OneGoodRecordShowsTheOthers(t *testing.T) {
	_, _, err := loadText(t, "a 60 A 192.0.2.1\nb 60 A here\n", nil)
	if diff := cmp.Diff([]string{`zone:2: A: bad address "here": b 60 A here`}, errorLines(err)); diff != "" {
		t.Error(diff)
	}
	// A record of a file that is included is one of the file that includes it.
	_, _, err = loadFS(t, fstest.MapFS{"zone": {Data: []byte("$INCLUDE inc\nb 60 A here\n")}, "inc": {Data: []byte(head)}}, nil)
	if diff := cmp.Diff([]string{`zone:2: A: bad address "here": b 60 A here`}, errorLines(err)); diff != "" {
		t.Error(diff)
	}
}
