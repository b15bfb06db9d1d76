package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer"
	"sluice/signer/zone"
)

// version is one instance of a zone opened for reading, one iterator a kind.
type version struct {
	parts  []zone.Iterator // contents first
	meta   store.InstanceMeta
	signed bool // the signer's SOA stands in the place of the input's
	close  func() error
}

// target is the instance that somebody asks for.
type target struct {
	id     event.ZoneID
	loaded bool
	seq    uint64 // of instance.loaded or instance.signed
	upTo   uint64 // the event up to which the zone must be folded
}

// resolve finds the instance behind a query: by serial or time among those
// that were published (or, for loaded ones, loaded), else the newest.
func (e *Engine) resolve(ctx context.Context, name string, q DumpQuery) (target, error) {
	id, err := e.historyID(ctx, name)
	if err != nil {
		return target{}, err
	}
	t := target{id: id, loaded: q.Loaded}
	other := uint64(0) // an instance of the other stage with that serial
	var grants State   // what a former owner wrote does not count
	err = e.journal.Read(ctx, id, 1, q.Seq, func(rec journal.Record) error {
		if !grants.Counts(rec) {
			return nil
		}
		if !q.At.IsZero() && rec.Event.Time.After(q.At) {
			return errEnough
		}
		if _, ok := rec.Event.Facts.(*event.WorkerGranted); ok {
			grants = evolveWorkers(grants, rec)
		}
		seq, serial, ok := candidate(rec, q.Loaded)
		if ok && (q.Serial == nil || *q.Serial == serial) {
			t.seq, t.upTo = seq, rec.Seq
		}
		if seq, serial, ok := candidate(rec, !q.Loaded); ok && q.Serial != nil && *q.Serial == serial {
			other = seq
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return target{}, err
	}
	if t.seq == 0 {
		return target{}, fmt.Errorf("zone %s: %s: %w", name, noVersion(q, other), ErrNotFound)
	}
	return t, nil
}

// noVersion says what a query did not find; other is the instance of the other
// stage that has its serial, 0 for none.
func noVersion(q DumpQuery, other uint64) string {
	stage, others := "published", "l"
	if q.Loaded {
		stage, others = "loaded", "s"
	}
	switch {
	case q.Serial != nil && other != 0:
		return fmt.Sprintf("no %s version has the serial %d, but %s%d has it", stage, *q.Serial, others, other)
	case q.Serial != nil:
		return fmt.Sprintf("no version has the serial %d", *q.Serial)
	case !q.At.IsZero():
		return fmt.Sprintf("no version was %s by %s", stage, q.At.UTC().Format(time.RFC3339))
	case q.Seq != 0:
		return fmt.Sprintf("no version was %s up to event %d", stage, q.Seq)
	}
	return fmt.Sprintf("no version was %s yet", stage)
}

// candidate tells the instance that an event makes available.
func candidate(rec journal.Record, loaded bool) (seq uint64, serial uint32, ok bool) {
	switch f := rec.Event.Facts.(type) {
	case *event.InstanceLoaded:
		return rec.Seq, f.Serial, loaded
	case *event.InstancePublished:
		return f.Signed, f.Serial, !loaded
	}
	return 0, 0, false
}

// open reads an instance from the projection where that still holds it, else
// from a scratch projection folded up to it.
func (e *Engine) open(ctx context.Context, t target) (*version, error) {
	v, err := openVersion(e.store, t)
	if err == nil || !errors.Is(err, store.ErrNoInstance) {
		return v, err
	}
	if err := e.isInstance(ctx, t); err != nil {
		return nil, err
	}
	if t.loaded {
		// What was signed is not needed, as a rule: it is most of the zone.
		if v, err := e.rebuild(ctx, t, true); !errors.Is(err, store.ErrNoInstance) {
			return v, err
		}
	}
	v, err = e.rebuild(ctx, t, false)
	if errors.Is(err, store.ErrNoInstance) {
		return nil, e.notHeld(ctx, t)
	}
	return v, err
}

// rebuild reads an instance from a scratch projection that is folded up to it,
// with unsigned without all that was signed. Errors: store.ErrNoInstance where
// that does not lead to it.
func (e *Engine) rebuild(ctx context.Context, t target, unsigned bool) (v *version, err error) {
	s, err := e.newScratch(ctx, t.id)
	if err != nil {
		return nil, err
	}
	s.limit, s.lenient, s.unsigned = t.upTo, true, unsigned
	if err = s.reach(ctx, t.seq); err == nil {
		err = s.fold(ctx, func(journal.Record) error { return nil })
	}
	if err == nil {
		v, err = openVersion(s.store, t)
	}
	if errors.Is(err, store.ErrNoInstance) && s.purges.passed.Has(t.seq) {
		err = e.purgedVersion("", t.id) // the archive does not hold it
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	inner := v.close
	v.close = func() error { return errors.Join(inner(), s.close()) }
	return v, nil
}

// isInstance reports ErrNotFound where the journal names no such instance.
func (e *Engine) isInstance(ctx context.Context, t target) (err error) {
	if t.loaded {
		_, _, err = factsAt[*event.InstanceLoaded](ctx, e.journal, t.id, t.seq)
	} else {
		_, _, err = factsAt[*event.InstanceSigned](ctx, e.journal, t.id, t.seq)
	}
	return err
}

// notHeld says that the journal holds an instance's chunks no longer, and which
// published version is the oldest that can be had.
func (e *Engine) notHeld(ctx context.Context, t target) error {
	stage := event.StageSigned
	if t.loaded {
		stage = event.StageLoaded
	}
	gone := fmt.Sprintf("the contents of instance %s are no longer held", instanceWordOf(stage, t.seq))
	s, err := e.newScratch(ctx, t.id)
	if err != nil {
		return err
	}
	defer s.close() //nolint:errcheck // a scratch folder
	s.lenient = true
	oldest := ""
	err = s.fold(ctx, func(rec journal.Record) error {
		f, ok := rec.Event.Facts.(*event.InstancePublished)
		if !ok {
			return nil
		}
		v, err := s.store.Signed(s.id, f.Signed)
		if err != nil {
			return nil //nolint:nilerr // this one is not held either
		}
		oldest = fmt.Sprintf("serial %d, s%d, published at %s", f.Serial, f.Signed, rec.Event.Time.Format(time.RFC3339))
		return errors.Join(v.Close(), errEnough)
	})
	switch {
	case err != nil && !errors.Is(err, errEnough):
		return err
	case oldest == "":
		return fmt.Errorf("%s, nor those of any other: %w", gone, ErrNotFound)
	}
	return fmt.Errorf("%s; the oldest version that is: %s: %w", gone, oldest, ErrNotFound)
}

// openVersion opens an instance that a store holds.
func openVersion(st *store.Store, t target) (*version, error) {
	open := st.Signed
	if t.loaded {
		open = st.Loaded
	}
	view, err := open(t.id, t.seq)
	if err != nil {
		return nil, err
	}
	v := &version{meta: view.Meta(), signed: !t.loaded && !view.Meta().Whole}
	v.close = func() error {
		var err error
		for _, it := range v.parts {
			err = errors.Join(err, it.Close())
		}
		return errors.Join(err, view.Close())
	}
	for _, kind := range []zone.Kind{
		zone.KindContents, zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs,
	} {
		it, err := view.Kind(kind)
		if err != nil {
			return nil, errors.Join(err, v.close())
		}
		v.parts = append(v.parts, it)
	}
	return v, nil
}

// contents walks what came from the source, without DNSSEC records.
func (v *version) contents() zone.Iterator { return v.parts[0] }

// signedItems walks a signed instance in canonical order, all kinds merged.
func signedItems(st *store.Store, id event.ZoneID, seq uint64) (zone.Iterator, error) {
	v, err := openVersion(st, target{id: id, seq: seq})
	if err != nil {
		return nil, err
	}
	return &versionItems{Iterator: zone.Merge(v.parts...), version: v}, nil
}

// versionItems closes the version with the iterator.
type versionItems struct {
	zone.Iterator
	version *version
}

// Close implements zone.Iterator.
func (v *versionItems) Close() error { return v.version.close() }

// Dump writes an instance as a zone file in canonical order.
func (e *Engine) Dump(ctx context.Context, name string, q DumpQuery, w io.Writer) error {
	t, err := e.resolve(ctx, name, q)
	if err != nil {
		return err
	}
	v, err := e.open(ctx, t)
	if err != nil {
		return err
	}
	defer v.close() //nolint:errcheck // read only
	out, items := zone.NewWriter(w), zone.Merge(v.parts...)
	for items.Next() {
		if err := out.WriteItem(items.Key(), items.Value()); err != nil {
			return err
		}
	}
	if err := items.Err(); err != nil {
		return err
	}
	return out.Flush()
}

// Diff calls fn for each record that differs between two versions, each a
// serial of a published instance, l<seq>, s<seq>, seq:N or a time.
func (e *Engine) Diff(ctx context.Context, name, from, to string, fn func(DiffLine) error) error {
	a, err := e.openNamed(ctx, name, from)
	if err != nil {
		return err
	}
	defer a.close() //nolint:errcheck // read only
	b, err := e.openNamed(ctx, name, to)
	if err != nil {
		return err
	}
	defer b.close() //nolint:errcheck // read only
	return diffVersions(a, b, fn)
}

// diffVersions calls fn for each record that differs.
func diffVersions(a, b *version, fn func(DiffLine) error) error {
	for i := range a.parts {
		err := zone.DiffItems(a.parts[i], b.parts[i], func(key, old, now []byte) error {
			if a.signed && b.signed && isInputSOA(key) {
				return nil // the signer's own SOA stands in its place
			}
			return diffRecords(key, old, now, fn)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// isInputSOA reports whether a key is that of the SOA as it was loaded.
func isInputSOA(key []byte) bool {
	kind, _, t, err := zone.SplitKey(key)
	return err == nil && kind == zone.KindContents && t == zone.TypeSOA
}

// openNamed opens the version that a word of the command line names.
func (e *Engine) openNamed(ctx context.Context, name, word string) (*version, error) {
	t, err := e.named(ctx, name, word)
	if err != nil {
		return nil, err
	}
	return e.open(ctx, t)
}

// named finds the version that a word of the command line names: an instance,
// or what was published under a serial, as of an event, or at a time.
func (e *Engine) named(ctx context.Context, name, word string) (target, error) {
	id, err := e.historyID(ctx, name)
	if err != nil {
		return target{}, err
	}
	if seq, loaded, ok := instanceWord(word); ok {
		return target{id: id, loaded: loaded, seq: seq, upTo: seq}, nil
	}
	g, err := parseGoal(word)
	if err != nil {
		return target{}, err
	}
	if word == "" {
		return target{}, fmt.Errorf("%w: no version is named", ErrInvalid)
	}
	return e.resolve(ctx, name, DumpQuery{Serial: g.serial, At: g.at, Seq: g.seq})
}

// instanceWord reads l<seq> or s<seq>.
func instanceWord(word string) (seq uint64, loaded, ok bool) {
	if len(word) < 2 || !strings.Contains("ls", word[:1]) {
		return 0, false, false
	}
	for _, c := range word[1:] {
		if c < '0' || c > '9' || seq > 1<<53 {
			return 0, false, false
		}
		seq = seq*10 + uint64(c-'0')
	}
	return seq, word[0] == 'l', true
}

// diffRecords tells the records that differ between two values of an item.
func diffRecords(key []byte, old, now zone.Value, fn func(DiffLine) error) error {
	gone, err := zone.RecordTexts(key, old)
	if err != nil {
		return err
	}
	come, err := zone.RecordTexts(key, now)
	if err != nil {
		return err
	}
	has := map[string]bool{}
	for _, text := range come {
		has[text] = true
	}
	had := map[string]bool{}
	for _, text := range gone {
		had[text] = true
		if !has[text] {
			if err := fn(DiffLine{Removed: true, Record: text}); err != nil {
				return err
			}
		}
	}
	for _, text := range come {
		if !had[text] {
			if err := fn(DiffLine{Record: text}); err != nil {
				return err
			}
		}
	}
	return nil
}

// VerifyZone verifies every signature of what is published, and the whole
// denial chain.
func (e *Engine) VerifyZone(ctx context.Context, name string, progress func(Progress)) (*signer.Report, error) {
	r, err := e.find(name)
	if err != nil {
		return nil, err
	}
	s := r.snapshot()
	switch {
	case s.Published == nil:
		return nil, fmt.Errorf("zone %s is not published: %w", name, ErrState)
	case s.Published.Signed.mode() == ModeUnsigned:
		return nil, fmt.Errorf("zone %s is published unsigned, there is no signature to verify; see: sluice zone check %s: %w", name, name, ErrState)
	}
	if progress != nil {
		progress(Progress{Zone: s.Name, Stage: "verify"})
	}
	return e.verifyInstance(ctx, s, s.Published.Signed.Seq, signer.VerifyOptions{AlsoSigning: alsoSigning(s, s.Published.Signed.Facts)})
}
