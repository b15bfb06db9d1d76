package pipeline

import (
	"crypto/sha256"
	"io"
	"os"
	"os/exec"
	"strings"

	"sluice/journal/event"
)

const (
	// maxPrograms bounds the executable files that are recorded of a command.
	maxPrograms = 4
	// maxProgram is the largest one whose hash is made, in bytes.
	maxProgram = 64 << 20
)

// programsOf is the executable files that a command names by words of their own,
// with their hashes: what the command was made of when it began. The first word
// is looked for in PATH. Files that nobody may execute are passed over, so that
// no hash of a secret that a command is given gets into an event.
func programsOf(command string) []event.ProgramFile {
	var out []event.ProgramFile
	seen := map[string]bool{}
	for i, word := range strings.Fields(command) {
		path := strings.Trim(word, `"';|&()`)
		if i == 0 && !strings.Contains(path, "/") {
			found, err := exec.LookPath(path)
			if err != nil {
				continue // one of the shell's own, or one that fails
			}
			path = found
		}
		if !strings.Contains(path, "/") || seen[path] {
			continue
		}
		seen[path] = true
		if sum, ok := programSum(path); ok {
			out = append(out, event.ProgramFile{Path: path, SHA256: sum})
		}
		if len(out) == maxPrograms {
			break
		}
	}
	return out
}

// programSum is the hash of an executable file; false where it is none.
func programSum(path string) (event.Hash, bool) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() || info.Mode()&0o111 == 0 || info.Size() > maxProgram {
		return event.Hash{}, false
	}
	f, err := os.Open(path)
	if err != nil {
		return event.Hash{}, false
	}
	defer f.Close() //nolint:errcheck // opened for reading
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(f, maxProgram)); err != nil {
		return event.Hash{}, false
	}
	return event.Hash(sum.Sum(nil)), true
}
