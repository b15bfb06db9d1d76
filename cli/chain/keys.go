package chain

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // DS of digest type 1 are looked at
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

const (
	maxKeys      = 64 // of a DNSKEY RRset
	maxEqualTags = 4
	maxDS        = 32
	digestSHA1   = 1
	algRSASHA1   = 5
	algNSEC3RSA1 = 7
)

// trust says which keys of a zone are trusted, and why.
type trust struct {
	by      func(validate.Key) bool
	ds      [][]byte // usable ones; nil where an anchor is what is trusted
	all     [][]byte // DS that the parent has
	anchors []string
}

// keyed is what a server's DNSKEY RRset is worth.
type keyed struct {
	ok       bool
	keys     []validate.Key // that validate the zone
	shown    []Key
	problems []problem
	verdict  verdict
}

// dnskey judges a DNSKEY RRset.
func (j *judge) dnskey(set *validate.RRset, by trust) (k keyed) {
	say := func(code Code, format string, args ...any) {
		k.problems = append(k.problems, problem{code: code, owner: j.apex, t: zone.TypeDNSKEY, text: fmt.Sprintf(format, args...)})
	}
	if len(set.Data) > maxKeys {
		say(CodeTooMany, "%s has %d keys, more than %d", j.apex, len(set.Data), maxKeys)
		return k
	}
	keys := validate.ZoneKeys(set.Data)
	var entry []validate.Key
	for _, key := range keys {
		if by.by(key) {
			entry = append(entry, key)
		}
		if same := count(keys, func(o validate.Key) bool { return o.Tag == key.Tag && o.Algorithm == key.Algorithm }); same > maxEqualTags {
			say(CodeTooMany, "%s has %d keys with tag %d", j.apex, same, key.Tag)
			return k
		}
	}
	own := *j
	own.keys = keys
	every := own.set(set)
	k.shown = shownKeys(set, keys, entry, own)
	if len(entry) == 0 {
		k.problems = append(k.problems, j.noEntry(set, keys, by))
		return k
	}
	own.keys = entry
	k.verdict = own.set(set)
	if !k.verdict.ok {
		if code := k.verdict.problems[0].code; every.ok && (code == CodeSignatureNoKey || code == CodeSignatureMissing) {
			say(CodeDSKeyNotSigning, "the DS stands for key %s, and only key %s signs the DNSKEY RRset of %s", tags(entry), signers(k.shown), j.apex)
			return k
		}
		k.problems = append(k.problems, k.verdict.problems...)
		return k
	}
	k.ok, k.keys = true, keys
	k.problems = append(k.problems, k.verdict.problems...)
	own.keys = keys
	if len(keys) > 0 {
		k.problems = append(k.problems, own.unsignedBy(set, every)...)
	}
	for _, a := range algorithmsOf(by.ds) {
		if !slices.Contains(every.algorithms, a) && !slices.ContainsFunc(keys, func(k validate.Key) bool { return k.Algorithm == a }) {
			say(CodeAlgorithmUnsigned, "the parent has a DS of %s, and no key of it signs the DNSKEY RRset of %s (RFC 4035, 2.2)", keymgr.AlgorithmName(a), j.apex)
		}
	}
	k.problems = append(k.problems, j.besides(set, keys, by)...)
	return k
}

// shownKeys tells of each key what it does.
func shownKeys(set *validate.RRset, keys, entry []validate.Key, own judge) []Key {
	var out []Key
	for _, data := range set.Data {
		if len(data) < 4 {
			continue
		}
		key := Key{Tag: zone.KeyTag(data), Algorithm: data[3], Flags: binary.BigEndian.Uint16(data)}
		is := func(k validate.Key) bool { return string(k.RData) == string(data) }
		key.Trusted = slices.ContainsFunc(entry, is)
		for i := range keys {
			if is(keys[i]) {
				own.keys = keys[i : i+1]
				key.Signs = own.set(set).ok
			}
		}
		out = append(out, key)
	}
	return out
}

// algorithmsOf lists those of some DS.
func algorithmsOf(all [][]byte) (out []uint8) {
	for _, ds := range all {
		if !slices.Contains(out, ds[2]) {
			out = append(out, ds[2])
		}
	}
	return out
}

func count[T any](all []T, is func(T) bool) (n int) {
	for _, one := range all {
		if is(one) {
			n++
		}
	}
	return n
}

func tags(keys []validate.Key) string {
	var out []string
	for _, k := range keys {
		out = append(out, fmt.Sprint(k.Tag))
	}
	return strings.Join(out, ", ")
}

func signers(keys []Key) string {
	var out []string
	for _, k := range keys {
		if k.Signs {
			out = append(out, fmt.Sprint(k.Tag))
		}
	}
	return strings.Join(out, ", ")
}

// noEntry says why no key is trusted.
func (j *judge) noEntry(set *validate.RRset, keys []validate.Key, by trust) problem {
	p := problem{code: CodeDSNoKey, owner: j.apex, t: zone.TypeDNSKEY}
	if by.ds == nil {
		p.code = CodeAnchorNoKey
		p.text = fmt.Sprintf("no key of %s (%s) is that of the trust anchor %s", j.apex, tags(keys), strings.Join(by.anchors, "; "))
		return p
	}
	for _, ds := range by.ds {
		tag := binary.BigEndian.Uint16(ds)
		for _, data := range set.Data {
			switch {
			case len(data) <= 4 || data[3] != ds[2]:
			case isRevoked(data) && zone.KeyTag(data) == tag:
				p.text = fmt.Sprintf("the DS of %s stands for key %d, which is revoked", j.apex, tag)
				return p
			case isRevoked(data) && zone.KeyTag(unrevoked(data)) == tag:
				p.text = fmt.Sprintf("the DS of %s stands for key %d, which has been revoked and now has tag %d", j.apex, tag, zone.KeyTag(data))
				return p
			case zone.KeyTag(data) == tag && binary.BigEndian.Uint16(data)&keymgr.FlagZone == 0:
				p.text = fmt.Sprintf("the DS of %s stands for key %d, which is not marked as a zone key", j.apex, tag)
				return p
			case zone.KeyTag(data) == tag:
				p.text = fmt.Sprintf("the digest in the DS of %s does not fit key %d, though tag and algorithm do", j.apex, tag)
				return p
			}
		}
	}
	p.text = fmt.Sprintf("the DS of %s is of key %s, and the zone has key %s", j.apex, dsTags(by.ds), tags(keys))
	return p
}

func isRevoked(data []byte) bool { return binary.BigEndian.Uint16(data)&keymgr.FlagRevoke != 0 }

// unrevoked is a key as it was before it was revoked.
func unrevoked(data []byte) []byte {
	out := slices.Clone(data)
	binary.BigEndian.PutUint16(out, binary.BigEndian.Uint16(out)&^keymgr.FlagRevoke)
	return out
}

func dsTags(all [][]byte) string {
	var out []string
	for _, ds := range all {
		out = append(out, fmt.Sprintf("%d (algorithm %d)", binary.BigEndian.Uint16(ds), ds[2]))
	}
	slices.Sort(out)
	return strings.Join(slices.Compact(out), ", ")
}

// besides tells of keys and DS what does not keep the zone from being valid.
func (j *judge) besides(set *validate.RRset, keys []validate.Key, by trust) []problem {
	var out []problem
	say := func(code Code, format string, args ...any) {
		out = append(out, problem{code: code, owner: j.apex, t: zone.TypeDNSKEY, text: fmt.Sprintf(format, args...)})
	}
	for _, data := range set.Data {
		if len(data) > 4 && isRevoked(data) {
			say(CodeKeyRevoked, "key %d of %s is revoked", zone.KeyTag(data), j.apex)
		}
		if len(data) > 4 && (data[3] == algRSASHA1 || data[3] == algNSEC3RSA1) {
			say(CodeAlgorithmSHA1, "key %d of %s is of %s", zone.KeyTag(data), j.apex, keymgr.AlgorithmName(data[3]))
		}
	}
	var standby [][]byte
	known := func(ds []byte) bool {
		return slices.ContainsFunc(keys, func(k validate.Key) bool { return k.Tag == binary.BigEndian.Uint16(ds) && k.Algorithm == ds[2] })
	}
	for _, ds := range by.ds {
		if !slices.ContainsFunc(keys, func(k validate.Key) bool { return stands(ds, j.apex, k) }) {
			standby = append(standby, ds)
		}
	}
	if i := slices.IndexFunc(standby, known); i >= 0 {
		say(CodeDSStandby, "the parent has a DS of key %s with a digest that does not fit, beside one that does", dsTags(standby[i:i+1]))
		standby = slices.DeleteFunc(standby, known)
	}
	if len(standby) > 0 {
		say(CodeDSStandby, "the parent has a DS of key %s, which %s does not have", dsTags(standby), j.apex)
	}
	for _, ds := range by.all {
		if len(ds) > 4 && ds[3] == digestSHA1 {
			say(CodeDSSHA1, "the DS of key %d of %s has a SHA-1 digest", binary.BigEndian.Uint16(ds), j.apex)
		}
	}
	return out
}

// shownDS tells of each DS whether it is of a key.
func shownDS(apex zone.Name, all [][]byte, keys []validate.Key) []DS {
	var out []DS
	for _, ds := range all[:min(len(all), maxDS)] {
		if len(ds) < 5 {
			continue
		}
		out = append(out, DS{
			Tag: binary.BigEndian.Uint16(ds), Algorithm: ds[2], DigestType: ds[3], Digest: hex.EncodeToString(ds[4:]),
			Matches: slices.ContainsFunc(keys, func(k validate.Key) bool { return stands(ds, apex, k) }),
		})
	}
	return out
}

// byDS trusts what the usable DS stand for; ok is false where none is usable.
// Those with SHA-1 count where no other does (RFC 4509, 3).
func byDS(apex zone.Name, all [][]byte) (t trust, ok bool) {
	t.all = all[:min(len(all), maxDS)]
	var old [][]byte
	for _, ds := range t.all {
		if _, known := keymgr.Hash(algorithmIn(ds)); validate.Usable(ds) {
			t.ds = append(t.ds, ds)
		} else if known && ds[3] == digestSHA1 {
			old = append(old, ds)
		}
	}
	if t.ds == nil {
		t.ds = old
	}
	t.by = func(k validate.Key) bool {
		return slices.ContainsFunc(t.ds, func(ds []byte) bool { return stands(ds, apex, k) })
	}
	return t, len(t.ds) > 0
}

// algorithmIn is that of a DS; 0 where it is malformed.
func algorithmIn(ds []byte) uint8 {
	if len(ds) < 5 {
		return 0
	}
	return ds[2]
}

// stands reports whether a DS stands for a key of apex. Validators go on with
// SHA-1 digests, though no DS is to be made with them.
func stands(ds []byte, apex zone.Name, k validate.Key) bool {
	if len(ds) < 5 || ds[3] != digestSHA1 {
		return k.Matches(apex, ds)
	}
	sum := sha1.Sum(append([]byte(apex.Fold()), k.RData...)) //nolint:gosec // what parents have is looked at; nothing is made with it
	return binary.BigEndian.Uint16(ds) == k.Tag && ds[2] == k.Algorithm && bytes.Equal(ds[4:], sum[:])
}
