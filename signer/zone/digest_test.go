package zone

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/miekg/dns"
)

// itemOf makes an item of the records in text, which form one RRset.
func itemOf(t testing.TB, kind Kind, text ...string) Item {
	t.Helper()
	var set RRset
	for _, line := range text {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		wire := make([]byte, 1<<16)
		n, err := dns.PackRR(rr, wire, 0, nil, false)
		if err != nil {
			t.Fatal(err)
		}
		set.Owner, err = ParseName(rr.Header().Name)
		if err != nil {
			t.Fatal(err)
		}
		set.Type, set.TTL = Type(rr.Header().Rrtype), rr.Header().Ttl
		if sig, ok := rr.(*dns.RRSIG); ok && (kind == KindSigs || kind == KindChainSigs) {
			set.Type = Type(sig.TypeCovered)
		}
		set.Data = append(set.Data, wire[len(set.Owner)+10:n:n])
	}
	return Item{AppendKey(nil, kind, set.Owner, set.Type), set.Value()}
}

// slowLanes computes an item's lanes from the definition.
func slowLanes(t *testing.T, kind byte, item []byte) (lanes [1024]uint16) {
	t.Helper()
	key := sha256.Sum256(append([]byte{kind}, item...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, 2048)
	cipher.NewCTR(block, make([]byte, 16)).XORKeyStream(out, out)
	for i := range lanes {
		lanes[i] = binary.LittleEndian.Uint16(out[2*i:])
	}
	return lanes
}

func wireOf(t *testing.T, text string) []byte {
	t.Helper()
	rr, err := dns.NewRR(text)
	if err != nil {
		t.Fatal(err)
	}
	wire := make([]byte, 1<<16)
	n, err := dns.PackRR(rr, wire, 0, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	return wire[:n]
}

func TestSetHash_LanesAreThoseOfTheDefinition(t *testing.T) {
	ns := itemOf(t, KindContents, "Example.NET. 60 IN NS b.Example.", "Example.NET. 60 IN NS a.example.")
	sig := itemOf(t, KindSigs, "example.net. 60 IN RRSIG NS 13 2 60 20260101000000 20250101000000 7 example.net. AAAA")
	var h Hasher
	for _, it := range []Item{ns, sig} {
		if err := h.AddItem(it.Key, it.Value); err != nil {
			t.Fatal(err)
		}
	}
	a := slowLanes(t, 1, append(wireOf(t, "Example.NET. 60 IN NS a.example."), wireOf(t, "Example.NET. 60 IN NS b.Example.")...))
	b := slowLanes(t, 2, wireOf(t, "example.net. 60 IN RRSIG NS 13 2 60 20260101000000 20250101000000 7 example.net. AAAA"))
	want := make([]byte, 0, StateSize)
	for i := range a {
		want = binary.LittleEndian.AppendUint16(want, a[i]+b[i])
	}
	if got := h.Set.AppendState(nil); string(got) != string(want) {
		t.Fatal("state differs from the definition")
	}
	if h.Set.Sum() != sha256.Sum256(want) {
		t.Error("Sum is not the hash of the state")
	}
}

func TestSetHash_RemovalUndoesAddition(t *testing.T) {
	var h Hasher
	var all, half SetHash
	for i := range 200 {
		item := binary.BigEndian.AppendUint32(nil, uint32(i))
		h.Add(HashRRset, item)
		all.Add(HashRRset, item)
		if i%2 == 0 {
			half.Add(HashRRset, item)
		}
	}
	if h.Set != all {
		t.Fatal("Hasher and SetHash differ")
	}
	rest := all
	rest.SubSet(&half)
	for i := 1; i < 200; i += 2 {
		rest.Remove(HashRRset, binary.BigEndian.AppendUint32(nil, uint32(i)))
	}
	if rest != (SetHash{}) {
		t.Error("something is left after everything was removed")
	}
	rest.AddSet(&all)
	var loaded SetHash
	if err := loaded.LoadState(rest.AppendState(nil)); err != nil || loaded != all {
		t.Errorf("LoadState: %v", err)
	}
	if err := loaded.LoadState(make([]byte, 7)); err == nil {
		t.Error("a short state is not refused")
	}
}

func TestSetHash_ContentFormIgnoresTheSerial(t *testing.T) {
	a := itemOf(t, KindContents, "example. 60 IN SOA a. b. 1 2 3 4 5")
	b := itemOf(t, KindContents, "example. 60 IN SOA a. b. 9 2 3 4 5")
	c := itemOf(t, KindContents, "example. 60 IN SOA a. b. 1 2 3 4 6")
	sum := func(it Item) [32]byte {
		var s SetHash
		if err := s.AddContent(it.Key, it.Value); err != nil {
			t.Fatal(err)
		}
		return s.Sum()
	}
	if sum(a) != sum(b) {
		t.Error("two serials give two content digests")
	}
	if sum(a) == sum(c) {
		t.Error("another minimum gives the same content digest")
	}
	var s SetHash
	if err := s.AddItem([]byte("x"), a.Value); err == nil {
		t.Error("a malformed key is not refused")
	}
	if err := s.AddItem(a.Key, nil); err == nil {
		t.Error("a deletion is not refused")
	}
}

func BenchmarkHasher(b *testing.B) {
	it := itemOf(b, KindContents, "domain000001.example. 3600 IN NS ns1.provider.example.", "domain000001.example. 3600 IN NS ns2.provider.example.")
	var h Hasher
	b.ReportAllocs()
	for b.Loop() {
		if err := h.AddItem(it.Key, it.Value); err != nil {
			b.Fatal(err)
		}
	}
}
