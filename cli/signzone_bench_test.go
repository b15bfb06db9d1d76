package cli

import (
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"sluice/pipeline"
	"sluice/signer"
	"sluice/signer/zone"
)

// BenchmarkSignzone signs a generated TLD-like zone from file to file.
func BenchmarkSignzone(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "zone")
	out, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command("go", "run", "sluice/e2e/zonegen/cmd", "-kind", "tld", "-zone", "example.com.", "-n", "200000")
	cmd.Stdout = out
	if err := cmd.Run(); err != nil {
		b.Fatal(err)
	}
	if err := out.Close(); err != nil {
		b.Fatal(err)
	}
	apex, err := zone.ParseName("example.com")
	if err != nil {
		b.Fatal(err)
	}
	keys, _, err := readKeys([]string{"testdata/keys/Kexample.com.+013+00026", "testdata/keys/Kexample.com.+013+48603"}, apex)
	if err != nil {
		b.Fatal(err)
	}
	e := &env{stdout: io.Discard, stderr: io.Discard, log: slog.New(slog.DiscardHandler)}
	for b.Loop() {
		now := time.Now()
		j := &signJob{
			file: file, output: filepath.Join(dir, "signed"), keys: keys, serial: pipeline.SerialKeep, now: now,
			params: signer.Params{
				Apex: apex, Inception: now.Add(-time.Hour), Expiration: now.Add(24 * time.Hour),
				Denial: signer.NSEC3OptOut, DNSKEYTTL: 3600,
			},
		}
		if err := e.signzone(b.Context(), j); err != nil {
			b.Fatal(err)
		}
	}
}
