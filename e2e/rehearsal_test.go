package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// rehearsal is how long signatures live, and for how long that is rehearsed.
type rehearsal struct {
	names                              int
	policy                             string
	remain, interval, window, duration time.Duration
	rate                               int // simulated seconds a second
}

// signing is one instance.signed as history tells it.
type signing struct {
	Time  time.Time `json:"time"`
	Event struct {
		Facts struct {
			Made       int   `json:"made"`
			Signatures int   `json:"signatures"`
			Earliest   int64 `json:"earliest_expiry"`
		} `json:"facts"`
	} `json:"event"`
}

// A zone that is left alone is signed in slices of much the same size, each
// served as an IXFR of its records, and no signature is ever short of its
// remain-time. With SLUICE_LONG these are sixty days of the built-in policy.
func TestRehearsal_SignaturesStayFreshInSlices(t *testing.T) {
	t.Parallel()
	r := rehearsal{
		names:  300,
		policy: "version = \"v1\"\n[signer]\nsignature-lifetime = \"2d\"\nsignature-remain-time = \"1d\"\nsignature-refresh-interval = \"4h\"\n",
		remain: 24 * time.Hour, interval: 4 * time.Hour, window: 19 * time.Hour, duration: 30 * time.Hour, rate: 3600,
	}
	if long() {
		const day = 24 * time.Hour
		r = rehearsal{
			names: 3000, policy: "version = \"v1\"\n",
			remain: 14 * day, interval: day / 2, window: 13*day + 9*time.Hour, duration: 60 * day, rate: 3600,
		}
	}
	var zone strings.Builder
	fmt.Fprintf(&zone, "$TTL 3600\n@ IN SOA ns1 hostmaster 1 7200 3600 1209600 300\n IN NS ns1\nns1 IN A 192.0.2.1\n")
	for i := range r.names {
		fmt.Fprintf(&zone, "n%d IN A 192.0.2.%d\n IN TXT \"text\"\n", i, i%250)
	}
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := shortDir(t)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), r.policy)
	d := &daemon{data: filepath.Join(dir, "data"), addr: freeAddr(t)}
	d.flags = []string{
		"--policy-dir", policies, "--zone", example + "=" + writeFile(t, filepath.Join(dir, "zone"), zone.String()),
		"--clock", fmt.Sprintf("%s,%d", start.Format(time.RFC3339), r.rate),
	}
	d.start(t)
	serial := d.awaitServed(t, example)
	have := axfr(t, d.addr, example)
	for end := start.Add(r.duration); d.now(t).Before(end); {
		moved, _ := eventually(time.Second, func() (bool, string) {
			next, err := serialAt(d.addr, example)
			return err == nil && next != serial, ""
		})
		if !moved {
			continue
		}
		have = applyIXFR(t, have, ixfr(t, d.addr, example, serial))
		for _, rr := range have {
			if soa, ok := rr.(*dns.SOA); ok {
				serial = soa.Serial
			}
		}
	}
	if now, err := serialAt(d.addr, example); err != nil || now == serial {
		sameZone(t, "what the IXFRs give and what AXFR gives", have, axfr(t, d.addr, example))
	}
	r.check(t, d.signings(t))
	d.must(t, "zone", "verify", example)
}

// check looks at what was signed.
func (r rehearsal) check(t *testing.T, all []signing) {
	t.Helper()
	if len(all) < int(r.duration/r.interval)/2 {
		t.Fatalf("%d versions in %s", len(all), r.duration)
	}
	made, largest := 0, 0
	for i, s := range all[1:] {
		if left := time.Unix(all[i].Event.Facts.Earliest, 0).Sub(s.Time); left < r.remain {
			t.Errorf("at %s a signature had %s left, of %s", s.Time, left, r.remain)
		}
		if gap := s.Time.Sub(all[i].Time); i > 0 && gap < r.interval/2 {
			t.Errorf("two versions within %s", gap)
		}
		made, largest = made+s.Event.Facts.Made, max(largest, s.Event.Facts.Made)
	}
	if mean := made / (len(all) - 1); largest > 2*mean {
		t.Errorf("a slice of %d signatures, the mean slice has %d", largest, mean)
	}
	cycles := float64(made) / float64(all[0].Event.Facts.Signatures)
	if want := float64(r.duration) / float64(r.window); cycles < want-0.7 || cycles > want+0.7 {
		t.Errorf("each signature was made again %.2f times, of %.2f", cycles, want)
	}
}

// now is what the daemon's clock shows.
func (d *daemon) now(t *testing.T) time.Time {
	t.Helper()
	var clock struct {
		Now time.Time `json:"now"`
	}
	if err := json.Unmarshal([]byte(d.must(t, "clock", "status", "--json")), &clock); err != nil {
		t.Fatal(err)
	}
	return clock.Now
}

// signings are the signed instances so far.
func (d *daemon) signings(t *testing.T) (all []signing) {
	t.Helper()
	text := d.must(t, "zone", "history", example, "--type", "instance.signed", "--json")
	for dec := json.NewDecoder(strings.NewReader(text)); dec.More(); {
		var s signing
		if err := dec.Decode(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	return all
}
