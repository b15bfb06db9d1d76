package keymgr

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// DS digest types (RFC 4509, 5; RFC 6605, 2).
const (
	DigestSHA256 = 2
	DigestSHA384 = 4
)

// DS is the DS RDATA of a key with owner (RFC 4034, 5.1): tag, algorithm,
// digest type and digest. It fails for another digest type.
func DS(owner zone.Name, rdata []byte, digest uint8) ([]byte, error) {
	if len(rdata) <= 4 {
		return nil, errBadKey
	}
	ds := binary.BigEndian.AppendUint16(nil, zone.KeyTag(rdata))
	ds = append(ds, rdata[3], digest)
	data := append([]byte(owner.Fold()), rdata...)
	switch digest {
	case DigestSHA256:
		sum := sha256.Sum256(data)
		return append(ds, sum[:]...), nil
	case DigestSHA384:
		sum := sha512.Sum384(data)
		return append(ds, sum[:]...), nil
	}
	return nil, fmt.Errorf("DS digest type %d is not supported", digest)
}

// Format is a form in which a key is shown to a parent.
type Format string

// The formats.
const (
	FormatDS      Format = "ds"
	FormatCDS     Format = "cds"     // RFC 7344, 3.1
	FormatCDNSKEY Format = "cdnskey" // RFC 7344, 3.2
	FormatDNSKEY  Format = "dnskey"
)

func parseFormat(s string) (Format, error) {
	switch f := Format(strings.ToLower(s)); f {
	case FormatDS, FormatCDS, FormatCDNSKEY, FormatDNSKEY:
		return f, nil
	}
	return "", fmt.Errorf("format %q: want ds, cds, cdnskey or dnskey", s)
}

// ParentRecords is the records of a key for its parent in the named format, ds,
// cds, cdnskey or dnskey in any case, a line in zone file form each: for ds and
// cds one for each digest type.
func ParentRecords(owner zone.Name, key event.Key, format string, digests []uint8, ttl uint32) ([]string, error) {
	rdata, err := RData(key)
	if err != nil {
		return nil, err
	}
	f, err := parseFormat(format)
	if err != nil {
		return nil, err
	}
	head := owner.String() + " " + strconv.FormatUint(uint64(ttl), 10) + " IN " + strings.ToUpper(string(f))
	if f == FormatDNSKEY || f == FormatCDNSKEY {
		return []string{fmt.Sprintf("%s %d %d %d %s", head,
			binary.BigEndian.Uint16(rdata), rdata[2], rdata[3], base64.StdEncoding.EncodeToString(rdata[4:]))}, nil
	}
	var out []string
	for _, digest := range digests {
		ds, err := DS(owner, rdata, digest)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("%s %d %d %d %X", head, binary.BigEndian.Uint16(ds), ds[2], ds[3], ds[4:]))
	}
	return out, nil
}
