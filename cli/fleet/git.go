package fleet

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Commit is the state of the folder's Git work tree. Its zero value is a folder
// of which nothing is known.
type Commit struct {
	ID string `json:"id,omitempty"` // the whole hash, or as a person gave it
	// Dirty: the folder has what the commit has not.
	Dirty bool `json:"dirty,omitempty"`
}

// gitTime bounds how long Git may take.
const gitTime = 20 * time.Second

// Head asks Git which commit a folder is at. Where there is no Git, no work tree,
// or no commit, it is the zero value.
func Head(ctx context.Context, dir string) Commit {
	id, ok := git(ctx, dir, "rev-parse", "--verify", "--quiet", "HEAD")
	if !ok || id == "" {
		return Commit{}
	}
	changes, ok := git(ctx, dir, "status", "--porcelain", "--untracked-files=all", "--", ".")
	return Commit{ID: id, Dirty: !ok || changes != ""}
}

// git runs Git in a folder and returns what it says, in one line.
func git(ctx context.Context, dir string, args ...string) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, gitTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_OPTIONAL_LOCKS=0", "LC_ALL=C")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return "", false
	}
	return strings.TrimSpace(out.String()), true
}

// appliedBy begins the reason of every change that Apply makes.
const appliedBy = "apply of "

// applied reports whether a change was made by Apply.
func applied(reason string) bool { return strings.HasPrefix(reason, appliedBy) }

// maxReason bounds the reason that is given, in bytes; the daemon takes 2000.
const maxReason = 1000

// Reason is what events of an apply say: which commit it was, and why.
func (c Commit) Reason(folder, text string) string {
	out := appliedBy + folder
	if c.ID != "" {
		out = appliedBy + "commit " + c.Short()
		if c.Dirty {
			out += " with changes that are not committed"
		}
	}
	if text = strings.Join(strings.Fields(text), " "); text != "" {
		out += ": " + text
	}
	return strings.ToValidUTF8(out[:min(len(out), maxReason)], "")
}

// Short is the commit as people write it.
func (c Commit) Short() string {
	const hash, short = 40, 12
	if len(c.ID) >= hash && strings.Trim(c.ID, "0123456789abcdef") == "" {
		return c.ID[:short]
	}
	return c.ID
}
