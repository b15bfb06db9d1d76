package pipeline

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"sluice/journal/journaltest"
)

// unsigned is a dump without what depends on keys and times.
func unsigned(dump string) string {
	var keep []string
	drop := regexp.MustCompile(`\t(RRSIG|DNSKEY|CDS|CDNSKEY|SOA)\t`)
	for line := range strings.SplitSeq(dump, "\n") {
		if !drop.MatchString(line) {
			keep = append(keep, line)
		}
	}
	return strings.Join(keep, "\n")
}

// TestEngine_ChangesSignedAloneEqualAFullSigning walks a zone through changes
// of every kind and compares each version with a zone signed in full.
func TestEngine_ChangesSignedAloneEqualAFullSigning(t *testing.T) {
	var filler strings.Builder
	for i := range 200 {
		fmt.Fprintf(&filler, "host%d IN A 192.0.2.%d\n", i, i%250)
	}
	base := smallZone + filler.String()
	steps := []struct{ fact, from, to string }{
		{"a name comes", "www IN A", "new IN A 192.0.2.9\nwww IN A"},
		{"an empty non-terminal comes", "www IN A", "x.y.z IN A 192.0.2.9\nwww IN A"},
		{"an empty non-terminal goes", "a.ent", "ent"},
		{"a delegation hides names", "host7 IN A 192.0.2.7", "host7 IN NS ns.example.net.\na.host7 IN A 192.0.2.7"},
		{"a DS comes", "sub IN NS ns.sub", "sub IN NS ns.sub\nsub IN DS 1 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
		{"a DS goes", "secure IN DS 12345 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", ""},
		{"a TTL changes", "www IN A", "www 60 IN A"},
		{"the case changes", "www IN A", "WwW IN A"},
		{"the apex changes", "IN NS ns2.example.net.", "IN NS ns3.example.net.\n  IN MX 10 mx.example.net."},
		{"the SOA changes", "7 7200", "9 7201"},
		{"a DNAME hides names", "host8 IN A 192.0.2.8", "host8 IN DNAME example.net.\nb.host8 IN A 192.0.2.8"},
	}
	for _, denial := range []string{"nsec", "nsec3", "nsec3-opt-out"} {
		t.Run(denial, func(t *testing.T) {
			policies := map[string]Policy{"default": denialPolicy(t, denial)}
			r := newRig(t, journaltest.New(), policies)
			r.add(base)
			for _, step := range steps {
				text := strings.Replace(base, step.from, step.to, 1)
				if text == base {
					t.Fatalf("%s: nothing to replace", step.fact)
				}
				for _, text := range []string{text, base} { // there and back
					st := r.reload(text)
					if st.LastError != "" || st.State != "published" {
						t.Fatalf("%s: state %q, error %q", step.fact, st.State, st.LastError)
					}
					if st.Published.Made > 40 {
						t.Errorf("%s: %d signatures made", step.fact, st.Published.Made)
					}
					if rep, err := r.e.VerifyZone(t.Context(), "example.com", nil); err != nil || !rep.OK() {
						t.Fatalf("%s: verify: %v, %v", step.fact, err, rep.Err())
					}
					full := newRig(t, journaltest.New(), policies)
					full.add(text)
					if got, want := unsigned(r.dump()), unsigned(full.dump()); got != want {
						t.Errorf("%s: differs from a full signing", step.fact)
					}
					full.stop()
				}
			}
			replayAll(t, r)
		})
	}
}

func denialPolicy(t *testing.T, denial string) Policy {
	t.Helper()
	text := string(Default().Text)
	if strings.HasPrefix(denial, "nsec3") {
		text = strings.Replace(text, `type = "nsec"`, `type = "nsec3"`, 1)
	}
	if denial == "nsec3-opt-out" {
		text = strings.Replace(text, "opt-out = false", "opt-out = true", 1)
	}
	p, err := Parse("default", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
