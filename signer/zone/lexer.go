package zone

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// maxRecordText is the longest record in a zone file, in bytes of text
// without comments.
const maxRecordText = 1 << 20

// maxLexBuffer is what is read of a file at a time; a longer record makes
// the buffer grow.
const maxLexBuffer = 256 << 10

// token is one word of a record, escapes not yet resolved.
type token struct {
	text   []byte
	at     int // where it begins in its record, the quote included
	quoted bool
}

// end is where the token ends in its record.
func (t *token) end() int {
	if t.quoted {
		return t.at + len(t.text) + 2
	}
	return t.at + len(t.text)
}

// The classes of bytes in a zone file.
const (
	plain byte = iota
	blank
	newline
	comment
	quote
	open
	closing
	escape
	control
	nul
)

// byteClass is the class of each byte, indexed by it.
const byteClass = "" +
	"\x09\x08\x08\x08\x08\x08\x08\x08\x08\x01\x02\x08\x08\x01\x08\x08" +
	"\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08" +
	"\x01\x00\x04\x00\x00\x00\x00\x00\x05\x06\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x08" +
	plain64 + plain64

// plain64 is 64 times plain.
const plain64 = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

var (
	errTooLong     = fmt.Errorf("record longer than %d bytes", maxRecordText)
	errParenOpen   = errors.New("parenthesis is never closed")
	errParenClose  = errors.New("closing parenthesis without an opening one")
	errQuoteOpen   = errors.New("quote is not closed on its line")
	errControlByte = errors.New("control character")
	errNUL         = errors.New("NUL byte: this is not a zone file")
)

// lexer cuts a zone file into records of tokens.
type lexer struct {
	src     io.Reader
	buf     []byte // what was read and not yet used is buf[at:end]
	at, end int
	begun   bool // something was read
	eof     bool
	line    int // number of the line at buf[at]
	onRead  func(n int) error

	// The present record.
	tokens   []token
	indented bool // it begins with white space: the owner is that of the record before
	first    int  // line it begins on
	raw      []byte
	comments []region // texts of comments in it
}

// region is a part of the present record.
type region struct{ from, to int }

// newLexer reads src, which is about size bytes long.
func newLexer(src io.Reader, size int64, onRead func(n int) error) *lexer {
	return &lexer{src: src, line: 1, onRead: onRead, buf: make([]byte, min(max(size, 0)+512, maxLexBuffer))}
}

// next reads the next record that has tokens; io.EOF is the end. A
// recordError concerns this record alone, and reading may go on; any other
// error is final. Tokens are valid until the next call.
func (l *lexer) next() error {
	for {
		n, err := l.scan(l.buf[l.at:l.end])
		if errors.Is(err, errMore) {
			if err = l.more(); err != nil {
				return err
			}
			continue
		}
		l.raw = l.buf[l.at : l.at+n]
		l.at += n
		if err == nil && n-commentLength(l.comments) > maxRecordText {
			err = recordError{errTooLong}
		}
		if err != nil || len(l.tokens) > 0 {
			return err
		}
		if n == 0 {
			return io.EOF
		}
	}
}

// errMore asks for more of the file: the record does not end in the buffer.
var errMore = errors.New("more")

// recordError is an error that ends with its record.
type recordError struct{ error }

// commentLength is how long comments are together.
func commentLength(comments []region) int {
	n := 0
	for _, c := range comments {
		n += c.to - c.from
	}
	return n
}

// dropComments takes the comments out of a record that goes on behind the
// buffer, so that they take up no memory. Their semicolons and line ends
// stay; what is read next goes on with a comment that has not ended.
func (l *lexer) dropComments() {
	b := l.buf[l.at:l.end]
	to := 0
	for i, c := range l.comments {
		from := 0
		if i > 0 {
			from = l.comments[i-1].to
		}
		to += copy(b[to:], b[from:c.from])
	}
	if n := len(l.comments); n > 0 {
		to += copy(b[to:], b[l.comments[n-1].to:])
		l.end = l.at + to
	}
	l.comments = l.comments[:0]
}

// more reads on behind what the buffer holds.
func (l *lexer) more() error {
	l.dropComments()
	if l.end-l.at > maxRecordText {
		return errTooLong
	}
	if l.at > 0 {
		l.end = copy(l.buf, l.buf[l.at:l.end])
		l.at = 0
	}
	if l.end == len(l.buf) {
		grown := make([]byte, 2*len(l.buf))
		copy(grown, l.buf[:l.end])
		l.buf = grown
	}
	n, err := io.ReadFull(l.src, l.buf[l.end:])
	l.end += n
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		l.eof = true
	} else if err != nil {
		return err
	}
	if !l.begun && bytes.HasPrefix(l.buf[:l.end], []byte(byteOrderMark)) {
		l.at = len(byteOrderMark)
	}
	l.begun = true
	return l.onRead(n)
}

// byteOrderMark begins files that some editors write.
const byteOrderMark = "\xef\xbb\xbf"

// scan cuts the record at the start of b into tokens and reports how long it
// is, its line end included. It returns errMore when b may be only a part.
func (l *lexer) scan(b []byte) (int, error) {
	l.tokens, l.comments = l.tokens[:0], l.comments[:0]
	l.first = l.line
	l.indented = len(b) > 0 && byteClass[b[0]] == blank && b[0] != '\r'
	lines, depth := 0, 0
	for i := 0; i < len(b); {
		switch byteClass[b[i]] {
		case blank:
			i++
		case plain, escape:
			from := i
			if i = wordEnd(b, i); i == len(b) && !l.eof {
				return 0, errMore
			}
			l.tokens = append(l.tokens, token{text: b[from:i], at: from})
		case newline:
			i++
			lines++
			if depth == 0 {
				l.line += lines
				return i, nil
			}
		case comment:
			n := bytes.IndexByte(b[i:], '\n')
			if n < 0 {
				n = len(b) - i
			}
			l.comments = append(l.comments, region{i + 1, i + n})
			i += n
		case quote:
			n, err := quoted(b[i+1:])
			if errors.Is(err, errMore) && !l.eof {
				return 0, errMore
			}
			if err != nil {
				return l.skipLine(b, i, lines, errQuoteOpen)
			}
			l.tokens = append(l.tokens, token{text: b[i+1 : i+1+n], at: i, quoted: true})
			i += n + 2
		case open:
			depth++
			i++
		case closing:
			if depth == 0 {
				return l.skipLine(b, i, lines, errParenClose)
			}
			depth--
			i++
		case nul:
			return 0, errNUL
		default:
			return l.skipLine(b, i, lines, fmt.Errorf("%w 0x%02x", errControlByte, b[i]))
		}
	}
	if !l.eof {
		return 0, errMore
	}
	l.line += lines
	if depth > 0 {
		return len(b), recordError{errParenOpen}
	}
	return len(b), nil
}

// wordEnd is where the word that begins at b[i] ends.
func wordEnd(b []byte, i int) int {
	for i < len(b) {
		switch byteClass[b[i]] {
		case plain:
			i++
		case escape:
			// An escaped byte never ends a word, unless it is a line's end.
			if i+1 < len(b) && b[i+1] == '\n' {
				return i + 1
			}
			i += 2
		default:
			return i
		}
	}
	return len(b)
}

// skipLine drops the record up to the end of the line that b[i] stands on.
func (l *lexer) skipLine(b []byte, i, lines int, err error) (int, error) {
	n := bytes.IndexByte(b[i:], '\n')
	if n < 0 && !l.eof {
		return 0, errMore
	}
	if n < 0 {
		n = len(b) - i - 1
	}
	l.line += lines + 1
	return i + n + 1, recordError{err}
}

// quoted is the length of a quoted string whose opening quote stands before
// b.
func quoted(b []byte) (int, error) {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i, nil
		case '\\':
			i++
			if i < len(b) && b[i] == '\n' {
				return 0, errQuoteOpen
			}
		case '\n':
			return 0, errQuoteOpen
		case 0:
			return 0, errQuoteOpen
		}
	}
	return 0, errMore
}
