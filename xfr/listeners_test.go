package xfr

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// heldListeners hands out sockets that are open already, as a service manager
// does.
type heldListeners struct {
	tcp   net.Listener
	udp   net.PacketConn
	asked []string
}

func (h *heldListeners) Listen(_ context.Context, network, address string) (net.Listener, error) {
	h.asked = append(h.asked, network+" "+address)
	return h.tcp, nil
}

func (h *heldListeners) ListenPacket(_ context.Context, network, address string) (net.PacketConn, error) {
	h.asked = append(h.asked, network+" "+address)
	return h.udp, nil
}

func TestListen_TakesSocketsThatAreOpenAlready(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Skipf("the port is in use for UDP: %v", err)
	}
	held := &heldListeners{tcp: tcp, udp: udp}
	view := exampleView(t, 7)
	s, err := NewServer(Config{Source: memSource{view.apex.Fold(): view}, Listeners: held})
	if err != nil {
		t.Fatal(err)
	}
	at := tcp.Addr().String()
	if bound, err := s.Listen(t.Context(), at); err != nil || bound.String() != at {
		t.Fatalf("bound to %v, %v", bound, err)
	}
	if len(held.asked) != 2 || held.asked[0] != "tcp4 "+at || held.asked[1] != "udp4 "+at {
		t.Errorf("asked for %q", held.asked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var run sync.WaitGroup
	run.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, network := range []string{"udp", "tcp"} {
		c := dns.Client{Net: network}
		if r, _, err := c.Exchange(new(dns.Msg).SetQuestion("example.", dns.TypeSOA), at); err != nil || len(r.Answer) != 1 {
			t.Errorf("%s: %v, %v", network, r, err)
		}
	}
	cancel()
	run.Wait()
}

// Who was let in just before the server stops has its first request answered,
// and no further one.
func TestConn_LastWordBeforeTheStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		view := exampleView(t, 7)
		s := testServer(t, Config{Source: memSource{view.apex.Fold(): view}})
		s.stopping.Store(true)
		begun := time.Now()
		c, done := serve(t, s)
		time.Sleep(lastWord / 2) // of the bubble's clock
		send(t, c, framed(t, new(dns.Msg).SetQuestion("example.", dns.TypeSOA)))
		answer, err := io.ReadAll(c)
		if err != nil || len(answer) < 12 {
			t.Errorf("answered with %d bytes, %v", len(answer), err)
		}
		<-done
		if took := time.Since(begun); took >= lastWord {
			t.Errorf("closed after %v", took)
		}
		begun = time.Now()
		_, done = serve(t, s)
		if <-done; time.Since(begun) != lastWord {
			t.Errorf("who asks nothing is let go after %v", time.Since(begun))
		}
	})
}

func TestCertificate_ReloadTakesWhatIsGoodAtOnce(t *testing.T) {
	dir := t.TempDir()
	newCertificate(t, dir, "ns1.example")
	c := loadCertificate(t, dir)
	first := c.Pin()
	if err := os.WriteFile(filepath.Join(dir, "cert.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c.Reload() == nil || c.Pin() != first {
		t.Error("a damaged file is taken")
	}
	newCertificate(t, dir, "ns1.example")
	if err := c.Reload(); err != nil || c.Pin() == first {
		t.Errorf("a good file is not taken: %v", err)
	}
}

func TestClient_LimitsChange(t *testing.T) {
	c := NewClient(ClientConfig{Limits: Limits{MaxRecords: 7}})
	if l := c.limits.Load(); l.MaxRecords != 7 || l.MaxTime == 0 {
		t.Errorf("limits %+v", l)
	}
	c.SetLimits(Limits{MaxRecords: 8})
	if l := c.limits.Load(); l.MaxRecords != 8 || l.MaxTime == 0 {
		t.Errorf("limits %+v", l)
	}
}
