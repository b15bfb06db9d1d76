package pipeline

import (
	"context"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

// life is what the journal holds of a name's earlier zones.
type life struct {
	serial *zone.Serial // highest that was published (RFC 1982)
	keys   keymgr.KeySet
}

// former reads the earlier zones of a name that was removed before; nil for a
// name that never was.
func (e *Engine) former(ctx context.Context, name string) (*life, error) {
	e.mu.RLock()
	_, lives := e.names[name]
	e.mu.RUnlock()
	if known, err := e.store.Lives(name); err != nil || len(known) == 0 || lives && len(known) == 1 {
		return nil, e.note(err)
	}
	ids, err := e.livesOf(ctx, name)
	if err != nil {
		return nil, err
	}
	l := &life{}
	for _, id := range ids {
		l.keys = keymgr.KeySet{}
		err := e.journal.Read(ctx, id, 1, 0, func(rec journal.Record) error {
			l.keys = keymgr.Evolve(l.keys, rec.Event)
			if f, ok := rec.Event.Facts.(*event.InstancePublished); ok {
				n := zone.Serial(f.Serial)
				if l.serial == nil || l.serial.Before(n) {
					l.serial = &n
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return l, nil
}

// resume lets a zone that is added again go on where its name was left: its
// serials stand above those that secondaries hold, and with no other keys
// given it keeps, with keys, those that a DS at the parent may still name.
func (l *life) resume(z *event.ZoneAdded, keys bool) {
	if l == nil {
		return
	}
	if l.serial != nil && (z.SerialFloor == nil || zone.Serial(*z.SerialFloor).Before(*l.serial)) {
		floor := uint32(*l.serial)
		z.SerialFloor = &floor
	}
	var public []event.Key
	if len(z.Import) > 0 || !keys {
		return
	}
	for _, k := range l.keys.Published() {
		if k.Foreign && len(z.Public) == 0 {
			public = append(public, k.Key)
		}
	}
	z.Public = append(z.Public, public...)
	for _, k := range l.keys.Signing() {
		k.Life = nil // that was before it came here first
		z.Import = append(z.Import, k.Key)
	}
}
