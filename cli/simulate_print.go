package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/pipeline"
	"sluice/pipeline/simulate"
)

// Bounds of --width.
const (
	leastWidth = 40
	mostWidth  = 400
	usualWidth = 80
)

// columns is how wide a stream's terminal is; what is usual where it is none.
func columns(stream io.Writer) int {
	f, ok := stream.(*os.File)
	if !ok {
		return usualWidth
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return usualWidth
	}
	return min(max(int(size.Col), leastWidth), mostWidth)
}

// simulatePrinter prints a rehearsal.
type simulatePrinter struct {
	e     *env
	wrap  bool
	width int
	last  time.Time
}

// line prints a line of the timeline as it comes.
func (p *simulatePrinter) line(l simulate.Line) error {
	if p.e.json {
		return p.e.printLine(l)
	}
	at := when(l.Time)
	if l.Time.Equal(p.last) {
		at = strings.Repeat(" ", len(at))
	}
	p.last = l.Time
	text := l.Text
	switch l.Kind {
	case simulate.KindBogus:
		text = p.e.paint(red, text)
	case simulate.KindPerson, simulate.KindHeld:
		text = p.e.paint(yellow, text)
	case simulate.KindEvent, simulate.KindWorld, simulate.KindSigning:
	}
	if err := p.hanging(at+"  ", text); err != nil {
		return err
	}
	blank := strings.Repeat(" ", len(at)+2)
	if l.Why != "" {
		if err := p.hanging(blank+"  why:  ", l.Why); err != nil {
			return err
		}
	}
	if l.Next != "" {
		next := l.Next
		if l.NextAt != nil && !strings.Contains(next, when(*l.NextAt)) {
			next = when(*l.NextAt) + ", " + next
		}
		return p.hanging(blank+"  next: ", next)
	}
	return nil
}

// hanging prints text behind a head; on a terminal it is wrapped there.
func (p *simulatePrinter) hanging(head, text string) error {
	room := p.width - len(head)
	if !p.wrap || room < leastWidth/2 {
		return p.e.printf("%s%s\n", head, text)
	}
	var line string
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) > room:
			if err := p.e.printf("%s%s\n", head, line); err != nil {
				return err
			}
			head, line = strings.Repeat(" ", len(head)), word
		default:
			line += " " + word
		}
	}
	return p.e.printf("%s%s\n", head, line)
}

// summary prints what it came to, with the figures.
func (p *simulatePrinter) summary(sum simulate.Summary) error {
	if p.e.json {
		return p.e.printLine(struct {
			Kind string `json:"kind"`
			simulate.Summary
		}{"summary", sum})
	}
	for _, text := range figures(sum, p.width) {
		if err := p.e.printf("\n%s", text); err != nil {
			return err
		}
	}
	if err := p.e.printf("\n"); err != nil {
		return err
	}
	done := map[string]int{}
	var order, aborted, open []string
	for _, r := range sum.Rollovers {
		name := fmt.Sprintf("%s by %s", r.Kind, r.Method)
		if r.Aborted != nil {
			aborted = append(aborted, fmt.Sprintf("%d of %s, at %s", r.ID, r.Kind, when(*r.Aborted)))
			continue
		}
		if r.Until == nil {
			open = append(open, fmt.Sprintf("%d of %s, since %s: %s", r.ID, r.Kind, when(r.From), r.Waits))
			continue
		}
		if done[name]++; done[name] == 1 {
			order = append(order, name)
		}
	}
	for i, name := range order {
		order[i] = fmt.Sprintf("%d %s", done[name], name)
	}
	var held []string
	for _, h := range sum.Held {
		held = append(held, fmt.Sprintf("%s for %s", h.Server, secondsText(h.Seconds)))
	}
	bogus := p.e.paint(green, fmt.Sprintf("none; caches were searched at %d moments", sum.Checks))
	if sum.Bogus > 0 {
		bogus = p.e.paint(red, fmt.Sprintf("at %d of %d moments", sum.Bogus, sum.Checks))
	}
	return p.e.fields(
		"rehearsed", when(sum.From)+" to "+when(sum.Until),
		"rollovers done", orNone(order),
		"aborted", strings.Join(aborted, "; "),
		"not done", strings.Join(open, "; "),
		"shortest time between two of a kind", secondsText(sum.Between),
		"longest time with two keys of a role", secondsText(sum.TwoKeys),
		"most keys in the DNSKEY RRset", fmt.Sprint(sum.MostKeys),
		"held up by silent servers", strings.Join(held, "; "),
		"waited for a person", times(sum.Persons),
		"versions published", fmt.Sprintf("%d, %d signatures made, at most %d in one after the first", sum.Versions, sum.Made, sum.Largest),
		"least time a signature had left", secondsText(sum.LeastLeft),
		"answers that a validator may refuse", bogus,
	)
}

func times(n int) string {
	switch n {
	case 0:
		return "never"
	case 1:
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func secondsText(n uint64) string {
	if n == 0 {
		return ""
	}
	return pipeline.SpanText(time.Duration(n) * time.Second) //nolint:gosec // at most decades
}
