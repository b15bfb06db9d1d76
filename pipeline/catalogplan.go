package pipeline

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
)

// goneAtOnce is for how long removals that were announced count together.
const goneAtOnce = day

// memberNow is a zone that a catalog lists, or did.
type memberNow struct {
	Name   string
	Member Member
	Source string // what the zone has by now, also by hand
	Policy string
}

// memberWish is what a catalog wants of a member.
type memberWish struct {
	Name string
	event.Membership
}

// otherZone is a zone that is here and does not come from the catalog.
type otherZone struct {
	// Catalog is the name of the one that it comes from; "" where it is a zone
	// on its own. Former: that catalog is gone, and left the zone behind.
	Catalog string
	Former  bool
	// Owner is the catalog that its own one gives it to (coo); "" for none.
	Owner string
}

// catalogInput is what a plan follows from: a version of a catalog, the zones
// that came from it, and what else is here.
type catalogInput struct {
	Name     string
	ID       event.ZoneID
	Settings event.CatalogSettings
	Source   string // of members, where the settings name none
	Ending   bool

	Loaded   uint64 // sequence of the version
	Serial   uint32
	Approved bool // a person let it through
	Entries  []catalogEntry

	Members []memberNow
	Other   func(name string) (otherZone, bool)
	Now     time.Time
}

// memberChange is a member that is to be listed as the catalog says by now.
type memberChange struct {
	memberWish
	Before *memberNow // nil: it comes from another catalog
	Reset  bool
	Former string
}

// memberConflict is a member that cannot be taken up.
type memberConflict struct {
	Name string
	Why  string
}

// catalogPlan is what a version of a catalog asks for.
type catalogPlan struct {
	Add       []memberWish
	Change    []memberChange
	Unlist    []memberNow // their removal is to be announced
	Remove    []memberNow // it was, and its time has come
	Held      *event.CatalogHeld
	Conflicts []memberConflict
	// Unmapped are groups that no policy is named for, with how many members
	// they have.
	Unmapped map[string]int
	// Next is when the next removal is due; zero for none.
	Next time.Time
}

// planCatalog says what a version of a catalog asks for. It is pure, and what is
// done of it makes the next plan smaller: it may be done in parts.
func planCatalog(in catalogInput) catalogPlan {
	p := catalogPlan{Unmapped: map[string]int{}}
	here := make(map[string]*memberNow, len(in.Members))
	for i := range in.Members {
		here[in.Members[i].Name] = &in.Members[i]
	}
	listed := make(map[string]bool, len(in.Entries))
	for _, entry := range in.Entries {
		if in.Ending {
			break
		}
		listed[entry.Name] = true
		w := in.wish(entry, &p)
		if m := here[entry.Name]; m != nil {
			if change, ok := in.change(w, m); ok {
				p.Change = append(p.Change, change)
			}
			continue
		}
		in.take(w, &p)
	}
	in.drop(listed, &p)
	byName := func(a, b memberNow) int { return strings.Compare(a.Name, b.Name) }
	slices.SortFunc(p.Unlist, byName)
	slices.SortFunc(p.Remove, func(a, b memberNow) int {
		return cmp.Or(cmp.Compare(a.Member.Unlisted.Facts.Due, b.Member.Unlisted.Facts.Due), byName(a, b))
	})
	return p
}

// wish is what an entry asks for.
func (in *catalogInput) wish(entry catalogEntry, p *catalogPlan) memberWish {
	policy, group := policyOf(in.Settings, entry.Groups)
	if group == "" && len(entry.Groups) > 0 {
		group = entry.Groups[0]
		p.Unmapped[group]++
	}
	return memberWish{entry.Name, event.Membership{
		Catalog: in.Name, CatalogID: in.ID, Label: entry.Label, Group: group, Serial: in.Serial,
		Source: cmp.Or(in.Settings.MemberSource, in.Source), Policy: policy,
	}}
}

// change is what a wish changes of a member that is here.
func (in *catalogInput) change(w memberWish, m *memberNow) (memberChange, bool) {
	before := m.Member.Membership
	before.Serial = w.Serial
	if before == w.Membership && m.Member.Unlisted == nil {
		return memberChange{}, false
	}
	return memberChange{memberWish: w, Before: m, Reset: before.Label != w.Label}, true
}

// take takes up a member that does not come from the catalog yet: a new zone, or
// one that its own catalog gives away.
func (in *catalogInput) take(w memberWish, p *catalogPlan) {
	other, ok := in.Other(w.Name)
	conflict := func(why string) { p.Conflicts = append(p.Conflicts, memberConflict{w.Name, why}) }
	switch {
	case !ok:
		p.Add = append(p.Add, w)
	case other.Catalog == "":
		conflict("it is a zone on its own here")
	case other.Former && other.Catalog == in.Name, !other.Former && other.Owner == in.Name:
		former := other.Catalog
		if other.Former {
			former = ""
		}
		p.Change = append(p.Change, memberChange{memberWish: w, Former: former})
	case other.Former:
		conflict("it is a zone on its own here, left by catalog " + other.Catalog)
	default:
		conflict("it comes from catalog " + other.Catalog + ", which does not give it to this one (coo)")
	}
}

// drop says what becomes of the members that the catalog does not list.
func (in *catalogInput) drop(listed map[string]bool, p *catalogPlan) {
	var gone []memberNow
	recent := uint64(0)
	for _, m := range in.Members {
		if listed[m.Name] {
			continue
		}
		u := m.Member.Unlisted
		if u == nil {
			gone = append(gone, m)
			continue
		}
		if !u.Facts.Approved && in.Now.Sub(u.Time) < goneAtOnce {
			recent++
		}
		switch due := u.due(); {
		case !in.Now.Before(due):
			p.Remove = append(p.Remove, m)
		case p.Next.IsZero() || due.Before(p.Next):
			p.Next = due
		}
	}
	if len(gone) == 0 {
		return
	}
	count, members := uint64(len(gone)), uint64(len(in.Members))
	limit := max(in.Settings.MaxRemovals, in.Settings.MaxRemovalsPercent*members/100)
	if in.Ending || in.Approved || len(listed) > 0 && count+recent <= limit {
		p.Unlist = gone
		return
	}
	p.Held = &event.CatalogHeld{Loaded: in.Loaded, Serial: in.Serial, Members: members, Gone: count, Limit: limit}
	p.Remove, p.Next = nil, time.Time{}
}

// unmapped lists the groups without a policy, sorted.
func (p *catalogPlan) unmapped() []string { return slices.Sorted(maps.Keys(p.Unmapped)) }
