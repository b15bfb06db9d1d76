package zone

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/dns"
)

var (
	errServiceAlias     = errors.New("SvcParams where the priority is 0 (RFC 9460, 2.4.2)")
	errServiceMandatory = errors.New("mandatory must list valid keys, each once, in order, and not itself (RFC 9460, 8)")
	errServiceMissing   = errors.New("a key that mandatory lists is missing (RFC 9460, 8)")
	errServiceALPN      = errors.New("empty alpn (RFC 9460, 7.1.1)")
	errServiceDefault   = errors.New("no-default-alpn without alpn (RFC 9460, 7.1.1)")
)

// checkService checks that SVCB or HTTPS RDATA agrees with itself (RFC 9460,
// 2.4.3): secondaries refuse a zone where it does not. Its parts must have
// been checked by checkByLibrary.
func checkService(rdata []byte) error {
	if len(rdata) < 2 {
		return errBadRData
	}
	n, err := NameLength(rdata[2:])
	if err != nil {
		return fmt.Errorf("%w: %w", errBadRData, err)
	}
	params := rdata[2+n:]
	if binary.BigEndian.Uint16(rdata) == 0 && len(params) > 0 {
		return errServiceAlias
	}
	var mandatory []byte // keys that are still to come
	alpn := false
	for len(params) > 0 {
		if len(params) < 4 || len(params)-4 < int(binary.BigEndian.Uint16(params[2:])) {
			return errBadRData
		}
		key := dns.SVCBKey(binary.BigEndian.Uint16(params))
		value := params[4 : 4+int(binary.BigEndian.Uint16(params[2:]))]
		params = params[4+len(value):]
		switch key {
		case dns.SVCB_MANDATORY:
			if !mandatoryInOrder(value) {
				return errServiceMandatory
			}
			mandatory = value
			continue
		case dns.SVCB_ALPN:
			if alpn = true; !filledStrings(value) {
				return errServiceALPN
			}
		case dns.SVCB_NO_DEFAULT_ALPN:
			if !alpn {
				return errServiceDefault
			}
		default:
		}
		// Both lists ascend.
		if len(mandatory) > 0 && key == dns.SVCBKey(binary.BigEndian.Uint16(mandatory)) {
			mandatory = mandatory[2:]
		}
	}
	if len(mandatory) > 0 {
		return fmt.Errorf("%w: %s", errServiceMissing, dns.SVCBKey(binary.BigEndian.Uint16(mandatory)))
	}
	return nil
}

// mandatoryInOrder reports whether the value of mandatory lists at least one
// key, in ascending order, and neither mandatory itself, which is key 0, nor
// the invalid key 65535 (RFC 9460, 14.3.2).
func mandatoryInOrder(value []byte) bool {
	var last uint16
	for i := 0; i+1 < len(value); i += 2 {
		key := binary.BigEndian.Uint16(value[i:])
		if key <= last || key == 0xffff {
			return false
		}
		last = key
	}
	return len(value) > 0 && len(value)%2 == 0
}

// filledStrings reports whether value is character-strings, none of them
// empty.
func filledStrings(value []byte) bool {
	for rest := value; len(rest) > 0; rest = rest[1+int(rest[0]):] {
		if rest[0] == 0 || len(rest) < 1+int(rest[0]) {
			return false
		}
	}
	return len(value) > 0
}
