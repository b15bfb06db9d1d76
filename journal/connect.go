package journal

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
	"golang.org/x/mod/semver"
)

const (
	// oldestServer is the first version of nats-server whose batches and
	// checks of sequences the journal relies on.
	oldestServer = "2.15.0"
	// clusterReplicas is how many servers of a cluster hold a new stream.
	clusterReplicas = 3
	// maxRefusals is how often a start is refused before it ends.
	maxRefusals = 4
	// maxTold bounds the texts that are not told again within a minute.
	maxTold = 64
)

// Remote is how a journal in a server elsewhere is reached.
type Remote struct {
	// URLs are those of one server or of one cluster, such as
	// tls://192.0.2.1:4222.
	URLs []string
	// Name is that of this process; its answers come under InboxPrefix(Name).
	Name string
	// Seed is the private nkey (SU...) that this process proves itself by;
	// empty for none.
	Seed string
	// TLS is how the server proves itself; nil only takes one that asks for no
	// TLS. With HandshakeFirst it begins before the server has said anything,
	// as at the listener of another process of this program.
	TLS            *tls.Config
	HandshakeFirst bool
	// Member: another process looks after the streams. A member makes none and
	// removes nothing.
	Member bool
	// Identity is the journal that is meant, "" any.
	Identity string
	// Replicas is how many servers hold streams that are made: 0 is three in a
	// cluster, else one.
	Replicas int
	// MayPublish, where not nil, says which subjects the server lets this
	// process write to; what it does not is ErrDenied at once.
	MayPublish func(subject string) bool
}

// ErrDenied reports a write that the roles of this process do not allow.
var ErrDenied = errors.New("not among the roles of this process")

// ErrServer reports a server elsewhere that cannot hold a journal, or not this
// one.
var ErrServer = errors.New("journal server cannot be used")

// errAway is ErrStorage of a server elsewhere.
var errAway error = awayError{}

type awayError struct{}

func (awayError) Error() string { return "journal server does not answer" }

func (awayError) Is(target error) bool { return target == ErrStorage }

// late reports whether a start need not wait for the server: what it is to hold
// is known.
func (r Remote) late() bool { return r.Member && r.Identity != "" }

// InboxPrefix is under which a process of that name gets its answers.
func InboxPrefix(name string) string { return "_INBOX_" + name }

// remote reports whether the server is elsewhere.
func (j *NATS) remote() bool { return len(j.cfg.Remote.URLs) > 0 }

// Connect opens a journal in a server elsewhere, with the code of the embedded
// one. It checks what can be seen from here: version, payload, the streams'
// settings, whose journal it is; ErrServer says what to do about them. Whether
// the server syncs each write (sync_interval: always) cannot be seen. Streams
// that are missing are made, but not by a member. A member that knows its journal
// need not find the server there: it is looked at once it is. While the server is away
// calls end with ErrStorage; the connection comes back by itself.
func Connect(ctx context.Context, cfg Config) (*NATS, error) {
	j := newNATS(cfg)
	if !j.remote() {
		return nil, errors.New("connect to journal: no URL")
	}
	if err := j.initCodecs(); err != nil {
		return nil, errors.Join(err, j.Close())
	}
	if err := j.join(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connect to journal at %s: %w", strings.Join(cfg.Remote.URLs, ", "), err), j.Close())
	}
	return j, nil
}

// join makes the connection and looks at what is there.
func (j *NATS) join(ctx context.Context) error {
	broken, breaks := context.WithCancelCause(context.Background())
	s := &session{broken: broken}
	options, err := j.options(s, breaks)
	if err != nil {
		return err
	}
	if s.nc, err = j.dial(ctx, options); err != nil {
		return connectError(err)
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		s.close()
		return err
	}
	j.mu.Lock()
	j.sess = s
	j.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.nc.Status() != nats.CONNECTED {
		j.identity = j.cfg.Remote.Identity
		return j.listenStored(s)
	}
	if err := checkServer(s.nc); err != nil {
		return err
	}
	if err := j.joinStreams(ctx, s); err != nil {
		return err
	}
	return j.subscribe(s)
}

// dial connects, and again where it is refused: a server whose members change
// refuses whoever is about to say who it is, and may hear of this process late.
func (j *NATS) dial(ctx context.Context, options []nats.Option) (*nats.Conn, error) {
	servers := j.cfg.Remote.servers()
	for tries := 1; ; tries++ {
		nc, err := nats.Connect(servers, options...)
		refused := errors.Is(err, nats.ErrAuthorization)
		switch {
		case err == nil:
			return nc, nil
		case !refused && j.cfg.Remote.late():
			return nats.Connect(servers, append(slices.Clip(options), nats.RetryOnFailedConnect(true))...)
		case !refused, tries == maxRefusals:
			return nil, err
		}
		j.log.Info("journal server does not let this process in yet", "tries", tries, "of", maxRefusals)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(reconnectDelay(tries)):
		}
	}
}

func (j *NATS) options(s *session, breaks context.CancelCauseFunc) ([]nats.Option, error) {
	r := j.cfg.Remote
	options := []nats.Option{
		nats.Name(r.Name), nats.CustomInboxPrefix(InboxPrefix(r.Name)), nats.SyncQueueLen(2 * pageEvents),
		nats.MaxReconnects(-1), nats.CustomReconnectDelay(reconnectDelay),
		// A server that was told of this process late lets it in then.
		nats.IgnoreAuthErrorAbort(),
		// What is sent while the server is away fails at once, it does not wait.
		nats.ReconnectBufSize(-1),
		nats.PingInterval(5 * time.Second), nats.MaxPingsOutstanding(2), nats.Timeout(j.cfg.Timeout),
		nats.ErrorHandler(j.tellOnce()),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { j.log.Warn("journal server is away", "err", err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			j.log.Info("journal server is back", "url", nc.ConnectedUrlRedacted())
			go j.meetAgain(s, breaks)
		}),
	}
	switch {
	case r.TLS != nil && r.HandshakeFirst:
		options = append(options, nats.SetCustomDialer(tlsDialer{r.TLS, j.cfg.Timeout}))
	case r.TLS != nil:
		options = append(options, nats.Secure(r.TLS))
	}
	if r.Seed != "" {
		key, err := nkeys.FromSeed([]byte(r.Seed))
		if err != nil {
			return nil, fmt.Errorf("read nkey: %w", err)
		}
		public, err := key.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("read nkey: %w", err)
		}
		options = append(options, nats.Nkey(public, key.Sign))
	}
	return options, nil
}

// reconnectDelay is how long to wait before all servers are tried again.
func reconnectDelay(tries int) time.Duration {
	d := retryEvery << min(max(tries-1, 0), 4)
	return d + time.Duration(time.Now().UnixNano())%(d/2) // not all at once
}

// tellOnce logs what a connection meets, the same again once a minute.
func (j *NATS) tellOnce() nats.ErrHandler {
	var mu sync.Mutex
	told := map[string]time.Time{} // guarded by mu
	return func(_ *nats.Conn, _ *nats.Subscription, err error) {
		mu.Lock()
		defer mu.Unlock()
		now, text := time.Now(), err.Error()
		if now.Sub(told[text]) < time.Minute {
			return
		}
		if len(told) >= maxTold {
			clear(told)
		}
		told[text] = now
		j.log.Warn("journal connection", "err", err)
	}
}

// servers is the URLs as the client takes them. Of TLS that its dialer does the
// client need not know.
func (r Remote) servers() string {
	all := strings.Join(r.URLs, ",")
	if r.HandshakeFirst {
		all = strings.ReplaceAll(all, "tls://", "nats://")
	}
	return all
}

// tlsDialer connects to where TLS begins at once.
type tlsDialer struct {
	cfg     *tls.Config
	timeout time.Duration
}

// Dial implements nats.CustomDialer.
func (d tlsDialer) Dial(network, address string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	t := tls.Dialer{Config: d.cfg}
	return t.DialContext(ctx, network, address)
}

// connectError says what a failed connection means.
func connectError(err error) error {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return fmt.Errorf("%w: it does not let this process in (%w): was the worker removed? enroll it anew where the journal's main process is: sluice worker enroll", ErrServer, err)
	case errors.Is(err, nats.ErrSecureConnRequired), errors.Is(err, nats.ErrSecureConnWanted):
		return fmt.Errorf("%w: one side wants TLS, the other has none (%w)", ErrServer, err)
	case errors.Is(err, nats.ErrNkeysNotSupported):
		return fmt.Errorf("%w: it knows no nkeys (%w): give it the users that sluice worker enroll prints", ErrServer, err)
	}
	return fmt.Errorf("%w (%w)", errAway, err)
}

// checkServer checks what a server says of itself.
func checkServer(nc *nats.Conn) error {
	if v := nc.ConnectedServerVersion(); !semver.IsValid("v"+v) || semver.Compare("v"+v, "v"+oldestServer) < 0 {
		return fmt.Errorf("%w: it is nats-server %s: the journal needs %s or newer", ErrServer, v, oldestServer)
	}
	if most := nc.MaxPayload(); most < maxPayload {
		return fmt.Errorf("%w: it takes messages of at most %d bytes: set max_payload to %d", ErrServer, most, maxPayload)
	}
	return nil
}

// joinStreams checks the streams, and makes them where they are missing and
// this process may.
func (j *NATS) joinStreams(ctx context.Context, s *session) error {
	events, err := j.streamInfo(ctx, eventsStream)
	if err != nil {
		return err
	}
	bulk, err := j.streamInfo(ctx, bulkStream)
	if err != nil {
		return err
	}
	switch {
	case events != nil:
		j.identity = events.Config.Metadata[identityKey]
		if j.identity == "" {
			return fmt.Errorf("%w: its stream %s is not a journal's: it names no identity", ErrServer, eventsStream)
		}
		if text := events.Config.Metadata[formerKey]; text != "" {
			j.restored = new(restored)
			if err := json.Unmarshal([]byte(text), &j.restored.Former); err != nil {
				return fmt.Errorf("%w: its stream %s does not say which logs it goes on from: %w", ErrServer, eventsStream, err)
			}
		}
	case bulk != nil && bulk.State.LastSeq > 0:
		return fmt.Errorf("%w: it has lost its stream %s: restore a backup", ErrServer, eventsStream)
	case j.cfg.Remote.Member:
		return fmt.Errorf("%w: there is no journal yet: start the main process first", ErrServer)
	case bulk != nil: // a start ended between the two
		j.identity = bulk.Config.Metadata[identityKey]
	default:
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return fmt.Errorf("make journal identity: %w", err)
		}
		j.identity = hex.EncodeToString(id)
	}
	if want := j.cfg.Remote.Identity; want != "" && want != j.identity {
		return fmt.Errorf("%w: it holds journal %s, this process belongs to %s: check the URL", ErrServer, j.identity, want)
	}
	// BULK first: a journal with events has both.
	for _, st := range []struct {
		want jetstream.StreamConfig
		have *jetstream.StreamInfo
	}{{j.bulkConfig(), bulk}, {j.eventsConfig(), events}} {
		if err := j.joinStream(ctx, s, st.want, st.have, events != nil && events.State.LastSeq > 0); err != nil {
			return fmt.Errorf("stream %s: %w", st.want.Name, err)
		}
	}
	return nil
}

// joinStream checks one stream, or makes it.
func (j *NATS) joinStream(ctx context.Context, s *session, want jetstream.StreamConfig, have *jetstream.StreamInfo, used bool) error {
	r := j.cfg.Remote
	if have == nil {
		if r.Member || used {
			return fmt.Errorf("%w: it has lost it: restore a backup", ErrServer)
		}
		want.Replicas = r.Replicas
		if want.Replicas == 0 {
			if want.Replicas = 1; s.nc.ConnectedClusterName() != "" {
				want.Replicas = clusterReplicas
			}
		}
		to := end{nc: s.nc, js: s.js, timeout: j.cfg.Timeout}
		err := to.insist(ctx, func(ctx context.Context) error {
			_, err := s.js.CreateStream(ctx, want)
			return err
		})
		if err != nil {
			return fmt.Errorf("make it with %d replicas: %w", want.Replicas, err)
		}
		return nil
	}
	if owner := have.Config.Metadata[identityKey]; owner != j.identity {
		return fmt.Errorf("%w: it belongs to journal %q, the other stream to %q", ErrServer, owner, j.identity)
	}
	if have.Config.Metadata[copyKey] != "" {
		return fmt.Errorf("%w: it is the copy of a journal, and not finished: run sluice cluster grow again", ErrServer)
	}
	if fault := unfit(want, have.Config); fault != "" {
		return fmt.Errorf("%w: %s", ErrServer, fault)
	}
	if r.Replicas > 0 && have.Config.Replicas != r.Replicas {
		return fmt.Errorf("%w: it has %d replicas, the config asks for %d: change one of them (nats stream edit --replicas)", ErrServer, have.Config.Replicas, r.Replicas)
	}
	if have.Config.Replicas == 1 && have.Cluster != nil && have.Cluster.Name != "" {
		j.log.WarnContext(ctx, "a stream of a cluster has one replica: it is lost with its server", "stream", want.Name)
	}
	stale := tunable(want, have.Config)
	switch {
	case stale == "":
		return nil
	case r.Member:
		return fmt.Errorf("%w: its %s differs from what this program uses: start the main process with this version first", ErrServer, stale)
	}
	next := tuned(want, have.Config)
	if _, err := s.js.UpdateStream(ctx, next); err != nil {
		return fmt.Errorf("update settings: %w", err)
	}
	return nil
}

// unfit is which setting of a stream may lose data or keep it from being
// written; "" where none does.
func unfit(want, have jetstream.StreamConfig) string {
	switch {
	case have.Mirror != nil || len(have.Sources) > 0:
		return "it is a copy of a stream elsewhere: it takes no events before it is promoted"
	case !slices.Equal(have.Subjects, want.Subjects):
		return fmt.Sprintf("its subjects are %v, not %v", have.Subjects, want.Subjects)
	case have.Storage != want.Storage:
		return "it is kept in memory: its storage must be file"
	case have.Retention != want.Retention, have.Discard != want.Discard, have.MaxMsgs > 0, have.MaxAge > 0, have.MaxMsgsPerSubject > 0:
		return "it drops old messages: it must have retention limits, discard new and no max_age or max_msgs"
	case have.DenyDelete != want.DenyDelete, have.DenyPurge != want.DenyPurge:
		return fmt.Sprintf("deny_delete is %t and deny_purge %t: it must be %t and %t", have.DenyDelete, have.DenyPurge, want.DenyDelete, want.DenyPurge)
	case have.PersistMode != want.PersistMode:
		return "it acknowledges before a write is on disk: its persist_mode must be the default"
	case have.NoAck, have.Sealed:
		return "it is sealed, or acknowledges nothing"
	}
	return ""
}

// tunable is a setting that differs and can be changed at any time; "" where
// none does.
func tunable(want, have jetstream.StreamConfig) string {
	switch next := tuned(want, have); {
	case next.MaxMsgSize != have.MaxMsgSize:
		return "max_msg_size"
	case next.Duplicates != have.Duplicates:
		return "duplicate_window"
	case next.AllowDirect != have.AllowDirect:
		return "allow_direct"
	case next.AllowAtomicPublish != have.AllowAtomicPublish:
		return "allow_atomic"
	case (next.RePublish == nil) != (have.RePublish == nil), next.RePublish != nil && *next.RePublish != *have.RePublish:
		return "republish"
	case next.MaxBytes != have.MaxBytes:
		return "max_bytes"
	}
	return ""
}

// tuned is a stream's settings with those that may change as wanted.
func tuned(want, have jetstream.StreamConfig) jetstream.StreamConfig {
	next := have
	next.MaxBytes, next.MaxMsgSize, next.Duplicates = want.MaxBytes, want.MaxMsgSize, want.Duplicates
	next.AllowDirect, next.AllowAtomicPublish, next.RePublish = want.AllowDirect, want.AllowAtomicPublish, want.RePublish
	return next
}

// streamInfo describes a stream; nil where there is none.
func (j *NATS) streamInfo(ctx context.Context, stream string) (*jetstream.StreamInfo, error) {
	info, err := j.info(ctx, stream)
	var refused *jetstream.APIError
	switch {
	case errors.As(err, &refused) && refused.ErrorCode == jetstream.JSErrCodeStreamNotFound:
		return nil, nil //nolint:nilnil // there is none
	case errors.As(err, &refused):
		return nil, fmt.Errorf("%w: %w", ErrServer, err)
	case errors.Is(err, nats.ErrNoResponders):
		return nil, fmt.Errorf("%w: it has no JetStream: enable it (jetstream: enabled, sync_interval: always)", ErrServer)
	}
	return info, err
}

// meetAgain looks after a reconnect whether the journal is still the same one.
// Where it is not, nothing is read from it or written to it.
func (j *NATS) meetAgain(s *session, breaks context.CancelCauseFunc) {
	ctx, cancel := context.WithTimeout(context.Background(), j.cfg.Timeout)
	defer cancel()
	info, err := j.info(ctx, eventsStream)
	if err != nil {
		return // the next call meets the same
	}
	err = checkServer(s.nc)
	if found := info.Config.Metadata[identityKey]; found != j.identity {
		err = fmt.Errorf("the server now holds journal %q, not %q", found, j.identity)
	}
	if err != nil {
		j.log.Error("journal server was exchanged: start this process again once it is right", "err", err)
		breaks(err)
		s.nc.Close()
		return
	}
	if c := j.coordination.Load(); c != nil && !j.cfg.Remote.Member {
		if err := c.ensureBucket(ctx, s); err != nil { // it is in the server's memory
			j.log.Warn("coordination of workers not made anew", "err", err)
		}
	}
	j.hub.wakeAll()
}

// rejoin looks whether the server answers, and connects anew where it does not.
func (j *NATS) rejoin(ctx context.Context, s *session) error {
	_, err := j.info(ctx, eventsStream)
	if err == nil || !errors.Is(err, ErrStorage) || s == nil || s.nc.Status() != nats.CONNECTED {
		return err
	}
	return errors.Join(err, s.nc.ForceReconnect())
}

// noAnswer is the error for a request without an answer.
func (j *NATS) noAnswer(err error) error {
	if j.remote() {
		if j.contact.unanswered(time.Now()) {
			j.leaveServer()
		}
		return fmt.Errorf("%w (%w)", errAway, err)
	}
	return fmt.Errorf("%w (%w)", ErrStorage, err)
}

// mayPublish refuses at once what the server would refuse in silence.
func (j *NATS) mayPublish(subject string) error {
	if may := j.cfg.Remote.MayPublish; may != nil && !may(subject) {
		return fmt.Errorf("write to %s: %w", subject, ErrDenied)
	}
	return nil
}
