package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
	"sluice/pipeline/simulate"
)

// On a terminal of any width no line of a rehearsal is longer than that, and no
// word of it is lost.
func TestSimulate_FitsTheTerminal(t *testing.T) {
	at := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	l := simulate.Line{
		Time: at, Kind: simulate.KindEvent, Text: "rollover 1 of zsk begins by pre-publication: ZSK-1 by ZSK-2",
		Why: "key ZSK-1 reaches its age of 90d", Next: "waits until it is seen", NextAt: &at,
	}
	for _, width := range []int{60, 80, 120} {
		var out bytes.Buffer
		p := simulatePrinter{e: &env{stdout: &out}, wrap: true, width: width}
		if err := p.line(l); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > width+1 {
				t.Errorf("%d columns: %q", width, line)
			}
		}
		want := "2027-01-01T00:00:00Z " + l.Text + " why: " + l.Why + " next: 2027-01-01T00:00:00Z, " + l.Next
		if got := strings.Join(strings.Fields(out.String()), " "); got != want {
			t.Errorf("%d columns: %q, want %q", width, got, want)
		}
	}
}

func TestFigure_DrawsTheStatesOfKeys(t *testing.T) {
	day := func(n int) time.Time { return time.Date(2027, 1, 1+n, 0, 0, 0, 0, time.UTC) }
	span := func(s keymgr.State, from, until int) simulate.Span {
		return simulate.Span{State: s, Interval: simulate.Interval{From: day(from), Until: day(until)}}
	}
	sum := simulate.Summary{From: day(0), Until: day(40), Keys: []simulate.KeyLife{
		{Name: "KSK-1", Spans: []simulate.Span{span(keymgr.Active, 0, 40)}, DS: []simulate.Interval{{From: day(10), Until: day(40)}}},
		{Name: "ZSK-1", Spans: []simulate.Span{span(keymgr.Active, 0, 20), span(keymgr.Retired, 20, 30), span(keymgr.Removed, 30, 40)}},
		{Name: "ZSK-2", Spans: []simulate.Span{span(keymgr.Generated, 5, 10), span(keymgr.Published, 10, 20), span(keymgr.Active, 20, 35), span(keymgr.Withdrawn, 35, 40)}},
		{Name: "ZSK-3", Spans: []simulate.Span{span(keymgr.Generated, 5, 40)}},
	}}
	got := figure{
		title: "all", from: sum.From, until: sum.Until, rows: rowsOf(sum.Keys, sum.From, sum.Until),
		marks: map[time.Time]string{day(10): "1", day(20): "2"},
	}.draw(50)
	want := `all (a column is 1d0h)
          |01-01 00h  |01-13 00h  |01-25 00h
                    1         2
KSK-1     ========================================
DS KSK-1            DDDDDDDDDDDDDDDDDDDDDDDDDDDDDD
ZSK-1     ====================----------
ZSK-2               ..........===============~~~~~
`
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, text := range figures(sum, leastWidth) {
		for line := range strings.Lines(text) {
			if len(line) > leastWidth+1 {
				t.Errorf("%d columns: %q", leastWidth, line)
			}
		}
	}
}
