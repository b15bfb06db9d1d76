package pipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

const (
	// maxNotifying bounds the NOTIFY exchanges under way with one secondary.
	maxNotifying = 8
	// notifyTries is how often a secondary is told of one version, each time
	// over UDP and TCP.
	notifyTries = 12
)

// AllowsNotify says whether a peer may send NOTIFY for a zone: the servers of
// its source may, with the TSIG key that the source names for them, and whom
// the policy allows. It is made for xfr.Config.
func (e *Engine) AllowsNotify(name zone.Name, peer xfr.Peer) error {
	r, err := e.find(name.String())
	if err != nil {
		return xfr.ErrUnknownZone
	}
	s := r.snapshot()
	servers, err := ParseSource(s.Source)
	if err != nil {
		return err
	}
	from := peer.Addr.Addr().Unmap().WithZone("")
	for _, ep := range servers {
		if ep.Addr.Addr() == from && (ep.Key == "" || ep.Key == peer.Key) {
			return nil
		}
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return err
	}
	if p.AllowNotifyFrom().Allows(peer) {
		return nil
	}
	return xfr.ErrNotAllowed
}

// Notified takes a NOTIFY from a peer that is allowed to send it: the zone is
// asked for now. A serial that is no news asks for nothing. It is made for
// xfr.Config.
func (e *Engine) Notified(name zone.Name, serial *zone.Serial, _ xfr.Peer) {
	r, err := e.find(name.String())
	if err != nil {
		return // removed since it was allowed
	}
	if r.e.owns(RoleLoad, r.id) {
		r.notified(serial)
		return
	}
	q := question{Do: askNotified}
	if serial != nil {
		q.Serial = new(uint32(*serial))
	}
	r.mu.Lock()
	news := r.isNews(serial)
	r.mu.Unlock()
	if news {
		e.start(func(ctx context.Context) {
			if _, err := r.owner(ctx, RoleLoad, q); err != nil && ctx.Err() == nil {
				e.log.WarnContext(ctx, "NOTIFY not handed on", "zone", name.String(), "error", err)
			}
		})
	}
}

// isNews reports whether a serial that a server told may be newer than what is
// loaded. The caller holds mu.
func (r *runner) isNews(serial *zone.Serial) bool {
	s := r.state
	known := s.Loaded != nil && s.Loaded.Broken == "" && s.Loaded.Facts.Source == s.Source && IsTransfer(s.Source)
	return serial == nil || !known || zone.Serial(s.Loaded.Facts.Serial).Before(*serial)
}

// notified takes up that a server of the source has news.
func (r *runner) notified(serial *zone.Serial) {
	r.mu.Lock()
	if serial != nil {
		if !r.isNews(serial) {
			r.mu.Unlock()
			return
		}
		r.up.hint = *serial
	}
	held, pausing := r.state.Held != nil, r.pauseNotify()
	r.mu.Unlock()
	if held {
		return // the source is read in full once the zone is released
	}
	if pausing {
		r.step()
		return
	}
	r.askReload(false)
}

// pauseNotify puts off what a NOTIFY asks for while loads fail, and reports
// whether it did: a second after the first failure, then longer and longer. A
// server whose zone cannot be taken would else decide how often the same is
// tried, and how many failures the journal holds. The caller holds mu.
func (r *runner) pauseNotify() bool {
	lane := &r.lanes[ContentLane]
	if lane.failure == nil {
		return false
	}
	again := lane.failedAt.Add(min(time.Second<<min(lane.tries-1, 12), time.Hour))
	if !r.e.clock.Now().Before(again) {
		return false
	}
	if again.Before(lane.RetryAt) {
		lane.RetryAt = again
	}
	if again.Before(r.up.next) {
		r.up.next = again
	}
	return true
}

// SecondaryStatus is what a secondary that is told of new versions said.
type SecondaryStatus struct {
	Server string `json:"server"`
	// Name is that of the NS record that it is told for; "" where the policy
	// names it. Where its address is not known, Server is the name.
	Name string `json:"name,omitempty"`
	// Serial is the newest that it acknowledged, at AckedAt.
	Serial  *uint32    `json:"serial,omitempty"`
	AckedAt *time.Time `json:"acked_at,omitempty"`
	// Telling is the serial that it is being told of; RetryAt when it is told
	// again.
	Telling   *uint32    `json:"telling,omitempty"`
	Tries     int        `json:"tries,omitempty"`
	RetryAt   *time.Time `json:"retry_at,omitempty"`
	LastError string     `json:"last_error,omitempty"`
}

// outbound is whom a zone's versions are announced to.
type outbound struct {
	told map[string]*SecondaryStatus // by server
	stop context.CancelFunc          // ends the present announcement; nil for none
}

// announce tells the secondaries of what is published, in place of what they
// are being told.
func (r *runner) announce() {
	if !r.e.running() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.out.stop != nil {
		r.out.stop()
		r.out.stop = nil
	}
	p, err := r.e.boundPolicy(r.state)
	if err != nil || r.state.Removed != 0 || r.state.Published == nil || !r.e.owns(RolePublish, r.id) {
		return
	}
	now := map[string]*SecondaryStatus{}
	for _, ep := range p.NotifyTo() {
		server := ep.String()
		st := r.out.told[server]
		if st == nil {
			st = &SecondaryStatus{Server: server}
		}
		st.Name = ""
		now[server] = st
	}
	if p.NotifiesNS() {
		for server, st := range r.out.told {
			if _, ok := now[server]; !ok && st.Name != "" {
				now[server] = st
			}
		}
	}
	r.out.told = now
	if len(p.NotifyTo()) == 0 && !p.NotifiesNS() {
		return
	}
	ctx, stop := context.WithCancel(r.e.context())
	r.out.stop = stop
	for _, ep := range p.NotifyTo() {
		r.tell(ctx, ep, 1)
	}
	if p.NotifiesNS() {
		r.announceNS(ctx)
	}
}

// tell announces what is published to one secondary, when its turn comes, and
// again until it acknowledges it.
func (r *runner) tell(ctx context.Context, ep xfr.Endpoint, try int) {
	r.e.notifying.add(r.e, ep.String(), func(context.Context) { r.tellNow(ctx, ep, try) })
}

func (r *runner) tellNow(ctx context.Context, ep xfr.Endpoint, try int) {
	if ctx.Err() != nil {
		return
	}
	serial, err := r.tellOnce(ctx, ep)
	if ctx.Err() != nil || errors.Is(err, store.ErrNoInstance) || errors.Is(err, xfr.ErrUnknownZone) {
		return
	}
	now := r.e.clock.Now()
	again := now.Add(min(15*time.Second<<(try-1), time.Hour))
	r.mu.Lock()
	st, ok := r.out.told[ep.String()]
	if !ok {
		r.mu.Unlock()
		return
	}
	if err == nil {
		*st = SecondaryStatus{Server: st.Server, Name: st.Name, Serial: &serial, AckedAt: &now}
	} else {
		st.Telling, st.Tries, st.RetryAt, st.LastError = &serial, try, &again, reasonOf(err)
		if try == notifyTries {
			st.RetryAt = nil
		}
	}
	name := r.state.Name
	r.mu.Unlock()
	if err == nil {
		return
	}
	r.e.log.WarnContext(ctx, "secondary not told", "zone", name, "server", ep.String(), "serial", serial, "try", try, "error", err)
	if try < notifyTries {
		r.e.later(ctx, again, func() { r.tell(ctx, ep, try+1) })
	}
}

// later calls fn at a time unless ctx has ended by then.
func (e *Engine) later(ctx context.Context, at time.Time, fn func()) {
	context.AfterFunc(ctx, e.clock.AfterFunc(at, fn))
}

// tellOnce sends one NOTIFY with the SOA that is served.
func (r *runner) tellOnce(ctx context.Context, ep xfr.Endpoint) (uint32, error) {
	v, err := r.e.store.Published(r.id)
	if err != nil {
		return 0, err
	}
	apex, serial := v.Apex(), v.Serial()
	_, soa := v.SOA()
	soa = slices.Clone(soa)
	if err := v.Close(); err != nil {
		return 0, r.e.note(err)
	}
	return uint32(serial), r.e.client.Notify(ctx, ep, apex, soa)
}

// secondaries lists what the secondaries said. The caller holds mu.
func (r *runner) secondaries() []SecondaryStatus {
	var out []SecondaryStatus
	for _, st := range r.out.told {
		out = append(out, *st)
	}
	slices.SortFunc(out, bySecondary)
	return out
}

// NotifySecondaries tells the secondaries of a zone again what is published.
// It returns at once; the zone's status says what they answered. Errors:
// ErrNotFound, ErrState (nothing is published, or there is nobody to tell).
func (e *Engine) NotifySecondaries(ctx context.Context, name string) error {
	r, err := e.find(name)
	if err != nil {
		return err
	}
	s := r.snapshot()
	p, err := e.boundPolicy(s)
	if err != nil {
		return err
	}
	switch {
	case s.Published == nil:
		return errorState("zone %s is not published yet", s.Name)
	case len(p.NotifyTo()) == 0 && !p.NotifiesNS():
		return errorState("policy %s names nobody in server.outbound.send-notify-to, and notify-ns is false", p.Name)
	}
	return r.ask(ctx, RolePublish, question{Do: askNotify}, r.announce)
}
