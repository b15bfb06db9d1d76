package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"sluice/pipeline"
)

// BenchmarkListZones lists 300 zones that are published.
func BenchmarkListZones(b *testing.B) {
	engine, dir := newEngine(b)
	path := filepath.Join(dir, "zone")
	if err := os.WriteFile(path, []byte(smallZone), 0o600); err != nil {
		b.Fatal(err)
	}
	ctx := WithIdentity(b.Context(), Identity{Name: "ada", Door: "api", Roles: []Role{RoleAdmin}})
	const zones = 300
	for i := range zones {
		name := fmt.Sprintf("z%d.example", i)
		if _, err := engine.AddZone(ctx, actorOf(ctx), pipeline.NewZone{Name: name, Source: path}); err != nil {
			b.Fatal(err)
		}
		if _, err := engine.Await(ctx, name, nil); err != nil {
			b.Fatal(err)
		}
	}
	h := Handler(engine, slog.New(slog.DiscardHandler))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, Prefix+"/zones", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/zones, "µs/zone")
}
