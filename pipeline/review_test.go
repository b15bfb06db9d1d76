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
		{"other contents under the published serial need one", loadedManual, []func(*State){atRest, loadedNow, func(s *State) {
			s.Loaded.Facts.Serial, s.Loaded.Facts.ContentDigest = 1, Digest{1}
		}}, Moment{}, []Command{OpenReview{Stage: loaded, Instance: 10}}},
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
		{"a refresh of what is published approves nothing newer", loadedManual, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), &event.InstanceSigned{
				Loaded: 5, Serial: 2, Params: Default().Parameters(), Keys: []string{"k1", "z1"}, Signers: []string{"k1", "z1"}, Earliest: noon.Add(28 * day).Unix(),
			},
		), asPublishedOld}, Moment{}, nil},
		{"a halt that no verdict led to runs no further hook", loadedScript, []func(*State){atRest, loadedNow, facts(
			requested(loaded, 10), halt(loaded, 10),
		)}, Moment{}, nil},
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
		{"an approved signed instance whose signatures ended while it waited is made again", signedManual, []func(*State){
			atRest, loadedNow, signedNow(12, 10), func(s *State) { s.Signed.Facts.Earliest = noon.Unix() }, facts(
				requested(signed, 12), approvedBy(signed, 12, "manual", true),
			),
		}, Moment{}, []Command{withRefresh(signL10, 12)}},
		{"a signed instance that waits until its signatures are old is made again", signedManual, []func(*State){
			atRest, loadedNow, signedNow(12, 10), func(s *State) { s.Signed.Facts.Earliest = noon.Add(Default().RemainTime()).Unix() }, facts(requested(signed, 12)),
		}, Moment{}, []Command{withRefresh(signL10, 12)}},
		{"newer content is not signed while one that was signed halts the zone", signedManual, []func(*State){
			atRest, loadedNow, signedNow(12, 10), facts(requested(signed, 12), rejectedBy(signed, 12, "manual"), halt(signed, 12)),
			func(s *State) { s.Loaded = &Loaded{Seq: 30, Facts: event.InstanceLoaded{Serial: 3, Source: s.Source}} },
		}, Moment{}, nil},
		{"a halt before publication that no verdict led to runs no further hook", signedScript, []func(*State){
			atRest, loadedNow, signedNow(12, 10), facts(requested(signed, 12), halt(signed, 12)),
		}, Moment{}, nil},
		{"no hook judges signatures by a clock that is not trusted", signedScript, []func(*State){atRest, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12),
		)}, Moment{ClockDoubted: true}, nil},
		{"what is published is kept fresh right after a rejected signing of newer content", signedManual, []func(*State){atRest, shortLived, loadedNow, signedNow(12, 10), facts(
			requested(signed, 12), rejectedBy(signed, 12, "manual"), abandoned(signed, 12),
		)}, Moment{Now: noon.Add(time.Hour)}, []Command{refresh}},
		{"what was signed on top of a version that is lost is signed whole", "", []func(*State){atRest, loadedNow, func(s *State) {
			p := *s.Published
			p.Signed.Broken = "chunk lost"
			s.Published = &p
		}}, Moment{}, []Command{withBase(signL10, 0)}},
		{"what was signed on top of contents that are lost is signed whole", "", []func(*State){atRest, loadedNow, func(s *State) {
			p := *s.Published
			p.Loaded.Broken = "chunk lost"
			s.Published = &p
		}}, Moment{}, []Command{withBase(signL10, 0)}},
		{"a version that was not signed is no base", "", []func(*State){atRest, loadedNow, func(s *State) {
			p := *s.Published
			p.Signed.Facts.Mode = string(ModeUnsigned)
			s.Published = &p
		}}, Moment{}, []Command{withBase(signL10, 0)}},
		{"contents that are lost are neither signed nor published", "", []func(*State){atRest, loadedNow, func(s *State) {
			s.Loaded.Broken = "chunk lost"
		}}, Moment{}, []Command{Load{Source: source}}},
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
		{"maintenance blocks the publication of new content", "", []func(*State){
			atRest, loadedNow, signedNow(12, 10), facts(&event.MaintenanceChanged{Enabled: true}),
		}, Moment{}, nil},
		{"maintenance blocks hooks for new content that is signed", signedScript, []func(*State){
			atRest, loadedNow, signedNow(12, 10), facts(requested(signed, 12), &event.MaintenanceChanged{Enabled: true}),
		}, Moment{}, nil},
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
func withRefresh(c Sign, of uint64) Sign       { c.Refresh = of; return c }

// shortLived lets the signatures of what is published be due already.
func shortLived(s *State) {
	p := *s.Published
	p.Signed.Facts.Earliest = noon.Add(Default().RemainTime()).Unix()
	s.Published = &p
}

func TestCarried_OnlyForPureRefreshes(t *testing.T) {
	published := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished)
	approved := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), facts(
		requested(event.StageSigned, 6), approvedBy(event.StageSigned, 6, checkerManual, true),
	))
	for what, s := range map[string]State{"what is published": published, "what was approved": approved} {
		made := madeOf(s.Signed.Facts)
		if carried(s, made) != 6 {
			t.Errorf("%s does not stand for its refresh", what)
		}
		for name, change := range map[string]func(*Made){
			"content": func(m *Made) { m.Content[0]++ },
			"keys":    func(m *Made) { m.Keys = []string{"other"} },
			"signers": func(m *Made) { m.Signers = nil },
			"denial":  func(m *Made) { m.Params = "other" },
			"CDS":     func(m *Made) { m.CDS = []string{"k1"} },
		} {
			other := made
			change(&other)
			if carried(s, other) != 0 {
				t.Errorf("a verdict on %s is carried over to other %s", what, name)
			}
		}
	}
}

func TestEvolve_OnlyTheNewestSignedInstanceIsPublished(t *testing.T) {
	s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, loadedNow, signedNow(12, 10))
	s.SignFailure = &Failure{Seq: 13, Count: 2}
	was := s.Published
	facts(&event.InstancePublished{Signed: 11, Loaded: 10, Serial: 2})(&s)
	if s.Published != was {
		t.Errorf("s11 is published as %+v", s.Published)
	}
	facts(&event.InstancePublished{Signed: 12, Loaded: 10, Serial: 2})(&s)
	if s.Published.Signed.Seq != 12 || s.Published.Loaded.Seq != 10 || s.SignFailure != nil {
		t.Errorf("published %+v, failure %+v", s.Published, s.SignFailure)
	}
}

func TestEvolve_VerdictOnAnOlderInstanceChangesNothing(t *testing.T) {
	loaded, signed := event.StageLoaded, event.StageSigned
	underReview := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), facts(requested(loaded, 5), requested(signed, 6)))
	halted := underReview
	facts(&event.ZoneHalted{Stage: signed, Instance: 6, Reason: "rejected"})(&halted)
	for fact, tt := range map[string]struct {
		state State
		late  func(*State)
	}{
		"a loaded one is approved":   {underReview, facts(approvedBy(loaded, 4, "manual", true))},
		"a loaded one is rejected":   {underReview, facts(rejectedBy(loaded, 4, "manual"))},
		"a loaded one is dropped":    {underReview, facts(abandoned(loaded, 4))},
		"a loaded one is overridden": {underReview, facts(&event.ReviewOverridden{Stage: loaded, Instance: 4})},
		"a loaded one is asked for":  {underReview, facts(requested(loaded, 4))},
		"a signed one is approved":   {underReview, facts(approvedBy(signed, 3, "manual", true))},
		"a signed one is rejected":   {underReview, facts(rejectedBy(signed, 3, "manual"))},
		"a signed one is dropped":    {underReview, facts(abandoned(signed, 3))},
		"a signed one is overridden": {underReview, facts(&event.ReviewOverridden{Stage: signed, Instance: 3})},
		"a signed one is asked for":  {underReview, facts(requested(signed, 3))},
		"one in a halted zone":       {halted, facts(&event.ReviewOverridden{Stage: signed, Instance: 3})},
		"one of the other stage":     {halted, facts(&event.ReviewOverridden{Stage: loaded, Instance: 6})},
	} {
		got := tt.state
		tt.late(&got)
		got.Head = tt.state.Head
		if diff := cmp.Diff(tt.state, got); diff != "" {
			t.Errorf("%s: the state changed:\n%s", fact, diff)
		}
	}
}
