package audit

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"sluice/journal/event"
)

// ErrCheckpoint reports a text that is not a checkpoint of this kind, or not
// byte for byte as it would be written.
var ErrCheckpoint = errors.New("not a checkpoint")

// Checkpoint says what a journal held when it had Size events.
type Checkpoint struct {
	Origin string     // names the log; the name of the key that signs
	Size   int64      // number of events, so the sequence of the last one
	Root   event.Hash // of the Merkle tree over their public lines
	// Zones is the number of chains of events, that of the whole instance
	// included, and ZonesRoot the root of the Merkle tree over their heads
	// (HeadLine), sorted by zone: so nobody can hide a zone's last events.
	Zones     int64
	ZonesRoot event.Hash
}

// zonesWord begins the extension line of a checkpoint.
const zonesWord = "zones"

// Text is the text of the note: C2SP tlog-checkpoint with one extension line.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\n%d\n%s\n%s %d %s\n", c.Origin, c.Size, tlog.Hash(c.Root), zonesWord, c.Zones, tlog.Hash(c.ZonesRoot))
}

// parseCheckpoint reads what Text writes, and nothing else.
func parseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 || lines[4] != "" {
		return Checkpoint{}, fmt.Errorf("%w: want four lines", ErrCheckpoint)
	}
	c := Checkpoint{Origin: lines[0]}
	var err error
	if c.Size, err = strconv.ParseInt(lines[1], 10, 64); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: size: %w", ErrCheckpoint, err)
	}
	root, err := tlog.ParseHash(lines[2])
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: root: %w", ErrCheckpoint, err)
	}
	c.Root = event.Hash(root)
	fields := strings.Split(lines[3], " ")
	if len(fields) != 3 || fields[0] != zonesWord {
		return Checkpoint{}, fmt.Errorf("%w: want a line of zones", ErrCheckpoint)
	}
	if c.Zones, err = strconv.ParseInt(fields[1], 10, 64); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: number of zones: %w", ErrCheckpoint, err)
	}
	if root, err = tlog.ParseHash(fields[2]); err != nil {
		return Checkpoint{}, fmt.Errorf("%w: root of the zones: %w", ErrCheckpoint, err)
	}
	c.ZonesRoot = event.Hash(root)
	if c.Text() != text {
		return Checkpoint{}, fmt.Errorf("%w: not in its canonical form", ErrCheckpoint)
	}
	return c, nil
}

// Sign writes a checkpoint as a signed note.
func (c Checkpoint) Sign(key *Key) (string, error) { return sign(c.Text(), key) }

// ReadCheckpoint reads a signed checkpoint. The note is accepted only byte
// for byte as it would be written, with one signature of each key that signs
// it; other is the names of keys that v does not know. Errors: ErrCheckpoint,
// ErrSignature.
func ReadCheckpoint(text string, v *Verifier) (c Checkpoint, other []string, err error) {
	body, other, err := open(text, v)
	if err != nil {
		return Checkpoint{}, nil, err
	}
	if c, err = parseCheckpoint(body); err == nil && c.Origin != v.Name() {
		err = fmt.Errorf("%w: it is of %q, the key of %q", ErrCheckpoint, c.Origin, v.Name())
	}
	return c, other, err
}

// ErrSignature reports a note that the key did not sign as it stands.
var ErrSignature = errors.New("signature does not verify")

// sign writes a text as a signed note.
func sign(text string, key *Key) (string, error) {
	signed, err := note.Sign(&note.Note{Text: text}, key.signer)
	return string(signed), err
}

// open verifies a signed note and returns its text and the names of further
// signers. The note format lets some altered bytes pass, so that it has to be
// what writing it again gives.
func open(signed string, v *Verifier) (text string, other []string, err error) {
	n, err := note.Open([]byte(signed), note.VerifierList(v.verifier))
	if err != nil {
		return "", nil, fmt.Errorf("%w: %s", ErrSignature, strings.TrimPrefix(err.Error(), "note: "))
	}
	if len(n.Sigs) != 1 {
		return "", nil, fmt.Errorf("%w: more than one by the same key", ErrSignature)
	}
	for _, s := range n.UnverifiedSigs {
		other = append(other, s.Name)
	}
	for _, s := range slices.Concat(n.Sigs, n.UnverifiedSigs) {
		if _, err := base64.StdEncoding.Strict().DecodeString(s.Base64); err != nil {
			return "", nil, fmt.Errorf("%w: the note is not in its canonical form", ErrSignature)
		}
	}
	if again, err := note.Sign(n); err != nil || string(again) != signed {
		return "", nil, fmt.Errorf("%w: the note is not in its canonical form", ErrSignature)
	}
	return n.Text, other, nil
}

// ReadCosigned reads a checkpoint that witnesses signed too, and returns the
// names of those that did. Signatures of others are passed over. Errors:
// ErrCheckpoint, ErrSignature.
func ReadCosigned(text string, v *Verifier, witnesses []*Verifier) (c Checkpoint, names []string, err error) {
	if c, _, err = ReadCheckpoint(text, v); err != nil {
		return c, nil, err
	}
	for _, w := range witnesses {
		if n, err := note.Open([]byte(text), note.VerifierList(w.verifier)); err == nil && len(n.Sigs) == 1 {
			names = append(names, w.Name())
		}
	}
	return c, names, nil
}
