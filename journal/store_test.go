package journal_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
)

const zone event.ZoneID = "00000000000000aa"

func changed(i int) event.Event {
	return event.New(time.Unix(1_700_000_000, int64(i)*1000), zone, event.Program,
		&event.ZoneChanged{Source: fmt.Sprintf("file%d", i)})
}

func mustAppend(t testing.TB, j journal.Journal, head journal.Head, events ...event.Event) journal.Head {
	t.Helper()
	head, err := j.Append(t.Context(), zone, head, events...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return head
}

func mustPut(t testing.TB, j journal.Journal, command string, raws ...[]byte) event.Manifest {
	t.Helper()
	w := j.NewChunks(zone, command)
	for _, raw := range raws {
		if err := w.Put(t.Context(), journal.RawChunk{Raw: raw, Items: 1}); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
	m, err := w.Finish(t.Context())
	if err != nil {
		t.Fatalf("finish: %v", err)
	}
	return m
}

func mustVerify(t testing.TB, j journal.Journal) journal.VerifyReport {
	t.Helper()
	r, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
	if err != nil {
		t.Fatalf("verify: %v", err)
	}
	return r
}

func TestOpen_KeepsEventsAndIdentity(t *testing.T) {
	dir := t.TempDir()
	j := openDir(t, journal.Config{Dir: dir})
	id, _, err := j.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := mustPut(t, j, "x", []byte("abc"))
	head := mustAppend(t, j, journal.Head{}, changed(1), event.New(time.Unix(1, 0), zone, event.Program, &event.InstanceLoaded{Manifest: m}))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openDir(t, journal.Config{Dir: dir})
	again, last, err := j.Stream(t.Context())
	if err != nil || again != id || last != 2 {
		t.Errorf("stream %q to %d, %v, want %q to 2", again, last, err, id)
	}
	if got, err := j.Head(t.Context(), zone); err != nil || got != head {
		t.Errorf("head %+v, %v, want %+v", got, err, head)
	}
	if r := mustVerify(t, j); r.FaultCount != 0 || r.Chunks != 1 {
		t.Errorf("verify: %+v", r)
	}
}

// Who wants one event does not pay for those behind it.
func TestRead_OneEventCostsOne(t *testing.T) {
	j := openDir(t, journal.Config{Dir: t.TempDir()})
	events := make([]event.Event, 400)
	for i := range events {
		events[i] = changed(i)
	}
	mustAppend(t, j, journal.Head{}, events...)
	for _, last := range []uint64{1, 2} {
		var seen uint64
		allocs := testing.AllocsPerRun(5, func() {
			seen = 0
			if err := j.Read(t.Context(), zone, 1, last, func(journal.Record) error { seen++; return nil }); err != nil {
				t.Fatal(err)
			}
		})
		if seen != last || allocs > 1000 {
			t.Errorf("%d events up to %d, with %.0f allocations", seen, last, allocs)
		}
	}
}

func TestOpen_RefusesAStoreInUse(t *testing.T) {
	dir := t.TempDir()
	j := openDir(t, journal.Config{Dir: dir})
	if _, err := journal.Open(t.Context(), journal.Config{Dir: dir}); !errors.Is(err, journal.ErrLocked) {
		t.Errorf("second open: %v, want ErrLocked", err)
	}
	mustAppend(t, j, journal.Head{}, changed(1))
}

func TestOpen_RefusesForeignStores(t *testing.T) {
	const marker = "sluice-journal.json"
	for name, files := range map[string]map[string]string{
		"no marker":        {"jetstream": "x"},
		"newer format":     {marker: `{"format":2,"mode":"standalone","identity":"x"}`},
		"cluster member":   {marker: `{"format":1,"mode":"cluster","identity":"x"}`},
		"no identity":      {marker: `{"format":1,"mode":"standalone"}`},
		"damaged marker":   {marker: `{"form`},
		"streams are lost": {marker: `{"format":1,"mode":"standalone","identity":"x","complete":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for f, text := range files {
				if err := os.WriteFile(filepath.Join(dir, f), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			j, err := journal.Open(t.Context(), journal.Config{Dir: dir})
			if err == nil {
				t.Fatal(errors.Join(errors.New("was opened"), j.Close()))
			}
			if errors.Is(err, journal.ErrLocked) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestOpen_RefusesStreamsOfAnotherJournal(t *testing.T) {
	dir := t.TempDir()
	if err := openDir(t, journal.Config{Dir: dir}).Close(); err != nil {
		t.Fatal(err)
	}
	text := `{"format":1,"mode":"standalone","identity":"other","complete":true}`
	if err := os.WriteFile(filepath.Join(dir, "sluice-journal.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := journal.Open(t.Context(), journal.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "belongs to") {
		t.Errorf("open: %v", err)
	}
}

func TestReopen_FollowersGoOn(t *testing.T) {
	j := openDir(t, journal.Config{})
	head := mustAppend(t, j, journal.Head{}, changed(1))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seqs, done := make(chan uint64, 10), make(chan error, 1)
	go func() {
		done <- j.Follow(ctx, "", 1, nil, func(r journal.Record) error { seqs <- r.Seq; return nil })
	}()
	if s := <-seqs; s != 1 {
		t.Fatalf("followed to %d", s)
	}
	for i := range 2 {
		if err := j.Reopen(t.Context()); err != nil {
			t.Fatal(err)
		}
		head = mustAppend(t, j, head, changed(2+i))
		if s := <-seqs; s != uint64(2+i) {
			t.Fatalf("followed to %d", s)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("follow: %v", err)
	}
}

func TestLimits_FullStreamsRefuse(t *testing.T) {
	j := openDir(t, journal.Config{EventsMaxBytes: 4096, BulkMaxBytes: 4096})
	var (
		head journal.Head
		err  error
	)
	for i := 0; err == nil && i < 100; i++ {
		var next journal.Head
		if next, err = j.Append(t.Context(), zone, head, changed(i)); err == nil {
			head = next
		}
	}
	if !errors.Is(err, journal.ErrNoSpace) || head.N == 0 {
		t.Errorf("append number %d: %v, want ErrNoSpace", head.N+1, err)
	}
	if _, err := j.Append(t.Context(), zone, head, changed(200), changed(201)); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("batch: %v, want ErrNoSpace", err)
	}
	if got, err := j.Head(t.Context(), zone); err != nil || got != head {
		t.Errorf("head %+v, %v, want %+v", got, err, head)
	}
	w := j.NewChunks(zone, "x")
	for i := range 10 {
		if err = w.Put(t.Context(), journal.RawChunk{Raw: noise(i, 2000)}); err != nil {
			break
		}
	}
	if _, err := w.Finish(t.Context()); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("chunks: %v, want ErrNoSpace", err)
	}
	st, err := j.Status(t.Context())
	if err != nil || st.Events.MaxBytes != 4096 || st.Bulk.MaxBytes != 4096 || st.Bulk.Messages == 0 {
		t.Errorf("status %+v, %v", st, err)
	}
}

func TestOpen_ChangesLimitsAndDropsNothing(t *testing.T) {
	dir := t.TempDir()
	j := openDir(t, journal.Config{Dir: dir, EventsMaxBytes: 1 << 30, BulkMaxBytes: 1 << 40})
	mustPut(t, j, "x", noise(1, 1000))
	head := mustAppend(t, j, journal.Head{}, changed(1), changed(2))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openDir(t, journal.Config{Dir: dir, EventsMaxBytes: 100, BulkMaxBytes: 100})
	st, err := j.Status(t.Context())
	if err != nil || st.Events.MaxBytes != 100 || st.Bulk.MaxBytes != 100 {
		t.Errorf("status %+v, %v", st, err)
	}
	if st.Events.Messages != 2 || st.Bulk.Messages != 1 {
		t.Errorf("a lower limit dropped messages: %+v", st)
	}
	if _, err := j.Append(t.Context(), zone, head, changed(3)); !errors.Is(err, journal.ErrNoSpace) {
		t.Errorf("append: %v, want ErrNoSpace", err)
	}
}

// The outcome of an append that ends before its answer is unknown; the same
// call again stores the events once, whichever it was.
func TestAppend_AgainAfterUnknownOutcome(t *testing.T) {
	j := openDir(t, journal.Config{})
	var head journal.Head
	lost := 0
	for i := range 60 {
		events := []event.Event{changed(10 * i)}
		if i%3 == 0 {
			events = append(events, changed(10*i+1), changed(10*i+2))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*5*time.Microsecond)
		if _, err := j.Append(ctx, zone, head, events...); err != nil {
			lost++
		}
		cancel()
		head = mustAppend(t, j, head, events...)
	}
	if lost == 0 {
		t.Error("no append was cut short")
	}
	if r := mustVerify(t, j); r.FaultCount != 0 || r.Events != 60+20*2 || head.N != r.Events {
		t.Errorf("verify %+v, head %+v", r, head)
	}
}

// noise is raw content that does not compress.
func noise(seed, size int) []byte {
	raw := make([]byte, size)
	x := uint64(seed)*0x9e3779b97f4a7c15 + 1
	for i := range raw {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		raw[i] = byte(x >> 32)
	}
	return raw
}

// TestKill_NoAcknowledgedEventIsLost kills a process that appends and compares
// what it reported as stored with what is there.
func TestKill_NoAcknowledgedEventIsLost(t *testing.T) {
	for _, size := range []int{1, 20} {
		dir := t.TempDir()
		acked := killWhileAppending(t, dir, size)
		j := openDir(t, journal.Config{Dir: dir})
		r := mustVerify(t, j)
		if r.FaultCount != 0 {
			t.Errorf("batches of %d: faults %+v", size, r.Faults)
		}
		head, err := j.Head(t.Context(), zone)
		if err != nil {
			t.Fatal(err)
		}
		if acked == 0 || head.N < acked || head.N%uint64(size) != 0 {
			t.Errorf("batches of %d: %d events acknowledged, %d stored", size, acked, head.N)
		}
		mustAppend(t, j, head, changed(0))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

const killDir, killSize = "SLUICE_JOURNAL_KILL_DIR", "SLUICE_JOURNAL_KILL_SIZE"

// killWhileAppending runs this test binary as the process to kill, and
// returns the last number that it reported.
func killWhileAppending(t *testing.T, dir string, size int) uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillHelper$")
	cmd.Env = append(os.Environ(), killDir+"="+dir, fmt.Sprintf("%s=%d", killSize, size))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var acked uint64
	killed := false
	for s := bufio.NewScanner(out); s.Scan(); {
		if _, err := fmt.Sscanf(s.Text(), "stored %d", &acked); err != nil {
			continue
		}
		if !killed && acked >= 200 {
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // it was killed
	return acked
}

// TestKillHelper is the process that killWhileAppending kills.
func TestKillHelper(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("runs as a child process only")
	}
	var size int
	if _, err := fmt.Sscanf(os.Getenv(killSize), "%d", &size); err != nil {
		t.Fatal(err)
	}
	j := openDir(t, journal.Config{Dir: dir})
	var head journal.Head
	for i := 0; ; i++ {
		events := make([]event.Event, size)
		for k := range events {
			events[k] = changed(i*size + k)
		}
		head = mustAppend(t, j, head, events...)
		fmt.Printf("stored %d\n", head.N)
	}
}

func TestVerify_FindsDamageOnDisk(t *testing.T) {
	for _, stream := range []string{"EVENTS", "BULK"} {
		t.Run(stream, func(t *testing.T) {
			dir := t.TempDir()
			j := openDir(t, journal.Config{Dir: dir})
			m := mustPut(t, j, "x", noise(1, 5000), noise(2, 5000))
			head := mustAppend(t, j, journal.Head{}, changed(1), changed(2))
			head = mustAppend(t, j, head, event.New(time.Unix(1, 0), zone, event.Program, &event.InstanceLoaded{Manifest: m}))
			mustAppend(t, j, head, changed(3))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			blocks, err := filepath.Glob(filepath.Join(dir, "jetstream", "*", "streams", stream, "msgs", "*.blk"))
			if err != nil || len(blocks) != 1 {
				t.Fatalf("blocks %v, %v", blocks, err)
			}
			data, err := os.ReadFile(blocks[0])
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2] ^= 1
			if err := os.WriteFile(blocks[0], data, 0o600); err != nil {
				t.Fatal(err)
			}
			j, err = journal.Open(t.Context(), journal.Config{Dir: dir, Timeout: time.Second})
			if err != nil {
				return // refused: found as well
			}
			t.Cleanup(func() { j.Close() }) //nolint:errcheck // the store is damaged
			r, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
			if err == nil && r.FaultCount == 0 {
				t.Errorf("damage not found: %+v", r)
			}
			t.Logf("%v %+v", err, r.Faults)
		})
	}
}

func TestSweep_RemovesWhatNoManifestNames(t *testing.T) {
	j := openDir(t, journal.Config{})
	now := time.Now()
	kept := mustPut(t, j, "kept", noise(1, 100), noise(2, 100))
	lost := mustPut(t, j, "lost", noise(3, 100))
	twice := mustPut(t, j, "kept", noise(1, 100)) // as a repeated send would
	var many [][]byte
	for i := range event.MaxDirect + 1 {
		many = append(many, noise(100+i, 30))
	}
	indirect := mustPut(t, j, "many", many...)
	head := mustAppend(t, j, journal.Head{},
		event.New(now, zone, event.Program, &event.InstanceLoaded{Manifest: kept}),
		event.New(now, zone, event.Program, &event.InstanceLoaded{Manifest: indirect}))

	r, err := j.SweepOrphans(t.Context(), journal.SweepGrace, now)
	if err != nil || r.Chunks != 0 {
		t.Fatalf("sweep within the grace: %+v, %v", r, err)
	}
	later := now.Add(2 * journal.SweepGrace)
	r, err = j.SweepOrphans(t.Context(), journal.SweepGrace, later)
	if err != nil || r.Chunks != 2 || !cmp.Equal(r.Zones, []event.ZoneID{zone}) {
		t.Fatalf("sweep: %+v, %v", r, err)
	}
	for _, c := range []struct {
		m  event.Manifest
		at int
	}{{lost, 0}} {
		if _, err := j.Chunk(t.Context(), c.m.Subject, c.m.Chunks[c.at]); !errors.Is(err, journal.ErrNoChunk) {
			t.Errorf("swept chunk: %v", err)
		}
	}
	if _, err := j.Chunk(t.Context(), twice.Subject, twice.Chunks[0]); err != nil {
		t.Errorf("chunk that was stored twice: %v", err)
	}
	// The late committer of "lost" conflicts and finds out why.
	late := event.New(now, zone, event.Program, &event.InstanceLoaded{Manifest: lost})
	if _, err := j.Append(t.Context(), zone, head, late); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("late commit: %v, want ErrConflict", err)
	}
	var last event.Facts
	err = j.Read(t.Context(), zone, head.Seq+1, 0, func(r journal.Record) error { last = r.Event.Facts; return nil })
	if swept, ok := last.(*event.BulkSwept); err != nil || !ok || swept.Chunks != 2 || swept.Bytes == 0 || swept.Until < 4 {
		t.Errorf("last event %+v, %v", last, err)
	}
	if r := mustVerify(t, j); r.FaultCount != 0 || r.Chunks != 2+uint64(len(many)) {
		t.Errorf("verify: %+v", r)
	}
	if r, err = j.SweepOrphans(t.Context(), journal.SweepGrace, later); err != nil || r.Chunks != 0 {
		t.Errorf("second sweep: %+v, %v", r, err)
	}
}

func TestSweep_KeepsCommandsWithOtherSequences(t *testing.T) {
	j := openDir(t, journal.Config{})
	now := time.Now()
	m := mustPut(t, j, "moved", noise(1, 100), noise(2, 100))
	m.Chunks[0].Seq, m.Chunks[1].Seq = 1001, 1002 // as after a restore
	mustAppend(t, j, journal.Head{}, event.New(now, zone, event.Program, &event.InstanceLoaded{Manifest: m}))
	r, err := j.SweepOrphans(t.Context(), 0, now.Add(time.Hour))
	if err != nil || r.Chunks != 0 {
		t.Errorf("sweep: %+v, %v", r, err)
	}
	if r := mustVerify(t, j); r.FaultCount != 0 {
		t.Errorf("verify: %+v", r)
	}
}

// A restored store holds the same chunks under other sequences.
func TestChunks_FoundUnderShiftedSequences(t *testing.T) {
	j := openDir(t, journal.Config{})
	var raws [][]byte
	for i := range 50 {
		raws = append(raws, noise(i, 100))
	}
	mustPut(t, j, "other", raws[:7]...)
	m := mustPut(t, j, "x", raws...)
	for i := range m.Chunks {
		m.Chunks[i].Seq -= 7
	}
	i := 0
	err := journal.Chunks(t.Context(), j, m, func(raw []byte) error {
		if !bytes.Equal(raw, raws[i]) {
			t.Errorf("chunk %d differs", i)
		}
		i++
		return nil
	})
	if err != nil || i != len(raws) {
		t.Errorf("read %d chunks, %v", i, err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1, 10, 1000} {
		b.Run(fmt.Sprintf("events-%d", size), func(b *testing.B) {
			j := openDir(b, journal.Config{})
			var head journal.Head
			events := make([]event.Event, size)
			for i := range events {
				events[i] = changed(i)
			}
			for b.Loop() {
				head = mustAppend(b, j, head, events...)
			}
		})
	}
}

func BenchmarkFollowLatency(b *testing.B) {
	j := openDir(b, journal.Config{})
	seqs, done := make(chan uint64), make(chan error, 1)
	ctx, cancel := context.WithCancel(b.Context())
	go func() {
		done <- j.Follow(ctx, "", 1, nil, func(r journal.Record) error {
			select {
			case seqs <- r.Seq:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	var head journal.Head
	for b.Loop() {
		head = mustAppend(b, j, head, changed(1))
		<-seqs
	}
	cancel()
	if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
		b.Fatal(err)
	}
}

func BenchmarkRead(b *testing.B) {
	j := openDir(b, journal.Config{})
	var head journal.Head
	events := make([]event.Event, 1000)
	for i := range events {
		events[i] = changed(i)
	}
	for range 10 {
		head = mustAppend(b, j, head, events...)
	}
	for b.Loop() {
		n := 0
		if err := j.Read(b.Context(), "", 1, 0, func(journal.Record) error { n++; return nil }); err != nil || n != 10000 {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkChunks(b *testing.B) {
	raw := append(noise(1, journal.MaxRawChunk/2), make([]byte, journal.MaxRawChunk/2)...)
	b.Run("write", func(b *testing.B) {
		j := openDir(b, journal.Config{})
		b.SetBytes(int64(len(raw)))
		w := j.NewChunks(zone, "x")
		for b.Loop() {
			if err := w.Put(b.Context(), journal.RawChunk{Raw: raw, Items: 1}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := w.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
	})
	b.Run("read", func(b *testing.B) {
		j := openDir(b, journal.Config{})
		raws := make([][]byte, 100)
		for i := range raws {
			raws[i] = raw
		}
		m := mustPut(b, j, "x", raws...)
		b.SetBytes(int64(len(raw) * len(raws)))
		for b.Loop() {
			if err := journal.Chunks(b.Context(), j, m, func([]byte) error { return nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
