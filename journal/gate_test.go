package journal_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"sluice/journal"
	"sluice/journal/event"
)

const gateZone event.ZoneID = "00000000000000aa"

// guest is a member with what it proves itself by.
type guest struct {
	journal.Member
	seed string
}

func newGuest(t *testing.T, name string, roles ...string) guest {
	t.Helper()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	return guest{journal.Member{Name: name, NKey: public, Roles: roles}, string(seed)}
}

// gateTLS is a listener's TLS, and that of those who connect to it.
func gateTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		&tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}
}

// gated is an embedded journal that members reach, and how.
type gated struct {
	*journal.NATS
	client *tls.Config
}

func openGated(t *testing.T, guests ...guest) gated {
	t.Helper()
	server, client := gateTLS(t)
	j := openDir(t, journal.Config{Listen: journal.Listen{Address: "127.0.0.1:0", TLS: server}})
	if _, err := j.Coordinator(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	g := gated{j, client}
	g.admit(t, guests...)
	return g
}

func (g gated) admit(t *testing.T, guests ...guest) {
	t.Helper()
	members := make([]journal.Member, 0, len(guests))
	for _, one := range guests {
		members = append(members, one.Member)
	}
	if err := g.Admit(members); err != nil {
		t.Fatal(err)
	}
}

func (g gated) config(one guest) journal.Config {
	return journal.Config{Timeout: 3 * time.Second, Remote: journal.Remote{
		URLs: []string{"tls://" + g.ListenAddr().String()}, Name: one.Name, Seed: one.seed, TLS: g.client, HandshakeFirst: true,
		Member: true, MayPublish: one.Access().MayPublish,
	}}
}

func (g gated) connect(t *testing.T, one guest) *journal.NATS {
	t.Helper()
	j, err := journal.Connect(t.Context(), g.config(one))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() }) //nolint:errcheck // a test may have closed it
	return j
}

// raw is a connection with the credentials of a member, but not its program.
func (g gated) raw(t *testing.T, one guest) (*nats.Conn, chan error) {
	t.Helper()
	key, err := nkeys.FromSeed([]byte(one.seed))
	if err != nil {
		t.Fatal(err)
	}
	told := make(chan error, 1)
	nc, err := nats.Connect("nats://"+g.ListenAddr().String(), nats.Nkey(one.NKey, key.Sign), nats.NoReconnect(),
		nats.CustomInboxPrefix(journal.InboxPrefix(one.Name)), nats.SetCustomDialer(dial{g.client}),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}), // LastError has it
		nats.ClosedHandler(func(*nats.Conn) { told <- nats.ErrConnectionClosed }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc, told
}

type dial struct{ cfg *tls.Config }

func (d dial) Dial(network, address string) (net.Conn, error) {
	return (&tls.Dialer{Config: d.cfg}).DialContext(context.Background(), network, address)
}

func loadFailed(i int) event.Event {
	return event.New(time.Unix(int64(i), 0), gateZone, event.Program, &event.LoadFailed{Source: "file", Reason: fmt.Sprint(i), Total: 1})
}

// A member works with the journal as the main process does, as far as its roles
// go; what the other has is what it reads.
func TestGate_MemberReadsAndWritesByItsRoles(t *testing.T) {
	one := newGuest(t, "load-1", "load")
	g := openGated(t, one)
	j := g.connect(t, one)
	head, err := j.Append(t.Context(), gateZone, journal.Head{}, loadFailed(1))
	if err != nil {
		t.Fatal(err)
	}
	if head, err = j.Append(t.Context(), gateZone, head, loadFailed(2), loadFailed(3), loadFailed(4)); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Head(t.Context(), gateZone); err != nil || got != head {
		t.Errorf("head %+v, %v, want %+v", got, err, head)
	}
	if _, err := j.Append(t.Context(), gateZone, journal.Head{}, loadFailed(9)); !errors.Is(err, journal.ErrConflict) {
		t.Errorf("append behind an old head: %v", err)
	}
	w := j.NewChunks(gateZone, "c0")
	raw := bytes.Repeat([]byte("x"), journal.MaxRawChunk)
	if err := w.Put(t.Context(), journal.RawChunk{Raw: raw, Items: 1}); err != nil {
		t.Fatal(err)
	}
	m, err := w.Finish(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := g.Chunk(t.Context(), m.Subject, m.Chunks[0]); err != nil || !bytes.Equal(got, raw) {
		t.Errorf("chunk of %d bytes, %v", len(got), err)
	}
	seen := 0
	err = j.Follow(t.Context(), "", 1, nil, func(journal.Record) error {
		if seen++; seen == 4 {
			return errEnough
		}
		return nil
	})
	if !errors.Is(err, errEnough) {
		t.Errorf("follow: %v", err)
	}
	_, err = j.Append(t.Context(), gateZone, head, event.New(time.Unix(5, 0), gateZone, event.Program, &event.KeyActivated{IDs: []string{"00"}}))
	if !errors.Is(err, journal.ErrDenied) {
		t.Errorf("append of another role's event: %v", err)
	}
}

// Members find each other, hold leases of their roles in their own names, and
// answer each other.
func TestGate_MembersCoordinate(t *testing.T) {
	signs, keeps := newGuest(t, "signs", "sign"), newGuest(t, "keeps", "keys")
	g := openGated(t, signs, keeps)
	ctx := t.Context()
	coordinator := func(one guest) journal.Coordinator {
		c, err := g.connect(t, one).Coordinator(ctx, 0)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	a, b := coordinator(signs), coordinator(keeps)
	if err := a.Announce(ctx, "signs", []byte("{}")); err != nil {
		t.Fatal(err)
	}
	lease, err := a.TakeLease(ctx, journal.LeaseName("sign", 3), "signs")
	if err != nil {
		t.Fatal(err)
	}
	if lease, err = a.RenewLease(ctx, lease); err != nil {
		t.Fatal(err)
	}
	st, err := b.Standing(ctx)
	if err != nil || len(st.Workers) != 1 || len(st.Leases) != 1 {
		t.Fatalf("standing %+v, %v", st, err)
	}
	for name, err := range map[string]error{
		"another's announcement": b.Announce(ctx, "signs", nil),
		"lease of another role":  second(b.TakeLease(ctx, journal.LeaseName("sign", 4), "keeps")),
		"lease of no partition":  second(a.TakeLease(ctx, "sign.x1", "signs")),
		"lease for another":      second(a.TakeLease(ctx, journal.LeaseName("sign", 5), "keeps")),
	} {
		if !errors.Is(err, journal.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.ReleaseLease(ctx, lease); err != nil {
		t.Error(err)
	}
	for subject, c := range map[string]journal.Coordinator{journal.AskSubject("sign", 3): a, journal.ToSubject("signs"): a, journal.AskSubject("keys", 3): b} {
		stop, err := c.Answer(subject, "", func(_ context.Context, data []byte) ([]byte, error) { return append(data, '!'), nil })
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	for subject, c := range map[string]journal.Coordinator{journal.AskSubject("sign", 3): b, journal.ToSubject("signs"): b, journal.AskSubject("keys", 3): a} {
		if got, err := c.Ask(ctx, subject, []byte("well")); err != nil || string(got) != "well!" {
			t.Errorf("ask %s: %q, %v", subject, got, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// Whoever was removed is cut off at once, and does not come in again; the
// others go on.
func TestGate_RemovedMemberIsCutOff(t *testing.T) {
	one, two := newGuest(t, "one", "load"), newGuest(t, "two", "publish")
	g := openGated(t, one, two)
	nc, told := g.raw(t, one)
	other := g.connect(t, two)
	g.admit(t, two)
	if err := <-told; !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("told %v", err)
	}
	if nc.IsConnected() {
		t.Error("still connected")
	}
	if _, err := journal.Connect(t.Context(), g.config(one)); !errors.Is(err, journal.ErrServer) {
		t.Errorf("connect again: %v", err)
	}
	if _, _, err := other.Stream(t.Context()); err != nil {
		t.Errorf("the other member: %v", err)
	}
	if _, err := g.Append(t.Context(), gateZone, journal.Head{}, loadFailed(1)); err != nil {
		t.Errorf("the main process: %v", err)
	}
}

// A process that starts while the server does not know it yet, or whose members
// just change, is refused at first and comes in.
func TestGate_MemberThatIsAdmittedLateComesIn(t *testing.T) {
	for _, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("journal known %t", late), func(t *testing.T) {
			one := newGuest(t, "one", "load")
			g := openGated(t)
			cfg := g.config(one)
			if late {
				identity, _, err := g.Stream(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				cfg.Remote.Identity = identity
			}
			cfg.Remote.TLS = cfg.Remote.TLS.Clone()
			dials := 0
			cfg.Remote.TLS.VerifyConnection = func(tls.ConnectionState) error {
				if dials++; dials == 2 { // it was refused once
					g.admit(t, one)
				}
				return nil
			}
			j, err := journal.Connect(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer j.Close() //nolint:errcheck // nothing was written
			if _, _, err := j.Stream(t.Context()); err != nil || dials < 2 {
				t.Errorf("stream after %d connections: %v", dials, err)
			}
		})
	}
}

// A stranger, and one with another's public key, do not come in.
func TestGate_StrangersStayOutside(t *testing.T) {
	one := newGuest(t, "one", "load")
	g := openGated(t, one)
	for name, who := range map[string]guest{
		"unknown key":      newGuest(t, "one", "load"),
		"another's key":    {one.Member, newGuest(t, "x").seed},
		"no key at all":    {one.Member, ""},
		"password instead": {},
	} {
		t.Run(name, func(t *testing.T) {
			option := nats.UserInfo("main", "main")
			if who.seed != "" {
				key, err := nkeys.FromSeed([]byte(who.seed))
				if err != nil {
					t.Fatal(err)
				}
				option = nats.Nkey(who.NKey, key.Sign)
			}
			nc, err := nats.Connect("nats://"+g.ListenAddr().String(), option, nats.NoReconnect(), nats.SetCustomDialer(dial{g.client}))
			if err == nil {
				nc.Close()
				t.Error("it came in")
			}
		})
	}
	plain, err := net.Dial("tcp", g.ListenAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close() //nolint:errcheck // it is closed by the other side
	if _, err := plain.Write([]byte("CONNECT {}\r\nPING\r\n")); err != nil {
		t.Fatal(err)
	}
	var buf [64]byte
	if n, _ := plain.Read(buf[:]); bytes.Contains(buf[:n], []byte("INFO")) {
		t.Errorf("told %q without TLS", buf[:n])
	}
}

// refused checks that the server has refused what was sent last.
func refused(t *testing.T, nc *nats.Conn, what, subject string) {
	t.Helper()
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	err := nc.LastError()
	if !errors.Is(err, nats.ErrPermissionViolation) || !strings.Contains(strings.ToLower(err.Error()), what+` to "`+strings.ToLower(subject)+`"`) {
		t.Errorf("%s to %s: %v", what, subject, err)
	}
}

// What each role must not do is refused, with the credentials alone and not
// only by the program that uses them; and leaves nothing behind.
func TestGate_RefusesWhatARoleMustNotDo(t *testing.T) {
	for _, role := range []string{"load", "review", "sign", "keys", "observe", "publish"} {
		t.Run(role, func(t *testing.T) {
			one := newGuest(t, "w", role)
			g := openGated(t, one, newGuest(t, "v", "keys"))
			if _, err := g.Append(t.Context(), gateZone, journal.Head{}, loadFailed(1)); err != nil {
				t.Fatal(err)
			}
			before, err := g.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			nc, _ := g.raw(t, one)
			subjects := []string{
				"$JS.API.STREAM.DELETE.EVENTS", "$JS.API.STREAM.PURGE.BULK", "$JS.API.STREAM.UPDATE.BULK", "$JS.API.STREAM.CREATE.X",
				"$JS.API.STREAM.MSG.DELETE.BULK", "$JS.API.STREAM.DELETE.KV_WORKERS", "$JS.API.CONSUMER.CREATE.EVENTS",
				"$JS.API.CONSUMER.CREATE.KV_WORKERS.x", "$JS.API.STREAM.RESTORE.X", "$JS.API.STREAM.SNAPSHOT.EVENTS", "$JS.API.INFO",
				"$SYS.REQ.SERVER.PING", "$KV.WORKERS.alive.v", "ev._.zone", "ev._.worker", "ev._.tsig", "stored.ev.x.y",
				"_INBOX_v.abc", "_INBOX_main.abc", "to.w.x", "bulk.x",
			}
			for _, other := range []string{"load", "review", "sign", "keys", "publish"} {
				if other != role {
					subjects = append(subjects, "$KV.WORKERS.lease."+other+".1")
				}
			}
			if role != "keys" {
				subjects = append(subjects, "ev.00000000000000aa.key", "ev.00000000000000aa.rollover", "ev.00000000000000aa.policy")
			}
			if role != "load" && role != "sign" {
				subjects = append(subjects, "bulk.00000000000000aa.c0")
			}
			if role != "sign" {
				subjects = append(subjects, "do.sign", "do.sign.v")
			}
			for _, subject := range subjects {
				if one.Access().MayPublish(subject) {
					t.Errorf("the server lets %s through", subject)
				}
				if strings.HasPrefix(subject, "ev.") || strings.Contains(subject, ".lease.") { // the gate answers itself
					answer, err := nc.Request(subject, []byte("{}"), 5*time.Second)
					if err != nil || !strings.Contains(string(answer.Data), "403") {
						t.Errorf("publish to %s: %v, %v", subject, answer, err)
					}
					continue
				}
				if err := nc.Publish(subject, []byte("{}")); err != nil {
					t.Fatal(err)
				}
				refused(t, nc, "publish", subject)
			}
			for _, subject := range []string{">", "ev.>", "_INBOX_v.>", "_INBOX.>", "to.v", "to.*", "$KV.>", "$JS.>", "ask.>", "do.sign.v", "do.sign.*"} {
				if _, err := nc.Subscribe(subject, func(*nats.Msg) {}); err != nil {
					t.Fatal(err)
				}
				refused(t, nc, "subscription", subject)
			}
			after, err := g.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if after != before {
				t.Errorf("the journal holds %+v, before %+v", after, before)
			}
		})
	}
}

// The server sends an answer wherever it is asked to, into a stream too. The
// gate has an answer go to who asked alone.
func TestGate_AnswersGoToTheAskerAlone(t *testing.T) {
	for _, reply := range []string{
		"ev.00000000000000aa.instance", "bulk.00000000000000aa.c0", "_INBOX_v.abc", "_INBOX_w.*", "_INBOX_w.", "_INBOX_w", "stored.ev.x.y", "to.v",
	} {
		t.Run(reply, func(t *testing.T) {
			one := newGuest(t, "w", "publish")
			g := openGated(t, one)
			before, err := g.Status(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			nc, told := g.raw(t, one)
			if err := nc.PublishRequest("$JS.API.STREAM.INFO.EVENTS", reply, nil); err != nil {
				t.Fatal(err)
			}
			if err := <-told; !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("told %v", err)
			}
			if after, err := g.Status(t.Context()); err != nil || after != before {
				t.Errorf("the journal holds %+v, %v, before %+v", after, err, before)
			}
		})
	}
}

// A message goes to one subject: wildcards are for those who hear.
func TestGate_MessagesGoToOneSubject(t *testing.T) {
	for _, subject := range []string{"bulk.*.c0", "bulk.>", "ask.sign.*"} {
		t.Run(subject, func(t *testing.T) {
			one := newGuest(t, "w", "sign")
			nc, told := openGated(t, one).raw(t, one)
			if err := nc.Publish(subject, nil); err != nil {
				t.Fatal(err)
			}
			if err := <-told; !errors.Is(err, nats.ErrConnectionClosed) {
				t.Errorf("told %v", err)
			}
		})
	}
}

// An event that does not follow the zone's last one, is of another role, or
// speaks for another worker, is refused by name.
func TestGate_RefusesForgedEvents(t *testing.T) {
	one := newGuest(t, "w", "load", "publish")
	g := openGated(t, one)
	head, err := g.Append(t.Context(), gateZone, journal.Head{}, loadFailed(1))
	if err != nil {
		t.Fatal(err)
	}
	encode := func(e event.Event, head journal.Head) []byte {
		lines, err := journal.Lines(e.Zone, head, []event.Event{e})
		if err != nil {
			t.Fatal(err)
		}
		return lines[0].Bytes
	}
	const subject = "ev.00000000000000aa.load"
	follows := nats.Header{
		"Nats-Expected-Last-Subject-Sequence":         {"1"},
		"Nats-Expected-Last-Subject-Sequence-Subject": {"ev.00000000000000aa.>"},
	}
	nc, _ := g.raw(t, one)
	for _, tt := range []struct {
		name, subject, why string
		header             nats.Header
		line               []byte
	}{
		{"no event", subject, "event", follows, []byte("{}")},
		{"nothing expected", subject, "follows", nil, encode(loadFailed(2), head)},
		{"expected elsewhere", subject, "follows", nats.Header{
			"Nats-Expected-Last-Subject-Sequence": {"1"}, "Nats-Expected-Last-Subject-Sequence-Subject": {subject},
		}, encode(loadFailed(2), head)},
		{"old sequence", subject, "wrong last sequence: 1", nats.Header{
			"Nats-Expected-Last-Subject-Sequence": {"0"}, "Nats-Expected-Last-Subject-Sequence-Subject": {"ev.00000000000000aa.>"},
		}, encode(loadFailed(2), head)},
		{"broken link", subject, "does not follow", follows, encode(loadFailed(2), journal.Head{Seq: 1, N: 1, Hash: event.Hash{1}})},
		{"wrong number", subject, "does not follow", follows, encode(loadFailed(2), journal.Head{Seq: 1, N: 7, Hash: head.Hash})},
		{"other subject", "ev.00000000000000aa.instance", "an event of", follows, encode(loadFailed(2), head)},
		{"other role", "ev.00000000000000aa.instance", "instance.signed", follows, encode(
			event.New(time.Unix(2, 0), gateZone, event.Program, &event.InstanceSigned{Loaded: 1, Serial: 1}), head)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			answer, err := nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: tt.subject, Header: tt.header, Data: tt.line})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(answer.Data), `"error"`) || !strings.Contains(string(answer.Data), tt.why) {
				t.Errorf("answer %s, want an error with %q", answer.Data, tt.why)
			}
		})
	}
	if got, err := g.Head(t.Context(), gateZone); err != nil || got != head {
		t.Errorf("head %+v, %v, want %+v", got, err, head)
	}
}
