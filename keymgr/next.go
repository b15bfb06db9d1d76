package keymgr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// Auto is what goes on by itself; what does not waits for a person.
type Auto struct {
	Start  bool // a rollover begins when keys reach their age
	Report bool // what observation sees counts
	Expire bool // a step begins when the wait before it is over
	Done   bool // the last step does
}

// RolePolicy is how keys of a role are exchanged by themselves.
type RolePolicy struct {
	Validity time.Duration // the age at which they are to be gone; 0: for ever
	Method   Method        // "" is the default
	Auto     Auto
}

// RollPolicy is how keys are exchanged.
type RollPolicy struct {
	KSK, ZSK, CSK RolePolicy
	Algorithm     Auto
	CDS           bool // the parent is told by CDS and CDNSKEY
	// Backup: a key without a backup mark is not put to use.
	Backup bool
}

// Auto is the switches of a kind of rollover.
func (p RollPolicy) Auto(k Kind) Auto {
	switch k {
	case RollZSK:
		return p.ZSK.Auto
	case RollKSK:
		return p.KSK.Auto
	case RollCSK:
		return p.CSK.Auto
	case RollAlgorithm:
		return p.Algorithm
	case RollSecure, RollInsecure, RollForeign:
	}
	// The way to the first DS takes nothing away, and the one to no DS was
	// asked for.
	return Auto{Start: true, Report: true, Expire: true, Done: true}
}

// Method is how a kind of rollover is done.
func (p RollPolicy) Method(k Kind) Method {
	m := Method("")
	switch k {
	case RollZSK:
		m = p.ZSK.Method
	case RollKSK:
		m = p.KSK.Method
	case RollCSK, RollAlgorithm, RollSecure, RollInsecure, RollForeign:
	}
	if m == "" {
		m = Methods(k)[0]
	}
	return m
}

// Served is what is published here.
type Served struct {
	Keys []string `json:"keys,omitempty"` // IDs of the keys in the DNSKEY RRset
	// Signers is the IDs of the keys by which there are signatures, sorted: of
	// those that sign once all is signed that they are to sign, of others as long
	// as a signature of theirs is left.
	Signers []string    `json:"signers,omitempty"`
	Serial  zone.Serial `json:"serial,omitempty"` // of the first version with these keys and signers
	At      time.Time   `json:"at,omitzero"`      // when that was published; zero where nothing is

	// Sets is the sets of keys that RRsets of the newest version are signed by,
	// those that the keys sign aside; none where that was not counted.
	Sets [][]string `json:"sets,omitempty"`
	// Left is how many of them are signed otherwise than by the keys that sign,
	// and Until when the last of them is to have been exchanged.
	Left  uint64    `json:"left,omitempty"`
	Until time.Time `json:"until,omitzero"`
}

// Known is what a decision sees besides the key set.
type Known struct {
	Now         time.Time
	Served      Served
	Observation *Observation // nil where nobody has looked yet
	Timing      Timing
	// Provers is the workers that are to prove each key; none where one process
	// does all.
	Provers []Prover
	// ClockSet is when a clock was accepted that had been in doubt, zero for
	// never: what was noted before may be younger than it seems.
	ClockSet time.Time
}

// Missing is a server that does not show what is waited for.
type Missing struct {
	Server  string         `json:"server"`
	Address netip.AddrPort `json:"address,omitzero"`
	Reason  string         `json:"reason"`
	Since   time.Time      `json:"since,omitzero"`
}

// Phase is what a rollover waits for.
type Phase string

// The phases.
const (
	PhasePublish Phase = "publish" // the zone is signed and published with the keys
	PhaseSee     Phase = "see"     // the servers show it
	PhaseWait    Phase = "wait"    // time passes
	PhasePerson  Phase = "person"  // somebody lets it go on
	PhaseBackup  Phase = "backup"  // somebody backs its new keys up, and says so
	PhaseProof   Phase = "proof"   // workers prove that they hold its new keys
	PhaseBlocked Phase = "blocked" // going on would break the chain of trust
	PhaseDo      Phase = "do"      // nothing: something is to be recorded now
)

// Step is what a rollover needs next.
type Step struct {
	Phase Phase `json:"phase"`
	// Text tells it in a sentence.
	Text string `json:"text"`
	// Until is when the wait is over; zero where no time is waited for.
	Until   time.Time `json:"until,omitzero"`
	Missing []Missing `json:"missing,omitempty"`
	// Do is what is to be recorded now, in PhaseDo. Keys that it activates or
	// introduces must have proved themselves.
	Do []event.Facts `json:"-"`
}

// Next says what a rollover needs. It is pure.
func Next(ks KeySet, r Rollover, p RollPolicy, k Known) Step {
	k.Timing.Signing = Term{} // what is recorded counts from the sight of all
	all := r.steps()
	if r.Step == 0 && len(all) > 0 {
		if k.Now.Before(r.Start) {
			return Step{Phase: PhaseWait, Until: r.Start, Text: "begins at " + r.Start.Format(time.RFC3339)}
		}
		return r.enter(ks, all[0], p, k)
	}
	if r.Step < 1 || r.Step > len(all) {
		return Step{Phase: PhaseBlocked, Text: "this program does not know the rollover's method or step"}
	}
	cur := all[r.Step-1]
	if len(cur.see) > 0 && r.Seen.IsZero() {
		return r.toSee(ks, cur, p, k)
	}
	if !r.Seen.IsZero() {
		if s, held := r.whileWaiting(ks, cur, k); held {
			return s
		}
	}
	return r.goOn(ks, all, p, k)
}

// toSee waits until all that the step needs is seen, and records that.
func (r *Rollover) toSee(ks KeySet, cur step, p RollPolicy, k Known) Step {
	if slices.Contains(cur.see, SeeKeys) || slices.Contains(cur.see, SeeSigs) {
		if why := ks.unserved(k.Served, slices.Contains(cur.see, SeeSigs)); why != "" {
			return Step{Phase: PhasePublish, Text: cur.text + ": " + why}
		}
	}
	var missing []Missing
	person := ""
	for _, s := range cur.see {
		if slices.Contains(r.Reported, s) {
			continue
		}
		m := r.look(ks, s, k)
		if len(m) == 0 && !r.automatic(p).Report {
			person = string(s)
		}
		for _, one := range m {
			if !slices.Contains(missing, one) {
				missing = append(missing, one)
			}
		}
	}
	switch {
	case len(missing) > 0:
		return Step{Phase: PhaseSee, Text: cur.text + ": waits until it is seen; " + missingText(missing), Missing: missing}
	case person != "":
		return Step{Phase: PhasePerson, Text: fmt.Sprintf("%s: seen everywhere, a person is to report it: --%s", cur.text, person)}
	}
	from := r.seenFrom(cur, k)
	return r.record(cur, k, r.from(from, k), &event.RolloverAdvanced{Seen: ceilUnix(from)})
}

// seenFrom is from when on all was seen that a step needs to see: now, or since
// every server shows the new ZSK that stood by in the DNSKEY RRset. Of other
// keys it matters what they sign, too.
func (r *Rollover) seenFrom(cur step, k Known) time.Time {
	if r.Kind != RollZSK || !slices.Equal(cur.see, []Sight{SeeKeys}) || len(r.Reported) > 0 || len(r.New) == 0 {
		return k.Now
	}
	var from time.Time
	for _, id := range r.New {
		at, ok := k.Observation.KeysSince[id]
		if !ok || at.After(k.Now) || at.Before(k.ClockSet) {
			return k.Now
		}
		if at.After(from) {
			from = at
		}
	}
	return from
}

// from is when a wait counts from: the sight, or earlier where the former
// signer had it public already, and time enough since then for all public
// servers to show it.
func (r *Rollover) from(seen time.Time, k Known) time.Time {
	if at := r.Elsewhere.Add(k.Timing.Margin.Value); !r.Elsewhere.IsZero() && at.Before(seen) {
		return at
	}
	return seen
}

// record notes what was seen at a time, and the wait from then on.
func (r *Rollover) record(cur step, k Known, from time.Time, f *event.RolloverAdvanced) Step {
	f.Rollover, f.Step, f.Name = r.ID, uint64(r.Step), cur.name //nolint:gosec // small
	if cur.wait != nil && f.Lost == "" {
		f.Wait = k.Timing.since(cur.wait(k.Timing), from)
	}
	return Step{Phase: PhaseDo, Text: cur.text, Do: []event.Facts{f}}
}

// whileWaiting looks after a wait that runs: it grows with the TTLs, never
// shrinks, and begins anew where what was seen is not so any more. held is
// false once it is over.
func (r *Rollover) whileWaiting(ks KeySet, cur step, k Known) (s Step, held bool) {
	if r.Seen.After(k.Now.Add(time.Second)) {
		return r.record(cur, k, k.Now, &event.RolloverAdvanced{Lost: "the clock was set back"}), true
	}
	if r.Seen.Before(k.ClockSet) {
		return r.record(cur, k, k.Now, &event.RolloverAdvanced{Lost: "the clock was in doubt, and was accepted as it is"}), true
	}
	missing := r.unreported(ks, cur, k)
	if lost := slices.IndexFunc(missing, func(m Missing) bool { return m.contrary() }); lost >= 0 {
		why := missing[lost].Server + " " + missing[lost].Reason
		return r.record(cur, k, k.Now, &event.RolloverAdvanced{Lost: why}), true
	}
	if r.Wait == nil {
		return Step{}, false
	}
	if w := k.Timing.since(cur.wait(k.Timing), r.from(r.Seen, k)); w.Earliest > r.Wait.Earliest {
		return r.record(cur, k, r.from(r.Seen, k), &event.RolloverAdvanced{Seen: r.Seen.Unix()}), true
	}
	until := time.Unix(r.Wait.Earliest, 0).UTC()
	if k.Now.Before(until) {
		return Step{Phase: PhaseWait, Until: until, Text: cur.text + ": waits until " + until.Format(time.RFC3339) + ", " + WaitText(r.Wait)}, true
	}
	// The last look must be younger than the wait.
	if len(missing) == 0 && r.watched(cur) && (k.Observation == nil || k.Observation.At.Before(until)) {
		missing = []Missing{{Server: "all servers", Reason: "are asked once more"}}
	}
	if len(missing) > 0 {
		return Step{Phase: PhaseSee, Text: cur.text + ": the wait is over, " + missingText(missing), Missing: missing}, true
	}
	return Step{}, false
}

// watched reports whether something of the step was seen by observation, not
// reported.
func (r *Rollover) watched(cur step) bool {
	return slices.ContainsFunc(cur.see, func(s Sight) bool { return !slices.Contains(r.Reported, s) })
}

func (r *Rollover) unreported(ks KeySet, cur step, k Known) []Missing {
	var out []Missing
	for _, s := range cur.see {
		if !slices.Contains(r.Reported, s) {
			out = append(out, r.look(ks, s, k)...)
		}
	}
	return out
}

// goOn begins the next step.
func (r *Rollover) goOn(ks KeySet, all []step, p RollPolicy, k Known) Step {
	if r.Step == len(all) {
		return Step{Phase: PhaseDo, Text: "done", Do: []event.Facts{&event.RolloverCompleted{Rollover: r.ID}}}
	}
	next := all[r.Step]
	auto := r.automatic(p)
	if next.last() && !auto.Done || !next.last() && !auto.Expire {
		if !slices.Contains(r.Reported, ReportNext) {
			return Step{Phase: PhasePerson, Text: "ready to " + next.text + ": waits for a person, sluice key step --next"}
		}
	}
	return r.enter(ks, next, p, k)
}

// enter begins a step.
func (r *Rollover) enter(ks KeySet, next step, p RollPolicy, k Known) Step {
	if unsaved := ks.Unsaved(r.New); p.Backup && len(unsaved) > 0 {
		return Step{Phase: PhaseBackup, Text: unsavedText(next.text, unsaved)}
	}
	if unproved := ks.Unproved(r.New, k.Provers); len(unproved) > 0 {
		return Step{Phase: PhaseProof, Text: next.text + ": " + UnprovedText(unproved)}
	}
	do := []event.Facts{&event.RolloverAdvanced{Rollover: r.ID, Step: uint64(r.Step + 1), Name: next.name}} //nolint:gosec // small
	do = append(do, next.enter(ks, r, p)...)
	if next.last() {
		do = append(do, &event.RolloverCompleted{Rollover: r.ID})
	}
	if err := ks.MayBecome(do, k); err != nil {
		return Step{Phase: PhaseBlocked, Text: "cannot " + next.text + ": " + err.Error()}
	}
	return Step{Phase: PhaseDo, Text: next.text, Do: do}
}

func (r *Rollover) automatic(p RollPolicy) Auto {
	if r.Emergency {
		return Auto{Start: true, Report: true, Expire: true, Done: true}
	}
	return p.Auto(r.Kind)
}

// unserved says why what is published here is not yet made with the keys of
// the set: its DNSKEY RRset and what signs that, or all signatures.
func (ks KeySet) unserved(s Served, signatures bool) string {
	signing := ids(ks.Signing())
	ofKeys := func(all []string) []string { return ks.only(all, (*Key).SignsKeys) }
	switch {
	case s.At.IsZero():
		return "waits until the zone is published signed"
	case !slices.Equal(s.Keys, ids(ks.Published())):
	case signatures && slices.Equal(s.Signers, signing), !signatures && slices.Equal(ofKeys(s.Signers), ofKeys(signing)):
		return ""
	case signatures && s.Left > 0 && !s.Until.IsZero():
		return fmt.Sprintf("signatures are replaced until %s, those of %d RRsets are left", s.Until.UTC().Format(time.RFC3339), s.Left)
	}
	return "waits until the zone is published with these keys"
}

// ids is the IDs of keys, sorted.
func ids(keys []Key) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		out = append(out, k.ID)
	}
	slices.Sort(out)
	return out
}

func ceilUnix(t time.Time) int64 {
	if t.Nanosecond() > 0 {
		return t.Unix() + 1
	}
	return t.Unix()
}

func missingText(missing []Missing) string {
	const most = 4
	var parts []string
	for i, m := range missing {
		if i == most {
			parts = append(parts, fmt.Sprintf("and %d more", len(missing)-most))
			break
		}
		text := m.Server + " " + m.Reason
		if !m.Since.IsZero() {
			text += " since " + m.Since.UTC().Format(time.RFC3339)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; ")
}
