package audit

import (
	"errors"
	"strings"
	"testing"

	"sluice/journal/event"
)

func keyOf(t *testing.T, name string) *Key {
	t.Helper()
	secret, err := NewKey(name)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestKeys_EachLogHasItsCheckpoints(t *testing.T) {
	first, second, present := keyOf(t, "first"), keyOf(t, "second"), keyOf(t, "present")
	var keys Keys
	keys.Present = present.Verifier()
	keys.Take(&event.JournalContinued{Size: 10, Key: first.Verifier().String()})
	keys.Take(&event.JournalContinued{Size: 20})
	keys.Take(&event.JournalContinued{Size: 30, Key: second.Verifier().String()})
	note := func(k *Key, size int64) string {
		signed, err := Checkpoint{Origin: k.Name(), Size: size, Zones: 1}.Sign(k)
		if err != nil {
			t.Fatal(err)
		}
		return signed
	}
	lost := keyOf(t, "lost") // of the log whose key is not known
	for _, row := range []struct {
		name string
		key  *Key
		seq  uint64
		fits bool
	}{
		{"of the first log", first, 10, true},
		{"of any log, where no key is known", first, 11, true},
		{"of the log without a key", lost, 20, true},
		{"of the third log", second, 21, true},
		{"of the present log", present, 31, true},
		{"of the present log, in an earlier one", present, 30, false},
		{"of the third log, in the present one", second, 31, false},
	} {
		if c, err := keys.ReadAt(note(row.key, 5), row.seq); (err == nil) != row.fits || err == nil && c.Size != 5 {
			t.Errorf("%s: %+v, %v", row.name, c, err)
		}
	}
	if _, err := keys.ReadAt("nothing", 15); !errors.Is(err, ErrCheckpoint) {
		t.Errorf("no note: %v", err)
	}
	for _, row := range []struct {
		name string
		key  *Key
		size int64
		want error
	}{
		{"of the present log", present, 99, nil},
		{"of the first log", first, 10, nil},
		{"of the first log, what was not taken over", first, 11, ErrCheckpoint},
		{"of the third log", second, 30, nil},
		{"of a stranger", lost, 5, ErrSignature},
	} {
		if _, err := keys.ReadOutside(note(row.key, row.size)); !errors.Is(err, row.want) || row.want == nil && err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func TestManifest_FormerLogsStandInOrder(t *testing.T) {
	key := keyOf(t, "first")
	m := manifest{Origin: "present", Size: 9, Program: "v1.2.3/0123456789abcdef", Former: []Former{{Size: 3, Key: key.Verifier()}, {Size: 5}}, First: 1, Last: 9}
	got, err := parseManifest(m.text())
	if err != nil || len(got.Former) != 2 || got.Former[0].Key.String() != key.Verifier().String() || got.Former[1].Key != nil {
		t.Fatalf("%+v, %v", got, err)
	}
	for was, is := range map[string]string{"former 5 -": "former 3 -", "former 3 first": "former 3 other", "former 5": "former x"} {
		if _, err := parseManifest(strings.Replace(m.text(), was, is, 1)); err == nil {
			t.Errorf("%q for %q is taken", is, was)
		}
	}
}
