package kmip

import (
	"encoding/binary"
	"errors"
	"fmt"

	"sluice/keymgr"
)

// Bounds of messages, in bytes.
const (
	// maxResponse is told to the server, and not exceeded by what is read.
	maxResponse = 1 << 20
	// maxBatchBytes bounds what is to be signed of one request with several; a
	// single one may have more, up to maxRequest.
	maxBatchBytes = 128 << 10
	maxRequest    = 1 << 20
)

// version is a version of the protocol.
type version struct{ major, minor uint32 }

func (v version) String() string { return fmt.Sprintf("%d.%d", v.major, v.minor) }

// structures: attributes are structures with a tag each, not pairs of a name and
// a value.
func (v version) structures() bool { return v.major >= 2 }

// digests: what is signed may be given as a digest.
func (v version) digests() bool { return v.major >= 2 || v.minor >= 4 }

// versions are those that this client speaks, best first.
func versions() []version { return []version{{2, 1}, {2, 0}, {1, 4}, {1, 3}, {1, 2}} }

// operation is one of the requests in a message.
type operation struct {
	op      uint32
	payload func(*encoder)
}

// encodeRequest makes a request message.
func encodeRequest(v version, login keymgr.ServerLogin, ops []operation) []byte {
	e := &encoder{}
	e.structure(tagRequestMessage, func() {
		e.structure(tagRequestHeader, func() {
			e.version(v)
			e.integer(tagMaximumResponseSize, maxResponse)
			if login.Username != "" {
				e.structure(tagAuthentication, func() {
					e.structure(tagCredential, func() {
						e.enumeration(tagCredentialType, credentialPassword)
						e.structure(tagCredentialValue, func() {
							e.text(tagUsername, login.Username)
							if login.Password != "" {
								e.text(tagPassword, login.Password)
							}
						})
					})
				})
			}
			e.integer(tagBatchCount, uint32(len(ops))) //nolint:gosec // at most maxBatch
		})
		for i, op := range ops {
			e.structure(tagBatchItem, func() {
				e.enumeration(tagOperation, op.op)
				if len(ops) > 1 {
					e.bytes(tagUniqueBatchItemID, batchID(i))
				}
				e.structure(tagRequestPayload, func() { op.payload(e) })
			})
		}
	})
	return e.b
}

// batchID names the request number i of a message.
func batchID(i int) []byte { return binary.BigEndian.AppendUint32(nil, uint32(i)+1) } //nolint:gosec // at most maxBatch

func (e *encoder) version(v version) {
	e.structure(tagProtocolVersion, func() {
		e.integer(tagProtocolVersionMajor, v.major)
		e.integer(tagProtocolVersionMinor, v.minor)
	})
}

// refusedError is a server's refusal of a request.
type refusedError struct {
	op      uint32
	reason  uint32
	message string // what the server says, printable
}

func (e *refusedError) Error() string {
	text := "the server refuses " + operationName(e.op) + ": " + reasonName(e.reason)
	if e.message != "" {
		text += " (" + e.message + ")"
	}
	return text
}

// refused reports whether an error is a server's refusal.
func refused(err error) (*refusedError, bool) { return errors.AsType[*refusedError](err) }

// stale reports whether an error says that there is no such object any more.
func stale(err error) bool {
	r, ok := refused(err)
	return ok && (r.reason == reasonItemNotFound || r.reason == reasonObjectDestroyed ||
		r.reason == reasonObjectNotFound || r.reason == reasonWrongLifeCycle)
}

// denied reports whether an error is the server's answer to a login.
func denied(err error) bool {
	r, ok := refused(err)
	return ok && (r.reason == reasonAuthentication || r.reason == reasonBadPassword)
}

// errBatch reports that a server did not answer a request with several
// operations as such.
var errBatch = errors.New("the server takes no batch of this size")

// maxServerText bounds a server's own words in an error, in characters.
const maxServerText = 200

// decodeResponse reads the answer to ops: a payload for each. The first refusal
// is an error. errBatch is one where the message as a whole was refused, or has
// too few answers, and there was more than one operation.
func decodeResponse(message []byte, ops []operation) ([]item, error) {
	root, err := decode(message)
	if err != nil {
		return nil, err
	}
	if root.tag != tagResponseMessage {
		return nil, fmt.Errorf("%w: it is not a response", errEncoding)
	}
	out := make([]item, len(ops))
	seen := make([]bool, len(ops))
	answers := 0
	for answer := range root.items() {
		if answer.tag != tagBatchItem {
			continue
		}
		at, named := indexOf(answer, answers, len(ops))
		answers++
		status, ok := answer.find(tagResultStatus).number()
		switch {
		case !ok:
			return nil, fmt.Errorf("%w: an answer has no status", errEncoding)
		case status == statusSuccess && at >= 0 && !seen[at]:
			out[at], seen[at] = answer.find(tagResponsePayload), true
			continue
		case status == statusSuccess:
			return nil, fmt.Errorf("%w: an answer to nothing that was asked", errEncoding)
		case status == statusPending:
			return nil, fmt.Errorf("the server wants %s to be asked for later (asynchronously), which is not done here", operationName(ops[max(at, 0)].op))
		}
		err := refusal(answer, ops[max(at, 0)].op)
		if len(ops) > 1 && !named && !denied(err) {
			return nil, fmt.Errorf("%w: %w", errBatch, err)
		}
		return nil, err
	}
	for _, ok := range seen {
		if ok {
			continue
		}
		if len(ops) > 1 {
			return nil, fmt.Errorf("%w: %d answers to %d requests", errBatch, answers, len(ops))
		}
		return nil, fmt.Errorf("%w: it has no answer", errEncoding)
	}
	return out, nil
}

// indexOf says which operation an answer is to, -1 where it is to none; named
// where the answer says so.
func indexOf(answer item, position, count int) (at int, named bool) {
	id := answer.find(tagUniqueBatchItemID)
	if count == 1 || !id.is(typeBytes) {
		if position >= count {
			return -1, false
		}
		return position, false
	}
	if len(id.value) != 4 {
		return -1, true
	}
	at = int(binary.BigEndian.Uint32(id.value)) - 1
	if at < 0 || at >= count {
		return -1, true
	}
	return at, true
}

func refusal(answer item, op uint32) error {
	reason, _ := answer.find(tagResultReason).number()
	return &refusedError{op: op, reason: reason, message: answer.find(tagResultMessage).text(maxServerText)}
}
