package signer

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"errors"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sluice/signer/zone"
)

func TestSign_UnchangedZoneKeepsItsSignatures(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys := testKeys(t, algP256)
	for _, denial := range []Denial{NSEC, NSEC3, NSEC3OptOut} {
		p := testParams("example.", denial)
		before, full := mustSign(t, contents, keys, p)
		later := p
		later.Serial++
		later.Inception, later.Expiration = p.Inception.Add(24*time.Hour), p.Expiration.Add(24*time.Hour)
		later.Refresh = p.Expiration
		after, res := mustResign(t, contents, before, keys, later)
		if res.Made != 1 || res.Reused != full.Signatures-1 {
			t.Errorf("%s: made %d, reused %d; only the SOA changed", denial, res.Made, res.Reused)
		}
		if !res.Earliest.Equal(p.Expiration) {
			t.Errorf("%s: earliest %v, want %v", denial, res.Earliest, p.Expiration)
		}
		if r := mustVerify(t, after, later, func(o *VerifyOptions) { o.SignedSum, o.At = &res.SignedSum, later.Inception.Add(time.Hour) }); !r.OK() {
			t.Errorf("%s: %v", denial, r.Err())
		}
		later.Refresh = p.Expiration.Add(time.Second)
		if _, res := mustResign(t, contents, before, keys, later); res.Reused != 0 {
			t.Errorf("%s: %d signatures kept that expire before Refresh", denial, res.Reused)
		}
	}
}

func TestSign_SignatureFromTheFutureIsMadeAgain(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys := testKeys(t, algEd25519)
	p := testParams("example.", NSEC)
	before, _ := mustSign(t, contents, keys, p)
	p.Inception = p.Inception.Add(-time.Second)
	if _, res := mustResign(t, contents, before, keys, p); res.Reused != 0 {
		t.Errorf("%d signatures kept whose inception lies ahead", res.Reused)
	}
}

// Two keys may have one tag; a signature belongs to the one that verifies it.
func TestSign_KeysWithOneTagAreTold(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	ksk, one := testKey(t, algEd25519, 257, "ksk"), testKey(t, algEd25519, 256, "zsk")
	two := sameTag(t, one)
	p := testParams("example.", NSEC)
	before, _ := mustSign(t, contents, []Key{ksk, one}, p)
	after, res := mustResign(t, contents, before, []Key{ksk, two}, p)
	if res.Reused != 0 {
		t.Errorf("%d signatures kept, yet the ZSK is another and the DNSKEY RRset with it", res.Reused)
	}
	if r := mustVerify(t, after, p, nil); !r.OK() {
		t.Error(r.Err())
	}
	// Both at once: each keeps what is its own.
	both := []Key{ksk, one, two}
	z, full := mustSign(t, contents, both, p)
	again, res := mustResign(t, contents, z, both, p)
	if res.Reused != full.Signatures {
		t.Errorf("%d of %d signatures kept", res.Reused, full.Signatures)
	}
	if r := mustVerify(t, again, p, nil); !r.OK() {
		t.Error(r.Err())
	}
}

// sameTag finds a key with the tag of k.
func sameTag(t *testing.T, k Key) Key {
	t.Helper()
	for i := range 1 << 20 {
		o := testKey(t, algEd25519, 256, strings.Repeat("x", i%7)+string(rune(i)))
		if zone.KeyTag(o.DNSKEY) == zone.KeyTag(k.DNSKEY) && !bytes.Equal(o.DNSKEY, k.DNSKEY) {
			return o
		}
	}
	t.Fatal("no key with the same tag")
	return Key{}
}

func TestSign_DenialMayChange(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys := testKeys(t, algEd25519)
	denials := []Denial{NSEC, NSEC3, NSEC3OptOut, NSEC}
	z, _ := mustSign(t, contents, keys, testParams("example.", denials[0]))
	for _, d := range denials[1:] {
		p := testParams("example.", d)
		z, _ = mustResign(t, contents, z, keys, p)
		if r := mustVerify(t, z, p, nil); !r.OK() || r.Denial != d {
			t.Errorf("%s: %v", d, r.Err())
		}
	}
}

// faulty signs wrongly now and then.
type faulty struct {
	crypto.Signer
	n    atomic.Int64
	err  error
	asn1 bool
}

func (f *faulty) Sign(rand io.Reader, message []byte, opts crypto.SignerOpts) ([]byte, error) {
	sig, err := f.Signer.Sign(rand, message, opts)
	if f.n.Add(1) == 5 && err == nil {
		if f.err != nil {
			return nil, f.err
		}
		if f.asn1 {
			return sig[:len(sig)-1], nil
		}
		sig = slices.Clone(sig)
		sig[len(sig)-1] ^= 1
	}
	return sig, err
}

// batching offers SignBatch over an ordinary key.
type batching struct {
	crypto.Signer
	calls atomic.Int64
	bad   bool
	short bool
}

func (s *batching) SignBatch(dst, digests []byte) ([]byte, error) {
	s.calls.Add(1)
	for at := 0; at < len(digests); at += 32 {
		sig, err := s.Signer.Sign(nil, digests[at:at+32], crypto.SHA256)
		if err != nil {
			return dst, err
		}
		if dst, err = appendFixedECDSA(dst, sig, 32); err != nil {
			return dst, err
		}
	}
	if s.bad {
		dst[len(dst)-1] ^= 1
	}
	if s.short {
		dst = dst[:len(dst)-1]
	}
	return dst, nil
}

func signError(t *testing.T, keys []Key, p Params, change func(*Input)) error {
	t.Helper()
	contents := parse(t, "example.", sampleZone)
	in := Input{Contents: contents.kind(zone.KindContents), ContentState: contents.contentState(t), Spill: memSpill{}}
	if change != nil {
		change(&in)
	}
	_, err := Sign(t.Context(), in, keys, p, memZone{})
	return err
}

func TestSign_FaultySignerNeverGetsThrough(t *testing.T) {
	for _, c := range []struct {
		name string
		alg  uint8
		make func(crypto.Signer) crypto.Signer
		want string
	}{
		{"wrong signature", algP256, func(s crypto.Signer) crypto.Signer { return &faulty{Signer: s} }, "key "},
		{"wrong Ed25519 signature", algEd25519, func(s crypto.Signer) crypto.Signer { return &faulty{Signer: s} }, "does not verify"},
		{"broken ASN.1", algP256, func(s crypto.Signer) crypto.Signer { return &faulty{Signer: s, asn1: true} }, "not an ASN.1 ECDSA signature"},
		{"error", algP384, func(s crypto.Signer) crypto.Signer { return &faulty{Signer: s, err: errors.New("token gone")} }, "token gone"},
		{"wrong batch", algP256, func(s crypto.Signer) crypto.Signer { return &batching{Signer: s, bad: true} }, "does not verify"},
		{"short batch", algP256, func(s crypto.Signer) crypto.Signer { return &batching{Signer: s, short: true} }, "signatures gave"},
		{"another key's signatures", algP256, func(crypto.Signer) crypto.Signer { return testKey(t, algP256, 256, "other").Signer }, "does not verify"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := testKeys(t, c.alg)
			keys[1].Signer = c.make(keys[1].Signer)
			err := signError(t, keys, testParams("example.", NSEC), nil)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "example.") {
				t.Errorf("error %v, want one with %q that names the RRset", err, c.want)
			}
		})
	}
}

func TestSign_BatchSignerGivesTheSameZone(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	keys := testKeys(t, algP256)
	p := testParams("example.", NSEC3)
	want, _ := mustSign(t, contents, keys, p)
	b := &batching{Signer: keys[1].Signer}
	keys[1].Signer = b
	got, _ := mustSign(t, contents, keys, p)
	if b.calls.Load() == 0 {
		t.Error("SignBatch was not called")
	}
	for _, k := range want.keys() {
		if !bytes.Equal(want[k], got[k]) {
			t.Fatalf("item %q differs", k)
		}
	}
}

// whole is a key that is given messages.
type whole struct {
	crypto.Signer
	calls atomic.Int64
	bad   bool
}

func (s *whole) SignMessages(dst, messages []byte, ends []int, hash crypto.Hash) ([]byte, error) {
	s.calls.Add(1)
	start := 0
	for _, end := range ends {
		signed := messages[start:end]
		if hash != 0 {
			h := hash.New()
			h.Write(signed)
			signed = h.Sum(nil)
		}
		sig, err := s.Sign(nil, signed, hash)
		if err != nil {
			return dst, err
		}
		if _, ec := s.Public().(*ecdsa.PublicKey); ec {
			dst, err = appendFixedECDSA(dst, sig, hash.Size())
		} else {
			dst = append(dst, sig...)
		}
		if err != nil {
			return dst, err
		}
		start = end
	}
	if s.bad {
		dst[len(dst)-1] ^= 1
	}
	return dst, nil
}

func TestSign_MessageSignerGivesTheSameZone(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	for _, alg := range []uint8{algRSASHA256, algRSASHA512, algP256, algP384, algEd25519} {
		keys := testKeys(t, alg)
		p := testParams("example.", NSEC3)
		want, _ := mustSign(t, contents, keys, p)
		w := &whole{Signer: keys[1].Signer}
		keys[1].Signer = w
		got, res := mustSign(t, contents, keys, p)
		if w.calls.Load() == 0 || res.Verified == 0 {
			t.Errorf("algorithm %d: SignMessages was called %d times, %d signatures verified", alg, w.calls.Load(), res.Verified)
		}
		for _, k := range want.keys() {
			if !bytes.Equal(want[k], got[k]) {
				t.Fatalf("algorithm %d: item %q differs", alg, k)
			}
		}
		w.bad = true
		if err := signError(t, keys, p, nil); err == nil || !strings.Contains(err.Error(), "does not verify") {
			t.Errorf("algorithm %d, wrong signatures: %v", alg, err)
		}
	}
}

func TestSign_SampleChecksTheFirstThousandAndOneIn64(t *testing.T) {
	var text strings.Builder
	text.WriteString(sampleZone)
	for i := range 1500 {
		text.WriteString(strings.Repeat("n", 1+i%3) + string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676)) + ".example. 60 IN TXT x\n")
	}
	p := testParams("example.", NSEC)
	p.VerifyAll = false
	_, res := mustSign(t, parse(t, "example.", text.String()), testKeys(t, algEd25519), p)
	if want := 1000 + res.Made/64 - 1000/64; res.Made < 2000 || res.Verified != want {
		t.Errorf("%d of %d verified, want %d", res.Verified, res.Made, want)
	}
}

func TestSign_BadInputIsAnError(t *testing.T) {
	good := testParams("example.", NSEC)
	key := func(alg uint8, flags uint16, change func(*Key)) Key {
		k := testKey(t, alg, flags, "k")
		change(&k)
		return k
	}
	for _, c := range []struct {
		name   string
		keys   []Key
		params func(*Params)
		input  func(*Input)
		want   string
	}{
		{name: "no keys", keys: []Key{}, want: "no key is published"},
		{name: "algorithm that does not sign the zone", keys: append(testKeys(t, algP256), key(algEd25519, 257, func(*Key) {})), want: "no key of algorithm 15 signs the zone"},
		{name: "algorithm that does not sign DNSKEY", keys: append(testKeys(t, algP256), key(algEd25519, 256, func(*Key) {})), want: "no key of algorithm 15 signs the DNSKEY RRset"},
		{name: "a key twice", keys: append(testKeys(t, algP256), testKeys(t, algP256)...), want: "is given twice"},
		{name: "no private key", keys: append(testKeys(t, algP256), key(algP256, 256, func(k *Key) { k.Signer = nil })), want: "has no private key"},
		{name: "unknown algorithm", keys: append(testKeys(t, algP256), key(algP256, 256, func(k *Key) { k.DNSKEY[3] = 5 })), want: "algorithm 5 is not supported"},
		{name: "point not on the curve", keys: append(testKeys(t, algP256), key(algP256, 256, func(k *Key) { k.DNSKEY[10] ^= 1 })), want: "public key of algorithm 13"},
		{name: "expiration before inception", params: func(p *Params) { p.Expiration = p.Inception }, want: "expiration is not after inception"},
		{name: "unknown denial", params: func(p *Params) { p.Denial = "nsec5" }, want: `unknown denial type "nsec5"`},
		{name: "SHA-1 CDS", params: func(p *Params) { p.CDSDigest = []uint8{1} }, want: "DS digest type 1 is not supported"},
		{name: "jitter beyond refresh", params: func(p *Params) { p.Jitter = 8 * 24 * time.Hour }, want: "jitter leaves no validity"},
		{name: "NSEC3 without spill", params: func(p *Params) { p.Denial = NSEC3 }, input: func(in *Input) { in.Spill = nil }, want: "needs a spill"},
		{name: "ZONEMD without spill", params: func(p *Params) { p.ZONEMD = true }, input: func(in *Input) { in.Spill = nil }, want: "needs a spill"},
		{name: "empty contents", input: func(in *Input) { in.Contents = zone.Slice() }, want: "contents are empty"},
		{name: "no SOA", input: contentsWithout(t, "example.", zone.TypeSOA), want: "no SOA record"},
		{name: "DNSKEY among the contents", input: contentsWith(t, "example. 60 IN DNSKEY 256 3 13 GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edbkrSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA=="), want: "signer's own"},
		{name: "other apex", params: func(p *Params) { p.Apex = mustName(t, "test.") }, want: "do not begin with the apex"},
		{name: "failing contents", input: func(in *Input) { in.Contents = failing{in.Contents} }, want: "read contents: disk gone"},
		{name: "failing spill", params: func(p *Params) { p.ZONEMD = true }, input: func(in *Input) { in.Spill = failingSpill{} }, want: "disk gone"},
		{name: "no previous state", input: func(in *Input) { in.Previous = &Previous{} }, want: "without its signed state"},
		{name: "no previous contents", input: func(in *Input) { in.Previous = &Previous{SignedState: new(zone.SetHash)} }, want: "without one of its iterators"},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys, p := c.keys, good
			if keys == nil {
				keys = testKeys(t, algP256)
			}
			if c.params != nil {
				c.params(&p)
			}
			if err := signError(t, keys, p, c.input); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func contentsWithout(t *testing.T, owner string, typ zone.Type) func(*Input) {
	return func(in *Input) {
		m := parse(t, "example.", sampleZone)
		delete(m, keyOf(t, zone.KindContents, owner, typ))
		in.Contents = m.kind(zone.KindContents)
	}
}

func contentsWith(t *testing.T, record string) func(*Input) {
	return func(in *Input) {
		m := parse(t, "example.", sampleZone)
		for k, v := range parse(t, "example.", record+"\n") {
			m[string(rune(zone.KindContents))+k[1:]] = v
		}
		in.Contents = m.kind(zone.KindContents)
	}
}

type failing struct{ zone.Iterator }

func (failing) Next() bool { return false }
func (failing) Err() error { return errors.New("disk gone") }

type failingSpill struct{}

func (failingSpill) Create() (zone.SpillFile, error) { return nil, errors.New("disk gone") }

func TestSign_SinkErrorAndCancelEndTheRun(t *testing.T) {
	contents := parse(t, "example.", sampleZone)
	in := func() Input {
		return Input{Contents: contents.kind(zone.KindContents), ContentState: contents.contentState(t), Spill: memSpill{}}
	}
	if _, err := Sign(t.Context(), in(), testKeys(t, algEd25519), testParams("example.", NSEC), fullSink{}); err == nil || !strings.Contains(err.Error(), "sink full") {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Sign(ctx, in(), testKeys(t, algEd25519), testParams("example.", NSEC), memZone{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if _, err := Verify(ctx, contents.merged(), VerifyOptions{Apex: mustName(t, "example.")}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

type fullSink struct{}

func (fullSink) Put(_, _ []byte) error { return errors.New("sink full") }

func TestSign_ProgressIsTold(t *testing.T) {
	p := testParams("tld.", NSEC)
	var told []uint64
	p.Progress = func(n uint64) { told = append(told, n) }
	in := Input{Contents: &stream{n: 5000}, ContentState: new(zone.SetHash)}
	if _, err := Sign(t.Context(), in, testKeys(t, algEd25519), p, memZone{}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(told, []uint64{progressEvery, 2 * progressEvery}) {
		t.Errorf("told %v", told)
	}
}
