package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/audit"
	"sluice/journal/backup"
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
	Seal           []string `toml:"seal"`
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
	for _, kind := range a.Seal {
		if !slices.Contains(pipeline.SealKinds(), kind) {
			return &badValue{key: "audit.seal", value: kind, text: fmt.Sprintf("seal %q: want some of %s", kind, strings.Join(pipeline.SealKinds(), ", "))}
		}
	}
	for _, w := range a.Witnesses {
		if _, err := audit.ParseWitness(w); err != nil {
			return &badValue{key: "audit.witnesses", value: w, text: err.Error()}
		}
	}
	return nil
}

// auditOrigin is the name of the log: what the config wants, or one that follows
// from the journal's identity. A journal that goes on from another one never has
// that one's name: two logs of one name would be a fork that no witness could
// tell from a forgery.
func auditOrigin(wanted string, former []string, identity string) string {
	switch {
	case wanted == "":
		return backup.Origin(identity)
	case slices.Contains(former, wanted):
		return wanted + "/" + identity[:8]
	}
	return wanted
}

// auditKeyFile is where the audit key stands. A journal that goes on from
// another one has a file of its own, so that the keys of that one, where they
// are copied here, do not replace it.
func auditKeyFile(former []string, identity string) string {
	if len(former) == 0 {
		return file.AuditFile
	}
	return "audit-" + identity[:8] + ".key"
}

// sealing opens the audit key, and makes it at the first start.
func (s *serving) sealing(ctx context.Context) (pipeline.Sealing, error) {
	a := s.cfg.Audit
	if a.Interval == 0 || s.member { // the main process seals
		return pipeline.Sealing{}, nil
	}
	identity, _, err := s.journal.Stream(ctx)
	if err != nil {
		return pipeline.Sealing{}, err
	}
	former := s.journal.Former()
	key, err := file.OpenAuditFile(s.data.keys(), auditKeyFile(former, identity), auditOrigin(a.Origin, former, identity))
	if err != nil {
		return pipeline.Sealing{}, err
	}
	out, err := a.sealing()
	out.Key = key
	return out, err
}

// sealing is the config as the engine takes it, but for the key.
func (a auditConfig) sealing() (pipeline.Sealing, error) {
	out := pipeline.Sealing{
		Interval: time.Duration(a.Interval), Events: uint64(a.Events),
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
