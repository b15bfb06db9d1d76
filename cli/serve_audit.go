package cli

import (
	"context"
	"fmt"
	"time"

	"sluice/journal/audit"
	"sluice/keymgr/file"
	"sluice/pipeline"
)

// auditConfig is how the journal is sealed.
type auditConfig struct {
	Interval       duration `toml:"interval"`
	Events         int      `toml:"events"`
	Origin         string   `toml:"origin"`
	CheckpointFile string   `toml:"checkpoint-file"`
	Hook           string   `toml:"hook"`
	HookTimeout    duration `toml:"hook-timeout"`
	Witnesses      []string `toml:"witnesses"`
}

// check finds values that cannot work; nil where there are none.
func (a auditConfig) check() *badValue {
	switch {
	case a.Interval != 0 && time.Duration(a.Interval) < time.Second:
		return &badValue{key: "audit.interval", text: `interval: want at least a second, or "0" for no checkpoints`}
	case a.Events < 1:
		return &badValue{key: "audit.events", text: fmt.Sprintf("events = %d: want a number above 0", a.Events)}
	case time.Duration(a.HookTimeout) < time.Second:
		return &badValue{key: "audit.hook-timeout", text: "hook-timeout: want at least a second"}
	}
	for _, w := range a.Witnesses {
		if _, err := audit.ParseWitness(w); err != nil {
			return &badValue{key: "audit.witnesses", value: w, text: err.Error()}
		}
	}
	return nil
}

// sealing opens the audit key, and makes it at the first start.
func (s *serving) sealing(ctx context.Context) (pipeline.Sealing, error) {
	a := s.cfg.Audit
	if a.Interval == 0 {
		return pipeline.Sealing{}, nil
	}
	origin := a.Origin
	if origin == "" {
		identity, _, err := s.journal.Stream(ctx)
		if err != nil {
			return pipeline.Sealing{}, err
		}
		origin = "sluice/" + identity
	}
	key, err := file.OpenAudit(s.data.keys(), origin)
	if err != nil {
		return pipeline.Sealing{}, err
	}
	out := pipeline.Sealing{
		Key: key, Interval: time.Duration(a.Interval), Events: uint64(a.Events),
		File: a.CheckpointFile, Hook: pipeline.Hook{Command: a.Hook, Timeout: time.Duration(a.HookTimeout)},
	}
	for _, text := range a.Witnesses {
		w, err := audit.ParseWitness(text)
		if err != nil {
			return out, err
		}
		out.Witnesses = append(out.Witnesses, w)
	}
	return out, nil
}
