package kmip

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/big"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sluice/keymgr"
	"sluice/signer"
)

// maxBatch bounds how many signatures one request asks for.
const maxBatch = 64

// BadSignatureError reports that a server made a signature that its own public
// key does not verify. It was not used.
type BadSignatureError struct {
	Keystore  string
	Server    string
	Reference string // the key
	Signed    []byte // the message, or its digest
	Signature []byte
}

// maxEvidence bounds what of a message stands in an error, in bytes.
const maxEvidence = 64

// Error implements error; it has the evidence in it.
func (e *BadSignatureError) Error() string {
	evidence := func(b []byte) string {
		text := hex.EncodeToString(b[:min(len(b), maxEvidence)])
		if len(b) > maxEvidence {
			text += fmt.Sprintf("... (%d bytes)", len(b))
		}
		return text
	}
	return fmt.Sprintf("keystore %q, %s: a signature by key %s does not verify with its public key, and is not used; signed %s, signature %s",
		e.Keystore, e.Server, e.Reference, evidence(e.Signed), evidence(e.Signature))
}

// way is how a server is told what to sign.
type way int

const (
	wayUnknown way = iota
	wayMessage     // the message; the server hashes it
	wayDigest      // its digest, as Digested Data (since KMIP 1.4)
)

// wayOf is what a way is found out for.
type wayOf struct {
	kind string
	hash crypto.Hash
}

// Signer implements keymgr.Keystore. Each signature is verified before it is
// returned. All keys are a signer.MessageSigner that puts several signatures into
// one request and uses all connections at once.
func (s *Store) Signer(ctx context.Context, ref string) (crypto.Signer, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := parseReference(ref)
	if err != nil {
		return nil, fmt.Errorf("open key: %w", err)
	}
	var o *object
	err = s.do(ctx, func(ctx context.Context, srv *server) (err error) {
		o, err = s.find(ctx, srv, r)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open key %s: %w", ref, err)
	}
	return key{store: s, ref: r, public: o.public}, nil
}

// key is a private key on a server.
type key struct {
	store  *Store
	ref    reference
	public crypto.PublicKey
}

var _ signer.MessageSigner = key{}

// Public implements crypto.Signer.
func (k key) Public() crypto.PublicKey { return k.public }

// Sign implements crypto.Signer. Only servers that take digests can do it, and
// all for Edwards curves; SignMessages can be done by all.
func (k key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	hash := opts.HashFunc()
	p, err := k.parameters(hash)
	if err != nil {
		return nil, err
	}
	if hash != 0 && len(digest) != hash.Size() {
		return nil, fmt.Errorf("sign a digest of %d bytes by %v", len(digest), hash)
	}
	var sig []byte
	err = k.withObject(func(ctx context.Context, srv *server, o *object) error {
		how := wayDigest
		if hash == 0 {
			how = wayMessage
		} else if !srv.version.digests() {
			return fmt.Errorf("the server speaks KMIP %v, which signs messages and no digests", srv.version)
		}
		out, err := k.store.call(ctx, srv, p.sign(o.private, how, digest))
		if err == nil {
			sig, err = k.checked(out[0], digest, digest, hash)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, ok := k.public.(*ecdsa.PublicKey); !ok {
		return sig, nil
	}
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[:len(sig)/2]))
		b.AddASN1BigInt(new(big.Int).SetBytes(sig[len(sig)/2:]))
	})
	return b.Bytes()
}

// withObject runs fn with the key, which is looked for anew where the server has
// it no more as it was.
func (k key) withObject(fn func(context.Context, *server, *object) error) error {
	return k.withObjectBy(k.store.do, fn)
}

// withObjectBy is withObject with one of the store's ways to run something.
func (k key) withObjectBy(do func(context.Context, func(context.Context, *server) error) error, fn func(context.Context, *server, *object) error) error {
	run := func(ctx context.Context, srv *server) error {
		o, err := k.store.find(ctx, srv, k.ref)
		if err == nil {
			if err = fn(ctx, srv, o); stale(err) {
				srv.forget(k.ref)
			}
		}
		return err
	}
	err := do(context.Background(), run)
	if stale(err) {
		err = do(context.Background(), run)
	}
	return err
}

// parameters is how a signature is asked for.
type parameters struct {
	kind                               string
	algorithm, hash, signature, scheme uint32
}

func (k key) parameters(hash crypto.Hash) (parameters, error) {
	switch pub := k.public.(type) {
	case *rsa.PublicKey:
		switch hash { //nolint:exhaustive // DNSSEC has no others
		case crypto.SHA256:
			return parameters{"RSA", algorithmRSA, hashSHA256, signRSASHA256, paddingPKCS1}, nil
		case crypto.SHA512:
			return parameters{"RSA", algorithmRSA, hashSHA512, signRSASHA512, paddingPKCS1}, nil
		}
	case *ecdsa.PublicKey:
		switch bits := pub.Curve.Params().BitSize; {
		case bits == 256 && hash == crypto.SHA256:
			return parameters{"ECDSA", algorithmECDSA, hashSHA256, signECDSASHA256, 0}, nil
		case bits == 384 && hash == crypto.SHA384:
			return parameters{"ECDSA", algorithmECDSA, hashSHA384, signECDSASHA384, 0}, nil
		}
	case ed25519.PublicKey:
		if hash == 0 {
			return parameters{"Ed25519", algorithmEd25519, 0, 0, 0}, nil
		}
	case ed448.PublicKey:
		if hash == 0 {
			return parameters{"Ed448", algorithmEd448, 0, 0, 0}, nil
		}
	}
	return parameters{}, fmt.Errorf("sign with %T by %v: not used in DNSSEC", k.public, hash)
}

// sign is the request for one signature.
func (p parameters) sign(id identifier, how way, data []byte) operation {
	return operation{opSign, func(e *encoder) {
		e.identifier(id)
		e.structure(tagCryptographicParameters, func() {
			if p.scheme != 0 {
				e.enumeration(tagPaddingMethod, p.scheme)
			}
			if p.hash != 0 {
				e.enumeration(tagHashingAlgorithm, p.hash)
				e.enumeration(tagDigitalSignatureAlgorithm, p.signature)
			}
			e.enumeration(tagCryptographicAlgorithm, p.algorithm)
		})
		tag := uint32(tagData)
		if how == wayDigest {
			tag = tagDigestedData
		}
		e.bytes(tag, data)
	}}
}

// checked gives the signature in an answer as RRSIG records have it, verified.
// signed is what the server was given, digest what the public key verifies.
func (k key) checked(answer item, signed, digest []byte, hash crypto.Hash) ([]byte, error) {
	raw := answer.find(tagSignatureData)
	if !raw.is(typeBytes) {
		return nil, fmt.Errorf("%w: an answer has no signature", errEncoding)
	}
	for _, sig := range k.readings(raw.value) {
		if keymgr.Verifies(k.public, digest, hash, sig) {
			return sig, nil
		}
	}
	return nil, &BadSignatureError{
		Keystore: k.store.Name(), Server: k.store.serverName(), Reference: k.ref.String(),
		Signed: slices.Clone(signed), Signature: slices.Clone(raw.value),
	}
}

// readings is what a signature may be: servers give those of ECDSA in ASN.1 or
// as r|s, and some leave zeros out at the front of those of RSA.
func (k key) readings(sig []byte) [][]byte {
	switch pub := k.public.(type) {
	case *ecdsa.PublicKey:
		size := (pub.Curve.Params().BitSize + 7) / 8
		var out [][]byte
		if len(sig) == 2*size {
			out = append(out, slices.Clone(sig))
		}
		var r, s []byte
		var inner cryptobyte.String
		input := cryptobyte.String(sig)
		if input.ReadASN1(&inner, asn1.SEQUENCE) && input.Empty() && inner.ReadASN1Integer(&r) && inner.ReadASN1Integer(&s) &&
			inner.Empty() && len(r) <= size && len(s) <= size {
			plain := make([]byte, 2*size)
			copy(plain[size-len(r):], r)
			copy(plain[2*size-len(s):], s)
			out = append(out, plain)
		}
		return out
	case *rsa.PublicKey:
		if size := pub.Size(); len(sig) < size && len(sig) > 0 {
			return [][]byte{append(make([]byte, size-len(sig)), sig...)}
		}
	}
	return [][]byte{slices.Clone(sig)}
}

// job is what SignMessages was asked for.
type job struct {
	key      key
	p        parameters
	hash     crypto.Hash
	messages []byte
	ends     []int
	size     int // of a signature
	sigs     []byte
}

// message is what signature number i covers.
func (j *job) message(i int) []byte {
	if i == 0 {
		return j.messages[:j.ends[0]]
	}
	return j.messages[j.ends[i-1]:j.ends[i]]
}

// digest is what the public key verifies of signature number i.
func (j *job) digest(i int) []byte {
	if j.hash == 0 {
		return j.message(i)
	}
	h := j.hash.New()
	h.Write(j.message(i))
	return h.Sum(nil)
}

// sigSize is the size of a signature in an RRSIG record.
func sigSize(public crypto.PublicKey) int {
	switch pub := public.(type) {
	case *rsa.PublicKey:
		return pub.Size()
	case *ecdsa.PublicKey:
		return 2 * ((pub.Curve.Params().BitSize + 7) / 8)
	case ed448.PublicKey:
		return ed448.SignatureSize
	}
	return ed25519.SignatureSize
}

// SignMessages implements signer.MessageSigner. The first fault ends it. Servers
// take random nonces for ECDSA, so the signatures differ from run to run.
func (k key) SignMessages(dst, messages []byte, ends []int, hash crypto.Hash) ([]byte, error) {
	p, err := k.parameters(hash)
	if err != nil {
		return dst, err
	}
	for i, end := range ends {
		if end < 0 || end > len(messages) || i > 0 && end < ends[i-1] {
			return dst, fmt.Errorf("sign messages: number %d ends at %d of %d bytes", i, end, len(messages))
		}
	}
	j := &job{key: k, p: p, hash: hash, messages: messages, ends: ends, size: sigSize(k.public)}
	j.sigs = make([]byte, len(ends)*j.size)
	parts := j.split()
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range min(len(parts), k.store.token.Sessions) {
		wg.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(parts) {
					return
				}
				if err := j.part(parts[i][0], parts[i][1]); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return dst, *err
	}
	return append(dst, j.sigs...), nil
}

// split shares the messages out: as many parts as there are connections, but no
// part larger than a request may be.
func (j *job) split() [][2]int {
	most := int(j.key.store.batch.Load())
	each := min(max((len(j.ends)+j.key.store.token.Sessions-1)/j.key.store.token.Sessions, 1), most)
	var parts [][2]int
	for from := 0; from < len(j.ends); {
		size := len(j.message(from))
		to := from + 1
		for to < len(j.ends) && to-from < each && size+len(j.message(to)) <= maxBatchBytes {
			size += len(j.message(to))
			to++
		}
		parts = append(parts, [2]int{from, to})
		from = to
	}
	return parts
}

// part signs the messages from one to before another: in one request, or in
// smaller ones where the server does not take that.
func (j *job) part(from, to int) error {
	s := j.key.store
	n := to - from
	if n == 1 {
		return j.request(from, to, s.do)
	}
	err := j.request(from, to, s.try)
	if err == nil {
		return nil
	}
	_, wasRefused := refused(err)
	broken, wasLost := lost(err)
	if broken.slow {
		return s.gone(err)
	}
	if !wasRefused && !wasLost && !errors.Is(err, errBatch) {
		return err
	}
	half := n / 2
	if err := j.part(from, from+half); err != nil {
		return err
	}
	// It did work in smaller ones: none as large as this is sent any more.
	for {
		now := s.batch.Load()
		if int(now) <= half || s.batch.CompareAndSwap(now, int32(half)) {
			break
		}
	}
	for at := from + half; at < to; at += half {
		if err := j.part(at, min(at+half, to)); err != nil {
			return err
		}
	}
	return nil
}

// request signs in one request.
func (j *job) request(from, to int, do func(context.Context, func(context.Context, *server) error) error) error {
	return j.key.withObjectBy(do, func(ctx context.Context, srv *server, o *object) error {
		how, err := j.way(ctx, srv, o)
		if err != nil {
			return err
		}
		ops := make([]operation, 0, to-from)
		for i := from; i < to; i++ {
			ops = append(ops, j.p.sign(o.private, how, j.given(i, how)))
		}
		out, err := j.key.store.call(ctx, srv, ops...)
		if err != nil {
			return err
		}
		for i := from; i < to; i++ {
			sig, err := j.key.checked(out[i-from], j.given(i, how), j.digest(i), j.hash)
			if err != nil {
				return err
			}
			copy(j.sigs[i*j.size:], sig)
		}
		return nil
	})
}

// given is what the server is given to sign.
func (j *job) given(i int, how way) []byte {
	if how == wayDigest {
		return j.digest(i)
	}
	return j.message(i)
}

// way finds out, once a connection, how the server wants to be told what to sign:
// there are those that hash, and those that sign digests alone.
func (j *job) way(ctx context.Context, srv *server, o *object) (way, error) {
	of := wayOf{j.p.kind, j.hash}
	srv.mu.Lock()
	known := srv.ways[of]
	srv.mu.Unlock()
	if known != wayUnknown || j.hash == 0 || !srv.version.digests() {
		return max(known, wayMessage), nil
	}
	var first error
	for _, how := range []way{wayMessage, wayDigest} {
		out, err := j.key.store.call(ctx, srv, j.p.sign(o.private, how, j.given(0, how)))
		if err == nil {
			_, err = j.key.checked(out[0], j.given(0, how), j.digest(0), j.hash)
		}
		if err == nil {
			srv.mu.Lock()
			srv.ways[of] = how
			srv.mu.Unlock()
			return how, nil
		}
		if first == nil {
			first = err
		}
		_, bad := errors.AsType[*BadSignatureError](err)
		if _, ok := refused(err); !bad && (!ok || stale(err) || denied(err)) {
			return 0, err
		}
	}
	return 0, first
}
