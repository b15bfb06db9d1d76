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

// resolvConf is where the machine says which resolvers to ask.
const resolvConf = "/etc/resolv.conf"

// asker asks resolvers.
type asker struct {
	servers func() ([]netip.AddrPort, error)
	timeout time.Duration // of one query
}

// newAsker asks the resolvers of the config, else those of resolv.conf.
func newAsker(named []string, path string) asker {
	return asker{timeout: 2 * time.Second, servers: func() ([]netip.AddrPort, error) {
		if len(named) == 0 {
			return resolvers(path)
		}
		var out []netip.AddrPort
		for _, text := range named {
			ap, err := parseResolver(text)
			if err != nil {
				return nil, err
			}
			out = append(out, ap)
		}
		return out, nil
	}}
}

// parseResolver reads IP[:PORT].
func parseResolver(text string) (netip.AddrPort, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.AddrPortFrom(a, 53), nil
	}
	ap, err := netip.ParseAddrPort(text)
	if err != nil || ap.Port() == 0 {
		return ap, fmt.Errorf("resolver %q: want IP or IP:PORT such as 192.0.2.1 or [2001:db8::1]:53", text)
	}
	return ap, nil
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

// seesDS reports whether a resolver finds a DS for the zone. An error says
// that none of them knows.
func (p asker) seesDS(ctx context.Context, zoneName string) (bool, error) {
	answers, err := p.ask(ctx, zoneName, typeDS)
	return len(answers) > 0, err
}

// addresses are those that resolvers find for a host; none is no error.
func (p asker) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, t := range []dnsmessage.Type{dnsmessage.TypeA, dnsmessage.TypeAAAA} {
		answers, err := p.ask(ctx, host, t)
		if err != nil {
			return nil, err
		}
		for _, rr := range answers {
			switch body := rr.Body.(type) {
			case *dnsmessage.AResource:
				out = append(out, netip.AddrFrom4(body.A))
			case *dnsmessage.AAAAResource:
				out = append(out, netip.AddrFrom16(body.AAAA))
			}
		}
	}
	return out, nil
}

// ask gives the records of a type that the first resolver that knows found.
func (p asker) ask(ctx context.Context, name string, t dnsmessage.Type) ([]dnsmessage.Resource, error) {
	servers, err := p.servers()
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		var found []dnsmessage.Resource
		if found, err = p.askServer(ctx, name, t, s); err == nil {
			return found, nil
		}
	}
	return nil, err
}

func (p asker) askServer(ctx context.Context, host string, t dnsmessage.Type, server netip.AddrPort) ([]dnsmessage.Resource, error) {
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	name, err := dnsmessage.NewName(host)
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:]), RecursionDesired: true},
		Questions: []dnsmessage.Question{{Name: name, Type: t, Class: dnsmessage.ClassINET}},
	}
	request, err := m.Pack()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return nil, errors.Join(err, ctx.Err())
		}
		var answer dnsmessage.Message
		if answer.Unpack(buf[:n]) != nil || answer.ID != m.ID || !answer.Response {
			continue // not ours
		}
		if answer.RCode != dnsmessage.RCodeSuccess && answer.RCode != dnsmessage.RCodeNameError {
			return nil, fmt.Errorf("resolver %s: %s", server, answer.RCode)
		}
		var found []dnsmessage.Resource
		for _, rr := range answer.Answers {
			if rr.Header.Type == t {
				found = append(found, rr)
			}
		}
		return found, nil
	}
}
