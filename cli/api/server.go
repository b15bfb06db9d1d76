package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
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
}

// handler is one route's function. An error that it returns is sent as a
// problem, so it must not have written anything by then.
type handler func(w http.ResponseWriter, r *http.Request) error

// Handler serves the API.
func Handler(engine *pipeline.Engine, log *slog.Logger) http.Handler {
	s := &server{engine: engine, log: log}
	mux := http.NewServeMux()
	for pattern, h := range s.routes() {
		method, path, _ := strings.Cut(pattern, " ")
		mux.Handle(method+" "+Prefix+path, s.serve(h))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, pattern := mux.Handler(r)
		if pattern == "" {
			refuse(w, r, h)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// routes is every path of the API below Prefix.
func (s *server) routes() map[string]handler {
	return map[string]handler{
		"GET /health":                                 s.health,
		"GET /zones":                                  s.listZones,
		"POST /zones":                                 s.addZone,
		"GET /zones/{zone}":                           s.showZone,
		"DELETE /zones/{zone}":                        s.removeZone,
		"POST /zones/{zone}/reload":                   s.reloadZone,
		"PATCH /zones/{zone}":                         s.changeZone,
		"POST /zones/{zone}/resign":                   s.resignZone,
		"POST /zones/{zone}/notify":                   s.notifySecondaries,
		"POST /zones/{zone}/observe":                  s.observeZone,
		"GET /zones/{zone}/serial":                    s.serials,
		"PUT /zones/{zone}/serial":                    s.raiseSerial,
		"GET /clock":                                  s.clock,
		"POST /clock/accept":                          s.acceptClock,
		"POST /clock/move":                            s.moveClock,
		"GET /tsig":                                   s.listTSIG,
		"POST /tsig":                                  s.addTSIG,
		"GET /tsig/{key}":                             s.exportTSIG,
		"DELETE /tsig/{key}":                          s.removeTSIG,
		"GET /keystores":                              s.listKeystores,
		"POST /keystores":                             s.addKeystore,
		"GET /keystores/{keystore}":                   s.showKeystore,
		"DELETE /keystores/{keystore}":                s.removeKeystore,
		"POST /keystores/{keystore}/test":             s.testKeystore,
		"GET /workers":                                s.listWorkers,
		"POST /workers":                               s.enrollWorker,
		"DELETE /workers/{worker}":                    s.removeWorker,
		"GET /zones/{zone}/await":                     s.awaitZone,
		"POST /zones/{zone}/reviews/{stage}/approve":  s.approve,
		"POST /zones/{zone}/reviews/{stage}/reject":   s.reject,
		"POST /zones/{zone}/reviews/{stage}/override": s.override,
		"POST /zones/{zone}/reset":                    s.reset,
		"POST /zones/{zone}/maintenance":              s.maintenance,
		"POST /zones/{zone}/rollback":                 s.rollback,
		"POST /zones/{zone}/release":                  s.release,
		"GET /zones/{zone}/history":                   s.history,
		"GET /zones/{zone}/events":                    s.tail,
		"GET /events":                                 s.tail,
		"GET /zones/{zone}/replay":                    s.replay,
		"GET /zones/{zone}/dump":                      s.dump,
		"GET /zones/{zone}/diff":                      s.diff,
		"GET /zones/{zone}/verify":                    s.verifyZone,
		"GET /zones/{zone}/check":                     s.checkZone,
		"GET /zones/{zone}/keys":                      s.listKeys,
		"POST /zones/{zone}/keys":                     s.generateKey,
		"POST /zones/{zone}/keys/files":               s.importKeys,
		"POST /zones/{zone}/keys/{key}/export":        s.exportKey,
		"POST /takeover":                              s.planTakeover,
		"DELETE /zones/{zone}/keys/{key}":             s.removeKey,
		"POST /zones/{zone}/keys/{key}/publish":       s.publishKey,
		"GET /backups":                                s.listBackups,
		"POST /backups":                               s.markBackup,
		"POST /keys/distribute":                       s.distributeKeys,
		"GET /zones/{zone}/rollovers":                 s.listRollovers,
		"POST /zones/{zone}/rollovers":                s.roll,
		"POST /zones/{zone}/rollovers/abort":          s.abortRollover,
		"POST /zones/{zone}/rollovers/report":         s.reportStep,
		"GET /zones/{zone}/rollovers/plan":            s.keyPlan,
		"GET /zones/{zone}/ds":                        s.ds,
		"GET /policies":                               s.listPolicies,
		"GET /policies/{policy}":                      s.showPolicy,
		"POST /policies/reload":                       s.reloadPolicies,
		"GET /audit/head":                             s.auditHead,
		"POST /audit/checkpoints":                     s.seal,
		"POST /audit/cosignatures":                    s.cosign,
		"GET /audit/export":                           s.auditExport,
		"GET /cluster":                                s.cluster,
		"GET /journal":                                s.journalStatus,
		"POST /journal/compact":                       s.compactJournal,
		"GET /journal/verify":                         s.verifyJournal,
		"GET /journal/backup":                         s.backupJournal,
		"POST /journal/backups":                       s.recordBackup,
	}
}

// serve runs a handler and turns its error into a problem.
func (s *server) serve(h handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		err := h(w, r)
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
	if probe.status < http.StatusBadRequest {
		probe.status = http.StatusNotFound
	}
	newProblem(probe.status, fmt.Sprintf("no route for %s %s", r.Method, r.URL.Path)).write(w)
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
		return fmt.Errorf("%w: body: %w", ErrRequest, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: body: more than one document", ErrRequest)
	}
	return nil
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
	return reply(w, http.StatusOK, Health{Status: "ok", Alarms: s.engine.Alarms()})
}

// Health is the answer of a daemon that is well.
type Health struct {
	Status string   `json:"status"`           // ok
	Alarms []string `json:"alarms,omitempty"` // what needs a person all the same
}
