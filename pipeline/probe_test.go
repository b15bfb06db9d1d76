package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

func TestOutcomeOf_WhatAnswersMean(t *testing.T) {
	ede := func(code uint16) []observe.Extended { return []observe.Extended{{Code: code}} }
	for _, c := range []struct {
		name string
		v    observe.Validated
		want string
	}{
		{"an answer with AD is validated", observe.Validated{AD: true}, ProbeValidated},
		{"so is a denial with AD", observe.Validated{Rcode: dns.RcodeNameError, AD: true}, ProbeValidated},
		{"an answer without AD is insecure", observe.Validated{}, ProbeInsecure},
		{"SERVFAIL that says DNSSEC is bogus", observe.Validated{Rcode: dns.RcodeServerFailure, Extended: ede(dns.ExtendedErrorCodeDNSBogus)}, ProbeBogus},
		{"so is one whose signatures expired", observe.Validated{Rcode: dns.RcodeServerFailure, Extended: ede(dns.ExtendedErrorCodeSignatureExpired)}, ProbeBogus},
		{"so is one that has an answer unchecked", observe.Validated{Rcode: dns.RcodeServerFailure, Unchecked: true}, ProbeBogus},
		{"SERVFAIL for want of servers is a failure", observe.Validated{Rcode: dns.RcodeServerFailure, Extended: ede(dns.ExtendedErrorCodeNoReachableAuthority)}, ProbeFailed},
		{"REFUSED is a failure", observe.Validated{Rcode: dns.RcodeRefused}, ProbeFailed},
		{"an extended error beside a validated answer is none", observe.Validated{AD: true, Extended: ede(dns.ExtendedErrorCodeStaleAnswer)}, ProbeValidated},
		{"no answer is silence", observe.Validated{Error: "no answer in time"}, ProbeSilent},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := outcomeOf(c.v); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestJudgeProbes_TellsWhatIsWrong(t *testing.T) {
	since := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	answer := func(resolver, outcome string) ProbeAnswer {
		a := ProbeAnswer{Resolver: resolver, Owner: "example.", Type: "SOA", Transport: "udp", Outcome: outcome, Rcode: "NOERROR", Since: since}
		switch outcome {
		case ProbeBogus:
			a.Rcode, a.Extended = "SERVFAIL", []string{"6 DNSSEC Bogus"}
		case ProbeSilent:
			a.Rcode, a.Error = "", "no answer in time"
		}
		return a
	}
	for _, c := range []struct {
		name    string
		answers []ProbeAnswer
		settled bool
		text    string
		notices []string // beginnings, with severities
	}{
		{"all is well", []ProbeAnswer{answer("a", ProbeValidated), answer("b", ProbeValidated)}, true, "2 of 2 resolvers", nil},
		{
			"bogus is an alarm",
			[]ProbeAnswer{answer("a", ProbeValidated), answer("b", ProbeBogus)},
			true, "1 of 2 resolvers",
			[]string{"alarm 1 of 2 validating resolvers take the zone for bogus since 2026-03-01T00:00:00Z (example. SOA, b: SERVFAIL, 6 DNSSEC Bogus)"},
		},
		{
			"one bad answer of several counts",
			[]ProbeAnswer{answer("a", ProbeValidated), answer("a", ProbeBogus)},
			true, "0 of 1 resolvers",
			[]string{"alarm 1 of 1 validating resolvers take the zone for bogus"},
		},
		{
			"no AD is a warning",
			[]ProbeAnswer{answer("a", ProbeInsecure)},
			true, "0 of 1 resolvers",
			[]string{"warning 1 of 1 validating resolvers do not validate the zone, though the parent has a DS"},
		},
		{"a new DS is not known everywhere", []ProbeAnswer{answer("a", ProbeInsecure)}, false, "0 of 1 resolvers", nil},
		{
			"silence is a warning",
			[]ProbeAnswer{answer("a", ProbeSilent), answer("b", ProbeFailed)},
			false, "0 of 2 resolvers",
			[]string{"warning 1 of 2 validating resolvers cannot resolve the zone", "warning 1 of 2 validating resolvers did not answer"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			text, notices := judgeProbes("example.", c.answers, c.settled)
			if !strings.HasPrefix(text, c.text) {
				t.Errorf("text %q", text)
			}
			if len(notices) != len(c.notices) {
				t.Fatalf("notices %+v", notices)
			}
			for i, n := range notices {
				if got := n.Severity + " " + n.Text; !strings.HasPrefix(got, c.notices[i]) || n.Hint == "" {
					t.Errorf("notice %q, hint %q", got, n.Hint)
				}
			}
		})
	}
}

func TestParseProbeName_OwnersStandBelowEachZone(t *testing.T) {
	for text, want := range map[string]string{
		"@ SOA": "example. SOA", "www a": "www.example. A", "_25._tcp.mx TLSA": "_25._tcp.mx.example. TLSA",
	} {
		n, err := ParseProbeName(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		owner, err := n.under("example.")
		if got := owner.String() + " " + n.Type.String(); err != nil || got != want {
			t.Errorf("%q is %q, %v", text, got, err)
		}
	}
	if owner, err := (ProbeName{"www", zone.TypeA}).under("."); err != nil || owner.String() != "www." {
		t.Errorf("below the root: %q, %v", owner, err)
	}
	for _, text := range []string{"", "www", "www A x", "www. A", "@ NOTYPE", strings.Repeat("a", 64) + " A"} {
		if _, err := ParseProbeName(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestOverdueTimes_AreWhereOverdueTurns(t *testing.T) {
	p, err := Parse("p", []byte("version = \"v1\"\n[signer]\nsignature-lifetime = \"14d\"\nsignature-remain-time = \"4d\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	end := time.Date(2026, 3, 15, 0, 0, 0, 0, time.UTC)
	s := State{Published: &Published{}}
	s.Published.Signed.Facts.Earliest = end.Unix()
	due, alarm := overdueTimes(s, p)
	if want := end.Add(-4 * day); !due.Equal(want) {
		t.Errorf("due at %s, want %s", due, want)
	}
	if want := end.Add(-day); !alarm.Equal(want) {
		t.Errorf("alarm at %s, want %s", alarm, want)
	}
	if severity, _ := overdue(s, p, alarm); severity != severityAlarm {
		t.Errorf("then it is %q", severity)
	}
	if due, alarm := overdueTimes(State{}, p); !due.IsZero() || !alarm.IsZero() {
		t.Errorf("of what is not published: %s, %s", due, alarm)
	}
}

func TestHistogram_BucketsHoldWhatTookLess(t *testing.T) {
	var h histogram
	for _, took := range []time.Duration{50 * time.Microsecond, time.Millisecond, 1001 * time.Microsecond, time.Minute} {
		h.observe(took)
	}
	got := h.read()
	if got.Count != 4 || got.Buckets[0.0001] != 1 || got.Buckets[0.001] != 2 || got.Buckets[0.0025] != 3 || got.Buckets[10] != 3 {
		t.Errorf("%+v", got)
	}
	if got.Sum < 60 || got.Sum > 60.01 {
		t.Errorf("sum %v", got.Sum)
	}
}
