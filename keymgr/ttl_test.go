package keymgr

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestTTLs_LargeOneCountsUntilItHasRunOut(t *testing.T) {
	at := time.Unix(1700000000, 0)
	ttls := TTLs(nil).See(86400, at).See(3600, at.Add(time.Second))
	for _, row := range []struct {
		after time.Duration
		want  uint32
	}{{time.Minute, 86400}, {86399 * time.Second, 86400}, {86400 * time.Second, 3600}, {1 << 50, 3600}} {
		if got := ttls.Largest(at.Add(row.after)); got != row.want {
			t.Errorf("after %s: %d, want %d", row.after, got, row.want)
		}
	}
	if got := TTLs(nil).Largest(at); got != 0 {
		t.Errorf("none seen: %d", got)
	}
}

// However often TTLs change, none that a cache may hold is lost.
func TestTTLs_NeverTooSmallAndBounded(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := time.Unix(1700000000, 0)
		var ttls TTLs
		var all []SeenTTL
		for range rapid.IntRange(1, 60).Draw(rt, "n") {
			now = now.Add(time.Duration(rapid.IntRange(0, 4000).Draw(rt, "pass")) * time.Second)
			ttl := rapid.Uint32Range(1, 100000).Draw(rt, "ttl")
			ttls = ttls.See(ttl, now)
			all = append(all, SeenTTL{ttl, now})
			if len(ttls) > maxTTLs+1 {
				rt.Fatalf("%d kept", len(ttls))
			}
			later := now.Add(time.Duration(rapid.IntRange(0, 120000).Draw(rt, "later")) * time.Second)
			for _, s := range all {
				if s.until().After(later) && ttls.Largest(later) < s.TTL {
					rt.Fatalf("%d at %s is cached until %s, Largest(%s) = %d", s.TTL, s.Last, s.until(), later, ttls.Largest(later))
				}
			}
		}
	})
}
