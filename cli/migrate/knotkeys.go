package migrate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/file"
)

// knotKey is a key as keymgr lists it. Times are epoch seconds, 0 where it is not
// to happen.
type knotKey struct {
	ID           string `json:"id"`
	KSK          bool   `json:"ksk"`
	ZSK          bool   `json:"zsk"`
	Tag          uint16 `json:"tag"`
	Algorithm    uint8  `json:"algorithm"`
	PublicOnly   bool   `json:"public-only"`
	PreActive    int64  `json:"pre-active"`
	Publish      int64  `json:"publish"`
	Ready        int64  `json:"ready"`
	Active       int64  `json:"active"`
	RetireActive int64  `json:"retire-active"`
	Retire       int64  `json:"retire"`
	PostActive   int64  `json:"post-active"`
	Revoke       int64  `json:"revoke"`
	Remove       int64  `json:"remove"`
}

// parseKnotKeys reads what keymgr list prints: JSON (option -j, since 3.2), or
// one line a key.
func parseKnotKeys(text []byte) ([]knotKey, error) {
	var keys []knotKey
	trimmed := bytes.TrimSpace(text)
	if len(trimmed) > 0 && trimmed[0] == '[' {
		err := json.Unmarshal(trimmed, &keys)
		return keys, err
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		key := knotKey{ID: words[0]}
		if !isHex(key.ID) {
			return nil, fmt.Errorf("%q is no key of keymgr list", strings.TrimSpace(line))
		}
		for _, w := range words[1:] {
			name, value, ok := strings.Cut(w, "=")
			if !ok {
				return nil, fmt.Errorf("%q is no key of keymgr list: want it with all its fields", strings.TrimSpace(line))
			}
			if err := key.set(name, value); err != nil {
				return nil, fmt.Errorf("key %s: %w", key.ID, err)
			}
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func isHex(text string) bool {
	return len(text) >= 8 && strings.Trim(text, "0123456789abcdefABCDEF") == ""
}

// set reads one field of a line.
func (k *knotKey) set(name, value string) error {
	yes := value == "yes"
	number := func(bits int) (uint64, error) {
		n, err := strconv.ParseUint(value, 10, bits)
		if err != nil {
			return 0, fmt.Errorf("%s=%s is no number", name, value)
		}
		return n, nil
	}
	switch name {
	case "ksk":
		k.KSK = yes
	case "zsk":
		k.ZSK = yes
	case "public-only":
		k.PublicOnly = yes
	case "tag":
		n, err := number(16)
		k.Tag = uint16(n)
		return err
	case "algorithm":
		n, err := number(8)
		k.Algorithm = uint8(n)
		return err
	}
	if at := k.timer(name); at != nil {
		n, err := number(62)
		*at = int64(n)
		return err
	}
	return nil
}

func (k *knotKey) timer(name string) *int64 {
	return map[string]*int64{
		"pre-active": &k.PreActive, "publish": &k.Publish, "ready": &k.Ready, "active": &k.Active,
		"retire-active": &k.RetireActive, "retire": &k.Retire, "post-active": &k.PostActive, "revoke": &k.Revoke, "remove": &k.Remove,
	}[name]
}

func (k *knotKey) role() keymgr.Role {
	switch {
	case k.KSK && k.ZSK:
		return keymgr.CSK
	case k.KSK:
		return keymgr.KSK
	}
	return keymgr.ZSK
}

// The states of Knot's keys, as its manual has them.
const (
	knotRemoved      = "removed"
	knotRevoked      = "revoked"
	knotPostActive   = "post-active"
	knotRetired      = "retired"
	knotRetireActive = "retire-active"
	knotActive       = "active"
	knotReady        = "ready"
	knotPublished    = "published"
	knotPreActive    = "pre-active"
	knotGenerated    = "generated"
)

// state is the one that a key's times say: the furthest that is reached.
func (k *knotKey) state(now time.Time) string {
	for _, row := range []struct {
		at    int64
		state string
	}{
		{k.Remove, knotRemoved},
		{k.Revoke, knotRevoked},
		{k.PostActive, knotPostActive},
		{k.Retire, knotRetired},
		{k.RetireActive, knotRetireActive},
		{k.Active, knotActive},
		{k.Ready, knotReady},
		{k.Publish, knotPublished},
		{k.PreActive, knotPreActive},
	} {
		if row.at != 0 && row.at <= now.Unix() {
			return row.state
		}
	}
	return knotGenerated
}

// stays reports whether a key in a state is to stay, or to come: nothing says
// that it goes.
func (k *knotKey) stays(state string) bool {
	switch state {
	case knotActive, knotReady, knotPublished, knotPreActive:
		return k.RetireActive == 0 && k.Retire == 0 && k.Remove == 0
	}
	return false
}

// life is a key's times and state in BIND's words, which is how the take-over
// reads them.
func (k *knotKey) life(keys []knotKey, ttl uint32, now time.Time) *event.KeyLife {
	state := k.state(now)
	l := &event.KeyLife{
		Goal: "omnipresent", TTL: ttl, Published: k.Publish, Activated: k.Active,
		Retired: k.Retire, Revoked: k.Revoke, Removed: k.Remove, CDS: k.Ready,
	}
	if l.Published == 0 {
		l.Published = k.PreActive
	}
	if state == knotGenerated {
		l.Published = 0 // what is to come says nothing of what was
	}
	spread := func(state string, since int64) *event.Spread { return &event.Spread{State: state, Since: since} }
	hidden := func() *event.Spread { return spread("hidden", 0) }
	dnskey, zone, sigs, ds := hidden(), hidden(), hidden(), hidden()
	signed := firstOf(k.Active, k.Ready, k.Publish)
	switch state {
	case knotPreActive:
		zone, sigs = spread("rumoured", k.PreActive), spread("rumoured", k.PreActive)
	case knotPublished:
		dnskey, sigs = spread("rumoured", k.Publish), spread("rumoured", k.Publish)
		if k.PreActive != 0 {
			zone = spread("rumoured", k.PreActive) // of a new algorithm
		}
	case knotReady:
		dnskey, sigs, ds = spread("omnipresent", k.Ready), spread("omnipresent", k.Ready), spread("rumoured", k.Ready)
		zone = hidden()
		if k.PreActive != 0 || k.ZSK {
			zone = spread("rumoured", firstOf(k.PreActive, k.Ready))
		}
	case knotActive, knotRetireActive:
		dnskey, zone, sigs, ds = spread("omnipresent", signed), spread("omnipresent", signed), spread("omnipresent", signed), spread("omnipresent", signed)
		if state == knotRetireActive {
			ds = spread("unretentive", k.RetireActive)
		}
	case knotRetired:
		dnskey, zone, sigs = spread("omnipresent", signed), spread("unretentive", k.Retire), spread("omnipresent", signed)
		ds = spread("unretentive", firstOf(k.RetireActive, k.Retire))
	case knotPostActive:
		dnskey, zone, sigs = spread("unretentive", k.PostActive), spread("rumoured", k.PostActive), spread("rumoured", k.PostActive)
	case knotRevoked, knotRemoved:
		dnskey = spread("unretentive", firstOf(k.Remove, k.Revoke))
	}
	if !k.stays(state) || k.replaced(keys, now) || state == knotGenerated {
		l.Goal = "hidden"
	}
	l.DNSKEY = dnskey
	if k.ZSK {
		l.ZoneSigs = zone
	}
	if k.KSK {
		l.KeySigs, l.DS = sigs, ds
	}
	l.Predecessor, l.Successor = k.neighbours(keys, now)
	return l
}

func firstOf(times ...int64) int64 {
	for _, t := range times {
		if t != 0 {
			return t
		}
	}
	return 0
}

// follows reports whether one key is to come in the place of another: it was
// published later, or in the same second and is not in use yet, has a role of it,
// and is to stay.
func (k *knotKey) follows(old *knotKey, now time.Time) bool {
	state := k.state(now)
	begun := func(key *knotKey) int64 { return firstOf(key.Publish, key.PreActive, key.Active) }
	later := begun(k) > begun(old) || begun(k) == begun(old) && k.Active == 0 && old.Active != 0
	return k.ID != old.ID && !k.PublicOnly && !old.PublicOnly && (k.KSK && old.KSK || k.ZSK && old.ZSK) &&
		k.stays(state) && later
}

// replaced reports whether another key is to take its place.
func (k *knotKey) replaced(keys []knotKey, now time.Time) bool {
	switch k.state(now) {
	case knotActive, knotReady:
		return slices.ContainsFunc(keys, func(o knotKey) bool { return o.follows(k, now) })
	}
	return false
}

// neighbours is the tags of the keys before and after one in a rollover that is
// under way, where there is one of each.
func (k *knotKey) neighbours(keys []knotKey, now time.Time) (before, after uint16) {
	var old, next []uint16
	for i := range keys {
		o := &keys[i]
		gone := slices.Contains([]string{knotRemoved, knotGenerated, knotRevoked}, o.state(now))
		if k.follows(o, now) && !gone {
			old = append(old, o.Tag)
		}
		if o.follows(k, now) {
			next = append(next, o.Tag)
		}
	}
	if len(old) == 1 {
		before = old[0]
	}
	if len(next) == 1 {
		after = next[0]
	}
	return before, after
}

// keys reads the keys of a zone.
func (k *knotReader) keys(ctx context.Context, z knotZone, d *draft, soaTTL uint32, out *Zone) ([]Key, error) {
	text, err := runTool(ctx, "keymgr", "-c", k.path, "-j", out.Name, "list")
	if err != nil {
		// Before 3.2 the whole list is what there is.
		if text, err = runTool(ctx, "keymgr", "-c", k.path, out.Name, "list"); err != nil {
			return nil, err
		}
	}
	list, err := parseKnotKeys(text)
	if err != nil {
		return nil, fmt.Errorf("keymgr %s list: %w", out.Name, err)
	}
	b := k.conf.find("policy", z.word("dnssec-policy"))
	ttl := soaTTL
	if t, has, err := b.time("dnskey-ttl"); err != nil {
		return nil, err
	} else if has {
		ttl = uint32(t / time.Second)
	}
	stores, err := k.keystores(b)
	if err != nil {
		return nil, err
	}
	if ttl > 0 {
		d.duration("key-manager.records.ttl", time.Duration(ttl)*time.Second, "dnskey-ttl")
	} else {
		d.tell("dnskey-ttl is that of the SOA there, and one hour here (key-manager.records.ttl).")
	}
	var keys []Key
	for i := range list {
		key := &list[i]
		state := key.state(k.o.Now)
		if state == knotRemoved || state == knotRevoked {
			out.Notes = append(out.Notes, fmt.Sprintf("key %d is %s there: left out", key.Tag, state))
			continue
		}
		if !supported(key.Algorithm) {
			out.Refused = errAlgorithm(key.Algorithm).Error()
			return nil, nil
		}
		one, err := k.key(ctx, z, key, stores, ttl)
		if err != nil {
			return nil, fmt.Errorf("key %d (%s): %w", key.Tag, key.ID, err)
		}
		if !key.PublicOnly {
			one.Life = key.life(list, ttl, k.o.Now)
		}
		out.Notes = append(out.Notes, fmt.Sprintf("%s %d is %s there", strings.ToUpper(string(key.role())), key.Tag, state))
		keys = append(keys, one)
	}
	return keys, nil
}

// knotStore is a place for private keys.
type knotStore struct {
	dir      string // of PEM files
	keystore string // the name of one of Former.Keystores
}

// keystores lists where the keys of a policy may be.
func (k *knotReader) keystores(policy *knotBlock) ([]knotStore, error) {
	usual := knotStore{dir: filepath.Join(k.kasp, "keys")}
	ids, _, _ := policy.get("keystore")
	if len(ids) == 0 {
		return []knotStore{usual}, nil
	}
	var list []knotStore
	for _, id := range ids {
		b := k.conf.find("keystore", id)
		if b == nil {
			return nil, fmt.Errorf("%s: there is no keystore %q", k.path, id)
		}
		if b.word("backend") != "pkcs11" {
			list = append(list, knotStore{dir: below(k.kasp, orElse(b.word("config"), "keys"))})
			continue
		}
		name, err := k.token(b)
		if err != nil {
			return nil, err
		}
		list = append(list, knotStore{keystore: name})
	}
	return list, nil
}

// token reads a keystore on a token: "<pkcs11-url> <module-path>".
func (k *knotReader) token(b *knotBlock) (string, error) {
	if name, ok := k.pkcs11[b.id]; ok {
		return name, nil
	}
	_, at, _ := b.get("config")
	uri, module, ok := strings.Cut(strings.TrimSpace(b.word("config")), " ")
	rest, scheme := strings.CutPrefix(uri, "pkcs11:")
	if !ok || !scheme {
		return "", at.fault("keystore %s: want config: \"pkcs11:token=NAME;pin-value=PIN MODULE\"", b.id)
	}
	path, query, _ := strings.Cut(rest, "?")
	attributes := map[string]string{}
	for _, part := range append(strings.Split(path, ";"), strings.Split(query, "&")...) {
		name, value, _ := strings.Cut(part, "=")
		plain, err := url.PathUnescape(value)
		if err != nil {
			return "", at.fault("keystore %s: attribute %s is not well formed", b.id, name)
		}
		attributes[name] = plain
	}
	store := Keystore{Name: keystoreName(b.id, "knot"), Module: strings.TrimSpace(module), Token: attributes["token"]}
	if source := strings.TrimPrefix(attributes["pin-source"], "file:"); source != "" {
		store.PINFile = source
	}
	if attributes["pin-value"] != "" {
		k.out.Unequal = append(k.out.Unequal, fmt.Sprintf("The PIN of keystore %s stands in %s: write it to a file of its own, which nobody else may read, for sluice keystore add.", b.id, at.file))
	}
	if k.pkcs11 == nil {
		k.pkcs11 = map[string]string{}
	}
	k.pkcs11[b.id] = store.Name
	k.out.Keystores = append(k.out.Keystores, store)
	return store.Name, nil
}

// key reads one key.
func (k *knotReader) key(ctx context.Context, z knotZone, key *knotKey, stores []knotStore, ttl uint32) (Key, error) {
	flags := keymgr.RoleFlags(key.role())
	out := Key{Role: key.role(), Algorithm: key.Algorithm, Tag: key.Tag}
	if !key.PublicOnly {
		for _, s := range stores {
			if s.dir == "" {
				continue
			}
			private, rdata, err := readPEM(filepath.Join(s.dir, key.ID+".pem"), key.Algorithm, flags)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return out, err
			}
			if out.Private, out.DNSKEY = private, dnskeyText(z.name, ttl, rdata); keymgr.Describe(out.Role, rdata).Tag == key.Tag {
				return out, nil
			}
			clear(private)
			return out, fmt.Errorf("its private key does not belong to the tag %d: it has other flags than its role (keymgr's sep)", key.Tag)
		}
	}
	text, err := runTool(ctx, "keymgr", "-c", k.path, zoneName(z.name), "dnskey", "id="+key.ID)
	if err != nil {
		return out, err
	}
	record, err := oneDNSKEY(text, "keymgr dnskey")
	if err != nil {
		return out, err
	}
	rdata, err := rdataOf(record)
	if err != nil {
		return out, err
	}
	out.DNSKEY = dnskeyText(z.name, ttl, rdata)
	if key.PublicOnly {
		out.Role = ""
		return out, nil
	}
	i := slices.IndexFunc(stores, func(s knotStore) bool { return s.keystore != "" })
	if i < 0 {
		dirs := make([]string, 0, len(stores))
		for _, s := range stores {
			dirs = append(dirs, s.dir)
		}
		return out, fmt.Errorf("no file %s.pem is in %s: run this where Knot's files are, as a user who may read them", key.ID, strings.Join(dirs, ", "))
	}
	out.Keystore, out.ID = stores[i].keystore, key.ID
	return out, nil
}

// readPEM reads a private key that is kept as PKCS#8 in PEM form.
func readPEM(path string, algorithm uint8, flags uint16) (private, rdata []byte, err error) {
	if err := readable(path); err != nil {
		return nil, nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, err
	}
	defer clear(text)
	if private, rdata, err = file.FromPEM(text, algorithm, flags); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	return private, rdata, nil
}
