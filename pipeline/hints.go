package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"sluice/journal/event"
)

// hintsEvery is how often it is written down when servers last answered, where
// that has changed.
const hintsEvery = time.Minute

// maxHints bounds the file in bytes: half a million zones.
const maxHints = 64 << 20

// hints is when the servers of each zone last answered, as far as a restart is
// to know it. It is no truth: where it is lost or cannot be read, the time
// until a zone expires counts from the start of the process.
type hints struct {
	Zones map[event.ZoneID]hint `json:"zones"`
}

type hint struct {
	Source string    `json:"source"` // whose servers
	Good   time.Time `json:"good"`
}

// readHints takes up when servers last answered in an earlier run.
func (e *Engine) readHints() {
	if e.cfg.HintFile == "" {
		return
	}
	info, err := os.Stat(e.cfg.HintFile)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var known hints
	if err == nil && info.Size() > maxHints {
		err = fmt.Errorf("larger than %d bytes", maxHints)
	}
	if err == nil {
		var text []byte
		if text, err = os.ReadFile(e.cfg.HintFile); err == nil {
			err = json.Unmarshal(text, &known)
		}
	}
	if err != nil {
		e.log.Warn("it is not known when servers last answered: EXPIRE counts from now", "file", e.cfg.HintFile, "error", err)
		return
	}
	for id, h := range known.Zones {
		e.mu.RLock()
		r := e.runners[id]
		e.mu.RUnlock()
		if r != nil {
			r.takeHint(h)
		}
	}
}

func (r *runner) takeHint(h hint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up.good.IsZero() || h.Good.IsZero() || h.Good.After(r.e.clock.Now()) || h.Source != r.state.Source || !IsTransfer(h.Source) {
		return
	}
	r.began = h.Good
	r.up.source, r.up.good = h.Source, h.Good
}

// keepHints writes the hints down from time to time until ctx ends.
func (e *Engine) keepHints(ctx context.Context) {
	if e.cfg.HintFile == "" {
		return
	}
	tick := time.NewTicker(hintsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.writeHints()
		case <-ctx.Done():
			return
		}
	}
}

// writeHints writes the hints down where they have changed, at once or not at
// all. It need not be durable.
func (e *Engine) writeHints() {
	if e.cfg.HintFile == "" || !e.answered.Swap(false) {
		return
	}
	known := hints{Zones: map[event.ZoneID]hint{}}
	e.mu.RLock()
	all := make([]*runner, 0, len(e.names))
	for _, id := range e.names {
		all = append(all, e.runners[id])
	}
	e.mu.RUnlock()
	for _, r := range all {
		r.mu.Lock()
		if u := r.up; IsTransfer(u.source) && !u.good.IsZero() {
			known.Zones[r.id] = hint{Source: u.source, Good: u.good}
		}
		r.mu.Unlock()
	}
	text, err := json.Marshal(known)
	if err == nil {
		err = os.WriteFile(e.cfg.HintFile+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(e.cfg.HintFile+".new", e.cfg.HintFile)
	}
	if err != nil {
		e.log.Warn("when servers last answered is not written down", "error", err)
	}
}
