package journal

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"sluice/journal/event"
)

// Member is a further process that may reach the journal.
type Member struct {
	Name  string
	NKey  string // its public nkey (U...)
	Roles []string
}

// Access is what a server lets a member do: subjects with the wildcards * and >.
// What is not allowed is refused.
type Access struct {
	Publish   []string `json:"publish"`
	Deny      []string `json:"deny"` // of Publish
	Subscribe []string `json:"subscribe"`
}

// The roles whose members write chunks, and the facts that members with a role
// may write. What belongs to the whole instance is written by the main process
// alone.
const (
	roleLoad    = "load"
	roleReview  = "review"
	roleSign    = "sign"
	roleKeys    = "keys"
	rolePublish = "publish"
)

// roleFacts are the types of events of each role; one that ends with a dot is
// all types of that noun.
func roleFacts(role string) []string {
	switch role {
	case roleLoad:
		return []string{"instance.loaded", "instance.fetched", "load.failed", "update.accepted"} // it may serve what it hears NOTIFY and UPDATE for
	case roleReview:
		return []string{
			"review.requested", "review.approved", "review.rejected", "review.overridden",
			"review.proposed", "review.recalled", "instance.abandoned", "zone.halted", "zone.reset",
		}
	case roleSign:
		return []string{"instance.signed", "sign.failed", "serial.raised"}
	case roleKeys:
		return []string{"key.", "rollover.", "ds.", "cds.", "hook.", "signal.", "policy.bound"}
	case rolePublish:
		return []string{"instance.published", "instance.fetched"}
	}
	return nil // observe answers questions
}

// RoleMayWrite reports whether members with a role may write events of a type.
func RoleMayWrite(role, eventType string) bool {
	return slices.ContainsFunc(roleFacts(role), func(t string) bool {
		return t == eventType || strings.HasSuffix(t, ".") && strings.HasPrefix(eventType, t)
	})
}

// anyRoleFacts are the types that say themselves to which role they belong.
func anyRoleFacts() []string { return []string{"worker.granted", "worker.quarantined", "sign.failed"} }

// Access is what a member may do at a server. The gate of an embedded server
// looks further, into what is written, see DESIGN.md.
func (m Member) Access() Access {
	a := Access{
		Publish: []string{
			"$JS.API.STREAM.INFO." + eventsStream, "$JS.API.STREAM.INFO." + bulkStream, "$JS.API.STREAM.INFO." + workersStream,
			"$JS.API.DIRECT.GET." + eventsStream, "$JS.API.DIRECT.GET." + bulkStream, "$JS.API.DIRECT.GET." + workersStream,
			// In a cluster only the leader of a stream has all of it for sure.
			"$JS.API.STREAM.MSG.GET." + eventsStream, "$JS.API.STREAM.MSG.GET." + bulkStream,
			workersSubject + aliveKey + m.Name, "ask.*.*", DoSubject("observe"), ToSubject("*"), InboxPrefix(m.Name) + ".>",
		},
		Deny:      []string{event.Instance.Filter()},
		Subscribe: []string{InboxPrefix(m.Name) + ".>", storedSubject + "ev.>", ToSubject(m.Name)},
	}
	nouns := map[string]bool{}
	for _, t := range anyRoleFacts() {
		nouns[nounOf(t)] = true
	}
	for _, role := range m.Roles {
		for _, t := range roleFacts(role) {
			nouns[nounOf(t)] = true
		}
		a.Publish = append(a.Publish, workersSubject+leaseKey+role+".*")
		a.Subscribe = append(a.Subscribe, "ask."+role+".*", DoSubject(role))
		switch role {
		case roleLoad:
			a.Publish = append(a.Publish, "bulk.*.*")
		case roleSign:
			a.Publish = append(a.Publish, "bulk.*.*", DoSubject(roleSign), PartSubject("*"))
			a.Subscribe = append(a.Subscribe, PartSubject(m.Name))
		}
	}
	for noun := range nouns {
		a.Publish = append(a.Publish, "ev.*."+noun)
	}
	slices.Sort(a.Publish)
	a.Publish = slices.Compact(a.Publish)
	return a
}

func nounOf(eventType string) string {
	noun, _, _ := strings.Cut(eventType, ".")
	return noun
}

// MayPublish reports whether a server lets the member write to a subject.
// Answers to what it was asked are let through besides.
func (a Access) MayPublish(subject string) bool {
	match := func(pattern string) bool { return matches(pattern, subject) }
	return slices.ContainsFunc(a.Publish, match) && !slices.ContainsFunc(a.Deny, match)
}

// matches reports whether a subject without wildcards falls under a pattern.
func matches(pattern, subject string) bool {
	for {
		if pattern == ">" {
			return subject != ""
		}
		p, prest, pmore := strings.Cut(pattern, ".")
		s, srest, smore := strings.Cut(subject, ".")
		if p != "*" && p != s || pmore != smore {
			return false
		}
		if !pmore {
			return true
		}
		pattern, subject = prest, srest
	}
}

// mayWrite refuses an event that a member's roles do not cover. line is the
// event as it is to be stored.
func (m Member) mayWrite(e *event.Event, line []byte) error {
	var says struct {
		Facts struct {
			Worker     string `json:"worker"`
			WorkerRole string `json:"worker_role"`
		} `json:"facts"`
	}
	if err := json.Unmarshal(line, &says); err != nil {
		return err
	}
	role := says.Facts.WorkerRole
	allowed := slices.ContainsFunc(m.Roles, func(r string) bool { return RoleMayWrite(r, e.Type) })
	switch {
	case e.Zone == event.Instance:
		return fmt.Errorf("%s belongs to the whole instance: do it at the main process", e.Type)
	case role != "" && !slices.Contains(m.Roles, role):
		return fmt.Errorf("%s of role %s", e.Type, role)
	case role == "" && !allowed, role != "" && !allowed && !slices.Contains(anyRoleFacts(), e.Type):
		return fmt.Errorf("%s", e.Type)
	case says.Facts.Worker != "" && says.Facts.Worker != m.Name && (!slices.Contains(m.Roles, roleKeys) || nounOf(e.Type) != "key"):
		// Who keeps keys records the proofs of others.
		return fmt.Errorf("%s in the name of worker %s", e.Type, says.Facts.Worker)
	}
	return nil
}
