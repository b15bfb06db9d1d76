package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kdigIXFR asks for the changes since a serial and returns the records of the
// answer, a line each.
func kdigIXFR(t *testing.T, addr string, from uint32, flags ...string) (records []string, whole string) {
	t.Helper()
	args := append([]string{"@127.0.0.1", "-p", port(addr), "+time=5", "-t", fmt.Sprintf("IXFR=%d", from), example}, flags...)
	whole = run(t, "kdig", args...).String()
	for line := range strings.Lines(whole) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ";") && strings.Contains(line, "\tIN\t") {
			records = append(records, line)
		}
	}
	return records, whole
}

// soas counts the SOA records of an answer.
func soas(records []string) int {
	n := 0
	for _, r := range records {
		if strings.Contains(r, "\tIN\tSOA\t") {
			n++
		}
	}
	return n
}

// The answers of RFC 1995 as kdig sees them: over UDP the changes where they
// fit, else the SOA alone; condensed; the whole zone to who is too far behind
// or is never to have anything else. Who came is in the journal, once.
func TestTransferOut_IncrementalAnswersAndWhoFetched(t *testing.T) {
	need(t, "kdig")
	policies := shortDir(t)
	writeFile(t, filepath.Join(policies, "default.toml"), `version = "v1"
[signer]
serial-policy = "counter"
[server.outbound]
provide-xfr-to = ["127.0.0.0/29"]
provide-axfr-only-to = ["127.0.0.3"]
[retention]
ixfr-versions = 3
`)
	file := writeFile(t, filepath.Join(policies, "zone"), liveZone)
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
	d.flags = []string{"--policy-dir", policies, "--zone", example + "=" + file}
	d.start(t)
	first := d.awaitServed(t, example)
	reload := func(n int, more string) uint32 {
		before, err := serialAt(d.addr, example)
		if err != nil {
			t.Fatal(err)
		}
		text := strings.Replace(liveZone, " 1 30 10 ", fmt.Sprintf(" %d 30 10 ", n), 1)
		writeFile(t, file, text+fmt.Sprintf("count TXT \"%d\"\n", n)+more)
		d.must(t, "zone", "reload", example)
		return d.awaitChange(t, example, before)
	}
	second := reload(2, "")
	third := reload(3, "")

	for _, over := range []string{"+notcp", "+tcp"} {
		if got, whole := kdigIXFR(t, d.addr, third, over); len(got) != 1 || soas(got) != 1 {
			t.Errorf("%s: who is up to date gets\n%s", over, whole)
		}
		// Two versions in one step: new SOA, old, new, new.
		got, whole := kdigIXFR(t, d.addr, first, over, "+bufsize=4096")
		if soas(got) != 4 || !strings.Contains(whole, "\"3\"") || strings.Contains(whole, "\"2\"") || strings.Contains(whole, "192.0.2.80") {
			t.Errorf("%s: two versions are not condensed:\n%s", over, whole)
		}
	}
	// Without EDNS a datagram holds 512 octets.
	if got, whole := kdigIXFR(t, d.addr, second, "+notcp", "+noedns"); len(got) != 1 || soas(got) != 1 || strings.Contains(whole, " tc") {
		t.Errorf("what does not fit into a datagram is\n%s", whole)
	}
	if got, whole := kdigIXFR(t, d.addr, second, "+tcp", "-b", "127.0.0.3"); soas(got) != 2 || !strings.Contains(whole, "192.0.2.80") {
		t.Errorf("a peer for AXFR alone gets\n%s", whole)
	}
	if got, whole := kdigIXFR(t, d.addr, second, "+notcp", "-b", "127.0.0.3"); len(got) != 1 {
		t.Errorf("a peer for AXFR alone gets over UDP\n%s", whole)
	}
	if _, whole := kdigIXFR(t, d.addr, second, "+tcp", "-b", "127.0.0.9"); !strings.Contains(whole, "REFUSED") {
		t.Errorf("a peer that is not allowed gets\n%s", whole)
	}

	// Three versions are kept.
	fourth, fifth := reload(4, ""), uint32(0)
	if got, whole := kdigIXFR(t, d.addr, first, "+tcp"); soas(got) != 4 {
		t.Errorf("three versions back is\n%s", whole)
	}
	fifth = reload(5, "")
	if got, whole := kdigIXFR(t, d.addr, first, "+tcp"); soas(got) != 2 || !strings.Contains(whole, "192.0.2.80") {
		t.Errorf("four versions back is\n%s", whole)
	}
	if got, _ := kdigIXFR(t, d.addr, second, "+tcp"); soas(got) != 4 {
		t.Error("three versions back is forgotten too early")
	}
	// Changes that are more than the zone: the zone.
	var many strings.Builder
	for i := range 600 {
		fmt.Fprintf(&many, "many%d A 192.0.2.%d\n", i, i%250)
	}
	reload(6, many.String())
	reload(7, "")
	if got, whole := kdigIXFR(t, d.addr, fifth, "+tcp"); soas(got) != 2 && soas(got) != 4 || len(got) > len(axfr(t, d.addr, example))+1 {
		t.Errorf("%d records to go to and fro:\n%.2000s", len(got), whole)
	}

	await(t, "who fetched is recorded", 20*time.Second, func() (bool, string) {
		history := d.must(t, "zone", "history", example, "--type", "instance.fetched")
		ok := true
		for _, want := range []string{
			fmt.Sprintf("127.0.0.1 by IXFR, serial %d", third), fmt.Sprintf("127.0.0.3 by AXFR, serial %d", third),
			fmt.Sprintf("127.0.0.1 by IXFR, serial %d", fourth), fmt.Sprintf("127.0.0.1 by AXFR, serial %d", fifth),
		} {
			ok = ok && strings.Count(history, want) == 1
		}
		return ok && !strings.Contains(history, "127.0.0.9"), history
	})
	status := d.must(t, "zone", "status", "--detailed", example)
	if !strings.Contains(status, "FETCHED BY") || !strings.Contains(status, "127.0.0.3") {
		t.Errorf("status:\n%s", status)
	}
	d.must(t, "zone", "replay", example, "--verify")
}
