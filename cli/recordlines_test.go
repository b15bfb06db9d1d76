package cli

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func collectRecords(r io.Reader) ([]dumpRecord, error) {
	var got []dumpRecord
	l := &recordLines{put: func(rec dumpRecord) error {
		got = append(got, rec)
		return nil
	}}
	if _, err := io.Copy(struct{ io.Writer }{l}, r); err != nil {
		return got, err
	}
	return got, l.close()
}

func TestRecordLines_CutAnywhere(t *testing.T) {
	const text = "a.\t1\tIN\tTXT\t\"<&>\" \"x\ty\"\nb.\t4294967295\tIN\tNS\tc.\n"
	want := []dumpRecord{
		{"a.", 1, "IN", "TXT", "\"<&>\" \"x\ty\""},
		{"b.", 4294967295, "IN", "NS", "c."},
	}
	for name, r := range map[string]io.Reader{
		"at once": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text)),
	} {
		got, err := collectRecords(r)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestRecordLines_OtherLinesAreErrors(t *testing.T) {
	for _, text := range []string{"a.\t1\tIN\tNS\n", "a.\tx\tIN\tNS\tb.\n", "; no record\n", "\n", "a.\t1\tIN\tNS\tb."} {
		if _, err := collectRecords(strings.NewReader(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
	full := errors.New("full")
	l := &recordLines{put: func(dumpRecord) error { return full }}
	if _, err := l.Write([]byte("a.\t1\tIN\tNS\tb.\n")); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}
