package keymgr

import (
	"fmt"
	"strings"
	"time"

	"sluice/journal/event"
)

// Term is one input of a wait: how long, and where that was taken from.
type Term struct {
	Value  time.Duration
	Source string
}

// Timing is what the waits of RFC 7583 follow from. TTLs are the largest that
// a cache may still hold.
type Timing struct {
	Margin Term // Dprp: from when a server shows something until each site of it does
	// ParentMargin is that of the parent's servers, DprpP; Margin where it has no
	// source.
	ParentMargin Term
	KeyTTL       Term // TTLkey: of the DNSKEY RRset
	SigTTL       Term // TTLsig: the largest of the zone
	DSTTL        Term // TTLds: of the DS RRset at the parent
	// Place is where the zone stands among others, a hash of its name: their
	// rollovers do not all begin at once.
	Place uint64
	// Signing is Dsgn, for plans: how long it takes until all that is signed
	// otherwise is signed by the keys that sign.
	Signing Term

	// cut names a wait that is taken as zero, and blind leaves out the hard
	// stop, to show that the tests see it.
	cut   string
	blind bool
}

// longestEarly bounds how much sooner than it has to a rollover begins so that
// those of many zones do not begin at once; it is a twentieth of the age too.
const longestEarly = 24 * time.Hour

// early is how much sooner than it has to this zone's rollover begins.
func (t Timing) early(validity time.Duration) time.Duration {
	within := min(validity/20, longestEarly) / time.Second
	if within < 1 {
		return 0
	}
	return time.Duration(t.Place%uint64(within)) * time.Second //nolint:gosec // positive and small
}

// parentMargin is DprpP.
func (t Timing) parentMargin() Term {
	if t.ParentMargin.Source == "" {
		return t.Margin
	}
	return t.ParentMargin
}

// DSMargin is for how long after the last sight of a DS RRset a site of the
// parent may still hand it out.
func (t Timing) DSMargin() time.Duration { return t.parentMargin().Value }

// wait is a formula and its terms, all of which add up.
type wait struct {
	name    string
	formula string
	terms   []named
}

type named struct {
	name string
	Term
}

// larger is the larger of two terms.
func larger(name string, a, b Term) named {
	if b.Value > a.Value {
		a = b
	}
	return named{name, a}
}

// dsgn is the time that signing takes. It is zero but in plans, since the waits
// count from when the last of the new signatures were seen.
func (t Timing) dsgn() named {
	if t.Signing.Value == 0 {
		return named{"Dsgn", Term{0, "counted from the sight of all new signatures"}}
	}
	return named{"Dsgn", t.Signing}
}

// ipub is how long a ZSK is published before it signs (RFC 7583, 3.2.1).
func (t Timing) ipub() wait {
	return wait{"Ipub", "Ipub = Dprp + TTLkey", []named{{"Dprp", t.Margin}, {"TTLkey", t.KeyTTL}}}
}

// iretZSK is how long a ZSK is published after it signed last (RFC 7583,
// 3.2.1).
func (t Timing) iretZSK() wait {
	return wait{"IretZSK", "Iret = Dsgn + Dprp + TTLsig", []named{t.dsgn(), {"Dprp", t.Margin}, {"TTLsig", t.SigTTL}}}
}

// iretDouble is how long two ZSKs or CSKs sign together (RFC 7583, 3.2.2).
func (t Timing) iretDouble() wait {
	return wait{
		"IretDouble", "Iret = Dsgn + Dprp + max(TTLkey, TTLsig)",
		[]named{t.dsgn(), {"Dprp", t.Margin}, larger("max(TTLkey, TTLsig)", t.KeyTTL, t.SigTTL)},
	}
}

// ipubC is how long a KSK is published before its DS may replace the old one
// (RFC 7583, 3.3.1).
func (t Timing) ipubC() wait {
	return wait{"IpubC", "IpubC = DprpC + TTLkey", []named{{"DprpC", t.Margin}, {"TTLkey", t.KeyTTL}}}
}

// iretKSK is how long an old KSK stays once the new DS is there (RFC 7583,
// 3.3.1).
func (t Timing) iretKSK() wait {
	return wait{"IretKSK", "Iret = DprpP + TTLds", []named{{"DprpP", t.parentMargin()}, {"TTLds", t.DSTTL}}}
}

// unseenDSTTL is the TTL that a DS may have had that came and went between two
// looks: longer than parents give.
const unseenDSTTL = 48 * time.Hour

// iretTurned is how long the key stays whose DS was withdrawn before it was
// seen here: the parent may have had it for a while, with any TTL.
func (t Timing) iretTurned() wait {
	return wait{"IretTurned", "Iret = DprpP + TTLds", []named{{"DprpP", t.parentMargin()}, t.ttlUnseen()}}
}

func (t Timing) ttlUnseen() named {
	return larger("TTLds", t.DSTTL, Term{unseenDSTTL, "a DS that came and went unseen"})
}

// ipubP is how long a DS stands at the parent before its key replaces the old
// one (RFC 7583, 3.3.2).
func (t Timing) ipubP() wait {
	return wait{"IpubP", "IpubP = DprpP + TTLds", []named{{"DprpP", t.parentMargin()}, {"TTLds", t.DSTTL}}}
}

// iretDoubleDS is how long the old DS stays once the new key replaced the old
// (RFC 7583, 3.3.2).
func (t Timing) iretDoubleDS() wait {
	return wait{"IretC", "Iret = DprpC + TTLkey", []named{{"DprpC", t.Margin}, {"TTLkey", t.KeyTTL}}}
}

// ipubBoth is how long a new key and its DS stand beside the old ones (RFC
// 7583, 3.3.3).
func (t Timing) ipubBoth() wait {
	margin, ttl := t.Margin, t.KeyTTL
	if p := t.parentMargin(); p.Value+t.DSTTL.Value > margin.Value+ttl.Value {
		margin, ttl = p, t.DSTTL
	}
	return wait{
		"IpubCP", "Ipub = max(DprpP + TTLds, DprpC + TTLkey)",
		[]named{{"Dprp", margin}, {"max(TTLds, TTLkey)", ttl}},
	}
}

// delegationTTL is taken for the TTL of the NS records at the parent, by which
// resolvers go on asking servers that were taken out: longer than parents give.
const delegationTTL = 48 * time.Hour

// iretForeign is how long a key of another signer stays once its signatures
// are gone from the servers: resolvers may ask that signer's servers for as
// long as they know the delegation, and keep what they get.
func (t Timing) iretForeign() wait {
	ns := larger("TTLns", t.SigTTL, Term{delegationTTL, "a delegation that caches may hold"})
	return wait{
		"IretForeign", "Iret = Dprp + TTLns + max(TTLkey, TTLsig)",
		[]named{{"Dprp", t.Margin}, ns, larger("max(TTLkey, TTLsig)", t.KeyTTL, t.SigTTL)},
	}
}

// isig is how long an algorithm signs before its keys are published (RFC 6781,
// 4.1.4).
func (t Timing) isig() wait {
	return wait{"Isig", "Isig = Dsgn + Dprp + TTLsig", []named{t.dsgn(), {"Dprp", t.Margin}, {"TTLsig", t.SigTTL}}}
}

// iwithdraw is how long an algorithm signs after its keys were withdrawn (RFC
// 6781, 4.1.4).
func (t Timing) iwithdraw() wait {
	return wait{"Iwdr", "Iwdr = Dprp + TTLkey", []named{{"Dprp", t.Margin}, {"TTLkey", t.KeyTTL}}}
}

// ifirst is how long a zone is signed before its first DS (RFC 6781, 4.3.2):
// until nothing unsigned is left.
func (t Timing) ifirst() wait {
	return wait{
		"Ifirst", "Ifirst = Dsgn + Dprp + max(TTLkey, TTLsig)",
		[]named{t.dsgn(), {"Dprp", t.Margin}, larger("max(TTLkey, TTLsig)", t.KeyTTL, t.SigTTL)},
	}
}

// ilast is how long a zone stays signed after its last DS (RFC 6781, 4.3.3).
func (t Timing) ilast() wait {
	return wait{"Ilast", "Ilast = DprpP + TTLds", []named{{"DprpP", t.parentMargin()}, {"TTLds", t.DSTTL}}}
}

// ilastUnseen is ilast where no DS was seen here.
func (t Timing) ilastUnseen() wait {
	return wait{"IlastUnseen", "Ilast = DprpP + TTLds", []named{{"DprpP", t.parentMargin()}, t.ttlUnseen()}}
}

// since is the wait that counts from a time, as events keep it. Inputs and
// sum are whole seconds, rounded up.
func (t Timing) since(w wait, from time.Time) *event.Wait {
	out := &event.Wait{Formula: w.formula}
	for _, term := range w.terms {
		n := roundUp(term.Value)
		out.Inputs = append(out.Inputs, event.WaitInput{Name: term.name, Seconds: n, Source: term.Source})
		out.Seconds += n
	}
	if t.cut == w.name {
		out.Seconds = 0
	}
	at := from.Unix()
	if from.Nanosecond() > 0 {
		at++
	}
	out.Earliest = at + int64(out.Seconds) //nolint:gosec // durations of at most a few years
	return out
}

func roundUp(d time.Duration) uint64 {
	return uint64(max(0, (d+time.Second-1)/time.Second)) //nolint:gosec // not negative
}

// WaitText tells a wait in words: what it adds up from.
func WaitText(w *event.Wait) string {
	terms := make([]string, 0, len(w.Inputs))
	for _, in := range w.Inputs {
		d := time.Duration(in.Seconds) * time.Second //nolint:gosec // a few years
		terms = append(terms, fmt.Sprintf("%s %s (%s)", in.Name, d, in.Source))
	}
	return w.Formula + ": " + strings.Join(terms, "; ")
}
