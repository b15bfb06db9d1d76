package zone

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRFC9471_NameServersBelowTheirDelegationNeedAddresses(t *testing.T) {
	apex := []string{"example. SOA a. b. 1 2 3 4 5", "example. NS elsewhere."}
	missing := func(owner, target string) string { return owner + " NS " + target + ": " + ErrGlue.Error() }
	for _, row := range []struct {
		fact  string
		lines []string
		want  []string
	}{
		{"glue below the cut", []string{"a.example. NS ns.a.example.", "ns.a.example. A 192.0.2.1"}, nil},
		{"glue at the cut, AAAA", []string{"a.example. NS a.example.", "a.example. AAAA 2001:db8::1"}, nil},
		{"glue at the cut, A, which comes before NS", []string{"a.example. NS a.example.", "a.example. A 192.0.2.1"}, nil},
		{"another type is no glue", []string{"a.example. NS ns.a.example.", "ns.a.example. TXT x"}, []string{missing("a.example.", "ns.a.example.")}},
		{"no glue at the last name", []string{"z.example. NS ns.z.example."}, []string{missing("z.example.", "ns.z.example.")}},
		{"one of two", []string{"a.example. NS x.a.example.", "a.example. NS y.a.example.", "x.a.example. A 192.0.2.1", "b.example. TXT x"}, []string{missing("a.example.", "y.a.example.")}},
		{"case makes no difference", []string{"A.example. NS nS.a.EXAMPLE.", "Ns.a.example. A 192.0.2.1"}, nil},
		{"siblings are not asked for (RFC 9471, 2.2)", []string{"a.example. NS ns.b.example.", "b.example. NS elsewhere."}, nil},
		{"a name that only ends alike", []string{"a.example. NS ns.ba.example.", "a.example. NS ns.a.another."}, nil},
		{"a wildcard is no glue", []string{"a.example. NS ns.a.example.", "*.a.example. A 192.0.2.1"}, []string{missing("a.example.", "ns.a.example.")}},
		{"below another delegation nobody asks", []string{"a.example. NS elsewhere.", "b.a.example. NS ns.b.a.example."}, nil},
		{"glue deeper than another name", []string{
			"a.example. NS n.x.a.example.", "a.example. NS b.a.example.", "b.a.example. A 192.0.2.1", "c.a.example. TXT x", "n.x.a.example. A 192.0.2.1",
		}, nil},
		{"the address of another zone's cut", []string{"a.example. NS ns.a.example.", "b.example. NS ns.b.example.", "ns.b.example. A 192.0.2.1"}, []string{missing("a.example.", "ns.a.example.")}},
		{"labels with bytes that keys escape", []string{`\000\001.example. NS ns.\000\001.example.`, `b\001.example. NS ns.b\001.example.`, `ns.b\001.example. A 192.0.2.1`}, []string{missing(`\000\001.example.`, `ns.\000\001.example.`)}},
		{"below a DNAME nobody asks", []string{"d.example. DNAME x.", "a.d.example. NS ns.a.d.example."}, nil},
		{"a name server of the zone", []string{"example. NS ns.example."}, []string{"example. NS ns.example.: " + ErrServerAddress.Error()}},
		{"a name server of the zone with its address", []string{"example. NS ns.example.", "ns.example. A 192.0.2.1"}, nil},
		{"the apex as name server", []string{"example. NS example.", "example. A 192.0.2.1"}, nil},
		{"a name server of the zone below a delegation", []string{"example. NS ns.a.example.", "a.example. NS ns.a.example.", "ns.a.example. A 192.0.2.1"}, nil},
		{"a name server of the zone by a wildcard", []string{"example. NS ns.w.example.", "*.w.example. A 192.0.2.1"}, nil},
		{"a wildcard elsewhere", []string{"example. NS w.example.", "*.w.example. A 192.0.2.1"}, []string{"example. NS w.example.: " + ErrServerAddress.Error()}},
	} {
		t.Run(row.fact, func(t *testing.T) {
			if diff := cmp.Diff(row.want, glueFound(t, GlueRequire, append(apex, row.lines...))); diff != "" {
				t.Error(diff)
			}
			var notices []string
			for _, s := range row.want {
				notices = append(notices, "notice "+s)
			}
			if diff := cmp.Diff(notices, glueFound(t, GlueNotice, append(apex, row.lines...))); diff != "" {
				t.Error(diff)
			}
			if got := glueFound(t, GlueIgnore, append(apex, row.lines...)); len(got) > 0 {
				t.Errorf("told though ignored: %q", got)
			}
		})
	}
}

// glueFound is what a Checker has against addresses of name servers.
func glueFound(t *testing.T, glue GlueCheck, lines []string) (got []string) {
	t.Helper()
	sets := map[string][]string{}
	for _, line := range lines {
		f := strings.Fields(line)
		key := strings.ToLower(f[0]) + f[1]
		sets[key] = append(sets[key], f[0]+" 60 IN "+strings.Join(f[1:], " "))
	}
	var items []Item
	for _, set := range sets {
		items = append(items, itemOf(t, KindContents, set...))
	}
	slices.SortFunc(items, func(a, b Item) int { return strings.Compare(string(a.Key), string(b.Key)) })
	c := NewChecker("\x07example\x00", glue, func(p Problem) {
		if !errors.Is(p, ErrGlue) && !errors.Is(p, ErrServerAddress) {
			return
		}
		if p.Notice {
			got = append(got, "notice "+p.Error())
		} else {
			got = append(got, p.Error())
		}
	})
	for _, it := range items {
		c.Item(it.Key, it.Value)
	}
	c.Finish()
	return got
}

func TestLoad_MissingGlueIsToldWithItsLine(t *testing.T) {
	text := head + "ns A 192.0.2.1\nb NS ns.b\nc NS ns.c\n  NS ns2.c\nd TXT x\nns.c A 192.0.2.1\n"
	l, _, err := loadText(t, text, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{ErrGlue.Error() + ": 2, first at zone:5"}, l.Notices); diff != "" {
		t.Error(diff)
	}
	_, _, err = loadText(t, text, func(o *LoadOptions) { o.Glue = GlueRequire })
	var le *LoadError
	if !errors.As(err, &le) {
		t.Fatalf("missing glue is not refused: %v", err)
	}
	var got []string
	for _, e := range le.Errors {
		got = append(got, e.Error())
	}
	if diff := cmp.Diff([]string{
		"zone:5: b.example. NS ns.b.example.: " + ErrGlue.Error(),
		"zone:7: c.example. NS ns2.c.example.: " + ErrGlue.Error(),
	}, got); diff != "" {
		t.Error(diff)
	}
	if l, _, err = loadText(t, text, func(o *LoadOptions) { o.Glue = GlueIgnore }); err != nil || len(l.Notices) > 0 {
		t.Errorf("notices %q, error %v", l.Notices, err)
	}
}

// What glue costs beside the other checks, for delegations of which none has
// its name server below it.
func BenchmarkChecker(b *testing.B) {
	const names = 20_000
	var items []Item
	for i := range names {
		value := AppendValue(nil, Root, 60, []byte("\x03ns1\x04prov\x03tld\x00"), []byte("\x03ns2\x04prov\x03tld\x00"))
		items = append(items, Item{AppendKey(nil, KindContents, Name(fmt.Sprintf("\x07n%06d\x03tld\x00", i)), TypeNS), value})
	}
	for name, glue := range map[string]GlueCheck{"ignore": GlueIgnore, "notice": GlueNotice} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c := NewChecker("\x03tld\x00", glue, func(Problem) {})
				for _, it := range items {
					c.Item(it.Key, it.Value)
				}
				c.Finish()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(names*b.N), "ns/item")
		})
	}
}
