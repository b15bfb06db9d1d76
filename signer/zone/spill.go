package zone

import "io"

// Spill is where sorting puts what does not fit into memory.
type Spill interface {
	// Create makes a temporary file that is gone after Close.
	Create() (SpillFile, error)
}

// SpillFile is one temporary file: written once from start to end, then read.
type SpillFile interface {
	io.Writer
	io.ReaderAt
	io.Closer
}
