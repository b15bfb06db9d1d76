package pipeline

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// A journal with verdicts, contents that were given up, refreshes beside what
// waits, signings in full and another denial chain is compacted again and again:
// each time what is rebuilt is what was there.
func TestRetention_RichJournal(t *testing.T) {
	const review = "\n[loader.review]\nmode = \"manual\"\n[server.outbound]\nprovide-xfr-to = []\n"
	policies := retentionPolicy(t, "versions = 3\nixfr-versions = 2"+review)
	other, err := Parse("other", []byte("version = \"v1\"\n[retention]\nversions = 3\nixfr-versions = 2"+review+"[signer.denial]\ntype = \"nsec3\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	policies["other"] = other
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), policies: policies}
	r.start(policies)
	r.add(smallZone)
	r.approve(event.StageLoaded)
	purged := 0
	for n := range 36 {
		r.reload(pastOf(n))
		switch {
		case n%5 == 2: // given up; the next one builds on what was there before
			r.reject(event.StageLoaded)
			continue
		case n%5 == 4: // signed again while newer content waits
			if err := r.e.Resign(t.Context(), testActor, "example.com", n%2 == 0); err != nil {
				t.Fatal(err)
			}
			r.await()
		}
		r.approve(event.StageLoaded)
		if n == 17 {
			if _, err := r.e.SetZone(t.Context(), testActor, "example.com", ZoneChange{Policy: "other"}); err != nil {
				t.Fatal(err)
			}
			r.await()
		}
		if n%9 != 8 {
			continue
		}
		before := r.whole(3)
		z := r.compact(CompactQuery{})
		if z.Error != "" || !z.Done {
			t.Fatalf("round %d: %+v", n, z)
		}
		purged += z.Instances
		if diff := cmp.Diff(before, r.whole(3)); diff != "" {
			t.Fatalf("round %d, at work (-before +after):\n%s", n, diff)
		}
		r.rebuild()
		if diff := cmp.Diff(before, r.whole(3)); diff != "" {
			t.Fatalf("round %d, rebuilt (-before +after):\n%s", n, diff)
		}
	}
	if purged < 30 {
		t.Errorf("only %d instances were purged", purged)
	}
	rep, err := journal.Verify(t.Context(), r.journal, journal.VerifyOptions{Chunks: true})
	if err != nil || rep.FaultCount != 0 {
		t.Errorf("verify of the journal: %+v, %v", rep, err)
	}
}

// Damage is no purge: where chunks are lost that no bulk.purged names, nothing
// more goes, and the zone is made anew as ever.
func TestRetention_NothingGoesWhereTheProofFails(t *testing.T) {
	r, j := retainedRig(t, "versions = 3\nixfr-versions = 0", 20)
	all := r.serials()
	var lost event.Manifest
	err := r.journal.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
		if f, ok := rec.Event.Facts.(*event.InstanceSigned); ok && f.Serial == all[len(all)-1] {
			lost = f.Manifest
		}
		return nil
	})
	if err != nil || len(lost.Chunks) == 0 {
		t.Fatal(err, lost)
	}
	j.SetChunk(lost.Chunks[0].Seq, nil)
	before := r.bulkBytes()
	z := r.compact(CompactQuery{})
	if z.Error == "" || z.Done {
		t.Fatalf("compacted %+v", z)
	}
	st, err := j.Status(t.Context())
	if err != nil || st.Bulk.Bytes < before {
		t.Errorf("%d bytes of %d are left, %v", st.Bulk.Bytes, before, err)
	}
	r.stop()
	err = r.journal.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
		switch rec.Event.Facts.(type) {
		case *event.BulkPurged, *event.SnapshotTaken:
			return errors.New(rec.Event.Type)
		}
		return nil
	})
	if err != nil {
		t.Errorf("the journal has %v", err)
	}
}
