package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/journal"
	"sluice/keymgr/file"
	"sluice/keymgr/share"
	"sluice/pipeline"
	"sluice/xfr"
)

// workerConfig is this process's part among those that share a journal.
type workerConfig struct {
	Name        string   `toml:"name"`
	Roles       []string `toml:"roles"`
	Listen      string   `toml:"listen"`
	Certificate string   `toml:"certificate"`
	Key         string   `toml:"key"`
	Advertise   []string `toml:"advertise"`
	URLs        []string `toml:"urls"`
	Roots       string   `toml:"roots"`
	Creds       string   `toml:"creds"`
	Replicas    int      `toml:"replicas"`
}

// check finds values that cannot work; nil where there are none.
func (c *workerConfig) check() *badValue {
	if c.Name != "" && !journal.ValidWorker(c.Name) {
		return &badValue{key: "worker.name", text: fmt.Sprintf("name = %q: want 1 to 32 lower-case letters, digits and hyphens", c.Name)}
	}
	if _, err := pipeline.ParseRoles(strings.Join(c.Roles, ",")); err != nil {
		return &badValue{key: "worker.roles", text: err.Error()}
	}
	if c.Listen != "" {
		if err := checkListen(c.Listen); err != nil {
			return &badValue{key: "worker.listen", text: err.Error()}
		}
	}
	if (c.Certificate == "") != (c.Key == "") {
		return &badValue{key: "worker.certificate", text: "certificate and key belong together: set both or neither"}
	}
	for key, urls := range map[string][]string{"worker.urls": c.URLs, "worker.advertise": c.Advertise} {
		for _, u := range urls {
			if err := checkNATSURL(u); err != nil {
				return &badValue{key: key, value: u, text: err.Error()}
			}
		}
	}
	switch {
	case c.Listen != "" && len(c.URLs) > 0:
		return &badValue{key: "worker.listen", text: "the journal is either in this process, with listen (--nats-listen), or elsewhere, with urls (--nats-url): not both"}
	case c.Replicas < 0 || c.Replicas > 5 || c.Replicas == 2 || c.Replicas == 4:
		return &badValue{key: "worker.replicas", text: fmt.Sprintf("replicas = %d: want 1, 3 or 5, or 0 for what fits", c.Replicas)}
	}
	return nil
}

// checkNATSURL checks where a journal elsewhere is.
func checkNATSURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "" || u.Path != "" {
		return fmt.Errorf("URL %q: want nats://HOST:PORT, or tls://HOST:PORT for TLS", text)
	}
	if u.User != nil {
		return fmt.Errorf("a URL with a user or password (%s): they would be shown; use an nkey in a file of credentials", u.Redacted())
	}
	return nil
}

// workerFlags are what serve and worker have in common about it.
func workerFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringSliceFlag{Name: "nats-url", Usage: "the journal is in the NATS server or cluster at `URL`; may be given again"},
		&urfave.StringFlag{Name: "creds", Usage: "prove this process to it by `FILE`, see sluice worker enroll"},
		&urfave.StringFlag{Name: "roles", Usage: "take on these parts of the work alone: `LIST` of load, review, sign, keys, observe, publish", DefaultText: "all"},
	}
}

// setWorker takes the flags about workers over the config.
func (s *serving) setWorker(c *urfave.Context) error {
	w := &s.cfg.Worker
	if c.IsSet("nats-url") {
		w.URLs = nil
		for _, list := range c.StringSlice("nats-url") {
			w.URLs = append(w.URLs, strings.Split(list, ",")...)
		}
	}
	for flag, to := range map[string]*string{"nats-listen": &w.Listen, "creds": &w.Creds} {
		if c.IsSet(flag) {
			*to = c.String(flag)
		}
	}
	if c.IsSet("roles") {
		w.Roles = strings.Split(c.String("roles"), ",")
	}
	if bad := w.check(); bad != nil {
		return usagef("%v", bad)
	}
	if w.Creds != "" {
		creds, err := readCredentials(w.Creds)
		if err != nil {
			return err
		}
		if s.creds = &creds; w.Name != "" && w.Name != creds.Name {
			return usagef("the config's [worker] name is %s, %s is for %s: leave one of them out", w.Name, w.Creds, creds.Name)
		}
		if len(w.URLs) == 0 {
			w.URLs = creds.URLs
		}
	}
	if s.member && (s.creds == nil || w.Listen != "") {
		return &usageError{msg: "a worker proves itself to the journal by its credentials", hint: "sluice worker --creds FILE; make the file at the main process: sluice worker enroll NAME --roles LIST -o FILE"}
	}
	if s.creds != nil && s.creds.Gate && !s.member {
		return &usageError{msg: "the journal is in another process of this program, which is the main one", hint: "run a worker: sluice worker --creds FILE"}
	}
	if s.creds != nil && len(w.URLs) == 0 {
		return &usageError{msg: "credentials without a journal elsewhere", hint: "say where it is: --nats-url URL"}
	}
	return s.setRoles(c)
}

// setRoles finds what of the work this process takes on, and which listeners
// belong to that.
func (s *serving) setRoles(c *urfave.Context) error {
	w := s.cfg.Worker
	list := w.Roles
	if s.member {
		if len(list) == 0 {
			list = s.creds.Roles
		}
		for _, r := range list {
			if r = strings.TrimSpace(r); !slices.Contains(s.creds.Roles, r) {
				return withHint(fmt.Errorf("worker %s was enrolled for %s, not for %q: %w", s.creds.Name, strings.Join(s.creds.Roles, ", "), r, pipeline.ErrState),
					"leave --roles out, or enroll it anew at the main process: sluice worker remove %s, then sluice worker enroll", s.creds.Name)
			}
		}
	}
	var err error
	if s.roles, err = pipeline.ParseRoles(strings.Join(list, ",")); err != nil {
		return usagef("%v", err)
	}
	if len(s.roles) < len(pipeline.AllRoles()) && !s.shared() {
		return &usageError{msg: "--roles: nobody would do the rest, this journal is shared with no other process", hint: "let workers in with --nats-listen IP:PORT, or leave --roles out"}
	}
	publishes := slices.Contains(s.roles, pipeline.RolePublish)
	if !publishes && !slices.Contains(s.roles, pipeline.RoleLoad) && c.IsSet("listen") {
		return &usageError{msg: "--listen: neither role publish nor load is among the roles of this process", hint: "leave one of --listen and --roles out"}
	}
	if !publishes && !c.IsSet("listen") {
		s.cfg.Server.Servers, s.cfg.Server.TLS.Servers = nil, nil
	}
	if !slices.Contains(s.roles, pipeline.RoleReview) {
		s.cfg.Loader.Review.Servers, s.cfg.Signer.Review.Servers = nil, nil
	}
	return nil
}

// remote reports whether the journal is elsewhere.
func (s *serving) remote() bool { return len(s.cfg.Worker.URLs) > 0 }

// shared reports whether other processes can share the work.
func (s *serving) shared() bool { return s.remote() || s.cfg.Worker.Listen != "" }

// workerName is this process's name among those that share the journal.
func (s *serving) workerName() string {
	if s.creds != nil {
		return s.creds.Name
	}
	return cmp.Or(s.cfg.Worker.Name, "main")
}

// journalHome is where a data directory says that its journal is elsewhere.
type journalHome struct {
	Journal string `json:"journal"` // identity of the stream
	Worker  string `json:"worker"`
	Member  bool   `json:"member,omitempty"` // started by sluice worker
}

const journalHomeFile = "journal.json"

// checkOwner refuses the data directory of a process whose journal is elsewhere.
func (d *dataDir) checkOwner() error {
	home, err := d.journalHome()
	if err != nil || home.Journal == "" {
		return err
	}
	hint := "start it with --nats-url as before, or choose another directory with --data"
	if home.Member {
		hint = "start it with sluice worker as before, or choose another directory with --data"
	}
	return withHint(fmt.Errorf("data directory %s belongs to process %s of a journal elsewhere: %w", d.path, home.Worker, pipeline.ErrState), "%s", hint)
}

func (d *dataDir) journalHome() (journalHome, error) {
	var home journalHome
	text, err := os.ReadFile(filepath.Join(d.path, journalHomeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return home, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &home)
	}
	if err != nil {
		return home, fmt.Errorf("read where the journal is: %w", err)
	}
	return home, nil
}

// openData opens the data directory that fits where the journal is.
func (s *serving) openData() (*dataDir, error) {
	if !s.remote() {
		return openDataDir(s.cfg.DataDir, s.clockName, true)
	}
	d, err := openAnyDataDir(s.cfg.DataDir, s.clockName, true)
	if err != nil {
		return nil, err
	}
	if err := s.checkHome(d); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// checkHome refuses the data directory of another process, and one whose
// journal is still its own.
func (s *serving) checkHome(d *dataDir) error {
	home, err := d.journalHome()
	if err != nil {
		return err
	}
	if home.Journal != "" && (home.Worker != s.workerName() || home.Member != s.member) {
		return withHint(fmt.Errorf("data directory %s belongs to process %s: %w", d.path, home.Worker, pipeline.ErrState), "choose another directory with --data")
	}
	var marker struct {
		Mode string `json:"mode"`
	}
	text, err := os.ReadFile(filepath.Join(d.journal(), "sluice-journal.json"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	}
	if err := json.Unmarshal(text, &marker); err != nil || marker.Mode == "standalone" || s.member {
		return withHint(fmt.Errorf("data directory %s has a journal of its own: %w", d.path, pipeline.ErrState),
			"to bring that to the servers: sluice cluster grow; else choose another directory with --data")
	}
	return nil
}

// openJournal opens the journal, here or elsewhere.
func (s *serving) openJournal(ctx context.Context) error {
	cfg := journal.Config{
		Logger:         s.log.With("part", "journal"),
		EventsMaxBytes: int64(s.cfg.Journal.EventsMaxSize), BulkMaxBytes: int64(s.cfg.Journal.BulkMaxSize),
	}
	var err error
	if !s.remote() {
		cfg.Dir = s.data.journal()
		if cfg.Listen, err = s.listenForWorkers(); err != nil {
			return err
		}
		if s.journal, err = journal.Open(ctx, cfg); err == nil {
			s.tellJoining()
		}
		return err
	}
	if cfg.Remote, err = s.remoteConfig(); err != nil {
		return err
	}
	home, err := s.data.journalHome()
	if err != nil {
		return err
	}
	if home.Journal != "" {
		cfg.Remote.Identity = home.Journal
	}
	if s.journal, err = journal.Connect(ctx, cfg); err != nil {
		return err
	}
	if !s.member {
		s.joining = pipeline.Joining{URLs: s.cfg.Worker.Advertise}
		if len(s.joining.URLs) == 0 {
			s.joining.URLs = s.cfg.Worker.URLs
		}
		if s.cfg.Worker.Roots != "" {
			pem, err := os.ReadFile(s.cfg.Worker.Roots)
			if err != nil {
				return errors.Join(err, s.journal.Close())
			}
			s.joining.Roots = string(pem)
		}
	}
	if home.Journal == "" {
		if err := s.writeHome(ctx); err != nil {
			return errors.Join(err, s.journal.Close())
		}
	}
	return nil
}

// writeHome notes in the data directory whose it is.
func (s *serving) writeHome(ctx context.Context) error {
	identity := ""
	if s.creds != nil {
		identity = s.creds.Journal
	}
	if identity == "" {
		var err error
		if identity, _, err = s.journal.Stream(ctx); err != nil {
			return err
		}
	}
	text, err := json.Marshal(journalHome{Journal: identity, Worker: s.workerName(), Member: s.member})
	if err != nil {
		return err
	}
	out := outFile{path: filepath.Join(s.data.path, journalHomeFile), replace: true, mode: 0o600}
	return out.write(func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
}

// remoteConfig is how a journal elsewhere is reached.
func (s *serving) remoteConfig() (r journal.Remote, err error) {
	w := s.cfg.Worker
	if s.creds != nil {
		if r, err = s.creds.remote(); err != nil {
			return r, err
		}
	}
	r.URLs, r.Name, r.Member, r.Replicas = w.URLs, s.workerName(), s.member, w.Replicas
	if w.Roots != "" || r.TLS == nil && overTLS(w.URLs) {
		pem := ""
		if w.Roots != "" {
			text, err := os.ReadFile(w.Roots)
			if err != nil {
				return r, err
			}
			pem = string(text)
		}
		if r.TLS, err = rootsTLS(pem); err != nil {
			return r, err
		}
	}
	if s.member {
		r.MayPublish = journal.Member{Name: s.creds.Name, Roles: s.creds.Roles}.Access().MayPublish
	}
	return r, nil
}

// rootsTLS is TLS to servers that certificates in PEM form vouch for.
func rootsTLS(pem string) (*tls.Config, error) {
	pool, err := parseRoots(pem)
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}, err
}

// listenForWorkers is where other processes reach the journal of this one.
func (s *serving) listenForWorkers() (l journal.Listen, err error) {
	w := s.cfg.Worker
	if w.Listen == "" {
		return l, nil
	}
	var cert *xfr.Certificate
	if w.Certificate != "" {
		cert, err = xfr.LoadCertificate(w.Certificate, w.Key)
	} else if cert, err = xfr.OwnCertificate(filepath.Join(s.data.keys(), "nats"), namesFor([]string{w.Listen})); err == nil {
		s.joining.Pin = cert.Pin()
	}
	if err != nil {
		return l, err
	}
	return journal.Listen{Address: w.Listen, TLS: cert.ServerTLS()}, nil
}

// tellJoining notes what enrolled workers are told.
func (s *serving) tellJoining() {
	w := s.cfg.Worker
	if w.Listen == "" {
		return
	}
	s.joining.Gate, s.joining.URLs = true, w.Advertise
	if len(w.Advertise) > 0 {
		return
	}
	at := s.journal.ListenAddr()
	host := at.Addr().String()
	if at.Addr().IsUnspecified() {
		if name, err := os.Hostname(); err == nil {
			host = name
		}
	}
	if addr, err := netip.ParseAddr(host); err == nil && addr.Is6() {
		host = "[" + host + "]"
	}
	s.joining.URLs = []string{fmt.Sprintf("tls://%s:%d", host, at.Port())}
}

// shareWork fills in this process's part among those that share the journal.
func (s *serving) shareWork(ctx context.Context, cfg *pipeline.Config) error {
	cfg.Worker, cfg.Roles, cfg.Version = s.workerName(), s.roles, readVersion().Version
	cfg.RunDir = filepath.Join(s.data.projections(), "run")
	cfg.Remote, cfg.Member = s.remote(), s.member
	if s.remote() {
		cfg.JournalDir = ""
	}
	if !s.shared() {
		return nil
	}
	cfg.Joining = s.joining
	if s.joining.Gate {
		cfg.Admit = s.journal.Admit
	}
	if err := s.shareSecrets(cfg); err != nil {
		return err
	}
	var err error
	cfg.Coordinator, err = s.journal.Coordinator(ctx, 0)
	return err
}

// shareSecrets fills in what private keys and TSIG secrets are handed to this
// process by, and from it to others.
func (s *serving) shareSecrets(cfg *pipeline.Config) (err error) {
	if s.member {
		cfg.Sharing.Identity, err = share.ParseIdentity(s.creds.Name, s.creds.Age, s.creds.NKey)
		return err
	}
	cfg.Sharing.Identity, err = file.OpenIdentity(s.data.keys(), s.workerName())
	for _, r := range s.roles {
		cfg.Sharing.Enroll = append(cfg.Sharing.Enroll, string(r))
	}
	return err
}
