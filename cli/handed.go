package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/coreos/go-systemd/v22/activation"
)

// The names of handed sockets (FileDescriptorName= of systemd.socket(5)) that
// say what they are for. Others go by their address.
const (
	publicationSocket    = "publication"
	publicationTLSSocket = "publication-tls"
	reviewLoadedSocket   = "review-loaded"
	reviewSignedSocket   = "review-signed"
	httpSocket           = "http"
)

// handed are the sockets that the service manager opened for this process and
// holds on to: what arrives while no daemon runs waits for the next one. It
// opens all others itself, so that it is where every listener comes from.
type handed struct {
	opens net.ListenConfig

	mu      sync.Mutex
	sockets []*handedSocket // guarded by mu; those not yet taken
}

// handedSocket is one of them: either stream or packets is set.
type handedSocket struct {
	name    string
	address string // as config names it; of a unix socket the path
	stream  net.Listener
	packets net.PacketConn
}

// takeHanded takes over the sockets of the service manager (sd_listen_fds(3)).
func takeHanded() (*handed, error) {
	h := new(handed)
	for _, f := range activation.Files(true) {
		s := &handedSocket{name: f.Name()}
		var addr net.Addr
		var err error
		if s.stream, err = net.FileListener(f); err == nil {
			addr = s.stream.Addr()
		} else if s.packets, err = net.FilePacketConn(f); err == nil {
			addr = s.packets.LocalAddr()
		}
		_ = f.Close() // the listener has a descriptor of its own
		if err != nil {
			return nil, withHint(errors.Join(fmt.Errorf("socket %s of the service manager is neither a listening stream nor takes datagrams: %w", f.Name(), err), h.close()),
				"see the unit: systemctl cat sluice.socket")
		}
		s.address = addr.String()
		h.sockets = append(h.sockets, s)
	}
	return h, nil
}

// named lists the addresses of the sockets of a name, each once.
func (h *handed) named(name string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []string
	for _, s := range h.sockets {
		if s.name == name && !s.unix() && !slices.Contains(found, s.address) {
			found = append(found, s.address)
		}
	}
	return found
}

func (s *handedSocket) unix() bool { return s.stream != nil && s.stream.Addr().Network() == "unix" }

// Listen implements xfr.Listeners.
func (h *handed) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	s := h.take(func(s *handedSocket) bool {
		return s.stream != nil && !s.unix() && sameAddress(s.address, address)
	})
	if s != nil {
		return s.stream, nil
	}
	return h.opens.Listen(ctx, network, address)
}

// ListenPacket implements xfr.Listeners.
func (h *handed) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	s := h.take(func(s *handedSocket) bool { return s.packets != nil && sameAddress(s.address, address) })
	if s != nil {
		return s.packets, nil
	}
	return h.opens.ListenPacket(ctx, network, address)
}

// api is the unix socket among them and where it is; nil where there is none.
func (h *handed) api() (net.Listener, string) {
	s := h.take((*handedSocket).unix)
	if s == nil {
		return nil, ""
	}
	return s.stream, s.address
}

func (h *handed) take(fits func(*handedSocket) bool) *handedSocket {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := slices.IndexFunc(h.sockets, fits)
	if i < 0 {
		return nil
	}
	s := h.sockets[i]
	h.sockets = slices.Delete(h.sockets, i, i+1)
	return s
}

// rest describes the sockets that nobody took: who connects there waits in
// vain.
func (h *handed) rest() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var found []string
	for _, s := range h.sockets {
		kind := "TCP"
		switch {
		case s.packets != nil:
			kind = "UDP"
		case s.unix():
			kind = "unix"
		}
		found = append(found, fmt.Sprintf("%s (%s, %s)", s.address, kind, cmp.Or(s.name, "no name")))
	}
	return found
}

// close gives up what nobody took.
func (h *handed) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var err error
	for _, s := range h.sockets {
		if s.packets != nil {
			err = errors.Join(err, s.packets.Close())
		}
		if s.stream != nil {
			err = errors.Join(err, s.stream.Close())
		}
	}
	h.sockets = nil
	return err
}

// sameAddress reports whether a handed socket's address is the one that the
// config names: IP:PORT, without IP for every address.
func sameAddress(handed, wanted string) bool {
	have, err := netip.ParseAddrPort(handed)
	if err != nil {
		return false
	}
	if port, ok := strings.CutPrefix(wanted, ":"); ok {
		return have.Addr() == netip.IPv6Unspecified() && port == fmt.Sprint(have.Port())
	}
	want, err := netip.ParseAddrPort(wanted)
	return err == nil && want.Port() == have.Port() && want.Addr().Unmap() == have.Addr().Unmap()
}

// takeNamed has sockets that were handed over for a part take the place of the
// addresses that the config has for it.
func (s *serving) takeNamed() {
	for name, to := range map[string]*[]string{
		publicationSocket: &s.cfg.Server.Servers, publicationTLSSocket: &s.cfg.Server.TLS.Servers,
		reviewLoadedSocket: &s.cfg.Loader.Review.Servers, reviewSignedSocket: &s.cfg.Signer.Review.Servers,
		httpSocket: &s.cfg.HTTP.Servers,
	} {
		if addresses := s.sockets.named(name); len(addresses) > 0 {
			*to = addresses
		}
	}
}

// checkHanded tells of sockets that nobody took. It closes them here; the
// service manager still has them open.
func (s *serving) checkHanded(ctx context.Context) error {
	for _, text := range s.sockets.rest() {
		s.log.ErrorContext(ctx, "socket of the service manager not used: nothing in the config has this address", "socket", text, "pid", os.Getpid())
	}
	return s.sockets.close()
}
