package pipeline

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

func TestTransfer_AnIncrementThatLosesGlueIsToldOrRefused(t *testing.T) {
	base := []string{
		"a NS ns.a", "ns.a A 192.0.2.1", "ns.a AAAA 2001:db8::1", "a NS ns2.a", "ns2.a A 192.0.2.2",
		"hid NS elsewhere.", "b.hid NS ns.b.hid", "bad NS ns.bad", "@ NS n.w", "*.w A 192.0.2.3",
		"dn DNAME elsewhere.", "c.dn NS ns.c.dn",
	}
	missing := func(owner, target string) string {
		return owner + ".example.com. NS " + target + ".example.com.: " + zone.ErrGlue.Error()
	}
	apex := func(target string) []string {
		return []string{"example.com. NS " + target + ".example.com.: " + zone.ErrServerAddress.Error()}
	}
	for fact, c := range map[string]struct {
		gone, come string
		want       []string
	}{
		"one of two addresses goes":              {gone: "ns.a 300 A 192.0.2.1"},
		"both addresses go":                      {"ns.a 300 A 192.0.2.1\nns.a 300 AAAA 2001:db8::1", "", []string{missing("a", "ns.a")}},
		"the only address of one of two goes":    {"ns2.a 300 A 192.0.2.2", "", []string{missing("a", "ns2.a")}},
		"the address goes with its server":       {gone: "ns2.a 300 A 192.0.2.2\na 300 NS ns2.a"},
		"the address moves to the other family":  {gone: "ns2.a 300 A 192.0.2.2", come: "ns2.a 300 AAAA 2001:db8::2"},
		"a server comes without":                 {"", "a 300 NS ns3.a", []string{missing("a", "ns3.a")}},
		"a server comes with its address":        {come: "a 300 NS ns3.a\nns3.a 300 A 192.0.2.4"},
		"a delegation comes without":             {"", "new 300 NS ns.new", []string{missing("new", "ns.new")}},
		"a delegation is uncovered":              {"hid 300 NS elsewhere.", "", []string{missing("b.hid", "ns.b.hid")}},
		"a delegation is uncovered with address": {gone: "hid 300 NS elsewhere.", come: "ns.b.hid 300 A 192.0.2.4"},
		"a DNAME covers a delegation no more":    {"dn 300 DNAME elsewhere.", "", []string{missing("c.dn", "ns.c.dn")}},
		"a delegation is covered":                {gone: "ns2.a 300 A 192.0.2.2\na 300 NS ns.a\na 300 NS ns2.a", come: "b.a 300 NS ns.b.a\na 300 NS elsewhere."},
		"another name, whatever was wrong":       {come: "other 300 TXT x"},
		"an address that is nobody's":            {gone: "", come: "x.a 300 A 192.0.2.5"},
		"the address of a server of the zone":    {"ns1 300 A 192.0.2.1", "", apex("ns1")},
		"a wildcard's address":                   {"*.w 300 A 192.0.2.3", "", apex("n.w")},
		"a server of the zone comes":             {"", "@ 300 NS ns9", apex("ns9")},
	} {
		t.Run(fact, func(t *testing.T) {
			p := newPrimary(t, zoneFileOf(1, base...))
			r := newRig(t, journaltest.New(), nil)
			r.addFrom(p.addr)
			p.serve(zoneFileOf(2), soa(1)+c.gone, soa(2)+c.come)
			st := r.ask(false)
			if diff := cmp.Diff(c.want, st.Loaded.Notices); diff != "" || st.Loaded.Serial != 2 {
				t.Errorf("serial %d: %s", st.Loaded.Serial, diff)
			}
		})
	}
	strict := reviewPolicy(t, "[loader.checks]\nglue = \"require\"\n")
	p := newPrimary(t, zoneFileOf(1, "a NS ns.a", "ns.a A 192.0.2.1"))
	r := newRig(t, journaltest.New(), map[string]Policy{"default": strict})
	if st := r.addFrom(p.addr); st.State != "published" {
		t.Fatalf("%+v", st)
	}
	p.serve(zoneFileOf(2, "a NS ns.a"), soa(1)+"ns.a 300 A 192.0.2.1", soa(2))
	if st := r.ask(false); !strings.Contains(st.LastError, missing("a", "ns.a")) || st.Loaded.Serial != 1 {
		t.Errorf("by increment: serial %d, %q", st.Loaded.Serial, st.LastError)
	}
	if st := r.ask(true); !strings.Contains(st.LastError, missing("a", "ns.a")) || st.Loaded.Serial != 1 {
		t.Errorf("in whole: serial %d, %q", st.Loaded.Serial, st.LastError)
	}
}
