package event

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

const (
	// EnvelopeVersion is the version of the envelope that Encode writes.
	EnvelopeVersion = 1
	// MaxLine is the longest public line in bytes.
	MaxLine = 256 << 10

	timeLayout = "2006-01-02T15:04:05.000000Z"
)

// New returns an event of zone with facts; the journal fills in the rest.
// The time is cut to microseconds.
func New(at time.Time, zone ZoneID, actor Actor, facts Facts) Event {
	return Event{
		Type: facts.EventType(), Time: at.UTC().Truncate(time.Microsecond),
		Zone: zone, Actor: actor, Facts: facts,
	}
}

// Valid reports whether the zone id is Instance or 16 lower-case hex digits.
func (z ZoneID) Valid() bool {
	if z == Instance {
		return true
	}
	if len(z) != 16 {
		return false
	}
	for i := range len(z) {
		if c := z[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// Filter is the subject under which all events of a zone stand; the empty
// zone id means all zones.
func (z ZoneID) Filter() string {
	if z == "" {
		return "ev.>"
	}
	return "ev." + string(z) + ".>"
}

// Subject is where the event is stored, ev.<zone-id>.<noun>. It follows from
// the line alone.
func Subject(e *Event) string {
	noun, _, _ := strings.Cut(e.Type, ".")
	return "ev." + string(e.Zone) + "." + noun
}

// envelope is the line as encoding/json reads and writes it, before it is
// made canonical. Its fields stand in the order of the line, so that there is
// little left to sort.
type envelope struct {
	Actor          Actor           `json:"actor"`
	Cause          uint64          `json:"cause,omitempty"`
	Epoch          uint64          `json:"epoch,omitempty"`
	Facts          json.RawMessage `json:"facts"`
	MustUnderstand bool            `json:"must_understand,omitempty"`
	N              uint64          `json:"n"`
	Prev           *Hash           `json:"prev,omitempty"`
	Sealed         map[string]Hash `json:"sealed,omitempty"`
	Time           string          `json:"time"`
	Type           string          `json:"type"`
	V              int             `json:"v"`
	Zone           ZoneID          `json:"zone"`
}

// Encode returns the event's public line: RFC 8785 JSON of at most MaxLine
// bytes. Members cause, epoch, prev, must_understand and sealed are absent
// where they are zero; facts never hold null. Bytes that are not UTF-8 become
// U+FFFD.
func Encode(e *Event) ([]byte, error) {
	if err := check(e); err != nil {
		return nil, fmt.Errorf("encode event %q: %w", e.Type, err)
	}
	facts := json.RawMessage(e.Raw)
	if facts == nil {
		var err error
		if facts, err = marshal(e.Facts); err != nil {
			return nil, fmt.Errorf("encode event %q: %w", e.Type, err)
		}
	}
	env := envelope{
		V: e.Version, Type: e.Type, Time: e.Time.Format(timeLayout), Zone: e.Zone, Actor: e.Actor,
		Cause: e.Cause, Epoch: e.Epoch, N: e.N, MustUnderstand: e.MustUnderstand,
		Facts: facts, Sealed: e.Sealed,
	}
	if e.N > 1 {
		env.Prev = &e.Prev
	}
	raw, err := marshal(&env)
	if err != nil {
		return nil, fmt.Errorf("encode event %q: %w", e.Type, err)
	}
	line, err := canonical(make([]byte, 0, len(raw)), raw)
	if err != nil {
		return nil, fmt.Errorf("encode event %q: %w", e.Type, err)
	}
	if len(line) > MaxLine {
		return nil, fmt.Errorf("encode event %q: %d bytes, more than %d", e.Type, len(line), MaxLine)
	}
	return line, nil
}

func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// check holds the rules of the envelope that no type states.
func check(e *Event) error {
	switch {
	case e.Version != EnvelopeVersion:
		return fmt.Errorf("envelope version %d, this program knows %d", e.Version, EnvelopeVersion)
	case !validType(e.Type):
		return fmt.Errorf("bad type %q", e.Type)
	case e.Facts == nil && e.Raw == nil, e.Raw != nil && (len(e.Raw) == 0 || e.Raw[0] != '{'):
		return fmt.Errorf("no facts")
	case e.Facts != nil && e.Facts.EventType() != e.Type:
		return fmt.Errorf("facts are of type %q", e.Facts.EventType())
	case e.Facts == nil && byName()[e.Type] != nil:
		return fmt.Errorf("raw facts of a known type")
	case !e.Zone.Valid():
		return fmt.Errorf("bad zone id %q", e.Zone)
	case e.Time.Location() != time.UTC || e.Time.Nanosecond()%1000 != 0:
		return fmt.Errorf("time %s is not UTC to the microsecond", e.Time)
	case e.Time.Year() < 1970 || e.Time.Year() > 9999:
		return fmt.Errorf("time %s is out of range", e.Time)
	case !validDoor(e.Actor.Door) || e.Actor.Name == "":
		return fmt.Errorf("bad actor %q through door %q", e.Actor.Name, e.Actor.Door)
	case e.N == 0:
		return fmt.Errorf("n is 0")
	case e.N == 1 && !e.Prev.IsZero():
		return fmt.Errorf("prev is set at n = 1")
	case e.N > 1 && e.Prev.IsZero():
		return fmt.Errorf("no prev at n = %d", e.N)
	}
	return nil
}

func validDoor(d string) bool {
	switch d {
	case "cli", "api", "web", "dns", "timer", "worker":
		return true
	default:
		return false
	}
}

// validType takes noun.past-participle: two parts of lower-case letters and
// inner hyphens, 64 bytes at most.
func validType(t string) bool {
	noun, verb, ok := strings.Cut(t, ".")
	return ok && len(t) <= 64 && validWord(noun) && validWord(verb)
}

func validWord(w string) bool {
	if w == "" || w[0] == '-' || w[len(w)-1] == '-' {
		return false
	}
	for i := range len(w) {
		if c := w[i]; (c < 'a' || c > 'z') && c != '-' {
			return false
		}
	}
	return true
}

// Decode reads a public line. It accepts exactly what Encode writes: encoding
// the result gives the same bytes. An event of an unknown type has Facts nil
// and its facts in Raw; one of a known type that holds members which this
// program does not know has both.
func Decode(line []byte) (Event, error) {
	if len(line) > MaxLine {
		return Event{}, fmt.Errorf("decode event: %d bytes, more than %d", len(line), MaxLine)
	}
	var env envelope
	if err := unmarshal(line, &env); err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	e, err := env.event()
	if err != nil {
		return Event{}, fmt.Errorf("decode event %q: %w", env.Type, err)
	}
	again, err := Encode(&e)
	if err != nil {
		return Event{}, fmt.Errorf("decode event: %w", err)
	}
	if !bytes.Equal(again, line) {
		return Event{}, fmt.Errorf("decode event %q: bytes are not canonical", env.Type)
	}
	return e, nil
}

func (env *envelope) event() (Event, error) {
	at, err := time.Parse(timeLayout, env.Time)
	if err != nil {
		return Event{}, err
	}
	e := Event{
		Version: env.V, Type: env.Type, Time: at.UTC(), Zone: env.Zone, Actor: env.Actor,
		Cause: env.Cause, Epoch: env.Epoch, N: env.N, MustUnderstand: env.MustUnderstand,
		Sealed: env.Sealed,
	}
	if env.Prev != nil {
		e.Prev = *env.Prev
	}
	e.Facts = NewFacts(env.Type)
	if e.Facts == nil {
		e.Raw = nonNil(env.Facts)
		return e, nil
	}
	if unmarshal(env.Facts, e.Facts) == nil {
		return e, nil
	}
	// A newer program may have added optional members: keep them.
	e.Facts, e.Raw = NewFacts(env.Type), nonNil(env.Facts)
	if len(e.Raw) > 0 && e.Raw[0] != '{' {
		return e, fmt.Errorf("facts are no object")
	}
	return e, json.Unmarshal(e.Raw, e.Facts)
}

func nonNil(b []byte) []byte { return append([]byte{}, b...) }

func unmarshal(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); err != io.EOF {
		return fmt.Errorf("bytes after the value")
	}
	return nil
}
