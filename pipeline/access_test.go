package pipeline

import (
	"strings"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
)

// What a worker with a role writes is let through to the journal.
func TestRoleOfEvent_IsWhatTheJournalLetsThrough(t *testing.T) {
	for _, name := range event.Types() {
		role := RoleOfEvent(event.NewFacts(name))
		if role == "" || strings.HasPrefix(name, "worker.") { // those say it themselves
			continue
		}
		if !journal.RoleMayWrite(string(role), name) {
			t.Errorf("%s of role %s is refused", name, role)
		}
		noun, _, _ := strings.Cut(name, ".")
		access := journal.Member{Name: "w", Roles: []string{string(role)}}.Access()
		if !access.MayPublish("ev.0123456789abcdef." + noun) {
			t.Errorf("%s of role %s is refused by its subject", name, role)
		}
		for _, other := range AllRoles() {
			if other != role && journal.RoleMayWrite(string(other), name) && name != "key.proved" {
				t.Errorf("%s of role %s is let through for role %s", name, role, other)
			}
		}
	}
}
