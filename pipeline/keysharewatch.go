package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/share"
	"sluice/signer/zone"
)

const (
	// lookTime is how often it is looked who lives, and what is lacking here.
	lookTime = time.Second
	// wantPause is how long it takes until what was not got is asked for again.
	wantPause = 10 * time.Second
	// maxWanted bounds what is asked for in one go.
	maxWanted = 256
)

// startSharing begins to take up and to ask for secrets.
func (e *Engine) startSharing() {
	if e.sharing() {
		e.start(e.answerParcels)
		e.start(e.watchShares)
	}
}

// watchShares keeps an eye on who lives, enrolls this process, has zones hand
// out keys, and asks for secrets that are lacking here. It ends with ctx.
func (e *Engine) watchShares(ctx context.Context) {
	tick := time.NewTicker(lookTime)
	defer tick.Stop()
	w := wants{e: e, again: map[string]time.Time{}, tsig: map[string]uint64{}}
	for {
		if err := e.lookAtWorkers(ctx); err != nil && ctx.Err() == nil {
			e.log.DebugContext(ctx, "workers not looked at", "error", err)
		}
		w.look(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lookAtWorkers asks who lives. Where that, or who is to prove keys, has changed,
// all zones decide anew.
func (e *Engine) lookAtWorkers(ctx context.Context) error {
	if err := e.enrollSelf(ctx); err != nil {
		return err
	}
	e.mu.RLock()
	provers := proversOf(e.registry.Workers, e.worker)
	e.mu.RUnlock()
	living := e.duties.names()
	about := fmt.Sprint(living, provers)
	e.shares.mu.Lock()
	same := e.shares.about == about
	e.shares.living, e.shares.about = living, about
	e.shares.mu.Unlock()
	if !same {
		e.stepAll()
	}
	return nil
}

// stepAll has all zones decide anew.
func (e *Engine) stepAll() {
	for _, r := range e.allRunners() {
		r.step()
	}
}

// enrollSelf has the process that nobody enrolls be known to others, once there
// are some.
func (e *Engine) enrollSelf(ctx context.Context) error {
	id := e.cfg.Sharing.Identity
	roles := slices.Sorted(slices.Values(e.cfg.Sharing.Enroll))
	lacking := func() bool {
		own, known := e.registry.Workers[id.Name()]
		others := len(e.registry.Workers)
		if known {
			others--
		}
		return others > 0 && (!known || own.NKey != id.NKey() || own.Age != id.Recipient() || !slices.Equal(own.Roles, roles))
	}
	e.mu.RLock()
	needed := len(roles) > 0 && lacking()
	e.mu.RUnlock()
	if !needed {
		return nil
	}
	already := errors.New("enrolled already")
	err := e.appendInstance(ctx, event.Program, &event.WorkerEnrolled{Name: id.Name(), Roles: roles, NKey: id.NKey(), Age: id.Recipient()}, func() error {
		if !lacking() {
			return already
		}
		return nil
	})
	if errors.Is(err, already) {
		return nil
	}
	return err
}

// wants is what this process lacks and asks for. Only watchShares uses it.
type wants struct {
	e     *Engine
	again map[string]time.Time // what was asked for, and when it may be again
	tsig  map[string]uint64    // TSIG keys that are here, and the events that named them
	swept bool                 // what was deleted while this process did not run has been looked for
}

// look deletes what is to be had no more, and asks for what is lacking.
func (w *wants) look(ctx context.Context) {
	own, ok := w.e.enrolled(w.e.worker)
	if !ok {
		return
	}
	if keepsKeys(own) {
		w.keys(ctx)
	}
	if keepsTSIG(own) && w.e.cfg.TSIG != nil {
		w.secrets(ctx, slices.Contains(own.Roles, workerKeys))
	}
}

// due reports whether something may be asked for now: not at the first look,
// since it may be on its way, and then ever so often.
func (w *wants) due(what string) bool {
	now := machineTime()
	at, known := w.again[what]
	if !known {
		w.again[what] = now.Add(lookTime)
		return false
	}
	if now.Before(at) {
		return false
	}
	w.again[what] = now.Add(wantPause)
	return true
}

// keys asks for the private parts that are lacking here, and deletes those of
// keys that were destroyed.
func (w *wants) keys(ctx context.Context) {
	asked := 0
	for s := range w.e.eachState() {
		for _, k := range s.Keys.Keys {
			switch {
			case k.Foreign || k.Keystore != w.e.keystore.Name() || s.Removed != 0:
			case !k.Destroyed.IsZero():
				w.destroy(ctx, s, k)
			case k.State != keymgr.Removed && !w.e.holdsKey(k.Key) && asked < maxWanted && w.due(k.ID):
				asked++
				c := share.Context{Zone: s.Zone, Name: s.Name, Key: k.ID}
				if err := w.e.want(ctx, "", c); err != nil && ctx.Err() == nil {
					w.e.log.WarnContext(ctx, "private key not got", "zone", s.Name, "key", k.ID, "error", err)
				}
			case k.State != keymgr.Removed && w.e.holdsKey(k.Key):
				delete(w.again, k.ID)
			}
		}
	}
}

// destroy deletes a private part that was deleted elsewhere.
func (w *wants) destroy(ctx context.Context, s State, k keymgr.Key) {
	if !w.e.holdsKey(k.Key) {
		return
	}
	if err := w.e.keystore.Remove(ctx, k.Reference); err != nil && !errors.Is(err, keymgr.ErrNoKey) {
		w.e.log.WarnContext(ctx, "private key not deleted", "zone", s.Name, "key", k.ID, "error", err)
		return
	}
	w.e.lookAgain(k.ID)
	w.e.log.InfoContext(ctx, "private key deleted", "zone", s.Name, "key", k.ID)
}

// secrets asks for the TSIG keys that are lacking here, and for those of other
// workers once after a start: one may have been replaced meanwhile. What the
// journal names no more is deleted; keeper is true where secrets are added.
func (w *wants) secrets(ctx context.Context, keeper bool) {
	w.e.mu.RLock()
	named, origins := w.e.registry.TSIG, w.e.registry.TSIGFrom
	w.e.mu.RUnlock()
	for name := range named {
		from := origins[name]
		n, err := zone.ParseName(name)
		if err != nil {
			continue
		}
		_, _, have := w.e.cfg.TSIG.Secret(n)
		ours := from.Worker == w.e.worker || from.Worker == "" && keeper
		if have && (ours || w.tsig[name] == from.Seq) {
			w.tsig[name] = from.Seq
			continue
		}
		if !w.due("tsig " + name) {
			continue
		}
		whom := from.Worker
		if _, ok := w.e.enrolled(whom); !ok || !have && !slices.Contains(w.e.duties.names(), whom) {
			whom = "" // whoever has it
		}
		if err := w.e.want(ctx, whom, share.Context{Zone: event.Instance, Name: name}); err != nil {
			if ctx.Err() == nil {
				w.e.log.WarnContext(ctx, "TSIG key not got", "name", name, "error", err)
			}
			continue
		}
		w.tsig[name] = from.Seq
		delete(w.again, "tsig "+name)
	}
	for name := range maps.Clone(w.tsig) {
		if _, ok := named[name]; !ok {
			w.forget(ctx, name)
		}
	}
	if w.swept || keeper {
		return
	}
	w.swept = true
	if listed, ok := w.e.cfg.TSIG.(interface{ Names() []zone.Name }); ok {
		for _, n := range listed.Names() {
			if _, ok := named[n.String()]; !ok {
				w.forget(ctx, n.String())
			}
		}
	}
}

// forget deletes a TSIG key that the journal names no more.
func (w *wants) forget(ctx context.Context, name string) {
	n, err := zone.ParseName(name)
	if err != nil {
		return
	}
	w.e.tsig.Lock()
	defer w.e.tsig.Unlock()
	if w.e.knowsTSIG(name) {
		return
	}
	if err := w.e.cfg.TSIG.Remove(n); err != nil {
		w.e.log.WarnContext(ctx, "TSIG key not deleted", "name", name, "error", err)
		return
	}
	delete(w.tsig, name)
	w.e.log.InfoContext(ctx, "TSIG key deleted", "name", name)
}

// names are the workers that lived at the last look, this one among them, sorted.
func (d *duties) names() []string {
	d.mu.Lock()
	st := d.standing
	d.mu.Unlock()
	out := []string{d.e.worker}
	for _, w := range st.Workers {
		out = append(out, w.Worker)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// lacking is the partitions with a zone that this process cannot sign, since
// private parts are not here. Others sign them meanwhile.
func (e *Engine) lacking() []int {
	if !e.sharing() {
		return nil
	}
	var out []int
	for s := range e.eachState() {
		if p := PartitionOf(s.Zone); s.Removed == 0 && !slices.Contains(out, p) && len(e.lacks(s)) > 0 {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// signers are those of the workers that can sign all zones of a partition; where
// none can, all of them.
func signers(st journal.Standing, names []string, partition int) []string {
	var out []string
	for _, w := range workersIn(st) {
		if slices.Contains(names, w.name) && !slices.Contains(w.about.Lacks, partition) {
			out = append(out, w.name)
		}
	}
	if len(out) == 0 {
		return names
	}
	return out
}
