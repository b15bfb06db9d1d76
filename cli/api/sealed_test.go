package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sluice/pipeline"
)

// What is sealed in events is for those alone who have the role auditor: neither
// history nor a live stream shows it to others.
func TestHistory_ShowsSealedValuesToAuditorsAlone(t *testing.T) {
	engine, dir := newEngine(t, func(c *pipeline.Config) { c.Seal = pipeline.SealKinds() })
	handler, log := Handler(engine, slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler)
	as := func(name string, roles ...Role) *Client {
		return InProcess(handler, Identity{Name: name, Door: "web", Roles: roles}, log)
	}
	path := filepath.Join(dir, "example.com.zone")
	if err := os.WriteFile(path, []byte(smallZone), 0o600); err != nil {
		t.Fatal(err)
	}
	jane := as("jane.doe", RoleOperator)
	if _, err := jane.AddZone(t.Context(), pipeline.NewZone{Name: "example.com", Source: path}); err != nil {
		t.Fatal(err)
	}
	if _, err := jane.SetMaintenance(t.Context(), "example.com", SetMaintenance{Enabled: true, Reason: "given by a person"}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		role  Role
		shows bool
	}{{RoleViewer, false}, {RoleOperator, false}, {RoleReviewer, false}, {RoleAuditor, true}, {RoleAdmin, true}} {
		client := as("reader", tt.role)
		var history, tail strings.Builder
		note := func(b *strings.Builder, e Event) {
			raw, err := json.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			b.Write(raw)
		}
		err := client.History(t.Context(), "example.com", pipeline.HistoryQuery{Evidence: true}, func(e Event) error {
			note(&history, e)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		_ = client.Tail(ctx, "example.com", "1", func(e Event) error { // it ends with ctx
			note(&tail, e)
			if e.Type == "maintenance.changed" {
				cancel()
			}
			return nil
		})
		cancel()
		for what, text := range map[string]string{"history": history.String(), "tail": tail.String()} {
			for _, secret := range []string{"jane.doe", "given by a person"} {
				if strings.Contains(text, secret) != tt.shows {
					t.Errorf("%s as %s shows %q: %t, want %t\n%s", what, tt.role, secret, !tt.shows, tt.shows, text)
				}
			}
		}
	}
}
