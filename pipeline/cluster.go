package pipeline

import (
	"context"
	"fmt"

	"sluice/journal"
)

// clustered is a journal that can tell of the servers that keep it.
type clustered interface {
	Cluster(ctx context.Context) (journal.ClusterStatus, error)
}

// ClusterStatus describes the servers that keep the journal.
func (e *Engine) ClusterStatus(ctx context.Context) (journal.ClusterStatus, error) {
	j, ok := e.cfg.Journal.(clustered)
	if !ok {
		return journal.ClusterStatus{}, fmt.Errorf("the journal is not kept by servers: %w", ErrState)
	}
	return j.Cluster(ctx)
}
