package pipeline

import (
	"cmp"
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer"
)

// Count is how often one kind of work had one outcome since the process began,
// and how many seconds that took in sum.
type Count struct {
	Kind    string
	Outcome string
	N       uint64
	Seconds float64
}

// tally counts work by kind and outcome. Both are words of closed lists, or
// names of which an operator makes few.
type tally struct {
	mu sync.Mutex
	by map[[2]string]*Count // guarded by mu
}

func (t *tally) add(kind, outcome string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.by[[2]string{kind, outcome}]
	if c == nil {
		if t.by == nil {
			t.by = map[[2]string]*Count{}
		}
		c = &Count{Kind: kind, Outcome: outcome}
		t.by[[2]string{kind, outcome}] = c
	}
	c.N++
	c.Seconds += took.Seconds()
}

// list is what was counted, by kind and outcome.
func (t *tally) list() []Count {
	t.mu.Lock()
	out := make([]Count, 0, len(t.by))
	for _, c := range t.by {
		out = append(out, *c)
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b Count) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Outcome, b.Outcome))
	})
	return out
}

// Histogram is how long something took: Buckets holds how many took at most so
// many seconds, all those that took less among them.
type Histogram struct {
	Count   uint64
	Sum     float64 // in seconds
	Buckets map[float64]uint64
}

// bounds are those of the buckets, in microseconds.
//
//nolint:gochecknoglobals // a table that nobody changes
var bounds = [...]int64{100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000}

// histogram gathers a Histogram.
type histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64 // the last one: longer than all
	sum     atomic.Int64                   // in nanoseconds
}

func (h *histogram) observe(took time.Duration) {
	i, _ := slices.BinarySearch(bounds[:], took.Microseconds())
	h.buckets[i].Add(1)
	h.sum.Add(int64(took))
}

func (h *histogram) read() Histogram {
	out := Histogram{Buckets: make(map[float64]uint64, len(bounds)), Sum: time.Duration(h.sum.Load()).Seconds()}
	for i := range h.buckets {
		out.Count += h.buckets[i].Load()
		if i < len(bounds) {
			out.Buckets[float64(bounds[i])/1e6] = out.Count
		}
	}
	return out
}

// KeystoreTime is how long one operation of a keystore took, and how often it
// failed.
type KeystoreTime struct {
	Keystore  string
	Operation string // open, generate, prove or sign
	Time      Histogram
	Errors    uint64
}

// keystoreTimes gathers these.
type keystoreTimes struct {
	mu sync.Mutex
	by map[[2]string]*keystoreTime // guarded by mu
}

type keystoreTime struct {
	time   histogram
	errors atomic.Uint64
}

func (t *keystoreTime) add(began time.Time, err error) {
	t.time.observe(machineTime().Sub(began))
	if err != nil && !errors.Is(err, context.Canceled) {
		t.errors.Add(1)
	}
}

// addAll counts a batch: each of its n operations took its share of the time.
func (t *keystoreTime) addAll(began time.Time, n int, err error) {
	if n == 0 {
		return
	}
	each := machineTime().Sub(began) / time.Duration(n)
	for range n {
		t.time.observe(each)
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		t.errors.Add(1)
	}
}

// of is where the times of an operation are gathered.
func (t *keystoreTimes) of(keystore, operation string) *keystoreTime {
	t.mu.Lock()
	defer t.mu.Unlock()
	at := t.by[[2]string{keystore, operation}]
	if at == nil {
		if t.by == nil {
			t.by = map[[2]string]*keystoreTime{}
		}
		at = &keystoreTime{}
		t.by[[2]string{keystore, operation}] = at
	}
	return at
}

func (t *keystoreTimes) list() []KeystoreTime {
	t.mu.Lock()
	out := make([]KeystoreTime, 0, len(t.by))
	for name, at := range t.by {
		out = append(out, KeystoreTime{Keystore: name[0], Operation: name[1], Time: at.time.read(), Errors: at.errors.Load()})
	}
	t.mu.Unlock()
	slices.SortFunc(out, func(a, b KeystoreTime) int {
		return cmp.Or(strings.Compare(a.Keystore, b.Keystore), strings.Compare(a.Operation, b.Operation))
	})
	return out
}

// timedSigner times the signatures of a key on a token.
type timedSigner struct {
	crypto.Signer
	times *keystoreTime
}

// Sign implements crypto.Signer.
func (s timedSigner) Sign(rand io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	began := machineTime()
	sig, err := s.Signer.Sign(rand, digest, opts)
	s.times.add(began, err)
	return sig, err
}

// timed times a signer, whichever way it is given what it signs.
func timed(s crypto.Signer, times *keystoreTime) crypto.Signer {
	one := timedSigner{s, times}
	switch of := s.(type) {
	case signer.MessageSigner:
		return timedMessages{one, of}
	case signer.BatchSigner:
		return timedBatches{one, of}
	}
	return one
}

// timedBatches times batches as a whole.
type timedBatches struct {
	timedSigner
	of signer.BatchSigner
}

// SignBatch implements signer.BatchSigner.
func (s timedBatches) SignBatch(dst, digests []byte) ([]byte, error) {
	began := machineTime()
	dst, err := s.of.SignBatch(dst, digests)
	s.times.addAll(began, len(digests)/sha256.Size, err)
	return dst, err
}

// timedMessages does, too.
type timedMessages struct {
	timedSigner
	of signer.MessageSigner
}

// SignMessages implements signer.MessageSigner.
func (s timedMessages) SignMessages(dst, messages []byte, ends []int, hash crypto.Hash) ([]byte, error) {
	began := machineTime()
	dst, err := s.of.SignMessages(dst, messages, ends, hash)
	s.times.addAll(began, len(ends), err)
	return dst, err
}

// counts is what this process has done since it began.
type counts struct {
	loads, signings, verifications, hooks, appends, events, probes, updates tally

	made       atomic.Uint64 // signatures
	appendTime histogram
	keystores  keystoreTimes
}

// Counts is what this process has done since it began.
type Counts struct {
	Loads         []Count // kind: file, transfer or update; outcome: loaded, unchanged, failed
	Updates       []Count // dynamic updates; outcome: accepted, unchanged, prerequisite, refused, failed
	Signings      []Count // kind: how, as in Mode; outcome: signed, failed
	Verifications []Count // outcome: passed, failed
	Hooks         []Count // kind: review, parent, checkpoint; outcome: ok, rejected, timeout, not-started, failed
	Appends       []Count // outcome: stored, conflict, no-space, no-answer, denied, failed
	Events        []Count // kind: type of the events that this process stored
	Probes        []Count // kind: resolver; outcome: as of a ProbeAnswer
	Made          uint64  // signatures
	AppendTime    Histogram
	Keystores     []KeystoreTime
}

func (c *counts) read() Counts {
	return Counts{
		Loads: c.loads.list(), Signings: c.signings.list(), Verifications: c.verifications.list(), Hooks: c.hooks.list(),
		Appends: c.appends.list(), Events: c.events.list(), Probes: c.probes.list(), Updates: c.updates.list(),
		Made: c.made.Load(), AppendTime: c.appendTime.read(), Keystores: c.keystores.list(),
	}
}

// loaded counts a load that ended; one that was broken off does not count.
func (c *counts) loaded(ctx context.Context, source string, began time.Time, err error) {
	kind := "file"
	if IsTransfer(source) {
		kind = "transfer"
	}
	c.loadedBy(ctx, kind, began, err)
}

// updated counts a load by dynamic updates that ended.
func (c *counts) updated(ctx context.Context, began time.Time, err error) {
	c.loadedBy(ctx, "update", began, err)
}

func (c *counts) loadedBy(ctx context.Context, kind string, began time.Time, err error) {
	outcome := "loaded"
	switch {
	case errors.Is(err, errUnchanged):
		outcome = "unchanged"
	case err != nil && ctx.Err() != nil:
		return
	case err != nil:
		outcome = "failed"
	}
	c.loads.add(kind, outcome, machineTime().Sub(began))
}

// signed counts a signing that ended.
func (c *counts) signed(ctx context.Context, mode Mode, facts *event.InstanceSigned, began time.Time, err error) {
	outcome := "signed"
	switch {
	case err != nil && ctx.Err() != nil:
		return
	case err != nil:
		outcome = "failed"
	default:
		c.made.Add(facts.Made)
	}
	c.signings.add(string(mode), outcome, machineTime().Sub(began))
}

// appended counts an append to the journal.
func (c *counts) appended(ctx context.Context, events []event.Event, began time.Time, err error) {
	outcome := "failed"
	took := machineTime().Sub(began)
	switch {
	case err == nil:
		outcome = "stored"
		c.appendTime.observe(took)
		for i := range events {
			c.events.add(events[i].Type, "", 0)
		}
	case ctx.Err() != nil:
		return
	case errors.Is(err, journal.ErrConflict):
		outcome = "conflict"
	case errors.Is(err, journal.ErrNoSpace):
		outcome = "no-space"
	case errors.Is(err, journal.ErrStorage):
		outcome = "no-answer"
	case errors.Is(err, journal.ErrDenied):
		outcome = "denied"
	}
	c.appends.add("", outcome, took)
}

// hook runs a hook and counts it.
func (e *Engine) hook(ctx context.Context, kind string, h Hook, env []string) (event.HookOutcome, error) {
	began := machineTime()
	out, err := runHook(ctx, h, env)
	outcome := "ok"
	switch {
	case ctx.Err() != nil: // nobody waits for it any more
		return out, err
	case errors.Is(err, errHookStart):
		outcome = "not-started"
	case err != nil:
		outcome = "failed"
	case out.TimedOut:
		outcome = "timeout"
	case out.ExitCode != 0:
		outcome = "rejected"
	}
	e.counts.hooks.add(kind, outcome, machineTime().Sub(began))
	return out, err
}
