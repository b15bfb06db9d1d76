package xfr

import "net/netip"

// Peer is who asks.
type Peer struct {
	Addr netip.AddrPort
	// Key is the name of the TSIG key that signed the request, in lower case
	// with its final dot; empty for none.
	Key string
}
