package cli

import (
	"sluice/pipeline"
)

// printCopies tells of the last copy of the journal, and of the log that this
// one goes on from.
func (e *env) printCopies(s pipeline.JournalStatus) error {
	if c := s.Continued; c != nil {
		if err := e.printf("log: goes on from %s of %s since %s: %s\n", count(c.Size, "event"), c.Origin, when(c.Time), c.Reason); err != nil {
			return err
		}
	}
	b := s.Backup
	if b == nil {
		return nil
	}
	return e.printf("backup: %s up to %s, in %s; %s came since\n",
		when(b.Time), count(b.Size, "event"), b.Place, count(s.Events.LastSeq-b.Size, "event"))
}
