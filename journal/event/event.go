package event

import (
	"time"
)

// ZoneID is the opaque token under which a zone's events stand: 16 lower-case
// hex digits, never reused.
type ZoneID string

// Instance is the zone id of facts that belong to the whole instance.
const Instance ZoneID = "_"

// Hash is a SHA-256, in JSON 64 lower-case hex digits.
type Hash [32]byte

// Event is one public line: what the journal keeps for ever. Its bytes are
// RFC 8785 JSON; see DESIGN.md of package journal.
type Event struct {
	// Version is the version of the envelope, 1.
	Version int
	// Type is the wire name of the facts, noun.past-participle.
	Type string
	// Time is when the writer decided, in UTC, to the microsecond. It never
	// orders events.
	Time time.Time
	// Zone is whose event this is.
	Zone ZoneID
	// Actor is who or what did it, and through which door.
	Actor Actor
	// Cause is the sequence of the event that led to this one; 0 for none.
	Cause uint64
	// Epoch is the writer's epoch for (zone, role); 0 through a door and
	// where no worker was granted one.
	Epoch uint64
	// N is the zone's running number, from 1.
	N uint64
	// Prev is the record hash of the zone's event N-1; zero at N = 1.
	Prev Hash
	// MustUnderstand stops the fold of a program that does not know Type.
	MustUnderstand bool
	// Facts is what happened: a pointer to one of the registered types.
	Facts Facts
	// Raw holds the canonical facts where Facts cannot: those of a type that
	// this program does not know (Facts is nil), or with members that it does
	// not know. Where it is set, it is what gets encoded.
	Raw []byte
	// Sealed holds SHA-256(salt, value) of each field in the sealed line.
	Sealed map[string]Hash
	// Values are the sealed values of an event on its way in; Encode leaves them
	// to the sealed line. Of an event that was read they are nil.
	Values map[string]SealedValue
}

// Actor is who or what acted, and through which door.
type Actor struct {
	// Name is a person, token or peer name, or "sluice" for the program's own
	// decisions.
	Name string `json:"name"`
	// Door is one of "cli", "api", "web", "dns", "timer", "worker".
	Door string `json:"door"`
	// Role is the role by which somebody who came through cli, api or web was
	// allowed to: viewer, reviewer, operator, auditor or admin. Empty where the
	// door asks for none.
	Role string `json:"api_role,omitempty"`
}

// Person reports whether somebody asked for it from outside, through a door
// where people and their programs come in.
func (a Actor) Person() bool { return a.Door == "cli" || a.Door == "api" || a.Door == "web" }

// Program is the actor of what a worker decides by itself.
var Program = Actor{Name: "sluice", Door: "worker"} //nolint:gochecknoglobals // a constant in all but name

// Facts is implemented by the registered event types only.
type Facts interface {
	// EventType is the wire name.
	EventType() string
}
