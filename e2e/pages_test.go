package e2e

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shown is a command of a page of the manual, and what the page shows of its
// output.
type shown struct {
	line   int    // in the page
	text   string // what is typed, all its lines
	code   int    // the exit code that it is to have
	output []string
}

// exitNote is what a page says behind a command that fails.
var exitNote = regexp.MustCompile(`\s+# exit code (\d+)$`)

// consoleBlocks are the console blocks of a page, those below one heading where
// it is named. In a block "$ " stands before a command, "> " before its further
// lines; what stands below is its output.
func consoleBlocks(t *testing.T, page, heading string) (blocks [][]shown) {
	t.Helper()
	var here, inside bool
	for i, line := range strings.Split(page, "\n") {
		switch {
		case !inside && strings.HasPrefix(line, "## "):
			here = strings.TrimPrefix(line, "## ") == heading
		case line == "```console":
			inside = true
			if here || heading == "" {
				blocks = append(blocks, nil)
			}
		case line == "```":
			inside = false
		case inside && (here || heading == ""):
			at := &blocks[len(blocks)-1]
			*at = addShown(t, *at, i+1, line)
		}
	}
	if inside || len(blocks) == 0 {
		t.Fatalf("heading %q: no console blocks, or one without an end", heading)
	}
	return blocks
}

// addShown adds a line of a block to its commands.
func addShown(t *testing.T, block []shown, number int, line string) []shown {
	t.Helper()
	code := 0
	if m := exitNote.FindStringSubmatch(line); m != nil {
		line = strings.TrimSuffix(line, m[0])
		code, _ = strconv.Atoi(m[1]) // the pattern has digits alone
	}
	if text, ok := strings.CutPrefix(line, "$ "); ok {
		return append(block, shown{line: number, text: text, code: code})
	}
	if len(block) == 0 {
		t.Fatalf("line %d: a block begins with a command", number)
	}
	last := &block[len(block)-1]
	if text, ok := strings.CutPrefix(line, ">"); ok && len(last.output) == 0 {
		last.text += "\n" + strings.TrimPrefix(text, " ")
		last.code = max(last.code, code)
		return block
	}
	last.output = append(last.output, line)
	return block
}

// session is a shell in which somebody types what a page shows.
type session struct {
	t    *testing.T
	dir  string // where it works
	logs string // for what is typed and printed
	// swaps are the folders and ports of the page, each with that of the test
	// behind it; toTest puts these in the place of those, toPage does the reverse.
	swaps          []string
	toTest, toPage *strings.Replacer
	// strict wants all that is printed to be shown.
	strict bool

	cmd    *exec.Cmd
	in     *os.File
	status *bufio.Scanner
	typed  int
}

// newSession starts a shell. The program is in its PATH. In what is typed, each
// text of swap is replaced by the one behind it, in what is printed the other
// way round.
func newSession(t *testing.T, dir string, env []string, swap ...string) *session {
	t.Helper()
	need(t, "bash")
	s := &session{t: t, dir: dir, logs: t.TempDir()}
	s.swap(swap...)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	statusOut, statusIn, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer statusIn.Close()
	s.in, s.status = out, bufio.NewScanner(statusOut)
	s.cmd = exec.Command("bash", "--noprofile", "--norc", "-s")
	s.cmd.Dir, s.cmd.Stdin, s.cmd.ExtraFiles = dir, in, []*os.File{statusIn}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program(t))+":"+os.Getenv("PATH"), "HOME="+dir, "TMPDIR="+s.logs)
	s.cmd.Env = append(s.cmd.Env, env...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		out.Close()
		s.end()
		statusOut.Close()
	})
	return s
}

// swap has further texts of the page stand for those of the test.
func (s *session) swap(pairs ...string) {
	s.swaps = append(s.swaps, pairs...)
	back := make([]string, 0, len(s.swaps))
	for i := 0; i < len(s.swaps); i += 2 {
		back = append(back, s.swaps[i+1], s.swaps[i])
	}
	s.toTest, s.toPage = strings.NewReplacer(s.swaps...), strings.NewReplacer(back...)
}

// end ends the shell and all that it started.
func (s *session) end() {
	group := -s.cmd.Process.Pid
	_ = syscall.Kill(group, syscall.SIGTERM) // some may have ended
	_ = s.cmd.Wait()                         // it was told to
	gone, _ := eventually(20*time.Second, func() (bool, string) {
		return syscall.Kill(group, 0) != nil, ""
	})
	if !gone {
		_ = syscall.Kill(group, syscall.SIGKILL)
	}
}

// setUp has the shell do what no page shows.
func (s *session) setUp(text string) {
	s.t.Helper()
	if out, code := s.enter(text); code != 0 {
		s.t.Fatalf("%s\nexit code %d\n%s", text, code, readFile(s.t, out))
	}
}

// enter types a command, waits for its end, and returns the file of its output
// and its exit code.
func (s *session) enter(text string) (out string, code int) {
	s.t.Helper()
	s.typed++
	out = filepath.Join(s.logs, fmt.Sprintf("out-%d", s.typed))
	file := writeFile(s.t, filepath.Join(s.logs, fmt.Sprintf("typed-%d", s.typed)), text+"\n")
	if _, err := fmt.Fprintf(s.in, ". %s </dev/null >%s 2>&1 3>&-; echo $? >&3\n", file, out); err != nil {
		s.t.Fatal(err)
	}
	if !s.status.Scan() {
		s.t.Fatalf("the shell has ended at: %s\n%s", text, readFile(s.t, out))
	}
	code, err := strconv.Atoi(s.status.Text())
	if err != nil {
		s.t.Fatal(err)
	}
	return out, code
}

// looks are commands that change nothing: who reads the page takes longer to
// type them than the program takes to get there, so here they are tried again.
var looks = regexp.MustCompile(`^(sluice (health|status|version|zone (list|status|history|check|verify|serial|observe)|key (status|list|ds|plan)|keystore (list|show)|clock status|journal status|cluster status|worker list|audit head)\b|dig |curl |\S+=\$\()`)

// logLines are what a daemon in the background logs: that depends on the
// machine, unless it is an error.
var logLines = regexp.MustCompile(`(?m)^time=\S+ level=(INFO|WARN) .*\n`)

// run types the commands of a block and compares what they print.
func (s *session) run(block []shown) {
	s.t.Helper()
	for _, c := range block {
		s.runOne(c)
	}
}

func (s *session) runOne(c shown) {
	s.t.Helper()
	text := s.toTest.Replace(c.text)
	within := time.Duration(0)
	background := strings.HasSuffix(text, "&")
	if background || looks.MatchString(c.text) {
		within = time.Minute
	}
	out, code := s.enter(text)
	s.t.Logf("$ %s", text)
	first := true
	ok, saw := eventually(within, func() (bool, string) {
		if !first && !background {
			out, code = s.enter(text)
		}
		first = false
		printed := logLines.ReplaceAllString(s.toPage.Replace(readFile(s.t, out)), "")
		saw := fmt.Sprintf("exit code %d\n%s", code, printed)
		return code == c.code && (len(c.output) == 0 && !s.strict || sameOutput(c.output, printed)), saw
	})
	if !ok {
		s.t.Fatalf("line %d: $ %s\nwant exit code %d\n%s\n\ngot %s", c.line, c.text, c.code, strings.Join(c.output, "\n"), saw)
	}
	s.t.Log(saw)
}

// Samples are what a page shows one of, and what differs each time: moments,
// hashes and keys, tags of keys, serials.
var samples = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\b[0-9a-fA-F]{16,}\b`), "HEX"},
	{regexp.MustCompile(`\b(tag|ksk|zsk|csk|DS|KSK|ZSK) \d+`), "$1 TAG"},
	{regexp.MustCompile(`\b\d{4,}\b`), "NUMBER"},
}

// sampled is a line with all samples made the same.
func sampled(line string) string {
	for _, s := range samples {
		line = s.pattern.ReplaceAllString(line, s.word)
	}
	return strings.TrimSpace(line)
}

// sameOutput compares what was printed with what a page shows of it: "..."
// stands for anything, on a line of its own for any lines.
func sameOutput(want []string, printed string) bool {
	var pattern strings.Builder
	pattern.WriteString(`^`)
	for _, line := range want {
		if strings.TrimSpace(line) == "..." {
			pattern.WriteString(`(?:[^\n]*\n)*?`)
			continue
		}
		parts := strings.Split(sampled(line), "...")
		for i, part := range parts {
			parts[i] = regexp.QuoteMeta(part)
		}
		pattern.WriteString(strings.Join(parts, `[^\n]*?`) + `\n`)
	}
	var got strings.Builder
	for line := range strings.Lines(printed) {
		got.WriteString(sampled(line) + "\n")
	}
	ok, err := regexp.MatchString(pattern.String()+`$`, got.String())
	return err == nil && ok
}

// manualPage reads a page of the manual.
func manualPage(t *testing.T, name string) string {
	t.Helper()
	return readFile(t, filepath.Join(root, "cli", "docs", name+".md"))
}

// Output that a page shows is told from other output.
func TestPages_ComparesWhatIsShown(t *testing.T) {
	for _, c := range []struct {
		want    string
		printed string
		same    bool
	}{
		{"ok", "ok\n", true},
		{"ok", "alarm: no\nok\n", false},
		{"...\nok", "alarm: no\nok\n", true},
		{"a\n...\nb", "a\nb\n", true},
		{"a ... c", "a b c\n", true},
		{"a ... c", "a b d\n", false},
		{"serial 2026112200", "serial 2026112301\n", true},
		{"serial 7", "serial 8\n", false},
		{"made 2026-11-22T10:00:00Z", "made   2030-01-01T00:00:00Z\n", true},
		{"ksk 12345 active", "ksk  7  active\n", true},
		{"", "", true},
	} {
		var want []string
		if c.want != "" {
			want = strings.Split(c.want, "\n")
		}
		if got := sameOutput(want, c.printed); got != c.same {
			t.Errorf("%q shown, %q printed: the same: %t", c.want, c.printed, got)
		}
	}
	blocks := consoleBlocks(t, "## a\n```console\n$ one  # exit code 3\nout\n```\n## b\n```console\n$ cat <<E\n> $x\n>\n> E\n> text\n$ two\n```\n", "b")
	if len(blocks) != 1 || len(blocks[0]) != 2 || blocks[0][0].text != "cat <<E\n$x\n\nE\ntext" || blocks[0][1].text != "two" {
		t.Errorf("%+v", blocks)
	}
}
