package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/journal/event"
)

const (
	eventsStream = "EVENTS"
	bulkStream   = "BULK"
	// storedSubject is where the server tells of each stored event.
	storedSubject = "stored."
	identityKey   = "sluice-identity"
)

// Config is what Open and Connect need.
type Config struct {
	// Dir is the store's directory, for Open; it is made if it does not exist.
	Dir string
	// Remote is where the journal is, for Connect.
	Remote Remote
	// Listen is where other processes reach it, for Open; Admit says which.
	Listen Listen
	// Logger takes what the embedded server has to say; nil drops it.
	Logger *slog.Logger
	// EventsMaxBytes and BulkMaxBytes limit the streams; 0 means no limit.
	// What does not fit is refused with ErrNoSpace, nothing old is dropped.
	EventsMaxBytes, BulkMaxBytes int64
	// Timeout is how long to wait for the store's answer to one request; 0
	// means ten seconds, or five where the store is elsewhere.
	Timeout time.Duration

	mode string // that the marker of Dir has to have; "" means standalone
}

// NATS is the journal in a NATS server: the embedded one, or one elsewhere.
type NATS struct {
	cfg      Config
	log      *slog.Logger
	lock     *os.File // nil where the server is elsewhere
	gate     *gate    // nil where nobody else reaches the embedded server
	identity string
	restored *restored  // nil where the store was empty at first
	moves    *moveTable // of such a store
	hub      *hub
	contact  contact // with a server elsewhere
	enc      *zstd.Encoder
	dec      *zstd.Decoder
	// compressing bounds the raw chunks held while they are compressed.
	compressing chan struct{}
	buffers     buffers
	fresh       fresh
	stats       counters
	// shift is by how much the sequence of a chunk last found by search
	// differed from its hint.
	shift atomic.Int64
	// coordination is that of the workers, nil where nobody asked for it.
	coordination atomic.Pointer[natsCoordinator]

	sweeping sync.Mutex
	swept    sweeper // guarded by sweeping

	reopening sync.Mutex // held by Reopen and Close
	mu        sync.RWMutex
	sess      *session // guarded by mu; nil while reopening and after Close
	closed    bool     // guarded by mu
}

// Open opens the journal in a directory, or makes a new one where that is
// empty. A store that another process holds is ErrLocked.
func Open(ctx context.Context, cfg Config) (*NATS, error) {
	lock, err := lockStore(cfg.Dir)
	if err != nil {
		return nil, err
	}
	j := newNATS(cfg)
	j.lock = lock
	err = j.init(ctx)
	if err == nil && cfg.Listen.Address != "" {
		err = j.openGate(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, j.Close())
	}
	return j, nil
}

// newNATS makes a journal that is not connected yet.
func newNATS(cfg Config) *NATS {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
		if len(cfg.Remote.URLs) > 0 {
			// A cluster that chooses a leader, which takes it about five
			// seconds, answers nothing that was asked meanwhile.
			cfg.Timeout = 5 * time.Second
		}
	}
	if cfg.mode == "" {
		cfg.mode = standalone
	}
	return &NATS{
		cfg: cfg, log: cfg.Logger, hub: newHub(),
		compressing: make(chan struct{}, compressors),
		buffers:     make(buffers, 2*compressors),
	}
}

func (j *NATS) init(ctx context.Context) error {
	if err := j.initCodecs(); err != nil {
		return err
	}
	m, err := readMarker(j.cfg.Dir, j.cfg.mode)
	if err != nil {
		return err
	}
	j.identity, j.restored = m.Identity, m.Restored
	if j.moves, err = openMoves(j.cfg.Dir); err != nil {
		return err
	}
	return j.start(ctx, m)
}

func (j *NATS) initCodecs() error {
	var err error
	j.enc, err = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(compressors), zstd.WithEncoderCRC(false),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return fmt.Errorf("make compressor: %w", err)
	}
	j.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(compressors),
		zstd.WithDecoderMaxMemory(MaxRawChunk), zstd.WithDecoderLowmem(true))
	if err != nil {
		return fmt.Errorf("make decompressor: %w", err)
	}
	return nil
}

// start begins a session: server, connection, streams.
func (j *NATS) start(ctx context.Context, m marker) error {
	for _, cfg := range j.streams() {
		if err := j.repairSettings(cfg, m); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	s, err := connectEmbedded(ctx, j.cfg, j.log, j.gate.list())
	if err != nil {
		return err
	}
	if err := j.prepare(ctx, s, m); err != nil {
		s.close()
		return err
	}
	if c := j.coordination.Load(); c != nil {
		if err := c.resume(ctx, s); err != nil {
			s.close()
			return fmt.Errorf("coordinate workers: %w", err)
		}
	}
	j.mu.Lock()
	j.sess = s
	j.mu.Unlock()
	j.hub.wakeAll()
	return nil
}

func (j *NATS) prepare(ctx context.Context, s *session, m marker) error {
	for _, cfg := range j.streams() {
		if err := ensureStream(ctx, s.js, cfg, m); err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	if !m.Complete {
		if err := j.syncStreams(); err != nil {
			return err
		}
		m.Complete = true
		if err := writeMarker(j.cfg.Dir, m); err != nil {
			return err
		}
	}
	return j.subscribe(s)
}

// subscribe wakes the followers of the zones whose events the server stores.
func (j *NATS) subscribe(s *session) error {
	if err := j.listenStored(s); err != nil {
		return err
	}
	if err := s.nc.FlushTimeout(j.cfg.Timeout); err != nil {
		return fmt.Errorf("subscribe to stored events: %w", err)
	}
	return nil
}

// listenStored is subscribe, but does not wait for the server.
func (j *NATS) listenStored(s *session) error {
	_, err := s.nc.Subscribe(storedSubject+"ev.>", func(msg *nats.Msg) {
		if zone, _, ok := strings.Cut(strings.TrimPrefix(msg.Subject, storedSubject+"ev."), "."); ok {
			j.hub.wake(event.ZoneID(zone))
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to stored events: %w", err)
	}
	return nil
}

func (j *NATS) eventsConfig() jetstream.StreamConfig {
	c := j.streamConfig(eventsStream, "ev.>", j.cfg.EventsMaxBytes)
	c.MaxMsgSize = event.MaxLine + 4<<10 // headers count
	c.DenyDelete, c.DenyPurge = true, true
	c.AllowAtomicPublish = true
	// Sent after an event is stored: it wakes the followers.
	c.RePublish = &jetstream.RePublish{Source: "ev.>", Destination: storedSubject + "ev.>", HeadersOnly: true}
	return c
}

func (j *NATS) bulkConfig() jetstream.StreamConfig {
	c := j.streamConfig(bulkStream, "bulk.>", j.cfg.BulkMaxBytes)
	if j.restored != nil {
		c.FirstSeq = j.restored.BulkFirst
	}
	return c
}

func (j *NATS) streamConfig(name, subjects string, maxBytes int64) jetstream.StreamConfig {
	if maxBytes <= 0 {
		maxBytes = -1
	}
	return jetstream.StreamConfig{
		Name: name, Subjects: []string{subjects}, Storage: jetstream.FileStorage,
		Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardNew, MaxBytes: maxBytes,
		MaxMsgs: -1, MaxMsgsPerSubject: -1, MaxMsgSize: maxPayload, MaxConsumers: -1, Replicas: 1,
		Duplicates: dedupeWindow, AllowDirect: true,
		Metadata: map[string]string{identityKey: j.identity},
	}
}

// ensureStream makes the stream in a new store, and elsewhere checks that it
// is ours and brings its limits up to date.
func ensureStream(ctx context.Context, js jetstream.JetStream, want jetstream.StreamConfig, m marker) error {
	st, err := js.Stream(ctx, want.Name)
	switch {
	case errors.Is(err, jetstream.ErrStreamNotFound) && m.Complete:
		return errors.New("the store has lost it; restore a backup")
	case errors.Is(err, jetstream.ErrStreamNotFound):
		_, err = js.CreateStream(ctx, want)
		return err
	case err != nil:
		return err
	}
	have := st.CachedInfo().Config
	if owner := have.Metadata[identityKey]; !m.owns(owner) {
		return foreignStream(owner, m)
	}
	if have.Discard != want.Discard || have.DenyDelete != want.DenyDelete || have.DenyPurge != want.DenyPurge ||
		have.PersistMode != want.PersistMode || have.Retention != want.Retention || have.Storage != want.Storage {
		return errors.New("its settings were changed so that it may lose data; restore a backup")
	}
	next := tuned(want, have)
	if next.Metadata[identityKey] != m.Identity { // it was promoted
		next.Metadata = maps.Clone(next.Metadata)
		next.Metadata[identityKey] = m.Identity
	}
	if reflect.DeepEqual(have, next) {
		return nil
	}
	if _, err := js.UpdateStream(ctx, next); err != nil {
		return fmt.Errorf("update settings: %w", err)
	}
	return nil
}

// session returns the running session.
func (j *NATS) session() (*session, error) {
	j.mu.RLock()
	defer j.mu.RUnlock()
	switch {
	case j.closed:
		return nil, ErrClosed
	case j.sess == nil:
		return nil, ErrStorage
	}
	return j.sess, nil
}

// Reopen restarts the embedded server on the same store; with a server elsewhere
// it looks whether that answers, and connects anew where it does not. Calls under
// way fail with ErrStorage; followers go on where they were.
func (j *NATS) Reopen(ctx context.Context) error {
	j.reopening.Lock()
	defer j.reopening.Unlock()
	j.mu.Lock()
	old, closed := j.sess, j.closed
	if !j.remote() {
		j.sess = nil
	}
	j.mu.Unlock()
	switch {
	case closed:
		return ErrClosed
	case j.remote():
		return j.rejoin(ctx, old)
	case old != nil:
		old.close()
	}
	m, err := readMarker(j.cfg.Dir, j.cfg.mode)
	if err == nil {
		err = j.start(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("reopen journal: %w", err)
	}
	return nil
}

// Close implements Journal.
func (j *NATS) Close() error {
	j.reopening.Lock()
	defer j.reopening.Unlock()
	j.mu.Lock()
	old, closed := j.sess, j.closed
	j.sess, j.closed = nil, true
	j.mu.Unlock()
	if closed {
		return ErrClosed
	}
	j.hub.wakeAll()
	if j.gate != nil {
		j.gate.close()
	}
	if old != nil {
		old.close()
	}
	if j.dec != nil {
		j.dec.Close()
	}
	if j.lock == nil {
		return nil
	}
	if err := errors.Join(j.moves.close(), j.lock.Close()); err != nil {
		return fmt.Errorf("close journal: %w", err)
	}
	return nil
}

// request sends one message and waits for its answer.
func (j *NATS) request(ctx context.Context, msg *nats.Msg) (*nats.Msg, error) {
	if err := j.mayPublish(msg.Subject); err != nil {
		return nil, err
	}
	s, err := j.session()
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, j.cfg.Timeout)
	defer cancel()
	defer context.AfterFunc(s.broken, cancel)()
	answer, err := s.nc.RequestMsgWithContext(bounded, msg)
	switch broken := context.Cause(s.broken); {
	case err == nil:
		j.contact.answered(msg.Subject)
		return answer, nil
	case broken != nil && ctx.Err() == nil:
		err = fmt.Errorf("%w (%w)", ErrStorage, broken)
	default:
		err = j.failure(ctx, err)
	}
	return nil, err
}

// failure says what a request without an answer means.
func (j *NATS) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, serr := j.session(); errors.Is(serr, ErrClosed) {
		return ErrClosed
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout),
		errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrDisconnected), errors.Is(err, nats.ErrConnectionReconnecting),
		errors.Is(err, nats.ErrReconnectBufExceeded):
		return j.noAnswer(err)
	}
	return err
}

// Stream implements Journal.
func (j *NATS) Stream(ctx context.Context) (identity string, last uint64, err error) {
	info, err := j.info(ctx, eventsStream)
	if err != nil {
		return "", 0, fmt.Errorf("read journal: %w", err)
	}
	return j.identity, info.State.LastSeq, nil
}

// Status implements Journal.
func (j *NATS) Status(ctx context.Context) (Status, error) {
	st := Status{Identity: j.identity}
	for name, to := range map[string]*StreamStatus{eventsStream: &st.Events, bulkStream: &st.Bulk} {
		info, err := j.info(ctx, name)
		if err != nil {
			return Status{}, fmt.Errorf("read status of %s: %w", name, err)
		}
		*to = StreamStatus{
			Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
			FirstSeq: info.State.FirstSeq, LastSeq: info.State.LastSeq,
		}
	}
	return st, nil
}

// info describes a stream, as its leader does.
func (j *NATS) info(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	info, err := j.anyInfo(ctx, stream)
	if err == nil && leaderless(info) {
		return nil, j.noAnswer(errors.New("its servers have no leader"))
	}
	return info, err
}

// leaderless reports whether a stream of several servers has no leader. One of
// them that is cut off from the others answers all the same.
func leaderless(info *jetstream.StreamInfo) bool {
	return info.Config.Replicas > 1 && info.Cluster != nil && info.Cluster.Leader == ""
}

// anyInfo describes a stream, as any server does that has it.
func (j *NATS) anyInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	answer, err := j.request(ctx, &nats.Msg{Subject: "$JS.API.STREAM.INFO." + stream})
	if err != nil {
		return nil, err
	}
	var info struct {
		jetstream.StreamInfo
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer.Data, &info); err != nil {
		return nil, err
	}
	if info.Error != nil && info.Error.ErrorCode == codeUnavailable {
		return nil, j.noAnswer(info.Error)
	}
	if info.Error != nil {
		return nil, info.Error
	}
	return &info.StreamInfo, nil
}

var (
	_ Journal   = (*NATS)(nil)
	_ RawReader = (*NATS)(nil)
)
