package pipeline

import (
	"errors"
	"math"
	"time"

	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer"
	"sluice/signer/zone"
)

const (
	// leastSlice is how many signatures a refresh may always make again: a
	// small zone is refreshed at once.
	leastSlice = 250
	// fewDue is up to how many signatures are always made again by themselves;
	// above, and above one RRset in eight, one pass over the zone costs less.
	fewDue = 1000
	// urgentPart of the remain-time is how much of its time a signature may
	// have left that waits for the next slice.
	urgentPart = 8
	// alongSlice is how many signatures new content takes along that are due.
	alongSlice = 1000
	// fewReads is how many signatures are looked at to find the next one to
	// expire when nothing is due. In a large zone that is a little too early.
	fewReads = 32
)

// never is what comes when something is not done at all.
const never = math.MaxInt32 << 8

// refreshDue is when the signatures of an instance are to be made again: when
// the first of them has its remain-time left, and a while before; far away
// where they are not made here.
func refreshDue(signed *Signed, p Policy) time.Time {
	if signed.mode() != ModeSign {
		return time.Unix(never, 0)
	}
	return time.Unix(signed.Facts.Earliest, 0).Add(-p.RemainTime() - p.refreshLead())
}

// resignAt is when the signatures of an instance are made again by themselves:
// when that is due. Where it would leave the source's serial, it waits for that
// to move, which brings them along: under SerialKeep until half of the
// remain-time is left, under SerialKeepStrict for ever. source is the serial
// of what would be signed.
func resignAt(s State, signed *Signed, p Policy, source uint32) time.Time {
	due := refreshDue(signed, p)
	switch {
	case signed.mode() != ModeSign || !leavesSource(s, p, source):
		return due
	case p.set.serial == SerialKeep:
		return due.Add(p.RemainTime() / 2)
	}
	return time.Unix(never, 0)
}

// wakeResign waits for it; source is the serial of what would be signed.
func (d *Decision) wakeResign(at time.Time, s State, p Policy, source uint32) {
	switch {
	case at.Unix() >= never:
	case leavesSource(s, p, source):
		d.wake(at, "signatures are made again under a serial of our own, unless the source's moves before")
	default:
		d.wake(at, "signatures are made again")
	}
}

// wakeExchange waits for the next slice of an exchange of signatures.
func (d *Decision) wakeExchange(at time.Time) {
	if at.Unix() < never {
		d.wake(at, "further signatures are replaced by those of the keys that sign now")
	}
}

// staleAt is when a signed instance that waits is made again because its
// signatures grow old: one that could not take all that was due is not at once.
func staleAt(s State, signed *Signed, p Policy) time.Time {
	at := resignAt(s, signed, p, s.sourceSerial(signed.Facts.Loaded))
	if least := signed.Time.Add(p.set.refreshInterval); at.Before(least) {
		return least
	}
	return at
}

// signedAhead reports whether an instance was signed by a clock that was
// ahead of now: its signatures are not valid yet.
func signedAhead(signed *Signed, now time.Time) bool {
	return now.Before(time.Unix(signed.Facts.Inception, 0))
}

// decideRefresh keeps fresh what is published while something newer waits,
// was rejected or failed. It makes none while one waits for its verdict, and
// after a rejection tries again only when somebody asks for it, or a quarter of
// the time that was left is over, an hour at least.
func decideRefresh(d *Decision, s State, p Policy, m Moment) Command {
	pub, now := s.Published, m.Now
	if pub == nil || pub.Loaded.Broken != "" || pub.Signed.mode() != ModeSign {
		return nil
	}
	source := pub.Loaded.Facts.Serial
	rejected := s.RefreshRejected
	if rejected != nil && rejected.Seq < pub.Signed.Seq {
		rejected = nil
	}
	asked := rejected != nil && m.Resign != 0
	due, exchange := resignAt(s, &pub.Signed, p, source), exchangeAt(s, &pub.Signed, p, source)
	if at := signedStanding(s, p, now); at == pending || at == toOpen {
		exchange = time.Unix(never, 0) // it overtakes nothing
	}
	if !asked && now.Before(due) && now.Before(exchange) && !signedAhead(&pub.Signed, now) {
		d.wakeResign(due, s, p, source)
		d.wakeExchange(exchange)
		return nil
	}
	c := resignCommand(s, p, pub.Loaded.Seq)
	if !c.possible() {
		return nil
	}
	c.Refresh = pub.Signed.Seq
	if at := signedStanding(s, p, now); at == pending || at == toOpen {
		pure := madeOf(pub.Signed.Facts).sameWay(c.made())
		if s.Signed.Facts.Loaded == pub.Loaded.Seq || !pure && p.Review(event.StageSigned).Manual {
			return nil
		}
	}
	switch {
	case asked:
		if c.Asked = m.Resign; m.ResignFull {
			c.Base = 0
		}
	case rejected != nil:
		left := time.Unix(pub.Signed.Facts.Earliest, 0).Sub(rejected.Time)
		if again := rejected.Time.Add(max(left/4, time.Hour)); stampHolds(rejected.Time, again, now) {
			d.wake(again, "signatures are made again, after the last ones were dropped")
			return nil
		}
	}
	return c
}

// slice is the signatures that a signing makes again because they are due: of
// those that expire before a time, the first to expire; and all that are
// urgent.
type slice struct {
	view   *store.View // of the instance that has them
	before int64       // epoch seconds
	most   int         // 0: none, not even urgent ones
	urgent int64       // what expires before waits for no further slice
	base   int64       // nothing of the instance expires before
	// spread is the exchange of which a slice is done too; nil for none.
	spread *spreading
}

// dueSlice is what a signing makes again of what is published because it is
// due, the view left out. New content takes a little along, and all where a
// refresh would leave the source's serial.
func dueSlice(s State, c Sign, p Policy, now time.Time) slice {
	if s.Published == nil {
		return slice{}
	}
	f := s.Published.Signed.Facts
	d := slice{
		before: now.Add(p.freshFor()).Unix(), urgent: now.Add(p.RemainTime() / urgentPart).Unix(),
		most: p.SliceSize(f.Signatures), base: f.Earliest,
	}
	if c.Refresh == 0 {
		if d.most = alongSlice; p.keepsSerial() {
			d.most = math.MaxInt
		}
		if now.Before(refreshDue(&s.Published.Signed, p)) {
			d.most = 0
		}
	}
	return d
}

// takes reports whether the slice has a signature that expires at a time,
// with n taken before it.
func (d slice) takes(at int64, n int) bool {
	return d.most > 0 && at < d.before && (n < d.most || at < d.urgent)
}

// each calls due for what belongs to the slice and then rest for what else
// the instance has; either ends the walk by wanting no more.
func (d slice) each(due, rest func(key []byte, sigs zone.Value, at, floor int64) (more bool, err error)) error {
	n := 0
	return d.view.Due(func(key []byte, sigs zone.Value, at, floor int64) (bool, error) {
		if d.takes(at, n) {
			n++
			return due(key, sigs, at, floor)
		}
		return rest(key, sigs, at, floor)
	})
}

// keys calls fn with the keys of the slice.
func (d slice) keys(fn func(key []byte) error) error {
	n := 0
	if d.most == 0 {
		return nil
	}
	return d.each(
		func(key []byte, _ zone.Value, _, floor int64) (bool, error) {
			n++
			return n < d.most || floor < d.urgent, fn(key)
		},
		func(_ []byte, _ zone.Value, _, floor int64) (bool, error) {
			return floor < d.before && (n < d.most || floor < d.urgent), nil
		})
}

// errMany ends the counting of signatures.
var errMany = errors.New("many signatures")

// larger reports whether the slice has more than n signatures.
func (d slice) larger(n int) (bool, error) {
	if d.most <= n && d.base >= d.urgent && d.spread == nil {
		return false, nil
	}
	count := 0
	one := func([]byte) error {
		if count++; count > n {
			return errMany
		}
		return nil
	}
	err := d.keys(one)
	if err == nil {
		err = d.spread.each(one)
	}
	if errors.Is(err, errMany) {
		return true, nil
	}
	return false, err
}

// rest knows what expires first of what a signing leaves as it was. It holds
// a bounded number of keys.
type rest struct {
	left  map[string]int64 // those that expire first, by key
	other int64            // no other one that was looked at expires before
	bound int64            // nor does any that was not
}

// maxLeft bounds rest.left.
const maxLeft = 256

func (d slice) rest() (*rest, error) {
	r := &rest{left: map[string]int64{}, other: math.MaxInt64, bound: math.MaxInt64}
	first, seen := int64(math.MaxInt64), 0
	pass := func([]byte, zone.Value, int64, int64) (bool, error) { return true, nil }
	err := d.each(pass, func(key []byte, sigs zone.Value, at, floor int64) (bool, error) {
		if d.spread.takes(key, sigs, at) {
			return true, nil
		}
		if seen >= fewReads && (d.most == 0 || floor > first) {
			r.bound = max(floor, d.base)
			return false, nil
		}
		seen++
		if len(r.left) < maxLeft {
			r.left[string(key)] = at
		} else {
			r.other = min(r.other, at)
		}
		first = min(first, at)
		return true, nil
	})
	return r, err
}

// earliest is when the first of the rest expires, or a while before; false
// where there is none.
func (r *rest) earliest() (at int64, some bool) {
	at = min(r.other, r.bound)
	for _, t := range r.left {
		at = min(at, t)
	}
	return at, at != math.MaxInt64
}

// restSink tells a rest what is made again.
type restSink struct {
	signer.Sink
	rest *rest
}

// Put implements signer.Sink.
func (s restSink) Put(key, value []byte) error {
	if k := zone.Kind(key[0]); k == zone.KindSigs || k == zone.KindChainSigs {
		delete(s.rest.left, string(key))
	}
	return s.Sink.Put(key, value)
}
