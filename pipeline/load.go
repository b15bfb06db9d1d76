package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// errUnchanged reports that the source holds what was loaded already.
var errUnchanged = errors.New("source unchanged")

// doLoad reads the source into a loaded instance: a new generation, or what
// changed against the one before.
func (e *Engine) doLoad(ctx context.Context, s State, c Load, report func(Progress)) ([]event.Facts, error) {
	began, mark := e.clock.Now(), machineTime()
	loaded, err := e.load(ctx, s, c, report)
	e.counts.loaded(ctx, c.Source, mark, err)
	return e.loadOutcome(ctx, s, c.Source, loaded, began, err)
}

// loadOutcome is what a load that began then leads to: an instance, a failure,
// or nothing where it is the same as before.
func (e *Engine) loadOutcome(ctx context.Context, s State, source string, loaded *event.InstanceLoaded, began time.Time, err error) ([]event.Facts, error) {
	switch {
	case err == nil:
		loaded.DurationMS = uint64(max(0, e.clock.Now().Sub(began).Milliseconds()))
		return []event.Facts{loaded}, nil
	case errors.Is(err, errUnchanged):
		return nil, nil
	case ctx.Err() != nil:
		return nil, err
	}
	failed := loadFailed(source, err)
	if last := s.LoadFailure; last != nil && last.Reason == failed.Reason && last.Source == failed.Source &&
		slices.Equal(last.Errors, failed.Errors) {
		return nil, err
	}
	return []event.Facts{failed}, err
}

// loadFailed tells an operator why input was refused.
func loadFailed(source string, err error) *event.LoadFailed {
	failed := &event.LoadFailed{Source: source, Reason: oneLine(err.Error()), Total: 1}
	if le, ok := errors.AsType[*zone.LoadError](err); ok {
		failed.Reason = fmt.Sprintf("%s: %d errors", sourceName(source), le.Total)
		if le.Total == 1 && len(le.Errors) == 1 {
			failed.Reason = oneLine(le.Errors[0].Error())
		}
		failed.Total = uint64(le.Total)
		for _, fe := range le.Errors {
			failed.Errors = append(failed.Errors, oneLine(fe.Error()))
		}
	}
	return failed
}

// sourceName is a file's name without its folder, or the servers.
func sourceName(source string) string {
	if IsTransfer(source) || IsUpdateSource(source) {
		return source
	}
	return filepath.Base(source)
}

// oneLine keeps a message to one line of bounded length.
func oneLine(s string) string {
	const longest = 500
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && !unicode.IsSpace(r) {
			return '?' // a terminal would obey it
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > longest {
		s = strings.ToValidUTF8(s[:longest], "") + " ..."
	}
	return s
}

func (e *Engine) load(ctx context.Context, s State, c Load, report func(Progress)) (*event.InstanceLoaded, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	if c.Source == CatalogSource {
		return e.loadCatalog(ctx, s, c, p, report)
	}
	servers, err := ParseSource(c.Source)
	if err != nil {
		return nil, err
	}
	if servers != nil {
		return e.loadTransfer(ctx, s, c, servers, report)
	}
	if err := take(ctx, e.heavy); err != nil {
		return nil, err
	}
	defer give(e.heavy)
	files, name, closeFiles, err := sourceFile(c.Source)
	if err != nil {
		return nil, err
	}
	defer closeFiles() //nolint:errcheck // opened for reading
	in, err := zone.Load(ctx, zone.LoadOptions{
		FS: files, File: name, Origin: apex, Spill: e.spill,
		MaxTTL: p.loadTTL(), ClampTTL: p.ClampTTL(), KeepSigned: c.PassThrough, SkipZONEMD: p.Checks().ZONEMD == zonemdIgnore,
		Glue:     p.Checks().Glue,
		Progress: func(read, total int64) { report(Progress{Stage: "load", Done: read, Total: total}) },
	})
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // temporary files
	facts := &event.InstanceLoaded{Source: c.Source, Base: c.Base, PassThrough: c.PassThrough, UpdatesTo: c.UpdatesTo}
	return facts, e.takeLoaded(ctx, s, c, p, in, facts)
}

// takeLoaded sends a whole zone that was read, or what it changes against the
// base, and fills in the facts.
func (e *Engine) takeLoaded(ctx context.Context, s State, c Load, p Policy, in *zone.Loaded, facts *event.InstanceLoaded) (err error) {
	catalog, err := e.catalogCheck(s)
	if err != nil {
		return err
	}
	if catalog != nil {
		in.Items = &catalogTee{Iterator: in.Items, reader: catalog}
	}
	out := newChunkSink(ctx, e.journal.NewChunks(s.Zone, c.Identity()))
	if c.Base == 0 {
		err = loadWhole(in, out, facts)
	} else {
		err = e.loadDiff(s, c, p, in, out, facts)
	}
	if err != nil {
		return err
	}
	if catalog != nil {
		if _, err := catalog.finish(); err != nil {
			return err
		}
	}
	facts.Serial = uint32(in.Serial)
	facts.RRsets, facts.Records = in.RRsets, in.Records+in.Kept.Records
	facts.Signatures, facts.Earliest = in.Kept.Signatures, in.Kept.Earliest
	if err := takeZONEMD(facts, p, in.ZONEMD); err != nil {
		return err
	}
	facts.Stripped, facts.Notices = in.Stripped, in.Notices
	facts.ContentDigest = in.ContentState.Sum()
	if err := out.putState(in.ContentState); err != nil {
		return err
	}
	facts.Manifest, err = out.finish()
	return err
}

// loadWhole sends everything.
func loadWhole(in *zone.Loaded, out *chunkSink, facts *event.InstanceLoaded) error {
	for in.Items.Next() {
		facts.MaxTTL = max(facts.MaxTTL, zone.Value(in.Items.Value()).TTL())
		if err := out.Put(in.Items.Key(), in.Items.Value()); err != nil {
			return err
		}
	}
	facts.Added = in.Records + in.Kept.Records
	return in.Items.Err()
}

// loadDiff merges the file with the instance before and sends what differs.
func (e *Engine) loadDiff(s State, c Load, p Policy, in *zone.Loaded, out *chunkSink, facts *event.InstanceLoaded) error {
	before, err := e.store.LoadedItems(s.Zone, c.Base)
	if err != nil {
		return err
	}
	defer before.Close() //nolint:errcheck // read only
	changes := 0
	if base := s.loaded(c.Base); base != nil {
		facts.MaxTTL = base.Facts.MaxTTL
	}
	err = zone.DiffItems(before, in.Items, func(key, old, now []byte) error {
		changes++
		removed, added := recordChanges(old, now)
		facts.Removed += removed
		facts.Added += added
		if len(now) > 0 {
			facts.MaxTTL = max(facts.MaxTTL, zone.Value(now).TTL())
		}
		return out.Put(key, now)
	})
	if err != nil {
		return err
	}
	if changes == 0 && !toldAnyway(s, c, p) {
		return errUnchanged
	}
	return nil
}

// toldAnyway reports whether good input is told though it is the same as before:
// where a failure stands there, or a hold has ended, it ends the one, and completes
// the other.
func toldAnyway(s State, c Load, p Policy) bool {
	return s.LoadFailure != nil || s.Released != nil || s.updated() || newlyRead(s, c, p)
}

// newlyRead reports whether a load is the first of another source, which updates
// wait for.
func newlyRead(s State, c Load, p Policy) bool {
	base, known := baseOf(s, c.Base)
	return p.TakesUpdates() && known && base.Source != c.Source
}

// recordChanges counts the records that an RRset loses and gains.
func recordChanges(old, now zone.Value) (removed, added uint64) {
	if len(old) > 0 && len(now) > 0 && old.TTL() == now.TTL() && string(old.Owner()) == string(now.Owner()) {
		has := map[string]bool{}
		for d := range old.Records() {
			has[string(d)] = true
		}
		for d := range now.Records() {
			if has[string(d)] {
				delete(has, string(d))
			} else {
				added++
			}
		}
		return uint64(len(has)), added
	}
	if len(old) > 0 {
		removed = uint64(old.Count())
	}
	if len(now) > 0 {
		added = uint64(now.Count())
	}
	return removed, added
}
