package api

import (
	"context"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sluice/pipeline"
)

// admit checks what a route needs of any request before its handler sees it:
// a caller with its role, parameters that it knows, a body where it takes one.
func (route Route) admit(r *http.Request) *Problem {
	if p := route.allow(r.Context()); p != nil {
		return p
	}
	if err := route.checkQuery(r.URL.RawQuery); err != nil {
		return problemOf(err)
	}
	return route.checkBody(r)
}

// allow checks who asks.
func (route Route) allow(ctx context.Context) *Problem {
	id, ok := IdentityOf(ctx)
	if !ok {
		return newProblem(http.StatusUnauthorized, "who asks has to say who they are: send Authorization: Bearer TOKEN")
	}
	if !id.Can(route.Role) {
		return newProblem(http.StatusForbidden, fmt.Sprintf("%s %s%s needs the role %s; %s has %s",
			route.Method, Prefix, route.Path, route.Role, callerName(id), roleWords(id.Roles)))
	}
	return nil
}

func callerName(id Identity) string {
	if id.Name == "" {
		return "the caller"
	}
	return id.Name
}

func roleWords(roles []Role) string {
	if len(roles) == 0 {
		return "none"
	}
	words := make([]string, 0, len(roles))
	for _, r := range roles {
		words = append(words, string(r))
	}
	return strings.Join(words, ", ")
}

// checkQuery refuses parameters that the route would not look at: a misspelt one
// must not be taken for absent.
func (route Route) checkQuery(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return fmt.Errorf("%w: query: %w", ErrRequest, err)
	}
	for name, values := range q {
		p, ok := route.query(name)
		if !ok {
			return fmt.Errorf("%w: no parameter %q here: %s", ErrRequest, name, route.knownParams())
		}
		if len(values) > 1 && !p.Many {
			return fmt.Errorf("%w: parameter %s stands %d times", ErrRequest, name, len(values))
		}
		for _, v := range values {
			if v != "" && len(p.Values) > 0 && !slices.Contains(p.Values, v) {
				return fmt.Errorf("%w: %s %q: want one of %s", pipeline.ErrInvalid, name, v, strings.Join(p.Values, ", "))
			}
		}
	}
	for _, p := range route.Query {
		if p.Needed && q.Get(p.Name) == "" {
			return fmt.Errorf("%w: parameter %s is needed: %s", ErrRequest, p.Name, p.Text)
		}
	}
	return nil
}

func (route Route) knownParams() string {
	if len(route.Query) == 0 {
		return "there are none"
	}
	names := make([]string, 0, len(route.Query))
	for _, p := range route.Query {
		names = append(names, p.Name)
	}
	return "it knows " + strings.Join(names, ", ")
}

// checkBody refuses a body that is not said to be JSON, and one that nobody
// would look at.
func (route Route) checkBody(r *http.Request) *Problem {
	if route.Body == nil {
		if r.ContentLength > 0 {
			return newProblem(http.StatusBadRequest, fmt.Sprintf("%s %s%s takes no body", route.Method, Prefix, route.Path))
		}
		return nil
	}
	if r.ContentLength == 0 {
		return nil // readBody says that there is none
	}
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err != nil || kind != mediaJSON || charset != "" && charset != "utf-8" {
		return newProblem(http.StatusUnsupportedMediaType,
			fmt.Sprintf("Content-Type %q: send JSON, Content-Type: application/json", r.Header.Get("Content-Type")))
	}
	return nil
}

// withCancel gives a request a context that ends early.
func withCancel(r *http.Request) (*http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	return r.WithContext(ctx), cancel
}

// headWriter answers a HEAD: once the header is there, the work behind the body
// ends.
type headWriter struct {
	http.ResponseWriter
	enough context.CancelFunc
}

// WriteHeader sends the header, and ends the request's work.
func (h *headWriter) WriteHeader(status int) {
	h.ResponseWriter.WriteHeader(status)
	h.enough()
}

// Write drops the body.
func (h *headWriter) Write(p []byte) (int, error) {
	h.enough()
	return len(p), nil
}

// Unwrap is for http.ResponseController.
func (h *headWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }
