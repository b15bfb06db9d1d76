package zone

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// libParser reads the types that rdataParser leaves to miekg/dns.
type libParser struct {
	text []byte
	wire []byte
}

// parse appends the RDATA that miekg/dns reads out of tokens.
func (l *libParser) parse(dst []byte, t Type, tokens []token, origin Name) ([]byte, error) {
	if _, known := dns.TypeToRR[uint16(t)]; !known {
		return dst, errUnknownForm
	}
	l.text = fmt.Appendf(l.text[:0], ". 0 IN %s", t)
	end := -1
	for i := range tokens {
		tok := &tokens[i]
		// What stands close together stays so: key="value".
		if tok.at != end {
			l.text = append(l.text, ' ')
		}
		// The library does not take the quotes of RFC 1712.
		if tok.quoted && t != Type(dns.TypeGPOS) {
			l.text = append(append(append(l.text, '"'), tok.text...), '"')
		} else {
			l.text = append(l.text, tok.text...)
		}
		end = tok.end()
	}
	l.text = append(l.text, '\n')
	zp := dns.NewZoneParser(bytes.NewReader(l.text), origin.String(), "")
	rr, ok := zp.Next()
	if err := zp.Err(); err != nil {
		return dst, fmt.Errorf("bad RDATA: %s", libraryMessage(err))
	}
	if !ok {
		return dst, errFewTokens
	}
	if l.wire == nil {
		l.wire = make([]byte, 0xffff+rrHeaderSize+256)
	}
	n, err := dns.PackRR(rr, l.wire, 0, nil, false)
	if err != nil {
		return dst, fmt.Errorf("bad RDATA: %s", libraryMessage(err))
	}
	return append(dst, l.wire[rrHeaderSize:n]...), nil
}

// libraryMessage is an error of miekg/dns without its own prefix and its
// position, which is that of a line made here.
func libraryMessage(err error) string {
	s := strings.TrimPrefix(err.Error(), "dns: ")
	if i := strings.LastIndex(s, " at line: "); i >= 0 {
		s = s[:i]
	}
	// The library loses some causes on their way here.
	if text, bare := strings.CutPrefix(s, ": "); bare {
		s = "the value does not fit its field: " + strings.ReplaceAll(text, `"\n"`, "the last one")
	}
	return s
}
