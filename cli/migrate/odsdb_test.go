package migrate

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// sums is the digests of all files whose name begins with one.
func sums(t *testing.T, path string) string {
	t.Helper()
	files, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, fmt.Sprintf("%s %x %v", filepath.Base(f), sha256.Sum256(text), info.ModTime()))
	}
	return strings.Join(out, "\n")
}

func TestODSDatabase_IsReadWithoutTouchingIt(t *testing.T) {
	for _, mode := range []string{"DELETE", "WAL", "hot journal"} {
		t.Run(mode, func(t *testing.T) {
			dir := odsFolder(t)
			from := filepath.Join(dir, "kasp.db")
			db, err := sql.Open("sqlite3", "file:"+from)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close() //nolint:errcheck // at the end of the test
			db.SetMaxOpenConns(1)
			script := "PRAGMA journal_mode=" + mode
			if mode == "hot journal" {
				script = "PRAGMA journal_mode=DELETE; PRAGMA cache_spill=1; PRAGMA cache_size=1"
			}
			if _, err := db.ExecContext(t.Context(), script); err != nil {
				t.Fatal(err)
			}
			if _, err := db.ExecContext(t.Context(), "UPDATE zone SET signconfNeedsWriting = 1"); err != nil {
				t.Fatal(err)
			}
			// A copy that a crash left behind: of a write-ahead log, or in the
			// middle of a change.
			crashed := filepath.Join(t.TempDir(), "kasp.db")
			if mode == "hot journal" {
				if _, err := db.ExecContext(t.Context(), `BEGIN; UPDATE keyState SET state = 4; UPDATE policy SET description = hex(randomblob(200000));`); err != nil {
					t.Fatal(err)
				}
			}
			for _, suffix := range []string{"", "-wal", "-journal"} {
				text, err := os.ReadFile(from + suffix)
				if err != nil {
					continue
				}
				if err := os.WriteFile(crashed+suffix, text, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			before := sums(t, crashed)
			d, err := readODSDB(t.Context(), crashed)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.zones) != 2 || !d.zones[0].signconfNeedsWriting || d.zones[0].keys[0].records[odsRecordDNSKEY].state == odsNA {
				t.Errorf("read %+v", d.zones)
			}
			if after := sums(t, crashed); after != before {
				t.Errorf("before\n%s\nafter\n%s", before, after)
			}
		})
	}
}

func TestODSDatabase_SaysWhatIsWrong(t *testing.T) {
	for _, row := range []struct{ name, script, want string }{
		{"version 1.4", "CREATE TABLE dnsseckeys (id INTEGER)", "of OpenDNSSEC 1.4; upgrade to 2.1 first"},
		{"no table", "DROP TABLE keyState", "no tables keyData and keyState"},
		{"no column", "ALTER TABLE keyData DROP COLUMN dsAtParent", "no such column"},
		{"a state that is none", "UPDATE keyState SET state = 9", "in state 9"},
		{"a role that is none", "UPDATE keyData SET role = 7", "has role 7"},
		{"no policy", "UPDATE zone SET policyId = 77", "has policy 77, which is not there"},
		{"a serial that is none", "UPDATE policy SET zoneSoaSerial = 9", "serial 9"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := odsFolder(t)
			execODS(t, dir, row.script)
			if _, err := readODSDB(t.Context(), filepath.Join(dir, "kasp.db")); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %v, want %q in it", err, row.want)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "kasp.db")
	if err := os.WriteFile(path, []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := readODSDB(context.Background(), path); !errors.Is(err, errODSContents) {
		t.Errorf("no database: %v", err)
	}
}
