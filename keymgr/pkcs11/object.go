//go:build cgo

package pkcs11

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"

	"github.com/cloudflare/circl/sign/ed448"
	p11 "github.com/miekg/pkcs11"

	"sluice/keymgr"
)

// Numbers of PKCS #11 v3.0 that the binding does not name.
const (
	ckkEdwards        = 0x40   // CKK_EC_EDWARDS
	ckmEdwardsKeyPair = 0x1055 // CKM_EC_EDWARDS_KEY_PAIR_GEN
	ckmEdDSA          = 0x1057 // CKM_EDDSA
)

// object is a key pair on the token.
type object struct {
	private p11.ObjectHandle
	public  crypto.PublicKey
}

// maxObjects bounds how many keys are looked at that have one CKA_ID.
const maxObjects = 16

// find gives the key pair behind a reference. What the connection has found
// before is not looked for again.
func (s *Store) find(ctx context.Context, c *connection, ref reference) (*object, error) {
	name := ref.String()
	c.mu.Lock()
	o := c.keys[name]
	c.mu.Unlock()
	if o != nil {
		return o, nil
	}
	err := s.with(ctx, c, func(lib library, session p11.SessionHandle) (err error) {
		o, err = findPair(lib, session, ref)
		if errors.Is(err, keymgr.ErrNoKey) {
			// A token that went may show itself as an empty one.
			if gone := c.present(lib); gone != nil {
				return gone
			}
		}
		return err
	})
	if _, asked := errors.AsType[p11.Error](err); err != nil && !asked && !errors.Is(err, errSlow) && !errors.Is(err, errStale) {
		return nil, fmt.Errorf("keystore %q, %s: %w", s.token.Name, tokenName(s.Token()), err)
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	c.keys[name] = o
	c.mu.Unlock()
	return o, nil
}

// forget has a key pair looked for again.
func (c *connection) forget(ref reference) {
	c.mu.Lock()
	delete(c.keys, ref.String())
	c.mu.Unlock()
}

// findPair looks for a key pair: its private key by the CKA_ID, and a public
// key that has the same CKA_ID and is the one that the reference means.
func findPair(lib library, session p11.SessionHandle, ref reference) (*object, error) {
	private, err := onlyPrivate(lib, session, ref.id)
	if err != nil {
		return nil, err
	}
	public, err := objects(lib, session, p11.CKO_PUBLIC_KEY, ref.id)
	if err != nil {
		return nil, err
	}
	var other error
	// Of an RSA key the private part tells the public one.
	for _, h := range append(public, private) {
		key, err := readPublic(lib, session, h)
		if err != nil {
			if lost(err) {
				return nil, err
			}
			continue
		}
		print, err := fingerprint(key)
		if err == nil && bytes.Equal(print, ref.print) {
			return &object{private, key}, nil
		}
		other = fmt.Errorf("the key with the CKA_ID %x is another one: its public key has the fingerprint %x, that of this zone %x", ref.id, print, ref.print)
	}
	if other != nil {
		return nil, problem{other, "two tokens must not have different keys under one name: see that this is the right token"}
	}
	return nil, fmt.Errorf("the public key with the CKA_ID %x is not on the token, or cannot be read: only with it is it sure which key signs", ref.id)
}

// onlyPrivate is the private key that has a CKA_ID.
func onlyPrivate(lib library, session p11.SessionHandle, id []byte) (p11.ObjectHandle, error) {
	private, err := objects(lib, session, p11.CKO_PRIVATE_KEY, id)
	if err != nil {
		return 0, err
	}
	switch len(private) {
	case 0:
		return 0, fmt.Errorf("no private key has the CKA_ID %x: %w", id, keymgr.ErrNoKey)
	case 1:
		return private[0], nil
	}
	return 0, problem{
		fmt.Errorf("%d private keys have the CKA_ID %x (%s): %w", len(private), id, labels(lib, session, private), errAmbiguous),
		"take the other ones off the token, or give them another CKA_ID",
	}
}

// objects lists the objects of a class that have a CKA_ID.
func objects(lib library, session p11.SessionHandle, class uint, id []byte) ([]p11.ObjectHandle, error) {
	template := []*p11.Attribute{p11.NewAttribute(p11.CKA_CLASS, class), p11.NewAttribute(p11.CKA_ID, id)}
	if err := lib.FindObjectsInit(session, template); err != nil {
		return nil, fmt.Errorf("look for a key: %w", err)
	}
	found, _, err := lib.FindObjects(session, maxObjects)
	if done := lib.FindObjectsFinal(session); err == nil {
		err = done
	}
	if err != nil {
		return nil, fmt.Errorf("look for a key: %w", err)
	}
	return found, nil
}

// labels lists the labels of keys, for people.
func labels(lib library, session p11.SessionHandle, found []p11.ObjectHandle) string {
	var b bytes.Buffer
	for i, h := range found {
		if i > 0 {
			b.WriteString(", ")
		}
		a, err := lib.GetAttributeValue(session, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_LABEL, nil)})
		if err != nil || len(a) != 1 {
			b.WriteString("without label")
			continue
		}
		fmt.Fprintf(&b, "%q", a[0].Value)
	}
	return b.String()
}

// readPublic reads a public key, or the public part of a private RSA key.
func readPublic(lib library, session p11.SessionHandle, h p11.ObjectHandle) (crypto.PublicKey, error) {
	a, err := lib.GetAttributeValue(session, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_KEY_TYPE, nil)})
	if err != nil || len(a) != 1 {
		return nil, fmt.Errorf("read the type of a key: %w", err)
	}
	kind, ok := number(a[0].Value)
	if !ok {
		return nil, errors.New("the type of a key cannot be read")
	}
	wanted := []*p11.Attribute{p11.NewAttribute(p11.CKA_EC_PARAMS, nil), p11.NewAttribute(p11.CKA_EC_POINT, nil)}
	if kind == p11.CKK_RSA {
		wanted = []*p11.Attribute{p11.NewAttribute(p11.CKA_MODULUS, nil), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, nil)}
	}
	a, err = lib.GetAttributeValue(session, h, wanted)
	if err != nil || len(a) != 2 {
		return nil, fmt.Errorf("read a public key: %w", err)
	}
	switch kind {
	case p11.CKK_RSA:
		return rsaKey(a[0].Value, a[1].Value)
	case p11.CKK_EC, ckkEdwards:
		return curveKey(a[0].Value, a[1].Value)
	}
	return nil, fmt.Errorf("key type 0x%x is not used in DNSSEC", kind)
}

// number reads a CK_ULONG, in the byte order and size of this machine.
func number(value []byte) (uint, bool) {
	switch len(value) {
	case 8:
		return uint(binary.NativeEndian.Uint64(value)), true
	case 4:
		return uint(binary.NativeEndian.Uint32(value)), true
	}
	return 0, false
}

// Bounds of an RSA key: DNSSEC allows moduli of 512 to 4096 bits.
const (
	maxModulus  = 4096 / 8
	maxExponent = 1<<31 - 1
)

func rsaKey(modulus, exponent []byte) (crypto.PublicKey, error) {
	e := new(big.Int).SetBytes(exponent)
	if len(bytes.TrimLeft(modulus, "\x00")) > maxModulus || len(modulus) == 0 || !e.IsInt64() || e.Int64() < 3 || e.Int64() > maxExponent {
		return nil, errors.New("the RSA key is malformed or too large")
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(modulus), E: int(e.Int64())}, nil
}

// curve is a curve as CKA_EC_PARAMS names it: by OID, or as older modules want
// it for Edwards curves, by a printable name.
type curve struct {
	params []byte
	ec     elliptic.Curve // nil for the Edwards curves
	size   int            // of a public key of an Edwards curve
}

func curves() []curve {
	return []curve{
		{params: []byte("\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07"), ec: elliptic.P256()},
		{params: []byte("\x06\x05\x2b\x81\x04\x00\x22"), ec: elliptic.P384()},
		{params: []byte("\x06\x03\x2b\x65\x70"), size: ed25519.PublicKeySize},
		{params: []byte("\x13\x0cedwards25519"), size: ed25519.PublicKeySize},
		{params: []byte("\x06\x03\x2b\x65\x71"), size: ed448.PublicKeySize},
		{params: []byte("\x13\x0aedwards448"), size: ed448.PublicKeySize},
	}
}

// curveKey reads a public key on a curve. The point stands in an OCTET STRING;
// some modules leave that out.
func curveKey(params, point []byte) (crypto.PublicKey, error) {
	plain := point
	if rest, err := asn1.Unmarshal(point, &plain); err != nil || len(rest) > 0 {
		plain = point
	}
	for _, c := range curves() {
		if !bytes.Equal(c.params, params) {
			continue
		}
		switch {
		case c.ec != nil:
			return ecdsa.ParseUncompressedPublicKey(c.ec, plain)
		case len(plain) != c.size:
			return nil, fmt.Errorf("a public key of %d bytes, want %d", len(plain), c.size)
		case c.size == ed448.PublicKeySize:
			return ed448.PublicKey(plain), nil
		}
		return ed25519.PublicKey(plain), nil
	}
	return nil, fmt.Errorf("curve %x is not used in DNSSEC", params)
}
