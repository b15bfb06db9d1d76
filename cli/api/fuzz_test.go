package api

import (
	"bytes"
	"context"
	"log/slog"
	"mime"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

// FuzzAPI sends arbitrary requests of an admin to the API: it never fails, and
// never answers other than the OpenAPI document says.
func FuzzAPI(f *testing.F) {
	engine, dir := newEngine(f)
	path := filepath.Join(dir, "zone")
	if err := os.WriteFile(path, []byte(smallZone), 0o600); err != nil {
		f.Fatal(err)
	}
	h := Handler(engine, slog.New(slog.DiscardHandler))
	admin := Identity{Name: "ada", Door: "api", Roles: []Role{RoleAdmin}}
	add := pipeline.NewZone{Name: "example.com", Source: path}
	if _, err := engine.AddZone(f.Context(), actorOf(WithIdentity(f.Context(), admin)), add); err != nil {
		f.Fatal(err)
	}
	if _, err := engine.Await(f.Context(), "example.com", nil); err != nil {
		f.Fatal(err)
	}
	for _, r := range Routes() {
		query := url.Values{}
		for _, p := range r.Query {
			query.Set(p.Name, "1")
		}
		var body []byte
		if r.Body != nil {
			var err error
			if body, err = marshal(reflect.New(r.Body).Interface()); err != nil {
				f.Fatal(err)
			}
		}
		f.Add(r.Method, fill(r.Path), "", mediaJSON, body)
		f.Add(r.Method, fill(r.Path), query.Encode(), mediaJSON, body)
	}
	doc := contractOf(f)
	f.Fuzz(func(t *testing.T, method, path, query, kind string, body []byte) {
		if bytes.Contains(body, []byte(`"module"`)) {
			t.Skip("loads a library into the process")
		}
		ctx, cancel := context.WithTimeout(WithIdentity(t.Context(), admin), 100*time.Millisecond)
		defer cancel()
		r, err := http.NewRequestWithContext(ctx, method, "http://sluice"+path, bytes.NewReader(body))
		if err != nil || r.URL.Host != "sluice" {
			t.Skip("no request")
		}
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		began := time.Now()
		h.ServeHTTP(w, r)
		if took := time.Since(began); took > 20*time.Second {
			t.Errorf("%s %s?%s took %s, though its client left at once", method, path, query, took)
		}
		if w.Code >= 500 && (w.Code != http.StatusServiceUnavailable || ctx.Err() == nil) {
			t.Errorf("%s %s?%s: status %d: %s", method, path, query, w.Code, w.Body)
		}
		op := doc.operationOf(r)
		if op == nil || r.Method == http.MethodHead {
			return
		}
		media, _, _ := mime.ParseMediaType(w.Header().Get("Content-Type")) // "" where there is none
		place, ok := op.answers[strconv.Itoa(w.Code)][media]
		if !ok && w.Code != http.StatusNoContent && w.Code != http.StatusAccepted {
			t.Errorf("%s: status %d with Content-Type %q is not in the document", op.id, w.Code, media)
		}
		if media != mediaJSON && media != mediaProblem {
			return
		}
		if err := doc.check(place, w.Body.Bytes()); err != nil {
			t.Errorf("%s: %v\n%s", op.id, err, w.Body)
		}
		if media == mediaProblem && !strings.Contains(w.Body.String(), `"detail":"`) {
			t.Errorf("%s: a problem without a detail: %s", op.id, w.Body)
		}
	})
}
