package pipeline

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sluice/journal/event"
)

// ConfigStatus is what this process knows of its config.
type ConfigStatus struct {
	// File is the config file; empty where there is none.
	File string `json:"file,omitempty"`
	// Loaded is when config and policies were read last, by the machine's clock.
	Loaded time.Time `json:"loaded"`
	// Restart are the keys whose values in the file wait for a restart.
	Restart []string `json:"restart_needed,omitempty"`
}

// Reloaded is what came of reading config and policies again.
type Reloaded struct {
	ConfigStatus
	// Changed are the keys of the config that took effect.
	Changed []string `json:"changed"`
	// Policies is what became of the policies; nil without a folder of them.
	Policies *PolicyChange `json:"policies,omitempty"`
}

// reconfigure is how the process reads its config again.
type reconfigure struct {
	mu     sync.Mutex // held while that is done
	reload func(ctx context.Context, actor event.Actor) (Reloaded, error)

	look   sync.Mutex
	status ConfigStatus // guarded by look
}

// SetReload says how the process reads its config again, and what it read at
// its start. It is called before Run.
func (e *Engine) SetReload(at ConfigStatus, reload func(ctx context.Context, actor event.Actor) (Reloaded, error)) {
	e.config.reload = reload
	e.config.status = at
}

// ReloadConfig reads the config and the policies of the process again: all or
// nothing. Errors: what is wrong with a file, and ErrState where there is
// nothing to read.
func (e *Engine) ReloadConfig(ctx context.Context, actor event.Actor) (Reloaded, error) {
	c := &e.config
	if c.reload == nil {
		return Reloaded{}, fmt.Errorf("this process has no config to read again: %w", ErrState)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	done, err := c.reload(ctx, actor)
	if err != nil {
		return Reloaded{}, err
	}
	c.look.Lock()
	c.status = done.ConfigStatus
	c.look.Unlock()
	return done, nil
}

// ConfigStatus tells when the config was read, and what of it waits for a
// restart.
func (e *Engine) ConfigStatus() ConfigStatus {
	e.config.look.Lock()
	defer e.config.look.Unlock()
	return e.config.status
}
