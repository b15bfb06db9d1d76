package kmip

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
)

// maxTries bounds the search for a key tag that is free.
const maxTries = 200

// template is what a server is told to make a key pair.
type template struct {
	name       string
	algorithms []uint32 // in all ways that servers know
	length     uint32
	curve      uint32 // 0 for RSA
}

// recipe is how to make keys of an algorithm.
func recipe(algorithm uint8, bits int) (template, error) {
	switch algorithm {
	case dns.RSASHA256, dns.RSASHA512:
		if bits == 0 {
			bits = 2048
		}
		if bits < 1024 || bits > 4096 {
			return template{}, fmt.Errorf("RSA modulus of %d bits: want 1024 to 4096", bits)
		}
		return template{"RSA", []uint32{algorithmRSA}, uint32(bits), 0}, nil
	case dns.ECDSAP256SHA256:
		return template{"P-256", []uint32{algorithmECDSA, algorithmEC}, 256, curveP256}, nil
	case dns.ECDSAP384SHA384:
		return template{"P-384", []uint32{algorithmECDSA, algorithmEC}, 384, curveP384}, nil
	case dns.ED25519:
		return template{"Ed25519", []uint32{algorithmEd25519, algorithmEC}, 256, curve25519}, nil
	case dns.ED448:
		return template{"Ed448", []uint32{algorithmEd448, algorithmEC}, 456, curve448}, nil
	}
	return template{}, fmt.Errorf("algorithm %d is not supported: want 8, 10, 13, 14, 15 or 16", algorithm)
}

// form is one way to ask for a key pair.
type form struct {
	algorithm uint32
	kept      bool // the private key shall never leave the server
}

// forms are the ways to ask for a key pair, best first: servers refuse what they
// do not know.
func (t template) forms(v version) []form {
	var out []form
	for _, kept := range []bool{true, false} {
		for _, algorithm := range t.algorithms {
			if !kept || v.digests() { // these attributes came with KMIP 1.4
				out = append(out, form{algorithm, kept})
			}
		}
	}
	return out
}

// create has the server make a key pair in one form.
func (t template) create(v version, f form, name string) operation {
	return operation{opCreateKeyPair, func(e *encoder) {
		common := []attribute{
			enumAttribute("Cryptographic Algorithm", tagCryptographicAlgorithm, f.algorithm),
			intAttribute("Cryptographic Length", tagCryptographicLength, t.length),
		}
		if t.curve != 0 {
			common = append(common, attribute{"Cryptographic Domain Parameters", tagCryptographicDomain, func(e *encoder, tag uint32) {
				e.structure(tag, func() { e.enumeration(tagRecommendedCurve, t.curve) })
			}})
		}
		e.attributes(v, tagCommonTemplateAttribute, tagCommonAttributes, common)
		private := []attribute{
			nameAttribute(name + privateSuffix),
			intAttribute("Cryptographic Usage Mask", tagCryptographicUsageMask, usageSign),
		}
		if f.kept {
			private = append(private, boolAttribute("Sensitive", tagSensitive, true), boolAttribute("Extractable", tagExtractable, false))
		}
		e.attributes(v, tagPrivateKeyTemplateAttribute, tagPrivateKeyAttributes, private)
		e.attributes(v, tagPublicKeyTemplateAttribute, tagPublicKeyAttributes, []attribute{
			nameAttribute(name + publicSuffix),
			intAttribute("Cryptographic Usage Mask", tagCryptographicUsageMask, usageVerify),
		})
	}}
}

// pair makes a key pair and reads its public key; it is activated. What fails
// after it was made deletes it.
func (s *Store) pair(ctx context.Context, srv *server, t template, algorithm uint8, name string) (*object, error) {
	forms := t.forms(srv.version)
	srv.mu.Lock()
	first := srv.made[t.name]
	srv.mu.Unlock()
	var refusal error
	for i, f := range forms[min(first, len(forms)-1):] {
		out, err := s.call(ctx, srv, t.create(srv.version, f, name))
		if err != nil {
			if _, ok := refused(err); !ok {
				return nil, err
			}
			if refusal == nil {
				refusal = err
			}
			continue
		}
		srv.mu.Lock()
		srv.made[t.name] = first + i
		srv.mu.Unlock()
		o := &object{}
		var ok, also bool
		o.private, ok = identifierOf(out[0].find(tagPrivateKeyUniqueIdentifier))
		o.publicID, also = identifierOf(out[0].find(tagPublicKeyUniqueIdentifier))
		if !ok || !also {
			return nil, fmt.Errorf("%w: it does not name the new keys", errEncoding)
		}
		if o.public, err = s.public(ctx, srv, o.publicID, t); err == nil {
			err = s.activate(ctx, srv, o.private)
		}
		if err != nil {
			return nil, errors.Join(err, s.destroy(ctx, srv, o.private, o.publicID))
		}
		return o, nil
	}
	return nil, problem{
		fmt.Errorf("the server makes no keys of algorithm %s: %w", dns.AlgorithmToString[algorithm], refusal),
		"choose another algorithm, by key-manager.generation.algorithm in the policy or --algorithm; sluice keystore test " + s.token.Name + " --algorithm NAME tries one",
	}
}

// Generate implements keymgr.Keystore. The private key is made on the server.
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
		var doubtful []string // names of keys that may have been made or not
		err := s.do(ctx, func(ctx context.Context, srv *server) (err error) {
			s.clear(ctx, srv, doubtful)
			name, err := newName(labelOf(spec))
			if err != nil {
				return err
			}
			found, free, err = s.generate(ctx, srv, spec, made, taken, name)
			if _, ok := lost(err); ok {
				doubtful = append(doubtful, name)
			}
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

// clear deletes keys that were made when the connection broke; what cannot be
// deleted stays, and is never used.
func (s *Store) clear(ctx context.Context, srv *server, names []string) {
	for _, name := range names {
		private, err := s.locate(ctx, srv, objectPrivateKey, name+privateSuffix)
		public, also := s.locate(ctx, srv, objectPublicKey, name+publicSuffix)
		if err == nil && also == nil {
			_ = s.destroy(ctx, srv, append(private, public...)...) // as above
		}
	}
}

// generate makes one key pair; free is false where its tag is taken, it is
// deleted then.
func (s *Store) generate(ctx context.Context, srv *server, spec keymgr.Spec, t template, taken []uint16, name string) (event.Key, bool, error) {
	o, err := s.pair(ctx, srv, t, spec.Algorithm, name)
	if err != nil {
		return event.Key{}, false, err
	}
	drop := func(err error) (event.Key, bool, error) {
		return event.Key{}, false, errors.Join(err, s.destroy(ctx, srv, o.private, o.publicID))
	}
	made, err := keymgr.NewKey(spec.Role, spec.Algorithm, o.public)
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
	ref := reference{name: name}
	if ref.print, err = fingerprint(o.public); err != nil {
		return drop(err)
	}
	made.Keystore, made.Reference = s.token.Name, ref.String()
	return made, true, nil
}

// Remove implements keymgr.Keystore: it deletes the private and the public key
// from the server.
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
	err = s.do(ctx, func(ctx context.Context, srv *server) error {
		srv.forget(r) // what was found may be gone, or another one
		o, err := s.findPair(ctx, srv, r)
		if err != nil {
			return err
		}
		return s.destroy(ctx, srv, o.private, o.publicID)
	})
	if err != nil {
		return fmt.Errorf("remove key %s: %w", ref, err)
	}
	return nil
}
