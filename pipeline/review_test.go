package pipeline

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/event"
	"sluice/keymgr"
)

// reviewPolicy is a policy with the given lines behind its version.
func reviewPolicy(t *testing.T, text string) Policy {
	t.Helper()
	p, err := Parse("default", []byte("version = \"v1\"\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

const (
	loadedManual = "[loader.review]\nmode = \"manual\"\n"
	signedManual = "[signer.review]\nmode = \"manual\"\n"
	loadedScript = "[loader.review]\nmode = \"script\"\nhooks = [{ command = \"one\" }, { command = \"two\", timeout = \"5s\" }]\n"
	signedScript = "[signer.review]\nmode = \"script\"\nhook = \"one\"\n"
	scriptAndMan = "[signer.review]\nmode = \"script+manual\"\nhook = \"one\"\n"
)

// facts folds events into a state, one after the other from sequence 20 on.
func facts(events ...event.Facts) func(*State) {
	return func(s *State) {
		for i, f := range events {
			rec := recordOf(nil, uint64(20+i), event.Event{Type: f.EventType(), Time: noon, Facts: f})
			*s = Evolve(*s, rec, "")
		}
	}
}

func requested(stage string, instance uint64) *event.ReviewRequested {
	return &event.ReviewRequested{Stage: stage, Instance: instance}
}

func approvedBy(stage string, instance uint64, checker string, passed bool) *event.ReviewApproved {
	return &event.ReviewApproved{Stage: stage, Instance: instance, Checker: checker, Passed: passed}
}

func rejectedBy(stage string, instance uint64, checker string) *event.ReviewRejected {
	return &event.ReviewRejected{Stage: stage, Instance: instance, Checker: checker}
}

func abandoned(stage string, instance uint64) *event.InstanceAbandoned {
	return &event.InstanceAbandoned{Stage: stage, Instance: instance, Reason: "rejected"}
}

// loadedNow is a newer loaded instance, as its event brings it.
func loadedNow(s *State) {
	s.Loaded = &Loaded{Seq: 10, Facts: event.InstanceLoaded{Serial: 2, Source: s.Source}}
}

// signedNow is the newest signed instance, of l10.
func signedNow(seq, loaded uint64) func(*State) {
	return func(s *State) {
		f := s.Signed.Facts
		f.Loaded, f.Base = loaded, 6
		f.ContentDigest[0] = byte(loaded)
		s.Signed = &Signed{Seq: seq, Facts: f}
	}
}

func TestDecide_Reviews(t *testing.T) {
	active := withKeys(keymgr.Active)
	atRest := func(s *State) {
		for _, fn := range []func(*State){active, withLoaded(5), withSigned(6, 5), asPublished} {
			fn(s)
		}
		s.Approved = s.Loaded
	}
	due := Moment{Now: noon.Add(15 * day)}
	signL10 := Sign{
		Loaded: 10, Base: 6, Params: Default().Parameters(), Keys: []string{"k1", "z1"}, Signers: []string{"k1", "z1"},
	}
	refresh := signL10
	refresh.Loaded, refresh.Refresh = 5, 6
	halt := func(stage string, instance uint64) *event.ZoneHalted {
		return &event.ZoneHalted{Stage: stage, Instance: instance}
	}
	source := "/zones/example.com"
	loaded, signed := event.StageLoaded, event.StageSigned
	for _, tt := range []struct {
		fact   string
		policy string
		state  []func(*State)
		at     Moment
		want   []Command
	}{
		{"without a review what was loaded is signed", "", []func(*State){atRest, loadedNow}, Moment{}, []Command{signL10}},
		{"a review is opened before anything is signed", loadedManual, []func(*State){atRest, loadedNow}, Moment{}, []Command{
			OpenReview{Stage: loaded, Instance: 10},
		}},
		{"what is published already needs no review", loadedManual, []func(*State){atRest, loadedNow, func(s *State) {
			s.Loaded.Facts.Serial, s.Approved = 1, nil
		}}, Moment{}, nil},
		{"limits are checked without a review too", "loader.checks.min-records = 3\n", []func(*State){atRest, loadedNow}, Moment{}, []Command{
			OpenReview{Stage: loaded, Instance: 10},
		}},
		{"limits that were kept let it be signed", "loader.checks.min-records = 3\n", []func(*State){atRest, loadedNow, facts(
			approvedBy(loaded, 10, "built-in", true),
		)}, Moment{}, []Command{signL10}},
		{"a person is waited for", loadedManual, []func(*State){atRest, loadedNow, facts(requested(loaded, 10))}, Moment{}, nil},
		{"a reload waits for the verdict", loadedManual, []func(*State){atRest, loadedNow, facts(requested(loaded, 10))}, Moment{Reload: 4}, nil},
		{
			"what is published is kept fresh meanwhile", loadedManual,
			[]func(*State){atRest, loadedNow, facts(requested(loaded, 10))},
			due,
			[]Command{refresh},
		},
		{"what was approved is signed", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), approvedBy(loaded, 10, "manual", true),
		)}, Moment{}, []Command{signL10}},
		{"what was dropped is not signed", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), abandoned(loaded, 10),
		)}, Moment{}, nil},
		{"the load after a rejection builds on what was approved", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), abandoned(loaded, 10),
		)}, Moment{Reload: 4}, []Command{Load{Source: source, Base: 5, Asked: 4}}},
		{"what is published is kept fresh after a rejection", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), abandoned(loaded, 10),
		)}, due, []Command{refresh}},
		{"a halt stops loads", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), halt(loaded, 10),
		)}, Moment{Reload: 4}, nil},
		{"what is published is kept fresh in a halt", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), halt(loaded, 10),
		)}, due, []Command{refresh}},
		{"an override signs what halted the zone", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), halt(loaded, 10),
			&event.ReviewOverridden{Stage: loaded, Instance: 10, Reason: "right"},
		)}, Moment{}, []Command{signL10}},
		{"a reset lets the zone load again", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), rejectedBy(loaded, 10, "manual"), halt(loaded, 10), &event.ZoneReset{},
		)}, Moment{Reload: 4}, []Command{Load{Source: source, Base: 5, Asked: 4}}},
		{"the first hook runs first", loadedScript, []func(*State){atRest, loadedNow, facts(requested(loaded, 10))}, Moment{}, []Command{
			RunHook{Stage: loaded, Instance: 10, Number: 1, Command: "one", Timeout: hookTimeout},
		}},
		{"the second hook runs after it", loadedScript, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), approvedBy(loaded, 10, "hook 1", false),
		)}, Moment{}, []Command{RunHook{Stage: loaded, Instance: 10, Number: 2, Command: "two", Timeout: 5 * time.Second}}},
		{"all hooks have approved", loadedScript, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), approvedBy(loaded, 10, "hook 1", false), approvedBy(loaded, 10, "hook 2", true),
		)}, Moment{}, []Command{signL10}},
		{"a policy that asks for less closes the review", loadedScript, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), approvedBy(loaded, 10, "hook 1", false), approvedBy(loaded, 10, "hook 2", false),
		)}, Moment{}, []Command{CloseReview{Stage: loaded, Instance: 10}}},
		{"a signed instance is reviewed before it is published", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10)}, Moment{}, []Command{
			OpenReview{Stage: signed, Instance: 12},
		}},
		{"a person is waited for before publication", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12),
		)}, Moment{}, nil},
		{"a refresh of what is published overtakes what waits", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), func(s *State) {
			s.Signed.Facts.Earliest = noon.Add(60 * day).Unix()
		}, facts(requested(signed, 12))}, due, []Command{refresh}},
		{"an approved signed instance is published", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), approvedBy(signed, 12, "manual", true),
		)}, Moment{}, []Command{Publish{Signed: 12}}},
		{"a hook is not enough where a person is asked too", scriptAndMan, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), approvedBy(signed, 12, "hook 1", false),
		)}, Moment{}, nil},
		{"a person is not enough where a hook is asked too", scriptAndMan, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), approvedBy(signed, 12, "manual", false),
		)}, Moment{}, []Command{RunHook{Stage: signed, Instance: 12, Number: 1, Command: "one", Timeout: hookTimeout}}},
		{"a rejected signed instance is not made again", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), rejectedBy(signed, 12, "manual"), abandoned(signed, 12),
		)}, Moment{}, nil},
		{"what is published is kept fresh after a rejected signing", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), rejectedBy(signed, 12, "manual"), abandoned(signed, 12),
		)}, due, []Command{refresh}},
		{"other parameters sign again what was rejected", signedManual + "[signer]\ndenial.type = \"nsec3\"\n", []func(*State){
			atRest, loadedNow, signedNow(12, 10), facts(
				requested(signed, 12), rejectedBy(signed, 12, "manual"), abandoned(signed, 12),
			),
		}, Moment{}, []Command{withParams(signL10, "denial=nsec3 iterations=0 salt=- dnskey-ttl=3600 ds=2 zonemd=false")}},
		{"newer content is signed after a rejected signing", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), rejectedBy(signed, 12, "manual"), abandoned(signed, 12),
		), func(s *State) {
			s.Loaded = &Loaded{Seq: 30, Facts: event.InstanceLoaded{Serial: 3, Source: s.Source}}
		}}, Moment{}, []Command{withLoadedSeq(signL10, 30)}},
		{"a rejected refresh is not made again at once", signedScript, []func(*State){atRest, signedNow(12, 5), facts(
			requested(signed, 12), rejectedBy(signed, 12, "hook 1"), abandoned(signed, 12),
		)}, Moment{Now: noon.Add(time.Hour)}, nil},
		{"a rejected refresh is made again when somebody asks for it", signedScript, []func(*State){atRest, signedNow(12, 5), facts(
			requested(signed, 12), rejectedBy(signed, 12, "hook 1"), abandoned(signed, 12),
		)}, Moment{Now: noon.Add(time.Hour), Resign: 3}, []Command{func() Sign {
			c := refresh
			c.Asked = 3
			return c
		}()}},
		{"a rejected refresh is tried again with time left", signedScript, []func(*State){atRest, signedNow(12, 5), facts(
			requested(signed, 12), rejectedBy(signed, 12, "hook 1"), abandoned(signed, 12),
		)}, due, []Command{refresh}},
		{"an override publishes what halted the zone", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), rejectedBy(signed, 12, "manual"), halt(signed, 12),
			&event.ReviewOverridden{Stage: signed, Instance: 12, Reason: "right"},
		)}, Moment{}, []Command{Publish{Signed: 12}}},
		{"a halted instance that a refresh overtook is made again after an override", signedManual, []func(*State){
			atRest, loadedNow, signedNow(12, 10), facts(
				requested(signed, 12), rejectedBy(signed, 12, "manual"), halt(signed, 12),
			), signedNow(14, 5), func(s *State) { *s = evolveSigned(*s) }, asPublishedOld, facts(
				&event.ReviewOverridden{Stage: signed, Instance: 12, Reason: "right"},
			),
		}, Moment{}, []Command{withBase(signL10, 14)}},
		{"a reset after a signed halt makes nothing again", signedManual, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), rejectedBy(signed, 12, "manual"), halt(signed, 12), &event.ZoneReset{},
		)}, Moment{}, nil},
		{"maintenance blocks loads", "", []func(*State){atRest, facts(&event.MaintenanceChanged{Enabled: true})}, Moment{Reload: 4}, nil},
		{"maintenance blocks new content", "", []func(*State){atRest, loadedNow, facts(&event.MaintenanceChanged{Enabled: true})}, Moment{}, nil},
		{"maintenance blocks hooks for new content", loadedScript, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), &event.MaintenanceChanged{Enabled: true},
		)}, Moment{}, nil},
		{
			"what is published is kept fresh in maintenance", "",
			[]func(*State){atRest, loadedNow, facts(&event.MaintenanceChanged{Enabled: true})},
			due,
			[]Command{refresh},
		},
		{"the end of maintenance lets work go on", "", []func(*State){atRest, loadedNow, facts(
			&event.MaintenanceChanged{Enabled: true}, &event.MaintenanceChanged{},
		)}, Moment{}, []Command{signL10}},
		{"content that cannot be signed does not keep signatures from being made again", "", []func(*State){atRest, loadedNow, func(s *State) {
			s.SignFailure = &Failure{Seq: 11, Time: noon, Stage: "sign", Loaded: 10, Count: 1}
		}}, due, []Command{refresh}},
		{"a failed gate waits before it signs again", "", []func(*State){atRest, loadedNow, signedNow(12, 10), func(s *State) {
			s.SignFailure = &Failure{Seq: 13, Time: noon, Stage: "verify", Loaded: 10, Count: 1}
		}}, Moment{Now: noon.Add(30 * time.Second)}, nil},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			if tt.at.Now.IsZero() {
				tt.at.Now = noon
			}
			got := Decide(boundState(tt.state...), reviewPolicy(t, tt.policy), tt.at)
			if diff := cmp.Diff(tt.want, got.Commands); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
}

// asPublishedOld is as if the newest signed instance, of the old content, was
// published.
func asPublishedOld(s *State) {
	s.Published = &Published{Seq: s.Signed.Seq + 1, Signed: *s.Signed, Loaded: s.Published.Loaded}
}

func withParams(c Sign, params string) Sign    { c.Params = params; return c }
func withLoadedSeq(c Sign, loaded uint64) Sign { c.Loaded = loaded; return c }
func withBase(c Sign, base uint64) Sign        { c.Base = base; return c }

func TestCarried_OnlyForPureRefreshes(t *testing.T) {
	s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished)
	made := madeOf(s.Published.Signed.Facts)
	if carried(s, made) != 6 {
		t.Error("what is published does not stand for its refresh")
	}
	for name, change := range map[string]func(*Made){
		"content": func(m *Made) { m.Content[0]++ },
		"keys":    func(m *Made) { m.Keys = []string{"other"} },
		"signers": func(m *Made) { m.Signers = nil },
		"denial":  func(m *Made) { m.Params = "other" },
	} {
		other := made
		change(&other)
		if carried(s, other) != 0 {
			t.Errorf("a verdict is carried over to other %s", name)
		}
	}
}

func TestEvolve_VerdictOnAnOlderInstanceChangesNothing(t *testing.T) {
	s := boundState(withKeys(keymgr.Active), withLoaded(5), facts(requested(event.StageLoaded, 5)))
	got := s
	facts(approvedBy(event.StageLoaded, 4, "manual", true), abandoned(event.StageLoaded, 4))(&got)
	got.Head = s.Head
	if diff := cmp.Diff(s, got); diff != "" {
		t.Errorf("the state changed:\n%s", diff)
	}
}
