package cli

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"sluice/pipeline"
)

// templateKeys reads the keys of an annotated template with their defaults, as
// they stand there.
func templateKeys(text string) map[string]string {
	keys, table := map[string]string{}, ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			table = strings.Trim(line, "[]") + "."
			continue
		}
		if name, value, ok := strings.Cut(line, " = "); ok && !strings.HasPrefix(line, "#") {
			keys[table+name] = value
		}
	}
	return keys
}

// entries reads the entries of a page, one a key, and what each says. A heading
// with {a,b} in it is an entry of each.
func entries(t *testing.T, text string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, part := range strings.Split("\n"+text, "\n### ")[1:] {
		heading, body, _ := strings.Cut(part, "\n")
		body, _, _ = strings.Cut(body, "\n## ")
		for _, key := range braces(heading) {
			if _, twice := found[key]; twice {
				t.Errorf("two entries of %s", key)
			}
			found[key] = body
		}
	}
	return found
}

// braces is what a shell makes of a word with {a,b} in it.
func braces(word string) []string {
	before, rest, ok := strings.Cut(word, "{")
	if !ok {
		return []string{word}
	}
	list, after, _ := strings.Cut(rest, "}")
	var out []string
	for one := range strings.SplitSeq(list, ",") {
		out = append(out, braces(before+one+after)...)
	}
	return out
}

func TestManual_ExplainsEachKeyOfTheFiles(t *testing.T) {
	for name, template := range map[string]string{"policy": pipeline.Template(), "config": configTemplate} {
		have, want := entries(t, page(t, name)), templateKeys(template)
		if len(want) < 20 {
			t.Fatalf("%s: only %d keys in the template", name, len(want))
		}
		for key, value := range want {
			text, ok := have[key]
			switch {
			case !ok:
				t.Errorf("cli/docs/%s.md has no entry for %s: write a heading \"### %s\", and below it: Default `%s`, and what it is for", name, key, key, value)
			case !strings.Contains(text, "Default `"+value+"`") && !strings.Contains(text, "`"+value+"` for "):
				t.Errorf("cli/docs/%s.md, %s: its default is `%s`", name, key, value)
			}
		}
		for key := range have {
			if _, ok := want[key]; !ok {
				t.Errorf("cli/docs/%s.md: there is no key %s", name, key)
			}
		}
	}
}

// What a terminal shows of a page fits into it, but for blocks, whose lines are
// those of commands and their output.
func TestManual_FitsATerminal(t *testing.T) {
	for _, name := range topics() {
		block := false
		for line := range strings.Lines(pageText(page(t, name))) {
			line = strings.TrimRight(line, "\n")
			block = strings.HasPrefix(line, "    ") || block && strings.HasPrefix(line, " ")
			if n := utf8.RuneCountInString(line); n > pageWidth && !block && strings.Contains(strings.TrimSpace(line), " ") && !strings.HasPrefix(line, "#") {
				t.Errorf("page %s: %d columns: %s", name, n, line)
			}
		}
	}
}

func TestPageText(t *testing.T) {
	in := "# Title\n\nA paragraph whose words go on and on, with `a span of code` in it, until it is longer than a line.\n\n" +
		"- an item\n  that goes on\n- another\n\n    sluice zone list\n\n```console\n$ ls\n> x\n```\n\n" +
		"| a | b |\n|---|---|\n| `x\\|y` | " + strings.Repeat("word ", 20) + "|\n"
	want := "# Title\n\nA paragraph whose words go on and on, with `a span of code` in it, until it is\nlonger than a line.\n\n" +
		"- an item that goes on\n- another\n\n    sluice zone list\n\n    $ ls\n    > x\n\n" +
		"  a      b\n  " + strings.Repeat("-", 78) + "\n  `x|y`  " + strings.TrimSpace(strings.Repeat("word ", 14)) + "\n         " + strings.TrimSpace(strings.Repeat("word ", 6)) + "\n"
	if got := pageText(in); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

// What a page calls a topic of the help is one, or a command, and links lead to
// pages that there are.
func TestManual_LinksLeadSomewhere(t *testing.T) {
	app := newApp(&env{})
	topic := regexp.MustCompile(`sluice\s+help\s+([a-z][a-z-]*)`)
	link := regexp.MustCompile(`\]\(([^)#]+)(#[^)]*)?\)`)
	for _, name := range topics() {
		text := page(t, name)
		for _, m := range topic.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(topics(), m[1]) && app.Command(m[1]) == nil {
				t.Errorf("page %s: sluice help %s: no such topic", name, m[1])
			}
		}
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := manual.Open("docs/" + m[1]); err != nil {
				t.Errorf("page %s: link to %s: %v", name, m[1], err)
			}
		}
	}
}

// The page of commands has every command.
func TestManual_CommandsPageHasEach(t *testing.T) {
	text := page(t, commandsTopic)
	for _, shown := range []string{
		"\n    sluice zone add ZONE\n", "`--source SOURCE`: where the zone comes from", "\n### zone maintenance enable\n", "`--output`, `-o DIR`",
		"(default: default)", "\n    sluice help [COMMAND... | TOPIC]\n", "`--api",
	} {
		if !strings.Contains(text, shown) {
			t.Errorf("%q is not on the page:\n%s", shown, text)
		}
	}
}
