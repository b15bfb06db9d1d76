package journaltest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"testing"

	"sluice/journal"
	"sluice/journal/event"
)

// content is the raw bytes of the i-th test chunk; it hardly compresses.
func content(i, size int) []byte {
	var seed [8]byte
	binary.BigEndian.PutUint64(seed[:], uint64(i))
	raw := make([]byte, 0, size+sha256.Size)
	for block := sha256.Sum256(seed[:]); len(raw) < size; block = sha256.Sum256(block[:]) {
		raw = append(raw, block[:]...)
	}
	return raw[:size]
}

func putAll(t *testing.T, j journal.Journal, command string, raws ...[]byte) event.Manifest {
	t.Helper()
	w := j.NewChunks(zoneA, command)
	for _, raw := range raws {
		buf := bytes.Clone(raw)
		if err := w.Put(t.Context(), journal.RawChunk{Raw: buf, Items: uint64(len(raw))}); err != nil {
			t.Fatalf("put: %v", err)
		}
		clear(buf) // the writer keeps no reference
	}
	m, err := w.Finish(t.Context())
	if err != nil {
		t.Fatalf("finish: %v", err)
	}
	return m
}

// wantChunks reads a manifest and compares.
func wantChunks(t *testing.T, j journal.Journal, m event.Manifest, raws [][]byte) {
	t.Helper()
	i := 0
	err := journal.Chunks(t.Context(), j, m, func(raw []byte) error {
		if i >= len(raws) || !bytes.Equal(raw, raws[i]) {
			t.Errorf("chunk %d differs", i)
		}
		i++
		return nil
	})
	if err != nil || i != len(raws) {
		t.Errorf("read %d chunks, want %d: %v", i, len(raws), err)
	}
}

func chunksComeBack(t *testing.T, j journal.Journal) {
	var raws [][]byte
	for i := range 40 {
		raws = append(raws, content(i, 1+i*3000))
	}
	raws = append(raws, content(99, journal.MaxRawChunk), make([]byte, journal.MaxRawChunk), nil)
	m := putAll(t, j, "command", raws...)
	if m.Subject != "bulk.00000000000000aa.command" || m.Count != uint64(len(raws)) || len(m.Indirect) != 0 {
		t.Errorf("manifest %s, %d chunks, %d indirect", m.Subject, m.Count, len(m.Indirect))
	}
	for i, c := range m.Chunks {
		if c.SHA256 != sha256.Sum256(raws[i]) || c.Bytes != uint64(len(raws[i])) || c.Items != c.Bytes || c.Seq == 0 {
			t.Errorf("chunk %d is %+v", i, c)
		}
	}
	wantChunks(t, j, m, raws)
	wantChunks(t, j, putAll(t, j, "empty"), nil)
	stop := errors.New("stop")
	if err := journal.Chunks(t.Context(), j, m, func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error of fn: %v", err)
	}
}

func chunkWithoutHint(t *testing.T, j journal.Journal) {
	raws := [][]byte{content(1, 100), content(2, 200)}
	m := putAll(t, j, "x", raws...)
	m.Chunks[0].Seq, m.Chunks[1].Seq = m.Chunks[1].Seq, 12345
	wantChunks(t, j, m, raws)
}

func chunkOtherBytes(t *testing.T, j journal.Journal) {
	m := putAll(t, j, "x", content(1, 100))
	c := m.Chunks[0]
	other, short, long := c, c, c
	other.SHA256[0] ^= 1
	short.Bytes, long.Bytes = 99, journal.MaxRawChunk+1
	for name, c := range map[string]event.Chunk{"hash": other, "short": short, "long": long} {
		if _, err := j.Chunk(t.Context(), m.Subject, c); !errors.Is(err, journal.ErrNoChunk) {
			t.Errorf("%s: %v, want ErrNoChunk", name, err)
		}
	}
	if _, err := j.Chunk(t.Context(), "bulk.00000000000000aa.y", c); !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("other subject: %v, want ErrNoChunk", err)
	}
	m.Count++
	err := journal.Chunks(t.Context(), j, m, func([]byte) error { return nil })
	if !errors.Is(err, journal.ErrNoChunk) {
		t.Errorf("manifest with a wrong count: %v, want ErrNoChunk", err)
	}
}

func indirectManifest(t *testing.T, j journal.Journal) {
	var raws [][]byte
	for i := range event.MaxDirect + 1 {
		raws = append(raws, content(i, 40))
	}
	direct := putAll(t, j, "direct", raws[1:]...)
	if len(direct.Chunks) != event.MaxDirect || direct.Indirect != nil {
		t.Errorf("1,000 chunks: %d direct, %d indirect", len(direct.Chunks), len(direct.Indirect))
	}
	m := putAll(t, j, "indirect", raws...)
	if len(m.Chunks) != 0 || len(m.Indirect) != 1 || m.Count != uint64(len(raws)) {
		t.Fatalf("1,001 chunks: %d direct, %d indirect, count %d", len(m.Chunks), len(m.Indirect), m.Count)
	}
	wantChunks(t, j, m, raws)
}

func badChunksRefused(t *testing.T, j journal.Journal) {
	w := j.NewChunks(zoneA, "x")
	if err := w.Put(t.Context(), journal.RawChunk{Raw: make([]byte, journal.MaxRawChunk+1)}); err == nil {
		t.Error("a chunk above MaxRawChunk was taken")
	}
	for _, command := range []string{"", "a.b", "*", "a b"} {
		w := j.NewChunks(zoneA, command)
		if err := w.Put(t.Context(), journal.RawChunk{Raw: []byte("x")}); err == nil {
			t.Errorf("command %q was taken", command)
		}
		if _, err := w.Finish(t.Context()); err == nil {
			t.Errorf("command %q: finish passed", command)
		}
	}
}

func statusCounts(t *testing.T, j journal.Journal) {
	mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1), changed(zoneA, 2))
	putAll(t, j, "x", content(1, 100))
	st, err := j.Status(t.Context())
	if err != nil {
		t.Fatalf("status: %v", err)
	}
	id, _, err := j.Stream(t.Context())
	if err != nil || st.Identity != id {
		t.Errorf("identity %q, stream says %q, %v", st.Identity, id, err)
	}
	if st.Events.Messages != 2 || st.Events.FirstSeq != 1 || st.Events.LastSeq != 2 || st.Events.Bytes == 0 {
		t.Errorf("events: %+v", st.Events)
	}
	if st.Bulk.Messages != 1 || st.Bulk.Bytes == 0 || st.Bulk.LastSeq != 1 || st.Bulk.MaxBytes != -1 {
		t.Errorf("bulk: %+v", st.Bulk)
	}
}

func verifyPasses(t *testing.T, j journal.Journal) {
	m := putAll(t, j, "x", content(1, 100), content(2, 300))
	h := mustAppend(t, j, zoneA, journal.Head{}, changed(zoneA, 1), changed(zoneA, 2))
	mustAppend(t, j, zoneB, journal.Head{}, changed(zoneB, 1))
	mustAppend(t, j, zoneA, h, event.New(at(3), zoneA, event.Program, &event.InstanceLoaded{Source: "file", Manifest: m}))
	r, err := journal.Verify(t.Context(), j, journal.VerifyOptions{Chunks: true})
	if err != nil || len(r.Faults) != 0 || r.FaultCount != 0 {
		t.Fatalf("verify: %+v, %v", r, err)
	}
	if r.Events != 4 || r.Chains != 2 || r.Manifests != 1 || r.Chunks != 2 || r.ChunkBytes != 400 || r.LastSeq != 4 {
		t.Errorf("verify counted %+v", r)
	}
}
