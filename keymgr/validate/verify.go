package validate

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

// Key is a DNSKEY that may verify.
type Key struct {
	RData     []byte
	Tag       uint16
	Algorithm uint8
	memo      *Memo // what verified with it; nil remembers nothing
}

// ZoneKeys are the keys of a DNSKEY RRset that may sign a zone (RFC 4034,
// 2.1.1; RFC 5011, 2.1).
func ZoneKeys(data [][]byte) []Key {
	var out []Key
	for _, rdata := range data {
		if len(rdata) <= 4 || len(rdata) > MaxKeySize || rdata[2] != 3 {
			continue
		}
		flags := binary.BigEndian.Uint16(rdata)
		if flags&keymgr.FlagZone == 0 || flags&keymgr.FlagRevoke != 0 {
			continue
		}
		out = append(out, Key{RData: rdata, Tag: zone.KeyTag(rdata), Algorithm: rdata[3]})
	}
	return out
}

// InTime checks a signature's validity at now (RFC 4034, 3.1.5: times compare
// by RFC 1982).
func (s *Signature) InTime(now time.Time) error {
	t := uint32(now.Unix()) //nolint:gosec // modulo 2^32 is meant
	switch {
	case int32(t-s.Inception) < 0: //nolint:gosec // likewise
		return errors.New("the signature is not valid yet")
	case int32(s.Expiration-t) < 0: //nolint:gosec // likewise
		return errors.New("the signature has expired")
	}
	return nil
}

// Verified finds a signature over the set by one of the keys, which belong to
// the zone apex, and says until when it is valid. What a wildcard made does
// not count: nothing that is asked here may come of one.
func (r *RRset) Verified(apex zone.Name, keys []Key, now time.Time) (sig *Signature, by Key, err error) {
	return r.VerifiedAny(apex, keys, now, false)
}

// VerifiedAny is Verified, where wildcard says so also of what a wildcard made.
func (r *RRset) VerifiedAny(apex zone.Name, keys []Key, now time.Time, wildcard bool) (sig *Signature, by Key, err error) {
	if len(r.Sigs) == 0 {
		return nil, Key{}, errUnsigned
	}
	attempts := 0
	err = fmt.Errorf("no signature is by a key of %s", apex)
	for i := range r.Sigs {
		s := &r.Sigs[i]
		if !s.Signer.Equal(apex) || !r.Owner.Under(apex) || !wildcard && s.Synthesized(r) {
			continue
		}
		for _, k := range keys {
			if k.Tag != s.Tag || k.Algorithm != s.Algorithm {
				continue
			}
			if attempts++; attempts > MaxAttempts {
				return nil, Key{}, fmt.Errorf("more than %d signatures by keys of one tag", MaxAttempts)
			}
			if err = s.InTime(now); err != nil {
				continue
			}
			if err = k.Verify(s.Message(r), s.Bytes); err == nil {
				return s, k, nil
			}
		}
	}
	return nil, Key{}, err
}

// Matches reports whether a DS of owner stands for the key, with a digest and
// an algorithm that are known here.
func (k Key) Matches(owner zone.Name, ds []byte) bool {
	if len(ds) < 5 || binary.BigEndian.Uint16(ds) != k.Tag || ds[2] != k.Algorithm {
		return false
	}
	own, err := keymgr.DS(owner, k.RData, ds[3])
	return err == nil && bytes.Equal(own, ds)
}

// Usable reports whether a DS can be validated with here: others are treated
// as if they were not there (RFC 4035, 5.2).
func Usable(ds []byte) bool {
	if len(ds) < 5 {
		return false
	}
	_, known := keymgr.Hash(ds[2])
	return known && (ds[3] == keymgr.DigestSHA256 || ds[3] == keymgr.DigestSHA384)
}
