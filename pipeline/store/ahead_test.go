package store

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

// numberedChanges finds n changes of which some have no value on a side.
func numberedChanges(n int, fault error) func(changeFunc) error {
	return func(fn changeFunc) error {
		for i := range n {
			key, before, after := changeOf(i)
			if err := fn(key, before, after); err != nil {
				return err
			}
		}
		return fault
	}
}

func changeOf(i int) (key, before, after []byte) {
	key = fmt.Appendf(nil, "key %06d", i)
	if i%3 != 0 {
		before = bytes.Repeat([]byte{byte(i)}, 1+i%200)
	}
	if i%3 != 1 {
		after = bytes.Repeat([]byte{byte(i)}, 1+i%90)
	}
	return key, before, after
}

func TestReadAhead_HandsOnEveryChangeInOrder(t *testing.T) {
	fault := errors.New("disk")
	for _, n := range []int{0, 1, 999, 20_000} {
		for _, want := range []error{nil, fault} {
			got := 0
			err := readAhead(numberedChanges(n, want), func(key, before, after []byte) error {
				k, b, a := changeOf(got)
				if !bytes.Equal(k, key) || !bytes.Equal(b, before) || !bytes.Equal(a, after) || (b == nil) != (before == nil) || (a == nil) != (after == nil) {
					t.Fatalf("change %d of %d is %q, %d and %d bytes", got, n, key, len(before), len(after))
				}
				got++
				return nil
			})
			if !errors.Is(err, want) || err == nil && got != n {
				t.Errorf("%d of %d changes, %v", got, n, err)
			}
		}
	}
}

func TestReadAhead_EndsWithWhoTakes(t *testing.T) {
	enough := errors.New("enough")
	for _, limit := range []int{1, 700, 19_999} {
		got, ended := 0, false
		read := func(fn changeFunc) error {
			defer func() { ended = true }() // the race detector sees whether it is read too early
			return numberedChanges(20_000, nil)(fn)
		}
		err := readAhead(read, func(_, _, _ []byte) error {
			if got++; got == limit {
				return enough
			}
			return nil
		})
		if !errors.Is(err, enough) || got != limit || !ended {
			t.Errorf("%d changes of %d, ended %v, %v", got, limit, ended, err)
		}
	}
}
