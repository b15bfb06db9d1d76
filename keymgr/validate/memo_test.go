package validate

import (
	"encoding/binary"
	"testing"
)

func TestMemo_WhatIsRememberedIsBounded(t *testing.T) {
	var m Memo
	for i := range 5 * memoSize {
		var id [32]byte
		binary.BigEndian.PutUint64(id[:], uint64(i))
		m.add(id)
		if !m.has(id) {
			t.Fatalf("signature %d is forgotten at once", i)
		}
	}
	if n := m.Len(); n > 2*memoSize {
		t.Errorf("%d signatures are remembered", n)
	}
}
