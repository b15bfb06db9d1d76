package audit

import (
	"fmt"
	"slices"
	"strings"

	"sluice/journal/event"
)

// Former is a log that the present one goes on from: its events are the first
// ones of this one, and its key signed the checkpoints among them.
type Former struct {
	Size uint64 // events taken over: those with sequences up to it
	// Key is its public key; nil where it is not known. Then the signatures of
	// its checkpoints are passed over, and only the roots count.
	Key *Verifier
}

// Keys are the keys by which the checkpoints of a journal verify.
type Keys struct {
	Present *Verifier // of the log as it is now; nil where it is not known
	Former  []Former  // ascending by size
}

// Take notes that the log goes on from another one.
func (k *Keys) Take(f *event.JournalContinued) {
	former := Former{Size: f.Size}
	if key, err := ParseVerifier(f.Key); f.Key != "" && err == nil {
		former.Key = key
	}
	k.Former = append(k.Former, former)
}

// at is the key of the log that the event of a sequence was appended to; known
// is false where nothing verifies its checkpoints.
func (k *Keys) at(seq uint64) (key *Verifier, known bool) {
	for _, f := range k.Former {
		if seq <= f.Size {
			return f.Key, f.Key != nil
		}
	}
	return k.Present, k.Present != nil
}

// ReadAt reads the signed checkpoint that stands in the event of a sequence.
// Where the key of its log is not known, it is read without its signature.
// Errors: ErrCheckpoint, ErrSignature.
func (k *Keys) ReadAt(note string, seq uint64) (Checkpoint, error) {
	key, known := k.at(seq)
	if !known {
		text, _, ok := strings.Cut(note, "\n\n")
		if !ok {
			return Checkpoint{}, fmt.Errorf("%w: no signed note", ErrCheckpoint)
		}
		return parseCheckpoint(text + "\n")
	}
	c, _, err := ReadCheckpoint(note, key)
	return c, err
}

// ReadOutside reads a checkpoint that was kept elsewhere: of the present log, or
// of a former one as far as that was taken over. Errors: ErrCheckpoint,
// ErrSignature.
func (k *Keys) ReadOutside(note string) (Checkpoint, error) {
	c, _, err := ReadCheckpoint(note, k.Present)
	if err == nil {
		return c, nil
	}
	for _, f := range slices.Backward(k.Former) {
		if f.Key == nil {
			continue
		}
		old, _, ferr := ReadCheckpoint(note, f.Key)
		switch {
		case ferr != nil:
		case uint64(old.Size) > f.Size:
			return c, fmt.Errorf("%w: it counts %d events of the log %s, of which only %d were taken over", ErrCheckpoint, old.Size, old.Origin, f.Size)
		default:
			return old, nil
		}
	}
	return c, err
}

// text is the line of a manifest.
func (f Former) text() string {
	key := noKey
	if f.Key != nil {
		key = f.Key.String()
	}
	return fmt.Sprintf("former %d %s\n", f.Size, key)
}

// noKey stands for a key that is not known.
const noKey = "-"
