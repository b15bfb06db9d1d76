package pipeline

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer/zone"
)

// errLowDisk reports that a disk has little room left. It is a kind of
// journal.ErrNoSpace.
var errLowDisk = fmt.Errorf("%w: the disk is nearly full", journal.ErrNoSpace)

const (
	// keepFree is how much of a disk new contents leave free, on a small disk
	// an eighth of it: facts can then still be stored, the projection can
	// follow, and no store finds the disk full in the middle of a write.
	keepFree = 64 << 20
	// relieveEvery is how often it is looked whether there is room again.
	relieveEvery = time.Second
	// promptTries is how many failures in a row are tried again as soon as
	// there is room.
	promptTries = 3
	// foldTries is how often an instance that does not fit on the disk is
	// tried before the other zones go on without it.
	foldTries = 4
)

// disk is how much room a disk has, in bytes.
type disk struct {
	free, size uint64
	keep       uint64 // what new contents leave free
	device     uint64
}

// floor is what signing leaves free: facts can still be stored.
func (d disk) floor() uint64 { return d.keep / 4 }

func lookDisk(dir string) (disk, error) {
	var fs unix.Statfs_t
	err := unix.Statfs(dir, &fs)
	var st unix.Stat_t
	if err == nil {
		err = unix.Stat(dir, &st)
	}
	if err != nil {
		return disk{}, fmt.Errorf("look for room on the disk of %s: %w", dir, err)
	}
	block := uint64(fs.Bsize) //nolint:gosec // a block has a positive size
	d := disk{free: fs.Bavail * block, size: fs.Blocks * block, device: st.Dev}
	d.keep = min(uint64(keepFree), d.size/8)
	return d, nil
}

// room reports errLowDisk where one of the disks has little room left for new
// contents, or will have once need bytes more are written to it. What the
// reserve lacks is not theirs.
func (e *Engine) room(need uint64) error {
	lacks := uint64(0)
	var home disk
	if r := e.cfg.Reserve; r != nil {
		if lacks = r.missing(); lacks > 0 {
			var err error
			if home, err = lookDisk(filepath.Dir(r.path)); err != nil {
				return err
			}
		}
	}
	return e.eachDisk(need, func(d disk) uint64 {
		if lacks > 0 && d.device == home.device {
			return d.keep + lacks
		}
		return d.keep
	})
}

// signRoom reports errLowDisk where there is no room to sign, and gives up the
// reserve before it does.
func (e *Engine) signRoom(need uint64) error {
	err := e.eachDisk(need, disk.floor)
	if !errors.Is(err, errLowDisk) || !e.release(err) {
		return err
	}
	return e.eachDisk(need, disk.floor)
}

// release gives up the reserve, and reports whether that made room.
func (e *Engine) release(cause error) bool {
	if e.cfg.Reserve == nil {
		return false
	}
	freed, err := e.cfg.Reserve.release()
	switch {
	case err != nil:
		e.log.Error("disk reserve not released", "error", err)
	case freed > 0:
		e.roomier.Store(true)
		e.log.Warn("disk reserve released", "bytes", freed, "reason", cause)
	}
	return freed > 0
}

// eachDisk reports errLowDisk where a disk has less room than it is to keep
// and need bytes more.
func (e *Engine) eachDisk(need uint64, keep func(disk) uint64) error {
	for _, dir := range []string{e.cfg.JournalDir, e.cfg.StoreDir} {
		if dir == "" {
			continue
		}
		d, err := lookDisk(dir)
		if err != nil {
			return err
		}
		if kept := keep(d); d.free < kept+need {
			return fmt.Errorf("%w: %.1f MiB are free where %s lies, %.1f MiB are kept back, %.1f MiB are needed",
				errLowDisk, mib(d.free), dir, mib(kept), mib(need))
		}
	}
	return nil
}

// keepReserve lets the reserve follow what zones need, and takes back what it
// lacks where there is room.
func (e *Engine) keepReserve(ctx context.Context) {
	r := e.cfg.Reserve
	if r == nil || r.most == 0 {
		return
	}
	d, err := lookDisk(filepath.Dir(r.path))
	if err != nil {
		e.log.ErrorContext(ctx, "disk reserve not looked after", "error", err)
		return
	}
	err = r.want(d, e.signNeed.Load())
	lacked, released := r.missing(), r.status().State == "released"
	if err = errors.Join(err, r.fill(d)); err != nil {
		e.log.WarnContext(ctx, "disk reserve not whole", "error", err)
		return
	}
	if st := r.status(); lacked > 0 && st.State == "held" {
		level := slog.LevelDebug // it only follows what zones need
		if released {
			level = slog.LevelInfo
		}
		e.log.Log(ctx, level, "disk reserve whole", "bytes", st.Bytes)
	}
}

func mib(n uint64) float64 { return float64(n) / (1 << 20) }

// full reports the stream of the journal that has reached its limit, or nil.
func full(st journal.Status) error {
	const chunk = 1 << 20 // a message of the longest kind
	for _, s := range []struct {
		name string
		journal.StreamStatus
	}{{"EVENTS", st.Events}, {"BULK", st.Bulk}} {
		if s.MaxBytes > 0 && s.Bytes+chunk > uint64(s.MaxBytes) {
			return fmt.Errorf("%w: %s holds %.1f MiB of at most %.1f MiB",
				journal.ErrNoSpace, s.name, mib(s.Bytes), mib(uint64(s.MaxBytes)))
		}
	}
	return nil
}

// troubleKind tells apart what may keep all zones from working.
type troubleKind int

const (
	journalTrouble troubleKind = iota // the journal's store does not answer
	limitTrouble                      // a stream has reached its limit
	diskTrouble                       // a disk is nearly full
	storeTrouble                      // the projection waits for room, or is damaged
	foldTrouble                       // an event could not be folded yet
	troubleKinds
)

// setTrouble notes what keeps all zones from working; nil clears it.
func (e *Engine) setTrouble(k troubleKind, err error) {
	e.mu.Lock()
	e.troubles[k] = err
	e.mu.Unlock()
}

// Trouble is what keeps all zones from working, or nil.
func (e *Engine) Trouble() error {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, err := range e.troubles {
		if err != nil {
			return err
		}
	}
	return nil
}

// shortage looks what a refusal for want of room came from, and makes room
// where it can: what failed commands left in BULK is swept, and the reserve is
// given up where not even facts find room. A journal that has met a full disk
// may refuse everything until it is opened again.
func (e *Engine) shortage(ctx context.Context) {
	refused := e.refused.Swap(false)
	if err := e.room(0); err != nil {
		e.setTrouble(diskTrouble, err)
		e.sweep(ctx, 0)
		if short := e.signRoom(0); short == nil && refused {
			e.mend(ctx)
		}
		return
	}
	if err := e.bulkRoom(ctx); err != nil {
		e.setTrouble(limitTrouble, err)
		e.sweep(ctx, 0)
		poke(e.retainNow)
		return
	}
	st, err := e.journal.Status(ctx)
	if err == nil && full(st) != nil {
		e.setTrouble(limitTrouble, full(st))
		e.sweep(ctx, 0)
		return
	}
	e.mend(ctx)
}

// relieve clears what has gone by itself, and lets the zones go on.
func (e *Engine) relieve(ctx context.Context) {
	e.mu.RLock()
	was := e.troubles
	e.mu.RUnlock()
	gone := false
	e.keepReserve(ctx)
	e.watchFill(ctx)
	if e.roomier.Swap(false) {
		e.retry()
	}
	if was[diskTrouble] != nil {
		err := e.room(0)
		e.setTrouble(diskTrouble, err)
		gone = err == nil
	}
	if was[limitTrouble] != nil {
		if st, err := e.journal.Status(ctx); err == nil {
			if err = full(st); err == nil {
				err = e.bulkRoom(ctx)
			}
			e.setTrouble(limitTrouble, err)
			gone = gone || err == nil
		}
	}
	if gone && e.Trouble() == nil {
		e.log.InfoContext(ctx, "there is room again")
		e.retry()
	}
}

// retry lets every zone try again at once what failed. What has failed often
// waits for its back-off all the same: it may be what takes up the room.
func (e *Engine) retry() {
	for _, r := range e.allRunners() {
		r.mu.Lock()
		for i := range r.lanes {
			if r.lanes[i].tries <= promptTries {
				r.lanes[i].LaneState, r.lanes[i].failure = LaneState{}, nil
			}
		}
		r.mu.Unlock()
		r.step()
	}
}

// foldOrWait folds one event. Where the journal does not answer or the disk
// is full it tries again until ctx ends: what is published stays served. An
// instance for which there is no room must not hold up the other zones for
// long: it becomes broken, and is made anew later.
func (e *Engine) foldOrWait(ctx context.Context, rec journal.Record) error {
	defer func() { e.foldTries = 0 }()
	for wait := relieveEvery; ; wait = min(2*wait, longestMend) {
		e.foldTries++
		err := e.note(e.fold(ctx, rec))
		if !errors.Is(err, store.ErrNoSpace) && !errors.Is(err, journal.ErrStorage) || ctx.Err() != nil {
			if wait > relieveEvery {
				e.setTrouble(foldTrouble, nil)
			}
			return err
		}
		e.setTrouble(foldTrouble, err)
		e.log.ErrorContext(ctx, "event cannot be folded yet", "seq", rec.Seq, "error", err, "again_in", wait)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return err
		}
	}
}

// tooLarge reports whether err says that the projection has no room for the
// instance of a zone at work, and has said so often.
func (e *Engine) tooLarge(rec journal.Record, err error) bool {
	if !errors.Is(err, store.ErrNoSpace) || e.foldTries < foldTries || !e.running() {
		return false
	}
	switch rec.Event.Facts.(type) {
	case *event.InstanceLoaded, *event.InstanceSigned:
		return true
	}
	return false
}

// storeFault takes what the projection tells by itself. It may run with the
// projection's locks held.
func (e *Engine) storeFault(err error) {
	e.setTrouble(storeTrouble, err)
	switch {
	case errors.Is(err, store.ErrDamaged):
		go e.giveUp(err)
	case err != nil:
		poke(e.short)
		e.log.Error("projection waits for room", "error", err)
	default:
		e.log.Info("projection goes on")
	}
}

// leftover is what a follower of the journal returned, or that it is stuck
// in a projection that waits for room on the disk while ctx has ended.
func (e *Engine) leftover(ctx context.Context, done <-chan error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			if ctx.Err() != nil && e.store.Stalled() {
				return store.ErrNoSpace
			}
		}
	}
}

// roomySpill is a place for temporary files that leaves room on the disk.
type roomySpill struct {
	SpillDir
	room func(need uint64) error
}

// Create implements zone.Spill.
func (d roomySpill) Create() (zone.SpillFile, error) {
	f, err := d.SpillDir.Create()
	if err != nil {
		return nil, err
	}
	return &roomyFile{SpillFile: f, room: d.room}, nil
}

// roomyFile is a temporary file that leaves room on the disk.
type roomyFile struct {
	zone.SpillFile
	room    func(need uint64) error
	written int // since room was last looked for
}

// Write implements io.Writer.
func (f *roomyFile) Write(b []byte) (int, error) {
	if f.written += len(b); f.written >= 1<<20 {
		f.written = 0
		if err := f.room(0); err != nil {
			return 0, err
		}
	}
	return f.SpillFile.Write(b)
}

// roomyJournal is the journal, but takes chunks only while there is room on
// the disk. Events are small, and always taken.
type roomyJournal struct {
	journal.Journal
	room func(need uint64) error
	bulk func(context.Context) error // whether BULK has room; nil does not ask
}

// NewChunks implements journal.Journal.
func (j roomyJournal) NewChunks(id event.ZoneID, command string) journal.ChunkWriter {
	return &roomyChunks{ChunkWriter: j.Journal.NewChunks(id, command), room: j.room, bulk: j.bulk}
}

// roomyChunks sends chunks while the projection will have room on the disk for
// all of them.
type roomyChunks struct {
	journal.ChunkWriter
	room func(need uint64) error
	bulk func(context.Context) error
	sent uint64 // raw bytes
}

// Put implements journal.ChunkWriter.
func (w *roomyChunks) Put(ctx context.Context, c journal.RawChunk) error {
	w.sent += uint64(len(c.Raw))
	if err := w.room(w.sent + w.sent/4); err != nil { // the projection's keys are longer than the chunks'
		return err
	}
	if w.bulk != nil {
		if err := w.bulk(ctx); err != nil {
			return err
		}
	}
	return w.ChunkWriter.Put(ctx, c)
}
