package pipeline

import "time"

// Clock is the one source of time: the machine's, or a simulated one for a
// rehearsal. Its zero value is the machine's clock. It is safe for concurrent
// use.
type Clock struct {
	start     time.Time // simulated time at anchor
	anchor    time.Time // machine time when the rehearsal began
	rate      float64   // simulated seconds a second; 0 is frozen
	simulated bool
}

// NewRehearsal makes a simulated clock that shows start now and runs at rate
// simulated seconds a second.
func NewRehearsal(start time.Time, rate float64) Clock {
	return Clock{start: start.UTC(), anchor: machineTime(), rate: rate, simulated: true}
}

// Simulated reports whether the clock is that of a rehearsal.
func (c Clock) Simulated() bool { return c.simulated }

// Now is the present time in UTC.
func (c Clock) Now() time.Time {
	if !c.simulated {
		return machineTime().UTC()
	}
	return c.start.Add(time.Duration(float64(machineTime().Sub(c.anchor)) * c.rate))
}

// Timer returns a channel that delivers once at the given time, and a
// function that frees it. A frozen clock never delivers what is not yet due.
func (c Clock) Timer(at time.Time) (due <-chan time.Time, stop func()) {
	wait := at.Sub(c.Now())
	if c.simulated && wait > 0 {
		if c.rate <= 0 {
			return nil, func() {}
		}
		wait = time.Duration(float64(wait) / c.rate)
	}
	t := time.NewTimer(max(wait, 0))
	return t.C, func() { t.Stop() }
}

func machineTime() time.Time {
	return time.Now()
}
