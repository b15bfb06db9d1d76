package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"sluice/journal/event"
)

// CatalogSource is the source of a catalog that is made here: the zones that are
// published.
const CatalogSource = "catalog:published"

// CatalogPolicy is the built-in policy of the zones of consumed catalogs. A
// policy file of that name stands in its place.
const CatalogPolicy = "catalog"

const catalogPolicyText = `# The built-in policy of consumed catalog zones: they are followed as they are,
# and served to nobody. A file catalog.toml among the policies stands in its place.
version = "v1"
[key-manager]
observation-interval = "0s"
[signer]
mode = "unsigned"
[server.outbound]
provide-xfr-to = []
`

// catalogPolicy is the built-in policy of that name.
func catalogPolicy() (Policy, error) { return Parse(CatalogPolicy, []byte(catalogPolicyText)) }

// producible refuses a policy that no produced catalog can have.
func producible(p Policy) error {
	switch {
	case p.Mode() != ModeUnsigned:
		return errorState("policy %s says signer.mode = %q: a catalog that is produced is not signed, want \"unsigned\"", p.Name, p.Mode())
	case p.keepsSerial():
		return errorState("policy %s says serial-policy = %q: a catalog that is produced has no serial of a source, want another one", p.Name, p.SerialPolicy())
	}
	return nil
}

// produceCatalogs has the catalogs made anew that list what is published, where
// that may have changed. It says after what time to look again; 0 for when
// something moves.
func (e *Engine) produceCatalogs(ctx context.Context) time.Duration {
	e.catalogs.mu.Lock()
	wanted := e.catalogs.produce
	e.catalogs.mu.Unlock()
	if !wanted {
		return 0
	}
	if since := machineTime().Sub(e.catalogs.produced); since < producePause {
		return producePause - since
	}
	e.catalogs.mu.Lock()
	e.catalogs.produce = false
	e.catalogs.mu.Unlock()
	all := e.catalogsNow()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		c := all[name]
		if c.consumed() {
			continue
		}
		r, err := e.find(c.Name)
		if err != nil {
			continue
		}
		if s := r.snapshot(); s.Loaded == nil || s.Held != nil || s.Maintenance != nil {
			continue // it is loaded by itself
		}
		e.catalogs.produced = machineTime()
		if err := r.ask(ctx, RoleLoad, question{Do: askReload}, func() { r.askReload(false) }); err != nil && ctx.Err() == nil {
			e.log.WarnContext(ctx, "catalog not made", "zone", c.Name, "error", err)
			e.catalogs.changed()
		}
	}
	return 0
}

// publishedMember is a zone that a produced catalog lists, or did.
type publishedMember struct {
	name, label, group string
}

// listing says which zones a produced catalog lists by now.
type listing struct {
	settings event.CatalogSettings
	catalogs map[event.ZoneID]bool // own zones of catalogs, which none lists
}

func (e *Engine) listingOf(c Catalog) listing {
	l := listing{c.Settings, map[event.ZoneID]bool{}}
	for _, other := range e.catalogsNow() {
		l.catalogs[other.ID] = true
	}
	return l
}

func (l listing) has(s State) bool {
	return s.Published != nil && s.Removed == 0 && !l.catalogs[s.Zone] &&
		(len(l.settings.Policies) == 0 || slices.Contains(l.settings.Policies, s.Policy.Name))
}

func (l listing) member(s State) publishedMember {
	m := publishedMember{name: s.Name, label: memberLabel(s.Zone)}
	for _, g := range l.settings.Groups {
		if g.Policy == s.Policy.Name {
			m.group = g.Group
			break
		}
	}
	return m
}

// published lists the zones that a produced catalog lists, in no order.
func (e *Engine) published(c Catalog) []publishedMember {
	l := e.listingOf(c)
	var out []publishedMember
	for _, r := range e.allRunners() {
		if s := r.snapshot(); l.has(s) {
			out = append(out, l.member(s))
		}
	}
	return out
}

// countPublished is how many zones a produced catalog lists.
func (e *Engine) countPublished(c Catalog) (n int) {
	l := e.listingOf(c)
	for _, r := range e.allRunners() {
		if l.has(r.snapshot()) {
			n++
		}
	}
	return n
}

// memberLabel is the unique label of a zone: it lasts as long as the zone is
// here, and one of that name that is added again later has another.
func memberLabel(id event.ZoneID) string {
	sum := sha256.Sum256([]byte("sluice catalog member " + string(id)))
	return hex.EncodeToString(sum[:16])
}
