package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"sluice/keymgr"
)

// How often tokens are asked whether they are there: those that work, and
// those that did not when they were used last.
const (
	checkKeystores = time.Minute
	checkAway      = 2 * time.Second
)

// watchKeystores asks the tokens that zones use whether they are there, so that
// it is told before signatures run out, and has what failed for want of one
// tried again once it is back. It ends with ctx.
func (e *Engine) watchKeystores(ctx context.Context) {
	tick := time.NewTicker(checkAway)
	defer tick.Stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	var mu sync.Mutex
	asked := map[string]time.Time{} // guarded by mu; zero while one is being asked
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		for _, ks := range e.usedKeystores() {
			name, st := ks.Name(), ks.State()
			mu.Lock()
			at, known := asked[name]
			now := machineTime()
			if known && at.IsZero() || st.Stopped || st.Problem == "" && now.Sub(at) < checkKeystores {
				mu.Unlock()
				continue
			}
			asked[name] = time.Time{}
			mu.Unlock()
			wg.Go(func() {
				e.checkKeystore(ctx, ks, st.Problem != "")
				mu.Lock()
				asked[name] = machineTime()
				mu.Unlock()
			})
		}
	}
}

// usedKeystores is the tokens that keys are on which sign.
func (e *Engine) usedKeystores() []keymgr.TokenKeystore {
	e.mu.RLock()
	none := len(e.registry.Keystores) == 0
	e.mu.RUnlock()
	if none {
		return nil
	}
	var names []string
	for s := range e.eachState() {
		for _, k := range s.Keys.Signing() {
			if k.Keystore != e.keystore.Name() && !slices.Contains(names, k.Keystore) {
				names = append(names, k.Keystore)
			}
		}
	}
	slices.Sort(names)
	var out []keymgr.TokenKeystore
	for _, name := range names {
		ks, err := e.keystoreOf(name)
		if token, ok := ks.(keymgr.TokenKeystore); ok && err == nil {
			out = append(out, token)
		}
	}
	return out
}

// checkKeystore asks one token, and tells where that changes something.
func (e *Engine) checkKeystore(ctx context.Context, ks keymgr.TokenKeystore, away bool) {
	err := ks.Check(ctx)
	switch {
	case ctx.Err() != nil:
	case err == nil && away:
		e.log.InfoContext(ctx, "keystore is back", "keystore", ks.Name())
		e.retryKeystore(ks.Name())
	case err != nil && !away:
		e.log.ErrorContext(ctx, "keystore away, what is published stays served", "keystore", ks.Name(), "error", err)
	}
}

// retryKeystore has zones with keys in a keystore try again what failed.
func (e *Engine) retryKeystore(name string) {
	for _, r := range e.allRunners() {
		r.mu.Lock()
		failed := false
		p, err := r.e.boundPolicy(r.state)
		uses := err == nil && p.namesKeystore(name) || slices.ContainsFunc(r.state.Keys.Keys, func(k keymgr.Key) bool { return k.Keystore == name })
		for _, l := range []Lane{SigningLane, RollLane} {
			if lane := &r.lanes[l]; uses && lane.failure != nil {
				lane.tries, lane.LaneState, lane.failure = 0, LaneState{}, nil
				failed = true
			}
		}
		if failed {
			r.notify()
		}
		r.mu.Unlock()
		if failed {
			r.step()
		}
	}
}

// keystoreTrouble says what keeps the keys of a zone from signing, and what to
// do; "" where nothing does.
func (e *Engine) keystoreTrouble(s State) (reason, hint string) {
	if s.Removed != 0 {
		return "", ""
	}
	for _, name := range s.tokens(e.keystore.Name()) {
		ks, err := e.keystoreOf(name)
		if err != nil {
			return oneLine(err.Error()), "see: sluice keystore list"
		}
		token, ok := ks.(keymgr.TokenKeystore)
		if !ok {
			continue
		}
		if st := token.State(); st.Problem != "" {
			return oneLine(st.Problem) + " (since " + st.Since.UTC().Format(time.RFC3339) + ")", st.Hint
		}
	}
	return "", ""
}

// keystoreAlarms is a line for each token that zones sign with and that cannot
// be used.
func (e *Engine) keystoreAlarms() []string {
	zones := map[string]int{}
	for s := range e.eachState() {
		for _, name := range s.tokens(e.keystore.Name()) {
			zones[name]++
		}
	}
	var out []string
	for _, ks := range e.usedKeystores() {
		if st := ks.State(); st.Problem != "" {
			out = append(out, fmt.Sprintf("%s (since %s); zones that sign with it: %d, what is published stays served; %s",
				oneLine(st.Problem), st.Since.UTC().Format(time.RFC3339), zones[ks.Name()], strings.TrimSpace(st.Hint)))
		}
	}
	return out
}
