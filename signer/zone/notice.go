package zone

import "fmt"

// What a load tells an operator, beside errors.
const (
	noticeClamped    = "TTLs above the limit were lowered"
	noticeMixedTTL   = "RRsets have several TTLs; the lowest is taken (RFC 2181, 5.2)"
	noticeDuplicates = "duplicate records were dropped"
	noticeZONEMD     = "ZONEMD was not verified: no scheme and hash that is supported"
)

// noticeList counts notices by what they say and keeps where each was met
// first.
type noticeList struct {
	order []string
	seen  map[string]*noticeCount
}

type noticeCount struct {
	n     int
	file  string
	first int
}

func (l *noticeList) add(what, file string, line int) { l.addN(what, file, line, 1) }

func (l *noticeList) addN(what, file string, line, n int) {
	if c := l.seen[what]; c != nil {
		c.n += n
		return
	}
	if l.seen == nil {
		l.seen = map[string]*noticeCount{}
	}
	l.seen[what] = &noticeCount{n, file, line}
	l.order = append(l.order, what)
}

// lines is one line for each kind of notice.
func (l *noticeList) lines() []string {
	var lines []string
	for _, what := range l.order {
		c := l.seen[what]
		s := what
		switch {
		case c.file != "" && c.first > 0:
			s = fmt.Sprintf("%s: %d, first at %s:%d", what, c.n, c.file, c.first)
		case c.n > 1:
			s = fmt.Sprintf("%s: %d", what, c.n)
		}
		lines = append(lines, s)
	}
	return lines
}
