package cli

import (
	"fmt"
	"strings"
)

// manFiles is the section of file formats.
const manFiles = 5

// manOfFile is a manual page of a TOML file, made from its annotated template:
// a table is a section, the comment above keys explains them.
func manOfFile(name, summary, template string) string {
	m := manFile{}
	fmt.Fprintf(&m.out, ".TH %s %d\n.SH NAME\n%s \\- %s\n.SH DESCRIPTION\n", roff(name), manFiles, roff(name), roff(summary))
	for line := range strings.Lines(template) {
		m.line(strings.TrimRight(line, "\n"))
	}
	m.flush()
	m.out.WriteString(".SH SEE ALSO\n.BR sluice (8)\n")
	return m.out.String()
}

// manFile is a page while it is made.
type manFile struct {
	out  strings.Builder
	text []string // a comment that waits for its keys
	keys []string // keys that wait for the end of their lines
	in   bool     // in the value of a key that goes over several lines
}

// line takes the next line of the template.
func (m *manFile) line(line string) {
	comment, isComment := strings.CutPrefix(line, "#")
	switch {
	case m.in:
		m.in = !strings.HasPrefix(line, "]")
	case isComment:
		if len(m.keys) > 0 {
			m.flush()
		}
		m.text = append(m.text, strings.TrimPrefix(comment, " "))
	case line == "":
		m.flush()
	case strings.HasPrefix(line, "["):
		m.flush()
		fmt.Fprintf(&m.out, ".SH %s\n", roff(line))
	default:
		m.keys = append(m.keys, line)
		m.in = strings.HasSuffix(line, "= [")
	}
}

// flush writes what waits: keys with their text, or text alone.
func (m *manFile) flush() {
	for i, key := range m.keys {
		tag := ".TP"
		if i > 0 {
			tag = ".TQ"
		}
		fmt.Fprintf(&m.out, "%s\n.B %s\n", tag, roff(key))
	}
	if len(m.keys) == 0 && len(m.text) > 0 {
		m.out.WriteString(".PP\n")
	}
	literal := false
	for _, line := range m.text {
		// What is indented, or an empty line, stands as it is.
		if own := line == "" || strings.HasPrefix(line, "  "); own != literal {
			literal = own
			m.out.WriteString(map[bool]string{true: ".nf\n", false: ".fi\n"}[own])
		}
		m.out.WriteString(roff(line) + "\n")
	}
	if literal {
		m.out.WriteString(".fi\n")
	}
	m.text, m.keys = nil, nil
}

// roff escapes a line of text.
func roff(line string) string {
	line = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(line)
	if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
		return `\&` + line
	}
	return line
}
