package pipeline

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"sluice/journal/audit"
	"sluice/journal/event"
)

// allDropped stands for every kind of sealed values.
const allDropped = "all"

// noteExport records that events are about to be given out: who looks at the
// journal later sees who had it. It comes first, so that an export that breaks
// off is told as well; the export has the event in it.
func (e *Engine) noteExport(ctx context.Context, actor event.Actor, q ExportQuery, zones []string) error {
	facts := &event.JournalExported{Zones: zones, Chunks: q.Chunks, Dropped: slices.Clone(q.Drop)}
	if q.DropSealed && len(q.Drop) == 0 {
		facts.Dropped = []string{allDropped}
	}
	if !q.Since.IsZero() {
		facts.Since = q.Since.Unix()
	}
	if !q.Until.IsZero() {
		facts.Until = q.Until.Unix()
	}
	return e.appendInstance(ctx, actor, facts, func() error { return nil })
}

// exportedNames are the names of zones, each once.
func exportedNames(zones []audit.Zone) []string {
	var names []string
	for _, z := range zones {
		names = append(names, z.Name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// exportedText tells an export.
func exportedText(f *event.JournalExported) string {
	text := "audit export of " + cmp.Or(strings.Join(f.Zones, ", "), "all zones")
	if f.Since != 0 {
		text += ", since " + time.Unix(f.Since, 0).UTC().Format(time.RFC3339)
	}
	if f.Until != 0 {
		text += ", until " + time.Unix(f.Until, 0).UTC().Format(time.RFC3339)
	}
	if f.Chunks {
		text += ", with contents"
	}
	if len(f.Dropped) > 0 {
		text += ", without sealed values: " + strings.Join(f.Dropped, ", ")
	}
	return text
}
