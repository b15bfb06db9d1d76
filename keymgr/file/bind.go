package file

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strconv"
	"strings"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

var (
	_ keymgr.Importer  = (*Store)(nil)
	_ keymgr.Describer = (*Store)(nil)
)

// Pair is a key pair read from BIND's files.
type Pair struct {
	Owner  zone.Name   // of the DNSKEY record
	DNSKEY []byte      // RDATA
	Role   keymgr.Role // KSK with the SEP flag, ZSK without
	// Signer signs as those of Store do.
	Signer crypto.Signer

	private crypto.Signer
	ttl     uint32  // of the DNSKEY record
	fields  bindKey // of the .private file
}

// ReadPair reads a private key file in BIND's format (K*.private, v1.2 and
// v1.3) and the public .key file beside it, and checks that they belong
// together. The algorithms are 8, 10, 13, 14, 15 and 16.
func ReadPair(path string) (*Pair, error) {
	p, err := readPair(path)
	if err != nil {
		return nil, fmt.Errorf("read key pair %q: %w", path, err)
	}
	return p, nil
}

func readPair(path string) (*Pair, error) {
	base, ok := strings.CutSuffix(path, ".private")
	if !ok {
		return nil, errors.New("want the .private file of a key pair")
	}
	public, err := readFile(base + ".key")
	if err != nil {
		return nil, err
	}
	p := &Pair{}
	var ttl uint32
	if p.Owner, p.DNSKEY, ttl, err = parsePublic(public); err != nil {
		return nil, fmt.Errorf("%s.key: %w", base, err)
	}
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	fields, err := parseFields(text)
	if err != nil {
		return nil, fmt.Errorf("not a BIND private key file: %w", err)
	}
	algorithm, private, err := fields.private()
	if err != nil {
		return nil, err
	}
	p.ttl, p.fields = ttl, fields
	if p.Role, err = roleOf(p.DNSKEY); err != nil {
		return nil, fmt.Errorf("%s.key: %w", base, err)
	}
	made, err := keymgr.NewKey(p.Role, algorithm, private.Public())
	if err != nil {
		return nil, err
	}
	if want := keymgr.Describe(p.Role, p.DNSKEY); made.ID != want.ID {
		// The private key has no tag of its own: that follows from the flags.
		return nil, fmt.Errorf("the private key (algorithm %d) does not belong to the public one in %s.key (algorithm %d, tag %d)",
			made.Algorithm, base, want.Algorithm, want.Tag)
	}
	p.private = private
	p.Signer, err = NewSigner(private, false)
	return p, err
}

// roleOf is the role that the flags of a DNSKEY record say.
func roleOf(rdata []byte) (keymgr.Role, error) {
	switch flags := uint16(rdata[0])<<8 | uint16(rdata[1]); flags {
	case keymgr.FlagZone:
		return keymgr.ZSK, nil
	case keymgr.FlagZone | keymgr.FlagSEP:
		return keymgr.KSK, nil
	default:
		return "", fmt.Errorf("flags are %d, want 256 (ZSK) or 257 (KSK)", flags)
	}
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	return readBounded(f, path)
}

// Import implements keymgr.Importer.
func (s *Store) Import(ctx context.Context, path, zoneName string, role keymgr.Role) (event.Key, error) {
	if err := ctx.Err(); err != nil {
		return event.Key{}, err
	}
	key, pair, err := describe(path, zoneName, role)
	if err != nil {
		return event.Key{}, err
	}
	return s.save(zoneName, key, pair.private)
}

// Look implements keymgr.Importer.
func (s *Store) Look(ctx context.Context, path, zoneName string, role keymgr.Role) (event.Key, error) {
	if err := ctx.Err(); err != nil {
		return event.Key{}, err
	}
	key, _, err := describe(path, zoneName, role)
	key.Keystore = s.name
	return key, err
}

// LookAt reads a key pair of a zone with what its former signer noted of it, and
// keeps nothing. An empty role is what the files say: CSK where the .state file
// says that it signed everything, else by its flags.
func LookAt(path, zoneName string, role keymgr.Role) (event.Key, error) {
	key, _, err := describe(path, zoneName, role)
	return key, err
}

// ReadPublic reads a .key file alone: the owner of the DNSKEY record, its RDATA
// and its TTL.
func ReadPublic(path string) (owner zone.Name, rdata []byte, ttl uint32, err error) {
	text, err := readFile(path)
	if err == nil {
		owner, rdata, ttl, err = parsePublic(text)
	}
	if err != nil {
		return "", nil, 0, fmt.Errorf("read public key %q: %w", path, err)
	}
	return owner, rdata, ttl, nil
}

// describe reads a key pair of a zone.
func describe(path, zoneName string, role keymgr.Role) (event.Key, *Pair, error) {
	pair, err := ReadPair(path)
	if err != nil {
		return event.Key{}, nil, err
	}
	key, err := pair.describe(strings.TrimSuffix(path, ".private"), zoneName, role)
	if err != nil {
		return event.Key{}, nil, fmt.Errorf("import %q: %w", path, err)
	}
	return key, pair, nil
}

// describe describes a key that a zone has, by the files that begin with base.
func (p *Pair) describe(base, zoneName string, role keymgr.Role) (event.Key, error) {
	apex, err := zone.ParseName(zoneName)
	if err != nil {
		return event.Key{}, err
	}
	if !apex.Equal(p.Owner) {
		return event.Key{}, fmt.Errorf("the key belongs to zone %s, not to %s", p.Owner, apex)
	}
	life, all, err := readLife(base, p.fields)
	if err != nil {
		return event.Key{}, err
	}
	life.TTL = p.ttl
	switch {
	case role == "" && all:
		role = keymgr.CSK
	case role == "":
		role = p.Role
	}
	if role != p.Role && role != keymgr.CSK {
		return event.Key{}, fmt.Errorf("its flags make it a %s, not a %s", p.Role, role)
	}
	key := keymgr.Describe(role, p.DNSKEY)
	key.Life = life
	return key, nil
}

// Describe implements keymgr.Describer.
func (s *Store) Describe(ctx context.Context, path, zoneName string, role keymgr.Role) (event.Key, error) {
	if err := ctx.Err(); err != nil {
		return event.Key{}, err
	}
	key, err := describePublic(path, zoneName, role)
	if err != nil {
		return event.Key{}, fmt.Errorf("read key %q: %w", path, err)
	}
	return key, nil
}

func describePublic(path, zoneName string, role keymgr.Role) (event.Key, error) {
	base, ok := strings.CutSuffix(path, ".key")
	if !ok {
		return event.Key{}, errors.New("want the .key file of a key whose private part is elsewhere")
	}
	text, err := readFile(path)
	if err != nil {
		return event.Key{}, err
	}
	p := &Pair{}
	if p.Owner, p.DNSKEY, p.ttl, err = parsePublic(text); err != nil {
		return event.Key{}, err
	}
	if p.Role, err = roleOf(p.DNSKEY); err != nil {
		return event.Key{}, err
	}
	// A .state file must be of a key of this algorithm.
	p.fields = bindKey{"algorithm": strconv.Itoa(int(p.DNSKEY[3]))}
	return p.describe(base, zoneName, role)
}

// parsePublic reads a .key file: comments and one DNSKEY record.
func parsePublic(text []byte) (zone.Name, []byte, uint32, error) {
	parser := dns.NewZoneParser(bytes.NewReader(text), ".", "")
	var key *dns.DNSKEY
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		k, isKey := rr.(*dns.DNSKEY)
		if !isKey || key != nil {
			return "", nil, 0, errors.New("want one DNSKEY record and nothing else")
		}
		key = k
	}
	if err := parser.Err(); err != nil {
		return "", nil, 0, err
	}
	if key == nil {
		return "", nil, 0, errors.New("no DNSKEY record")
	}
	owner, err := zone.ParseName(key.Hdr.Name)
	if err != nil {
		return "", nil, 0, err
	}
	field, err := base64.StdEncoding.DecodeString(key.PublicKey)
	if err != nil {
		return "", nil, 0, fmt.Errorf("public key: %w", err)
	}
	rdata := append([]byte{byte(key.Flags >> 8), byte(key.Flags), key.Protocol, key.Algorithm}, field...)
	if _, err := keymgr.PublicKey(rdata); err != nil {
		return "", nil, 0, err
	}
	return owner, rdata, key.Hdr.Ttl, nil
}

// bindKey is the fields of a .private file.
type bindKey map[string]string

// parseFields reads the lines of a .private or .state file, "name: value".
func parseFields(text []byte) (bindKey, error) {
	fields := bindKey{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == ';' {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return nil, errors.New("a line without a colon")
		}
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := fields[name]; twice {
			return nil, fmt.Errorf("field %q stands twice", name)
		}
		fields[name] = strings.TrimSpace(value)
	}
	return fields, lines.Err()
}

// private is the private key of a .private file, and its algorithm.
func (f bindKey) private() (uint8, crypto.Signer, error) {
	switch format := f["private-key-format"]; format {
	case "v1.2", "v1.3":
	case "":
		return 0, nil, errors.New("not a BIND private key file: no Private-key-format")
	default:
		return 0, nil, fmt.Errorf("private key format %q: want v1.2 or v1.3", format)
	}
	number, _, _ := strings.Cut(f["algorithm"], " ")
	algorithm, err := strconv.ParseUint(number, 10, 8)
	if err != nil {
		return 0, nil, fmt.Errorf("algorithm %q is not a number", f["algorithm"])
	}
	if f["engine"] != "" || f["label"] != "" {
		return 0, nil, errors.New("the key is in an HSM, this file only names it")
	}
	private, err := f.signer(uint8(algorithm))
	return uint8(algorithm), private, err
}

func (f bindKey) signer(algorithm uint8) (crypto.Signer, error) {
	switch algorithm {
	case dns.RSASHA256, dns.RSASHA512:
		return f.rsa()
	case dns.ECDSAP256SHA256:
		return f.ecdsa(elliptic.P256(), 32)
	case dns.ECDSAP384SHA384:
		return f.ecdsa(elliptic.P384(), 48)
	case dns.ED25519:
		seed, err := f.bytes("PrivateKey", ed25519.SeedSize)
		if err != nil {
			return nil, err
		}
		return ed25519.NewKeyFromSeed(seed), nil
	case dns.ED448:
		seed, err := f.bytes("PrivateKey", ed448.SeedSize)
		if err != nil {
			return nil, err
		}
		return ed448.NewKeyFromSeed(seed), nil
	}
	return nil, fmt.Errorf("algorithm %d is not supported: want 8, 10, 13, 14, 15 or 16", algorithm)
}

// bytes reads a base64 field; size 0 takes any length but none.
func (f bindKey) bytes(name string, size int) ([]byte, error) {
	value, ok := f[strings.ToLower(name)]
	if !ok {
		return nil, fmt.Errorf("field %s is missing", name)
	}
	b, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		// The decoder's error would show where in the secret it stopped only;
		// the field's name is all that is needed.
		return nil, fmt.Errorf("field %s is not base64", name)
	}
	if len(b) == 0 || (size > 0 && len(b) != size) {
		return nil, fmt.Errorf("field %s has %d bytes, want %d", name, len(b), size)
	}
	return b, nil
}

func (f bindKey) ecdsa(curve elliptic.Curve, size int) (crypto.Signer, error) {
	raw, err := f.bytes("PrivateKey", 0)
	if err != nil {
		return nil, err
	}
	if len(raw) > size {
		return nil, fmt.Errorf("field PrivateKey has %d bytes, want %d", len(raw), size)
	}
	// Some writers drop leading zeros.
	padded := make([]byte, size)
	copy(padded[size-len(raw):], raw)
	key, err := ecdsa.ParseRawPrivateKey(curve, padded)
	if err != nil {
		return nil, fmt.Errorf("field PrivateKey: %w", err)
	}
	return key, nil
}

func (f bindKey) rsa() (crypto.Signer, error) {
	var numbers [5]*big.Int
	for i, name := range []string{"Modulus", "PublicExponent", "PrivateExponent", "Prime1", "Prime2"} {
		b, err := f.bytes(name, 0)
		if err != nil {
			return nil, err
		}
		if len(b) > 512 {
			return nil, fmt.Errorf("field %s has %d bytes: an RSA modulus has at most 4096 bits (RFC 5702, 2)", name, len(b))
		}
		numbers[i] = new(big.Int).SetBytes(b)
	}
	n, e, d := numbers[0], numbers[1], numbers[2]
	if e.BitLen() > 31 {
		return nil, errors.New("RSA public exponent of more than 31 bits is not supported")
	}
	key := &rsa.PrivateKey{
		PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())},
		D:         d, Primes: []*big.Int{numbers[3], numbers[4]},
	}
	if err := key.Validate(); err != nil {
		return nil, fmt.Errorf("RSA key: %w", err)
	}
	key.Precompute()
	return key, nil
}
