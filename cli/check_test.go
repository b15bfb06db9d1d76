package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/cli/chain"
)

// The page lists each code of a check with its severity and what to do, in the
// order of the program, and no other.
func TestCheckPage_HasEveryCode(t *testing.T) {
	var want, got []string
	for _, m := range chain.Meanings() {
		want = append(want, strings.Join([]string{"`" + string(m.Code) + "`", string(m.Severity), m.Title, m.Do}, " | "))
	}
	_, text, _ := strings.Cut(page(t, "check"), "| code | severity |")
	for line := range strings.Lines(text) {
		if row, ok := strings.CutPrefix(strings.TrimSpace(line), "| `"); ok {
			got = append(got, strings.TrimSuffix("`"+row, " |"))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("codes (-program +page):\n%s", diff)
	}
}

func TestParseAnchors_RecordsAndFiles(t *testing.T) {
	const ds = "example. IN DS 31589 8 2 3fdc4c11fa3ad3535ea8c1ce3eaf7bfa5ca9ae8a834d98fee10085cfaeb625aa"
	file := filepath.Join(t.TempDir(), "anchors")
	if err := os.WriteFile(file, []byte("; two of them\n"+ds+"\nexample. 3600 IN DS 1 13 2 (\n 3fdc4c11fa3ad3535ea8c1ce3eaf7bfa5ca9ae8a834d98fee10085cfaeb625aa )\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]int{ds: 1, file: 2} {
		all, err := parseAnchors(text)
		if err != nil || len(all) != want || all[0].Zone().String() != "example." {
			t.Errorf("%s: %d anchors: %v", text, len(all), err)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"none", "example. IN A 192.0.2.1", empty} {
		if _, err := parseAnchors(text); err == nil {
			t.Errorf("%q is an anchor", text)
		}
	}
}
