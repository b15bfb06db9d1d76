package pipeline

import (
	"crypto/rand"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sluice/journal"
	"sluice/journal/event"
)

// What can be sealed in events: kept apart from the public line, so that exports
// can leave it out.
const (
	SealActor  = "actor"  // names of people and tokens
	SealReason = "reason" // reasons that people give
	SealOutput = "output" // what hooks wrote
	SealPeer   = "peer"   // addresses of servers that gave or took a zone
)

// SealKinds lists what can be sealed.
func SealKinds() []string { return []string{SealActor, SealReason, SealOutput, SealPeer} }

// sealEvent seals the fields of an event that are of the kinds asked for.
func sealEvent(e *event.Event, kinds []string) error {
	var fields []string
	for _, kind := range kinds {
		fields = append(fields, sealedFields(e, kind)...)
	}
	return event.Seal(e, fields, func(salt []byte) { _, _ = rand.Read(salt) }) // it never fails
}

// sealedFields lists the fields of a kind in an event.
func sealedFields(e *event.Event, kind string) []string {
	people := e.Actor.Person()
	switch kind {
	case SealActor:
		if people || e.Actor.Door == "dns" {
			return []string{event.ActorName}
		}
	case SealReason:
		if people && givenReason(e.Facts) {
			return []string{"facts.reason"}
		}
	case SealOutput:
		return outputFields(e.Facts)
	case SealPeer:
		return peerFields(e.Facts)
	}
	return nil
}

// givenReason reports whether facts may hold a reason as a person gave it.
func givenReason(f event.Facts) bool {
	switch f.(type) {
	case *event.ReviewApproved, *event.ReviewRejected, *event.ReviewOverridden, *event.ZoneHalted, *event.ZoneReset,
		*event.InstanceAbandoned, *event.MaintenanceChanged, *event.ZoneHeld, *event.ZoneReleased, *event.ClockAccepted,
		*event.RolloverStarted, *event.RolloverAborted, *event.ReviewProposed, *event.ReviewRecalled,
		*event.CatalogApproved, *event.AccessUsed, *event.PolicyBound, *event.ZoneAdded, *event.ZoneChanged, *event.ZoneRemoved:
		return true
	}
	return false
}

// outputFields lists where facts hold what a hook wrote; the reason of a verdict
// and what follows from it quote its last line.
func outputFields(f event.Facts) []string {
	switch f := f.(type) {
	case *event.ReviewApproved:
		if f.Hook != nil {
			return []string{"facts.hook.output", "facts.hook.output_sha256", "facts.reason"}
		}
	case *event.ReviewRejected:
		if f.Hook != nil {
			return []string{"facts.hook.output", "facts.hook.output_sha256", "facts.reason"}
		}
	case *event.HookRan:
		return []string{"facts.hook.output", "facts.hook.output_sha256", "facts.error"}
	case *event.ZoneHalted, *event.InstanceAbandoned:
		return []string{"facts.reason"}
	}
	return nil
}

// peerFields lists where facts hold the address of a peer. The address of one
// that took the zone without a key or certificate stays: it says who it was.
func peerFields(f event.Facts) (fields []string) {
	switch f := f.(type) {
	case *event.InstanceLoaded:
		fields = append(fields, "facts.peer")
		for _, what := range []string{"address", "key", "tls_pin", "tls_certificate", "tls_name"} {
			fields = append(fields, "facts.peer_identity."+what)
		}
	case *event.AccessRefused:
		return []string{"facts.peer"}
	case *event.UpdateAccepted:
		for i := range f.Updates {
			fields = append(fields, fmt.Sprintf("facts.updates.%d.address", i), fmt.Sprintf("facts.updates.%d.certificate", i))
		}
	case *event.InstanceFetched:
		for i, fetch := range f.Fetches {
			if fetch.Peer() != fetch.Address {
				fields = append(fields, fmt.Sprintf("facts.fetches.%d.address", i))
			}
		}
	}
	return fields
}

// opened is a record with its sealed values in their places.
func opened(rec journal.Record) journal.Record {
	if len(rec.Event.Sealed) > 0 {
		rec.Event = event.Open(rec.Event, rec.Sealed)
	}
	return rec
}

// shown is a record as somebody may see it: with its sealed values in their
// places, or closed.
func shown(rec journal.Record, closed bool) journal.Record {
	if closed {
		return rec
	}
	return opened(rec)
}

// sealedNotes lists the sealed fields of an event and whether they are there;
// closed leaves out their values.
func sealedNotes(rec journal.Record, closed bool) []SealedField {
	out := make([]SealedField, 0, len(rec.Event.Sealed))
	for _, field := range slices.Sorted(maps.Keys(rec.Event.Sealed)) {
		v, ok := rec.Sealed[field]
		if closed {
			v.Value = ""
		}
		out = append(out, SealedField{Field: field, Value: v.Value, Dropped: !ok})
	}
	return out
}

// SealedField is a field of an event that is sealed.
type SealedField struct {
	Field string `json:"field"`
	Value string `json:"value,omitempty"`
	// Dropped: only its hash is there.
	Dropped bool `json:"dropped,omitempty"`
}

// checkDropped refuses what is no kind or field that can be left out.
func checkDropped(fields []string) error {
	for _, f := range fields {
		if f != event.ActorName && !strings.HasPrefix(f, "facts.") && !slices.Contains(SealKinds(), f) {
			return fmt.Errorf("%w: sealed field %q: want %s, or a field such as facts.reason", ErrInvalid, f, strings.Join(SealKinds(), ", "))
		}
	}
	return nil
}
