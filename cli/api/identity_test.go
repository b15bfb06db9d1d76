package api

import (
	"testing"

	"sluice/journal/event"
)

// Events name the role that the route asked for where the caller has it, else the
// one that holds it.
func TestActorOf_NamesTheRoleThatAllowed(t *testing.T) {
	for _, tt := range []struct {
		roles []Role
		route Role
		want  Role
	}{
		{[]Role{RoleAdmin}, RoleOperator, RoleAdmin},
		{[]Role{RoleAdmin, RoleOperator}, RoleOperator, RoleOperator},
		{[]Role{RoleReviewer, RoleOperator}, RoleReviewer, RoleReviewer},
		{[]Role{RoleAuditor}, RoleViewer, RoleAuditor},
		{[]Role{RoleViewer}, RoleOperator, ""},
	} {
		ctx := WithIdentity(withNeeded(t.Context(), tt.route), Identity{Name: "jane", Door: "web", Roles: tt.roles})
		if got, want := actorOf(ctx), (event.Actor{Name: "jane", Door: "web", Role: string(tt.want)}); got != want {
			t.Errorf("%v at a route of %s: %+v, want %+v", tt.roles, tt.route, got, want)
		}
	}
}
