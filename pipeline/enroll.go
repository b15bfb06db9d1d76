package pipeline

import (
	"maps"
	"time"

	"sluice/journal"
	"sluice/journal/event"
)

// Enrolled is a further process that may join the journal.
type Enrolled struct {
	event.WorkerEnrolled
	Seq  uint64    `json:"seq"`  // of the event that enrolled it
	Time time.Time `json:"time"` // of the same
}

// foldWorkers folds who may join. The map is replaced, never changed.
func foldWorkers(known map[string]Enrolled, rec journal.Record) map[string]Enrolled {
	next := maps.Clone(known)
	if next == nil {
		next = map[string]Enrolled{}
	}
	switch f := rec.Event.Facts.(type) {
	case *event.WorkerEnrolled:
		next[f.Name] = Enrolled{WorkerEnrolled: *f, Seq: rec.Seq, Time: rec.Event.Time}
	case *event.WorkerRemoved:
		delete(next, f.Name)
	}
	return next
}
