package pipeline

import (
	"fmt"
	"maps"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Grant is who does the work of a role in a zone.
type Grant struct {
	Worker string    `json:"worker"`
	Epoch  uint64    `json:"epoch"`
	Seq    uint64    `json:"seq"` // of worker.granted
	Time   time.Time `json:"time"`
}

// Quarantine is why no worker does the work of a role in a zone.
type Quarantine struct {
	Seq     uint64    `json:"seq"`
	Time    time.Time `json:"time"`
	Command string    `json:"command"`
	Tries   int       `json:"tries"`
	Error   string    `json:"error,omitempty"`
}

// Counts reports whether an event counts, judged by the grants before it: what
// a program wrote in a role counts with the epoch of the role's newest grant
// alone, and a grant only as the next one. What came through a door carries no
// epoch and counts.
func (s State) Counts(rec journal.Record) bool {
	if rec.Event.Actor != event.Program || rec.Event.Facts == nil {
		return true
	}
	role := RoleOfEvent(rec.Event.Facts)
	if role == "" {
		return true
	}
	now := s.Grants[role].Epoch
	if f, ok := rec.Event.Facts.(*event.WorkerGranted); ok {
		return f.Epoch == now+1 && rec.Event.Epoch == f.Epoch
	}
	return rec.Event.Epoch == now
}

// evolveWorkers folds what concerns workers.
func evolveWorkers(s State, rec journal.Record) State {
	switch f := rec.Event.Facts.(type) {
	case *event.WorkerGranted:
		s.Grants = maps.Clone(s.Grants)
		if s.Grants == nil {
			s.Grants = map[Role]Grant{}
		}
		s.Grants[Role(f.WorkerRole)] = Grant{Worker: f.Worker, Epoch: f.Epoch, Seq: rec.Seq, Time: rec.Event.Time}
	case *event.WorkerQuarantined:
		s.Quarantines = maps.Clone(s.Quarantines)
		if s.Quarantines == nil {
			s.Quarantines = map[Role]Quarantine{}
		}
		s.Quarantines[Role(f.WorkerRole)] = Quarantine{
			Seq: rec.Seq, Time: rec.Event.Time, Command: f.Command, Tries: f.Tries, Error: f.Error,
		}
	}
	return s
}

// describeWorkers tells an event about workers as a sentence; empty for others.
func describeWorkers(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.WorkerGranted:
		return fmt.Sprintf("worker %s takes up role %s, epoch %d", f.Worker, f.WorkerRole, f.Epoch)
	case *event.WorkerQuarantined:
		return fmt.Sprintf("role %s rests: its command %s failed badly %d times%s", f.WorkerRole, f.Command, f.Tries, because(f.Error))
	}
	return ""
}

// roleSet is a set of roles.
type roleSet map[Role]bool

// elsewhere are the roles whose work in the zone is not to be decided on: they
// are done by others, or rest.
func (s State) elsewhere(m Moment) roleSet {
	if len(m.Elsewhere) == 0 && len(s.Quarantines) == 0 {
		return nil
	}
	out := roleSet{}
	for _, r := range m.Elsewhere {
		out[r] = true
	}
	for r := range s.Quarantines {
		out[r] = true
	}
	return out
}
