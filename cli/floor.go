package cli

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/signer/zone"
)

// floorFinder asks a zone's public servers for their serial.
type floorFinder struct {
	resolver *net.Resolver
	port     uint16        // of the servers
	timeout  time.Duration // of one query; each is sent up to three times
}

// find returns the highest serial (RFC 1982) that the zone's public servers
// have. Each server named by an NS record must answer at one of its addresses
// at least: one that does not may hold a higher serial.
func (f floorFinder) find(ctx context.Context, apex zone.Name) (uint32, error) {
	servers, err := f.resolver.LookupNS(ctx, apex.String())
	if err != nil {
		return 0, fmt.Errorf("look up the servers of %s: %w", apex, err)
	}
	var highest *zone.Serial
	for _, s := range servers {
		serials, err := f.ask(ctx, apex, s.Host)
		if err != nil {
			return 0, fmt.Errorf("server %s of %s: %w", s.Host, apex, err)
		}
		for _, serial := range serials {
			switch {
			case highest == nil || highest.Before(serial):
				highest = &serial
			case serial != *highest && !serial.Before(*highest):
				return 0, fmt.Errorf("serials %d and %d of %s cannot be compared (RFC 1982)", serial, *highest, apex)
			}
		}
	}
	if highest == nil {
		return 0, fmt.Errorf("%s has no public servers", apex)
	}
	return uint32(*highest), nil
}

// ask queries all addresses of a server; one answer is enough.
func (f floorFinder) ask(ctx context.Context, apex zone.Name, host string) ([]zone.Serial, error) {
	addresses, err := f.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var serials []zone.Serial
	var failed error
	for _, a := range addresses {
		serial, err := f.query(ctx, apex, netip.AddrPortFrom(a.Unmap(), f.port))
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", a, err))
			continue
		}
		serials = append(serials, serial)
	}
	if len(serials) == 0 {
		if failed == nil {
			failed = errors.New("no address")
		}
		return nil, failed
	}
	return serials, nil
}

// query asks one address for the SOA record.
func (f floorFinder) query(ctx context.Context, apex zone.Name, server netip.AddrPort) (zone.Serial, error) {
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return 0, err
	}
	name, err := dnsmessage.NewName(apex.String())
	if err != nil {
		return 0, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:])},
		Questions: []dnsmessage.Question{{Name: name, Type: dnsmessage.TypeSOA, Class: dnsmessage.ClassINET}},
	}
	request, err := m.Pack()
	if err != nil {
		return 0, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", server.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	for range 3 {
		var serial zone.Serial
		if serial, err = f.exchange(conn, request, m.ID); err == nil || ctx.Err() != nil {
			return serial, errors.Join(err, ctx.Err())
		}
	}
	return 0, err
}

// exchange sends the request once and waits for its answer.
func (f floorFinder) exchange(conn net.Conn, request []byte, id uint16) (zone.Serial, error) {
	if err := conn.SetDeadline(time.Now().Add(f.timeout)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return 0, err
		}
		var answer dnsmessage.Message
		if answer.Unpack(buf[:n]) != nil || answer.ID != id || !answer.Response {
			continue // not ours
		}
		if answer.RCode != dnsmessage.RCodeSuccess || !answer.Authoritative {
			return 0, fmt.Errorf("it does not serve the zone (%s)", answer.RCode)
		}
		for _, rr := range answer.Answers {
			if soa, ok := rr.Body.(*dnsmessage.SOAResource); ok {
				return zone.Serial(soa.Serial), nil
			}
		}
		return 0, errors.New("its answer has no SOA record")
	}
}
