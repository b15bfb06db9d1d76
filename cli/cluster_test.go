package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/journal"
	"sluice/journal/backup"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
)

func TestPromote_RefusesKeysThatTheCopyDoesNotKnow(t *testing.T) {
	known := []byte{1, 1, 3, 13, 1, 2, 3, 4}
	newPromoting := func() *promoting {
		p := &promoting{
			e:     &env{stdout: io.Discard, stderr: io.Discard},
			keys:  restoring{keys: map[event.ZoneID]keymgr.KeySet{}},
			zones: map[event.ZoneID]*promotedZone{"a": {Zone: backup.Zone{ID: "a", Name: "example.com."}}},
		}
		p.keys.keys["a"] = keymgr.KeySet{Keys: []keymgr.Key{{Key: event.Key{
			ID: keyID(known), DNSKEY: base64.StdEncoding.EncodeToString(known),
		}}}}
		return p
	}
	for _, c := range []struct {
		name   string
		seen   map[string]bool
		err    error
		forced bool
		text   string // "" where it holds
	}{
		{name: "the known one", seen: map[string]bool{keyID(known): true}},
		{name: "none", seen: map[string]bool{}},
		{name: "another one", seen: map[string]bool{keyID(known): true, "00112233": true}, text: "example.com. has 00112233"},
		{name: "another one, forced", seen: map[string]bool{"00112233": true}, forced: true},
		{name: "no answer", err: errors.New("timed out"), text: "not all heard"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPromoting()
			p.force = c.forced
			p.publicKeys = func(context.Context, zone.Name) (map[string]bool, error) { return c.seen, c.err }
			err := p.checkKeys(t.Context())
			if errors.Is(err, journal.ErrRefused) != (c.text != "") || err != nil && !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v, want %q", err, c.text)
			}
			if len(p.out.Checks) != 1 || p.out.Checks[0].OK != (err == nil && !c.forced) {
				t.Errorf("checks: %+v", p.out.Checks)
			}
		})
	}
}

// answerTCP answers one question with records of a type.
func answerTCP(t *testing.T, change func(*dnsmessage.Message)) *net.TCPAddr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { l.Close(); <-done }) //nolint:errcheck // a test listener
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close() //nolint:errcheck // a test connection
		buf := make([]byte, 512)
		n, err := c.Read(buf)
		var m dnsmessage.Message
		if err != nil || n < 2 || m.Unpack(buf[2:n]) != nil {
			return
		}
		m.Response, m.Authoritative = true, true
		change(&m)
		out, err := m.Pack()
		if err != nil {
			return
		}
		_, _ = c.Write(append([]byte{byte(len(out) >> 8), byte(len(out))}, out...)) // the reader sees what is missing
	}()
	return l.Addr().(*net.TCPAddr)
}

func TestKeyFinder_ReadsTheKeysOfAServer(t *testing.T) {
	key := []byte{1, 1, 3, 13, 1, 2, 3, 4}
	revoked := slices.Clone(key)
	revoked[1] |= 0x80
	with := func(rdata []byte) func(*dnsmessage.Message) {
		return func(m *dnsmessage.Message) {
			q := m.Questions[0]
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.UnknownResource{Type: typeDNSKEY, Data: rdata},
			}}
		}
	}
	for name, c := range map[string]struct {
		change func(*dnsmessage.Message)
		want   []string
		fails  bool
	}{
		"a key":              {change: with(key), want: []string{keyID(key)}},
		"a revoked one":      {change: with(revoked), want: []string{keyID(key)}},
		"none":               {change: func(*dnsmessage.Message) {}},
		"not its zone":       {change: func(m *dnsmessage.Message) { m.Authoritative = false }, fails: true},
		"another question's": {change: func(m *dnsmessage.Message) { m.ID++ }, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			f := keyFinder{resolver: net.DefaultResolver, timeout: 5 * time.Second}
			apex, err := parseZone("example.com")
			if err != nil {
				t.Fatal(err)
			}
			got, err := f.query(t.Context(), apex, answerTCP(t, c.change).AddrPort())
			if (err != nil) != c.fails || !slices.Equal(got, c.want) {
				t.Errorf("%v, %v, want %v", got, err, c.want)
			}
		})
	}
}

func TestGrow_SyncIsReadFromMonitors(t *testing.T) {
	monitor := func(text string) string {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/varz" {
				io.WriteString(w, text) //nolint:errcheck // a test server
			}
		}))
		t.Cleanup(srv.Close)
		return srv.URL
	}
	good := monitor(`{"server_name":"n1","jetstream":{"config":{"sync_always":true}}}`)
	lazy := monitor(`{"server_name":"n2","jetstream":{"config":{"sync_interval":120000000000}}}`)
	ok, seen, err := allSynced(t.Context(), []string{good})
	if err != nil || !ok || !strings.Contains(seen, "n1") {
		t.Errorf("%t, %q, %v", ok, seen, err)
	}
	ok, seen, err = allSynced(t.Context(), []string{good, lazy})
	if err != nil || ok || !strings.Contains(seen, "n2 does not") {
		t.Errorf("%t, %q, %v", ok, seen, err)
	}
	if _, _, err = allSynced(t.Context(), []string{monitor(`{"server_name":"n3"}`)}); err == nil {
		t.Error("a server without JetStream passed")
	}
}
