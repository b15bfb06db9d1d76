package kmip

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"sluice/keymgr"
)

// TestKMIP1_4_9_1_2_Examples are the encodings of the specification's examples.
func TestKMIP1_4_9_1_2_Examples(t *testing.T) {
	for want, write := range map[string]func(*encoder){
		"42002002000000040000000800000000":                 func(e *encoder) { e.integer(0x420020, 8) },
		"4200200500000004000000FF00000000":                 func(e *encoder) { e.enumeration(0x420020, 255) },
		"42002006000000080000000000000001":                 func(e *encoder) { e.boolean(0x420020, true) },
		"420020070000000B48656C6C6F20576F726C640000000000": func(e *encoder) { e.text(0x420020, "Hello World") },
		"42002008000000030102030000000000":                 func(e *encoder) { e.bytes(0x420020, []byte{1, 2, 3}) },
		"42002001000000204200040500000004000000FE000000004200050200000004000000FF00000000": func(e *encoder) {
			e.structure(0x420020, func() { e.enumeration(0x420004, 254); e.integer(0x420005, 255) })
		},
	} {
		e := &encoder{}
		write(e)
		if got := strings.ToUpper(hex.EncodeToString(e.b)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if _, err := decode(e.b); err != nil {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestDecode_RefusesWhatIsMalformed(t *testing.T) {
	deep := &encoder{}
	var nest func(n int)
	nest = func(n int) {
		if n > 0 {
			deep.structure(tagAttribute, func() { nest(n - 1) })
		}
	}
	nest(maxDepth + 3)
	for name, text := range map[string]string{
		"nothing":             "",
		"half a header":       "42002002",
		"no value":            "4200200200000004",
		"too long":            "42002002000000FF0000000800000000",
		"huge":                "42002001FFFFFFFF",
		"a short integer":     "42002002000000020000000000000000",
		"a short boolean":     "42002006000000040000000100000000",
		"an unknown type":     "4200200C000000040000000800000000",
		"a big integer of 4":  "42002004000000040000000800000000",
		"two items":           "4200200200000004000000080000000042002002000000040000000800000000",
		"bad within":          "420020010000001042000405000000080000000000000000",
		"structures too deep": hex.EncodeToString(deep.b),
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(b); !errors.Is(err, errEncoding) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// encode writes an item as it was read.
func (e *encoder) item(it item) {
	if it.kind != typeStructure {
		e.raw(it.tag, it.kind, it.value)
		return
	}
	e.structure(it.tag, func() {
		for sub := range it.items() {
			e.item(sub)
		}
	})
}

func FuzzDecode(f *testing.F) {
	ops := []operation{discover(versions()), (parameters{"RSA", 4, 6, 5, 8}).sign(identifier{typeText, "1"}, wayMessage, []byte("x"))}
	request := encodeRequest(version{1, 4}, keymgr.ServerLogin{Username: "u", Password: "p"}, ops)
	f.Add(request)
	f.Add(whole(version{2, 1}, failure{3, "no"}))
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, n := range []int{1, 2} {
			out, err := decodeResponse(message, ops[:n])
			if err != nil {
				continue
			}
			for _, it := range out {
				_, _ = readPublic(it, template{})
				_, _ = identifierOf(it.find(tagUniqueIdentifier))
			}
		}
		it, err := decode(message)
		if err != nil {
			return
		}
		e := &encoder{}
		e.item(it)
		again, err := decode(e.b)
		if err != nil || len(e.b) != len(message) {
			t.Fatalf("%d bytes become %d: %v", len(message), len(e.b), err)
		}
		twice := &encoder{}
		twice.item(again)
		if !bytes.Equal(e.b, twice.b) {
			t.Fatal("encoding twice differs")
		}
	})
}

func FuzzReadPublic(f *testing.F) {
	for _, format := range []uint32{formatRaw, formatPKCS1, formatX509, formatRSA, formatEC} {
		e := &encoder{}
		e.structure(tagResponsePayload, func() {
			e.structure(tagPublicKey, func() {
				e.structure(tagKeyBlock, func() {
					e.enumeration(tagKeyFormatType, format)
					e.structure(tagKeyValue, func() { e.bytes(tagKeyMaterial, make([]byte, 64)) })
				})
			})
		})
		f.Add(e.b)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		it, err := decode(payload)
		if err != nil {
			return
		}
		key, err := readPublic(it, template{curve: curveP256})
		if err == nil {
			if _, err := fingerprint(key); err != nil {
				t.Fatal(err)
			}
		}
	})
}
