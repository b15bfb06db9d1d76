package zone

import (
	"encoding/binary"
	"runtime"
)

const (
	hashBatch      = 64 << 10
	maxHashWorkers = 4
)

// digester adds items to the content digest on goroutines of its own. A small
// zone is hashed where it stands.
type digester struct {
	batch   []byte // items: length of key (2), length of value (4), key, value
	full    chan []byte
	free    chan []byte
	results chan digestResult
	workers int
	done    bool
}

type digestResult struct {
	set SetHash
	err error
}

func newDigester() *digester { return &digester{} }

// add takes an item; key and value are copied.
func (d *digester) add(key, value []byte) {
	if len(d.batch)+len(key)+len(value)+6 > hashBatch && len(d.batch) > 0 {
		d.send()
	}
	d.batch = binary.LittleEndian.AppendUint16(d.batch, uint16(len(key)))
	d.batch = binary.LittleEndian.AppendUint32(d.batch, uint32(len(value)))
	d.batch = append(append(d.batch, key...), value...)
}

// send hands a full batch to the workers and takes an empty one.
func (d *digester) send() {
	if d.full == nil {
		n := min(runtime.GOMAXPROCS(0), maxHashWorkers)
		d.full, d.free = make(chan []byte, n), make(chan []byte, 3*n)
		d.results = make(chan digestResult, n)
		for range 3 * n {
			d.free <- nil
		}
		for range n {
			d.workers++
			go d.work()
		}
	}
	d.full <- d.batch
	d.batch = (<-d.free)[:0]
}

func (d *digester) work() {
	var h Hasher
	var first error
	for batch := range d.full {
		if err := h.addBatch(batch); err != nil && first == nil {
			first = err
		}
		d.free <- batch
	}
	d.results <- digestResult{h.Set, first}
}

func (h *Hasher) addBatch(batch []byte) error {
	for len(batch) > 0 {
		k := int(binary.LittleEndian.Uint16(batch))
		v := int(binary.LittleEndian.Uint32(batch[2:]))
		if err := h.AddContent(batch[6:6+k], batch[6+k:6+k+v]); err != nil {
			return err
		}
		batch = batch[6+k+v:]
	}
	return nil
}

// finish waits for the workers and returns the state; it may be called again,
// then for nothing.
func (d *digester) finish() (SetHash, error) {
	if d.done {
		return SetHash{}, nil
	}
	d.done = true
	var h Hasher
	err := h.addBatch(d.batch)
	if d.full == nil {
		return h.Set, err
	}
	close(d.full)
	for range d.workers {
		r := <-d.results
		h.Set.AddSet(&r.set)
		if err == nil {
			err = r.err
		}
	}
	return h.Set, err
}
