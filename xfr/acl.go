package xfr

import "net/netip"

// Peer is who asks.
type Peer struct {
	Addr netip.AddrPort
	Key  string // name of the TSIG key that signed the request; empty for none
}
