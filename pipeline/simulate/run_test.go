package simulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
	"sluice/pipeline"
)

const testPolicyHead = "version = \"v1\"\n"

func policyOf(t *testing.T, text string) pipeline.Policy {
	t.Helper()
	p, err := pipeline.Parse("test", []byte(testPolicyHead+text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// at is a day of the rehearsals, which begin with the year 2027.
func at(days int) time.Time { return time.Date(2027, 1, 1+days, 0, 0, 0, 0, time.UTC) }

func rehearse(t *testing.T, s Setting) (Summary, []Line) {
	t.Helper()
	var lines []Line
	sum, err := Run(t.Context(), s, func(l Line) error {
		if n := len(lines); n > 0 && l.Time.Before(lines[n-1].Time) {
			t.Errorf("%s comes after %s: %s", l.Time, lines[n-1].Time, l.Text)
		}
		lines = append(lines, l)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum, lines
}

// texts is the lines of a kind.
func texts(lines []Line, kind Kind) []string {
	var out []string
	for _, l := range lines {
		if l.Kind == kind {
			out = append(out, rfc(l.Time)+" "+l.Text)
		}
	}
	return out
}

// done counts the rollovers that came to their end, and lists the others.
func done(sum Summary) (n map[keymgr.Kind]int, open []Rolled) {
	n = map[keymgr.Kind]int{}
	for _, r := range sum.Rollovers {
		if r.Until == nil {
			open = append(open, r)
			continue
		}
		n[r.Kind]++
	}
	return n, open
}

func TestRun_ThreeYearsOfTheBuiltInPolicy(t *testing.T) {
	p := pipeline.Default()
	s := Usual(p, at(0), at(3*365))
	sum, _ := rehearse(t, s)
	n, open := done(sum)
	if want := map[keymgr.Kind]int{keymgr.RollSecure: 1, keymgr.RollZSK: 12}; !cmp.Equal(n, want) || len(open) > 0 {
		t.Errorf("rollovers done: %v, want %v; not done: %+v", n, want, open)
	}
	if sum.Bogus != 0 || sum.Persons != 0 || sum.MostKeys != 3 || sum.Checks < 1000 {
		t.Errorf("%+v", sum)
	}
	if left := time.Duration(sum.LeastLeft) * time.Second; left < p.RemainTime() {
		t.Errorf("a signature had %s left, the policy wants %s", left, p.RemainTime())
	}
	if each := 90 * day / time.Second; sum.Between < uint64(each-2*86400) || sum.Between > uint64(each+86400) {
		t.Errorf("a ZSK follows the other after %d s, want about %d", sum.Between, each)
	}
}

// Signatures follow the keys slice by slice, and at once where that cannot wait.
func TestRun_SignaturesAreExchangedInSlices(t *testing.T) {
	s := Usual(pipeline.Default(), at(0), at(60))
	for _, c := range []struct {
		emergency   bool
		least, most int
	}{{false, 1, 100}, {true, s.RRsets, s.RRsets + apexRRsets}} {
		s.Rolls = []Roll{{At: at(20), Request: pipeline.RolloverRequest{Kind: keymgr.RollZSK, Emergency: c.emergency}}}
		sum, lines := rehearse(t, s)
		if n, _ := done(sum); sum.Largest < c.least || sum.Largest > c.most || sum.Bogus > 0 || n[keymgr.RollZSK] != 1 {
			t.Errorf("emergency %t: %d signatures in one version, rollovers %v, bogus %q", c.emergency, sum.Largest, n, texts(lines, KindBogus))
		}
		sliced := slices.ContainsFunc(lines, func(l Line) bool { return strings.Contains(l.Next, "RRsets are replaced, slice by slice") })
		if sliced == c.emergency {
			t.Errorf("emergency %t: told of slices: %t", c.emergency, sliced)
		}
	}
}

func TestRun_SameSettingSameRehearsal(t *testing.T) {
	s := Usual(pipeline.Default(), at(0), at(120))
	sum, lines := rehearse(t, s)
	again, same := rehearse(t, s)
	if d := cmp.Diff(sum, again) + cmp.Diff(lines, same); d != "" {
		t.Errorf("the same setting gives another rehearsal:\n%s", d)
	}
}

// Whatever is rolled by whatever method comes to its end, and no validator
// refuses anything, however late the sites are that nobody sees.
func TestRun_EveryMethod(t *testing.T) {
	zone, csk := "[key-manager.zsk]\nvalidity = \"forever\"\n", "[key-manager.generation]\nuse-csk = true\n"
	for _, c := range []struct {
		policy string
		roll   pipeline.RolloverRequest
	}{
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollZSK, Method: keymgr.PrePublication}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollZSK, Method: keymgr.DoubleSignature}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollKSK, Method: keymgr.DoubleKSK}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollKSK, Method: keymgr.DoubleDS}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollKSK, Method: keymgr.DoubleRRset}},
		{csk, pipeline.RolloverRequest{Kind: keymgr.RollCSK}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollAlgorithm, Algorithm: "ED25519"}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollAlgorithm, Algorithm: "RSASHA256"}},
		{csk, pipeline.RolloverRequest{Kind: keymgr.RollAlgorithm, Algorithm: "ECDSAP384SHA384"}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollInsecure}},
		{zone, pipeline.RolloverRequest{Kind: keymgr.RollKSK, Emergency: true}},
	} {
		for _, hand := range []bool{false, true} {
			name := fmt.Sprintf("%s-%s%s-%t", c.roll.Kind, c.roll.Method, c.roll.Algorithm, hand)
			t.Run(name, func(t *testing.T) {
				s := Usual(policyOf(t, c.policy), at(0), at(60))
				s.OperatorDelay, s.Late = 5*time.Hour, 3*time.Hour
				s.ReadsCDS = !hand
				s.Rolls = []Roll{{At: at(20), Request: c.roll}}
				sum, lines := rehearse(t, s)
				n, open := done(sum)
				if n[c.roll.Kind] != 1 || len(open) > 0 || sum.Bogus > 0 {
					t.Errorf("done %v, not done %+v, bogus %q", n, open, texts(lines, KindBogus))
				}
				if submitted := sum.Persons > 0; hand != submitted && c.roll.Method != keymgr.DoubleDS && c.roll.Method != keymgr.DoubleRRset {
					t.Errorf("a person was waited for %d times: %q", sum.Persons, texts(lines, KindPerson))
				}
			})
		}
	}
}

// The search can tell: with a margin below what sites are late by, it finds
// what does not validate.
func TestRun_MarginTooSmallIsFound(t *testing.T) {
	s := Usual(policyOf(t, "[key-manager]\npropagation-margin = \"1m\"\n"), at(0), at(60))
	s.Late = 12 * time.Hour
	s.Rolls = []Roll{{At: at(20), Request: pipeline.RolloverRequest{Kind: keymgr.RollKSK}}}
	sum, lines := rehearse(t, s)
	found := texts(lines, KindBogus)
	if sum.Bogus == 0 || len(found) == 0 || len(found) > mostBogus || !strings.Contains(found[0], "a validator may refuse answers: ") {
		t.Errorf("%d moments: %q", sum.Bogus, found)
	}
}

// A policy that begins nothing by itself shows where it would wait for a
// person, and goes on when one comes.
func TestRun_ManualPolicyWaitsForAPerson(t *testing.T) {
	p := policyOf(t, `[key-manager.ksk]
validity = "100d"
auto-start = false
auto-report = false
auto-expire = false
auto-done = false
[key-manager.zsk]
validity = "forever"
`)
	s := Usual(p, at(0), at(200))
	sum, lines := rehearse(t, s)
	person := texts(lines, KindPerson)
	if n, _ := done(sum); n[keymgr.RollKSK] != 0 || len(person) != 1 || !strings.Contains(person[0], "KSK-1 reaches its age of 100d") {
		t.Errorf("nobody comes: done %v, %q", n, person)
	}
	s.OperatorDelay = day
	sum, lines = rehearse(t, s)
	n, open := done(sum)
	if n[keymgr.RollKSK] != 1 || len(open) > 0 || sum.Bogus > 0 {
		t.Errorf("somebody comes: done %v, not done %+v", n, open)
	}
	for i, want := range []string{"reaches its age", "--dnskey-seen", "--next", "--ds-seen", "--next"} {
		person = texts(lines, KindPerson)
		if i >= len(person) || !strings.Contains(person[i], want) {
			t.Errorf("a person was waited for: %q, want the %d. to say %q", person, i+1, want)
			break
		}
	}
}

// One server that does not answer is named with what it holds up and for how
// long, and nothing goes on without it.
func TestRun_SilentServerHoldsTheStep(t *testing.T) {
	for _, server := range []string{"ns2", "parent1"} {
		s := Usual(policyOf(t, "[key-manager.zsk]\nvalidity = \"forever\"\n"), at(0), at(60))
		s.Rolls = []Roll{{At: at(20), Request: pipeline.RolloverRequest{Kind: keymgr.RollKSK}}}
		s.Failures = []Failure{{Server: server, From: at(19), Until: at(30)}}
		sum, lines := rehearse(t, s)
		held := texts(lines, KindHeld)
		if len(held) != 2 || !strings.Contains(held[0], server+" holds up rollover 2 of ksk") || !strings.Contains(held[1], "no longer, after ") {
			t.Fatalf("%s: %q", server, held)
		}
		if len(sum.Held) != 1 || sum.Held[0].Server != server || sum.Held[0].Seconds < uint64(8*day/time.Second) {
			t.Errorf("%+v", sum.Held)
		}
		if until := sum.Rollovers[1].Until; until == nil || until.Before(at(30)) || sum.Bogus > 0 {
			t.Errorf("%s: done at %v, bogus %d", server, until, sum.Bogus)
		}
	}
}

// Whatever way the policy tells the parent, the DS gets there.
func TestRun_WaysToTellTheParent(t *testing.T) {
	for _, c := range []struct {
		policy string
		change func(*Setting)
		method keymgr.Method
		event  string
	}{
		{"[key-manager]\ncds = \"during-rolls\"\n", func(*Setting) {}, keymgr.DoubleKSK, "cds.changed"},
		{"[key-manager.parent]\nnotify = true\n", func(s *Setting) { s.ParentInterval = 100 * day; s.Bootstrap = 0 }, keymgr.DoubleKSK, "ds.notified"},
		{"[key-manager.parent.update]\nservers = [\"192.0.2.1^key.example\"]\n", func(s *Setting) { s.ReadsCDS = false }, keymgr.DoubleDS, "ds.pushed"},
		{"[key-manager.parent]\nhooks = [{ command = \"true\" }]\n", func(s *Setting) { s.ReadsCDS, s.HooksTell = false, true }, keymgr.DoubleRRset, "hook.ran"},
	} {
		s := Usual(policyOf(t, c.policy), at(0), at(60))
		c.change(&s)
		s.Rolls = []Roll{{At: at(20), Request: pipeline.RolloverRequest{Kind: keymgr.RollKSK, Method: c.method}}}
		sum, lines := rehearse(t, s)
		n, open := done(sum)
		if n[keymgr.RollKSK] != 1 || len(open) > 0 || sum.Bogus+sum.Persons > 0 {
			t.Errorf("%s: done %v, not done %+v, for a person %q", c.policy, n, open, texts(lines, KindPerson))
		}
		if !slices.ContainsFunc(lines, func(l Line) bool { return l.Type == c.event }) {
			t.Errorf("%s: no event %s", c.policy, c.event)
		}
	}
}

// Reviews with hooks and by hand, and what keeps the source's serial, do not
// stop a rehearsal.
func TestRun_OtherPolicies(t *testing.T) {
	for _, text := range []string{
		"[signer.review]\nmode = \"manual\"\n[loader.review]\nmode = \"manual\"\n",
		"[signer]\nserial-policy = \"keep\"\n", "[signer]\nserial-policy = \"unix-time\"\n",
		"[key-manager]\nauto-remove = false\ncds = false\n", "[key-manager]\nobservation-interval = \"0s\"\n",
	} {
		p, err := pipeline.Parse("test", []byte(testPolicyHead+text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		s := Usual(p, at(0), at(120))
		s.OperatorDelay = time.Hour
		if sum, lines := rehearse(t, s); sum.Versions < 30 || sum.Bogus > 0 {
			t.Errorf("%s: %d versions, bogus %q", text, sum.Versions, texts(lines, KindBogus))
		}
	}
}

// A parent follows CDS only once every server shows it.
func TestRun_SilentServerKeepsTheParentFromReadingCDS(t *testing.T) {
	s := Usual(pipeline.Default(), at(0), at(40))
	s.Failures = []Failure{{Server: "ns1", From: at(2), Until: at(20)}}
	sum, lines := rehearse(t, s)
	held := texts(lines, KindHeld)
	if len(held) != 1 || !strings.Contains(held[0], "the parent does not follow CDS: ns1 gives it no answer") {
		t.Errorf("%q", held)
	}
	if until := sum.Rollovers[0].Until; until == nil || until.Before(at(22)) {
		t.Errorf("secure at %v", until)
	}
}

func TestCheck_NamesWhatIsWrong(t *testing.T) {
	for want, change := range map[string]func(*Setting){
		"not after its begin":     func(s *Setting) { s.Until = s.From },
		"at most 50 years":        func(s *Setting) { s.Until = s.From.AddDate(51, 0, 0) },
		"want 1 to 64 servers":    func(s *Setting) { s.Servers = 0 },
		"want 1 to 100000 signed": func(s *Setting) { s.RRsets = 1 << 20 },
		"at least a second":       func(s *Setting) { s.DSTTL = 0 },
		"at most once a second":   func(s *Setting) { s.ParentInterval = 0 },
		"outside the rehearsal":   func(s *Setting) { s.Rolls = []Roll{{At: at(-1)}} },
		"has no method \"double-ds\"": func(s *Setting) {
			s.Rolls = []Roll{{At: at(1), Request: pipeline.RolloverRequest{Kind: "zsk", Method: "double-ds"}}}
		},
		"no server \"ns3\"":  func(s *Setting) { s.Failures = []Failure{{Server: "ns3"}} },
		"which is not after": func(s *Setting) { s.Failures = []Failure{{Server: "ns1", From: at(2), Until: at(1)}} },
		"does not sign":      func(s *Setting) { s.Policy = policyOf(t, "[signer]\nmode = \"unsigned\"\n") },
	} {
		s := Usual(pipeline.Default(), at(0), at(30))
		change(&s)
		if err := s.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
		if _, err := Run(t.Context(), s, func(Line) error { return nil }); err == nil {
			t.Errorf("%q runs", want)
		}
	}
}

func TestRun_EndsWithItsCaller(t *testing.T) {
	s := Usual(pipeline.Default(), at(0), at(30))
	broken := errors.New("pipe closed")
	if _, err := Run(t.Context(), s, func(Line) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, s, func(Line) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestCrowd_CountsWhatOverlaps(t *testing.T) {
	span := func(s keymgr.State, from, until int) Span { return Span{s, Interval{at(from), at(until)}} }
	keys := []KeyLife{
		{Role: "ksk", Spans: []Span{span(keymgr.Active, 0, 100)}},
		{Role: "zsk", Spans: []Span{span(keymgr.Active, 0, 50), span(keymgr.Retired, 50, 60)}},
		{Role: "zsk", Spans: []Span{span(keymgr.Generated, 0, 45), span(keymgr.Published, 45, 50), span(keymgr.Active, 50, 90)}},
		{Role: "zsk", Spans: []Span{span(keymgr.Active, 90, 100)}},
	}
	most, longest := crowd(keys)
	if most != 3 || longest != uint64(15*day/time.Second) {
		t.Errorf("%d keys, two of a role for %d s", most, longest)
	}
}

func BenchmarkRun_ThreeYears(b *testing.B) {
	s := Usual(pipeline.Default(), at(0), at(3*365))
	for b.Loop() {
		if _, err := Run(b.Context(), s, func(Line) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}

// What another rollover takes the place of is told as aborted, by its own number.
func TestRun_TheWayToNoDSAbortsTheFirstDS(t *testing.T) {
	s := Usual(pipeline.Default(), at(0), at(30))
	s.Rolls = []Roll{{At: at(1), Request: pipeline.RolloverRequest{Kind: keymgr.RollInsecure, Method: "last-ds"}}}
	sum, lines := rehearse(t, s)
	if len(sum.Rollovers) != 2 {
		t.Fatalf("rollovers: %+v", sum.Rollovers)
	}
	first, second := sum.Rollovers[0], sum.Rollovers[1]
	if first.Until != nil || first.Aborted == nil || !first.Aborted.Equal(at(1)) || first.Waits != "" {
		t.Errorf("rollover 1: %+v, want it aborted at %s", first, at(1))
	}
	if second.Until == nil || second.Aborted != nil {
		t.Errorf("rollover 2: %+v, want it done", second)
	}
	i := slices.IndexFunc(lines, func(l Line) bool { return l.Type == "rollover.aborted" })
	if i < 0 || lines[i].Rollover != 1 || lines[i].Text != "rollover 1 of secure is aborted" || lines[i].Why != "the way to no DS takes its place" {
		t.Errorf("lines: %+v", lines)
	}
}
