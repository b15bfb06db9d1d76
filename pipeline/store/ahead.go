package store

import "errors"

const (
	// aheadFrom is from how many changes on they are read beside what is done
	// with them.
	aheadFrom = 256
	// aheadBatch is how many bytes of changes are handed over at a time; three
	// batches are held at most.
	aheadBatch = 64 << 10
)

// changeFunc takes one change; the slices are valid during the call, and a
// value that is not there is nil.
type changeFunc func(key, before, after []byte) error

// changeBatch is a run of changes: ends tell where in buf key, value before and
// value after end.
type changeBatch struct {
	buf  []byte
	ends [][3]int
}

var errStopped = errors.New("nobody takes the changes any more")

// readAhead calls fn with every change that read finds, in order, while read
// goes on in a goroutine of its own, which has ended when readAhead returns.
func readAhead(read func(changeFunc) error, fn changeFunc) error {
	full, empty := make(chan *changeBatch, 3), make(chan *changeBatch, 3)
	stop := make(chan struct{})
	for range cap(empty) {
		empty <- new(changeBatch)
	}
	var failed error // written before full is closed
	go func() {
		defer close(full)
		var b *changeBatch
		failed = read(func(key, before, after []byte) error {
			if b == nil {
				select {
				case b = <-empty:
				case <-stop:
					return errStopped
				}
				b.buf, b.ends = b.buf[:0], b.ends[:0]
			}
			b.add(key, before, after)
			if len(b.buf) >= aheadBatch {
				full <- b // it has room for all
				b = nil
			}
			return nil
		})
		if b != nil && failed == nil {
			full <- b
		}
	}()
	var err error
	for b := range full {
		if err != nil {
			continue // until full is closed
		}
		if err = b.each(fn); err != nil {
			close(stop)
			continue
		}
		empty <- b // it has room for all
	}
	if err == nil {
		err = failed
	}
	return err
}

func (b *changeBatch) add(key, before, after []byte) {
	var ends [3]int
	for i, part := range [3][]byte{key, before, after} {
		b.buf = append(b.buf, part...)
		ends[i] = len(b.buf)
	}
	b.ends = append(b.ends, ends)
}

func (b *changeBatch) each(fn changeFunc) error {
	from := 0
	part := func(to int) []byte {
		p := b.buf[from:to:to]
		if from = to; len(p) == 0 {
			return nil
		}
		return p
	}
	for _, ends := range b.ends {
		if err := fn(part(ends[0]), part(ends[1]), part(ends[2])); err != nil {
			return err
		}
	}
	return nil
}
