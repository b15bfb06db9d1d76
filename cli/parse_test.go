package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"sluice/cli/api"
	"sluice/pipeline"
)

func TestParseTime_Forms(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2026-11-22T03:28:06Z":      time.Date(2026, 11, 22, 3, 28, 6, 0, time.UTC),
		"2026-11-22T03:28:06+02:00": time.Date(2026, 11, 22, 1, 28, 6, 0, time.UTC),
		"@0":                        time.Unix(0, 0),
		"@1896134400":               time.Unix(1896134400, 0),
		"1896134400":                time.Unix(1896134400, 0),
		"20300131235959":            time.Date(2030, 1, 31, 23, 59, 59, 0, time.UTC),
		"+2w":                       now.Add(14 * 24 * time.Hour),
		"-1h30m":                    now.Add(-90 * time.Minute),
		"+90":                       now.Add(90 * time.Second),
	} {
		got, err := parseTime(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "now", "@", "@-1", "@99999999999999999", "20301301000000", "-", "+", "+1y", "2026-11-22", "999999999999999",
	} {
		got, err := parseTime(text, now)
		if _, ok := errors.AsType[*usageError](err); !ok {
			t.Errorf("%q: %v, %v, want a usage error", text, got, err)
		}
	}
}

func FuzzParseTime(f *testing.F) {
	f.Add("2026-11-22T03:28:06Z")
	f.Add("@1")
	f.Add("+1d2h")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseTime(text, time.Unix(0, 0))
		if err == nil && (got.Year() < 0 || got.Year() > 9999) {
			t.Errorf("%q is %v", text, got)
		}
	})
}

func TestAbsoluteSource_ServersAreWrittenInFull(t *testing.T) {
	for source, want := range map[string]string{
		"192.0.2.1":            "192.0.2.1:53",
		"192.0.2.1:5353":       "192.0.2.1:5353",
		"2001:db8::1^Key.":     "[2001:db8::1]:53^key.",
		"192.0.2.1, 192.0.2.2": "192.0.2.1:53,192.0.2.2:53",
		"[2001:db8::1]:54^key": "[2001:db8::1]:54^key.",
	} {
		if got, err := absoluteSource(source); err != nil || got != want {
			t.Errorf("%q became %q, %v", source, got, err)
		}
	}
	if got, err := absoluteSource("192.0.2.1,/zones/x"); err == nil {
		t.Errorf("servers and a file together became %q", got)
	}
	for _, source := range []string{"300.1.1.1", "192.0.2.1:99999", "192.0.2.1:0", "localhost:53", "ns1.example^key", "192.0.2.1;192.0.2.2:53"} {
		if got, err := absoluteSource(source); hintOf(err) == "" || exitCode(err) != 2 {
			t.Errorf("%q became %q, %v", source, got, err)
		}
	}
	t.Chdir(t.TempDir())
	if err := os.WriteFile("zone:1", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := absoluteSource("zone:1"); err != nil || filepath.Base(got) != "zone:1" {
		t.Errorf("a file with a colon became %q, %v", got, err)
	}
	want, err := filepath.Abs("zones/example.com")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := absoluteSource("zones/example.com"); err != nil || got != want {
		t.Errorf("a file became %q, %v", got, err)
	}
}

func TestVersionWord_Forms(t *testing.T) {
	for text, want := range map[string]string{
		"2026112200":           "2026112200",
		"l12":                  "l12",
		"s14":                  "s14",
		"@0":                   "1970-01-01T00:00:00Z",
		"20300131235959":       "2030-01-31T23:59:59Z",
		"2026-11-22T03:28:06Z": "2026-11-22T03:28:06Z",
	} {
		if got, err := versionWord(text); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "l", "x12", "l-1", "4294967296", "latest"} {
		if got, err := versionWord(text); err == nil {
			t.Errorf("%q: %q, want an error", text, got)
		}
	}
}

func TestParseClock_StartAndRate(t *testing.T) {
	for _, test := range []struct {
		text      string
		simulated bool
	}{
		{"", false}, {"2030-01-01T00:00:00Z", true}, {"@0,0", true}, {"20300101000000,3600", true}, {"@1,0.5", true},
	} {
		clock, name, err := parseClock(test.text)
		if err != nil || clock.Simulated() != test.simulated || (name == rehearsalClock) != test.simulated {
			t.Errorf("%q: %v, %q, %v", test.text, clock, name, err)
		}
	}
	frozen, _, err := parseClock("@1000,0")
	if err != nil || !frozen.Now().Equal(time.Unix(1000, 0)) {
		t.Errorf("a frozen clock shows %v, %v", frozen.Now(), err)
	}
	for _, text := range []string{",1", "soon", "@1,", "@1,-1", "@1,NaN", "@1,Inf", "@1,2,3"} {
		if _, _, err := parseClock(text); err == nil {
			t.Errorf("%q: want an error", text)
		}
	}
}

func TestExplain_PermissionIsNoMissingDaemon(t *testing.T) {
	denied := fmt.Errorf("%w at unix:s: %w", api.ErrUnreachable, os.NewSyscallError("connect", unix.EACCES))
	if hint := hintOf(explain(denied)); !strings.Contains(hint, "as that user") {
		t.Errorf("hint %q", hint)
	}
	if hint := hintOf(explain(api.ErrUnreachable)); !strings.Contains(hint, "sluice serve") {
		t.Errorf("hint %q", hint)
	}
}

func TestExitCode_Table(t *testing.T) {
	for _, test := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errSilent, 1},
		{pipeline.ErrInvalid, 2},
		{usagef("x"), 2},
		{withHint(usagef("x"), "y"), 2},
		{pipeline.ErrNotFound, 3},
		{withHint(pipeline.ErrState, "y"), 4},
	} {
		if got := exitCode(test.err); got != test.want {
			t.Errorf("%v: %d, want %d", test.err, got, test.want)
		}
	}
}

func TestParseZone_NamesTheALabelOfAnotherScript(t *testing.T) {
	_, err := parseZone("b\u00fccher.example.")
	if exitCode(err) != 2 || !strings.HasSuffix(hintOf(err), " xn--bcher-kva.example") {
		t.Errorf("got %v, hint %q", err, hintOf(err))
	}
	if n, err := parseZone(`b\195\188cher.example`); err != nil || len(n) != 17 {
		t.Errorf("escaped octets: %v", err)
	}
}
