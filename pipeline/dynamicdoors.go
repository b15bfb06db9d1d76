package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"

	"sluice/signer/zone"
)

// sourceFile is the zone file of a source that is read from here.
func sourceFile(source string) (files fs.FS, name string, closeFiles func() error, err error) {
	if IsUpdateSource(source) {
		files, err = beginning(source)
		return files, beginningFile, func() error { return nil }, err
	}
	opened, err := OpenZoneFile(source)
	if err != nil {
		return nil, "", nil, fmt.Errorf("open source: %w", err)
	}
	return opened, opened.Name, opened.Close, nil
}

// fitsUpdates refuses a source and a policy that do not go together.
func fitsUpdates(source string, p Policy) error {
	switch {
	case IsUpdateSource(source) && !p.TakesUpdates():
		return fmt.Errorf("%w: source %s is filled by dynamic updates, and policy %s allows nobody to send any: add a [[loader.update]] rule to it, then: sluice policy reload",
			ErrInvalid, source, p.Name)
	case IsTransfer(source) && p.TakesUpdates():
		return fmt.Errorf("%w: policy %s takes dynamic updates (loader.update), and the next transfer from %s would undo them: choose another policy, or a file as the source",
			ErrInvalid, p.Name, source)
	}
	return nil
}

// fitsChange is fitsUpdates for a zone that is to change, where either does. What
// updates made cannot be passed through.
func (e *Engine) fitsChange(s State, c ZoneChange) error {
	if (c.Source == "" || c.Source == s.Source) && (c.Policy == "" || c.Policy == s.Policy.Name) {
		return nil
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return err
	}
	if c.Policy != "" {
		p, _ = e.policy(c.Policy)
	}
	source := cmp.Or(c.Source, s.Source)
	if s.updated() && p.passThrough() && source == s.Source {
		return errorState("zone %s was changed by dynamic updates, and policy %s passes through what its source has: give it another source with it", s.Name, p.Name)
	}
	return fitsUpdates(source, p)
}

// mayReplace decides whether a reload may put the source's contents in the place
// of those that dynamic updates made: only in full, and confirmed. The refusal
// says what would be lost.
func (e *Engine) mayReplace(ctx context.Context, s State, full, replace bool) error {
	if !s.updated() || s.Updates.Source != s.Source {
		return nil
	}
	if !full {
		return errorState("zone %s takes dynamic updates, and its source was only its beginning; to put that in the place of what the updates made: sluice zone reload --full %s",
			s.Name, s.Name)
	}
	if replace {
		return nil
	}
	gone, come, err := e.differs(ctx, s)
	if err != nil {
		return err
	}
	return errorState("zone %s was changed by dynamic updates: %d records of it are not in its source and would go, %d would come back; to do so: sluice zone reload --full --replace %s",
		s.Name, gone, come, s.Name)
}

// differs counts the records of the newest contents that the source has not, and
// those that it has beside them, the SOA left out.
func (e *Engine) differs(ctx context.Context, s State) (gone, come uint64, err error) {
	apex, err := apexOf(s)
	if err != nil {
		return 0, 0, err
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return 0, 0, err
	}
	base := loadBase(s, p)
	if base == 0 {
		return 0, 0, nil
	}
	if err := take(ctx, e.heavy); err != nil {
		return 0, 0, err
	}
	defer give(e.heavy)
	files, name, closeFiles, err := sourceFile(s.Source)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: %w", ErrState, err)
	}
	defer closeFiles() //nolint:errcheck // opened for reading
	in, err := zone.Load(ctx, zone.LoadOptions{
		FS: files, File: name, Origin: apex, Spill: e.spill, MaxTTL: p.loadTTL(), ClampTTL: p.ClampTTL(),
		SkipZONEMD: p.Checks().ZONEMD == zonemdIgnore, Glue: p.Checks().Glue,
	})
	if err != nil {
		return 0, 0, fmt.Errorf("%w: the source cannot be loaded: %w", ErrState, err)
	}
	defer in.Close() //nolint:errcheck // temporary files
	before, err := e.store.LoadedItems(s.Zone, base)
	if err != nil {
		return 0, 0, e.note(err)
	}
	defer before.Close() //nolint:errcheck // read only
	err = zone.DiffItems(before, in.Items, func(key, old, now []byte) error {
		if !isInputSOA(key) {
			removed, added := recordChanges(old, now)
			gone, come = gone+removed, come+added
		}
		return nil
	})
	return gone, come, err
}
