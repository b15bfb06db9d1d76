package e2e

import (
	"encoding/json"
	"io/fs"
	"math/rand/v2" //nolint:depguard // which bytes are changed is no secret
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	d := startDaemon(t, "", "example.="+file, "other.example.="+writeFile(t, filepath.Join(dir, "other"), smallZone(1)))
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
	key, size := auditHead(t, d)
	if size < 10 {
		t.Fatalf("%d events in the checkpoint", size)
	}
	kept := writeFile(t, filepath.Join(dir, "checkpoint"), d.must(t, "audit", "head", "--note"))
	if out := d.must(t, "journal", "verify", "--checkpoint", kept); !strings.Contains(out, "3 checkpoints") {
		t.Errorf("journal verify: %s", out)
	}
	rounds := 6
	if long() {
		rounds = 500
	}
	for name, args := range map[string][]string{
		"whole": nil, "zone": {"--zone", "example", "--chunks"}, "since": {"--since", "-1h", "--zone", "other.example"},
	} {
		out := filepath.Join(dir, "export-"+name)
		d.must(t, append([]string{"audit", "export", "-o", out}, args...)...)
		bothSay(t, out, key, true)
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

// damageExport changes a byte at a time, of any file.
func damageExport(t *testing.T, dir, key string, rounds int) {
	t.Helper()
	var files []string
	if err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			files = append(files, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	choose := rand.New(rand.NewPCG(1, uint64(len(files))))
	for range rounds {
		path := files[choose.IntN(len(files))]
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(good) == 0 {
			continue
		}
		bad := []byte(string(good))
		at := choose.IntN(len(bad))
		bad[at] ^= 1 << choose.IntN(7)
		writeFile(t, path, string(bad))
		bothSay(t, dir, key, false)
		if t.Failed() {
			t.Fatalf("%s: byte %d from %q to %q", path, at, good[at], bad[at])
		}
		writeFile(t, path, string(good))
	}
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
