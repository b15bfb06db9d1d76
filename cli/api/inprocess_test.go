package api

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"testing"
)

func TestInProcess_AnswersAsTheNetworkDoes(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+Prefix+"/who", func(w http.ResponseWriter, r *http.Request) {
		id, _ := IdentityOf(r.Context())
		_, _ = io.WriteString(w, `"`+id.Name+`"`)
	})
	mux.HandleFunc("GET "+Prefix+"/none", func(w http.ResponseWriter, _ *http.Request) {
		newProblem(http.StatusNotFound, "no such thing").write(w)
	})
	mux.HandleFunc("GET "+Prefix+"/panic", func(http.ResponseWriter, *http.Request) { panic("on purpose") })
	c := InProcess(mux, Identity{Name: "ada", Roles: []Role{RoleViewer}}, slog.New(slog.DiscardHandler))

	who, err := fetch[string](t.Context(), c, http.MethodGet, "/who", nil, nil)
	if err != nil || who != "ada" {
		t.Errorf("who = %q, %v; want ada", who, err)
	}
	_, err = fetch[string](t.Context(), c, http.MethodGet, "/none", nil, nil)
	if p, ok := errors.AsType[*Problem](err); !ok || p.Status != http.StatusNotFound || p.Detail != "no such thing" {
		t.Errorf("error = %v; want the problem", err)
	}
	if _, err = fetch[string](t.Context(), c, http.MethodGet, "/panic", nil, nil); err == nil {
		t.Error("a handler that panics must be an error")
	}
}

func TestIdentity_CanDoWhatItsRolesAllow(t *testing.T) {
	for _, have := range Roles() {
		for _, want := range Roles() {
			can := have == want || have == RoleAdmin || want == RoleViewer
			if got := (Identity{Roles: []Role{have}}).Can(want); got != can {
				t.Errorf("%s can %s = %v, want %v", have, want, got, can)
			}
		}
	}
	if (Identity{}).Can(RoleViewer) {
		t.Error("without a role nothing is allowed")
	}
}
