package signer

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"io"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// memSpill keeps spill files in memory.
type memSpill struct{}

func (memSpill) Create() (zone.SpillFile, error) { return &memFile{}, nil }

type memFile struct{ buf []byte }

func (f *memFile) Write(p []byte) (int, error) {
	f.buf = append(f.buf, p...)
	return len(p), nil
}

func (f *memFile) ReadAt(p []byte, at int64) (int, error) {
	if at >= int64(len(f.buf)) {
		return 0, io.EOF
	}
	n := copy(p, f.buf[at:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) Close() error { return nil }

// memZone is a zone in memory: value by key.
type memZone map[string][]byte

// Put implements Sink.
func (m memZone) Put(key, value []byte) error {
	if len(value) == 0 {
		delete(m, string(key))
	} else {
		m[string(key)] = bytes.Clone(value)
	}
	return nil
}

func (m memZone) keys() []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// kind walks the items of one kind.
func (m memZone) kind(k zone.Kind) zone.Iterator {
	var items []zone.Item
	for _, key := range m.keys() {
		if zone.Kind(key[0]) == k {
			items = append(items, zone.Item{Key: []byte(key), Value: m[key]})
		}
	}
	return zone.Slice(items...)
}

// merged walks the signed zone.
func (m memZone) merged() zone.Iterator {
	return zone.Merge(m.kind(zone.KindContents), m.kind(zone.KindMade), m.kind(zone.KindSigs),
		m.kind(zone.KindChain), m.kind(zone.KindChainSigs))
}

// contentState is the content digest's state of the KindContents items.
func (m memZone) contentState(t testing.TB) *zone.SetHash {
	t.Helper()
	var h zone.Hasher
	for k, v := range m {
		if zone.Kind(k[0]) == zone.KindContents {
			if err := h.AddContent([]byte(k), v); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &h.Set
}

// set replaces one RRset.
func (m memZone) set(kind zone.Kind, owner zone.Name, t zone.Type, ttl uint32, rdata ...[]byte) {
	rdata = zone.SortRData(t, slices.Clone(rdata))
	m[string(zone.AppendKey(nil, kind, owner, t))] = zone.AppendValue(nil, owner, ttl, rdata...)
}

// parse reads records in presentation form; the records of the signer's own
// types go to the kinds where they belong.
func parse(t testing.TB, origin, text string) memZone {
	t.Helper()
	type id struct {
		owner zone.Name
		typ   zone.Type
		kind  zone.Kind
	}
	sets := map[id]*zone.RRset{}
	p := dns.NewZoneParser(strings.NewReader(text), origin, "test")
	p.SetDefaultTTL(3600)
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		name, err := zone.ParseName(rr.Header().Name)
		if err != nil {
			t.Fatal(err)
		}
		i := id{owner: name.Fold(), typ: zone.Type(rr.Header().Rrtype), kind: zone.KindContents}
		atApex := strings.EqualFold(rr.Header().Name, origin)
		switch v := rr.(type) {
		case *dns.RRSIG:
			i.typ, i.kind = zone.Type(v.TypeCovered), zone.KindSigs
			if v.TypeCovered == dns.TypeNSEC3 {
				i.kind = zone.KindChainSigs
			}
		case *dns.NSEC3:
			i.kind = zone.KindChain
		default:
			if zone.SignersOwn(i.typ, atApex) {
				i.kind = zone.KindMade
			}
		}
		if sets[i] == nil {
			sets[i] = &zone.RRset{Owner: name, Type: zone.Type(rr.Header().Rrtype), TTL: rr.Header().Ttl}
		}
		sets[i].Data = append(sets[i].Data, rdataOf(t, rr))
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	m := memZone{}
	for i, s := range sets {
		m[string(zone.AppendKey(nil, i.kind, i.owner, i.typ))] = s.Value()
	}
	return m
}

func rdataOf(t testing.TB, rr dns.RR) []byte {
	t.Helper()
	buf := make([]byte, 70000)
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	_, off, err := dns.UnpackDomainName(buf, 0)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(buf[off+10 : n])
}

// records gives the RRs of an item.
func records(t testing.TB, key, value []byte) []dns.RR {
	t.Helper()
	set, err := zone.RRsetOf(key, value)
	if err != nil {
		t.Fatal(err)
	}
	if k := zone.Kind(key[0]); k == zone.KindSigs || k == zone.KindChainSigs {
		set.Type = zone.TypeRRSIG
	}
	var out []dns.RR
	for _, d := range set.Data {
		wire := append([]byte(set.Owner), byte(set.Type>>8), byte(set.Type), 0, 1)
		wire = binary.BigEndian.AppendUint32(wire, set.TTL)
		wire = binary.BigEndian.AppendUint16(wire, uint16(len(d)))
		rr, _, err := dns.UnpackRR(append(wire, d...), 0)
		if err != nil {
			t.Fatalf("%v %v: %v", set.Owner, set.Type, err)
		}
		out = append(out, rr)
	}
	return out
}

// lines is the zone as text, one record a line, sorted; RRSIGs without their
// times and signatures.
func (m memZone) lines(t testing.TB, types ...zone.Type) []string {
	t.Helper()
	var out []string
	it := m.merged()
	for it.Next() {
		for _, rr := range records(t, it.Key(), it.Value()) {
			if len(types) > 0 && !slices.Contains(types, zone.Type(rr.Header().Rrtype)) {
				continue
			}
			if sig, ok := rr.(*dns.RRSIG); ok {
				sig.Signature, sig.Expiration, sig.Inception = "", 0, 0
			}
			out = append(out, strings.ToLower(rr.String()))
		}
	}
	slices.Sort(out)
	return out
}

// testKey makes a key from a seed: the same each time.
func testKey(t testing.TB, alg uint8, flags uint16, seed string) Key {
	t.Helper()
	sum := sha256.Sum256([]byte(seed))
	k := Key{Published: true}
	var pub []byte
	switch alg {
	case algP256, algP384:
		curve := elliptic.P256()
		if alg == algP384 {
			curve = elliptic.P384()
		}
		scalar := make([]byte, (curve.Params().BitSize+7)/8)
		copy(scalar[1:], sum[:31])
		priv, err := ecdsa.ParseRawPrivateKey(curve, scalar)
		if err != nil {
			t.Fatal(err)
		}
		point, err := priv.PublicKey.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		k.Signer, pub = priv, point[1:]
	case algEd25519:
		priv := ed25519.NewKeyFromSeed(sum[:])
		k.Signer, pub = priv, priv.Public().(ed25519.PublicKey)
	case algEd448:
		priv := ed448.NewKeyFromSeed(append(sum[:], make([]byte, ed448.SeedSize-32)...))
		k.Signer, pub = priv, priv.Public().(ed448.PublicKey)
	case algRSASHA256, algRSASHA512:
		priv := testRSA(t)
		k.Signer = priv
		pub = append([]byte{3, 1, 0, 1}, priv.N.Bytes()...)
	}
	k.DNSKEY = append([]byte{byte(flags >> 8), byte(flags), 3, alg}, pub...)
	k.SignsZone, k.SignsKeys = flags&1 == 0, flags&1 == 1
	return k
}

// testRSA is a fixed RSA-2048 key.
func testRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	number := func(s string) *big.Int {
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(b)
	}
	p, q := number(testRSAP), number(testRSAQ)
	one := big.NewInt(1)
	phi := new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one))
	k := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: new(big.Int).Mul(p, q), E: 65537},
		D:         new(big.Int).ModInverse(big.NewInt(65537), phi),
		Primes:    []*big.Int{p, q},
	}
	k.Precompute()
	if err := k.Validate(); err != nil {
		t.Fatal(err)
	}
	return k
}

// testTime is the moment of every test.
func testTime() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) }

func testKeys(t testing.TB, alg uint8) []Key {
	ksk, zsk := testKey(t, alg, 257, "ksk"), testKey(t, alg, 256, "zsk")
	ksk.CDS = true
	return []Key{ksk, zsk}
}

func testParams(apex string, d Denial) Params {
	name, err := zone.ParseName(apex)
	if err != nil {
		panic(err)
	}
	return Params{
		Apex: name, Serial: 2026030101, Denial: d,
		Inception:  testTime().Add(-time.Hour),
		Expiration: testTime().Add(14 * 24 * time.Hour),
		Refresh:    testTime().Add(7 * 24 * time.Hour),
		DNSKEYTTL:  3600, CDSDigest: []uint8{2}, VerifyAll: true,
	}
}

// orderSink checks the order that Sink promises.
type orderSink struct {
	t    testing.TB
	last map[byte]string
	to   Sink
}

func (s *orderSink) Put(key, value []byte) error {
	if last, ok := s.last[key[0]]; ok && string(key) <= last {
		s.t.Errorf("key %q follows %q", key, last)
	}
	s.last[key[0]] = string(key)
	return s.to.Put(key, value)
}

// mustSign signs in full; the result holds contents and all that was made.
func mustSign(t testing.TB, contents memZone, keys []Key, p Params) (memZone, *Result) {
	t.Helper()
	out := memZone{}
	for k, v := range contents {
		if zone.Kind(k[0]) == zone.KindContents {
			out[k] = v
		}
	}
	in := Input{Contents: contents.kind(zone.KindContents), ContentState: contents.contentState(t), Spill: memSpill{}}
	res, err := Sign(t.Context(), in, keys, p, &orderSink{t, map[byte]string{}, out})
	if err != nil {
		t.Fatal(err)
	}
	return out, res
}

// mustResign signs contents again on top of previous.
func mustResign(t testing.TB, contents, previous memZone, keys []Key, p Params) (memZone, *Result) {
	t.Helper()
	out := memZone{}
	for k, v := range previous {
		if zone.Kind(k[0]) != zone.KindContents {
			out[k] = v
		}
	}
	for k, v := range contents {
		if zone.Kind(k[0]) == zone.KindContents {
			out[k] = v
		}
	}
	state := new(zone.SetHash)
	if err := state.LoadState(previous[string([]byte{byte(zone.KindDigest)})]); err != nil {
		t.Fatal(err)
	}
	in := Input{
		Contents: contents.kind(zone.KindContents), ContentState: contents.contentState(t), Spill: memSpill{},
		Previous: &Previous{
			Contents: previous.kind(zone.KindContents), Made: previous.kind(zone.KindMade),
			Sigs: previous.kind(zone.KindSigs), Chain: previous.kind(zone.KindChain),
			ChainSigs: previous.kind(zone.KindChainSigs), SignedState: state,
		},
	}
	res, err := Sign(t.Context(), in, keys, p, &orderSink{t, map[byte]string{}, out})
	if err != nil {
		t.Fatal(err)
	}
	return out, res
}

// The primes of the RSA test key.
const (
	testRSAP = "5HnZtCN9RHNNbZwp+u4enV9icn5BsJ3zJE2VDPmzYcIUiTAxPYaDN4OCud3Tur7R+y2wUxYYSgo+WlyjdbVcD3yey2MuLwGXR9nY81vkVGPSsoWZBACw7mdc9eGw4ezK8RgvnperKF4s/R0iYFbuwUdVrRa2lqH0gQJcT1beT1U="
	testRSAQ = "2C1yWfBPIpZ5CwhQapbTvd87iz6VTZtsEBXAk6+2aPfXUGPDm5IbOt8jwo6usqFXRY+l4YckDf1PFTUOhs9DdBA6z7eWJ3ZKp0+/kJRyxdtJhOoEkJ9r1rxMFTzAsqDKW0wrV+ss4jFvOCd4dO74DV2+WbW2MkWqNx5T89ZYj6U="
)
