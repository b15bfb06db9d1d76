package journal_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
)

// natsServer starts a server with a listener, as others run it.
func natsServer(t *testing.T, change func(*server.Options)) *server.Server {
	t.Helper()
	o := &server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: t.TempDir(), SyncAlways: true, DisableJetStreamBanner: true,
	}
	if change != nil {
		change(o)
	}
	srv, err := server.NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		t.Fatal("server did not start")
	}
	t.Cleanup(func() { srv.Shutdown(); srv.WaitForShutdown() })
	return srv
}

func connect(t *testing.T, srv *server.Server, change func(*journal.Config)) (*journal.NATS, error) {
	t.Helper()
	cfg := journal.Config{Remote: journal.Remote{URLs: []string{srv.ClientURL()}, Name: "main"}, Timeout: 5 * time.Second}
	if change != nil {
		change(&cfg)
	}
	j, err := journal.Connect(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { j.Close() }) //nolint:errcheck // a test may have closed it
	}
	return j, err
}

func mustConnect(t *testing.T, srv *server.Server, change func(*journal.Config)) *journal.NATS {
	t.Helper()
	j, err := connect(t, srv, change)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func TestConnect_Conforms(t *testing.T) {
	journaltest.Conform(t, func(t *testing.T) journal.Journal { return mustConnect(t, natsServer(t, nil), nil) })
}

// What a server cannot do for a journal is an error that says what to change.
func TestConnect_RefusesWhatCannotHoldAJournal(t *testing.T) {
	member := func(c *journal.Config) { c.Remote.Member = true }
	for _, tt := range []struct {
		name    string
		server  func(*server.Options)
		stream  func(*jetstream.StreamConfig) // changed after the journal was made
		config  func(*journal.Config)
		message string
	}{
		{"small payload", func(o *server.Options) { o.MaxPayload = 64 << 10 }, nil, nil, "max_payload"},
		{"no JetStream", func(o *server.Options) { o.JetStream = false }, nil, nil, "enable it"},
		{"member before the main process", nil, nil, member, "start the main process first"},
		{"other journal", nil, func(*jetstream.StreamConfig) {}, func(c *journal.Config) { c.Remote.Identity = strings.Repeat("0", 32) }, "check the URL"},
		{"old messages dropped", nil, func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }, nil, "drops old messages"},
		{"other subjects", nil, func(c *jetstream.StreamConfig) { c.Subjects = []string{"bulk.a.>"} }, nil, "subjects"},
		{"other replicas", nil, func(*jetstream.StreamConfig) {}, func(c *journal.Config) { c.Remote.Replicas = 3 }, "replicas"},
		{"long window", nil, func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute }, member, "duplicate_window"},
		{"foreign", nil, func(c *jetstream.StreamConfig) { c.Metadata = nil }, nil, "belongs to journal"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := natsServer(t, tt.server)
			if tt.stream != nil {
				if err := mustConnect(t, srv, nil).Close(); err != nil {
					t.Fatal(err)
				}
				changeBulk(t, srv, tt.stream)
			}
			_, err := connect(t, srv, tt.config)
			if !errors.Is(err, journal.ErrServer) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error %v, want ErrServer with %q", err, tt.message)
			}
		})
	}
}

// changeBulk changes the settings of BULK as a person with rights might.
func changeBulk(t *testing.T, srv *server.Server, change func(*jetstream.StreamConfig)) {
	t.Helper()
	js := natsJetStream(t, srv)
	st, err := js.Stream(t.Context(), "BULK")
	if err != nil {
		t.Fatal(err)
	}
	c := st.CachedInfo().Config
	change(&c)
	if _, err := js.UpdateStream(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// The main process brings settings up to date that may change at any time; the
// events stay.
func TestConnect_MainBringsSettingsUpToDate(t *testing.T) {
	srv := natsServer(t, nil)
	j := mustConnect(t, srv, nil)
	identity, _, err := j.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	changeBulk(t, srv, func(c *jetstream.StreamConfig) { c.Duplicates = time.Minute })
	again := mustConnect(t, srv, nil)
	if found, _, err := again.Stream(t.Context()); err != nil || found != identity {
		t.Errorf("identity %q, %v, want %q", found, err, identity)
	}
	mustConnect(t, srv, func(c *journal.Config) { c.Remote.Member, c.Remote.Identity = true, identity })
}

// A server that goes away is ErrStorage, not a wait without end; once it is
// back followers and appends go on.
func TestConnect_ServerGoesAndComesBack(t *testing.T) {
	dir := t.TempDir()
	srv := natsServer(t, func(o *server.Options) { o.StoreDir = dir })
	port := serverPort(t, srv)
	j := mustConnect(t, srv, nil)
	ev := func(i int) event.Event {
		return event.New(time.Unix(int64(i), 0), "00000000000000aa", event.Program, &event.ZoneChanged{Source: "f"})
	}
	head, err := j.Append(t.Context(), "00000000000000aa", journal.Head{}, ev(1))
	if err != nil {
		t.Fatal(err)
	}
	seen := make(chan uint64, 8)
	followed := make(chan error, 1)
	go func() {
		followed <- j.Follow(t.Context(), "", 1, nil, func(r journal.Record) error {
			seen <- r.Seq
			if r.Seq == 2 {
				return errEnough
			}
			return nil
		})
	}()
	<-seen
	srv.Shutdown()
	srv.WaitForShutdown()
	if _, err := j.Append(t.Context(), "00000000000000aa", head, ev(2)); !errors.Is(err, journal.ErrStorage) {
		t.Fatalf("append without a server: %v", err)
	}
	natsServer(t, func(o *server.Options) { o.StoreDir, o.Port = dir, port })
	for {
		_, err := j.Append(t.Context(), "00000000000000aa", head, ev(2))
		if err == nil {
			break
		}
		if !errors.Is(err, journal.ErrStorage) {
			t.Fatalf("append after the server is back: %v", err)
		}
	}
	if err := <-followed; !errors.Is(err, errEnough) {
		t.Errorf("follower ended with %v", err)
	}
}

// A write that the roles do not allow fails at once, by name.
func TestConnect_WriteThatIsNotAllowedFailsAtOnce(t *testing.T) {
	srv := natsServer(t, nil)
	j := mustConnect(t, srv, func(c *journal.Config) {
		c.Remote.MayPublish = func(subject string) bool { return strings.HasPrefix(subject, "$JS.API.") }
	})
	_, err := j.Append(t.Context(), "00000000000000aa", journal.Head{},
		event.New(time.Unix(1, 0), "00000000000000aa", event.Program, &event.ZoneChanged{Source: "f"}))
	if !errors.Is(err, journal.ErrDenied) {
		t.Errorf("append: %v", err)
	}
}

// A member that knows its journal starts while the server is away, and is of
// the same journal once it is there.
func TestConnect_MemberStartsWithoutTheServer(t *testing.T) {
	dir := t.TempDir()
	srv := natsServer(t, func(o *server.Options) { o.StoreDir = dir })
	port := serverPort(t, srv)
	identity, _, err := mustConnect(t, srv, nil).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv.Shutdown()
	srv.WaitForShutdown()
	late := func(c *journal.Config) { c.Remote.Member, c.Remote.Identity, c.Remote.Name = true, identity, "late" }
	j := mustConnect(t, srv, late)
	if _, _, err := j.Stream(t.Context()); !errors.Is(err, journal.ErrStorage) {
		t.Fatalf("without a server: %v", err)
	}
	natsServer(t, func(o *server.Options) { o.StoreDir, o.Port = dir, port })
	for {
		found, _, err := j.Stream(t.Context())
		if err == nil && found == identity {
			break
		}
		if err != nil && !errors.Is(err, journal.ErrStorage) || err == nil {
			t.Fatalf("identity %q, %v", found, err)
		}
	}
}
