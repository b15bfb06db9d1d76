package file

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"testing"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

func TestFromPEM_BecomesBINDsFormAndBack(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for algorithm, key := range map[uint8]crypto.Signer{dns.ECDSAP256SHA256: p256, dns.ED25519: edwards, dns.RSASHA256: rsaKey} {
		text, err := encodePEM(key)
		if err != nil {
			t.Fatal(err)
		}
		private, rdata, err := FromPEM(text, algorithm, keymgr.FlagZone|keymgr.FlagSEP)
		if err != nil {
			t.Fatal(err)
		}
		if rdata[0] != 1 || rdata[1] != 1 || rdata[2] != 3 || rdata[3] != algorithm {
			t.Errorf("algorithm %d: RDATA % x", algorithm, rdata[:4])
		}
		got, again, err := PublicOf(private, keymgr.FlagZone|keymgr.FlagSEP)
		if err != nil || got != algorithm || !bytes.Equal(again, rdata) {
			t.Errorf("algorithm %d: %d, % x, %v", algorithm, got, again, err)
		}
	}
	text, err := encodePEM(p256)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := FromPEM(text, dns.ED25519, keymgr.FlagZone); err == nil {
		t.Error("a P-256 key is taken for algorithm 15")
	}
}

func TestPublicOf_KeyOfAnHSMIsTold(t *testing.T) {
	text := "Private-key-format: v1.2\nAlgorithm: 13 (ECDSAP256SHA256)\nEngine: softhsm\nSlot: 0\nLabel: example\n"
	if _, _, err := PublicOf([]byte(text), keymgr.FlagZone); !errors.Is(err, ErrElsewhere) {
		t.Errorf("error %v", err)
	}
}
