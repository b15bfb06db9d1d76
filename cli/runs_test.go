package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"sluice/pipeline"
	"sluice/signer/zone"
)

// item is an A RRset of one record at a name made from n.
func item(t testing.TB, kind zone.Kind, n int) zone.Item {
	t.Helper()
	name, err := zone.ParseName(fmt.Sprintf("n%06d.example.", n))
	if err != nil {
		t.Fatal(err)
	}
	return zone.Item{
		Key:   zone.AppendKey(nil, kind, name, zone.TypeA),
		Value: zone.AppendValue(nil, name, 60, []byte{192, 0, 2, byte(n)}),
	}
}

func fill(t testing.TB, r *runs, n int) {
	t.Helper()
	for i := range n {
		for _, kind := range []zone.Kind{zone.KindContents, zone.KindMade} {
			if kind == zone.KindMade && i%3 != 0 {
				continue
			}
			it := item(t, kind, i)
			if err := r.Put(it.Key, it.Value); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestRuns_ComeBackMerged(t *testing.T) {
	r := newRuns(pipeline.SpillDir(t.TempDir()))
	const n = 60_000 // several chunks
	fill(t, r, n)
	if err := r.Put([]byte{byte(zone.KindDigest)}, make([]byte, zone.StateSize)); err != nil {
		t.Fatal(err)
	}
	items, err := r.merged()
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for ; items.Next(); i++ {
		kind := zone.KindContents
		if i%3 == 0 {
			kind = zone.KindMade // hides the contents
		}
		want := item(t, kind, i)
		if !bytes.Equal(items.Key(), want.Key) || !bytes.Equal(items.Value(), want.Value) {
			t.Fatalf("item %d is %x", i, items.Key())
		}
	}
	if err := items.Err(); err != nil || i != n {
		t.Errorf("%d items, %v", i, err)
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}

func TestRuns_OutOfOrderIsAnError(t *testing.T) {
	r := newRuns(pipeline.SpillDir(t.TempDir()))
	defer r.close() //nolint:errcheck // the test's own
	two, one := item(t, zone.KindContents, 2), item(t, zone.KindContents, 1)
	if err := r.Put(two.Key, two.Value); err != nil {
		t.Fatal(err)
	}
	if err := r.Put(one.Key, one.Value); err == nil {
		t.Error("an item before the last one was taken")
	}
}

func TestWriteZone_KeepsTheOrder(t *testing.T) {
	r := newRuns(pipeline.SpillDir(t.TempDir()))
	defer r.close() //nolint:errcheck // the test's own
	const n = 30_000
	fill(t, r, n)
	items, err := r.merged()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := writeZone(t.Context(), items, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != n {
		t.Fatalf("%d lines", len(lines))
	}
	for i, line := range lines {
		if want := fmt.Sprintf("n%06d.example.\t60\tIN\tA\t192.0.2.%d", i, byte(i)); line != want {
			t.Fatalf("line %d is %q, want %q", i, line, want)
		}
	}
}

// failAfter fails once it has taken n bytes.
type failAfter struct {
	n   int
	err error
}

func (f *failAfter) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func TestWriteZone_EndsWithAnError(t *testing.T) {
	full := errors.New("disk full")
	for _, after := range []int{0, 1 << 20} {
		r := newRuns(pipeline.SpillDir(t.TempDir()))
		fill(t, r, 60_000)
		items, err := r.merged()
		if err != nil {
			t.Fatal(err)
		}
		if err := writeZone(t.Context(), items, &failAfter{after, full}); !errors.Is(err, full) {
			t.Errorf("after %d bytes: %v", after, err)
		}
		r.close() //nolint:errcheck // the test's own
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := newRuns(pipeline.SpillDir(t.TempDir()))
	defer r.close() //nolint:errcheck // the test's own
	fill(t, r, 60_000)
	items, err := r.merged()
	if err != nil {
		t.Fatal(err)
	}
	if err := writeZone(ctx, items, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkWriteZone(b *testing.B) {
	r := newRuns(pipeline.SpillDir(b.TempDir()))
	defer r.close() //nolint:errcheck // the benchmark's own
	const n = 300_000
	fill(b, r, n)
	for b.Loop() {
		items, err := r.merged()
		if err != nil {
			b.Fatal(err)
		}
		if err := writeZone(b.Context(), items, discard{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
