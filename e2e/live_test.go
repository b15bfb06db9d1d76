package e2e

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// tsigKeyName and tsigSecret are the key of all transfers in these tests.
const (
	tsigKeyName = "transfer.example"
	tsigSecret  = "c2x1aWNlIHRlc3Qga2V5IG9mIDMyIG9jdGV0cyE="
)

func namedKey() string {
	return fmt.Sprintf("key %q { algorithm hmac-sha256; secret %q; };\n", tsigKeyName, tsigSecret)
}

const liveZone = `$TTL 300
@ SOA ns1 hostmaster 1 30 10 604800 300
@ NS ns1
ns1 A 192.0.2.1
www A 192.0.2.80
a.ent TXT "below an empty non-terminal"
*.wild TXT "any"
cut NS ns.cut
ns.cut A 192.0.2.53
secure NS ns.elsewhere.example.
secure DS 12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
`

// primaryOf starts a primary of liveZone that tells our daemon of changes,
// and wants TSIG for transfers.
func namedLivePrimary(t *testing.T, zone, tell string) *secondary {
	t.Helper()
	file := writeFile(t, filepath.Join(shortDir(t), "live.zone"), liveZone)
	return startNamed(t, namedKey()+fmt.Sprintf(`zone %q { type primary; file %q; check-names ignore;
	allow-update { 127.0.0.1; }; allow-transfer { key %q; };
	notify explicit; also-notify { 127.0.0.1 port %s key %q; }; notify-delay 0; };
`, zone, file, tsigKeyName, port(tell), tsigKeyName))
}

func knotLivePrimary(t *testing.T, zone, tell string) *secondary {
	t.Helper()
	return knotPrimary(t, zone, tell, "")
}

// knotSigningPrimary signs the zone itself.
func knotSigningPrimary(t *testing.T, zone, tell string) *secondary {
	t.Helper()
	return knotPrimary(t, zone, tell, "    dnssec-signing: on\n")
}

func knotPrimary(t *testing.T, zone, tell, more string) *secondary {
	t.Helper()
	dir, addr := shortDir(t), freeAddr(t)
	file := writeFile(t, filepath.Join(dir, "live.zone"), liveZone)
	conf := writeFile(t, filepath.Join(dir, "knot.conf"), fmt.Sprintf(`
server:
    rundir: %[1]s
    listen: 127.0.0.1@%[2]s
    background-workers: 1
    udp-workers: 1
    tcp-workers: 1
database:
    storage: %[1]s
    journal-db-max-size: 64M
log:
  - target: stderr
    any: info
key:
  - id: %[5]s
    algorithm: hmac-sha256
    secret: %[6]s
remote:
  - id: ours
    address: 127.0.0.1@%[3]s
    key: %[5]s
acl:
  - id: transfer
    key: %[5]s
    action: transfer
  - id: update
    address: 127.0.0.1
    action: update
zone:
  - domain: %[4]s
    file: %[7]s
    notify: ours
    acl: [transfer, update]
    zonefile-sync: -1
    zonefile-load: difference
    journal-content: changes
%[8]s`, dir, port(addr), port(tell), zone, tsigKeyName, tsigSecret, file, more))
	return &secondary{"knotd", addr, start(t, "knotd", "knotd", "-c", conf)}
}

// dice is SplitMix64: the same throws in every run.
type dice uint64

// throw is a number below n.
func (d *dice) throw(n int) int {
	*d += 0x9e3779b97f4a7c15
	x := uint64(*d)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return int((x ^ x>>31) % uint64(n))
}

// change makes random updates to a primary of liveZone.
func change(zone string, n int, rnd *dice) *dns.Msg {
	m := new(dns.Msg)
	m.SetUpdate(dns.Fqdn(zone))
	rr := func(text string) dns.RR {
		r, err := dns.NewRR(text)
		if err != nil {
			panic(err) // the texts are ours
		}
		return r
	}
	host := func(i int) string { return fmt.Sprintf("h%d.%s", i, dns.Fqdn(zone)) }
	for range 1 + rnd.throw(3) {
		h := host(rnd.throw(12))
		switch rnd.throw(8) {
		case 0, 1, 2:
			m.Insert([]dns.RR{rr(fmt.Sprintf("%s %d IN A 192.0.2.%d", h, 60*(1+rnd.throw(4)), 1+rnd.throw(250)))})
		case 3:
			m.Insert([]dns.RR{rr(fmt.Sprintf("deep.er.%s 300 IN TXT \"change %d\"", h, n))})
		case 4:
			m.RemoveName([]dns.RR{rr("deep.er." + h + " 0 IN A 192.0.2.1")})
		case 5:
			m.RemoveRRset([]dns.RR{rr(h + " 0 IN A 192.0.2.1")})
		case 6:
			m.Insert([]dns.RR{rr(fmt.Sprintf("d%d.%s 300 IN NS ns.elsewhere.example.", rnd.throw(4), dns.Fqdn(zone)))})
		case 7:
			m.RemoveName([]dns.RR{rr(fmt.Sprintf("d%d.%s 0 IN A 192.0.2.1", rnd.throw(4), dns.Fqdn(zone)))})
		}
	}
	// Something that differs each time.
	m.RemoveRRset([]dns.RR{rr("count." + dns.Fqdn(zone) + " 0 IN TXT x")})
	m.Insert([]dns.RR{rr(fmt.Sprintf("count.%s 300 IN TXT \"%d\"", dns.Fqdn(zone), n))})
	return m
}

func update(t *testing.T, addr string, m *dns.Msg) {
	t.Helper()
	c := dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	r, _, err := c.Exchange(m, addr)
	if err != nil || r.Rcode != dns.RcodeSuccess {
		t.Fatalf("update: %v %v\n%v", err, r, m)
	}
}

func TestLive_ChangesStreamFromPrimaryToSecondaries(t *testing.T) {
	need(t, "named", "knotd", "nsd", "dnssec-verify", "ldns-verify-zone", "kzonecheck")
	for _, primary := range []struct {
		name   string
		start  func(t *testing.T, zone, tell string) *secondary
		policy string // under [signer]
	}{
		{"named", namedLivePrimary, "serial-policy = \"counter\"\ndenial.type = \"nsec\"\n"},
		{"knotd", knotLivePrimary, "serial-policy = \"counter\"\ndenial.type = \"nsec3\"\n"},
		{"knotd signs", knotSigningPrimary, "mode = \"pass-through\"\n"},
	} {
		t.Run(primary.name, func(t *testing.T) {
			seconds := make([]*secondary, 0, len(secondaries))
			d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
			var tell []string
			for _, peer := range secondaries {
				s := peer.start(t, example, d.addr)
				seconds = append(seconds, s)
				tell = append(tell, fmt.Sprintf("%q", s.addr))
			}
			policies := shortDir(t)
			writeFile(t, filepath.Join(policies, "default.toml"), fmt.Sprintf(
				"version = \"v1\"\n[signer]\n%s[server.outbound]\nsend-notify-to = [%s]\n", primary.policy, strings.Join(tell, ", ")))
			d.flags = []string{"--policy-dir", policies}
			d.start(t)
			await(t, "the daemon answers", 20*time.Second, func() (bool, string) {
				r := d.cli(t, "health")
				return r.code == 0, r.String()
			})
			secret := writeFile(t, filepath.Join(policies, "secret"), tsigSecret+"\n")
			d.must(t, "tsig", "add", tsigKeyName, "hmac-sha256", "--secret-file", secret)
			p := primary.start(t, example, d.addr)
			var first uint32
			await(t, "the primary answers", 20*time.Second, func() (bool, string) {
				serial, err := serialAt(p.addr, example)
				first = serial
				return err == nil, fmt.Sprint(err)
			})
			d.must(t, "zone", "add", example, "--source", p.addr+"^"+tsigKeyName)
			if r := d.cli(t, "tsig", "remove", tsigKeyName); r.code != 4 {
				t.Errorf("a key in use was removed: %v", r)
			}
			for _, s := range seconds {
				s.awaitSerial(t, example, first)
			}
			streamChanges(t, d, p, seconds)
			if keys := strings.Contains(d.must(t, "key", "list", example), "active"); keys == strings.Contains(primary.policy, "pass-through") {
				t.Errorf("the zone has keys here: %v", keys)
			}
		})
	}
}

// byAXFR is an instance.loaded that was taken whole, as history tells it.
var byAXFR = regexp.MustCompile(`by AXFR: serial \d+, (\d+) records, (\d+) added, (\d+) removed`)

// needlessAXFR counts the whole transfers in a history, but for those that
// change half of the zone: there a server may answer an IXFR query with the
// zone (RFC 1995, 4).
func needlessAXFR(t *testing.T, history string) int {
	t.Helper()
	count := 0
	for _, line := range byAXFR.FindAllStringSubmatch(history, -1) {
		var n [3]int
		for i := range n {
			var err error
			if n[i], err = strconv.Atoi(line[i+1]); err != nil {
				t.Fatal(err)
			}
		}
		if records, added, removed := n[0], n[1], n[2]; added == records || added+removed < records/2 {
			count++
		}
	}
	return count
}

// streamChanges changes the zone at the primary, and looks after each change
// at what our daemon and all secondaries hold.
func streamChanges(t *testing.T, d *daemon, p *secondary, seconds []*secondary) {
	t.Helper()
	rnd := new(dice)
	rounds := 24
	if long() {
		rounds = 500
	}
	for n := 1; n <= rounds; n++ {
		update(t, p.addr, change(example, n, rnd))
		want := fmt.Sprintf("\"%d\"", n)
		holds := func(addr string) (bool, string) {
			m, err := query(addr, "count."+example, dns.TypeTXT)
			if err != nil || len(m.Answer) == 0 {
				return false, fmt.Sprint(err)
			}
			return strings.Contains(m.Answer[0].String(), want), m.Answer[0].String()
		}
		var serial uint32
		before := time.Now()
		await(t, fmt.Sprintf("change %d is published", n), 20*time.Second, func() (bool, string) {
			ok := slices.ContainsFunc(axfr(t, d.addr, example), func(rr dns.RR) bool {
				txt, is := rr.(*dns.TXT)
				return is && strings.Contains(txt.String(), want) && strings.HasPrefix(txt.Hdr.Name, "count.")
			})
			return ok, ""
		})
		took := time.Since(before)
		serial, err := serialAt(d.addr, example)
		if err != nil {
			t.Fatal(err)
		}
		// No NOTIFY of ours here: the daemon's own must do.
		for _, s := range seconds {
			// Processes of nsd that go may still answer with the serial before.
			await(t, fmt.Sprintf("%s holds change %d in serial %d", s.name, n, serial), 20*time.Second, func() (bool, string) {
				if ok, text := holds(s.addr); !ok {
					return false, text
				}
				got, err := serialAt(s.addr, example)
				return err == nil && got == serial, fmt.Sprintf("serial %d, %v", got, err)
			})
		}
		if n%8 != 0 && n != rounds {
			continue
		}
		t.Logf("change %d published within %v", n, took)
		file, ours := d.dumpTo(t, example)
		acceptedByAll(t, example, file)
		for _, s := range seconds {
			sameZone(t, "what "+s.name+" serves", ours, axfr(t, s.addr, example))
		}
	}
	history := d.must(t, "zone", "history", example, "--type", "instance.loaded")
	if whole, steps := needlessAXFR(t, history), strings.Count(history, "by IXFR"); whole != 1 || steps < rounds/2 {
		t.Errorf("%d needless whole and %d incremental transfers in\n%s", whole, steps, history)
	}
	// The zone built of increments is the zone: taken whole, nothing differs.
	before, _ := serialAt(d.addr, example)
	d.must(t, "zone", "reload", "--full", example)
	if after, err := serialAt(d.addr, example); err != nil || after != before {
		t.Errorf("a full transfer changed the zone: serial %d, before %d, %v", after, before, err)
	}
	d.must(t, "zone", "replay", example, "--verify")
	for _, s := range seconds {
		await(t, "status tells that "+s.name+" acknowledged", 10*time.Second, func() (bool, string) {
			status := d.must(t, "zone", "status", "--detailed", example)
			return strings.Contains(status, s.addr) && strings.Contains(status, "acknowledged"), status
		})
	}
}
