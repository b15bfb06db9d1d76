package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer/zone"
)

// Updates stand in chunks as records without compression: for each message the
// number of its records (2 bytes), then owner, type, class, TTL, length and RDATA
// of each, as in the message.

// appendChanges appends one message's update section.
func appendChanges(dst []byte, changes []change) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(changes)))
	for _, c := range changes {
		dst = append(dst, c.Owner...)
		dst = binary.BigEndian.AppendUint16(dst, uint16(c.Type))
		dst = binary.BigEndian.AppendUint16(dst, c.Class)
		dst = binary.BigEndian.AppendUint32(dst, c.TTL)
		dst = zone.AppendRData(dst, c.RData)
	}
	return dst
}

var errBadChanges = errors.New("malformed updates in a chunk")

// readChanges reads the update sections in a chunk.
func readChanges(raw []byte) (messages [][]change, err error) {
	for len(raw) > 0 {
		if len(raw) < 2 {
			return nil, errBadChanges
		}
		n := int(binary.BigEndian.Uint16(raw))
		raw = raw[2:]
		var list []change
		for range n {
			owner, err := zone.NameLength(raw)
			if err != nil || len(raw) < owner+10 {
				return nil, errBadChanges
			}
			c := change{Owner: zone.Name(raw[:owner])}
			raw = raw[owner:]
			c.Type, c.Class = zone.Type(binary.BigEndian.Uint16(raw)), binary.BigEndian.Uint16(raw[2:])
			c.TTL = binary.BigEndian.Uint32(raw[4:])
			data := int(binary.BigEndian.Uint16(raw[8:]))
			if raw = raw[10:]; len(raw) < data {
				return nil, errBadChanges
			}
			if data > 0 {
				if c.RData = raw[:data:data]; zone.CheckRData(c.Type, c.RData) != nil {
					return nil, errBadChanges
				}
			}
			list, raw = append(list, c), raw[data:]
		}
		messages = append(messages, list)
	}
	return messages, nil
}

// changesOf reads the update sections that an update.accepted brought.
func (e *Engine) changesOf(ctx context.Context, w WaitingUpdate) (messages [][]change, err error) {
	err = journal.Chunks(ctx, e.journal, w.Manifest, func(raw []byte) error {
		more, err := readChanges(raw)
		messages = append(messages, more...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("update of event %d: %w", w.Seq, err)
	}
	return messages, nil
}

// doUpdates makes a loaded instance of the updates that wait.
func (e *Engine) doUpdates(ctx context.Context, s State, c ApplyUpdates, report func(Progress)) ([]event.Facts, error) {
	began, mark := e.clock.Now(), machineTime()
	report(Progress{Stage: "load"})
	loaded, err := e.applyUpdates(ctx, s, c)
	e.counts.updated(ctx, mark, err)
	return e.loadOutcome(ctx, s, s.Source, loaded, began, err)
}

func (e *Engine) applyUpdates(ctx context.Context, s State, c ApplyUpdates) (facts *event.InstanceLoaded, err error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	base, known := baseOf(s, c.Base)
	if !known {
		return nil, fmt.Errorf("l%d, which updates are for, is not known", c.Base)
	}
	u, err := e.newUpdateEdit(s, c.Base, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, u.close()) }()
	facts = &event.InstanceLoaded{
		Source: s.Source, Base: c.Base, Transfer: event.ByUpdate, UpdatesTo: c.To,
		RRsets: base.RRsets, Records: base.Records, MaxTTL: base.MaxTTL,
	}
	for _, w := range s.Updates.Waiting {
		if w.Seq > c.To {
			break
		}
		messages, err := e.changesOf(ctx, w)
		if err != nil {
			return nil, err
		}
		for _, changes := range messages {
			_, _, err := u.try(changes, nil)
			if refused, ok := errors.AsType[*updateError](err); ok {
				// What it was accepted on was dropped since.
				facts.Notices = append(facts.Notices, fmt.Sprintf("an update of event %d no longer applies: %s", w.Seq, oneLine(refused.why)))
				continue
			}
			if err != nil {
				return nil, err
			}
			facts.Updates++
		}
	}
	if err := u.raise(zone.Serial(base.Serial)); err != nil {
		return nil, err
	}
	return facts, e.sendEdit(ctx, s, c, u.zoneEdit, "UPDATE", p.Checks().Glue, facts)
}
