package world

import (
	"fmt"
	"slices"
	"time"
)

// Bogus is what a validator may hold together that does not validate.
type Bogus struct {
	At      time.Time `json:"at"`
	DS      []string  `json:"ds"`      // IDs of the keys in the DS RRset
	DNSKEY  []string  `json:"dnskey"`  // of those in the DNSKEY RRset
	KeyedBy []string  `json:"keyed"`   // of those that signed it
	Signers []string  `json:"signers"` // of those that signed the RRset
	Reason  string    `json:"reason"`
}

// String tells it in a sentence.
func (b *Bogus) String() string {
	return fmt.Sprintf("%s: DS of %v with DNSKEY %v signed by %v and an RRset signed by %v: %s",
		b.At.UTC().Format(time.RFC3339), b.DS, b.DNSKEY, b.KeyedBy, b.Signers, b.Reason)
}

// Bogus looks for what a validator may hold together now that does not
// validate; nil where all does.
func (w *World) Bogus() *Bogus {
	sets, keys, data := w.held()
	for _, d := range sets {
		ds := w.sets[d].Keys
		if len(ds) == 0 {
			continue // insecure: nothing is validated
		}
		for _, v := range keys {
			for _, z := range data {
				for _, signers := range z.sorts() {
					if why := validate(ds, v, signers); why != "" {
						return &Bogus{At: w.now, DS: ids(ds), DNSKEY: ids(v.Published), KeyedBy: ids(v.Signers), Signers: ids(signers), Reason: why}
					}
				}
			}
		}
	}
	return nil
}

// sorts is the signers of each sort of RRset.
func (v *Version) sorts() [][]Key {
	if len(v.Mixed) > 0 {
		return v.Mixed
	}
	return [][]Key{v.Signers}
}

// validate is a strict validator (RFC 4035, 5; all algorithms of the DNSKEY
// RRset and of the DS RRset must have signed, 2.2).
func validate(ds []Key, k *Version, signers []Key) string {
	trusted := false
	var need []uint8
	for _, d := range ds {
		need = append(need, d.Algorithm)
		trusted = trusted || in(k.Published, d) && in(k.Signers, d) && d.SignsKeys
	}
	if !trusted {
		return "no DS matches a key that signs"
	}
	for _, key := range k.Published {
		need = append(need, key.Algorithm)
	}
	slices.Sort(need)
	for _, a := range slices.Compact(need) {
		signsKeys := slices.ContainsFunc(k.Signers, func(s Key) bool { return s.Algorithm == a && s.SignsKeys && in(k.Published, s) })
		signsZone := slices.ContainsFunc(signers, func(s Key) bool { return s.Algorithm == a && s.SignsZone && in(k.Published, s) })
		if !signsKeys {
			return fmt.Sprintf("the DNSKEY RRset has no signature of algorithm %d", a)
		}
		if !signsZone {
			return fmt.Sprintf("the RRset has no signature of algorithm %d by a key that is held", a)
		}
	}
	return ""
}

func in(keys []Key, key Key) bool {
	return slices.ContainsFunc(keys, func(k Key) bool { return k.ID == key.ID })
}

// ids is the IDs of keys, in their order.
func ids(keys []Key) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		out = append(out, k.ID)
	}
	return out
}
