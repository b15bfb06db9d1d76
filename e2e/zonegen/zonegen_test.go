package zonegen

import (
	"bytes"
	"math"
	"strings"
	"testing"
)

func generate(t *testing.T, c Config) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, c); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// body returns the records as a set, the SOA left out.
func body(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "$") && !strings.Contains(line, "\tSOA\t") {
			set[line] = true
		}
	}
	return set
}

func missing(from, in map[string]bool) int {
	n := 0
	for line := range in {
		if !from[line] {
			n++
		}
	}
	return n
}

func count(text string) map[string]int {
	types := map[string]int{}
	for line := range strings.Lines(text) {
		if f := strings.Split(line, "\t"); len(f) > 3 {
			types[f[3]]++
		}
	}
	return types
}

func TestWrite_SharesAreThoseOfTheMeasuredZones(t *testing.T) {
	const n = 100_000
	for _, c := range []struct {
		kind Kind
		want map[string]float64 // records a name
	}{
		{TLD, map[string]float64{"NS": 2.5, "DS": 0.6, "A": 0.05, "AAAA": 0.025}},
		{Hosting, map[string]float64{"A": 0.88, "AAAA": 0.528, "MX": 0.44, "TXT": 0.396, "CNAME": 0.12}},
	} {
		got := count(generate(t, Config{Kind: c.kind, Names: n}))
		for rrtype, want := range c.want {
			if share := float64(got[rrtype]) / n; math.Abs(share-want) > 0.01 {
				t.Errorf("%s: %.4f %s records a name, want %.4f", c.kind, share, rrtype, want)
			}
		}
	}
}

func TestWrite_SameConfigSameBytes(t *testing.T) {
	for _, kind := range []Kind{TLD, Hosting} {
		c := Config{Kind: kind, Names: 500, Change: 10, Round: 3}
		one, two := generate(t, c), generate(t, c)
		if one != two {
			t.Errorf("%s differs between two runs", kind)
		}
	}
}

func TestWrite_NoRecordTwice(t *testing.T) {
	for _, kind := range []Kind{TLD, Hosting} {
		text := generate(t, Config{Kind: kind, Names: 20_000, Change: 900, Round: 7})
		set, lines := body(text), strings.Count(text, "\n")
		if want := lines - 3; len(set) != want {
			t.Errorf("%s: %d different records in %d lines", kind, len(set), want)
		}
	}
}

func TestWrite_ModifyOnlyReplacesOneRecordAName(t *testing.T) {
	for _, kind := range []Kind{TLD, Hosting} {
		for _, k := range []int{1, 7, 300, 1000} {
			base := body(generate(t, Config{Kind: kind, Names: 1000}))
			next := body(generate(t, Config{Kind: kind, Names: 1000, Change: k, ModifyOnly: true}))
			if got := missing(base, next); got != k {
				t.Errorf("%s, %d changes: %d new records", kind, k, got)
			}
			if got := missing(next, base); got > k {
				t.Errorf("%s, %d changes: %d records gone", kind, k, got)
			}
		}
	}
}

func TestWrite_RoundsDiffer(t *testing.T) {
	one := generate(t, Config{Kind: TLD, Names: 1000, Change: 9, Round: 1})
	two := generate(t, Config{Kind: TLD, Names: 1000, Change: 9, Round: 2})
	if missing(body(one), body(two)) == 0 {
		t.Error("two rounds have the same records")
	}
	if got := (Config{Kind: TLD, Names: 1000, Change: 9, Round: 2, Serial: 10}).SOASerial(); got != 12 {
		t.Errorf("serial %d, want 12", got)
	}
}

func TestWrite_RefusesNonsense(t *testing.T) {
	for _, c := range []Config{
		{Kind: "x", Names: 1},
		{Kind: TLD},
		{Kind: TLD, Names: 5, Change: 6},
		{Kind: TLD, Names: 5, Change: -1},
		{Kind: TLD, Names: maxNames + 1},
		{Kind: TLD, Names: 5, Offset: 5},
		{Kind: TLD, Names: 5, Offset: -1},
	} {
		if err := Write(&bytes.Buffer{}, c); err == nil {
			t.Errorf("%+v was accepted", c)
		}
	}
}

func TestWriteChanged_IsWhereTwoZonesDiffer(t *testing.T) {
	for _, c := range []Config{
		{Kind: TLD, Names: 1000, Change: 7, ModifyOnly: true, Offset: 997},
		{Kind: TLD, Names: 1000, Change: 1, Offset: 3, Round: 9},
		{Kind: Hosting, Names: 1000, Change: 300, Offset: 1, Round: 2},
		{Kind: Hosting, Names: 10, Change: 10, ModifyOnly: true},
	} {
		base := c
		base.Change = 0
		whole, edited := body(generate(t, base)), body(generate(t, c))
		var before, after bytes.Buffer
		if err := WriteChanged(&before, &after, c); err != nil {
			t.Fatal(err)
		}
		one, two := body(before.String()), body(after.String())
		if missing(whole, one) > 0 || missing(edited, two) > 0 {
			t.Errorf("%+v: records that are not of the zone", c)
		}
		if got, want := missing(one, two), missing(whole, edited); got != want || got == 0 {
			t.Errorf("%+v: %d records come, want %d", c, got, want)
		}
		if got, want := missing(two, one), missing(edited, whole); got != want {
			t.Errorf("%+v: %d records go, want %d", c, got, want)
		}
		if got := strings.Count(after.String(), "\n"); got > 20+8*c.Change {
			t.Errorf("%+v: %d lines", c, got)
		}
	}
}
