package cli

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
)

func mustOpen(t *testing.T, path, clock string) *dataDir {
	t.Helper()
	d, err := openDataDir(path, clock, true)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpenDataDir_OneDaemonOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	d := mustOpen(t, path, realClock)
	_, err := openDataDir(path, realClock, true)
	if !errors.Is(err, pipeline.ErrState) || hintOf(err) == "" {
		t.Errorf("second daemon: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if err := mustOpen(t, path, realClock).close(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestOpenDataDir_ClocksDoNotMix(t *testing.T) {
	for _, clocks := range [][2]string{{realClock, rehearsalClock}, {rehearsalClock, realClock}} {
		path := filepath.Join(t.TempDir(), "data")
		if err := mustOpen(t, path, clocks[0]).close(); err != nil {
			t.Fatal(err)
		}
		if _, err := openDataDir(path, clocks[1], true); !errors.Is(err, pipeline.ErrState) {
			t.Errorf("%s directory with the %s clock: %v", clocks[0], clocks[1], err)
		}
		d, err := openDataDir(path, "", false) // a tool takes either
		if err != nil {
			t.Fatal(err)
		}
		if err := d.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenDataDir_RefusesWhatIsNotOurs(t *testing.T) {
	for _, test := range []struct{ name, file, text, want string }{
		{"a folder with other things", "photo.jpg", "x", "it is no data directory"},
		{"a newer format", "version", `{"format":2,"clock":"real"}`, "has format 2"},
		{"no format", "version", `{"clock":"real"}`, "has format 0"},
		{"a damaged marker", "version", `{`, "version is damaged: it holds \"{\""},
		{"an empty marker", "version", "", "is damaged"},
		{"no clock", "version", `{"format":1}`, "is damaged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := t.TempDir()
			if err := os.WriteFile(filepath.Join(path, test.file), []byte(test.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := openDataDir(path, realClock, true)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want one with %q", err, test.want)
			}
			if _, err := os.Lstat(filepath.Join(path, "lock")); test.file != "version" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a lock was left: %v", err)
			}
			// The lock is free again, and what was there is untouched.
			if _, err := openDataDir(path, realClock, true); errors.Is(err, pipeline.ErrState) && strings.Contains(err.Error(), "in use") {
				t.Errorf("the lock was kept: %v", err)
			}
			text, err := os.ReadFile(filepath.Join(path, test.file))
			if err != nil || string(text) != test.text {
				t.Errorf("file holds %q, %v", text, err)
			}
		})
	}
}

func TestOpenDataDir_ToolsMakeNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent")
	if _, err := openDataDir(path, "", false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
	empty := t.TempDir()
	if _, err := openDataDir(empty, "", false); !errors.Is(err, pipeline.ErrNotFound) || !strings.Contains(err.Error(), "no data directory") {
		t.Errorf("empty folder: %v", err)
	}
}

func TestOpenDataDir_RefusesWhereTheJournalIsGone(t *testing.T) {
	for _, made := range []string{"keys/example.com+013+00001+0123456789abcdef.pem", "projections/zones/MANIFEST"} {
		path := filepath.Join(t.TempDir(), "data")
		if err := mustOpen(t, path, realClock).close(); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(path, made)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for range 2 { // without its folder, and with an empty one
			_, err := openDataDir(path, realClock, true)
			if !errors.Is(err, pipeline.ErrState) || !strings.Contains(err.Error(), "is missing") || hintOf(err) == "" {
				t.Errorf("with %s: %v", made, err)
			}
			_ = os.Mkdir(filepath.Join(path, "journal"), 0o700)
		}
		if err := os.WriteFile(filepath.Join(path, "journal", "lock"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := mustOpen(t, path, realClock).close(); err != nil {
			t.Error(err)
		}
	}
}
