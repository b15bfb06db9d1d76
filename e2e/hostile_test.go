package e2e

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// endlessPrimary answers SOA queries with an ever newer serial, and transfers
// with records without an end.
func endlessPrimary(t *testing.T) (addr string, transfers *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	transfers = new(atomic.Int32)
	go func() {
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil {
				go func() { serveEndless(c, transfers); c.Close() }()
			}
		}
	}()
	return l.Addr().String(), transfers
}

func serveEndless(c net.Conn, transfers *atomic.Int32) {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return
	}
	raw := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(c, raw); err != nil {
		return
	}
	q := new(dns.Msg)
	if q.Unpack(raw) != nil || len(q.Question) != 1 {
		return
	}
	soa, _ := dns.NewRR(fmt.Sprintf("%s. 300 IN SOA ns1.%s. h.%s. %d 30 10 604800 300", example, example, example, 100+transfers.Load()))
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	m.Answer = []dns.RR{soa}
	write := func() bool {
		out, err := m.Pack()
		if err != nil {
			return false
		}
		_, err = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
		return err == nil
	}
	if !write() || q.Question[0].Qtype == dns.TypeSOA {
		return
	}
	transfers.Add(1)
	for n := 0; ; n++ {
		m.Answer = m.Answer[:0]
		for i := range 500 {
			rr, _ := dns.NewRR(fmt.Sprintf("h%d-%d.%s. 300 IN A 192.0.2.1", n, i, example))
			m.Answer = append(m.Answer, rr)
		}
		if !write() {
			return
		}
	}
}

// A server that never ends costs one failure in the journal, and the next one
// of the source is taken.
func TestHostile_EndlessTransferIsGivenUpAndTheNextServerTaken(t *testing.T) {
	need(t, "named")
	hostile, transfers := endlessPrimary(t)
	file := writeFile(t, filepath.Join(shortDir(t), "live.zone"), liveZone)
	good := startNamed(t, namedPrimary(example, file))
	good.awaitSerial(t, example, 1)
	conf := writeFile(t, filepath.Join(shortDir(t), "sluice.conf"),
		"version = \"v1\"\n[transfers]\nmax-size = \"4MiB\"\nmax-time = \"20s\"\nidle = \"2s\"\n")
	d := &daemon{data: filepath.Join(shortDir(t), "data"), addr: freeAddr(t)}
	d.flags = []string{"--config", conf, "--zone", example + "=" + hostile + "," + good.addr}
	d.start(t)
	serial := d.awaitServed(t, example)
	if n := transfers.Load(); n != 1 {
		t.Errorf("%d transfers from the hostile server", n)
	}
	if history := d.must(t, "zone", "history", example, "--type", "instance.loaded"); !strings.Contains(history, good.addr) {
		t.Errorf("not loaded from the good server:\n%s", history)
	}
	// Alone, it is a failure, once.
	for range 3 {
		r := d.cli(t, "zone", "set", example, "--source", hostile)
		if r.code == 0 && strings.Contains(r.stdout, "becomes") {
			t.Errorf("what never ends was taken: %v", r)
		}
		d.cli(t, "zone", "reload", example)
	}
	history := d.must(t, "zone", "history", example, "--type", "load.failed")
	if n := strings.Count(history, "more bytes"); n != 1 {
		t.Errorf("%d failures:\n%s", n, history)
	}
	if got, err := serialAt(d.addr, example); err != nil || got != serial {
		t.Errorf("serial %d, before %d, %v", got, serial, err)
	}
	await(t, "the daemon answers", 10*time.Second, func() (bool, string) {
		r := d.cli(t, "health")
		return r.code == 0, r.String()
	})
}
