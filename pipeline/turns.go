package pipeline

import (
	"context"
	"slices"
	"strings"

	"sluice/keymgr"
)

// maxTurns is how many of the heavy commands of one queue are under way at a
// time: enough to keep the processors busy while others wait for the disk.
const maxTurns = 32

// turn is a place in a queue, for what its lane will want when that comes.
type turn struct {
	queue    string
	pressing bool
}

// signs is how the queues of signings begin.
const signs = "sign"

// turnOf says in which queue a command waits for its turn, and whether it goes
// before what is not pressing there; false where it waits for none. Where very
// many zones have work, what changes a zone that is served is pressing: zones
// that are new, and those that all have another policy, can wait.
func turnOf(s State, files string, c Command) (t turn, waits bool) {
	served := s.Published
	switch c := c.(type) {
	case Load:
		t = turn{"load", served != nil}
		if IsTransfer(c.Source) {
			t.queue += " " + c.Source // silent servers hold up no others
		}
	case Sign:
		t.queue = strings.Join(append([]string{signs}, s.tokens(files)...), " ")
		t.pressing = served != nil && (c.AtOnce || c.Asked != 0 || c.Loaded != served.Loaded.Seq || s.inEmergency())
	case Publish, OpenReview:
		t = turn{"publish", served != nil}
	default:
		return t, false
	}
	return t, true
}

// inEmergency reports whether keys are exchanged that must not be used any more.
func (s State) inEmergency() bool {
	return slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool { return r.Emergency })
}

// tokens names the keystores that a zone signs with, but for the one in files.
func (s State) tokens(files string) []string {
	var names []string
	for i := range s.Keys.Keys {
		if k := &s.Keys.Keys[i]; k.Signs() && k.Keystore != files {
			names = append(names, k.Keystore)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// turnOf is turnOf with what else is known of the zone: signatures that should
// have been made anew long ago are pressing. The caller holds mu.
func (r *runner) turnOf(c Command) (t turn, waits bool) {
	t, waits = turnOf(r.state, r.e.keystore.Name(), c)
	t.pressing = t.pressing || r.overdue != ""
	return t, waits
}

// begin starts a command, or has it wait for its turn; false where zones do not
// work any more. The caller holds mu.
func (r *runner) begin(lane *laneWork, c Command) bool {
	t, waits := r.turnOf(c)
	if !waits {
		if !r.e.beginDuty(RoleOf(c), r.id) {
			return true
		}
		if !r.e.start(func(ctx context.Context) { r.run(ctx, c) }) {
			r.e.endDuty(RoleOf(c), r.id)
			return false
		}
		lane.busy, lane.turn = true, nil
		return true
	}
	if !r.e.owns(RoleOf(c), r.id) {
		return true
	}
	if at := lane.turn; at != nil && at.queue == t.queue && (at.pressing || !t.pressing) {
		return true // what changes often keeps its place
	}
	work := func(ctx context.Context) {
		if now, wanted := r.take(ctx, c.Lane(), &t); wanted {
			r.run(ctx, now)
		}
	}
	if !r.e.turns.addRanked(r.e, t.queue, t.pressing, work) {
		return false
	}
	lane.busy, lane.turn = true, &t
	return true
}

// take is what the zone wants in a lane whose turn came, if that still has its
// place in this queue: else it decides anew. A signing waits until content that
// is on its way in has come.
func (r *runner) take(ctx context.Context, at Lane, t *turn) (now Command, begun bool) {
	r.mu.Lock()
	lane := &r.lanes[at]
	for lane.turn == t && r.bringing && strings.HasPrefix(t.queue, signs) {
		changed := r.changed
		r.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, false
		}
		r.mu.Lock()
	}
	if lane.turn != t {
		r.mu.Unlock()
		return nil, false // another waits, or runs, in its place
	}
	for _, c := range r.decide().Commands {
		if is, waits := r.turnOf(c); waits && c.Lane() == at && is.queue == t.queue {
			now = r.current(c)
			begun = r.e.beginDuty(RoleOf(c), r.id)
		}
	}
	lane.turn, lane.busy = nil, begun
	r.notify()
	r.mu.Unlock()
	if !begun {
		r.step()
	}
	return now, begun
}

// current is the command with what is known now. The caller holds mu.
func (r *runner) current(c Command) Command {
	if l, ok := c.(Load); ok {
		l.Hint, l.UpdatesTo = r.up.hint, r.state.Updates.last()
		return l
	}
	return c
}

// runs reports whether a command is under way in the lane, and does not only wait
// for its turn.
func (l *laneWork) runs() bool { return l.busy && l.turn == nil }

// waits reports whether a command waits for its turn.
func (l *laneWork) waits() bool { return l.turn != nil }

// holdsBack reports whether new content waits for what the signing lane does: a
// signing that nobody has begun is of the new content then.
func (l *laneWork) holdsBack() bool {
	return l.runs() || l.waits() && !strings.HasPrefix(l.turn.queue, signs)
}
