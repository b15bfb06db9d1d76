package pipeline

import (
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// withLives is facts in which keys that are activated have the lives that the
// policy means them to have, so that what was planned stands beside what came of
// it. ks has the keys. It is pure, and changes none of the facts given.
func withLives(ks keymgr.KeySet, p Policy, facts []event.Facts) []event.Facts {
	roll := p.Rollovers()
	out := slices.Clone(facts)
	for i, f := range facts {
		activated, ok := f.(*event.KeyActivated)
		if !ok {
			continue
		}
		next := event.KeyActivated{IDs: activated.IDs}
		for _, id := range activated.IDs {
			if life := plannedLife(ks, roll, id); life > 0 {
				next.Lives = append(next.Lives, event.PlannedLife{ID: id, Seconds: uint64(life / time.Second)}) //nolint:gosec // above 0
			}
		}
		out[i] = &next
	}
	return out
}

// plannedLife is the age at which a key is to be gone; 0 where it has none.
func plannedLife(ks keymgr.KeySet, roll keymgr.RollPolicy, id string) time.Duration {
	k, ok := ks.ByID(id)
	if !ok {
		return 0
	}
	switch keymgr.Role(k.Role) {
	case keymgr.KSK:
		return roll.KSK.Validity
	case keymgr.ZSK:
		return roll.ZSK.Validity
	case keymgr.CSK:
		return roll.CSK.Validity
	}
	return 0
}
