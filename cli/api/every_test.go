package api

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sluice/journal"
	"sluice/keymgr"
)

// TestEveryOperation_AnswersAsTheDocumentSays asks each operation once at least,
// in an order that makes as many as possible succeed; the rig's transport holds
// the answers against the OpenAPI document.
func TestEveryOperation_AnswersAsTheDocumentSays(t *testing.T) {
	r := newRig(t)
	z := r.add(t, "example.com")
	other := filepath.Join(r.dir, "other")
	if err := os.WriteFile(other, []byte(strings.Replace(smallZone, " 7 ", " 8 ", 1)+"www A 192.0.2.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := map[string]bool{}
	ask := func(method, path, body string, want int) rawAnswer {
		t.Helper()
		_, before, err := r.journal.Stream(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got := r.raw(t, method, Prefix+path, body)
		if got.status != want {
			t.Errorf("%s %s: status %d, want %d: %s", method, path, got.status, want, got.body)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://sluice"+Prefix+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if op := contractOf(t).operationOf(req); op != nil {
			asked[op.id] = true
			if i := slices.IndexFunc(Routes(), func(r Route) bool { return r.ID == op.id }); Routes()[i].Changes && got.status < 300 {
				r.wantActor(t, method+" "+path+" "+body, before)
			}
		}
		return got
	}
	get := func(path string) rawAnswer { t.Helper(); return ask("GET", path, "", 200) }
	const zone = "/zones/example.com"
	for _, path := range []string{
		"/health", "/status", "/status?limit=1", "/alarms", "/openapi.json", "/clock", "/zones", "/zones?limit=1", zone, zone + "/await", zone + "/serial", zone + "/keys",
		zone + "/ds", zone + "/ds?format=cds", zone + "/history", zone + "/history?limit=2", zone + "/verify", zone + "/check",
		zone + "/replay?verify=true", zone + "/dump", zone + "/rollovers", zone + "/rollovers/plan?until=2040-01-01T00:00:00Z",
		"/tsig", "/backups", "/policies", "/policies/default", "/keystores", "/workers", "/journal", "/journal/verify",
		"/journal/backup",
	} {
		get(path)
	}

	ask("PATCH", zone, `{"source":`+quote(other)+`,"dry_run":true}`, 200)
	ask("PATCH", zone, `{"source":`+quote(other)+`}`, 200)
	get(zone + "/await")
	ask("GET", zone+"/diff?from="+z.Published.Instance+"&to=nothing", "", 422)
	get(zone + "/diff?from=" + z.Published.Instance + "&to=" + url.QueryEscape(time.Now().Add(time.Second).UTC().Format(time.RFC3339)))
	ask("PUT", zone+"/serial", `{"serial":4000000000}`, 204)
	ask("POST", zone+"/reload?full=true", "", 202)
	get(zone + "/await")
	ask("POST", zone+"/resign?full=true", "", 202)
	get(zone + "/await")
	ask("POST", zone+"/maintenance", `{"enabled":true,"reason":"move"}`, 200)
	get(zone)
	ask("POST", zone+"/maintenance", `{"enabled":false}`, 200)
	ask("POST", zone+"/rollback", `{"to":`+quote(z.Published.Instance)+`,"reason":"oops","dry_run":true}`, 200)
	ask("POST", zone+"/rollback", `{"to":`+quote(z.Published.Instance)+`,"reason":"oops","yes":true}`, 200)
	get(zone + "/await")
	ask("POST", zone+"/release", `{"reason":"mended"}`, 200)
	get(zone + "/await")

	var keys []keymgr.Key
	made := ask("POST", zone+"/keys", `{"key_role":"ksk"}`, 201)
	if err := json.Unmarshal([]byte(made.body), &keys); err != nil || len(keys) != 1 {
		t.Fatalf("%d keys, %v", len(keys), err)
	}
	ask("POST", zone+"/keys/"+keys[0].ID+"/export", `{"i_understand":true}`, 200)
	ask("POST", "/backups", `{"zones":["example.com"]}`, 200)
	ask("DELETE", zone+"/keys/"+keys[0].ID, "", 200)
	get(zone + "/rollovers")
	ask("POST", zone+"/rollovers/report", `{"seen":"dnskey-seen"}`, 200)
	ask("POST", zone+"/rollovers/abort", `{"reason":"later"}`, 200)
	ask("POST", zone+"/rollovers", `{"kind":"zsk","reason":"practice"}`, 201)
	get(zone + "/await")
	get(zone + "/rollovers")
	get(zone)
	get(zone + "/rollovers/plan")
	ask("POST", "/takeover", `{"name":"b.example","source":`+quote(other)+`}`, 200)
	ask("POST", "/zones", `{"name":"b.example","source":`+quote(other)+`}`, 201)
	ask("GET", "/zones/b.example/await", "", 200)
	ask("DELETE", "/zones/b.example?force=true&at=1", "", 409)
	ask("DELETE", "/zones/b.example?force=true&reason=moved", "", 204)
	ask("POST", "/outlook", `{"policies":[{"name":"default","text":"version = \"v1\"\n"}],`+
		`"zones":[{"name":"example.com","source":`+quote(other)+`,"policy":"web","keys":["00"]},{"name":"c.example","source":`+quote(other)+`}],`+
		`"with":[{"name":"web","text":"version = \"v1\"\n"}]}`, 200)
	ask("POST", "/catalogs", `{"name":"out.example","catalog_kind":"produced","policy":"default"}`, 409)
	ask("POST", "/catalogs", `{"name":"in.example","catalog_kind":"consumed","source":"127.0.0.1:1"}`, 201)
	get("/catalogs")
	get("/catalogs/in.example")
	get("/catalogs/in.example/members?limit=1")
	ask("PATCH", "/catalogs/in.example", `{"removal_delay":60,"groups":[{"group":"g","policy":"default"}]}`, 200)
	ask("POST", "/catalogs/in.example/approve", `{"reason":"meant"}`, 409)
	ask("DELETE", "/zones/in.example?force=true", "", 409)
	ask("DELETE", "/catalogs/in.example?keep_members=true", "", 204)
	ask("POST", "/keys/distribute", `{}`, 200)
	ask("POST", "/journal/compact", `{"dry_run":true}`, 200)
	get("/journal")
	ask("POST", "/audit/checkpoints", "", 200)
	get("/audit/head")
	get("/audit/export?chunks=true")
	ask("POST", "/tokens", `{"name":"ada","api_roles":["viewer"],"expires_in":60}`, 201)
	get("/tokens")
	ask("DELETE", "/tokens/ada", "", 204)

	// What this rig cannot do says so as the document does.
	for _, no := range []struct {
		method, path, body string
		status             int
	}{
		{"POST", "/clock/accept", `{}`, 409},
		{"POST", "/alarms/test", "", 409},
		{"GET", "/log-level", "", 200},
		{"PUT", "/log-level", `{"level":"loud"}`, 422},
		{"PUT", "/log-level", `{"level":"debug"}`, 409},
		{"POST", "/clock/move", `{"seconds":1}`, 409},
		{"POST", zone + "/notify", "", 409},
		{"POST", zone + "/observe", "", 409},
		{"POST", zone + "/reviews/loaded/approve", `{"instance":"l1","digest":"00"}`, 409},
		{"POST", zone + "/reviews/signed/reject", `{"instance":"s1","digest":"00"}`, 409},
		{"POST", zone + "/reviews/loaded/override", `{"reason":"x"}`, 409},
		{"POST", zone + "/reset", `{}`, 409},
		{"POST", zone + "/keys/files", `{"files":[{"path":"/nowhere","key_role":"ksk"}]}`, 422},
		{"POST", zone + "/keys/" + strings.Repeat("0", 16) + "/publish", "", 404},
		{"GET", "/policies/default/diff", "", 409},
		{"POST", "/policies/reload", "", 409},
		{"PUT", "/policies/web", `{"text":"version = \"v1\"\n"}`, 409},
		{"DELETE", "/policies/web?reason=x", "", 409},
		{"POST", "/reload", "", 409},
		{"POST", "/tsig", `{"name":"t."}`, 409},
		{"GET", "/tsig/t", "", 404},
		{"DELETE", "/tsig/t", "", 404},
		{"POST", "/keystores", `{"name":"t","module":"/nowhere","token":"x","pin":"1"}`, 409},
		{"GET", "/keystores/nothing", "", 404},
		{"DELETE", "/keystores/nothing", "", 404},
		{"POST", "/keystores/nothing/test", `{}`, 404},
		{"POST", "/audit/cosignatures", `{"note":"x"}`, 422},
		{"POST", "/journal/backups", `{"size":1,"hash":"` + strings.Repeat("0", 64) + `","chunks":0,"missing":0,"place":"/x"}`, 422},
		{"GET", "/cluster", "", 409},
		{"POST", "/workers", `{"name":"w1","worker_roles":["load"],"nkey":"U","age":"age1"}`, 422},
		{"DELETE", "/workers/w1", "", 404},
		{"POST", "/tokens", `{"name":"ada","api_roles":["king"]}`, 422},
		{"DELETE", "/tokens/ada", "", 404},
		{"DELETE", zone + "/reviews/loaded/approve", "", 409},
		{"DELETE", zone + "/reviews/signed/override?reason=x", "", 409},
		{"DELETE", zone + "/rollback", "", 409},
		{"DELETE", zone + "/policy", "", 409},
	} {
		ask(no.method, no.path, no.body, no.status)
	}
	for _, path := range []string{"/events", zone + "/events"} {
		ask(http.MethodHead, path, "", 200)
	}
	for _, op := range contractOf(t).ops {
		if !asked[op.id] {
			t.Errorf("%s is not asked", op.id)
		}
	}
}

// wantActor checks that a request which changed something left an event by the
// person who made it.
func (r *rig) wantActor(t *testing.T, request string, before uint64) {
	t.Helper()
	if strings.Contains(request, `"dry_run":true`) {
		return
	}
	found := false
	err := r.journal.Read(t.Context(), "", before+1, 0, func(rec journal.Record) error {
		found = found || rec.Event.Actor.Person()
		return nil
	})
	if err != nil || !found {
		t.Errorf("%s left no event that names who asked: %v", request, err)
	}
}

func quote(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err)
	}
	return string(raw)
}
