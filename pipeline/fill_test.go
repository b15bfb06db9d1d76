package pipeline

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"sluice/journal"
	"sluice/journal/journaltest"
)

// limited is a journal whose streams have limits that nobody but the engine
// keeps.
type limited struct {
	*journaltest.Memory
	events, bulk atomic.Int64
}

func (j *limited) Status(ctx context.Context) (journal.Status, error) {
	st, err := j.Memory.Status(ctx)
	if n := j.events.Load(); n > 0 {
		st.Events.MaxBytes = n
	}
	if n := j.bulk.Load(); n > 0 {
		st.Bulk.MaxBytes = n
	}
	return st, err
}

// noticesOf are the notices of a zone about streams, by their first word.
func (r *rig) noticesOf(stream string) (all []Notice) {
	r.t.Helper()
	st, err := r.e.Zone(r.t.Context(), "example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	for _, n := range st.Notices {
		if strings.HasPrefix(n.Text, stream+" is ") {
			all = append(all, n)
		}
	}
	return all
}

func TestFill_StreamsThatFillUpAreToldOf(t *testing.T) {
	j := &limited{Memory: journaltest.New()}
	r := newRig(t, j, nil)
	r.add(smallZone)
	st, err := j.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, stream := range []struct {
		name  string
		bytes uint64
		limit *atomic.Int64
	}{{"EVENTS", st.Events.Bytes, &j.events}, {"BULK", st.Bulk.Bytes, &j.bulk}} {
		for _, test := range []struct {
			percent  uint64
			severity string
		}{{69, ""}, {72, severityWarning}, {84, severityWarning}, {86, severityAlarm}, {99, severityAlarm}, {50, ""}} {
			stream.limit.Store(int64(stream.bytes * 100 / test.percent))
			until(t, fmt.Sprintf("%s at %d %% is told as %q", stream.name, test.percent, test.severity), func() bool {
				all := r.noticesOf(stream.name)
				if test.severity == "" {
					return len(all) == 0
				}
				return len(all) == 1 && all[0].Severity == test.severity && all[0].Hint != ""
			})
		}
		stream.limit.Store(0)
	}
}

// Where BULK has only the room left that signing needs, new contents are refused
// and signing goes on; retention is asked for, and then they are taken.
func TestFill_LoadsLeaveRoomForSigning(t *testing.T) {
	j := &limited{Memory: journaltest.New()}
	r := &rig{t: t, dir: t.TempDir(), journal: j, policies: retentionPolicy(t, "versions = 2\nixfr-versions = 0")}
	r.start(r.policies)
	r.add(smallZone)
	for n := range 30 {
		r.reload(pastOf(n))
	}
	j.bulk.Store(int64(r.bulkBytes() * 100 / 95))
	before := r.serials()
	until(t, "BULK is seen to be nearly full", func() bool { return r.e.bulkRoom(t.Context()) != nil })
	st := r.reload(pastOf(31))
	if !strings.Contains(st.LastError, "BULK is nearly at its limit") || len(r.serials()) != len(before) {
		t.Fatalf("the load was taken: %+v", st.ZoneSummary)
	}
	if err := r.e.Resign(t.Context(), testActor, "example.com", true); err != nil {
		t.Fatal(err)
	}
	r.await()
	until(t, "it was signed, retention has made room by itself, and the load was taken", func() bool {
		st := r.await()
		if st.LastError != "" {
			if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
				t.Fatal(err)
			}
			st = r.await()
		}
		return st.LastError == "" && len(r.serials()) >= len(before)+2
	})
	if z := r.compact(CompactQuery{DryRun: true}); z.Versions > 10 {
		t.Errorf("retention has left %d versions", z.Versions)
	}
}

func TestFill_ErrorIsOneOfSpace(t *testing.T) {
	if !errors.Is(errLowBulk, journal.ErrNoSpace) || errors.Is(errLowBulk, errLowDisk) {
		t.Error("what keeps BULK's room is not told from a full disk")
	}
}
