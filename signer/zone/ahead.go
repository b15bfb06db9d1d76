package zone

import "sync"

// Bounds of what Ahead reads before it is asked for.
const (
	aheadBatch   = 128 << 10 // bytes, or one item that is longer
	aheadBatches = 3
)

// Ahead walks it on a goroutine of its own, some 400 KiB before the reader,
// so that reading and what is done with the items share the work of two
// cores. Close ends the goroutine and closes it. Key and Value stay valid
// until the next call of Next.
func Ahead(it Iterator) Iterator {
	stop := make(chan struct{})
	a := &ahead{
		in: it, full: make(chan *itemBatch, aheadBatches), free: make(chan *itemBatch, aheadBatches),
		stop: sync.OnceFunc(func() { close(stop) }), ended: make(chan struct{}),
	}
	for range aheadBatches {
		a.free <- &itemBatch{}
	}
	go a.read(stop)
	return a
}

// ahead is what Ahead returns.
type ahead struct {
	in         Iterator
	full, free chan *itemBatch
	stop       func()
	ended      chan struct{} // closed once the goroutine is gone
	now        *itemBatch
	at         int // of now: the next item
	from       int // of now.data: where it begins
	key, value []byte
	err        error
	done       bool
}

// itemBatch holds items one after the other.
type itemBatch struct {
	data []byte
	ends []itemEnd
}

// itemEnd is where an item's key and its value end.
type itemEnd struct{ key, value int }

// read fills batches until the end of the input.
func (a *ahead) read(stop <-chan struct{}) {
	defer close(a.ended)
	defer close(a.full)
	for more := true; more; {
		var b *itemBatch
		select {
		case b = <-a.free:
		case <-stop:
			return
		}
		b.data, b.ends = b.data[:0], b.ends[:0]
		for len(b.data) < aheadBatch {
			if more = a.in.Next(); !more {
				break
			}
			b.data = append(b.data, a.in.Key()...)
			key := len(b.data)
			b.data = append(b.data, a.in.Value()...)
			b.ends = append(b.ends, itemEnd{key, len(b.data)})
		}
		a.full <- b // never blocks: there are no more batches than it holds
	}
}

// Next implements Iterator.
func (a *ahead) Next() bool {
	if a.done {
		return false
	}
	for a.now == nil || a.at == len(a.now.ends) {
		if a.now != nil {
			a.free <- a.now
		}
		b, ok := <-a.full
		if a.now, a.at, a.from = b, 0, 0; !ok {
			a.key, a.value, a.err = nil, nil, a.in.Err()
			a.done = true
			return false
		}
	}
	end := a.now.ends[a.at]
	a.key, a.value = a.now.data[a.from:end.key:end.key], a.now.data[end.key:end.value:end.value]
	a.at, a.from = a.at+1, end.value
	return true
}

// Key implements Iterator.
func (a *ahead) Key() []byte { return a.key }

// Value implements Iterator.
func (a *ahead) Value() []byte { return a.value }

// Err implements Iterator.
func (a *ahead) Err() error { return a.err }

// Close implements Iterator.
func (a *ahead) Close() error {
	a.stop()
	<-a.ended
	a.done = true
	return a.in.Close()
}
