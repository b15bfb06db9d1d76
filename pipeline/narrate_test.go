package pipeline

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
)

var updateGolden = flag.Bool("update", false, "write golden sentences")

// told is the events of a zone's key life, each with a time an hour after the one
// before: keys of IDs as they are made in the story.
func told() []event.Facts {
	key := func(id, role string, tag uint16) event.Key {
		return event.Key{ID: id, Role: role, Tag: tag, Algorithm: 13}
	}
	const ksk, zsk, next, spare = "aaaa000000000001", "aaaa000000000002", "aaaa000000000003", "aaaa000000000004"
	ids := func(list ...string) []string { return list }
	at := dayOne.Unix()
	wait := &event.Wait{
		Formula: "Ipub = Dprp + TTLkey", Seconds: 3900, Earliest: at + 30*3600,
		Inputs: []event.WaitInput{{Name: "Dprp", Seconds: 300, Source: "key-manager.propagation-margin"}, {Name: "TTLkey", Seconds: 3600, Source: "the largest TTL of the DNSKEY RRset that caches may hold"}},
	}
	ds := []event.DS{{Tag: 11, Algorithm: 13, DigestType: 2, Digest: strings.Repeat("ab", 32), Key: ksk}}
	return []event.Facts{
		&event.KeyGenerated{Keys: []event.Key{key(ksk, "ksk", 11), key(zsk, "zsk", 22)}},
		&event.KeyActivated{IDs: ids(ksk, zsk)},
		&event.RolloverStarted{Kind: "secure", Method: "first-ds", New: ids(ksk, zsk), Reason: "the zone is signed, and its parent was not told yet"}, // 3
		&event.RolloverAdvanced{Rollover: 3, Step: 1, Name: "sign", Seen: at, Wait: wait},
		&event.RolloverAdvanced{Rollover: 3, Step: 1, Name: "sign", Lost: "192.0.2.1 does not show the DNSKEY RRset"},
		&event.RolloverAdvanced{Rollover: 3, Step: 2, Name: "first-ds"},
		&event.DSSubmitted{IDs: ids(ksk), CDS: true},
		&event.HookRan{Request: 7, Event: "ds-ready", Number: 1, Hook: event.HookOutcome{Command: "tell-registry", DurationMS: 12}},
		&event.HookRan{Request: 7, Event: "ds-ready", Number: 1, Error: "exit code 1", Hook: event.HookOutcome{Command: "tell-registry", DurationMS: 12}},
		&event.DSNotified{Request: 7, Owner: "_dsync.com.", Target: "cds.com.:53", Validated: true, Server: "192.0.2.9:53", Rcode: "NOERROR"},
		&event.DSNotified{Request: 7, Error: "no answer in time"},
		&event.DSPushed{Request: 7, Server: "192.0.2.9:53", Zone: "com.", Rcode: "NOERROR", Added: ds},
		&event.DSPushed{Request: 7, Error: "REFUSED"},
		&event.DSObserved{Sets: []event.DSSet{{TTL: 3600, DS: ds}}, Servers: 2},
		&event.RolloverAdvanced{Rollover: 3, Step: 2, Name: "first-ds", Reported: "ds-seen"},
		&event.RolloverAdvanced{Rollover: 3, Step: 3, Name: "done"},
		&event.RolloverCompleted{Rollover: 3},
		&event.CDSChanged{CDS: false, Reason: "the parent has what it is to have"},
		&event.CDSChanged{CDS: true, Reason: "a rollover is to tell the parent"},
		&event.KeyImported{Keys: []event.Key{key(next, "zsk", 33)}, From: "Kexample.com.+013+00033.private"},
		&event.RolloverStarted{Kind: "zsk", Method: "pre-publication", Old: ids(zsk), New: ids(next), Reason: "key " + zsk + " reaches its age of 90d", Start: at + 48*3600}, // 21
		&event.RolloverAdvanced{Rollover: 21, Step: 1, Name: "publish"},
		&event.KeyPublished{IDs: ids(next)},
		&event.RolloverAdvanced{Rollover: 21, Step: 1, Name: "publish", Seen: at, Wait: wait},
		&event.RolloverAdvanced{Rollover: 21, Step: 1, Name: "publish", Reported: "next"},
		&event.RolloverAdvanced{Rollover: 21, Step: 2, Name: "sign"},
		&event.KeyActivated{IDs: ids(next)},
		&event.KeyRetired{IDs: ids(zsk)},
		&event.RolloverAborted{Rollover: 21, Step: 2, Name: "sign", Reason: "signatures by the new key do not verify"},
		&event.RolloverCompleted{Rollover: 21},
		&event.KeyRemoved{IDs: ids(next)},
		&event.KeyDestroyed{IDs: ids(next)},
		&event.KeyGenerated{Keys: []event.Key{key(spare, "ksk", 44)}},
		&event.RolloverStarted{Kind: "ksk", Method: "double-ds", Old: ids(ksk), New: ids(spare), Reason: "tried"}, // 34
		&event.DSSubmitted{IDs: ids(ksk, spare)},
		&event.RolloverAborted{Rollover: 34, Reason: "no time for it"},
		&event.KeyIntroduced{IDs: ids(spare)},
		&event.KeyWithdrawn{IDs: ids(zsk)},
		&event.KeyExported{ID: ksk},
		&event.KeyBackedUp{IDs: ids(ksk)},
		&event.KeyAdopted{Keys: []event.AdoptedKey{{ID: ksk, State: "active"}}},
		&event.RolloverStarted{Kind: "insecure", Method: "last-ds", Old: ids(ksk), Reason: "to be unsigned"}, // 42
		&event.DSWithdrawn{CDS: true},
		&event.DSWithdrawn{},
		&event.RolloverCompleted{Rollover: 42},
		&event.KeyProved{IDs: ids(ksk), Worker: "ns-west", NKey: "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"},
	}
}

// Each event about keys is a sentence that says what happened, why, to which
// key, and what comes next; who did it stands beside it.
func TestNarrate_WhatWhyAndWhatNext(t *testing.T) {
	var b strings.Builder
	var ks keymgr.KeySet
	seen := map[string]bool{}
	for i, f := range told() {
		ev := event.Event{Type: f.EventType(), Zone: "0123456789abcdef", N: uint64(i + 1), Time: dayOne.Add(time.Duration(i) * time.Hour), Facts: f}
		after := keymgr.Evolve(ks, ev)
		text, next := Narrate(ev, ks, after, "example.com.")
		ks = after
		seen[ev.Type] = true
		fmt.Fprintf(&b, "%s\n    %s\n", ev.Type, text)
		if next != "" {
			fmt.Fprintf(&b, "    next: %s\n", next)
		}
		if strings.Contains(text, "does not know") || strings.HasPrefix(text, ev.Type) {
			t.Errorf("%s is not told: %s", ev.Type, text)
		}
	}
	for _, name := range event.Types() {
		if keyMatter(event.Event{Type: name}) && !seen[name] {
			t.Errorf("no sentence is tried for %s", name)
		}
	}
	golden := filepath.Join("testdata", "sentences.golden")
	if *updateGolden {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

// History and tail tell the same, wherever they begin.
func TestHistory_TellsTheSameWhereverItBegins(t *testing.T) {
	w := newRolling(t, "")
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollZSK, Reason: "tried"})
	w.runs("the end", quiet)
	lines := func(q HistoryQuery) (out []string) {
		if err := w.e.History(t.Context(), "example.com", q, func(l HistoryLine) error {
			out = append(out, fmt.Sprintf("%d %s %s", l.Seq, l.Text, l.Next))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	all := lines(HistoryQuery{Types: []string{"rollover.advanced", "rollover.completed"}})
	if len(all) < 6 || !strings.Contains(strings.Join(all, "\n"), "of zsk, step 1 of 3, publish: seen everywhere") {
		t.Fatalf("%q", all)
	}
	last := lines(HistoryQuery{Types: []string{"rollover.advanced", "rollover.completed"}, Limit: 3})
	if diff := cmp.Diff(all[len(all)-3:], last); diff != "" {
		t.Errorf("the newest three: %s", diff)
	}
	var from uint64
	if _, err := fmt.Sscan(last[0], &from); err != nil {
		t.Fatal(err)
	}
	var tailed []string
	stop := fmt.Errorf("enough")
	if err := w.e.Tail(t.Context(), "example.com", from, false, func(l HistoryLine) error {
		if strings.HasPrefix(l.Type, "rollover.") {
			tailed = append(tailed, fmt.Sprintf("%d %s %s", l.Seq, l.Text, l.Next))
		}
		if len(tailed) == 3 {
			return stop
		}
		return nil
	}); err == nil || !slices.Equal(tailed, last) {
		t.Errorf("tail tells %q, want %q (%v)", tailed, last, err)
	}
}

func TestNarrator_HoldsTheKeysOfFewZones(t *testing.T) {
	r := newRig(t, journaltest.New(), nil)
	n := r.e.newNarrator(false)
	for i := range 3 * maxNarrated {
		rec := journal.Record{Seq: 1, Event: event.Event{
			Type: "key.removed", Zone: event.ZoneID(fmt.Sprintf("%016x", i)), N: 1, Facts: &event.KeyRemoved{},
		}}
		if err := n.catchUp(t.Context(), rec); err != nil {
			t.Fatal(err)
		}
		n.line(rec)
	}
	if len(n.all) > maxNarrated {
		t.Errorf("holds the keys of %d zones", len(n.all))
	}
}
