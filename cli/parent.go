package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// typeDS is the RR type of DS, which dnsmessage does not name.
const typeDS dnsmessage.Type = 43

// parentAsker asks the machine's resolvers for a zone's DS.
type parentAsker struct {
	servers func() ([]netip.AddrPort, error)
	timeout time.Duration // of one query
}

// newParentAsker asks the resolvers of resolv.conf.
func newParentAsker(path string) parentAsker {
	return parentAsker{timeout: 2 * time.Second, servers: func() ([]netip.AddrPort, error) { return resolvers(path) }}
}

// resolvers reads the name server lines of a resolv.conf.
func resolvers(path string) ([]netip.AddrPort, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var out []netip.AddrPort
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			out = append(out, netip.AddrPortFrom(a, 53))
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s names no resolver", path)
	}
	return out, nil
}

// seen reports whether a resolver finds a DS for the zone. An error says that
// none of them knows.
func (p parentAsker) seen(ctx context.Context, zoneName string) (bool, error) {
	servers, err := p.servers()
	if err != nil {
		return false, err
	}
	for _, s := range servers {
		var found bool
		if found, err = p.ask(ctx, zoneName, s); err == nil {
			return found, nil
		}
	}
	return false, err
}

func (p parentAsker) ask(ctx context.Context, zoneName string, server netip.AddrPort) (bool, error) {
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return false, err
	}
	name, err := dnsmessage.NewName(zoneName)
	if err != nil {
		return false, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: typeDS, Class: dnsmessage.ClassINET}},
	}
	request, err := m.Pack()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return false, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(request); err != nil {
		return false, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return false, errors.Join(err, ctx.Err())
		}
		var answer dnsmessage.Message
		if answer.Unpack(buf[:n]) != nil || answer.ID != m.ID || !answer.Response {
			continue // not ours
		}
		if answer.RCode != dnsmessage.RCodeSuccess && answer.RCode != dnsmessage.RCodeNameError {
			return false, fmt.Errorf("resolver %s: %s", server, answer.RCode)
		}
		for _, rr := range answer.Answers {
			if rr.Header.Type == typeDS {
				return true, nil
			}
		}
		return false, nil
	}
}
