package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"strings"
	"time"

	"sluice/pipeline"
)

// Prefix is where the API's paths begin.
const Prefix = "/api/v1"

// maxBody bounds what a request may carry, in bytes.
const maxBody = 1 << 20

type server struct {
	engine *pipeline.Engine
	log    *slog.Logger
	// heartbeat is how often a live stream says that it lives.
	heartbeat time.Duration
	places    *places
}

// Handler serves the API to callers whose identity is in the request's context,
// see WithIdentity. Once it has served a request, Request.Pattern is that of
// the route, or empty where there is none.
func Handler(engine *pipeline.Engine, log *slog.Logger) http.Handler {
	s := &server{engine: engine, log: log, heartbeat: heartbeat, places: newPlaces()}
	mux := http.NewServeMux()
	for _, route := range Routes() {
		mux.Handle(route.Pattern(), s.serve(route))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at := r.URL.EscapedPath(); !strings.HasPrefix(at, "/") || path.Clean(at) != at {
			noRoute(r).write(w)
			return
		}
		h, pattern := mux.Handler(r)
		if pattern == "" {
			refuse(w, r, h)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// serve runs a route's handler for those who may, and turns its error into a
// problem.
func (s *server) serve(route Route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		if p := route.admit(r); p != nil {
			if id, ok := IdentityOf(r.Context()); ok && p.Status == http.StatusForbidden {
				s.engine.Refused(RefusedRole(r, id, route.Path, route.Role))
			}
			p.write(w)
			return
		}
		leave, full := s.places.take(r.Context(), route)
		if full != nil {
			full.write(w)
			return
		}
		defer leave()
		r = r.WithContext(withNeeded(r.Context(), route.Role))
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if r.Method == http.MethodHead {
			head := &headWriter{ResponseWriter: w}
			r, head.enough = withCancel(r)
			defer head.enough()
			w = head
		}
		err := s.record(route, r)
		if err == nil {
			err = route.handle(s, w, r)
		}
		if err == nil {
			return
		}
		p := problemOf(err)
		if p.Status >= http.StatusInternalServerError && r.Context().Err() == nil {
			s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		p.write(w)
	})
}

// refuse answers what no route matches: h is the mux's own answer.
func refuse(w http.ResponseWriter, r *http.Request, h http.Handler) {
	probe := &statusProbe{header: http.Header{}, status: http.StatusOK}
	h.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
	}
	p := noRoute(r)
	if probe.status == http.StatusMethodNotAllowed {
		p = newProblem(probe.status, fmt.Sprintf("%s is not for %s, but %s", r.URL.Path, r.Method, w.Header().Get("Allow")))
	}
	p.write(w)
}

func noRoute(r *http.Request) *Problem {
	return newProblem(http.StatusNotFound, fmt.Sprintf("no route for %s %s; see %s/openapi.json", r.Method, r.URL.Path, Prefix))
}

// statusProbe keeps the status of an answer and drops the rest.
type statusProbe struct {
	header http.Header
	status int
}

func (p *statusProbe) Header() http.Header         { return p.header }
func (p *statusProbe) WriteHeader(status int)      { p.status = status }
func (p *statusProbe) Write(b []byte) (int, error) { return len(b), nil }

// marshal makes JSON without a line break at its end. What stands in v as raw
// JSON stays byte for byte, since json.Marshal would change its <, > and &.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// reply sends one document.
func reply(w http.ResponseWriter, status int, v any) error {
	raw, err := marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(raw, '\n')) // a peer that left cannot be told
	return nil
}

// readBody decodes the request's one JSON document.
func readBody(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return err
		}
		return fmt.Errorf("%w: body: %s", ErrRequest, bodyFault(err))
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: body: more than one document", ErrRequest)
	}
	return nil
}

// bodyFault is what is wrong with a document, without the Go types that the
// decoder names.
func bodyFault(err error) string {
	if errors.Is(err, io.EOF) {
		return "empty: want one JSON document"
	}
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return strings.TrimPrefix(err.Error(), "json: ")
	}
	want := "a number of that range"
	switch wrong.Type.Kind() {
	case reflect.Bool:
		want = "true or false"
	case reflect.Slice, reflect.Array:
		want = "a list"
	case reflect.Struct, reflect.Map:
		want = "an object"
	case reflect.String:
		want = "a string"
	default:
	}
	if wrong.Field == "" {
		return fmt.Sprintf("want %s, not a JSON %s", want, wrong.Value)
	}
	return fmt.Sprintf("%s: want %s, not a JSON %s", wrong.Field, want, wrong.Value)
}

// timeParam reads an RFC 3339 time from the query; zero where it is absent.
func timeParam(r *http.Request, name string) (time.Time, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: %s %q is not an RFC 3339 time", ErrRequest, name, text)
	}
	return t, nil
}

func (s *server) health(w http.ResponseWriter, r *http.Request) error {
	if err := s.engine.Health(r.Context()); err != nil {
		return err
	}
	return reply(w, http.StatusOK, Health{Status: "ok", Alarms: s.engine.Alarms(), Config: s.engine.ConfigStatus()})
}

// Health is the answer of a daemon that is well.
type Health struct {
	Status string   `json:"status"`           // ok
	Alarms []string `json:"alarms,omitempty"` // what needs a person all the same
	// Config is when the config was read, and what of it waits for a restart.
	Config pipeline.ConfigStatus `json:"config"`
}
