package api

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A live stream with nothing to tell says every 15 seconds that it lives.
func TestEvents_HeartbeatsComeEvery15Seconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := httptest.NewRecorder()
		ctx, cancel := context.WithCancel(t.Context())
		e := &events{w: w, control: http.NewResponseController(w), cancel: cancel}
		if err := e.begin(41); err != nil {
			t.Fatal(err)
		}
		go e.beat(ctx, heartbeat)
		time.Sleep(31 * time.Second) // of the bubble
		cancel()
		synctest.Wait()
		const want = "retry: 3000\nid: 41\n\n: still here\n\n: still here\n\n"
		if got := w.Body.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

// failing is a client that no longer takes anything.
type failing struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (f *failing) Write([]byte) (int, error)           { return 0, errors.New("deadline exceeded") }
func (f *failing) SetWriteDeadline(at time.Time) error { f.deadline = at; return nil }

func TestEvents_WhoTakesNothingIsCutOff(t *testing.T) {
	w := &failing{ResponseRecorder: httptest.NewRecorder()}
	ctx, cancel := context.WithCancel(t.Context())
	e := &events{w: w, control: http.NewResponseController(w), cancel: cancel}
	before := time.Now()
	if err := e.begin(1); err == nil {
		t.Error("what was not written must be an error")
	}
	if ctx.Err() == nil {
		t.Error("the stream must end")
	}
	if left := w.deadline.Sub(before); left < patience || left > patience+time.Minute {
		t.Errorf("the client has %s to take an event, want %s", left, patience)
	}
}

// What happens once the client knows that it is connected is not missed.
func TestTail_BeginsBeforeTheAnswerDoes(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	for range 10 {
		res := r.follow(t, "/events", "")
		before := r.nextSeq(t)
		if _, err := r.client.SetMaintenance(t.Context(), "example.com", SetMaintenance{Enabled: true, Reason: "now"}); err != nil {
			t.Fatal(err)
		}
		if got := firstID(t, res.Body); got != before {
			t.Errorf("first event %s, want %s", got, before)
		}
		res.Body.Close()
		if _, err := r.client.SetMaintenance(t.Context(), "example.com", SetMaintenance{Enabled: false, Reason: ""}); err != nil {
			t.Fatal(err)
		}
	}
}

// Whoever comes with a place that the journal has not come to follows another
// journal, or one that was restored: it is told.
func TestTail_RefusesAPlaceAheadOfTheJournal(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	for _, c := range []struct{ path, last string }{
		{"/events", "1000000"}, {"/events?from=1000000", ""}, {"/zones/example.com/events?from=1000000", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sluice"+Prefix+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.last != "" {
			req.Header.Set("Last-Event-ID", c.last)
		}
		res, err := r.client.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusBadRequest || !strings.Contains(string(text), "ahead of the journal") {
			t.Errorf("%s, Last-Event-ID %q: %d %s, %v", c.path, c.last, res.StatusCode, text, err)
		}
	}
}

// follow opens a live stream.
func (r *rig) follow(t *testing.T, path, lastID string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://sluice"+Prefix+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	res, err := r.client.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("status %d", res.StatusCode)
	}
	return res
}

// nextSeq is the sequence behind the last event, as the journal says.
func (r *rig) nextSeq(t *testing.T) string {
	t.Helper()
	res := r.follow(t, "/events", "")
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			return plusOne(t, id)
		}
	}
	t.Fatal(lines.Err())
	return ""
}

func plusOne(t *testing.T, id string) string {
	t.Helper()
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return strconv.FormatUint(n+1, 10)
}

// firstID is the id of the first event with data.
func firstID(t *testing.T, body io.Reader) (id string) {
	t.Helper()
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			id = text
		}
		if strings.HasPrefix(lines.Text(), "data: ") {
			return id
		}
	}
	t.Fatal(lines.Err())
	return ""
}

func TestTail_EndsWithTheClientAndTheDaemon(t *testing.T) {
	r := newRig(t)
	r.add(t, "example.com")
	ctx, cancel := context.WithCancel(t.Context())
	met := 0
	err := r.client.Tail(ctx, "example.com", "1", func(Event) error {
		met++
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) || met == 0 {
		t.Errorf("tail ended with %v after %d events", err, met)
	}
	// That no goroutine is left behind, TestMain checks.
}
