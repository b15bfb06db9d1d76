package cli

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"sluice/signer/zone"
)

// typeDNSKEY is the type of DNSKEY records (RFC 4034).
const typeDNSKEY = dnsmessage.Type(48)

// keyFinder asks a zone's public servers for its keys.
type keyFinder struct {
	resolver *net.Resolver
	port     uint16        // of the servers
	timeout  time.Duration // of one query
}

// find returns the IDs of all keys that the zone's public servers show. Each
// server named by an NS record must answer at one of its addresses at least: one
// that does not may show others.
func (f keyFinder) find(ctx context.Context, apex zone.Name) (map[string]bool, error) {
	servers, err := f.resolver.LookupNS(ctx, apex.String())
	if err != nil {
		return nil, fmt.Errorf("look up the servers of %s: %w", apex, err)
	}
	if len(servers) == 0 {
		return nil, fmt.Errorf("%s has no public servers", apex)
	}
	ids := make(map[string]bool)
	for _, s := range servers {
		addresses, err := f.resolver.LookupNetIP(ctx, "ip", s.Host)
		if err != nil {
			return nil, fmt.Errorf("server %s of %s: %w", s.Host, apex, err)
		}
		answered := false
		failed := errors.New("no address")
		for _, a := range addresses {
			found, err := f.query(ctx, apex, netip.AddrPortFrom(a.Unmap(), f.port))
			if err != nil {
				failed = fmt.Errorf("%s: %w", a, err)
				continue
			}
			answered = true
			for _, id := range found {
				ids[id] = true
			}
		}
		if !answered {
			return nil, fmt.Errorf("server %s of %s: %w", s.Host, apex, failed)
		}
	}
	return ids, nil
}

// query asks one address over TCP, since a set of keys may be long.
func (f keyFinder) query(ctx context.Context, apex zone.Name, server netip.AddrPort) (ids []string, err error) {
	var id [2]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	name, err := dnsmessage.NewName(apex.String())
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: binary.BigEndian.Uint16(id[:])},
		Questions: []dnsmessage.Question{{Name: name, Type: typeDNSKEY, Class: dnsmessage.ClassINET}},
	}
	request, err := m.AppendPack(make([]byte, 2, 514))
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint16(request, uint16(len(request)-2))
	d := net.Dialer{Timeout: f.timeout}
	conn, err := d.DialContext(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if err := conn.SetDeadline(time.Now().Add(f.timeout)); err != nil {
		return nil, err
	}
	if _, err := conn.Write(request); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	text := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, text); err != nil {
		return nil, err
	}
	return publishedKeys(text, m.ID)
}

// publishedKeys returns the IDs of the keys in an answer. A revoked key counts as
// the one that it was (RFC 5011, 2.1).
func publishedKeys(text []byte, id uint16) (ids []string, err error) {
	var answer dnsmessage.Message
	if err := answer.Unpack(text); err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	if answer.ID != id || !answer.Response {
		return nil, errors.New("its answer is to another question")
	}
	if answer.RCode != dnsmessage.RCodeSuccess || !answer.Authoritative {
		return nil, fmt.Errorf("it does not serve the zone (%s)", answer.RCode)
	}
	for _, rr := range answer.Answers {
		if key, ok := rr.Body.(*dnsmessage.UnknownResource); ok && key.Type == typeDNSKEY && len(key.Data) > 4 {
			key.Data[1] &^= 0x80
			ids = append(ids, keyID(key.Data))
		}
	}
	return ids, nil
}

// keyID is the ID of a key.
func keyID(rdata []byte) string {
	sum := sha256.Sum256(rdata)
	return hex.EncodeToString(sum[:8])
}
