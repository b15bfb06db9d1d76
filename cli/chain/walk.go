package chain

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/keymgr/validate"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// Config is how a name is checked. At zero each field has its default.
type Config struct {
	// Anchors are what is trusted; nil are those of the root zone.
	Anchors []observe.Anchor
	// Roots are where the way down begins: servers of the root zone, or of the
	// zone that an anchor is of. Nil are the root's name servers.
	Roots []netip.AddrPort
	// Port is that of the servers found on the way; 0 is that of Roots, else 53.
	Port uint16
	// Resolver, where it is valid, is asked everything instead of the servers.
	Resolver netip.AddrPort
	// Now is the time at which signatures must be valid.
	Now time.Time
	// Timeout is how long an answer may take; 0 means 2 s.
	Timeout time.Duration
	// Limit is how long all may take; 0 means 60 s.
	Limit time.Duration
	// Dial opens connections; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// ErrNoAnchor reports that no trust anchor is at or above a name.
var ErrNoAnchor = errors.New("no trust anchor is at or above the name")

const dnsPort = 53

// walk is one check.
type walk struct {
	cfg    Config
	port   uint16
	ask    *asker
	hosts  hosts
	first  []*server
	start  zone.Name
	anchor zone.Name // that the chain to the name begins at

	mu    sync.Mutex
	known map[zone.Name][]*server // guarded by mu; servers of zones on the way
	zones []*zoneLink             // on the way so far, those of aliases too
}

// zoneLink is a zone on the way.
type zoneLink struct {
	apex    zone.Name
	above   *zoneLink
	servers []*server
	parent  []zone.Name    // the name servers that the parent names
	keys    []validate.Key // that validate it; nil where nothing does
	ds      [][]byte       // at the parent
	out     Link
}

// Check follows the chain of trust to a name and asks for RRsets there; without
// types for A and AAAA. It fails where there is nothing to trust; what it finds
// wrong stands in the report.
func Check(ctx context.Context, cfg Config, name zone.Name, types []zone.Type) (*Report, error) {
	name = name.Fold()
	w := newWalk(cfg)
	if err := w.anchorFor(name); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Limit)
	defer cancel()
	r := &Report{Name: name.String(), Time: cfg.Now.UTC().Truncate(time.Second), Anchors: w.anchorTexts()}
	for _, t := range types {
		r.Types = append(r.Types, t.String())
	}
	if len(types) == 0 {
		types = []zone.Type{zone.TypeA, zone.TypeAAAA}
	}
	w.follow(ctx, r, name, types)
	var over bool
	if r.Questions, over = w.ask.spent(); over || ctx.Err() != nil {
		why := fmt.Sprintf("the check stopped after %d questions", r.Questions)
		if ctx.Err() != nil {
			why = fmt.Sprintf("the check's time of %s was up", w.cfg.Limit)
		}
		w.zones[len(w.zones)-1].say(CodeNotAsked, why)
	}
	for _, z := range w.zones {
		r.Links = append(r.Links, z.out)
	}
	r.conclude()
	return r, nil
}

func newWalk(cfg Config) *walk {
	if cfg.Anchors == nil {
		cfg.Anchors = observe.RootAnchors()
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 2 * time.Second
	}
	if cfg.Limit <= 0 {
		cfg.Limit = time.Minute
	}
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	w := &walk{cfg: cfg, port: cfg.Port, start: zone.Root, known: map[zone.Name][]*server{}}
	if w.port == 0 {
		w.port = dnsPort
		if len(cfg.Roots) > 0 {
			w.port = cfg.Roots[0].Port()
		}
	}
	w.hosts.known = map[zone.Name]*host{}
	w.ask = &asker{dial: cfg.Dial, timeout: cfg.Timeout, recurse: cfg.Resolver.IsValid(), places: make(chan struct{}, maxAtATime)}
	w.first = w.firstServers()
	return w
}

// anchorFor finds the anchor nearest to a name.
func (w *walk) anchorFor(name zone.Name) error {
	w.anchor = ""
	for _, a := range w.cfg.Anchors {
		if name.Under(a.Zone()) && len(a.Zone()) > len(w.anchor) {
			w.anchor = a.Zone()
		}
	}
	if w.anchor == "" {
		return fmt.Errorf("%s: %w", name, ErrNoAnchor)
	}
	return nil
}

func (w *walk) anchorTexts() (out []string) {
	for _, a := range w.cfg.Anchors {
		if a.Zone() == w.anchor {
			out = append(out, a.String())
		}
	}
	return out
}

// follow goes to a name, and on where it is an alias.
func (w *walk) follow(ctx context.Context, r *Report, name zone.Name, types []zone.Type) {
	first, seen := name, []zone.Name{name}
	for {
		z := w.descend(ctx, name)
		if z.out.Verdict == Bogus || z.out.Verdict == Unreachable {
			z.troubles(true)
			return
		}
		target, absent := w.examine(ctx, r, z, name, types)
		if absent && name.Equal(first) {
			r.Absent = true
		}
		if target == "" {
			return
		}
		if slices.Contains(seen, target) || len(seen) > maxAliases {
			z.say(CodeAliasLoop, fmt.Sprintf("the aliases of %s lead in a circle or go on for more than %d steps", first, maxAliases))
			z.out.Verdict = Bogus
			return
		}
		seen = append(seen, target)
		if name = target; w.anchorFor(name) != nil {
			return
		}
	}
}

// descend follows the delegations to the zone that a name is in, and stops
// where the chain breaks.
func (w *walk) descend(ctx context.Context, name zone.Name) *zoneLink {
	at := w.zoneAt(w.start)
	if at == nil || !name.Under(at.apex) {
		at = w.begin(ctx)
	}
	for range maxDelegations {
		if at.out.Verdict == Bogus || at.out.Verdict == Unreachable {
			return at
		}
		d, found := w.findCut(ctx, at, name)
		if !found {
			return at
		}
		next := w.zoneAt(d.apex)
		if next == nil {
			next = w.enter(ctx, at, d)
			at.troubles(false)
		}
		at = next
	}
	return at
}

// zoneAt is the link of a zone that the walk came by.
func (w *walk) zoneAt(apex zone.Name) *zoneLink {
	for _, z := range w.zones {
		if z.apex == apex {
			return z
		}
	}
	return nil
}

// begin makes the first link.
func (w *walk) begin(ctx context.Context) *zoneLink {
	if w.anchor != zone.Root && (len(w.cfg.Roots) > 0 || w.cfg.Resolver.IsValid()) {
		r := w.anyOf(ctx, w.first, question{name: w.anchor, t: zone.TypeSOA})
		if r != nil && r.lame(w.anchor) == nil && r.of(w.anchor, zone.TypeSOA) != nil {
			w.start = w.anchor
		}
	}
	z := &zoneLink{apex: w.start, servers: w.first, out: Link{Zone: w.start.String(), Verdict: Indeterminate}}
	w.zones = append(w.zones, z)
	if z.apex == w.anchor {
		w.keyed(ctx, z, w.anchorTrust())
	} else {
		z.out.AboveAnchor = true
		w.present(ctx, z)
	}
	return z
}

// anchorTrust trusts what the anchors stand for.
func (w *walk) anchorTrust() trust {
	return trust{
		anchors: w.anchorTexts(),
		by: func(k validate.Key) bool {
			return slices.ContainsFunc(w.cfg.Anchors, func(a observe.Anchor) bool { return a.Zone() == w.anchor && a.Trusts(k) })
		},
	}
}

// enter follows a delegation: from the DS at the parent to the zone's keys.
func (w *walk) enter(ctx context.Context, up *zoneLink, d delegation) *zoneLink {
	z := &zoneLink{apex: d.apex, above: up, parent: d.names, out: Link{Zone: d.apex.String(), Verdict: up.out.Verdict}}
	w.zones = append(w.zones, z)
	var without []zone.Name
	var work sync.WaitGroup
	work.Go(func() { z.servers, without = w.servers(ctx, d, 0) })
	var by trust
	secure := false
	if up.keys != nil {
		by, secure = w.delegated(ctx, up, z)
	}
	work.Wait()
	w.mu.Lock()
	w.known[z.apex] = z.servers
	w.mu.Unlock()
	for _, name := range without {
		z.say(CodeServerNoAddress, fmt.Sprintf("the name server %s of %s has no address", name, z.apex))
	}
	switch {
	case z.out.Verdict == Bogus:
	case z.apex == w.anchor:
		w.keyed(ctx, z, w.anchorTrust())
	case secure:
		w.keyed(ctx, z, by)
	default:
		z.out.AboveAnchor = w.anchor.Under(z.apex)
		w.present(ctx, z)
	}
	return z
}

// findCut finds the next delegation on the way from a zone to a name.
func (w *walk) findCut(ctx context.Context, at *zoneLink, name zone.Name) (d delegation, found bool) {
	var denied zone.Name // said not to exist
	for n := at.apex.Labels() + 1; n <= name.Labels(); n++ {
		next := name
		for next.Labels() > n {
			next = next.Parent()
		}
		r := w.well(ctx, at, question{name: next, t: zone.TypeSOA})
		if r == nil {
			return d, false
		}
		if set := r.referral(at.apex); set != nil && name.Under(set.Owner) {
			if denied != "" {
				at.say(CodeDenialRcode, fmt.Sprintf("servers of %s answer NXDOMAIN about %s, and names below it exist", at.apex, denied))
			}
			return delegationOf(set, r.extras, at.apex), true
		}
		if r.of(next, zone.TypeSOA) != nil {
			// The server has the zone below too.
			if ns := w.well(ctx, at, question{name: next, t: zone.TypeNS}); ns != nil {
				if set := ns.of(next, zone.TypeNS); set != nil {
					return delegationOf(set, ns.extras, at.apex), true
				}
			}
			return d, false
		}
		if r.nxdomain() {
			if denied != "" {
				return d, false
			}
			denied, n = next, max(n, name.Labels()-1)
		}
	}
	return d, false
}

// well is the first answer of a zone's servers that is one of the zone's, or a
// referral.
func (w *walk) well(ctx context.Context, at *zoneLink, q question) *reply {
	for _, s := range at.servers {
		r := w.ask.ask(ctx, s, q)
		if r.problem == nil && (r.referral(at.apex) != nil || r.lame(at.apex) == nil) {
			return r
		}
		if ctx.Err() != nil {
			return nil
		}
	}
	return nil
}

// each asks all servers of a zone at the same time.
func (w *walk) each(z *zoneLink, fn func(i int, s *server)) {
	var work sync.WaitGroup
	for i, s := range z.servers {
		work.Go(func() { fn(i, s) })
	}
	work.Wait()
	w.ask.excuse(z.servers)
}

// noWayDown is what to do where not even the first servers can be asked.
const noWayDown = "see that this machine may ask servers on port 53, and that nothing on the way answers in their place; else ask a resolver that works here: --resolver IP"

// noWayThere is what to do where this machine has no way to the servers of a
// zone further down.
const noWayThere = "ask from a machine that has a way to them, such as IPv6, or a resolver that has: --resolver IP"

// conclude says in a sentence what came out.
func (r *Report) conclude() {
	r.Verdict = Secure
	order := []Verdict{Secure, Insecure, Indeterminate, Unreachable, Bogus}
	for i := range r.Links {
		l := &r.Links[i]
		if !l.AboveAnchor && slices.Index(order, l.Verdict) > slices.Index(order, r.Verdict) {
			r.Verdict = l.Verdict
		}
	}
	open := r.unvalidated()
	if r.Verdict == Secure && open != "" {
		r.Verdict = Insecure
	}
	worst := r.Worst()
	r.Healthy = worst == nil && r.Verdict != Bogus && r.Verdict != Unreachable
	last := r.Links[len(r.Links)-1].Zone
	unsigned := ""
	for _, l := range r.Links {
		if l.Verdict == Insecure {
			unsigned = l.Zone
			break
		}
	}
	switch {
	case r.Verdict == Bogus && worst != nil, r.Verdict == Unreachable && worst != nil:
		r.Summary, r.Do = fmt.Sprintf("the chain of trust breaks at %s: %s", strings.TrimSuffix(orRoot(worst.Zone), "."), worst.Text), worst.Do
		if r.Verdict == Unreachable {
			r.Summary = fmt.Sprintf("no server of %s answers as it must: %s", orRoot(last), worst.Text)
			if len(r.Links) == 1 {
				r.Do = noWayDown
			}
		}
	case r.Verdict == Unreachable:
		r.Summary, r.Do = fmt.Sprintf("no server of %s could be asked", orRoot(last)), noWayDown
		if f := r.Links[len(r.Links)-1].finding(CodeServerUnreachable); f != nil && len(r.Links) > 1 {
			r.Summary, r.Do = r.Summary+": "+f.Text, noWayThere
		}
	case r.Verdict == Indeterminate:
		r.Summary = fmt.Sprintf("no trust anchor is at or above %s", orRoot(last))
	case worst != nil:
		r.Summary, r.Do = fmt.Sprintf("%s is %s, with a fault: %s", r.Name, r.Verdict, worst.Text), worst.Do
	case r.Verdict == Insecure && unsigned == "" && r.Absent:
		r.Summary = fmt.Sprintf("%s does not exist, and validators do not count that as proven: %s", r.Name, open)
	case r.Verdict == Insecure && unsigned == "":
		r.Summary = fmt.Sprintf("validators do not count what is answered about %s as proven: %s", r.Name, open)
	case r.Verdict == Insecure:
		r.Summary = fmt.Sprintf("%s is not signed, and that is proven: from %s down nothing is validated", r.Name, orRoot(unsigned))
	case r.Absent:
		r.Summary = fmt.Sprintf("%s does not exist, and that is proven", r.Name)
	default:
		r.Summary = fmt.Sprintf("%s is secure: all is signed and valid from %s down", r.Name, orRoot(r.Links[0].Zone))
	}
}

// unvalidated says why none of the answers is validated, though all is well;
// empty where one is.
func (r *Report) unvalidated() (why string) {
	for _, l := range r.Links {
		for _, a := range l.Answers {
			if a.open == "" {
				return ""
			}
			why = a.open
		}
	}
	return why
}

// finding is the first one of a link with that code; nil where there is none.
func (l *Link) finding(code Code) *Finding {
	if i := slices.IndexFunc(l.Findings, func(f Finding) bool { return f.Code == code }); i >= 0 {
		return &l.Findings[i]
	}
	return nil
}

func orRoot(name string) string {
	if name == "." {
		return "the root"
	}
	return name
}
