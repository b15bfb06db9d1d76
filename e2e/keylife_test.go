package e2e

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// Acts of which courses are made.

// call runs a command about the zone.
func call(args ...string) act {
	return func(t *testing.T, l *life, z *lifeZone) (bool, string) {
		t.Helper()
		full := slices.Clone(args)
		for i, a := range full {
			if a == "ZONE" {
				full[i] = z.name()
			}
		}
		l.must(t, full...)
		return true, ""
	}
}

// abort ends the zone's rollover, or has it go back.
func abort(t *testing.T, l *life, z *lifeZone) (bool, string) {
	t.Helper()
	return call("key", "abort", "ZONE", "--reason", "tried")(t, l, z)
}

// mayAbort is abort, unless that is refused.
func mayAbort(t *testing.T, l *life, z *lifeZone) (bool, string) {
	t.Helper()
	r := l.cli(t, "key", "abort", z.name(), "--reason", "tried")
	t.Logf("%s: abort: %s", z.label, r)
	return true, ""
}

// both is one act after the other, with nothing in between.
func both(one, other act) act {
	return func(t *testing.T, l *life, z *lifeZone) (bool, string) {
		t.Helper()
		one(t, l, z)
		return other(t, l, z)
	}
}

// roll begins a rollover.
func roll(kind string, flags ...string) act {
	return call(append([]string{"key", "roll", "ZONE", kind}, flags...)...)
}

// secure waits until the parent has the zone's first DS and no rollover runs.
func secure(_ *testing.T, _ *life, z *lifeZone) (bool, string) {
	return len(z.haveDS) > 0 && len(z.status) == 0, "not yet secure"
}

// settled waits until no rollover runs.
func settled(_ *testing.T, _ *life, z *lifeZone) (bool, string) {
	return len(z.status) == 0, "a rollover runs"
}

// inStep waits until a rollover is at a step, and all that the step wants to
// see was seen.
func inStep(n int) act {
	return func(_ *testing.T, _ *life, z *lifeZone) (bool, string) {
		return slices.ContainsFunc(z.status, func(r lifeRollover) bool { return r.Step == n && r.Seen != nil }), fmt.Sprintf("not yet in step %d", n)
	}
}

// hours lets simulated time pass.
func hours(n int) act {
	return func(_ *testing.T, l *life, z *lifeZone) (bool, string) {
		return l.clock.now().Sub(z.since) > time.Duration(n)*time.Hour, "time has not passed"
	}
}

// forgotten waits until caches have lost what was before the last step, or, where
// something has to be bogus, until it was.
func forgotten(t *testing.T, l *life, z *lifeZone) (bool, string) {
	t.Helper()
	if z.bogus && l.heard.refused(z) > 0 {
		return true, ""
	}
	longest := min(max(z.dataTTL, z.keyTTL, z.dsTTL), 14*time.Hour)
	return hours(int(longest/time.Hour)+1)(t, l, z)
}

// policy gives the zone's policy further settings.
func policy(text string) act {
	return func(t *testing.T, l *life, z *lifeZone) (bool, string) {
		t.Helper()
		z.policy = text
		l.writePolicy(t, z)
		l.must(t, "policy", "reload")
		return true, ""
	}
}

// ttls gives the zone's data, keys and DS other TTLs.
func ttls(data, keys, ds time.Duration) act {
	return func(t *testing.T, l *life, z *lifeZone) (bool, string) {
		t.Helper()
		z.dataTTL, z.keyTTL, z.dsTTL = data, keys, ds // the parent follows
		l.writeZone(t, z)
		l.must(t, "zone", "reload", z.name())
		return policy(z.policy)(t, l, z)
	}
}

// Parts of policies.
const (
	unsignedMode = "signer.mode = \"unsigned\"\n"
	oneKey       = "key-manager.generation.use-csk = true\nkey-manager.csk.auto-start = false\n"
	hashed       = "signer.denial.type = \"nsec3\"\n"
	inSlices     = "signer.key-roll-time = \"8h\"\nsigner.signature-refresh-interval = \"2h\"\n"
	byPerson     = "key-manager.ksk.auto-expire = false\nkey-manager.ksk.auto-done = false\nkey-manager.ksk.auto-report = false\n"
	twoKeys      = "key-manager.csk.auto-start = false\n"
)

// lifeCourses is one course for each method.
func lifeCourses() []*lifeZone {
	const low, high = time.Hour, 8 * time.Hour
	once := func(kind string, flags ...string) []act { return []act{secure, roll(kind, flags...), settled} }
	return []*lifeZone{
		{label: "zsk-pre-publication", course: once("zsk")},
		{label: "zsk-double-signature", policy: hashed, course: once("zsk", "--method", "double-signature")},
		{label: "ksk-double-ksk", course: once("ksk")},
		{label: "ksk-double-ds", byHand: true, course: once("ksk", "--method", "double-ds")},
		{label: "ksk-double-rrset", byHand: true, course: once("ksk", "--method", "double-rrset")},
		{label: "both-at-once", policy: hashed, course: []act{secure, roll("ksk"), roll("zsk"), settled}},
		{label: "csk", policy: oneKey, course: once("csk")},
		{label: "to-csk-and-back", course: []act{
			secure, policy(oneKey), roll("csk"), settled, policy(twoKeys), roll("csk"), settled,
		}},
		{label: "algorithm", dataTTL: 10 * time.Hour, course: once("algorithm", "--algorithm", "ED25519")},
		{label: "emergency", policy: byPerson, course: once("ksk", "--emergency")},
		{label: "first-signing", policy: unsignedMode, course: []act{hours(6), policy(""), secure}},
		{label: "insecure", course: []act{secure, hours(12), roll("insecure"), settled, policy(unsignedMode), hours(6), policy(""), secure}},
		{label: "zsk-in-slices", names: 600, policy: inSlices, course: once("zsk")},
		{label: "algorithm-in-slices", names: 600, policy: inSlices, course: once("algorithm", "--algorithm", "ED25519")},
		{label: "ttls-lowered-zsk", course: []act{secure, ttls(low, low, low), roll("zsk"), settled}},
		{label: "ttls-lowered-ksk", course: []act{secure, ttls(low, low, low), hours(2), roll("ksk"), settled}},
		{label: "ttls-raised-ksk", course: []act{secure, roll("ksk"), inStep(1), ttls(high, high, high), settled}},
		{label: "abort-zsk", course: []act{secure, roll("zsk"), inStep(2), abort, settled}},
		{label: "abort-ksk", course: []act{secure, roll("ksk"), inStep(2), abort, settled}},
		{label: "abort-algorithm", policy: hashed, course: []act{secure, roll("algorithm", "--algorithm", "ED25519"), inStep(2), abort, settled}},
	}
}

// begun waits until a rollover is at a step.
func begun(n int) act {
	return func(_ *testing.T, _ *life, z *lifeZone) (bool, string) {
		return slices.ContainsFunc(z.status, func(r lifeRollover) bool { return r.Step == n }), fmt.Sprintf("not yet in step %d", n)
	}
}

// abortedCourses is a course for each step of each method, aborted there. Where
// that is refused the rollover goes on.
func abortedCourses(at func(n int) act) (all []*lifeZone) {
	for _, m := range []struct {
		kind, method string
		steps        int
	}{
		{"zsk", "pre-publication", 2},
		{"zsk", "double-signature", 1},
		{"ksk", "double-ksk", 2},
		{"ksk", "double-ds", 2},
		{"ksk", "double-rrset", 1},
		{"csk", "double-signature", 2},
		{"algorithm", "conservative", 4},
	} {
		for n := range m.steps + 1 {
			z := &lifeZone{label: fmt.Sprintf("%s-%s-%d", m.kind, m.method, n), byHand: m.method == "double-ds" || m.method == "double-rrset"}
			flags := []string{"--method", m.method}
			switch m.kind {
			case "csk":
				z.policy = oneKey
			case "algorithm":
				flags = append(flags, "--algorithm", "ECDSAP384SHA384")
			}
			z.course = []act{secure, roll(m.kind, flags...), at(n), mayAbort, settled, roll(m.kind, flags...), settled}
			if n == 0 { // before the parent hears of it
				z.course = []act{secure, both(roll(m.kind, flags...), abort), settled, roll(m.kind, flags...), settled}
			}
			all = append(all, z)
		}
	}
	return append(
		all,
		&lifeZone{label: "insecure-last-ds-1", course: []act{secure, roll("insecure"), at(1), mayAbort, settled, hours(9)}},
		&lifeZone{label: "secure-sign-1", policy: unsignedMode, course: []act{policy(""), at(1), mayAbort, settled, roll("secure"), secure}},
	)
}

// TestRehearsal_AbortedAtAnyStep aborts rollovers of each method at each step,
// and begins them anew.
func TestRehearsal_AbortedAtAnyStep(t *testing.T) {
	t.Parallel()
	if !long() {
		t.Skip("some of this is part of the short rehearsal; all of it with SLUICE_LONG=1")
	}
	t.Run("as it begins", func(t *testing.T) { rehearseLife(t, program(t), abortedCourses(begun)) })
	t.Run("once it was seen", func(t *testing.T) { rehearseLife(t, program(t), abortedCourses(inStep)) })
}

// TestRehearsal_NoRolloverIsEverBogus takes one zone through each method, all
// at the same time at an hour a second: named is the parent, named, knotd and
// nsd are public servers, and unbound validates with a clock that runs as fast,
// with cold, warm and stale caches. Beside them each mixture of answers that a
// cache may hold at a time is validated.
func TestRehearsal_NoRolloverIsEverBogus(t *testing.T) {
	t.Parallel()
	rehearseLife(t, program(t), lifeCourses())
}

// rehearseLife runs the courses of zones and judges what was served meanwhile.
// It returns the zones of which the resolvers refused something.
func rehearseLife(t *testing.T, binary string, zones []*lifeZone) (refused []string) {
	t.Helper()
	need(t, "named", "knotd", "nsd", "unbound", "faketime", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey")
	l := startLife(t, binary, zones)
	held := &caches{clock: l.clock, all: map[string][]*served{}}
	heard := newJury(l)
	l.heard = heard
	asking, kinds := l.startJury(t, heard)
	com := func(*lifeZone) string { return "com." }
	asking = append(asking, held.watch(l.parent, zones, com, []asked{askDS}))
	for i, s := range l.public {
		s.name = fmt.Sprintf("%s (server %d)", s.name, i+1)
		asking = append(asking, held.watch(s, zones, (*lifeZone).name, append([]asked{askKeys}, askData...)))
	}
	end := beside(asking...)
	l.run(t)
	end()
	for _, z := range zones {
		if l.judge(t, z, held, heard, kinds) {
			refused = append(refused, z.label)
		}
	}
	t.Logf("asked %d times; no answer: %q; %d refusals not counted, at a clock that stood still", held.asked, heard.useless, heard.doubted)
	if n := len(slices.Concat(slices.Collect(maps.Values(heard.useless))...)); n > held.asked/100 {
		t.Errorf("%d questions got no answer: %q", n, heard.useless)
	}
	return refused
}

// judge says what was bogus of a zone, and reports whether the resolvers found
// something.
func (l *life) judge(t *testing.T, z *lifeZone, held *caches, heard *jury, kinds []string) bool {
	t.Helper()
	steps := l.steps(t, z)
	mixtures, all := held.check(z)
	refused := heard.bogus[z.label]
	by := map[string]int{}
	for _, r := range refused {
		by[r.resolver]++
	}
	t.Logf("%s: %d mixtures, %d bogus; answers bogus %v, validated %v", z.label, all, len(mixtures), by, heard.secure[z.label])
	if z.bogus {
		if len(mixtures) == 0 {
			t.Errorf("%s: a wait is missing, and nothing was bogus", z.label)
		}
		return len(refused) > 0
	}
	if lines := heard.failures(z); len(lines) > 0 && heard.doubted == 0 {
		t.Errorf("%s: unbound says %d times what it says here: %s", z.label, len(lines), lines[0])
	}
	for _, m := range mixtures[:min(3, len(mixtures))] {
		t.Errorf("%s, %s: %s", z.label, stepAt(steps, m.from), m)
	}
	for _, r := range refused[:min(3, len(refused))] {
		t.Errorf("%s, %s, at %s: %s, asked for %s: %s", z.label, stepAt(steps, r.at), r.at.Format("02T15:04:05"), r.resolver, r.question, r.why)
	}
	for _, kind := range kinds {
		if n := heard.secure[z.label][kind]; n < 1 {
			t.Errorf("%s: only %d answers were validated with %s", z.label, n, kind)
		}
	}
	return len(refused) > 0
}
