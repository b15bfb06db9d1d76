package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"sluice/journal"
)

// mainWorker is the name of a process that nobody named.
const mainWorker = "main"

// takePart sets up this process's part among the workers on the stream.
func (e *Engine) takePart() (err error) {
	e.worker, e.roles = cmp.Or(e.cfg.Worker, mainWorker), e.cfg.Roles
	if len(e.roles) == 0 {
		e.roles = AllRoles()
	}
	if !journal.ValidWorker(e.worker) {
		return fmt.Errorf("%w: worker name %q: want 1 to 32 lower-case letters, digits and hyphens", ErrInvalid, e.worker)
	}
	if e.intents, err = openIntents(e.cfg.RunDir); err != nil {
		return err
	}
	e.since = machineTime().UTC().Truncate(time.Second)
	if !e.hasRole(RoleObserve) {
		e.cfg.Observe = nil
	}
	e.local = e.cfg.Observe
	if e.cfg.Coordinator == nil {
		return nil
	}
	if e.local == nil {
		e.cfg.Observe = e.observeThere
	}
	e.duties, err = newDuties(e)
	return err
}

// share takes part in the work of the workers on the stream until ctx ends.
func (e *Engine) share(ctx context.Context) {
	if e.local != nil {
		stop, err := e.answerObserve()
		if err != nil {
			e.log.ErrorContext(ctx, "nothing is observed for other workers", "error", err)
		} else {
			defer stop()
		}
	}
	e.start(e.keepAnswered)
	e.duties.run(ctx)
}

// WorkerStatus is what a worker told of itself last, and what it holds.
type WorkerStatus struct {
	Name    string    `json:"name"`
	Roles   []Role    `json:"worker_roles"`
	Since   time.Time `json:"since,omitzero"`
	Version string    `json:"version,omitempty"`
	// Folded is the sequence of the event that it had folded last.
	Folded uint64 `json:"folded"`
	// Enrolled is when it was; absent for the main process. Alive: it told of
	// itself lately. Lag is how many events it has not folded yet.
	Enrolled *time.Time `json:"enrolled,omitempty"`
	Alive    bool       `json:"alive"`
	Lag      uint64     `json:"lag"`
	// Store: the journal's store is in this process.
	Store bool `json:"store,omitempty"`
	// This: it is the process that answers.
	This bool `json:"this,omitempty"`
	// Holds is how many of the partitions it works on, by role.
	Holds map[Role]int `json:"holds,omitempty"`
	// Lacks is of how many partitions it cannot sign all zones, for want of private
	// keys.
	Lacks int `json:"lacks_keys,omitempty"`
}

// WorkersStatus is who shares the work.
type WorkersStatus struct {
	// Shared: other workers may take part.
	Shared     bool           `json:"shared"`
	Partitions int            `json:"partitions"`
	LastSeq    uint64         `json:"last_seq"` // of the event that this process folded last
	Workers    []WorkerStatus `json:"workers"`
	// Unheld are the roles that nobody holds in some partitions, with their
	// number.
	Unheld map[Role]int `json:"unheld,omitempty"`
	// Stale says since when the stream does not answer this process.
	Stale *StaleStatus `json:"stale,omitempty"`
}

// Workers lists the workers that live or were enrolled, by name, and what each
// holds.
func (e *Engine) Workers(ctx context.Context) (WorkersStatus, error) {
	out := WorkersStatus{Partitions: Partitions, LastSeq: e.foldedSeq(), Stale: e.staleStatus()}
	if e.duties == nil {
		self := WorkerStatus{Name: e.worker, Roles: e.roles, Since: e.since, Version: e.cfg.Version, Folded: out.LastSeq, Store: true, This: true}
		self.Holds = map[Role]int{}
		for _, role := range ownedRoles() {
			if e.hasRole(role) {
				self.Holds[role] = Partitions
			}
		}
		out.Workers = []WorkerStatus{self}
		return e.withEnrolled(out), nil
	}
	out.Shared = true
	st, err := e.cfg.Coordinator.Standing(ctx)
	if err != nil {
		return out, err
	}
	holders := map[string]string{}
	for _, l := range st.Leases {
		holders[l.Name] = l.Holder
	}
	holds := map[string]map[Role]int{}
	out.Unheld = map[Role]int{}
	for _, role := range ownedRoles() {
		for p := range Partitions {
			holder, ok := holders[duty{role, p}.lease()]
			if !ok {
				out.Unheld[role]++
				continue
			}
			if holds[holder] == nil {
				holds[holder] = map[Role]int{}
			}
			holds[holder][role]++
		}
	}
	for _, w := range workersIn(st) {
		out.Workers = append(out.Workers, WorkerStatus{
			Name: w.name, Roles: w.about.Roles, Since: w.about.Since, Version: w.about.Version, Folded: w.about.Folded,
			Store: w.about.Store, This: w.about.Run == e.duties.about.Run, Holds: holds[w.name], Lacks: len(w.about.Lacks),
		})
	}
	return e.withEnrolled(out), nil
}
