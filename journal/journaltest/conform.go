package journaltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
)

const (
	zoneA event.ZoneID = "00000000000000aa"
	zoneB event.ZoneID = "00000000000000bb"
)

// Conform checks that an implementation keeps the contract of
// journal.Journal. open returns a new empty journal and closes it when the
// test ends.
func Conform(t *testing.T, open func(*testing.T) journal.Journal) {
	for name, run := range map[string]func(*testing.T, journal.Journal){
		"append links events of a zone":             appendLinks,
		"append of several is all or none":          appendAtomic,
		"stale head conflicts":                      staleHeadConflicts,
		"own bytes behind head are success":         ownBytesSucceed,
		"events that cannot be encoded are refused": badEventsRefused,
		"read delivers a range in order":            readRange,
		"read of the next few delivers no others":   readNext,
		"error of fn ends read and follow":          fnErrorEnds,
		"follow catches up and goes on":             followGoesOn,
		"follow of one zone skips others":           followZone,
		"follow ends with its context":              followEnds,
		"position is checked by hash":               checkPosition,
		"chunks come back by manifest":              chunksComeBack,
		"chunk is found without its sequence":       chunkWithoutHint,
		"chunk of other bytes is refused":           chunkOtherBytes,
		"long manifest becomes indirect":            indirectManifest,
		"oversized and misnamed chunks are refused": badChunksRefused,
		"status counts both streams":                statusCounts,
		"purged chunks are gone":                    purgedChunksAreGone,
		"purge keeps what shares a subject":         purgeKeepsWhatSharesASubject,
		"purge without hints":                       purgeWithoutHints,
		"purge of an indirect manifest":             purgedListIsGone,
		"verify knows what was purged":              verifyKnowsWhatWasPurged,
		"verify passes":                             verifyPasses,
		"sealed values stand beside the line":       sealedValues,
		"closed journal refuses calls":              closedRefuses,
	} {
		t.Run(name, func(t *testing.T) { run(t, open(t)) })
	}
}

// at is the time of the i-th test event.
func at(i int) time.Time { return time.Unix(1_700_000_000+int64(i), 123_456_000).UTC() }

func changed(zone event.ZoneID, i int) event.Event {
	return event.New(at(i), zone, event.Actor{Name: "test", Door: "cli"}, &event.ZoneChanged{Source: fmt.Sprintf("file%d", i)})
}

func failed(i int) event.Event {
	return event.New(at(i), zoneA, event.Program, &event.LoadFailed{Source: "file", Reason: fmt.Sprintf("reason %d", i), Total: 1})
}

func mustAppend(t *testing.T, j journal.Journal, zone event.ZoneID, head journal.Head, events ...event.Event) journal.Head {
	t.Helper()
	head, err := j.Append(t.Context(), zone, head, events...)
	if err != nil {
		t.Fatalf("append: %v", err)
	}
	return head
}

func readAll(t *testing.T, j journal.Journal, zone event.ZoneID) []journal.Record {
	t.Helper()
	var rs []journal.Record
	err := j.Read(t.Context(), zone, 1, 0, func(r journal.Record) error {
		rs = append(rs, r)
		return nil
	})
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return rs
}

func appendLinks(t *testing.T, j journal.Journal) {
	h1 := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	b1 := mustAppend(t, j, zoneB, journal.Head{}, changed(zoneB, 1))
	h2 := mustAppend(t, j, zoneA, h1, failed(2))
	i1 := mustAppend(t, j, event.Instance, journal.Head{}, event.New(at(3), event.Instance, event.Program,
		&event.ZoneAdded{Name: "example.", ID: zoneA, Source: "file", Policy: "default"}))
	rs := readAll(t, j, "")
	if len(rs) != 4 {
		t.Fatalf("read %d events, want 4", len(rs))
	}
	for i, want := range []journal.Head{h1, b1, h2, i1} {
		if diff := cmp.Diff(want, rs[i].Head()); diff != "" {
			t.Errorf("event %d: head (-append +read):\n%s", i, diff)
		}
		if rs[i].Seq != uint64(i+1) {
			t.Errorf("event %d has sequence %d", i, rs[i].Seq)
		}
	}
	if rs[2].Event.N != 2 || rs[2].Event.Prev != rs[0].Hash || rs[1].Event.N != 1 || !rs[1].Event.Prev.IsZero() {
		t.Errorf("links are wrong: %+v", rs)
	}
	if rs[2].Subject != "ev.00000000000000aa.load" || rs[3].Subject != "ev._.zone" {
		t.Errorf("subjects %q, %q", rs[2].Subject, rs[3].Subject)
	}
	if event.RecordHash(rs[2].Line) != rs[2].Hash {
		t.Error("hash is not that of the line")
	}
	for zone, want := range map[event.ZoneID]journal.Head{zoneA: h2, zoneB: b1, event.Instance: i1, "00000000000000cc": {}} {
		if got, err := j.Head(t.Context(), zone); err != nil || got != want {
			t.Errorf("head of %s = %+v, %v, want %+v", zone, got, err, want)
		}
	}
	if diff := cmp.Diff(&event.LoadFailed{Source: "file", Reason: "reason 2", Total: 1}, rs[2].Event.Facts); diff != "" {
		t.Errorf("facts (-want +got):\n%s", diff)
	}
}

func appendAtomic(t *testing.T, j journal.Journal) {
	h := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1), failed(2), changed(zoneA, 3))
	if h.Seq != 3 || h.N != 3 {
		t.Fatalf("head %+v", h)
	}
	_, err := j.Append(t.Context(), zoneA, journal.Head{}, changed(zoneA, 1), changed(zoneA, 9))
	if !errors.Is(err, journal.ErrConflict) {
		t.Fatalf("stale batch: %v, want ErrConflict", err)
	}
	var many []event.Event
	for i := range journal.MaxAppend {
		many = append(many, changed(zoneA, i))
	}
	if _, err := j.Append(t.Context(), zoneA, h, append(many, changed(zoneA, 1))...); err == nil {
		t.Error("more than MaxAppend events were taken")
	}
	h = mustAppend(t, j, zoneA, h, many...)
	rs := readAll(t, j, zoneA)
	if len(rs) != 3+journal.MaxAppend || rs[len(rs)-1].Head() != h {
		t.Fatalf("read %d events up to %+v, appended up to %+v", len(rs), rs[len(rs)-1].Head(), h)
	}
	bare := event.Event{Time: at(1).Add(789).In(time.FixedZone("", 3600)), Actor: event.Program, Facts: &event.ZoneChanged{Source: "f"}}
	h = mustAppend(t, j, zoneA, h, bare)
	rs = readAll(t, j, zoneA)
	if e := rs[len(rs)-1].Event; e.Type != "zone.changed" || e.Zone != zoneA || !e.Time.Equal(at(1)) {
		t.Errorf("event without zone and type is stored as %+v", e)
	}
	if got, err := j.Append(t.Context(), zoneA, h); err != nil || got != h {
		t.Errorf("append of nothing = %+v, %v", got, err)
	}
}

func staleHeadConflicts(t *testing.T, j journal.Journal) {
	h1 := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	mustAppend(t, j, zoneA, h1, changed(zoneA, 2))
	for _, head := range []journal.Head{{}, h1} {
		if _, err := j.Append(t.Context(), zoneA, head, failed(9)); !errors.Is(err, journal.ErrConflict) {
			t.Errorf("append behind %d: %v, want ErrConflict", head.Seq, err)
		}
	}
	if n := len(readAll(t, j, "")); n != 2 {
		t.Errorf("%d events stored, want 2", n)
	}
}

func ownBytesSucceed(t *testing.T, j journal.Journal) {
	h1 := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	again := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	if again != h1 {
		t.Errorf("single event again: head %+v, want %+v", again, h1)
	}
	mustAppend(t, j, zoneB, journal.Head{}, changed(zoneB, 1))
	batch := []event.Event{failed(2), changed(zoneA, 3)}
	h3 := mustAppend(t, j, zoneA, h1, batch...)
	mustAppend(t, j, zoneA, h3, changed(zoneA, 4))
	if again := mustAppend(t, j, zoneA, h1, batch...); again != h3 {
		t.Errorf("batch again: head %+v, want %+v", again, h3)
	}
	if _, err := j.Append(t.Context(), zoneA, h1, failed(2), changed(zoneA, 5)); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("batch equal in part: %v, want ErrConflict", err)
	}
	if n := len(readAll(t, j, "")); n != 5 {
		t.Errorf("%d events stored, want 5", n)
	}
}

func badEventsRefused(t *testing.T, j journal.Journal) {
	long := changed(zoneA, 1)
	long.Facts = &event.ZoneChanged{Source: strings.Repeat("x", event.MaxLine)}
	noDoor := changed(zoneA, 1)
	noDoor.Actor.Door = "window"
	for name, e := range map[string]event.Event{
		"too long": long, "no facts": {Type: "zone.changed", Zone: zoneA, Time: at(1), Actor: event.Program},
		"other zone": changed(zoneB, 1), "bad door": noDoor,
	} {
		if _, err := j.Append(t.Context(), zoneA, journal.Head{}, changed(zoneA, 0), e); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for _, zone := range []event.ZoneID{"", "*", "example.com", "00000000000000AA"} {
		if _, err := j.Append(t.Context(), zone, journal.Head{}, changed(zone, 0)); err == nil {
			t.Errorf("zone id %q was taken", zone)
		}
	}
	if n := len(readAll(t, j, "")); n != 0 {
		t.Errorf("%d events stored, want none", n)
	}
}

func readRange(t *testing.T, j journal.Journal) {
	var ha, hb journal.Head
	for i := range 20 {
		ha = mustAppend(t, j, zoneA, ha, changed(zoneA, i))
		hb = mustAppend(t, j, zoneB, hb, changed(zoneB, i))
	}
	for _, c := range []struct {
		zone        event.ZoneID
		first, last uint64
		want        []uint64
	}{
		{"", 3, 6, []uint64{3, 4, 5, 6}},
		{zoneA, 3, 6, []uint64{3, 5}},
		{zoneB, 38, 0, []uint64{38, 40}},
		{"", 39, 100, []uint64{39, 40}},
		{"", 41, 0, nil},
		{"", 0, 1, []uint64{1}},
		{"00000000000000cc", 1, 0, nil},
	} {
		var got []uint64
		err := j.Read(t.Context(), c.zone, c.first, c.last, func(r journal.Record) error {
			got = append(got, r.Seq)
			return nil
		})
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("read %q %d..%d: %v (-want +got):\n%s", c.zone, c.first, c.last, err, diff)
		}
	}
}

func readNext(t *testing.T, j journal.Journal) {
	var ha, hb journal.Head
	var many []event.Event
	for i := range journal.MaxAppend {
		many = append(many, changed(zoneA, i))
	}
	ha = mustAppend(t, j, zoneA, ha, many...) // more than the server hands out at once
	for i := range 20 {
		hb = mustAppend(t, j, zoneB, hb, changed(zoneB, i))
		ha = mustAppend(t, j, zoneA, ha, changed(zoneA, i))
	}
	for _, c := range []struct {
		zone        event.ZoneID
		first       uint64
		n           int
		count       int
		begin, last uint64 // delivered
	}{
		{zoneA, 1, 1, 1, 1, 1},
		{zoneA, 10, 900, 900, 10, 909},
		{zoneA, 1001, 3, 3, 1002, 1006},
		{zoneB, 1, 20, 20, 1001, 1039},
		{zoneB, 1030, 100, 5, 1031, 1039},
		{"", 1035, 3, 3, 1035, 1037},
		{"", 0, 1, 1, 1, 1},
		{zoneA, 5, 0, 0, 0, 0},
		{zoneA, 1041, 5, 0, 0, 0},
		{"00000000000000cc", 1, 5, 0, 0, 0},
	} {
		var got []uint64
		err := j.ReadNext(t.Context(), c.zone, c.first, c.n, func(r journal.Record) error {
			got = append(got, r.Seq)
			return nil
		})
		if err != nil || len(got) != c.count || c.count > 0 && (got[0] != c.begin || got[c.count-1] != c.last) {
			t.Errorf("%d of %q from %d on: %d, %v, %v; want %d from %d to %d", c.n, c.zone, c.first, len(got), got, err, c.count, c.begin, c.last)
		}
	}
}

func fnErrorEnds(t *testing.T, j journal.Journal) {
	mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1), changed(zoneA, 2))
	// Even an error that the journal itself would wait out.
	stop := fmt.Errorf("stop: %w", journal.ErrStorage)
	calls := 0
	fn := func(journal.Record) error { calls++; return stop }
	if err := j.Read(t.Context(), "", 1, 0, fn); !errors.Is(err, stop) {
		t.Errorf("read: %v", err)
	}
	if err := j.ReadNext(t.Context(), "", 1, 2, fn); !errors.Is(err, stop) {
		t.Errorf("read of the next: %v", err)
	}
	if err := j.Follow(t.Context(), "", 1, nil, fn); !errors.Is(err, stop) {
		t.Errorf("follow: %v", err)
	}
	if calls != 3 {
		t.Errorf("%d calls, want one each", calls)
	}
}

// following runs Follow in the background and hands out what it delivers.
type following struct {
	records chan journal.Record
	caught  chan struct{}
	done    chan error
	stop    context.CancelFunc
}

func follow(t *testing.T, j journal.Journal, zone event.ZoneID, first uint64) *following {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	f := &following{make(chan journal.Record), make(chan struct{}), make(chan error, 1), cancel}
	go func() {
		f.done <- j.Follow(ctx, zone, first, func() { close(f.caught) }, func(r journal.Record) error {
			select {
			case f.records <- r:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return f
}

func (f *following) want(t *testing.T, seq uint64) {
	t.Helper()
	select {
	case r := <-f.records:
		if r.Seq != seq {
			t.Fatalf("followed to %d, want %d", r.Seq, seq)
		}
	case err := <-f.done:
		t.Fatalf("follow ended: %v", err)
	}
}

func (f *following) end(t *testing.T) {
	t.Helper()
	f.stop()
	if err := <-f.done; !errors.Is(err, context.Canceled) {
		t.Errorf("follow ended with %v, want context.Canceled", err)
	}
}

func followGoesOn(t *testing.T, j journal.Journal) {
	h := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1), changed(zoneA, 2))
	f := follow(t, j, "", 2)
	f.want(t, 2)
	<-f.caught
	for i := range 50 {
		h = mustAppend(t, j, zoneA, h, changed(zoneA, 3+i))
		f.want(t, uint64(3+i))
	}
	h = mustAppend(t, j, zoneA, h, changed(zoneA, 60), changed(zoneA, 61))
	f.want(t, h.Seq-1)
	f.want(t, h.Seq)
	f.end(t)
}

func followZone(t *testing.T, j journal.Journal) {
	mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	f := follow(t, j, zoneB, 1)
	<-f.caught
	hb := mustAppend(t, j, zoneB, journal.Head{}, changed(zoneB, 1))
	mustAppend(t, j, event.Instance, journal.Head{}, changed(event.Instance, 1))
	f.want(t, 2)
	mustAppend(t, j, zoneB, hb, changed(zoneB, 2))
	f.want(t, 4)
	f.end(t)
}

func followEnds(t *testing.T, j journal.Journal) {
	f := follow(t, j, "", 1)
	<-f.caught
	f.end(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Follow(ctx, "", 1, nil, func(journal.Record) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("follow with an ended context: %v", err)
	}
}

func checkPosition(t *testing.T, j journal.Journal) {
	h := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1))
	id, last, err := j.Stream(t.Context())
	if err != nil || id == "" || last != 1 {
		t.Fatalf("stream = %q, %d, %v", id, last, err)
	}
	for name, c := range map[string]struct {
		p    journal.Position
		want bool
	}{
		"start":        {journal.Position{Stream: id}, true},
		"head":         {journal.Position{Stream: id, Seq: 1, Hash: h.Hash}, true},
		"other hash":   {journal.Position{Stream: id, Seq: 1}, false},
		"beyond":       {journal.Position{Stream: id, Seq: 2, Hash: h.Hash}, false},
		"other stream": {journal.Position{Stream: "x", Seq: 1, Hash: h.Hash}, false},
	} {
		if got, err := j.Check(t.Context(), c.p); err != nil || got != c.want {
			t.Errorf("%s: %v, %v, want %v", name, got, err, c.want)
		}
	}
}

func closedRefuses(t *testing.T, j journal.Journal) {
	f := follow(t, j, "", 1)
	<-f.caught
	if err := j.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	if err := <-f.done; !errors.Is(err, journal.ErrClosed) {
		t.Errorf("follow ended with %v, want ErrClosed", err)
	}
	f.stop()
	ctx := t.Context()
	_, appendErr := j.Append(ctx, zoneA, journal.Head{}, changed(zoneA, 1))
	_, headErr := j.Head(ctx, zoneA)
	_, chunkErr := j.Chunk(ctx, "bulk.00000000000000aa.x", event.Chunk{})
	_, statusErr := j.Status(ctx)
	for name, err := range map[string]error{
		"append": appendErr, "head": headErr, "chunk": chunkErr, "status": statusErr,
		"read":  j.Read(ctx, "", 1, 0, func(journal.Record) error { return nil }),
		"next":  j.ReadNext(ctx, "", 1, 1, func(journal.Record) error { return nil }),
		"put":   j.NewChunks(zoneA, "x").Put(ctx, journal.RawChunk{Raw: bytes.Repeat([]byte("x"), 10)}),
		"close": j.Close(),
	} {
		if name == "put" && err == nil {
			continue // a writer may tell it in Finish
		}
		if !errors.Is(err, journal.ErrClosed) {
			t.Errorf("%s: %v, want ErrClosed", name, err)
		}
	}
}
