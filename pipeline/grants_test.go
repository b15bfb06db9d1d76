package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"sluice/journal"
	"sluice/journal/event"
)

// Each type of event has a place among the roles: one that is new and missing
// here could be written by a worker whose work was given to another.
func TestRoleOfEvent_KnowsEveryType(t *testing.T) {
	roles := map[Role][]string{
		RoleLoad:   {"instance.loaded", "load.failed"},
		RoleReview: {"instance.abandoned", "review.approved", "review.rejected", "review.requested", "zone.halted"},
		RoleSign:   {"instance.signed", "sign.failed"},
		RoleKeys: {
			"cds.changed", "ds.notified", "ds.observed", "ds.pushed", "ds.submitted", "ds.withdrawn", "hook.ran",
			"key.activated", "key.adopted", "key.destroyed", "key.generated", "key.imported", "key.introduced", "key.proved", "key.published",
			"key.removed", "key.retired", "key.withdrawn", "policy.bound", "rollover.aborted", "rollover.advanced",
			"rollover.completed", "rollover.started", "signal.pushed",
		},
		RolePublish: {"instance.published"},
		"grant":     {"worker.granted", "worker.quarantined"}, // they name their role
		// Written through doors alone, by whoever serves a peer, or for the whole
		// instance.
		"": {
			"bulk.swept", "clock.accepted", "clock.doubted", "instance.fetched", "journal.backed-up", "journal.checkpointed",
			"journal.continued", "journal.cosigned", "key.backed-up", "key.exported", "keystore.added", "keystore.removed",
			"maintenance.changed", "review.overridden", "review.proposed", "review.recalled", "serial.raised", "tsig.added", "tsig.removed", "worker.enrolled",
			"worker.removed", "zone.added", "zone.changed", "zone.held", "zone.released", "zone.removed", "zone.reset",
		},
	}
	workNouns := []string{"load", "instance", "review", "sign", "key", "rollover", "ds", "cds", "hook", "signal", "policy", "worker"}
	for _, wire := range event.Types() {
		f := event.NewFacts(wire)
		var want Role
		known := false
		for role, types := range roles {
			if slices.Contains(types, wire) {
				want, known = role, true
			}
		}
		if want == "grant" {
			continue
		}
		noun, _, _ := strings.Cut(wire, ".")
		if got := RoleOfEvent(f); known && got != want {
			t.Errorf("%s belongs to role %q, want %q", wire, got, want)
		} else if !known && slices.Contains(workNouns, noun) {
			t.Errorf("%s belongs to role %q: say here whether it does", wire, got)
		}
	}
	if got := RoleOfEvent(&event.SignFailed{WorkerRole: "review"}); got != RoleReview {
		t.Errorf("what a review found belongs to %q", got)
	}
}

func TestParseRoles(t *testing.T) {
	if got, err := ParseRoles(" load,sign ,load"); err != nil || !slices.Equal(got, []Role{RoleLoad, RoleSign}) {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err := ParseRoles(""); err != nil || len(got) != 6 {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := ParseRoles("load,drive"); err == nil {
		t.Error("a role that is none was taken")
	}
}

// A known id stays in its partition for ever: workers of different versions
// must agree.
func TestPartitionOf_IsFixed(t *testing.T) {
	for id, want := range map[event.ZoneID]int{"00000000000000aa": 47, "00000000000000bb": 61, "0123456789abcdef": 61} {
		if got := PartitionOf(id); got != want {
			t.Errorf("%s is in partition %d, want %d", id, got, want)
		}
	}
}

// Each duty has one worker of those that live, whoever asks; one more takes its
// share from all others and moves nothing else.
func TestRendezvous_MovesAsLittleAsPossible(t *testing.T) {
	before, after := []string{"a", "b", "c"}, []string{"a", "b", "c", "d"}
	count := map[string]int{}
	for _, role := range ownedRoles() {
		for p := range Partitions {
			was, is := rendezvous(before, duty{role, p}), rendezvous(after, duty{role, p})
			if is != was && is != "d" {
				t.Errorf("%s.%d moved from %s to %s", role, p, was, is)
			}
			count[is]++
		}
	}
	for _, name := range after {
		if all := len(ownedRoles()) * Partitions; count[name] < all/8 || count[name] > all/2 {
			t.Errorf("%s has %d of %d", name, count[name], all)
		}
	}
}

// chain appends events to each other as the journal would.
type chain struct {
	head journal.Head
	recs []journal.Record
}

func (c *chain) add(epoch uint64, actor event.Actor, f event.Facts) {
	ev := event.New(time.Unix(1_700_000_000+int64(len(c.recs)), 0), "00000000000000aa", actor, f)
	ev.Epoch, ev.N, ev.Prev = epoch, c.head.N+1, c.head.Hash
	c.head = journal.Head{Seq: c.head.Seq + 2, N: ev.N, Hash: event.Hash{byte(len(c.recs) + 1)}}
	c.recs = append(c.recs, journal.Record{Seq: c.head.Seq, Hash: c.head.Hash, Event: ev})
}

// TestGrants_StaleEpochsNeverCount interleaves what several workers write, each
// with the epochs that it believes in, and holds what came of it against a fold
// of what was in force alone.
func TestGrants_StaleEpochsNeverCount(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var c chain
		var kept []int
		now := map[Role]uint64{} // in force
		roles := ownedRoles()
		for i := range rapid.IntRange(1, 60).Draw(t, "events") {
			role := rapid.SampledFrom(roles).Draw(t, "role")
			believed := rapid.Uint64Range(0, now[role]+2).Draw(t, "epoch")
			counts := believed == now[role]
			switch rapid.IntRange(0, 7).Draw(t, "kind") {
			case 0:
				c.add(believed, event.Program, &event.WorkerGranted{Worker: fmt.Sprintf("w%d", i), WorkerRole: string(role), Epoch: believed})
				if counts = believed == now[role]+1; counts {
					now[role] = believed
				}
			case 1: // through a door: it has no epoch and counts
				c.add(0, event.Actor{Name: "op", Door: "cli"}, &event.MaintenanceChanged{Enabled: i%2 == 0, Reason: fmt.Sprint(i)})
				counts = true
			case 2: // so does a verdict, whoever does the reviews
				c.add(0, event.Actor{Name: "op", Door: "cli"}, &event.ZoneHalted{Stage: event.StageLoaded, Instance: uint64(i), Reason: fmt.Sprint(i)})
				counts = true
			case 3: // a grant in another epoch than the one that it grants
				c.add(believed, event.Program, &event.WorkerGranted{Worker: fmt.Sprintf("w%d", i), WorkerRole: string(role), Epoch: believed + 1})
				counts = false
			default:
				c.add(believed, event.Program, sampleOf(role, i))
			}
			if counts {
				kept = append(kept, i)
			}
		}
		var live, replayed, only State
		for i, rec := range c.recs {
			if got := live.Counts(rec); got != slices.Contains(kept, i) {
				t.Fatalf("event %d (%s, epoch %d) counts: %v", i, rec.Event.Type, rec.Event.Epoch, got)
			}
			live = EvolveNext(live, rec, "")
			if slices.Contains(kept, i) {
				only = Evolve(only, rec, "")
			}
		}
		for _, rec := range c.recs {
			replayed = EvolveNext(replayed, rec, "")
		}
		if d := cmp.Diff(live, replayed); d != "" {
			t.Fatalf("replay differs: %s", d)
		}
		if live.Stale != uint64(len(c.recs)-len(kept)) {
			t.Fatalf("%d passed over, want %d", live.Stale, len(c.recs)-len(kept))
		}
		live.Stale, live.Head, only.Head = 0, journal.Head{}, journal.Head{}
		if d := cmp.Diff(live, only); d != "" {
			t.Fatalf("what was passed over left a trace: %s", d)
		}
	})
}

// sampleOf is something that a worker with the role writes.
func sampleOf(role Role, i int) event.Facts {
	switch role {
	case RoleLoad:
		if i%3 == 0 {
			return &event.LoadFailed{Source: "f", Reason: fmt.Sprint(i)}
		}
		return &event.InstanceLoaded{Source: "f", Serial: uint32(i)}
	case RoleReview:
		return &event.ZoneHalted{Stage: event.StageLoaded, Instance: uint64(i), Reason: fmt.Sprint(i)}
	case RoleSign:
		if i%3 == 0 {
			return &event.SignFailed{Loaded: uint64(i), Stage: "sign", Reason: fmt.Sprint(i)}
		}
		return &event.InstanceSigned{Loaded: uint64(i), Serial: uint32(i)}
	case RoleKeys:
		return &event.KeyGenerated{Keys: []event.Key{{ID: fmt.Sprintf("%016x", i), Role: "zsk", Algorithm: 13}}}
	case RoleObserve, RolePublish:
	}
	return &event.InstancePublished{Signed: uint64(i), Serial: uint32(i)}
}

func TestDecide_RestsWhereARoleIsQuarantined(t *testing.T) {
	s := NewState(Registered{Facts: event.ZoneAdded{Name: "example.com.", ID: "00000000000000aa", Source: "/f", Policy: "default"}})
	now := time.Unix(1_700_000_000, 0)
	if d := Decide(s, Policy{}, Moment{Now: now}); len(d.Commands) != 1 {
		t.Fatalf("a new zone needs its policy: %+v", d)
	}
	s = evolveWorkers(s, journal.Record{Event: event.Event{Facts: &event.WorkerQuarantined{WorkerRole: "keys", Command: "bindpolicy", Tries: 5}}})
	if d := Decide(s, Policy{}, Moment{Now: now}); len(d.Commands) != 0 {
		t.Errorf("still asks for %+v", d.Commands)
	}
	s = Evolve(s, journal.Record{Event: event.Event{Facts: &event.ZoneReset{}}}, "")
	if d := Decide(s, Policy{}, Moment{Now: now}); len(d.Commands) != 1 {
		t.Errorf("after a reset: %+v", d)
	}
}
