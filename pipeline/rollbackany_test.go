package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// Versions come and go at random. Whatever was served can be had again by its
// serial, byte for byte; a rollback has its content, byte for byte; serials
// only rise.
func TestRollback_AnyVersionComesBackByteForByte(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := &seeded{seed}
			policies := waysOfSigning(t)
			r := newRig(t, journaltest.New(), policies)
			r.add(zoneOf(7))
			served := map[uint32]string{}
			sources := map[uint32]string{} // of the loaded content
			serials := []uint32{}
			note := func() ZoneStatus {
				st := r.await()
				if _, ok := served[st.Published.Serial]; !ok {
					serials = append(serials, st.Published.Serial)
				}
				served[st.Published.Serial] = r.dump()
				sources[st.Published.Serial] = r.unsigned()
				return st
			}
			st, backs := note(), 0
			for i := range 20 {
				switch n := rnd.below(8); {
				case n < 3 && st.Held == nil:
					r.zoneFile(randomZone(rnd, 10+i))
					if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
						t.Fatal(err)
					}
				case n < 2:
					r.release()
				case n < 4:
					names := []string{"default", "nsec3", "zonemd"}
					if _, err := r.turn(names[rnd.below(len(names))]); err != nil {
						t.Fatal(err)
					}
				case n < 5:
					r.stop()
					r.start(policies)
				default:
					to := serials[rnd.below(len(serials))]
					before := st.Published.Serial
					_, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: fmt.Sprint(to), Reason: "x", Yes: true})
					if err != nil && !strings.Contains(err.Error(), "that very content") {
						t.Fatal(err)
					}
					if err == nil {
						backs++
					}
					if st = note(); err == nil && (sources[st.Published.Serial] != sources[to] || st.Published.Serial == before) {
						t.Errorf("step %d: back to %d, serial %d after %d, content\n%s\nwant\n%s", i, to, st.Published.Serial, before, sources[st.Published.Serial], sources[to])
					}
				}
				st = note()
				if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
					t.Fatalf("step %d: verify: %v, %v", i, err, rep)
				}
			}
			if backs < 2 {
				t.Errorf("only %d rollbacks", backs)
			}
			for _, serial := range serials {
				var b strings.Builder
				if err := r.e.Dump(t.Context(), "example.com", DumpQuery{Serial: &serial}, &b); err != nil || b.String() != served[serial] {
					t.Errorf("the version with serial %d is not what was served: %v", serial, err)
				}
			}
			r.serialsRise()
			replayAll(t, r)
		})
	}
}

// seeded is the generator of Steele, Lea and Flood (SplitMix64): the same
// numbers for the same seed.
type seeded struct{ state uint64 }

// below is a number below n.
func (s *seeded) below(n int) int {
	s.state += 0x9e3779b97f4a7c15
	z := s.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return int((z ^ z>>31) % uint64(n)) //nolint:gosec // both are small and not negative
}

// waysOfSigning are policies that sign the same contents differently.
func waysOfSigning(t *testing.T) map[string]Policy {
	t.Helper()
	out := map[string]Policy{}
	for name, text := range map[string]string{
		"default": "[signer]\nserial-policy = \"counter\"\n",
		"nsec3":   "[signer]\nserial-policy = \"counter\"\n[signer.denial]\ntype = \"nsec3\"\n",
		"zonemd":  "[signer]\nserial-policy = \"counter\"\nzonemd = true\n[key-manager.records]\nttl = \"2h\"\n",
	} {
		p, err := Parse(name, []byte("version = \"v1\"\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = p
	}
	return out
}

// randomZone has some of a few names, with data of their own.
func randomZone(rnd *seeded, serial int) string {
	var more []string
	for _, name := range []string{"a", "b.a", "c", "*.d", "e.f.g", "sub.h"} {
		switch rnd.below(4) {
		case 0:
			more = append(more, fmt.Sprintf("%s IN A 192.0.2.%d", name, rnd.below(4)))
		case 1:
			more = append(more, fmt.Sprintf("%s IN TXT \"%d\"", name, rnd.below(4)))
		case 2:
			if !strings.Contains(name, "*") {
				more = append(more, fmt.Sprintf("%s IN NS ns%d.example.net.", name, rnd.below(2)))
			}
		}
	}
	return zoneOf(serial, slices.Compact(more)...)
}

func TestVersions_WhatAFormerOwnerPublishedIsNoVersion(t *testing.T) {
	r := newRig(t, journaltest.New(), serialPolicy(t, "counter"))
	first := r.add(zoneOf(7))
	second := r.reload(zoneOf(8))
	s := r.zone()
	r.stop()
	stale := r.published()[0]
	stale.Serial = 4000
	at := second.Published.Time.UTC().Truncate(time.Microsecond)
	granted := event.New(at, s.Zone, event.Program, &event.WorkerGranted{WorkerRole: string(RolePublish), Worker: "b", Epoch: 1})
	granted.Epoch = 1
	if _, err := r.journal.Append(t.Context(), s.Zone, s.Head, granted, event.New(at, s.Zone, event.Program, &stale)); err != nil {
		t.Fatal(err)
	}
	newest, err := r.e.resolve(t.Context(), "example.com", DumpQuery{})
	if err != nil || newest.seq != s.Published.Signed.Seq {
		t.Errorf("the newest version is s%d, want s%d; %v", newest.seq, s.Published.Signed.Seq, err)
	}
	if _, err := r.e.resolve(t.Context(), "example.com", DumpQuery{Serial: &stale.Serial}); !errors.Is(err, ErrNotFound) {
		t.Errorf("the stale version: %v", err)
	}
	serial := first.Published.Serial
	if old, err := r.e.resolve(t.Context(), "example.com", DumpQuery{Serial: &serial}); err != nil || old.seq != stale.Signed {
		t.Errorf("the first version is s%d, %v", old.seq, err)
	}
}

// The proof takes a while: a request to go back that comes meanwhile is heard.
func TestRetention_StopsWhereTheZoneGoesBackMeanwhile(t *testing.T) {
	r, _ := retainedRig(t, "versions = 2\nixfr-versions = 0", 6)
	oldest := r.published()[0]
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", true, ""); err != nil {
		t.Fatal(err)
	}
	run, err := r.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	work, err := r.e.prepareRetention(t.Context(), run)
	if err != nil || len(work.plan.purge) == 0 {
		t.Fatalf("nothing is to go: %v", err)
	}
	err = r.e.appendZone(t.Context(), testActor, run, func(s State) (event.Facts, error) {
		return &event.ZoneHeld{Serial: oldest.Serial, Loaded: oldest.Loaded, From: s.Published.Loaded.Seq, Reason: "x"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := work.run(t.Context(), testActor, func(Progress) {}); !errors.Is(err, ErrState) || r.zone().Retained != nil {
		t.Errorf("purged %+v, error %v", r.zone().Retained, err)
	}
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", false, ""); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.LastError != "" || !st.Held.Published {
		t.Errorf("error %q, held %+v", st.LastError, st.Held)
	}
}

// beforeHold does something once, before a hold is appended.
type beforeHold struct {
	*journaltest.Memory
	once func()
}

func (j *beforeHold) Append(ctx context.Context, zone event.ZoneID, head journal.Head, events ...event.Event) (journal.Head, error) {
	if _, ok := events[0].Facts.(*event.ZoneHeld); ok && j.once != nil {
		once := j.once
		j.once = nil
		once()
	}
	return j.Memory.Append(ctx, zone, head, events...)
}

func TestRollback_ToWhatIsPurgedMeanwhileIsRefused(t *testing.T) {
	r, _ := retainedRig(t, "versions = 2\nixfr-versions = 0", 6)
	oldest := r.published()[0]
	j := &beforeHold{Memory: r.journal.(*journaltest.Memory)}
	r.stop()
	r.journal = j
	r.start(r.policies)
	j.once = func() {
		if z := r.compact(CompactQuery{}); z.Error != "" || z.Instances == 0 {
			t.Errorf("%d instances purged, %s", z.Instances, z.Error)
		}
	}
	_, err := r.e.Rollback(t.Context(), testActor, "example.com", RollbackRequest{To: fmt.Sprint(oldest.Serial), Reason: "x", Yes: true})
	if !errors.Is(err, ErrNotFound) || r.zone().Held != nil {
		t.Errorf("held %+v, error %v", r.zone().Held, err)
	}
}

// The request stands in the journal, and maintenance keeps it from being
// carried out: what it needs stays until then, and may go afterwards.
func TestRetention_PurgesNothingWhileAZoneGoesBack(t *testing.T) {
	r, _ := retainedRig(t, "versions = 2\nixfr-versions = 0", 6)
	oldest := r.published()[0]
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", true, ""); err != nil {
		t.Fatal(err)
	}
	run, err := r.e.find("example.com")
	if err != nil {
		t.Fatal(err)
	}
	err = r.e.appendZone(t.Context(), testActor, run, func(s State) (event.Facts, error) {
		return &event.ZoneHeld{Serial: oldest.Serial, Loaded: oldest.Loaded, From: s.Published.Loaded.Seq, Reason: "x"}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if z := r.compact(CompactQuery{}); z.Error != "" || z.Instances != 0 {
		t.Errorf("%d instances purged, %s", z.Instances, z.Error)
	}
	if _, err := r.e.SetMaintenance(t.Context(), testActor, "example.com", false, ""); err != nil {
		t.Fatal(err)
	}
	if st := r.await(); st.LastError != "" || !st.Held.Published {
		t.Fatalf("error %q, held %+v", st.LastError, st.Held)
	}
	if z := r.compact(CompactQuery{}); z.Error != "" || z.Instances == 0 {
		t.Errorf("%d instances purged afterwards, %s", z.Instances, z.Error)
	}
}
