package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

func TestEvolve_SignalRemembersWhereItStands(t *testing.T) {
	at := dayOne
	var g *Signal
	for _, step := range []struct {
		f            event.SignalPushed
		keys, owners string
		failed       int
	}{
		{event.SignalPushed{Keys: []string{"a"}, Owners: []string{"one."}, Error: "two.: REFUSED"}, "[]", "[one.]", 1},
		{event.SignalPushed{Keys: []string{"a"}, Owners: []string{"one.", "two."}}, "[a]", "[one. two.]", 1},
		{event.SignalPushed{Keys: []string{"b"}, Owners: []string{"three."}}, "[b]", "[one. three. two.]", 0},
		{event.SignalPushed{Owners: []string{"one."}, Error: "two.: REFUSED"}, "[b]", "[one. three. two.]", 1},
		{event.SignalPushed{Owners: []string{"one.", "two.", "three."}}, "[]", "[]", 1},
	} {
		before := fmt.Sprintf("%+v", g)
		next := g.evolve(&step.f, at)
		if fmt.Sprintf("%+v", g) != before {
			t.Errorf("the state before was changed: %s", before)
		}
		g, at = next, at.Add(time.Minute)
		if fmt.Sprint(g.Keys) != step.keys || fmt.Sprint(g.Owners) != step.owners || g.Telling.Failed != step.failed || g.Telling.Done != (step.f.Error == "") {
			t.Errorf("after %+v: %+v, %+v", step.f, g, g.Telling)
		}
	}
}

// TestParent_NotifyWaitsUntilTheNameServersVouch has a server that does not know
// the zone of the name servers: that is told, and the parent is not yet asked to
// look.
func TestParent_NotifyWaitsUntilTheNameServersVouch(t *testing.T) {
	parent := newPushParent(t)
	text := fmt.Sprintf("key-manager.parent = { notify = true, signal = { servers = [\"%s^push\"] } }\n", parent.addr)
	w := newTelling(t, text, parent, func(w *rolling, _ *outside) {
		w.agents = func(context.Context, zone.Name, time.Time) (observe.Agents, error) {
			t.Error("the parent's agents were looked for")
			return observe.Agents{}, nil
		}
	})
	st := w.told("two failures", func(st ZoneStatus) bool { return st.ParentTold != nil && st.ParentTold.Ways[0].Failed > 1 })
	way := st.ParentTold.Ways[0]
	if way.Way != "signal" || way.RetryAt == nil || !strings.Contains(way.Text, "_dsboot.example.com._signal.ns2.example.net.: "+parent.addr+"^push.: it does not say which zone the name is in") {
		t.Errorf("%+v", way)
	}
	if !slices.ContainsFunc(st.Notices, func(n Notice) bool { return strings.HasSuffix(n.Hint, "sluice key ds example.com. --format signal") }) {
		t.Errorf("notices %+v", st.Notices)
	}
	if got := w.historyOf("signal.pushed"); len(got) < 2 || !strings.Contains(got[0], "not updated: ") {
		t.Errorf("history %q", got)
	}
}

func TestDS_SignalRecordsStandBelowTheNameServers(t *testing.T) {
	w := newTelling(t, "", nil)
	w.secure()
	list, err := w.e.DS(t.Context(), "example.com", FormatSignal)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	// ns1 is in the zone itself and cannot vouch for it.
	own, err := w.e.DS(t.Context(), "example.com", "cds")
	if err != nil {
		t.Fatal(err)
	}
	if want := "_dsboot.example.com._signal.ns2.example.net." + strings.TrimPrefix(own[0].Record, "example.com."); list[0].Record != want {
		t.Errorf("%s, want %s", list[0].Record, want)
	}
	if !strings.HasPrefix(list[1].Record, "_dsboot.example.com._signal.ns2.example.net. 3600 IN CDNSKEY 257 3 13 ") {
		t.Error(list[1].Record)
	}
}
