package simulate

import (
	"crypto/sha256"
	"fmt"
	"math"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer"
	"sluice/signer/zone"
)

// signatures is the RRSIGs of the zone, one an RRset, as the signer spreads
// them.
type signatures struct {
	expires []int64 // epoch seconds, by RRset
	zoneBy  []string
	keysBy  []string

	versions, made, largest int
	left                    time.Duration // the least that one had when the next version came

	// Since the last line about them.
	since                           time.Time
	runs, runMade, runLeast, runMax int
}

func newSignatures(rrsets int) signatures {
	return signatures{expires: make([]int64, rrsets+apexRRsets), left: math.MaxInt64}
}

// apexRRsets is how many RRsets the signer makes for the apex that the keys of
// the DNSKEY RRset sign: DNSKEY, CDS, CDNSKEY.
const apexRRsets = 3

// sign says what a signing run would have recorded.
func (r *run) sign(c pipeline.Sign) ([]event.Facts, error) {
	s, p := r.state, r.set.Policy
	apex, err := zone.ParseName(s.Name)
	if err != nil {
		return nil, err
	}
	serial, err := s.NextSerial(p, s.Loaded.Facts.Serial, r.now)
	if err != nil {
		return nil, err
	}
	params := p.SignParams(apex, serial, r.now)
	keysBy, zoneBy := r.signing(c.Signers, (*keymgr.Key).SignsKeys), r.signing(c.Signers, (*keymgr.Key).SignsZone)
	whole := c.Base == 0
	made := r.sigs.renew(renewal{
		params: params, now: r.now, whole: whole,
		apex: whole || !slices.Equal(keysBy, r.sigs.keysBy) || c.Refresh == 0,
		zone: whole || !slices.Equal(zoneBy, r.sigs.zoneBy),
		most: p.SliceSize(uint64(len(r.sigs.expires))), urgent: r.now.Add(p.RemainTime() / 8),
	})
	r.sigs.keysBy, r.sigs.zoneBy = keysBy, zoneBy
	total := len(r.sigs.expires)
	f := &event.InstanceSigned{
		Loaded: c.Loaded, Serial: uint32(serial), Base: c.Base, ContentDigest: s.Loaded.Facts.ContentDigest,
		SignedDigest: sha256.Sum256(fmt.Appendf(nil, "%d", serial)),
		Keys:         c.Keys, Signers: c.Signers, CDS: c.CDS, Denial: string(params.Denial), Params: c.Params,
		Records: uint64(2 * total), Signatures: uint64(total), Made: uint64(made), Reused: uint64(total - made), //nolint:gosec // not negative
		Inception: params.Inception.Unix(), Expiration: params.Expiration.Unix(), Earliest: slices.Min(r.sigs.expires),
	}
	if s.Published != nil {
		f.Previous = s.Published.Signed.Facts.Serial
	}
	return []event.Facts{f}, nil
}

// renewal says which signatures are made again.
type renewal struct {
	params            signer.Params
	now               time.Time
	whole, apex, zone bool
	most              int // of those that are due
	urgent            time.Time
}

// renew makes signatures again and says how many.
func (s *signatures) renew(w renewal) int {
	first := s.versions == 0
	if !first {
		s.left = min(s.left, time.Unix(slices.Min(s.expires), 0).Sub(w.now))
	}
	var due []int
	made := 0
	for i, at := range s.expires {
		switch isApex := i < apexRRsets; {
		case w.whole, isApex && w.apex, !isApex && w.zone:
			s.expires[i] = s.place(i, w.params)
			made++
		case at < w.params.Refresh.Unix():
			due = append(due, i)
		}
	}
	slices.SortStableFunc(due, func(a, b int) int { return int(s.expires[a] - s.expires[b]) })
	for n, i := range due {
		if n < w.most || s.expires[i] < w.urgent.Unix() {
			s.expires[i] = s.place(i, w.params)
			made++
		}
	}
	s.versions++
	s.made += made
	if !first {
		s.largest = max(s.largest, made)
	}
	return made
}

// place is when the signature of an RRset expires that is made now: each RRset
// has a place of its own in the window, for ever.
func (s *signatures) place(i int, p signer.Params) int64 {
	window := int64(p.Jitter / time.Second)
	if window == 0 {
		return p.Expiration.Unix()
	}
	place := int64(i) * window / int64(len(s.expires))
	end := p.Expiration.Unix()
	return end - ((end-place)%window+window)%window
}

// leastLeft is the least time that a signature had left, in seconds.
func (s *signatures) leastLeft() uint64 {
	if s.versions < 2 {
		return 0
	}
	return uint64(max(0, s.left/time.Second)) //nolint:gosec // not negative
}
