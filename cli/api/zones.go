package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
	"sluice/signer/zone"
)

// Event is one event of history or tail: a readable line, and the public
// line of the journal as it stands there.
type Event struct {
	pipeline.HistoryLine
	Event json.RawMessage `json:"event,omitempty"`
}

func eventOf(l pipeline.HistoryLine) Event {
	return Event{HistoryLine: l, Event: json.RawMessage(l.Event)}
}

func (s *server) addZone(w http.ResponseWriter, r *http.Request) error {
	var z pipeline.NewZone
	if err := readBody(r, &z); err != nil {
		return err
	}
	status, err := s.engine.AddZone(r.Context(), actorOf(r.Context()), z)
	if err != nil {
		return err
	}
	return reply(w, http.StatusCreated, status)
}

func (s *server) showZone(w http.ResponseWriter, r *http.Request) error {
	status, err := s.engine.Zone(r.Context(), r.PathValue("zone"))
	if err != nil {
		return err
	}
	return reply(w, http.StatusOK, status)
}

func (s *server) removeZone(w http.ResponseWriter, r *http.Request) error {
	force, err := boolParam(r, "force")
	if err != nil {
		return err
	}
	q := r.URL.Query()
	how := pipeline.Removal{Force: force, Reason: q.Get("reason")}
	if at := q.Get("at"); at != "" {
		if how.At, err = strconv.ParseUint(at, 10, 63); err != nil {
			return fmt.Errorf("%w: at %q is not a sequence", ErrRequest, at)
		}
	}
	if err := s.engine.EndZone(r.Context(), actorOf(r.Context()), r.PathValue("zone"), how); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *server) reloadZone(w http.ResponseWriter, r *http.Request) error {
	full, err := boolParam(r, "full")
	if err != nil {
		return err
	}
	replace, err := boolParam(r, "replace")
	if err != nil {
		return err
	}
	if replace && !full {
		return fmt.Errorf("%w: replace needs full", pipeline.ErrInvalid)
	}
	if replace {
		err = s.engine.Replace(r.Context(), actorOf(r.Context()), r.PathValue("zone"))
	} else {
		err = s.engine.Reload(r.Context(), actorOf(r.Context()), r.PathValue("zone"), full)
	}
	if err != nil {
		return err
	}
	w.WriteHeader(http.StatusAccepted)
	return nil
}

// awaitZone streams progress until the zone is at rest; the one item is its
// status then.
func (s *server) awaitZone(w http.ResponseWriter, r *http.Request) error {
	return streamFrames(w, true, func(f *frames) error {
		status, err := s.engine.Await(r.Context(), r.PathValue("zone"), f.progress)
		if err != nil {
			return err
		}
		return f.item(status)
	})
}

func (s *server) replay(w http.ResponseWriter, r *http.Request) error {
	verify, err := boolParam(r, "verify")
	if err != nil {
		return err
	}
	return streamFrames(w, true, func(f *frames) error {
		return s.engine.Replay(r.Context(), r.PathValue("zone"), r.URL.Query().Get("to"), verify, f.progress,
			func(step pipeline.ReplayStep) error { return f.item(step) })
	})
}

// outcomeTrailer says after a streamed file whether it is complete: "ok", or
// what went wrong.
const outcomeTrailer = "Sluice-Outcome"

func setOutcome(w http.ResponseWriter, err error) {
	outcome := "ok"
	if err != nil {
		outcome = strings.NewReplacer("\n", " ", "\r", " ").Replace(err.Error())
	}
	w.Header().Set(outcomeTrailer, outcome)
}

func (s *server) dump(w http.ResponseWriter, r *http.Request) error {
	q, err := dumpQuery(r)
	if err != nil {
		return err
	}
	body := &lazyWriter{ResponseWriter: w, contentType: "text/dns"}
	w.Header().Set("Trailer", outcomeTrailer)
	buffered := bufio.NewWriterSize(body, 64<<10)
	err = s.engine.Dump(r.Context(), r.PathValue("zone"), q, buffered)
	if err != nil && !body.begun {
		w.Header().Del("Trailer")
		return err
	}
	if err == nil {
		err = buffered.Flush()
	}
	setOutcome(w, err)
	return nil
}

func dumpQuery(r *http.Request) (pipeline.DumpQuery, error) {
	var q pipeline.DumpQuery
	var err error
	if q.Loaded, err = boolParam(r, "loaded"); err != nil {
		return q, err
	}
	if q.At, err = timeParam(r, "at"); err != nil {
		return q, err
	}
	if text := r.URL.Query().Get("serial"); text != "" {
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return q, fmt.Errorf("%w: serial %q is not a number of 32 bits", ErrRequest, text)
		}
		serial := uint32(n)
		q.Serial = &serial
	}
	return q, nil
}

func (s *server) diff(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	if q.Get("from") == "" || q.Get("to") == "" {
		return fmt.Errorf("%w: from and to are needed", ErrRequest)
	}
	return streamFrames(w, false, func(f *frames) error {
		return s.engine.Diff(r.Context(), r.PathValue("zone"), q.Get("from"), q.Get("to"),
			func(l pipeline.DiffLine) error { return f.item(l) })
	})
}

// verifyZone streams progress; the one item is the report.
func (s *server) verifyZone(w http.ResponseWriter, r *http.Request) error {
	return streamFrames(w, true, func(f *frames) error {
		report, err := s.engine.VerifyZone(r.Context(), r.PathValue("zone"), f.progress)
		if err != nil {
			return err
		}
		name, err := zone.ParseName(r.PathValue("zone"))
		if err != nil {
			return err
		}
		return f.item(ReportOf(name.Fold().String(), report))
	})
}

// checkZone streams progress; the one item is what was found.
func (s *server) checkZone(w http.ResponseWriter, r *http.Request) error {
	return streamFrames(w, true, func(f *frames) error {
		found, err := s.engine.CheckZone(r.Context(), r.PathValue("zone"), f.progress)
		if err != nil {
			return err
		}
		return f.item(found)
	})
}

func boolParam(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	v, err := strconv.ParseBool(text)
	if err != nil {
		return false, fmt.Errorf("%w: %s %q is neither true nor false", ErrRequest, name, text)
	}
	return v, nil
}

// formatTime is how times stand in queries.
func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
