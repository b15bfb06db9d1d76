package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// The completions of a package are run by the shells that they are for.
func TestCompletion_ShellsCompleteCommandsAndZones(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, "", exampleZone())
	d.awaitServed(t, example)
	for _, c := range []struct {
		shell  string
		script string // with the file to load as $1, the words after it
		words  []string
		want   string
	}{
		{"bash", bashCompletes, []string{"zone", "stat"}, "status"},
		{"bash", bashCompletes, []string{"zone", "status", "exam"}, example + "."},
		{"bash", bashCompletes, []string{"template", "sys"}, "systemd"},
		{"bash", bashCompletes, []string{"zone", "set", example, "--policy", "def"}, "default"},
		{"bash", bashCompletes, []string{"zone", "list", "--state", "pub"}, "published"},
		{"bash", bashCompletes, []string{"token", "add", "alice", "--role", "view"}, "viewer"},
		{"bash", bashCompletes, []string{"key", "roll", example, "al"}, "algorithm"},
		{"fish", fishCompletes, []string{"zone", "stat"}, "status"},
		{"fish", fishCompletes, []string{"log-level", "de"}, "debug"},
		{"fish", fishCompletes, []string{"zone", "status", "exam"}, example + "."},
	} {
		t.Run(c.shell+" "+strings.Join(c.words, " "), func(t *testing.T) {
			need(t, c.shell)
			file := writeFile(t, filepath.Join(t.TempDir(), "completion"), must(t, program(t), "completion", c.shell))
			cmd := exec.Command(c.shell, append([]string{"-c", c.script, c.shell, file}, c.words...)...)
			if c.shell == "fish" {
				cmd = exec.Command(c.shell, append([]string{"-c", c.script, file}, c.words...)...)
			}
			cmd.Env = append(os.Environ(), "SLUICE_API="+d.socket(), "PATH="+filepath.Dir(program(t))+":"+os.Getenv("PATH"), "HOME="+t.TempDir())
			out, err := cmd.CombinedOutput()
			var found []string
			for line := range strings.Lines(string(out)) {
				word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
				found = append(found, word)
			}
			if err != nil || !slices.Contains(found, c.want) {
				t.Errorf("%v completes to %q, %v; want %s", c.words, found, err, c.want)
			}
		})
	}
	t.Run("zsh", func(t *testing.T) {
		need(t, "zsh")
		file := writeFile(t, filepath.Join(t.TempDir(), "_sluice"), must(t, program(t), "completion", "zsh"))
		must(t, "zsh", "-n", file)
	})
}

const (
	bashCompletes = `. "$1"; shift; COMP_WORDS=(sluice "$@"); COMP_CWORD=$#; _sluice; printf '%s\n' "${COMPREPLY[@]}"`
	fishCompletes = `source $argv[1]; complete -C "sluice $argv[2..-1]"`
)
