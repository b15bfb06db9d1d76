package web

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"sluice/cli/api"
)

// Config is what the page is made from.
type Config struct {
	// API is the API's handler; it decides what each person may do.
	API http.Handler
	// Authenticate tells who holds a token. It is asked at the login and again
	// with every request, so that a withdrawn token ends its sessions. r is the
	// browser's request; the error's text is shown, and unless it is a problem
	// with another status than 401 the token is no good.
	Authenticate func(r *http.Request, token string) (api.Identity, error)
	Logger       *slog.Logger
}

// maxForm bounds a form in bytes.
const maxForm = 64 << 10

// door is the door that events name for what is done on the page.
const door = "web"

type site struct {
	cfg      Config
	sessions *sessions
	pages    map[string]*template.Template
	assets   assets
}

// Handler serves the page at "/" and below. It answers every path; mount the
// API's own paths before it.
func Handler(cfg Config) (http.Handler, error) {
	s := &site{cfg: cfg, sessions: newSessions(time.Now)}
	var err error
	if s.assets, err = readAssets(); err != nil {
		return nil, fmt.Errorf("read the page's files: %w", err)
	}
	if s.pages, err = readPages(s.assets); err != nil {
		return nil, fmt.Errorf("read the page's templates: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+staticPrefix+"{hash}/{file}", s.static)
	mux.HandleFunc("GET /login", s.loginForm)
	mux.HandleFunc("POST /login", s.login)
	mux.HandleFunc("POST /logout", s.logout)
	for pattern, view := range s.views() {
		mux.Handle(pattern, s.page(view))
	}
	same := http.NewCrossOriginProtection()
	same.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.stop(w, r, http.StatusForbidden, "This form came from another site", "Open the page itself and try again.")
	}))
	return headers(same.Handler(mux)), nil
}

// views are the pages for those who are logged in.
func (s *site) views() map[string]view {
	return map[string]view{
		"/":                                       notFound,
		"GET /{$}":                                overview,
		"GET /history":                            allHistory,
		"GET /live":                               live,
		"GET /policies":                           policies,
		"GET /policies/{policy}":                  policy,
		"POST /policies/reload":                   reloadPolicies,
		"GET /system":                             system,
		"GET /access":                             accessPage,
		"GET /audit":                              auditPage,
		"GET /audit/export":                       auditExport,
		"POST /audit/checkpoint":                  seal,
		"GET /zones/{zone}":                       zoneNow,
		"GET /zones/{zone}/live":                  live,
		"GET /zones/{zone}/keys":                  zoneKeys,
		"GET /zones/{zone}/versions":              zoneVersions,
		"GET /zones/{zone}/diff":                  zoneDiff,
		"GET /zones/{zone}/dump":                  zoneDump,
		"GET /zones/{zone}/history":               zoneHistory,
		"GET /zones/{zone}/rollback":              rollbackPlan,
		"POST /zones/{zone}/rollback":             rollback,
		"POST /zones/{zone}/do/{action}":          act,
		"POST /zones/{zone}/reviews/{stage}":      verdict,
		"POST /zones/{zone}/rollovers":            roll,
		"POST /zones/{zone}/rollovers/abort":      abortRollover,
		"POST /zones/{zone}/rollovers/report":     reportStep,
		"POST /zones/{zone}/observe":              observe,
		"POST /zones/{zone}/maintenance/{switch}": maintenance,
	}
}

// policyHeader lets a page load nothing but this server's own files, send
// forms nowhere else, and stand in no frame.
const policyHeader = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'"

// headers sets what every answer of the page has.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policyHeader)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=(), payment=()")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// view makes one page, or does what a form asks for. An error is shown as a
// page, so a view must not have written anything by then.
type view func(v *visit) error

// visit is one request of somebody who is logged in.
type visit struct {
	*site
	w       http.ResponseWriter
	r       *http.Request
	id      api.Identity
	session *session
	client  *api.Client
}

func (v *visit) ctx() context.Context { return v.r.Context() }

// page lets those in who are logged in.
func (s *site) page(show view) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		found := s.sessions.find(r)
		if found == nil {
			s.toLogin(w, r)
			return
		}
		id, err := s.cfg.Authenticate(r, found.token)
		if status := statusOf(err); status == http.StatusUnauthorized {
			s.sessions.end(found)
			s.toLogin(w, r)
			return
		} else if err != nil {
			s.stop(w, r, status, http.StatusText(status), err.Error())
			return
		}
		id.Door = door
		r.Body = http.MaxBytesReader(w, r.Body, maxForm)
		v := &visit{site: s, w: w, r: r, id: id, session: found, client: api.InProcess(s.cfg.API, id, s.cfg.Logger)}
		if err := show(v); err != nil {
			v.fail(err)
		}
	})
}

// statusOf is what an error of Authenticate is answered with: 401 where the
// token is no good, else what the API says.
func statusOf(err error) int {
	if err == nil {
		return http.StatusOK
	}
	if p, ok := errors.AsType[*api.Problem](err); ok {
		return p.Status
	}
	return http.StatusUnauthorized
}

// fail shows what went wrong: a form's error above the page that it came from,
// everything else as a page of its own.
func (v *visit) fail(err error) {
	if v.ctx().Err() != nil {
		return // the browser left
	}
	status, text := http.StatusInternalServerError, err.Error()
	var tooLarge *http.MaxBytesError
	switch p, ok := errors.AsType[*api.Problem](err); {
	case ok:
		status, text = p.Status, p.Detail
	case errors.As(err, &tooLarge):
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, errForm):
		status = http.StatusBadRequest
	case errors.Is(err, api.ErrUnreachable):
		status = http.StatusServiceUnavailable
	}
	if status >= http.StatusInternalServerError {
		v.cfg.Logger.ErrorContext(v.ctx(), "page failed", "method", v.r.Method, "path", v.r.URL.Path, "error", err)
	}
	if back := v.from(); v.r.Method == http.MethodPost && back != "" && status != http.StatusForbidden {
		v.session.say(flash{Bad: true, Text: text})
		http.Redirect(v.w, v.r, back, http.StatusSeeOther)
		return
	}
	title := map[int]string{
		http.StatusForbidden:           "You may not do that",
		http.StatusNotFound:            "There is nothing here",
		http.StatusInternalServerError: "That did not work",
		http.StatusServiceUnavailable:  "The daemon is busy starting or stopping",
	}[status]
	if title == "" {
		title = http.StatusText(status)
	}
	v.render(status, "error", title, errorPage{Status: status, Text: text})
}

// errForm reports a form that cannot be read.
var errForm = errors.New("the form cannot be read")

// errorPage is what the page of an error shows.
type errorPage struct {
	Status int
	Text   string
}

func notFound(v *visit) error {
	return &api.Problem{Status: http.StatusNotFound, Detail: "No page has the address " + v.r.URL.Path + "."}
}

// stop shows an error to somebody who may not be logged in.
func (s *site) stop(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	s.write(w, r, status, "stop", shell{Title: title, Body: errorPage{Status: status, Text: text}})
}

// done goes back to the page that a form came from, with a sentence above it.
func (v *visit) done(text, to string) error {
	v.session.say(flash{Text: text})
	http.Redirect(v.w, v.r, to, http.StatusSeeOther)
	return nil
}
