package chain

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

func TestCheck_HealthyZonesAreSecure(t *testing.T) {
	for _, c := range []struct {
		name    string
		make    func(*tree)
		ask     string
		types   []zone.Type
		verdict Verdict
		told    []string
	}{
		{"NSEC", nil, "www.zone.example.", nil, Secure, nil},
		{"NSEC3", func(tr *tree) { tr.zone.nsec3 = true }, "www.zone.example.", nil, Secure, nil},
		{"NSEC3 everywhere, with opt-out", func(tr *tree) {
			for _, z := range []*testZone{tr.root, tr.parent, tr.zone} {
				z.nsec3, z.optOut = true, true
			}
		}, "www.zone.example.", nil, Secure, nil},
		{"the zone itself", nil, "zone.example.", []zone.Type{zone.TypeSOA, zone.TypeMX}, Secure, nil},
		{"the root", nil, ".", nil, Secure, nil},
		{"an alias", nil, "alias.zone.example.", nil, Secure, nil},
		{"a wildcard", nil, "any.wild.zone.example.", []zone.Type{zone.TypeTXT}, Secure, nil},
		{"a wildcard by NSEC3", func(tr *tree) { tr.zone.nsec3 = true }, "any.wild.zone.example.", []zone.Type{zone.TypeTXT, zone.TypeMX}, Secure, nil},
		{"a wildcard without the type", nil, "any.wild.zone.example.", nil, Secure, nil},
		{"an empty non-terminal", nil, "empty.zone.example.", nil, Secure, nil},
		{"an empty non-terminal by NSEC3", func(tr *tree) { tr.zone.nsec3 = true }, "empty.zone.example.", nil, Secure, nil},
		{"below an empty non-terminal", nil, "deep.empty.zone.example.", nil, Secure, nil},
		{"another zone by an alias", func(tr *tree) {
			tr.zone.add("away.zone.example. 60 IN CNAME ns1.example.")
		}, "away.zone.example.", nil, Secure, nil},
		{"a DNAME", func(tr *tree) { tr.zone.add("moved.zone.example. 60 IN DNAME zone.example.") }, "moved.zone.example.", []zone.Type{zone.TypeDNAME}, Secure, nil},
		{"an unsigned zone", func(tr *tree) { tr.zone.unsigned = true }, "www.zone.example.", nil, Insecure, nil},
		{"an unsigned zone by NSEC3", func(tr *tree) { tr.zone.unsigned, tr.parent.nsec3 = true, true }, "www.zone.example.", nil, Insecure, nil},
		{"an unsigned zone by opt-out", func(tr *tree) {
			tr.zone.unsigned, tr.parent.nsec3, tr.parent.optOut = true, true, true
		}, "www.zone.example.", nil, Insecure, nil},
		{"below an unsigned zone", func(tr *tree) { tr.parent.unsigned, tr.zone.unsigned = true, true }, "www.zone.example.", nil, Insecure, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tr := newTree(t)
			if c.make != nil {
				c.make(tr)
			}
			r := tr.check(c.ask, c.types...)
			if r.Verdict != c.verdict || !r.Healthy || r.Absent {
				t.Errorf("verdict %s, healthy %v, absent %v: %s", r.Verdict, r.Healthy, r.Absent, r.Summary)
			}
			if diff := cmp.Diff(c.told, told(r)); diff != "" {
				t.Errorf("findings (-want +got):\n%s\n%+v", diff, r.Links)
			}
		})
	}
}

func TestCheck_ANameThatDoesNotExistIsProvenAbsent(t *testing.T) {
	for _, nsec3 := range []bool{false, true} {
		tr := newTree(t)
		tr.zone.nsec3 = nsec3
		r := tr.check("none.zone.example.")
		if !r.Absent || !r.Healthy || r.Verdict != Secure || !strings.Contains(r.Summary, "does not exist") {
			t.Errorf("nsec3 %v: %s, absent %v, healthy %v: %s %v", nsec3, r.Verdict, r.Absent, r.Healthy, r.Summary, told(r))
		}
	}
}

func TestCheck_AnAnchorBelowTheRootIsWhereTheChainBegins(t *testing.T) {
	tr := newTree(t)
	tr.anchors = []string{tr.zone.ds()}
	tr.parent.signing = func(*dns.RRSIG) bool { return false } // nothing above counts
	r := tr.check("www.zone.example.")
	if r.Verdict != Secure || !r.Healthy {
		t.Errorf("%s: %s %v", r.Verdict, r.Summary, told(r))
	}
	var verdicts []Verdict
	for _, l := range r.Links {
		verdicts = append(verdicts, l.Verdict)
	}
	if diff := cmp.Diff([]Verdict{Indeterminate, Indeterminate, Secure}, verdicts); diff != "" {
		t.Error(diff)
	}
}

func TestCheck_WithoutAnAnchorNothingIsChecked(t *testing.T) {
	tr := newTree(t)
	tr.anchors = []string{strings.Replace(tr.zone.ds(), "zone.example.", "other.test.", 1)}
	tr.start()
	if _, err := Check(t.Context(), tr.config(), "\x04zone\x07example\x00", nil); err == nil {
		t.Error("a check without an anchor")
	}
}

func TestRecords_AreThoseThatWereAskedFor(t *testing.T) {
	tr := newTree(t)
	r := tr.check("alias.zone.example.", zone.TypeA)
	owner, data, secure := r.Records(zone.TypeA)
	if owner.String() != "www.zone.example." || len(data) != 1 || !secure {
		t.Errorf("%s %x secure %v", owner, data, secure)
	}
}
