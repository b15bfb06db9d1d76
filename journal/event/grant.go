package event

// WorkerGranted gives the work of a role in the zone to a worker, who appends
// it before its first write there. From here on what a worker writes in that
// role counts only with this epoch in its envelope, as it stands in the
// envelope of this event.
type WorkerGranted struct {
	Worker     string `json:"worker"`
	WorkerRole string `json:"worker_role"` // load, review, sign, keys, publish
	Epoch      uint64 `json:"epoch"`       // one more than the one before; 1 is the first
}

// WorkerQuarantined says that a command brought its worker down, or panicked, so
// often that no worker does the zone's work of that role until zone.reset.
type WorkerQuarantined struct {
	WorkerRole string `json:"worker_role"`
	Command    string `json:"command"` // what it was: load, sign ...
	Tries      int    `json:"tries"`
	Error      string `json:"error,omitempty"` // the last panic; empty where the process ended
}

// EventType implements Facts.
func (*WorkerGranted) EventType() string { return "worker.granted" }

// EventType implements Facts.
func (*WorkerQuarantined) EventType() string { return "worker.quarantined" }
