package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

const typePTR = zone.Type(dns.TypePTR)

// Bounds of what a catalog's source can make this process hold of one member.
const (
	maxMemberGroups = 16
	maxGroupLength  = 255
)

// errBrokenCatalog reports a catalog zone that must not be processed (RFC 9432,
// 5.1).
var errBrokenCatalog = errors.New("broken catalog zone (RFC 9432)")

func brokenCatalog(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{errBrokenCatalog}, args...)...)
}

// catalogEntry is a member as a catalog lists it.
type catalogEntry struct {
	Label  string // of the member node, in lower case
	Name   string // of the member: absolute, lower case, final dot
	Groups []string
	Owner  string // the catalog that it goes to (coo); "" for none
}

// catalogReader reads a catalog zone from its items, which come in canonical
// order. It holds the members and no more than max of them.
type catalogReader struct {
	apex    []byte // prefix of the owner keys of the zone
	max     uint64
	version bool
	entries []catalogEntry
	byName  map[string]string // label by member
}

func newCatalogReader(apex zone.Name, most uint64) *catalogReader {
	return &catalogReader{apex: zone.AppendOwnerPrefix(nil, apex), max: most, byName: map[string]string{}}
}

// add reads one item. Errors are errBrokenCatalog.
func (r *catalogReader) add(key []byte, value zone.Value) error {
	kind, owner, t, err := zone.SplitKey(key)
	if err != nil {
		return err
	}
	if kind != zone.KindContents || t != typePTR && t != zone.TypeTXT {
		return nil
	}
	labels, ok := r.labels(owner)
	if !ok || len(labels) == 0 {
		return nil
	}
	switch first := labels[0]; {
	case first == "version" && len(labels) == 1 && t == zone.TypeTXT:
		return r.readVersion(value)
	case first != "zones" || len(labels) < 2:
		return nil
	case len(labels) == 2 && t == typePTR:
		return r.readMember(labels[1], value)
	case len(labels) == 3 && len(r.entries) > 0 && r.entries[len(r.entries)-1].Label == labels[1]:
		return r.readProperty(&r.entries[len(r.entries)-1], labels[2], t, value)
	}
	return nil // what is not known is ignored (RFC 9432, 3)
}

// labels are those of an owner below the apex, from the right.
func (r *catalogReader) labels(owner []byte) (labels []string, ok bool) {
	rest, ok := bytes.CutPrefix(owner, r.apex)
	if !ok {
		return nil, false
	}
	for len(rest) > 1 && len(labels) < 4 {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			return nil, false
		}
		labels = append(labels, labelText(rest[:i]))
		rest = rest[i+1:]
	}
	return labels, true
}

// labelText is a label of an owner key as zone files have it.
func labelText(raw []byte) string {
	wire, err := zone.AppendNameOfKey(nil, append(bytes.Clone(raw), 0, 0))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(zone.Name(wire).String(), ".")
}

func (r *catalogReader) readVersion(value zone.Value) error {
	r.version = true
	if n := value.Count(); n != 1 {
		return brokenCatalog("%d version records, want one", n)
	}
	for data := range value.Records() {
		if text := txtText(data); text != "2" {
			return brokenCatalog("its version is %.20q, want \"2\"", text)
		}
	}
	return nil
}

func (r *catalogReader) readMember(label string, value zone.Value) error {
	name, err := r.target(label, "", value)
	if err != nil {
		return err
	}
	if uint64(len(r.entries)) >= r.max {
		return brokenCatalog("it lists more than %d members (max-members)", r.max)
	}
	if other, ok := r.byName[name]; ok {
		return brokenCatalog("member %s stands under two labels, %s and %s", name, other, label)
	}
	r.byName[name] = label
	r.entries = append(r.entries, catalogEntry{Label: label, Name: name})
	return nil
}

// target is the name that a PTR RRset of one record points to.
func (r *catalogReader) target(label, property string, value zone.Value) (string, error) {
	if n := value.Count(); n != 1 {
		return "", brokenCatalog("%d PTR records at %s%s.zones, want one", n, property, label)
	}
	for data := range value.Records() {
		name, err := zone.NameFromWire(data)
		if err != nil {
			return "", brokenCatalog("PTR record at %s%s.zones: %w", property, label, err)
		}
		return name.Fold().String(), nil
	}
	return "", nil
}

func (r *catalogReader) readProperty(at *catalogEntry, property string, t zone.Type, value zone.Value) (err error) {
	switch {
	case property == "coo" && t == typePTR:
		at.Owner, err = r.target(at.Label, "coo.", value)
	case property == "group" && t == zone.TypeTXT:
		if n := value.Count(); n > maxMemberGroups {
			return brokenCatalog("%d groups at %s.zones, at most %d are read", n, at.Label, maxMemberGroups)
		}
		for data := range value.Records() {
			group := txtText(data)
			if len(group) > maxGroupLength {
				return brokenCatalog("a group at %s.zones is longer than %d", at.Label, maxGroupLength)
			}
			at.Groups = append(at.Groups, group)
		}
	}
	return err
}

// finish ends the reading. Errors are errBrokenCatalog.
func (r *catalogReader) finish() ([]catalogEntry, error) {
	if !r.version {
		return nil, brokenCatalog("it has no version record")
	}
	return r.entries, nil
}

// txtText is the strings of a TXT record with spaces between them.
func txtText(data []byte) string {
	var parts []string
	for len(data) > 0 {
		n := min(int(data[0]), len(data)-1)
		parts = append(parts, string(data[1:1+n]))
		data = data[1+n:]
	}
	return strings.Join(parts, " ")
}

// catalogTee has a reader see the items that an iterator walks.
type catalogTee struct {
	zone.Iterator
	reader *catalogReader
	err    error
}

// Next implements zone.Iterator.
func (t *catalogTee) Next() bool {
	if t.err != nil || !t.Iterator.Next() {
		return false
	}
	t.err = t.reader.add(t.Key(), t.Value())
	return t.err == nil
}

// Err implements zone.Iterator.
func (t *catalogTee) Err() error { return errors.Join(t.err, t.Iterator.Err()) }

// catalogCheck is a reader for what is loaded of a zone; nil where that is no
// consumed catalog.
func (e *Engine) catalogCheck(s State) (*catalogReader, error) {
	c, ok := e.catalogOf(s.Zone)
	if !ok || !c.consumed() {
		return nil, nil
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	return newCatalogReader(apex, c.Settings.MaxMembers), nil
}

// checkCatalog refuses what an incremental transfer would make of a consumed
// catalog, in one pass over that, where it is broken.
func (t *transfer) checkCatalog(ctx context.Context) error {
	r, err := t.e.catalogCheck(t.s)
	if err != nil || r == nil {
		return err
	}
	if err := take(ctx, t.e.heavy); err != nil {
		return err
	}
	defer give(t.e.heavy)
	if err := t.edit.whole(r.add); err != nil {
		return err
	}
	_, err = r.finish()
	return err
}
