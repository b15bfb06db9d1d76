package cli

import (
	"sluice/journal/event"
	"sluice/pipeline"
)

// lastLoadFailure asks for the newest load failure of a zone.
func lastLoadFailure() pipeline.HistoryQuery {
	return pipeline.HistoryQuery{Types: []string{(*event.LoadFailed)(nil).EventType()}, Limit: 1}
}

// loadErrors reads the errors behind a zone's last error from a history of
// load failures; nil where the last error is another one.
func loadErrors(lastError string, history func(fn func(line []byte) error) error) ([]string, error) {
	var found []string
	err := history(func(line []byte) error {
		ev, err := event.Decode(line)
		if err != nil {
			return err
		}
		if f, ok := ev.Facts.(*event.LoadFailed); ok && f.Reason == lastError {
			found = f.Errors
		}
		return nil
	})
	return found, err
}

// zoneOutcome is what a command that waits for a zone prints of it.
type zoneOutcome struct {
	pipeline.ZoneStatus
	LoadErrors []string `json:"load_errors,omitempty"`
}
