package pipeline

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"sluice/journal/event"
	"sluice/signer/zone"
)

const (
	// catalogPause is the least time between two looks at catalogs where nothing
	// is left to do, producePause that between two versions of one that is
	// produced. Both are the machine's time, which no rehearsal stops.
	catalogPause = time.Second
	producePause = 5 * time.Second
	// catalogAgain is when what could not be done is tried again.
	catalogAgain = 15 * time.Minute
	// catalogBatch is how many members are added by one append; catalogRound how
	// many are added, changed or announced between two looks at the catalog.
	catalogBatch = 64
	catalogRound = 1024
	// catalogRemovals is how many members are removed at a time: each asks its
	// parent. removalRound bounds those between two looks.
	catalogRemovals = 16
	removalRound    = 64
	// catalogFresh bounds the new zones that have neither been published nor
	// failed, so that they do not stand before all others for long.
	catalogFresh = 256
	// catalogSettle is how long new zones are waited for, where there are too many,
	// and settleLook how often they are looked at meanwhile.
	catalogSettle = time.Minute
	settleLook    = 20 * time.Millisecond
	// shownMembers bounds what is told of one catalog by name.
	shownMembers = 20
)

// catalogs is what this process knows of catalogs besides what is folded.
type catalogs struct {
	wake chan struct{} // something moved

	mu      sync.Mutex
	seen    map[event.ZoneID]catalogSeen // guarded by mu; by consumed catalog
	follow  bool                         // guarded by mu; what consumed ones ask for, or what is here of it, may have changed
	produce bool                         // guarded by mu; what is published has changed
	made    map[event.ZoneID]*madeList   // guarded by mu; produced ones whose list this process made, by catalog

	// Only the loop uses what follows.

	fresh []*runner                 // zones that were added lately
	tried map[string]refusedRemoval // removals that were refused lately, by zone
	next  time.Time                 // when consumed ones are to be followed next; zero for when something moves
	// produced is when those that are produced were last made, by the machine's clock.
	produced time.Time
}

// refusedRemoval is a removal that was refused.
type refusedRemoval struct {
	at  time.Time
	err error
}

// catalogSeen is what the last look at a consumed catalog found.
type catalogSeen struct {
	At        time.Time
	Members   int // zones here that came from it
	Waiting   int // listed and not added yet
	Unlisted  int // whose removal is announced
	Conflicts []memberConflict
	Faults    []memberConflict // what could not be done, and why
	Failed    int              // all of these
	Unmapped  []string
	Next      time.Time // the next removal
	Trouble   string    // why the catalog could not be looked at
}

func newCatalogs() catalogs {
	return catalogs{wake: make(chan struct{}, 1), seen: map[event.ZoneID]catalogSeen{}, made: map[event.ZoneID]*madeList{}, follow: true, produce: true, tried: map[string]refusedRemoval{}}
}

// poke has the consumed catalogs looked at.
func (c *catalogs) poke() {
	c.mu.Lock()
	c.follow = true
	c.mu.Unlock()
	c.rouse()
}

// rouse ends the loop's rest.
func (c *catalogs) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// takeFollow reports whether the consumed catalogs are to be looked at now, and
// takes note that they are.
func (c *catalogs) takeFollow(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	wanted := c.follow || !c.next.IsZero() && !c.next.After(now)
	c.follow = false
	return wanted
}

func (c *catalogs) of(id event.ZoneID) (catalogSeen, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen, ok := c.seen[id]
	return seen, ok
}

// zoneMoved takes note of a folded event of a zone, as far as catalogs depend on
// it.
func (e *Engine) zoneMoved(was, now State) {
	if len(e.catalogsNow()) == 0 {
		return
	}
	c, own := e.catalogOf(now.Zone)
	published := (was.Published == nil) != (now.Published == nil)
	if own && c.consumed() && (published || was.Published != nil && was.Published.Seq != now.Published.Seq || was.Brake != now.Brake || was.Source != now.Source) {
		e.catalogs.poke()
	}
	if published || was.Policy.Name != now.Policy.Name {
		e.catalogs.moved(now.Zone)
	}
}

// changed notes that what produced catalogs list may have changed. That is no
// reason to read those that are consumed.
func (c *catalogs) changed() {
	c.mu.Lock()
	c.produce = true
	c.mu.Unlock()
	c.rouse()
}

// instanceMoved takes note of a folded event of the whole instance.
func (e *Engine) instanceMoved(f event.Facts) {
	switch f := f.(type) {
	case *event.CatalogAdded, *event.CatalogChanged, *event.CatalogRemoved:
		e.catalogs.relisted()
		e.catalogs.poke()
	case *event.ZoneRemoved: // its name may be wanted
		if len(e.catalogsNow()) > 0 {
			e.catalogs.moved(f.ID)
			e.catalogs.poke()
		}
	}
}

// tendCatalogs follows the catalogs until ctx ends: the members of those that are
// consumed, and the contents of those that are produced. It is the work of the
// main process, and rests where there is no catalog.
func (e *Engine) tendCatalogs(ctx context.Context) {
	for ctx.Err() == nil {
		if e.catalogs.takeFollow(e.clock.Now()) {
			e.catalogs.next = e.followCatalogs(ctx)
		}
		soon := e.produceCatalogs(ctx)
		e.restCatalogs(ctx, e.catalogs.next, soon)
	}
}

// restCatalogs waits until something moves, or until then; zero waits for the
// former alone. soon ends it after that time of the machine's, where not zero.
func (e *Engine) restCatalogs(ctx context.Context, then time.Time, soon time.Duration) {
	if !then.IsZero() && !then.After(e.clock.Now()) {
		return
	}
	var due, now <-chan time.Time
	if !then.IsZero() {
		at, stop := e.clock.Timer(then)
		defer stop()
		due = at
	}
	if soon > 0 {
		t := time.NewTimer(soon)
		defer t.Stop()
		now = t.C
	}
	select {
	case <-e.catalogs.wake:
	case <-due:
	case <-now:
		return
	case <-ctx.Done():
		return
	}
	pause := time.NewTimer(catalogPause)
	defer pause.Stop()
	select { // what moves within a moment is looked at together
	case <-pause.C:
	case <-ctx.Done():
	}
}

// followCatalogs brings the members of the consumed catalogs a step closer to
// what they list, and says when to look again: zero for when something moves, a
// time that has passed for at once.
func (e *Engine) followCatalogs(ctx context.Context) (next time.Time) {
	sooner := func(at time.Time) {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	all := e.catalogsNow()
	var by map[event.ZoneID][]memberNow
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		if !c.consumed() || ctx.Err() != nil {
			continue
		}
		if by == nil {
			by = e.membersByCatalog()
		}
		seen, more, err := e.followCatalog(ctx, c, by[c.ID])
		if ctx.Err() != nil {
			return time.Time{}
		}
		seen.At = e.clock.Now()
		if err != nil {
			seen.Trouble = oneLine(err.Error())
			e.log.WarnContext(ctx, "catalog not followed", "zone", c.Name, "error", err)
		}
		e.catalogs.mu.Lock()
		e.catalogs.seen[c.ID] = seen
		e.catalogs.mu.Unlock()
		switch {
		case more && err == nil:
			sooner(e.clock.Now())
		case err != nil || seen.Failed > 0 || len(seen.Conflicts) > 0:
			sooner(e.clock.Now().Add(catalogAgain))
		}
		if !seen.Next.IsZero() {
			sooner(seen.Next)
		}
	}
	e.forgetCatalogs(all)
	return next
}

// forgetCatalogs drops what was seen of catalogs that are gone.
func (e *Engine) forgetCatalogs(all map[string]Catalog) {
	here := map[event.ZoneID]bool{}
	for _, c := range all {
		here[c.ID] = true
	}
	e.catalogs.mu.Lock()
	defer e.catalogs.mu.Unlock()
	maps.DeleteFunc(e.catalogs.seen, func(id event.ZoneID, _ catalogSeen) bool { return !here[id] })
}

// membersByCatalog lists the zones that came from catalogs.
func (e *Engine) membersByCatalog() map[event.ZoneID][]memberNow {
	by := map[event.ZoneID][]memberNow{}
	for _, r := range e.allRunners() {
		if s := r.snapshot(); s.Member != nil && s.Removed == 0 {
			by[s.Member.CatalogID] = append(by[s.Member.CatalogID], catalogMemberOf(s))
		}
	}
	return by
}

func catalogMemberOf(s State) memberNow {
	m := memberNow{Name: s.Name, Member: *s.Member, Source: s.Source, Policy: s.Policy.Name}
	if m.Policy == "" {
		m.Policy = s.Added.Facts.Policy
	}
	return m
}

// entriesOf reads the version of a catalog that is published.
func (e *Engine) entriesOf(c Catalog, s State) ([]catalogEntry, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	v, err := e.store.Loaded(s.Zone, s.Published.Loaded.Seq)
	if err != nil {
		return nil, e.note(err)
	}
	defer v.Close() //nolint:errcheck // read only
	it, err := v.Kind(zone.KindContents)
	if err != nil {
		return nil, err
	}
	r := newCatalogReader(apex, c.Settings.MaxMembers)
	for it.Next() && err == nil {
		err = r.add(it.Key(), it.Value())
	}
	if err = errors.Join(err, it.Err(), it.Close()); err != nil {
		return nil, err
	}
	return r.finish()
}

// planFor plans what the published version of a catalog asks for.
func (e *Engine) planFor(c Catalog, s State, members []memberNow) (catalogPlan, error) {
	in := catalogInput{
		Name: c.Name, ID: c.ID, Settings: c.Settings, Source: s.Source, Ending: c.Ending,
		Members: members, Other: e.otherZone(), Now: e.clock.Now(),
	}
	if s.Published != nil {
		in.Loaded, in.Serial = s.Published.Loaded.Seq, s.Published.Loaded.Facts.Serial
		in.Approved = s.Brake != nil && s.Brake.Approved == in.Loaded
	}
	if !c.Ending {
		var err error
		if in.Entries, err = e.entriesOf(c, s); err != nil {
			return catalogPlan{}, err
		}
	}
	return planCatalog(in), nil
}

// otherZone looks up zones that are here. Catalogs that give members away are
// read once.
func (e *Engine) otherZone() func(name string) (otherZone, bool) {
	owners := map[string]map[string]string{} // by catalog: the new owner by member
	return func(name string) (otherZone, bool) {
		r, err := e.find(name)
		if err != nil {
			return otherZone{}, false
		}
		s := r.snapshot()
		if s.Member == nil {
			return otherZone{}, true
		}
		c, ok := e.listedBy(s)
		if !ok {
			return otherZone{Catalog: s.Member.Catalog, Former: true}, true
		}
		if owners[c.Name] == nil {
			owners[c.Name] = e.ownersIn(c)
		}
		return otherZone{Catalog: c.Name, Owner: owners[c.Name][name]}, true
	}
}

// ownersIn are the catalogs that a catalog gives members to.
func (e *Engine) ownersIn(c Catalog) map[string]string {
	to := map[string]string{}
	r, err := e.find(c.Name)
	if err != nil || r.snapshot().Published == nil {
		return to
	}
	entries, err := e.entriesOf(c, r.snapshot())
	if err != nil {
		return to
	}
	for _, entry := range entries {
		if entry.Owner != "" {
			to[entry.Name] = entry.Owner
		}
	}
	return to
}

// followCatalog does a part of what a catalog asks for; more where something is
// left that can be done at once.
func (e *Engine) followCatalog(ctx context.Context, c Catalog, members []memberNow) (seen catalogSeen, more bool, err error) {
	seen = catalogSeen{Members: len(members)}
	r, err := e.find(c.Name)
	if err != nil {
		return seen, false, err
	}
	s := r.snapshot()
	if s.Published == nil && !c.Ending {
		return seen, false, nil // its publication wakes us
	}
	p, err := e.planFor(c, s, members)
	if err != nil {
		return seen, false, err
	}
	for _, m := range members {
		if m.Member.Unlisted != nil {
			seen.Unlisted++
		}
	}
	seen.Conflicts, seen.Unmapped, seen.Next, seen.Waiting = p.Conflicts, p.unmapped(), p.Next, len(p.Add)
	w := catalogWork{e: e, c: c, actor: event.Actor{Name: "catalog " + c.Name, Door: "dns"}, seen: &seen}
	if s.Published != nil {
		w.cause = s.Published.Seq
	}
	if err := w.hold(ctx, r, p.Held); err != nil {
		return seen, false, err
	}
	for _, do := range []func(context.Context, catalogPlan) (bool, error){w.unlist, w.change, w.remove, w.add} {
		left, err := do(ctx, p)
		if more = more || left; err != nil {
			return seen, false, err
		}
	}
	if c.Ending && len(members) == 0 {
		return seen, false, w.end(ctx)
	}
	return seen, more, nil
}
