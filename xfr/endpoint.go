package xfr

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"sluice/signer/zone"
)

const (
	portDNS = 53
	portTLS = 853 // RFC 9103, 7.1
	// tlsScheme begins an endpoint that is reached over TLS.
	tlsScheme = "tls://"
	// pinScheme begins a pin in an endpoint.
	pinScheme = "sha256:"
)

// Endpoint is a server that this one asks: a primary, or a secondary that is
// notified.
type Endpoint struct {
	Addr netip.AddrPort
	// Key is the TSIG key that signs what is asked, in lower case with its
	// final dot; empty for none.
	Key string
	// TLS says how the server proves itself over TLS (RFC 9103); nil speaks
	// clear text. There is no way from one to the other.
	TLS *TLSPeer
}

// TLSPeer is how a server must prove itself. At least one of the fields is
// set; where both are, both must hold.
type TLSPeer struct {
	// Name is what the certificate must be valid for, up to a trusted root.
	Name string
	// Pins are SHA-256 hashes of public keys (SubjectPublicKeyInfo); the
	// certificate must hold one of them. Without Name nothing else of the
	// certificate counts.
	Pins [][sha256.Size]byte
}

var (
	errNotAddress = errors.New("not an IP address with or without a port")
	errNoProof    = errors.New("over TLS, say with #NAME or #sha256:BASE64 how the server proves itself")
	errClearProof = errors.New("#... means something only after " + tlsScheme)
	errBadPin     = errors.New("a pin is sha256: and the base64 of 32 bytes")
	errTwoNames   = errors.New("more than one name")
)

// ParseEndpoint reads IP[:PORT][^KEY], such as "192.0.2.1",
// "[2001:db8::1]:5353" or "192.0.2.1:53^transfer-key", with 53 as the port if
// there is none; or for XoT tls://IP[:PORT][^KEY]#PROOF[#PROOF]..., such as
// "tls://192.0.2.1#ns1.example" with 853 as the port. A PROOF is the name that
// the certificate must be valid for, or sha256:BASE64, the pin of its public
// key.
func ParseEndpoint(text string) (Endpoint, error) {
	var e Endpoint
	rest, overTLS := strings.CutPrefix(text, tlsScheme)
	rest, proofs, hasProofs := strings.Cut(rest, "#")
	port := uint16(portDNS)
	if overTLS {
		port = portTLS
	}
	rest, key, signed := strings.Cut(rest, "^")
	if signed {
		name, err := zone.ParseName(key)
		if err != nil {
			return e, fmt.Errorf("server %q: key %w", text, err)
		}
		e.Key = name.Fold().String()
	}
	addr, err := parseAddrPort(rest, port)
	if err != nil {
		return e, fmt.Errorf("server %q: %w", text, err)
	}
	e.Addr = addr
	switch {
	case overTLS && !hasProofs:
		return e, fmt.Errorf("server %q: %w", text, errNoProof)
	case !overTLS && hasProofs:
		return e, fmt.Errorf("server %q: %w", text, errClearProof)
	case overTLS:
		if e.TLS, err = parseProofs(proofs); err != nil {
			return e, fmt.Errorf("server %q: %w", text, err)
		}
	}
	return e, nil
}

func parseAddrPort(text string, port uint16) (netip.AddrPort, error) {
	bare := text
	if len(bare) > 1 && bare[0] == '[' && bare[len(bare)-1] == ']' {
		bare = bare[1 : len(bare)-1]
	}
	if addr, err := netip.ParseAddr(bare); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), port), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 {
		return ap, errNotAddress
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

func parseProofs(text string) (*TLSPeer, error) {
	p := new(TLSPeer)
	for proof := range strings.SplitSeq(text, "#") {
		if pin, ok := strings.CutPrefix(proof, pinScheme); ok {
			hash, err := base64.StdEncoding.DecodeString(pin)
			if err != nil || len(hash) != sha256.Size {
				return nil, errBadPin
			}
			p.Pins = append(p.Pins, [sha256.Size]byte(hash))
			continue
		}
		if proof == "" {
			return nil, errNoProof
		}
		if p.Name != "" {
			return nil, errTwoNames
		}
		if _, err := netip.ParseAddr(proof); err != nil {
			if _, err := zone.ParseName(proof); err != nil {
				return nil, err
			}
		}
		p.Name = strings.TrimSuffix(proof, ".")
	}
	return p, nil
}

// String is the form that ParseEndpoint reads, the port always written.
func (e Endpoint) String() string {
	var b strings.Builder
	if e.TLS != nil {
		b.WriteString(tlsScheme)
	}
	b.WriteString(e.Addr.String())
	if e.Key != "" {
		b.WriteString("^" + e.Key)
	}
	if e.TLS != nil {
		if e.TLS.Name != "" {
			b.WriteString("#" + e.TLS.Name)
		}
		for _, pin := range e.TLS.Pins {
			b.WriteString("#" + pinScheme + base64.StdEncoding.EncodeToString(pin[:]))
		}
	}
	return b.String()
}
