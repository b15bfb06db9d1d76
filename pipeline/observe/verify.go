package observe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sluice/keymgr"
	"sluice/signer/zone"
)

var errUnsigned = errors.New("it is not signed")

// key is a DNSKEY that may verify.
type key struct {
	rdata     []byte
	tag       uint16
	algorithm uint8
	memo      *memo // what verified with it; nil remembers nothing
}

// zoneKeys are the keys of a DNSKEY RRset that may sign a zone (RFC 4034,
// 2.1.1; RFC 5011, 2.1).
func zoneKeys(data [][]byte) []key {
	var out []key
	for _, rdata := range data {
		if len(rdata) <= 4 || len(rdata) > maxKeySize || rdata[2] != 3 {
			continue
		}
		flags := binary.BigEndian.Uint16(rdata)
		if flags&keymgr.FlagZone == 0 || flags&keymgr.FlagRevoke != 0 {
			continue
		}
		out = append(out, key{rdata: rdata, tag: zone.KeyTag(rdata), algorithm: rdata[3]})
	}
	return out
}

// inTime checks a signature's validity at now (RFC 4034, 3.1.5: times compare
// by RFC 1982).
func (s *rrsig) inTime(now time.Time) error {
	t := uint32(now.Unix()) //nolint:gosec // modulo 2^32 is meant
	switch {
	case int32(t-s.inception) < 0: //nolint:gosec // likewise
		return errors.New("the signature is not valid yet")
	case int32(s.expiration-t) < 0: //nolint:gosec // likewise
		return errors.New("the signature has expired")
	}
	return nil
}

// verified finds a signature over the set by one of the keys, which belong to
// the zone apex, and says until when it is valid. What a wildcard made does
// not count: nothing that is asked here may come of one.
func (r *rrset) verified(apex zone.Name, keys []key, now time.Time) (sig *rrsig, by key, err error) {
	return r.verifiedAny(apex, keys, now, false)
}

// verifiedAny is verified, where wildcard says so also of what a wildcard made.
func (r *rrset) verifiedAny(apex zone.Name, keys []key, now time.Time, wildcard bool) (sig *rrsig, by key, err error) {
	if len(r.sigs) == 0 {
		return nil, key{}, errUnsigned
	}
	attempts := 0
	err = fmt.Errorf("no signature is by a key of %s", apex)
	for i := range r.sigs {
		s := &r.sigs[i]
		if !s.signer.Equal(apex) || !r.owner.Under(apex) || !wildcard && s.synthesized(r) {
			continue
		}
		for _, k := range keys {
			if k.tag != s.tag || k.algorithm != s.algorithm {
				continue
			}
			if attempts++; attempts > maxAttempts {
				return nil, key{}, fmt.Errorf("more than %d signatures by keys of one tag", maxAttempts)
			}
			if err = s.inTime(now); err != nil {
				continue
			}
			if err = k.verify(s.message(r), s.signature); err == nil {
				return s, k, nil
			}
		}
	}
	return nil, key{}, err
}

// matches reports whether a DS of owner stands for the key, with a digest and
// an algorithm that are known here.
func (k key) matches(owner zone.Name, ds []byte) bool {
	if len(ds) < 5 || binary.BigEndian.Uint16(ds) != k.tag || ds[2] != k.algorithm {
		return false
	}
	own, err := keymgr.DS(owner, k.rdata, ds[3])
	return err == nil && bytes.Equal(own, ds)
}

// usable reports whether a DS can be validated with here: others are treated
// as if they were not there (RFC 4035, 5.2).
func usable(ds []byte) bool {
	if len(ds) < 5 {
		return false
	}
	_, known := keymgr.Hash(ds[2])
	return known && (ds[3] == keymgr.DigestSHA256 || ds[3] == keymgr.DigestSHA384)
}
