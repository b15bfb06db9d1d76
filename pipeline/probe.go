package pipeline

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

const (
	// maxProbing bounds the zones that resolvers are asked about at a time.
	maxProbing = 8
	// probePace is how often it is looked which zones are due, at the least.
	probePace = 5 * time.Second
	// leastSettled is how long the parent has had a DS before resolvers are
	// expected to know it.
	leastSettled = time.Hour
)

// Prober is how validating resolvers are asked whether they take zones for
// secure. The zero value asks nobody.
type Prober struct {
	// Resolvers are asked, each about every zone whose parent has a DS.
	Resolvers []netip.AddrPort
	// Interval is how often each zone is asked about.
	Interval time.Duration
	// Names are what is asked for in each zone; none is the SOA of its apex. The
	// first is asked for over UDP and TCP, the others over UDP.
	Names []ProbeName
	// Ask asks one resolver.
	Ask func(ctx context.Context, p observe.Probe) observe.Validated
}

// ProbeName is what is asked for in each zone.
type ProbeName struct {
	Owner string // below the zone's apex, such as "www"; "@" is the apex
	Type  zone.Type
}

// ParseProbeName reads "OWNER TYPE", such as "@ SOA" or "www A".
func ParseProbeName(text string) (ProbeName, error) {
	words := strings.Fields(text)
	if len(words) != 2 {
		return ProbeName{}, fmt.Errorf(`%w: name %q: want OWNER TYPE, such as "@ SOA" or "www A"`, ErrInvalid, text)
	}
	t, ok := zone.ParseType(strings.ToUpper(words[1]))
	if !ok {
		return ProbeName{}, fmt.Errorf("%w: name %q: %q is no record type", ErrInvalid, text, words[1])
	}
	n := ProbeName{Owner: words[0], Type: t}
	if strings.HasSuffix(n.Owner, ".") {
		return n, fmt.Errorf("%w: name %q: want an owner below each zone, without a final dot", ErrInvalid, text)
	}
	_, err := n.under("example.")
	return n, err
}

// under is the name in a zone.
func (n ProbeName) under(apex string) (zone.Name, error) {
	origin, err := zone.ParseName(apex)
	if err != nil {
		return "", err
	}
	name, err := zone.ParseNameAt(n.Owner, origin)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return name, nil
}

// Outcomes of a question to a validating resolver.
const (
	ProbeValidated = "validated" // it says that it validated the answer
	ProbeInsecure  = "insecure"  // it answers without saying so (no AD)
	ProbeBogus     = "bogus"     // SERVFAIL because of DNSSEC
	ProbeFailed    = "failed"    // SERVFAIL for another reason, or another RCODE
	ProbeSilent    = "silent"    // no answer
)

// ProbeStatus is what validating resolvers said of a zone when they were asked
// last.
type ProbeStatus struct {
	// Text is a sentence: what they said, or why they are not asked.
	Text    string        `json:"text"`
	At      *time.Time    `json:"at,omitempty"`
	NextAt  *time.Time    `json:"next_at,omitempty"`
	Answers []ProbeAnswer `json:"answers,omitempty"`
}

// ProbeAnswer is one answer of a resolver.
type ProbeAnswer struct {
	Resolver  string `json:"resolver"`
	Owner     string `json:"owner"`
	Type      string `json:"type"`
	Transport string `json:"transport"` // udp or tcp
	// Outcome is validated, insecure (no AD), bogus, failed or silent.
	Outcome    string    `json:"outcome"`
	Rcode      string    `json:"rcode,omitempty"`
	Extended   []string  `json:"extended_errors,omitempty"` // RFC 8914
	Error      string    `json:"error,omitempty"`
	DurationMS float64   `json:"duration_ms"`
	Since      time.Time `json:"since"` // since when the outcome is this one
}

// outcomeOf sums an answer up.
func outcomeOf(v observe.Validated) string {
	switch {
	case v.Error != "":
		return ProbeSilent
	case v.Rcode == dns.RcodeServerFailure && (v.Unchecked || slices.ContainsFunc(v.Extended, observe.Extended.Bogus)):
		return ProbeBogus
	case v.Rcode != dns.RcodeSuccess && v.Rcode != dns.RcodeNameError:
		return ProbeFailed
	case v.AD:
		return ProbeValidated
	}
	return ProbeInsecure
}

// probeAnswer is an answer as status shows it.
func probeAnswer(p observe.Probe, v observe.Validated, took time.Duration) ProbeAnswer {
	a := ProbeAnswer{
		Resolver: p.Resolver.String(), Owner: p.Name.String(), Type: p.Type.String(), Transport: "udp",
		Outcome: outcomeOf(v), Error: oneLine(v.Error), DurationMS: float64(took.Microseconds()) / 1000,
	}
	if p.TCP {
		a.Transport = "tcp"
	}
	if v.Error != "" {
		return a
	}
	a.Rcode = dns.RcodeToString[v.Rcode]
	if a.Rcode == "" {
		a.Rcode = fmt.Sprintf("RCODE%d", v.Rcode)
	}
	for _, x := range v.Extended {
		text := fmt.Sprintf("%d", x.Code)
		if name := observe.ExtendedText(x.Code); name != "" {
			text += " " + name
		}
		if x.Text != "" {
			text += ": " + oneLine(x.Text)
		}
		a.Extended = append(a.Extended, text)
	}
	return a
}

// text tells an answer in a few words.
func (a ProbeAnswer) text() string {
	switch {
	case a.Outcome == ProbeSilent:
		return a.Resolver + ": " + a.Error
	case len(a.Extended) > 0:
		return a.Resolver + ": " + a.Rcode + ", " + strings.Join(a.Extended, "; ")
	}
	return a.Resolver + ": " + a.Rcode
}

// judgeProbes says what answers mean, where the parent has a DS: settled says
// that it has had it for so long that resolvers must know it. Of those that say
// the same, one is named. It is pure.
func judgeProbes(zone string, answers []ProbeAnswer, settled bool) (text string, notices []Notice) {
	all := map[string]bool{} // resolvers: whether they validate all that is asked
	for _, a := range answers {
		before, seen := all[a.Resolver]
		all[a.Resolver] = a.Outcome == ProbeValidated && (before || !seen)
	}
	look := "see: sluice zone observe " + zone
	for _, bad := range []struct {
		outcome, severity string
		code              NoticeCode
		what, hint        string
	}{
		{ProbeBogus, severityAlarm, NoticeResolverBogus, "take the zone for bogus", "compare what the parent has with what this prints: sluice key ds " + zone},
		{ProbeInsecure, severityWarning, NoticeResolverInsecure, "do not validate the zone, though the parent has a DS", "is it a resolver that validates? " + look},
		{ProbeFailed, severityWarning, NoticeResolverFails, "cannot resolve the zone", look},
		{ProbeSilent, severityWarning, NoticeResolverSilent, "did not answer", "see that prober.resolvers of the config can be reached from here"},
	} {
		if bad.outcome == ProbeInsecure && !settled {
			continue
		}
		var first *ProbeAnswer
		who := map[string]bool{}
		for i := range answers {
			if answers[i].Outcome != bad.outcome {
				continue
			}
			if who[answers[i].Resolver] = true; first == nil {
				first = &answers[i]
			}
		}
		if first == nil {
			continue
		}
		notices = append(notices, Notice{
			Severity: bad.severity, Code: bad.code, Since: sinceOf(first.Since), Hint: bad.hint,
			Text: fmt.Sprintf("%d of %d validating resolvers %s since %s (%s %s, %s)",
				len(who), len(all), bad.what, first.Since.Format(time.RFC3339), first.Owner, first.Type, first.text()),
		})
	}
	valid := 0
	for _, ok := range all {
		if ok {
			valid++
		}
	}
	return fmt.Sprintf("%d of %d resolvers validate all that is asked", valid, len(all)), notices
}

// probing is what this process knows of what resolvers say of a zone.
type probing struct {
	busy    bool
	next    time.Time // on the machine's clock: resolvers know no other
	at      time.Time
	answers []ProbeAnswer
}

// SetProber replaces which resolvers are asked, for what and how often.
func (e *Engine) SetProber(p Prober) {
	e.prober.Store(&p)
	poke(e.probed)
}

// probes has resolvers asked about each zone, at a place of its own in the
// interval, until ctx ends.
func (e *Engine) probes(ctx context.Context) {
	for {
		p := e.prober.Load()
		now := machineTime()
		for _, r := range e.allRunners() {
			r.probeDue(now, p)
		}
		var again <-chan time.Time
		stop := func() bool { return true }
		if len(p.Resolvers) > 0 {
			timer := time.NewTimer(max(min(probePace, p.Interval/20), 100*time.Millisecond))
			again, stop = timer.C, timer.Stop
		}
		select {
		case <-again:
		case <-e.probed:
		case <-ctx.Done():
		}
		stop()
		if ctx.Err() != nil {
			return
		}
	}
}

// probeDue asks about the zone, where it is time.
func (r *runner) probeDue(now time.Time, p *Prober) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &r.probing
	if len(p.Resolvers) == 0 || r.unprobed() != "" {
		l.next, l.answers = time.Time{}, nil
		return
	}
	if l.next.IsZero() || l.next.Sub(now) > p.Interval { // the interval may have become shorter
		l.next = now.Add(spread(r.id, p.Interval))
	}
	if l.busy || now.Before(l.next) {
		return
	}
	l.next = now.Add(p.Interval)
	l.busy = r.e.probing.add(r.e, "", r.probe)
}

// unprobed says why resolvers are not asked about a zone; "" where they are. The
// caller holds mu.
func (r *runner) unprobed() string {
	s := r.state
	switch {
	case s.Removed != 0, s.Published == nil:
		return "it is not published"
	case !r.e.probesHere(r):
		return "another worker asks"
	case len(s.Keys.DS.Sets) == 0:
		return "it is not known whether the parent has a DS"
	case !dsAtParent(s):
		return "the parent has no DS, so every resolver takes the zone for insecure"
	}
	return ""
}

// dsAtParent reports whether all that the parent's servers handed out when they
// were last asked has a DS.
func dsAtParent(s State) bool {
	for _, set := range s.Keys.DS.Sets {
		if len(set.DS) == 0 {
			return false
		}
	}
	return len(s.Keys.DS.Sets) > 0
}

// probesHere reports whether this process asks resolvers about a zone: of the
// workers that observe, one does.
func (e *Engine) probesHere(r *runner) bool {
	if e.duties == nil {
		return true
	}
	e.duties.mu.Lock()
	st := e.duties.standing
	e.duties.mu.Unlock()
	names := e.duties.living(st, RoleObserve)
	return rendezvous(names, duty{RoleObserve, PartitionOf(r.id)}) == e.worker
}

// probe asks all resolvers about the zone.
func (r *runner) probe(ctx context.Context) {
	name, prober := r.snapshot().Name, r.e.prober.Load()
	asks := prober.Names
	if len(asks) == 0 {
		asks = []ProbeName{{"@", zone.TypeSOA}}
	}
	var answers []ProbeAnswer
	for i, ask := range asks {
		owner, err := ask.under(name)
		if err != nil {
			continue // a name that is too long below this zone
		}
		for _, resolver := range prober.Resolvers {
			for _, tcp := range []bool{false, true} {
				if tcp && i > 0 {
					continue
				}
				p := observe.Probe{Resolver: resolver, Name: owner, Type: ask.Type, TCP: tcp}
				began := machineTime()
				v := prober.Ask(ctx, p)
				took := machineTime().Sub(began)
				if ctx.Err() != nil {
					return
				}
				a := probeAnswer(p, v, took)
				r.e.counts.probes.add(a.Resolver, a.Outcome, took)
				answers = append(answers, a)
			}
		}
	}
	now := machineTime().UTC().Truncate(time.Second)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range answers {
		a := &answers[i]
		a.Since = now
		for _, was := range r.probing.answers {
			if was.Resolver == a.Resolver && was.Owner == a.Owner && was.Type == a.Type && was.Transport == a.Transport && was.Outcome == a.Outcome {
				a.Since = was.Since
			}
		}
	}
	r.probing.busy, r.probing.at, r.probing.answers = false, now, answers
	r.notify()
}

// probeStatus tells what resolvers say of the zone. The caller holds mu.
func (r *runner) probeStatus(st *ZoneStatus) {
	if len(r.e.prober.Load().Resolvers) == 0 {
		return
	}
	l := &r.probing
	out := &ProbeStatus{At: timeOrNil(l.at), NextAt: timeOrNil(l.next), Answers: l.answers}
	st.Probe = out
	switch why := r.unprobed(); {
	case why != "":
		*out = ProbeStatus{Text: "not asked: " + why}
	case len(l.answers) == 0:
		out.Text = "not asked yet"
	default:
		ds := r.state.Keys.DS
		ttl := time.Duration(0)
		for _, set := range ds.Sets {
			ttl = max(ttl, time.Duration(set.TTL)*time.Second)
		}
		settled := r.e.clock.Now().After(ds.Observed.Add(max(ttl, leastSettled)))
		var notices []Notice
		out.Text, notices = judgeProbes(st.Name, l.answers, settled)
		st.Notices = append(st.Notices, notices...)
	}
}
