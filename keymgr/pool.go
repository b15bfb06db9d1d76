package keymgr

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Pool says how many keys of each role are made before anything needs them.
type Pool struct {
	KSK, ZSK, CSK int
}

// size is how many keys of a role there are to be.
func (p Pool) size(r Role) int {
	switch r {
	case KSK:
		return p.KSK
	case ZSK:
		return p.ZSK
	case CSK:
		return p.CSK
	}
	return 0
}

// PoolLacks is the role of the next key to make ahead, of an algorithm; ""
// where the pool is full. Keys that rollovers have taken do not count.
func (ks KeySet) PoolLacks(p Pool, useCSK bool, algorithm uint8) Role {
	roles := []Role{KSK, ZSK}
	if useCSK {
		roles = []Role{CSK}
	}
	for _, role := range roles {
		have := 0
		for i := range ks.Keys {
			k := &ks.Keys[i]
			if k.spare() && k.HasRole(role) && k.Algorithm == algorithm && !ks.taken(k.ID) {
				have++
			}
		}
		if have < p.size(role) {
			return role
		}
	}
	return ""
}

// spare reports whether the key waits to be used.
func (k *Key) spare() bool {
	return !k.Foreign && (k.State == Generated || k.State == Published)
}

// taken reports whether a rollover that runs concerns a key.
func (ks KeySet) taken(id string) bool {
	return slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool { return r.Concerns(id) })
}

// fitter reports whether a spare key is to be used before another that is
// older.
func (k *Key) fitter(than *Key) bool {
	if (k.State == Published) != (than.State == Published) {
		return k.State == Published
	}
	return !k.BackedUp.IsZero() && than.BackedUp.IsZero()
}

// Unsaved is the IDs of keys among those given that are not backed up and were
// never in use: a policy may keep them from use.
func (ks KeySet) Unsaved(ids []string) []string {
	return ks.only(ids, func(k *Key) bool { return !k.Foreign && k.BackedUp.IsZero() && k.Activated.IsZero() })
}

// ToBackUp is the keys that have a private part here and no backup mark, those
// made before a time; zero is any time.
func (ks KeySet) ToBackUp(before time.Time) []Key {
	return ks.filter(func(k *Key) bool {
		late := !before.IsZero() && !k.Generated.Before(before)
		return !k.Foreign && k.BackedUp.IsZero() && k.State != Removed && !late
	})
}

// MayStandBy reports whether a key may be published before it is to sign: one of
// an algorithm that signs already, and that no rollover has taken.
func (ks KeySet) MayStandBy(id string) error {
	k, ok := ks.ByID(id)
	switch {
	case !ok || k.Foreign:
		return conflict("key %s is no key of ours", id)
	case k.State != Generated:
		return conflict("key %s is %s", id, k.State)
	case ks.taken(id):
		return conflict("key %s takes part in a rollover", id)
	case slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool { return r.Kind == RollAlgorithm }):
		return conflict("a rollover to another algorithm runs: let it end")
	case !ks.signsWith(k.Algorithm):
		return conflict("key %s has algorithm %d, with which the zone is not signed: that takes a rollover of kind algorithm", id, k.Algorithm)
	}
	return nil
}

// unsavedText says what a rollover waits for.
func unsavedText(what string, ids []string) string {
	return fmt.Sprintf("%s: waits until the new keys are backed up (%s); copy the keystore, then: sluice key backup mark",
		what, strings.Join(ids, ", "))
}
