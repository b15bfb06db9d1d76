package api

import (
	"context"
	"slices"

	"sluice/journal/event"
)

// Role is what a caller may do. Every route asks for one; RoleViewer is in
// every other, and RoleAdmin has all.
type Role string

// The roles.
const (
	RoleViewer   Role = "viewer"   // see zones, public keys, history
	RoleReviewer Role = "reviewer" // approve and reject
	RoleOperator Role = "operator" // work on zones, keys and rollovers
	RoleAuditor  Role = "auditor"  // take exports, see what is sealed
	RoleAdmin    Role = "admin"    // everything: secrets, access, the journal
)

// Roles are all roles, the least first.
func Roles() []Role {
	return []Role{RoleViewer, RoleReviewer, RoleOperator, RoleAuditor, RoleAdmin}
}

// Identity is who makes a request, and by which door.
type Identity struct {
	Name  string
	Door  string // cli, api or web
	Roles []Role
}

// Can reports whether the caller may do what asks for role.
func (id Identity) Can(role Role) bool {
	if slices.Contains(id.Roles, RoleAdmin) || slices.Contains(id.Roles, role) {
		return true
	}
	return role == RoleViewer && len(id.Roles) > 0
}

type identityKey struct{}

// WithIdentity makes id the caller of requests that carry the context.
func WithIdentity(ctx context.Context, id Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, id)
}

// IdentityOf is the caller of a request; false where nobody proved to be one.
func IdentityOf(ctx context.Context) (Identity, bool) {
	id, ok := ctx.Value(identityKey{}).(Identity)
	return id, ok
}

// actorOf is who makes a request, as events name it.
func actorOf(ctx context.Context) event.Actor {
	id, ok := IdentityOf(ctx)
	if !ok {
		return event.Actor{Name: "unknown", Door: "api"}
	}
	return event.Actor{Name: id.Name, Door: id.Door, Role: string(id.by(needed(ctx)))}
}

// by is the role by which the caller may do what asks for role: that one where
// it was given to the caller, else the one that holds it. Empty where the caller
// may not.
func (id Identity) by(role Role) Role {
	switch {
	case slices.Contains(id.Roles, role):
		return role
	case slices.Contains(id.Roles, RoleAdmin):
		return RoleAdmin
	case role == RoleViewer && len(id.Roles) > 0:
		return id.Roles[0]
	}
	return ""
}

// seesSealed reports whether the caller may see what is sealed in events.
func seesSealed(ctx context.Context) bool {
	id, ok := IdentityOf(ctx)
	return ok && id.Can(RoleAuditor)
}

type neededKey struct{}

// withNeeded says which role a request's route asks for.
func withNeeded(ctx context.Context, role Role) context.Context {
	return context.WithValue(ctx, neededKey{}, role)
}

// needed is the role that a request's route asks for.
func needed(ctx context.Context) Role {
	role, _ := ctx.Value(neededKey{}).(Role)
	return role
}
