package api

import (
	"net/http"
	"slices"
	"strings"

	"sluice/pipeline"
)

// accessRoutes are about who may use the API, and what two persons decide.
func accessRoutes() []Route {
	return slices.Concat(
		tagged(
			"access",
			get("/tokens", "listTokens", RoleAdmin, "Who may use the API over the network.",
				document([]pipeline.TokenInfo{}, "tokens"), (*server).listTokens),
			change("POST", "/tokens", "addToken", RoleAdmin, "Let a person or a machine in.",
				pipeline.NewToken{}, created(GrantedToken{}, "the token"), (*server).addToken),
			change("DELETE", "/tokens/{token}", "removeToken", RoleAdmin, "End what a token may do, at once.",
				nil, done(), (*server).removeToken),
		),
		tagged(
			"reviews",
			recalling("/zones/{zone}/reviews/{stage}/approve", "recallApproval", RoleReviewer, "an approval", (*server).recallApproval),
			recalling("/zones/{zone}/reviews/{stage}/override", "recallOverride", RoleOperator, "an override", (*server).recallOverride),
			recalling("/zones/{zone}/rollback", "recallRollback", RoleOperator, "a rollback", (*server).recallRollback),
			recalling("/zones/{zone}/policy", "recallPolicy", RoleOperator, "a policy", (*server).recallPolicy),
		),
	)
}

// recalling takes back what was proposed.
func recalling(path, id string, role Role, what string, handle method) Route {
	return change("DELETE", path, id, role, "Take back the proposal of "+what+" that waits for a second person.",
		nil, document(pipeline.ZoneStatus{}, "the zone's status"), handle, text("reason", "why, for the history"))
}

// recorded are the routes that change something, or hand out what not everybody
// may have, and leave no event of their own that names who asked.
func recorded() []string {
	return []string{
		"reloadZone", "resignZone", "notifySecondaries", "observeZone", "distributeKeys", "testKeystore", "reloadPolicies",
		"makeCheckpoint", "compactJournal", "moveClock", "backupJournal", "reloadConfig",
	}
}

// record writes down who asks for what leaves no other event, before it is done.
func (s *server) record(route Route, r *http.Request) error {
	if !slices.Contains(recorded(), route.ID) || r.Method == http.MethodHead {
		return nil
	}
	request := r.Method + " " + strings.TrimPrefix(r.URL.Path, Prefix)
	if r.URL.RawQuery != "" {
		request += "?" + r.URL.RawQuery
	}
	return s.engine.Used(r.Context(), actorOf(r.Context()), r.PathValue("zone"), request)
}
