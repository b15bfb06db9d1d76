package signer

import (
	"bufio"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"sluice/signer/zone"
)

// The values of a ZONEMD record (RFC 8976, 5).
const (
	zonemdSimple = 1
	zonemdSHA384 = 1
	zonemdSHA512 = 2
)

// zonemdHash digests a zone by the SIMPLE scheme (RFC 8976, 3.3.1). Its items
// come by owner, then by type, RRSIGs with the type that they cover. RRSIG
// being a type of its own in the digest, the RRSIGs of a name are held until
// the name is over, and so are the types above RRSIG.
type zonemdHash struct {
	hash    hash.Hash
	apexKey []byte
	owner   []byte // owner key
	name    []byte
	record  []byte
	sigs    []byte
	later   []byte
}

func newZONEMDHash(algorithm uint8, apexKey []byte) *zonemdHash {
	z := &zonemdHash{apexKey: apexKey, hash: sha512.New384()}
	if algorithm == zonemdSHA512 {
		z.hash = sha512.New()
	}
	return z
}

// add takes one item; the apex ZONEMD RRset and its RRSIGs are left out.
func (z *zonemdHash) add(key, value []byte) error {
	kind, ownerKey, t, err := zone.SplitKey(key)
	if err != nil {
		return err
	}
	if string(ownerKey) != string(z.owner) {
		z.flush()
		z.owner = append(z.owner[:0], ownerKey...)
		if z.name, err = zone.AppendNameOfKey(z.name[:0], ownerKey); err != nil {
			return err
		}
	}
	if t == zone.TypeZONEMD && string(ownerKey) == string(z.apexKey) {
		return nil
	}
	v := zone.Value(value)
	switch {
	case kind == zone.KindSigs || kind == zone.KindChainSigs:
		z.sigs = appendSignedRRs(z.sigs, z.name, zone.TypeRRSIG, v.TTL(), v)
	case t > zone.TypeRRSIG:
		z.later = appendSignedRRs(z.later, z.name, t, v.TTL(), v)
	default:
		z.record = appendSignedRRs(z.record[:0], z.name, t, v.TTL(), v)
		z.hash.Write(z.record)
	}
	return nil
}

func (z *zonemdHash) flush() {
	z.hash.Write(z.sigs)
	z.hash.Write(z.later)
	z.sigs, z.later = z.sigs[:0], z.later[:0]
}

func (z *zonemdHash) sum() []byte {
	z.flush()
	return z.hash.Sum(nil)
}

// digestForZONEMD keeps an item of the signed zone for the digest. It is
// called by producer and collector at once.
func (r *run) digestForZONEMD(key, value []byte) error {
	if !r.params.ZONEMD {
		return nil
	}
	r.zonemdMu.Lock()
	defer r.zonemdMu.Unlock()
	r.zonemdKey = append(append(r.zonemdKey[:0], key[1:]...), key[0])
	return r.zonemdSort.Add(r.zonemdKey, value)
}

// zonemdValue is the value of the ZONEMD RRset of all items kept.
func (r *run) zonemdValue() ([]byte, error) {
	sorted, err := r.zonemdSort.Sort()
	if err != nil {
		return nil, fmt.Errorf("sort for ZONEMD: %w", err)
	}
	z := newZONEMDHash(zonemdSHA384, r.apexKey)
	var key []byte
	for sorted.Next() {
		k := sorted.Key()
		key = append(append(key[:0], k[len(k)-1]), k[:len(k)-1]...)
		if err := z.add(key, sorted.Value()); err != nil {
			return nil, errors.Join(err, sorted.Close())
		}
	}
	if err := errors.Join(sorted.Err(), sorted.Close()); err != nil {
		return nil, fmt.Errorf("sort for ZONEMD: %w", err)
	}
	rdata := binary.BigEndian.AppendUint32(nil, uint32(r.params.Serial))
	rdata = append(rdata, zonemdSimple, zonemdSHA384)
	rdata = append(rdata, z.sum()...)
	return zone.AppendValue(nil, zone.Root, r.soaTTL, rdata), nil
}

// heldUnit is the ZONEMD RRset: its place is at the apex, its value is known
// when all else is made.
type heldUnit struct {
	unit        unit
	owner, key  []byte
	before, old []byte // previous value and RRSIGs
}

func (h *heldUnit) set(b *batch, u *unit, owner, key []byte) {
	h.unit = *u
	h.owner = append([]byte(nil), owner...)
	h.key = append([]byte(nil), key...)
	h.before = append([]byte(nil), b.bytes(u.before)...)
	h.old = append([]byte(nil), b.bytes(u.sigs)...)
}

// batch makes a batch of the one unit.
func (h *heldUnit) batch(value []byte) *batch {
	b, u := &batch{}, h.unit
	u.before, u.sigs = b.add(h.before), b.add(h.old)
	u.owner, u.key, u.value = b.add(h.owner), b.add(h.key), b.add(value)
	u.same = u.existed && string(h.before) == string(value)
	b.units = append(b.units, u)
	return b
}

// delayed writes items to a spill file, so that the ZONEMD record, which is
// made last, can go to its place among them.
type delayed struct {
	file zone.SpillFile
	buf  *bufio.Writer
	size int64
	head [8]byte
}

func newDelayed(s zone.Spill) (*delayed, error) {
	if s == nil {
		return nil, errors.New("ZONEMD needs a spill")
	}
	f, err := s.Create()
	if err != nil {
		return nil, fmt.Errorf("create spill file: %w", err)
	}
	return &delayed{file: f, buf: bufio.NewWriterSize(f, 128<<10)}, nil
}

// Put implements Sink.
func (d *delayed) Put(key, value []byte) error {
	binary.BigEndian.PutUint32(d.head[:], uint32(len(key)))
	binary.BigEndian.PutUint32(d.head[4:], uint32(len(value)))
	for _, p := range [3][]byte{d.head[:], key, value} {
		if _, err := d.buf.Write(p); err != nil {
			return fmt.Errorf("write spill file: %w", err)
		}
	}
	d.size += int64(len(d.head) + len(key) + len(value))
	return nil
}

// replay hands all items to sink, those of held in their places.
func (d *delayed) replay(sink Sink, held []zone.Item) error {
	if err := d.buf.Flush(); err != nil {
		return fmt.Errorf("write spill file: %w", err)
	}
	in := bufio.NewReaderSize(io.NewSectionReader(d.file, 0, d.size), 128<<10)
	var buf []byte
	for read := int64(0); read < d.size; {
		if _, err := io.ReadFull(in, d.head[:]); err != nil {
			return fmt.Errorf("read spill file: %w", err)
		}
		n := int(binary.BigEndian.Uint32(d.head[:]))
		total := n + int(binary.BigEndian.Uint32(d.head[4:]))
		if cap(buf) < total {
			buf = make([]byte, total+total/2)
		}
		buf = buf[:total]
		if _, err := io.ReadFull(in, buf); err != nil {
			return fmt.Errorf("read spill file: %w", err)
		}
		read += int64(len(d.head) + total)
		for i := 0; i < len(held); i++ {
			if h := held[i]; h.Key[0] == buf[0] && string(h.Key) < string(buf[:n]) {
				if err := sink.Put(h.Key, h.Value); err != nil {
					return err
				}
				held = slices.Delete(held, i, i+1)
				i--
			}
		}
		if err := sink.Put(buf[:n], buf[n:]); err != nil {
			return err
		}
	}
	for _, h := range held {
		if err := sink.Put(h.Key, h.Value); err != nil {
			return err
		}
	}
	return nil
}

func (d *delayed) close() error { return d.file.Close() }
