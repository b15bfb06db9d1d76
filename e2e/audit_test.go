package e2e

import (
	"bytes"
	"encoding/json"
	"io/fs"
	"math/rand/v2" //nolint:depguard // which bytes are changed is no secret
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"sluice/journal/audit"
)

// auditHead is what `audit head --json` says of the log.
func auditHead(t *testing.T, d *daemon) (key string, size uint64) {
	t.Helper()
	var h struct {
		Key        string
		Checkpoint struct{ Size uint64 }
	}
	if err := json.Unmarshal([]byte(d.must(t, "audit", "head", "--now", "--json")), &h); err != nil {
		t.Fatal(err)
	}
	return h.Key, h.Checkpoint.Size
}

// An export is proved by Sluice and by a verifier that was written from the
// manual alone; what was changed in it is found by both.
func TestAudit_ExportIsProvedByTwoVerifiers(t *testing.T) {
	need(t, "python3")
	dir := shortDir(t)
	file := writeFile(t, filepath.Join(dir, "zone"), smallZone(1))
	seal := writeFile(t, filepath.Join(dir, "config.toml"), "version = \"v1\"\n[audit]\nseal = [\"actor\", \"reason\"]\n")
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	d.flags = []string{"--config", seal, "--zone", "example.=" + file, "--zone", "other.example.=" + writeFile(t, filepath.Join(dir, "other"), smallZone(1))}
	d.start(t)
	await(t, "both zones are published", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "zone", "list")
		return strings.Count(r.stdout, "published") == 2, r.String()
	})
	auditHead(t, d)
	before := d.must(t, "zone", "status", "example", "--json")
	writeFile(t, file, smallZone(2))
	d.must(t, "zone", "reload", "example")
	await(t, "the change is published", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "zone", "status", "example", "--json")
		return r.stdout != before && strings.Contains(r.stdout, `"published"`), r.String()
	})
	d.must(t, "zone", "maintenance", "enable", "example", "--reason", "asked for by Jane Doe")
	d.must(t, "zone", "maintenance", "disable", "example")
	if out := d.must(t, "zone", "history", "example"); !strings.Contains(out, "asked for by Jane Doe") {
		t.Errorf("history does not show what is sealed: %s", out)
	}
	key, size := auditHead(t, d)
	if size < 10 {
		t.Fatalf("%d events in the checkpoint", size)
	}
	kept := writeFile(t, filepath.Join(dir, "checkpoint"), d.must(t, "audit", "head", "--note"))
	if out := d.must(t, "journal", "verify", "--checkpoint", kept); !strings.Contains(out, "3 checkpoints") {
		t.Errorf("journal verify: %s", out)
	}
	rounds := 300
	if long() {
		rounds = 10_000
	}
	for name, args := range map[string][]string{
		"whole": nil, "zone": {"--zone", "example", "--chunks"}, "since": {"--since", "-1h", "--zone", "other.example"},
		"dropped": {"--drop-sealed"}, "no-reasons": {"--drop-sealed", "reason"},
	} {
		out := filepath.Join(dir, "export-"+name)
		d.must(t, append([]string{"audit", "export", "-o", out}, args...)...)
		bothSay(t, out, key, true)
		there := false
		for path, data := range filesBelow(t, out) {
			if bytes.Contains(data, []byte("Jane Doe")) {
				there = there || strings.HasPrefix(path, "sealed-")
				if !strings.HasPrefix(path, "sealed-") {
					t.Errorf("%s: %s holds what is sealed", name, path)
				}
			}
		}
		if want := name == "whole" || name == "zone"; there != want {
			t.Errorf("%s: the sealed reason is there: %t, want %t", name, there, want)
		}
		damageFiles(t, out, key)
		damageExport(t, out, key, rounds)
	}
	secret, err := os.ReadFile(filepath.Join(d.data, "keys", "audit.key"))
	if err != nil {
		t.Fatal(err)
	}
	noSecrets(t, dir, d.data, strings.TrimSpace(string(secret)))
	r := run(t, program(t), "audit", "report", filepath.Join(dir, "export-zone"), "--key", key)
	if r.code != 0 || !strings.Contains(r.stdout, "## Keys") || !strings.Contains(r.stdout, "| example. |") {
		t.Errorf("report: %v", r)
	}
}

// bothSay runs both verifiers.
func bothSay(t *testing.T, dir, key string, proved bool) {
	t.Helper()
	ours := run(t, program(t), "audit", "verify", dir, "--key", key)
	theirs := run(t, "python3", filepath.Join("testdata", "audit_verify.py"), dir, key)
	if want := map[bool]int{true: 0, false: 1}[proved]; ours.code != want || theirs.code != want {
		t.Errorf("proved should be %t:\n%v\n%v", proved, ours, theirs)
	}
}

// damageFiles changes a byte of every file, one at a time: both verifiers find it.
func damageFiles(t *testing.T, dir, key string) {
	t.Helper()
	for path, good := range filesBelow(t, dir) {
		bad := bytes.Clone(good)
		if len(bad) == 0 {
			continue
		}
		bad[len(bad)/2] ^= 1
		writeFile(t, filepath.Join(dir, path), string(bad))
		bothSay(t, dir, key, false)
		writeFile(t, filepath.Join(dir, path), string(good))
	}
}

// damageExport changes one byte at a time, anywhere, and wants it found and the
// file or the event named.
func damageExport(t *testing.T, dir, key string, rounds int) {
	t.Helper()
	verifier, err := audit.ParseVerifier(key)
	if err != nil {
		t.Fatal(err)
	}
	copied, total := fstest.MapFS{}, 0
	var paths []string
	for path, data := range filesBelow(t, dir) {
		copied[path] = &fstest.MapFile{Data: data}
		paths = append(paths, path)
		total += len(data)
	}
	slices.Sort(paths)
	choose := rand.New(rand.NewPCG(1, uint64(total)))
	for range rounds {
		at, i := choose.IntN(total), 0
		for ; at >= len(copied[paths[i]].Data); i++ {
			at -= len(copied[paths[i]].Data)
		}
		data := copied[paths[i]].Data
		was := data[at]
		data[at] ^= byte(1 + choose.IntN(255))
		r, err := audit.Verify(copied, verifier)
		if err != nil || r.FaultCount == 0 || r.Faults[0].File == "" && r.Faults[0].Seq == 0 {
			t.Fatalf("%s: byte %d from %q to %q: %v, %+v", paths[i], at, was, data[at], err, r)
		}
		data[at] = was
	}
	if r, err := audit.Verify(copied, verifier); err != nil || r.FaultCount != 0 {
		t.Fatalf("unchanged: %v, %+v", err, r)
	}
}

// filesBelow reads all files of a folder, by path.
func filesBelow(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	if err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(filepath.Join(dir, path))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// noSecrets looks for private keys in the exports below dir.
func noSecrets(t *testing.T, dir, data, auditKey string) {
	t.Helper()
	secrets := []string{auditKey}
	pems, err := filepath.Glob(filepath.Join(data, "keys", "*.pem"))
	if err != nil || len(pems) == 0 {
		t.Fatalf("no keys in %s: %v", data, err)
	}
	for _, path := range pems {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, strings.Split(string(raw), "\n")[1])
	}
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || strings.HasPrefix(path, data) {
			return err
		}
		raw, err := os.ReadFile(path)
		for _, s := range secrets {
			if strings.Contains(string(raw), s) {
				t.Errorf("%s holds a private key", path)
			}
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// smallZone is a zone file.
func smallZone(serial int) string {
	return "$TTL 300\n@ SOA ns hostmaster " + string(rune('0'+serial)) + " 3600 600 86400 300\n@ NS ns\nns A 192.0.2." + string(rune('0'+serial)) + "\n"
}
