package journal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"
)

const (
	domain     = "sluice"
	maxPayload = 1 << 20
	// dedupeWindow is short because the server reads at start all that was
	// written within it.
	dedupeWindow = time.Second
	startTimeout = 2 * time.Minute
	// answerTime is how long a member may take to answer a question.
	answerTime = 10 * time.Minute
	// maxSubs bounds what one connection hears: a worker that owns everything
	// answers 384 subjects.
	maxSubs = 4096
	// storeLimit keeps the server from refusing a stream because the disk
	// happens to be full when it starts; the streams have limits of their own.
	storeLimit = 1 << 60
)

// session is one life of the embedded server and the connection to it, or the
// connection to a server elsewhere.
type session struct {
	srv  *server.Server // nil where it is elsewhere
	opts *server.Options
	own  nkeys.KeyPair // of this process; nil where nobody else reaches the server
	nc   *nats.Conn
	js   jetstream.JetStream
	// broken ends once the server has said that it cannot write, after which
	// it answers no more until it is started again.
	broken context.Context //nolint:containedctx // ends with the server's ability to write
}

// serverOptions are those of the embedded server: without any listener.
func serverOptions(dir string) *server.Options {
	return &server.Options{
		ServerName:             "sluice",
		DontListen:             true,
		NoSigs:                 true,
		MaxPayload:             maxPayload,
		JetStream:              true,
		JetStreamDomain:        domain,
		JetStreamMaxMemory:     64 << 20,
		JetStreamMaxStore:      storeLimit,
		DisableJetStreamBanner: true,
		StoreDir:               dir,
		// The default is to sync every two minutes: an acknowledged event
		// would be lost with the power.
		SyncAlways: true,
	}
}

// users lets this process do everything, and each member what is its own.
func (s *session) users(members []Member) ([]*server.NkeyUser, error) {
	public, err := s.own.PublicKey()
	if err != nil {
		return nil, err
	}
	users := []*server.NkeyUser{{Nkey: public}}
	for _, m := range members {
		a := m.Access()
		users = append(users, &server.NkeyUser{Nkey: m.NKey, Permissions: &server.Permissions{
			Publish:   &server.SubjectPermission{Allow: a.Publish, Deny: a.Deny},
			Subscribe: &server.SubjectPermission{Allow: a.Subscribe},
			Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: answerTime},
		}})
	}
	return users, nil
}

// reload has the server know other members.
func (s *session) reload(members []Member) error {
	next := s.opts.Clone()
	var err error
	if next.Nkeys, err = s.users(members); err != nil {
		return err
	}
	return s.srv.ReloadOptions(next)
}

// connectEmbedded starts a server on a store and connects to it inside the
// process. Where others are to reach it, everybody proves who they are.
func connectEmbedded(ctx context.Context, cfg Config, log *slog.Logger, members []Member) (*session, error) {
	s := &session{opts: serverOptions(cfg.Dir)}
	options := []nats.Option{}
	if cfg.Listen.Address != "" {
		s.opts.MaxSubs = maxSubs
		var err error
		if s.own, err = nkeys.CreateUser(); err != nil {
			return nil, fmt.Errorf("make embedded server: %w", err)
		}
		if s.opts.Nkeys, err = s.users(members); err != nil {
			return nil, fmt.Errorf("make embedded server: %w", err)
		}
		options = append(options, nats.Nkey(s.opts.Nkeys[0].Nkey, s.own.Sign))
	}
	srv, err := server.NewServer(s.opts)
	if err != nil {
		return nil, fmt.Errorf("make embedded server: %w", err)
	}
	s.srv = srv
	var breaks context.CancelCauseFunc
	s.broken, breaks = context.WithCancelCause(context.Background())
	srv.SetLoggerV2(serverLog{log, breaks}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(startTimeout) {
		s.close()
		return nil, errors.New("embedded server did not start")
	}
	s.nc, err = nats.Connect("", append(options, nats.InProcessServer(srv), nats.Name("sluice"),
		// A page of events is the longest answer that is read from a queue;
		// the default queue takes half a megabyte a request.
		nats.SyncQueueLen(2*pageEvents), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			log.Warn("journal connection", "err", err)
		}))...)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("connect to embedded server: %w", err)
	}
	if s.js, err = jetstream.New(s.nc); err != nil {
		s.close()
		return nil, fmt.Errorf("connect to embedded server: %w", err)
	}
	if err := ctx.Err(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// close ends the connection and the server, and waits for it.
func (s *session) close() {
	if s.nc != nil {
		s.nc.Close()
	}
	if s.srv != nil {
		s.srv.Shutdown()
		s.srv.WaitForShutdown()
	}
}

// serverLog hands the server's log lines on: what it calls notices are of no
// interest to an operator.
type serverLog struct {
	log *slog.Logger
	// breaks is called at the line that tells of a write error which the
	// server does not get over. Without it, each request would wait in vain.
	breaks context.CancelCauseFunc
}

// criticalWrite is what that line says (nats-server 2.15).
const criticalWrite = "critical write error"

func (l serverLog) Noticef(format string, v ...any) { l.debug(format, v) }
func (l serverLog) Debugf(format string, v ...any)  { l.debug(format, v) }
func (l serverLog) Tracef(format string, v ...any)  { l.debug(format, v) }
func (l serverLog) Warnf(format string, v ...any)   { l.warn(format, v) }
func (l serverLog) Errorf(format string, v ...any)  { l.warn(format, v) }
func (l serverLog) Fatalf(format string, v ...any)  { l.warn(format, v) }

func (l serverLog) debug(format string, v []any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("journal server", "text", fmt.Sprintf(format, v...))
	}
}

func (l serverLog) warn(format string, v []any) {
	text := fmt.Sprintf(format, v...)
	l.log.Warn("journal server", "text", text)
	if strings.Contains(strings.ToLower(text), criticalWrite) {
		l.breaks(errors.New(text))
	}
}
