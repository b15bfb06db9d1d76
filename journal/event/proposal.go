package event

// What two persons decide together.
const (
	ProposeApprove  = "approve"  // a good verdict
	ProposeOverride = "override" // to pass a review or a halt
	ProposeRollback = "rollback" // back to an earlier version's content
	ProposePolicy   = "policy"   // a policy that asks for two persons less often
)

// ReviewProposed is the first half of a decision that needs two persons: one
// has asked for it. It takes effect by the event of the decision itself, whose
// cause it is, once another person asks for the same; after a day it is void.
type ReviewProposed struct {
	Action string `json:"action"` // approve, override, rollback, policy
	// Stage, Instance and Digest are what is approved or overridden; of a
	// rollback the loaded instance whose content is wanted; of a policy the
	// digest is that of its text.
	Stage    string `json:"stage,omitempty"`
	Instance uint64 `json:"instance,omitempty"`
	Digest   Hash   `json:"digest"`
	Serial   uint32 `json:"serial,omitempty"` // of that instance
	Target   string `json:"target,omitempty"` // of a rollback how the version was named, of a policy its name
	Reason   string `json:"reason,omitempty"`
}

// ReviewRecalled takes a proposal back, by whomever it was made.
type ReviewRecalled struct {
	Action   string `json:"action"`
	Stage    string `json:"stage,omitempty"`
	Proposal uint64 `json:"proposal"` // sequence of its review.proposed
	Reason   string `json:"reason,omitempty"`
}

// EventType implements Facts.
func (*ReviewProposed) EventType() string { return "review.proposed" }

// EventType implements Facts.
func (*ReviewRecalled) EventType() string { return "review.recalled" }
