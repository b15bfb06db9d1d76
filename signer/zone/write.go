package zone

import (
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
)

const writeBuffer = 64 << 10

// Writer writes items as a zone file: one record a line, absolute names, TTL
// and class on each, RRSIGs where their items stand. A type without a known
// presentation form is written as RFC 3597 says. What it writes, Load reads
// back as the same items.
type Writer struct {
	out   io.Writer
	buf   []byte
	owner []byte // the last owner as text
	key   []byte // its owner key
	err   error
}

// NewWriter makes a Writer. It buffers; Flush writes what is left.
func NewWriter(w io.Writer) *Writer { return &Writer{out: w, buf: make([]byte, 0, 4<<10)} }

// WriteItem writes the records of an item.
func (w *Writer) WriteItem(key, value []byte) error {
	if w.err != nil {
		return w.err
	}
	kind, ownerKey, t, err := SplitKey(key)
	if err != nil {
		return err
	}
	v := Value(value)
	if err := v.Check(); err != nil {
		return err
	}
	if kind == KindSigs || kind == KindChainSigs {
		t = TypeRRSIG
	}
	if owner := v.Owner(); owner != nil {
		w.owner, w.key = appendNameAsText(w.owner[:0], owner), w.key[:0]
	} else if string(w.key) != string(ownerKey) {
		var buf [MaxNameLength + 64]byte
		name, err := AppendNameOfKey(buf[:0], ownerKey)
		if err != nil {
			return err
		}
		w.owner, w.key = appendNameAsText(w.owner[:0], name), append(w.key[:0], ownerKey...)
	}
	for b := v.body(); len(b) > 0; {
		n := 2 + int(binary.BigEndian.Uint16(b))
		w.buf = appendRecordText(w.buf, w.owner, v.TTL(), t, b[2:n])
		w.buf = append(w.buf, '\n')
		if b = b[n:]; len(w.buf) >= writeBuffer {
			if err := w.Flush(); err != nil {
				return err
			}
		}
	}
	return nil
}

// Flush writes what is buffered.
func (w *Writer) Flush() error {
	if w.err == nil && len(w.buf) > 0 {
		if _, err := w.out.Write(w.buf); err != nil {
			w.err = fmt.Errorf("write zone file: %w", err)
		}
		w.buf = w.buf[:0]
	}
	return w.err
}

// RecordTexts is each record of an item as a line of a zone file, without
// the line's end; none for a deletion.
func RecordTexts(key, value []byte) ([]string, error) {
	if len(value) == 0 {
		return nil, nil
	}
	set, err := RRsetOf(key, value)
	if err != nil {
		return nil, err
	}
	if k := Kind(key[0]); k == KindSigs || k == KindChainSigs {
		set.Type = TypeRRSIG
	}
	owner := set.Owner.AppendText(nil)
	texts := make([]string, len(set.Data))
	for i, d := range set.Data {
		texts[i] = string(appendRecordText(nil, owner, set.TTL, set.Type, d))
	}
	return texts, nil
}

// RDataText is RDATA of type t in presentation form.
func RDataText(t Type, rdata []byte) string { return string(appendRDataText(nil, t, rdata)) }

func appendRecordText(dst, owner []byte, ttl uint32, t Type, rdata []byte) []byte {
	dst = append(append(dst, owner...), '\t')
	dst = strconv.AppendUint(dst, uint64(ttl), 10)
	dst = append(dst, "\tIN\t"...)
	dst = append(append(dst, typeText(t)...), '\t')
	return appendRDataText(dst, t, rdata)
}

// typeText is t.String without looking common types up.
func typeText(t Type) string {
	switch t {
	case TypeA:
		return "A"
	case TypeNS:
		return "NS"
	case TypeDS:
		return "DS"
	case TypeAAAA:
		return "AAAA"
	case TypeRRSIG:
		return "RRSIG"
	case TypeNSEC:
		return "NSEC"
	case TypeNSEC3:
		return "NSEC3"
	case TypeCNAME:
		return "CNAME"
	case TypeMX:
		return "MX"
	case TypeTXT:
		return "TXT"
	default:
		return t.String()
	}
}
