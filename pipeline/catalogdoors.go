package pipeline

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// What a consumed catalog has where nothing else is said.
const (
	usualMaxMembers      = 100_000
	usualRemovals        = 10
	usualRemovalsPercent = 10
	usualRemovalDelay    = 7 * 24 * 3600
)

// Bounds of a catalog's settings.
const (
	mostMembers      = 1_000_000
	mostRemovalDelay = 365 * 24 * 3600
	mostGroups       = 1000
)

// NewCatalog is what AddCatalog needs.
type NewCatalog struct {
	Name string `json:"name"`
	// Kind is "consumed" or "produced".
	Kind string `json:"catalog_kind"`
	// Source is the servers of a consumed catalog.
	Source string `json:"source,omitempty"`
	// Policy is that of members without a group that is mapped, "" is "default";
	// of a produced catalog its own.
	Policy       string               `json:"policy,omitempty"`
	Groups       []event.CatalogGroup `json:"groups,omitempty"`
	MemberSource string               `json:"member_source,omitempty"`
	MaxMembers   uint64               `json:"max_members,omitempty"`
	// MaxRemovals and MaxRemovalsPercent: absent, both are 10; the larger counts.
	MaxRemovals        *uint64 `json:"max_removals,omitempty"`
	MaxRemovalsPercent *uint64 `json:"max_removals_percent,omitempty"`
	// RemovalDelay is in seconds; absent, seven days.
	RemovalDelay *uint64 `json:"removal_delay,omitempty"`
	// Policies are those whose zones a produced catalog lists; none: all zones.
	Policies []string `json:"policies,omitempty"`
}

// CatalogChange is what SetCatalog is asked for; what is absent stays.
type CatalogChange struct {
	Source string `json:"source,omitempty"`
	Policy string `json:"policy,omitempty"`
	// Groups takes the place of all groups that there are.
	Groups             *[]event.CatalogGroup `json:"groups,omitempty"`
	MemberSource       *string               `json:"member_source,omitempty"` // "" is the catalog's own
	MaxMembers         uint64                `json:"max_members,omitempty"`
	MaxRemovals        *uint64               `json:"max_removals,omitempty"`
	MaxRemovalsPercent *uint64               `json:"max_removals_percent,omitempty"`
	RemovalDelay       *uint64               `json:"removal_delay,omitempty"`
	// Policies takes the place of all; an empty list is all zones.
	Policies *[]string `json:"policies,omitempty"`
}

// AddCatalog adds a catalog zone. Members of a consumed one are zones from its
// first version on; a produced one is made at once. Errors: ErrInvalid,
// ErrNotFound (policy, TSIG key), ErrState (the name is taken).
func (e *Engine) AddCatalog(ctx context.Context, actor event.Actor, n NewCatalog) (CatalogStatus, error) {
	var settings event.CatalogSettings
	z := NewZone{Name: n.Name, NewKeys: true}
	var err error
	switch n.Kind {
	case event.CatalogConsumed:
		settings, err = e.consumedSettings(n)
		z.Source, z.Policy = n.Source, CatalogPolicy
		if err == nil && !IsTransfer(n.Source) {
			err = fmt.Errorf("%w: source %q of catalog %s: want servers, IP[:PORT][^TSIGKEY]", ErrInvalid, n.Source, n.Name)
		}
	case event.CatalogProduced:
		settings, err = e.producedSettings(n)
		z.Policy = n.Policy
	default:
		err = fmt.Errorf("%w: catalog_kind %q: want %s or %s", ErrInvalid, n.Kind, event.CatalogConsumed, event.CatalogProduced)
	}
	if err == nil {
		err = e.checkCatalog(settings)
	}
	if err != nil {
		return CatalogStatus{}, err
	}
	facts, err := e.catalogZone(ctx, z, n.Kind)
	if err != nil {
		return CatalogStatus{}, err
	}
	err = e.appendInstanceAll(ctx, actor, 0, []event.Facts{
		&event.CatalogAdded{Name: facts.Name, ID: facts.ID, Kind: n.Kind, Settings: settings}, facts,
	}, func() error {
		if _, ok := e.names[facts.Name]; ok {
			return fmt.Errorf("zone %s is already here: %w; see: sluice zone status %s", facts.Name, ErrState, facts.Name)
		}
		return nil
	})
	if err != nil {
		return CatalogStatus{}, err
	}
	return e.Catalog(ctx, facts.Name)
}

// catalogZone makes the event that adds a catalog's own zone.
func (e *Engine) catalogZone(ctx context.Context, z NewZone, kind string) (*event.ZoneAdded, error) {
	if kind == event.CatalogConsumed {
		return e.newZone(ctx, z)
	}
	apex, err := zone.ParseName(z.Name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	p, err := e.usablePolicy(z.Policy)
	if err != nil {
		return nil, err
	}
	if err := producible(p); err != nil {
		return nil, err
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	facts := &event.ZoneAdded{
		Name: apex.Fold().String(), ID: event.ZoneID(hex.EncodeToString(id[:])), Source: CatalogSource, Policy: z.Policy,
	}
	before, err := e.former(ctx, facts.Name)
	if err != nil {
		return nil, err
	}
	before.resume(facts, false)
	return facts, nil
}

func (e *Engine) consumedSettings(n NewCatalog) (event.CatalogSettings, error) {
	s := event.CatalogSettings{
		Policy: cmp.Or(n.Policy, "default"), Groups: n.Groups, MaxMembers: cmp.Or(n.MaxMembers, usualMaxMembers),
		MaxRemovals: usualRemovals, MaxRemovalsPercent: usualRemovalsPercent, RemovalDelay: usualRemovalDelay,
	}
	if n.MaxRemovals != nil || n.MaxRemovalsPercent != nil {
		s.MaxRemovals, s.MaxRemovalsPercent = valueOf(n.MaxRemovals), valueOf(n.MaxRemovalsPercent)
	}
	if n.RemovalDelay != nil {
		s.RemovalDelay = *n.RemovalDelay
	}
	if len(n.Policies) > 0 {
		return s, fmt.Errorf("%w: policies are for a catalog that is produced", ErrInvalid)
	}
	var err error
	s.MemberSource, err = e.memberSource(n.MemberSource)
	return s, err
}

func (e *Engine) producedSettings(n NewCatalog) (event.CatalogSettings, error) {
	s := event.CatalogSettings{Groups: n.Groups, Policies: n.Policies}
	switch {
	case n.Source != "" || n.MemberSource != "" || n.MaxMembers != 0 || n.MaxRemovals != nil || n.MaxRemovalsPercent != nil || n.RemovalDelay != nil:
		return s, fmt.Errorf("%w: source, member source and limits are for a catalog that is consumed", ErrInvalid)
	case n.Policy == "":
		return s, fmt.Errorf("%w: catalog %s has no policy: it says who may fetch it (provide-xfr-to), and has signer.mode = \"unsigned\"", ErrInvalid, n.Name)
	}
	return s, nil
}

// memberSource checks the source of members; "" is the catalog's own.
func (e *Engine) memberSource(source string) (string, error) {
	if source == "" {
		return "", nil
	}
	if !IsTransfer(source) {
		return "", fmt.Errorf("%w: member source %q: want servers, IP[:PORT][^TSIGKEY]", ErrInvalid, source)
	}
	return e.checkSource(source)
}

func valueOf(n *uint64) uint64 {
	if n == nil {
		return 0
	}
	return *n
}

// checkCatalog holds settings against their bounds and the policies that are
// here.
func (e *Engine) checkCatalog(s event.CatalogSettings) error {
	switch {
	case s.MaxMembers > mostMembers:
		return fmt.Errorf("%w: max-members %d: want at most %d", ErrInvalid, s.MaxMembers, mostMembers)
	case s.MaxRemovalsPercent > 100:
		return fmt.Errorf("%w: max-removals %d%%: want at most 100%%", ErrInvalid, s.MaxRemovalsPercent)
	case s.MaxRemovals > mostMembers:
		return fmt.Errorf("%w: max-removals %d: want at most %d", ErrInvalid, s.MaxRemovals, mostMembers)
	case s.RemovalDelay > mostRemovalDelay:
		return fmt.Errorf("%w: removal-delay: want at most a year", ErrInvalid)
	case len(s.Groups) > mostGroups:
		return fmt.Errorf("%w: %d groups: want at most %d", ErrInvalid, len(s.Groups), mostGroups)
	}
	policies := slices.Clone(s.Policies)
	if s.Policy != "" {
		policies = append(policies, s.Policy)
	}
	for _, g := range s.Groups {
		if g.Group == "" || len(g.Group) > maxGroupLength {
			return fmt.Errorf("%w: group %q: want 1 to %d octets", ErrInvalid, g.Group, maxGroupLength)
		}
		policies = append(policies, g.Policy)
	}
	for _, name := range policies {
		if _, err := e.usablePolicy(name); err != nil {
			return err
		}
	}
	return nil
}

// findCatalog is a catalog by name.
func (e *Engine) findCatalog(name string) (Catalog, error) {
	n, err := zone.ParseName(name)
	if err != nil {
		return Catalog{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c, ok := e.catalogsNow()[n.Fold().String()]
	if !ok {
		return Catalog{}, fmt.Errorf("catalog %s: %w", name, ErrNotFound)
	}
	return c, nil
}

// SetCatalog changes how a catalog is followed, or what it lists. Errors:
// ErrInvalid, ErrNotFound, ErrState (it is being removed).
func (e *Engine) SetCatalog(ctx context.Context, actor event.Actor, name string, ch CatalogChange) (CatalogStatus, error) {
	c, err := e.findCatalog(name)
	if err != nil {
		return CatalogStatus{}, err
	}
	s, err := e.changedSettings(c, ch)
	if err == nil {
		err = e.checkCatalog(s)
	}
	if err != nil {
		return CatalogStatus{}, err
	}
	own := ZoneChange{Source: ch.Source}
	if !c.consumed() {
		own.Policy = ch.Policy
	}
	if own != (ZoneChange{}) {
		if err := e.setCatalogZone(ctx, actor, c, own); err != nil {
			return CatalogStatus{}, err
		}
	}
	if !sameSettings(s, c.Settings) {
		err = e.appendInstance(ctx, actor, &event.CatalogChanged{Name: c.Name, ID: c.ID, Settings: s}, func() error { return e.liveLocked(c) })
		if err != nil {
			return CatalogStatus{}, err
		}
	}
	return e.Catalog(ctx, c.Name)
}

// setCatalogZone changes the source or the policy of a catalog's own zone.
func (e *Engine) setCatalogZone(ctx context.Context, actor event.Actor, c Catalog, ch ZoneChange) error {
	if ch.Policy != "" {
		p, err := e.usablePolicy(ch.Policy)
		if err != nil {
			return err
		}
		if err := producible(p); err != nil {
			return err
		}
	}
	_, err := e.SetZone(ctx, actor, c.Name, ch)
	return err
}

// liveLocked refuses a catalog that changed or went meanwhile. The caller holds
// mu.
func (e *Engine) liveLocked(c Catalog) error {
	now, ok := e.registry.Catalogs[c.Name]
	switch {
	case !ok || now.ID != c.ID:
		return fmt.Errorf("catalog %s: %w", c.Name, ErrNotFound)
	case now.Ending:
		return errorState("catalog %s was removed, and its members are being removed", c.Name)
	case now.Seq != c.Seq:
		return errorState("catalog %s was changed meanwhile: ask again", c.Name)
	}
	return nil
}

func sameSettings(a, b event.CatalogSettings) bool {
	same := slices.Equal(a.Groups, b.Groups) && slices.Equal(a.Policies, b.Policies)
	return same && a.Policy == b.Policy && a.MemberSource == b.MemberSource && a.MaxMembers == b.MaxMembers &&
		a.MaxRemovals == b.MaxRemovals && a.MaxRemovalsPercent == b.MaxRemovalsPercent && a.RemovalDelay == b.RemovalDelay
}

// changedSettings are a catalog's settings after a change.
func (e *Engine) changedSettings(c Catalog, ch CatalogChange) (event.CatalogSettings, error) {
	s := c.Settings
	if ch.Groups != nil {
		s.Groups = *ch.Groups
	}
	if !c.consumed() {
		if ch.Source != "" || ch.MemberSource != nil || ch.MaxMembers != 0 || ch.MaxRemovals != nil || ch.MaxRemovalsPercent != nil || ch.RemovalDelay != nil {
			return s, fmt.Errorf("%w: source, member source and limits are for a catalog that is consumed", ErrInvalid)
		}
		if ch.Policies != nil {
			s.Policies = *ch.Policies
		}
		return s, nil
	}
	if ch.Policies != nil {
		return s, fmt.Errorf("%w: policies are for a catalog that is produced", ErrInvalid)
	}
	if ch.Source != "" && !IsTransfer(ch.Source) {
		return s, fmt.Errorf("%w: source %q: want servers, IP[:PORT][^TSIGKEY]", ErrInvalid, ch.Source)
	}
	s.Policy, s.MaxMembers = cmp.Or(ch.Policy, s.Policy), cmp.Or(ch.MaxMembers, s.MaxMembers)
	if ch.MemberSource != nil {
		var err error
		if s.MemberSource, err = e.memberSource(*ch.MemberSource); err != nil {
			return s, err
		}
	}
	if ch.MaxRemovals != nil || ch.MaxRemovalsPercent != nil {
		s.MaxRemovals, s.MaxRemovalsPercent = valueOf(ch.MaxRemovals), valueOf(ch.MaxRemovalsPercent)
	}
	if ch.RemovalDelay != nil {
		s.RemovalDelay = *ch.RemovalDelay
	}
	return s, nil
}

// RemoveCatalog ends a catalog. With keep its members stay as zones on their own;
// else the removal of each is announced, and its own zone goes after the last of
// them. Errors: ErrNotFound, ErrState (it is being removed).
func (e *Engine) RemoveCatalog(ctx context.Context, actor event.Actor, name string, keep bool) error {
	c, err := e.findCatalog(name)
	if err != nil {
		return err
	}
	facts := []event.Facts{&event.CatalogRemoved{Name: c.Name, ID: c.ID, Keep: keep || !c.consumed()}}
	if keep || !c.consumed() {
		facts = append(facts, &event.ZoneRemoved{Name: c.Name, ID: c.ID})
	}
	return e.appendInstanceAll(ctx, actor, 0, facts, func() error {
		err := e.liveLocked(c)
		if keep && e.registry.Catalogs[c.Name].ID == c.ID {
			return nil // also of one that is ending: what is left of it stays
		}
		return err
	})
}

// ApproveCatalog lets the version through whose removals are held. Errors:
// ErrNotFound, ErrState (nothing is held), ErrInvalid (no reason).
func (e *Engine) ApproveCatalog(ctx context.Context, actor event.Actor, name, reason string) (CatalogStatus, error) {
	c, err := e.findCatalog(name)
	if err != nil {
		return CatalogStatus{}, err
	}
	if strings.TrimSpace(reason) == "" {
		return CatalogStatus{}, fmt.Errorf("%w: why are so many members to be removed? --reason TEXT", ErrInvalid)
	}
	r, err := e.find(c.Name)
	if err != nil {
		return CatalogStatus{}, err
	}
	err = e.appendCaused(ctx, actor, r, func(s State) (event.Facts, uint64, error) {
		h := s.catalogHold()
		if h == nil {
			return nil, 0, errorState("catalog %s: nothing is held", c.Name)
		}
		return &event.CatalogApproved{Loaded: h.Facts.Loaded, Serial: h.Facts.Serial, Gone: h.Facts.Gone, Reason: reason}, h.Facts.Loaded, nil
	})
	if err != nil {
		return CatalogStatus{}, err
	}
	return e.Catalog(ctx, c.Name)
}

// Catalogs lists the catalogs by name.
func (e *Engine) Catalogs(context.Context) ([]CatalogStatus, error) {
	all := e.catalogsNow()
	out := make([]CatalogStatus, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if st, err := e.catalogStatus(all[name]); err == nil {
			out = append(out, st)
		}
	}
	return out, nil
}

// Catalog tells how a catalog is. Errors: ErrInvalid, ErrNotFound.
func (e *Engine) Catalog(_ context.Context, name string) (CatalogStatus, error) {
	c, err := e.findCatalog(name)
	if err != nil {
		return CatalogStatus{}, err
	}
	return e.catalogStatus(c)
}

// CatalogMembers lists the members of a catalog by name: of a consumed one the
// zones that came from it and what it lists besides, of a produced one the zones
// that it lists.
func (e *Engine) CatalogMembers(_ context.Context, name string) ([]CatalogMember, error) {
	c, err := e.findCatalog(name)
	if err != nil {
		return nil, err
	}
	out := []CatalogMember{}
	if !c.consumed() {
		for _, m := range e.published(c) {
			out = append(out, CatalogMember{Zone: m.name, Label: m.label, Group: m.group, State: MemberListed})
		}
	} else if out, err = e.consumedMembers(c); err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b CatalogMember) int { return strings.Compare(a.Zone, b.Zone) })
	return out, nil
}

func (e *Engine) consumedMembers(c Catalog) ([]CatalogMember, error) {
	out := []CatalogMember{}
	members := e.membersByCatalog()[c.ID]
	for _, m := range members {
		one := CatalogMember{Zone: m.Name, Label: m.Member.Label, Group: m.Member.Group, Policy: m.Policy, State: MemberListed}
		if u := m.Member.Unlisted; u != nil {
			at := u.due()
			one.State, one.RemovalAt = MemberUnlisted, &at
		}
		out = append(out, one)
	}
	r, err := e.find(c.Name)
	if err != nil {
		return nil, err
	}
	s := r.snapshot()
	if s.Published == nil {
		return out, nil
	}
	p, err := e.planFor(c, s, members)
	if err != nil {
		return nil, err
	}
	for _, m := range p.Add {
		out = append(out, CatalogMember{Zone: m.Name, Label: m.Label, Group: m.Group, Policy: m.Policy, State: MemberWaiting})
	}
	for _, m := range p.Conflicts {
		out = append(out, CatalogMember{Zone: m.Name, State: MemberConflict, Note: m.Why})
	}
	return out, nil
}
