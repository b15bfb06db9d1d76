package file

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cloudflare/circl/sign/ed448"
	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

var _ keymgr.Exporter = (*Store)(nil)

// Export implements keymgr.Exporter.
func (s *Store) Export(ctx context.Context, zoneName string, key event.Key) (keymgr.KeyFiles, error) {
	files, err := s.export(ctx, zoneName, key)
	if err != nil {
		return keymgr.KeyFiles{}, fmt.Errorf("export key %s: %w", key.ID, err)
	}
	return files, nil
}

func (s *Store) export(ctx context.Context, zoneName string, key event.Key) (files keymgr.KeyFiles, err error) {
	if err := ctx.Err(); err != nil {
		return files, err
	}
	apex, err := zone.ParseName(zoneName)
	if err != nil {
		return files, err
	}
	rdata, err := keymgr.RData(key)
	if err != nil {
		return files, err
	}
	if err := checkRef(key.Reference); err != nil {
		return files, err
	}
	text, err := readPrivate(filepath.Join(s.dir, key.Reference))
	if errors.Is(err, fs.ErrNotExist) {
		return files, fmt.Errorf("%s: %w", key.Reference, keymgr.ErrNoKey)
	}
	if err != nil {
		return files, err
	}
	defer clear(text)
	private, err := decodePEM(text)
	if err != nil {
		return files, err
	}
	life := key.Life
	if life == nil {
		life = &event.KeyLife{}
	}
	files.Name = FileName(apex, key.Algorithm, key.Tag)
	if files.Private, err = privateText(key.Algorithm, private, life); err != nil {
		return files, err
	}
	files.Public = publicText(apex, key, rdata, life)
	files.State = stateText(apex, key, rdata, life)
	return files, nil
}

// fileName is a zone's name as BIND has it in file names.
func fileName(apex zone.Name) string {
	var b strings.Builder
	for _, c := range []byte(apex.Fold().String()) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '-', c == '_', c == '.':
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// privateText is the .private file.
func privateText(algorithm uint8, private crypto.Signer, life *event.KeyLife) ([]byte, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "Private-key-format: v1.3\nAlgorithm: %d (%s)\n", algorithm, dns.AlgorithmToString[algorithm])
	field := func(name string, value []byte) {
		fmt.Fprintf(&b, "%s: %s\n", name, base64.StdEncoding.EncodeToString(value))
	}
	switch key := private.(type) {
	case *rsa.PrivateKey:
		if len(key.Primes) != 2 {
			return nil, errors.New("an RSA key of more than two primes has no form in BIND's files")
		}
		key.Precompute()
		for _, row := range []struct {
			name string
			n    *big.Int
		}{
			{"Modulus", key.N},
			{"PublicExponent", big.NewInt(int64(key.E))},
			{"PrivateExponent", key.D},
			{"Prime1", key.Primes[0]},
			{"Prime2", key.Primes[1]},
			{"Exponent1", key.Precomputed.Dp},
			{"Exponent2", key.Precomputed.Dq},
			{"Coefficient", key.Precomputed.Qinv},
		} {
			field(row.name, row.n.Bytes())
		}
	case *ecdsa.PrivateKey:
		raw, err := key.Bytes()
		if err != nil {
			return nil, err
		}
		field("PrivateKey", raw)
	case ed25519.PrivateKey:
		field("PrivateKey", key.Seed())
	case ed448.PrivateKey:
		field("PrivateKey", key.Seed())
	default:
		return nil, fmt.Errorf("a key of type %T has no form in BIND's files", private)
	}
	if life.Predecessor != 0 {
		fmt.Fprintf(&b, "Predecessor: %d\n", life.Predecessor)
	}
	if life.Successor != 0 {
		fmt.Fprintf(&b, "Successor: %d\n", life.Successor)
	}
	for _, row := range lifeTimes(life) {
		if *row.at != 0 {
			fmt.Fprintf(&b, "%s: %s\n", row.private, time.Unix(*row.at, 0).UTC().Format(stamp))
		}
	}
	return b.Bytes(), nil
}

// stamped is a time as in .key and .state files.
func stamped(at int64) string {
	t := time.Unix(at, 0).UTC()
	return t.Format(stamp) + " (" + t.Format(time.ANSIC) + ")"
}

// publicText is the .key file.
func publicText(apex zone.Name, key event.Key, rdata []byte, life *event.KeyLife) []byte {
	var b bytes.Buffer
	kind := "zone-signing key"
	if rdata[1]&keymgr.FlagSEP != 0 {
		kind = "key-signing key"
	}
	fmt.Fprintf(&b, "; This is a %s, keyid %d, for %s\n", kind, key.Tag, apex.Fold())
	for _, row := range lifeTimes(life)[:6] {
		if *row.at != 0 {
			fmt.Fprintf(&b, "; %s: %s\n", row.private, stamped(*row.at))
		}
	}
	ttl := ""
	if life.TTL != 0 {
		ttl = strconv.FormatUint(uint64(life.TTL), 10) + " "
	}
	fmt.Fprintf(&b, "%s %sIN DNSKEY %d %d %d %s\n", apex.Fold(), ttl, binary.BigEndian.Uint16(rdata), rdata[2], rdata[3],
		base64.StdEncoding.EncodeToString(rdata[4:]))
	return b.Bytes()
}

// StateText is what stands in the .state file of a key with such a life, as
// dnssec-policy writes it.
func StateText(apex zone.Name, key event.Key) ([]byte, error) {
	rdata, err := keymgr.RData(key)
	if err != nil {
		return nil, err
	}
	life := key.Life
	if life == nil {
		life = &event.KeyLife{}
	}
	return stateText(apex, key, rdata, life), nil
}

// FileName is the name of a key's files without their suffix, as BIND has it.
func FileName(apex zone.Name, algorithm uint8, tag uint16) string {
	return fmt.Sprintf("K%s+%03d+%05d", fileName(apex), algorithm, tag)
}

// stateText is the .state file.
func stateText(apex zone.Name, key event.Key, rdata []byte, life *event.KeyLife) []byte {
	var b bytes.Buffer
	yes := map[bool]string{true: "yes", false: "no"}
	role := keymgr.Role(key.Role)
	fmt.Fprintf(&b, "; This is the state of key %d, for %s\n", key.Tag, apex.Fold())
	fmt.Fprintf(&b, "Algorithm: %d\nLength: %d\nLifetime: %d\n", key.Algorithm, keyLength(rdata), life.Lifetime)
	if life.Predecessor != 0 {
		fmt.Fprintf(&b, "Predecessor: %d\n", life.Predecessor)
	}
	if life.Successor != 0 {
		fmt.Fprintf(&b, "Successor: %d\n", life.Successor)
	}
	fmt.Fprintf(&b, "KSK: %s\nZSK: %s\n", yes[role != keymgr.ZSK], yes[role != keymgr.KSK])
	for _, row := range lifeTimes(life) {
		if *row.at != 0 {
			fmt.Fprintf(&b, "%s: %s\n", row.state, stamped(*row.at))
		}
	}
	for _, row := range lifeSpreads(life) {
		if s := *row.spread; s != nil && s.Since != 0 {
			fmt.Fprintf(&b, "%s: %s\n", row.change, stamped(s.Since))
		}
	}
	for _, row := range lifeSpreads(life) {
		if s := *row.spread; s != nil {
			fmt.Fprintf(&b, "%s: %s\n", row.state, s.State)
		}
	}
	if life.Goal != "" {
		fmt.Fprintf(&b, "GoalState: %s\n", life.Goal)
	}
	return b.Bytes()
}

// keyLength is the length of a public key in bits, as BIND counts it.
func keyLength(rdata []byte) int {
	switch rdata[3] {
	case dns.ECDSAP256SHA256, dns.ED25519:
		return 256
	case dns.ECDSAP384SHA384:
		return 384
	case dns.ED448:
		return 456
	}
	public, err := keymgr.PublicKey(rdata)
	if n, ok := public.(*rsa.PublicKey); err == nil && ok {
		return n.N.BitLen()
	}
	return 0
}
