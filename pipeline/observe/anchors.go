package observe

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/miekg/dns"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// Anchor is a key that is trusted for a zone without proof.
type Anchor struct {
	zone   zone.Name // in lower case
	ds     []byte    // DS RDATA, or
	dnskey []byte    // DNSKEY RDATA
}

// rootAnchors are the keys of the root zone as IANA publishes them: KSK-2017
// and KSK-2024.
const rootAnchors = `. IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D
. IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16`

// RootAnchorsDate is since when IANA publishes all of RootAnchors: validFrom of
// the youngest in root-anchors.xml (RFC 7958).
const RootAnchorsDate = "2024-07-18"

// RootAnchors are those of the root zone that this program came with.
func RootAnchors() []Anchor {
	var out []Anchor
	for line := range strings.Lines(rootAnchors) {
		if a, err := ParseAnchor(line); err == nil {
			out = append(out, a)
		}
	}
	return out
}

// ParseAnchor reads a trust anchor: a DS or DNSKEY record in zone file form,
// such as "example. IN DS 12345 13 2 0123...". Its algorithm and digest must be
// known here.
func ParseAnchor(text string) (Anchor, error) {
	const want = `want a DS or DNSKEY record such as "example. IN DS 12345 13 2 49FD46..."`
	rr, err := dns.NewRR(text)
	if err != nil || rr == nil {
		return Anchor{}, fmt.Errorf("trust anchor %q: %s", strings.TrimSpace(text), want)
	}
	owner, data, err := validate.Wire(rr)
	if err != nil {
		return Anchor{}, fmt.Errorf("trust anchor %q: %s", strings.TrimSpace(text), want)
	}
	a := Anchor{zone: owner.Fold()}
	switch rr.Header().Rrtype {
	case dns.TypeDS:
		if !validate.Usable(data) {
			return Anchor{}, fmt.Errorf("trust anchor %q: its algorithm or digest type is not supported", strings.TrimSpace(text))
		}
		a.ds = data
	case dns.TypeDNSKEY:
		keys := validate.ZoneKeys([][]byte{data})
		if len(keys) == 0 || !validate.Usable([]byte{0, 0, keys[0].Algorithm, 2, 0}) {
			return Anchor{}, fmt.Errorf("trust anchor %q: no zone key of a supported algorithm", strings.TrimSpace(text))
		}
		a.dnskey = data
	default:
		return Anchor{}, fmt.Errorf("trust anchor %q: %s", strings.TrimSpace(text), want)
	}
	return a, nil
}

// Zone is the zone that the anchor is of, in lower case.
func (a Anchor) Zone() zone.Name { return a.zone }

// Trusts reports whether the anchor stands for a key of its zone.
func (a Anchor) Trusts(k validate.Key) bool {
	return a.ds != nil && k.Matches(a.zone, a.ds) || a.dnskey != nil && bytes.Equal(a.dnskey, k.RData)
}

// String shows the anchor as a person compares it: its key's tag and, of a DS,
// the digest.
func (a Anchor) String() string {
	if a.ds != nil {
		return fmt.Sprintf("%s DS %d %d %d %X", a.zone, binary.BigEndian.Uint16(a.ds), a.ds[2], a.ds[3], a.ds[4:])
	}
	return fmt.Sprintf("%s DNSKEY %d", a.zone, zone.KeyTag(a.dnskey))
}

// anchorOf is the nearest zone at or above apex that has an anchor.
func (o *Observer) anchorOf(apex zone.Name) (anchor zone.Name, ok bool) {
	for _, a := range o.cfg.Anchors {
		if apex.Under(a.zone) && (!ok || len(a.zone) > len(anchor)) {
			anchor, ok = a.zone, true
		}
	}
	return anchor, ok
}

// isAnchor reports whether a key of a zone is trusted without proof.
func (o *Observer) isAnchor(apex zone.Name, k validate.Key) bool {
	for _, a := range o.cfg.Anchors {
		if a.zone.Equal(apex) && a.Trusts(k) {
			return true
		}
	}
	return false
}
