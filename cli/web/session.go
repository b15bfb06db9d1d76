package web

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Bounds of sessions.
const (
	maxSessions = 256
	// idleTime ends a session in which nobody clicked; what a page fetches by
	// itself does not count.
	idleTime = time.Hour
	// wholeTime ends a session whatever happens in it.
	wholeTime = 12 * time.Hour
)

// liveHeader marks what a page fetches by itself.
const liveHeader = "X-Sluice-Live"

// sessions are who is logged in. They live in memory: after a restart everybody
// logs in anew.
type sessions struct {
	now func() time.Time

	mu  sync.Mutex
	all map[[sha256.Size]byte]*session // guarded by mu; by the hash of the cookie
}

// session is one login.
type session struct {
	key   [sha256.Size]byte
	token string
	begun time.Time

	mu    sync.Mutex
	used  time.Time // guarded by mu
	flash *flash    // guarded by mu
}

// flash is a sentence that the next page shows.
type flash struct {
	Bad  bool
	Text string
}

func newSessions(now func() time.Time) *sessions {
	return &sessions{now: now, all: map[[sha256.Size]byte]*session{}}
}

// cookieName is that of the session's cookie; over TLS the browser itself
// holds it to this host and this path.
func cookieName(r *http.Request) string {
	if r.TLS != nil {
		return "__Host-sluice"
	}
	return "sluice"
}

// begin makes a session for a token and sets its cookie. Where there are too
// many the one goes that was used least lately.
func (s *sessions) begin(w http.ResponseWriter, r *http.Request, token string) {
	raw := make([]byte, 32)
	_, _ = rand.Read(raw) // it never fails
	value := base64.RawURLEncoding.EncodeToString(raw)
	now := s.now()
	made := &session{key: sha256.Sum256([]byte(value)), token: token, begun: now, used: now}
	s.mu.Lock()
	for key, old := range s.all {
		if old.over(now) {
			delete(s.all, key)
		}
	}
	if len(s.all) >= maxSessions {
		var last *session
		for _, old := range s.all {
			if last == nil || old.lastUsed().Before(last.lastUsed()) {
				last = old
			}
		}
		delete(s.all, last.key)
	}
	s.all[made.key] = made
	s.mu.Unlock()
	http.SetCookie(w, s.cookie(r, value, int(wholeTime.Seconds())))
}

func (s *sessions) cookie(r *http.Request, value string, age int) *http.Cookie {
	return &http.Cookie{
		Name: cookieName(r), Value: value, Path: "/", MaxAge: age,
		HttpOnly: true, Secure: r.TLS != nil, SameSite: http.SameSiteStrictMode,
	}
}

// find is the session of a request, nil where there is none that counts.
func (s *sessions) find(r *http.Request) *session {
	c, err := r.Cookie(cookieName(r))
	if err != nil {
		return nil
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	found := s.all[sha256.Sum256([]byte(c.Value))]
	if found == nil {
		return nil
	}
	if found.over(now) {
		delete(s.all, found.key)
		return nil
	}
	if r.Header.Get(liveHeader) == "" {
		found.use(now)
	}
	return found
}

// holds reports whether a session still counts.
func (s *sessions) holds(one *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[one.key] == one && !one.over(s.now())
}

// end ends a session.
func (s *sessions) end(one *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, one.key)
}

func (s *session) lastUsed() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}

func (s *session) use(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used = now
}

func (s *session) over(now time.Time) bool {
	return now.Sub(s.lastUsed()) > idleTime || now.Sub(s.begun) > wholeTime
}

// say keeps a sentence for the next page.
func (s *session) say(f flash) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flash = &f
}

// heard is the sentence for this page, nil for none.
func (s *session) heard() *flash {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.flash
	s.flash = nil
	return f
}

// loginPage is what the login shows.
type loginPage struct {
	Next  string
	Error string
}

func (s *site) loginForm(w http.ResponseWriter, r *http.Request) {
	s.write(w, r, http.StatusOK, "login", shell{Title: "Log in", Body: loginPage{Next: local(r.URL.Query().Get("next"))}})
}

// login takes a token and begins a session.
func (s *site) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	token, next := strings.TrimSpace(r.PostFormValue("token")), local(r.PostFormValue("next"))
	again, status := loginPage{Next: next, Error: "Paste the token that you were given."}, http.StatusUnauthorized
	if token != "" {
		_, err := s.cfg.Authenticate(r, token)
		if err == nil {
			if old := s.sessions.find(r); old != nil {
				s.sessions.end(old)
			}
			s.sessions.begin(w, r, token)
			http.Redirect(w, r, next, http.StatusSeeOther)
			return
		}
		again.Error, status = err.Error(), statusOf(err)
	}
	s.write(w, r, status, "login", shell{Title: "Log in", Body: again})
}

// logout ends the session.
func (s *site) logout(w http.ResponseWriter, r *http.Request) {
	if found := s.sessions.find(r); found != nil {
		s.sessions.end(found)
	}
	http.SetCookie(w, s.sessions.cookie(r, "", -1))
	http.Redirect(w, r, "/login", http.StatusSeeOther)
}

// toLogin asks for a login, and comes back afterwards to what was wanted.
func (s *site) toLogin(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get(liveHeader) != "" || r.Header.Get("Accept") == "text/event-stream" {
		s.stop(w, r, http.StatusUnauthorized, "Your session has ended", "Log in again.")
		return
	}
	to := "/login"
	if next := local(r.URL.RequestURI()); r.Method == http.MethodGet && next != "/" {
		to += "?next=" + url.QueryEscape(next)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

// local is a path of this site; "/" in the place of everything else.
func local(path string) string {
	u, err := url.Parse(path)
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || !strings.HasPrefix(path, "/") ||
		strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\r\n\t") {
		return "/"
	}
	return path
}

// from is the path of the page that a form came from, "" where that is not
// told.
func (v *visit) from() string {
	u, err := url.Parse(v.r.Header.Get("Referer"))
	if err != nil || u.Host != v.r.Host || u.Path == "" {
		return ""
	}
	return local(u.RequestURI())
}
