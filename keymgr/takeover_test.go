package keymgr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal/event"
)

// formerNow is when the keys of the tests are taken over.
var formerNow = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) int64 { return formerNow.Add(-d).Unix() }

// former makes a key as dnssec-policy notes it: name is its role and a letter,
// words its goal and the states of its DNSKEY, signatures and DS, by their
// first letters, all reached an hour ago.
func former(name, words string) event.Key {
	role := strings.TrimRight(name, "abc12")
	k := event.Key{ID: name, Role: role, Algorithm: 13, Tag: uint16(name[len(name)-1])}
	if strings.ContainsAny(name, "12") {
		k.Algorithm = 8
	}
	if words == "" {
		return k
	}
	word := func(c byte) string {
		return map[byte]string{'h': hidden, 'r': rumoured, 'o': omnipresent, 'u': unretentive}[c]
	}
	spread := func(c byte) *event.Spread { return &event.Spread{State: word(c), Since: ago(time.Hour)} }
	l := &event.KeyLife{
		Goal: word(words[0]), DNSKEY: spread(words[1]), TTL: 3600, Created: ago(48 * time.Hour),
		Published: ago(24 * time.Hour), Activated: ago(12 * time.Hour),
	}
	switch role {
	case "zsk":
		l.ZoneSigs = spread(words[2])
	case "ksk":
		l.KeySigs, l.DS = spread(words[2]), spread(words[3])
	case "csk":
		l.KeySigs, l.ZoneSigs, l.DS = spread(words[2]), spread(words[2]), spread(words[3])
	}
	if l.Goal == omnipresent && l.DNSKEY.State != omnipresent && role == "zsk" {
		l.Predecessor = 1
	}
	state, notes := ReadLife(l, Role(role), formerNow)
	l.State, l.Notes = string(state), notes
	k.Life = l
	return k
}

// showing is what one public server shows: keys, and those that sign.
func showing(keys, signers string) *Observation {
	o := &Observation{At: formerNow, Zone: []Seen{{Server: "ns1.", Address: netip.MustParseAddrPort("192.0.2.1:53"), Serial: 7, KeyTTL: 7200}}}
	for id := range strings.FieldsSeq(keys) {
		o.Zone[0].Keys = append(o.Zone[0].Keys, id)
		o.Zone[0].Tags = append(o.Zone[0].Tags, uint16(id[len(id)-1]))
	}
	for id := range strings.FieldsSeq(signers) {
		if !strings.HasPrefix(id, "zsk") {
			o.Zone[0].Signed = append(o.Zone[0].Signed, SeenSignature{Owner: "example.", Type: "DNSKEY", Key: id})
		}
		if !strings.HasPrefix(id, "ksk") {
			o.Zone[0].Signed = append(o.Zone[0].Signed, SeenSignature{Owner: "example.", Type: "SOA", Key: id})
		}
	}
	return o
}

// dsOf is what the parent has: DS of these keys; "none" for none.
func dsOf(ids string) []event.DSSet {
	if ids == "" {
		return nil
	}
	set := event.DSSet{TTL: 86400}
	for id := range strings.FieldsSeq(ids) {
		if id == "none" {
			continue
		}
		d := event.DS{Tag: uint16(id[len(id)-1]), Algorithm: 13, DigestType: 2, Digest: "00", Key: id}
		if strings.ContainsAny(id, "12") {
			d.Algorithm = 8
		}
		if strings.HasPrefix(id, "other") {
			d.Key = ""
		}
		set.DS = append(set.DS, d)
	}
	return []event.DSSet{set}
}

// told is a take-over in a line: states, what the parent is to have, rollovers.
func told(ks KeySet, t Takeover) string {
	after := ks
	for i, f := range t.Do {
		after = Evolve(after, event.Event{Time: formerNow, N: uint64(i + 1), Facts: f})
	}
	var parts []string
	for _, k := range after.Keys {
		parts = append(parts, k.ID+" "+string(k.State))
	}
	if len(after.DS.Wanted) > 0 {
		parts = append(parts, "ds "+strings.Join(after.DS.Wanted, " "))
	}
	for _, r := range after.Rollovers {
		text := fmt.Sprintf("%s %v->%v at %s", r.Kind, r.Old, r.New, r.StepName())
		if !r.Elsewhere.IsZero() {
			text += " since " + r.Elsewhere.Sub(formerNow).String()
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

func TestTakeOver_StartsFromWhatTheWorldHas(t *testing.T) {
	for name, row := range map[string]struct {
		keys    []event.Key
		made    []event.Key // by us, for roles that lacked
		public  []event.Key // of other signers
		ds      string
		seen    *Observation
		want    string
		refused string
		note    string
	}{
		"a zone at rest": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")}, ds: "kska", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, ds kska",
		},
		"at rest, nobody can be asked: the DS is to be seen": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")},
			want: "kska active, zska active, ds kska, secure []->[kska] at first-ds", note: "no public server",
		},
		"no DS yet, and the former signer told the parent to have one: it may come": {
			keys: []event.Key{former("kska", "ooor"), former("zska", "ooo")}, ds: "none", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, ds kska, secure []->[kska] at first-ds", note: "proven that the parent has no DS",
		},
		"the DS went, and caches may hold it: the way to none goes on": {
			keys: []event.Key{former("kska", "hoou"), former("zska", "hoo")}, ds: "none", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, insecure [kska]->[] at last-ds",
		},
		"no DS yet: the way to the first one begins by itself": {
			keys: []event.Key{former("kska", "oooh"), former("zska", "ooo")}, ds: "none", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active", note: "proven that the parent has no DS",
		},
		"no notes at all": {
			keys: []event.Key{former("kska", ""), former("zska", "")}, ds: "kska", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, ds kska",
		},
		"a ZSK is being published": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "hoo"), former("zskb", "orr")}, ds: "kska", seen: showing("kska zska zskb", "kska zska"),
			want: "kska active, zska active, zskb published, ds kska, zsk [zska]->[zskb] at publish since -1h0m0s",
		},
		"a ZSK is said to be published, but is not seen": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "hoo"), former("zskb", "orr")}, ds: "kska", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, zskb published, ds kska, zsk [zska]->[zskb] at publish",
		},
		"two ZSKs sign, one of them is to go": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "hoo"), former("zskb", "orr")}, ds: "kska", seen: showing("kska zska zskb", "kska zska zskb"),
			want: "kska active, zska active, zskb active, ds kska, zsk [zska]->[zskb] at double",
		},
		"a ZSK is retired": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "hou"), former("zskb", "oor")}, ds: "kska", seen: showing("kska zska zskb", "kska zskb"),
			want: "kska active, zska retired, zskb active, ds kska, zsk [zska]->[zskb] at sign",
		},
		"a retired ZSK whose successor is not here signs again": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "hou")}, ds: "kska", seen: showing("kska zska", "kska"),
			want: "kska active, zska active, ds kska", note: "no other ZSK of its algorithm signs",
		},
		"a removed ZSK is remembered": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "huh"), former("zskb", "ooo")}, ds: "kska", seen: showing("kska zskb", "kska zskb"),
			want: "kska active, zska removed, zskb active, ds kska",
		},
		"one that is said to be removed is still shown": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "huh"), former("zskb", "ooo")}, ds: "kska", seen: showing("kska zska zskb", "kska zskb"),
			want: "kska active, zska retired, zskb active, ds kska, zsk [zska]->[zskb] at sign", note: "noted as removed, but the public servers show it",
		},
		"a new KSK is published": {
			keys: []event.Key{former("kska", "hooo"), former("kskb", "orrh"), former("zska", "ooo")}, ds: "kska", seen: showing("kska kskb zska", "kska kskb zska"),
			want: "kska active, kskb active, zska active, ds kska, ksk [kska]->[kskb] at publish since -1h0m0s",
		},
		"a new KSK is published, and does not sign yet": {
			keys: []event.Key{former("kska", "hooo"), former("kskb", "orrh"), former("zska", "ooo")}, ds: "kska", seen: showing("kska kskb zska", "kska zska"),
			want: "kska active, kskb active, zska active, ds kska, ksk [kska]->[kskb] at publish",
		},
		"the parent was told of the new KSK": {
			keys: []event.Key{former("kska", "hoou"), former("kskb", "ooor"), former("zska", "ooo")}, ds: "kska", seen: showing("kska kskb zska", "kska kskb zska"),
			want: "kska active, kskb active, zska active, ds kskb, ksk [kska]->[kskb] at change-ds",
		},
		"the parent has both": {
			keys: []event.Key{former("kska", "hoou"), former("kskb", "ooor"), former("zska", "ooo")}, ds: "kska kskb", seen: showing("kska kskb zska", "kska kskb zska"),
			want: "kska active, kskb active, zska active, ds kskb, ksk [kska]->[kskb] at change-ds",
		},
		"the old DS is gone": {
			keys: []event.Key{former("kska", "hooh"), former("kskb", "oooo"), former("zska", "ooo")}, ds: "kskb", seen: showing("kska kskb zska", "kska kskb zska"),
			want: "kska active, kskb active, zska active, ds kskb, ksk [kska]->[kskb] at change-ds",
		},
		"a CSK gives way to another": {
			keys: []event.Key{former("cska", "hooo"), former("cskb", "orrh")}, ds: "cska", seen: showing("cska cskb", "cska cskb"),
			want: "cska active, cskb active, ds cska, csk [cska]->[cskb] at double",
		},
		"an algorithm gives way to another": {
			keys: []event.Key{former("ksk1", "hooo"), former("zsk1", "hoo"), former("kskb", "ooor"), former("zskb", "ooo")}, ds: "ksk1",
			seen: showing("ksk1 zsk1 kskb zskb", "ksk1 zsk1 kskb zskb"),
			want: "ksk1 active, zsk1 active, kskb active, zskb active, ds kskb, algorithm [ksk1 zsk1]->[kskb zskb] at change-ds",
		},
		"half an algorithm": {
			keys:    []event.Key{former("ksk1", "hooo"), former("kskb", "ooor"), former("zskb", "ooo")},
			want:    "ksk1 active, kskb active, zskb active, ds kskb, algorithm [ksk1]->[kskb zskb] at change-ds",
			refused: "the keys of algorithm 8 sign only a part of the zone: import its ZSK",
		},
		"the DS is of another key": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")}, ds: "otherx", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active", refused: "the parent has a DS of tag 120, and none of the keys matches it: import the KSK with that tag",
			note: "is noted to have a DS at the parent, which has none of it",
		},
		"the DS is of another algorithm, too": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")}, ds: "kska other1", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, ds kska", refused: "DS of algorithm 8",
		},
		"a key that is shown is not here": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")}, ds: "kska", seen: showing("kska zska zskb", "kska zskb"),
			want: "kska active, zska active, ds kska", refused: "the public servers show keys that are not here, with the tags 98 (zskb)",
		},
		"a key that is shown is here by its public part": {
			keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")}, public: []event.Key{former("zskb", ""), former("zskc", ""), former("zsk1", "")},
			ds: "kska", seen: showing("kska zska zskb zsk1", "kska zskb"),
			want: "kska active, zska active, zskb published, zskc generated, zsk1 generated, ds kska",
		},
		"no DS: whatever is shown is nothing to validators": {
			keys: []event.Key{former("kska", "oooh"), former("zska", "ooo")}, ds: "none", seen: showing("kska zska zskb", "kska zskb"),
			want: "kska active, zska active",
		},
		"a KSK alone, with a DS": {
			keys: []event.Key{former("kska", "oooo")}, ds: "kska", seen: showing("kska", "kska"),
			want: "kska active, ds kska", refused: "import its ZSK",
		},
		"a KSK alone, completed here": {
			keys: []event.Key{former("kska", "")}, made: []event.Key{former("zskb", "")}, ds: "kska",
			want: "kska active, zskb active, ds kska", refused: "caches do not know the new ZSK 98",
		},
		"what was made here waits once an imported key has its role": {
			keys: []event.Key{former("kska", ""), former("zska", "")}, made: []event.Key{former("zskb", "")}, ds: "kska", seen: showing("kska zska", "kska zska"),
			want: "kska active, zska active, zskb generated, ds kska",
		},
		"a KSK that is said to wait has a DS": {
			keys: []event.Key{former("kska", "ohhh"), former("zska", "ooo")}, ds: "kska", seen: showing("zska", "zska"),
			want: "kska active, zska active, ds kska", note: "but the parent has a DS of it",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ks := Evolve(KeySet{}, event.Event{Time: formerNow, Facts: &event.KeyImported{Keys: row.keys}})
			ks = Evolve(ks, event.Event{Time: formerNow, Facts: &event.KeyGenerated{Keys: row.made}})
			ks = Evolve(ks, event.Event{Time: formerNow, Facts: &event.KeyImported{Keys: row.public, Foreign: true}})
			if row.ds != "" {
				ks = Evolve(ks, event.Event{Time: formerNow, Facts: &event.DSObserved{Sets: dsOf(row.ds), Servers: 1}})
			}
			got := ks.TakeOver(RollPolicy{CDS: true}, Known{Now: formerNow, Observation: row.seen})
			if text := told(ks, got); text != row.want {
				t.Errorf("got  %s\nwant %s", text, row.want)
			}
			if row.refused == "" && got.Refused != "" || !strings.Contains(got.Refused, row.refused) {
				t.Errorf("refused %q, want %q in it", got.Refused, row.refused)
			}
			if !slices.ContainsFunc(got.Notes, func(n string) bool { return strings.Contains(n, row.note) }) && row.note != "" {
				t.Errorf("notes %q, want %q in one", got.Notes, row.note)
			}
		})
	}
}

func TestReadLife_TimesAlone(t *testing.T) {
	past, future := ago(time.Hour), ago(-time.Hour)
	for name, row := range map[string]struct {
		role Role
		life *event.KeyLife
		want State
		note string
	}{
		"nothing noted":              {ZSK, nil, Active, ""},
		"no times":                   {ZSK, &event.KeyLife{Created: past}, Active, "no timing metadata"},
		"to be published":            {ZSK, &event.KeyLife{Published: future, Activated: future}, Generated, ""},
		"published":                  {ZSK, &event.KeyLife{Published: past, Activated: future}, Published, ""},
		"active":                     {ZSK, &event.KeyLife{Published: past, Activated: past, Retired: future}, Active, ""},
		"inactive":                   {ZSK, &event.KeyLife{Published: past, Activated: past, Retired: past, Removed: future}, Retired, ""},
		"an inactive KSK":            {KSK, &event.KeyLife{Published: past, Activated: past, Retired: past, Removed: future}, Active, "a KSK that is published signs until it is removed"},
		"deleted":                    {ZSK, &event.KeyLife{Published: past, Activated: past, Retired: past, Removed: past}, Removed, ""},
		"inactive before it signed":  {ZSK, &event.KeyLife{Published: past, Activated: past, Retired: ago(2 * time.Hour)}, Active, "inactive is before activate"},
		"deleted before it retired":  {ZSK, &event.KeyLife{Activated: ago(3 * time.Hour), Retired: past, Removed: ago(2 * time.Hour)}, Active, "delete is before inactive"},
		"all wrong, but all to come": {ZSK, &event.KeyLife{Published: ago(-3 * time.Hour), Activated: future}, Generated, ""},
	} {
		t.Run(name, func(t *testing.T) {
			state, notes := ReadLife(row.life, row.role, formerNow)
			if state != row.want || !strings.Contains(strings.Join(notes, "; "), row.note) {
				t.Errorf("read as %s, notes %q", state, notes)
			}
		})
	}
}

// An adopted key has its age: what a policy asks for at an age does not begin
// anew.
func TestEvolve_AdoptedKeyKeepsItsTimes(t *testing.T) {
	ks := Evolve(KeySet{}, event.Event{Time: formerNow, Facts: &event.KeyImported{Keys: []event.Key{former("kska", "oooo"), former("zska", "ooo")}}})
	for _, f := range ks.TakeOver(RollPolicy{}, Known{Now: formerNow}).Do {
		ks = Evolve(ks, event.Event{Time: formerNow, Facts: f})
	}
	zsk, _ := ks.ByID("zska")
	if !zsk.Activated.Equal(formerNow.Add(-12*time.Hour)) || !zsk.Published.Equal(formerNow.Add(-24*time.Hour)) {
		t.Errorf("published %s, active since %s", zsk.Published, zsk.Activated)
	}
	due := ks.Dues(RollPolicy{ZSK: RolePolicy{Validity: 24 * time.Hour}}, Timing{})
	if len(due) != 1 || !due[0].At.Equal(formerNow.Add(12*time.Hour)) {
		t.Errorf("due %+v", due)
	}
	again := Evolve(ks, event.Event{Time: formerNow, Facts: &event.KeyAdopted{Keys: []event.AdoptedKey{{ID: "zska", State: "removed"}}}})
	if k, _ := again.ByID("zska"); k.State != Active {
		t.Errorf("a key that signs is adopted anew: %s", k.State)
	}
}

// The wait of a step that began elsewhere counts from there, and anew once it
// shows that this was not so.
func TestNext_TakenOverStepWaitsFromItsBeginning(t *testing.T) {
	ks := Evolve(KeySet{}, event.Event{Time: formerNow, Facts: &event.KeyImported{
		Keys: []event.Key{former("kska", "oooo"), former("zska", "hoo"), former("zskb", "orr")},
	}})
	seen := showing("kska zska zskb", "kska zska")
	k := Known{Now: formerNow, Observation: seen, Timing: Timing{Margin: Term{Value: 30 * time.Minute}, KeyTTL: Term{Value: 2 * time.Hour}}}
	for i, f := range ks.TakeOver(RollPolicy{}, k).Do {
		ks = Evolve(ks, event.Event{Time: formerNow, N: uint64(i + 1), Facts: f})
	}
	i := slices.IndexFunc(ks.Rollovers, func(r Rollover) bool { return r.Kind == RollZSK })
	auto := RollPolicy{ZSK: RolePolicy{Auto: Auto{Report: true, Expire: true, Done: true}}}
	k.Served = Served{Keys: []string{"kska", "zska", "zskb"}, Signers: []string{"kska", "zska"}, At: formerNow}
	if s := Next(ks, ks.Rollovers[i], auto, Known{Now: formerNow, Served: k.Served, Timing: k.Timing}); s.Phase != PhaseSee {
		t.Fatalf("without a look: %+v", s)
	}
	s := Next(ks, ks.Rollovers[i], auto, k)
	f, ok := s.Do[0].(*event.RolloverAdvanced)
	if !ok || f.Wait == nil || f.Wait.Earliest != formerNow.Add(2*time.Hour).Unix() {
		t.Fatalf("%+v", s)
	}
	ks = Evolve(ks, event.Event{Time: formerNow, Facts: f})
	k.Now = formerNow.Add(119 * time.Minute)
	if s = Next(ks, ks.Rollovers[i], auto, k); s.Phase != PhaseWait {
		t.Errorf("within the wait: %+v", s)
	}
	k.Observation = showing("kska zska", "kska zska")
	k.Observation.At = k.Now
	s = Next(ks, ks.Rollovers[i], auto, k)
	if f, ok = s.Do[0].(*event.RolloverAdvanced); !ok || f.Lost == "" {
		t.Fatalf("the key is not shown any more: %+v", s)
	}
	ks = Evolve(ks, event.Event{Time: k.Now, Facts: f})
	seen.At = k.Now
	k.Observation = seen
	s = Next(ks, ks.Rollovers[i], auto, k)
	if f, ok = s.Do[0].(*event.RolloverAdvanced); !ok || f.Wait == nil || f.Wait.Earliest != k.Now.Add(150*time.Minute).Unix() {
		t.Errorf("after it was lost: %+v", s)
	}
}

// Nobody here saw the DS that was there before, and its TTL may have been any.
func TestTakeOver_ChangeOfDSWaitsForAnyTTL(t *testing.T) {
	ks := Evolve(KeySet{}, event.Event{Time: formerNow, Facts: &event.KeyImported{
		Keys: []event.Key{former("kska", "hoou"), former("kskb", "ooor"), former("zska", "ooo")},
	}})
	ks = Evolve(ks, event.Event{Time: formerNow, Facts: &event.DSObserved{Sets: dsOf("kskb"), Servers: 1}})
	seen := showing("kska kskb zska", "kska kskb zska")
	k := Known{Now: formerNow, Observation: seen, Timing: Timing{DSTTL: Term{Value: time.Hour}}}
	for i, f := range ks.TakeOver(RollPolicy{CDS: true}, k).Do {
		ks = Evolve(ks, event.Event{Time: formerNow, N: uint64(i + 1), Facts: f})
	}
	seen.Parent = []Seen{{Server: "a.", Validated: true, DS: dsOf("kskb")[0].DS, DSTTL: 3600}}
	auto := RollPolicy{KSK: RolePolicy{Auto: Auto{Report: true, Expire: true, Done: true}}}
	s := Next(ks, ks.Rollovers[0], auto, k)
	f, ok := s.Do[0].(*event.RolloverAdvanced)
	if !ok || f.Wait == nil || f.Wait.Earliest != formerNow.Add(unseenDSTTL).Unix() {
		t.Errorf("%+v", s)
	}
}
