package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"sync"

	"sluice/pipeline"
)

// Frame is one line of a streamed answer. Exactly one field is set. The last
// line of a complete answer has Done or Error.
type Frame struct {
	Item     json.RawMessage    `json:"item,omitempty"`
	Progress *pipeline.Progress `json:"progress,omitempty"`
	Error    *Problem           `json:"error,omitempty"`
	Done     bool               `json:"done,omitempty"`
}

// frames writes a stream of frames. Its methods may be called concurrently.
type frames struct {
	mu      sync.Mutex
	w       *bufio.Writer // guarded by mu
	enc     *json.Encoder // guarded by mu, writes to w
	control *http.ResponseController
	live    bool // every frame is sent at once
}

// streamFrames answers with what run writes. Nothing is sent before the first
// frame, so that an error before it is an ordinary problem. live is for
// streams that a person watches.
func streamFrames(w http.ResponseWriter, live bool, run func(*frames) error) error {
	started := &lazyWriter{ResponseWriter: w, contentType: mediaLines}
	f := &frames{w: bufio.NewWriterSize(started, 32<<10), control: http.NewResponseController(w), live: live}
	f.enc = json.NewEncoder(f.w)
	f.enc.SetEscapeHTML(false)
	err := run(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	last := Frame{Done: err == nil}
	if err != nil {
		if !started.begun && f.w.Buffered() == 0 {
			return err
		}
		last.Error = problemOf(err)
	}
	if err := f.enc.Encode(last); err != nil {
		return nil // the client left
	}
	_ = f.w.Flush() // as above
	return nil
}

// item sends one object.
func (f *frames) item(v any) error {
	raw, err := marshal(v)
	if err != nil {
		return err
	}
	return f.frame(Frame{Item: raw})
}

// progress says where the work stands. A client that left is noticed by the
// request's context.
func (f *frames) progress(p pipeline.Progress) { _ = f.frame(Frame{Progress: &p}) }

func (f *frames) frame(v Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.enc.Encode(v); err != nil {
		return err
	}
	if !f.live && v.Progress == nil {
		return nil
	}
	if err := f.w.Flush(); err != nil {
		return err
	}
	return f.control.Flush()
}

// lazyWriter sends the header with the first byte of the body.
type lazyWriter struct {
	http.ResponseWriter
	contentType string
	begun       bool
}

func (l *lazyWriter) Write(p []byte) (int, error) {
	if !l.begun {
		l.begun = true
		l.Header().Set("Content-Type", l.contentType)
		l.WriteHeader(http.StatusOK)
	}
	return l.ResponseWriter.Write(p)
}
