package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	// SaltLen is the length in bytes of the salt of a sealed value.
	SaltLen = 16
	// ActorName is the field of an event's actor that can be sealed.
	ActorName = "actor.name"
	// SealedText stands in the public line where a sealed text was, so that
	// whoever folds it still sees that there was one.
	SealedText = "(sealed)"
	// SealedStart is how many bytes tell a sealed line from a public one.
	SealedStart = len(sealedStart)
	// Dropped stands for a sealed value that is no longer there.
	Dropped = "(dropped)"

	// sealedStart is what every sealed line begins with, and no public line.
	sealedStart = `{"sealed":`
	factsField  = "facts."
)

// SealedValue is one field of a sealed line. Its salt keeps a short value from
// being found by trying.
type SealedValue struct {
	Salt  []byte `json:"salt"` // SaltLen random bytes
	Value string `json:"value"`
}

// Hash is SHA-256(salt || value), as it stands in the public line.
func (v SealedValue) Hash() Hash {
	h := sha256.New()
	h.Write(v.Salt)
	h.Write([]byte(v.Value))
	return Hash(h.Sum(nil))
}

// sealedLine is the sealed line as encoding/json reads and writes it.
type sealedLine struct {
	Sealed map[string]SealedValue `json:"sealed"`
}

// EncodeSealed returns the sealed line of values by their fields: RFC 8785 JSON,
// nil where there are none.
func EncodeSealed(values map[string]SealedValue) ([]byte, error) {
	if len(values) == 0 {
		return nil, nil
	}
	for field, v := range values {
		if len(v.Salt) != SaltLen || !utf8.ValidString(v.Value) {
			return nil, fmt.Errorf("encode sealed field %q: want a salt of %d bytes and a value in UTF-8", field, SaltLen)
		}
	}
	raw, err := marshal(sealedLine{values})
	if err != nil {
		return nil, fmt.Errorf("encode sealed line: %w", err)
	}
	line, err := canonical(make([]byte, 0, len(raw)), raw)
	if err != nil {
		return nil, fmt.Errorf("encode sealed line: %w", err)
	}
	return line, nil
}

// DecodeSealed reads a sealed line. It accepts exactly what EncodeSealed writes,
// and only values whose hashes the public line has; some or all may be missing.
func DecodeSealed(line []byte, hashes map[string]Hash) (map[string]SealedValue, error) {
	if len(line) > MaxLine {
		return nil, fmt.Errorf("decode sealed line: %d bytes, more than %d", len(line), MaxLine)
	}
	var in sealedLine
	if err := unmarshal(line, &in); err != nil {
		return nil, fmt.Errorf("decode sealed line: %w", err)
	}
	again, err := EncodeSealed(in.Sealed)
	if err != nil {
		return nil, fmt.Errorf("decode sealed line: %w", err)
	}
	if !bytes.Equal(again, line) {
		return nil, errors.New("decode sealed line: bytes are not canonical")
	}
	for field, v := range in.Sealed {
		switch want, ok := hashes[field]; {
		case !ok:
			return nil, fmt.Errorf("sealed field %q: the public line does not name it", field)
		case v.Hash() != want:
			return nil, fmt.Errorf("sealed field %q: its value is not what was sealed", field)
		}
	}
	return in.Sealed, nil
}

// IsSealedLine tells a sealed line from a public one by its first bytes.
func IsSealedLine(line []byte) bool { return bytes.HasPrefix(line, []byte(sealedStart)) }

// EncodeMessage returns what is stored of an event: its public line, and where
// it has sealed values a line feed and the sealed line; in all at most MaxLine
// bytes. line is the first part.
func EncodeMessage(e *Event) (message, line []byte, err error) {
	if line, err = Encode(e); err != nil {
		return nil, nil, err
	}
	sealed, err := EncodeSealed(e.Values)
	if err != nil || sealed == nil {
		return line, line, err
	}
	if _, err := DecodeSealed(sealed, e.Sealed); err != nil {
		return nil, nil, fmt.Errorf("encode event %q: %w", e.Type, err)
	}
	if n := len(line) + 1 + len(sealed); n > MaxLine {
		return nil, nil, fmt.Errorf("encode event %q: %d bytes with the sealed line, more than %d", e.Type, n, MaxLine)
	}
	message = slices.Concat(line, []byte{'\n'}, sealed)
	return message, message[:len(line):len(line)], nil
}

// PublicLine is the part of a stored message that is the public line.
func PublicLine(message []byte) []byte {
	line, _, _ := bytes.Cut(message, []byte{'\n'})
	return line
}

// DecodeMessage reads what is stored of an event. The sealed line may be missing,
// or some of its fields: then they were dropped. The event itself never holds
// sealed values, so that nothing can come to depend on them.
func DecodeMessage(message []byte) (Event, map[string]SealedValue, error) {
	line, sealed, two := bytes.Cut(message, []byte{'\n'})
	if len(message) > MaxLine {
		return Event{}, nil, fmt.Errorf("decode event: %d bytes, more than %d", len(message), MaxLine)
	}
	e, err := Decode(line)
	if err != nil || !two {
		return e, nil, err
	}
	values, err := DecodeSealed(sealed, e.Sealed)
	if err != nil {
		return e, nil, fmt.Errorf("event %q: %w", e.Type, err)
	}
	return e, values, nil
}

// Seal moves texts of an event into its sealed values and leaves SealedText in
// their places; what is empty or not there stays as it is. A field is ActorName,
// or the path to a text in the facts such as facts.reason or
// facts.fetches.0.address. The event's facts are copied, not changed. salt fills
// in random bytes.
func Seal(e *Event, fields []string, salt func([]byte)) error {
	for _, field := range fields {
		text, err := e.replace(field, SealedText)
		if err != nil {
			return fmt.Errorf("seal %s: %w", field, err)
		}
		if text == "" || text == SealedText {
			continue
		}
		v := SealedValue{Salt: make([]byte, SaltLen), Value: text}
		salt(v.Salt)
		if e.Sealed == nil {
			e.Sealed, e.Values = map[string]Hash{}, map[string]SealedValue{}
		}
		e.Sealed[field], e.Values[field] = v.Hash(), v
	}
	return nil
}

// Open is the event with its sealed values where they were, to be shown; Dropped
// stands for those that are not there. Its line would be another one.
func Open(e Event, values map[string]SealedValue) Event {
	for field := range e.Sealed {
		text := Dropped
		if v, ok := values[field]; ok {
			text = v.Value
		}
		// What a newer program sealed may have no place here that is known.
		_, _ = e.replace(field, text)
	}
	return e
}

// replace puts a text in the place of one and returns that; where there is none,
// or an empty one, nothing changes.
func (e *Event) replace(field, text string) (was string, err error) {
	if field == ActorName {
		was, e.Actor.Name = strings.ToValidUTF8(e.Actor.Name, "\uFFFD"), text
		return was, nil
	}
	path, ok := strings.CutPrefix(field, factsField)
	if !ok || e.Facts == nil {
		return "", fmt.Errorf("event %q has no field %q", e.Type, field)
	}
	raw, err := marshal(e.Facts)
	if err != nil {
		return "", err
	}
	var tree any
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&tree); err != nil {
		return "", err
	}
	steps := strings.Split(path, ".")
	last := len(steps) - 1
	at := tree
	for _, step := range steps[:last] {
		at = below(at, step)
	}
	object, ok := at.(map[string]any)
	if was, _ = object[steps[last]].(string); !ok || was == "" {
		return "", nil
	}
	object[steps[last]] = text
	if raw, err = marshal(tree); err != nil {
		return "", err
	}
	facts := NewFacts(e.Type)
	if err := json.Unmarshal(raw, facts); err != nil {
		return "", err
	}
	e.Facts = facts
	return was, nil
}

// below is the member or element of a JSON value; nil where there is none.
func below(v any, step string) any {
	switch v := v.(type) {
	case map[string]any:
		return v[step]
	case []any:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(v) {
			return v[i]
		}
	}
	return nil
}
