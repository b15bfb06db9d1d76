package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"sluice/signer/zone"
	"sluice/xfr"
)

// UpdateRule allows whoever signs with a key to change some names and types of
// a zone by dynamic update (RFC 2136).
type UpdateRule struct {
	// Key is the TSIG key, in lower case with its final dot; "*.NAME" is every key
	// below NAME.
	Key   string
	Names []string // patterns, see nameAllowed
	// Types are those that it may change; nil are all but those of defaultTypes.
	Types []zone.Type
	From  xfr.Prefixes // where it may come from; empty: from anywhere
	// MaxRecords bounds the records in the update section of a message.
	MaxRecords int
}

// usualUpdateRecords is the MaxRecords of a rule that does not say, and
// mostUpdateRecords the highest.
const (
	usualUpdateRecords = 1000
	mostUpdateRecords  = 5000
	maxUpdateRules     = 1000
)

// selfName stands in patterns for the name of the key.
const selfName = "$key"

// Updates are the rules for dynamic updates; without any they are refused. They
// are not to be changed.
func (p Policy) Updates() []UpdateRule { return p.set.updates }

// TakesUpdates reports whether anybody may update a zone.
func (p Policy) TakesUpdates() bool { return len(p.set.updates) > 0 }

type updateFile struct {
	Key        any `toml:"key"`
	Names      any `toml:"names"`
	Types      any `toml:"types"`
	From       any `toml:"from"`
	MaxRecords any `toml:"max-records"`
}

// updates reads the rules.
func (r *policyReader) updates(f *policyFile) {
	const at = "loader.update"
	if len(f.Loader.Update) == 0 {
		return
	}
	if len(f.Loader.Update) > maxUpdateRules {
		r.fault(at, ": %d rules, at most %d are read", len(f.Loader.Update), maxUpdateRules)
		return
	}
	for i, u := range f.Loader.Update {
		before := len(r.faults)
		rule := UpdateRule{MaxRecords: usualUpdateRecords}
		rule.Key = r.updateKey(u.Key)
		rule.Names = r.updateNames(u.Names)
		rule.Types = r.updateTypes(u.Types)
		r.prefixes(at+".from", u.From, &rule.From)
		if slices.ContainsFunc(rule.From, func(p xfr.Prefix) bool { return p.Key != "" }) {
			r.fault(at+".from", ": the key stands in key, not behind a prefix")
		}
		if n, ok := r.number(at+".max-records", u.MaxRecords, mostUpdateRecords); ok {
			if rule.MaxRecords = int(n); n == 0 {
				r.fault(at+".max-records", "must be at least 1")
			}
		}
		if len(r.faults) > before && len(f.Loader.Update) > 1 {
			r.faults = append(r.faults, fmt.Errorf("policy %q: that is in rule %d of loader.update", r.name, i+1))
		}
		r.set.updates = append(r.set.updates, rule)
	}
	if r.set.mode == ModePassThrough {
		r.fault(at, `needs signer.mode = "sign" or "unsigned": what is passed through was signed elsewhere`)
	}
	if r.set.checks.ZONEMD == zonemdRequire {
		r.fault(at, `cannot stand beside loader.checks.zonemd = "require": an update brings no ZONEMD`)
	}
}

func (r *policyReader) updateKey(value any) string {
	const at = "loader.update.key"
	text, ok := r.word(at, value)
	if !ok {
		if value == nil {
			r.fault(at, `is missing: want the name of a TSIG key, such as "acme.example.com"`)
		}
		return ""
	}
	base, below := strings.CutPrefix(text, "*.")
	name, err := zone.ParseName(base)
	if err != nil || name == zone.Root {
		r.fault(at, `= %q: want the name of a TSIG key, or "*.NAME" for all keys below NAME`, text)
		return ""
	}
	if below {
		return "*." + name.Fold().String()
	}
	return name.Fold().String()
}

func (r *policyReader) updateNames(value any) []string {
	const at = "loader.update.names"
	const want = `a list such as ["host", "*.host", "_acme-challenge.*", "@"]`
	words, ok := r.words(at, value, want)
	if !ok {
		if value == nil {
			r.fault(at, ": is missing: want %s", want)
		}
		return nil
	}
	if len(words) == 0 {
		r.fault(at, ": is empty: want %s", want)
	}
	for _, word := range words {
		if err := checkPattern(word); err != nil {
			r.fault(at, ": %q: %v", word, err)
		}
	}
	return words
}

func (r *policyReader) updateTypes(value any) []zone.Type {
	const at = "loader.update.types"
	words, ok := r.words(at, value, `a list of types such as ["TXT", "A", "AAAA"]`)
	if !ok {
		return nil
	}
	types := []zone.Type{}
	for _, word := range words {
		t, ok := zone.ParseType(word)
		switch {
		case !ok || zone.CheckType(t) != nil:
			r.fault(at, ": %q is no type of record", word)
		case zone.SignersOwn(t, false):
			r.fault(at, ": %s records are made by the signer", word)
		}
		types = append(types, t)
	}
	return types
}

// defaultTypes reports whether a rule without types allows one.
func defaultTypes(t zone.Type, apex bool) bool {
	switch uint16(t) {
	case dns.TypeSOA, dns.TypeDS, dns.TypeDLV, dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY, dns.TypeCSYNC,
		dns.TypeNSEC3PARAM, dns.TypeZONEMD, dns.TypeKEY, dns.TypeSIG, dns.TypeNXT:
		return false
	case dns.TypeNS:
		return !apex
	}
	return true
}

// A pattern of names, all in the zone and none case-sensitive:
//
//	@            the apex
//	host         that name; without a final dot it is below the apex
//	*.host       every name below it
//	*            every name below the apex
//	_acme.*      that label before every name of the zone, the apex too
//	$key         the name of the key, also as *.$key and _acme.$key

var (
	errPatternStars = errors.New(`a star stands for itself alone, first as "*.NAME" or last as "NAME.*"`)
	errPatternKey   = errors.New(`"$key" is the last part of a name`)
)

// checkPattern checks the form of a pattern.
func checkPattern(pattern string) error {
	if pattern == "@" || pattern == "*" {
		return nil
	}
	base, below := strings.CutPrefix(pattern, "*.")
	base, before := strings.CutSuffix(base, ".*")
	base, self := cutSelf(base)
	switch {
	case below && before, strings.Contains(base, "*"):
		return errPatternStars
	case before && self, strings.Contains(base, selfName):
		return errPatternKey
	case base == "" && (self || below && strings.HasPrefix(pattern, "*.@")):
		return nil
	case base == "@" && below:
		return nil
	}
	_, err := zone.ParseName(base)
	return err
}

// cutSelf takes the key's name off the end of a pattern.
func cutSelf(base string) (rest string, self bool) {
	if base == selfName {
		return "", true
	}
	return strings.CutSuffix(base, "."+selfName)
}

// nameAllowed reports whether a pattern covers a name of the zone.
func nameAllowed(pattern string, owner, apex zone.Name, key string) bool {
	switch pattern {
	case "@":
		return owner.Equal(apex)
	case "*":
		return owner.Under(apex) && !owner.Equal(apex)
	}
	base, below := strings.CutPrefix(pattern, "*.")
	if first, ok := strings.CutSuffix(base, ".*"); ok {
		return labelsBefore(first, owner, apex)
	}
	origin := apex
	base, self := cutSelf(base)
	if self {
		name, err := zone.ParseName(key)
		if err != nil {
			return false
		}
		origin = name
	}
	target := origin
	if base != "" && base != "@" {
		var err error
		if target, err = zone.ParseNameAt(base, origin); err != nil {
			return false
		}
	}
	if below {
		return owner.Under(target) && !owner.Equal(target)
	}
	return owner.Equal(target)
}

// labelsBefore reports whether a name is the given labels before some name of
// the zone.
func labelsBefore(labels string, owner, apex zone.Name) bool {
	first, err := zone.ParseName(labels)
	if err != nil || len(owner) < len(first) {
		return false
	}
	first = first[:len(first)-1] // without the root
	return owner.Fold()[:len(first)] == first.Fold() && owner[len(first):].Under(apex)
}

// speaksFor reports whether a rule is about a peer at all.
func (u UpdateRule) speaksFor(peer xfr.Peer) bool {
	if below, ok := strings.CutPrefix(u.Key, "*."); ok {
		if !strings.HasSuffix(peer.Key, "."+below) {
			return false
		}
	} else if peer.Key != u.Key {
		return false
	}
	return len(u.From) == 0 || u.From.Allows(peer)
}

// updaters are the rules that are about a peer.
func (p Policy) updaters(peer xfr.Peer) (rules []UpdateRule, maxRecords int) {
	for _, u := range p.set.updates {
		if u.speaksFor(peer) {
			rules = append(rules, u)
			maxRecords = max(maxRecords, u.MaxRecords)
		}
	}
	return rules, maxRecords
}

// allowed reports whether one of the rules lets a peer change a type at a name.
func allowed(rules []UpdateRule, peer xfr.Peer, owner, apex zone.Name, t zone.Type) bool {
	return slices.ContainsFunc(rules, func(u UpdateRule) bool {
		if u.Types == nil && !defaultTypes(t, owner.Equal(apex)) || u.Types != nil && !slices.Contains(u.Types, t) {
			return false
		}
		return slices.ContainsFunc(u.Names, func(pattern string) bool { return nameAllowed(pattern, owner, apex, peer.Key) })
	})
}

// updateKeys are the TSIG keys that the rules name one by one.
func (p Policy) updateKeys() (names []string) {
	for _, u := range p.set.updates {
		if !strings.HasPrefix(u.Key, "*.") {
			names = append(names, u.Key)
		}
	}
	return names
}
