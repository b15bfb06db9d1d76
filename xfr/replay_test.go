package xfr

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// A signed request that is sent again and again costs what it cost the first
// time, a few lines in the log, and nothing once its time is over.
func TestTSIG_ReplayAndWrongTimeCostFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys, secrets := tsigKeys(t, "hmac-sha256")
		var out strings.Builder
		told := 0
		s := testServer(t, Config{
			Source: memSource{exampleName: exampleView(t, 5)}, Keys: keys, Logger: slog.New(slog.NewTextHandler(&out, nil)),
			AllowsNotify: func(_ zone.Name, p Peer) error {
				if p.Key != "transfer.key." {
					return ErrNotAllowed
				}
				return nil
			},
			Notified: func(zone.Name, *zone.Serial, Peer) { told++ },
		})
		m := new(dns.Msg).SetNotify("example.").SetTsig("transfer.key.", dns.HmacSHA256, 300, time.Now().Unix())
		wire, _, err := dns.TsigGenerate(m, secrets["transfer.key."], "", false)
		if err != nil {
			t.Fatal(err)
		}
		for _, phase := range []struct {
			fact  string
			after time.Duration
			rcode byte
			told  int
			line  string
		}{
			{"within its time", 0, dns.RcodeSuccess, 1000, `msg="notify received"`},
			{"up to the end of its time", 300 * time.Second, dns.RcodeSuccess, 1000, `msg="notify received"`},
			{"after its time", time.Second, dns.RcodeNotAuth, 0, "tsig=BADTIME claimed_key=transfer.key. "},
		} {
			time.Sleep(phase.after) // of the bubble's clock
			told = 0
			out.Reset()
			for range 1000 {
				if answer := askPacket(t, s, wire); answer[3]&0xf != phase.rcode {
					t.Fatalf("%s: header % x", phase.fact, answer[:12])
				}
			}
			if got := out.String(); told != phase.told || strings.Count(got, "\n") != 1 || !strings.Contains(got, phase.line) {
				t.Errorf("%s: told %d times, logged\n%s", phase.fact, told, got)
			}
		}
	})
}

func TestHostileConnections_CostFewLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		view := largeView(t)
		s := testServer(t, Config{Source: memSource{exampleName: view}, Logger: slog.New(slog.NewTextHandler(&out, nil))})
		for range 50 {
			c, done := serve(t, s)
			send(t, c, []byte{0xff, 0xff})
			<-done
		}
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "too long") {
			t.Errorf("too long requests:\n%s", got)
		}
		out.Reset()
		for range 50 {
			c, done := serve(t, s)
			send(t, c, framed(t, new(dns.Msg).SetAxfr("example.")))
			_ = c.Close() // in the middle of the transfer
			<-done
		}
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, "broken off") {
			t.Errorf("transfers broken off:\n%s", got)
		}
		if st := s.Stats(); st.BrokenTransfers != 50 || st.Dropped != 50 || st.TransfersUnderWay != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func FuzzParseEndpoint(f *testing.F) {
	for _, s := range []string{
		"192.0.2.1", "[2001:db8::1]:99^k.", "tls://192.0.2.1:8853^k#ns.a.#sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		"tls://::1#127.0.0.1", `192.0.2.1^a\.b`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		ep, err := ParseEndpoint(s)
		if err != nil {
			return
		}
		again, err := ParseEndpoint(ep.String())
		if err != nil || again.String() != ep.String() || again.Addr != ep.Addr || again.Key != ep.Key || (again.TLS == nil) != (ep.TLS == nil) {
			t.Errorf("%q reads as %v, then %v, %v", s, ep, again, err)
		}
	})
}
