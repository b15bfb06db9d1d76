package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"sluice/journal"
	"sluice/pipeline"
	"sluice/pipeline/store"
	"sluice/xfr"
)

// Problem is an error as the API sends it (RFC 9457).
// It is an error, and errors.Is finds the pipeline's error that it stands for.
type Problem struct {
	Type   string `json:"type"`   // always "about:blank": the status says it all
	Title  string `json:"title"`  // the status in words
	Status int    `json:"status"` // the HTTP status
	Detail string `json:"detail"` // what is wrong
}

// Error is the problem's detail.
func (p *Problem) Error() string { return p.Detail }

// Unwrap is the pipeline's error for the status, nil where there is none.
func (p *Problem) Unwrap() error {
	for _, row := range statuses() {
		if row.status == p.Status {
			return row.err
		}
	}
	return nil
}

// ErrUnreachable reports that no daemon answers, or that it went away in the
// middle of an answer.
var ErrUnreachable = errors.New("the daemon is not reachable")

// ErrRequest reports a request that could not even be read.
var ErrRequest = errors.New("bad request")

// ErrNotAllowed reports a request of somebody who is not known, or lacks the role
// for it.
var ErrNotAllowed = errors.New("not allowed")

// ErrTooMany reports that there were too many requests lately.
var ErrTooMany = errors.New("too many requests")

type statusRow struct {
	err    error
	status int
}

// statuses is the one table between errors and HTTP statuses.
func statuses() []statusRow {
	return []statusRow{
		{ErrRequest, http.StatusBadRequest},
		{pipeline.ErrNotFound, http.StatusNotFound},
		{pipeline.ErrState, http.StatusConflict},
		{pipeline.ErrInvalid, http.StatusUnprocessableEntity},
		{xfr.ErrUnknownZone, http.StatusNotFound},
		{store.ErrNoInstance, http.StatusNotFound},
		{xfr.ErrNotReady, http.StatusConflict},
		{ErrNotAllowed, http.StatusForbidden},
		{ErrNotAllowed, http.StatusUnauthorized},
		{ErrTooMany, http.StatusTooManyRequests},
	}
}

// problemOf describes an error of the engine or of a handler.
func problemOf(err error) *Problem {
	status := http.StatusInternalServerError
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	case errors.Is(err, journal.ErrNoSpace), errors.Is(err, store.ErrNoSpace):
		status = http.StatusInsufficientStorage
	default:
		for _, row := range statuses() {
			if errors.Is(err, row.err) {
				status = row.status
				break
			}
		}
	}
	return newProblem(status, err.Error())
}

func newProblem(status int, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// write sends the problem as the whole answer.
func (p *Problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", mediaProblem)
	if p.Status == http.StatusUnauthorized && w.Header().Get("WWW-Authenticate") == "" {
		w.Header().Set("WWW-Authenticate", `Bearer realm="sluice"`)
	}
	w.WriteHeader(p.Status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(p) // the status is sent; a peer that left cannot be told
}
