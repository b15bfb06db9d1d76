package pipeline

import (
	"errors"

	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

// Source is what the publication listeners serve.
func (e *Engine) Source() xfr.Source { return published{e} }

// published serves the instances that instance.published events name.
type published struct{ e *Engine }

// served is the runner of a zone that listeners may serve.
func (e *Engine) served(name zone.Name) (*runner, error) {
	if !e.mayServe() {
		return nil, xfr.ErrNotReady
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	id, ok := e.names[name.Fold().String()]
	if !ok {
		return nil, xfr.ErrUnknownZone
	}
	return e.runners[id], nil
}

// View implements xfr.Source.
func (p published) View(name zone.Name) (xfr.View, error) {
	r, err := p.e.served(name)
	if err != nil {
		return nil, err
	}
	policy, err := p.e.boundPolicy(r.snapshot())
	if err != nil {
		return nil, err
	}
	if policy.StopsOnExpire() && r.hasExpired(policy) {
		return nil, xfr.ErrNotReady
	}
	v, err := p.e.store.Published(r.id)
	if errors.Is(err, store.ErrNoInstance) {
		return nil, xfr.ErrNotReady
	}
	if err != nil {
		return nil, p.e.note(err)
	}
	if err := r.checkStale(v); err != nil {
		return nil, errors.Join(err, v.Close())
	}
	return &publishedView{View: v, zone: r, allowed: policy.ProvideXFRTo(), whole: policy.AXFROnlyTo()}, nil
}

// publishedView adds the policy's access lists to a stored view.
type publishedView struct {
	*store.View
	zone           *runner
	allowed, whole xfr.Prefixes
}

// AXFROnly implements xfr.AXFROnly.
func (v *publishedView) AXFROnly(peer xfr.Peer) bool { return v.whole.Allows(peer) }

// Allows implements xfr.View.
func (v *publishedView) Allows(peer xfr.Peer) bool { return v.allowed.Allows(peer) }
