package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	urfave "github.com/urfave/cli/v2"
	"golang.org/x/sync/errgroup"

	"sluice/cli/api"
	"sluice/cli/metrics"
	"sluice/journal"
	"sluice/keymgr/file"
	"sluice/keymgr/kmip"
	"sluice/keymgr/pkcs11"
	"sluice/pipeline"
	"sluice/pipeline/observe"
	"sluice/xfr"
)

func serveCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "serve", Usage: "run the daemon: load, sign and publish zones",
		Description:  "Flags win over the config file; sluice template config shows that, and every default.",
		OnUsageError: onUsageError,
		Flags: append(append(processFlags(), workerFlags()...),
			&urfave.StringSliceFlag{Name: "zone", Usage: "add the zone `NAME=SOURCE`, or load it now where it is here already; may be given again"},
			&urfave.StringFlag{Name: "nats-listen", Usage: "let enrolled workers reach the journal on `IP:PORT`, over TLS"},
			&urfave.StringFlag{Name: "clock", Usage: "rehearse with a simulated clock: `START[,RATE]`, RATE in seconds a second, 0 is frozen"},
		),
		Action: func(c *urfave.Context) error {
			if _, err := arguments(c); err != nil {
				return err
			}
			s, err := newServing(e, c, false)
			if err != nil {
				return err
			}
			return s.run(c.Context)
		},
	}
}

// processFlags are those of every process that works on zones.
func processFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "config", Usage: "read this config `FILE`"},
		&urfave.StringFlag{Name: "data", Usage: "data `DIR`ectory", DefaultText: "./sluice-data"},
		&urfave.StringFlag{Name: "policy-dir", Usage: "read policies, one NAME.toml each, from `DIR`"},
		&urfave.StringSliceFlag{Name: "listen", Usage: "publish on `IP:PORT`, UDP and TCP; may be given again", DefaultText: "127.0.0.1:8053"},
		&urfave.StringSliceFlag{Name: "listen-tls", Usage: "publish over TLS (XoT) on `IP:PORT`; may be given again"},
		&urfave.StringFlag{Name: "tls-cert", Usage: "certificate `FILE` for --listen-tls, in PEM form", DefaultText: "a self-signed one"},
		&urfave.StringFlag{Name: "tls-key", Usage: "private key `FILE` of --tls-cert"},
		&urfave.StringSliceFlag{Name: "http", Usage: "serve the API over TLS on `IP:PORT`, to those with a token; may be given again"},
		&urfave.StringFlag{Name: "review-loaded", Usage: "serve what was loaded and is under review on `IP:PORT`; empty for nowhere", DefaultText: defaultReviewLoaded},
		&urfave.StringFlag{Name: "review-signed", Usage: "serve what was signed and is under review on `IP:PORT`; empty for nowhere", DefaultText: defaultReviewSigned},
	}
}

// serving is one run of the daemon: the only place that builds and joins its
// parts.
type serving struct {
	e   *env
	cfg config
	// asRead is the config as file and flags say, but for what waits for a
	// restart; read is when it was read, and readConfig reads it again.
	asRead     config
	configFile string
	read       time.Time
	readConfig func() (config, error)
	clock      pipeline.Clock
	// clockName is what the data directory is marked with.
	clockName string
	zones     []pipeline.NewZone
	// member: sluice worker, not the main process. creds, where not nil, is what
	// it proves itself by to a journal elsewhere; roles is what it takes on.
	member  bool
	creds   *credentials
	roles   []pipeline.Role
	joining pipeline.Joining // what workers are told
	log     *slog.Logger
	level   *slog.LevelVar // of log
	memory  *memoryLimit
	manager manager
	sockets *handed
	served  atomic.Bool // zones are served: the start is over

	data    *dataDir
	journal *journal.NATS
	engine  *pipeline.Engine
	xfr     *xfr.Server
	api     net.Listener
	// socket is where api listens, a path.
	socket string
	secure security
	http   httpDoor
	// metrics is told which zones have series of their own.
	metrics *metrics.Metrics
	// observer asks the world's servers.
	observer atomic.Pointer[observe.Observer]
	listens  []netip.AddrPort
	// listensTLS is where zones are published over TLS.
	listensTLS []netip.AddrPort
	reviews    []*xfr.Server
	// reviewAt is where each stage can be fetched; the zero value is nowhere.
	reviewAt map[string]netip.AddrPort
}

// newServing reads config and flags, of a worker with member.
func newServing(e *env, c *urfave.Context, member bool) (*serving, error) {
	s := &serving{e: e, member: member, configFile: c.String("config"), level: new(slog.LevelVar)}
	s.readConfig = func() (config, error) { return configOf(c) }
	var err error
	if s.asRead, err = s.readConfig(); err != nil {
		return nil, err
	}
	s.cfg, s.read = s.asRead, time.Now().UTC()
	if err := s.setWorker(c); err != nil {
		return nil, err
	}
	if s.clock, s.clockName, err = parseClock(c.String("clock")); err != nil {
		return nil, err
	}
	for _, text := range c.StringSlice("zone") {
		name, source, ok := strings.Cut(text, "=")
		if !ok || source == "" {
			return nil, usagef("--zone %q: want NAME=SOURCE", text)
		}
		if _, err := parseZone(name); err != nil {
			return nil, err
		}
		if source, err = absoluteSource(source); err != nil {
			return nil, err
		}
		s.zones = append(s.zones, pipeline.NewZone{Name: name, Source: source})
	}
	s.level.Set(slog.Level(s.cfg.Daemon.LogLevel))
	s.log = newLogger(e.stderr, s.cfg.Daemon.LogFormat, s.level)
	return s, nil
}

// run builds the daemon, runs it until ctx ends, and takes it apart.
func (s *serving) run(ctx context.Context) (err error) {
	hup, stop := catchHangups()
	defer stop()
	if err := s.attach(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.sockets.close()) }()
	s.memory = watchMemory(int64(s.cfg.Daemon.MemoryLimit))
	defer s.memory.end()
	if err := noCoreFiles(); err != nil {
		s.log.WarnContext(ctx, "core files are not forbidden: one would hold private keys", "error", err)
	}
	policies, faults, err := s.policies(ctx)
	if err != nil {
		return err
	}
	if s.data, err = s.openData(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.data.close()) }()
	keystore, err := file.Open(file.Config{Dir: s.data.keys()})
	if err != nil {
		return err
	}
	tsig, err := file.OpenTSIG(filepath.Join(s.data.keys(), "tsig"))
	if err != nil {
		return err
	}
	if err := errors.Join(s.openTLS(), s.openHTTP()); err != nil {
		return err
	}
	reserve, err := pipeline.OpenReserve(filepath.Join(s.data.path, "reserve"), uint64(s.cfg.Journal.ReserveMax))
	switch {
	case reserve == nil:
		return err
	case err != nil: // it is filled later; zones are served meanwhile
		s.log.ErrorContext(ctx, "disk reserve not whole", "error", err)
	}
	if err := s.openJournal(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.journal.Close()) }()
	archive, err := s.openArchive(ctx)
	if err != nil {
		return err
	}
	if archive != nil {
		defer archive.Close()
	}
	sealing, err := s.sealing(ctx)
	if err != nil {
		return err
	}
	if err := s.openObserver(); err != nil {
		return err
	}
	prober, _ := s.cfg.Prober.prober(s.validate) // checked with the config
	cfg := pipeline.Config{
		Prober:  prober,
		Journal: s.journal, Keystore: keystore, Tokens: pkcs11.NewTokens(filepath.Join(s.data.keys(), "pkcs11"), time.Now),
		Servers:  kmip.NewServers(filepath.Join(s.data.keys(), "kmip"), time.Now),
		StoreDir: filepath.Join(s.data.projections(), "zones"), JournalDir: s.data.journal(), SpillDir: s.data.spill(), Reserve: reserve,
		HintFile: s.data.upstream(), RunDir: s.data.run(), Version: readVersion().Version, Software: softwareName(),
		Policies: policies, PolicyFaults: faults, PolicyDir: s.cfg.PolicyDir,
		Clock: s.clock, Logger: s.log, LogLevel: s.level, Alarms: s.cfg.Alarms.alarms(), Sealing: sealing, Seal: s.cfg.Audit.Seal, Archive: archive, Workers: s.cfg.Daemon.Workers,
		Observe: s.observe, Resolve: s.resolve, Agents: s.agents,
		Certificates: s.httpAlarms,
		TSIG:         tsig, Client: xfr.ClientConfig{
			Limits: s.cfg.Transfers.limits(), WeakTSIG: s.cfg.Server.WeakTSIG, Roots: s.secure.servers, Certificate: s.secure.certificate,
		},
	}
	if err := s.shareWork(ctx, &cfg); err != nil {
		return err
	}
	if s.engine, err = pipeline.NewEngine(ctx, cfg); err != nil {
		return err
	}
	// By now every listener has ended, and with it every view.
	defer func() { err = errors.Join(err, s.engine.Close()) }()
	s.engine.SetReload(pipeline.ConfigStatus{File: s.configFile, Loaded: s.read}, s.reload)
	if err := s.listenEverywhere(ctx); err != nil {
		return err
	}
	return s.serve(ctx, hup)
}

// policies reads the policy folder. A file with a fault is logged and must
// not keep the zones of the others from being signed; without the folder
// nobody knows what the zones are to be signed with.
func (s *serving) policies(ctx context.Context) (policies map[string]pipeline.Policy, faults []error, err error) {
	if s.cfg.PolicyDir == "" {
		return nil, nil, nil
	}
	policies, faults = pipeline.LoadDir(s.cfg.PolicyDir)
	for _, fault := range faults {
		if _, ok := errors.AsType[*pipeline.PolicyFault](fault); !ok {
			return nil, nil, withHint(fault, "name the folder of the policy files with --policy-dir, or leave it out for the built-in policy")
		}
		s.log.ErrorContext(ctx, "policy not loaded", "error", fault)
	}
	return policies, faults, nil
}

// listenEverywhere opens all listeners.
func (s *serving) listenEverywhere(ctx context.Context) error {
	if err := s.listen(ctx); err != nil {
		return err
	}
	if err := s.listenHTTP(ctx); err != nil {
		return errors.Join(err, s.xfr.Close(), s.api.Close())
	}
	if err := s.listenReviews(ctx); err != nil {
		return errors.Join(err, s.xfr.Close(), s.api.Close(), s.closeHTTP())
	}
	if err := s.checkHanded(ctx); err != nil {
		return errors.Join(err, s.xfr.Close(), s.api.Close(), s.closeHTTP())
	}
	return nil
}

// listen opens the listeners of publication and API.
func (s *serving) listen(ctx context.Context) (err error) {
	s.xfr, err = xfr.NewServer(xfr.Config{
		Source: s.engine.Source(), Keys: s.engine.TSIG(), WeakTSIG: s.cfg.Server.WeakTSIG,
		AllowsNotify: s.engine.AllowsNotify, Notified: s.engine.Notified, Update: s.engine.Update, Enclosing: s.engine.UpdateZone, Transferred: s.engine.Transferred,
		ClientRoots: s.secure.clients,
		Listeners:   s.sockets, Grace: time.Duration(s.cfg.Server.StopGrace),
		Logger: s.log.With("part", "publication"),
	})
	if err != nil {
		return err
	}
	for _, address := range s.cfg.Server.Servers {
		bound, err := s.xfr.Listen(ctx, address)
		if err != nil {
			return withHint(errors.Join(err, s.xfr.Close()), "choose another address with --listen IP:PORT")
		}
		s.listens = append(s.listens, bound)
	}
	if err := s.listenTLS(ctx); err != nil {
		return err
	}
	if s.api, s.socket = s.sockets.api(); s.api != nil {
		return nil
	}
	s.socket = cmp.Or(s.cfg.Socket, s.data.socket())
	if s.api, err = listenSocket(ctx, s.socket); err != nil {
		return errors.Join(err, s.xfr.Close())
	}
	return nil
}

// listenSocket opens the daemon's socket. One that an earlier daemon left
// behind is taken away.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode()&os.ModeSocket == 0:
		return nil, fmt.Errorf("open socket: %s is there already and is no socket: move it away", path)
	default:
		var d net.Dialer
		if c, err := d.DialContext(ctx, "unix", path); err == nil {
			_ = c.Close() // nothing was asked
			return nil, withHint(fmt.Errorf("the socket %s is in use by another daemon: %w", path, pipeline.ErrState),
				"stop that daemon, or choose another socket in the config")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		if len(path) > 100 {
			err = withHint(err, "the path of a socket is limited to 107 bytes: choose a shorter --data, or a socket in the config")
		}
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// stopTimeout is how long requests may go on when the daemon stops.
const stopTimeout = 5 * time.Second

// serve runs all parts until ctx ends or one of them fails.
func (s *serving) serve(ctx context.Context, hup <-chan os.Signal) error {
	if err := s.gateHTTP(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	handler, scraped := s.apiHandler()
	socket := newHTTPServer(ctx, handler, s.log)
	socket.ConnContext = api.ConnContext
	// The engine ends last: what was let in is still answered.
	engine, stopEngine := context.WithCancel(context.WithoutCancel(ctx))
	g.Go(func() error { return s.engine.Run(engine) })
	g.Go(func() error {
		defer stopEngine()
		return s.answer(ctx)
	})
	g.Go(func() error { return notClosed(socket.Serve(s.api)) })
	g.Go(func() error {
		<-ctx.Done()
		s.manager.stopping(context.WithoutCancel(ctx))
		return stopServer(ctx, socket)
	})
	g.Go(func() error { return s.serveHTTP(ctx, g, handler, scraped) })
	g.Go(func() error { return s.start(ctx) })
	g.Go(func() error {
		s.attend(ctx, hup)
		return nil
	})
	return g.Wait()
}

// answerLate is how long questions may wait for the zones to be served when the
// daemon starts. Then they are answered all the same.
const answerLate = 10 * time.Second

// answer runs the listeners for zones until ctx ends and all answers under way
// are given.
func (s *serving) answer(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, answerLate)
	_ = s.awaitServing(wait) // late or not
	cancel()
	var g errgroup.Group
	for _, server := range append([]*xfr.Server{s.xfr}, s.reviews...) {
		g.Go(func() error { return server.Run(ctx) })
	}
	return g.Wait()
}
