package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sluice/e2e/zonegen"
)

func TestServe_SecondDaemonOnTheSameDataIsRefused(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 20})
	d := startDaemon(t, "", g.source())
	d.awaitServed(t, g.Apex())
	r := run(t, program(t), "serve", "--data", d.data, "--listen", freeAddr(t))
	if r.code != 4 {
		t.Errorf("second daemon: %v; want exit code 4", r)
	}
	if !strings.Contains(r.stderr, d.data) {
		t.Errorf("the message does not name the data directory: %s", r.stderr)
	}
	d.must(t, "health")
	if _, err := serialAt(d.addr, g.Apex()); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
}

func TestServe_SaysWhatItDidAndHowToAsk(t *testing.T) {
	need(t, "dig")
	d := startDaemon(t, "", exampleZone())
	d.awaitServed(t, example)
	dig := regexp.MustCompile(`(?m)dig (@127\.0\.0\.1.*)$`)
	await(t, "a dig line in what serve prints", 10*time.Second, func() (bool, string) {
		return dig.MatchString(d.log()), d.log()
	})
	said := d.log()
	for _, part := range []string{"example.com", " IN DS ", "ksk", "zsk", d.addr} {
		if !strings.Contains(strings.ReplaceAll(said, "\t", " "), part) {
			t.Errorf("serve does not speak of %q:\n%s", part, said)
		}
	}
	args := strings.Fields(dig.FindStringSubmatch(said)[1])
	answer := must(t, "dig", append([]string{"+time=3", "+tries=1"}, args...)...)
	if !strings.Contains(answer, "SOA") || strings.Contains(answer, "REFUSED") {
		t.Errorf("dig %v: %s", args, answer)
	}
}

func TestServe_StopsInGoodOrder(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 20})
	d := startDaemon(t, "", g.source())
	serial := d.awaitServed(t, g.Apex())
	d.stop()
	if code := d.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0:\n%s", code, d.tail())
	}
	d.start(t)
	if got := d.awaitServed(t, g.Apex()); got != serial {
		t.Errorf("serial %d after a restart, want %d", got, serial)
	}
}

func TestClient_ExitCodesTellWhatIsWrong(t *testing.T) {
	d := startDaemon(t, "", exampleZone())
	d.awaitServed(t, example)
	for _, c := range []struct {
		name string
		args []string
		want int
	}{
		{"done", []string{"zone", "status", example}, 0},
		{"a flag after the argument", []string{"zone", "status", example, "--json"}, 0},
		{"no such zone", []string{"zone", "status", "nothing.example"}, 3},
		{"no such policy", []string{"policy", "show", "nothing"}, 3},
		{"the zone is there already", []string{"zone", "add", example, "--source", "x"}, 4},
		{"unknown command", []string{"zone", "frobnicate"}, 2},
		{"argument missing", []string{"zone", "status"}, 2},
		{"unknown flag", []string{"zone", "list", "--frobnicate"}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			if r := d.cli(t, c.args...); r.code != c.want {
				t.Errorf("%v; want exit code %d", r, c.want)
			}
		})
	}
	none := "unix:" + filepath.Join(shortDir(t), "none.sock")
	if r := run(t, program(t), "--api", none, "zone", "list"); r.code != 5 {
		t.Errorf("no daemon: %v; want exit code 5", r)
	}
}

func TestZone_LifeOfAZone(t *testing.T) {
	g := newGenerated(t, zonegen.Config{Kind: zonegen.Hosting, Names: 100})
	zone := g.Apex()
	d := startDaemon(t, "")
	await(t, "the daemon answers", 20*time.Second, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
	d.must(t, "zone", "add", zone, "--source", g.file)
	first := d.awaitServed(t, zone)
	before := axfr(t, d.addr, zone)
	dumped := filepath.Join(t.TempDir(), "dump")
	d.must(t, "zone", "dump", zone, "-o", dumped)
	must(t, program(t), "verify", zone, dumped)
	g.change(t, 9, 1)
	d.must(t, "zone", "reload", zone)
	second := d.awaitChange(t, zone, first)
	diff := d.must(t, "zone", "diff", zone, uintText(first), uintText(second))
	if !strings.Contains(diff, uintText(first)) || !strings.Contains(diff, uintText(second)) {
		t.Errorf("the diff holds no SOA of both serials:\n%s", diff)
	}
	d.must(t, "zone", "verify", zone)
	d.must(t, "zone", "dump", zone, "--serial", uintText(first), "-o", dumped)
	sameZone(t, "the first version, dumped later", before, parseFile(t, zone, dumped))
	history := d.must(t, "zone", "history", zone)
	for _, event := range []string{"key.generated", "instance.loaded", "instance.signed", "instance.published"} {
		if !strings.Contains(history, event) {
			t.Errorf("the history tells of no %s:\n%s", event, history)
		}
	}
	d.must(t, "zone", "remove", zone, "--force")
	await(t, "the zone is gone", 20*time.Second, func() (bool, string) {
		_, err := serialAt(d.addr, zone)
		return err != nil && strings.Contains(err.Error(), "REFUSED"), "still answered"
	})
}
