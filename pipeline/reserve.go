package pipeline

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// reserveLeast is what signing needs even of small zones: the projection
	// takes up room for two new logs and a flush, the journal for its files.
	reserveLeast = 32 << 20
	// reserveShare is the share of a disk that the reserve takes at most: one
	// in so many bytes; leastShare that of reserveLeast.
	reserveShare = 8
	leastShare   = 4
	// fillStep bounds what is written at a time where a file system cannot
	// allocate.
	fillStep = 32 << 20
)

// Reserve is room on the disk that is kept in a file, so that what is served
// can be signed once more when the disk is full: the file is then given up. It
// is safe for concurrent use.
type Reserve struct {
	path string
	most uint64

	mu     sync.Mutex
	held   uint64 // guarded by mu; bytes that the file takes up
	wanted uint64 // guarded by mu
	given  bool   // guarded by mu; it was released and is not whole again
}

// ReserveStatus is how the reserve is.
type ReserveStatus struct {
	Path string `json:"path"`
	// State is held, released (it was needed, and there is no room yet to take
	// it back), short (there never was room for all of it) or none (the
	// config wants none).
	State  string `json:"state"`
	Bytes  uint64 `json:"bytes"`  // what it holds
	Wanted uint64 `json:"wanted"` // what signing everything once more needs
}

// OpenReserve takes up the reserve in a file, or makes one where there is
// room; it grows to at most that many bytes, and to an eighth of the disk. 0
// wants none. On a disk that is full it is given up at once, so that the
// journal can be opened.
func OpenReserve(path string, most uint64) (*Reserve, error) {
	r := &Reserve{path: path, most: most}
	if most == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("give up disk reserve: %w", err)
		}
		return r, nil
	}
	var st unix.Stat_t
	switch err := unix.Lstat(path, &st); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("disk reserve %s: %w", path, err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return nil, fmt.Errorf("disk reserve %s is no file: move it away", path)
	default:
		r.held = uint64(max(0, min(st.Blocks*512, st.Size)))
	}
	d, err := lookDisk(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	r.wanted = r.bounded(d, 0)
	if d.free < d.floor() && r.held > 0 {
		_, err = r.release()
		return r, err
	}
	if r.held < r.wanted {
		err = r.fill(d)
	}
	return r, err
}

// bounded is the size of a reserve that signing needs so many bytes of.
func (r *Reserve) bounded(d disk, need uint64) uint64 {
	most := max(d.size/reserveShare, min(reserveLeast, d.size/leastShare))
	return min(d.floor()+need+reserveLeast, most, r.most)
}

// want says how many bytes signing everything once more needs. A reserve that
// is much too large is cut.
func (r *Reserve) want(d disk, need uint64) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wanted = r.bounded(d, need)
	if r.held <= r.wanted+r.wanted/4+reserveLeast {
		return nil
	}
	if err := os.Truncate(r.path, int64(r.wanted)); err != nil {
		return fmt.Errorf("cut disk reserve: %w", err)
	}
	r.held = r.wanted
	return nil
}

// missing is how many bytes the reserve lacks.
func (r *Reserve) missing() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lacks()
}

// lacks is missing for a caller that holds mu.
func (r *Reserve) lacks() uint64 {
	if r.held >= r.wanted {
		return 0
	}
	return r.wanted - r.held
}

// release gives the reserve up, and reports how many bytes came free.
func (r *Reserve) release() (freed uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.held == 0 {
		return 0, nil
	}
	// Where not even the removal can be noted on the disk, cutting it may be.
	if err := errors.Join(os.Truncate(r.path, 0), os.Remove(r.path)); err != nil {
		var st unix.Stat_t
		if unix.Stat(r.path, &st) == nil && st.Blocks > 0 {
			return 0, fmt.Errorf("release disk reserve: %w", err)
		}
	}
	freed, r.held, r.given = r.held, 0, true
	return freed, nil
}

// fill takes back what the reserve lacks where the disk has room for all of
// it besides what it must keep free.
func (r *Reserve) fill(d disk) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	lacks := r.lacks()
	if lacks == 0 || d.free < d.keep+lacks {
		return nil
	}
	held, err := allocate(r.path, r.held, r.wanted)
	r.held = held
	if r.lacks() == 0 {
		r.given = false
	}
	if err != nil {
		return fmt.Errorf("fill disk reserve: %w", err)
	}
	return nil
}

// allocate makes a file that takes up its whole length grow, and returns how
// long it is: where the file system cannot allocate, it comes a part of the way.
func allocate(path string, from, to uint64) (held uint64, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return from, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	err = unix.Fallocate(int(f.Fd()), 0, int64(from), int64(to-from))
	if errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS) {
		to = min(to, from+fillStep)
		err = writeOut(f, from, to)
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return from, errors.Join(err, f.Truncate(int64(from)))
	}
	return to, nil
}

// writeOut takes room by writing what no file system can make smaller.
func writeOut(f io.WriterAt, from, to uint64) error {
	block := make([]byte, 1<<20)
	for from < to {
		if _, err := rand.Read(block); err != nil {
			return err
		}
		n, err := f.WriteAt(block[:min(uint64(len(block)), to-from)], int64(from))
		if err != nil {
			return err
		}
		from += uint64(n)
	}
	return nil
}

// status tells how the reserve is.
func (r *Reserve) status() ReserveStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := ReserveStatus{Path: r.path, State: "held", Bytes: r.held, Wanted: r.wanted}
	switch {
	case r.most == 0:
		st.State = "none"
	case r.lacks() > 0 && r.given:
		st.State = "released"
	case r.lacks() > 0:
		st.State = "short"
	}
	return st
}

// alarm says what an operator must do about the reserve; "" for nothing.
func (st ReserveStatus) alarm() string {
	switch st.State {
	case "released":
		return fmt.Sprintf("the disk reserve was used up, since the disk is full: it holds %.1f of %.1f MiB; "+
			"signing goes on while there is room, nothing new is loaded; free space on the disk", mib(st.Bytes), mib(st.Wanted))
	case "short":
		return fmt.Sprintf("the disk has no room for the whole reserve: it holds %.1f of %.1f MiB; free space on the disk", mib(st.Bytes), mib(st.Wanted))
	}
	return ""
}

// signCopies is how often what signing makes is written, see signNeedOf.
const signCopies = 3

// countNeed makes the zone's part in Engine.signNeed that of its state. The caller
// holds mu or is alone.
func (r *runner) countNeed() {
	need := signNeedOf(r.state)
	r.e.signNeed.Add(need - r.need)
	r.need = need
}

// signNeedOf is how many bytes it takes at most to sign all that a zone publishes
// once more: the chunks in the journal, the projection's copy, and as much again
// for what is written only for a while.
func signNeedOf(s State) uint64 {
	const (
		perZone      = 16 << 10
		perSignature = 150 // owner, key, header, and its share of the denial chain
	)
	if s.Published == nil || s.Removed != 0 {
		return 0
	}
	length := uint64(0)
	for _, k := range s.Keys.Signing() {
		length = max(length, signatureLength(k.Algorithm, base64.StdEncoding.DecodedLen(len(k.DNSKEY))))
	}
	return signCopies * (perZone + s.Published.Signed.Facts.Signatures*(perSignature+length))
}

// signatureLength is about how long the signatures of a key are, which follows
// from the length of its public key (RFC 3110, RFC 6605, RFC 8080).
func signatureLength(algorithm uint8, publicKey int) uint64 {
	if algorithm == 15 || algorithm == 16 {
		return uint64(2 * publicKey)
	}
	return uint64(publicKey)
}
