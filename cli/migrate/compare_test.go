package migrate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"
)

// streamOf gives records in an order.
func streamOf(t *testing.T, records ...string) stream {
	t.Helper()
	return func(_ context.Context, fn func(dns.RR) error) error {
		for _, text := range records {
			rr, err := dns.NewRR(text)
			if err != nil {
				return err
			}
			if err := fn(rr); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestDifferences_OnlyWhatNoSignerMakes(t *testing.T) {
	ours := []string{
		"a. 5 IN SOA ns.a. h.a. 2026112201 60 60 60 60", "a. 5 IN NS ns.a.", "ns.a. 5 IN A 192.0.2.1", "a. 5 IN RRSIG A 13 1 5 20300101000000 20200101000000 1 a. AAAA",
		"a. 5 IN DNSKEY 257 3 13 AAAA", "c.a. 5 IN DS 1 13 2 00", "d.a. 5 IN CDS 1 13 2 00",
	}
	theirs := slices.Clone(ours[:3])
	slices.Reverse(theirs)
	theirs[2] = "A. 5 IN SOA NS.a. h.A. 7 60 60 60 60"
	theirs = append(theirs, "c.a. 5 IN DS 1 13 2 00", "D.a. 5 IN CDS 1 13 2 00", `a. 0 IN TYPE65534 \# 5 0D00010001`, "a. 5 IN NSEC b.a. A", "a. 5 IN CDS 1 13 2 00", "a. 5 IN SOA ns.a. h.a. 7 60 60 60 60")
	named, err := differences(t.Context(), streamOf(t, ours...), streamOf(t, theirs...), "a.")
	if err != nil || len(named) > 0 {
		t.Errorf("%q, %v", named, err)
	}
	for _, c := range []struct {
		ours, theirs []string
		want         []string
	}{
		{append(slices.Clone(ours), "x.a. 5 IN A 192.0.2.2"), theirs, []string{"+ x.a. 5 IN A 192.0.2.2"}},
		{ours, append(slices.Clone(theirs), "x.a. 5 IN A 192.0.2.2"), []string{"- x.a. 5 IN A 192.0.2.2"}},
		{append(slices.Clone(ours), "x.a. 5 IN A 192.0.2.2"), append(slices.Clone(theirs), "x.a. 6 IN A 192.0.2.2"), []string{"+ x.a. 5 IN A 192.0.2.2", "- x.a. 6 IN A 192.0.2.2"}},
		{append(slices.Clone(ours), `x.a. 5 IN TXT "A"`), append(slices.Clone(theirs), `x.a. 5 IN TXT "a"`), []string{`+ x.a. 5 IN TXT "A"`, `- x.a. 5 IN TXT "a"`}},
	} {
		got, err := differences(t.Context(), streamOf(t, c.ours...), streamOf(t, c.theirs...), "a.")
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	many := slices.Clone(ours)
	for i := range 9 {
		many = append(many, fmt.Sprintf("x%d.a. 5 IN A 192.0.2.2", i))
	}
	if got, err := differences(t.Context(), streamOf(t, many...), streamOf(t, theirs...), "a."); err != nil || len(got) != maxNamed+1 || got[maxNamed] != "and 4 more" {
		t.Errorf("%q, %v", got, err)
	}
}

// Whose server failed is told.
func TestDifferences_SaysWhoseServerFailed(t *testing.T) {
	refused := func(context.Context, func(dns.RR) error) error { return errors.New("refused") }
	var theirs *theirError
	if _, err := differences(t.Context(), streamOf(t), refused, "a."); !errors.As(err, &theirs) {
		t.Errorf("theirs: %v", err)
	}
	if _, err := differences(t.Context(), refused, streamOf(t), "a."); err == nil || errors.As(err, &theirs) {
		t.Errorf("ours: %v", err)
	}
}

func TestHostPort_FormsOfServers(t *testing.T) {
	for text, want := range map[string][2]string{
		"192.0.2.1": {"192.0.2.1:53", ""}, "192.0.2.1:5300^k": {"192.0.2.1:5300", "k"}, "2001:db8::1": {"[2001:db8::1]:53", ""},
		"[2001:db8::1]:53^k.example": {"[2001:db8::1]:53", "k.example"}, "[2001:db8::1]": {"[2001:db8::1]:53", ""},
	} {
		if address, key := hostPort(text); address != want[0] || key != want[1] {
			t.Errorf("%s: %s, %s", text, address, key)
		}
	}
}
