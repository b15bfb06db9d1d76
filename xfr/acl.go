package xfr

import (
	"fmt"
	"net/netip"
	"strings"

	"sluice/signer/zone"
)

// Peer is who asks.
type Peer struct {
	Addr netip.AddrPort
	// Key is the name of the TSIG key that signed the request, in lower case
	// with its final dot; empty for none.
	Key string
	// TLS reports that the peer came over TLS.
	TLS bool
	// Name is what the certificate that the peer proved itself with is for;
	// empty where it was not asked for one.
	Name string
}

// Prefix is one line of an access list.
type Prefix struct {
	// Net is where a peer may come from.
	Net netip.Prefix
	// Key is the TSIG key that must have signed the request, in the form of
	// Peer.Key; empty asks for none.
	Key string
	// TLS wants the peer to come over TLS.
	TLS bool
}

// Prefixes is an access list: a peer needs to meet one line. The empty list
// allows nobody.
type Prefixes []Prefix

// ParsePrefix reads [tls://]ADDRESS[/LENGTH][^KEY], such as "192.0.2.0/24",
// "2001:db8::1", "192.0.2.7^transfer-key" or "tls://192.0.2.0/24". Bits behind
// the prefix must be zero.
func ParsePrefix(text string) (Prefix, error) {
	var p Prefix
	where, overTLS := strings.CutPrefix(text, tlsScheme)
	p.TLS = overTLS
	where, key, signed := strings.Cut(where, "^")
	if signed {
		name, err := zone.ParseName(key)
		if err != nil {
			return p, fmt.Errorf("prefix %q: key %w", text, err)
		}
		p.Key = name.Fold().String()
	}
	if addr, err := netip.ParseAddr(where); err == nil {
		if addr.Zone() != "" {
			return p, fmt.Errorf("prefix %q: an address zone cannot be matched", text)
		}
		addr = addr.Unmap()
		p.Net = netip.PrefixFrom(addr, addr.BitLen())
		return p, nil
	}
	net, err := netip.ParsePrefix(where)
	switch {
	case err != nil:
		return p, fmt.Errorf("prefix %q: not an address, nor an address with a length", text)
	case net.Addr().Is4In6():
		return p, fmt.Errorf("prefix %q: write IPv4 prefixes as IPv4", text)
	case net != net.Masked():
		return p, fmt.Errorf("prefix %q: bits behind the prefix are set; the prefix is %s", text, net.Masked())
	}
	p.Net = net
	return p, nil
}

// ParsePrefixes reads a list, one line each.
func ParsePrefixes(lines []string) (Prefixes, error) {
	list := make(Prefixes, 0, len(lines))
	for _, line := range lines {
		p, err := ParsePrefix(line)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, nil
}

// String is the form that ParsePrefix reads; a prefix of full length is
// written as an address.
func (p Prefix) String() string {
	where := p.Net.String()
	if p.Net.IsSingleIP() {
		where = p.Net.Addr().String()
	}
	if p.TLS {
		where = tlsScheme + where
	}
	if p.Key == "" {
		return where
	}
	return where + "^" + p.Key
}

// Allows reports whether the peer meets a line of the list.
func (l Prefixes) Allows(peer Peer) bool {
	addr := peer.Addr.Addr().Unmap().WithZone("")
	for _, p := range l {
		if p.Net.Contains(addr) && (p.Key == "" || p.Key == peer.Key) && (!p.TLS || peer.TLS) {
			return true
		}
	}
	return false
}
