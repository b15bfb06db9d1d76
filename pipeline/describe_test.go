package pipeline

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
)

// Each type of event that there is, in each of its variants, is told as one
// sentence.
func TestDescribe_TellsEveryTypeOfEvent(t *testing.T) {
	files, err := filepath.Glob("../journal/event/testdata/golden/*.json")
	if err != nil || len(files) < len(event.Types()) {
		t.Fatalf("%d files for %d types, %v", len(files), len(event.Types()), err)
	}
	var b strings.Builder
	var told []string
	for _, file := range files {
		line, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		ev, err := event.Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		text := Describe(ev)
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		fmt.Fprintf(&b, "%s\n    %s\n", name, text)
		told = append(told, ev.Type)
		if text == "" || strings.Contains(text, "does not know") || strings.HasPrefix(text, ev.Type) || strings.ContainsAny(text, "\n\t") ||
			strings.Contains(text, "%!") || strings.Contains(text, "  ") {
			t.Errorf("%s is told badly: %q", name, text)
		}
	}
	slices.Sort(told)
	if diff := cmp.Diff(event.Types(), slices.Compact(told)); diff != "" {
		t.Errorf("types that are told:\n%s", diff)
	}
	golden := filepath.Join("testdata", "describe.golden")
	if *updateGolden {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	// A type that came later is told well, as was checked; its sentence is kept
	// with the next -update.
	is := sentences(b.String())
	for name, sentence := range sentences(string(want)) {
		if is[name] != sentence {
			t.Errorf("%s is told as %q, before as %q", name, is[name], sentence)
		}
	}
}

// sentences are those of a golden file, by name.
func sentences(text string) map[string]string {
	out := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if sentence, ok := strings.CutPrefix(line, "    "); ok {
			out[name] = sentence
		} else {
			name = line
		}
	}
	return out
}
