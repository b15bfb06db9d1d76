package fleet

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
	"sluice/pipeline"
)

func TestZone_KeysOnATokenAreTakenUpThere(t *testing.T) {
	z := Zone{Keys: []Key{{Role: "zsk", File: "/k/Ka.key", Keystore: "hsm", ID: "a1"}, {Role: "ksk", File: "/k/Ka.private"}}}
	got, err := z.keyFiles("/fleet")
	if err != nil {
		t.Fatal(err)
	}
	want := []pipeline.KeyFile{{Path: "/k/Ka.key", Role: keymgr.ZSK, Keystore: "hsm", ID: "a1"}, {Path: "/k/Ka.private", Role: keymgr.KSK}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
