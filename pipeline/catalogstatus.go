package pipeline

import (
	"fmt"
	"strings"
	"time"
)

// CatalogStatus is how a catalog is.
type CatalogStatus struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Kind   string `json:"catalog_kind"` // consumed, produced
	State  string `json:"state"`        // followed, adding, held, failed, new, ending
	Source string `json:"source"`
	// Policy is that of members without a group that is mapped; of a produced
	// catalog its own.
	Policy             string        `json:"policy"`
	Groups             []GroupPolicy `json:"groups,omitempty"`
	MemberSource       string        `json:"member_source,omitempty"`
	MaxMembers         uint64        `json:"max_members,omitempty"`
	MaxRemovals        uint64        `json:"max_removals,omitempty"`
	MaxRemovalsPercent uint64        `json:"max_removals_percent,omitempty"`
	RemovalDelay       uint64        `json:"removal_delay,omitempty"` // in seconds
	Policies           []string      `json:"policies,omitempty"`      // whose zones it lists; none: all
	// Serial is that of the version that is followed, or served.
	Serial *uint32 `json:"serial,omitempty"`
	// Members are zones here that came from it; of a produced one, that it lists.
	Members   int `json:"members"`
	Waiting   int `json:"waiting"`   // listed and not added yet
	Removals  int `json:"removals"`  // announced
	Conflicts int `json:"conflicts"` // listed, and not to be taken up
	// NextRemoval is when the next member is removed.
	NextRemoval *time.Time         `json:"next_removal,omitempty"`
	Held        *CatalogHeldStatus `json:"held,omitempty"`
	Notices     []Notice           `json:"notices,omitempty"`
}

// GroupPolicy is a group of members, and the policy of their zones.
type GroupPolicy struct {
	Group  string `json:"group"`
	Policy string `json:"policy"`
}

// CatalogHeldStatus is a version whose removals wait for a person.
type CatalogHeldStatus struct {
	Serial  uint32    `json:"serial"`
	Members uint64    `json:"members"` // that were here
	Gone    uint64    `json:"gone"`    // of these, that it lists no more
	Limit   uint64    `json:"limit"`
	Since   time.Time `json:"since"`
}

// States of a member.
const (
	MemberListed   = "listed"   // a zone here, or listed by a catalog that is produced
	MemberUnlisted = "unlisted" // its removal is announced
	MemberWaiting  = "waiting"  // it is not added yet
	MemberConflict = "conflict" // it is not taken up
)

// CatalogMember is a member of a catalog.
type CatalogMember struct {
	Zone      string     `json:"zone"`
	State     string     `json:"state"` // listed, unlisted, waiting, conflict
	Label     string     `json:"label,omitempty"`
	Group     string     `json:"group,omitempty"`
	Policy    string     `json:"policy,omitempty"`
	RemovalAt *time.Time `json:"removal_at,omitempty"`
	Note      string     `json:"note,omitempty"`
}

// MembershipStatus says which catalog a zone comes from.
type MembershipStatus struct {
	Catalog   string     `json:"catalog"`
	Label     string     `json:"label"`
	Group     string     `json:"group,omitempty"`
	RemovalAt *time.Time `json:"removal_at,omitempty"`
}

// CatalogMeasure is a catalog in numbers.
type CatalogMeasure struct {
	Name, Kind                                     string
	Members, Waiting, Removals, Conflicts, Failing int
	Held                                           bool
}

// catalogStatus describes a catalog.
func (e *Engine) catalogStatus(c Catalog) (CatalogStatus, error) {
	r, err := e.find(c.Name)
	if err != nil {
		return CatalogStatus{}, err
	}
	zone := r.status()
	s := r.snapshot()
	set := c.Settings
	st := CatalogStatus{
		Name: c.Name, ID: string(c.ID), Kind: c.Kind, Source: s.Source, Policy: set.Policy,
		MemberSource: set.MemberSource, MaxMembers: set.MaxMembers, MaxRemovals: set.MaxRemovals,
		MaxRemovalsPercent: set.MaxRemovalsPercent, RemovalDelay: set.RemovalDelay, Policies: set.Policies,
		Notices: zone.Notices,
	}
	for _, g := range set.Groups {
		st.Groups = append(st.Groups, GroupPolicy(g))
	}
	seen, _ := e.catalogs.of(c.ID)
	st.Members, st.Waiting, st.Removals, st.Conflicts = seen.Members, seen.Waiting, seen.Unlisted, len(seen.Conflicts)
	st.NextRemoval = timeOrNil(seen.Next)
	if !c.consumed() {
		st.Policy, st.Members = zone.Policy, e.countPublished(c)
	}
	if p := s.Published; p != nil {
		serial := p.Signed.Facts.Serial
		if c.consumed() {
			serial = p.Loaded.Facts.Serial
		}
		st.Serial = &serial
	}
	if h := s.catalogHold(); h != nil {
		st.Held = &CatalogHeldStatus{Serial: h.Facts.Serial, Members: h.Facts.Members, Gone: h.Facts.Gone, Limit: h.Facts.Limit, Since: h.Time}
	}
	switch {
	case c.Ending:
		st.State = "ending"
	case st.Held != nil:
		st.State = "held"
	case zone.LastError != "" || seen.Trouble != "":
		st.State = "failed"
	case s.Published == nil:
		st.State = "new"
	case !c.consumed():
		st.State = "served"
	case st.Waiting > 0:
		st.State = "adding"
	default:
		st.State = "followed"
	}
	return st, nil
}

// describeCatalogs tells of a zone what catalogs have to do with it. The caller
// holds mu.
func (r *runner) describeCatalogs(st *ZoneStatus) {
	s := r.state
	if c, ok := r.e.catalogOf(s.Zone); ok {
		st.Catalog = c.Kind
		r.catalogNotices(c, st)
	}
	c, ok := r.e.listedBy(s)
	if !ok {
		return
	}
	m := s.Member
	st.Member = &MembershipStatus{Catalog: c.Name, Label: m.Label, Group: m.Group}
	u := m.Unlisted
	if u == nil {
		return
	}
	at := u.due()
	st.Member.RemovalAt = &at
	n := Notice{
		Severity: severityWarning, Code: NoticeCatalogRemoval, Since: sinceOf(u.Time),
		Text: fmt.Sprintf("catalog %s lists the zone no more: it is removed at %s, its history and keys stay", c.Name, at.Format(time.RFC3339)),
		Hint: "to keep it: list it again, or: sluice catalog remove " + c.Name + " --keep-members; to remove it now: sluice zone remove " + s.Name,
	}
	if !r.e.clock.Now().Before(at) {
		n.Text = fmt.Sprintf("catalog %s lists the zone no more, since serial %d: its removal was due at %s and waits", c.Name, u.Facts.Serial, at.Format(time.RFC3339))
		for _, fault := range r.e.catalogFaults(c) {
			if fault.Name == s.Name {
				n.Text += ": " + fault.Why
			}
		}
		n.Hint = "it is tried again by itself; look at the parent yourself, then: sluice zone remove " + s.Name + " --force"
	}
	st.Notices = append(st.Notices, n)
}

func (e *Engine) catalogFaults(c Catalog) []memberConflict {
	seen, _ := e.catalogs.of(c.ID)
	return seen.Faults
}

// catalogNotices tells what is wrong with a catalog. The caller holds mu.
func (r *runner) catalogNotices(c Catalog, st *ZoneStatus) {
	if h := r.state.catalogHold(); h != nil {
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeCatalogHeld, Since: sinceOf(h.Time),
			Text: fmt.Sprintf("serial %d of the catalog lists %d of %d members no more, and %d may go at once: nothing is removed",
				h.Facts.Serial, h.Facts.Gone, h.Facts.Members, h.Facts.Limit),
			Hint: "correct the catalog at its source; or where it is right: sluice catalog approve " + c.Name + " --reason TEXT",
		})
	}
	seen, ok := r.e.catalogs.of(c.ID)
	if !ok {
		return
	}
	if n := len(seen.Conflicts); n > 0 {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeCatalogConflict,
			Text: fmt.Sprintf("%d zones that the catalog lists are not taken from it: %s", n, conflictText(seen.Conflicts)),
			Hint: "all of them: sluice catalog show " + c.Name + " members; remove them from the catalog, or the zones here",
		})
	}
	if seen.Failed > 0 {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeCatalogMember,
			Text: fmt.Sprintf("%d members are not as the catalog wants them: %s", seen.Failed, conflictText(seen.Faults)),
			Hint: "correct that; it is tried again by itself",
		})
	}
	if seen.Trouble != "" {
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeCatalogMember, Text: "the catalog is not followed: " + seen.Trouble, Hint: "it is tried again by itself",
		})
	}
	if len(seen.Unmapped) > 0 {
		groups := seen.Unmapped[:min(len(seen.Unmapped), shownMembers)]
		st.Notices = append(st.Notices, Notice{
			Severity: severityInfo, Code: NoticeCatalogGroup,
			Text: fmt.Sprintf("no policy is named for these groups of the catalog: %q; their members have policy %s", groups, c.Settings.Policy),
			Hint: "sluice catalog set " + c.Name + " --group GROUP=POLICY, with all groups that are to be mapped",
		})
	}
}

// conflictText tells the first of some conflicts.
func conflictText(list []memberConflict) string {
	const shown = 3
	parts := make([]string, 0, shown+1)
	for _, m := range list[:min(len(list), shown)] {
		parts = append(parts, m.Name+": "+m.Why)
	}
	if len(list) > shown {
		parts = append(parts, "...")
	}
	return strings.Join(parts, "; ")
}

// catalogMeasures tells how the catalogs are, by name.
func (e *Engine) catalogMeasures() []CatalogMeasure {
	var out []CatalogMeasure
	for name, c := range e.catalogsNow() {
		seen, _ := e.catalogs.of(c.ID)
		m := CatalogMeasure{
			Name: name, Kind: c.Kind, Members: seen.Members, Waiting: seen.Waiting, Removals: seen.Unlisted,
			Conflicts: len(seen.Conflicts), Failing: seen.Failed,
		}
		if !c.consumed() {
			m.Members = e.countPublished(c)
		}
		if r, err := e.find(name); err == nil {
			m.Held = r.snapshot().catalogHold() != nil
		}
		out = append(out, m)
	}
	return out
}
