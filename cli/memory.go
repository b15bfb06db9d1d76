package cli

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// memoryLimit keeps the Go runtime's memory limit at what the config says, or
// well above what the process needs where that is more: many zones need so much,
// and near its limit the collector takes every second instruction.
type memoryLimit struct {
	mu         sync.Mutex
	configured int64 // guarded by mu
	now        int64 // guarded by mu; the limit that is in place
	ended      bool  // guarded by mu
}

// watchMemory puts a limit in place and looks at it after each collection, until
// end is called.
func watchMemory(configured int64) *memoryLimit {
	m := &memoryLimit{configured: configured}
	m.look()
	m.afterNext()
	return m
}

// set changes what the config says.
func (m *memoryLimit) set(configured int64) {
	m.mu.Lock()
	m.configured = configured
	m.mu.Unlock()
	m.look()
}

// end leaves the limit where it is.
func (m *memoryLimit) end() {
	m.mu.Lock()
	m.ended = true
	m.mu.Unlock()
}

// afterNext looks after the next collection, and after all that follow.
func (m *memoryLimit) afterNext() {
	runtime.SetFinalizer(&struct{ unused [16]byte }{}, func(any) {
		if m.look() {
			m.afterNext()
		}
	})
}

// look sets the limit by what the last collection left, and reports whether it is
// still to be looked at.
func (m *memoryLimit) look() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended {
		return false
	}
	if limit := memoryLimitFor(m.configured, readMemory()); limit != m.now { // setting it stops the world
		m.now = limit
		debug.SetMemoryLimit(limit)
	}
	return true
}

// memoryUse is what of the Go runtime's memory cannot be given back, in bytes.
type memoryUse struct {
	live  uint64 // on the heap, at the end of the last collection
	other uint64 // stacks, what is left over in the heap's spans, and what the runtime needs itself
}

// memoryLimitFor is the limit for what is in use: half above what is live, and for
// so much more than what was configured nearly as much again, which is what the
// collector takes without a limit.
func memoryLimitFor(configured int64, use memoryUse) int64 {
	live, other := int64(use.live), int64(use.other) //nolint:gosec // no machine has as much
	return max(configured, live+max(live/2, live-configured/2)+other)
}

func readMemory() memoryUse {
	samples := []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
		{Name: "/memory/classes/heap/released:bytes"},
	}
	metrics.Read(samples)
	use := memoryUse{live: samples[0].Value.Uint64(), other: samples[1].Value.Uint64()}
	for _, s := range samples[2:] {
		use.other -= min(use.other, s.Value.Uint64())
	}
	return use
}
