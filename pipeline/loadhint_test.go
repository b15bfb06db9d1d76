package pipeline

import (
	"strings"
	"testing"

	"sluice/journal"
)

func TestAfterLoadFailure_SaysWhoseTurnItIs(t *testing.T) {
	for _, c := range []struct{ source, reason, want string }{
		{"/zones/example.com", "example.com:7: bad address", "correct the source, then: sluice zone reload example.com."},
		{"192.0.2.1", "connection refused", "see that a server of the source answers, with a zone that can be read, then: sluice zone reload example.com."},
		{"192.0.2.1", journal.ErrNoSpace.Error(), "free space on the disk or raise the journal's limits, then: sluice zone reload example.com."},
	} {
		got := State{Name: "example.com.", Source: c.source}.afterLoadFailure(c.reason)
		if !strings.HasPrefix(got, c.want) {
			t.Errorf("%s, %s: %q, want %q", c.source, c.reason, got, c.want)
		}
	}
}
