package zone

import (
	"bytes"
	"errors"
)

// memSpill is a Spill in memory that counts its files and fails on demand.
type memSpill struct {
	made, open int
	failWrite  int // fail the nth write; 0: never
	failRead   bool
	writes     int
}

var errSpill = errors.New("spill fails")

func (s *memSpill) Create() (SpillFile, error) {
	s.made++
	s.open++
	return &memFile{spill: s}, nil
}

type memFile struct {
	spill *memSpill
	buf   []byte
}

func (f *memFile) Write(p []byte) (int, error) {
	f.spill.writes++
	if f.spill.writes == f.spill.failWrite {
		return 0, errSpill
	}
	f.buf = append(f.buf, p...)
	return len(p), nil
}

func (f *memFile) ReadAt(p []byte, at int64) (int, error) {
	if f.spill.failRead {
		return 0, errSpill
	}
	return bytes.NewReader(f.buf).ReadAt(p, at)
}

func (f *memFile) Close() error {
	f.spill.open--
	f.buf = nil
	return nil
}

// sequence is a deterministic source of numbers for tests (splitmix64).
type sequence uint64

func (s *sequence) upTo(n int) int {
	*s += 0x9e3779b97f4a7c15
	z := uint64(*s)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) % uint64(n))
}
