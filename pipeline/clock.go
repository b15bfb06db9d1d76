package pipeline

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Clock is the one source of time: the machine's, or a simulated one for a
// rehearsal. Its zero value is the machine's clock. It is safe for concurrent
// use.
type Clock struct {
	start  time.Time     // simulated time at anchor
	anchor time.Time     // machine time when the rehearsal began
	rate   float64       // simulated seconds a second; 0 is frozen
	moved  *atomic.Int64 // by how much Move has moved it, in nanoseconds; nil for the machine's
	hand   clockHand     // where not nil, what moves the clock instead
}

// clockHand moves a simulated clock by hand.
type clockHand interface {
	now() time.Time
	timer(at time.Time) (due <-chan time.Time, stop func())
}

// NewRehearsal makes a simulated clock that shows start now and runs at rate
// simulated seconds a second.
func NewRehearsal(start time.Time, rate float64) Clock {
	return Clock{start: start.UTC(), anchor: machineTime(), rate: rate, moved: new(atomic.Int64)}
}

// Simulated reports whether the clock is that of a rehearsal.
func (c Clock) Simulated() bool { return c.moved != nil }

// Now is the present time in UTC.
func (c Clock) Now() time.Time {
	if !c.Simulated() {
		return machineTime().UTC()
	}
	now, _ := c.Reading()
	return now
}

// Reading is the present time in UTC, and how much time has gone by since
// some fixed moment. The second goes on evenly, also while the machine
// sleeps, and whatever becomes of the first.
func (c Clock) Reading() (now time.Time, elapsed time.Duration) {
	if c.hand != nil {
		now = c.hand.now()
		return now, now.Sub(c.start)
	}
	if c.Simulated() {
		elapsed = time.Duration(float64(machineTime().Sub(c.anchor)) * c.rate)
		return c.start.Add(elapsed + time.Duration(c.moved.Load())), elapsed
	}
	// Without its monotonic reading the time shows when the clock was set.
	now = machineTime().Round(0).UTC()
	var boot unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &boot); err != nil {
		return now, time.Duration(now.UnixNano()) // nothing else measures evenly: a jump is not seen
	}
	return now, time.Duration(boot.Nano())
}

// Move moves what a simulated clock shows, as somebody does who sets the
// machine's clock: the time that goes by is still measured evenly. It reports
// whether it could: the machine's clock is not ours to set.
func (c Clock) Move(by time.Duration) bool {
	if !c.Simulated() {
		return false
	}
	c.moved.Add(int64(by))
	return true
}

// Timer returns a channel that delivers once at the given time, and a
// function that frees it. A frozen clock never delivers what is not yet due,
// and a timer knows nothing of a clock that is set meanwhile.
func (c Clock) Timer(at time.Time) (due <-chan time.Time, stop func()) {
	if c.hand != nil {
		return c.hand.timer(at)
	}
	wait, ever := c.until(at)
	if !ever {
		return nil, func() {}
	}
	t := time.NewTimer(wait)
	return t.C, func() { t.Stop() }
}

// AfterFunc calls fn, in a goroutine of its own, at the given time; stop keeps it
// from that where it has not begun. No goroutine waits meanwhile: there may be
// one of these for each zone.
func (c Clock) AfterFunc(at time.Time, fn func()) (stop func()) {
	if c.hand != nil {
		due, free := c.hand.timer(at)
		stopped := make(chan struct{})
		go func() {
			select {
			case <-due:
				fn()
			case <-stopped:
			}
		}()
		return sync.OnceFunc(func() {
			close(stopped)
			free()
		})
	}
	wait, ever := c.until(at)
	if !ever {
		return func() {}
	}
	t := time.AfterFunc(wait, fn)
	return func() { t.Stop() }
}

// until is how long the machine's clock takes to a time; ever is false where a
// frozen clock never gets there.
func (c Clock) until(at time.Time) (wait time.Duration, ever bool) {
	wait = at.Sub(c.Now())
	if c.Simulated() && wait > 0 {
		if c.rate <= 0 {
			return 0, false
		}
		wait = time.Duration(float64(wait) / c.rate)
	}
	return max(wait, 0), true
}

func machineTime() time.Time {
	return time.Now()
}
