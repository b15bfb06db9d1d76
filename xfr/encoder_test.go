package xfr

import (
	"fmt"
	"testing"

	"sluice/signer/zone"
)

// TestEncoder_EveryNameArrivesAsItIs sends names that share labels in all
// ways, some with a case, bytes that keys escape, and beyond the reach of
// pointers, and decodes them.
func TestEncoder_EveryNameArrivesAsItIs(t *testing.T) {
	for _, apex := range []zone.Name{"\x03tld\x00", "\x03TlD\x00", "\x02co\x03tld\x00", zone.Root} {
		label := func(text string) zone.Name { return zone.Name(string(rune(len(text))) + text) }
		owners := []zone.Name{
			label("a") + apex, label("B") + apex, label("\x00") + apex, label("\x01x") + apex,
			label("x") + label("a") + apex, label("ns1") + label("a") + apex,
		}
		for i := range 700 {
			owners = append(owners, label(fmt.Sprintf("host%d", i))+apex)
		}
		var items []item
		var want []string
		for i, owner := range owners {
			targets := []zone.Name{
				label("ns1") + label(fmt.Sprintf("p%d", i/3)) + label("example") + zone.Root,
				label("ns2") + label(fmt.Sprintf("p%d", i/3)) + label("example") + zone.Root,
				label("ns2") + label(fmt.Sprintf("P%d", i/3)) + label("example") + zone.Root,
				label("ns1") + owner, owner, apex, label("com") + zone.Root, label("net") + zone.Root, zone.Root,
			}
			for _, target := range targets {
				value := zone.AppendValue(nil, owner, 60, []byte(target))
				items = append(items, item{zone.AppendKey(nil, zone.KindContents, owner, zone.TypeNS), value})
				want = append(want, fmt.Sprintf("%q NS %q", owner, target))
			}
		}
		got := encodeNS(t, apex, items)
		for i := range want {
			if i >= len(got) || got[i] != want[i] {
				t.Fatalf("apex %q: record %d of %d is %s, want %s", apex, i, len(want), got[min(i, len(got)-1)], want[i])
			}
		}
	}
}

// encodeNS encodes NS records and decodes what was sent.
func encodeNS(t *testing.T, apex zone.Name, items []item) []string {
	t.Helper()
	req := request{name: apex, qtype: typeAXFR, qclass: classIN}
	sink := &keepingSink{}
	e := new(encoder)
	e.begin(&req, make([]byte, 0, blockSize), sink, true, maxMessage)
	e.apex = []byte(apex)
	e.open()
	for _, it := range items {
		if err := e.item(it.key, it.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.end(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for rest := sink.sent; len(rest) > 0; {
		n := 2 + int(rest[0])<<8 + int(rest[1])
		msg := rest[2:n]
		rest = rest[n:]
		at := headerLen
		if msg[5] == 1 {
			_, at = nameAt(t, msg, at)
			at += 4
		}
		for range int(msg[6])<<8 + int(msg[7]) {
			var owner, target string
			owner, at = nameAt(t, msg, at)
			target, _ = nameAt(t, msg, at+10)
			at += 10 + int(msg[at+8])<<8 + int(msg[at+9])
			got = append(got, fmt.Sprintf("%q NS %q", zone.Name(owner), zone.Name(target)))
		}
	}
	return got
}

// nameAt reads a name, and returns where it ends in the message.
func nameAt(t *testing.T, msg []byte, at int) (string, int) {
	t.Helper()
	var name []byte
	end := 0
	for range 200 {
		n := int(msg[at])
		switch {
		case n == 0:
			if end == 0 {
				end = at + 1
			}
			return string(append(name, 0)), end
		case n >= 0xc0:
			if end == 0 {
				end = at + 2
			}
			at = n&0x3f<<8 | int(msg[at+1])
		default:
			name = append(name, msg[at:at+1+n]...)
			at += 1 + n
		}
	}
	t.Fatal("pointers go round in a circle")
	return "", 0
}

type keepingSink struct{ sent []byte }

func (k *keepingSink) emit(block []byte) ([]byte, error) {
	k.sent = append(k.sent, block...)
	return block[:0], nil
}
