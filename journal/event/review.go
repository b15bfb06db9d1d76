package event

// The stages of a review.
const (
	// StageLoaded is the review of what was loaded, before it is signed.
	StageLoaded = "loaded"
	// StageSigned is the review of what was signed, before it is published.
	StageSigned = "signed"
)

// ReviewRequested opens the review of an instance: its built-in checks passed
// and verdicts are waited for. Only now may reviewers fetch it.
type ReviewRequested struct {
	Stage    string   `json:"stage"`
	Instance uint64   `json:"instance"`         // sequence of its instance.loaded or instance.signed
	Digest   Hash     `json:"digest"`           // content digest (loaded) or signed digest
	Checks   []string `json:"checks,omitempty"` // built-in checks that it passed
	// Gate is what the egress gate looked at, of a signed instance.
	Gate *Gate `json:"gate,omitempty"`
}

// ReviewApproved is the good verdict of one checker.
type ReviewApproved struct {
	Stage    string `json:"stage"`
	Instance uint64 `json:"instance"`
	Digest   Hash   `json:"digest"`
	Checker  string `json:"checker"` // "manual", "hook 1", "built-in", "policy"
	// Passed: no further verdict is needed, the instance is approved.
	Passed bool `json:"passed,omitempty"`
	// Carried is the sequence of the signed instance whose manual verdict or
	// publication stands for this one, a pure refresh of it; 0 for none.
	Carried uint64       `json:"carried,omitempty"`
	Reason  string       `json:"reason,omitempty"` // as the checker gave it
	Hook    *HookOutcome `json:"hook,omitempty"`
}

// ReviewRejected is the bad verdict of one checker; one is enough.
// instance.abandoned or zone.halted follows, as the policy says.
type ReviewRejected struct {
	Stage    string       `json:"stage"`
	Instance uint64       `json:"instance"`
	Digest   Hash         `json:"digest"`
	Checker  string       `json:"checker"`
	Reason   string       `json:"reason,omitempty"`
	Hook     *HookOutcome `json:"hook,omitempty"`
}

// HookOutcome says how a hook ended.
type HookOutcome struct {
	Command    string `json:"command"`
	ExitCode   int    `json:"exit_code"` // -1: it was killed
	TimedOut   bool   `json:"timed_out,omitempty"`
	DurationMS uint64 `json:"duration_ms"`
	// Output is what it wrote, both streams, of more than 4 KiB the end.
	Output string `json:"output,omitempty"`
	// OutputBytes is how much it wrote, OutputSHA256 the SHA-256 of all of it in
	// hex, of no output too; a text, so that it can be sealed with the output.
	OutputBytes  uint64 `json:"output_bytes,omitempty"`
	OutputSHA256 string `json:"output_sha256,omitempty"`
	// Programs is the executable files that the command names by words of its
	// own, as they were when it began.
	Programs []ProgramFile `json:"programs,omitempty"`
}

// ProgramFile is an executable file.
type ProgramFile struct {
	Path   string `json:"path"`
	SHA256 Hash   `json:"sha256"` // of its content
}

// ReviewOverridden approves an instance by a person's decision, whatever
// checkers said or did not say.
type ReviewOverridden struct {
	Stage    string `json:"stage"`
	Instance uint64 `json:"instance"`
	Digest   Hash   `json:"digest"`
	Reason   string `json:"reason"`
}

// ZoneHalted stops new work on a zone until review.overridden or zone.reset;
// what is published is kept fresh.
type ZoneHalted struct {
	Stage    string `json:"stage"`
	Instance uint64 `json:"instance"`
	Reason   string `json:"reason"`
}

// ZoneReset ends a halt; the instance that led to it is abandoned.
type ZoneReset struct {
	Reason string `json:"reason,omitempty"`
}

// InstanceAbandoned says that an instance will never be used; its chunks stay
// as evidence as long as others of its time.
type InstanceAbandoned struct {
	Stage    string `json:"stage"`
	Instance uint64 `json:"instance"`
	Reason   string `json:"reason"`
}

// MaintenanceChanged blocks new work on a zone, or lets it go on. What is
// published is kept fresh either way.
type MaintenanceChanged struct {
	Enabled bool   `json:"enabled"`
	Reason  string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*ReviewRequested) EventType() string { return "review.requested" }

// EventType implements Facts.
func (*ReviewApproved) EventType() string { return "review.approved" }

// EventType implements Facts.
func (*ReviewRejected) EventType() string { return "review.rejected" }

// EventType implements Facts.
func (*ReviewOverridden) EventType() string { return "review.overridden" }

// EventType implements Facts.
func (*ZoneHalted) EventType() string { return "zone.halted" }

// EventType implements Facts.
func (*ZoneReset) EventType() string { return "zone.reset" }

// EventType implements Facts.
func (*InstanceAbandoned) EventType() string { return "instance.abandoned" }

// EventType implements Facts.
func (*MaintenanceChanged) EventType() string { return "maintenance.changed" }
