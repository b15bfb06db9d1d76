package keymgr

import "time"

// TTLs remembers the TTLs that an RRset had, so that the largest one that a
// cache may still hold can be told. The zero value has seen none. It is bounded
// and its JSON is the same for the same calls.
type TTLs []SeenTTL

// SeenTTL is a TTL in seconds and when the RRset was last handed out with it.
type SeenTTL struct {
	TTL  uint32    `json:"ttl"`
	Last time.Time `json:"last"`
}

// maxTTLs bounds TTLs: above, the two oldest become one that lasts as long as
// both.
const maxTTLs = 16

func (s SeenTTL) until() time.Time { return s.Last.Add(time.Duration(s.TTL) * time.Second) }

// ttlsKept is for how long TTLs are kept that have run out: a server that is
// late hands them out for as long as the zone's EXPIRE.
const ttlsKept = 100 * 24 * time.Hour

// See returns t with a TTL that was handed out at a time; t stays as it was.
func (t TTLs) See(ttl uint32, at time.Time) TTLs {
	next := SeenTTL{TTL: ttl, Last: at.UTC()}
	var out TTLs
	for _, old := range t {
		switch {
		case old.TTL <= ttl && !old.until().After(next.until()), !old.until().Add(ttlsKept).After(at):
		default:
			out = append(out, old)
		}
	}
	if len(out) >= maxTTLs {
		a, b := out[0], out[1]
		a.TTL = max(a.TTL, b.TTL)
		if a.Last.Before(b.Last) {
			a.Last = b.Last
		}
		out = append(TTLs{a}, out[2:]...)
	}
	return append(out, next)
}

// Largest is the largest TTL, in seconds, that a cache may hold at a time,
// the last one seen included; 0 where none was seen. Where late servers may
// hand it out for a while longer, that is the largest at a time so much earlier.
func (t TTLs) Largest(now time.Time) uint32 {
	var most uint32
	for i, s := range t {
		if i == len(t)-1 || s.until().After(now) {
			most = max(most, s.TTL)
		}
	}
	return most
}
