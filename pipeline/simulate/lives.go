package simulate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
)

// lives is the keys' names and lives.
type lives struct {
	made  int               // keys that were tried, for their numbers
	names map[string]string // by ID
	order []string          // IDs in the order in which they were made
	keys  map[string]*KeyLife
	words *strings.Replacer
}

// name gives names to the keys that an event brings.
func (v *lives) name(f event.Facts) {
	made, ok := f.(*event.KeyGenerated)
	if !ok {
		return
	}
	if v.keys == nil {
		v.keys = map[string]*KeyLife{}
	}
	for _, k := range made.Keys {
		n := 1
		for _, id := range v.order {
			if v.keys[id].Role == k.Role {
				n++
			}
		}
		name := fmt.Sprintf("%s-%d", strings.ToUpper(k.Role), n)
		v.names[k.ID], v.order = name, append(v.order, k.ID)
		v.keys[k.ID] = &KeyLife{Name: name, Role: k.Role, Algorithm: k.Algorithm}
	}
	var pairs []string
	for _, id := range slices.Sorted(maps.Keys(v.names)) {
		pairs = append(pairs, id, v.names[id])
	}
	v.words = strings.NewReplacer(pairs...)
}

// replace puts names in the place of IDs.
func (v *lives) replace(text string) string {
	if v.words == nil {
		return text
	}
	return v.words.Replace(text)
}

// list names keys.
func (v *lives) list(ids []string) string {
	names := make([]string, 0, len(ids))
	for _, id := range ids {
		names = append(names, v.names[id])
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// described tells what keys are.
func (v *lives) described(keys []event.Key) string {
	parts := make([]string, 0, len(keys))
	for _, k := range keys {
		parts = append(parts, fmt.Sprintf("%s (algorithm %d, tag %d)", v.names[k.ID], k.Algorithm, k.Tag))
	}
	return strings.Join(parts, ", ")
}

// sets tells what the parent has.
func (v *lives) sets(all []event.DSSet) string {
	parts := make([]string, 0, len(all))
	for _, set := range all {
		text := "no DS"
		if len(set.DS) > 0 {
			ids := make([]string, 0, len(set.DS))
			for _, d := range set.DS {
				ids = append(ids, d.Key)
			}
			text = "the DS of " + v.list(ids) + ", TTL " + pipeline.SpanText(time.Duration(set.TTL)*time.Second)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "; on other servers ")
}

// exchange tells which keys come for which.
func (v *lives) exchange(before, after []string) string {
	switch {
	case len(before) == 0:
		return v.list(after)
	case len(after) == 0:
		return "without " + v.list(before)
	}
	return v.list(before) + " by " + v.list(after)
}

// note takes down the states of keys.
func (v *lives) note(keys []keymgr.Key, now time.Time) {
	for _, k := range keys {
		life := v.keys[k.ID]
		if n := len(life.Spans); n > 0 {
			last := &life.Spans[n-1]
			if last.State == k.State {
				continue
			}
			last.Until = now
		}
		life.Spans = append(life.Spans, Span{State: k.State, Interval: Interval{From: now}})
	}
}

// ds takes down the parent's newest DS RRset.
func (v *lives) ds(want []string, now time.Time) {
	for id, life := range v.keys {
		n := len(life.DS)
		has := n > 0 && life.DS[n-1].Until.IsZero()
		switch wants := slices.Contains(want, id); {
		case has && !wants:
			life.DS[n-1].Until = now
		case wants && !has:
			life.DS = append(life.DS, Interval{From: now})
		}
	}
}

// end closes what is open, and leaves out times of no length.
func (v *lives) end(now time.Time) []KeyLife {
	out := []KeyLife{}
	for _, id := range v.order {
		life := v.keys[id]
		for i := range life.Spans {
			if life.Spans[i].Until.IsZero() {
				life.Spans[i].Until = now
			}
		}
		life.Spans = slices.DeleteFunc(life.Spans, func(s Span) bool { return !s.Until.After(s.From) })
		for i := range life.DS {
			if life.DS[i].Until.IsZero() {
				life.DS[i].Until = now
			}
		}
		out = append(out, *life)
	}
	return out
}

// InRRset reports whether a key in that state stands in the DNSKEY RRset.
func (s Span) InRRset() bool { return (&keymgr.Key{State: s.State}).InRRset() }

// crowd is the most keys in the DNSKEY RRset at a time, and for how many
// seconds at the longest it had more than one of a role.
func crowd(keys []KeyLife) (most int, longest uint64) {
	type change struct {
		at   time.Time
		role string
		by   int
	}
	var all []change
	for _, k := range keys {
		for _, s := range k.Spans {
			if s.InRRset() {
				all = append(all, change{s.From, k.Role, 1}, change{s.Until, k.Role, -1})
			}
		}
	}
	// What begins when something else ends adds to nothing.
	slices.SortStableFunc(all, func(a, b change) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return b.by - a.by
	})
	n, ofRole, since := 0, map[string]int{}, map[string]time.Time{}
	for i, c := range all {
		n += c.by
		ofRole[c.role] += c.by
		if c.by > 0 && ofRole[c.role] == 2 {
			since[c.role] = c.at
		}
		if c.by < 0 && ofRole[c.role] == 1 {
			longest = max(longest, uint64(c.at.Sub(since[c.role])/time.Second)) //nolint:gosec // not negative
		}
		if i+1 == len(all) || all[i+1].at.After(c.at) {
			most = max(most, n)
		}
	}
	return most, longest
}

// between is the shortest time from one rollover to the next of its kind.
func between(all []Rolled) uint64 {
	last, least := map[keymgr.Kind]time.Time{}, time.Duration(0)
	for _, r := range all {
		if before, ok := last[r.Kind]; ok {
			if d := r.From.Sub(before); least == 0 || d < least {
				least = d
			}
		}
		last[r.Kind] = r.From
	}
	return uint64(least / time.Second) //nolint:gosec // not negative
}

// hold is a server that holds a rollover up.
type hold struct {
	server   string
	rollover uint64 // its number
	since    time.Time
}

// watchHolds finds which servers hold rollovers up: nothing else is lacking
// than their answers.
func (r *run) watchHolds() {
	var now []hold
	for _, s := range r.state.Rolling(r.set.Policy, r.view()) {
		silent := s.Phase == keymgr.PhaseSee && len(s.Missing) > 0 && !slices.ContainsFunc(s.Missing, func(m keymgr.Missing) bool { return m.Since.IsZero() })
		if !silent {
			continue
		}
		for _, m := range s.Missing {
			now = append(now, hold{server: m.Server, rollover: r.number(s.ID), since: r.now})
		}
	}
	same := func(h hold) func(hold) bool {
		return func(o hold) bool { return o.server == h.server && o.rollover == h.rollover }
	}
	for _, h := range r.holds {
		if !slices.ContainsFunc(now, same(h)) {
			r.release(h)
		}
	}
	for i, h := range now {
		if was := slices.IndexFunc(r.holds, same(h)); was >= 0 {
			now[i] = r.holds[was]
			continue
		}
		of := r.summary.Rollovers[h.rollover-1].Kind
		r.out.add(Line{
			Time: r.now, Kind: KindHeld, Rollover: h.rollover, Of: of,
			Text: fmt.Sprintf("%s holds up rollover %d of %s: it gives no answer", h.server, h.rollover, of),
			Why:  "what every server is to show counts only once each of them shows it",
			Next: "it goes on once " + h.server + " answers and shows it",
		})
	}
	r.holds = now
}

func (r *run) release(h hold) {
	d := r.now.Sub(h.since)
	r.out.add(Line{
		Time: r.now, Kind: KindHeld, Rollover: h.rollover,
		Text: fmt.Sprintf("%s holds up rollover %d no longer, after %s", h.server, h.rollover, pipeline.SpanText(d)),
	})
	r.summary.hold(h.server, d)
}

// holdsEnd counts what still holds something up at the end.
func (r *run) holdsEnd() {
	for _, h := range r.holds {
		r.summary.hold(h.server, r.now.Sub(h.since))
	}
}

func (s *Summary) hold(server string, d time.Duration) {
	at := slices.IndexFunc(s.Held, func(h Held) bool { return h.Server == server })
	if at < 0 {
		s.Held = append(s.Held, Held{Server: server})
		at = len(s.Held) - 1
	}
	s.Held[at].Seconds += uint64(d / time.Second) //nolint:gosec // not negative
}
