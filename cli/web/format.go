package web

import (
	"errors"
	"fmt"
	"html/template"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"golang.org/x/net/idna"
)

// functions are what templates call.
func functions(a assets) template.FuncMap {
	return template.FuncMap{
		"asset": a.url, "dict": dict, "icon": icon,
		"ago": ago, "moment": moment, "span": span, "stamp": stamp,
		"zone": zoneHTML, "zoneurl": zoneURL, "clean": clean, "hint": hint,
		"num": num, "plural": plural, "bytes": byteText, "short": short, "join": strings.Join, "comment": comment,
	}
}

// dict makes a map of pairs, for a template that another one calls.
func dict(pairs ...any) (map[string]any, error) {
	if len(pairs)%2 != 0 {
		return nil, errors.New("dict: a key without a value")
	}
	m := map[string]any{}
	for i := 0; i < len(pairs); i += 2 {
		key, ok := pairs[i].(string)
		if !ok {
			return nil, fmt.Errorf("dict: %v is no key", pairs[i])
		}
		m[key] = pairs[i+1]
	}
	return m, nil
}

// icon is a sign of the sprite; the word beside it says the same.
func icon(name string) template.HTML {
	return template.HTML(`<svg class="icon" aria-hidden="true" focusable="false"><use href="#i-` + template.HTMLEscapeString(name) + `"/></svg>`) //nolint:gosec // escaped
}

// asTime takes a time or a pointer to one; false where there is none.
func asTime(v any) (time.Time, bool) {
	switch t := v.(type) {
	case time.Time:
		return t, !t.IsZero()
	case *time.Time:
		if t != nil {
			return *t, !t.IsZero()
		}
	}
	return time.Time{}, false
}

// ago is a time as people say it, the exact one as its title.
func ago(now time.Time, at any) template.HTML {
	t, ok := asTime(at)
	if !ok {
		return ""
	}
	return timeHTML(t, relative(now, t))
}

// moment is a time both ways: as people say it, and exact.
func moment(now time.Time, at any) template.HTML {
	t, ok := asTime(at)
	if !ok {
		return ""
	}
	return timeHTML(t, relative(now, t)) + template.HTML(` <span class="abs">`+stampShort(now, t)+`</span>`) //nolint:gosec // digits alone
}

func timeHTML(t time.Time, text string) template.HTML {
	return template.HTML(fmt.Sprintf(`<time datetime="%s" title="%s">%s</time>`, t.UTC().Format(time.RFC3339), stamp(t), text)) //nolint:gosec // digits and fixed words
}

// stamp is the exact time.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// stampShort leaves out what goes without saying.
func stampShort(now, t time.Time) string {
	now, t = now.UTC(), t.UTC()
	switch {
	case now.Format(time.DateOnly) == t.Format(time.DateOnly):
		return t.Format("15:04")
	case now.Year() == t.Year():
		return t.Format("2 Jan 15:04")
	}
	return t.Format("2 Jan 2006")
}

// relative is how long ago a time was, or how far ahead it is.
func relative(now, t time.Time) string {
	d := t.Sub(now)
	switch {
	case d > -5*time.Second && d < 5*time.Second:
		return "just now"
	case d < 0:
		return span(-d) + " ago"
	}
	return "in " + span(d)
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	if d < 0 {
		return "-" + span(-d)
	}
	type unit struct {
		name string
		long time.Duration
	}
	const day = 24 * time.Hour
	units := []unit{{"y", 365 * day}, {"d", day}, {"h", time.Hour}, {"min", time.Minute}, {"s", time.Second}}
	for i, u := range units {
		if d < u.long {
			continue
		}
		text := fmt.Sprintf("%d %s", d/u.long, u.name)
		// Of many there is no need to know the rest.
		if rest := d % u.long; i+1 < len(units) && d/u.long < 10 && rest >= units[i+1].long {
			text += fmt.Sprintf(" %d %s", rest/units[i+1].long, units[i+1].name)
		}
		return text
	}
	return fmt.Sprintf("%d ms", d/time.Millisecond)
}

// zoneArg is the name that a path names: "~" is the root, whose "." no browser
// leaves in a path.
func zoneArg(segment string) string {
	if segment == "~" {
		return "."
	}
	return segment
}

// zoneURL is the path of a zone's page.
func zoneURL(name string) string {
	if name == "." {
		return "/zones/~"
	}
	return "/zones/" + url.PathEscape(name)
}

// unicodeName is a name as people write it (RFC 5891), "" where that is no
// other.
func unicodeName(name string) string {
	text, err := idna.Display.ToUnicode(strings.TrimSuffix(name, "."))
	if err != nil || text == strings.TrimSuffix(name, ".") {
		return ""
	}
	return text
}

// zoneHTML is a zone's name; where it is one of another script, as that too.
// A line may break behind its dots.
func zoneHTML(name string) template.HTML {
	if name == "." {
		return `<span class="zone">. <span class="alabel">root</span></span>`
	}
	plain := strings.TrimSuffix(clean(name), ".")
	ascii := strings.ReplaceAll(template.HTMLEscapeString(plain), ".", ".<wbr>")
	if other := unicodeName(name); other != "" {
		return template.HTML(`<span class="zone"><bdi>` + template.HTMLEscapeString(clean(other)) + `</bdi> <span class="alabel">` + ascii + `</span></span>`) //nolint:gosec // escaped
	}
	return template.HTML(`<span class="zone">` + ascii + `</span>`) //nolint:gosec // escaped
}

// clean makes a text that others wrote safe to look at: what would not be seen,
// or would turn the line round, is spelled out.
func clean(text string) string {
	odd := func(r rune) bool {
		return r == unicode.ReplacementChar || r != '\n' && r != '\t' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) ||
			unicode.Is(unicode.Cf, r)
	}
	if strings.IndexFunc(text, odd) < 0 {
		return text
	}
	var b strings.Builder
	for _, r := range text {
		if odd(r) {
			fmt.Fprintf(&b, "\\u{%04x}", r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// hintCommand finds the commands in a sentence that says what to do.
var hintCommand = regexp.MustCompile(`sluice [a-z][^;,()]*`)

// hint is a sentence with its commands marked.
func hint(text string) template.HTML {
	text = clean(text)
	var b strings.Builder
	from := 0
	for _, at := range hintCommand.FindAllStringIndex(text, -1) {
		command := strings.TrimRight(text[at[0]:at[1]], " :")
		b.WriteString(template.HTMLEscapeString(text[from:at[0]]))
		b.WriteString("<code>" + template.HTMLEscapeString(command) + "</code>")
		from = at[0] + len(command)
	}
	b.WriteString(template.HTMLEscapeString(text[from:]))
	return template.HTML(b.String()) //nolint:gosec // escaped
}

// comment reports whether a line of TOML says nothing to the program.
func comment(line string) bool { return strings.HasPrefix(strings.TrimSpace(line), "#") }

// plain writes a value, or what a pointer points to.
func plain(v any) string {
	if r := reflect.ValueOf(v); r.Kind() == reflect.Pointer && !r.IsNil() {
		v = r.Elem().Interface()
	}
	return fmt.Sprint(v)
}

// num writes a number in groups of three digits.
func num(v any) string {
	text := plain(v)
	var b strings.Builder
	for i, r := range text {
		if i > 0 && (len(text)-i)%3 == 0 && len(text) > 4 && text[i-1] != '-' {
			b.WriteRune('\u202f')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// plural writes a number of things.
func plural(v any, one string) string {
	if plain(v) == "1" {
		return "1 " + one
	}
	return num(v) + " " + one + "s"
}

// byteText writes a number of bytes.
func byteText(v any) string {
	n, err := strconv.ParseFloat(plain(v), 64)
	if err != nil || n < 0 {
		return "no limit"
	}
	for _, unit := range []string{"B", "KiB", "MiB", "GiB"} {
		if n < 1024 {
			if unit == "B" || n >= 100 {
				return fmt.Sprintf("%.0f %s", n, unit)
			}
			return fmt.Sprintf("%.1f %s", n, unit)
		}
		n /= 1024
	}
	return fmt.Sprintf("%.1f TiB", n)
}

// short is the beginning of a digest.
func short(text string) string { return text[:min(len(text), 12)] }
