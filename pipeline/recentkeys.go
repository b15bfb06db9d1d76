package pipeline

import (
	"sync"

	"sluice/journal"
	"sluice/keymgr"
)

// recentKeys is what zones' keys were before the events about keys that were folded
// last, kept while somebody follows the events of all zones: to read a zone's
// past anew for each of its events takes longer than the events take to come.
type recentKeys struct {
	mu        sync.Mutex
	followers int
	before    map[uint64]keymgr.KeySet // by sequence
	order     []uint64                 // of before, oldest first from next on
	next      int
}

// maxRecent bounds the events in recentKeys.
const maxRecent = 8192

// follow begins to keep what is folded from now on, until end is called.
func (k *recentKeys) follow() (end func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.followers++; k.followers == 1 {
		k.before, k.order, k.next = map[uint64]keymgr.KeySet{}, nil, 0
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.followers--; k.followers == 0 {
			k.before, k.order = nil, nil
		}
	}
}

// note keeps what a zone's keys were before an event that is being folded.
func (k *recentKeys) note(rec journal.Record, before keymgr.KeySet) {
	if !keyMatter(rec.Event) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.followers == 0:
		return
	case len(k.order) < maxRecent:
		k.order = append(k.order, rec.Seq)
	default:
		delete(k.before, k.order[k.next])
		k.order[k.next] = rec.Seq
		k.next = (k.next + 1) % maxRecent
	}
	k.before[rec.Seq] = before
}

// of finds what was noted at a sequence.
func (k *recentKeys) of(seq uint64) (keymgr.KeySet, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	before, ok := k.before[seq]
	return before, ok
}
