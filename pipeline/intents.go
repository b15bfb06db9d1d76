package pipeline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"

	"sluice/journal/event"
)

// maxTries is how often a command may bring its process down, or panic, before
// its zone's work of that role rests.
const maxTries = 5

// intents are the commands under way, as files: what is there at a start was
// under way when the process died. They may be lost.
type intents struct {
	dir string // "" keeps them in memory, where they count panics only

	mu   sync.Mutex
	left map[string]intent // guarded by mu; by file name: commands that ended badly
}

// intent is a command that was begun.
type intent struct {
	Identity string `json:"identity"`
	Tries    int    `json:"tries"`
	Error    string `json:"error,omitempty"` // the panic; empty where the process ended
}

// openIntents reads what was under way.
func openIntents(dir string) (*intents, error) {
	in := &intents{dir: dir, left: map[string]intent{}}
	if dir == "" {
		return in, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open folder of commands under way: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read folder of commands under way: %w", err)
	}
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), "do-") {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return nil, fmt.Errorf("read commands under way: %w", err)
		}
		var it intent
		if json.Unmarshal(data, &it) == nil { // one that was cut off counts for nothing
			in.left[entry.Name()] = it
		}
	}
	return in, nil
}

// runFile, in the folder of intents, names the run of the process.
const runFile = "run"

// replaceRun notes the name of this run and returns that of the one before.
func (in *intents) replaceRun(now string) (before string, err error) {
	if in.dir == "" {
		return "", nil
	}
	path := filepath.Join(in.dir, runFile)
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return string(data), os.WriteFile(path, []byte(now), 0o600)
}

func intentName(id event.ZoneID, c Command) string { return fmt.Sprintf("do-%s-%d", id, c.Lane()) }

// begin notes a command as begun, and says how often it ended badly before.
func (in *intents) begin(id event.ZoneID, c Command) (before intent, err error) {
	name := intentName(id, c)
	in.mu.Lock()
	before = in.left[name]
	in.mu.Unlock()
	if before.Identity != c.Identity() {
		before = intent{Identity: c.Identity()}
	}
	if before.Tries >= maxTries {
		return before, nil
	}
	return before, in.write(name, intent{Identity: before.Identity, Tries: before.Tries + 1})
}

func (in *intents) write(name string, it intent) error {
	if in.dir == "" {
		return nil
	}
	data, err := json.Marshal(it)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(in.dir, name), data, 0o600)
}

// end notes how a command ended: bad is its panic, empty where it did not.
func (in *intents) end(id event.ZoneID, c Command, before intent, bad string) error {
	name := intentName(id, c)
	in.mu.Lock()
	defer in.mu.Unlock()
	if bad != "" {
		before.Tries, before.Error = before.Tries+1, bad
		in.left[name] = before
		return in.write(name, before)
	}
	delete(in.left, name)
	if in.dir == "" {
		return nil
	}
	if err := os.Remove(filepath.Join(in.dir, name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// panicked is the error of a command that panicked.
type panicked struct {
	text  string
	stack []byte
}

func (p panicked) Error() string { return "panic: " + p.text }

// commandWord is what people call a command.
func commandWord(c Command) string {
	return strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", c), "pipeline."))
}

// attempt runs fn and makes a panic an error.
func attempt(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = panicked{text: oneLine(fmt.Sprint(v)), stack: debug.Stack()}
		}
	}()
	return fn()
}
