package keymgr

import (
	"fmt"
	"slices"

	"sluice/journal/event"
)

// Kind says what a rollover changes.
type Kind string

// The kinds.
const (
	RollZSK       Kind = "zsk"
	RollKSK       Kind = "ksk"
	RollCSK       Kind = "csk"       // all keys for new ones of the same algorithm; also between KSK+ZSK and CSK
	RollAlgorithm Kind = "algorithm" // all keys for ones of another algorithm
	RollSecure    Kind = "secure"    // the way from a signed zone to its first DS
	RollInsecure  Kind = "insecure"  // the way to no DS, after which the zone may be published unsigned
	RollForeign   Kind = "foreign"   // keys of another signer come or go
)

// Method is how keys are exchanged.
type Method string

// The methods; the first named of each kind is the default.
const (
	PrePublication  Method = "pre-publication"  // zsk
	DoubleSignature Method = "double-signature" // zsk, csk
	DoubleKSK       Method = "double-ksk"       // ksk
	DoubleDS        Method = "double-ds"        // ksk
	DoubleRRset     Method = "double-rrset"     // ksk
	Conservative    Method = "conservative"     // algorithm
	FirstDS         Method = "first-ds"         // secure
	LastDS          Method = "last-ds"          // insecure
	Join            Method = "join"             // foreign: ZSKs
	JoinDS          Method = "join-ds"          // foreign: also KSKs
	Leave           Method = "leave"            // foreign: a ZSK
	LeaveDS         Method = "leave-ds"         // foreign: a KSK
)

// Methods lists the methods of a kind, the default first; nil for no kind.
func Methods(k Kind) []Method {
	switch k {
	case RollZSK:
		return []Method{PrePublication, DoubleSignature}
	case RollKSK:
		return []Method{DoubleKSK, DoubleDS, DoubleRRset}
	case RollCSK:
		return []Method{DoubleSignature}
	case RollAlgorithm:
		return []Method{Conservative}
	case RollSecure:
		return []Method{FirstDS}
	case RollInsecure:
		return []Method{LastDS}
	case RollForeign:
		return []Method{Join, JoinDS, Leave, LeaveDS}
	}
	return nil
}

// Sight is something that has to be seen at all servers.
type Sight string

// The sights. The last is none but a person's word to go on.
const (
	SeeKeys    Sight = "dnskey-seen" // the DNSKEY RRset as it is published here
	SeeSigs    Sight = "rrsig-seen"  // the signatures as they are published here, and none from before
	SeeDS      Sight = "ds-seen"     // the DS of the keys that come
	SeeDSGone  Sight = "ds-gone"     // no DS of the keys that leave
	ReportNext Sight = "next"
)

// step is one step of a rollover: what changes as it begins, what has to be
// seen then, and what has to pass since.
type step struct {
	name  string
	text  string // what happens, for people
	enter func(ks KeySet, r *Rollover, p RollPolicy) []event.Facts
	see   []Sight
	wait  func(Timing) wait // nil: nothing has to pass
}

// last reports whether nothing follows the beginning of the step.
func (s *step) last() bool { return len(s.see) == 0 && s.wait == nil }

// steps is the course of a rollover.
func (r *Rollover) steps() []step {
	switch r.Kind {
	case RollZSK:
		if r.Method == DoubleSignature {
			return []step{stepDouble(), stepRemove()}
		}
		return []step{
			{name: "publish", text: "publish the new key", enter: publishNew, see: []Sight{SeeKeys}, wait: Timing.ipub},
			{name: "sign", text: "sign with the new key, keep the old one published", enter: exchangeSigners, see: []Sight{SeeKeys, SeeSigs}, wait: Timing.iretZSK},
			stepRemove(),
		}
	case RollKSK:
		return r.stepsKSK()
	case RollCSK:
		return []step{stepDouble(), r.stepDS(), stepRemove()}
	case RollAlgorithm:
		return []step{
			{name: "introduce", text: "sign with the new algorithm, its keys not yet published", enter: introduceNew, see: []Sight{SeeSigs}, wait: Timing.isig},
			{name: "publish", text: "publish the new keys beside the old ones", enter: activateNew, see: []Sight{SeeKeys, SeeSigs}, wait: Timing.ipubC},
			r.stepDSAlgorithm(),
			{name: "withdraw", text: "withdraw the old keys, still signing with them", enter: withdrawOld, see: []Sight{SeeKeys}, wait: Timing.iwithdraw},
			stepRemove(),
		}
	case RollSecure:
		return []step{
			{name: "sign", text: "publish the zone signed", enter: activateNew, see: []Sight{SeeKeys, SeeSigs}, wait: Timing.ifirst},
			{name: "first-ds", text: "have the parent add the DS", enter: submitNew, see: []Sight{SeeDS}},
			{name: "done", text: "the zone is secure", enter: nothing},
		}
	case RollInsecure:
		return []step{
			r.stepLastDS(),
			{name: "done", text: "the zone may be published unsigned", enter: nothing},
		}
	case RollForeign:
		return r.stepsForeign()
	}
	return nil
}

func (r *Rollover) stepsKSK() []step {
	switch r.Method {
	case DoubleDS:
		return []step{
			{name: "add-ds", text: "have the parent add the new DS to the old one", enter: submitBoth, see: []Sight{SeeDS}, wait: Timing.ipubP},
			{name: "exchange", text: "put the new key in the place of the old one", enter: exchangeKeys, see: []Sight{SeeKeys}, wait: Timing.iretDoubleDS},
			{name: "remove-ds", text: "have the parent remove the old DS", enter: submitNew},
		}
	case DoubleRRset:
		return []step{
			{name: "add", text: "publish the new key and have the parent add its DS", enter: addBoth, see: []Sight{SeeKeys, SeeDS}, wait: Timing.ipubBoth},
			{name: "remove", text: "remove the old key and have the parent remove its DS", enter: removeBoth},
		}
	case DoubleKSK, PrePublication, DoubleSignature, Conservative, FirstDS, LastDS, Join, JoinDS, Leave, LeaveDS:
	}
	return []step{
		{name: "publish", text: "publish the new key beside the old one, both signing the keys", enter: activateNew, see: []Sight{SeeKeys}, wait: Timing.ipubC},
		r.stepDS(),
		stepRemove(),
	}
}

func stepDouble() step {
	return step{name: "double", text: "sign with old and new keys", enter: activateNew, see: []Sight{SeeKeys, SeeSigs}, wait: Timing.iretDouble}
}

// stepDS changes the DS. After a turn the DS that was new must be seen to be
// gone, since the parent may have taken it up unseen.
func (r *Rollover) stepDS() step {
	s := step{name: "change-ds", text: "change the DS at the parent", enter: changeDS, see: []Sight{SeeDS}, wait: Timing.iretKSK}
	if r.Turned {
		s.see, s.wait = append(s.see, SeeDSGone), Timing.iretTurned
	}
	if r.Taken {
		s.wait = Timing.iretTurned
	}
	return s
}

// stepLastDS removes the DS. One that was never seen may come and go unseen.
func (r *Rollover) stepLastDS() step {
	s := step{name: "last-ds", text: "have the parent remove the DS", enter: withdrawDS, see: []Sight{SeeDSGone}, wait: Timing.ilast}
	if r.Taken {
		s.wait = Timing.ilastUnseen
	}
	return s
}

// stepDSAlgorithm changes the DS to another algorithm: none of the old one may
// stay (RFC 4035, 2.2).
func (r *Rollover) stepDSAlgorithm() step {
	s := r.stepDS()
	s.see = []Sight{SeeDS, SeeDSGone}
	return s
}

func stepRemove() step {
	return step{name: "remove", text: "remove the old keys", enter: removeOld}
}

func nothing(KeySet, *Rollover, RollPolicy) []event.Facts { return nil }

func publishNew(ks KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	// A standby key is published already.
	ids := ks.only(r.New, func(k *Key) bool { return k.State == Generated })
	if len(ids) == 0 {
		return nil
	}
	return []event.Facts{&event.KeyPublished{IDs: ids}}
}

func activateNew(ks KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	ids := ks.only(r.New, func(k *Key) bool { return k.State != Active })
	if len(ids) == 0 {
		return nil
	}
	return []event.Facts{&event.KeyActivated{IDs: ids}}
}

// introduceNew also takes out the keys that stand by with other algorithms: they
// must not outlive those that sign.
func introduceNew(ks KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	out := []event.Facts{&event.KeyIntroduced{IDs: r.New}}
	var left []string
	for i := range ks.Keys {
		if k := &ks.Keys[i]; k.State == Published && !k.Foreign && !slices.Contains(r.New, k.ID) {
			left = append(left, k.ID)
		}
	}
	if len(left) > 0 {
		out = append(out, &event.KeyRemoved{IDs: left})
	}
	return out
}

func exchangeSigners(_ KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	return []event.Facts{&event.KeyActivated{IDs: r.New}, &event.KeyRetired{IDs: r.Old}}
}

func exchangeKeys(_ KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	return []event.Facts{&event.KeyActivated{IDs: r.New}, &event.KeyRemoved{IDs: r.Old}}
}

func withdrawOld(_ KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	return []event.Facts{&event.KeyWithdrawn{IDs: r.Old}}
}

func removeOld(_ KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	return []event.Facts{&event.KeyRemoved{IDs: r.Old}}
}

func submitNew(ks KeySet, r *Rollover, p RollPolicy) []event.Facts {
	return []event.Facts{&event.DSSubmitted{IDs: ks.wanted(r.New, r.Old), CDS: p.CDS}}
}

// changeDS leaves a parent alone that has no DS, and is to have none.
func changeDS(ks KeySet, r *Rollover, p RollPolicy) []event.Facts {
	if !ks.secure() {
		return nil
	}
	return submitNew(ks, r, p)
}

// submitBoth keeps CDS out of it: they would have the parent drop what has no
// key yet (RFC 7344, 4.1).
func submitBoth(ks KeySet, r *Rollover, _ RollPolicy) []event.Facts {
	return []event.Facts{&event.DSSubmitted{IDs: ks.wanted(append(slices.Clone(r.Old), r.New...), nil)}}
}

func addBoth(ks KeySet, r *Rollover, p RollPolicy) []event.Facts {
	return append(activateNew(ks, r, p), submitBoth(ks, r, p)...)
}

func removeBoth(ks KeySet, r *Rollover, p RollPolicy) []event.Facts {
	return append(removeOld(ks, r, p), submitNew(ks, r, p)...)
}

func withdrawDS(_ KeySet, _ *Rollover, p RollPolicy) []event.Facts {
	return []event.Facts{&event.DSWithdrawn{CDS: p.CDS}}
}

// Abort is what ends a rollover, or turns it round where what the new keys did
// may be in caches. It fails where that is not possible any more, saying what
// is.
func Abort(ks KeySet, r Rollover, p RollPolicy, reason string) ([]event.Facts, error) {
	end := []event.Facts{&event.RolloverAborted{Rollover: r.ID, Reason: reason}}
	drop := append(end, &event.KeyRemoved{IDs: r.New})
	turn := 0
	switch {
	case r.Kind == RollForeign:
		return r.abortForeign(ks, p, end)
	case r.Step == 0, r.Kind == RollSecure && r.Step == 1:
		return end, nil
	case r.Kind == RollSecure:
		return nil, fmt.Errorf("the parent may have taken up the DS: have it removed with a rollover to insecure")
	case r.Kind == RollInsecure:
		was := ks.DS.Was
		if r.Taken && len(was) == 0 {
			was = r.Old // the former signer had told the parent
		}
		return append(end, &event.DSSubmitted{IDs: ks.wanted(was, nil), CDS: p.CDS}), nil
	case r.Turned:
		return nil, fmt.Errorf("the rollover is on its way back already")
	case r.Kind != RollKSK && slices.ContainsFunc(r.Old, ks.noted(Removed)):
		return nil, fmt.Errorf("the old key had left the DNSKEY RRset before the take-over, and caches may lack it: let the rollover end")
	case r.Kind != RollKSK && slices.ContainsFunc(r.New, ks.noted(Active, Retired)):
		return nil, fmt.Errorf("the new key signed before the take-over, and caches may hold its signatures alone: let the rollover end")
	case r.Kind == RollKSK && r.Method == DoubleDS && r.Step == 1, r.Kind == RollKSK && r.Method == DoubleRRset && r.Step == 1:
		if r.DSSeen {
			return nil, fmt.Errorf("the new DS was seen at the parent: let the rollover end, then roll back to a new key")
		}
		return append(drop, &event.DSSubmitted{IDs: ks.wanted(r.Old, r.New), CDS: p.CDS}), nil
	case r.Kind == RollKSK && r.Method == DoubleDS:
		return nil, fmt.Errorf("the old key is removed already: let the rollover end, then start another")
	case r.Step == 1:
		return drop, nil
	case r.Kind == RollAlgorithm:
		turn = []int{1: 0, 2: 4, 3: 3, 4: 2}[r.Step]
	default:
		turn = r.Step
	}
	next := r
	next.turn(turn)
	at := next.steps()[turn-1]
	aborted := &event.RolloverAborted{Rollover: r.ID, Step: uint64(turn), Name: at.name, Reason: reason} //nolint:gosec // small
	return append([]event.Facts{aborted}, at.enter(ks, &next, p)...), nil
}

// noted gives what reports whether a former signer had a key in one of the
// states.
func (ks KeySet) noted(states ...State) func(id string) bool {
	return func(id string) bool {
		k, ok := ks.ByID(id)
		return ok && k.Life != nil && slices.Contains(states, State(k.Life.State))
	}
}
