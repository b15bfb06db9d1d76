package journal

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"sluice/journal/event"
)

const (
	// compressors bounds how many raw chunks are held and compressed at once.
	compressors = 2
	// window bounds the messages of one writer in flight: at most 16 MiB.
	window = 16
	// sendTries is how often a chunk is sent before its writer gives up.
	sendTries = 3
	busyWait  = 50 * time.Millisecond
)

// ChunkSubject is where the chunks of a command stand: the command is a token
// of letters, digits, "-" and "_".
func ChunkSubject(zone event.ZoneID, command string) (string, error) {
	if !zone.Valid() {
		return "", fmt.Errorf("chunks of zone %q: bad zone id", zone)
	}
	if len(command) == 0 || len(command) > 64 {
		return "", fmt.Errorf("chunks of zone %q: bad command %q", zone, command)
	}
	for i := range len(command) {
		switch c := command[i]; {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c == '-', c == '_':
		default:
			return "", fmt.Errorf("chunks of zone %q: bad command %q", zone, command)
		}
	}
	return "bulk." + string(zone) + "." + command, nil
}

// buffers keeps a few buffers for chunks, so that a stream of them does not
// allocate.
type buffers chan []byte

func (b buffers) get() []byte {
	select {
	case buf := <-b:
		return buf[:0]
	default:
		return nil
	}
}

func (b buffers) put(buf []byte) {
	select {
	case b <- buf:
	default:
	}
}

// NewChunks implements Journal.
func (j *NATS) NewChunks(zone event.ZoneID, command string) ChunkWriter {
	w := &chunkWriter{j: j, inFlight: make(chan struct{}, window)}
	w.subject, w.err = ChunkSubject(zone, command)
	return w
}

type chunkWriter struct {
	j        *NATS
	subject  string
	inFlight chan struct{}
	sending  sync.WaitGroup

	mu     sync.Mutex
	chunks []event.Chunk // guarded by mu: senders fill in Seq and SHA256
	err    error         // guarded by mu: the first failure
}

// Put implements ChunkWriter.
func (w *chunkWriter) Put(ctx context.Context, c RawChunk) error {
	if len(c.Raw) > MaxRawChunk {
		return fmt.Errorf("chunk of %d bytes: more than %d", len(c.Raw), MaxRawChunk)
	}
	if err := w.failed(); err != nil {
		return err
	}
	for _, slots := range []chan struct{}{w.inFlight, w.j.compressing} {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			if slots == w.j.compressing {
				<-w.inFlight
			}
			return ctx.Err()
		}
	}
	w.mu.Lock()
	i := len(w.chunks)
	w.chunks = append(w.chunks, event.Chunk{Items: c.Items, Bytes: uint64(len(c.Raw))})
	w.mu.Unlock()
	raw := append(w.j.buffers.get(), c.Raw...)
	w.sending.Go(func() {
		hash := event.Hash(sha256.Sum256(raw))
		packed, kept := w.j.enc.EncodeAll(raw, w.j.buffers.get()), freshCopy(raw)
		w.j.buffers.put(raw)
		<-w.j.compressing
		seq, err := w.j.send(ctx, w.subject, packed)
		if err == nil {
			w.j.fresh.keep(w.subject, hash, kept)
			w.j.stats.chunks.Add(1)
			w.j.stats.chunkBytes.Add(uint64(len(packed)))
		}
		w.j.buffers.put(packed)
		w.mu.Lock()
		w.chunks[i].SHA256, w.chunks[i].Seq = hash, seq
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("write chunk %d of %s: %w", i, w.subject, err)
		}
		w.mu.Unlock()
		<-w.inFlight
	})
	return nil
}

func (w *chunkWriter) failed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Finish implements ChunkWriter.
func (w *chunkWriter) Finish(ctx context.Context) (event.Manifest, error) {
	w.sending.Wait()
	return FinishManifest(w.subject, w.take, func(list []RawChunk) error {
		for _, c := range list {
			if err := w.Put(ctx, c); err != nil {
				return err
			}
		}
		w.sending.Wait()
		return nil
	})
}

// take returns the chunks sent so far and forgets them.
func (w *chunkWriter) take() ([]event.Chunk, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	chunks := w.chunks
	w.chunks = nil
	return chunks, w.err
}

// FinishManifest makes the manifest of sent chunks, with an indirect list
// where they are many. take returns what was sent since it was last called,
// put sends the chunks of the list.
func FinishManifest(subject string, take func() ([]event.Chunk, error), put func([]RawChunk) error) (event.Manifest, error) {
	chunks, err := take()
	if err != nil {
		return event.Manifest{}, err
	}
	m := event.Manifest{Subject: subject, Count: uint64(len(chunks))}
	if len(chunks) <= event.MaxDirect {
		m.Chunks = chunks
		return m, nil
	}
	var list []RawChunk
	for from := 0; from < len(chunks); from += event.MaxListed {
		part := chunks[from:min(from+event.MaxListed, len(chunks))]
		raw, err := event.EncodeChunkList(part)
		if err != nil {
			return event.Manifest{}, err
		}
		list = append(list, RawChunk{Raw: raw, Items: uint64(len(part))})
	}
	if err := put(list); err != nil {
		return event.Manifest{}, err
	}
	m.Indirect, err = take()
	if err == nil && len(m.Indirect) > event.MaxDirect {
		err = fmt.Errorf("manifest of %d chunks: too many", m.Count)
	}
	return m, err
}

// send stores one compressed chunk. A try without an answer is repeated: a
// chunk that then stands there twice is found by either sequence, and the
// sweep removes the one that no manifest names.
func (j *NATS) send(ctx context.Context, subject string, packed []byte) (uint64, error) {
	if len(packed) > maxPayload {
		return 0, fmt.Errorf("chunk packs to %d bytes, more than %d", len(packed), maxPayload)
	}
	var last error
	for range sendTries {
		answer, err := j.request(ctx, &nats.Msg{Subject: subject, Data: packed})
		var seq uint64
		if err == nil {
			seq, err = parseAck(answer.Data)
		}
		switch {
		case err == nil:
			return seq, nil
		case errors.Is(err, errBusy):
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(busyWait):
			}
		case !errors.Is(err, ErrStorage):
			return 0, err
		}
		last = err
	}
	return 0, last
}

// Chunk implements Journal.
func (j *NATS) Chunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error) {
	if c.Bytes > MaxRawChunk {
		return nil, fmt.Errorf("read chunk of %s: %d bytes, more than %d: %w", subject, c.Bytes, MaxRawChunk, ErrNoChunk)
	}
	// In a copied store the sequences are usually all off by the same.
	hints := []uint64{j.moves.find(c.Seq), c.Seq + uint64(j.shift.Load())}
	for i, seq := range hints {
		if seq == 0 || i > 0 && seq == c.Seq {
			continue
		}
		line, err := j.get(ctx, bulkStream, getRequest{Seq: seq})
		if err != nil && !errors.Is(err, errNotFound) {
			return nil, fmt.Errorf("read chunk of %s: %w", subject, err)
		}
		if err == nil && line.subject == subject {
			if raw, ok := j.unpack(line.data, c); ok {
				return raw, nil
			}
		}
	}
	return j.searchChunk(ctx, subject, c)
}

// searchChunk looks through all chunks of a command for the one that is meant.
func (j *NATS) searchChunk(ctx context.Context, subject string, c event.Chunk) ([]byte, error) {
	for next := uint64(1); ; {
		line, err := j.get(ctx, bulkStream, getRequest{Seq: next, NextFor: subject})
		if errors.Is(err, errNotFound) {
			return nil, fmt.Errorf("chunk %s of %s: %w", c.SHA256, subject, ErrNoChunk)
		}
		if err != nil {
			return nil, fmt.Errorf("read chunk of %s: %w", subject, err)
		}
		if raw, ok := j.unpack(line.data, c); ok {
			j.shift.Store(int64(line.seq - c.Seq))
			return raw, nil
		}
		next = line.seq + 1
	}
}

// unpack decompresses a chunk and compares it with what the manifest says.
func (j *NATS) unpack(packed []byte, c event.Chunk) ([]byte, bool) {
	raw, err := j.dec.DecodeAll(packed, make([]byte, 0, c.Bytes))
	return raw, err == nil && uint64(len(raw)) == c.Bytes && sha256.Sum256(raw) == c.SHA256
}
