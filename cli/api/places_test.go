package api

import (
	"context"
	"net/http"
	"slices"
	"testing"
)

func routeOf(t *testing.T, id string) Route {
	t.Helper()
	routes := Routes()
	i := slices.IndexFunc(routes, func(r Route) bool { return r.ID == id })
	if i < 0 {
		t.Fatalf("no route %s", id)
	}
	return routes[i]
}

func callerOf(t *testing.T, name, door string) context.Context {
	t.Helper()
	return WithIdentity(t.Context(), Identity{Name: name, Door: door, Roles: []Role{RoleViewer}})
}

// One caller's requests that read much wait for each other, not those of others;
// nobody at the socket waits.
func TestPlaces_NoCallerTakesThemAll(t *testing.T) {
	p, verify := newPlaces(), routeOf(t, "verifyJournal")
	var leave []func()
	_, each := heavy.room()
	for range each {
		l, problem := p.take(callerOf(t, "greedy", "api"), verify)
		if problem != nil {
			t.Fatal(problem)
		}
		leave = append(leave, l)
	}
	gone, cancel := context.WithCancel(callerOf(t, "greedy", "api"))
	cancel()
	if _, problem := p.take(gone, verify); problem == nil || problem.Status != http.StatusServiceUnavailable {
		t.Errorf("one more of the same caller: %+v", problem)
	}
	for _, tt := range []struct {
		name, door string
		route      Route
	}{
		{"other", "api", verify},
		{"greedy", "cli", verify},
		{"greedy", "api", routeOf(t, "getHistory")},
		{"greedy", "api", routeOf(t, "listZones")},
	} {
		l, problem := p.take(callerOf(t, tt.name, tt.door), tt.route)
		if problem != nil {
			t.Fatal(problem)
		}
		l()
	}
	for _, l := range leave {
		l()
	}
	if len(p.callers) != 0 || len(p.all[heavy]) != 0 {
		t.Errorf("%d callers and %d places are left", len(p.callers), len(p.all[heavy]))
	}
}

func TestPlaces_LiveStreamsOfACallerAreBounded(t *testing.T) {
	p, follow := newPlaces(), routeOf(t, "followAll")
	var leave []func()
	for range maxLiveOf {
		l, problem := p.take(callerOf(t, "greedy", "web"), follow)
		if problem != nil {
			t.Fatal(problem)
		}
		leave = append(leave, l)
	}
	if _, problem := p.take(callerOf(t, "greedy", "web"), follow); problem == nil || problem.Status != http.StatusTooManyRequests {
		t.Errorf("one more: %+v", problem)
	}
	if l, problem := p.take(callerOf(t, "other", "web"), follow); problem != nil {
		t.Errorf("another caller: %v", problem)
	} else {
		l()
	}
	for _, l := range leave {
		l()
	}
	if len(p.callers) != 0 {
		t.Errorf("%d callers are left", len(p.callers))
	}
}

// The routes that are bounded exist.
func TestPlaces_KnowTheirRoutes(t *testing.T) {
	n := map[load]int{}
	for _, route := range Routes() {
		n[route.load()]++
	}
	if n[heavy] != 10 || n[reading] != 2 {
		t.Errorf("%d routes read much and %d some, want 10 and 2: was one renamed?", n[heavy], n[reading])
	}
}
