package pipeline

import (
	"errors"
	"fmt"
	"math"
	"time"

	"sluice/signer/zone"
)

// SerialPolicy says where the serial of a signed instance comes from.
type SerialPolicy string

// The serial policies.
const (
	// SerialKeep publishes the source's serial, and where that does not move
	// forward, the previous one plus one. Signatures alone wait for it to move
	// until half of the remain-time is left.
	SerialKeep SerialPolicy = "keep"
	// SerialKeepStrict publishes the source's serial or nothing, whatever
	// becomes of the signatures.
	SerialKeepStrict SerialPolicy = "keep-strict"
	// SerialCounter counts up by one and ignores the source, whose serial is
	// only where it begins.
	SerialCounter SerialPolicy = "counter"
	// SerialUnixTime is the time in epoch seconds.
	SerialUnixTime SerialPolicy = "unix-time"
	// SerialDateCounter is YYYYMMDDnn in UTC, nn from 00.
	SerialDateCounter SerialPolicy = "date-counter"
)

// ErrSerial reports a source whose serial does not move forward under
// SerialKeepStrict.
var ErrSerial = errors.New("the source's serial does not move forward")

// NextSerial is the serial of the next signed instance. source is the loaded
// instance's; previous the last published one, nil where there is none; floor
// one above which all published serials stand, nil where there is none. The
// result is after both of them in the sense of RFC 1982, whatever the clock
// says. Under SerialKeep, a result other than source means that the source's
// serial did not move forward and a notice is due.
func NextSerial(policy SerialPolicy, source zone.Serial, previous, floor *zone.Serial, now time.Time) (zone.Serial, error) {
	base, bound := highest(previous, floor)
	var wanted zone.Serial
	switch policy {
	case SerialKeep, SerialKeepStrict:
		wanted = source
	case SerialCounter:
		if bound {
			return after(base), nil
		}
		wanted = source
	case SerialUnixTime:
		wanted = clockSerial(now.Unix())
	case SerialDateCounter:
		now = now.UTC()
		wanted = clockSerial(int64(now.Year())*1_000_000 + int64(now.Month())*10_000 + int64(now.Day())*100)
	default:
		return 0, fmt.Errorf("serial policy %q is not known", policy)
	}
	if !bound || base.Before(wanted) {
		return wanted, nil
	}
	if policy == SerialKeepStrict {
		return 0, fmt.Errorf("%w: the source has %d, the next must be above %d; raise it at the source, or use serial-policy keep",
			ErrSerial, source, base)
	}
	return after(base), nil
}

// keepsSerial reports whether what is made here has the source's serial, where
// it can.
func (p Policy) keepsSerial() bool {
	return p.set.serial == SerialKeep || p.set.serial == SerialKeepStrict
}

// serials is the serial of the newest signed instance, and the floor; nil where
// there is none.
func (s State) serials() (previous, floor *zone.Serial) {
	if s.Signed != nil {
		n := zone.Serial(s.Signed.Facts.Serial)
		previous = &n
	}
	if s.SerialFloor != nil {
		n := zone.Serial(*s.SerialFloor)
		floor = &n
	}
	return previous, floor
}

// leavesSource reports whether the policy wants the source's serial and the
// next instance cannot have it: it did not move forward. Under SerialKeep nothing
// waits for that while the zone is held: the source is not read.
func leavesSource(s State, p Policy, source uint32) bool {
	if s.Held != nil && p.set.serial == SerialKeep {
		return false
	}
	base, bound := highest(s.serials())
	return p.keepsSerial() && bound && !base.Before(zone.Serial(source))
}

// waitsForSource reports whether what is published cannot be made again under
// the source's serial that the policy wants, nor can what is approved be made.
func waitsForSource(s State, p Policy) (source uint32, waits bool) {
	source = s.Published.Loaded.Facts.Serial
	if content := wantedContent(s, p); content != nil {
		source = content.Facts.Serial
	}
	return source, leavesSource(s, p, source)
}

// sourceSerial is the serial of a loaded instance; 0 where it is not known.
func (s State) sourceSerial(loaded uint64) uint32 {
	if l := s.loaded(loaded); l != nil {
		return l.Facts.Serial
	}
	return 0
}

// highest is the later of the two. Where neither precedes the other, which
// RFC 1982 leaves open, it is the one that was published.
func highest(previous, floor *zone.Serial) (base zone.Serial, bound bool) {
	switch {
	case previous == nil && floor == nil:
		return 0, false
	case previous == nil:
		return *floor, true
	case floor == nil || !previous.Before(*floor):
		return *previous, true
	}
	return *floor, true
}

// after is the serial after s. Zero is left out, as by primaries that wrap
// (RFC 2136, 3.6): some software takes it for no serial.
func after(s zone.Serial) zone.Serial {
	if s == math.MaxUint32 {
		return 1
	}
	return s + 1
}

// clockSerial takes the low 32 bits, which is how time goes round in RFC 1982.
func clockSerial(n int64) zone.Serial {
	return zone.Serial(uint32(n)) //nolint:gosec // the wrap is meant
}
