package event

// WorkerEnrolled lets a further process join the journal. It stands under
// Instance, in ev._.worker, and holds public parts only. A name that was
// enrolled before has what the newest of its events says.
type WorkerEnrolled struct {
	Name  string   `json:"name"`  // [a-z0-9-]{1,32}
	Roles []string `json:"roles"` // what it may do, sorted
	NKey  string   `json:"nkey"`  // its public key (U...), by which the journal knows it
	Age   string   `json:"age"`   // recipient (age1...) for what is meant for it alone
}

// WorkerRemoved ends what a worker may do. It stands under Instance.
type WorkerRemoved struct {
	Name string `json:"name"`
}

// EventType implements Facts.
func (*WorkerEnrolled) EventType() string { return "worker.enrolled" }

// EventType implements Facts.
func (*WorkerRemoved) EventType() string { return "worker.removed" }
