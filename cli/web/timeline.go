package web

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
)

// Sizes of the timeline, in its own units.
const (
	lineWidth  = 1000
	lineGutter = 168 // names stand left of it
	lineRow    = 42
	lineHead   = 26
	lineRight  = 16
)

// Bounds of the time that is drawn to each side of now.
const (
	leastSpan = 14 * 24 * time.Hour
	mostSpan  = 400 * 24 * time.Hour
)

// maxTimelineKeys bounds the keys that are drawn.
const maxTimelineKeys = 24

// timeline is the lives of keys, drawn.
type timeline struct {
	Width, Height int
	Gutter        int
	NowX          int
	Rows          []timeRow
	Ticks         []timeTick
	Left          int // keys that are not drawn
}

// timeRow is a key, or a rollover that is planned.
type timeRow struct {
	Y           int
	Label, Note string
	Bars        []timeBar
	Marks       []timeMark
}

// MidY is where the middle of the row's bar is.
func (r timeRow) MidY() int { return r.Y + lineRow/2 }

// BarY is where its bar begins.
func (r timeRow) BarY() int { return r.Y + lineRow/2 - 8 }

// LabelY and NoteY are where its two lines of text stand.
func (r timeRow) LabelY() int { return r.Y + lineRow/2 - 3 }

// NoteY is that of the second line.
func (r timeRow) NoteY() int { return r.Y + lineRow/2 + 12 }

// EndY is where the row ends.
func (r timeRow) EndY() int { return r.Y + lineRow }

// timeBar is a state of a key for as long as it lasts.
type timeBar struct {
	X, W  int
	Class string
	Title string
}

// timeMark is a step that is planned; its number is that of the list.
type timeMark struct {
	X, N   int
	Person bool
	Title  string
}

// timeTick is a line of the calendar.
type timeTick struct {
	X    int
	Text string
}

// scale turns times into places.
type scale struct{ from, to time.Time }

func (s scale) x(t time.Time) int {
	t = clampTime(t, s.from, s.to)
	return lineGutter + int(int64(lineWidth-lineGutter-lineRight)*int64(t.Sub(s.from)/time.Second)/max(1, int64(s.to.Sub(s.from)/time.Second)))
}

func clampTime(t, from, to time.Time) time.Time {
	switch {
	case t.Before(from):
		return from
	case t.After(to):
		return to
	}
	return t
}

// timelineOf draws the keys' lives so far, and what is planned.
func timelineOf(keys []keyRow, plan []pipeline.PlannedStep, now time.Time) timeline {
	s := scaleOf(keys, plan, now)
	out := timeline{Width: lineWidth, Gutter: lineGutter, NowX: s.x(now), Ticks: ticksOf(s)}
	for i, tick := range out.Ticks {
		if tick.X > out.NowX-48 && tick.X < out.NowX+48 {
			out.Ticks[i].Text = "" // the word now stands there
		}
	}
	y := lineHead
	for _, k := range keys {
		bars := barsOf(s, k.Key, now)
		if len(bars) == 0 {
			continue
		}
		if len(out.Rows) == maxTimelineKeys {
			out.Left++
			continue
		}
		out.Rows = append(out.Rows, timeRow{
			Y: y, Label: fmt.Sprintf("%s %d", strings.ToUpper(k.Role), k.Tag), Note: string(k.State), Bars: bars,
		})
		y += lineRow
	}
	for _, row := range plannedRows(s, plan) {
		row.Y = y
		out.Rows = append(out.Rows, row)
		y += lineRow
	}
	out.Height = y + 10
	return out
}

// scaleOf chooses the time that is drawn.
func scaleOf(keys []keyRow, plan []pipeline.PlannedStep, now time.Time) scale {
	first, last := now.Add(-leastSpan), now.Add(leastSpan)
	for _, k := range keys {
		begun := k.Published
		if begun.IsZero() {
			begun = k.Activated
		}
		if !begun.IsZero() && begun.Before(first) {
			first = begun
		}
	}
	for _, step := range plan {
		if step.Earliest.After(last) {
			last = step.Earliest
		}
	}
	first, last = clampTime(first, now.Add(-mostSpan), now), clampTime(last, now, now.Add(mostSpan))
	margin := last.Sub(first) / 30
	return scale{first.Add(-margin), last.Add(margin)}
}

// barsOf is the states of a key that can be seen from outside, one bar each.
func barsOf(s scale, k keymgr.Key, now time.Time) []timeBar {
	var out []timeBar
	bar := func(class, word string, from, to time.Time) {
		if from.IsZero() || !to.After(from) || to.Before(s.from) {
			return
		}
		x := s.x(from)
		title := fmt.Sprintf("%s from %s", word, stamp(from))
		if to.Before(s.to) {
			title += " to " + stamp(to)
		}
		out = append(out, timeBar{X: x, W: max(3, s.x(to)-x), Class: class, Title: title})
	}
	or := func(times ...time.Time) time.Time {
		for _, t := range times {
			if !t.IsZero() {
				return t
			}
		}
		return time.Time{}
	}
	end := or(k.Removed, now)
	bar("waits", "published", k.Published, or(k.Activated, k.Retired, end))
	bar("signs", "signs", k.Activated, or(k.Retired, end))
	bar("leaves", "published, signs no longer", k.Retired, end)
	if k.Removed.IsZero() && k.InRRset() {
		// What goes on from here is not known beyond what is planned.
		out = append(out, timeBar{X: s.x(now), W: s.x(s.to) - s.x(now), Class: "ahead", Title: "goes on until a rollover ends it"})
	}
	return out
}

// plannedRows is a row for each rollover that is planned or runs, with its
// steps to come.
func plannedRows(s scale, plan []pipeline.PlannedStep) []timeRow {
	var out []timeRow
	index := map[string]int{}
	for i, step := range plan {
		label, note := strings.ToUpper(string(step.Kind))+" rollover", "planned"
		if step.Rollover != 0 {
			label, note = fmt.Sprintf("Rollover %d", step.Rollover), strings.ToUpper(string(step.Kind))+", ahead"
		}
		at, ok := index[label+note]
		if !ok {
			at = len(out)
			index[label+note] = at
			out = append(out, timeRow{Label: label, Note: note})
		}
		marks := &out[at].Marks
		x := s.x(step.Earliest)
		if n := len(*marks); n > 0 && x < (*marks)[n-1].X+20 {
			x = (*marks)[n-1].X + 20
		}
		*marks = append(*marks, timeMark{X: min(x, lineWidth-10), N: i + 1, Person: step.Person, Title: fmt.Sprintf("%s, not before %s", step.Text, stamp(step.Earliest))})
	}
	return out
}

// ticksOf draws the calendar: days, weeks, months or quarters.
func ticksOf(s scale) []timeTick {
	whole := s.to.Sub(s.from)
	const day = 24 * time.Hour
	at := time.Date(s.from.Year(), s.from.Month(), s.from.Day(), 0, 0, 0, 0, time.UTC)
	step := func(t time.Time) time.Time { return t.AddDate(0, 0, max(1, int(whole/day)/8)) }
	form := "2 Jan"
	if whole > 120*day {
		months := max(1, int(whole/(30*day))/8)
		at = time.Date(s.from.Year(), s.from.Month(), 1, 0, 0, 0, 0, time.UTC)
		step, form = func(t time.Time) time.Time { return t.AddDate(0, months, 0) }, "Jan 2006"
	}
	var out []timeTick
	for t := at; !t.After(s.to); t = step(t) {
		if t.After(s.from) && s.x(t) < lineWidth-50 {
			out = append(out, timeTick{X: s.x(t), Text: t.Format(form)})
		}
	}
	return slices.Clip(out)
}
