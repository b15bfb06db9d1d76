//go:build linux

package pipeline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/keymgr"
)

// tmpfs mounts a disk of the given size.
func tmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs the right to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

func look(t *testing.T, dir string) disk {
	t.Helper()
	d, err := lookDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// takeUp fills a disk but for so many bytes.
func takeUp(t *testing.T, dir string, leave uint64) (name string) {
	t.Helper()
	name = filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close() //nolint:errcheck // nothing is written
	if err := unix.Fallocate(int(f.Fd()), 0, 0, int64(look(t, dir).free-leave)); err != nil {
		t.Fatal(err)
	}
	return name
}

func wantReserve(t *testing.T, r *Reserve, state string, bytes uint64) {
	t.Helper()
	if st := r.status(); st.State != state || st.Bytes != bytes || (st.alarm() == "") != (state == "held" || state == "none") {
		t.Errorf("reserve %+v, alarm %q; want it %s with %d bytes", st, st.alarm(), state, bytes)
	}
}

func TestReserve_TakesUpRoomAndGivesItBack(t *testing.T) {
	dir := tmpfs(t, "64m")
	file := filepath.Join(dir, "reserve")
	empty := look(t, dir)
	r, err := OpenReserve(file, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	const quarter = 16 << 20 // of the disk: the least that is asked for is more
	wantReserve(t, r, "held", quarter)
	if d := look(t, dir); empty.free-d.free < quarter {
		t.Errorf("%d bytes less are free, want %d: the file has holes", empty.free-d.free, quarter)
	}

	// The next process takes it up; on a full disk it gives it up at once.
	if r, err = OpenReserve(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, r, "held", quarter)
	filler := takeUp(t, dir, 1<<20)
	if r, err = OpenReserve(file, 1<<30); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, r, "released", 0)
	if d := look(t, dir); d.free < quarter {
		t.Errorf("%d bytes are free after the release", d.free)
	}
	if freed, err := r.release(); freed != 0 || err != nil {
		t.Errorf("released twice: %d, %v", freed, err)
	}

	// It comes back only where new contents' share stays free as well.
	if err := r.fill(look(t, dir)); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, r, "released", 0)
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := r.fill(look(t, dir)); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, r, "held", quarter)

	if r, err = OpenReserve(file, 0); err != nil {
		t.Fatal(err)
	}
	wantReserve(t, r, "none", 0)
	if _, err := os.Stat(file); err == nil {
		t.Error("a reserve that is not wanted stays")
	}
}

func TestReserve_IsShortWhereThereNeverWasRoom(t *testing.T) {
	dir := tmpfs(t, "64m")
	takeUp(t, dir, 20<<20)
	r, err := OpenReserve(filepath.Join(dir, "reserve"), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	wantReserve(t, r, "short", 0)
	e := &Engine{cfg: Config{JournalDir: dir, StoreDir: dir, Reserve: r}, log: testLogger(t)}
	if err := e.room(0); err == nil {
		t.Error("new contents may take the room that the reserve lacks")
	}
	if err := e.signRoom(10 << 20); err != nil {
		t.Errorf("signing may not take it: %v", err)
	}
	if err := e.signRoom(19 << 20); err == nil {
		t.Error("signing leaves no room for events")
	}
}

func TestEngine_SigningTakesTheReserveAndLoadsDoNot(t *testing.T) {
	dir := tmpfs(t, "64m")
	r, err := OpenReserve(filepath.Join(dir, "reserve"), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	e := &Engine{cfg: Config{JournalDir: dir, StoreDir: dir, Reserve: r}, log: testLogger(t)}
	if err := e.room(0); err != nil {
		t.Fatal(err)
	}
	takeUp(t, dir, 1<<20)
	if err := e.room(0); err == nil {
		t.Error("a full disk takes new contents")
	}
	wantReserve(t, r, "held", 16<<20)
	if err := e.signRoom(10 << 20); err != nil {
		t.Errorf("no room to sign: %v", err)
	}
	wantReserve(t, r, "released", 0)
	if err := e.room(0); err == nil {
		t.Error("new contents may take what the reserve was")
	}
	if err := e.signRoom(20 << 20); err == nil {
		t.Error("more than the reserve was is there")
	}
}

func TestReserve_FollowsWhatZonesNeed(t *testing.T) {
	dir := t.TempDir()
	r, err := OpenReserve(filepath.Join(dir, "reserve"), 1<<40)
	if err != nil {
		t.Fatal(err)
	}
	d := look(t, dir)
	d.size, d.free, d.keep = 1<<40, 1<<39, keepFree // of a large disk
	for _, need := range []uint64{0, 1 << 20, 40 << 20, 0} {
		if err := r.want(d, need); err != nil {
			t.Fatal(err)
		}
		if err := r.fill(d); err != nil {
			t.Skipf("this disk is too small for the test: %v", err)
		}
		st := r.status()
		if least := d.floor() + need + reserveLeast; st.State != "held" || st.Bytes < least || st.Bytes > least+least/4+reserveLeast {
			t.Errorf("for %d bytes: %+v", need, st)
		}
		if st, err := os.Stat(r.path); err != nil || uint64(st.Size()) != r.held {
			t.Errorf("file %v, %v, want %d bytes", st, err, r.held)
		}
	}
}

func TestSignNeed_CountsSignatures(t *testing.T) {
	if n := signNeedOf(boundState(withLoaded(5))); n != 0 {
		t.Errorf("a zone that is not published needs %d bytes", n)
	}
	published := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5))
	for i := range published.Keys.Keys {
		published.Keys.Keys[i].Algorithm, published.Keys.Keys[i].DNSKEY = 13, strings.Repeat("AAAA", 64/3+1)
	}
	published.Signed.Facts.Signatures = 1_000_000
	asPublished(&published)
	// An RRSIG of algorithm 13 has more than 100 bytes with its key, and stands
	// in the journal and in the projection.
	one := signNeedOf(published)
	if least := uint64(2 * 100 * 1_000_000); one < least || one > 5*least {
		t.Errorf("a million signatures need %d bytes", one)
	}
	e := &Engine{clock: Clock{}}
	r := newRunner(e, published)
	newRunner(e, boundState())
	newRunner(e, published)
	if two := e.signNeed.Load(); two != 2*one {
		t.Errorf("two zones need %d bytes, one %d", two, one)
	}
	removed := published
	removed.Removed = 9
	for _, s := range []State{boundState(), published, removed} {
		r.state = s
		r.countNeed()
		if all, want := e.signNeed.Load(), one+signNeedOf(s); all != want {
			t.Errorf("after a fold of one all need %d bytes, want %d", all, want)
		}
	}
	if n := signNeedOf(removed); n != 0 {
		t.Errorf("a removed zone needs %d bytes", n)
	}
	for _, c := range []struct {
		algorithm uint8
		public    int
		length    uint64
	}{{13, 64, 64}, {14, 96, 96}, {15, 32, 64}, {16, 57, 114}, {8, 260, 260}} {
		if got := signatureLength(c.algorithm, c.public); got != c.length {
			t.Errorf("algorithm %d: %d bytes a signature, want %d", c.algorithm, got, c.length)
		}
	}
}
