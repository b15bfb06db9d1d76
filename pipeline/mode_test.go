package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// modePolicies has a policy for each mode: default signs.
func modePolicies(t *testing.T, more string) map[string]Policy {
	t.Helper()
	out := map[string]Policy{}
	for name, text := range map[string]string{
		"default":  "[signer]\nmode = \"sign\"\n",
		"through":  "[signer]\nmode = \"pass-through\"\n" + more,
		"as-it-is": "[signer]\nmode = \"pass-through\"\nverify = \"none\"\n" + more,
		"unsigned": "[signer]\nmode = \"unsigned\"\nserial-policy = \"counter\"\n" + more,
	} {
		p, err := Parse(name, []byte("version = \"v1\"\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		out[name] = p
	}
	return out
}

func (r *rig) addWith(policy, source string) ZoneStatus {
	r.t.Helper()
	if _, err := r.e.AddZone(r.t.Context(), testActor, NewZone{Name: "example.com", Source: source, Policy: policy}); err != nil {
		r.t.Fatal(err)
	}
	return r.await()
}

func (r *rig) turn(policy string) (ZoneStatus, error) {
	r.t.Helper()
	_, err := r.e.SetZone(r.t.Context(), testActor, "example.com", ZoneChange{Policy: policy})
	return r.await(), err
}

// parent answers for the zone's parent.
func (r *rig) parent(seen bool, err error) {
	at := keymgr.Seen{Server: "parent", Validated: true, NoDS: !seen}
	if seen {
		at.DS = []event.DS{{Tag: 1, Algorithm: 13, DigestType: 2, Digest: "aa"}}
	}
	if err != nil {
		at = keymgr.Seen{Server: "parent", Error: err.Error()}
	}
	r.e.cfg.Observe = func(context.Context, observe.Question) keymgr.Observation {
		return keymgr.Observation{Parent: []keymgr.Seen{at}}
	}
}

// signedElsewhere is a source that signs: another engine with its own keys.
type signedElsewhere struct{ *rig }

func newSignedElsewhere(t *testing.T, policy string) signedElsewhere {
	t.Helper()
	p, err := Parse("default", []byte("version = \"v1\"\n[signer]\nserial-policy = \"keep\"\n"+policy))
	if err != nil {
		t.Fatal(err)
	}
	return signedElsewhere{newRig(t, journaltest.New(), map[string]Policy{"default": p})}
}

// replayed demands that a replay finds every digest again.
func (r *rig) replayed() {
	r.t.Helper()
	if err := r.e.Replay(r.t.Context(), "example.com", "", true, nil, func(ReplayStep) error { return nil }); err != nil {
		r.t.Errorf("replay: %v", err)
	}
}

func lineSet(text string) map[string]bool {
	out := map[string]bool{}
	for line := range strings.Lines(text) {
		out[strings.Join(strings.Fields(line), " ")] = true
	}
	return out
}

func sameRecords(t *testing.T, what, got, want string) {
	t.Helper()
	a, b := lineSet(got), lineSet(want)
	for line := range a {
		if !b[line] {
			t.Errorf("%s has beyond what it should: %s", what, line)
		}
	}
	for line := range b {
		if !a[line] {
			t.Errorf("%s lacks: %s", what, line)
		}
	}
}

func TestPassThrough_PublishesTheInputAsItIs(t *testing.T) {
	for _, denial := range []string{"[signer.denial]\ntype = \"nsec\"\n", "[signer.denial]\ntype = \"nsec3\"\nsalt = \"ab\"\n"} {
		origin := newSignedElsewhere(t, denial)
		origin.add(smallZone)
		first := origin.dump()
		r := newRig(t, journaltest.New(), modePolicies(t, ""))
		st := r.addWith("through", r.zoneFile(first))
		if st.State != "published" || st.Mode != ModePassThrough || st.Published.Serial != 7 || len(st.Keys) != 0 {
			t.Fatalf("state %q, mode %q, error %q, %d keys", st.State, st.Mode, st.LastError, len(st.Keys))
		}
		sameRecords(t, "what is published", r.dump(), first)
		if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
			t.Errorf("verify: %v, %v", err, rep)
		}
		origin.reload(strings.NewReplacer(" 7 ", " 8 ", "192.0.2.80", "192.0.2.81", "a.ent", "b.ent").Replace(smallZone))
		second := origin.dump()
		if st = r.reload(second); st.Published.Serial != 8 || st.LastError != "" {
			t.Fatalf("serial %d, error %q", st.Published.Serial, st.LastError)
		}
		sameRecords(t, "the second version", r.dump(), second)
		name, _ := zone.ParseName("example.com")
		v, err := r.e.Source().View(name)
		if err != nil {
			t.Fatal(err)
		}
		if diffs, ok := v.Diffs(7); !ok || len(diffs) != 1 {
			t.Errorf("%d diffs, known %v", len(diffs), ok)
		}
		v.Close()
		r.replayed()
		before := r.served()
		r.stop()
		r.start(modePolicies(t, ""))
		if r.served() != before {
			t.Error("another zone is served after a restart")
		}
	}
}

func TestPassThrough_WhatDoesNotVerifyKeepsTheLastGoodZone(t *testing.T) {
	origin := newSignedElsewhere(t, "")
	origin.add(smallZone)
	good := origin.dump()
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	r.addWith("through", r.zoneFile(good))
	before := r.served()
	origin.reload(strings.Replace(smallZone, " 7 ", " 8 ", 1))
	bad := strings.Replace(origin.dump(), "192.0.2.80", "192.0.2.66", 1)
	st := r.reload(bad)
	if r.served() != before || st.LastError == "" || !strings.Contains(st.LastError, "www.example.com. A") {
		t.Errorf("same zone served: %v, error %q", r.served() == before, st.LastError)
	}
	failed := 0
	if err := r.e.History(t.Context(), "example.com", HistoryQuery{Types: []string{"sign.failed"}}, func(HistoryLine) error {
		failed++
		return nil
	}); err != nil || failed != 1 {
		t.Errorf("%d failures told, %v", failed, err)
	}
	if st = r.reload(smallZone); !strings.Contains(st.LastError, "serial") && !strings.Contains(st.LastError, "DNSKEY") || r.served() != before {
		t.Errorf("an unsigned zone: error %q", st.LastError)
	}
	if st = r.reload(origin.dump()); st.LastError != "" || st.Published.Serial != 8 {
		t.Errorf("after the correction: serial %d, error %q", st.Published.Serial, st.LastError)
	}

	unchecked := newRig(t, journaltest.New(), modePolicies(t, ""))
	if st := unchecked.addWith("as-it-is", unchecked.zoneFile(bad)); st.State != "published" {
		t.Errorf("verify = none: state %q, error %q", st.State, st.LastError)
	}
}

func TestPassThrough_TheSerialNeverGoesBack(t *testing.T) {
	origin := newSignedElsewhere(t, "")
	origin.add(smallZone)
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	r.addWith("as-it-is", r.zoneFile(origin.dump()))
	before := r.served()
	st := r.reload(strings.Replace(origin.dump(), "192.0.2.80", "192.0.2.66", 1))
	if !strings.Contains(st.LastError, "raise it at the source") || r.served() != before {
		t.Errorf("same serial, other content: error %q", st.LastError)
	}
	if err := r.e.RaiseSerial(t.Context(), testActor, "example.com", 100); !errors.Is(err, ErrState) {
		t.Errorf("zone serial --set: %v", err)
	}
	if err := r.e.Resign(t.Context(), testActor, "example.com", false); !errors.Is(err, ErrState) {
		t.Errorf("zone resign: %v", err)
	}
}

// An IXFR from a source that signs changes signatures, keys and denial
// records along with the contents.
func TestPassThrough_AnIXFRIsTakenRecordByRecord(t *testing.T) {
	for _, denial := range []string{"[signer.denial]\ntype = \"nsec\"\n", "[signer.denial]\ntype = \"nsec3\"\nopt-out = true\n"} {
		origin := newSignedElsewhere(t, denial)
		origin.add(smallZone)
		old := origin.dump()
		p := newPrimary(t, soaFirst(old))
		r := newRig(t, journaltest.New(), modePolicies(t, ""))
		if st := r.addWith("through", p.addr); st.State != "published" {
			t.Fatalf("state %q, error %q", st.State, st.LastError)
		}
		sameRecords(t, "the first version", r.dump(), old)
		for serial := 8; serial < 12; serial++ {
			origin.reload(strings.NewReplacer(" 7 ", fmt.Sprintf(" %d ", serial), "192.0.2.80", fmt.Sprintf("192.0.2.%d", serial),
				"a.ent", fmt.Sprintf("a%d.ent", serial), "*.wild", fmt.Sprintf("*.wild%d", serial)).Replace(smallZone))
			now := origin.dump()
			p.serve(soaFirst(now), ixfrOf(old, now)...)
			p.questions()
			st := r.ask(false)
			if st.Published.Serial != uint32(serial) || st.LastError != "" {
				t.Fatalf("serial %d, error %q", st.Published.Serial, st.LastError)
			}
			if asked := p.questions(); asked != "SOA IXFR" {
				t.Errorf("asked %s", asked)
			}
			sameRecords(t, fmt.Sprintf("serial %d", serial), r.dump(), now)
			if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() || rep.Signatures != st.Published.Signatures || rep.Records != st.Published.Records {
				t.Errorf("verify: %v, %+v against %+v", err, rep, st.Published)
			}
			old = now
		}
		r.replayed()
	}
}

// soaFirst is a zone in text with its SOA in front, as a transfer has it.
func soaFirst(text string) string {
	first, rest := "", ""
	for line := range strings.Lines(text) {
		if strings.Contains(strings.Join(strings.Fields(line), " "), " IN SOA ") {
			first = line
		} else {
			rest += line
		}
	}
	return first + rest
}

// ixfrOf is the middle of an IXFR between two zones in text: old SOA, what
// went, new SOA, what came.
func ixfrOf(old, now string) []string {
	isSOA := func(line string) bool { return strings.Contains(line, " SOA ") && !strings.Contains(line, "RRSIG") }
	a, b := lineSet(old), lineSet(now)
	var soas, gone, come []string
	for line := range a {
		switch {
		case isSOA(line):
			soas = append(soas, line)
		case !b[line]:
			gone = append(gone, line)
		}
	}
	for line := range b {
		switch {
		case isSOA(line):
			soas = append(soas, line)
		case !a[line]:
			come = append(come, line)
		}
	}
	out := append([]string{soas[0]}, gone...)
	return append(append(out, soas[1]), come...)
}

func TestUnsigned_PublishesTheContentsWithoutDNSSEC(t *testing.T) {
	origin := newSignedElsewhere(t, "")
	origin.add(smallZone)
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	st := r.addWith("unsigned", r.zoneFile(origin.dump()))
	if st.State != "published" || st.Mode != ModeUnsigned || st.NextExpiry != nil || len(st.Keys) != 0 || st.Published.Serial != 7 {
		t.Fatalf("%+v, error %q", st.ZoneSummary, st.LastError)
	}
	for _, own := range []string{"RRSIG", "NSEC", "DNSKEY"} {
		if strings.Contains(r.dump(), own) {
			t.Errorf("%s is published", own)
		}
	}
	if !lineSet(r.dump())["secure.example.com. 3600 IN DS 12345 13 2 "+strings.ToUpper(someDigest)] {
		t.Error("the DS of a delegation is gone")
	}
	st = r.reload(strings.Replace(smallZone, "192.0.2.80", "192.0.2.81", 1))
	if st.Published.Serial != 8 || st.LastError != "" {
		t.Errorf("serial %d, error %q", st.Published.Serial, st.LastError)
	}
	name, _ := zone.ParseName("example.com")
	v, err := r.e.Source().View(name)
	if err != nil {
		t.Fatal(err)
	}
	if diffs, ok := v.Diffs(7); !ok || len(diffs) != 1 {
		t.Errorf("%d diffs, known %v", len(diffs), ok)
	}
	v.Close()
	if err := r.e.RaiseSerial(t.Context(), testActor, "example.com", 100); err != nil {
		t.Fatal(err)
	}
	if st = r.await(); st.Published.Serial != 100 {
		t.Errorf("raised to 100, serial %d", st.Published.Serial)
	}
	r.replayed()
	var b bytes.Buffer
	if err := r.e.Dump(t.Context(), "example.com", DumpQuery{Loaded: true}, &b); err != nil || strings.Contains(b.String(), "RRSIG") {
		t.Errorf("loaded: %v\n%s", err, b.String())
	}
}

func TestMode_ATurnKeepsTheChainOfTrust(t *testing.T) {
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	r.parent(true, nil)
	st := r.addWith("unsigned", r.zoneFile(smallZone))
	if st, err := r.turn("default"); err != nil || !strings.Contains(r.dump(), "RRSIG") || len(st.Keys) != 2 {
		t.Fatalf("a first signing: %v, state %q, error %q", err, st.State, st.LastError)
	}
	signed := r.served()
	for _, parent := range []struct {
		seen bool
		err  error
	}{{true, nil}, {false, errors.New("no resolver")}} {
		r.parent(parent.seen, parent.err)
		if _, err := r.turn("unsigned"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "sluice key roll example.com. insecure") {
			t.Errorf("DS seen %v, %v: %v", parent.seen, parent.err, err)
		}
		if r.served() != signed {
			t.Error("what is served changed")
		}
	}
	// The same zone signed by another is not its successor while a DS is there.
	origin := newSignedElsewhere(t, "")
	origin.add(strings.Replace(smallZone, " 7 ", " 2100000000 ", 1))
	r.zoneFile(origin.dump())
	st, err := r.turn("through")
	if err != nil || r.served() != signed || !strings.Contains(st.LastError, "lacks the zone's keys") {
		t.Errorf("foreign keys: %v, error %q", err, st.LastError)
	}
	r.zoneFile(smallZone)
	if st, err = r.turn("default"); err != nil || st.LastError != "" || st.Published.Mode != ModeSign {
		t.Errorf("back again: %v, error %q", err, st.LastError)
	}
	r.parent(false, nil)
	if st, err = r.turn("unsigned"); err != nil || strings.Contains(r.dump(), "RRSIG") {
		t.Errorf("without a DS: %v, error %q", err, st.LastError)
	}
	r.replayed()
}

// bindKeys writes a KSK and a ZSK of example.com in BIND's format.
func bindKeys(t *testing.T) []KeyFile {
	t.Helper()
	return bindKeysOf(t, dns.ECDSAP256SHA256, 256)
}

func bindKeysOf(t *testing.T, algorithm uint8, bits int) []KeyFile {
	t.Helper()
	dir := t.TempDir()
	var out []KeyFile
	for role, flags := range map[keymgr.Role]uint16{keymgr.KSK: 257, keymgr.ZSK: 256} {
		k := &dns.DNSKEY{
			Hdr:   dns.RR_Header{Name: "example.com.", Rrtype: dns.TypeDNSKEY, Class: dns.ClassINET, Ttl: 3600},
			Flags: flags, Protocol: 3, Algorithm: algorithm,
		}
		private, err := k.Generate(bits)
		if err != nil {
			t.Fatal(err)
		}
		base := filepath.Join(dir, fmt.Sprintf("Kexample.com.+%03d+%05d", algorithm, k.KeyTag()))
		for name, text := range map[string]string{base + ".key": k.String() + "\n", base + ".private": k.PrivateKeyString(private)} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		out = append(out, KeyFile{Path: base + ".private", Role: role})
	}
	return out
}

// Where the keys are the same here and at the source, either may sign.
func TestMode_PassThroughAndSignWithTheSameKeys(t *testing.T) {
	keys := bindKeys(t)
	origin := newSignedElsewhere(t, "")
	if _, err := origin.e.AddZone(t.Context(), testActor, NewZone{Name: "example.com", Source: origin.zoneFile(smallZone), Import: keys}); err != nil {
		t.Fatal(err)
	}
	origin.await()
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	r.parent(true, nil)
	r.addWith("through", r.zoneFile(origin.dump()))
	before := r.served()
	if _, err := r.turn("default"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "sluice key import") || r.served() != before {
		t.Fatalf("without the keys: %v", err)
	}
	if _, err := r.e.ImportKey(t.Context(), testActor, "example.com", keys); err != nil {
		t.Fatal(err)
	}
	st, err := r.turn("default")
	if err != nil || st.LastError != "" || st.Published.Mode != ModeSign || len(st.Keys) != 2 || st.Published.Serial <= 7 {
		t.Fatalf("with the keys: %v, %+v, error %q", err, st.ZoneSummary, st.LastError)
	}
	if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
		t.Errorf("verify: %v, %v", err, rep)
	}
	origin.reload(strings.Replace(smallZone, " 7 ", " 2100000000 ", 1))
	r.zoneFile(origin.dump())
	st, err = r.turn("through")
	if err != nil || st.LastError != "" || st.Published.Mode != ModePassThrough || st.Published.Serial != 2100000000 {
		t.Errorf("back to the source's signatures: %v, %+v, error %q", err, st.ZoneSummary, st.LastError)
	}
	sameRecords(t, "what is published", r.dump(), origin.dump())
	r.replayed()
}

// The DNSKEY RRset that caches hold must have a key that signs here, and not only
// the other way round: the source may have taken ours out meanwhile.
func TestMode_SignsOnlyWithKeysThatValidatorsKnow(t *testing.T) {
	r := newRig(t, journaltest.New(), modePolicies(t, ""))
	r.parent(true, nil)
	r.addWith("default", r.zoneFile(smallZone))
	origin := newSignedElsewhere(t, "")
	origin.add(strings.Replace(smallZone, " 7 ", " 2100000000 ", 1))
	keysOf := func(z *rig) []string {
		return slices.DeleteFunc(slices.Collect(strings.Lines(z.dump())), func(line string) bool { return !strings.Contains(line, "\tDNSKEY\t") })
	}
	ours, theirs := keysOf(r), keysOf(origin.rig)
	for z, others := range map[*rig][]string{r: theirs, origin.rig: ours} {
		path := filepath.Join(t.TempDir(), "others.key")
		if err := os.WriteFile(path, []byte(strings.Join(others, "")), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := z.e.ImportKey(t.Context(), testActor, "example.com", []KeyFile{{Path: path, Public: true}}); err != nil {
			t.Fatal(err)
		}
		until(t, "the others' keys are published", func() bool { z.await(); return len(keysOf(z)) == 4 })
	}
	r.zoneFile(origin.dump())
	if st, err := r.turn("as-it-is"); err != nil || st.LastError != "" || st.Published.Mode != ModePassThrough {
		t.Fatalf("with all keys: %v, %+v", err, st.ZoneSummary)
	}
	st, err := r.turn("default")
	if err != nil || st.Published.Mode != ModeSign {
		t.Fatalf("and back: %v, %+v", err, st.ZoneSummary)
	}
	raise := func(n string) string {
		origin.reload(strings.Replace(smallZone, " 7 ", n, 1))
		return origin.dump()
	}
	r.zoneFile(raise(" 2140000000 "))
	if st, err = r.turn("as-it-is"); err != nil || st.LastError != "" {
		t.Fatalf("once more: %v, %+v", err, st.ZoneSummary)
	}
	text := raise(" 2140000001 ")
	for _, line := range ours {
		text = strings.Replace(text, line, "", 1)
	}
	if st = r.reload(text); st.Published.Serial != 2140000001 || len(keysOf(r)) != 2 {
		t.Fatalf("without ours: %+v", st.ZoneSummary)
	}
	if _, err = r.turn("default"); !errors.Is(err, ErrState) || !strings.Contains(err.Error(), "none of which would sign here as a KSK") {
		t.Errorf("signs with keys that nobody knows: %v", err)
	}
	r.parent(false, nil)
	if st, err = r.turn("default"); err != nil || st.Published.Mode != ModeSign {
		t.Errorf("without a DS: %v, %+v", err, st.ZoneSummary)
	}
}

func TestPassThrough_WarnsOfSignaturesThatEnd(t *testing.T) {
	p := modePolicies(t, "")["through"]
	now := time.Unix(2_000_000_000, 0)
	for _, c := range []struct {
		left time.Duration
		want string
	}{
		{15 * day, ""},
		{13 * day, "warning"},
		{3 * day, "alarm"},
		{-time.Second, "alarm"},
	} {
		pub := &Published{Signed: Signed{}}
		pub.Signed.Facts.Mode, pub.Signed.Facts.Earliest = string(ModePassThrough), now.Add(c.left).Unix()
		n, ok := sourceExpiry(pub, p, now)
		if n.Severity != c.want || ok != (c.want != "") {
			t.Errorf("%s left: %+v", c.left, n)
		}
	}
}

func TestCheckZone_FindsWhatTheRulesAndThePolicySay(t *testing.T) {
	policies := modePolicies(t, "")
	strict, err := Parse("strict", []byte(`version = "v1"
[loader.checks]
min-records = 1000
required-records = ["@ MX"]
max-ttl = "10m"
max-ttl-action = "reject"
zonemd = "require"
glue = "require"
`))
	if err != nil {
		t.Fatal(err)
	}
	policies["strict"] = strict
	r := newRig(t, journaltest.New(), policies)
	if _, err := r.e.CheckZone(t.Context(), "example.com", nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("no zone: %v", err)
	}
	r.add(smallZone + "lost NS ns.lost\n")
	found, err := r.e.CheckZone(t.Context(), "example.com", nil)
	if err != nil || !found.OK || len(found.Checks) != 5 {
		t.Errorf("a good zone: %v, %+v", err, found)
	}
	if c := found.Checks[1]; c.Check != "glue" || len(c.Notices) != 1 || !strings.Contains(c.Notices[0], "lost.example.com. NS ns.lost.example.com.: glue is missing") {
		t.Errorf("missing glue: %+v", c)
	}
	if _, err := r.turn("strict"); err != nil {
		t.Fatal(err)
	}
	found, err = r.e.CheckZone(t.Context(), "example.com", nil)
	if err != nil || found.OK {
		t.Fatalf("a strict policy: %v, %+v", err, found)
	}
	for _, c := range found.Checks {
		if bad := c.Check != "zone" && c.Check != "digest"; c.OK == bad || bad && (c.Total != 1 || len(c.Faults) != 1) {
			t.Errorf("%+v", c)
		}
	}
	if len(found.Checks) != 7 {
		t.Errorf("%d checks", len(found.Checks))
	}
	// The source's own signatures are no changes of the contents, but they are
	// part of what is held against the digest.
	origin := newSignedElsewhere(t, "")
	origin.add(smallZone)
	through := newRig(t, journaltest.New(), modePolicies(t, ""))
	through.addWith("through", through.zoneFile(origin.dump()))
	if found, err = through.e.CheckZone(t.Context(), "example.com", nil); err != nil || !found.OK {
		t.Errorf("passed through: %v, %+v", err, found)
	}
}

// Both reviews stand before what is passed through or unsigned, too, and show
// all that is to be published.
func TestMode_ReviewsComeFirst(t *testing.T) {
	origin := newSignedElsewhere(t, "")
	origin.add(smallZone)
	reviews := "[signer.review]\nmode = \"manual\"\n[loader.review]\nmode = \"manual\"\n"
	for _, policy := range []string{"through", "unsigned"} {
		r := newRig(t, journaltest.New(), modePolicies(t, reviews))
		st := r.addWith(policy, r.zoneFile(origin.dump()))
		for _, stage := range []string{event.StageLoaded, event.StageSigned} {
			if len(st.Reviews) != 1 || st.Reviews[0].Stage != stage || st.Published != nil {
				t.Fatalf("%s: %s review: %+v, error %q", policy, stage, st.Reviews, st.LastError)
			}
			name, _ := zone.ParseName("example.com")
			v, err := r.e.ReviewSource(stage).View(name)
			if err != nil {
				t.Fatal(err)
			}
			it, err := v.Items()
			if err != nil {
				t.Fatal(err)
			}
			sigs := 0
			for it.Next() {
				if zone.Kind(it.Key()[0]) == zone.KindSigs {
					sigs++
				}
			}
			it.Close()
			v.Close()
			if (sigs > 0) != (policy == "through") {
				t.Errorf("%s: the %s review shows %d sets of signatures", policy, stage, sigs)
			}
			rv := st.Reviews[0]
			if _, err := r.e.Approve(t.Context(), testActor, "example.com", stage, NewVerdict{Instance: rv.Instance, Digest: rv.Digest}); err != nil {
				t.Fatal(err)
			}
			st = r.await()
		}
		if st.Published == nil || st.LastError != "" {
			t.Errorf("%s: state %q, error %q", policy, st.State, st.LastError)
		}
		r.replayed()
	}
}
