package xfr

import "sluice/signer/zone"

const (
	// batchSize is how many bytes of items are handed from the reading to the
	// encoding goroutine at a time.
	batchSize = 64 << 10
	// aheadFrom is the size of a zone from which on reading runs beside
	// encoding.
	aheadFrom = 256 << 10
)

// batch is a run of items: spans tell where in buf their values begin and end.
type batch struct {
	buf   []byte
	spans []span
}

type span struct{ mid, end int }

func (b *batch) reset() { b.buf, b.spans = b.buf[:0], b.spans[:0] }

func (b *batch) add(key, value []byte) {
	b.buf = append(b.buf, key...)
	mid := len(b.buf)
	b.buf = append(b.buf, value...)
	b.spans = append(b.spans, span{mid, len(b.buf)})
}

// ahead walks an iterator whose items a goroutine of its own reads some
// batches ahead.
type ahead struct {
	items   zone.Iterator
	full    chan *batch
	empty   chan *batch
	stopped chan struct{} // closed by Close
	err     error         // of items; read after full is closed

	now        *batch
	next, from int // the next item of now, and where it begins
	key, value []byte
	closed     bool
}

// readAhead takes items over; Close closes them too.
func readAhead(items zone.Iterator, batches *[3]batch) *ahead {
	a := &ahead{
		items: items, full: make(chan *batch, len(batches)), empty: make(chan *batch, len(batches)),
		stopped: make(chan struct{}),
	}
	for i := range batches {
		a.empty <- &batches[i]
	}
	go a.read()
	return a
}

// read fills batches until the items or the reader's wish for them end.
func (a *ahead) read() {
	defer close(a.full)
	for more := true; more; {
		var b *batch
		select {
		case b = <-a.empty:
		case <-a.stopped:
			return
		}
		b.reset()
		for len(b.buf) < batchSize {
			if more = a.items.Next(); !more {
				break
			}
			b.add(a.items.Key(), a.items.Value())
		}
		a.full <- b // it has room for all
	}
	a.err = a.items.Err()
}

// Next implements zone.Iterator.
func (a *ahead) Next() bool {
	for a.now == nil || a.next == len(a.now.spans) {
		if a.closed {
			return false
		}
		if a.now != nil {
			a.empty <- a.now // it has room for all
		}
		a.next, a.from, a.key, a.value = 0, 0, nil, nil
		if a.now = <-a.full; a.now == nil {
			return false
		}
	}
	s := a.now.spans[a.next]
	a.key, a.value = a.now.buf[a.from:s.mid], a.now.buf[s.mid:s.end]
	a.next, a.from = a.next+1, s.end
	return true
}

// Key implements zone.Iterator.
func (a *ahead) Key() []byte { return a.key }

// Value implements zone.Iterator.
func (a *ahead) Value() []byte { return a.value }

// Err implements zone.Iterator. It is called when Next has returned false.
func (a *ahead) Err() error { return a.err }

// Close waits until nothing is read any more, then closes the items.
func (a *ahead) Close() error {
	if a.closed {
		return nil
	}
	a.closed, a.now = true, nil
	close(a.stopped)
	for range a.full { // until it is closed
	}
	return a.items.Close()
}
