package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Messages to people: results go to standard output, all else to standard
// error. An error is one line "sluice: what is wrong", in lower case and
// without a full stop; a line "hint: what to do" may follow. Tables have a
// head line and columns two blanks apart; colour is for terminals only.

// printError says what went wrong and what to do next.
func (e *env) printError(err error) {
	text := strings.TrimRight(err.Error(), "\n")
	fmt.Fprintf(e.stderr, "sluice: %s\n", text)
	if hint := hintOf(err); hint != "" {
		fmt.Fprintf(e.stderr, "hint: %s\n", hint)
	}
}

// note says something beside the result.
func (e *env) note(format string, args ...any) {
	fmt.Fprintf(e.stderr, format+"\n", args...)
}

// printf writes a part of the result.
func (e *env) printf(format string, args ...any) error {
	_, err := fmt.Fprintf(e.stdout, format, args...)
	return err
}

// printJSON prints one document.
func (e *env) printJSON(v any) error {
	return writeJSON(e.stdout, v)
}

// printLine prints one object of a stream on a line of its own.
func (e *env) printLine(v any) error { return jsonLines[any](e.stdout)(v) }

// jsonLines writes objects, each on a line of its own.
func jsonLines[T any](w io.Writer) func(T) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return func(v T) error { return enc.Encode(v) }
}

// table prints rows below a head; each row has as many cells as the head.
func (e *env) table(head []string, rows [][]string) error {
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(head, "\t"))
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	return w.Flush()
}

// paintedTable is table with cells in the colours that color names by row and
// column; "" is none.
func (e *env) paintedTable(head []string, rows [][]string, color func(row, column int) string) error {
	if !e.color {
		return e.table(head, rows)
	}
	widths := make([]int, len(head))
	for _, r := range append([][]string{head}, rows...) {
		for i, cell := range r {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	line := func(cells []string, color func(column int) string) error {
		var b strings.Builder
		for i, cell := range cells {
			if c := color(i); c != "" {
				b.WriteString(e.paint(c, cell))
			} else {
				b.WriteString(cell)
			}
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+2))
			}
		}
		return e.printf("%s\n", b.String())
	}
	if err := line(head, func(int) string { return "" }); err != nil {
		return err
	}
	for n, r := range rows {
		if err := line(r, func(column int) string { return color(n, column) }); err != nil {
			return err
		}
	}
	return nil
}

// fields prints name and value pairs, one a line; pairs without a value are
// left out.
func (e *env) fields(pairs ...string) error {
	w := tabwriter.NewWriter(e.stdout, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			fmt.Fprintf(w, "%s:\t%s\n", pairs[i], pairs[i+1])
		}
	}
	return w.Flush()
}

// The colours of terminal output.
const (
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
)

// paint puts text in a colour where that is wanted.
func (e *env) paint(color, text string) string {
	if !e.color || text == "" || color == "" {
		return text
	}
	return color + text + "\x1b[0m"
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// count writes n with its noun: "1 record", "2 records".
func count(n uint64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
