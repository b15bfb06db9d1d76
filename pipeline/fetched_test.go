package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/signer/zone"
	"sluice/xfr"
)

// fetch says that peers took what is served.
func (r *rig) fetch(kind xfr.TransferKind, peers ...xfr.Peer) {
	r.t.Helper()
	name, err := zone.ParseName("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	v, err := r.e.Source().View(name)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range peers {
		r.e.Transferred(p, v, kind)
	}
	if err := v.Close(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) status() ZoneStatus {
	r.t.Helper()
	st, err := r.e.Zone(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

func peerAt(addr, key string) xfr.Peer {
	return xfr.Peer{Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 4711), Key: key}
}

func TestFetched_OncePerPeerAndInstance(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: hourASecond()}
	r.start(nil)
	r.add(smallZone)
	byKey, byAddress := peerAt("192.0.2.1", "a.example."), peerAt("192.0.2.1", "")
	overTLS := peerAt("2001:db8::1", "")
	overTLS.TLS, overTLS.Name = true, "ns2.example"
	r.fetch(xfr.AXFR, byKey, byAddress, overTLS, byKey, peerAt("192.0.2.9", "a.example."))
	until(t, "three peers are told of", func() bool { return len(r.status().Fetched) == 3 })
	for i, want := range []string{"192.0.2.1", "a.example.", "ns2.example"} {
		f := r.status().Fetched[i]
		if f.Peer != want || f.Transfer != "AXFR" || f.TLS != (i == 2) || f.Instance != r.status().Published.Instance {
			t.Errorf("%+v is not of %s", f, want)
		}
	}
	// Again is no news, a new version is; a restart forgets nothing.
	first := len(r.history("instance.fetched"))
	r.fetch(xfr.IXFR, byAddress, overTLS)
	r.stop()
	r.start(nil)
	r.fetch(xfr.AXFR, byKey)
	st := r.reload(smallZone + "new IN A 192.0.2.7\n")
	r.fetch(xfr.IXFR, byKey)
	until(t, "the new version is told of", func() bool {
		return slices.ContainsFunc(r.status().Fetched, func(f FetchStatus) bool {
			return f.Peer == "a.example." && f.Instance == st.Published.Instance && f.Transfer == "IXFR" && f.Serial == st.Published.Serial
		})
	})
	if got := r.history("instance.fetched"); len(got) != first+1 {
		t.Errorf("%d events, then %q", first, got)
	}
	replayAll(t, r)
}

func TestFetched_WhatEndsTheProcessIsTold(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: NewRehearsal(time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC), 0)}
	r.start(nil)
	r.add(smallZone)
	r.fetch(xfr.AXFR, peerAt("192.0.2.1", ""))
	if got := r.history("instance.fetched"); len(got) != 0 {
		t.Errorf("told before others could come: %q", got)
	}
	r.stop()
	r.start(nil)
	if got := r.status().Fetched; len(got) != 1 || got[0].Peer != "192.0.2.1" {
		t.Errorf("%+v", got)
	}
}

func TestFetched_ManyAddressesDoNotFillTheJournal(t *testing.T) {
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: hourASecond()}
	r.start(nil)
	r.add(smallZone)
	before := r.status()
	for i := range 1000 {
		r.fetch(xfr.AXFR, peerAt(fmt.Sprintf("10.0.%d.%d", i/250, i%250), ""))
	}
	until(t, "as many as there may be are told of", func() bool { return len(r.status().Fetched) == maxFetchers })
	r.fetch(xfr.AXFR, peerAt("192.0.2.1", ""))
	// Those of a new version take their place.
	st := r.reload(smallZone + "new IN A 192.0.2.7\n")
	r.fetch(xfr.AXFR, peerAt("192.0.2.2", ""))
	until(t, "one more is told of", func() bool {
		return slices.ContainsFunc(r.status().Fetched, func(f FetchStatus) bool { return f.Peer == "192.0.2.2" })
	})
	now := r.status()
	if len(now.Fetched) != maxFetchers || slices.ContainsFunc(now.Fetched, func(f FetchStatus) bool { return f.Peer == "192.0.2.1" }) {
		t.Errorf("%+v", now.Fetched)
	}
	if st.Published.Instance == before.Published.Instance {
		t.Fatal("no new version")
	}
	if got := r.history("instance.fetched"); len(got) > maxFetchers {
		t.Errorf("%d events", len(got))
	}
}

func TestEvolveFetched_KeepsTheNewest(t *testing.T) {
	fetch := func(signed uint64, peer string) event.Fetch { return event.Fetch{Signed: signed, Address: peer} }
	known := evolveFetched(nil, &event.InstanceFetched{Fetches: []event.Fetch{fetch(5, "b"), fetch(4, "a"), fetch(3, "b"), fetch(6, "a")}})
	if want := []event.Fetch{fetch(6, "a"), fetch(5, "b")}; !slices.Equal(known, want) {
		t.Errorf("%+v", known)
	}
	var many event.InstanceFetched
	for i := range maxFetchers + 10 {
		many.Fetches = append(many.Fetches, fetch(7, fmt.Sprintf("c%03d", i)))
	}
	got := evolveFetched(known, &many)
	if len(got) != maxFetchers || got[0].Address != "c000" || got[maxFetchers-1].Address != "c063" {
		t.Errorf("%d: %+v", len(got), got)
	}
	if known[0] != fetch(6, "a") {
		t.Error("what was known is changed in place")
	}
}
