package migrate

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"sluice/cli/api"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/xfr"
)

// backDaemon is a daemon with one zone, of which it says what was set and which
// it removes.
type backDaemon struct {
	st      pipeline.ZoneStatus
	removed bool
}

func (d *backDaemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodDelete {
		d.removed = true
		w.WriteHeader(http.StatusNoContent)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(d.st)
}

// sees sets what the public servers show: a serial, or 0 for one that is silent.
func (d *backDaemon) sees(serials ...uint32) {
	o := &pipeline.ObservationStatus{}
	for i, n := range serials {
		s := keymgr.Seen{Server: string(rune('a'+i)) + ".example.", Serial: n}
		if n == 0 {
			s.Error = "no answer"
		}
		o.Zone = append(o.Zone, s)
	}
	d.st.Observation = o
}

// A public server that is silent may hold what was published here: the zone stays
// until it answers, or a person says that it is done.
func TestBack_AServerThatIsSilentKeepsTheZone(t *testing.T) {
	theirs := uint32(7)
	key := keymgr.Key{State: keymgr.Active}
	key.ID, key.Role = "id", "csk"
	for _, c := range []struct {
		fact    string
		shown   []uint32 // the former signer has 7, the daemon 20
		done    bool
		outcome string
		text    string
	}{
		{"all show the former signer's", []uint32{7, 7}, false, Removed, ""},
		{"one is silent", []uint32{7, 0}, false, Waits, "1 of 2 addresses of public servers do not answer: they may hold what was published here"},
		{"all are silent", []uint32{0, 0}, false, Waits, "no public server answers: they may hold what was published here"},
		{"none is known", nil, false, Waits, "no public server answers"},
		{"one is silent, one shows ours", []uint32{20, 0}, false, Waits, "show serials from here"},
		{"one is silent, and it is done", []uint32{7, 0}, true, Removed, ""},
		{"all are silent, and it is done", []uint32{0, 0}, true, Removed, ""},
		{"one is silent, one shows ours, and it is said to be done", []uint32{20, 0}, true, Waits, "still show serials from here"},
	} {
		t.Run(c.fact, func(t *testing.T) {
			d := &backDaemon{st: pipeline.ZoneStatus{Published: &pipeline.InstanceSummary{Serial: 20}, Keys: []keymgr.Key{key}}}
			d.sees(c.shown...)
			srv := httptest.NewServer(d)
			t.Cleanup(srv.Close)
			client, err := api.NewClient(srv.URL, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			z := PlannedZone{Zone: "example.", Serial: &theirs, Keys: []PlannedKey{{ID: "id", Keystore: "token"}}}
			check := &checker{client: client, asks: xfr.NewClient(quick())}
			check.plan.Kind = "knot"
			got, err := check.back(t.Context(), z, dir, c.done)
			if err != nil || got.Outcome != c.outcome || !strings.Contains(got.Text, c.text) || d.removed != (c.outcome == Removed) {
				t.Fatalf("%+v, %v; removed %v", got, err, d.removed)
			}
			if c.outcome == Removed || c.done {
				return
			}
			if steps := strings.Join(got.Steps, "\n"); !strings.Contains(steps, "above 20") || !strings.Contains(steps, filepath.Join(dir, backFolder)) {
				t.Errorf("steps: %s", steps)
			}
			// The keys are given: from now on a person says when it is over.
			d.sees(7, 7)
			if got, err = check.back(t.Context(), z, dir, false); err != nil || got.Outcome != Waits || !strings.Contains(got.Text, "no public server shows serials from here") {
				t.Errorf("once all answer: %+v, %v", got, err)
			}
			if got, err = check.back(t.Context(), z, dir, true); err != nil || got.Outcome != Removed || !d.removed {
				t.Errorf("once it is done: %+v, %v", got, err)
			}
		})
	}
}
