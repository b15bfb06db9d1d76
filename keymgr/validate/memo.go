package validate

import (
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"sluice/keymgr"
)

// memoSize is how many signatures a Memo remembers, and as many again that came
// before: some 5 MB.
const memoSize = 1 << 15

// Memo remembers signatures that verified, whatever the time: all servers of a
// zone show the same ones, again and again.
type Memo struct {
	mu         sync.Mutex
	young, old map[[32]byte]struct{} // guarded by mu
}

// has reports whether a signature verified before.
func (m *Memo) has(id [32]byte) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.young[id]; ok {
		return true
	}
	_, ok := m.old[id]
	return ok
}

func (m *Memo) add(id [32]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.young) >= memoSize {
		m.old, m.young = m.young, nil
	}
	if m.young == nil {
		m.young = map[[32]byte]struct{}{}
	}
	m.young[id] = struct{}{}
}

// Len is how many signatures it remembers.
func (m *Memo) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.young) + len(m.old)
}

// Remembering has keys remember what verified with them.
func (m *Memo) Remembering(keys []Key) []Key {
	for i := range keys {
		keys[i].memo = m
	}
	return keys
}

// Verify checks a signature over a message.
func (k Key) Verify(message, signature []byte) error {
	if k.memo == nil {
		return keymgr.Verify(k.RData, message, signature)
	}
	h := sha256.New()
	var length [8]byte
	for _, part := range [][]byte{k.RData, message, signature} {
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		h.Write(length[:])
		h.Write(part)
	}
	id := [32]byte(h.Sum(nil))
	if k.memo.has(id) {
		return nil
	}
	err := keymgr.Verify(k.RData, message, signature)
	if err == nil {
		k.memo.add(id)
	}
	return err
}
