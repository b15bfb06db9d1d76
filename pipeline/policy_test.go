package pipeline

import (
	"crypto/sha256"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
	"sluice/xfr"
)

func cmpSettings() cmp.Option {
	return cmp.Options{
		cmp.AllowUnexported(settings{}, reviewSettings{}), cmpopts.EquateEmpty(),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

func TestTemplate_ParsesToTheDefaults(t *testing.T) {
	p, err := Parse("default", []byte(Template()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults(), p.set, cmpSettings()); diff != "" {
		t.Errorf("the template differs from the defaults (-defaults +template):\n%s", diff)
	}
	if d := Default(); p.SHA256 != d.SHA256 || string(p.Text) != string(d.Text) || p.Name != d.Name {
		t.Error("the default policy's text is not the template")
	}
	if p.SHA256 != sha256.Sum256([]byte(Template())) {
		t.Error("SHA256 is not that of the text")
	}
	if n := p.Notices(); len(n) > 0 {
		t.Errorf("the defaults raise notices: %v", n)
	}
}

// A key that the template does not show is one that nobody finds.
func TestTemplate_ShowsEveryKey(t *testing.T) {
	for _, key := range []string{
		"version", "loader.review.mode", "loader.review.hooks", "loader.review.on-reject", "loader.review.provide-xfr-to",
		"loader.checks.max-change-percent", "loader.checks.min-records", "loader.checks.required-records", "loader.checks.zonemd", "loader.checks.glue",
		"signer.review.hooks", "signer.review.on-reject", "signer.review.provide-xfr-to", "loader.checks.max-ttl", "loader.checks.max-ttl-action",
		"key-manager.ds-algorithm", "key-manager.generation.use-csk", "key-manager.generation.algorithm",
		"key-manager.generation.keystore", "key-manager.zsk.keystore", "key-manager.ksk.keystore", "key-manager.csk.keystore",
		"key-manager.records.ttl", "key-manager.cds", "key-manager.auto-remove", "key-manager.auto-remove-delay", "key-manager.propagation-margin",
		"key-manager.parent-propagation-margin", "key-manager.pool", "key-manager.require-backup",
		"key-manager.zsk.validity", "key-manager.zsk.method", "key-manager.zsk.auto-start", "key-manager.zsk.auto-report",
		"key-manager.zsk.auto-expire", "key-manager.zsk.auto-done", "key-manager.ksk.validity", "key-manager.ksk.method",
		"key-manager.ksk.auto-start", "key-manager.ksk.auto-report", "key-manager.ksk.auto-expire", "key-manager.ksk.auto-done",
		"key-manager.csk.validity", "key-manager.csk.method", "key-manager.csk.auto-start", "key-manager.csk.auto-report",
		"key-manager.csk.auto-expire", "key-manager.csk.auto-done", "key-manager.algorithm.auto-start",
		"key-manager.algorithm.auto-report", "key-manager.algorithm.auto-expire", "key-manager.algorithm.auto-done",
		"signer.serial-policy", "signer.signature-inception-offset",
		"signer.signature-lifetime", "signer.signature-remain-time", "signer.signature-refresh-interval",
		"signer.mode", "signer.verify", "signer.zonemd", "signer.review.mode", "signer.denial.type", "signer.denial.opt-out",
		"signer.denial.iterations", "signer.denial.salt", "server.outbound.provide-xfr-to",
	} {
		if lineOf([]byte(Template()), key) == 0 {
			t.Errorf("the template does not set %s", key)
		}
	}
}

func TestParse_ShortestPolicyIsTheDefaults(t *testing.T) {
	p, err := Parse("p", []byte(`version = "v1"`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(defaults(), p.set, cmpSettings()); diff != "" {
		t.Error(diff)
	}
}

func TestParse_EveryOptionHasItsEffect(t *testing.T) {
	text, err := os.ReadFile("testdata/policies/tld.toml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse("tld", text)
	if err != nil {
		t.Fatal(err)
	}
	if p.MaxTTL() != 172800 || p.ClampTTL() || p.UseCSK() || p.DNSKEYTTL() != 7200 {
		t.Errorf("max-ttl %d, clamp %v, use-csk %v, DNSKEY TTL %d", p.MaxTTL(), p.ClampTTL(), p.UseCSK(), p.DNSKEYTTL())
	}
	if p.Algorithm() != 8 || p.Bits() != 3072 || !slices.Equal(p.DSDigests(), []uint8{4}) {
		t.Errorf("algorithm %d:%d, DS digests %v", p.Algorithm(), p.Bits(), p.DSDigests())
	}
	if p.keyRollTime() != 3*day || Default().keyRollTime() != 2*week {
		t.Errorf("key roll time %s, by default %s", p.keyRollTime(), Default().keyRollTime())
	}
	if p.SerialPolicy() != SerialKeep || p.RemainTime() != 10*day {
		t.Errorf("serial policy %s, remain time %s", p.SerialPolicy(), p.RemainTime())
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 999, time.UTC)
	apex, err := zone.ParseName("example.")
	if err != nil {
		t.Fatal(err)
	}
	sec := now.Truncate(time.Second)
	want := signer.Params{
		Apex: apex, Serial: 7,
		Inception: sec.Add(-time.Hour), Expiration: sec.Add(30 * day), Refresh: sec.Add(10*day + 6*time.Hour + 90*time.Minute),
		Jitter: 20*day - 6*time.Hour - 90*time.Minute - time.Second, Denial: signer.NSEC3OptOut, Iterations: 1, Salt: []byte{0xaa, 0xbb},
		DNSKEYTTL: 7200, CDSDigest: []uint8{4}, ZONEMD: true,
	}
	if diff := cmp.Diff(want, p.SignParams(apex, 7, now)); diff != "" {
		t.Error(diff)
	}
	if got, want := p.Parameters(), "denial=nsec3-opt-out iterations=1 salt=aabb dnskey-ttl=7200 ds=4 zonemd=true"; got != want {
		t.Errorf("Parameters = %q, want %q", got, want)
	}
	for addr, allowed := range map[string]bool{
		"192.0.2.9": true, "2001:db8::1": true, "2001:db8::2": false, "127.0.0.1": false,
	} {
		peer := xfr.Peer{Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), 5353)}
		if p.ProvideXFRTo().Allows(peer) != allowed {
			t.Errorf("%s may transfer: want %v", addr, allowed)
		}
	}
	if n := p.Notices(); len(n) != 2 || !strings.Contains(n[0], "iterations") || !strings.Contains(n[1], "salt") {
		t.Errorf("notices %v, want one on iterations and one on the salt", n)
	}
}

func TestParse_ServersToTellAndToHear(t *testing.T) {
	p, err := Parse("p", []byte(`version = "v1"
[loader]
on-expire = "stop"
[server.outbound]
send-notify-to = ["192.0.2.1", "[2001:db8::1]:5353^K.example"]
[server.inbound]
allow-notify-from = ["198.51.100.0/24"]
`))
	if err != nil {
		t.Fatal(err)
	}
	var to []string
	for _, ep := range p.NotifyTo() {
		to = append(to, ep.String())
	}
	if want := []string{"192.0.2.1:53", "[2001:db8::1]:5353^k.example."}; !slices.Equal(to, want) || !p.StopsOnExpire() {
		t.Errorf("tells %v, stops %v", to, p.StopsOnExpire())
	}
	if !p.AllowNotifyFrom().Allows(xfr.Peer{Addr: netip.MustParseAddrPort("198.51.100.9:1")}) || Default().StopsOnExpire() ||
		len(Default().AllowNotifyFrom()) != 0 || len(Default().NotifyTo()) != 0 {
		t.Error("who may send NOTIFY, or the defaults, are wrong")
	}
}

func TestParse_WhatIsKeptAndOfferedForIXFR(t *testing.T) {
	if p := Default(); p.DiffLimits() != nil || p.AXFROnlyTo().Allows(peerAt("127.0.0.1", "")) || p.NotifiesNS() {
		t.Errorf("by default: %+v, NS %v", p.DiffLimits(), p.NotifiesNS())
	}
	p, err := Parse("p", []byte(`version = "v1"
[server.outbound]
provide-axfr-only-to = ["192.0.2.7", "192.0.2.0/24^Old.example"]
notify-ns = true
[retention]
ixfr-versions = 5
ixfr-size = "64MiB"
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := p.DiffLimits(); got == nil || *got != (event.DiffLimits{Steps: 5, Bytes: 64 << 20}) {
		t.Errorf("%+v", got)
	}
	for peer, want := range map[xfr.Peer]bool{
		peerAt("192.0.2.7", ""): true, peerAt("192.0.2.8", ""): false, peerAt("192.0.2.8", "old.example."): true,
	} {
		if p.AXFROnlyTo().Allows(peer) != want {
			t.Errorf("%+v: %v", peer, !want)
		}
	}
	if !p.NotifiesNS() || !p.namesTSIG("old.example.") {
		t.Errorf("NS %v, keys %v", p.NotifiesNS(), p.tsigNames())
	}
	none, err := Parse("p", []byte("version = \"v1\"\n[retention]\nixfr-versions = 0\n"))
	if err != nil || none.DiffLimits() == nil || none.DiffLimits().Steps != 0 {
		t.Errorf("%+v, %v", none.DiffLimits(), err)
	}
}

func TestParse_TransferDefaultsToLoopback(t *testing.T) {
	local := xfr.Peer{Addr: netip.MustParseAddrPort("127.0.0.1:1")}
	local6 := xfr.Peer{Addr: netip.MustParseAddrPort("[::1]:1")}
	other := xfr.Peer{Addr: netip.MustParseAddrPort("192.0.2.1:1")}
	allowed := Default().ProvideXFRTo()
	if !allowed.Allows(local) || !allowed.Allows(local6) || allowed.Allows(other) {
		t.Error("by default, loopback and nobody else may transfer")
	}
	nobody, err := Parse("p", []byte("version = \"v1\"\nserver.outbound.provide-xfr-to = []\n"))
	if err != nil {
		t.Fatal(err)
	}
	if nobody.ProvideXFRTo().Allows(local) {
		t.Error("an empty list lets somebody transfer")
	}
	if (Policy{}).ProvideXFRTo().Allows(local) {
		t.Error("the zero policy lets somebody transfer")
	}
}

// RFC 4034, 3.1.5: no signature may end before it is due to be renewed.
func TestSignParams_JitterLeavesSignaturesBeyondRefresh(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for _, text := range []string{
		"", "signature-lifetime = 4\nsignature-remain-time = 1\nsignature-refresh-interval = 1",
		"signature-lifetime = 3\nsignature-remain-time = 1\nsignature-refresh-interval = 1",
		"signature-lifetime = \"20w\"",
	} {
		p, err := Parse("p", []byte("version = \"v1\"\n[signer]\n"+text))
		if err != nil {
			t.Fatal(err)
		}
		s := p.SignParams(zone.Root, 1, now)
		if s.Jitter < 0 || !s.Expiration.Add(-s.Jitter).After(s.Refresh) {
			t.Errorf("%q: jitter %s, expiration %s, refresh %s", text, s.Jitter, s.Expiration, s.Refresh)
		}
		if !s.Refresh.After(now.Add(p.RemainTime())) {
			t.Errorf("%q: what is due now is not refreshed now", text)
		}
	}
}

func TestParse_Faults(t *testing.T) {
	const v1 = "version = \"v1\"\n"
	rows := []struct{ fact, text, want string }{
		{"version missing", "", `policy "p": version is missing`},
		{"version unknown", "version = \"v2\"", `policy "p", line 1: version = "v2" is not known`},
		{"version of another type", "version = 1", `line 1`},
		{"unknown key", v1 + "[signer]\nsalt = \"\"\n", `policy "p", line 3: unknown key signer.salt`},
		{"unknown table", v1 + "\n[sginer]\nverify = \"all\"\n", `line 3`},
		{"not TOML", v1 + "[signer\n", `line 2`},
		{"binary", "\x00\xff", "not UTF-8"},
		{"too large", v1 + strings.Repeat("#\n", maxPolicy), "larger than"},
		{"review mode", v1 + "[loader.review]\nmode = \"perhaps\"\n", `line 3: loader.review.mode = "perhaps": want one of off, manual, script, script+manual`},
		{"signed review mode", v1 + "[signer.review]\nmode = \"script\"\n", `line 3: signer.review.mode = "script": wants hooks`},
		{"hooks of a person", v1 + "[loader.review]\nmode = \"manual\"\nhook = \"x\"\n", `line 3: loader.review.mode = "manual": hooks do not run`},
		{"hook and hooks", v1 + "[loader.review]\nmode = \"script\"\nhook = \"x\"\nhooks = [{ command = \"y\" }]\n", `line 4: loader.review.hook is not allowed beside hooks`},
		{"hook without a command", v1 + "[loader.review]\nmode = \"script\"\nhooks = [{ timeout = \"1m\" }]\n", `line 4: loader.review.hooks: want a list such as`},
		{"hook with an unknown key", v1 + "[loader.review]\nmode = \"script\"\nhooks = [{ command = \"y\", retries = 3 }]\n", `line 4: loader.review.hooks: want a list such as`},
		{"hooks of another type", v1 + "[loader.review]\nmode = \"script\"\nhooks = \"x\"\n", `line 4: loader.review.hooks: want a list such as`},
		{"hook without time", v1 + "[loader.review]\nmode = \"script\"\nhooks = [{ command = \"y\", timeout = 0 }]\n", `timeout must be at least a second`},
		{"on-reject", v1 + "[signer.review]\non-reject = \"stop\"\n", `line 3: signer.review.on-reject = "stop": want one of discard, halt`},
		{"who may fetch", v1 + "[signer.review]\nprovide-xfr-to = [\"here\"]\n", `line 3: signer.review.provide-xfr-to`},
		{"versions for IXFR", v1 + "[retention]\nixfr-versions = 1001\n", `line 3: retention.ixfr-versions = 1001: want a number from 0 to 1000`},
		{"size for IXFR", v1 + "[retention]\nixfr-size = \"1MB\"\n", `line 3: retention.ixfr-size = "1MB": want a text such as "64MiB"`},
		{"size for IXFR without quotes", v1 + "[retention]\nixfr-size = 64\n", `line 3: retention.ixfr-size = 64: want a text`},
		{"AXFR-only peers", v1 + "[server.outbound]\nprovide-axfr-only-to = \"192.0.2.1\"\n", `line 3: server.outbound.provide-axfr-only-to: want a list of prefixes`},
		{"NOTIFY to NS", v1 + "[server.outbound]\nnotify-ns = \"yes\"\n", `line 3: server.outbound.notify-ns = "yes": want true or false`},
		{"more than all", v1 + "[loader.checks]\nmax-change-percent = 101\n", `line 3: loader.checks.max-change-percent = 101: want a number from 0 to 100`},
		{"required record without type", v1 + "[loader.checks]\nrequired-records = [\"www\"]\n", `line 3: loader.checks.required-records: "www": want an owner and a type`},
		{"required record of no type", v1 + "[loader.checks]\nrequired-records = [\"@ NOTHING\"]\n", `NOTHING is no record type`},
		{"bad duration", v1 + "[signer]\nsignature-lifetime = \"4 weeks\"\n", `line 3: signer.signature-lifetime: duration "4 weeks"`},
		{"negative duration", v1 + "[signer]\nsignature-lifetime = -1\n", "want seconds from 0"},
		{"duration of another type", v1 + "[signer]\nsignature-lifetime = 1.5\n", "want a duration"},
		{"zero max-ttl", v1 + "[loader.checks]\nmax-ttl = 0\n", "line 3: loader.checks.max-ttl must be at least a second"},
		{"max-ttl-action", v1 + "[loader.checks]\nmax-ttl-action = \"cut\"\n", "want one of reject, clamp"},
		{"zero DNSKEY TTL", v1 + "[key-manager.records]\nttl = 0\n", "key-manager.records.ttl must be"},
		{"algorithm", v1 + "[key-manager.generation]\nalgorithm = \"RSASHA1\"\n", `line 3: key-manager.generation.algorithm: algorithm "RSASHA1"`},
		{"DS algorithm", v1 + "[key-manager]\nds-algorithm = \"SHA-1\"\n", "want one of SHA-256, SHA-384"},
		{"serial policy", v1 + "[signer]\nserial-policy = \"date\"\n", "want one of keep, keep-strict, counter, unix-time, date-counter"},
		{"verify", v1 + "[signer]\nverify = \"some\"\n", "want one of all, sample, none"},
		{"verify nothing that is signed here", v1 + "[signer]\nverify = \"none\"\n", "is for mode = \"pass-through\" alone"},
		{"mode", v1 + "[signer]\nmode = \"insecure\"\n", "want one of sign, pass-through, unsigned"},
		{"ZONEMD of what is not signed", v1 + "[signer]\nmode = \"unsigned\"\nzonemd = true\n", "needs mode = \"sign\""},
		{
			"lifetime not above remain", v1 + "[signer]\nsignature-lifetime = \"1w\"\nsignature-remain-time = \"1w\"\n",
			"line 3: signer.signature-lifetime (168h0m0s) must be longer than signature-remain-time (168h0m0s)",
		},
		{
			"no room for the refresh interval", v1 + "[signer]\nsignature-lifetime = \"15d\"\nsignature-refresh-interval = \"1d\"\n",
			"plus signature-refresh-interval (24h0m0s)",
		},
		{"lifetime beyond RFC 1982", v1 + "[signer]\nsignature-lifetime = \"40w\"\nsignature-inception-offset = 1073741824\n", "2^30 seconds"},
		{"zero remain", v1 + "[signer]\nsignature-remain-time = 0\n", "signature-remain-time must be"},
		{"zero interval", v1 + "[signer]\nsignature-refresh-interval = 0\n", "signature-refresh-interval must be"},
		{"denial type", v1 + "[signer.denial]\ntype = \"nsec5\"\n", "want one of nsec, nsec3"},
		{"opt-out without NSEC3", v1 + "[signer.denial]\nopt-out = true\n", `line 3: signer.denial.opt-out needs type = "nsec3"`},
		{"iterations without NSEC3", v1 + "[signer.denial]\niterations = 1\n", `signer.denial.iterations needs`},
		{"salt without NSEC3", v1 + "[signer.denial]\nsalt = \"00\"\n", `signer.denial.salt needs`},
		{"iterations too high", v1 + "[signer.denial]\ntype = \"nsec3\"\niterations = 101\n", "at most 100"},
		{"iterations negative", v1 + "[signer.denial]\ntype = \"nsec3\"\niterations = -1\n", "at most 100"},
		{"salt not hex", v1 + "[signer.denial]\ntype = \"nsec3\"\nsalt = \"xyz\"\n", "in hex"},
		{"salt too long", v1 + "[signer.denial]\ntype = \"nsec3\"\nsalt = \"" + strings.Repeat("00", 256) + "\"\n", "in hex"},
		{"bad choice on expiry", v1 + "[loader]\non-expire = \"wait\"\n", "line 3: loader.on-expire"},
		{"bad server", v1 + "[server.outbound]\nsend-notify-to = [\"ns.example\"]\n", "line 3: server.outbound.send-notify-to"},
		{"servers of another type", v1 + "[server.outbound]\nsend-notify-to = \"192.0.2.1\"\n", "line 3: server.outbound.send-notify-to: want a list"},
		{"bad sender", v1 + "[server.inbound]\nallow-notify-from = [\"x\"]\n", "line 3: server.inbound.allow-notify-from"},
		{"bad prefix", v1 + "[server.outbound]\nprovide-xfr-to = [\"192.0.2.0/33\"]\n", "line 3: server.outbound.provide-xfr-to"},
		{"use-csk of another type", v1 + "[key-manager.generation]\nuse-csk = \"yes\"\n", "line 3: key-manager.generation.use-csk = \"yes\": want true or false"},
		{"algorithm of another type", v1 + "[key-manager.generation]\nalgorithm = 13\n", "line 3: key-manager.generation.algorithm = 13: want a string"},
		{"a word of another type", v1 + "[signer]\nverify = true\n", "line 3: signer.verify = true: want one of"},
		{"iterations of another type", v1 + "[signer.denial]\niterations = \"0\"\n", "line 3: signer.denial.iterations"},
		{"a prefix of another type", v1 + "[server.outbound]\nprovide-xfr-to = [1]\n", "line 3: server.outbound.provide-xfr-to: want a list"},
		{"a table written as a value", v1 + "signer = 1\n", "where a table"},
		{"a key given twice", v1 + "[signer]\nzonemd = true\nzonemd = false\n", "zonemd"},
		{"prefixes of another type", v1 + "[server.outbound]\nprovide-xfr-to = \"192.0.2.0/24\"\n", "line 3"},
	}
	for _, row := range rows {
		t.Run(row.fact, func(t *testing.T) {
			_, err := Parse("p", []byte(row.text))
			if err == nil {
				t.Fatal("no error")
			}
			if !strings.Contains(err.Error(), row.want) {
				t.Errorf("error %q, want %q in it", err, row.want)
			}
		})
	}
}

func TestParse_TellsAllFaults(t *testing.T) {
	_, err := Parse("p", []byte("[signer]\nverify = \"x\"\nserial-policy = \"y\"\n"))
	if err == nil || strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("error %q, want three lines: version, serial-policy, verify", err)
	}
}

func TestDurationText_IsReadBack(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 999 * time.Millisecond: "0s", time.Second: "1s", 90 * time.Minute: "1h30m",
		14 * day: "2w", 15 * day: "15d", day + time.Hour + time.Minute + time.Second: "1d1h1m1s", 1<<31*time.Second - time.Second: "24855d3h14m7s",
	} {
		if got := DurationText(d); got != want {
			t.Errorf("DurationText(%v) = %s, want %s", d, got, want)
		}
		if back, err := ParseDuration(want); err != nil || back != d.Truncate(time.Second) {
			t.Errorf("ParseDuration(%s) = %v, %v; want %v", want, back, err, d)
		}
	}
}

func TestParseDuration(t *testing.T) {
	good := map[string]time.Duration{
		"0": 0, "0s": 0, "90s": 90 * time.Second, "3600": time.Hour, "2h30m": 150 * time.Minute,
		"2h 3m": 123 * time.Minute, "14d": 14 * day, "2w": 2 * week, "1w2d3h4m5s": week + 2*day + 3*time.Hour + 4*time.Minute + 5*time.Second,
		"2147483647": 2147483647 * time.Second,
	}
	for text, want := range good {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("ParseDuration(%q) = %s, %v; want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "d", "1", "-1", "1.5h", "1x", "1h1h", "1m1h", "1h2", "1 h", "2147483648", "2147483648s",
		"99999999999999999999w", "3551w", "1H", "٣d", "1h\n1m",
	} {
		if text == "1" {
			continue // a second
		}
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("ParseDuration(%q) = %s, want an error", text, got)
		}
	}
}

func TestParseAlgorithm(t *testing.T) {
	for text, want := range map[string][2]int{
		"ECDSAP256SHA256": {13, 0}, "ecdsap384sha384": {14, 0}, "ED25519": {15, 0}, "ED448": {16, 0},
		"RSASHA256": {8, 2048}, "RSASHA512:4096": {10, 4096}, "RSASHA256:1024": {8, 1024},
	} {
		alg, bits, err := ParseAlgorithm(text)
		if err != nil || int(alg) != want[0] || bits != want[1] {
			t.Errorf("ParseAlgorithm(%q) = %d, %d, %v; want %v", text, alg, bits, err, want)
		}
	}
	for _, text := range []string{"", "13", "RSASHA1", "ED25519:256", "RSASHA256:", "RSASHA256:512", "RSASHA256:8192", "RSASHA256:2047", "RSASHA256:x"} {
		if _, _, err := ParseAlgorithm(text); err == nil {
			t.Errorf("ParseAlgorithm(%q): no error", text)
		}
	}
}

func TestLoadDir_OneBadFileHidesNoOther(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.toml": `version = "v1"`, "bad.toml": `version = "v9"`, "bad name.toml": `version = "v1"`,
		"notes.txt": "not a policy", ".hidden.toml": "not a policy", "default.toml": "version = \"v1\"\nsigner.zonemd = true\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder.toml"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", filepath.Join(dir, "dangling.toml")); err != nil {
		t.Fatal(err)
	}
	policies, faults := LoadDir(dir)
	var names []string
	for name, p := range policies {
		if p.Name != name {
			t.Errorf("policy %q stands under %q", p.Name, name)
		}
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"default", "good"}; !slices.Equal(names, want) {
		t.Errorf("policies %v, want %v", names, want)
	}
	if !policies["default"].set.zonemd {
		t.Error("a file does not replace the built-in policy")
	}
	stems := map[string]bool{}
	for _, err := range faults {
		var fault *PolicyFault
		if !errors.As(err, &fault) {
			t.Fatalf("%v names no policy", err)
		}
		stems[fault.Policy] = true
	}
	if len(faults) != 3 || !stems["bad"] || !stems["bad name"] || !stems["dangling"] {
		t.Errorf("faults %v, want three: bad, bad name, dangling", faults)
	}
	if policies, faults := LoadDir(filepath.Join(dir, "absent")); len(policies) != 0 || len(faults) != 1 {
		t.Errorf("an absent folder gives %v, %v", policies, faults)
	}
}

// A policy is journaled word for word and parsed again at every start.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte(Template()))
	f.Add([]byte("version = \"v1\"\nsigner.denial = {type = \"nsec3\", salt = \"-\"}\n"))
	f.Add([]byte("version = \"v1\"\n[signer]\nsignature-lifetime = 1979-05-27T07:32:00Z\n"))
	f.Add([]byte("[[signer]]\n[=\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := Parse("p", text)
		if err != nil {
			return
		}
		again, err := Parse("p", p.Text)
		if err != nil {
			t.Fatalf("the text of a good policy is bad: %v", err)
		}
		if diff := cmp.Diff(p.set, again.set, cmpSettings()); diff != "" {
			t.Fatal(diff)
		}
		s := p.SignParams(zone.Root, 1, time.Unix(1e9, 0))
		if s.Jitter < 0 || !s.Expiration.Add(-s.Jitter).After(s.Refresh) || s.Refresh.Before(time.Unix(1e9, 0)) {
			t.Errorf("jitter %s, expiration %s, refresh %s", s.Jitter, s.Expiration, s.Refresh)
		}
		_, _, _ = p.Parameters(), p.Notices(), p.ProvideXFRTo()
	})
}

func TestParse_Reviews(t *testing.T) {
	p, err := Parse("p", []byte(`version = "v1"
[loader.review]
mode = "script"
hook = "check-it"
on-reject = "halt"
provide-xfr-to = ["192.0.2.7"]
[signer.review]
mode = "script+manual"
hooks = [{ command = "one" }, { command = "two -x", timeout = "90s" }]
[loader.checks]
max-change-percent = 25
min-records = 1000
required-records = ["@ MX", "www a", "ns.example.net. AAAA"]
glue = "require"
`))
	if err != nil {
		t.Fatal(err)
	}
	peer := xfr.Prefixes{{Net: netip.MustParsePrefix("192.0.2.7/32")}}
	want := ReviewPolicy{Hooks: []Hook{{Command: "check-it", Timeout: 10 * time.Minute}}, Halt: true, Transfer: peer}
	if diff := cmp.Diff(want, p.Review("loaded"), cmpSettings()); diff != "" {
		t.Error(diff)
	}
	want = ReviewPolicy{
		Manual: true, Transfer: loopback(),
		Hooks: []Hook{{Command: "one", Timeout: 10 * time.Minute}, {Command: "two -x", Timeout: 90 * time.Second}},
	}
	if diff := cmp.Diff(want, p.Review("signed"), cmpSettings()); diff != "" {
		t.Error(diff)
	}
	checks := Checks{MaxChangePercent: 25, MinRecords: 1000, Required: []string{"@ MX", "www a", "ns.example.net. AAAA"}, ZONEMD: "verify", Glue: zone.GlueRequire}
	if diff := cmp.Diff(checks, p.Checks()); diff != "" {
		t.Error(diff)
	}
	off, err := Parse("p", []byte("version = \"v1\"\n[loader.review]\nhook = \"x\"\n"))
	if err != nil || !off.Review("loaded").Off() || len(off.Notices()) != 1 {
		t.Errorf("a hook without a mode: %v, %v", err, off.Notices())
	}
	if !Default().Review("loaded").Off() || !Default().Review("signed").Off() || Default().Checks().Any() {
		t.Error("by default there is a review or a limit")
	}
}
