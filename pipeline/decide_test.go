package pipeline

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
)

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

// A rollover that fails, say since the keystore of its new keys is away, holds up
// no signature.
func TestDecide_ARolloverThatFailsKeepsNothingFromBeingSigned(t *testing.T) {
	s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, func(s *State) {
		s.Served = keymgr.Served{Keys: []string{"k1", "z1"}, Signers: []string{"k1", "z1"}, Serial: 1, At: noon}
		s.Keys.DS = keymgr.DSState{Wanted: []string{"k1"}, CDS: true, Since: noon}
	})
	now := noon.Add(100 * 24 * time.Hour)
	first := Decide(s, Default(), Moment{Now: now})
	if len(first.Commands) != 1 || RoleOf(first.Commands[0]) != RoleKeys || first.Commands[0].Lane() != SigningLane {
		t.Fatalf("wanted a rollover, got %+v", first.Commands)
	}
	again := now.Add(time.Minute)
	m := Moment{Now: now}
	m.Lanes[failLane(first.Commands[0])] = LaneState{FailedFor: first.Commands[0].Identity(), RetryAt: again}
	d := Decide(s, Default(), m)
	if len(d.Commands) != 1 || d.WakeAt.After(again) {
		t.Fatalf("after it failed: %+v, wakes at %s", d.Commands, d.WakeAt)
	}
	if c, ok := d.Commands[0].(Sign); !ok || c.Loaded != 5 {
		t.Errorf("after it failed: %+v", d.Commands[0])
	}
	m.Now = again
	if d = Decide(s, Default(), m); len(d.Commands) != 1 || d.Commands[0].Identity() != first.Commands[0].Identity() {
		t.Errorf("it is not tried again: %+v", d.Commands)
	}
}

// boundState is a zone that is bound to the default policy.
func boundState(edit ...func(*State)) State {
	p := Default()
	s := State{
		Zone: "0123456789abcdef", Name: "example.com.", Source: "/zones/example.com",
		Policy: BoundPolicy{Name: p.Name, SHA256: p.SHA256, Text: string(p.Text)},
	}
	for _, fn := range edit {
		fn(&s)
	}
	return s
}

func withKeys(state keymgr.State) func(*State) {
	return func(s *State) {
		s.Keys.Keys = []keymgr.Key{
			{Key: event.Key{ID: "k1", Role: "ksk", Algorithm: 13}, State: state, Activated: noon},
			{Key: event.Key{ID: "z1", Role: "zsk", Algorithm: 13}, State: state, Activated: noon},
		}
	}
}

func withLoaded(seq uint64) func(*State) {
	return func(s *State) {
		s.Loaded = &Loaded{Seq: seq, Facts: event.InstanceLoaded{Serial: 1, Source: s.Source}}
	}
}

func withSigned(seq, loaded uint64) func(*State) {
	return func(s *State) {
		s.Signed = &Signed{Seq: seq, Facts: event.InstanceSigned{
			Loaded: loaded, Serial: 1, Params: Default().Parameters(), Keys: []string{"k1", "z1"}, Signers: []string{"k1", "z1"},
			Earliest: noon.Add(28 * 24 * time.Hour).Unix(),
		}}
	}
}

func withLoadFailure(source string) func(*State) {
	return func(s *State) { s.LoadFailure = &Failure{Source: source, Stage: "load", Reason: "gone", Count: 1} }
}

func asPublished(s *State) {
	s.Published = &Published{Seq: s.Signed.Seq + 1, Signed: *s.Signed, Loaded: *s.Loaded}
}

func TestDecide(t *testing.T) {
	p := Default()
	resign := Sign{
		Loaded: 5, Params: p.Parameters(), Keys: []string{"k1", "z1"}, Signers: []string{"k1", "z1"},
	}
	based := resign
	based.Base = 6
	refresh := based
	refresh.Refresh = 6
	load := Load{Source: "/zones/example.com"}
	generate := GenerateKeys{Roles: []keymgr.Role{keymgr.KSK, keymgr.ZSK}, Algorithm: p.Algorithm(), Bits: p.Bits()}
	for _, tt := range []struct {
		fact  string
		state State
		at    Moment
		want  []Command
	}{
		{
			"a zone without a policy is bound first",
			State{Added: Registered{Facts: event.ZoneAdded{Policy: "p"}}},
			Moment{},
			[]Command{BindPolicy{Policy: "p"}},
		},
		{"a new zone loads and makes keys at once", boundState(), Moment{}, []Command{load, generate}},
		{
			"an imported KSK is completed by a ZSK", boundState(func(s *State) {
				s.Keys.Keys = []keymgr.Key{{Key: event.Key{ID: "k", Role: "ksk", Algorithm: 13}, State: keymgr.Generated}}
			}),
			Moment{},
			[]Command{load, GenerateKeys{Roles: []keymgr.Role{keymgr.ZSK}, Algorithm: p.Algorithm(), Bits: p.Bits()}},
		},
		{
			"keys prove themselves before they sign", boundState(withKeys(keymgr.Generated), withLoaded(5)),
			Moment{},
			[]Command{ActivateKeys{IDs: []string{"k1", "z1"}}},
		},
		{"what was loaded is signed", boundState(withKeys(keymgr.Active), withLoaded(5)), Moment{}, []Command{resign}},
		{
			"what was signed is published", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5)),
			Moment{},
			[]Command{Publish{Signed: 6}},
		},
		{
			"a published zone rests", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished),
			Moment{},
			nil,
		},
		{
			"old signatures are made again", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Now: noon.Add(15 * 24 * time.Hour)},
			[]Command{refresh},
		},
		{
			"what a clock ahead of now signed is made again", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), func(s *State) {
				s.Signed.Facts.Inception = noon.Add(time.Hour).Unix()
			}, asPublished), Moment{}, []Command{refresh},
		},
		{
			"a request loads against the newest instance",
			boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Reload: 3},
			[]Command{Load{Source: "/zones/example.com", Base: 5, Asked: 3}},
		},
		{
			"servers are asked at once after a start", boundState(withKeys(keymgr.Active), remote, withLoaded(5), withSigned(6, 5), asPublished),
			Moment{},
			[]Command{Load{Source: "192.0.2.1:53", Base: 5}},
		},
		{
			"servers are asked again in time", boundState(withKeys(keymgr.Active), remote, withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Inbound: Inbound{Next: noon.Add(time.Second)}},
			nil,
		},
		{
			"a request for everything asks at once", boundState(withKeys(keymgr.Active), remote, withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Reload: 2, Full: true, Inbound: Inbound{Next: noon.Add(time.Second)}},
			[]Command{Load{Source: "192.0.2.1:53", Base: 5, Full: true, Asked: 2}},
		},
		{
			"other servers are asked for everything", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, remote),
			Moment{Inbound: Inbound{Next: noon.Add(time.Second)}},
			[]Command{Load{Source: "192.0.2.1:53", Base: 5, Full: true}},
		},
		{
			"a source that held the same is not read again", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, remote),
			Moment{Inbound: Inbound{Read: "192.0.2.1:53", Next: noon.Add(time.Second)}},
			nil,
		},
		{
			"a source that comes back after another one failed is read",
			boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, withLoadFailure("/zones/other")),
			Moment{Inbound: Inbound{Read: "/zones/example.com"}},
			[]Command{Load{Source: "/zones/example.com", Base: 5}},
		},
		{
			"a source that fails itself is not read again without being asked",
			boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, withLoadFailure("/zones/example.com")),
			Moment{},
			nil,
		},
		{
			"an expired zone is signed again by default", boundState(withKeys(keymgr.Active), remote, withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Now: noon.Add(15 * 24 * time.Hour), Inbound: Inbound{Next: noon.Add(400 * time.Hour), Expires: noon}},
			[]Command{refresh},
		},
		{
			"a request signs now", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Resign: 4},
			[]Command{resigned(refresh, 6, 4)},
		},
		{
			"a request signs everything", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished),
			Moment{Resign: 4, ResignFull: true},
			[]Command{resigned(refresh, 0, 4)},
		},
		{
			"a serial below the floor is replaced", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, func(s *State) {
				floor := uint32(1)
				s.SerialFloor = &floor
			}), Moment{}, []Command{refresh},
		},
		{
			"another policy signs again", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, func(s *State) {
				s.Signed.Facts.Params = "other"
			}), Moment{}, []Command{based},
		},
		{
			"a failed gate is not passed by", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), func(s *State) {
				s.SignFailure = &Failure{Seq: 7, Loaded: 5}
			}), Moment{}, []Command{resign},
		},
		{
			"what failed waits", boundState(withKeys(keymgr.Active), withLoaded(5)),
			Moment{Now: noon, Lanes: [lanes]LaneState{SigningLane: {FailedFor: resign.Identity(), RetryAt: noon.Add(time.Minute)}}},
			nil,
		},
		{
			"what failed is tried again", boundState(withKeys(keymgr.Active), withLoaded(5)),
			Moment{Now: noon, Lanes: [lanes]LaneState{SigningLane: {FailedFor: resign.Identity(), RetryAt: noon}}},
			[]Command{resign},
		},
		{
			"broken contents are loaded whole", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished, func(s *State) {
				s.Loaded.Broken = "chunk lost"
			}), Moment{}, []Command{load},
		},
		{
			"a broken signed instance is signed whole", boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), func(s *State) {
				s.Signed.Broken = "chunk lost"
			}), Moment{}, []Command{resign},
		},
		{"a removed zone does nothing", boundState(func(s *State) { s.Removed = 9 }), Moment{}, nil},
		{"a halted zone does nothing", boundState(func(s *State) { s.Halted = &Halt{} }), Moment{}, nil},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			if tt.at.Now.IsZero() {
				tt.at.Now = noon
			}
			got := Decide(tt.state, p, tt.at)
			if diff := cmp.Diff(tt.want, got.Commands); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
		})
	}
}

// remote gives the zone a server as its source.
func remote(s *State) { s.Source = "192.0.2.1:53" }

func resigned(c Sign, base, asked uint64) Sign {
	c.Base, c.Asked = base, asked
	return c
}

func TestDecide_AnExpiredZoneStopsWhereThePolicyWantsIt(t *testing.T) {
	p, err := Parse("p", []byte("version = \"v1\"\n[loader]\non-expire = \"stop\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := boundState(withKeys(keymgr.Active), remote, withLoaded(5), withSigned(6, 5), asPublished)
	s.Signed.Facts.Params = "other"
	in := Inbound{Next: noon.Add(time.Hour), Expires: noon.Add(time.Minute)}
	if d := Decide(s, p, Moment{Now: noon, Inbound: in}); len(d.Commands) != 1 {
		t.Errorf("before: %v", d.Commands)
	}
	if d := Decide(s, p, Moment{Now: in.Expires, Inbound: in}); len(d.Commands) != 0 || !d.WakeAt.Equal(in.Next) {
		t.Errorf("then: %v, wake at %v", d.Commands, d.WakeAt)
	}
}

func TestLoadIdentity_RequestsDoNotUndoARunningLoad(t *testing.T) {
	a, b := Load{Source: "192.0.2.1:53", Base: 5}, Load{Source: "192.0.2.1:53", Base: 5, Asked: 9, Hint: 7}
	if a.Identity() != b.Identity() {
		t.Error("a request changes the identity")
	}
	if b.Full = true; a.Identity() == b.Identity() {
		t.Error("a full load is the same as another")
	}
}

func TestDecide_WakesToSignAgain(t *testing.T) {
	s := boundState(withKeys(keymgr.Active), withLoaded(5), withSigned(6, 5), asPublished)
	got := Decide(s, Default(), Moment{Now: noon})
	// A quarter of the refresh interval before the first signature is short.
	want := noon.Add(28*24*time.Hour - Default().RemainTime() - 3*time.Hour)
	if !got.WakeAt.Equal(want) {
		t.Errorf("wakes at %s, want %s", got.WakeAt, want)
	}
}

func TestIdentity_FollowsFromInputsAlone(t *testing.T) {
	a, b := Sign{Loaded: 5, Keys: []string{"a"}}, Sign{Loaded: 5, Keys: []string{"a"}}
	if a.Identity() != b.Identity() {
		t.Error("equal commands have different identities")
	}
	b.Base = 3
	if a.Identity() == b.Identity() {
		t.Error("different commands have the same identity")
	}
	if Command(Publish{Signed: 5}).Identity() == Command(Load{Base: 5}).Identity() {
		t.Error("commands of different kinds have the same identity")
	}
}

// recordOf is a record as the journal delivers it.
func recordOf(_ *testing.T, seq uint64, ev event.Event) journal.Record {
	return journal.Record{Seq: seq, Event: ev}
}
