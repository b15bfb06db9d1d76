package zone

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

const (
	// maxGenerate is how many records one $GENERATE may make.
	maxGenerate = 1 << 20
	// maxGenerateWidth is the widest number that it writes.
	maxGenerateWidth = 255
)

var (
	errGenerateForm  = errors.New("want: $GENERATE start-stop[/step] owner [TTL] [class] type RDATA")
	errGenerateRange = fmt.Errorf("bad range; it is start-stop[/step] with at most %d numbers", maxGenerate)
	errGenerateSub   = errors.New("bad ${offset,width,base}")
)

// generate makes records as BIND's $GENERATE does.
func (r *reader) generate(s *fileState, args []token) error {
	wrap := func(err error) error { return recordError{fmt.Errorf("$GENERATE: %w", err)} }
	if len(args) < 4 {
		return wrap(errGenerateForm)
	}
	start, stop, step, err := parseRange(string(args[0].text))
	if err != nil {
		return wrap(err)
	}
	template := generateTemplate(args[1:])
	line, savedOrigin := s.lex.first, s.origin
	var text []byte
	for n := start; n <= stop; n += step {
		if text, err = expand(text[:0], template, n); err != nil {
			return wrap(err)
		}
		if len(text) > maxRecordText {
			return wrap(errTooLong)
		}
		one := newLexer(bytes.NewReader(text), int64(len(text)), func(int) error { return nil })
		if err := one.next(); err != nil {
			return wrap(fmt.Errorf("%w in %.80q", err, text))
		}
		if (n-start)/step%1024 == 0 && r.cancelled() != nil {
			return fatalError{r.cancelled()}
		}
		if err := r.record(s, one.tokens, false, line); err != nil {
			if bad, ok := errors.AsType[recordError](err); ok {
				return wrap(fmt.Errorf("%w in %.80q", bad.error, text))
			}
			return err
		}
	}
	s.origin = savedOrigin
	return nil
}

// parseRange reads start-stop[/step].
func parseRange(text string) (start, stop, step int64, err error) {
	span, stepText, haveStep := strings.Cut(text, "/")
	from, to, ok := strings.Cut(span, "-")
	a, okA := parseUint([]byte(from), maxTTL)
	b, okB := parseUint([]byte(to), maxTTL)
	c, okC := uint64(1), true
	if haveStep {
		c, okC = parseUint([]byte(stepText), maxTTL)
	}
	if !ok || !okA || !okB || !okC || c == 0 || a > b || (b-a)/c >= maxGenerate {
		return 0, 0, 0, errGenerateRange
	}
	return int64(a), int64(b), int64(c), nil
}

// generateTemplate writes the tokens after the range as one line. RDATA that
// is a single quoted string is taken without its quotes, and quotes escaped in
// it are quotes, as in BIND.
func generateTemplate(args []token) []byte {
	var line []byte
	for i, t := range args {
		if i > 0 {
			line = append(line, ' ')
		}
		switch {
		case !t.quoted:
			line = append(line, t.text...)
		case i == len(args)-1 && !args[i-1].quoted:
			line = append(line, bytes.ReplaceAll(t.text, []byte(`\"`), []byte(`"`))...)
		default:
			line = append(append(append(line, '"'), t.text...), '"')
		}
	}
	return line
}

// expand replaces each $ of template by n. $$ and \$ stand for a dollar sign;
// ${offset,width,base} changes how n is written.
func expand(dst, template []byte, n int64) ([]byte, error) {
	for i := 0; i < len(template); i++ {
		c := template[i]
		switch {
		case c == '\\' && i+1 < len(template):
			i++
			if template[i] != '$' {
				dst = append(dst, c)
			}
			dst = append(dst, template[i])
		case c != '$':
			dst = append(dst, c)
		case i+1 < len(template) && template[i+1] == '$':
			i++
			dst = append(dst, '$')
		case i+1 < len(template) && template[i+1] == '{':
			end := bytes.IndexByte(template[i:], '}')
			if end < 0 {
				return dst, errGenerateSub
			}
			var err error
			if dst, err = expandModifier(dst, string(template[i+2:i+end]), n); err != nil {
				return dst, err
			}
			i += end
		default:
			dst = strconv.AppendInt(dst, n, 10)
		}
		if len(dst) > maxRecordText {
			return dst, errTooLong
		}
	}
	return dst, nil
}

// expandModifier writes n as offset[,width[,base]] says.
func expandModifier(dst []byte, modifier string, n int64) ([]byte, error) {
	parts := strings.Split(modifier, ",")
	offset, err := strconv.ParseInt(parts[0], 10, 32)
	if err != nil || len(parts) > 3 {
		return dst, errGenerateSub
	}
	width, base := uint64(0), "d"
	if len(parts) > 1 {
		var ok bool
		if width, ok = parseUint([]byte(parts[1]), maxGenerateWidth); !ok {
			return dst, errGenerateSub
		}
	}
	if len(parts) > 2 {
		base = parts[2]
	}
	n += offset
	if n < 0 && base != "d" {
		return dst, fmt.Errorf("%w: %d is negative", errGenerateSub, n)
	}
	switch base {
	case "d":
		return fmt.Appendf(dst, "%0*d", int(width), n), nil
	case "o":
		return fmt.Appendf(dst, "%0*o", int(width), n), nil
	case "x":
		return fmt.Appendf(dst, "%0*x", int(width), n), nil
	case "X":
		return fmt.Appendf(dst, "%0*X", int(width), n), nil
	case "n", "N":
		return appendNibbles(dst, uint64(n), int(width), base == "N"), nil
	}
	return dst, errGenerateSub
}

// appendNibbles writes n as labels of one hexadecimal digit each, the lowest
// first, as reverse zones for IPv6 need; dots count for width.
func appendNibbles(dst []byte, n uint64, width int, upperCase bool) []byte {
	digits := "0123456789abcdef"
	if upperCase {
		digits = "0123456789ABCDEF"
	}
	for {
		dst = append(dst, digits[n&15])
		n >>= 4
		width--
		if n == 0 && width <= 0 {
			return dst
		}
		dst = append(dst, '.')
		width--
		if n == 0 && width <= 0 {
			return dst
		}
	}
}
