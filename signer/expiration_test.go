package signer

import (
	"fmt"
	"testing"
	"time"

	"sluice/signer/zone"
)

// Whenever an RRset is signed, its signatures expire at its place in a window:
// whole windows apart, never after Expiration, never a window before.
func TestExpiration_IsAtTheRRsetsPlaceInAWindow(t *testing.T) {
	apex, err := zone.ParseName("example.")
	if err != nil {
		t.Fatal(err)
	}
	const window = 13*24*time.Hour + 11*time.Second
	expiration := func(now time.Time, key []byte) int64 {
		end := now.Add(28 * 24 * time.Hour)
		r := &run{jitter: uint64(window / time.Second), expires: uint32(end.Unix()), expiresUnix: uint64(end.Unix())}
		return near(r.expiration(key), end).Unix()
	}
	start := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	const bins, names = 26, 13_000
	var count [bins]int
	for i := range names {
		owner := zone.Name(fmt.Sprintf("\x06n%05d", i)) + apex
		key := zone.AppendKey(nil, zone.KindContents, owner, zone.TypeA)
		first := expiration(start, key)
		left := start.Add(28*24*time.Hour).Unix() - first
		if left < 0 || left >= int64(window/time.Second) {
			t.Fatalf("%v expires %d s before the end", owner, left)
		}
		count[left*bins/int64(window/time.Second)]++
		for _, later := range []time.Duration{time.Second, 25 * time.Hour, 14 * 24 * time.Hour, 100 * 365 * 24 * time.Hour} {
			if d := expiration(start.Add(later), key) - first; d < 0 || d%int64(window/time.Second) != 0 {
				t.Fatalf("%v signed %s later expires %d s later, want whole windows of %s", owner, later, d, window)
			}
		}
		// The same whatever kind the item has.
		key[0] = byte(zone.KindMade)
		if expiration(start, key) != first {
			t.Fatalf("%v: the kind of the item plays a part", owner)
		}
	}
	for i, n := range count {
		if mean := names / bins; n < mean*3/4 || n > mean*5/4 {
			t.Errorf("%d expire in part %d of the window, %d in one of %d on average", n, i, mean, bins)
		}
	}
}
