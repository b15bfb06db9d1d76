package keymgr

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

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

// ParseFormat reads a format's name, in any case.
func ParseFormat(s string) (Format, error) {
	switch f := Format(strings.ToLower(s)); f {
	case FormatDS, FormatCDS, FormatCDNSKEY, FormatDNSKEY:
		return f, nil
	}
	return "", fmt.Errorf("format %q: want ds, cds, cdnskey or dnskey", s)
}

// Record is one line in zone file form, without a TTL: the record of a key for
// its parent. digest matters to DS and CDS only.
func Record(f Format, owner zone.Name, rdata []byte, digest uint8) (string, error) {
	if len(rdata) <= 4 {
		return "", errBadKey
	}
	head := owner.String() + " IN " + strings.ToUpper(string(f)) + " "
	switch f {
	case FormatDS, FormatCDS:
		ds, err := DS(owner, rdata, digest)
		if err != nil {
			return "", err
		}
		return head + strconv.Itoa(int(binary.BigEndian.Uint16(ds))) + " " + strconv.Itoa(int(ds[2])) + " " +
			strconv.Itoa(int(ds[3])) + " " + strings.ToUpper(hex.EncodeToString(ds[4:])), nil
	case FormatDNSKEY, FormatCDNSKEY:
		return head + strconv.Itoa(int(binary.BigEndian.Uint16(rdata))) + " " + strconv.Itoa(int(rdata[2])) + " " +
			strconv.Itoa(int(rdata[3])) + " " + base64.StdEncoding.EncodeToString(rdata[4:]), nil
	}
	return "", fmt.Errorf("format %q is not known", f)
}
