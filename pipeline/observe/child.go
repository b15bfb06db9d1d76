package observe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// maxChildDS bounds what is kept of a CDS or CDNSKEY RRset.
const maxChildDS = 16

// childDS asks what the zone says its parent is to have (RFC 7344). dnskeys is
// the server's DNSKEY RRset; nil for none.
func (r *round) childDS(ctx context.Context, s *session, seen *keymgr.Seen, dnskeys *validate.RRset, keys []validate.Key) error {
	for _, part := range []struct {
		t    zone.Type
		to   *[]string
		name func([]byte, *validate.RRset) string
	}{
		{zone.TypeCDS, &seen.CDS, r.nameCDS},
		{zone.TypeCDNSKEY, &seen.CDNSKEY, r.nameCDNSKEY},
	} {
		a, err := s.ask(ctx, question{name: r.q.Zone, t: part.t})
		if err != nil {
			return fmt.Errorf("%s: %w", part.t, err)
		}
		set := a.of(r.q.Zone, part.t)
		if set == nil {
			continue
		}
		for _, data := range set.Data[:min(len(set.Data), maxChildDS)] {
			*part.to = append(*part.to, part.name(data, dnskeys))
		}
		slices.Sort(*part.to)
		*part.to = slices.Compact(*part.to)
		seen.Signed = append(seen.Signed, r.signatures(set, keys)...)
	}
	return nil
}

// nameCDS names the key that a CDS stands for.
func (r *round) nameCDS(data []byte, dnskeys *validate.RRset) string {
	if len(data) < 5 {
		return "malformed"
	}
	if bytes.Equal(data, []byte{0, 0, 0, 0, 0}) {
		return event.CDSDelete
	}
	if dnskeys != nil {
		for _, rdata := range dnskeys.Data {
			if ds, err := keymgr.DS(r.q.Zone, rdata, data[3]); err == nil && bytes.Equal(ds, data) {
				return zone.KeyID(rdata)
			}
		}
	}
	return fmt.Sprintf("tag %d, algorithm %d, digest type %d", binary.BigEndian.Uint16(data), data[2], data[3])
}

// nameCDNSKEY names the key that a CDNSKEY is.
func (r *round) nameCDNSKEY(data []byte, _ *validate.RRset) string {
	switch {
	case len(data) < 5:
		return "malformed"
	case bytes.Equal(data, []byte{0, 0, 3, 0, 0}):
		return event.CDSDelete
	}
	return zone.KeyID(data)
}
