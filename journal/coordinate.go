package journal

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// DefaultLease is how long a lease holds after it was taken or renewed, unless
// its coordinator was made with another time.
const DefaultLease = 10 * time.Second

// ErrHeld reports a lease that another worker holds, or that was lost to one.
var ErrHeld = errors.New("another worker holds the lease")

// ErrNobody reports a question that no worker is there to answer.
var ErrNobody = errors.New("no worker answers")

// Refused is the error of the worker that answered a question.
type Refused struct {
	Text string
}

// Error implements error.
func (r Refused) Error() string { return r.Text }

// Lease is the right to do some work until it runs out. It is a hint that
// keeps workers out of each other's way, never a fence: a holder that was
// stopped does not know that its lease ran out.
type Lease struct {
	Name     string `json:"name"` // see LeaseName
	Holder   string `json:"holder"`
	Revision uint64 `json:"-"` // changes with every renewal
}

// Living is what a worker last told of itself.
type Living struct {
	Worker string
	About  []byte // as given to Announce
}

// Standing is who lives and who holds what, each sorted by name.
type Standing struct {
	Workers []Living
	Leases  []Lease
}

// Handler answers questions. Its error reaches the asker as Refused, with no
// more than its text. ctx ends when the answering is stopped.
type Handler func(ctx context.Context, data []byte) ([]byte, error)

// Coordinator is what the workers on one stream tell and ask each other.
// Nothing of it is a truth: it may be lost at any time, and all that follows
// from it is fenced by the journal. Its implementations, the one over NATS and
// journaltest's in memory, pass journaltest.ConformCoordinator. Its methods
// may be called from several goroutines.
type Coordinator interface {
	// LeaseTime is how long a lease and an announcement hold.
	LeaseTime() time.Duration

	// TakeLease takes a lease that nobody holds; else it is ErrHeld.
	TakeLease(ctx context.Context, name, holder string) (Lease, error)

	// RenewLease lets a lease hold for a further LeaseTime. It is ErrHeld where
	// it has run out or was taken by another.
	RenewLease(ctx context.Context, l Lease) (Lease, error)

	// ReleaseLease gives a lease up at once. One that is not held any more is
	// no error.
	ReleaseLease(ctx context.Context, l Lease) error

	// Announce tells others that a worker lives, for a LeaseTime; about is
	// handed on as it is, at most 64 KiB.
	Announce(ctx context.Context, worker string, about []byte) error

	// Leave takes an announcement back.
	Leave(ctx context.Context, worker string) error

	// Standing is who lives and who holds what.
	Standing(ctx context.Context) (Standing, error)

	// Ask sends a question and waits for the answer until ctx ends. It is
	// ErrNobody where nobody answers such questions, and Refused where the
	// answer is an error. That somebody died while answering is not noticed.
	Ask(ctx context.Context, subject string, data []byte) ([]byte, error)

	// Answer has a handler answer the questions on a subject until stop is
	// called. Of several that name the same queue one answers each question;
	// without one ("") the first answer counts. Each question has a goroutine
	// of its own, at most 64 at a time. stop waits for handlers to return.
	Answer(subject, queue string, fn Handler) (stop func(), err error)
}

// MaxMessage is the longest question or answer in bytes.
const MaxMessage = maxPayload - 4<<10

// maxAnswering bounds the questions on one subject that are answered at a time.
const maxAnswering = 64

// The prefixes of names in the coordination bucket.
const (
	aliveKey = "alive."
	leaseKey = "lease."
)

// LeaseName is the name of the lease of a worker's role in a partition.
func LeaseName(role string, partition int) string { return fmt.Sprintf("%s.%d", role, partition) }

// AskSubject is where the owner of a role in a partition is asked.
func AskSubject(role string, partition int) string { return fmt.Sprintf("ask.%s.%d", role, partition) }

// DoSubject is where any worker with a role is asked.
func DoSubject(role string) string { return "do." + role }

// PartSubject is where one worker is asked to sign parts of zones.
func PartSubject(worker string) string { return "do.sign." + worker }

// ToSubject is where one worker is asked, whatever its roles.
func ToSubject(worker string) string { return "to." + worker }

// ValidWorker reports whether a name can be that of a worker: 1 to 32 lower
// case letters, digits and hyphens.
func ValidWorker(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(name) >= 1 && len(name) <= 32
}
