package zone

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestChunk_RoundTrip(t *testing.T) {
	var b ChunkBuilder
	var chunks [][]byte
	const n = 40_000
	for i := range n {
		key := AppendKey(nil, KindContents, Name(fmt.Sprintf("\x07n%06d\x03tld\x00", i)), TypeNS)
		value := AppendValue(nil, Root, 3600, []byte("\x03ns1\x00"), []byte("\x03ns2\x00"))
		if i%100 == 0 {
			value = nil
		}
		for {
			full, err := b.Add(key, value)
			if err != nil {
				t.Fatal(err)
			}
			if !full {
				break
			}
			chunks = append(chunks, bytes.Clone(b.Bytes()))
			b.Reset()
		}
	}
	chunks = append(chunks, bytes.Clone(b.Bytes()))
	if len(chunks) < 2 {
		t.Fatalf("%d chunks", len(chunks))
	}
	i := 0
	for _, raw := range chunks {
		if len(raw) > MaxChunk {
			t.Fatalf("chunk of %d bytes", len(raw))
		}
		r := NewChunkReader(raw)
		for ; r.Next(); i++ {
			want := AppendKey(nil, KindContents, Name(fmt.Sprintf("\x07n%06d\x03tld\x00", i)), TypeNS)
			if !bytes.Equal(r.Key(), want) || (len(r.Value()) == 0) != (i%100 == 0) {
				t.Fatalf("item %d has key %q", i, r.Key())
			}
		}
		if r.Err() != nil {
			t.Fatal(r.Err())
		}
	}
	if i != n {
		t.Errorf("%d items came back", i)
	}
}

func TestChunk_AnyItemsComeBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		kind := rapid.SampledFrom([]Kind{KindContents, KindMade, KindSigs, KindChain, KindChainSigs}).Draw(t, "kind")
		items := map[string]Value{}
		for range rapid.IntRange(1, 20).Draw(t, "items") {
			n := drawName(t)
			var v Value
			if rapid.Bool().Draw(t, "put") {
				v = AppendValue(nil, n, rapid.Uint32().Draw(t, "ttl"), rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "rdata"))
			}
			items[string(AppendKey(nil, kind, n, Type(rapid.Uint16().Draw(t, "type"))))] = v
		}
		var b ChunkBuilder
		keys := slices.Sorted(maps.Keys(items))
		for _, key := range keys {
			if full, err := b.Add([]byte(key), items[key]); full || err != nil {
				t.Fatal(full, err)
			}
		}
		r := NewChunkReader(b.Bytes())
		for _, key := range keys {
			if !r.Next() || string(r.Key()) != key || !bytes.Equal(r.Value(), items[key]) {
				t.Fatalf("key %x comes back as %x: %v", key, r.Key(), r.Err())
			}
		}
		if r.Next() || r.Err() != nil || b.Items() != uint64(len(keys)) {
			t.Fatal("more items came back", r.Err())
		}
	})
}

func TestChunkBuilder_RefusesWhatReadersWould(t *testing.T) {
	var b ChunkBuilder
	ns := AppendKey(nil, KindContents, "\x01b\x00", TypeNS)
	a := AppendKey(nil, KindContents, "\x01a\x00", TypeNS)
	value := AppendValue(nil, Root, 1, []byte{0})
	if full, err := b.Add(ns, value); full || err != nil {
		t.Fatal(full, err)
	}
	if _, err := b.Add(a, value); err == nil {
		t.Error("keys out of order are not refused")
	}
	if _, err := b.Add(ns, value); err == nil {
		t.Error("a key twice is not refused")
	}
	if full, err := b.Add(AppendKey(nil, KindSigs, "\x01c\x00", TypeNS), value); !full || err != nil {
		t.Error("a second kind does not end the chunk")
	}
	if _, err := b.Add(AppendKey(nil, KindContents, "\x01c\x00", TypeNS), make([]byte, MaxValue+1)); err == nil {
		t.Error("an oversized value is not refused")
	}
	b.Reset()
	if b.Bytes() != nil || b.Items() != 0 {
		t.Error("Reset leaves items")
	}
	state := new(SetHash).AppendState(nil)
	if full, err := b.Add([]byte{byte(KindDigest)}, state); full || err != nil {
		t.Fatal(full, err)
	}
	r := NewChunkReader(b.Bytes())
	if !r.Next() || !bytes.Equal(r.Value(), state) || r.Next() || r.Err() != nil {
		t.Errorf("the digest's item does not come back: %v", r.Err())
	}
}

func TestChunkReader_RefusesDamage(t *testing.T) {
	good := func(items ...Item) []byte {
		raw := []byte{chunkVersion}
		for _, it := range items {
			raw = appendEntry(raw, 0, it.Key, it.Value)
		}
		return raw
	}
	value := AppendValue(nil, Root, 1, []byte{0})
	key := AppendKey(nil, KindContents, "\x01a\x00", TypeNS)
	if r := NewChunkReader(good(Item{key, value})); !r.Next() || r.Next() || r.Err() != nil {
		t.Fatalf("a good chunk is refused: %v", r.Err())
	}
	for name, raw := range map[string][]byte{
		"empty":               nil,
		"newer version":       {2, 0},
		"too long":            make([]byte, MaxChunk+1),
		"truncated":           good(Item{key, value})[:12],
		"varint without end":  {1, 0x80, 0x80},
		"huge length":         {1, 0, 5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1},
		"key without suffix":  {1, 0, 0, 0},
		"unknown kind":        good(Item{append([]byte{1}, key[1:]...), value}),
		"same key twice":      good(Item{key, value}, Item{key, value}),
		"upper case in key":   good(Item{[]byte("\x10A\x00\x00\x00\x02"), value}),
		"empty label in key":  good(Item{[]byte("\x10\x00\x00\x00\x02"), value}),
		"bad escape in key":   good(Item{[]byte("\x10\x01\x03\x00\x00\x00\x02"), value}),
		"bad value":           good(Item{key, value[:7]}),
		"value without RDATA": good(Item{key, value[:5]}),
		"short digest":        good(Item{[]byte{byte(KindDigest)}, value}),
		"digest with owner":   good(Item{append([]byte{byte(KindDigest)}, key[1:]...), value}),
	} {
		r := NewChunkReader(raw)
		for r.Next() {
		}
		if r.Err() == nil {
			t.Errorf("%s: not refused", name)
		}
	}
}

// drawName draws a name, often with odd bytes in its labels.
func drawName(t *rapid.T) Name {
	var n []byte
	for range rapid.IntRange(0, 5).Draw(t, "labels") {
		label := rapid.SliceOfN(rapid.SampledFrom([]byte("abAB\x00\x01\x02\xff.-*@9z")), 1, 20).Draw(t, "label")
		n = append(append(n, byte(len(label))), label...)
	}
	return Name(append(n, 0))
}

func FuzzChunk(f *testing.F) {
	var b ChunkBuilder
	for _, n := range []Name{Root, "\x02\x00\x01\x00", "\x01a\x00", "\x01b\x01a\x00"} {
		if _, err := b.Add(AppendKey(nil, KindSigs, n, TypeA), AppendValue(nil, n, 1, []byte{1}, []byte{2})); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(bytes.Clone(b.Bytes()))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := NewChunkReader(raw)
		var b ChunkBuilder
		var h Hasher
		for r.Next() {
			if full, err := b.Add(r.Key(), r.Value()); full || err != nil {
				t.Fatalf("the builder refuses what the reader took: %v, %v", full, err)
			}
			if len(r.Value()) == 0 || Kind(r.Key()[0]) == KindDigest {
				continue
			}
			if _, err := RRsetOf(r.Key(), r.Value()); err != nil {
				t.Fatal(err)
			}
			if err := h.AddItem(r.Key(), r.Value()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
