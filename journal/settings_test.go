package journal_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

func edit(t *testing.T, path string, change func(string) string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(change(string(data))), 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
}

// unfinish makes a store look as if its first start was killed before it was
// complete.
func unfinish(t *testing.T, dir string) {
	t.Helper()
	edit(t, filepath.Join(dir, "sluice-journal.json"), func(s string) string {
		return strings.Replace(s, `"complete": true`, `"complete": false`, 1)
	})
}

// damages are what kill -9, a power loss or a full disk may leave of the two
// files in which the server keeps a stream's settings.
var damages = map[string]func(t *testing.T, stream string){
	"checksum missing": func(t *testing.T, stream string) { remove(t, filepath.Join(stream, "meta.sum")) },
	"checksum empty": func(t *testing.T, stream string) {
		edit(t, filepath.Join(stream, "meta.sum"), func(string) string { return "" })
	},
	"checksum of older settings": func(t *testing.T, stream string) {
		edit(t, filepath.Join(stream, "meta.inf"), func(s string) string {
			return strings.Replace(s, `"max_bytes":-1`, `"max_bytes":1073741824`, 1)
		})
	},
	"settings missing": func(t *testing.T, stream string) { remove(t, filepath.Join(stream, "meta.inf")) },
	"settings and sum missing": func(t *testing.T, stream string) {
		remove(t, filepath.Join(stream, "meta.inf"), filepath.Join(stream, "meta.sum"))
	},
	"settings empty": func(t *testing.T, stream string) {
		edit(t, filepath.Join(stream, "meta.inf"), func(string) string { return "" })
	},
	"settings cut off": func(t *testing.T, stream string) {
		edit(t, filepath.Join(stream, "meta.inf"), func(s string) string { return s[:len(s)/2] })
	},
}

func eachDamage(t *testing.T, f func(t *testing.T, stream string, damage func(t *testing.T, stream string))) {
	for _, stream := range []string{"EVENTS", "BULK"} {
		for name, damage := range damages {
			t.Run(stream+" "+name, func(t *testing.T) {
				f(t, filepath.Join("jetstream", "$G", "streams", stream), damage)
			})
		}
	}
}

// keepsWhatIsAppended appends to a store that holds so many chunks, and looks
// for all of it after one more start.
func keepsWhatIsAppended(t *testing.T, dir string, head journal.Head, chunks uint64) {
	t.Helper()
	j := openDir(t, journal.Config{Dir: dir})
	if got, err := j.Head(t.Context(), zone); err != nil || got != head {
		t.Fatalf("head %+v, %v, want %+v", got, err, head)
	}
	head = mustAppend(t, j, head, loaded(mustPut(t, j, "then", []byte("def"))), changed(2))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = openDir(t, journal.Config{Dir: dir})
	if got, err := j.Head(t.Context(), zone); err != nil || got != head {
		t.Errorf("head after another start %+v, %v, want %+v", got, err, head)
	}
	if r := mustVerify(t, j); r.FaultCount != 0 || r.Events != head.Seq || r.Chunks != chunks+1 {
		t.Errorf("verify: %+v", r)
	}
}

func loaded(m event.Manifest) event.Event {
	return event.New(time.Unix(1, 0), zone, event.Program, &event.InstanceLoaded{Manifest: m})
}

// filled makes a store that holds an event and a chunk.
func filled(t *testing.T, dir string) journal.Head {
	t.Helper()
	j := openDir(t, journal.Config{Dir: dir})
	head := mustAppend(t, j, journal.Head{}, loaded(mustPut(t, j, "x", []byte("abc"))))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return head
}

func TestOpen_FinishesAFirstStartThatWasKilled(t *testing.T) {
	eachDamage(t, func(t *testing.T, stream string, damage func(*testing.T, string)) {
		dir := t.TempDir()
		if err := openDir(t, journal.Config{Dir: dir}).Close(); err != nil {
			t.Fatal(err)
		}
		unfinish(t, dir)
		damage(t, filepath.Join(dir, stream))
		keepsWhatIsAppended(t, dir, journal.Head{}, 0)
	})
}

// TestKill_AFirstStartIsFinishedByTheNext kills a process as soon as it has
// made one of the files of a new store.
func TestKill_AFirstStartIsFinishedByTheNext(t *testing.T) {
	streams := filepath.Join("jetstream", "$G", "streams")
	for _, file := range []string{
		"sluice-journal.json",
		filepath.Join(streams, "EVENTS"), filepath.Join(streams, "EVENTS", "meta.inf"),
		filepath.Join(streams, "EVENTS", "meta.sum.tmp"), filepath.Join(streams, "EVENTS", "meta.sum"),
		filepath.Join(streams, "BULK"), filepath.Join(streams, "BULK", "meta.inf"),
		filepath.Join(streams, "BULK", "meta.sum.tmp"), filepath.Join(streams, "BULK", "meta.sum"),
		filepath.Join(streams, "EVENTS", "msgs", "1.blk"),
	} {
		t.Run(filepath.ToSlash(file), func(t *testing.T) {
			dir := t.TempDir()
			acked := killWhenMade(t, dir, filepath.Join(dir, file))
			j := openDir(t, journal.Config{Dir: dir})
			head, err := j.Head(t.Context(), zone)
			if err != nil || head.N < acked {
				t.Errorf("%d events acknowledged, %d stored, %v", acked, head.N, err)
			}
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			keepsWhatIsAppended(t, dir, head, 0)
		})
	}
}

// killWhenMade runs this test binary as the process to kill once it has made
// a file or events, and returns how many events it reported as stored.
func killWhenMade(t *testing.T, dir, file string) (acked uint64) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillHelper$")
	cmd.Env = append(os.Environ(), killDir+"="+dir, killSize+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stored := make(chan uint64)
	go func() {
		defer close(stored)
		for s := bufio.NewScanner(out); s.Scan(); {
			var n uint64
			if _, err := fmt.Sscanf(s.Text(), "stored %d", &n); err == nil {
				stored <- n
			}
		}
	}()
	for made := false; !made; {
		select {
		case n, running := <-stored: // the file came and went unseen
			acked, made = n, true
			if !running {
				t.Error("the process ended by itself")
			}
		default:
			_, err := os.Lstat(file)
			made = err == nil
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	for n := range stored {
		acked = n
	}
	_ = cmd.Wait() // it was killed
	return acked
}

func TestOpen_RestoresTheSettingsOfAStreamThatHoldsMessages(t *testing.T) {
	eachDamage(t, func(t *testing.T, stream string, damage func(*testing.T, string)) {
		dir := t.TempDir()
		head := filled(t, dir)
		damage(t, filepath.Join(dir, stream))
		keepsWhatIsAppended(t, dir, head, 1)
	})
}

func TestOpen_SettingsWithoutTheirChecksumTakeTheLimitsAskedFor(t *testing.T) {
	dir := t.TempDir()
	filled(t, dir)
	for _, stream := range []string{"EVENTS", "BULK"} {
		remove(t, filepath.Join(dir, "jetstream", "$G", "streams", stream, "meta.sum"))
	}
	j := openDir(t, journal.Config{Dir: dir, EventsMaxBytes: 1 << 20, BulkMaxBytes: 2 << 20})
	st, err := j.Status(t.Context())
	if err != nil || st.Events.MaxBytes != 1<<20 || st.Bulk.MaxBytes != 2<<20 || st.Events.Messages != 1 {
		t.Errorf("status %+v, %v", st, err)
	}
}

// An empty directory names no stream: in a store that was once complete its
// messages are lost, and nobody may go on as if they had not been.
func TestOpen_NeverMakesALostStreamAnew(t *testing.T) {
	for _, stream := range []string{"EVENTS", "BULK"} {
		t.Run(stream, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "jetstream", "$G", "streams", stream)
			if err := openDir(t, journal.Config{Dir: dir}).Close(); err != nil {
				t.Fatal(err)
			}
			remove(t, path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
			j, err := journal.Open(t.Context(), journal.Config{Dir: dir})
			if err == nil {
				t.Fatal(errors.Join(errors.New("was opened"), j.Close()))
			}
			if !strings.Contains(err.Error(), "lost") {
				t.Errorf("error %v", err)
			}
			unfinish(t, dir)
			keepsWhatIsAppended(t, dir, journal.Head{}, 0)
		})
	}
}

func TestOpen_AdoptsNoStreamOfAnotherJournal(t *testing.T) {
	for _, stream := range []string{"EVENTS", "BULK"} {
		t.Run(stream, func(t *testing.T) {
			ours, theirs := t.TempDir(), t.TempDir()
			path := filepath.Join("jetstream", "$G", "streams", stream)
			filled(t, ours)
			filled(t, theirs)
			remove(t, filepath.Join(ours, path))
			if err := os.CopyFS(filepath.Join(ours, path), os.DirFS(filepath.Join(theirs, path))); err != nil {
				t.Fatal(err)
			}
			remove(t, filepath.Join(ours, path, "meta.sum"))
			for range 2 {
				j, err := journal.Open(t.Context(), journal.Config{Dir: ours})
				if err == nil {
					t.Fatal(errors.Join(errors.New("was opened"), j.Close()))
				}
				if !strings.Contains(err.Error(), "belongs to journal") {
					t.Errorf("error %v", err)
				}
			}
		})
	}
}
