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

// signatures is the RRSIGs of the zone, by RRset, as the signer spreads them.
type signatures struct {
	expires []int64    // epoch seconds, of the RRset's first
	by      [][]string // IDs of the keys, sorted; not of those of the apex's RRsets
	keysBy  []string   // who signed those

	versions, made, largest int
	left                    time.Duration // the least that one had when the next version came

	// Since the last line about them.
	since                           time.Time
	runs, runMade, runLeast, runMax int
}

func newSignatures(rrsets int) signatures {
	n := rrsets + apexRRsets
	return signatures{expires: make([]int64, n), by: make([][]string, n), left: math.MaxInt64}
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
	keys, err := paperKeys(s.Keys.Keys)
	if err != nil {
		return nil, err
	}
	turn, left := s.Exchange(p, c, keys, r.now)
	keysBy := r.signing(c.Signers, (*keymgr.Key).SignsKeys)
	made := r.sigs.renew(renewal{
		params: params, now: r.now, whole: c.Base == 0, turn: turn,
		apex: c.Base == 0 || !slices.Equal(keysBy, r.sigs.keysBy) || c.Refresh == 0,
		want: r.signing(c.Signers, (*keymgr.Key).SignsZone), stays: r.stays(c),
		most: p.SliceSize(uint64(len(r.sigs.expires))), urgent: r.now.Add(p.RemainTime() / 8),
	})
	r.sigs.keysBy = keysBy
	total, by := r.sigs.count()
	f := &event.InstanceSigned{
		Loaded: c.Loaded, Serial: uint32(serial), Base: c.Base, ContentDigest: s.Loaded.Facts.ContentDigest,
		SignedDigest: sha256.Sum256(fmt.Appendf(nil, "%d", serial)),
		Keys:         c.Keys, Signers: c.Signers, CDS: c.CDS, Denial: string(params.Denial), Params: c.Params,
		Records: total + uint64(r.set.RRsets), Signatures: total, Made: uint64(made), Reused: total - min(total, uint64(made)), //nolint:gosec // not negative
		Inception: params.Inception.Unix(), Expiration: params.Expiration.Unix(), Earliest: slices.Min(r.sigs.expires),
		SignedBy: by, Exchange: left(by),
	}
	if s.Published != nil {
		f.Previous = s.Published.Signed.Facts.Serial
	}
	return []event.Facts{f}, nil
}

// paperKeys is what the signer knows of keys; their public parts are no points
// of any curve.
func paperKeys(all []keymgr.Key) ([]signer.Key, error) {
	var out []signer.Key
	for _, k := range all {
		if !k.InRRset() && !k.Signs() {
			continue
		}
		rdata, err := keymgr.RData(k.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, signer.Key{
			DNSKEY: rdata, Published: k.InRRset(), SignsKeys: k.Signs() && k.SignsKeys(), SignsZone: k.Signs() && k.SignsZone(),
		})
	}
	return out, nil
}

// stays reports whether signatures by keys may stay in an instance: the keys are
// there, and each algorithm of the DNSKEY RRset is among them.
func (r *run) stays(c pipeline.Sign) func(by []string) bool {
	given, need := map[string]uint8{}, map[uint8]bool{}
	for _, id := range slices.Concat(c.Keys, c.Signers) {
		if k, ok := r.state.Keys.ByID(id); ok {
			given[id] = k.Algorithm
		}
	}
	for _, id := range c.Keys {
		need[given[id]] = true
	}
	return func(by []string) bool {
		has := map[uint8]bool{}
		for _, id := range by {
			if given[id] == 0 {
				return false
			}
			has[given[id]] = true
		}
		for a := range need {
			if !has[a] {
				return false
			}
		}
		return true
	}
}

// renewal says which signatures are made again.
type renewal struct {
	params      signer.Params
	now         time.Time
	whole, apex bool
	want        []string // who is to sign
	turn        *signer.Spread
	stays       func(by []string) bool
	most        int // of those that are due
	urgent      time.Time
}

// renew makes signatures again and says how many.
func (s *signatures) renew(w renewal) int {
	first := s.versions == 0
	if !first {
		s.left = min(s.left, time.Unix(slices.Min(s.expires), 0).Sub(w.now))
	}
	var due []int
	made := 0
	anew := func(i int) {
		s.expires[i] = s.place(i, w.params)
		if i >= apexRRsets {
			s.by[i] = w.want
		}
		made += max(1, len(s.by[i]))
	}
	for i, at := range s.expires {
		isApex := i < apexRRsets
		otherwise := !isApex && !slices.Equal(s.by[i], w.want)
		switch {
		case w.whole, isApex && w.apex, otherwise && w.turn == nil, otherwise && !w.stays(s.by[i]):
			anew(i)
		case otherwise && at >= w.turn.From && at < w.turn.To:
			s.by[i] = w.want // what is exchanged before it is due keeps its expiration
			made += len(w.want)
		case at < w.params.Refresh.Unix():
			due = append(due, i)
		}
	}
	slices.SortStableFunc(due, func(a, b int) int { return int(s.expires[a] - s.expires[b]) })
	for n, i := range due {
		if n < w.most || s.expires[i] < w.urgent.Unix() {
			anew(i)
		}
	}
	s.versions++
	s.made += made
	if !first {
		s.largest = max(s.largest, made)
	}
	return made
}

// count is how many signatures there are, and of how many RRsets by whom.
func (s *signatures) count() (total uint64, by []event.SignedBy) {
	total = uint64(apexRRsets * len(s.keysBy)) //nolint:gosec // few
	for _, keys := range s.by[apexRRsets:] {
		total += uint64(len(keys))
		at := slices.IndexFunc(by, func(b event.SignedBy) bool { return slices.Equal(b.Keys, keys) })
		if at < 0 {
			by, at = append(by, event.SignedBy{Keys: keys}), len(by)
		}
		by[at].RRsets++
	}
	slices.SortFunc(by, func(a, b event.SignedBy) int { return slices.Compare(a.Keys, b.Keys) })
	return total, by
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
