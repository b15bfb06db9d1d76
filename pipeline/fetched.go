package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/xfr"
)

const (
	// fetchWindow is how long fetches are gathered for one event: secondaries
	// that are told of a version come within moments of each other.
	fetchWindow = 2 * time.Second
	// fetchGrace is how long the last event may take when the process ends.
	fetchGrace = 2 * time.Second
	// maxFetchers bounds the peers that are recorded of one instance. The
	// journal keeps its events for ever, and an access list may let in more
	// addresses than a zone has secondaries.
	maxFetchers = 64
	// maxFetchesWaiting bounds what one event tells.
	maxFetchesWaiting = 4 * maxFetchers
)

// evolveFetched notes what each peer took last.
func evolveFetched(known []event.Fetch, f *event.InstanceFetched) []event.Fetch {
	known = slices.Clone(known)
	for _, fetch := range f.Fetches {
		i, found := slices.BinarySearchFunc(known, fetch.Peer(), func(k event.Fetch, peer string) int {
			return strings.Compare(k.Peer(), peer)
		})
		switch {
		case !found:
			known = slices.Insert(known, i, fetch)
		case fetch.Signed >= known[i].Signed:
			known[i] = fetch
		}
	}
	if len(known) <= maxFetchers {
		return known
	}
	slices.SortFunc(known, func(a, b event.Fetch) int {
		return cmp.Or(cmp.Compare(b.Signed, a.Signed), cmp.Compare(b.Time, a.Time), strings.Compare(a.Peer(), b.Peer()))
	})
	known = known[:maxFetchers]
	slices.SortFunc(known, func(a, b event.Fetch) int { return strings.Compare(a.Peer(), b.Peer()) })
	return known
}

// fetches is what peers took that no event tells yet.
type fetches struct {
	waiting []event.Fetch
	telling bool   // somebody will append them
	full    uint64 // instance of which it was said that it has too many fetchers
}

// Transferred notes that a peer took what the publication listeners serve. It
// is made for xfr.Config.
func (e *Engine) Transferred(peer xfr.Peer, view xfr.View, kind xfr.TransferKind) {
	v, ok := view.(*publishedView)
	if !ok {
		return
	}
	v.zone.fetched(event.Fetch{
		Signed: v.Meta().Seq, Serial: uint32(v.Serial()), Key: peer.Key, Certificate: peer.Name,
		Address: peer.Addr.Addr().String(), TLS: peer.TLS, Transfer: kind.String(), Time: e.clock.Now().Unix(),
	})
}

// fetched takes note of a fetch that is a peer's first of that instance.
func (r *runner) fetched(f event.Fetch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	same, already := 0, false
	for _, list := range [][]event.Fetch{r.state.Fetched, r.fetches.waiting} {
		for _, k := range list {
			if k.Signed == f.Signed {
				same++
			}
			already = already || k.Signed >= f.Signed && k.Peer() == f.Peer()
		}
	}
	if already || r.state.Removed != 0 {
		return
	}
	if same >= maxFetchers || len(r.fetches.waiting) >= maxFetchesWaiting {
		if r.fetches.full != f.Signed {
			r.fetches.full = f.Signed
			r.e.log.Warn("fetches by further peers are not recorded", "zone", r.state.Name, "serial", f.Serial, "recorded", same)
		}
		return
	}
	r.fetches.waiting = append(r.fetches.waiting, f)
	if !r.fetches.telling {
		r.fetches.telling = r.e.start(r.tellFetches)
	}
}

// tellFetches appends what was fetched, once some time has passed in which
// others fetch it too, or when the process ends.
func (r *runner) tellFetches(ctx context.Context) {
	due, stop := r.e.clock.Timer(r.e.clock.Now().Add(fetchWindow))
	select {
	case <-due:
	case <-ctx.Done():
	}
	stop()
	ends := ctx.Err() != nil
	told, err := r.appendFetches(ctx, ends)
	if err != nil && !ends {
		r.e.log.WarnContext(ctx, "fetches not recorded", "zone", r.snapshot().Name, "error", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches.waiting = slices.Clone(r.fetches.waiting[told:])
	r.fetches.telling = len(r.fetches.waiting) > 0 && r.e.start(r.tellFetches)
}

// appendFetches appends all that waits as one event and says how much that
// was; what fails is dropped. When the process ends nothing is folded any
// more, so that a conflict is the end of it.
func (r *runner) appendFetches(ctx context.Context, ends bool) (told int, err error) {
	if ends {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), fetchGrace)
		defer cancel()
	}
	for {
		r.mu.Lock()
		s, list := r.state, slices.Clone(r.fetches.waiting)
		r.mu.Unlock()
		if s.Removed != 0 {
			return len(list), nil
		}
		head, err := r.e.append(ctx, r.id, s.Head, 0, event.Program, &event.InstanceFetched{Fetches: list})
		conflict := errors.Is(err, journal.ErrConflict)
		if ends || err != nil && !conflict {
			return len(list), err
		}
		if err := r.await(ctx, func(now State) bool {
			return now.Head.Seq >= head.Seq && now.Head.Seq > s.Head.Seq
		}); err != nil || !conflict {
			return len(list), err
		}
	}
}

// fetchText tells a fetch in a few words.
func fetchText(f event.Fetch) string {
	text := f.Peer()
	if text != f.Address && f.Address != event.SealedText {
		text += " at " + f.Address
	}
	text += fmt.Sprintf(" by %s, serial %d", f.Transfer, f.Serial)
	if f.TLS {
		text += ", TLS"
	}
	return text
}

// FetchStatus is what a peer took last by transfer.
type FetchStatus struct {
	// Peer is its TSIG key, else the name in its certificate, else its
	// address.
	Peer     string    `json:"peer"`
	Address  string    `json:"address"`
	Instance string    `json:"instance"` // s<sequence>
	Serial   uint32    `json:"serial"`
	Transfer string    `json:"transfer"` // AXFR or IXFR
	TLS      bool      `json:"tls,omitempty"`
	Time     time.Time `json:"time"`
}

// fetchStatuses lists what each peer took last.
func fetchStatuses(s State) []FetchStatus {
	var out []FetchStatus
	for _, f := range s.Fetched {
		out = append(out, FetchStatus{
			Peer: f.Peer(), Address: f.Address, Instance: fmt.Sprintf("s%d", f.Signed), Serial: f.Serial,
			Transfer: f.Transfer, TLS: f.TLS, Time: time.Unix(f.Time, 0).UTC(),
		})
	}
	return out
}
