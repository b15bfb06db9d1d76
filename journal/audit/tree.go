package audit

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/bits"

	"golang.org/x/mod/sumdb/tlog"

	"sluice/journal/event"
)

// Tree computes the root of a Merkle tree as its leaves come, in memory of
// the logarithm of their number. The zero Tree is empty.
type Tree struct {
	size  int64
	edges []tlog.Hash // of the complete subtrees that make up size, largest first
}

// NewTree is a tree of that many leaves, by what Edges gave.
func NewTree(size int64, edges []event.Hash) (Tree, error) {
	if size < 0 || bits.OnesCount64(uint64(size)) != len(edges) {
		return Tree{}, fmt.Errorf("a tree of %d leaves does not consist of %d complete ones", size, len(edges))
	}
	return Tree{size: size, edges: hashes(edges)}, nil
}

// Edges are the roots of the complete subtrees that make up the tree, largest
// first: all that is needed to go on with it.
func (t *Tree) Edges() []event.Hash { return fromHashes(t.edges) }

// Append adds a leaf by its record hash.
func (t *Tree) Append(h event.Hash) {
	top := tlog.Hash(h)
	for range bits.TrailingZeros64(^uint64(t.size)) {
		last := len(t.edges) - 1
		top = tlog.NodeHash(t.edges[last], top)
		t.edges = t.edges[:last]
	}
	t.edges = append(t.edges, top)
	t.size++
}

// Size is the number of leaves.
func (t *Tree) Size() int64 { return t.size }

// Root is the root of what is there; that of an empty tree is SHA-256 of
// nothing (RFC 6962, 2.1).
func (t *Tree) Root() event.Hash {
	if t.size == 0 {
		return sha256.Sum256(nil)
	}
	root := t.edges[len(t.edges)-1]
	for i := len(t.edges) - 2; i >= 0; i-- {
		root = tlog.NodeHash(t.edges[i], root)
	}
	return event.Hash(root)
}

// Head is where a chain of events ends: that of a zone, or of the facts of
// the whole instance.
type Head struct {
	Zone event.ZoneID `json:"zone"`
	N    uint64       `json:"n"`
	Hash event.Hash   `json:"hash"`
}

// Line is what the tree of the zones has as leaf: zone, n and hash with
// spaces between, without a line end.
func (h Head) Line() []byte { return fmt.Appendf(nil, "%s %d %s", h.Zone, h.N, h.Hash) }

// errProof reports a proof that does not lead to the root.
var errProof = errors.New("the proof does not lead to the root")

// checkInclusion checks that the tree of that size and root has the leaf.
func checkInclusion(proof []event.Hash, size int64, root event.Hash, index int64, leaf event.Hash) error {
	if index < 0 || index >= size {
		return fmt.Errorf("%w: leaf %d of a tree of %d", errProof, index, size)
	}
	if tlog.CheckRecord(hashes(proof), size, tlog.Hash(root), index, tlog.Hash(leaf)) != nil {
		return errProof
	}
	return nil
}

// checkConsistency checks that the tree of new begins with that of old.
func checkConsistency(proof []event.Hash, newSize int64, newRoot event.Hash, oldSize int64, oldRoot event.Hash) error {
	if oldSize < 1 || oldSize > newSize {
		return fmt.Errorf("%w: from %d to %d events", errProof, oldSize, newSize)
	}
	if tlog.CheckTree(hashes(proof), newSize, tlog.Hash(newRoot), oldSize, tlog.Hash(oldRoot)) != nil {
		return errProof
	}
	return nil
}

func hashes(in []event.Hash) []tlog.Hash {
	out := make([]tlog.Hash, len(in))
	for i, h := range in {
		out[i] = tlog.Hash(h)
	}
	return out
}

func fromHashes(in []tlog.Hash) []event.Hash {
	out := make([]event.Hash, len(in))
	for i, h := range in {
		out[i] = event.Hash(h)
	}
	return out
}

// Log is the Merkle tree over all events, and the heads of all chains, at one
// moment.
type Log interface {
	tlog.HashReader
	Size() int64
	// Heads calls fn for each chain, sorted by zone.
	Heads(fn func(Head) error) error
}

// Take makes the checkpoint of a log. It fails where the journal has lost
// events.
func Take(origin string, l Log) (Checkpoint, error) {
	root, err := tlog.TreeHash(l.Size(), l)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("root of %d events: %w", l.Size(), err)
	}
	var zones Tree
	err = l.Heads(func(h Head) error {
		zones.Append(event.RecordHash(h.Line()))
		return nil
	})
	return Checkpoint{Origin: origin, Size: l.Size(), Root: event.Hash(root), Zones: zones.Size(), ZonesRoot: zones.Root()}, err
}
