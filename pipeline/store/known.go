package store

import (
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// maxKnown bounds what is remembered of zones and of instances: beyond, all is
// forgotten and read again.
const maxKnown = 1024

// memory remembers what every view reads first, so that it need not be decoded
// each time. Nothing in it but follows from a snapshot.
type memory struct {
	mu    sync.Mutex
	zones map[event.ZoneID]knownZone // guarded by mu
	soas  map[soaID]knownSOA         // guarded by mu
	// changed is the sequence of the newest event of a zone that was applied or
	// is about to be; missing where there was none since the store was opened.
	changed map[event.ZoneID]uint64 // guarded by mu
	// all is the same of events that may concern any zone.
	all uint64 // guarded by mu
}

// knownZone is what a snapshot at a position says of a zone.
type knownZone struct {
	at    uint64
	entry zoneEntry
	all   metas
	head  head
}

type soaID struct {
	zone   uint32
	seq    uint64
	signed bool
}

// knownSOA is what an instance has at its apex; it never changes.
type knownSOA struct {
	apex                                 zone.Name
	soaKey, soaValue, sigsKey, sigsValue []byte
}

// touch is called before an event becomes visible.
func (k *memory) touch(id event.ZoneID, seq uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if id == event.Instance || len(k.changed) >= maxKnown {
		k.all = seq
		clear(k.changed)
		return
	}
	if k.changed == nil {
		k.changed = map[event.ZoneID]uint64{}
	}
	k.changed[id] = seq
}

// zone is what is known of a zone that a snapshot at that position shows. The
// snapshot was taken before the call, so every event in it has touched.
func (k *memory) zone(id event.ZoneID, position uint64) (knownZone, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	z, ok := k.zones[id]
	last := max(k.changed[id], k.all)
	return z, ok && (z.at == position || z.at >= last && position >= last)
}

func (k *memory) keepZone(id event.ZoneID, z knownZone) {
	z.all = slices.Clip(z.all)
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.zones) >= maxKnown {
		k.zones = nil
	}
	if k.zones == nil {
		k.zones = map[event.ZoneID]knownZone{}
	}
	if z.at >= k.zones[id].at {
		k.zones[id] = z
	}
}

func (k *memory) soa(id soaID) (knownSOA, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.soas[id]
	return s, ok
}

func (k *memory) keepSOA(id soaID, s knownSOA) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.soas) >= maxKnown {
		k.soas = nil
	}
	if k.soas == nil {
		k.soas = map[soaID]knownSOA{}
	}
	k.soas[id] = s
}

// known reads what a snapshot says of a zone, or remembers it.
func (s *Store) known(snap *snapshot, id event.ZoneID) (knownZone, error) {
	at, err := s.positionIn(snap)
	if err != nil {
		return knownZone{}, err
	}
	if z, ok := s.memory.zone(id, at); ok {
		return z, nil
	}
	entry, ok, err := s.zone(snap, id)
	if err == nil && (!ok || entry.Removed) {
		err = fmt.Errorf("zone %s: %w", id, xfr.ErrUnknownZone)
	}
	z := knownZone{at: at, entry: entry}
	if err == nil {
		z.all, z.head, err = s.metas(snap, entry.Number)
	}
	if err != nil {
		return knownZone{}, err
	}
	s.memory.keepZone(id, z)
	return z, nil
}

// positionIn is the last sequence that a snapshot shows.
func (s *Store) positionIn(snap *snapshot) (uint64, error) {
	raw, err := s.get(snap, []byte{spacePosition})
	if err != nil || raw == nil {
		return 0, err
	}
	var p struct {
		Seq uint64 `json:"seq"`
	}
	if err := json.Unmarshal(raw, &p); err != nil {
		return 0, fmt.Errorf("%w: position: %w", ErrDamaged, err)
	}
	return p.Seq, nil
}
