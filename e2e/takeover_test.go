package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// kaspSigner is named as a signer by dnssec-policy.
type kaspSigner struct {
	*secondary
	dir, control string
}

// startKaspSigner starts named at an address, with the keys in a folder and a
// zone file with a serial.
func startKaspSigner(t *testing.T, addr, keys string, serial uint32, public string) *kaspSigner {
	t.Helper()
	dir := shortDir(t)
	k := &kaspSigner{dir: keys}
	control := freeAddr(t)
	key := `key rndc { algorithm hmac-sha256; secret "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI="; };` + "\n"
	k.control = writeFile(t, filepath.Join(dir, "rndc.conf"),
		fmt.Sprintf("%soptions { default-key rndc; default-server 127.0.0.1; default-port %s; };\n", key, port(control)))
	zone := writeFile(t, filepath.Join(dir, "zone"), strings.Replace(rolledZone, "hostmaster 1 ", fmt.Sprintf("hostmaster %d ", serial), 1))
	conf := writeFile(t, filepath.Join(dir, "named.conf"), fmt.Sprintf(`
options {
	directory %q; pid-file none; session-keyfile none; lock-file none;
	listen-on port %s { 127.0.0.1; }; listen-on-v6 { none; };
	recursion no; dnssec-validation no; allow-query { any; }; allow-transfer { any; };
	notify explicit; also-notify { 127.0.0.1 port %s; }; notify-delay 0;
};
%scontrols { inet 127.0.0.1 port %s allow { 127.0.0.1; } keys { rndc; }; };
dnssec-policy "short" {
	keys { ksk lifetime unlimited algorithm ecdsa256; zsk lifetime unlimited algorithm ecdsa256; };
	dnskey-ttl 5s; publish-safety 1s; retire-safety 1s; zone-propagation-delay 1s; max-zone-ttl 5s;
	parent-ds-ttl 5s; parent-propagation-delay 1s;
	signatures-validity 1d; signatures-refresh 12h; signatures-validity-dnskey 1d;
};
zone "example.com" { type primary; file %q; dnssec-policy "short"; inline-signing yes; key-directory %q; };
`, dir, port(addr), port(public), key, port(control), zone, keys))
	k.secondary = &secondary{"named", addr, start(t, "named", "named", "-g", "-d", "3", "-4", "-n", "1", "-c", conf)}
	return k
}

func (k *kaspSigner) rndc(t *testing.T, args ...string) string {
	t.Helper()
	return must(t, "rndc", append([]string{"-c", k.control}, args...)...)
}

// awaitAbove waits until a server has a serial above one.
func (s *secondary) awaitAbove(t *testing.T, zone string, serial uint32) {
	t.Helper()
	await(t, fmt.Sprintf("%s serves %s with a serial above %d", s.name, zone, serial), 30*time.Second, func() (bool, string) {
		m, err := query(s.addr, zone, dns.TypeSOA)
		if err != nil || len(m.Answer) == 0 {
			return false, fmt.Sprint(m, err)
		}
		soa, ok := m.Answer[0].(*dns.SOA)
		return ok && soa.Serial > serial, m.Answer[0].String()
	})
}

// signers are the tags of the keys that sign the SOA.
func (s *secondary) signers(t *testing.T) (tags []string) {
	t.Helper()
	m, err := query(s.addr, example, dns.TypeSOA)
	if err != nil {
		return nil
	}
	for _, rr := range m.Answer {
		if sig, ok := rr.(*dns.RRSIG); ok {
			tags = append(tags, fmt.Sprintf("%05d", sig.KeyTag))
		}
	}
	return tags
}

// states are the words of each key's .state file, by its base name.
func (k *kaspSigner) states(t *testing.T) map[string]map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(k.dir, "K*.state"))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]map[string]string{}
	for _, file := range files {
		words := map[string]string{}
		for line := range strings.Lines(readFile(t, file)) {
			if name, value, ok := strings.Cut(line, ": "); ok {
				words[name] = strings.Fields(value)[0]
			}
		}
		all[strings.TrimSuffix(filepath.Base(file), ".state")] = words
	}
	return all
}

// keysWith are the base names of the keys whose states are as given.
func (k *kaspSigner) keysWith(t *testing.T, want map[string]string) (names []string) {
	t.Helper()
	for name, words := range k.states(t) {
		fits := true
		for field, value := range want {
			fits = fits && words[field] == value
		}
		if fits {
			names = append(names, name)
		}
	}
	return names
}

func (k *kaspSigner) awaitKey(t *testing.T, what string, want map[string]string) (name string) {
	t.Helper()
	await(t, what, time.Minute, func() (bool, string) {
		names := k.keysWith(t, want)
		if len(names) != 1 {
			return false, fmt.Sprint(k.states(t))
		}
		name = names[0]
		return true, ""
	})
	return name
}

// imports are the flags of zone add for the keys in a folder.
func imports(t *testing.T, dir string) (flags []string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "K*.private"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		role := "zsk"
		if strings.Contains(readFile(t, strings.TrimSuffix(file, ".private")+".key"), " 257 ") {
			role = "ksk"
		}
		flags = append(flags, "--import-"+role+"-file", file)
	}
	return flags
}

// TestNamed_SignedZoneComesAndGoesBack has a zone that named signs by
// dnssec-policy go over to us in the middle of a rollover of its ZSK, be rolled
// here, and go back to named with the keys that we give out. A server that
// takes it from whoever signs is public, its parent has its DS, and unbound
// looks on all the time with what it has in its cache.
func TestNamed_SignedZoneComesAndGoesBack(t *testing.T) {
	for _, row := range []struct {
		name  string
		until map[string]string // states of the ZSK that leaves when we take over
		step  string            // at which the rollover goes on here
		back  bool
	}{
		{"the new ZSK is published", map[string]string{"GoalState": "hidden", "ZRRSIGState": "omnipresent"}, "publish the new key", false},
		{"the old ZSK is retired", map[string]string{"GoalState": "hidden", "ZRRSIGState": "unretentive"}, "sign with the new key", true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			need(t, "named", "unbound", "rndc", "dnssec-keygen", "dnssec-signzone", "dnssec-dsfromkey", "dnssec-settime")
			com, top, parent := startParents(t, false)

			// named signs, and is public by way of a secondary.
			first, last := freeAddr(t), freeAddr(t)
			d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
			public := startNamed(t, fmt.Sprintf(
				"zone %q { type secondary; primaries { 127.0.0.1 port %s; 127.0.0.1 port %s; 127.0.0.1 port %s; }; file \"secondary.db\"; masterfile-format raw; };\n",
				example, port(first), port(d.addr), port(last)))
			before := startKaspSigner(t, first, shortDir(t), 1, public.addr)
			ksk := before.awaitKey(t, "the keys of named have got around", map[string]string{"KSK": "yes", "KRRSIGState": "omnipresent"})
			zsk := before.awaitKey(t, "the keys of named have got around", map[string]string{"ZSK": "yes", "ZRRSIGState": "omnipresent"})
			f := &follower{com: com, server: parent, public: public.addr}
			f.give(t, must(t, "dnssec-dsfromkey", "-2", filepath.Join(before.dir, ksk+".key")))
			before.rndc(t, "dnssec", "-checkds", "published", example)
			before.awaitKey(t, "named knows of the DS", map[string]string{"DSState": "omnipresent"})
			public.awaitAbove(t, example, 0)
			resolver := startUnbound(t, top.ds(t), map[string]string{".": parent.addr, "com.": parent.addr, example + ".": public.addr})
			secure := func(what string) {
				t.Helper()
				await(t, what, 30*time.Second, func() (bool, string) {
					m, err := query(resolver.addr, "www."+example, dns.TypeA)
					return err == nil && m.AuthenticatedData && len(m.Answer) > 0, fmt.Sprint(m, err)
				})
			}
			secure("unbound validates what named signs")
			var looking validator
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				looking.run(resolver.addr, stop)
			}()
			before.rndc(t, "dnssec", "-rollover", "-key", strings.TrimLeft(zsk[len(zsk)-5:], "0"), example)
			await(t, row.name, time.Minute, func() (bool, string) {
				tags := public.signers(t)
				return slices.Contains(before.keysWith(t, row.until), zsk) && slices.Contains(tags, zsk[len(zsk)-5:]) != row.back,
					fmt.Sprint(before.states(t), tags)
			})
			before.stop()

			// Sluice takes over.
			startTakingOver(t, d, parent, public, resolver, top)
			source := writeFile(t, filepath.Join(filepath.Dir(d.data), "zone"), rolledZone)
			keys := imports(t, before.dir)
			if len(keys) != 6 {
				t.Fatalf("keys %q", keys)
			}
			add := append([]string{"zone", "add", example, "--source", source}, keys...)
			plan := d.must(t, append(slices.Clone(add), "--dry-run")...)
			if !strings.Contains(plan, "of zsk goes on at step ") || !strings.Contains(plan, row.step) || strings.Contains(plan, "refused") {
				t.Errorf("plan:\n%s", plan)
			}
			without := []string{"zone", "add", example, "--source", source, keys[0], keys[1]}
			if r := d.cli(t, without...); r.code != 4 || !strings.Contains(r.stderr, "import") {
				t.Errorf("one key alone: %v", r)
			}
			d.must(t, add...)
			serial := d.awaitServed(t, example)
			public.awaitSerial(t, example, serial)
			list := d.rollovers(t)
			if len(list) != 1 || list[0].Kind != "zsk" {
				t.Errorf("rollovers %+v", list)
			}
			settled := func(what string) {
				t.Helper()
				await(t, what, 3*time.Minute, func() (bool, string) {
					f.follow(t)
					list := d.rollovers(t)
					return len(list) == 0, fmt.Sprint(list)
				})
			}
			settled("the rollover of named ends here")
			secure("unbound validates what we sign")
			d.must(t, "key", "roll", example, "ksk")
			d.must(t, "key", "roll", example, "zsk")
			settled("both rollovers end")
			secure("unbound validates with the new keys")
			if row.back {
				goBack(t, d, last, public)
				secure("unbound validates what named signs again")
			}
			close(stop)
			<-done
			looking.check(t)
		})
	}
}

// give has the parent have one DS record.
func (f *follower) give(t *testing.T, ds string) {
	t.Helper()
	fields := strings.Fields(ds)
	f.have = []string{fmt.Sprintf("example.com. 5 IN DS %s", strings.ToLower(strings.Join(fields[len(fields)-4:], " ")))}
	f.com.sign(t, f.have...)
	f.reload(t)
}

// startTakingOver starts a daemon without zones, beside the parent and the
// public server of one.
func startTakingOver(t *testing.T, d *daemon, parent, public, resolver *secondary, top *parentZone) {
	t.Helper()
	dir := filepath.Dir(d.data)
	policies := filepath.Join(dir, "policies")
	if err := os.Mkdir(policies, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(policies, "default.toml"), fmt.Sprintf(`version = "v1"
[key-manager]
propagation-margin = "2s"
observation-interval = "1m"
parent-nameservers = [%q]
publication-nameservers = [%q]
[key-manager.records]
ttl = "5s"
[server.outbound]
send-notify-to = [%q]
`, parent.addr, public.addr, public.addr))
	config := writeFile(t, filepath.Join(dir, "config.toml"), fmt.Sprintf(
		"version = \"v1\"\npolicy-dir = %q\n[daemon]\nresolvers = [%q]\ntrust-anchors = [%q]\n", policies, resolver.addr, top.ds(t)))
	d.flags = []string{"--config", config}
	d.start(t)
	d.awaitHealthy(t)
}

// goBack gives the keys to named, which must sign with them and begin no
// rollover.
func goBack(t *testing.T, d *daemon, addr string, public *secondary) {
	t.Helper()
	dir := shortDir(t)
	var list []struct {
		ID, State string
	}
	if err := json.Unmarshal([]byte(d.must(t, "--json", "key", "list", example)), &list); err != nil {
		t.Fatal(err)
	}
	given := 0
	for _, k := range list {
		if k.State == "removed" {
			continue
		}
		given++
		if r := d.cli(t, "key", "export", example, k.ID, "-o", dir); r.code != 2 || !strings.Contains(r.stderr, "--i-understand") {
			t.Errorf("export without a word: %v", r)
		}
		d.must(t, "key", "export", example, k.ID, "-o", dir, "--i-understand")
		if r := d.cli(t, "key", "export", example, k.ID, "-o", dir, "--i-understand"); r.code != 1 || !strings.Contains(r.stderr, "is not replaced") {
			t.Errorf("export once more: %v", r)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "K*"))
	if err != nil || len(files) != 3*given || given != 2 {
		t.Fatalf("%d keys, files %q, %v", given, files, err)
	}
	for _, file := range files {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
		if base, ok := strings.CutSuffix(file, ".private"); ok {
			if times := must(t, "dnssec-settime", "-p", "all", base); strings.Contains(times, "Activate: UNSET") || !strings.Contains(times, "Inactive: UNSET") {
				t.Errorf("%s:\n%s", file, times)
			}
		}
	}
	signed := filepath.Join(shortDir(t), "signed")
	must(t, "dnssec-signzone", "-q", "-S", "-K", dir, "-d", filepath.Dir(signed), "-o", example, "-f", signed,
		writeFile(t, filepath.Join(filepath.Dir(signed), "zone"), rolledZone))

	serial := d.awaitServed(t, example)
	d.stop()
	after := startKaspSigner(t, addr, dir, serial+1, public.addr)
	public.awaitAbove(t, example, serial)
	// named looks at its keys when it begins to sign, and says what it thinks of
	// them.
	await(t, "named goes on with both keys", time.Minute, func() (bool, string) {
		text := after.rndc(t, "dnssec", "-status", example)
		return strings.Count(text, "No rollover scheduled") == 2 && strings.Count(text, "dnskey:         omnipresent") == 2, text
	})
	if now, err := filepath.Glob(filepath.Join(dir, "K*.private")); err != nil || len(now) != 2 {
		t.Errorf("named made keys of its own: %q, %v\n%s", now, err, after.log())
	}
	for name, words := range after.states(t) {
		if words["GoalState"] != "omnipresent" {
			t.Errorf("%s: %v", name, words)
		}
	}
}
