package pipeline

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"sluice/journal/event"
	"sluice/pipeline/store"
	"sluice/signer"
	"sluice/signer/zone"
)

// Mode is what becomes of approved contents before they are published.
type Mode string

// The modes, as policies and events write them.
const (
	// ModeSign signs them.
	ModeSign Mode = "sign"
	// ModePassThrough publishes input that is signed already as it is, DNSSEC
	// records and serial included.
	ModePassThrough Mode = "pass-through"
	// ModeUnsigned publishes them without DNSSEC records, under a serial of
	// ours.
	ModeUnsigned Mode = "unsigned"
)

// Mode says what becomes of approved contents.
func (p Policy) Mode() Mode {
	if p.set.mode == "" {
		return ModeSign
	}
	return p.set.mode
}

func (p Policy) passThrough() bool { return p.set.mode == ModePassThrough }

// Verifies reports whether signatures are verified before they are published;
// in ModePassThrough that can be switched off.
func (p Policy) Verifies() bool { return !p.set.verifyNone }

// loadTTL is the highest TTL that the loader may see. What is passed through
// is not lowered: its signatures name the TTL.
func (p Policy) loadTTL() uint32 {
	if p.passThrough() && p.ClampTTL() {
		return 0
	}
	return p.MaxTTL()
}

// mode is how an instance was made.
func (s *Signed) mode() Mode {
	if s.Facts.Mode == "" {
		return ModeSign
	}
	return Mode(s.Facts.Mode)
}

// turnText says what a change of the mode does.
func turnText(from, to Mode) string {
	text := fmt.Sprintf("signer.mode %s becomes %s: ", from, to)
	switch to {
	case ModePassThrough:
		return text + "the source is loaded anew with its DNSSEC records, and published as it is, under its own serial, if its keys carry on the chain of trust"
	case ModeUnsigned:
		return text + "the zone is published without DNSSEC records; the parent has no DS, and must not have had one for as long as that is cached"
	case ModeSign:
	}
	return text + "the zone is signed for the first time, or again with the keys that it has here; the DS follows once caches have lost what was published before"
}

// fits reports whether an instance has what the policy's mode publishes.
func (l *Loaded) fits(p Policy) bool { return l.Facts.PassThrough == p.passThrough() }

// unfitError is an instance that must not be published.
type unfitError struct {
	reason string
	faults []string
	total  uint64
}

func (u *unfitError) Error() string { return u.reason }

func (u *unfitError) facts(loaded uint64) *event.SignFailed {
	return &event.SignFailed{Loaded: loaded, Stage: "verify", Reason: oneLine(u.reason), Errors: u.faults}
}

// unfit says what a report found; nil where that is nothing.
func unfit(what string, rep *signer.Report) error {
	if rep.OK() {
		return nil
	}
	u := &unfitError{reason: fmt.Sprintf("%s has %d faults, the first: %s", what, rep.FaultCount, rep.Faults[0]), total: rep.FaultCount}
	for _, fault := range rep.Faults {
		u.faults = append(u.faults, oneLine(fault.String()))
	}
	return u
}

// passThrough makes ready a loaded instance that is published as it is.
func (e *Engine) passThrough(ctx context.Context, s State, c Sign, p Policy, report func(Progress)) (*event.InstanceSigned, error) {
	content := s.loaded(c.Loaded)
	serial, err := sourceSerial(s, content.Facts.Serial)
	if err != nil {
		return nil, err
	}
	facts := &event.InstanceSigned{
		Loaded: c.Loaded, Serial: uint32(serial), Base: c.Base, Mode: string(c.AsIs), ContentDigest: content.Facts.ContentDigest,
		Keys: []string{}, Signers: []string{}, Params: c.Params,
		Records: content.Facts.Records, Signatures: content.Facts.Signatures, Reused: content.Facts.Signatures,
		Earliest: content.Facts.Earliest,
	}
	if err := e.keepsTrust(ctx, s, c.Loaded); err != nil {
		return nil, err
	}
	if p.Verifies() {
		report(Progress{Stage: "verify"})
		rep, err := e.verifyInput(ctx, s, c.Loaded, !p.set.verifyAll)
		if err != nil {
			return nil, err
		}
		if err := unfit(fmt.Sprintf("l%d, to be passed through,", c.Loaded), rep); err != nil {
			return nil, err
		}
		if p.Checks().ZONEMD == zonemdRequire && !rep.ZONEMD {
			return nil, &unfitError{reason: fmt.Sprintf("l%d, to be passed through: %v", c.Loaded, errNoZONEMD)}
		}
		facts.Verified = rep.Checked
	}
	return facts, e.finishAsIs(ctx, s, c, facts, nil)
}

// sourceSerial is the source's serial where that follows what is published.
func sourceSerial(s State, source uint32) (zone.Serial, error) {
	var previous, floor *zone.Serial
	if s.Published != nil {
		n := zone.Serial(s.Published.Signed.Facts.Serial)
		previous = &n
	}
	if s.SerialFloor != nil {
		n := zone.Serial(*s.SerialFloor)
		floor = &n
	}
	base, bound := highest(previous, floor)
	if bound && !base.Before(zone.Serial(source)) {
		return 0, fmt.Errorf("serial: %w: the source has %d, what is passed through keeps it, and the next must be above %d; raise it at the source",
			ErrSerial, source, base)
	}
	return zone.Serial(source), nil
}

// unsigned makes ready a loaded instance that is published without DNSSEC.
func (e *Engine) unsigned(ctx context.Context, s State, c Sign, p Policy) (*event.InstanceSigned, error) {
	content := s.loaded(c.Loaded)
	serial, err := s.NextSerial(p, content.Facts.Serial, e.clock.Now())
	if err != nil {
		return nil, err
	}
	facts := &event.InstanceSigned{
		Loaded: c.Loaded, Serial: uint32(serial), Base: c.Base, Mode: string(c.AsIs), ContentDigest: content.Facts.ContentDigest,
		Keys: []string{}, Signers: []string{}, Params: c.Params, Records: content.Facts.Records,
	}
	return facts, e.finishAsIs(ctx, s, c, facts, &serial)
}

// finishAsIs sends what an instance has beside the contents, an SOA with our
// serial where one is given, and fills in digest and manifest.
func (e *Engine) finishAsIs(ctx context.Context, s State, c Sign, facts *event.InstanceSigned, serial *zone.Serial) (err error) {
	v, err := e.store.Loaded(s.Zone, c.Loaded)
	if err != nil {
		return e.note(err)
	}
	defer v.Close() //nolint:errcheck // read only
	key, value, state, err := asIs(v, serial)
	if err != nil {
		return err
	}
	out := newChunkSink(ctx, e.signJournal.NewChunks(s.Zone, c.Identity()))
	if serial != nil {
		if err := out.Put(key, value); err != nil {
			return err
		}
	}
	facts.SignedDigest = state.Sum()
	if err := out.putState(state); err != nil {
		return err
	}
	if s.Published != nil {
		facts.Previous = s.Published.Signed.Facts.Serial
	}
	facts.Manifest, err = out.finish()
	return err
}

// asIs is the SOA item that an instance shows which is a loaded one as it is,
// or with another serial, and the state of its signed digest.
func asIs(v *store.View, serial *zone.Serial) (key, value []byte, state *zone.SetHash, err error) {
	if state, err = v.SetHash(); err != nil {
		return nil, nil, nil, err
	}
	k, soa := v.SOA()
	key, value = bytes.Clone(k), bytes.Clone(soa)
	if err := state.RemoveContent(key, value); err != nil {
		return nil, nil, nil, err
	}
	if serial != nil {
		key[0] = byte(zone.KindMade)
		// The serial is the first of the five numbers that end the RDATA.
		binary.BigEndian.PutUint32(value[len(value)-20:], uint32(*serial))
	}
	return key, value, state, state.AddItem(key, value)
}

// gateUnsigned demands that an instance is what it was made of with another
// serial, and nothing else.
func (e *Engine) gateUnsigned(s State, signed uint64) (*signer.Report, error) {
	f := s.Signed.Facts
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	loaded, err := e.store.Loaded(s.Zone, f.Loaded)
	if err != nil {
		return nil, err
	}
	defer loaded.Close() //nolint:errcheck // read only
	serial := zone.Serial(f.Serial)
	key, value, state, err := asIs(loaded, &serial)
	if err != nil {
		return nil, err
	}
	rep := &signer.Report{Serial: serial}
	fault := func(rule signer.Rule, format string, args ...any) {
		rep.FaultCount++
		rep.Faults = append(rep.Faults, signer.Fault{Owner: apex, Type: zone.TypeSOA, Rule: rule, Detail: fmt.Sprintf(format, args...)})
	}
	if state.Sum() != f.SignedDigest {
		fault(signer.RuleDigest, "the digest is not that of the approved contents under serial %d", serial)
	}
	v, err := e.store.Signed(s.Zone, signed)
	if err != nil {
		return nil, err
	}
	defer v.Close() //nolint:errcheck // read only
	soa := 0
	for _, kind := range []zone.Kind{zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs} {
		it, err := v.Kind(kind)
		if err != nil {
			return nil, err
		}
		for it.Next() && rep.FaultCount < 10 {
			if bytes.Equal(it.Key(), key) && bytes.Equal(it.Value(), value) {
				soa++
				continue
			}
			fault(signer.RuleOrphan, "an item of the signer's beside the SOA: %x", it.Key())
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			return nil, err
		}
	}
	if soa != 1 {
		fault(signer.RuleApex, "no SOA with serial %d", serial)
	}
	return rep, nil
}

// gatePassThrough demands that signatures which were verified when the
// instance was made ready have not ended meanwhile. All of its items are the
// approved instance's.
func (e *Engine) gatePassThrough(s State) (*signer.Report, error) {
	f, rep := s.Signed.Facts, &signer.Report{}
	end := time.Unix(f.Earliest, 0).UTC()
	if f.Verified > 0 && f.Earliest != 0 && !e.clock.Now().Before(end) {
		apex, err := apexOf(s)
		if err != nil {
			return nil, err
		}
		rep.FaultCount, rep.Faults = 1, []signer.Fault{{
			Owner: apex, Type: zone.TypeRRSIG, Rule: signer.RuleTime,
			Detail: "a signature of the source ended at " + end.Format(time.RFC3339) + ", while the instance waited",
		}}
	}
	return rep, nil
}

// verifyInput runs the verifier over a loaded instance that is passed through:
// over what changed where the published one was verified and little did.
func (e *Engine) verifyInput(ctx context.Context, s State, loaded uint64, sample bool) (*signer.Report, error) {
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	opts := signer.VerifyOptions{Apex: apex, At: e.clock.Now(), Spill: e.signSpill}
	if sample {
		opts.Every = signer.SampleEvery
	}
	if p := s.Published; p != nil && p.Signed.mode() == ModePassThrough && p.Signed.Facts.Verified > 0 &&
		p.Signed.Broken == "" && p.Loaded.Broken == "" && e.clock.Now().Before(time.Unix(p.Signed.Facts.Earliest, 0)) {
		rep, err := e.checkInput(ctx, s, loaded, opts)
		if !errors.Is(err, signer.ErrFull) {
			return rep, err
		}
	}
	v, err := openVersion(e.store, target{id: s.Zone, loaded: true, seq: loaded})
	if err != nil {
		return nil, err
	}
	defer v.close() //nolint:errcheck // read only
	return signer.Verify(ctx, zone.Merge(v.parts...), opts)
}

// checkInput verifies what a loaded instance changes against the published
// one.
func (e *Engine) checkInput(ctx context.Context, s State, loaded uint64, opts signer.VerifyOptions) (*signer.Report, error) {
	old, err := openAccess(e.store.Loaded(s.Zone, s.Published.Loaded.Seq))
	if err != nil {
		return nil, err
	}
	defer old.close() //nolint:errcheck // read only
	now, err := openAccess(e.store.Loaded(s.Zone, loaded))
	if err != nil {
		return nil, err
	}
	defer now.close() //nolint:errcheck // read only
	return signer.CheckChanges(ctx, signer.CheckInput{
		Previous: old.access, Signed: now.access,
		Changes: func(fn func(key, before, after []byte) error) error {
			known, err := e.store.Changes(s.Zone, s.Published.Loaded.Seq, loaded, fn)
			if err == nil && !known {
				return signer.ErrFull
			}
			return err
		},
	}, opts)
}
