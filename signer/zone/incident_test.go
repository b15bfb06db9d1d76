package zone

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// Each test here is named after an outage. The list of them is in DESIGN.md of
// keymgr.

// finalDots is the notice about names without their final dot, "" for none.
func finalDots(t *testing.T, origin, text string) string {
	t.Helper()
	apex, err := ParseName(origin)
	if err != nil {
		t.Fatal(err)
	}
	l, _, err := loadFS(t, fstest.MapFS{"zone": {Data: []byte(text)}}, func(o *LoadOptions) { o.Origin = apex })
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range l.Notices {
		if rest, ok := strings.CutPrefix(n, errFinalDot.Error()+": "); ok {
			return rest
		}
	}
	return ""
}

// .SE, 2009-10-12: a script left the final dot out of the names of all name
// servers. It is told with the line where it begins; that the whole zone
// changed is a matter of loader.checks.max-change-percent.
func TestIncident_SE2009_MissingFinalDotIsTold(t *testing.T) {
	const top = "$TTL 300\n@ SOA ns.se. host.se. 7 2 3 4 60\n@ NS ns.other.net.\n"
	for _, c := range []struct{ name, origin, text, want string }{
		{"name servers of delegations", "se.", "bar NS ns.bar.se\nfoo NS ns1.foo.se\nfoo NS ns2.foo.se\n", "2, first at zone:4"},
		{"one that is meant", "se.", "foo NS ns1.foo.se.\nbar NS ns.bar.se.\nse NS ns.se.se.\nx NS ns.se.se.\nns.foo A 192.0.2.1\nns.bar A 192.0.2.1\n", ""},
		{"a mail server", "example.com.", "a A 192.0.2.1\nmail MX 10 mx.example.com\n", "1, first at zone:5"},
		{"an alias", "example.com.", "www CNAME web.Example.COM\n", "1, first at zone:4"},
		{"a service", "example.com.", "_x._tcp SRV 1 2 3 host.example.com\n", "1, first at zone:4"},
		{"an owner", "example.com.", "www.example.com A 192.0.2.1\nwww.example.com TXT x\n", "1, first at zone:4"},
		{"a label that only looks like it", "example.com.", "www CNAME web.xexample.com.example.com.\n", ""},
		{"the root", ".", "se NS ns.se.\n", ""},
	} {
		text := strings.ReplaceAll(top, "se.", c.origin)
		if c.origin == "." {
			text = strings.ReplaceAll(top, "se.", "")
		}
		if got := finalDots(t, c.origin, text+c.text); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// 1.1.1.1, 2023-10-04: a parser did not know ZONEMD, and an old root zone was
// used until its signatures expired. What is not known is taken as it is (RFC
// 3597), in presentation form and on the wire.
func TestIncident_OneOneOneOne2023_UnknownTypesPass(t *testing.T) {
	text := head
	var want []string
	for i, number := range []int{64, 63, 65, 99, 260, 1234, 32769, 65279, 65400} {
		if number == 63 {
			continue // ZONEMD itself is the signer's
		}
		owner := fmt.Sprintf("t%d", i)
		name := Type(number).String() //nolint:gosec // all fit
		if CheckType(Type(number)) != nil || rdataKnown(name) {
			continue
		}
		text += fmt.Sprintf("%s TYPE%d \\# 3 abcdef\n", owner, number)
		want = append(want, fmt.Sprintf("10 %s.example. 300 %s abcdef", owner, name))
	}
	if len(want) < 3 {
		t.Fatalf("only %d types are not known here", len(want))
	}
	_, got, err := loadText(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%s is not in %q", line, got)
		}
	}
	// And a ZONEMD whose scheme and hash nobody knows is told, not refused.
	l, _, err := loadText(t, head+"@ ZONEMD 7 240 240 "+strings.Repeat("ab", 48)+"\n", nil)
	if err != nil || !slices.Contains(l.Notices, noticeZONEMD) {
		t.Errorf("a ZONEMD of an unknown scheme: %v, %+v", err, l)
	}
}

// rdataKnown reports whether a type has a name here.
func rdataKnown(name string) bool { return !strings.HasPrefix(name, "TYPE") }
