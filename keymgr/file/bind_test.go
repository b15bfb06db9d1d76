package file

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha512"
	"encoding/asn1"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

const bindFolder = "testdata/bind"

func TestReadPair_EveryAlgorithm(t *testing.T) {
	for file, want := range map[string]struct {
		algorithm uint8
		tag       uint16
		role      keymgr.Role
	}{
		"Kexample.com.+008+20314.private": {dns.RSASHA256, 20314, keymgr.ZSK},
		"Kexample.com.+010+56981.private": {dns.RSASHA512, 56981, keymgr.ZSK},
		"Kexample.com.+013+61176.private": {dns.ECDSAP256SHA256, 61176, keymgr.KSK},
		"Kexample.com.+014+36175.private": {dns.ECDSAP384SHA384, 36175, keymgr.ZSK},
		"Kexample.com.+015+33620.private": {dns.ED25519, 33620, keymgr.KSK},
		"Kexample.com.+016+56641.private": {dns.ED448, 56641, keymgr.ZSK},
	} {
		t.Run(file, func(t *testing.T) {
			pair, err := ReadPair(filepath.Join(bindFolder, file))
			if err != nil {
				t.Fatal(err)
			}
			key := keymgr.Describe(pair.Role, pair.DNSKEY)
			if key.Algorithm != want.algorithm || key.Tag != want.tag || pair.Role != want.role ||
				pair.Owner.Fold().String() != "example.com." {
				t.Errorf("read %s of %s, algorithm %d, tag %d", pair.Role, pair.Owner, key.Algorithm, key.Tag)
			}
			message := []byte("message")
			sig, err := keymgr.Sign(pair.Signer, key.Algorithm, message)
			if err != nil {
				t.Fatal(err)
			}
			if err := keymgr.Verify(pair.DNSKEY, message, sig); err != nil {
				t.Error(err)
			}

			s := newStore(t)
			imported, err := s.Import(t.Context(), filepath.Join(bindFolder, file), "example.com", "")
			if err != nil {
				t.Fatal(err)
			}
			if imported.ID != key.ID || imported.Role != string(want.role) || imported.Keystore != "file" {
				t.Errorf("imported %+v", imported)
			}
			if err := keymgr.Prove(t.Context(), openDir(t, Config{Dir: s.dir}), imported); err != nil {
				t.Error(err)
			}
			if _, err := s.Import(t.Context(), filepath.Join(bindFolder, file), "example.com", ""); err != nil {
				t.Errorf("a second import: %v", err)
			}
		})
	}
}

func TestImport_RoleMustFitTheFlags(t *testing.T) {
	ksk, zsk := filepath.Join(bindFolder, "Kexample.com.+013+61176.private"), filepath.Join(bindFolder, "Kexample.com.+014+36175.private")
	for _, row := range []struct {
		path string
		role keymgr.Role
		ok   bool
	}{
		{ksk, keymgr.KSK, true},
		{ksk, keymgr.CSK, true},
		{ksk, keymgr.ZSK, false},
		{zsk, keymgr.ZSK, true},
		{zsk, keymgr.CSK, true},
		{zsk, keymgr.KSK, false},
		{zsk, "xsk", false},
	} {
		s := newStore(t)
		key, err := s.Import(t.Context(), row.path, "EXAMPLE.com.", row.role)
		if (err == nil) != row.ok {
			t.Errorf("%s as %s: error %v", row.path, row.role, err)
		}
		if row.ok && key.Role != string(row.role) {
			t.Errorf("%s as %s is a %s", row.path, row.role, key.Role)
		}
		if entries, err := os.ReadDir(s.dir); err != nil || (len(entries) == 1) != row.ok {
			t.Errorf("%s as %s: the keystore holds %v, %v", row.path, row.role, entries, err)
		}
	}
	if _, err := newStore(t).Import(t.Context(), ksk, "example.net.", ""); err == nil ||
		!strings.Contains(err.Error(), "belongs to zone Example.com., not to example.net.") {
		t.Errorf("a key of another zone gives %v", err)
	}
}

// RFC 6605, 6 and RFC 8080, 6 print private keys in BIND's format v1.2.
func TestReadPair_RFCKeys(t *testing.T) {
	for rfc, row := range map[string][2]string{
		"RFC 6605, 6.1": {
			"example.net. 3600 IN DNSKEY 257 3 13 (\n GojIhhXUN/u4v54ZQqGSnyhWJwaubCvTmeexv7bR6edb\n krSqQpF64cYbcB7wNcP+e+MAnLr+Wi9xMWyQLc8NAA== )",
			"13 (ECDSAP256SHA256)\nPrivateKey: GU6SnQ/Ou+xC5RumuIUIuJZteXT2z0O/ok1s38Et6mQ=",
		},
		"RFC 6605, 6.2": {
			"example.net. 3600 IN DNSKEY 257 3 14 xKYaNhWdGOfJ+nPrL8/arkwf2EY3MDJ+SErKivBVSum1w/egsXvSADtNJhyem5RCOpgQ6K8X1DRSEkrbYQ+OB+v8/uX45NBwY8rp65F6Glur8I/mlVNgF6W/qTI37m40",
			"14 (ECDSAP384SHA384)\nPrivateKey: WURgWHCcYIYUPWgeLmiPY2DJJk02vgrmTfitxgqcL4vwW7BOrbawVmVe0d9V94SR",
		},
		"RFC 8080, 6.1": {
			"example.com. 3600 IN DNSKEY 257 3 15 l02Woi0iS8Aa25FQkUd9RMzZHJpBoRQwAQEX1SxZJA4=",
			"15 (ED25519)\nPrivateKey: ODIyNjAzODQ2MjgwODAxMjI2NDUxOTAyMDQxNDIyNjI=",
		},
		"RFC 8080, 6.2": {
			"example.com. 3600 IN DNSKEY 257 3 16 3kgROaDjrh0H2iuixWBrc8g2EpBBLCdGzHmn+G2MpTPhpj/OiBVHHSfPodx1FYYUcJKm1MDpJtIA",
			"16 (ED448)\nPrivateKey: xZ+5Cgm463xugtkY5B0Jx6erFTXp13rYegst0qRtNsOYnaVpMx0Z/c5EiA9x8wWbDDct/U3FhYWA",
		},
	} {
		path := writePair(t, row[0], "Private-key-format: v1.2\r\nAlgorithm: "+row[1]+"\n\n")
		if _, err := ReadPair(path); err != nil {
			t.Errorf("%s: %v", rfc, err)
		}
	}
}

func writePair(t *testing.T, public, private string) string {
	t.Helper()
	base := filepath.Join(t.TempDir(), "Kkey")
	for suffix, text := range map[string]string{".key": public, ".private": private} {
		if err := os.WriteFile(base+suffix, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return base + ".private"
}

func TestReadPair_Faults(t *testing.T) {
	load := func(name string) (public, private string) {
		for suffix, to := range map[string]*string{".key": &public, ".private": &private} {
			text, err := os.ReadFile(filepath.Join(bindFolder, name+suffix))
			if err != nil {
				t.Fatal(err)
			}
			*to = string(text)
		}
		return public, private
	}
	public, private := load("Kexample.com.+013+61176")
	otherPublic, _ := load("Kexample.com.+014+36175")
	rsaPublic, rsaPrivate := load("Kexample.com.+008+20314")
	_, rsaOther := load("Kexample.com.+010+56981")
	const secret = "REWpI83vrZUzxXfXNvrXYf+8zIVjJ6L0dOOAZHtOvsI="
	swap := strings.ReplaceAll
	mixed := swap(rsaPrivate, field(t, rsaPrivate, "Prime1"), field(t, rsaOther, "Prime1"))
	rows := []struct{ fact, public, private, want string }{
		{"another key's public part", otherPublic, private, "the private key (algorithm 13) does not belong to"},
		{"RSA of another number", rsaPublic, swap(rsaOther, "Algorithm: 10", "Algorithm: 8"), "does not belong to"},
		{"RSA with a wrong prime", rsaPublic, mixed, "RSA key"},
		{"RSA without prime", rsaPublic, swap(rsaPrivate, "Prime2", "Prime9"), "field Prime2 is missing"},
		{
			"RSA of 8192 bits", rsaPublic,
			swap(rsaPrivate, field(t, rsaPrivate, "Modulus"), strings.Repeat("AAAA", 342)), "at most 4096 bits",
		},
		{"no format", public, swap(private, "Private-key-format", "Format"), "no Private-key-format"},
		{"format of the past", public, swap(private, "v1.3", "v1.1"), "want v1.2 or v1.3"},
		{"no algorithm", public, swap(private, "Algorithm", "Alg"), "is not a number"},
		{"algorithm not supported", public, swap(private, "Algorithm: 13", "Algorithm: 5"), "algorithm 5 is not supported"},
		{"no private key", public, swap(private, "PrivateKey", "Key"), "field PrivateKey is missing"},
		{"not base64", public, swap(private, secret, secret+"!"), "field PrivateKey is not base64"},
		{"too long", public, swap(private, secret, "AAAA"+secret), "field PrivateKey has 35 bytes, want 32"},
		{"zero", public, swap(private, secret, strings.Repeat("A", 43)+"="), "field PrivateKey"},
		{"empty", public, swap(private, secret, ""), "has 0 bytes"},
		{"a field twice", public, private + "PrivateKey: " + secret, "stands twice"},
		{"a line without colon", public, private + "nonsense", "a line without a colon"},
		{"in an HSM", public, private + "Label: pkcs11:token=x", "in an HSM"},
		{"an empty public file", "", private, "no DNSKEY record"},
		{"another record", "example.com. IN A 192.0.2.1", private, "want one DNSKEY record"},
		{"two records", public + public, private, "want one DNSKEY record"},
		{"public file is no zone file", "\x00\x01", private, ".key"},
		{"revoked", swap(public, "257", "385"), private, "flags are 385"},
		{"not a zone key", swap(public, "257", "1"), private, "flags are 1,"},
		{"another protocol", swap(public, "257 3", "257 2"), private, "malformed public key"},
		{"binary", public, "\x00\xff\x00", "not a BIND private key file"},
		{"too large", public, private + strings.Repeat("X: y\n", maxFile), "larger than"},
	}
	for _, row := range rows {
		t.Run(row.fact, func(t *testing.T) {
			_, err := ReadPair(writePair(t, row.public, row.private))
			if err == nil || !strings.Contains(err.Error(), row.want) {
				t.Fatalf("error %v, want %q in it", err, row.want)
			}
			if strings.Contains(err.Error(), secret[:20]) {
				t.Errorf("the error shows the private key: %v", err)
			}
		})
	}
	for _, path := range []string{"absent.private", filepath.Join(bindFolder, "Kexample.com.+013+61176.key"), bindFolder} {
		if _, err := ReadPair(path); err == nil {
			t.Errorf("ReadPair(%q): no error", path)
		}
	}
}

// field is the value of a field of a .private file.
func field(t *testing.T, text, name string) string {
	t.Helper()
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, name+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	t.Fatalf("no field %s", name)
	return ""
}

// Some writers drop leading zeros of an ECDSA private key.
func TestReadPair_ShortECDSAKey(t *testing.T) {
	one := make([]byte, 32)
	one[31] = 1
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), one)
	if err != nil {
		t.Fatal(err)
	}
	key, err := keymgr.NewKey(keymgr.ZSK, dns.ECDSAP256SHA256, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	lines, err := keymgr.ParentRecords("\x00", key, "dnskey", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ReadPair(writePair(t, lines[0], "Private-key-format: v1.3\nAlgorithm: 13\nPrivateKey: AQ==\n")); err != nil {
		t.Error(err)
	}
}

// RFC 6979, A.2.6: P-384, SHA-384.
func TestRFC6979_A_2_6_P384(t *testing.T) {
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P384(), unhex(t,
		"6B9D3DAD2E1B8C1C05B19875B6659F4DE23C3B667BF297BA9AA47740787137D896D5724E4C70A825F872C9EA60D2EDF5"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigner(private, false)
	if err != nil {
		t.Fatal(err)
	}
	for message, want := range map[string][2]string{
		"sample": {
			"94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46",
			"99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8",
		},
		"test": {
			"8203B63D3C853E8D77227FB377BCF7B7B772E97892A80F36AB775D509D7A5FEB0542A7F0812998DA8F1DD3CA3CF023DB",
			"DDD0760448D42D8A43AF45AF836FCE4DE8BE06B485E9B61B827C2F13173923E06A739F040649A667BF3B828246BAA5A5",
		},
	} {
		digest := sha512.Sum384([]byte(message))
		der, err := s.Sign(nil, digest[:], crypto.SHA384)
		if err != nil {
			t.Fatal(err)
		}
		var sig struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &sig); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(sig.R.Bytes(), unhex(t, want[0])) || !bytes.Equal(sig.S.Bytes(), unhex(t, want[1])) {
			t.Errorf("%s: r %x, s %x", message, sig.R, sig.S)
		}
	}
}

func FuzzParsePrivate(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(bindFolder, "*.private"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no key files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("Private-key-format: v1.2\nAlgorithm: 8\nModulus: AA==\nPublicExponent: AQAB\nPrivateExponent: AA==\nPrime1: AA==\nPrime2: AA==\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		fields, err := parseFields(text)
		if err != nil {
			return
		}
		algorithm, private, err := fields.private()
		if err != nil {
			return
		}
		if _, err := keymgr.NewKey(keymgr.ZSK, algorithm, private.Public()); err != nil {
			t.Errorf("a key that was read does not fit its algorithm: %v", err)
		}
	})
}

func FuzzParsePublic(f *testing.F) {
	files, err := filepath.Glob(filepath.Join(bindFolder, "*.key"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no key files: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		owner, rdata, _, err := parsePublic(text)
		if err == nil && (len(owner) == 0 || len(rdata) < 5) {
			t.Errorf("owner %q, DNSKEY %x", owner, rdata)
		}
	})
}
