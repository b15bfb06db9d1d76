package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2" //nolint:depguard // which writes a disk loses is no secret
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// lossyDisk is a disk with a volatile cache: what was written to it is sure to
// be there after a loss of power only once it was told to flush. It is a file
// system in user space (FUSE) with one file, which a loop device makes a disk of,
// so that each write and each flush passes by here.
type lossyDisk struct {
	t    *testing.T
	dir  string // where its file stands
	size int64
	fd   int

	mu      sync.Mutex
	live    *os.File // guarded by mu; with all that was written
	stable  *os.File // guarded by mu; with all that was flushed
	pending []write  // guarded by mu; what was not
	failing *failing // guarded by mu; nil while the power is not about to fail
}

// failing is a loss of power that comes.
type failing struct {
	after  int // writes
	path   string
	chance *rand.Rand
	moment func()     // called at the moment
	failed chan error // gets one value then
}

// write is one write that was not flushed yet.
type write struct {
	at   int64
	data []byte
}

// newLossyDisk makes a disk; the test is skipped where there can be none.
func newLossyDisk(t *testing.T, size int64) *lossyDisk {
	t.Helper()
	need(t, "mkfs.ext4", "mount", "umount", "losetup")
	if os.Geteuid() != 0 {
		t.Skip("only root may mount a disk")
	}
	dir := shortDir(t)
	d := &lossyDisk{t: t, dir: filepath.Join(dir, "fuse"), size: size}
	var err error
	for name, to := range map[string]**os.File{"live": &d.live, "stable": &d.stable} {
		if *to, err = os.Create(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { (*to).Close() })
		if err := (*to).Truncate(size); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if d.fd, err = unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		t.Skip("no file systems in user space here: ", err)
	}
	if err := unix.Mount("lossy", d.dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", d.fd)); err != nil {
		_ = unix.Close(d.fd)
		t.Skip("mount: ", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.serve()
	}()
	t.Cleanup(func() {
		if err := unix.Unmount(d.dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", d.dir, err)
		}
		<-ended
		_ = unix.Close(d.fd) // the kernel has ended it already
	})
	return d
}

// file is the disk's file.
func (d *lossyDisk) file() string { return filepath.Join(d.dir, diskName) }

// format makes a file system on it and mounts that.
func (d *lossyDisk) format() string {
	d.t.Helper()
	must(d.t, "mkfs.ext4", "-q", "-F", d.file())
	return mountImage(d.t, d.file())
}

// mountImage mounts the file system in a file.
func mountImage(t *testing.T, file string) string {
	t.Helper()
	dir := shortDir(t)
	if r := run(t, "mount", "-o", "loop", file, dir); r.code != 0 {
		t.Skipf("no loop mounts here: %v", r)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

// unmount unmounts what is mounted there; nothing is no error.
func unmount(t *testing.T, dir string) {
	t.Helper()
	if exec.Command("mountpoint", "-q", dir).Run() == nil {
		if r := run(t, "umount", dir); r.code != 0 {
			t.Errorf("umount: %v", r)
		}
	}
}

// fail has the power fail after so many writes from now on: what the disk has
// then is written to path, that is all that was flushed, and of the rest what
// chance leaves: a write may be there, be missing, or end after some of its
// sectors; at least one is not whole. The disk itself goes on. moment is called
// at that moment, and the channel gets a value once path is written.
func (d *lossyDisk) fail(after int, path string, chance *rand.Rand, moment func()) <-chan error {
	f := &failing{after, path, chance, moment, make(chan error, 1)}
	d.mu.Lock()
	d.failing = f
	d.mu.Unlock()
	return f.failed
}

// loseLocked writes what is left. The caller holds mu.
func (d *lossyDisk) loseLocked(path string, chance *rand.Rand) (err error) {
	if err := copySparse(path, d.stable, d.size); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	const sector = 512
	surely := chance.IntN(len(d.pending))
	for i, w := range d.pending {
		n := len(w.data)
		what := chance.IntN(3)
		if i == surely {
			what %= 2
		}
		switch what {
		case 0:
			n = 0
		case 1:
			n = chance.IntN(n/sector) * sector
		}
		if _, err := f.WriteAt(w.data[:n], w.at); err != nil {
			return err
		}
	}
	return nil
}

// copySparse copies a file and leaves its holes.
func copySparse(path string, from *os.File, size int64) (err error) {
	to, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if err := to.Truncate(size); err != nil {
		return err
	}
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(from.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(from.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(to, data), io.NewSectionReader(from, data, hole-data)); err != nil {
			return err
		}
		at = hole
	}
	return nil
}

// The parts of the kernel's protocol that a single file needs (fuse.h, 7.31).
const (
	diskName = "disk"
	diskNode = 2

	fuseLookup      = 1
	fuseForget      = 2
	fuseGetattr     = 3
	fuseSetattr     = 4
	fuseOpen        = 14
	fuseRead        = 15
	fuseWrite       = 16
	fuseStatfs      = 17
	fuseRelease     = 18
	fuseFsync       = 20
	fuseFlush       = 25
	fuseInit        = 26
	fuseInterrupt   = 36
	fuseDestroy     = 38
	fuseBatchForget = 42

	fuseHeader   = 40 // length of a request's head
	fuseMaxWrite = 128 << 10
)

// serve answers the kernel until the disk is unmounted.
func (d *lossyDisk) serve() {
	buf := make([]byte, fuseMaxWrite+64<<10)
	for {
		n, err := unix.Read(d.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ENOENT), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil || n < fuseHeader:
			return // unmounted
		}
		le := binary.LittleEndian
		op, unique, node := le.Uint32(buf[4:]), le.Uint64(buf[8:]), le.Uint64(buf[16:])
		if op == fuseForget || op == fuseBatchForget || op == fuseInterrupt {
			continue
		}
		body, errno := d.answer(op, node, buf[fuseHeader:n])
		out := make([]byte, 16, 16+len(body))
		le.PutUint32(out, uint32(16+len(body)))
		le.PutUint32(out[4:], uint32(-int32(errno)))
		le.PutUint64(out[8:], unique)
		if _, err := unix.Write(d.fd, append(out, body...)); err != nil && !errors.Is(err, unix.ENOENT) {
			return
		}
	}
}

// answer is the body of an answer, or an error.
func (d *lossyDisk) answer(op uint32, node uint64, in []byte) ([]byte, unix.Errno) {
	le := binary.LittleEndian
	switch op {
	case fuseInit:
		out := make([]byte, 64)
		le.PutUint32(out, 7)
		le.PutUint32(out[4:], 31)
		le.PutUint32(out[12:], 1<<5) // writes of more than a page
		le.PutUint32(out[20:], fuseMaxWrite)
		le.PutUint32(out[24:], 1)
		return out, 0
	case fuseLookup:
		if string(in[:len(in)-1]) != diskName {
			return nil, unix.ENOENT
		}
		out := make([]byte, 40)
		le.PutUint64(out, diskNode)
		return append(out, d.attr(diskNode)...), 0
	case fuseGetattr, fuseSetattr:
		return append(make([]byte, 16), d.attr(node)...), 0
	case fuseOpen:
		return make([]byte, 16), 0
	case fuseRead:
		return d.read(int64(le.Uint64(in[8:])), int64(le.Uint32(in[16:])))
	case fuseWrite:
		return d.write(int64(le.Uint64(in[8:])), in[40:])
	case fuseFsync:
		return nil, d.flush()
	case fuseStatfs:
		return make([]byte, 80), 0
	case fuseRelease, fuseFlush, fuseDestroy:
		return nil, 0
	}
	return nil, unix.ENOSYS
}

// attr describes the folder or the file.
func (d *lossyDisk) attr(node uint64) []byte {
	le := binary.LittleEndian
	out := make([]byte, 88)
	le.PutUint64(out, node)
	mode := uint32(unix.S_IFDIR | 0o700)
	if node == diskNode {
		le.PutUint64(out[8:], uint64(d.size))
		le.PutUint64(out[16:], uint64(d.size/512))
		mode = unix.S_IFREG | 0o600
	}
	le.PutUint32(out[60:], mode)
	le.PutUint32(out[64:], 1)
	le.PutUint32(out[80:], 4096)
	return out
}

func (d *lossyDisk) read(at, n int64) ([]byte, unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]byte, max(0, min(n, d.size-at)))
	if _, err := d.live.ReadAt(out, at); err != nil {
		return nil, unix.EIO
	}
	return out, 0
}

func (d *lossyDisk) write(at int64, data []byte) ([]byte, unix.Errno) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if at+int64(len(data)) > d.size {
		return nil, unix.ENOSPC
	}
	if _, err := d.live.WriteAt(data, at); err != nil {
		return nil, unix.EIO
	}
	d.pending = append(d.pending, write{at, append([]byte(nil), data...)})
	if f := d.failing; f != nil {
		if f.after--; f.after <= 0 {
			d.failing = nil
			f.moment()
			f.failed <- d.loseLocked(f.path, f.chance)
		}
	}
	out := make([]byte, 8)
	binary.LittleEndian.PutUint32(out, uint32(len(data)))
	return out, 0
}

// flush makes sure of all that was written.
func (d *lossyDisk) flush() unix.Errno {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.pending {
		if _, err := d.stable.WriteAt(w.data, w.at); err != nil {
			return unix.EIO
		}
	}
	d.pending = nil
	return 0
}
