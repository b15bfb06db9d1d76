package e2e

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// published zones survive the loss of the machine: what the backup holds is
// served elsewhere as it was, serials go on above what is public, and the log
// says that it is another one.
func TestBackup_TheMachineBurnedDown(t *testing.T) {
	t.Parallel()
	need(t, "python3")
	dir := shortDir(t)
	file := writeFile(t, filepath.Join(dir, "zone"), smallZone(1))
	d := startDaemon(t, "", "example.="+file, "other.example.="+writeFile(t, filepath.Join(dir, "other"), smallZone(1)))
	first := d.awaitServed(t, "example.")
	d.awaitServed(t, "other.example.")
	oldKey, _ := auditHead(t, d)
	kept := writeFile(t, filepath.Join(dir, "checkpoint"), d.must(t, "audit", "head", "--note"))
	folder := filepath.Join(dir, "backup")
	d.must(t, "journal", "backup", folder)
	writeFile(t, file, smallZone(2))
	d.must(t, "zone", "reload", "example")
	serial := d.awaitChange(t, "example.", first)
	var again struct {
		From, Size, Missing uint64
	}
	if err := json.Unmarshal([]byte(d.must(t, "journal", "backup", folder, "--json")), &again); err != nil {
		t.Fatal(err)
	}
	if again.From < 5 || again.Size < again.From || again.Missing != 0 {
		t.Errorf("second backup: %+v", again)
	}
	if out := d.must(t, "journal", "status"); !strings.Contains(out, folder) {
		t.Errorf("status: %s", out)
	}
	served := map[string][]byte{"example.": axfrBytes(t, d.addr, "example."), "other.example.": axfrBytes(t, d.addr, "other.example.")}
	// What comes now is lost with the machine.
	writeFile(t, file, smallZone(3))
	d.must(t, "zone", "reload", "example")
	lost := d.awaitChange(t, "example.", serial)
	d.kill()

	checkBackup(t, folder, oldKey)
	e := &daemon{data: filepath.Join(dir, "new"), addr: freeAddr(t), flags: noReviews}
	r := run(t, program(t), "journal", "restore", folder, "--data", e.data, "--serial-floor", "+1000", "--key", oldKey)
	if r.code != 0 || !strings.Contains(r.stdout, "lacks 4 private keys") || !strings.Contains(r.stdout, "not known here") {
		t.Fatalf("restore: %v", r)
	}
	if r := run(t, program(t), "journal", "restore", folder, "--data", e.data, "--serial-floor", "+1000"); r.code != 4 || !strings.Contains(r.stderr, "is there already") {
		t.Errorf("restore over a journal: %v", r)
	}

	// Without keys: served as it was, and told what is missing.
	e.start(t)
	for zone, want := range served {
		e.awaitServed(t, zone)
		if !bytes.Equal(axfrBytes(t, e.addr, zone), want) {
			t.Errorf("%s is served with other bytes than before", zone)
		}
		status := e.must(t, "zone", "status", zone)
		if !strings.Contains(status, "private keys are not here") || !strings.Contains(status, ".pem") {
			t.Errorf("status of %s: %s", zone, status)
		}
		e.must(t, "zone", "replay", zone, "--verify") // replay needs no keys
	}
	if r := e.cli(t, "health"); !strings.Contains(r.stdout+r.stderr, "private keys are not here, of 2 zones") {
		t.Errorf("health: %v", r)
	}
	if out := e.must(t, "journal", "status"); !strings.Contains(out, "log: goes on from") {
		t.Errorf("status: %s", out)
	}
	e.stop()

	// With keys: signed anew, above what was lost.
	if err := os.CopyFS(filepath.Join(e.data, "keys"), os.DirFS(filepath.Join(d.data, "keys"))); err != nil && !os.IsExist(err) {
		t.Fatal(err)
	}
	keysPrivate(t, filepath.Join(e.data, "keys"))
	e.start(t)
	var now uint32
	await(t, "a serial above the lost ones", 30*time.Second, func() (bool, string) {
		now = e.awaitServed(t, "example.")
		return int32(now-lost) > 0, e.must(t, "zone", "status", "example")
	})
	newKey, _ := auditHead(t, e)
	if newKey == oldKey {
		t.Error("the new log signs with the key of the old one")
	}
	if out := e.must(t, "journal", "verify", "--checkpoint", kept); !strings.Contains(out, "sound") {
		t.Errorf("journal verify: %s", out)
	}
	e.must(t, "zone", "replay", "example", "--verify")
	for name, args := range map[string][]string{"whole": {"--chunks"}, "zone": {"--zone", "example"}} {
		out := filepath.Join(dir, "export-"+name)
		e.must(t, append([]string{"audit", "export", "-o", out}, args...)...)
		bothSay(t, out, newKey, true)
		bothSay(t, out, oldKey, false)
		damageExport(t, out, newKey, 3)
	}
	if r := e.cli(t, "journal", "backup", folder); r.code != 4 {
		t.Errorf("backup into the folder of the old journal: %v", r)
	}
	// An old checkpoint of what the machine took with it is told from a forgery.
	e.stop()
	d.start(t)
	d.awaitServed(t, "example.")
	_, size := auditHead(t, d)
	late := writeFile(t, filepath.Join(dir, "late"), d.must(t, "audit", "head", "--note"))
	d.stop()
	if r := run(t, program(t), "journal", "verify", "--data", e.data, "--key", newKey, "--checkpoint", late); r.code != 1 || size <= again.Size ||
		!strings.Contains(r.stderr, "were taken over") {
		t.Errorf("checkpoint of %d events, %d were taken over: %v", size, again.Size, r)
	}
}

// keysPrivate sets the modes that a copy may have lost.
func keysPrivate(t *testing.T, dir string) {
	t.Helper()
	if err := filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		switch {
		case err != nil:
			return err
		case info.IsDir():
			return os.Chmod(path, 0o700)
		}
		return os.Chmod(path, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
}

// checkBackup checks that a backup is found sound, and not once it is changed.
func checkBackup(t *testing.T, folder, key string) {
	t.Helper()
	check := []string{"journal", "restore", folder, "--check", "--key", key}
	if out := must(t, program(t), check...); !strings.Contains(out, "sound") {
		t.Errorf("check: %s", out)
	}
	files, err := filepath.Glob(filepath.Join(folder, "[ce]*-*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, name := range files {
		text := []byte(readFile(t, name))
		text[len(text)/2] ^= 1
		writeFile(t, name, string(text))
		if r := run(t, program(t), check...); r.code != 1 || !strings.Contains(r.stderr, "damaged") {
			t.Errorf("with a changed %s: %v", name, r)
		}
		text[len(text)/2] ^= 1
		writeFile(t, name, string(text))
	}
	if r := run(t, program(t), "journal", "restore", filepath.Dir(folder), "--check"); r.code != 3 {
		t.Errorf("check of no backup: %v", r)
	}
}
