package cli

import (
	"context"

	"sluice/journal"
)

// openArchive opens the archive of the config; nil where it names none.
func (s *serving) openArchive(ctx context.Context) (*journal.Archive, error) {
	if s.cfg.Journal.ArchiveDir == "" {
		return nil, nil //nolint:nilnil // says so above
	}
	identity, _, err := s.journal.Stream(ctx)
	if err != nil {
		return nil, err
	}
	return journal.OpenArchive(s.cfg.Journal.ArchiveDir, identity)
}
