package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/pipeline/simulate"
)

// figure draws keys over time, as RFC 7583 does: a row a key, and one a DS.
type figure struct {
	title       string
	from, until time.Time
	rows        []figureRow
	marks       map[time.Time]string // above the rows
}

type figureRow struct {
	name  string
	spans []figureSpan
}

// figureSpan is a stretch of a row, drawn with one mark.
type figureSpan struct {
	mark byte
	simulate.Interval
}

// markOf is how a state is drawn; a blank where validators see nothing of the
// key.
func markOf(s keymgr.State) byte {
	switch s {
	case keymgr.Published, keymgr.Ready:
		return '.'
	case keymgr.Active:
		return '='
	case keymgr.Retired, keymgr.Dead:
		return '-'
	case keymgr.Introduced, keymgr.Withdrawn:
		return '~'
	case keymgr.Revoked:
		return 'R'
	case keymgr.Generated, keymgr.Removed:
	}
	return ' '
}

// figureLegend explains the marks, in lines of so many columns.
func figureLegend(width int) string {
	var out strings.Builder
	room := 0
	for i, text := range []string{". published", "= signs", "- published, signs no longer", "~ signs, not published", "D the DS is at the parent"} {
		switch {
		case i == 0:
		case room+3+len(text) > width:
			out.WriteString("\n")
			room = 0
		default:
			out.WriteString("   ")
			room += 3
		}
		out.WriteString(text)
		room += len(text)
	}
	return out.String() + "\n"
}

// figures draws all of a rehearsal, and the first rollover of each kind and
// method that came to its end.
func figures(sum simulate.Summary, width int) []string {
	all := figure{title: "all keys", from: sum.From, until: sum.Until, rows: rowsOf(sum.Keys, sum.From, sum.Until)}
	out := []string{all.draw(width) + figureLegend(width)}
	drawn := map[string]bool{}
	for _, r := range sum.Rollovers {
		name := fmt.Sprintf("%s by %s", r.Kind, r.Method)
		if r.Until == nil || drawn[name] {
			continue
		}
		drawn[name] = true
		room := max(r.Until.Sub(r.From)/10, time.Minute)
		f := figure{
			title: fmt.Sprintf("rollover %d, %s", r.ID, name), from: later(r.From.Add(-room), sum.From), until: r.Until.Add(room),
			marks: map[time.Time]string{},
		}
		f.rows = rowsOf(sum.Keys, f.from, f.until)
		var steps []string
		for _, s := range r.Steps {
			f.marks[s.At] = fmt.Sprint(s.Step)
			steps = append(steps, fmt.Sprintf("%d %s", s.Step, s.Name))
		}
		out = append(out, f.draw(width)+"steps: "+strings.Join(steps, ", ")+"\n")
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// rowsOf is the rows of the keys that something is to be seen of.
func rowsOf(keys []simulate.KeyLife, from, until time.Time) []figureRow {
	var out []figureRow
	for _, k := range keys {
		row, ds := figureRow{name: k.Name}, figureRow{name: "DS " + k.Name}
		for _, s := range k.Spans {
			if m := markOf(s.State); m != ' ' && s.From.Before(until) && from.Before(s.Until) {
				row.spans = append(row.spans, figureSpan{m, s.Interval})
			}
		}
		for _, i := range k.DS {
			if i.From.Before(until) && from.Before(i.Until) {
				ds.spans = append(ds.spans, figureSpan{'D', i})
			}
		}
		for _, r := range []figureRow{row, ds} {
			if len(r.spans) > 0 {
				out = append(out, r)
			}
		}
	}
	return out
}

// draw draws the figure in so many columns.
func (f figure) draw(width int) string {
	label := 0
	for _, r := range f.rows {
		label = max(label, len(r.name))
	}
	cells := max(width-label-2, leastWidth/2)
	cell := max(f.until.Sub(f.from)/time.Duration(cells), time.Second)
	var out strings.Builder
	fmt.Fprintf(&out, "%s (a column is %s)\n", f.title, pipeline.SpanText(cell))
	pad := strings.Repeat(" ", label+2)
	line := func(head, text string) { fmt.Fprintf(&out, "%s\n", strings.TrimRight(head+text, " ")) }
	line(pad, f.axis(cells, cell))
	if len(f.marks) > 0 {
		line(pad, f.markLine(cells, cell))
	}
	for _, r := range f.rows {
		row := make([]byte, cells)
		for i := range row {
			row[i] = r.at(f.from.Add(time.Duration(i)*cell), cell)
		}
		line(fmt.Sprintf("%-*s  ", label, r.name), string(row))
	}
	return out.String()
}

// at is what a cell shows: what most of it is, and of what is shorter than a
// cell and lies in it, that.
func (r figureRow) at(from time.Time, cell time.Duration) byte {
	until := from.Add(cell)
	mark, most := byte(' '), time.Duration(0)
	for _, s := range r.spans {
		begin, end := later(s.From, from), s.Until
		if until.Before(end) {
			end = until
		}
		if d := end.Sub(begin); d > most {
			mark, most = s.mark, d
		}
	}
	return mark
}

// axis names times, as many as there is room for.
func (f figure) axis(cells int, cell time.Duration) string {
	layout := "|2006-01-02"
	switch span := f.until.Sub(f.from); {
	case span < 2*24*time.Hour:
		layout = "|01-02 15:04"
	case span < 60*24*time.Hour:
		layout = "|01-02 15h"
	}
	row := []byte(strings.Repeat(" ", cells))
	every := max(len(layout)+2, (cells+3)/4)
	for i := 0; i+len(layout) <= cells; i += every {
		copy(row[i:], f.from.Add(time.Duration(i)*cell).UTC().Format(layout))
	}
	return string(row)
}

// markLine puts the marks where they belong; what does not fit is moved on.
func (f figure) markLine(cells int, cell time.Duration) string {
	row := []byte(strings.Repeat(" ", cells))
	free := 0
	times := make([]time.Time, 0, len(f.marks))
	for at := range f.marks {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	for _, at := range times {
		i := max(int(at.Sub(f.from)/cell), free)
		if text := f.marks[at]; i+len(text) <= cells {
			copy(row[i:], text)
			free = i + len(text)
		}
	}
	return string(row)
}
