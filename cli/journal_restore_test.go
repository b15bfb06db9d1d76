package cli

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/backup"
	"sluice/journal/event"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// asked answers for public servers: what they hold, by name.
type asked map[string]uint32

var errSilentServer = errors.New("no answer")

func (a asked) find(_ context.Context, apex zone.Name) (uint32, error) {
	if n, ok := a[apex.String()]; ok {
		return n, nil
	}
	return 0, errSilentServer
}

func TestFloors_SerialsGoOnAboveWhatMayBePublic(t *testing.T) {
	zones := []backup.Zone{
		{ID: "a", Name: "a.example.", Serial: new(uint32(100))},
		{ID: "b", Name: "b.example.", Serial: new(uint32(4294967290)), Floor: new(uint32(7))},
		{ID: "c", Name: "c.example."},
		{ID: "gone", Name: "gone.example.", Removed: true, Serial: new(uint32(1))},
	}
	for _, row := range []struct {
		name   string
		flags  []string
		public asked
		want   map[event.ZoneID]uint32
		fault  string
	}{
		{name: "all servers answer", public: asked{"a.example.": 105, "b.example.": 3, "c.example.": 9}, want: map[event.ZoneID]uint32{"a": 105, "c": 9}},
		{name: "nothing is newer", public: asked{"a.example.": 100, "b.example.": 4294967200, "c.example.": 1}, want: map[event.ZoneID]uint32{"c": 1}},
		{name: "one is silent", public: asked{"a.example.": 105, "b.example.": 3}, fault: "1 zone: c.example. (no answer)"},
		{
			name: "one is silent and not asked", public: asked{"a.example.": 105, "b.example.": 9}, flags: []string{"c.example=none"},
			want: map[event.ZoneID]uint32{"a": 105, "b": 9},
		},
		{name: "so much above", flags: []string{"+10"}, want: map[event.ZoneID]uint32{"a": 110}},
		{name: "around the end of the numbers", flags: []string{"none", "b.example=+20"}, want: map[event.ZoneID]uint32{"b": 14}},
		{name: "a serial for all", flags: []string{"200"}, want: map[event.ZoneID]uint32{"a": 200, "b": 200, "c": 200}},
		{name: "a serial that was passed", flags: []string{"none", "a.example.=99"}, want: map[event.ZoneID]uint32{}},
		{name: "none", flags: []string{"none"}, want: map[event.ZoneID]uint32{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			floors, err := parseFloors(row.flags)
			if err != nil {
				t.Fatal(err)
			}
			got, err := floors.findWith(t.Context(), zones, row.public.find)
			if row.fault != "" {
				if !errors.Is(err, pipeline.ErrState) || !strings.Contains(err.Error(), row.fault) {
					t.Errorf("error %v, want one with %q", err, row.fault)
				}
				return
			}
			if diff := cmp.Diff(row.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
	for _, bad := range []string{"", "x", "-1", "+0", "+2147483648", "4294967296", "a.example=", "a..example=1"} {
		if _, err := parseFloors([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	floors, err := parseFloors([]string{"gone.example=5"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := floors.find(t.Context(), zones); !errors.Is(err, pipeline.ErrNotFound) {
		t.Errorf("a floor for a removed zone: %v", err)
	}
}

func TestOpenForRestore_ReplacesNothing(t *testing.T) {
	dir := t.TempDir()
	// Keys may be there already.
	if err := os.MkdirAll(filepath.Join(dir, "keys"), 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := openForRestore(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openForRestore(dir, false); !errors.Is(err, pipeline.ErrState) {
		t.Errorf("two at a time: %v", err)
	}
	if err := d.close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openForRestore(dir, true); !errors.Is(err, pipeline.ErrState) {
		t.Errorf("a rehearsal's journal into a real directory: %v", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "journal", "jetstream"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openForRestore(dir, false); !errors.Is(err, pipeline.ErrState) || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("over a journal: %v", err)
	}
	other := t.TempDir()
	if err := os.WriteFile(filepath.Join(other, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openForRestore(other, false); err == nil || !strings.Contains(err.Error(), "letter") {
		t.Errorf("into a folder of something else: %v", err)
	}
}
