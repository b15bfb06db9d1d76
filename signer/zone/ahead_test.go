package zone

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func manyItems(n int) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i] = Item{
			Key:   fmt.Appendf([]byte{byte(KindContents)}, "%08d", i),
			Value: make([]byte, i%300),
		}
	}
	return items
}

func TestAhead_GivesTheSameItems(t *testing.T) {
	for _, n := range []int{0, 1, 2, 10_000} {
		items := manyItems(n)
		a := Ahead(Slice(items...))
		i := 0
		for ; a.Next(); i++ {
			if got := (Item{a.Key(), a.Value()}); i >= n || !cmp.Equal(string(got.Key), string(items[i].Key)) ||
				len(got.Value) != len(items[i].Value) {
				t.Fatalf("item %d of %d: %q", i, n, got.Key)
			}
		}
		if err := errors.Join(a.Err(), a.Close()); err != nil || i != n {
			t.Errorf("%d items of %d: %v", i, n, err)
		}
		if a.Next() {
			t.Errorf("an item behind the end of %d", n)
		}
	}
}

func TestAhead_OneItemLongerThanABatch(t *testing.T) {
	long := make([]byte, 3*aheadBatch)
	a := Ahead(Slice(Item{[]byte("1a"), long}, Item{[]byte("1b"), []byte{1}}))
	defer a.Close() //nolint:errcheck // a slice
	if !a.Next() || len(a.Value()) != len(long) || !a.Next() || string(a.Key()) != "1b" || a.Next() {
		t.Error("the items are others")
	}
}

func TestAhead_TellsTheErrorBehindTheItemsBeforeIt(t *testing.T) {
	const left = 5000
	a := Ahead(&failing{Slice(manyItems(2 * left)...), left})
	n := 0
	for a.Next() {
		n++
	}
	if n != left || a.Err() == nil {
		t.Errorf("%d items, error %v", n, a.Err())
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
}

func TestAhead_ClosesEarly(t *testing.T) {
	a := Ahead(Slice(manyItems(50_000)...))
	if !a.Next() {
		t.Fatal("no item")
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
	if a.Next() {
		t.Error("an item of a closed iterator")
	}
}
