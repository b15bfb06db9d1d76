package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/signer/zone"
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
	if since := machineTime().Sub(e.catalogs.made); since < producePause {
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
		listed := len(e.published(c))
		e.catalogs.mu.Lock()
		e.catalogs.seen[c.ID] = catalogSeen{At: e.clock.Now(), Members: listed}
		e.catalogs.mu.Unlock()
		if s := r.snapshot(); s.Loaded == nil || s.Held != nil || s.Maintenance != nil {
			continue // it is loaded by itself
		}
		e.catalogs.made = machineTime()
		if err := r.ask(ctx, RoleLoad, question{Do: askReload}, func() { r.askReload(false) }); err != nil && ctx.Err() == nil {
			e.log.WarnContext(ctx, "catalog not made", "zone", c.Name, "error", err)
			e.catalogs.changed()
		}
	}
	return 0
}

// publishedMember is a zone that a produced catalog lists.
type publishedMember struct {
	name, label, group string
}

// published lists the zones that a produced catalog lists, by label.
func (e *Engine) published(c Catalog) []publishedMember {
	own := map[event.ZoneID]bool{}
	for _, other := range e.catalogsNow() {
		own[other.ID] = true
	}
	var out []publishedMember
	for _, r := range e.allRunners() {
		s := r.snapshot()
		if s.Published == nil || s.Removed != 0 || own[s.Zone] {
			continue
		}
		if len(c.Settings.Policies) > 0 && !slices.Contains(c.Settings.Policies, s.Policy.Name) {
			continue
		}
		m := publishedMember{name: s.Name, label: memberLabel(s.Zone)}
		for _, g := range c.Settings.Groups {
			if g.Policy == s.Policy.Name {
				m.group = g.Group
				break
			}
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b publishedMember) int { return strings.Compare(a.label, b.label) })
	return out
}

// memberLabel is the unique label of a zone: it lasts as long as the zone is
// here, and one of that name that is added again later has another.
func memberLabel(id event.ZoneID) string {
	sum := sha256.Sum256([]byte("sluice catalog member " + string(id)))
	return hex.EncodeToString(sum[:16])
}

// loadCatalog makes a catalog's contents.
func (e *Engine) loadCatalog(ctx context.Context, s State, c Load, p Policy, report func(Progress)) (*event.InstanceLoaded, error) {
	cat, ok := e.catalogOf(s.Zone)
	if !ok {
		return nil, fmt.Errorf("zone %s is no catalog: %w", s.Name, ErrState)
	}
	if err := producible(p); err != nil {
		return nil, err
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	if err := take(ctx, e.heavy); err != nil {
		return nil, err
	}
	defer give(e.heavy)
	in, err := zone.Load(ctx, zone.LoadOptions{
		FS: catalogFile{e.published(cat)}, File: catalogFileName, Origin: apex, Spill: e.spill,
		Glue:     zone.GlueIgnore,
		Progress: func(read, total int64) { report(Progress{Stage: "load", Done: read, Total: total}) },
	})
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // temporary files
	facts := &event.InstanceLoaded{Source: c.Source, Base: c.Base}
	return facts, e.takeLoaded(ctx, s, c, p, in, facts)
}

const catalogFileName = "catalog"

// catalogFile is a zone file of members, which is written as it is read.
type catalogFile struct{ members []publishedMember }

// Open implements fs.FS.
func (c catalogFile) Open(name string) (fs.File, error) {
	if name != catalogFileName {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	// The serial is that of what is published, by the policy.
	head := "$TTL 0\n@ IN SOA invalid. invalid. 1 3600 600 2147483646 0\n@ IN NS invalid.\nversion IN TXT \"2\"\n"
	return &catalogReading{members: c.members, rest: []byte(head)}, nil
}

type catalogReading struct {
	members []publishedMember
	rest    []byte
}

// Read implements fs.File.
func (r *catalogReading) Read(p []byte) (int, error) {
	for len(r.rest) < len(p) && len(r.members) > 0 {
		m := r.members[0]
		r.members = r.members[1:]
		r.rest = append(r.rest, m.label+".zones IN PTR "+m.name+"\n"...)
		if m.group != "" {
			r.rest = append(r.rest, "group."+m.label+".zones IN TXT "+quoteTXT(m.group)+"\n"...)
		}
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[:copy(r.rest, r.rest[n:])]
	return n, nil
}

// quoteTXT is a string as zone files have it.
func quoteTXT(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(text) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c > '~':
			b.WriteByte('\\')
			b.WriteString(fmt.Sprintf("%03s", strconv.Itoa(int(c))))
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// Stat implements fs.File.
func (r *catalogReading) Stat() (fs.FileInfo, error) { return catalogInfo{}, nil }

// Close implements fs.File.
func (r *catalogReading) Close() error { return nil }

// catalogInfo is what is known of the file: its size is not.
type catalogInfo struct{}

// Name implements fs.FileInfo.
func (catalogInfo) Name() string { return catalogFileName }

// Size implements fs.FileInfo.
func (catalogInfo) Size() int64 { return 0 }

// Mode implements fs.FileInfo.
func (catalogInfo) Mode() fs.FileMode { return 0o400 }

// ModTime implements fs.FileInfo.
func (catalogInfo) ModTime() time.Time { return time.Time{} }

// IsDir implements fs.FileInfo.
func (catalogInfo) IsDir() bool { return false }

// Sys implements fs.FileInfo.
func (catalogInfo) Sys() any { return nil }
