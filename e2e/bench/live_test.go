package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sluice/e2e/zonegen"
	"sluice/signer/zone"
	"sluice/xfr"
)

// held is a zone as a secondary holds it: its records as text.
type held struct {
	records map[string]bool
	fault   error
}

func (h *held) Begin(kind xfr.TransferKind, _ *xfr.Record) error {
	if kind == xfr.AXFR {
		h.records = map[string]bool{}
	}
	return nil
}

func text(rr *xfr.Record) string {
	return fmt.Sprintf("%s %s %d %x", rr.Owner, rr.Type, rr.TTL, rr.RData)
}

func (h *held) Record(rr *xfr.Record) error { return h.Add(rr) }

func (h *held) Add(rr *xfr.Record) error {
	if h.records[text(rr)] {
		h.fault = fmt.Errorf("%s comes twice", text(rr))
	}
	h.records[text(rr)] = true
	return nil
}

func (h *held) Delete(rr *xfr.Record) error {
	if !h.records[text(rr)] {
		h.fault = fmt.Errorf("%s goes and was not there", text(rr))
	}
	delete(h.records, text(rr))
	return nil
}

func TestPrimary_StepsLeadToWhatItServesWhole(t *testing.T) {
	for _, c := range []zonegen.Config{
		{Kind: zonegen.TLD, Names: 300, Change: 40, ModifyOnly: true, Offset: 299},
		{Kind: zonegen.Hosting, Names: 300, Change: 30},
	} {
		dir := t.TempDir()
		base := c
		base.Change = 0
		file := filepath.Join(dir, "zone")
		if err := writeZone(file, base); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		content, err := loadContent(ctx, file, c.Apex())
		if err != nil {
			t.Fatal(err)
		}
		e, err := newEdit(ctx, dir, c)
		if err != nil {
			t.Fatal(err)
		}
		p, err := startPrimary(content)
		if err != nil {
			t.Fatal(err)
		}
		defer p.stop() //nolint:errcheck // the test is over
		client, ep := xfr.NewClient(xfr.ClientConfig{}), xfr.Endpoint{Addr: p.addr}
		h := new(held)
		have := fetch(t, client, ep, p.apex, nil, h)
		first := len(h.records)
		for range 3 {
			p.change(&e)
			have = fetch(t, client, ep, p.apex, &have, h)
			whole := new(held)
			if serial := fetch(t, client, ep, p.apex, nil, whole); serial != have {
				t.Errorf("serial %d, by IXFR %d", serial, have)
			}
			if len(h.records) != len(whole.records) {
				t.Fatalf("%s: %d records by IXFR, %d by AXFR", c.Kind, len(h.records), len(whole.records))
			}
			for rr := range whole.records {
				if !h.records[rr] {
					t.Fatalf("%s: %s is missing after IXFR", c.Kind, rr)
				}
			}
		}
		p.change(&e)
		if fetch(t, client, ep, p.apex, &have, h); len(h.records) != first {
			t.Errorf("%s: there and back is %d records, was %d", c.Kind, len(h.records), first)
		}
		if h.fault != nil {
			t.Error(h.fault)
		}
	}
}

func fetch(t *testing.T, client *xfr.Client, ep xfr.Endpoint, apex zone.Name, have *zone.Serial, into *held) zone.Serial {
	t.Helper()
	got, err := client.Transfer(t.Context(), ep, apex, have, into)
	if err != nil {
		t.Fatal(err)
	}
	if want := map[bool]xfr.TransferKind{true: xfr.AXFR, false: xfr.IXFR}[have == nil]; got.Kind != want {
		t.Errorf("got %s, want %s", got.Kind, want)
	}
	return got.Serial
}

func TestQuantile_IsOneOfTheTimes(t *testing.T) {
	var g liveGroup
	for i := range 100 {
		g.took = append(g.took, time.Duration((i*37)%100+1))
	}
	for percent, want := range map[int]time.Duration{50: 50, 99: 99, 100: 100} {
		if got := g.quantile(percent); got != want {
			t.Errorf("quantile %d of 1..100 is %d, want %d", percent, got, want)
		}
	}
	if got := (liveGroup{took: []time.Duration{7}}).quantile(50); got != 7 {
		t.Errorf("of one time it is %d", got)
	}
}

func TestParse_RefusesNonsense(t *testing.T) {
	for _, args := range [][]string{
		{"-changes", "1:3"},
		{"-changes", "0:2"},
		{"-changes", "1"},
		{"-sizes", "0"},
		{"-sizes", "x"},
		{"-runs", "0"},
		{"-denial", "nsec5"},
		{"more"},
	} {
		if _, err := parse(args); err == nil {
			t.Errorf("%q was accepted", args)
		}
	}
	c, err := parse([]string{"-n", "500", "-changes", "1:2,30:4"})
	if err != nil || len(c.changes) != 2 || c.changes[1] != (liveChange{30, 4}) || fmt.Sprint(c.sizes) != "[5 50 500]" {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestLoadContent_RefusesAZoneWithoutSOA(t *testing.T) {
	file := filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(file, []byte("tld. 60 IN NS ns.tld.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := loadContent(t.Context(), file, "tld."); err == nil {
		t.Error("accepted")
	}
	if _, err := loadContent(t.Context(), file+".gone", "tld."); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
}

func TestOverlaid_HidesReplacesAndAdds(t *testing.T) {
	items := func(pairs ...string) []zone.Item {
		var out []zone.Item
		for i := 0; i < len(pairs); i += 2 {
			it := zone.Item{Key: []byte(pairs[i])}
			if pairs[i+1] != "" {
				it.Value = []byte(pairs[i+1])
			}
			out = append(out, it)
		}
		return out
	}
	w := &overlaid{base: items("b", "1", "c", "2", "d", "3"), over: items("a", "9", "c", "", "d", "8", "e", "7")}
	var got bytes.Buffer
	for w.Next() {
		fmt.Fprintf(&got, "%s%s ", w.Key(), w.Value())
	}
	if want := "a9 b1 d8 e7 "; got.String() != want {
		t.Errorf("got %q, want %q", got.String(), want)
	}
}
