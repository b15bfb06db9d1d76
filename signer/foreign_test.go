package signer

import (
	"slices"
	"testing"
)

// A DS RRset that follows CDS must validate what is signed here; beside that it
// may name the keys of other signers.
func TestRFC8901_6_CDSNamesKeysOfOtherSigners(t *testing.T) {
	for _, row := range []struct {
		fact     string
		own      bool // our KSK stands in CDS
		verifies bool
	}{
		{"beside ours", true, true},
		{"without ours", false, false},
	} {
		keys := testKeys(t, algP256)
		keys[0].CDS = row.own
		other := testKey(t, algP256, 257, "other")
		keys = append(keys, Key{DNSKEY: other.DNSKEY, Published: true, CDS: true})
		p := testParams("example.", NSEC)
		z, _ := mustSign(t, parse(t, "example.", exampleZone), keys, p)
		rep := mustVerify(t, z, p, nil)
		found := slices.ContainsFunc(rep.Faults, func(f Fault) bool { return f.Rule == RuleCDS })
		if found == row.verifies {
			t.Errorf("%s: %v", row.fact, rep.Err())
		}
	}
}
