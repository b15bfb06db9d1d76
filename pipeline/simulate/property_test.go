package simulate

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"sluice/keymgr"
	"sluice/pipeline"
)

// In any world whose sites are no later than the margin, with any rollovers,
// failing servers and people, no validator may refuse anything, and what begins
// ends unless a person is waited for or a server is silent.
func TestRun_NeverBogusWithinTheMargin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		hours := func(name string, least, most int) time.Duration {
			return time.Duration(rapid.IntRange(least, most).Draw(rt, name)) * time.Hour
		}
		margin := hours("margin", 1, 48)
		text := fmt.Sprintf("%s[key-manager]\nobservation-interval = \"6h\"\npropagation-margin = \"%ds\"\n[key-manager.records]\nttl = \"%ds\"\n[key-manager.zsk]\nvalidity = \"%dd\"\nmethod = %q\n",
			testPolicyHead, margin/time.Second, hours("key TTL", 1, 48)/time.Second, rapid.IntRange(15, 60).Draw(rt, "validity"),
			rapid.SampledFrom(keymgr.Methods(keymgr.RollZSK)).Draw(rt, "ZSK method"))
		if rapid.Bool().Draw(rt, "CSK") {
			text += "[key-manager.generation]\nuse-csk = true\n"
		}
		p, err := pipeline.Parse("drawn", []byte(text))
		if err != nil {
			rt.Fatal(err)
		}
		s := Usual(p, at(0), at(70))
		s.Servers, s.Parents, s.RRsets = rapid.IntRange(1, 3).Draw(rt, "servers"), rapid.IntRange(1, 3).Draw(rt, "parents"), 50
		s.Propagation, s.Late = hours("propagation", 0, 72), time.Duration(rapid.Int64Range(0, int64(margin/time.Second)).Draw(rt, "late"))*time.Second
		s.DSTTL, s.ZoneTTL, s.ParentInterval = hours("DS TTL", 1, 96), hours("zone TTL", 1, 48), hours("interval", 1, 96)
		s.ReadsCDS, s.OperatorDelay = rapid.Bool().Draw(rt, "reads CDS"), hours("operator", 1, 100)
		for range rapid.IntRange(0, 3).Draw(rt, "failures") {
			from := rapid.IntRange(1, 50).Draw(rt, "fails")
			names := []string{serverName(s.Servers - 1), parentName(s.Parents - 1), serverName(0)}
			s.Failures = append(s.Failures, Failure{
				Server: rapid.SampledFrom(names).Draw(rt, "server"), From: at(from), Until: at(from + rapid.IntRange(1, 20).Draw(rt, "for")),
			})
		}
		for range rapid.IntRange(0, 4).Draw(rt, "rollovers") {
			kind := rapid.SampledFrom([]keymgr.Kind{keymgr.RollZSK, keymgr.RollKSK, keymgr.RollCSK, keymgr.RollAlgorithm, keymgr.RollInsecure}).Draw(rt, "kind")
			roll := Roll{At: at(rapid.IntRange(1, 60).Draw(rt, "day")), Request: pipeline.RolloverRequest{
				Kind: kind, Method: rapid.SampledFrom(keymgr.Methods(kind)).Draw(rt, "method"),
			}}
			if kind == keymgr.RollAlgorithm {
				roll.Request.Algorithm = rapid.SampledFrom([]string{"ED25519", "ECDSAP256SHA256"}).Draw(rt, "algorithm")
			}
			s.Rolls = append(s.Rolls, roll)
		}
		sum, err := Run(t.Context(), s, func(l Line) error {
			if l.Kind == KindBogus {
				rt.Errorf("%s", l.Text)
			}
			return nil
		})
		if err != nil {
			rt.Fatal(err)
		}
		for _, r := range sum.Rollovers {
			if r.Until == nil && r.Aborted == nil && r.From.Before(at(20)) && len(s.Failures) == 0 && r.Kind != keymgr.RollAlgorithm {
				rt.Errorf("rollover %d of %s by %s, begun %s, waits: %s", r.ID, r.Kind, r.Method, r.From, r.Waits)
			}
		}
	})
}
