package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"sluice/journal/event"
)

// codeDenied is the code of what the gate refuses.
const codeDenied = 403

// publishEvent passes an event on that is the member's to write and that
// follows the zone's last one.
func (p *passage) publishEvent(op *operation) error {
	message, err := p.take(op, event.MaxLine)
	if err != nil {
		return err
	}
	id, commit := op.headers[hdrBatchID], op.headers[hdrBatchCommit] != ""
	b := p.batches[id]
	if id == "" || b == nil {
		b = &batch{}
	}
	if b.refused == nil {
		b.refused = p.judge(op, message, b)
	}
	switch {
	case id == "":
	case commit:
		delete(p.batches, id)
	case len(p.batches) >= maxBatches && p.batches[id] == nil:
		return fmt.Errorf("%w: %d batches begun", errProtocol, maxBatches)
	default:
		p.batches[id] = b
	}
	if b.refused == nil {
		return p.pass(op, message)
	}
	if id != "" && !commit {
		return nil // the last message of a batch gets the answer
	}
	if c, ok := errors.AsType[conflict](b.refused); ok {
		return p.answer(op, apiError{Code: 400, ErrCode: codeWrongSequence, Description: fmt.Sprintf("wrong last sequence: %d", c.last)})
	}
	return p.refuse(op, b.refused)
}

// judge says whether an event may be stored behind a batch's head; the first of
// a batch, and one by itself, behind that of the zone. The server compares the
// sequence again, so that nothing comes between.
func (p *passage) judge(op *operation, message []byte, b *batch) error {
	e, _, err := event.DecodeMessage(message)
	if err != nil {
		return err
	}
	line := event.PublicLine(message)
	if event.Subject(&e) != op.subject {
		return fmt.Errorf("an event of %s", event.Subject(&e))
	}
	if err := p.member.mayWrite(&e, line); err != nil {
		return err
	}
	expected, first := op.headers[hdrExpected]
	switch {
	case first != (b.zone == ""):
		return errors.New("an event that does not say what it follows")
	case first:
		head, err := p.head(e.Zone)
		if err != nil {
			return err
		}
		if op.headers[hdrExpectedSubject] != e.Zone.Filter() {
			return fmt.Errorf("an event that follows %q", op.headers[hdrExpectedSubject])
		}
		if seq, err := strconv.ParseUint(expected, 10, 64); err != nil || seq != head.Seq {
			return conflict{last: head.Seq}
		}
		b.zone, b.head = e.Zone, head
	case e.Zone != b.zone:
		return errors.New("a batch over two zones")
	}
	if e.N != b.head.N+1 || e.Prev != b.head.Hash {
		return fmt.Errorf("an event that does not follow event %d", b.head.N)
	}
	b.head = Head{N: e.N, Hash: event.RecordHash(line)}
	return nil
}

// head is the zone's head as the server has it.
func (p *passage) head(zone event.ZoneID) (Head, error) {
	ctx, cancel := context.WithTimeout(context.Background(), p.g.j.cfg.Timeout)
	defer cancel()
	return p.g.j.Head(ctx, zone)
}

// answer answers in place of the server, on the member's own connection: behind
// its wish to hear the answer.
func (p *passage) answer(op *operation, answer apiError) error {
	if op.reply == "" {
		return nil
	}
	body, err := json.Marshal(struct {
		Error apiError `json:"error"`
	}{answer})
	if err != nil {
		return err
	}
	return p.pass(&operation{verb: "PUB", subject: op.reply, payload: len(body)}, body)
}
