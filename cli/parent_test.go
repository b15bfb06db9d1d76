package cli

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// resolver answers every query with the given answers and code.
func resolver(t *testing.T, code dnsmessage.RCode, answers ...dnsmessage.Resource) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil {
				continue
			}
			m.Response, m.RCode, m.Answers = true, code, answers
			if out, err := m.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func TestAsker_SeesDS(t *testing.T) {
	ds := dnsmessage.Resource{
		Header: dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName("example."), Type: typeDS, Class: dnsmessage.ClassINET},
		Body:   &dnsmessage.UnknownResource{Type: typeDS, Data: []byte{0, 1, 13, 2, 0}},
	}
	for _, tt := range []struct {
		fact    string
		servers []netip.AddrPort
		want    bool
		fails   bool
	}{
		{"a DS is seen", []netip.AddrPort{resolver(t, dnsmessage.RCodeSuccess, ds)}, true, false},
		{"no DS is seen", []netip.AddrPort{resolver(t, dnsmessage.RCodeSuccess)}, false, false},
		{"no such name has no DS", []netip.AddrPort{resolver(t, dnsmessage.RCodeNameError)}, false, false},
		{"the next resolver is asked", []netip.AddrPort{
			resolver(t, dnsmessage.RCodeServerFailure), resolver(t, dnsmessage.RCodeSuccess, ds),
		}, true, false},
		{"a resolver that fails knows nothing", []netip.AddrPort{resolver(t, dnsmessage.RCodeServerFailure)}, false, true},
	} {
		t.Run(tt.fact, func(t *testing.T) {
			p := asker{timeout: 5 * time.Second, servers: func() ([]netip.AddrPort, error) { return tt.servers, nil }}
			got, err := p.seesDS(t.Context(), "example.")
			if got != tt.want || (err != nil) != tt.fails {
				t.Errorf("seen %v, error %v", got, err)
			}
		})
	}
}

func TestResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(path, []byte("search a.b\nnameserver 192.0.2.1\nnameserver 2001:db8::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := resolvers(path)
	if err != nil || len(got) != 2 || got[1].String() != "[2001:db8::1]:53" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := resolvers(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a missing file is no error")
	}
}

func TestAsker_Addresses(t *testing.T) {
	host := dnsmessage.MustNewName("ns.example.")
	header := func(typ dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: host, Type: typ, Class: dnsmessage.ClassINET}
	}
	server := resolver(t, dnsmessage.RCodeSuccess,
		dnsmessage.Resource{Header: header(dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte{192, 0, 2, 1}}},
		dnsmessage.Resource{Header: header(dnsmessage.TypeAAAA), Body: &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr("2001:db8::1").As16()}},
	)
	got, err := newAsker([]string{server.String()}, "none").addresses(t.Context(), "ns.example.")
	if err != nil || len(got) != 2 || got[0].String() != "192.0.2.1" || got[1].String() != "2001:db8::1" {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := newAsker([]string{resolver(t, dnsmessage.RCodeNameError).String()}, "none").addresses(t.Context(), "ns.example."); err != nil || len(got) != 0 {
		t.Errorf("no such name: %v, %v", got, err)
	}
	if _, err := newAsker([]string{resolver(t, dnsmessage.RCodeServerFailure).String()}, "none").addresses(t.Context(), "ns.example."); err == nil {
		t.Error("a resolver that fails gives no error")
	}
}
