package cli

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"

	"sluice/pipeline"
	"sluice/signer/zone"
)

// parseTime reads a time: RFC 3339, @N (epoch seconds), YYYYMMDDHHMMSS in UTC,
// plain epoch seconds, or a duration from now with a sign, such as +2w.
func parseTime(text string, now time.Time) (time.Time, error) {
	bad := usagef("time %q: want RFC 3339, @SECONDS, YYYYMMDDHHMMSS, or a duration from now such as +14d or -1h", text)
	if len(text) == 0 {
		return time.Time{}, bad
	}
	switch text[0] {
	case '+', '-':
		d, err := pipeline.ParseDuration(text[1:])
		if err != nil {
			return time.Time{}, bad
		}
		if text[0] == '-' {
			d = -d
		}
		return now.Add(d).UTC(), nil
	case '@':
		n, err := strconv.ParseInt(text[1:], 10, 63)
		if err != nil || n < 0 || n > maxEpoch {
			return time.Time{}, bad
		}
		return time.Unix(n, 0).UTC(), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	if len(text) == len("20060102150405") {
		if t, err := time.Parse("20060102150405", text); err == nil {
			return t, nil
		}
		return time.Time{}, bad
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n > maxEpoch {
		return time.Time{}, bad
	}
	return time.Unix(int64(n), 0).UTC(), nil
}

// maxEpoch is the last second of the year 9999.
const maxEpoch = 253402300799

// parseZone reads the name of a zone.
func parseZone(text string) (zone.Name, error) {
	if text == "@" { // in a zone file it is the zone, here it would be the root
		return "", usagef(`zone name "@": want the name in full; the root is "."`)
	}
	n, err := zone.ParseName(text)
	if err != nil {
		return "", usagef("zone %v", err)
	}
	if i := strings.IndexFunc(text, func(r rune) bool { return r > unicode.MaxASCII }); i >= 0 {
		u := &usageError{msg: fmt.Sprintf("zone name %q is not ASCII", text)}
		if a, err := idna.Lookup.ToASCII(strings.TrimSuffix(text, ".")); err == nil {
			u.hint = "in the DNS it is " + a
		}
		return "", u
	}
	return n, nil
}

// fullName is the name of a zone as the daemon writes it: in lower case, with
// the final dot.
func fullName(text string) (string, error) {
	n, err := parseZone(text)
	if err != nil {
		return "", err
	}
	return n.Fold().String(), nil
}

// absoluteSource makes a file path absolute, since the daemon may run in
// another folder; servers (IP[:PORT][^TSIGKEY]) are written in full.
func absoluteSource(source string) (string, error) {
	full, err := pipeline.CanonicalSource(source)
	if err != nil {
		return "", usagef("%v", err)
	}
	if _, err := os.Stat(full); err != nil && !pipeline.IsTransfer(source) && !pipeline.IsUpdateSource(source) && likeServer(source) {
		return "", &usageError{
			msg:  fmt.Sprintf("source %q is neither a file nor a server", source),
			hint: "a server is IP[:PORT][^TSIGKEY], an IPv6 address with a port [IP]:PORT",
		}
	}
	return full, nil
}

// likeServer reports whether a source that names no server was meant to.
func likeServer(source string) bool {
	return !strings.Contains(source, "/") && (strings.ContainsAny(source, ":^#,") || strings.Trim(source, "0123456789.") == "")
}

// when writes a time for people.
func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}
