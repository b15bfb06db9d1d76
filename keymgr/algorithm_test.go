package keymgr

import "testing"

func TestAlgorithmName_IsTheMnemonicOrTheNumber(t *testing.T) {
	for n, want := range map[uint8]string{8: "RSASHA256", 10: "RSASHA512", 13: "ECDSAP256SHA256", 14: "ECDSAP384SHA384", 15: "ED25519", 16: "ED448", 99: "99"} {
		if got := AlgorithmName(n); got != want {
			t.Errorf("algorithm %d is %q, want %q", n, got, want)
		}
	}
}
