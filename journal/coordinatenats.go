package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	workersBucket  = "WORKERS"
	workersStream  = "KV_" + workersBucket
	workersSubject = "$KV." + workersBucket + "."
	hdrOperation   = "KV-Operation"
	hdrRefused     = "Sluice-Refused"
	// maxAbout bounds what a worker tells of itself.
	maxAbout = 64 << 10
	// maxStanding is how many names the bucket is read for at once.
	maxStanding = 1024
)

// natsCoordinator keeps leases in a KV bucket in memory, whose entries run out,
// and asks over core NATS.
type natsCoordinator struct {
	j     *NATS
	lease time.Duration

	mu      sync.Mutex
	answers map[*answering]struct{} // guarded by mu
}

// answering is one Answer under way. It outlives a Reopen.
type answering struct {
	subject, queue string
	fn             Handler
	ctx            context.Context //nolint:containedctx // ends when the answering is stopped
	cancel         context.CancelFunc
	places         chan struct{}
	work           sync.WaitGroup
	sub            *nats.Subscription // guarded by the coordinator's mu
}

// Coordinator makes the coordination of the workers on this stream, whose
// leases hold for a time (0: DefaultLease). The bucket is made where it is
// missing. There is one a journal: a further call returns the first one.
func (j *NATS) Coordinator(ctx context.Context, lease time.Duration) (Coordinator, error) {
	if lease == 0 {
		lease = DefaultLease
	}
	c := &natsCoordinator{j: j, lease: lease, answers: map[*answering]struct{}{}}
	if !j.coordination.CompareAndSwap(nil, c) {
		return j.coordination.Load(), nil
	}
	s, err := j.session()
	if err == nil {
		err = c.resume(ctx, s)
	}
	if err != nil {
		j.coordination.Store(nil)
		return nil, fmt.Errorf("coordinate workers: %w", err)
	}
	return c, nil
}

// resume brings the coordination into a new session: what the bucket held is
// gone with the server's memory.
func (c *natsCoordinator) resume(ctx context.Context, s *session) error {
	if err := c.ensureBucket(ctx, s); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for a := range c.answers {
		if err := c.subscribe(s, a); err != nil {
			return err
		}
	}
	return nil
}

// ensureBucket makes the bucket where it is missing. It is kept on as many
// servers as the events are: with a server that is lost, work would rest.
func (c *natsCoordinator) ensureBucket(ctx context.Context, s *session) error {
	if c.j.cfg.Remote.Member && s.nc.Status() != nats.CONNECTED {
		return nil // it is there once the server is
	}
	_, err := s.js.Stream(ctx, workersStream)
	switch {
	case !errors.Is(err, jetstream.ErrStreamNotFound):
		return err
	case c.j.cfg.Remote.Member:
		return fmt.Errorf("%w: it has no bucket %s: start the main process first", ErrServer, workersBucket)
	}
	events, err := s.js.Stream(ctx, eventsStream)
	if err != nil {
		return err
	}
	_, err = s.js.CreateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: workersBucket, Description: "who lives and who does what; a hint", TTL: c.lease,
		History: 1, Storage: jetstream.MemoryStorage, Replicas: max(events.CachedInfo().Config.Replicas, 1),
	})
	if errors.Is(err, jetstream.ErrBucketExists) {
		return nil
	}
	return err
}

// LeaseTime implements Coordinator.
func (c *natsCoordinator) LeaseTime() time.Duration { return c.lease }

// put stores an entry of the bucket; it must be the next one after a revision,
// where that is not negative.
func (c *natsCoordinator) put(ctx context.Context, key, operation string, data []byte, after int64) (uint64, error) {
	msg := &nats.Msg{Subject: workersSubject + key, Data: data, Header: nats.Header{}}
	if after >= 0 {
		msg.Header[hdrExpected] = []string{strconv.FormatInt(after, 10)}
	}
	if operation != "" {
		msg.Header[hdrOperation] = []string{operation}
	}
	answer, err := c.j.request(ctx, msg)
	if err != nil {
		return 0, err
	}
	return parseAck(answer.Data)
}

// TakeLease implements Coordinator.
func (c *natsCoordinator) TakeLease(ctx context.Context, name, holder string) (Lease, error) {
	l := Lease{Name: name, Holder: holder}
	var err error
	l.Revision, err = c.put(ctx, leaseKey+name, "", []byte(holder), 0)
	if left, ok := errors.AsType[conflict](err); ok && left.last > 0 {
		// What was given up leaves a marker until that runs out.
		at, operation, gerr := c.at(ctx, left.last)
		switch {
		case gerr != nil && !errors.Is(gerr, errNotFound):
			err = gerr
		case gerr == nil && operation == "" && string(at.data) == holder && at.subject == workersSubject+leaseKey+name:
			// It was ours before; an answer was lost, or this worker was started anew.
			l.Revision, err = c.put(ctx, leaseKey+name, "", []byte(holder), int64(left.last))
		case gerr == nil && operation != "" && at.subject == workersSubject+leaseKey+name:
			l.Revision, err = c.put(ctx, leaseKey+name, "", []byte(holder), int64(left.last))
		}
	}
	if errors.Is(err, ErrConflict) {
		err = ErrHeld
	}
	if err != nil {
		return Lease{}, fmt.Errorf("take lease %s: %w", name, err)
	}
	return l, nil
}

// at is the entry of a revision, and what it did: nothing is that it was put.
func (c *natsCoordinator) at(ctx context.Context, revision uint64) (storedLine, string, error) {
	body, err := json.Marshal(getRequest{Seq: revision})
	if err != nil {
		return storedLine{}, "", err
	}
	answer, err := c.j.request(ctx, &nats.Msg{Subject: "$JS.API.DIRECT.GET." + workersStream, Data: body})
	if err != nil {
		return storedLine{}, "", err
	}
	switch status := answer.Header.Get("Status"); status {
	case "":
	case "404":
		return storedLine{}, "", errNotFound
	default:
		return storedLine{}, "", fmt.Errorf("store answers %s %s", status, answer.Header.Get("Description"))
	}
	line, err := parseStored(answer)
	return line, answer.Header.Get(hdrOperation), err
}

// RenewLease implements Coordinator.
func (c *natsCoordinator) RenewLease(ctx context.Context, l Lease) (Lease, error) {
	revision, err := c.put(ctx, leaseKey+l.Name, "", []byte(l.Holder), int64(l.Revision))
	if errors.Is(err, ErrConflict) {
		err = ErrHeld
	}
	if err != nil {
		return Lease{}, fmt.Errorf("renew lease %s: %w", l.Name, err)
	}
	l.Revision = revision
	return l, nil
}

// ReleaseLease implements Coordinator.
func (c *natsCoordinator) ReleaseLease(ctx context.Context, l Lease) error {
	_, err := c.put(ctx, leaseKey+l.Name, "DEL", nil, int64(l.Revision))
	if err == nil || errors.Is(err, ErrConflict) {
		return nil
	}
	return fmt.Errorf("release lease %s: %w", l.Name, err)
}

// Announce implements Coordinator.
func (c *natsCoordinator) Announce(ctx context.Context, worker string, about []byte) error {
	if !ValidWorker(worker) || len(about) > maxAbout {
		return fmt.Errorf("announce worker %q with %d bytes: a bad name, or too long", worker, len(about))
	}
	if _, err := c.put(ctx, aliveKey+worker, "", about, -1); err != nil {
		return fmt.Errorf("announce worker %s: %w", worker, err)
	}
	return nil
}

// Leave implements Coordinator.
func (c *natsCoordinator) Leave(ctx context.Context, worker string) error {
	if _, err := c.put(ctx, aliveKey+worker, "DEL", nil, -1); err != nil {
		return fmt.Errorf("take leave of worker %s: %w", worker, err)
	}
	return nil
}

// Standing implements Coordinator: one question with bounded answers.
func (c *natsCoordinator) Standing(ctx context.Context) (Standing, error) {
	entries, err := c.entries(ctx)
	if err != nil {
		return Standing{}, fmt.Errorf("read who does what: %w", err)
	}
	var st Standing
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		e := entries[key]
		if worker, ok := strings.CutPrefix(key, aliveKey); ok {
			st.Workers = append(st.Workers, Living{Worker: worker, About: e.data})
		}
		if name, ok := strings.CutPrefix(key, leaseKey); ok {
			st.Leases = append(st.Leases, Lease{Name: name, Holder: string(e.data), Revision: e.seq})
		}
	}
	return st, nil
}

// entries are the entries of the bucket by key.
func (c *natsCoordinator) entries(ctx context.Context) (map[string]storedLine, error) {
	body, err := json.Marshal(map[string]any{"multi_last": []string{workersSubject + ">"}, "batch": maxStanding})
	if err != nil {
		return nil, err
	}
	s, err := c.j.session()
	if err != nil {
		return nil, err
	}
	inbox := s.nc.NewInbox()
	sub, err := s.nc.SubscribeSync(inbox)
	if err != nil {
		return nil, c.j.failure(ctx, err)
	}
	defer sub.Unsubscribe() //nolint:errcheck // it fails on a closed connection only
	if err := s.nc.PublishRequest("$JS.API.DIRECT.GET."+workersStream, inbox, body); err != nil {
		return nil, c.j.failure(ctx, err)
	}
	bounded, cancel := context.WithTimeout(ctx, c.j.cfg.Timeout)
	defer cancel()
	out := map[string]storedLine{}
	for {
		m, err := sub.NextMsgWithContext(bounded)
		if err != nil {
			return nil, c.j.failure(ctx, err)
		}
		switch status := m.Header.Get("Status"); status {
		case "":
			line, err := parseStored(m)
			if err != nil {
				return nil, err
			}
			if m.Header.Get(hdrOperation) == "" {
				out[strings.TrimPrefix(line.subject, workersSubject)] = line
			}
		case "204", "404":
			return out, nil
		case "503":
			return nil, c.j.noAnswer(nats.ErrNoResponders)
		default:
			return nil, fmt.Errorf("store answers %s %s", status, m.Header.Get("Description"))
		}
	}
}

// Ask implements Coordinator.
func (c *natsCoordinator) Ask(ctx context.Context, subject string, data []byte) ([]byte, error) {
	if len(data) > MaxMessage {
		return nil, fmt.Errorf("ask %s: a question of %d bytes is too long", subject, len(data))
	}
	if err := c.j.mayPublish(subject); err != nil {
		return nil, fmt.Errorf("ask %s: %w", subject, err)
	}
	s, err := c.j.session()
	if err != nil {
		return nil, err
	}
	answer, err := s.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Data: data})
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("ask %s: %w", subject, ErrNobody)
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", subject, c.j.failure(ctx, err))
	}
	if _, refused := answer.Header[hdrRefused]; refused {
		return nil, Refused{Text: string(answer.Data)}
	}
	return answer.Data, nil
}

// Answer implements Coordinator.
func (c *natsCoordinator) Answer(subject, queue string, fn Handler) (func(), error) {
	s, err := c.j.session()
	if err != nil {
		return nil, err
	}
	a := &answering{subject: subject, queue: queue, fn: fn, places: make(chan struct{}, maxAnswering)}
	a.ctx, a.cancel = context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.subscribe(s, a); err != nil {
		a.cancel()
		return nil, fmt.Errorf("answer %s: %w", subject, err)
	}
	c.answers[a] = struct{}{}
	return func() { c.stop(a) }, nil
}

// stop ends an answering and waits for its handlers.
func (c *natsCoordinator) stop(a *answering) {
	c.mu.Lock()
	delete(c.answers, a)
	sub := a.sub
	c.mu.Unlock()
	_ = sub.Unsubscribe() // it fails on a closed connection only
	a.cancel()
	a.work.Wait()
}

// subscribe lets an answering hear its questions. The caller holds mu.
func (c *natsCoordinator) subscribe(s *session, a *answering) error {
	heard := func(m *nats.Msg) {
		select {
		case a.places <- struct{}{}:
		case <-a.ctx.Done():
			return
		}
		a.work.Go(func() {
			defer func() { <-a.places }()
			reply := &nats.Msg{Subject: m.Reply}
			data, err := a.fn(a.ctx, m.Data)
			if err == nil && len(data) > MaxMessage {
				err = fmt.Errorf("an answer of %d bytes is too long", len(data))
			}
			if reply.Data = data; err != nil {
				reply.Data = []byte(err.Error())
				reply.Header = nats.Header{hdrRefused: []string{"1"}}
			}
			if m.Reply != "" {
				_ = s.nc.PublishMsg(reply) // who asked waits no longer than it wants to
			}
		})
	}
	var err error
	if a.queue == "" {
		a.sub, err = s.nc.Subscribe(a.subject, heard)
	} else {
		a.sub, err = s.nc.QueueSubscribe(a.subject, a.queue, heard)
	}
	if err != nil {
		return err
	}
	return s.nc.FlushTimeout(c.j.cfg.Timeout)
}
