package metrics

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
)

// What of zones is told.
const (
	// ZonesAuto is each zone by itself where there are at most so many; of more,
	// those alone that need somebody to look.
	ZonesAuto = "auto"
	ZonesAll  = "all"  // each zone by itself
	ZonesNone = "none" // sums over all zones alone
)

// DefaultZonesLimit is how many zones ZonesAuto tells of by themselves, unless
// the config says otherwise.
const DefaultZonesLimit = 2000

// trouble is how much a zone needs somebody to look.
type trouble int

const (
	well trouble = iota
	watched
	alarming
)

// troubleOf is what speaks for telling of a zone by itself: all that an alert by
// zone looks at.
func troubleOf(z *pipeline.ZoneMeasure, now time.Time) trouble {
	past := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	notices := noticesOf(z)
	switch {
	case notices[2] > 0, past(z.Alarm), !z.SignFailed.IsZero(),
		z.Stage == pipeline.StageFailed, z.Stage == pipeline.StageHalted, z.Stage == pipeline.StageExpired:
		return alarming
	case notices[1] > 0, past(z.Due), !z.LoadFailed.IsZero(), z.Stage == pipeline.StageReview,
		z.DS.Told && z.DS.Known && !z.DS.InStep,
		slices.ContainsFunc(z.Late, past),
		slices.ContainsFunc(z.Rollovers, stopped):
		return watched
	}
	if p := z.Probe; p != nil && slices.ContainsFunc(p.Answers, func(a pipeline.ProbeAnswer) bool { return a.Outcome != pipeline.ProbeValidated }) {
		return watched
	}
	if z.Published == nil {
		return well
	}
	if slices.ContainsFunc(z.Secondaries, unaware) {
		return watched
	}
	if o := z.Observation; o != nil && !o.At.IsZero() {
		if n := serversOf(z); n["behind"]+n["silent"] > 0 {
			return watched
		}
	}
	return well
}

// stopped reports whether a rollover does not go on without a person.
func stopped(ro pipeline.RolloverStatus) bool {
	return slices.Contains(stops(), ro.Phase)
}

// stops are the phases in which a rollover does not go on without a person.
func stops() []keymgr.Phase {
	return []keymgr.Phase{keymgr.PhasePerson, keymgr.PhaseBackup, keymgr.PhaseProof, keymgr.PhaseBlocked}
}

// chosen are the zones that have series of their own, by name.
func (m *Metrics) chosen(zones []pipeline.ZoneMeasure, now time.Time) []*pipeline.ZoneMeasure {
	by := m.shown.Load()
	if by.zones == ZonesNone {
		return nil
	}
	all := by.zones == ZonesAll || len(zones) <= by.limit
	type one struct {
		z *pipeline.ZoneMeasure
		t trouble
	}
	var list []one
	for i := range zones {
		if t := troubleOf(&zones[i], now); all || t > well {
			list = append(list, one{&zones[i], t})
		}
	}
	if !all && len(list) > by.limit {
		slices.SortStableFunc(list, func(a, b one) int { return cmp.Compare(b.t, a.t) })
		list = list[:by.limit]
		slices.SortFunc(list, func(a, b one) int { return strings.Compare(a.z.Name, b.z.Name) })
	}
	out := make([]*pipeline.ZoneMeasure, len(list))
	for i, o := range list {
		out[i] = o.z
	}
	return out
}
