package file

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStore_HasFollowsTheFolder(t *testing.T) {
	s := newStore(t)
	path := filepath.Join(s.dir, "a.pem")
	write := func() {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// later is a time at which the folder has been left alone for long, and is
	// looked at again.
	later := func(ago time.Duration) {
		t.Helper()
		at := time.Now().Add(-ago)
		if err := os.Chtimes(s.dir, at, at); err != nil {
			t.Fatal(err)
		}
		s.there.looked = time.Time{}
	}
	later(time.Hour)
	if s.Has("a.pem") {
		t.Fatal("has what is not there")
	}
	write()
	later(50 * time.Minute)
	for range 2 {
		if !s.Has("a.pem") {
			t.Fatal("has not what is there")
		}
	}
	if len(s.there.has) != 1 {
		t.Errorf("remembers %d files", len(s.there.has))
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if !s.Has("a.pem") {
		t.Error("looks at the file within a second")
	}
	s.there.looked = time.Time{} // a second later the folder has another time
	if s.Has("a.pem") {
		t.Error("has what was removed")
	}
	// A folder that changed just now may change again with the same time.
	write()
	later(0)
	if !s.Has("a.pem") || len(s.there.has) != 0 {
		t.Errorf("remembers %d files of a folder that changes", len(s.there.has))
	}
	if err := os.RemoveAll(s.dir); err != nil {
		t.Fatal(err)
	}
	later = func(time.Duration) { s.there.looked = time.Time{} }
	if later(0); s.Has("a.pem") {
		t.Error("has what is in no folder")
	}
}
