package cli

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// pageWidth is how wide the text of a page is shown. Blocks of commands and
// their output keep the width that they have.
const pageWidth = 80

// The parts of a page that are not running text.
var (
	listItem  = regexp.MustCompile(`^ *([-*]|\d+\.) +`)
	tableRule = regexp.MustCompile(`^\|[-:| ]+\|$`)
	codeSpan  = regexp.MustCompile("`[^`]*`")
	pageLink  = regexp.MustCompile(`\[([^]]*)\]\([^) ]*\)`)
)

// pageText makes a page of the manual, in Markdown, readable on a terminal: text
// is wrapped, blocks are indented, and tables have columns.
func pageText(markdown string) string {
	p := pageWriter{}
	for line := range strings.Lines(markdown) {
		p.line(strings.TrimRight(line, "\n"))
	}
	p.flush()
	return p.out.String()
}

// pageWriter is a page on its way.
type pageWriter struct {
	out   strings.Builder
	fence bool // in a block between ``` lines
	// text is a paragraph that is not written yet; indent stands before its
	// lines, but the first, which begins with lead.
	text, lead, indent string
	table              [][]string
}

func (p *pageWriter) line(line string) {
	switch item := listItem.FindString(line); {
	case strings.HasPrefix(line, "```"):
		p.flush()
		p.fence = !p.fence
	case p.fence:
		p.out.WriteString(strings.TrimRight("    "+line, " ") + "\n")
	case strings.HasPrefix(line, "|"):
		p.flushText()
		if !tableRule.MatchString(line) {
			p.table = append(p.table, cells(line))
		}
	case line == "", strings.HasPrefix(line, "#"), p.text == "" && strings.HasPrefix(line, "    "), strings.HasPrefix(line, "       "):
		p.flush()
		p.out.WriteString(line + "\n")
	case item != "":
		p.flush()
		p.lead, p.indent, p.text = item, strings.Repeat(" ", len(item)), line[len(item):]
	case p.text == "":
		p.flush()
		blanks := line[:len(line)-len(strings.TrimLeft(line, " "))]
		p.lead, p.indent, p.text = blanks, blanks, line
	default:
		p.text += " " + line
	}
}

// flush writes what was not written yet.
func (p *pageWriter) flush() {
	p.flushText()
	if len(p.table) > 0 {
		p.out.WriteString(tableText(p.table))
		p.table = nil
	}
}

func (p *pageWriter) flushText() {
	if p.text == "" {
		return
	}
	for i, line := range wrap(p.text, pageWidth-len(p.indent)) {
		if i == 0 {
			p.out.WriteString(p.lead)
		} else {
			p.out.WriteString(p.indent)
		}
		p.out.WriteString(line + "\n")
	}
	p.text, p.lead, p.indent = "", "", ""
}

// wrap breaks text into lines of a width; what stands between backquotes stays
// together where it fits, and of a link its text is left.
func wrap(text string, width int) (lines []string) {
	const held = "\x00"
	text = pageLink.ReplaceAllString(text, "$1")
	text = codeSpan.ReplaceAllStringFunc(text, func(span string) string {
		if utf8.RuneCountInString(span) > width-2 {
			return span
		}
		return strings.ReplaceAll(span, " ", held)
	})
	line, long := "", 0
	for word := range strings.FieldsSeq(text) {
		word = strings.ReplaceAll(word, held, " ")
		n := utf8.RuneCountInString(word)
		switch {
		case line == "":
			line, long = word, n
		case long+1+n > width:
			lines = append(lines, line)
			line, long = word, n
		default:
			line, long = line+" "+word, long+1+n
		}
	}
	return append(lines, line)
}

// cells splits a row of a table; a bar behind a backslash, or between
// backquotes, belongs to the cell.
func cells(row string) (out []string) {
	row = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(row), "|"), "|")
	cell, code := "", false
	for i := 0; i < len(row); i++ {
		switch c := row[i]; {
		case c == '\\' && i+1 < len(row) && row[i+1] == '|':
			cell += "|"
			i++
		case c == '|' && !code:
			out = append(out, strings.TrimSpace(cell))
			cell = ""
		default:
			code = code != (c == '`')
			cell += string(c)
		}
	}
	return append(out, strings.TrimSpace(cell))
}

// columnGap stands between the columns of a table.
const columnGap = "  "

// tableText writes a table, its head first, no wider than a page where that
// can be.
func tableText(rows [][]string) string {
	widths := columnWidths(rows)
	var b strings.Builder
	for i, row := range rows {
		wrapped := make([][]string, len(widths))
		height := 1
		for c := range widths {
			if c < len(row) {
				wrapped[c] = broken(wrap(row[c], widths[c]), widths[c])
				height = max(height, len(wrapped[c]))
			}
		}
		for n := range height {
			var line strings.Builder
			line.WriteString("  ")
			for c, width := range widths {
				text := ""
				if n < len(wrapped[c]) {
					text = wrapped[c][n]
				}
				line.WriteString(text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text))) + columnGap)
			}
			b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		}
		if i == 0 && strings.Join(row, "") != "" {
			b.WriteString("  " + strings.Repeat("-", totalWidth(widths)) + "\n")
		}
	}
	return b.String()
}

// columnWidths gives each column the room that it wants, less for the widest
// where the page has not so much; where it must be, less than long words take.
func columnWidths(rows [][]string) (widths []int) {
	for _, kept := range []int{pageWidth, 44, 36, 28, 20, 12} {
		if widths = shrunk(rows, kept); totalWidth(widths) <= pageWidth-2 {
			break
		}
	}
	return widths
}

// shrunk takes room from the widest columns until the page has enough, none
// from words of up to kept.
func shrunk(rows [][]string, kept int) (widths []int) {
	var least []int
	for _, row := range rows {
		for c, text := range row {
			if c == len(widths) {
				widths, least = append(widths, 1), append(least, 1)
			}
			widths[c] = max(widths[c], utf8.RuneCountInString(text))
			for word := range strings.FieldsSeq(text) {
				least[c] = max(least[c], min(kept, utf8.RuneCountInString(word)))
			}
		}
	}
	for totalWidth(widths) > pageWidth-2 {
		widest := -1
		for c, width := range widths {
			if width > least[c] && (widest < 0 || width > widths[widest]) {
				widest = c
			}
		}
		if widest < 0 {
			break
		}
		widths[widest]--
	}
	return widths
}

// broken cuts lines that are longer than a width.
func broken(lines []string, width int) (out []string) {
	for _, line := range lines {
		runes := []rune(line)
		for ; len(runes) > width; runes = runes[width:] {
			out = append(out, string(runes[:width]))
		}
		out = append(out, string(runes))
	}
	return out
}

func totalWidth(widths []int) int {
	total := len(columnGap) * (len(widths) - 1)
	for _, width := range widths {
		total += width
	}
	return total
}
