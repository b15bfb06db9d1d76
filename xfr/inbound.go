package xfr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"sluice/signer/zone"
)

// state is where in a transfer the next record stands.
type state int

const (
	atFirst  state = iota // the new SOA (RFC 5936, 2.2; RFC 1995, 4)
	atSecond              // tells AXFR from IXFR
	inZone                // AXFR: up to the SOA
	inDelete              // IXFR: records that went, up to the step's new SOA
	inAdd                 // IXFR: records that came, up to the next SOA
	atEnd
)

var (
	errFirstSOA   = errors.New("the first record is not the zone's SOA")
	errSOABelow   = errors.New("SOA below the apex")
	errLastSOA    = errors.New("the last SOA differs from the first")
	errAfterEnd   = errors.New("records after the last SOA")
	errNoEnd      = errors.New("the transfer ended before the last SOA: truncated")
	errManyBytes  = errors.New("more bytes than allowed")
	errManyRRs    = errors.New("more records than allowed")
	errLate       = errors.New("the transfer takes longer than allowed")
	errIdle       = errors.New("no whole message within the time allowed")
	errNotNewer   = errors.New("a step's new serial is not newer than its old one")
	errSteps      = errors.New("steps do not join")
	errWrongStart = errors.New("the first step does not begin with the serial held")
	errLoneSOA    = errors.New("a newer SOA alone")
)

// minBuffer holds the transfer of a small zone.
const minBuffer = 8 << 10

// maxBuffer holds a message of the largest size and more that came with it.
const maxBuffer = 256 << 10

// inbound is one transfer under way, owned by one goroutine.
type inbound struct {
	q      *query
	id     uint16
	signed *tsigVerifier
	sink   TransferSink
	limits Limits
	conn   net.Conn
	end    time.Time // when MaxTime is over

	buf        []byte
	from, to   int // what of buf is not read yet
	dec        decoder
	state      state
	first      Record // the new SOA, copied
	serial     zone.Serial
	step, last zone.Serial // IXFR: the serials of the step, old and new
	result     TransferResult
}

// run reads messages until the transfer is complete.
func (t *inbound) run() error {
	for t.state != atEnd {
		msg, err := t.message()
		if err != nil {
			return err
		}
		t.result.Messages++
		r, err := t.q.check(msg, t.id, t.signed, t.result.Messages == 1, time.Now())
		if err != nil {
			return err
		}
		if r.flags&flagTC != 0 {
			return errTruncatedTCP
		}
		if err := t.records(r); err != nil {
			return err
		}
	}
	return t.signed.finished()
}

// records takes the records of a message.
func (t *inbound) records(r reply) error {
	t.dec.begin(r.msg, r.answerAt)
	for range r.answers {
		if t.state == atEnd {
			return errAfterEnd
		}
		if t.result.Records++; t.result.Records > t.limits.MaxRecords {
			return fmt.Errorf("%w: %d", errManyRRs, t.limits.MaxRecords)
		}
		if err := t.dec.next(); err != nil {
			return err
		}
		if err := t.take(&t.dec.rr); err != nil {
			return err
		}
		if t.result.Kind == UpToDate {
			// What else a server sends after an SOA that is not newer is of
			// no use.
			return nil
		}
	}
	if t.state == atFirst {
		return errFirstSOA
	}
	if end := t.dec.at; len(r.msg) != end && binary.BigEndian.Uint32(r.msg[8:]) == 0 {
		return errAnswerEnd
	}
	return nil
}

// take moves the transfer on by a record.
func (t *inbound) take(rr *Record) error {
	soa := rr.Type == zone.TypeSOA
	if soa && len(rr.Owner) != len(t.q.name) {
		return t.dec.wrong(errSOABelow)
	}
	switch t.state {
	case atFirst:
		if !soa {
			return errFirstSOA
		}
		t.begin(rr)
		return nil
	case atSecond:
		return t.second(rr, soa)
	case inZone:
		if soa {
			return t.close(rr)
		}
		return t.sink.Record(rr)
	case inDelete:
		if soa {
			return t.newSOA(rr)
		}
		return t.sink.Delete(rr)
	case inAdd:
		if soa {
			return t.oldSOA(rr)
		}
		return t.sink.Add(rr)
	case atEnd:
	}
	return errAfterEnd
}

// begin takes the first SOA.
func (t *inbound) begin(rr *Record) {
	t.first = Record{Owner: bytes.Clone(rr.Owner), Type: rr.Type, TTL: rr.TTL, RData: bytes.Clone(rr.RData)}
	t.serial = soaSerial(rr.RData)
	t.result.Serial = t.serial
	if t.q.have != nil && !t.q.have.Before(t.serial) {
		t.result.Kind, t.state = UpToDate, atEnd
		return
	}
	t.state = atSecond
}

// second takes the second record: an SOA with the serial held begins an
// incremental answer (RFC 1995, 4).
func (t *inbound) second(rr *Record, soa bool) error {
	serial := zone.Serial(0)
	if soa {
		serial = soaSerial(rr.RData)
	}
	if soa && t.q.have != nil && serial != t.serial {
		if serial != *t.q.have {
			return fmt.Errorf("%w: %d, not %d (%w)", errWrongStart, serial, *t.q.have, ErrBrokenIXFR)
		}
		t.result.Kind, t.last = IXFR, serial
		if err := t.sink.Begin(IXFR, &t.first); err != nil {
			return err
		}
		return t.oldSOA(rr)
	}
	t.result.Kind, t.state = AXFR, inZone
	if err := t.sink.Begin(AXFR, &t.first); err != nil {
		return err
	}
	if err := t.sink.Record(&t.first); err != nil {
		return err
	}
	if soa {
		return t.close(rr)
	}
	return t.sink.Record(rr)
}

// oldSOA takes the SOA that begins a step, or the last one.
func (t *inbound) oldSOA(rr *Record) error {
	serial := soaSerial(rr.RData)
	if t.state == inAdd && t.last == t.serial {
		return t.close(rr)
	}
	if serial != t.last {
		return fmt.Errorf("%w: %d follows %d (%w)", errSteps, serial, t.last, ErrBrokenIXFR)
	}
	t.step, t.state = serial, inDelete
	return t.sink.Delete(rr)
}

// newSOA takes the SOA in the middle of a step.
func (t *inbound) newSOA(rr *Record) error {
	t.last = soaSerial(rr.RData)
	if !t.step.Before(t.last) {
		return fmt.Errorf("%w: %d to %d (%w)", errNotNewer, t.step, t.last, ErrBrokenIXFR)
	}
	if t.serial.Before(t.last) {
		return fmt.Errorf("%w: %d is beyond %d (%w)", errSteps, t.last, t.serial, ErrBrokenIXFR)
	}
	t.state = inAdd
	return t.sink.Add(rr)
}

// close takes the last SOA.
func (t *inbound) close(rr *Record) error {
	if zone.CompareRData(zone.TypeSOA, rr.RData, t.first.RData) != 0 {
		if t.result.Kind == IXFR {
			return fmt.Errorf("%w (%w)", errLastSOA, ErrBrokenIXFR)
		}
		return errLastSOA
	}
	t.state = atEnd
	return nil
}

// message reads the next message; it is valid until the next call.
func (t *inbound) message() ([]byte, error) {
	if t.from == t.to {
		t.from, t.to = 0, 0
	}
	if !t.buffered() {
		deadline := time.Now().Add(t.limits.Idle)
		if t.end.Before(deadline) {
			deadline = t.end
		}
		_ = t.conn.SetReadDeadline(deadline) // where this fails, reading does and tells
	}
	if err := t.fill(2); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(t.buf[t.from:]))
	if t.result.Bytes += int64(n); t.result.Bytes > t.limits.MaxBytes {
		return nil, fmt.Errorf("%w: %d", errManyBytes, t.limits.MaxBytes)
	}
	if err := t.fill(2 + n); err != nil {
		return nil, err
	}
	msg := t.buf[t.from+2 : t.from+2+n]
	t.from += 2 + n
	return msg, nil
}

// buffered reports whether a whole message has been read already.
func (t *inbound) buffered() bool {
	have := t.buf[t.from:t.to]
	return len(have) >= 2 && len(have)-2 >= int(binary.BigEndian.Uint16(have))
}

// fill reads until n bytes stand in the buffer.
func (t *inbound) fill(n int) error {
	for t.to-t.from < n {
		if t.from > 0 && (len(t.buf)-t.from < n || t.to == len(t.buf)) {
			t.to = copy(t.buf, t.buf[t.from:t.to])
			t.from = 0
		}
		if len(t.buf) < n || t.to == len(t.buf) && len(t.buf) < maxBuffer {
			bigger := make([]byte, min(max(2*len(t.buf), n, minBuffer), maxBuffer))
			t.to = copy(bigger, t.buf[t.from:t.to])
			t.buf, t.from = bigger, 0
		}
		got, err := t.conn.Read(t.buf[t.to:])
		t.to += got
		if err != nil && t.to-t.from < n {
			return t.broken(err)
		}
	}
	return nil
}

// broken says why reading ended.
func (t *inbound) broken(err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(t.end):
		return fmt.Errorf("%w: %v", errLate, t.limits.MaxTime)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = fmt.Errorf("%w: %v", errIdle, t.limits.Idle)
	case errors.Is(err, io.EOF):
		err = errNoEnd
	}
	if t.state == atSecond {
		// Some servers answer so what they have no diffs for.
		return fmt.Errorf("%w: %w", err, errLoneSOA)
	}
	return err
}
