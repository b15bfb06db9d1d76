package file

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/keymgr"
)

// lifeFolder has the keys of a zone that named signs by dnssec-policy, in the
// middle of a rollover of its ZSK.
const lifeFolder = "testdata/life"

func at(t *testing.T, text string) int64 {
	t.Helper()
	when, err := time.Parse(stamp, text)
	if err != nil {
		t.Fatal(err)
	}
	return when.Unix()
}

func TestLook_ReadsWhatNamedNoted(t *testing.T) {
	spread := func(state, since string) *event.Spread {
		return &event.Spread{State: state, Since: at(t, since)}
	}
	for file, want := range map[string]*event.KeyLife{
		"Kexample.com.+013+35174": { // the ZSK that leaves
			TTL: 3600, Created: at(t, "20261122092017"), Published: at(t, "20261122092017"), Activated: at(t, "20261122092017"),
			Retired: at(t, "20261122092052"), Removed: at(t, "20261122212059"), Successor: 15720, Goal: "hidden",
			DNSKEY: spread("omnipresent", "20261122092024"), ZoneSigs: spread("unretentive", "20261122092052"),
		},
		"Kexample.com.+013+49080": {
			TTL: 3600, Created: at(t, "20261122092017"), Published: at(t, "20261122092017"), Activated: at(t, "20261122092017"),
			DSPublished: at(t, "20261122092046"), CDS: at(t, "20261122092024"), Goal: "omnipresent",
			DNSKEY: spread("omnipresent", "20261122092024"), KeySigs: spread("omnipresent", "20261122092024"),
			DS: spread("omnipresent", "20261122092053"),
		},
	} {
		s := newStore(t)
		key, err := s.Look(t.Context(), filepath.Join(lifeFolder, file+".private"), "example.com", "")
		if err != nil {
			t.Fatal(err)
		}
		want.TTL = key.Life.TTL
		if key.Life.TTL == 0 {
			t.Errorf("%s: no TTL", file)
		}
		if diff := cmp.Diff(want, key.Life); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
		if entries, err := os.ReadDir(s.dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: looking at it kept %v, %v", file, entries, err)
		}
	}
}

// copyLife copies a key pair with its notes, changed by edit.
func copyLife(t *testing.T, base string, edit func(suffix, text string) string) string {
	t.Helper()
	dir := t.TempDir()
	for _, suffix := range []string{".private", ".key", ".state"} {
		text, err := os.ReadFile(filepath.Join(lifeFolder, base+suffix))
		if err != nil {
			t.Fatal(err)
		}
		if after := edit(suffix, string(text)); after != "" {
			if err := os.WriteFile(filepath.Join(dir, base+suffix), []byte(after), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return filepath.Join(dir, base+".private")
}

func TestLook_NotesOfTheFormerSigner(t *testing.T) {
	const base = "Kexample.com.+013+35174"
	for name, row := range map[string]struct {
		edit func(suffix, text string) string
		fail string
		note string
	}{
		"no state file": {edit: func(suffix, text string) string {
			if suffix == ".state" {
				return ""
			}
			return text
		}, note: "no .state file"},
		"times differ": {edit: func(suffix, text string) string {
			if suffix == ".private" {
				return strings.Replace(text, "Inactive: 20261122092052", "Inactive: 20271122092052", 1)
			}
			return text
		}, note: "Inactive is 2027-11-22T09:20:52Z in the .private file, and Retired 2026-11-22T09:20:52Z in the .state file: the latter counts"},
		"never used": {edit: func(suffix, text string) string {
			if suffix == ".state" {
				return strings.Split(text, "DNSKEYChange")[0]
			}
			return text
		}, note: "no DNSKEYState"},
		"another key's state": {edit: func(suffix, text string) string {
			if suffix == ".state" {
				return strings.Replace(text, "Algorithm: 13", "Algorithm: 8", 1)
			}
			return text
		}, fail: "it belongs to another key"},
		"unknown state": {edit: func(suffix, text string) string {
			return strings.Replace(text, "ZRRSIGState: unretentive", "ZRRSIGState: lost", 1)
		}, fail: "ZRRSIGState \"lost\""},
		"no time": {edit: func(suffix, text string) string {
			return strings.Replace(text, "Delete: 2026", "Delete: x", 1)
		}, fail: "field Delete"},
		"no number": {edit: func(suffix, text string) string {
			return strings.ReplaceAll(text, "Successor: 15720", "Successor: 70000")
		}, fail: "field Successor"},
		"binary state": {edit: func(suffix, text string) string {
			if suffix == ".state" {
				return "\x00\x01"
			}
			return text
		}, fail: "not a BIND state file"},
	} {
		t.Run(name, func(t *testing.T) {
			key, err := newStore(t).Look(t.Context(), copyLife(t, base, row.edit), "example.com", "")
			if row.fail != "" {
				if err == nil || !strings.Contains(err.Error(), row.fail) {
					t.Fatalf("error %v, want %q in it", err, row.fail)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(key.Life.Notes, "; "); !strings.Contains(notes, row.note) {
				t.Errorf("notes %q, want %q in them", notes, row.note)
			}
		})
	}
}

func TestLook_KeyThatSignedAllIsACSK(t *testing.T) {
	path := copyLife(t, "Kexample.com.+013+49080", func(_, text string) string {
		return strings.Replace(text, "ZSK: no", "ZSK: yes", 1)
	})
	key, err := newStore(t).Look(t.Context(), path, "example.com", "")
	if err != nil || key.Role != string(keymgr.CSK) {
		t.Errorf("role %q, %v", key.Role, err)
	}
}

func TestExport_ImportsAgainAsItWas(t *testing.T) {
	paths, err := filepath.Glob("testdata/*/K*.private")
	if err != nil || len(paths) < 9 {
		t.Fatalf("keys %v, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			s := newStore(t)
			key, err := s.Import(t.Context(), path, "example.com", "")
			if err != nil {
				t.Fatal(err)
			}
			files, err := s.Export(t.Context(), "example.com.", key)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			for suffix, text := range map[string][]byte{".private": files.Private, ".key": files.Public, ".state": files.State} {
				if err := os.WriteFile(filepath.Join(dir, files.Name+suffix), text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if files.Name != strings.TrimSuffix(filepath.Base(path), ".private") {
				t.Errorf("name %q", files.Name)
			}
			other := newStore(t)
			again, err := other.Import(t.Context(), filepath.Join(dir, files.Name+".private"), "example.com", keymgr.Role(key.Role))
			if err != nil {
				t.Fatalf("%v\n%s", err, files.State)
			}
			// That there was no state file is what was noted of the first.
			key.Life.Notes, again.Life.Notes = nil, nil
			if diff := cmp.Diff(key, again); diff != "" {
				t.Errorf("(-before +after):\n%s", diff)
			}
			first, err := os.ReadFile(filepath.Join(s.dir, key.Reference))
			if err != nil {
				t.Fatal(err)
			}
			second, err := os.ReadFile(filepath.Join(other.dir, again.Reference))
			if err != nil || string(first) != string(second) {
				t.Errorf("another private key, %v", err)
			}
		})
	}
}

func TestExport_KeyThatIsGoneIsErrNoKey(t *testing.T) {
	s := newStore(t)
	key, err := s.Import(t.Context(), filepath.Join(lifeFolder, "Kexample.com.+013+49080.private"), "example.com", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), key.Reference); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Export(t.Context(), "example.com.", key); !errors.Is(err, keymgr.ErrNoKey) {
		t.Errorf("error %v", err)
	}
}

func FuzzParseState(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(lifeFolder, "*.state"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no state files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := &event.KeyLife{}
		if _, err := parseState(text, bindKey{"algorithm": "13 (ECDSAP256SHA256)"}, l); err != nil {
			return
		}
		for _, role := range []keymgr.Role{keymgr.KSK, keymgr.ZSK, keymgr.CSK} {
			switch state, _ := keymgr.ReadLife(l, role, time.Unix(1800000000, 0)); state {
			case keymgr.Generated, keymgr.Published, keymgr.Active, keymgr.Retired, keymgr.Removed:
			default:
				t.Errorf("read as %q", state)
			}
		}
	})
}
