package zone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Receiver takes a zone record by record, as a transfer brings it, through
// the same checks, sorting and counting as Load. It is for one goroutine.
type Receiver struct {
	r     *reader
	s     *fileState
	count int
}

// NewReceiver begins a zone. opts.File names the peer in errors, whose "line"
// is the number of the record in the transfer; opts.FS and opts.Progress are
// not used.
func NewReceiver(ctx context.Context, opts LoadOptions) (*Receiver, error) {
	opts = opts.withDefaults()
	if _, err := NameFromWire([]byte(opts.Origin)); err != nil {
		return nil, fmt.Errorf("origin %q: %w", string(opts.Origin), err)
	}
	r := newReader(ctx, opts)
	r.files = []string{opts.File}
	return &Receiver{r: r, s: &fileState{}}, nil
}

// Add takes one record: its owner in wire form with its case, and its
// uncompressed RDATA. What is wrong with the record is collected for Finish;
// an error means that the zone cannot be taken at all.
func (c *Receiver) Add(owner []byte, t Type, ttl uint32, rdata []byte) error {
	if err := c.r.cancelled(); err != nil {
		return err
	}
	c.count++
	err := c.add(owner, t, ttl, rdata)
	if bad, ok := errors.AsType[recordError](err); ok {
		c.r.errs.add(FileError{
			File: c.r.opts.File, Line: c.count, Err: bad.error, Record: fmt.Sprintf("%s %s", Name(owner), t),
		})
		return nil
	}
	return err
}

func (c *Receiver) add(owner []byte, t Type, ttl uint32, rdata []byte) error {
	r, s := c.r, c.s
	if !bytes.Equal(owner, s.owner) || s.owner == nil {
		s.owner = append(s.owner[:0], owner...)
		s.key = appendOwnerKey(s.key[:0], s.owner)
		s.folded = isFolded(s.owner)
		s.inZone = bytes.HasPrefix(s.key, r.apexKey[:len(r.apexKey)-1])
	}
	if !s.inZone {
		return recordError{fmt.Errorf("%w: %s is not below %s", errOutOfZone, Name(owner), r.opts.Origin)}
	}
	if err := CheckType(t); err != nil {
		return recordError{err}
	}
	if err := CheckRData(t, rdata); err != nil {
		return recordError{fmt.Errorf("%s: %w", t, err)}
	}
	if r.opts.MaxTTL != 0 && ttl > r.opts.MaxTTL {
		if !r.opts.ClampTTL {
			return recordError{fmt.Errorf("%w: %d, the limit is %d", errTTLTooHigh, ttl, r.opts.MaxTTL)}
		}
		r.notices.add(noticeClamped, r.opts.File, c.count)
	}
	return r.put(s, t, ttl, rdata, c.count)
}

// Finish ends the zone. Its error is a *LoadError where records or the zone
// as a whole are wrong, as Load's is.
func (c *Receiver) Finish() (*Loaded, error) {
	r := c.r
	if r.errs.list.Total == 0 {
		r.checkWhole()
	}
	if err := r.errs.err(); err != nil {
		return nil, errors.Join(err, r.closeSorters())
	}
	return r.loaded()
}

// Close frees what a Receiver holds that is not finished.
func (c *Receiver) Close() error { return c.r.closeSorters() }
