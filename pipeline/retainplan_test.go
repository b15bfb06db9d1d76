package pipeline

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/journal"
	"sluice/journal/event"
)

// pastZone draws the events of a zone: contents that build on each other or are
// whole, branches that were given up, signings of both, publications.
type pastZone struct {
	recs           []journal.Record
	loaded, signed []uint64 // that something may build on
	of             map[uint64]uint64
	published      []uint64
}

func (z *pastZone) add(f event.Facts) uint64 {
	seq := uint64(len(z.recs) + 1)
	z.recs = append(z.recs, journal.Record{Seq: seq, Event: event.Event{
		Zone: "00000000000000aa", Time: time.Unix(int64(seq)*3600, 0), Actor: event.Program, Facts: f, Type: f.EventType(),
	}})
	return seq
}

func (z *pastZone) manifest(bytes uint64) event.Manifest {
	seq := uint64(len(z.recs) + 1)
	return event.Manifest{
		Subject: fmt.Sprintf("bulk.00000000000000aa.c%d", seq), Count: 1,
		Chunks: []event.Chunk{{Seq: seq, Bytes: bytes, Items: 1}},
	}
}

func drawPast(t *rapid.T) *pastZone {
	z := &pastZone{of: map[uint64]uint64{}}
	for range rapid.IntRange(3, 60).Draw(t, "events") {
		size := rapid.Uint64Range(1, 20).Draw(t, "size")
		// What may be built on is what the projection still holds: what is
		// published, and what is newer.
		recent := func(all []uint64) uint64 {
			if len(all) == 0 || rapid.IntRange(0, 9).Draw(t, "whole") == 0 {
				return 0
			}
			return all[max(0, len(all)-1-rapid.IntRange(0, 1).Draw(t, "branch"))]
		}
		switch rapid.IntRange(0, 2).Draw(t, "what") {
		case 0:
			base := recent(z.loaded)
			if base == 0 {
				size = 40
			}
			z.loaded = append(z.loaded, z.add(&event.InstanceLoaded{Base: base, Manifest: z.manifest(size)}))
		case 1:
			if len(z.loaded) == 0 {
				continue
			}
			base := recent(z.signed)
			if base == 0 {
				size = 60
			}
			l := z.loaded[len(z.loaded)-1]
			seq := z.add(&event.InstanceSigned{Loaded: l, Base: base, Manifest: z.manifest(size)})
			z.signed, z.of[seq] = append(z.signed, seq), l
		case 2:
			if len(z.signed) == 0 {
				continue
			}
			s := z.signed[len(z.signed)-1]
			z.published = append(z.published, z.add(&event.InstancePublished{Signed: s, Loaded: z.of[s], Serial: uint32(len(z.recs))}))
			// From here on nothing builds on what is older.
			z.signed, z.loaded = []uint64{s}, slices.DeleteFunc(z.loaded, func(l uint64) bool { return l < z.of[s] })
		}
	}
	return z
}

// resolves reports whether a rebuild meets all that an instance needs.
func resolves(z *pastZone, gone map[uint64]bool, whole map[uint64]bool, seq uint64) bool {
	for seq != 0 {
		if gone[seq] {
			return false
		}
		var base, loaded uint64
		switch f := z.recs[seq-1].Event.Facts.(type) {
		case *event.InstanceLoaded:
			base = f.Base
		case *event.InstanceSigned:
			base, loaded = f.Base, f.Loaded
		}
		if loaded != 0 && !resolves(z, gone, whole, loaded) {
			return false
		}
		if whole[seq] {
			return true
		}
		seq = base
	}
	return true
}

// TestPlan_KeepsAllThatStaysRebuildable draws zones, and compacts each twice, with
// the snapshot of the first time in the journal.
func TestPlan_KeepsAllThatStaysRebuildable(t *testing.T) {
	snapshots, purges := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		z := drawPast(t)
		versions := rapid.Uint64Range(1, 6).Draw(t, "versions")
		gone, whole := map[uint64]bool{}, map[uint64]bool{}
		for range 2 {
			var h holdings
			for _, rec := range z.recs {
				h.take(rec)
			}
			h.settle()
			at := h.oldest(RetentionPolicy{Versions: versions}, time.Unix(1e9, 0), 0)
			r := h.plan(at)
			if len(h.published) == 0 {
				if len(r.purge) != 0 {
					t.Fatal("something of a zone that was never published goes")
				}
				return
			}
			taken := &event.SnapshotTaken{Published: r.oldest.seq}
			for i, seq := range r.snapshot {
				if seq == 0 {
					continue
				}
				snapshots++
				whole[seq] = true
				part := &event.Snapshot{Instance: seq, Manifest: z.manifest(50)}
				if i == 0 {
					taken.Loaded = part
				} else {
					taken.Signed = part
				}
			}
			for _, n := range r.purge {
				purges++
				gone[n.seq] = true
				if n.kind != snapshotChunks {
					continue
				}
				for _, instance := range n.stands { // a newer one may stand for it
					delete(whole, instance)
				}
			}
			for instance, seq := range r.snapshots {
				whole[instance] = true
				if gone[seq] {
					t.Fatalf("the snapshot %d that l%d needs goes", seq, instance)
				}
			}
			for _, seq := range r.snapshot {
				if seq != 0 {
					whole[seq] = true
				}
			}
			for _, v := range h.published[at:] {
				if !resolves(z, gone, whole, v.signed) {
					t.Fatalf("version %d (s%d of l%d) cannot be rebuilt; gone %v, whole %v", v.serial, v.signed, v.loaded, gone, whole)
				}
			}
			for _, rec := range z.recs { // what is newer may still be published
				switch rec.Event.Facts.(type) {
				case *event.InstanceLoaded, *event.InstanceSigned:
					if rec.Seq > r.oldest.seq && !resolves(z, gone, whole, rec.Seq) {
						t.Fatalf("instance %d cannot be rebuilt", rec.Seq)
					}
				}
			}
			if taken.Loaded != nil || taken.Signed != nil {
				z.add(taken)
			}
			for _, f := range r.facts(func(chunkEvent) uint64 { return 1 }, false) {
				if len(r.purge) > 0 {
					z.add(f)
				}
			}
			// The zone goes on from what is published.
			for range 4 {
				l := z.published[len(z.published)-1]
				f, _ := z.recs[l-1].Event.Facts.(*event.InstancePublished)
				nl := z.add(&event.InstanceLoaded{Base: f.Loaded, Manifest: z.manifest(9)})
				ns := z.add(&event.InstanceSigned{Loaded: nl, Base: f.Signed, Manifest: z.manifest(9)})
				z.published = append(z.published, z.add(&event.InstancePublished{Signed: ns, Loaded: nl, Serial: uint32(len(z.recs))}))
			}
		}
	})
	if snapshots == 0 || purges == 0 {
		t.Errorf("%d snapshots and %d purges were met", snapshots, purges)
	}
}

// What a former owner wrote is no version, and nothing that counts is lost by it.
func TestPlan_StaleEventsAreNoVersions(t *testing.T) {
	z := &pastZone{of: map[uint64]uint64{}}
	l := z.add(&event.InstanceLoaded{Manifest: z.manifest(40)})
	s := z.add(&event.InstanceSigned{Loaded: l, Manifest: z.manifest(60)})
	z.add(&event.InstancePublished{Signed: s, Loaded: l, Serial: 1})
	z.add(&event.WorkerGranted{Worker: "two", WorkerRole: string(RolePublish), Epoch: 1})
	z.recs[len(z.recs)-1].Event.Epoch = 1
	z.add(&event.InstancePublished{Signed: s, Loaded: l, Serial: 2}) // epoch 0: stale
	var h holdings
	for _, rec := range z.recs {
		h.take(rec)
	}
	h.settle()
	if len(h.published) != 1 || h.published[0].serial != 1 {
		t.Errorf("published %+v", h.published)
	}
}

func TestOldest_FollowsVersionsDaysAndDiffs(t *testing.T) {
	now := time.Unix(100*86400, 0)
	h := holdings{}
	for i := range 10 { // one every ten days, the last one today
		h.published = append(h.published, held{seq: uint64(i + 1), signed: uint64(100 + i), at: now.Add(-time.Duration(9-i) * 10 * day)})
	}
	for _, test := range []struct {
		policy RetentionPolicy
		diffs  uint64
		want   int
	}{
		{RetentionPolicy{}, 0, 0},
		{RetentionPolicy{Versions: 3}, 0, 7},
		{RetentionPolicy{Versions: 1}, 0, 9},
		{RetentionPolicy{Versions: 99}, 0, 0},
		{RetentionPolicy{Days: 1}, 0, 8},  // what was in force yesterday
		{RetentionPolicy{Days: 10}, 0, 8}, // published just then
		{RetentionPolicy{Days: 11}, 0, 7},
		{RetentionPolicy{Days: 3650}, 0, 0},
		{RetentionPolicy{Versions: 2, Days: 25}, 0, 6},
		{RetentionPolicy{Versions: 5, Days: 1}, 0, 5},
		{RetentionPolicy{Versions: 1}, 104, 4}, // IXFR leads from it
		{RetentionPolicy{Versions: 8}, 104, 2},
		{RetentionPolicy{Versions: 1, Hold: true}, 0, 0},
	} {
		if got := h.oldest(test.policy, now, test.diffs); got != test.want {
			t.Errorf("%+v, diffs from s%d: %d, want %d", test.policy, test.diffs, got, test.want)
		}
	}
}
