package web

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"sluice/cli/api"
)

// A session that follows events ends where its token is no good, not where it
// cannot be told for the moment.
func TestSession_OutlivesALimit(t *testing.T) {
	for _, tt := range []struct {
		status int
		counts bool
	}{
		{http.StatusTooManyRequests, true},
		{http.StatusServiceUnavailable, true},
		{http.StatusUnauthorized, false},
	} {
		s := &site{sessions: newSessions(time.Now), cfg: Config{
			Authenticate: func(*http.Request, string) (api.Identity, error) {
				return api.Identity{}, &api.Problem{Status: tt.status, Detail: "not now"}
			},
		}}
		r := httptest.NewRequest(http.MethodGet, "/live", nil)
		w := httptest.NewRecorder()
		s.sessions.begin(w, r, "sluice_token")
		r.AddCookie(w.Result().Cookies()[0])
		v := &visit{site: s, r: r, session: s.sessions.find(r)}
		if got := v.counts(); got != tt.counts {
			t.Errorf("%d: the session counts: %t, want %t", tt.status, got, tt.counts)
		}
		if got := s.sessions.find(r) != nil; got != tt.counts {
			t.Errorf("%d: the session is there: %t, want %t", tt.status, got, tt.counts)
		}
	}
}
