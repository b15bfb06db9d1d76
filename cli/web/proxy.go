package web

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sluice/cli/api"
)

// recheck is how often the session of a page that follows events is asked for
// again.
const recheck = 5 * time.Second

// apiZone is the API's path of a zone.
func apiZone(name string) string {
	segment := url.PathEscape(name)
	if strings.Trim(name, ".") == "" {
		segment = strings.ReplaceAll(name, ".", "%2E")
	}
	return "/zones/" + segment
}

// pass has the API's handler answer the browser itself, as who is logged in:
// for what is long. A refusal is returned, and nothing is written then.
func (v *visit) pass(ctx context.Context, path string, query url.Values) error {
	path = api.Prefix + path
	plain, err := url.PathUnescape(path)
	if err != nil {
		return err
	}
	r := v.r.Clone(api.WithIdentity(ctx, v.id))
	r.Body, r.Pattern = http.NoBody, ""
	r.Header.Del("Cookie")
	r.Header.Del("Accept")
	r.URL = &url.URL{Path: plain, RawPath: path, RawQuery: query.Encode()}
	r.RequestURI = r.URL.RequestURI()
	w := &answer{ResponseWriter: v.w}
	v.cfg.API.ServeHTTP(w, r)
	if w.refused == 0 {
		return nil
	}
	v.w.Header().Del("Content-Disposition")
	p := &api.Problem{}
	if json.Unmarshal(w.problem.Bytes(), p) != nil || p.Detail == "" {
		p.Detail = http.StatusText(w.refused)
	}
	p.Status = w.refused
	return p
}

// answer hands on an answer that is no refusal.
type answer struct {
	http.ResponseWriter
	refused int // status
	problem bytes.Buffer
	begun   bool
}

// WriteHeader holds a refusal back.
func (a *answer) WriteHeader(status int) {
	switch {
	case a.begun || a.refused != 0:
	case status >= http.StatusBadRequest:
		a.refused = status
	default:
		a.begun = true
		a.ResponseWriter.WriteHeader(status)
	}
}

// Write hands a part on.
func (a *answer) Write(b []byte) (int, error) {
	if a.refused != 0 {
		if a.problem.Len()+len(b) > maxForm {
			return len(b), nil
		}
		return a.problem.Write(b)
	}
	a.begun = true
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// live sends the events of a zone, or of all, as they come. It ends with the
// session.
func live(v *visit) error {
	ctx, cancel := context.WithCancel(v.ctx())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		v.watch(ctx)
		cancel()
	}()
	defer func() {
		cancel()
		<-ended
	}()
	path := "/events"
	if v.r.PathValue("zone") != "" {
		path = apiZone(v.name()) + "/events"
	}
	return v.pass(ctx, path, nil)
}

// watch returns when the session does not count any more, or with ctx.
func (v *visit) watch(ctx context.Context) {
	tick := time.NewTicker(recheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if !v.counts() {
				return
			}
		}
	}
}

// counts reports whether the session still counts; one whose token is no good is
// ended. Where it cannot be told now, as when too much is asked, it goes on: the
// gate ends what a withdrawn token has begun.
func (v *visit) counts() bool {
	if !v.sessions.holds(v.session) {
		return false
	}
	if _, err := v.cfg.Authenticate(v.r, v.session.token); statusOf(err) == http.StatusUnauthorized {
		v.sessions.end(v.session)
		return false
	}
	return true
}

// zoneDump sends a version as a zone file to keep.
func zoneDump(v *visit) error {
	query := url.Values{}
	for _, key := range []string{"loaded", "serial", "at"} {
		if text := v.r.URL.Query().Get(key); text != "" {
			query.Set(key, text)
		}
	}
	v.w.Header().Set("Content-Disposition", `attachment; filename="`+fileName(v.name())+`.zone"`)
	return v.pass(v.ctx(), apiZone(v.name())+"/dump", query)
}

// fileName is a zone's name as a file's.
func fileName(name string) string {
	name = strings.TrimSuffix(name, ".")
	if name == "" {
		return "root"
	}
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return '_'
	}, strings.ToLower(name))
}

// readEvent reads what a page needs of an event's public line.
func readEvent(e api.Event, v any) bool { return json.Unmarshal(e.Event, v) == nil }
