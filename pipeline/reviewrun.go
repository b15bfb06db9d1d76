package pipeline

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// doOpenReview runs the built-in checks of an instance, and asks for the
// verdicts that the policy wants.
func (e *Engine) doOpenReview(ctx context.Context, s State, c OpenReview, report func(Progress)) ([]event.Facts, error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	if c.Stage == event.StageSigned {
		return e.openSigned(ctx, s, c, p, report)
	}
	checks, fault, err := e.checkLoaded(s, p)
	if err != nil {
		return nil, fmt.Errorf("check l%d: %w", c.Instance, err)
	}
	digest := s.Loaded.Facts.ContentDigest
	if fault != "" {
		return rejection(p, &event.ReviewRejected{
			Stage: c.Stage, Instance: c.Instance, Digest: digest, Checker: checkerBuiltIn, Reason: fault,
		}), nil
	}
	if p.Review(c.Stage).Off() {
		return []event.Facts{&event.ReviewApproved{
			Stage: c.Stage, Instance: c.Instance, Digest: digest, Checker: checkerBuiltIn, Passed: true,
			Reason: strings.Join(checks, ", "),
		}}, nil
	}
	return []event.Facts{&event.ReviewRequested{Stage: c.Stage, Instance: c.Instance, Digest: digest, Checks: checks}}, nil
}

// openSigned runs the egress gate over a signed instance before anybody may
// fetch it. A person's verdict on what it is a pure refresh of stands for it.
func (e *Engine) openSigned(ctx context.Context, s State, c OpenReview, p Policy, report func(Progress)) ([]event.Facts, error) {
	gate, failed, err := e.passGate(ctx, s, c.Instance, report)
	if err != nil {
		return nil, err
	}
	if failed != nil {
		return []event.Facts{failed}, errors.New(failed.Reason)
	}
	f := s.Signed.Facts
	facts := []event.Facts{&event.ReviewRequested{
		Stage: c.Stage, Instance: c.Instance, Digest: f.SignedDigest, Checks: []string{"egress gate"}, Gate: gate,
	}}
	want := p.Review(c.Stage)
	if from := carried(s, madeOf(f)); want.Manual && from != 0 {
		facts = append(facts, &event.ReviewApproved{
			Stage: c.Stage, Instance: c.Instance, Digest: f.SignedDigest, Checker: checkerManual,
			Passed: new(Review).passes(want, checkerManual), Carried: from,
			Reason: fmt.Sprintf("a pure refresh of s%d", from),
		})
	}
	return facts, nil
}

// passGate holds a signed instance against the egress gate, and says what that
// looked at; what does not pass is a fact.
func (e *Engine) passGate(ctx context.Context, s State, signed uint64, report func(Progress)) (*event.Gate, *event.SignFailed, error) {
	report(Progress{Stage: "verify"})
	began := machineTime()
	rep, err := e.gate(ctx, s, signed)
	if err != nil {
		return nil, nil, fmt.Errorf("verify s%d: %w", signed, err)
	}
	if rep.OK() {
		e.counts.verifications.add("", "passed", machineTime().Sub(began))
		return &event.Gate{RRsets: rep.RRsets, Signatures: rep.Signatures, Verified: rep.Checked}, nil, nil
	}
	e.counts.verifications.add("", "failed", machineTime().Sub(began))
	failed := &event.SignFailed{
		Loaded: s.Signed.Facts.Loaded, Stage: "verify", Faults: rep.FaultCount,
		Reason: fmt.Sprintf("s%d failed at the egress gate with %d faults", signed, rep.FaultCount),
	}
	for _, fault := range rep.Faults {
		failed.Errors = append(failed.Errors, oneLine(fault.String()))
	}
	return nil, failed, nil
}

// rejection is a bad verdict with what the policy makes of it.
func rejection(p Policy, f *event.ReviewRejected) []event.Facts {
	reason := rejectionText(f.Checker, f.Reason)
	if p.Review(f.Stage).Halt {
		return []event.Facts{f, &event.ZoneHalted{Stage: f.Stage, Instance: f.Instance, Reason: reason}}
	}
	return []event.Facts{f, &event.InstanceAbandoned{Stage: f.Stage, Instance: f.Instance, Reason: reason}}
}

func (e *Engine) doCloseReview(s State, c CloseReview) ([]event.Facts, error) {
	rv := s.review(c.Stage, c.Instance)
	if rv == nil {
		return nil, nil
	}
	return []event.Facts{&event.ReviewApproved{
		Stage: c.Stage, Instance: c.Instance, Digest: rv.Digest, Checker: checkerPolicy, Passed: true,
		Reason: "no further verdict is wanted",
	}}, nil
}

// doHook asks a hook for its verdict. It is killed once its verdict is not
// waited for any more.
func (e *Engine) doHook(ctx context.Context, s State, c RunHook) ([]event.Facts, error) {
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	rv := s.review(c.Stage, c.Instance)
	if rv == nil {
		return nil, nil
	}
	checker := checkerHook(c.Number)
	env, done, err := e.hookEnv(s, rv)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", checker, err)
	}
	defer done()
	wanted, stop := e.whilePending(ctx, s.Zone, c)
	defer stop()
	outcome, err := e.hook(wanted, "review", Hook{Command: c.Command, Timeout: c.Timeout}, env)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case wanted.Err() != nil:
		return nil, nil // somebody else decided
	case errors.Is(err, errHookStart):
		reason := fmt.Sprintf("%s of the %s review (%s) %s", checker, c.Stage, oneLine(c.Command), err)
		return []event.Facts{&event.ZoneHalted{Stage: c.Stage, Instance: c.Instance, Reason: oneLine(reason)}}, nil
	case err != nil:
		return nil, fmt.Errorf("%s: %w", checker, err)
	}
	if outcome.ExitCode != 0 {
		return rejection(p, &event.ReviewRejected{
			Stage: c.Stage, Instance: c.Instance, Digest: rv.Digest, Checker: checker,
			Reason: hookReason(outcome, c.Timeout), Hook: &outcome,
		}), nil
	}
	return []event.Facts{&event.ReviewApproved{
		Stage: c.Stage, Instance: c.Instance, Digest: rv.Digest, Checker: checker,
		Passed: rv.passes(p.Review(c.Stage), checker), Hook: &outcome,
	}}, nil
}

// whilePending is a context that ends once the command is not asked for any
// more.
func (e *Engine) whilePending(ctx context.Context, id event.ZoneID, c Command) (context.Context, context.CancelFunc) {
	e.mu.RLock()
	r := e.runners[id]
	e.mu.RUnlock()
	ctx, cancel := context.WithCancel(ctx)
	e.work.Go(func() {
		defer cancel()
		_ = r.await(ctx, func(State) bool { return !r.wants(c) }) // ctx ended: nothing to do
	})
	return ctx, cancel
}

// hookEnv is what a hook is told, and a function that removes its files.
func (e *Engine) hookEnv(s State, rv *Review) (env []string, done func(), err error) {
	server := e.reviewServer(rv.Stage)
	name := strings.TrimSuffix(s.Name, ".")
	if name == "" {
		name = "."
	}
	set := func(key, value string, cascade bool) {
		env = append(env, "SLUICE_"+key+"="+value)
		if cascade {
			env = append(env, "CASCADE_"+key+"="+value)
		}
	}
	set("ZONE", name, true)
	set("SERIAL", serialWord(&rv.Serial), true)
	if server.IsValid() {
		set("SERVER", server.String(), true)
		set("SERVER_IP", server.Addr().String(), true)
		set("SERVER_PORT", strconv.Itoa(int(server.Port())), true)
	}
	set("STAGE", rv.Stage, false)
	set("INSTANCE", instanceWordOf(rv.Stage, rv.Instance), false)
	previous, published := s.previousSerials(rv.Stage)
	set("PREVIOUS_SERIAL", serialWord(previous), false)
	set("PUBLISHED_SERIAL", serialWord(published), false)
	path, err := e.hookDiff(s, rv)
	if err != nil {
		return nil, nil, err
	}
	set("DIFF", path, false)
	return env, func() { _ = os.Remove(path) }, nil // the folder is emptied at the next start
}

// previousSerials are the serial of the last good instance of a stage, and
// the one that is served; nil where there is none.
func (s State) previousSerials(stage string) (previous, published *uint32) {
	if s.Published != nil {
		published = &s.Published.Signed.Facts.Serial
		previous = published
	}
	if stage == event.StageLoaded {
		previous = nil
		if s.Approved != nil {
			previous = &s.Approved.Facts.Serial
		}
	}
	return previous, published
}

func serialWord(serial *uint32) string {
	if serial == nil {
		return ""
	}
	return strconv.FormatUint(uint64(*serial), 10)
}

// hookDiff writes what differs from what is published, "-record" and
// "+record" a line, into a file; all of it where nothing is published.
func (e *Engine) hookDiff(s State, rv *Review) (path string, err error) {
	f, err := os.CreateTemp(string(e.spill.SpillDir), "diff-*")
	if err != nil {
		return "", err
	}
	w := bufio.NewWriter(f)
	err = e.writeDiff(s, rv, w)
	err = errors.Join(err, w.Flush(), f.Close())
	if err != nil {
		return "", errors.Join(fmt.Errorf("write diff: %w", err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

func (e *Engine) writeDiff(s State, rv *Review, w *bufio.Writer) error {
	loaded := rv.Stage == event.StageLoaded
	now, err := openVersion(e.store, target{id: s.Zone, loaded: loaded, seq: rv.Instance})
	if err != nil {
		return err
	}
	defer now.close() //nolint:errcheck // read only
	before := &version{signed: now.signed, close: func() error { return nil }}
	if p := s.Published; p != nil {
		seq := p.Signed.Seq
		if loaded {
			seq = p.Loaded.Seq
		}
		if before, err = openVersion(e.store, target{id: s.Zone, loaded: loaded, seq: seq}); err != nil {
			return err
		}
	} else {
		for range now.parts {
			before.parts = append(before.parts, zone.Slice())
		}
	}
	defer before.close() //nolint:errcheck // read only
	return diffVersions(before, now, func(l DiffLine) error {
		sign := byte('+')
		if l.Removed {
			sign = '-'
		}
		if err := w.WriteByte(sign); err != nil {
			return err
		}
		_, err := w.WriteString(l.Record + "\n")
		return err
	})
}

// SetReviewServers says where the review listeners are, for hooks and status.
// It is called before Run; the zero value says that there is none.
func (e *Engine) SetReviewServers(loaded, signed netip.AddrPort) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reviewers = map[string]netip.AddrPort{event.StageLoaded: loaded, event.StageSigned: signed}
}

// reviewServer is where instances of a stage can be fetched, as an address
// that can be connected to.
func (e *Engine) reviewServer(stage string) netip.AddrPort {
	e.mu.RLock()
	at := e.reviewers[stage]
	e.mu.RUnlock()
	switch {
	case !at.IsValid() || !at.Addr().IsUnspecified():
		return at
	case at.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
}
