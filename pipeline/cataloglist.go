package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// mostMoved bounds the zones that are looked at one by one for the next version
// of a produced catalog. Where more have moved, all are.
const mostMoved = 4096

// madeList is what this process knows of the list that it made last of a produced
// catalog, so that the next one costs what has changed since.
type madeList struct {
	digest event.Hash            // of the contents; zero until they are made
	moved  map[event.ZoneID]bool // zones that may have to be listed otherwise
}

// moved notes that produced catalogs may have to list a zone otherwise. The zone's
// state is visible already.
func (c *catalogs) moved(id event.ZoneID) {
	c.mu.Lock()
	for catalog, list := range c.made {
		if list.moved[id] = true; len(list.moved) > mostMoved {
			delete(c.made, catalog)
		}
	}
	c.mu.Unlock()
	c.changed()
}

// relisted notes that produced catalogs may have to list any zone otherwise.
func (c *catalogs) relisted() {
	c.mu.Lock()
	clear(c.made)
	c.mu.Unlock()
	c.changed()
}

// beginList begins the list that a catalog has from now on: what moves while it
// is made is noted for the one after it. Where base are the contents that were
// made last, moved is what has moved since; else it is nil.
func (c *catalogs) beginList(id event.ZoneID, base *Loaded) (list *madeList, moved map[event.ZoneID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	last := c.made[id]
	list = &madeList{moved: map[event.ZoneID]bool{}}
	c.made[id] = list
	if base != nil && last != nil && last.digest == base.Facts.ContentDigest {
		moved = last.moved
	}
	return list, moved
}

// endList notes the digest of a list that was made; zero: it was not.
func (c *catalogs) endList(id event.ZoneID, list *madeList, digest event.Hash) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.made[id] != list: // too much has moved meanwhile
	case digest == (event.Hash{}):
		delete(c.made, id)
	default:
		list.digest = digest
	}
}

// loadCatalog makes a produced catalog's contents: of the zones that have moved,
// where the contents before are those that were made last, else of all zones.
func (e *Engine) loadCatalog(ctx context.Context, s State, c Load, p Policy, report func(Progress)) (facts *event.InstanceLoaded, err error) {
	if err := producible(p); err != nil {
		return nil, err
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	base := s.loaded(c.Base)
	list, moved := e.catalogs.beginList(s.Zone, base)
	facts = &event.InstanceLoaded{Source: c.Source, Base: c.Base}
	defer func() {
		var digest event.Hash
		if err == nil {
			digest = facts.ContentDigest
		} else if errors.Is(err, errUnchanged) && base != nil {
			digest = base.Facts.ContentDigest
		}
		e.catalogs.endList(s.Zone, list, digest)
	}()
	cat, ok := e.catalogOf(s.Zone)
	if !ok {
		return nil, fmt.Errorf("zone %s is no catalog: %w", s.Name, ErrState)
	}
	if moved != nil && !toldAnyway(s, c, p) {
		return facts, e.changeList(ctx, s, c, p, e.listingOf(cat), moved, facts)
	}
	if err := take(ctx, e.heavy); err != nil {
		return nil, err
	}
	defer give(e.heavy)
	in, err := e.wholeList(ctx, apex, e.published(cat), report)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // temporary files
	return facts, e.takeLoaded(ctx, s, c, p, in, facts)
}

// changeList sends what differs of the zones that have moved. It reads and holds
// their records, nothing else of the catalog.
func (e *Engine) changeList(ctx context.Context, s State, c Load, p Policy, l listing, moved map[event.ZoneID]bool, facts *event.InstanceLoaded) (err error) {
	apex, err := apexOf(s)
	if err != nil {
		return err
	}
	z, err := e.newZoneEdit(s, c.Base, apex, p)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.close()) }()
	for id := range moved {
		node, err := e.memberNode(l, id).records(apex)
		if err != nil {
			return err
		}
		for _, rr := range node {
			if err := z.replace(rr); err != nil {
				return err
			}
		}
	}
	if changed, err := z.changed(); err != nil {
		return err
	} else if !changed {
		return errUnchanged
	}
	base, _ := baseOf(s, c.Base) // known: the list is that of the base
	facts.RRsets, facts.Records, facts.MaxTTL = base.RRsets, base.Records, base.MaxTTL
	if err := takeZONEMD(facts, p, zone.ZONEMDAbsent); err != nil {
		return err
	}
	return e.sendEdit(ctx, s, c, z, catalogFile, zone.GlueIgnore, facts)
}

// memberNode is the member node of a zone: without a name where it is not listed.
func (e *Engine) memberNode(l listing, id event.ZoneID) publishedMember {
	e.mu.RLock()
	r := e.runners[id]
	e.mu.RUnlock()
	if r != nil {
		if s := r.snapshot(); l.has(s) {
			return l.member(s)
		}
	}
	return publishedMember{label: memberLabel(id)}
}

// records are the records that a member node may have (RFC 9432, 4): one without
// data is not there.
func (m publishedMember) records(apex zone.Name) ([]xfr.Record, error) {
	owner, err := zone.ParseNameAt(m.label+".zones", apex)
	if err != nil {
		return nil, err
	}
	member := xfr.Record{Owner: []byte(owner), Type: typePTR}
	if m.name != "" {
		name, err := zone.ParseName(m.name)
		if err != nil {
			return nil, err
		}
		member.RData = []byte(name)
	}
	if owner, err = zone.ParseNameAt("group."+m.label+".zones", apex); err != nil {
		return nil, err
	}
	group := xfr.Record{Owner: []byte(owner), Type: zone.TypeTXT}
	if m.group != "" {
		group.RData = append([]byte{byte(len(m.group))}, m.group...)
	}
	return []xfr.Record{member, group}, nil
}

// catalogFile names a produced catalog in errors.
const catalogFile = "catalog"

// catalogHead is what each catalog has beside its members (RFC 9432, 4). The serial
// is that of what is published, by the policy.
func catalogHead(apex zone.Name) ([]xfr.Record, error) {
	version, err := zone.ParseNameAt("version", apex)
	if err != nil {
		return nil, err
	}
	const nobody = "\x07invalid\x00"
	soa := []byte(nobody + nobody)
	for _, n := range []uint32{1, 3600, 600, 1<<31 - 2, 0} {
		soa = binary.BigEndian.AppendUint32(soa, n)
	}
	return []xfr.Record{
		{Owner: []byte(apex), Type: zone.TypeSOA, RData: soa},
		{Owner: []byte(apex), Type: zone.TypeNS, RData: []byte(nobody)},
		{Owner: []byte(version), Type: zone.TypeTXT, RData: []byte("\x012")},
	}, nil
}

// wholeList is a catalog of all its members.
func (e *Engine) wholeList(ctx context.Context, apex zone.Name, members []publishedMember, report func(Progress)) (in *zone.Loaded, err error) {
	to, err := zone.NewReceiver(ctx, zone.LoadOptions{File: catalogFile, Origin: apex, Spill: e.spill, Memory: transferMemory, Glue: zone.GlueIgnore})
	if err != nil {
		return nil, err
	}
	add := func(records []xfr.Record, err error) error {
		for _, rr := range records {
			if err == nil && rr.RData != nil {
				err = to.Add(rr.Owner, rr.Type, 0, rr.RData)
			}
		}
		return err
	}
	err = add(catalogHead(apex))
	for i, m := range members {
		if err != nil {
			break
		}
		if i%4096 == 0 {
			report(Progress{Stage: "load", Done: int64(i), Total: int64(len(members))})
		}
		err = add(m.records(apex))
	}
	if err != nil {
		return nil, errors.Join(err, to.Close())
	}
	return to.Finish()
}
