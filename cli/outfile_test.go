package cli

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func writeText(t *testing.T, path, text string) {
	t.Helper()
	err := (&env{}).writeTo(path, func(w io.Writer) error {
		_, err := io.WriteString(w, text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s holds %q, %v", path, got, err)
	}
}

func TestWriteTo_LinksStay(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "real"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{
		"folder": "real", "one": "folder/../two", "two": "folder/z", "loop": "loop",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, text := range []string{"new", "again"} { // without the file, and with it
		writeText(t, filepath.Join(dir, "one"), text)
		wantFile(t, filepath.Join(dir, "real", "z"), text)
	}
	if info, err := os.Lstat(filepath.Join(dir, "one")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v, %v", info, err)
	}
	if err := (&env{}).writeTo(filepath.Join(dir, "loop"), func(io.Writer) error { return nil }); err == nil {
		t.Error("a loop of links was written to")
	}
}

func TestWriteTo_WhatIsNoFileStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(path, os.O_RDWR, 0) // both ends: opening never waits
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	writeText(t, path, "zone")
	got := make([]byte, len("zone"))
	if _, err := io.ReadFull(reader, got); err != nil || string(got) != "zone" {
		t.Errorf("the pipe brought %q, %v", got, err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is gone: %v, %v", info, err)
	}
	out, err := findOutput(path)
	if err != nil || out.folder() != "." {
		t.Errorf("temporary files beside a pipe: %q, %v", out.folder(), err)
	}
}

func TestWriteTo_FileIsWholeOrAsBefore(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "z")
	if err := os.WriteFile(path, []byte("old"), 0o640); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("failed")
	err := (&env{}).writeTo(path, func(w io.Writer) error {
		_, _ = io.WriteString(w, "half")
		return failed
	})
	if !errors.Is(err, failed) {
		t.Errorf("error %v", err)
	}
	wantFile(t, path, "old")
	writeText(t, path, "new")
	wantFile(t, path, "new")
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}
