package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline/store"
	"sluice/signer/zone"
)

// mayTurn reports why a zone cannot go over to the mode of a policy: as long
// as its parent may have a DS, every version must be signed with keys that
// validators which hold the one before already know. What comes by transfer
// is judged when it is there (keepsTrust).
func (e *Engine) mayTurn(ctx context.Context, s State, p Policy) error {
	pub := s.Published
	if pub == nil || pub.Signed.mode() == p.Mode() || p.Mode() == ModePassThrough {
		return nil
	}
	served, err := e.servedKeys(s)
	if err != nil || len(served) == 0 {
		return err
	}
	if p.Mode() == ModeUnsigned {
		return e.mayUnsign(ctx, s)
	}
	what, lacks := "keys that are not here", "those"
	tags := keysMissing(served, nextKeys(s))
	if len(tags) == 0 {
		var role keymgr.Role
		if role, tags = lacksSigner(served, nextSigners(s)); role == "" {
			return nil
		}
		what, lacks = "keys none of which would sign here as a "+strings.ToUpper(string(role)), "the private part of one"
	}
	why, err := e.mayGetDS(ctx, s)
	if err != nil || why == "" {
		return err
	}
	return errorState("zone %s is passed through with %s, and %s: import %s with the tags %s (sluice key import), "+
		"or have the DS removed at the parent and wait until its TTL has run out", s.Name, what, why, lacks, strings.Join(tags, ", "))
}

// mayUnsign reports why a zone that is published signed cannot be published
// unsigned: a parent may have a DS, or caches may hold one.
func (e *Engine) mayUnsign(ctx context.Context, s State) error {
	p, m, err := e.moment(s)
	if err != nil {
		return err
	}
	margin := s.known(p, m).Timing.DSMargin()
	if s.Keys.Gone(m.Now, margin) {
		return nil
	}
	until := s.Keys.DS.HeldUntil(m.Now, margin)
	var why string
	if until.IsZero() {
		why, err = e.mayGetDS(ctx, s)
	} else {
		why, _, err = e.mayHaveDS(ctx, s)
	}
	if err != nil {
		return err
	}
	if why == "" && !until.IsZero() {
		why = "caches may hold its DS until " + until.UTC().Format(time.RFC3339)
		if until.Sub(m.Now) > 10*365*day {
			why = "its parent had a DS when that was seen last"
		}
	}
	if why == "" {
		return nil
	}
	return errorState("zone %s is published signed and %s: without signatures it would be bogus; first: sluice key roll %s insecure, "+
		"and when that is done, try again (sluice key status %s tells what it waits for)", s.Name, why, s.Name, s.Name)
}

// keepsTrust demands, of the first instance that is passed through after ones
// that were signed here, that its keys are those known of the zone.
func (e *Engine) keepsTrust(ctx context.Context, s State, loaded uint64) error {
	if s.Published == nil || s.Published.Signed.mode() != ModeSign {
		return nil
	}
	served, err := e.servedKeys(s)
	if err != nil {
		return err
	}
	v, err := e.store.Loaded(s.Zone, loaded)
	if err != nil {
		return e.note(err)
	}
	defer v.Close() //nolint:errcheck // read only
	next, err := keysOf(v)
	if err != nil {
		return err
	}
	missing := keysMissing(served, next)
	if _, sigs := v.SOASigs(); len(missing) == 0 && signedByAny(sigs, served) {
		return nil
	}
	why, err := e.mayGetDS(ctx, s)
	if err != nil || why == "" {
		return err
	}
	what := "is not signed with a key of the zone as it is published"
	if len(missing) > 0 {
		what = "lacks the zone's keys with the tags " + strings.Join(missing, ", ")
	}
	return &unfitError{reason: fmt.Sprintf("l%d, to be passed through, %s, and %s: have the source publish and sign with them, "+
		"or have the DS removed at the parent and wait until its TTL has run out; else go back to mode = \"sign\"", loaded, what, why)}
}

// nextKeys is the DNSKEY RDATA of the keys that a signed zone would show.
func nextKeys(s State) [][]byte {
	keys := s.Keys.Published()
	if len(s.Keys.Signing()) == 0 {
		keys = append(keys, s.Keys.InState(keymgr.Generated)...)
	}
	out := make([][]byte, 0, len(keys))
	for _, k := range keys {
		if data, err := keymgr.RData(k.Key); err == nil {
			out = append(out, data)
		}
	}
	return out
}

// nextSigners is the keys that a zone would be signed with here.
func nextSigners(s State) []keymgr.Key {
	if signing := s.Keys.Signing(); len(signing) > 0 {
		return signing
	}
	return slices.DeleteFunc(s.Keys.InState(keymgr.Generated), func(k keymgr.Key) bool { return !fills(k) })
}

// lacksSigner is the role of which no signer is among the keys that validators
// know, of one of the algorithms of those, and the tags of these keys; "" where
// each has one.
func lacksSigner(served [][]byte, signers []keymgr.Key) (role keymgr.Role, tags []string) {
	var algorithms []byte
	for _, k := range served {
		if len(k) > 3 && !slices.Contains(algorithms, k[3]) {
			algorithms = append(algorithms, k[3])
		}
	}
	for _, a := range algorithms {
		var keys, rest bool
		for _, k := range signers {
			data, err := keymgr.RData(k.Key)
			if err != nil || k.Algorithm != a || len(keysMissing([][]byte{data}, served)) > 0 {
				continue
			}
			keys, rest = keys || k.SignsKeys(), rest || k.SignsZone()
		}
		switch {
		case keys && rest:
			continue
		case keys:
			role = keymgr.ZSK
		default:
			role = keymgr.KSK
		}
		for _, k := range served {
			if len(k) > 3 && k[3] == a {
				tags = append(tags, strconv.Itoa(int(zone.KeyTag(k))))
			}
		}
		return role, tags
	}
	return "", nil
}

// servedKeys is the DNSKEY RRset that is published.
func (e *Engine) servedKeys(s State) ([][]byte, error) {
	v, err := e.store.Signed(s.Zone, s.Published.Signed.Seq)
	if err != nil {
		return nil, e.note(err)
	}
	defer v.Close() //nolint:errcheck // read only
	return keysOf(v)
}

// keysOf is the DNSKEY RRset of an instance, RDATA by RDATA.
func keysOf(v *store.View) ([][]byte, error) {
	value, err := v.Get(zone.AppendKey(nil, zone.KindMade, v.Apex(), zone.TypeDNSKEY))
	if err != nil || value == nil {
		return nil, err
	}
	var out [][]byte
	for data := range zone.Value(value).Records() {
		out = append(out, slices.Clone(data))
	}
	return out, nil
}

// keysMissing is the tags of those keys that are not among others.
func keysMissing(keys, others [][]byte) []string {
	var out []string
	for _, k := range keys {
		if !slices.ContainsFunc(others, func(o []byte) bool { return string(o) == string(k) }) {
			out = append(out, strconv.Itoa(int(zone.KeyTag(k))))
		}
	}
	return out
}

// signedByAny reports whether one of the RRSIGs names one of the keys.
func signedByAny(sigs zone.Value, keys [][]byte) bool {
	if len(sigs) == 0 {
		return false
	}
	for data := range sigs.Records() {
		if slices.ContainsFunc(keys, func(k []byte) bool {
			tag := zone.KeyTag(k)
			return len(data) > 18 && len(k) > 3 && data[2] == k[3] && data[16] == byte(tag>>8) && data[17] == byte(tag)
		}) {
			return true
		}
	}
	return false
}
