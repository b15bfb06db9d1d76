package keymgr

import (
	"fmt"
	"slices"
	"strings"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// AtParent reports whether all of the parent's servers, when that was last
// seen, had what they are to have: a DS of each key that is wanted, and of no
// other key that the zone ever had. DS of others do not matter.
func (ks KeySet) AtParent() bool {
	return len(ks.DS.Sets) > 0 && !slices.ContainsFunc(ks.DS.Sets, func(set event.DSSet) bool {
		var have []string
		for _, d := range set.DS {
			if d.Key != "" {
				have = append(have, d.Key)
			}
		}
		slices.Sort(have)
		return !slices.Equal(slices.Compact(have), ks.DS.Wanted)
	})
}

// ChangesDS reports whether a rollover runs that changes, or is going to
// change, what the parent is to have.
func (ks KeySet) ChangesDS() bool {
	return slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool {
		if r.Kind == RollForeign {
			return r.Method == JoinDS || r.Method == LeaveDS && r.Step > 1
		}
		return r.Kind != RollZSK
	})
}

// MayShowCDS reports whether CDS and CDNSKEY may come back with what the parent
// is to have: it was told that before, and every key of it signs the DNSKEY RRset.
func (ks KeySet) MayShowCDS() bool {
	if ks.DS.Since.IsZero() || ks.ChangesDS() {
		return false
	}
	shown := ks.only(ks.DS.Wanted, func(k *Key) bool { return (k.State == Active || k.usesForeign()) && k.SignsKeys() })
	return ks.DS.Withdrawn || len(ks.DS.Wanted) > 0 && len(shown) == len(ks.DS.Wanted)
}

// SignalName is where the operator of a name server vouches for the CDS of a
// zone that it serves (RFC 9615, 4.1): _dsboot.ZONE._signal.HOST. It fails for a
// host in the zone itself, which cannot vouch for it, and where the name would be
// too long.
func SignalName(child, host zone.Name) (zone.Name, error) {
	child, host = child.Fold(), host.Fold()
	if child == zone.Root || host.Under(child) {
		return "", fmt.Errorf("%s is in the zone itself and cannot vouch for it", host)
	}
	name, err := zone.NameFromWire([]byte("\x07_dsboot" + child[:len(child)-1] + "\x07_signal" + host))
	if err != nil {
		return "", fmt.Errorf("_dsboot.%s_signal.%s: %w", child, host, err)
	}
	return name, nil
}

// SignalRecords is the CDS and CDNSKEY records of a key of a zone for a host
// that is one of its name servers (RFC 9615, 4.1), a line in zone file form each.
func SignalRecords(child, host zone.Name, key event.Key, digests []uint8, ttl uint32) ([]string, error) {
	owner, err := SignalName(child, host)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, format := range []Format{FormatCDS, FormatCDNSKEY} {
		records, err := ParentRecords(child, key, string(format), digests, ttl)
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			out = append(out, owner.String()+strings.TrimPrefix(record, child.String()))
		}
	}
	return out, nil
}
