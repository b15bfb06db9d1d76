package cli

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSameAddress(t *testing.T) {
	for _, test := range []struct {
		handed, wanted string
		want           bool
	}{
		{"192.0.2.1:53", "192.0.2.1:53", true},
		{"192.0.2.1:53", "192.0.2.1:54", false},
		{"192.0.2.1:53", "192.0.2.2:53", false},
		{"[::ffff:192.0.2.1]:53", "192.0.2.1:53", true},
		{"[2001:db8::1]:53", "[2001:DB8:0::1]:53", true},
		{"[::]:53", ":53", true},
		{"[::]:53", "[::]:53", true},
		{"0.0.0.0:53", "[::]:53", false}, // one family is not both
		{"0.0.0.0:53", ":53", false},
		{"[::]:53", ":54", false},
		{"/run/s.sock", ":53", false},
	} {
		if got := sameAddress(test.handed, test.wanted); got != test.want {
			t.Errorf("handed %s, wanted %s: %t", test.handed, test.wanted, got)
		}
	}
}

// heldFor makes handed sockets of open listeners.
func heldFor(t *testing.T, name string) (*handed, string) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Skipf("the port is in use for UDP: %v", err)
	}
	address := tcp.Addr().String()
	h := &handed{sockets: []*handedSocket{
		{name: name, address: address, stream: tcp},
		{name: name, address: address, packets: udp},
	}}
	t.Cleanup(func() {
		if err := h.close(); err != nil {
			t.Error(err)
		}
	})
	return h, address
}

func TestHanded_SocketsAreTakenOnce(t *testing.T) {
	h, address := heldFor(t, "x")
	tcp, err := h.Listen(t.Context(), "tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := h.ListenPacket(t.Context(), "udp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if left := h.rest(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	if l, err := h.Listen(t.Context(), "tcp4", address); err == nil {
		l.Close()
		t.Error("the address was given away twice")
	}
}

func TestHanded_NamesTakeThePlaceOfAddresses(t *testing.T) {
	h, address := heldFor(t, publicationSocket)
	s := &serving{cfg: defaultConfig(), sockets: h}
	s.takeNamed()
	if diff := cmp.Diff([]string{address}, s.cfg.Server.Servers); diff != "" {
		t.Error(diff)
	}
	if s.cfg.Loader.Review.Servers[0] != defaultReviewLoaded {
		t.Errorf("reviews are at %v", s.cfg.Loader.Review.Servers)
	}
	if left := h.rest(); len(left) != 2 {
		t.Errorf("left: %v", left)
	}
}
