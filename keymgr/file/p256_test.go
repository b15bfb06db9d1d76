package file

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"sync"
	"syscall"
	"testing"
	"time"

	"filippo.io/bigmod"
)

func p256TestKey(t testing.TB, scalar []byte) (*p256Key, *ecdsa.PrivateKey) {
	t.Helper()
	private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
	if err != nil {
		t.Fatal(err)
	}
	key, err := newP256(private)
	if err != nil {
		t.Fatal(err)
	}
	return key, private
}

// stdlibSignature is what crypto/ecdsa makes, as r|s.
func stdlibSignature(t testing.TB, private *ecdsa.PrivateKey, digest []byte) []byte {
	t.Helper()
	der, err := private.Sign(nil, digest, crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	var sig struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &sig); err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 64)
	sig.R.FillBytes(out[:32])
	sig.S.FillBytes(out[32:])
	return out
}

func digestsFrom(seed string, count int) []byte {
	var out []byte
	for i := range count {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		out = append(out, sum[:]...)
	}
	return out
}

func wantEqualToStdlib(t testing.TB, key *p256Key, private *ecdsa.PrivateKey, digests []byte) {
	t.Helper()
	got, err := key.SignBatch([]byte("head"), digests)
	if err != nil {
		t.Fatal(err)
	}
	if string(got[:4]) != "head" || len(got) != 4+2*len(digests) {
		t.Fatalf("SignBatch returned %d bytes for %d digests", len(got), len(digests)/32)
	}
	got = got[4:]
	for i := 0; i < len(digests)/32; i++ {
		want := stdlibSignature(t, private, digests[32*i:32*i+32])
		if !bytes.Equal(got[64*i:64*i+64], want) {
			t.Fatalf("signature %d of %d is %x, crypto/ecdsa makes %x", i, len(digests)/32, got[64*i:64*i+64], want)
		}
	}
}

func TestSignBatch_EqualsStdlib(t *testing.T) {
	for _, count := range []int{0, 1, 2, 3, 4, 31, 255, 256, 257, 258, 259, 600} {
		scalar := sha256.Sum256(fmt.Appendf(nil, "key %d", count))
		key, private := p256TestKey(t, scalar[:])
		wantEqualToStdlib(t, key, private, digestsFrom("digest", count))
	}
}

// Digests at and above the order are reduced (RFC 6979, 2.3.2 to 2.3.4), and
// the private keys at both ends of their range work.
func TestSignBatch_EdgesOfRange(t *testing.T) {
	order := elliptic.P256().Params().N
	var digests []byte
	for _, d := range []int64{-2, -1, 0, 1, 2} {
		digests = append(digests, new(big.Int).Add(order, big.NewInt(d)).FillBytes(make([]byte, 32))...)
	}
	digests = append(digests, bytes.Repeat([]byte{0xff}, 32)...)
	digests = append(digests, make([]byte, 32)...)
	digests = append(digests, new(big.Int).SetInt64(1).FillBytes(make([]byte, 32))...)
	for _, d := range []*big.Int{big.NewInt(1), big.NewInt(2), new(big.Int).Sub(order, big.NewInt(1))} {
		key, private := p256TestKey(t, d.FillBytes(make([]byte, 32)))
		wantEqualToStdlib(t, key, private, digests)
	}
}

// A digest whose first nonce is out of range goes to crypto/ecdsa, wherever
// in the batch it stands.
func TestSignBatch_LeftOverDigestsGoToStdlib(t *testing.T) {
	key, private := p256TestKey(t, digestsFrom("key", 1))
	digests := digestsFrom("digest", 9)
	for mask := range 1 << 9 {
		s := key.newScratch()
		out := make([]byte, 2*len(digests))
		bad := func(i int) bool { return mask>>i&1 == 1 }
		if err := key.signSharedWith(s, out, digests, bad); err != nil {
			t.Fatal(err)
		}
		for i := range 9 {
			if want := stdlibSignature(t, private, digests[32*i:32*i+32]); !bytes.Equal(out[64*i:64*i+64], want) {
				t.Fatalf("mask %b: signature %d differs from crypto/ecdsa's", mask, i)
			}
		}
	}
}

func TestSignBatch_PartialDigestIsAnError(t *testing.T) {
	key, _ := p256TestKey(t, digestsFrom("key", 1))
	got, err := key.SignBatch([]byte("x"), make([]byte, 33))
	if err == nil || string(got) != "x" {
		t.Fatalf("SignBatch of 33 bytes = %q, %v; want the input and an error", got, err)
	}
}

func TestSignBatch_ConcurrentUse(t *testing.T) {
	key, private := p256TestKey(t, digestsFrom("key", 1))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() { wantEqualToStdlib(t, key, private, digestsFrom(fmt.Sprint(g), 40)) })
	}
	wg.Wait()
}

func TestSignBatch_WipesScratch(t *testing.T) {
	key, _ := p256TestKey(t, digestsFrom("key", 1))
	s := key.newScratch()
	if err := key.signSharedWith(s, make([]byte, 64*20), digestsFrom("digest", 20), noneLeft); err != nil {
		t.Fatal(err)
	}
	if s.nonce[19].IsZero() == 1 || s.drbg.k == [32]byte{} {
		t.Fatal("the scratch holds no nonce before it is wiped: the test tests nothing")
	}
	s.wipe()
	for i := range s.nonce {
		if s.nonce[i].IsZero() == 0 || s.prefix[i].IsZero() == 0 {
			t.Fatalf("nonce or product %d is left", i)
		}
	}
	for _, x := range []*bigmod.Nat{&s.e, &s.r, &s.s, &s.acc} {
		if x.IsZero() == 0 {
			t.Fatal("an intermediate number is left")
		}
	}
	if s.drbg != (nonceState{}) || s.kwire != [32]byte{} {
		t.Fatal("the nonce generator's state is left")
	}
}

func TestSignBatch_DoesNotAllocatePerSignature(t *testing.T) {
	key, _ := p256TestKey(t, digestsFrom("key", 1))
	digests := digestsFrom("digest", 256)
	dst := make([]byte, 0, 2*len(digests))
	n := testing.AllocsPerRun(5, func() {
		if _, err := key.SignBatch(dst, digests); err != nil {
			t.Fatal(err)
		}
	})
	// What is left is the scratch, should the collector have emptied the
	// pool, and a table for the exponentiation.
	if n > 64 {
		t.Fatalf("%v allocations for 256 signatures", n)
	}
}

// RFC 6979, A.2.5: P-256, SHA-256.
func TestRFC6979_A_2_5_P256(t *testing.T) {
	scalar := unhex(t, "C9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721")
	key, _ := p256TestKey(t, scalar)
	rows := []struct{ message, k, r, s string }{
		{
			"sample", "A6E3C57DD01ABE90086538398355DD4C3B17AA873382B0F24D6129493D8AAD60",
			"EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716",
			"F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8",
		},
		{
			"test", "D16B6AE827F17175E040871A1C7EC3500192C4C92677336EC2537ACAEE0008E0",
			"F1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367",
			"019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083",
		},
	}
	var digests, want []byte
	for _, row := range append(rows, rows...) {
		sum := sha256.Sum256([]byte(row.message))
		digests = append(digests, sum[:]...)
		want = append(append(want, unhex(t, row.r)...), unhex(t, row.s)...)

		var s nonceState
		var k [32]byte
		s.nonce(&k, &key.scalar, &sum)
		if !bytes.Equal(k[:], unhex(t, row.k)) {
			t.Errorf("%s: nonce %x, the RFC says %s", row.message, k, row.k)
		}
	}
	got, err := key.SignBatch(nil, digests)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("signatures %x, the RFC says %x", got, want)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzSignBatch(f *testing.F) {
	f.Add([]byte("key"), []byte("digest"), byte(5))
	f.Add(bytes.Repeat([]byte{0xff}, 32), bytes.Repeat([]byte{0xff}, 200), byte(3))
	f.Add([]byte{1}, []byte{}, byte(255))
	f.Fuzz(func(t *testing.T, seed, raw []byte, count byte) {
		scalar := sha256.Sum256(seed)
		if len(seed) == 32 {
			copy(scalar[:], seed)
		}
		private, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
		if err != nil {
			return // zero, or not below the order
		}
		key, err := newP256(private)
		if err != nil {
			t.Fatal(err)
		}
		// The raw bytes come first, so that the fuzzer reaches any digest.
		digests := append(bytes.Clone(raw[:len(raw)/32*32]), digestsFrom(string(raw), int(count%16))...)
		if len(digests) > 32*300 {
			digests = digests[:32*300]
		}
		wantEqualToStdlib(t, key, private, digests)
	})
}

func benchKey(b *testing.B) *ecdsa.PrivateKey {
	b.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return private
}

// cpuTime is the processor time that this process has used: on a shared machine
// it says more than the clock.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func reportCPU(b *testing.B, start time.Duration, perOp int) {
	b.Helper()
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N)/float64(perOp), "cpu-ns/signature")
}

func BenchmarkSignBatch(b *testing.B) {
	for _, count := range []int{1, 2, 3, 4, 8, 64, 256} {
		b.Run(fmt.Sprint(count), func(b *testing.B) {
			key, err := newP256(benchKey(b))
			if err != nil {
				b.Fatal(err)
			}
			digests := digestsFrom("bench", count)
			dst := make([]byte, 0, 64*count)
			b.ReportAllocs()
			start := cpuTime(b)
			for b.Loop() {
				binary.BigEndian.PutUint64(digests, binary.BigEndian.Uint64(digests)+1)
				if _, err := key.SignBatch(dst, digests); err != nil {
					b.Fatal(err)
				}
			}
			reportCPU(b, start, count)
		})
	}
}

func BenchmarkStdlib(b *testing.B) {
	private := benchKey(b)
	digests := digestsFrom("bench", 1)
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		binary.BigEndian.PutUint64(digests, binary.BigEndian.Uint64(digests)+1)
		if _, err := private.Sign(nil, digests, crypto.SHA256); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, start, 1)
}
