package journal

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
)

// A store that was filled has its chunks under other sequences than the events
// say. The file of moves, pairs of numbers sorted by the first, tells where each
// stands. It saves a search and nothing depends on it.

// movesFile holds the moves of a store.
const movesFile = "sluice-restored.map"

// move says where the chunk of a sequence stands.
type move struct{ from, to uint64 }

// moveSize is the length of a move in the file, in bytes.
const moveSize = 16

// writeMoves writes the file; it is on disk when it returns.
func writeMoves(dir string, moves []move) error {
	slices.SortFunc(moves, func(a, b move) int {
		switch {
		case a.from < b.from:
			return -1
		case a.from > b.from:
			return 1
		}
		return 0
	})
	data := make([]byte, 0, len(moves)*moveSize)
	for _, m := range moves {
		data = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(data, m.from), m.to)
	}
	return replaceFile(filepath.Join(dir, movesFile), data)
}

// moveTable looks moves up in the file.
type moveTable struct {
	f *os.File
	n int
}

// openMoves opens the file; nil where there is none.
func openMoves(dir string) (*moveTable, error) {
	f, err := os.Open(filepath.Join(dir, movesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // stores that were not filled have none
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &moveTable{f, int(info.Size() / moveSize)}, nil
}

// find is where the chunk of a sequence stands; the sequence itself where that
// is not known.
func (t *moveTable) find(seq uint64) uint64 {
	if t == nil {
		return seq
	}
	at := func(i int) (m move) {
		var b [moveSize]byte
		if _, err := t.f.ReadAt(b[:], int64(i)*moveSize); err != nil {
			return move{} // the search finds nothing then
		}
		return move{binary.BigEndian.Uint64(b[:]), binary.BigEndian.Uint64(b[8:])}
	}
	i := sort.Search(t.n, func(i int) bool { return at(i).from >= seq })
	if i < t.n {
		if m := at(i); m.from == seq {
			return m.to
		}
	}
	return seq
}

func (t *moveTable) close() error {
	if t == nil {
		return nil
	}
	return t.f.Close()
}
