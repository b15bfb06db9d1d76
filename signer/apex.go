package signer

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"sluice/signer/zone"
)

// soaFields says where the serial of SOA RDATA stands and what its minimum
// is.
func soaFields(rdata []byte) (serialAt int, minimum uint32, err error) {
	for range 2 {
		n, err := zone.NameLength(rdata[serialAt:])
		if err != nil {
			return 0, 0, fmt.Errorf("SOA: %w", err)
		}
		serialAt += n
	}
	if len(rdata) != serialAt+20 {
		return 0, 0, errors.New("SOA: wrong length")
	}
	return serialAt, binary.BigEndian.Uint32(rdata[serialAt+16:]), nil
}

// addApexSets gives the apex its made RRsets. NSEC comes later.
func (r *run) addApexSets(n *node) error {
	if err := r.replaceSOA(n); err != nil {
		return err
	}
	for _, s := range n.sets {
		if !s.isMade && zone.SignersOwn(s.typ, true) {
			return fmt.Errorf("contents hold %v at the apex, which is the signer's own", s.typ)
		}
	}
	var keys, cds, cdnskey [][]byte
	for _, k := range r.given {
		if k.Published {
			keys = append(keys, k.DNSKEY)
		}
		if k.CDS && !r.params.CDSDelete {
			cdnskey = append(cdnskey, k.DNSKEY)
			for _, digest := range r.params.CDSDigest {
				d, err := dsRData(r.apex, k.DNSKEY, digest)
				if err != nil {
					return err
				}
				cds = append(cds, d)
			}
		}
	}
	if r.params.CDSDelete {
		cds, cdnskey = [][]byte{{0, 0, 0, 0, 0}}, [][]byte{{0, 0, 3, 0, 0}}
	}
	ttl := r.params.DNSKEYTTL
	n.addMade(zone.TypeDNSKEY, ttl, keys)
	n.addMade(zone.TypeCDS, ttl, cds)
	n.addMade(zone.TypeCDNSKEY, ttl, cdnskey)
	if r.params.Denial != NSEC {
		n.addMade(zone.TypeNSEC3PARAM, 0, [][]byte{r.params.nsec3Param()})
	}
	if r.params.ZONEMD {
		n.add(zone.TypeZONEMD, nil, false, true)
	}
	n.sort()
	return nil
}

func (n *node) addMade(t zone.Type, ttl uint32, rdata [][]byte) {
	if len(rdata) == 0 {
		return
	}
	n.add(t, zone.AppendValue(nil, zone.Root, ttl, zone.SortRData(t, rdata)...), false, true)
}

// replaceSOA puts our serial into the SOA and takes note of its times.
func (r *run) replaceSOA(n *node) error {
	for i := range n.sets {
		s := &n.sets[i]
		if s.typ != zone.TypeSOA {
			continue
		}
		old := zone.Value(bytes.Clone(n.arena[s.value.from:s.value.to]))
		if old.Count() != 1 {
			return errors.New("contents hold more than one SOA record")
		}
		for rdata := range old.Records() {
			at, minimum, err := soaFields(rdata)
			if err != nil {
				return err
			}
			r.denialTTL, r.soaTTL = min(old.TTL(), minimum), old.TTL()
			if r.full {
				if err := r.hasher.RemoveContent(zone.AppendKey(nil, zone.KindContents, r.params.Apex, zone.TypeSOA), old); err != nil {
					return err
				}
			}
			binary.BigEndian.PutUint32(rdata[at:], uint32(r.params.Serial))
		}
		copy(n.arena[s.value.from:s.value.to], old)
		s.isMade = true
		return nil
	}
	return errors.New("contents have no SOA record")
}

// trustKeys finds out which keys' previous signatures are known by algorithm
// and tag alone: those of keys that stood in the previous DNSKEY RRset, no
// other key there or here having the same.
func (r *run) trustKeys(previous zone.Value) {
	if previous == nil {
		return
	}
	all := slices.Concat(r.keys, r.former)
	for _, k := range all {
		found, alike := false, 0
		for rdata := range previous.Records() {
			switch {
			case bytes.Equal(rdata, k.rdata):
				found = true
			case len(rdata) > 4 && rdata[3] == k.alg && zone.KeyTag(rdata) == k.tag:
				alike++
			}
		}
		for _, o := range all {
			if !bytes.Equal(o.rdata, k.rdata) && o.alg == k.alg && o.tag == k.tag {
				alike++
			}
		}
		k.trusted = found && alike == 0
	}
}

// dsRData is DS RDATA for a key (RFC 4034, 5.1).
func dsRData(apex zone.Name, dnskey []byte, digest uint8) ([]byte, error) {
	if len(dnskey) < 4 {
		return nil, errors.New("DNSKEY RDATA too short")
	}
	tag := zone.KeyTag(dnskey)
	d := []byte{byte(tag >> 8), byte(tag), dnskey[3], digest}
	signed := append([]byte(apex.Fold()), dnskey...)
	switch digest {
	case 2:
		sum := sha256.Sum256(signed)
		return append(d, sum[:]...), nil
	case 4:
		sum := sha512.Sum384(signed)
		return append(d, sum[:]...), nil
	}
	return nil, fmt.Errorf("DS digest type %d is not supported", digest)
}
