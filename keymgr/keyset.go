package keymgr

import (
	"crypto"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

// KeySet is all keys that a zone ever had, in the order in which they came.
// The zero value is a zone without keys. Its JSON is the same for the same
// events.
type KeySet struct {
	Keys []Key `json:"keys,omitempty"`
	// Rollovers is those that run, in the order in which they began.
	Rollovers []Rollover `json:"rollovers,omitempty"`
	// DS is what the parent is to have, and what it has.
	DS DSState `json:"ds,omitzero"`
}

// Evolve folds an event of the zone into its key set. It is pure: ks is left
// as it was, and events that do not concern keys return it unchanged. An event
// that names a key which the set does not hold, or a change that the key's
// state does not allow, changes nothing for that key: a fold never fails.
func Evolve(ks KeySet, e event.Event) KeySet {
	switch f := e.Facts.(type) {
	case *event.KeyGenerated:
		return ks.with(f.Keys, Key{State: Generated, Generated: e.Time})
	case *event.KeyImported:
		return ks.with(f.Keys, Key{State: Generated, Generated: e.Time, Imported: true, Foreign: f.Foreign})
	case *event.KeyBackedUp:
		return ks.change(f.IDs, func(k *Key) {
			if !k.Foreign && k.BackedUp.IsZero() {
				k.BackedUp = e.Time
			}
		})
	case *event.KeyProved:
		return ks.change(f.IDs, func(k *Key) { k.prove(f) })
	case *event.KeyPublished:
		return ks.change(f.IDs, func(k *Key) {
			if k.State == Generated {
				k.State, k.Published = Published, e.Time
			}
		})
	case *event.KeyActivated:
		return ks.change(f.IDs, func(k *Key) {
			if k.Foreign {
				return
			}
			switch k.State {
			case Generated:
				k.State, k.Published, k.Activated = Active, e.Time, e.Time
			case Introduced:
				k.State, k.Published = Active, e.Time
			case Withdrawn:
				k.State = Active
			case Published, Ready, Retired:
				k.State, k.Activated, k.Retired = Active, e.Time, time.Time{}
			case Active, Dead, Removed, Revoked:
			}
		})
	case *event.KeyAdopted:
		for _, a := range f.Keys {
			ks = ks.change([]string{a.ID}, func(k *Key) { k.adopt(a, e.Time) })
		}
		return ks
	case *event.KeyIntroduced:
		return ks.change(f.IDs, func(k *Key) {
			if k.State == Generated && !k.Foreign {
				k.State, k.Activated = Introduced, e.Time
			}
		})
	case *event.KeyWithdrawn:
		return ks.change(f.IDs, func(k *Key) {
			if k.State == Active {
				k.State = Withdrawn
			}
		})
	case *event.KeyRetired:
		return ks.change(f.IDs, func(k *Key) {
			if k.State == Active {
				k.State, k.Retired = Retired, e.Time
			}
		})
	case *event.KeyDestroyed:
		return ks.change(f.IDs, func(k *Key) {
			if k.State == Removed {
				k.Destroyed = e.Time
			}
		})
	case *event.KeyRemoved:
		return ks.change(f.IDs, func(k *Key) {
			if k.State != Removed {
				k.State, k.Removed = Removed, e.Time
			}
		})
	}
	return ks.evolveRollover(e)
}

// with adds keys that the set does not hold yet. A foreign key that was removed
// may come back.
func (ks KeySet) with(keys []event.Key, as Key) KeySet {
	out := ks
	out.Keys = slices.Clone(ks.Keys)
	for _, k := range keys {
		as.Key = k
		if i := out.index(k.ID); i < 0 {
			out.Keys = append(out.Keys, as)
		} else if old := out.Keys[i]; old.Foreign && as.Foreign && old.State == Removed {
			out.Keys[i] = as
		}
	}
	return out
}

func (ks KeySet) change(ids []string, fn func(*Key)) KeySet {
	out := ks
	out.Keys = slices.Clone(ks.Keys)
	for _, id := range ids {
		if i := out.index(id); i >= 0 {
			fn(&out.Keys[i])
		}
	}
	return out
}

func (ks KeySet) index(id string) int {
	return slices.IndexFunc(ks.Keys, func(k Key) bool { return k.ID == id })
}

// ByID finds a key by its ID.
func (ks KeySet) ByID(id string) (Key, bool) {
	if i := ks.index(id); i >= 0 {
		return ks.Keys[i], true
	}
	return Key{}, false
}

// Published is the keys of the DNSKEY RRset.
func (ks KeySet) Published() []Key {
	return ks.filter(func(k *Key) bool { return k.InRRset() })
}

// Signing is the keys that sign.
func (ks KeySet) Signing() []Key {
	return ks.filter((*Key).Signs)
}

// InState is the keys in state s.
func (ks KeySet) InState(s State) []Key {
	return ks.filter(func(k *Key) bool { return k.State == s })
}

func (ks KeySet) filter(keep func(*Key) bool) []Key {
	n := 0
	for i := range ks.Keys {
		if keep(&ks.Keys[i]) {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	out := make([]Key, 0, n) // a key is large, and this is asked often
	for i := range ks.Keys {
		if keep(&ks.Keys[i]) {
			out = append(out, ks.Keys[i])
		}
	}
	return out
}

// Tags is the key tags that a new key must not have: those of every key that
// the zone ever had, as it is and with the REVOKE bit, ascending.
func (ks KeySet) Tags() []uint16 {
	var out []uint16
	for i := range ks.Keys {
		out = append(out, ks.Keys[i].Tag)
		if rdata, err := RData(ks.Keys[i].Key); err == nil {
			out = append(out, RevokedTag(rdata))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// RData is the DNSKEY RDATA of a key (RFC 4034, 2.1), checked against the
// key's ID, tag and algorithm.
func RData(k event.Key) ([]byte, error) {
	rdata, err := base64.StdEncoding.DecodeString(k.DNSKEY)
	if err != nil {
		return nil, fmt.Errorf("key %s: DNSKEY: %w", k.ID, err)
	}
	if len(rdata) <= 4 || rdata[2] != 3 {
		return nil, fmt.Errorf("key %s: malformed DNSKEY", k.ID)
	}
	if zone.KeyID(rdata) != k.ID || zone.KeyTag(rdata) != k.Tag || rdata[3] != k.Algorithm {
		return nil, fmt.Errorf("key %s: ID, tag or algorithm do not belong to its DNSKEY", k.ID)
	}
	return rdata, nil
}

// CDS is the IDs of the keys that stand in CDS and CDNSKEY, sorted. A key that
// the DNSKEY RRset does not hold stands in neither (RFC 7344, 4.1).
func (ks KeySet) CDS() []string {
	if !ks.DS.CDS {
		return nil
	}
	return ks.only(ks.DS.Wanted, (*Key).InRRset)
}

// CDSDelete reports whether CDS and CDNSKEY ask for the removal of all DS
// records.
func (ks KeySet) CDSDelete() bool { return ks.DS.Withdrawn && ks.DS.CDS }

// SignerKeys is what the signer needs to know of the keys in the DNSKEY RRset.
// and of those that sign without. open is asked for the private part of each
// key that signs. Keys that the parent is to have a DS of stand in CDS and
// CDNSKEY, where it is told by these.
func SignerKeys(ks KeySet, open func(Key) (crypto.Signer, error)) ([]signer.Key, error) {
	var out []signer.Key
	for _, k := range ks.filter(func(k *Key) bool { return k.InRRset() || k.Signs() }) {
		rdata, err := RData(k.Key)
		if err != nil {
			return nil, err
		}
		s := signer.Key{DNSKEY: rdata, Published: k.InRRset(), CDS: slices.Contains(ks.CDS(), k.ID)}
		if k.Signs() {
			if s.Signer, err = open(k); err != nil {
				return nil, fmt.Errorf("open key %s in keystore %q: %w", k.ID, k.Keystore, err)
			}
			if err := holds(s.Signer, rdata); err != nil {
				return nil, fmt.Errorf("open key %s in keystore %q: %w", k.ID, k.Keystore, err)
			}
			s.SignsKeys, s.SignsZone = k.SignsKeys(), k.SignsZone()
		}
		out = append(out, s)
	}
	return out, nil
}
