package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// decidePool makes the next key ahead, once a zone is published and has nothing
// else to do.
func decidePool(s State, p Policy) Command {
	if p.Mode() != ModeSign || s.Maintenance != nil || s.Served.At.IsZero() {
		return nil
	}
	role := p.eligible(s.Keys).PoolLacks(p.Pool(), p.UseCSK(), p.Algorithm())
	if role == "" {
		return nil
	}
	roles := []keymgr.Role{role}
	return GenerateKeys{Roles: roles, Algorithm: p.Algorithm(), Bits: p.Bits(), Keystores: p.keystoresOf(roles), Ahead: true}
}

// BackupRequest says which keys were backed up.
type BackupRequest struct {
	// Zones are names; none is all zones.
	Zones []string `json:"zones,omitempty"`
	// Keys are IDs; none is all of the zones. They need one zone.
	Keys []string `json:"keys,omitempty"`
	// Before leaves out keys that were made at that time or later; zero is none.
	Before time.Time `json:"before,omitzero"`
}

// BackupKey is a key, and whether it was backed up.
type BackupKey struct {
	Zone string `json:"zone"`
	keymgr.Key
}

// Backups lists the keys of a zone, or of all where name is "", whose private
// parts are in keystores; with missing only those that were not backed up.
func (e *Engine) Backups(_ context.Context, name string, missing bool) ([]BackupKey, error) {
	runners, err := e.runnersOf(name)
	if err != nil {
		return nil, err
	}
	out := []BackupKey{}
	for _, r := range runners {
		s := r.snapshot()
		for _, k := range s.Keys.Keys {
			gone := k.State == keymgr.Removed && !k.Destroyed.IsZero()
			if !k.Foreign && !gone && (k.BackedUp.IsZero() && k.State != keymgr.Removed || !missing) {
				out = append(out, BackupKey{Zone: s.Name, Key: k})
			}
		}
	}
	return out, nil
}

// runnersOf is the zone of a name, or all by name for "".
func (e *Engine) runnersOf(name string) ([]*runner, error) {
	if name != "" {
		r, err := e.find(name)
		return []*runner{r}, err
	}
	return e.runnersAfter(""), nil
}

// MarkBackup notes that keys were backed up, and returns those that it marked.
// What waits for it goes on. Errors: ErrNotFound, ErrInvalid, ErrState.
func (e *Engine) MarkBackup(ctx context.Context, actor event.Actor, q BackupRequest) ([]BackupKey, error) {
	if len(q.Keys) > 0 && len(q.Zones) != 1 {
		return nil, fmt.Errorf("%w: keys are named with the one zone that they belong to", ErrInvalid)
	}
	names := q.Zones
	if len(names) == 0 {
		names = []string{""}
	}
	out := []BackupKey{}
	for _, name := range names {
		runners, err := e.runnersOf(name)
		if err != nil {
			return nil, err
		}
		for _, r := range runners {
			marked, err := e.markBackup(ctx, actor, r, q)
			if err != nil {
				return nil, err
			}
			out = append(out, marked...)
		}
	}
	return out, nil
}

func (e *Engine) markBackup(ctx context.Context, actor event.Actor, r *runner, q BackupRequest) ([]BackupKey, error) {
	var ids []string
	err := e.appendZone(ctx, actor, r, func(s State) (event.Facts, error) {
		ids = nil
		for _, id := range q.Keys {
			if k, ok := s.Keys.ByID(id); !ok {
				return nil, fmt.Errorf("key %s of zone %s: %w", id, s.Name, ErrNotFound)
			} else if k.Foreign {
				return nil, errorState("key %s belongs to another signer: its private part is not here", id)
			}
		}
		for _, k := range s.Keys.ToBackUp(q.Before) {
			if len(q.Keys) == 0 || slices.Contains(q.Keys, k.ID) {
				ids = append(ids, k.ID)
			}
		}
		if len(ids) == 0 {
			return nil, nil
		}
		return &event.KeyBackedUp{IDs: ids}, nil
	})
	if err != nil {
		return nil, err
	}
	if len(q.Zones) > 0 {
		r.awaitRollovers(ctx)
	}
	s := r.snapshot()
	var out []BackupKey
	for _, id := range ids {
		if k, ok := s.Keys.ByID(id); ok {
			out = append(out, BackupKey{Zone: s.Name, Key: k})
		}
	}
	return out, nil
}

// backupNotices tells which keys wait for their backup mark. The caller holds
// mu.
func backupNotices(s State, p Policy) []Notice {
	if !p.Rollovers().Backup || p.Mode() != ModeSign {
		return nil
	}
	var waiting []string
	for _, k := range s.Keys.ToBackUp(time.Time{}) {
		if k.Activated.IsZero() {
			waiting = append(waiting, k.ID)
		}
	}
	if len(waiting) == 0 {
		return nil
	}
	n := Notice{
		Severity: severityInfo, Code: NoticeBackupWanted, Text: "not used before they are marked as backed up: keys " + strings.Join(waiting, ", "),
		Hint: "copy the keystore, then: sluice key backup mark " + s.Name,
	}
	if len(s.Keys.Signing()) == 0 {
		n.Severity, n.Text = severityWarning, "the zone is not signed before its keys are marked as backed up: "+strings.Join(waiting, ", ")
	}
	return []Notice{n}
}
