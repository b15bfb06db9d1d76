package xfr

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Classes that stand for what an update does (RFC 2136, 2.4 and 2.5).
const (
	classNone = 254
	classAny  = 255
)

// Update is a dynamic update (RFC 2136) of RRsets of one name.
type Update struct {
	Zone  zone.Name // the zone that holds them
	Owner zone.Name
	// Cut wants an NS RRset at the owner, else nothing is changed.
	Cut  bool
	Sets []UpdateSet
}

// UpdateSet is what an update changes of one RRset.
type UpdateSet struct {
	Type zone.Type
	// Have is the RRset as it must be, else nothing is changed; none wants that
	// there is no such RRset.
	Have [][]byte
	// Add and Remove are the RDATA that come, with a TTL in seconds, and leave.
	Add, Remove [][]byte
	TTL         uint32
}

// sections are the prerequisites and the changes of an update in wire form, and
// how many of each there are.
func (u *Update) sections() (records []byte, prerequisites, changes uint16) {
	add := func(n *uint16, t zone.Type, class uint16, ttl uint32, rdata []byte) {
		records = append(records, u.Owner...)
		records = binary.BigEndian.AppendUint16(records, uint16(t))
		records = binary.BigEndian.AppendUint16(records, class)
		records = binary.BigEndian.AppendUint32(records, ttl)
		records = zone.AppendRData(records, rdata)
		*n++
	}
	if u.Cut {
		add(&prerequisites, zone.TypeNS, classAny, 0, nil)
	}
	for _, s := range u.Sets {
		for _, data := range s.Have {
			add(&prerequisites, s.Type, classIN, 0, data)
		}
		if len(s.Have) == 0 {
			add(&prerequisites, s.Type, classNone, 0, nil)
		}
	}
	for _, s := range u.Sets {
		for _, data := range s.Remove {
			add(&changes, s.Type, classNone, 0, data)
		}
		for _, data := range s.Add {
			add(&changes, s.Type, classIN, s.TTL, data)
		}
	}
	return records, prerequisites, changes
}

// maxUpdate bounds the records of an update in bytes.
const maxUpdate = 32 << 10

// Update sends a dynamic update to ep, once, over TCP, or TLS where ep says so,
// signed with the key that ep names. An answer with an RCODE is an *RcodeError:
// NXRRSET and YXRRSET say that what the update wants to be so is not.
func (c *Client) Update(ctx context.Context, ep Endpoint, u Update) error {
	records, prerequisites, changes := u.sections()
	if len(records) > maxUpdate {
		return fmt.Errorf("update %s at %s: more than %d bytes of records", u.Owner, ep, maxUpdate)
	}
	q := &query{
		opcode: dns.OpcodeUpdate, name: u.Zone, qtype: zone.TypeSOA,
		records: records, counts: [2]uint16{prerequisites, changes},
	}
	if _, err := c.askOnce(ctx, ep, q, nil); err != nil {
		return fmt.Errorf("update %s at %s: %w", u.Owner, ep, err)
	}
	return nil
}

// Ask asks ep a question over TCP, or TLS where ep says so, signed with the key
// that ep names. A server that is not authoritative for the answer is an error,
// an answer with an RCODE an *RcodeError beside the answer.
func (c *Client) Ask(ctx context.Context, ep Endpoint, name zone.Name, t zone.Type) (*dns.Msg, error) {
	r, err := c.askOnce(ctx, ep, &query{name: name, qtype: t}, nil)
	if _, isCode := errors.AsType[*RcodeError](err); err != nil && !isCode {
		return nil, fmt.Errorf("ask %s for %s %s: %w", ep, name, t, err)
	}
	m := new(dns.Msg)
	if fault := m.Unpack(r.msg); fault != nil {
		return nil, fmt.Errorf("ask %s for %s %s: %w: %w", ep, name, t, errBadMessage, fault)
	}
	if err == nil && !m.Authoritative {
		err = errNotAuthoritative
	}
	if err != nil {
		err = fmt.Errorf("ask %s for %s %s: %w", ep, name, t, err)
	}
	return m, err
}

// NotifyType tells ep that a zone's RRset of a type changed, once, and returns
// when ep acknowledged it (RFC 9859, 4.2); as Notify asks. agent is where errors
// may be reported (RFC 9567); empty for none.
func (c *Client) NotifyType(ctx context.Context, ep Endpoint, name zone.Name, t zone.Type, agent zone.Name) error {
	q := &query{opcode: dns.OpcodeNotify, name: name, qtype: t, edns: agent != "", agent: agent}
	if _, err := c.ask(ctx, ep, q, c.notifyTries()); err != nil {
		return fmt.Errorf("notify %s of %s %s: %w", ep, name, t, err)
	}
	return nil
}

// notifyTries is how long the answer to a NOTIFY over UDP is waited for.
func (c *Client) notifyTries() []time.Duration {
	var tries []time.Duration
	for _, wait := range c.cfg.Tries {
		tries = append(tries, 2*wait)
	}
	for range len(tries) {
		tries = append(tries, 2*tries[len(tries)-1])
	}
	return tries
}
