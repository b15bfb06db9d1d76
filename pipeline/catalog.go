package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/xfr"
)

// Catalog is a catalog zone (RFC 9432) as the registry knows it: one that is
// consumed, or one that is produced.
type Catalog struct {
	Seq      uint64                `json:"seq"` // of the newest event about it
	Time     time.Time             `json:"time"`
	Name     string                `json:"name"`
	ID       event.ZoneID          `json:"id"` // of its own zone
	Kind     string                `json:"catalog_kind"`
	Settings event.CatalogSettings `json:"settings"`
	// Ending: it was removed, and its members are being removed.
	Ending bool `json:"ending,omitempty"`
}

func (c Catalog) consumed() bool { return c.Kind == event.CatalogConsumed }

// Member is a zone's place in the catalog that it comes from.
type Member struct {
	event.Membership

	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Reset is the sequence of the event that asked for it to be loaded anew; 0
	// for none.
	Reset uint64 `json:"reset,omitempty"`
	// Unlisted is set while its removal is announced.
	Unlisted *Unlisted `json:"unlisted,omitempty"`
}

// Unlisted is the removal of a zone that was announced.
type Unlisted struct {
	Seq  uint64    `json:"seq"`
	Time time.Time `json:"time"`
	// Facts are those of its event.
	Facts event.MemberUnlisted `json:"facts"`
}

func (u Unlisted) due() time.Time { return time.Unix(u.Facts.Due, 0).UTC() }

// Brake is what holds the changes of a consumed catalog, and what a person let
// through.
type Brake struct {
	Held *CatalogHold `json:"held,omitempty"`
	// Approved is the sequence of the loaded instance that was let through last.
	Approved uint64 `json:"approved,omitempty"`
}

// CatalogHold is a version of a catalog whose removals wait for a person.
type CatalogHold struct {
	Time  time.Time         `json:"time"`
	Facts event.CatalogHeld `json:"facts"`
}

// held is the hold of the version that is published; nil where there is none.
func (s State) catalogHold() *CatalogHold {
	if s.Brake == nil || s.Brake.Held == nil || s.Published == nil {
		return nil
	}
	if at := s.Published.Loaded.Seq; s.Brake.Held.Facts.Loaded != at || s.Brake.Approved == at {
		return nil
	}
	return s.Brake.Held
}

// evolveCatalog folds what catalogs say of a zone, and what becomes of a
// catalog's own versions.
func evolveCatalog(s State, rec journal.Record) (State, bool) {
	switch f := rec.Event.Facts.(type) {
	case *event.MemberListed:
		m := Member{Membership: f.Membership, Seq: rec.Seq, Time: rec.Event.Time}
		if s.Member != nil {
			m.Reset = s.Member.Reset
		}
		if f.Reset {
			m.Reset = rec.Seq
		}
		s.Member = &m
	case *event.MemberUnlisted:
		if s.Member == nil {
			return s, true
		}
		m := *s.Member
		m.Unlisted = &Unlisted{Seq: rec.Seq, Time: rec.Event.Time, Facts: *f}
		s.Member = &m
	case *event.CatalogHeld:
		b := s.brake()
		b.Held = &CatalogHold{Time: rec.Event.Time, Facts: *f}
		s.Brake = &b
	case *event.CatalogApproved:
		b := s.brake()
		b.Approved = f.Loaded
		s.Brake = &b
	default:
		return s, false
	}
	return s, true
}

func (s State) brake() Brake {
	if s.Brake == nil {
		return Brake{}
	}
	return *s.Brake
}

// resetWanted reports whether a catalog asked for the zone to be loaded anew in
// full, and it was not yet.
func (s State) resetWanted() bool {
	return s.Member != nil && s.Loaded != nil && s.Loaded.Seq < s.Member.Reset
}

// foldCatalogs folds the events of the whole instance that are about catalogs.
// What it returns is a new map where something changed.
func foldCatalogs(by map[string]Catalog, rec journal.Record) map[string]Catalog {
	switch f := rec.Event.Facts.(type) {
	case *event.CatalogAdded:
		return withCatalog(by, Catalog{Seq: rec.Seq, Time: rec.Event.Time, Name: f.Name, ID: f.ID, Kind: f.Kind, Settings: f.Settings})
	case *event.CatalogChanged:
		if c, ok := by[f.Name]; ok && c.ID == f.ID {
			c.Seq, c.Settings = rec.Seq, f.Settings
			return withCatalog(by, c)
		}
	case *event.CatalogRemoved:
		if c, ok := by[f.Name]; ok && c.ID == f.ID {
			if f.Keep {
				return withoutCatalog(by, f.Name)
			}
			c.Seq, c.Ending = rec.Seq, true
			return withCatalog(by, c)
		}
	case *event.ZoneRemoved:
		if c, ok := by[f.Name]; ok && c.ID == f.ID {
			return withoutCatalog(by, f.Name)
		}
	}
	return by
}

func withCatalog(by map[string]Catalog, c Catalog) map[string]Catalog {
	if by = maps.Clone(by); by == nil {
		by = map[string]Catalog{}
	}
	by[c.Name] = c
	return by
}

func withoutCatalog(by map[string]Catalog, name string) map[string]Catalog {
	by = maps.Clone(by)
	delete(by, name)
	return by
}

// catalogsNow are the catalogs that are here, by name. The map is not to be
// changed.
func (e *Engine) catalogsNow() map[string]Catalog {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.registry.Catalogs
}

// catalogOf is the catalog whose own zone has an ID.
func (e *Engine) catalogOf(id event.ZoneID) (Catalog, bool) {
	for _, c := range e.catalogsNow() {
		if c.ID == id {
			return c, true
		}
	}
	return Catalog{}, false
}

// listedBy is the catalog that a zone comes from; false where it comes from
// none, or from one that was removed without it.
func (e *Engine) listedBy(s State) (Catalog, bool) {
	if s.Member == nil {
		return Catalog{}, false
	}
	c, ok := e.catalogsNow()[s.Member.Catalog]
	return c, ok && c.ID == s.Member.CatalogID
}

// removable refuses the removal of a zone that its catalog would add again, and
// of a catalog's own zone.
func (e *Engine) removable(s State) error {
	if c, ok := e.catalogOf(s.Zone); ok {
		return errorState("zone %s is a catalog: sluice catalog remove %s", s.Name, c.Name)
	}
	c, ok := e.listedBy(s)
	if !ok || c.Ending || s.Member.Unlisted != nil {
		return nil
	}
	return errorState("zone %s comes from catalog %s, which would add it again: remove it from the catalog at its source, or: sluice catalog remove %s --keep-members",
		s.Name, c.Name, c.Name)
}

// catalogKeepsSource refuses a source that a catalog's own zone cannot have.
func (e *Engine) catalogKeepsSource(id event.ZoneID, source string) error {
	c, ok := e.catalogOf(id)
	switch {
	case !ok:
		return nil
	case !c.consumed():
		return errorState("catalog %s is made here: it has no other source", c.Name)
	case !IsTransfer(source):
		return fmt.Errorf("%w: source %q of catalog %s: want servers, IP[:PORT][^TSIGKEY]", ErrInvalid, source, c.Name)
	}
	return nil
}

// catalogsOfTSIG lists the catalogs that give members a source with a TSIG key.
func (e *Engine) catalogsOfTSIG(key string) (users []string) {
	all := e.catalogsNow()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		servers, err := ParseSource(all[name].Settings.MemberSource)
		if err == nil && slices.ContainsFunc(servers, func(ep xfr.Endpoint) bool { return ep.Key == key }) {
			users = append(users, "catalog "+name)
		}
	}
	return users
}

// describeCatalog tells events about catalogs and their members as sentences;
// empty for others.
func describeCatalog(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.CatalogAdded:
		return fmt.Sprintf("catalog %s added, to be %s%s", f.Name, f.Kind, settingsText(f.Settings))
	case *event.CatalogChanged:
		return fmt.Sprintf("catalog %s has other settings%s", f.Name, settingsText(f.Settings))
	case *event.CatalogRemoved:
		if f.Keep {
			return fmt.Sprintf("catalog %s removed; its members stay as zones on their own", f.Name)
		}
		return fmt.Sprintf("catalog %s removed; so are its members, each after it was announced", f.Name)
	case *event.CatalogHeld:
		return fmt.Sprintf("serial %d of the catalog lists %d of %d members no more, and %d may go at once: nothing is removed until a person approves it",
			f.Serial, f.Gone, f.Members, f.Limit)
	case *event.CatalogApproved:
		return fmt.Sprintf("the removal of %d members by serial %d of the catalog approved%s", f.Gone, f.Serial, because(f.Reason))
	case *event.MemberListed:
		m := f.Membership
		text := fmt.Sprintf("catalog %s, serial %d, lists it as %s%s: source %s, policy %s", m.Catalog, m.Serial, m.Label, groupText(m.Group), m.Source, m.Policy)
		if f.Former != "" {
			text += "; before, it came from catalog " + f.Former
		}
		if f.Reset {
			text += "; its label is another one, so it is loaded anew in full, and keeps its keys"
		}
		return text
	case *event.MemberUnlisted:
		return fmt.Sprintf("catalog %s, serial %d, lists it no more: it is removed at %s unless that changes",
			f.Catalog, f.Serial, time.Unix(f.Due, 0).UTC().Format(time.RFC3339))
	}
	return ""
}

func groupText(group string) string {
	if group == "" {
		return ""
	}
	return fmt.Sprintf(" in group %q", group)
}

// settingsText tells settings in words.
func settingsText(s event.CatalogSettings) string {
	var parts []string
	if s.Policy != "" {
		parts = append(parts, "policy "+s.Policy)
	}
	for _, g := range s.Groups {
		parts = append(parts, fmt.Sprintf("group %q with policy %s", g.Group, g.Policy))
	}
	if s.MemberSource != "" {
		parts = append(parts, "members from "+s.MemberSource)
	}
	if s.MaxMembers > 0 {
		parts = append(parts, fmt.Sprintf("at most %d members", s.MaxMembers), "at once at most "+limitText(s)+" removed",
			fmt.Sprintf("removals after %s", time.Duration(s.RemovalDelay)*time.Second)) //nolint:gosec // bounded at the door
	}
	if len(s.Policies) > 0 {
		parts = append(parts, "zones of "+strings.Join(s.Policies, ", "))
	}
	if len(parts) == 0 {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// limitText tells how many members may go at once.
func limitText(s event.CatalogSettings) string {
	switch {
	case s.MaxRemovalsPercent == 0:
		return fmt.Sprint(s.MaxRemovals)
	case s.MaxRemovals == 0:
		return fmt.Sprintf("%d %%", s.MaxRemovalsPercent)
	}
	return fmt.Sprintf("%d or %d %%, whichever is more,", s.MaxRemovals, s.MaxRemovalsPercent)
}

// policyOf is the policy of members of some groups, and the group that decided
// it; "" where none of them is mapped.
func policyOf(s event.CatalogSettings, groups []string) (policy, group string) {
	for _, g := range s.Groups {
		if slices.Contains(groups, g.Group) {
			return g.Policy, g.Group
		}
	}
	return s.Policy, ""
}
