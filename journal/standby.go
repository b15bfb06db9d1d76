package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/journal/event"
)

// StandbyConfig is what Standby needs.
type StandbyConfig struct {
	// Dir is the store that takes the copy; it is made if it does not exist.
	Dir string
	// Remote is where the journal is that is copied. Nothing is written there.
	Remote Remote
	// Once ends it when all that stood there at the start was copied.
	Once bool
	// Timeout is how long to wait for one answer; 0 means ten seconds.
	Timeout time.Duration
	Logger  *slog.Logger // nil drops what the servers have to say
	// Told, where not nil, is called after each round of copying, also where
	// nothing came or the other side did not answer.
	Told func(StandbyStatus)
	// Progress, where not nil, is called while messages are copied.
	Progress func(CopyProgress)
}

// StandbyStatus is how far a standby is.
type StandbyStatus struct {
	Identity string `json:"identity"` // of the journal that is copied
	From     string `json:"from"`
	Events   uint64 `json:"events"` // last sequence that is here
	Behind   uint64 `json:"behind"` // events that were there and are not here, as last heard
	Bulk     uint64 `json:"bulk"`   // last sequence in BULK that is here
	InTouch  bool   `json:"in_touch"`
	Problem  string `json:"problem,omitempty"` // why not
}

// errBroken reports that what is copied is damaged: a copy of it is no help.
var errBroken = errors.New("the journal that is copied is damaged there")

// Standby keeps a copy of a journal elsewhere until ctx ends: each message of
// both streams at its sequence, chunks before the events that name them. Each
// event is checked as it comes: encoding, subject, number and link. What was
// removed from BULK there is removed here. The store is marked as a standby's
// and taken for nothing else before PromoteStandby. It waits out a journal that
// does not answer.
func Standby(ctx context.Context, cfg StandbyConfig) error {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	s := &standby{cfg: cfg, heads: make(map[event.ZoneID]Head), touched: map[event.ZoneID]bool{"": true}}
	if err := s.open(ctx); err != nil {
		return err
	}
	err := s.run(ctx)
	if s.from.nc != nil {
		s.from.nc.Close()
	}
	return errors.Join(err, s.j.Close())
}

// standby is one Standby under way.
type standby struct {
	cfg      StandbyConfig
	j        *NATS
	from, to end
	heads    map[event.ZoneID]Head // of the zones that events came for
	// touched are the zones whose chunks were removed there since it was looked
	// at last; "" stands for all.
	touched map[event.ZoneID]bool
	woken   chan struct{}
}

// open connects and opens the store, a new one where there is none.
func (s *standby) open(ctx context.Context) error {
	j := newNATS(Config{Dir: s.cfg.Dir, Logger: s.cfg.Logger, Timeout: s.cfg.Timeout, mode: standbyMode})
	s.j = j
	var err error
	if j.lock, err = lockStore(s.cfg.Dir); err != nil {
		return errors.Join(err, j.Close())
	}
	m, err := peekMarker(s.cfg.Dir)
	if err == nil && m != nil && m.Next != "" {
		err = fmt.Errorf("%w: the promotion of %s has begun: run sluice cluster promote again to finish it", ErrMode, s.cfg.Dir)
	}
	if err == nil && (m == nil || m.Mode == standbyMode) {
		err = s.connect()
		if err != nil && m != nil && errors.Is(err, ErrStorage) && !s.cfg.Once {
			err = nil // it goes on once that answers
		}
	}
	if err == nil && m == nil {
		err = s.begin(ctx)
	}
	if err == nil {
		err = j.init(ctx)
	}
	if err != nil {
		if s.from.nc != nil {
			s.from.nc.Close()
		}
		return errors.Join(err, j.Close())
	}
	sess, err := j.session()
	if err != nil {
		return err
	}
	s.to = end{nc: sess.nc, js: sess.js, timeout: s.cfg.Timeout}
	return nil
}

// connect makes the connection to the journal that is copied.
func (s *standby) connect() error {
	from, err := dialEnd(s.cfg.Remote, s.j.log, s.cfg.Timeout)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", s.where(), err)
	}
	s.woken = make(chan struct{}, 1)
	_, err = from.nc.Subscribe(storedSubject+"ev.>", func(*nats.Msg) {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	})
	if err != nil {
		from.nc.Close()
		return fmt.Errorf("connect to %s: %w", s.where(), err)
	}
	s.from = from
	return nil
}

func (s *standby) where() string { return strings.Join(s.cfg.Remote.URLs, ",") }

// begin marks a new store as the copy of a journal.
func (s *standby) begin(ctx context.Context) error {
	info, err := s.source(ctx, eventsStream, "")
	if err != nil {
		return err
	}
	return makeMarker(s.cfg.Dir, marker{
		Format: storeVersion, Mode: standbyMode, Identity: info.Config.Metadata[identityKey], CopyOf: s.where(),
	})
}

// source describes a stream of the journal that is copied; identity is whose it
// has to be.
func (s *standby) source(ctx context.Context, stream, identity string) (*jetstream.StreamInfo, error) {
	info, err := s.from.info(ctx, stream)
	if errors.Is(err, errNotFound) {
		return nil, fmt.Errorf("%w: %s has no stream %s: there is no journal to copy", ErrServer, s.where(), stream)
	}
	if err != nil {
		return nil, err
	}
	found := info.Config.Metadata[identityKey]
	switch {
	case found == "":
		return nil, fmt.Errorf("%w: stream %s of %s is not a journal's: it names no identity", ErrServer, stream, s.where())
	case identity != "" && found != identity:
		return nil, fmt.Errorf("%w: %s holds journal %s, this is the copy of %s: it was restored, or promoted from another copy; keep this one, and copy the other into a directory of its own",
			ErrServer, s.where(), found, identity)
	}
	return info, nil
}

func (s *standby) run(ctx context.Context) error {
	for {
		st, err := s.round(ctx)
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && (s.cfg.Once || !errors.Is(err, ErrUnreachable) && !errors.Is(err, ErrStorage)) {
			return err
		}
		if err != nil {
			st.Problem = err.Error()
		}
		if s.cfg.Told != nil {
			s.cfg.Told(st)
		}
		if s.cfg.Once {
			return nil
		}
		timer := time.NewTimer(pollEvery)
		select {
		case <-ctx.Done():
		case <-s.woken:
		case <-timer.C:
		}
		timer.Stop()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

// round copies what stands there now.
func (s *standby) round(ctx context.Context) (st StandbyStatus, err error) {
	st = StandbyStatus{Identity: s.j.identity, From: s.where()}
	defer func() {
		if info, lerr := s.to.info(ctx, eventsStream); lerr == nil {
			st.Events = info.State.LastSeq
		}
		if info, lerr := s.to.info(ctx, bulkStream); lerr == nil {
			st.Bulk = info.State.LastSeq
		}
	}()
	if s.from.nc == nil {
		if err := s.connect(); err != nil {
			return st, err
		}
	}
	events, err := s.source(ctx, eventsStream, s.j.identity)
	if err != nil {
		return st, err
	}
	// The chunks that these events name were there before them.
	bulk, err := s.source(ctx, bulkStream, s.j.identity)
	if err != nil {
		return st, err
	}
	if err := s.copyBulk(ctx, bulk); err != nil {
		return st, err
	}
	c := copier{from: s.from, to: s.to, stream: eventsStream, tell: s.tell, check: s.checkLine}
	if err := c.run(ctx, events.State.LastSeq); err != nil {
		return st, err
	}
	if err := s.removeChunks(ctx); err != nil {
		return st, err
	}
	st.InTouch = true
	if now, err := s.source(ctx, eventsStream, s.j.identity); err == nil {
		st.Behind = now.State.LastSeq - events.State.LastSeq
	}
	return st, nil
}

func (s *standby) tell(p CopyProgress) {
	if s.cfg.Progress != nil {
		s.cfg.Progress(p)
	}
}

func (s *standby) copyBulk(ctx context.Context, bulk *jetstream.StreamInfo) error {
	if err := skipTo(ctx, s.to, bulkStream, bulk.State.FirstSeq); err != nil {
		return err
	}
	c := copier{from: s.from, to: s.to, stream: bulkStream, tell: s.tell}
	if err := c.run(ctx, bulk.State.LastSeq); err != nil {
		return err
	}
	if c.filled == 0 {
		return nil
	}
	return dropGaps(ctx, s.to)
}

// checkLine holds a line against what came before it.
func (s *standby) checkLine(ctx context.Context, l storedLine) error {
	r, err := l.record()
	if err != nil {
		return fmt.Errorf("%w: %w", errBroken, err)
	}
	head, ok := s.heads[r.Event.Zone]
	if !ok || head.Seq >= l.seq { // it comes again after an answer was lost
		if head, err = s.j.Head(ctx, r.Event.Zone); err != nil {
			return err
		}
	}
	if r.Event.N != head.N+1 || r.Event.Prev != head.Hash {
		return fmt.Errorf("%w: event %d is number %d of zone %s and does not follow its number %d", errBroken, l.seq, r.Event.N, r.Event.Zone, head.N)
	}
	s.heads[r.Event.Zone] = r.Head()
	if noun, _, _ := strings.Cut(r.Event.Type, "."); noun == "bulk" {
		s.touched[r.Event.Zone] = true
	}
	return nil
}

// removeChunks removes what is not there any more.
func (s *standby) removeChunks(ctx context.Context) error {
	for _, zone := range slices.Sorted(maps.Keys(s.touched)) {
		filter := "bulk.>"
		if zone != "" {
			filter = "bulk." + string(zone) + ".>"
		}
		there, err := s.from.subjects(ctx, filter)
		if err != nil {
			return err
		}
		here, err := s.to.subjects(ctx, filter)
		if err != nil {
			return err
		}
		for _, subject := range slices.Sorted(maps.Keys(here)) {
			switch {
			case there[subject] == 0:
				err = s.to.purge(ctx, bulkStream, jetstream.WithPurgeSubject(subject))
			case there[subject] < here[subject]:
				err = s.removeSome(ctx, subject)
			}
			if err != nil {
				return fmt.Errorf("remove chunks %s: %w", subject, err)
			}
		}
		delete(s.touched, zone)
	}
	return nil
}

// subjects counts the messages of BULK by subject.
func (e end) subjects(ctx context.Context, filter string) (counts map[string]uint64, err error) {
	err = e.insist(ctx, func(ctx context.Context) error {
		st, err := e.js.Stream(ctx, bulkStream)
		if err != nil {
			return err
		}
		info, err := st.Info(ctx, jetstream.WithSubjectFilter(filter))
		if err == nil {
			counts = info.State.Subjects
		}
		return err
	})
	return counts, err
}

// removeSome removes the messages of one subject that are not there any more.
func (s *standby) removeSome(ctx context.Context, subject string) error {
	there, err := s.from.sequences(ctx, subject)
	if err != nil {
		return err
	}
	here, err := s.to.sequences(ctx, subject)
	if err != nil {
		return err
	}
	for _, seq := range here {
		if _, found := slices.BinarySearch(there, seq); found {
			continue
		}
		err := s.to.insist(ctx, func(ctx context.Context) error {
			st, err := s.to.js.Stream(ctx, bulkStream)
			if err == nil {
				err = st.DeleteMsg(ctx, seq)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sequences lists the messages of one subject of BULK.
func (e end) sequences(ctx context.Context, subject string) (seqs []uint64, err error) {
	for next := uint64(1); ; {
		l, err := e.next(ctx, bulkStream, subject, next)
		if errors.Is(err, errNotFound) {
			return seqs, nil
		}
		if err != nil {
			return nil, err
		}
		seqs = append(seqs, l.seq)
		next = l.seq + 1
	}
}
