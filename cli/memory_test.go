package cli

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestMemoryLimitFor_LeavesRoomAboveWhatIsLive(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		use  memoryUse
		want int64
	}{
		{memoryUse{}, 250 * mib},
		{memoryUse{live: 140 * mib, other: 20 * mib}, 250 * mib},
		{memoryUse{live: 240 * mib, other: 20 * mib}, 380 * mib},
		{memoryUse{live: 1000 * mib, other: 60 * mib}, 1935 * mib},
	} {
		if got := memoryLimitFor(250*mib, c.use); got != c.want {
			t.Errorf("limit for %+v is %d, want %d", c.use, got, c.want)
		}
	}
}

func TestWatchMemory_FollowsWhatIsLive(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
	const configured = 1 << 20 // less than any test needs
	m := watchMemory(configured)
	defer m.end()
	small := debug.SetMemoryLimit(-1)
	held := make([]byte, 64<<20)
	for debug.SetMemoryLimit(-1) < small+64<<20 {
		runtime.GC()
		runtime.Gosched()
	}
	runtime.KeepAlive(held)
	m.set(1 << 40)
	if got := debug.SetMemoryLimit(-1); got != 1<<40 {
		t.Errorf("the limit is %d after it was configured, want %d", got, int64(1)<<40)
	}
}
