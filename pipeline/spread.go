package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer"
	"sluice/signer/zone"
)

// leastSlices is in how many slices signatures are replaced at the least, where
// each has leastSlice of them.
const leastSlices = 24

// keyRollTime is over how long signatures by other keys than those that sign
// are replaced. Longer than this takes nothing: each is made again by then.
func (p Policy) keyRollTime() time.Duration {
	longest := p.set.lifetime - p.set.remain
	if p.set.keyRoll < 0 {
		return longest
	}
	return min(p.set.keyRoll, longest)
}

// rollSlices is in how many slices so many signatures are replaced, at least
// 1: one a refresh interval, more where that would be few, none smaller than
// leastSlice.
func (p Policy) rollSlices(signatures uint64) uint64 {
	roll := uint64(p.keyRollTime() / time.Second)
	most := max(leastSlices, roll/seconds64(p.set.refreshInterval))
	return max(1, min(most, roll, (signatures+leastSlice-1)/leastSlice))
}

func seconds64(d time.Duration) uint64 { return max(1, uint64(max(0, d)/time.Second)) } //nolint:gosec // not negative

// refreshedWithin is how much of its time a signature has left at the most
// that is renewed by now, if refreshes keep up.
func (p Policy) refreshedWithin() time.Duration {
	if p.keepsSerial() {
		return p.set.remain/2 + p.refreshLead()
	}
	return p.set.remain + p.refreshLead()
}

// atOnce reports whether signatures are exchanged at once, whatever the policy
// says: a rollover of the keys that sign the zone is an emergency.
func atOnce(s State) bool {
	return slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool {
		return r.Emergency && r.Step > 0 && (r.Kind == keymgr.RollZSK || r.Kind == keymgr.RollCSK || r.Kind == keymgr.RollAlgorithm)
	})
}

// zoneSigners is those of the keys that sign more than the keys, sorted.
func zoneSigners(ks keymgr.KeySet, signers []string) []string {
	var out []string
	for _, id := range signers {
		if k, ok := ks.ByID(id); ok && k.SignsZone() {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// behind is how many RRsets of an instance are signed otherwise than by
// exactly these keys; known is false where nobody has counted.
func behind(f event.InstanceSigned, signers []string) (n uint64, known bool) {
	for _, by := range f.SignedBy {
		if !slices.Equal(by.Keys, signers) {
			n += by.RRsets
		}
	}
	return n, len(f.SignedBy) > 0
}

// spreading is an exchange of signatures in which a signing takes part.
type spreading struct {
	event.Exchange                // as the new instance has it
	begin          int64          // what expires from here up to Reached has its turn
	want           []sigName      // the keys that are to sign
	apex           []byte         // owner key of the apex
	view           zoneSignatures // of the previous instance
}

// sigName is how an RRSIG names its key.
type sigName struct {
	algorithm uint8
	tag       uint16
}

// zoneSignatures is what a spreading reads.
type zoneSignatures interface {
	DueFrom(at int64, fn func(key []byte, sigs zone.Value, expires, floor int64) (more bool, err error)) error
}

// spreadOf is the exchange that a signing takes part in; nil where all RRsets
// are signed by the keys that sign, or will be at once.
func spreadOf(s State, c Sign, p Policy, keys []signer.Key, now time.Time) *spreading {
	apex, err := apexOf(s)
	if err != nil || c.Base == 0 || c.AtOnce || s.Published == nil {
		return nil
	}
	base := s.Published.Signed.Facts
	want := zoneSigners(s.Keys, c.Signers)
	left, known := behind(base, want)
	began := slices.Equal(zoneSigners(s.Keys, base.Signers), want)
	x := &spreading{apex: zone.AppendOwnerKey(nil, apex)}
	switch sp := base.Exchange; {
	case known && left == 0, began && sp == nil:
		return nil
	case began:
		x.Exchange = *sp
		if sp.Reached >= sp.To && now.Unix() >= sp.Until && now.Before(resignAt(s, &s.Published.Signed, p, s.Published.Loaded.Facts.Serial)) {
			return nil // refreshes have left something over
		}
		if now.Unix() < sp.Since { // the clock was ahead then
			x.Since, x.Until = now.Unix(), now.Add(p.keyRollTime()).Unix()
		}
	case p.keyRollTime() < time.Second, known && left <= leastSlice, base.Signatures <= leastSlice:
		return nil
	default:
		x.Exchange = newSpread(base, p, now)
	}
	x.begin = x.Reached
	x.reach(now, base.Signatures, began && c.Refresh == 0, p)
	var all []sigName
	for _, k := range keys {
		name := sigName{k.DNSKEY[3], zone.KeyTag(k.DNSKEY)}
		if slices.Contains(all, name) {
			return nil // whose signatures are left could not be told
		}
		if all = append(all, name); k.SignsZone {
			x.want = append(x.want, name)
		}
	}
	return x
}

// Exchange says in which exchange of signatures a signing takes part: turn is
// which RRsets have their turn, nil where all that are signed otherwise have it,
// and left what the new instance says of it, given whose signatures it has. It
// is pure.
func (s State) Exchange(p Policy, c Sign, keys []signer.Key, now time.Time) (turn *signer.Spread, left func([]event.SignedBy) *event.Exchange) {
	x, want := spreadOf(s, c, p, keys, now), zoneSigners(s.Keys, c.Signers)
	return x.params(), func(by []event.SignedBy) *event.Exchange { return x.left(by, want) }
}

// newSpread begins an exchange. What is refreshed until its end by itself
// waits for that; the slices are for the rest.
func newSpread(base event.InstanceSigned, p Policy, now time.Time) event.Exchange {
	roll := p.keyRollTime()
	sp := event.Exchange{Since: now.Unix(), Until: now.Add(roll).Unix(), To: base.Expiration + 1}
	sp.From = min(sp.To, now.Add(roll+p.refreshedWithin()).Unix())
	sp.Reached = sp.From
	window := max(1, p.window().Seconds())
	share := min(1, float64(sp.To-sp.From)/window) * float64(base.Signatures)
	sp.Slices = p.rollSlices(uint64(share))
	return sp
}

// spreadSpan is the length of time over which the slices are.
func spreadSpan(sp event.Exchange) uint64 { return uint64(max(1, sp.Until-sp.Since)) } //nolint:gosec // positive

// reach takes up what is due: twice a slice at most. New content takes a
// little along, and all where a further version would leave the source's
// serial.
func (x *spreading) reach(now time.Time, signatures uint64, along bool, p Policy) {
	if x.Reached >= x.To {
		return
	}
	length, span := uint64(x.To-x.From), spreadSpan(x.Exchange)                     //nolint:gosec // positive
	passed := min(span, uint64(max(0, now.Unix()-x.Since))) + max(1, span/x.Slices) //nolint:gosec // not negative
	due := x.From + int64(min(length, mulDiv(length, passed, span)))                //nolint:gosec // at most length
	most := x.begin + 2*int64((length+x.Slices-1)/x.Slices)                         //nolint:gosec // likewise
	if along {
		few := mulDiv(seconds64(p.window()), alongSlice, max(1, signatures))
		if most = x.begin + int64(min(few, length)); p.keepsSerial() { //nolint:gosec // likewise
			most = x.To
		}
	}
	x.Reached = max(x.begin, min(due, most))
}

// mulDiv is a*b/c, rounded up; c is above 0. What is too large is the largest.
func mulDiv(a, b, c uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	lo, carry := bits.Add64(lo, c-1, 0)
	if hi += carry; hi >= c {
		return math.MaxUint64
	}
	out, _ := bits.Div64(hi, lo, c)
	return out
}

// nextSlice is when the next slice of an instance's exchange is due; once all
// are done, when what refreshes have left over is.
func nextSlice(sp event.Exchange) time.Time {
	if sp.Reached >= sp.To {
		return time.Unix(sp.Until, 0)
	}
	done, length := uint64(max(0, sp.Reached-sp.From)), uint64(sp.To-sp.From)                      //nolint:gosec // positive
	return time.Unix(sp.Since+int64(min(spreadSpan(sp), mulDiv(done, spreadSpan(sp), length))), 0) //nolint:gosec // within the span
}

// exchangeAt is when signatures of an instance are replaced that are not by
// the keys that sign. Where a version of its own would leave the source's
// serial, what the source brings takes them along, and under SerialKeep what is
// left at the end goes by itself, as keys do not wait.
func exchangeAt(s State, signed *Signed, p Policy, source uint32) time.Time {
	sp := signed.Facts.Exchange
	switch {
	case sp == nil || signed.mode() != ModeSign:
		return time.Unix(never, 0)
	case !leavesSource(s, p, source):
	case p.set.serial == SerialKeep:
		return time.Unix(sp.Until, 0)
	default:
		return time.Unix(never, 0)
	}
	if atOnce(s) {
		return time.Unix(sp.Since, 0)
	}
	return nextSlice(*sp)
}

// params is what the signer is told of it.
func (x *spreading) params() *signer.Spread {
	if x == nil {
		return nil
	}
	return &signer.Spread{From: x.From, To: x.Reached}
}

// takes reports whether an item has its turn that is signed otherwise than it
// should be.
func (x *spreading) takes(key []byte, sigs zone.Value, expires int64) bool {
	return x != nil && expires >= x.begin && expires < x.Reached && !x.signed(key, sigs)
}

// signed reports whether an item is signed by the keys that are to sign.
func (x *spreading) signed(key []byte, sigs zone.Value) bool {
	_, owner, t, err := zone.SplitKey(key)
	if err != nil {
		return true
	}
	if t == zone.TypeDNSKEY || t == zone.TypeCDS || t == zone.TypeCDNSKEY {
		if string(owner) == string(x.apex) {
			return true // never waits
		}
	}
	n := 0
	for rdata := range sigs.Records() {
		if len(rdata) < 18 || !slices.Contains(x.want, sigName{rdata[2], binary.BigEndian.Uint16(rdata[16:])}) {
			return false
		}
		n++
	}
	return n == len(x.want)
}

// each calls fn with the keys of the items that have their turn.
func (x *spreading) each(fn func(key []byte) error) error {
	if x == nil || x.begin >= x.Reached {
		return nil
	}
	return x.view.DueFrom(x.begin, func(key []byte, sigs zone.Value, at, floor int64) (bool, error) {
		switch {
		case floor >= x.Reached:
			return false, nil
		case x.takes(key, sigs, at):
			return true, fn(key)
		}
		return true, nil
	})
}

// left is the exchange as an instance has it; nil where all is done.
func (x *spreading) left(by []event.SignedBy, want []string) *event.Exchange {
	if x == nil {
		return nil
	}
	if n, known := behind(event.InstanceSigned{SignedBy: by}, want); known && n == 0 {
		return nil
	}
	out := x.Exchange
	return &out
}

// errCount reports counts by key that do not fit each other.
var errCount = errors.New("the signatures by key do not add up: sluice zone resign --full signs anew")

// signedByKeys names the keys of what a full signing counted.
func signedByKeys(counts map[uint64]int64, keys []signer.Key) []event.SignedBy {
	var out []event.SignedBy
	for mask, n := range counts {
		by := event.SignedBy{RRsets: uint64(max(0, n)), Keys: []string{}} //nolint:gosec // not negative
		for i, k := range keys {
			if mask&(1<<i) != 0 {
				by.Keys = append(by.Keys, zone.KeyID(k.DNSKEY))
			}
		}
		slices.Sort(by.Keys)
		out = append(out, by)
	}
	slices.SortFunc(out, func(a, b event.SignedBy) int {
		return strings.Compare(strings.Join(a.Keys, " "), strings.Join(b.Keys, " "))
	})
	return out
}

// maskCounts is counts of an instance as the signer tells them; known is false
// where keys signed that are not given any more.
func maskCounts(by []event.SignedBy, keys []signer.Key) (counts map[uint64]int64, known bool) {
	bits := map[string]uint64{}
	for i, k := range keys {
		bits[zone.KeyID(k.DNSKEY)] = 1 << i
	}
	counts = map[uint64]int64{}
	for _, b := range by {
		mask := uint64(0)
		for _, id := range b.Keys {
			if bits[id] == 0 {
				return nil, false
			}
			mask |= bits[id]
		}
		counts[mask] += int64(b.RRsets) //nolint:gosec // of one zone
	}
	return counts, len(by) > 0
}

// addCounts adds differences to counts, and reports whether they fit.
func addCounts(counts, delta map[uint64]int64) bool {
	for mask, n := range delta {
		switch counts[mask] += n; {
		case counts[mask] < 0:
			return false
		case counts[mask] == 0:
			delete(counts, mask)
		}
	}
	return true
}

// servedOf is whose keys and signatures an instance has.
func servedOf(ks keymgr.KeySet, f event.InstanceSigned) keymgr.Served {
	out := keymgr.Served{Keys: f.Keys, Signers: f.Signers}
	if len(f.SignedBy) == 0 {
		return out
	}
	want := zoneSigners(ks, f.Signers)
	out.Signers = nil
	for _, id := range f.Signers {
		partly := slices.Contains(want, id) && slices.ContainsFunc(f.SignedBy, func(by event.SignedBy) bool { return !slices.Contains(by.Keys, id) })
		if !partly {
			out.Signers = append(out.Signers, id)
		}
	}
	for _, by := range f.SignedBy {
		out.Sets = append(out.Sets, by.Keys)
		for _, id := range by.Keys {
			if !slices.Contains(f.Signers, id) && !slices.Contains(out.Signers, id) {
				out.Signers = append(out.Signers, id)
			}
		}
	}
	slices.Sort(out.Signers)
	out.Left, _ = behind(f, want)
	if f.Exchange != nil {
		out.Until = time.Unix(f.Exchange.Until, 0).UTC()
	}
	return out
}

// signingTerm is how long it takes until signatures by other keys are replaced:
// those that are being replaced, or all.
func (s State) signingTerm(p Policy, now time.Time) keymgr.Term {
	if s.Published == nil || s.Published.Signed.mode() != ModeSign {
		return keymgr.Term{}
	}
	f := s.Published.Signed.Facts
	if f.Exchange != nil {
		return keymgr.Term{Value: max(0, time.Unix(f.Exchange.Until, 0).Sub(now)), Source: "what is left of signer.key-roll-time"}
	}
	if f.Signatures <= leastSlice {
		return keymgr.Term{}
	}
	return keymgr.Term{Value: p.keyRollTime(), Source: "signer.key-roll-time"}
}

// exchangeStatus tells how far an exchange of the published signatures is.
func (r *runner) exchangeStatus(s State) *ExchangeStatus {
	if s.Published == nil || s.Published.Signed.Facts.Exchange == nil {
		return nil
	}
	f := s.Published.Signed.Facts
	st := &ExchangeStatus{Left: s.Served.Left, Since: time.Unix(f.Exchange.Since, 0).UTC(), Until: time.Unix(f.Exchange.Until, 0).UTC()}
	want := zoneSigners(s.Keys, f.Signers)
	for _, by := range f.SignedBy {
		if st.RRsets += by.RRsets; !slices.Equal(by.Keys, want) {
			st.Keys = append(st.Keys, by.Keys...)
		}
	}
	slices.Sort(st.Keys)
	st.Keys = slices.Compact(st.Keys)
	if p, err := r.e.boundPolicy(s); err == nil {
		if at := exchangeAt(s, &s.Published.Signed, p, s.sourceSerial(f.Loaded)); at.Unix() < never {
			st.NextAt = timeOrNil(at.UTC())
		}
	}
	return st
}

// describeExchange tells whose signatures an instance has while they are
// exchanged; "" where they are not.
func describeExchange(f *event.InstanceSigned) string {
	if f.Exchange == nil {
		return ""
	}
	parts := make([]string, 0, len(f.SignedBy))
	for _, by := range f.SignedBy {
		parts = append(parts, fmt.Sprintf("%d RRsets by %s", by.RRsets, strings.Join(by.Keys, " and ")))
	}
	return fmt.Sprintf("; signatures are exchanged until %s: %s", time.Unix(f.Exchange.Until, 0).UTC().Format(time.RFC3339), strings.Join(parts, ", "))
}
