package cli

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"sluice/pipeline"
)

// stageMark is how a stage is marked in a picture, in UTF-8 and in ASCII, and
// its colour.
func stageMark(state string) (mark, ascii, color string) {
	switch state {
	case "done":
		return "✓", "ok", green
	case "busy":
		return "… now", "now", yellow
	case "waiting":
		return "‖ waits", "waits", yellow
	case "failed":
		return "✗ failed", "FAILED", red
	}
	return "·", "-", ""
}

// picture draws where a zone stands between its source and its secondaries, in
// three lines: the stages that it has, how each is, and the serial that got
// there. It is nil where nothing is known.
func (e *env) picture(stages []pipeline.StageStatus) []string {
	arrow, gap := " -- ", "    "
	if e.unicode {
		arrow = " ── "
	}
	var names, marks, serials []string
	for _, s := range stages {
		if s.State == "off" && s.Stage != "source" {
			continue
		}
		name, _, _ := strings.Cut(s.Stage, "-")
		mark, ascii, color := stageMark(s.State)
		if !e.unicode {
			mark = ascii
		}
		if s.Stage == "source" && s.State == "off" {
			mark = "held"
		}
		serial := ""
		if s.Serial != nil && s.State != "none" {
			serial = strconv.FormatUint(uint64(*s.Serial), 10)
		}
		width := max(utf8.RuneCountInString(name), utf8.RuneCountInString(mark), len(serial))
		names = append(names, centered(name, width))
		marks = append(marks, strings.Replace(centered(mark, width), mark, e.paint(color, mark), 1))
		serials = append(serials, centered(serial, width))
	}
	if len(names) == 0 {
		return nil
	}
	out := []string{strings.Join(names, arrow), strings.Join(marks, gap), strings.Join(serials, gap)}
	for i := range out {
		out[i] = strings.TrimRight("  "+out[i], " ")
	}
	if out[2] == "" {
		out = out[:2] // nothing got anywhere yet
	}
	return out
}

// centered puts a text in the middle of so many columns.
func centered(text string, width int) string {
	left := (width - utf8.RuneCountInString(text)) / 2
	return strings.Repeat(" ", left) + text + strings.Repeat(" ", width-left-utf8.RuneCountInString(text))
}

// isUTF8 reports whether a terminal of this environment shows UTF-8.
func isUTF8(getenv func(string) string) bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := strings.ToUpper(getenv(name)); v != "" {
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}
