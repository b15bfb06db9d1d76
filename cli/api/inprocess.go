package api

import (
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
)

// InProcess is a client whose requests h, a Handler of this process, answers:
// made by id, checked and noted like those of the network. Its address is never
// dialled.
func InProcess(h http.Handler, id Identity, log *slog.Logger) *Client {
	return &Client{at: "this process", base: "http://sluice", http: &http.Client{Transport: inProcess{h, id}}, log: log}
}

type inProcess struct {
	handler http.Handler
	id      Identity
}

// RoundTrip answers as soon as the handler has written a header; the body is
// what it writes from then on. A handler is not waited for: it ends when it is
// done, or with the request's context.
func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.WithContext(WithIdentity(r.Context(), t.id))
	if r.Body == nil {
		r.Body = http.NoBody
	}
	out, in := io.Pipe()
	w := &pipeWriter{body: in, header: http.Header{}, begun: make(chan struct{})}
	go w.serve(t.handler, r)
	select {
	case <-w.begun:
	case <-r.Context().Done():
		_ = out.CloseWithError(r.Context().Err()) // never fails
		return nil, r.Context().Err()
	}
	return &http.Response{
		Status: http.StatusText(w.status), StatusCode: w.status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: w.sent, Body: out, ContentLength: -1, Request: r,
	}, nil
}

// pipeWriter is a handler's side of an answer.
type pipeWriter struct {
	body   *io.PipeWriter
	header http.Header
	once   sync.Once
	begun  chan struct{} // closed once sent and status are set
	sent   http.Header
	status int
}

// serve runs the handler to its end. A panic ends the answer, not the process,
// as in net/http.
func (w *pipeWriter) serve(h http.Handler, r *http.Request) {
	var err error
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("handler panicked: %v", v)
			w.WriteHeader(http.StatusInternalServerError)
		}
		w.WriteHeader(http.StatusOK)
		_ = w.body.CloseWithError(err) // never fails
	}()
	h.ServeHTTP(w, r)
}

// Header is what will be sent.
func (w *pipeWriter) Header() http.Header { return w.header }

// WriteHeader sends the header, the first time.
func (w *pipeWriter) WriteHeader(status int) {
	w.once.Do(func() {
		w.sent, w.status = w.header.Clone(), status
		close(w.begun)
	})
}

// Write sends a part of the body. It waits until the part is read.
func (w *pipeWriter) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(p)
}

// Flush sends the header; parts of the body never wait.
func (w *pipeWriter) Flush() { w.WriteHeader(http.StatusOK) }
