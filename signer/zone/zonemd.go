package zone

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"

	"github.com/miekg/dns"
)

// ErrZONEMD reports a ZONEMD record that does not match its zone.
var ErrZONEMD = errors.New("ZONEMD does not match the zone (RFC 8976)")

// maxZONEMD is how many ZONEMD records at the apex are looked at.
const maxZONEMD = 16

// zoneDigest verifies the ZONEMD records of an input: the digest covers all
// records in canonical order, those of the signer's own included that the
// load drops (RFC 8976, 3.3).
type zoneDigest struct {
	own     grouper // the signer's own records
	haveOwn bool    // own stands on an RRset that is not yet hashed
	begun   bool
	apex    []byte // owner key
	serial  Serial
	records [][]byte // ZONEMD RDATA
	sha384  hash.Hash
	sha512  hash.Hash
	owner   []byte
	buf     []byte
}

func newZoneDigest(r *reader, own Iterator) *zoneDigest {
	z := &zoneDigest{own: grouper{in: own}, apex: r.apexKey, serial: r.serial, records: r.zonemd}
	z.begin()
	return z
}

// begin makes the hashes that are needed.
func (z *zoneDigest) begin() {
	for _, d := range z.records {
		switch z.usable(d) {
		case dns.ZoneMDHashAlgSHA384:
			z.sha384 = sha512.New384()
		case dns.ZoneMDHashAlgSHA512:
			z.sha512 = sha512.New()
		}
	}
}

// ZONEMDCheck verifies ZONEMD records of a zone that has no other records of
// the signer's own, from its items.
type ZONEMDCheck struct{ z zoneDigest }

// NewZONEMDCheck begins. records is the RDATA of the ZONEMD records at the
// apex, serial that of the SOA.
func NewZONEMDCheck(apex Name, serial Serial, records [][]byte) *ZONEMDCheck {
	c := &ZONEMDCheck{zoneDigest{apex: AppendOwnerKey(nil, apex), serial: serial, records: records}}
	c.z.begin()
	return c
}

// Add takes the items of KindContents in their order.
func (c *ZONEMDCheck) Add(key []byte, value Value) (err error) {
	_, ownerKey, t, err := SplitKey(key)
	if err != nil {
		return err
	}
	if c.z.owner, err = AppendNameOfKey(c.z.owner[:0], ownerKey); err != nil {
		return err
	}
	for data := range value.Records() {
		c.z.hashRecord(t, value.TTL(), data)
	}
	return nil
}

// Finish compares; ErrZONEMD, wrapped, where no record matches.
func (c *ZONEMDCheck) Finish() (ZONEMDOutcome, error) { return c.z.compare() }

// usable is the hash algorithm of ZONEMD RDATA, or 0 where this program
// cannot verify it: another scheme or hash, or two of the same (RFC 8976, 4).
func (z *zoneDigest) usable(rdata []byte) byte {
	if len(rdata) < 6 || rdata[4] != dns.ZoneMDSchemeSimple {
		return 0
	}
	same := 0
	for _, d := range z.records {
		if len(d) >= 6 && d[4] == rdata[4] && d[5] == rdata[5] {
			same++
		}
	}
	if same > 1 || (rdata[5] != dns.ZoneMDHashAlgSHA384 && rdata[5] != dns.ZoneMDHashAlgSHA512) {
		return 0
	}
	return rdata[5]
}

// contents hashes an RRset of the contents, and before it what of the
// signer's own stands before it.
func (z *zoneDigest) contents(g *grouper) error {
	if !z.begun {
		z.begun, z.haveOwn = true, z.own.next()
	}
	for z.haveOwn && bytes.Compare(z.own.key, g.key) < 0 {
		if err := z.hash(&z.own); err != nil {
			return err
		}
		z.haveOwn = z.own.next()
	}
	return z.hash(g)
}

// hash adds an RRset in canonical form.
func (z *zoneDigest) hash(g *grouper) (err error) {
	ownerKey, t := g.key[1:len(g.key)-2], g.recordType()
	atApex := bytes.Equal(ownerKey, z.apex)
	if atApex && t == TypeZONEMD {
		return nil
	}
	if z.owner, err = AppendNameOfKey(z.owner[:0], ownerKey); err != nil {
		return err
	}
	for i := range g.records {
		r := &g.records[i]
		if atApex && t == TypeRRSIG && Type(binary.BigEndian.Uint16(r.rdata)) == TypeZONEMD {
			continue
		}
		z.hashRecord(t, r.ttl, r.rdata)
	}
	return nil
}

// hashRecord adds a record of the present owner.
func (z *zoneDigest) hashRecord(t Type, ttl uint32, rdata []byte) {
	b := append(z.buf[:0], z.owner...)
	b = append(b, byte(t>>8), byte(t), 0, 1)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = append(b, byte(len(rdata)>>8), byte(len(rdata)))
	z.buf = AppendCanonicalRData(b, t, rdata)
	if z.sha384 != nil {
		z.sha384.Write(z.buf)
	}
	if z.sha512 != nil {
		z.sha512.Write(z.buf)
	}
}

// finish ends the walk and compares. One record that matches is enough (RFC 8976, 4).
func (z *zoneDigest) finish() (ZONEMDOutcome, error) {
	if !z.begun {
		z.begun, z.haveOwn = true, z.own.next()
	}
	for ; z.haveOwn; z.haveOwn = z.own.next() {
		if err := z.hash(&z.own); err != nil {
			return "", err
		}
	}
	if err := z.own.in.Err(); err != nil {
		return "", fmt.Errorf("sort zone: %w", err)
	}
	return z.compare()
}

// compare holds the digests against the records.
func (z *zoneDigest) compare() (ZONEMDOutcome, error) {
	var mismatch error
	for _, d := range z.records {
		var sum []byte
		switch z.usable(d) {
		case dns.ZoneMDHashAlgSHA384:
			sum = z.sha384.Sum(nil)
		case dns.ZoneMDHashAlgSHA512:
			sum = z.sha512.Sum(nil)
		default:
			continue
		}
		if s := Serial(binary.BigEndian.Uint32(d)); s != z.serial {
			mismatch = fmt.Errorf("%w: its serial is %d, that of the SOA %d", ErrZONEMD, s, z.serial)
			continue
		}
		if !bytes.Equal(sum, d[6:]) {
			mismatch = fmt.Errorf("%w: digest %x, computed %x", ErrZONEMD, d[6:], sum)
			continue
		}
		return ZONEMDVerified, nil
	}
	if mismatch != nil {
		return "", mismatch
	}
	return ZONEMDUnsupported, nil
}
