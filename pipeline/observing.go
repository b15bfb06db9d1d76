package pipeline

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

const (
	// maxLooking bounds the zones that are observed at a time.
	maxLooking = 32
	// firstLook is within what time after a start, or after it is published, a
	// zone is observed first; of very many zones each adds firstPace, so that a
	// start is not followed by minutes of nothing else.
	firstLook = 10 * time.Minute
	firstPace = 40 * time.Millisecond
	// lookAgain is after what time a zone is observed again where a server did
	// not answer; doubled each time up to the interval.
	lookAgain = time.Minute
)

// sight is what this process knows of what the world sees of a zone. It is
// asked for anew after a restart.
type sight struct {
	busy  bool
	asked uint64 // observations begun
	seen  uint64 // the newest one that ended
	// serial and served are what was published when last was asked: its serial,
	// and the RDATA of its DNSKEY RRset.
	serial uint32
	served [][]byte
	Sightings
}

// Sightings is what was seen of a zone, as far as later observations and
// decisions need it. The zero value has seen nothing.
type Sightings struct {
	next  time.Time
	ended time.Time // when the last one did
	tries int       // observations in a row in which a server did not answer
	last  *keymgr.Observation
	// keyTTLs and dsTTLs are the TTLs of the DNSKEY and DS RRsets that caches
	// may hold.
	keyTTLs, dsTTLs keymgr.TTLs
}

// Last is what was seen last, nil before; it is not to be changed.
func (l *Sightings) Last() *keymgr.Observation { return l.last }

// First plans the first look after a start, each of so many zones at a place of
// its own.
func (l *Sightings) First(id event.ZoneID, zones int, now time.Time, every time.Duration) {
	l.next = now.Add(spread(id, min(every, max(firstLook, time.Duration(zones)*firstPace))))
}

// Due is when the next look is, where a rollover wants one at a time; zero
// where none does.
func (l *Sightings) Due(wanted time.Time) time.Time {
	if least := l.ended.Add(leastLook); !wanted.IsZero() && wanted.Before(least) {
		wanted = least
	}
	if !wanted.IsZero() && wanted.Before(l.next) {
		l.next = wanted
	}
	return l.next
}

// observed starts an observation that is due and says when the next one is;
// zero for never. wanted is when a rollover wants one; zero where none does.
// The caller holds mu.
func (r *runner) observed(wanted time.Time) time.Time {
	l := &r.sight
	p, err := r.e.boundPolicy(r.state)
	if err != nil || r.e.cfg.Observe == nil || !r.e.owns(RoleKeys, r.id) || r.state.Published == nil || r.state.Removed != 0 || r.state.Halted != nil {
		l.next = time.Time{}
		return time.Time{}
	}
	now := r.e.clock.Now()
	every := p.ObservationInterval()
	if _, ok := r.e.catalogOf(r.id); ok {
		every = 0 // the world sees no catalog
	}
	switch {
	case every == 0:
		l.next = time.Time{}
		return time.Time{}
	case l.next.IsZero() || l.next.Sub(now) > every:
		l.First(r.id, r.e.liveZones(), now, every)
	}
	l.Due(wanted)
	if !l.busy && !now.Before(l.next) {
		// What other zones learned of a server that does not answer holds for this
		// one, also in the pace of a rollover.
		r.look(false)
	}
	if l.busy {
		return time.Time{} // its end decides again
	}
	return l.next
}

// liveZones counts the zones that live.
func (e *Engine) liveZones() int {
	_, zones := e.Folded()
	return zones
}

// spread is a zone's own place in a stretch of time.
func spread(id event.ZoneID, within time.Duration) time.Duration {
	h := fnv.New64a()
	h.Write([]byte(id))
	return time.Duration(h.Sum64() % uint64(max(within, 1)))
}

// look starts an observation, and gives its number. One that somebody asks for
// (fresh) waits for no other zone's. The caller holds mu.
func (r *runner) look(fresh bool) uint64 {
	l := &r.sight
	l.asked++
	n := l.asked
	work := func(ctx context.Context) { r.lookNow(ctx, n, fresh) }
	if fresh {
		l.busy = r.e.start(work)
	} else {
		l.busy = r.e.looking.add(r.e, "", work)
	}
	return n
}

// lookNow observes the zone, takes note of what was seen, and decides again.
func (r *runner) lookNow(ctx context.Context, n uint64, fresh bool) {
	obs, asked, err := r.observation(ctx, fresh)
	if err == nil {
		err = r.tellDS(ctx, obs)
	}
	if err != nil && ctx.Err() == nil {
		r.e.log.WarnContext(ctx, "zone not observed", "zone", r.snapshot().Name, "error", err)
	}
	r.mu.Lock()
	r.sight.busy = r.sight.asked != n
	r.sight.seen = max(r.sight.seen, n)
	if err == nil {
		obs.Note(r.sight.last, r.state.Keys.InState(keymgr.Published), r.e.clock.Now())
		r.sight.Saw(obs, r.state.Keys.DS.Before)
		r.sight.serial, r.sight.served = asked.serial, asked.served
	}
	p, perr := r.e.boundPolicy(r.state)
	if perr == nil {
		r.sight.End(r.e.clock.Now(), p.ObservationInterval(), err != nil)
	}
	r.notify()
	r.mu.Unlock()
	r.step()
}

// End notes that an observation ended, and plans the next one: after every at
// the latest, zero is never; sooner where it failed or a server did not answer.
func (l *Sightings) End(now time.Time, every time.Duration, failed bool) {
	l.ended = now
	if l.last != nil {
		failed = failed || len(keymgr.Failed(l.last.Zone, false)) > 0 || len(keymgr.Failed(l.last.Parent, false)) > 0
	}
	switch {
	case every == 0:
		l.next = time.Time{}
	case !failed:
		l.tries = 0
		l.next = now.Add(every)
	default:
		l.tries++
		l.next = now.Add(min(lookAgain<<min(l.tries-1, 10), every))
	}
}

// observation asks all servers of the zone and of its parent.
func (r *runner) observation(ctx context.Context, fresh bool) (obs keymgr.Observation, asked inquiry, err error) {
	s := r.snapshot()
	p, err := r.e.boundPolicy(s)
	if err != nil {
		return obs, asked, err
	}
	if asked, err = r.inquire(s, p); err != nil {
		return obs, asked, err
	}
	asked.Fresh = fresh
	obs = r.e.cfg.Observe(ctx, asked.Question)
	nameKeys(&obs, asked.Zone, s.Keys.Keys)
	return obs, asked, ctx.Err()
}

// inquiry is whom to ask about a zone, and what; and what is published then.
type inquiry struct {
	observe.Question
	serial uint32
	served [][]byte // RDATA of the DNSKEY RRset
}

// nameKeys says of which key each DS is.
func nameKeys(obs *keymgr.Observation, apex zone.Name, keys []keymgr.Key) {
	for i := range obs.Parent {
		for j := range obs.Parent[i].DS {
			ds := &obs.Parent[i].DS[j]
			ds.Key = keymgr.DSKey(apex, *ds, keys)
		}
	}
}

// inquire reads what is published for an inquiry.
func (r *runner) inquire(s State, p Policy) (q inquiry, err error) {
	v, err := r.e.store.Published(s.Zone)
	if err != nil {
		if errors.Is(err, store.ErrNoInstance) || errors.Is(err, xfr.ErrNotReady) {
			err = errors.New("nothing is published")
		}
		return q, r.e.note(err)
	}
	defer func() { err = errors.Join(err, r.e.note(v.Close())) }()
	q.Question = observe.Question{
		Zone: v.Apex().Fold(), Parent: observe.At(p.ParentNameServers()), Servers: observe.At(p.PublicNameServers()), Now: r.e.clock.Now(),
	}
	q.serial = uint32(v.Serial())
	if q.served, err = keysOf(v); err != nil {
		return q, err
	}
	if len(q.Servers) == 0 {
		if q.Servers, err = publicServers(v); err != nil {
			return q, err
		}
	}
	q.Samples, err = samplesOf(v)
	return q, err
}

// publicServers are the servers of the published NS RRset. Addresses come from
// the zone itself where it has them.
func publicServers(v *store.View) ([]observe.Server, error) {
	value, err := v.Get(zone.AppendKey(nil, zone.KindContents, v.Apex(), zone.TypeNS))
	if err != nil {
		return nil, err
	}
	var names []zone.Name
	for data := range recordsOf(value) {
		if name := firstName(data).Fold(); name != "" && !slices.Contains(names, name) && len(names) < maxNameServers {
			names = append(names, name)
		}
	}
	out := make([]observe.Server, 0, len(names))
	for _, name := range names {
		addrs, err := addressesIn(v, name)
		if err != nil {
			return nil, err
		}
		s := observe.Server{Name: name.String()}
		for _, a := range addrs[:min(len(addrs), maxAddresses)] {
			s.Addresses = append(s.Addresses, netip.AddrPortFrom(a, nsPort))
		}
		out = append(out, s)
	}
	return out, nil
}

// samples is how many signed RRsets are looked at beside those of the apex.
const samples = 6

// samplesOf picks signed RRsets: ones that changed last, and ones that stand
// apart in canonical order, always the same for the same zone.
func samplesOf(v *store.View) (out []observe.Sample, err error) {
	add := func(key []byte) error {
		_, owner, t, err := zone.SplitKey(key)
		if err != nil {
			return err
		}
		name, err := zone.NameOfKey(owner)
		if err != nil {
			return err
		}
		sample := observe.Sample{Owner: name, Type: t}
		// A server may answer for the NSEC of a cut with a referral.
		if t != zone.TypeNSEC && t != zone.TypeSOA && t != zone.TypeDNSKEY && !slices.Contains(out, sample) {
			out = append(out, sample)
		}
		return nil
	}
	if err := changedLast(v, add); err != nil {
		return nil, err
	}
	a := v.Access()
	defer func() { err = errors.Join(err, a.Close()) }()
	prefix := append([]byte{byte(zone.KindSigs)}, zone.AppendOwnerPrefix(nil, v.Apex())...)
	const letters = "5bfkpt"
	for i := range len(letters) {
		if len(out) >= samples {
			break
		}
		it := a.Walk(append(slices.Clone(prefix), letters[i]))
		for range 3 { // past an NSEC
			if !it.Next() {
				break
			}
			before := len(out)
			if err := add(it.Key()); err != nil {
				return nil, err
			}
			if len(out) > before {
				break
			}
		}
		if err := it.Err(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// changedLast calls fn for up to half of the samples that the newest version
// brought new signatures of.
func changedLast(v *store.View, fn func(key []byte) error) error {
	step, ok := v.LastDiff()
	if !ok {
		return nil
	}
	it, err := step.Added()
	if err != nil {
		return err
	}
	defer it.Close()
	for n := 0; n < samples/2 && it.Next(); {
		if zone.Kind(it.Key()[0]) != zone.KindSigs {
			continue
		}
		n++
		if err := fn(it.Key()); err != nil {
			return err
		}
	}
	return it.Err()
}

// Saw takes note of an observation. before is what the parent handed out
// earlier, by the zone's events.
func (l *Sightings) Saw(obs keymgr.Observation, before []keymgr.PastDS) {
	if l.last == nil {
		// What an earlier run saw stands in the events.
		for _, p := range before {
			l.dsTTLs = l.dsTTLs.See(p.TTL, p.Last)
		}
	}
	was := map[string]keymgr.Seen{}
	if l.last != nil {
		for _, s := range slices.Concat(l.last.Zone, l.last.Parent) {
			was[s.Server+" "+s.Address.String()] = s
		}
	}
	for _, side := range [][]keymgr.Seen{obs.Zone, obs.Parent} {
		for i := range side {
			s := &side[i]
			s.Since = obs.At
			if old, ok := was[s.Server+" "+s.Address.String()]; ok && (old.Error == "") == (s.Error == "") {
				s.Since = old.Since
			}
			if s.KeyTTL > 0 {
				l.keyTTLs = l.keyTTLs.See(s.KeyTTL, obs.At)
			}
			if len(s.DS) > 0 {
				l.dsTTLs = l.dsTTLs.See(s.DSTTL, obs.At)
			}
		}
	}
	obs.KeyTTL, obs.DSTTL = l.keyTTLs.Largest(obs.At), l.dsTTLs.Largest(obs.At)
	l.last = &obs
}

// tellDS appends what the parent has, where that changed.
func (r *runner) tellDS(ctx context.Context, obs keymgr.Observation) error {
	if DSChange(r.snapshot().ParentDS, obs) == nil {
		return nil
	}
	if err := r.takeUp(ctx, RoleKeys); err != nil {
		return err
	}
	return r.e.appendZone(ctx, event.Program, r, func(s State) (event.Facts, error) {
		if f := DSChange(s.ParentDS, obs); f != nil {
			return f, nil
		}
		return nil, nil
	})
}

// Observe asks the zone's public servers and its parent now, and returns when
// all have answered or had their time. Errors: ErrNotFound, ErrState where
// there is nothing to ask about or nobody to ask.
func (e *Engine) Observe(ctx context.Context, name string) (ZoneStatus, error) {
	r, err := e.find(name)
	if err != nil {
		return ZoneStatus{}, err
	}
	switch s := r.snapshot(); {
	case !e.running():
		return ZoneStatus{}, errorState("the journal is still being read")
	case e.cfg.Observe == nil:
		return ZoneStatus{}, errorState("this process does not ask other servers")
	case s.Published == nil:
		return ZoneStatus{}, errorState("zone %s is not published yet", s.Name)
	}
	if !e.owns(RoleKeys, r.id) {
		a, err := r.owner(ctx, RoleKeys, question{Do: askObserve})
		if err != nil {
			return ZoneStatus{}, err
		}
		if a.Status == nil {
			return ZoneStatus{}, errorState("the observation of zone %s takes long; it goes on", name)
		}
		return *a.Status, nil
	}
	if err := r.lookFresh(ctx); err != nil {
		return ZoneStatus{}, err
	}
	return e.Zone(ctx, name)
}

// lookFresh observes the zone now, and waits until that has ended.
func (r *runner) lookFresh(ctx context.Context) error {
	r.mu.Lock()
	n := r.look(true)
	r.mu.Unlock()
	for {
		r.mu.Lock()
		done, changed := r.sight.seen >= n, r.changed
		r.mu.Unlock()
		if done {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-r.e.context().Done():
			return errorState("the daemon stops")
		}
	}
}

// askParent asks the parent's servers alone, now.
func (e *Engine) askParent(ctx context.Context, s State) (keymgr.Observation, error) {
	apex, err := apexOf(s)
	if err != nil {
		return keymgr.Observation{}, err
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return keymgr.Observation{}, err
	}
	obs := e.cfg.Observe(ctx, observe.Question{
		Zone: apex, Parent: observe.At(p.ParentNameServers()), Now: e.clock.Now(), Fresh: true,
	})
	return obs, ctx.Err()
}

// mayHaveDS says why a zone's parent may have a DS for it; "" where it was
// asked and it is proven that it has none. seen says that one was seen.
func (e *Engine) mayHaveDS(ctx context.Context, s State) (why string, seen bool, err error) {
	if e.cfg.Observe == nil {
		return "its parent cannot be asked for a DS", false, nil
	}
	if s.Name == "." {
		return "it is the root, whose keys are trust anchors", false, nil
	}
	obs, err := e.askParent(ctx, s)
	if err != nil {
		return "", false, err
	}
	why, seen = dsDoubt(obs)
	return why, seen, nil
}

// mayGetDS is mayHaveDS, and says also where the parent may add a DS any moment:
// it was told to. That is no matter where nobody can validate one from there.
func (e *Engine) mayGetDS(ctx context.Context, s State) (why string, err error) {
	if e.cfg.Observe == nil || s.Name == "." || !s.Keys.MayGetDS() {
		why, _, err = e.mayHaveDS(ctx, s)
		return why, err
	}
	obs, err := e.askParent(ctx, s)
	if err != nil {
		return "", err
	}
	why, _ = dsDoubt(obs)
	if why == "" && slices.ContainsFunc(obs.Parent, func(at keymgr.Seen) bool { return !at.Insecure }) {
		why = "its parent was told to have a DS, and may add it any moment"
	}
	return why, nil
}

// dsDoubt says why a parent that showed this may have a DS, and whether one was seen.
func dsDoubt(obs keymgr.Observation) (why string, seen bool) {
	for _, at := range obs.Parent {
		if len(at.DS) > 0 {
			return fmt.Sprintf("its parent has a DS (%s shows %s)", serverText(at), dsText(at.DS)), true
		}
	}
	for _, at := range obs.Parent {
		switch {
		case at.Error != "":
			return fmt.Sprintf("its parent could not be asked for a DS (%s: %s)", serverText(at), oneLine(at.Error)), false
		case !at.Validated && !at.Insecure:
			return fmt.Sprintf("that its parent has no DS is not proven (%s: %s)", serverText(at), oneLine(at.Unvalidated)), false
		}
	}
	if len(obs.Parent) == 0 {
		return "no server of its parent is known", false
	}
	return "", false
}
