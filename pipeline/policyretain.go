package pipeline

import (
	"fmt"
	"strings"
)

// maxRetentionVersions bounds retention.versions.
const maxRetentionVersions = 1_000_000

// Retention says how long old versions can be rebuilt.
func (p Policy) Retention() RetentionPolicy { return p.set.retention }

// text says it in words.
func (p RetentionPolicy) text() string {
	var parts []string
	if p.Versions > 0 {
		parts = append(parts, fmt.Sprintf("%d versions", p.Versions))
	}
	if p.Days > 0 {
		parts = append(parts, fmt.Sprintf("%d days", p.Days))
	}
	switch {
	case p.Hold:
		return "legal hold"
	case len(parts) == 0:
		return "keeps all"
	}
	return "keeps " + strings.Join(parts, " and ")
}
