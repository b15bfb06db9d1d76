package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/signer/zone"
)

// cascadeKeys is the state of a key set, as dnst keyset keeps it.
type cascadeKeys struct {
	KeySet struct {
		Name  string                     `json:"name"`
		Keys  map[string]cascadeKey      `json:"keys"` // by the reference of the public part
		Rolls map[string]json.RawMessage `json:"rollstates"`
	} `json:"keyset"`
}

// cascadeKey is a key of it.
type cascadeKey struct {
	Private *string     `json:"privref"`
	Type    cascadeType `json:"keytype"`
	Tag     uint16      `json:"key_tag"`
	Times   struct {
		Creation, Published, Visible, Withdrawn *cascadeAt

		DSVisible   *cascadeAt `json:"ds_visible"`
		SigsVisible *cascadeAt `json:"rrsig_visible"`
	} `json:"timestamps"`
}

// cascadeAt is a moment, since 1970.
type cascadeAt struct {
	Seconds int64 `json:"secs"`
}

func (a *cascadeAt) unix() int64 {
	if a == nil {
		return 0
	}
	return a.Seconds
}

// cascadeState is what a key is used for.
type cascadeState struct {
	Old      bool `json:"old"`
	Signer   bool `json:"signer"`
	Present  bool `json:"present"`
	AtParent bool `json:"at_parent"`
}

func (s cascadeState) text() string {
	var words []string
	for _, w := range []struct {
		on   bool
		word string
	}{{s.Old, "old"}, {s.Signer, "signs"}, {s.Present, "published"}, {s.AtParent, "has a DS"}} {
		if w.on {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "not in use"
	}
	return strings.Join(words, ", ")
}

// cascadeType is the role of a key, with its state in it: for a CSK the one as
// KSK first.
type cascadeType struct {
	role   keymgr.Role // "" for another signer's
	states []cascadeState
}

// UnmarshalJSON reads {"Ksk": STATE}, {"Csk": [STATE, STATE]} and so on.
func (t *cascadeType) UnmarshalJSON(text []byte) error {
	var kinds map[string]json.RawMessage
	if err := json.Unmarshal(text, &kinds); err != nil {
		return err
	}
	if len(kinds) != 1 {
		return fmt.Errorf("key type %s: want one of Ksk, Zsk, Csk, Include", text)
	}
	for kind, inner := range kinds {
		role, ok := map[string]keymgr.Role{"Ksk": keymgr.KSK, "Zsk": keymgr.ZSK, "Csk": keymgr.CSK, "Include": ""}[kind]
		if !ok {
			return fmt.Errorf("key type %q: want Ksk, Zsk, Csk or Include", kind)
		}
		t.role = role
		if role == keymgr.CSK {
			if err := json.Unmarshal(inner, &t.states); err != nil {
				return fmt.Errorf("key type Csk: %w", err)
			}
			if len(t.states) != 2 {
				return fmt.Errorf("key type Csk has %d states: want two", len(t.states))
			}
			continue
		}
		var one cascadeState
		if err := json.Unmarshal(inner, &one); err != nil {
			return err
		}
		t.states = []cascadeState{one}
	}
	return nil
}

// used reports whether a key is in use in any way.
func (t cascadeType) used() bool {
	return slices.ContainsFunc(t.states, func(s cascadeState) bool { return s.Signer || s.Present || s.AtParent })
}

// old reports whether a key is to go.
func (t cascadeType) old() bool { return len(t.states) > 0 && t.states[0].Old }

// keys reads the key set of a zone, whose DNSKEY records have that TTL.
func (c *cascadeReader) keys(apex zone.Name, ttl uint32, out *Zone) ([]Key, error) {
	path := filepath.Join(c.conf.KeysDir, strings.TrimSuffix(apex.String(), ".")+".state")
	var set cascadeKeys
	if err := readJSON(path, &set); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			out.Refused = "no key set of it is in " + c.conf.KeysDir + ": wait until Cascade has made keys for it, and make the plan anew"
			return nil, nil
		}
		return nil, err
	}
	for kind, state := range set.KeySet.Rolls {
		out.Notes = append(out.Notes, fmt.Sprintf("%s is at %s there", kind, strings.Trim(string(state), `"`)))
	}
	slices.Sort(out.Notes)
	var keys []Key
	refs := make([]string, 0, len(set.KeySet.Keys))
	for ref := range set.KeySet.Keys {
		refs = append(refs, ref)
	}
	slices.Sort(refs)
	for _, ref := range refs {
		k := set.KeySet.Keys[ref]
		if len(k.Type.states) == 0 {
			return nil, fmt.Errorf("%s: key %q has no type", path, ref)
		}
		if !k.Type.used() && (k.Type.old() || k.Times.Withdrawn != nil) {
			out.Notes = append(out.Notes, fmt.Sprintf("key %d was withdrawn there: left out", k.Tag))
			continue
		}
		one, err := k.read(apex, ttl, ref)
		if no, ok := errors.AsType[*refusal](err); ok {
			out.Refused = no.why
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s: key %d: %w", path, k.Tag, err)
		}
		if one.Role != "" {
			one.Life = k.life(set.KeySet.Keys, set.KeySet.Rolls["AlgorithmRoll"] != nil)
			one.Life.TTL = ttl
		}
		words := make([]string, 0, len(k.Type.states))
		for _, s := range k.Type.states {
			words = append(words, s.text())
		}
		out.Notes = append(out.Notes, fmt.Sprintf("%s %d: %s", strings.ToUpper(orElse(string(one.Role), "another signer's key")), k.Tag, strings.Join(words, "; as ZSK: ")))
		keys = append(keys, one)
	}
	if len(keys) == 0 {
		out.Refused = "its key set has no key in use: wait until Cascade has signed it, and make the plan anew"
	}
	return keys, nil
}

// refusal says why a zone cannot be taken over.
type refusal struct{ why string }

func (r *refusal) Error() string { return r.why }

// fileOf is the path of a file:// URL.
func fileOf(ref string) (string, error) {
	u, err := url.Parse(ref)
	switch {
	case err != nil:
		return "", fmt.Errorf("reference %q: %w", ref, err)
	case u.Scheme == "kmip":
		return "", &refusal{fmt.Sprintf("its keys are on the KMIP server %s, and only their public part can come along: have Cascade roll over to keys in files (take hsm-server-id out of the policy), or begin here with new keys as another signer of the zone (sluice help keys)", u.Host)}
	case u.Scheme != "file" || !filepath.IsAbs(u.Path):
		return "", fmt.Errorf("reference %q: want file:///PATH", ref)
	}
	return u.Path, nil
}

// read reads the files of a key.
func (k cascadeKey) read(apex zone.Name, ttl uint32, ref string) (Key, error) {
	out := Key{Role: k.Type.role, Tag: k.Tag}
	path, err := fileOf(ref)
	if err != nil {
		return out, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return out, err
	}
	record, err := oneDNSKEY(text, path)
	if err != nil {
		return out, err
	}
	if !strings.EqualFold(record.Hdr.Name, apex.String()) {
		return out, fmt.Errorf("%s: the key of %s, not of %s", path, record.Hdr.Name, apex)
	}
	rdata, err := rdataOf(record)
	if err != nil {
		return out, fmt.Errorf("%s: %w", path, err)
	}
	out.Algorithm, out.DNSKEY = record.Algorithm, dnskeyText(apex, ttl, rdata)
	if !supported(out.Algorithm) {
		return out, &refusal{errAlgorithm(out.Algorithm).Error()}
	}
	if tag := zone.KeyTag(rdata); tag != k.Tag {
		return out, fmt.Errorf("%s has tag %d, the key set says %d", path, tag, k.Tag)
	}
	if k.Private == nil || out.Role == "" {
		if out.Role != "" {
			return out, errors.New("its private part is not in the key set")
		}
		return out, nil
	}
	private, err := fileOf(*k.Private)
	if err != nil {
		return out, err
	}
	if out.Private, err = os.ReadFile(private); err != nil {
		return out, err
	}
	_, own, err := file.PublicOf(out.Private, record.Flags)
	if err != nil {
		return out, fmt.Errorf("%s: %w", private, err)
	}
	if !bytes.Equal(own, rdata) {
		return out, fmt.Errorf("%s does not belong to %s", private, path)
	}
	return out, nil
}

// oneDNSKEY is the record of a .key file.
func oneDNSKEY(text []byte, path string) (*dns.DNSKEY, error) {
	p := dns.NewZoneParser(bytes.NewReader(text), ".", path)
	p.SetDefaultTTL(0)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		if record, is := rr.(*dns.DNSKEY); is {
			return record, nil
		}
	}
	if err := p.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("%s: no DNSKEY record", path)
}

// life is how a key stands, in BIND's words. all is the keys of the set;
// algorithm says that an algorithm rollover runs, in which what is new is not in
// every cache.
func (k cascadeKey) life(all map[string]cascadeKey, algorithm bool) *event.KeyLife {
	spread := func(state string, since int64) *event.Spread { return &event.Spread{State: state, Since: since} }
	t := &k.Times
	l := &event.KeyLife{
		Goal: "omnipresent", Created: t.Creation.unix(), Published: t.Published.unix(), Activated: t.SigsVisible.unix(),
		Removed: t.Withdrawn.unix(), DSPublished: t.DSVisible.unix(),
	}
	first, last := k.Type.states[0], k.Type.states[len(k.Type.states)-1]
	// Of a key that comes, caches may not have the DNSKEY before it is put to use.
	comes := !first.Old && (k.Type.role == keymgr.ZSK && !last.Signer || k.Type.role != keymgr.ZSK && !first.AtParent)
	switch {
	case !first.Present && !last.Present:
		l.DNSKEY = spread("hidden", 0)
	case comes, t.Visible == nil:
		l.DNSKEY = spread("rumoured", firstOf(t.Visible.unix(), t.Published.unix()))
	default:
		l.DNSKEY = spread("omnipresent", t.Visible.unix())
	}
	if k.Type.old() || !k.Type.used() {
		l.Goal = "hidden"
	}
	if k.Type.role != keymgr.KSK {
		l.ZoneSigs = spread("hidden", 0)
		switch {
		case last.Signer && t.SigsVisible == nil && (algorithm || k.others(all)):
			l.ZoneSigs = spread("rumoured", firstOf(t.Visible.unix(), t.Published.unix()))
		case last.Signer:
			l.ZoneSigs = spread("omnipresent", firstOf(t.SigsVisible.unix(), t.Visible.unix(), t.Published.unix()))
		case last.Old && last.Present:
			l.ZoneSigs = spread("unretentive", 0)
		}
		if l.Activated == 0 && last.Signer {
			l.Activated = firstOf(t.Visible.unix(), t.Published.unix())
		}
	}
	if k.Type.role != keymgr.ZSK {
		l.KeySigs, l.DS = spread("hidden", 0), spread("hidden", 0)
		if first.Signer {
			l.KeySigs = spread(l.DNSKEY.State, l.DNSKEY.Since)
			if l.Activated == 0 {
				l.Activated = t.Published.unix()
			}
		}
		switch {
		case first.AtParent && t.DSVisible != nil:
			l.DS = spread("omnipresent", t.DSVisible.unix())
		case first.AtParent:
			l.DS = spread("rumoured", t.Visible.unix())
		case first.Old && t.DSVisible != nil && first.Present:
			l.DS = spread("unretentive", 0)
		}
	}
	l.Predecessor, l.Successor = k.neighbours(all)
	return l
}

// overlaps reports whether two keys have a role in common.
func (k cascadeKey) overlaps(o cascadeKey) bool {
	return o.Tag != k.Tag && k.Type.role != "" && o.Type.role != "" &&
		(k.Type.role == o.Type.role || k.Type.role == keymgr.CSK || o.Type.role == keymgr.CSK)
}

// others reports whether the set has another key in use with a role of this one:
// a rollover runs.
func (k cascadeKey) others(all map[string]cascadeKey) bool {
	for _, o := range all {
		if k.overlaps(o) && o.Type.used() && o.Type.old() != k.Type.old() {
			return true
		}
	}
	return false
}

// neighbours is the tags of the keys before and after one in a rollover, where
// there is one of each.
func (k cascadeKey) neighbours(all map[string]cascadeKey) (before, after uint16) {
	var found []uint16
	for _, o := range all {
		if k.overlaps(o) && o.Type.used() && k.Type.used() && o.Type.old() != k.Type.old() {
			found = append(found, o.Tag)
		}
	}
	switch {
	case len(found) != 1:
		return 0, 0
	case k.Type.old():
		return 0, found[0]
	}
	return found[0], 0
}
