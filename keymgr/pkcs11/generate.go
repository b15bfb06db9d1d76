//go:build cgo

package pkcs11

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
	p11 "github.com/miekg/pkcs11"

	"sluice/journal/event"
	"sluice/keymgr"
)

// maxTries bounds the search for a key tag that is free.
const maxTries = 200

// Generate implements keymgr.Keystore. The private key is made on the token
// and cannot leave it.
func (s *Store) Generate(ctx context.Context, spec keymgr.Spec, avoid []uint16) (event.Key, error) {
	switch spec.Role {
	case keymgr.KSK, keymgr.ZSK, keymgr.CSK:
	default:
		return event.Key{}, fmt.Errorf("generate key: role %q: want ksk, zsk or csk", spec.Role)
	}
	made, err := recipe(spec.Algorithm, spec.Bits)
	if err != nil {
		return event.Key{}, fmt.Errorf("generate key: %w", err)
	}
	taken := slices.Compact(slices.Sorted(slices.Values(avoid)))
	if len(taken) == 1<<16 {
		return event.Key{}, errors.New("generate key: every key tag is taken")
	}
	done, err := s.change(ctx)
	if err != nil {
		return event.Key{}, err
	}
	defer done()
	for range maxTries {
		if err := ctx.Err(); err != nil {
			return event.Key{}, err
		}
		var found event.Key
		var free bool
		err := s.do(ctx, func(ctx context.Context, c *connection) (err error) {
			found, free, err = s.generate(ctx, c, spec, made, taken)
			return err
		})
		if err != nil {
			return event.Key{}, fmt.Errorf("generate key: %w", err)
		}
		if free {
			return found, nil
		}
	}
	return event.Key{}, fmt.Errorf("generate key: no free key tag in %d tries, %d are taken", maxTries, len(taken))
}

// generate makes one key pair; free is false where its tag is taken, it is
// deleted then.
func (s *Store) generate(ctx context.Context, c *connection, spec keymgr.Spec, made template, taken []uint16) (event.Key, bool, error) {
	// A call that nobody waits for any more still writes these: they are read
	// only where it came back.
	var found event.Key
	free := false
	err := s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
		var temporary [printLength]byte // until the public key is known
		if _, err := rand.Read(temporary[:]); err != nil {
			return err
		}
		public, private, err := made.generate(lib, session, true, temporary[:], label(spec))
		if err != nil {
			return explain(err, c.info.Label, spec.Algorithm)
		}
		drop := func(err error) error {
			return errors.Join(err, destroy(lib, session, public, private))
		}
		pub, err := readPublic(lib, session, public)
		if err != nil {
			return drop(err)
		}
		made, err := keymgr.NewKey(spec.Role, spec.Algorithm, pub)
		if err != nil {
			return drop(err)
		}
		rdata, err := keymgr.RData(made)
		if err != nil {
			return drop(err)
		}
		_, plain := slices.BinarySearch(taken, made.Tag)
		_, revoked := slices.BinarySearch(taken, keymgr.RevokedTag(rdata))
		if plain || revoked {
			return drop(nil)
		}
		ref, err := nameKey(lib, session, pub, temporary[:], public, private)
		if err != nil {
			return drop(err)
		}
		made.Keystore, made.Reference = s.token.Name, ref.String()
		found, free = made, true
		return nil
	})
	if err != nil {
		return event.Key{}, false, err
	}
	return found, free, nil
}

// nameKey gives a key pair the CKA_ID that follows from its public key. On a
// token that allows no change it keeps the one it has.
func nameKey(lib library, session p11.SessionHandle, pub crypto.PublicKey, had []byte, handles ...p11.ObjectHandle) (reference, error) {
	print, err := fingerprint(pub)
	if err != nil {
		return reference{}, err
	}
	// Nothing else may have it: the same key pair once more would be a fault of
	// the token's random source.
	if there, err := objects(lib, session, p11.CKO_PRIVATE_KEY, print); err != nil || len(there) > 0 {
		return reference{}, errors.Join(err, fmt.Errorf("%d private keys have the CKA_ID %x already", len(there), print))
	}
	for i, h := range handles {
		err := lib.SetAttributeValue(session, h, []*p11.Attribute{p11.NewAttribute(p11.CKA_ID, print)})
		if err == nil {
			continue
		}
		if lost(err) || i > 0 {
			return reference{}, fmt.Errorf("set CKA_ID: %w", err)
		}
		return reference{id: had, print: print}, nil
	}
	return reference{id: print, print: print}, nil
}

// label names a key for people.
func label(spec keymgr.Spec) string {
	name := strings.TrimSuffix(spec.Zone, ".")
	if name == "" {
		name = "."
	}
	return fmt.Sprintf("sluice %s %s", spec.Role, name[:min(len(name), 64)])
}

func destroy(lib library, session p11.SessionHandle, handles ...p11.ObjectHandle) error {
	var all error
	for _, h := range handles {
		if err := lib.DestroyObject(session, h); err != nil {
			all = errors.Join(all, fmt.Errorf("delete a key: %w", err))
		}
	}
	return all
}

// Remove implements keymgr.Keystore: it deletes the private and the public
// key from the token.
func (s *Store) Remove(ctx context.Context, ref string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r, err := parseReference(ref)
	if err != nil {
		return fmt.Errorf("remove key: %w", err)
	}
	done, err := s.change(ctx)
	if err != nil {
		return err
	}
	defer done()
	err = s.do(ctx, func(ctx context.Context, c *connection) error {
		c.forget(r) // what was found may be gone, or another one
		o, err := s.find(ctx, c, r)
		if err != nil {
			return err
		}
		c.forget(r)
		return s.with(ctx, c, func(lib library, session p11.SessionHandle) error {
			public, err := objects(lib, session, p11.CKO_PUBLIC_KEY, r.id)
			if err != nil {
				return err
			}
			return destroy(lib, session, append([]p11.ObjectHandle{o.private}, public...)...)
		})
	})
	if err != nil {
		return fmt.Errorf("remove key %s: %w", ref, err)
	}
	return nil
}

// template is what a module is told to make a key pair.
type template struct {
	name      string
	mechanism uint
	kind      uint
	params    [][]byte // CKA_EC_PARAMS, in all ways that modules know; nil for RSA
	bits      int
}

// recipe is how to make keys of an algorithm.
func recipe(algorithm uint8, bits int) (template, error) {
	named := func(i ...int) (out [][]byte) {
		for _, n := range i {
			out = append(out, curves()[n].params)
		}
		return out
	}
	switch algorithm {
	case dns.RSASHA256, dns.RSASHA512:
		if bits == 0 {
			bits = 2048
		}
		if bits < 1024 || bits > 4096 {
			return template{}, fmt.Errorf("RSA modulus of %d bits: want 1024 to 4096", bits)
		}
		return template{"RSA", p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKK_RSA, nil, bits}, nil
	case dns.ECDSAP256SHA256:
		return template{"P-256", p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, named(0), 0}, nil
	case dns.ECDSAP384SHA384:
		return template{"P-384", p11.CKM_EC_KEY_PAIR_GEN, p11.CKK_EC, named(1), 0}, nil
	case dns.ED25519:
		return template{"Ed25519", ckmEdwardsKeyPair, ckkEdwards, named(2, 3), 0}, nil
	case dns.ED448:
		return template{"Ed448", ckmEdwardsKeyPair, ckkEdwards, named(4, 5), 0}, nil
	}
	return template{}, fmt.Errorf("algorithm %d is not supported: want 8, 10, 13, 14, 15 or 16", algorithm)
}

// generate makes a key pair; one that is not to be kept ends with its session.
func (t template) generate(lib library, session p11.SessionHandle, keep bool, id []byte, label string) (public, private p11.ObjectHandle, err error) {
	params := t.params
	if params == nil {
		params = [][]byte{nil}
	}
	for _, p := range params {
		common := func() []*p11.Attribute {
			return []*p11.Attribute{
				p11.NewAttribute(p11.CKA_KEY_TYPE, t.kind), p11.NewAttribute(p11.CKA_TOKEN, keep),
				p11.NewAttribute(p11.CKA_ID, id), p11.NewAttribute(p11.CKA_LABEL, label),
			}
		}
		pub := append(common(), p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PUBLIC_KEY), p11.NewAttribute(p11.CKA_VERIFY, true))
		if p == nil {
			pub = append(pub, p11.NewAttribute(p11.CKA_MODULUS_BITS, t.bits), p11.NewAttribute(p11.CKA_PUBLIC_EXPONENT, []byte{1, 0, 1}))
		} else {
			pub = append(pub, p11.NewAttribute(p11.CKA_EC_PARAMS, p))
		}
		priv := append(common(), p11.NewAttribute(p11.CKA_CLASS, p11.CKO_PRIVATE_KEY), p11.NewAttribute(p11.CKA_PRIVATE, true),
			p11.NewAttribute(p11.CKA_SENSITIVE, true), p11.NewAttribute(p11.CKA_EXTRACTABLE, false), p11.NewAttribute(p11.CKA_SIGN, true))
		public, private, err = lib.GenerateKeyPair(session, []*p11.Mechanism{p11.NewMechanism(t.mechanism, nil)}, pub, priv)
		if err == nil || lost(err) && !is(err, p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED) {
			break // else the module may know the curve by another name
		}
	}
	return public, private, err
}

// explain says where an error means that the token lacks an algorithm.
func explain(err error, label string, algorithm uint8) error {
	if is(err, p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_CURVE_NOT_SUPPORTED, p11.CKR_DOMAIN_PARAMS_INVALID,
		p11.CKR_KEY_SIZE_RANGE, p11.CKR_ATTRIBUTE_VALUE_INVALID, p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_FUNCTION_NOT_SUPPORTED) {
		return problem{
			fmt.Errorf("the token %q makes no keys of algorithm %s: %w", label, dns.AlgorithmToString[algorithm], named(err)),
			"choose another algorithm, by key-manager.generation.algorithm in the policy or --algorithm",
		}
	}
	return err
}
