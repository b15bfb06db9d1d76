package xfr

import (
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// maxUnsigned is how many messages of a transfer may stand between two signed
// ones (RFC 8945, 5.3.1).
const maxUnsigned = 99

var (
	errUnasked    = errors.New("TSIG in the answer to an unsigned question")
	errUnsigned   = errors.New("answer without TSIG to a signed question")
	errLastBare   = errors.New("the last message is not signed (RFC 8945, 5.3.1)")
	errOtherKey   = errors.New("TSIG: the answer is signed with another key or algorithm")
	errBadMAC     = errors.New("TSIG: wrong signature (BADSIG)")
	errCutMAC     = errors.New("TSIG: shortened signature (BADTRUNC)")
	errTSIGTime   = errors.New("TSIG: time of signing too far from ours (BADTIME)")
	errManyBare   = fmt.Errorf("more than %d messages without TSIG (RFC 8945, 5.3.1)", maxUnsigned)
	errTSIGPlace  = errors.New("malformed or misplaced TSIG record")
	errUnknownKey = errors.New("unknown TSIG key")
)

// tsigKey signs requests.
type tsigKey struct {
	name, algorithm zone.Name
	newHash         func() hash.Hash
	secret          []byte
}

// key finds the key of an endpoint; nil where it names none.
func (c *Client) key(ep Endpoint) (*tsigKey, error) {
	if ep.Key == "" {
		return nil, nil //nolint:nilnil // no key is no error
	}
	name, err := zone.ParseName(ep.Key)
	if err != nil {
		return nil, err
	}
	k := &tsigKey{name: name.Fold()}
	if c.cfg.Keys == nil {
		return nil, fmt.Errorf("%w %s", errUnknownKey, name)
	}
	algorithm, secret, ok := c.cfg.Keys.Secret(k.name)
	if !ok {
		return nil, fmt.Errorf("%w %s", errUnknownKey, name)
	}
	k.secret = secret
	if k.newHash, k.algorithm = tsigAlgorithm(algorithm, c.cfg.WeakTSIG); k.newHash == nil {
		return nil, fmt.Errorf("TSIG key %s: algorithm %q is not known or too weak", name, algorithm)
	}
	return k, nil
}

// sign appends the TSIG record of a request (RFC 8945, 5.1) and returns what
// verifies the answer.
func (k *tsigKey) sign(msg []byte, now time.Time) ([]byte, *tsigVerifier) {
	mac := hmac.New(k.newHash, k.secret)
	t := tsigRecord{
		key: k.name, algorithm: k.algorithm, time: uint64(now.Unix()), fudge: tsigFudge,
		id: binary.BigEndian.Uint16(msg),
	}
	mac.Write(msg)
	mac.Write(tsigVariables(&t))
	t.mac = mac.Sum(nil)
	v := &tsigVerifier{key: k, mac: mac}
	v.after(t.mac)
	return appendTSIG(msg, 0, &t), v
}

// tsigVerifier verifies the messages of one answer. A nil one wants no TSIG.
type tsigVerifier struct {
	key    *tsigKey
	mac    hash.Hash // has taken in last and the unsigned messages since
	last   []byte    // MAC before
	begun  bool      // a message was verified
	unsign int       // messages since without TSIG
}

// clone is a fresh verifier for the same question, for answers that may be
// forged. Nothing must have been verified yet.
func (v *tsigVerifier) clone() *tsigVerifier {
	if v == nil {
		return nil
	}
	o := &tsigVerifier{key: v.key, mac: hmac.New(v.key.newHash, v.key.secret)}
	o.after(v.last)
	return o
}

// after begins the digest of the next signed message.
func (v *tsigVerifier) after(mac []byte) {
	v.last, v.unsign = mac, 0
	v.mac.Reset()
	v.mac.Write([]byte{byte(len(mac) >> 8), byte(len(mac))})
	v.mac.Write(mac)
}

// skip takes an unsigned message in.
func (v *tsigVerifier) skip(msg []byte) error {
	if !v.begun {
		return errUnsigned
	}
	if v.unsign++; v.unsign > maxUnsigned {
		return errManyBare
	}
	v.mac.Write(msg)
	return nil
}

// verify checks a signed message (RFC 8945, 5.3).
func (v *tsigVerifier) verify(msg []byte, t *tsigRecord, at int, now time.Time) error {
	if t.key != v.key.name || t.algorithm != v.key.algorithm {
		return errOtherKey
	}
	var head [headerLen]byte
	copy(head[:], msg)
	binary.BigEndian.PutUint16(head[:], t.id)
	binary.BigEndian.PutUint16(head[10:], binary.BigEndian.Uint16(msg[10:])-1)
	v.mac.Write(head[:])
	v.mac.Write(msg[headerLen:at])
	if v.begun {
		v.mac.Write(appendTimers(nil, t))
	} else {
		v.mac.Write(tsigVariables(t))
	}
	want := v.mac.Sum(nil)
	switch {
	case len(t.mac) < len(want) && len(t.mac) >= max(10, len(want)/2) && hmac.Equal(want[:len(t.mac)], t.mac):
		return errCutMAC
	case !hmac.Equal(want, t.mac):
		return errBadMAC
	}
	ours := uint64(max(now.Unix(), 0))
	if t.code != dns.RcodeBadTime && max(ours, t.time)-min(ours, t.time) > uint64(t.fudge) {
		return errTSIGTime
	}
	v.begun = true
	v.after(want)
	return nil
}

// finished checks that the last message was signed.
func (v *tsigVerifier) finished() error {
	switch {
	case v == nil:
		return nil
	case !v.begun:
		return errUnsigned
	case v.unsign > 0:
		return errLastBare
	}
	return nil
}

// clock is what a BADTIME answer tells of the server's clock (RFC 8945,
// 5.2.3).
func (t *tsigRecord) clock() string {
	if len(t.other) != 6 {
		return ""
	}
	at := int64(binary.BigEndian.Uint16(t.other))<<32 | int64(binary.BigEndian.Uint32(t.other[2:]))
	return "the server's clock says " + time.Unix(at, 0).UTC().Format(time.RFC3339)
}
