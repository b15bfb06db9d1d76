package pipeline

import (
	"context"
	"slices"
	"strings"
)

// maxTurns is how many of the heavy commands of one queue are under way at a
// time: enough to keep the processors busy while others wait for the disk.
const maxTurns = 32

// turn is a command's place in a queue.
type turn struct{ of string } // its identity

// turnOf says in which queue a command waits for its turn, and whether it goes
// before what is not pressing there; false where it waits for none. Where very
// many zones have work, what changes a zone that is served is pressing: zones
// that are new, and those that all have another policy, can wait.
func turnOf(s State, files string, c Command) (queue string, pressing, waits bool) {
	served := s.Published
	switch c := c.(type) {
	case Load:
		queue = "load"
		if IsTransfer(c.Source) {
			queue += " " + c.Source // silent servers hold up no others
		}
		return queue, served != nil, true
	case Sign:
		queue = strings.Join(append([]string{"sign"}, s.tokens(files)...), " ")
		return queue, served != nil && (c.AtOnce || c.Loaded != served.Loaded.Seq), true
	case Publish, OpenReview:
		return "publish", served != nil, true
	default:
		return "", false, false
	}
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

// begin starts a command, or has it wait for its turn in place of one that
// waits already; false where zones do not work any more. The caller holds mu.
func (r *runner) begin(lane *laneWork, c Command) bool {
	queue, pressing, waits := turnOf(r.state, r.e.keystore.Name(), c)
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
	t := &turn{c.Identity()}
	work := func(ctx context.Context) {
		if now, wanted := r.take(c, t); wanted {
			r.run(ctx, now)
		}
	}
	if !r.e.turns.addRanked(r.e, queue, pressing, work) {
		return false
	}
	lane.busy, lane.turn = true, t
	return true
}

// take says whether a command whose turn came still is to run. What the zone
// wants may have changed: then it decides anew.
func (r *runner) take(c Command, t *turn) (Command, bool) {
	r.mu.Lock()
	lane := &r.lanes[c.Lane()]
	if lane.turn != t {
		r.mu.Unlock()
		return nil, false // another waits, or runs, in its place
	}
	now, begun := r.wants(c)
	begun = begun && r.e.beginDuty(RoleOf(c), r.id)
	lane.turn, lane.busy = nil, begun
	now = r.current(now)
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
