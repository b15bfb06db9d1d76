package cli

import (
	"sluice/journal/event"
	"sluice/pipeline"
)

// lastLoadFailure asks for the newest load failure of a zone.
func lastLoadFailure() pipeline.HistoryQuery {
	return pipeline.HistoryQuery{Types: []string{(*event.LoadFailed)(nil).EventType()}, Limit: 1}
}

// lastLoadErrors reads the errors of the newest load failure from a history
// of such events.
func lastLoadErrors(history func(fn func(line []byte) error) error) ([]string, error) {
	var found []string
	err := history(func(line []byte) error {
		ev, err := event.Decode(line)
		if err != nil {
			return err
		}
		if f, ok := ev.Facts.(*event.LoadFailed); ok && len(f.Errors) > 1 {
			found = f.Errors
		}
		return nil
	})
	return found, err
}
