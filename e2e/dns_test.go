package e2e

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// query asks over UDP with DO set, and over TCP when the answer is cut off.
func query(addr, name string, qtype uint16) (*dns.Msg, error) {
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), qtype)
	m.SetEdns0(1232, true)
	c := dns.Client{Timeout: 3 * time.Second}
	r, _, err := c.Exchange(m, addr)
	if err == nil && r.Truncated {
		c.Net = "tcp"
		r, _, err = c.Exchange(m, addr)
	}
	return r, err
}

// ask is query where no answer is an error of the test.
func ask(t *testing.T, addr, name string, qtype uint16) *dns.Msg {
	t.Helper()
	r, err := query(addr, name, qtype)
	if err != nil {
		t.Fatalf("ask %s for %s %s: %v", addr, name, dns.TypeToString[qtype], err)
	}
	return r
}

// serialAt returns the SOA serial that a server answers with authority.
func serialAt(addr, zone string) (uint32, error) {
	r, err := query(addr, zone, dns.TypeSOA)
	if err != nil {
		return 0, err
	}
	if r.Rcode != dns.RcodeSuccess || !r.Authoritative {
		return 0, fmt.Errorf("answer is %s, authoritative %v", dns.RcodeToString[r.Rcode], r.Authoritative)
	}
	for _, rr := range r.Answer {
		if soa, ok := rr.(*dns.SOA); ok {
			return soa.Serial, nil
		}
	}
	return 0, fmt.Errorf("no SOA in %v", r.Answer)
}

// notify tells a server that the zone has changed (RFC 1996).
func notify(addr, zone string) error {
	m := new(dns.Msg)
	m.SetNotify(dns.Fqdn(zone))
	c := dns.Client{Timeout: 3 * time.Second}
	r, _, err := c.Exchange(m, addr)
	if err != nil {
		return err
	}
	if r.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("answer to NOTIFY is %s", dns.RcodeToString[r.Rcode])
	}
	return nil
}

// transfer asks for a zone and returns all messages and their bytes.
func transfer(addr string, m *dns.Msg) (msgs []*dns.Msg, raw []byte, err error) {
	conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, nil, err
	}
	c := &dns.Conn{Conn: conn}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, nil, err
	}
	if err := c.WriteMsg(m); err != nil {
		return nil, nil, err
	}
	var first *dns.SOA
	seen := 0 // SOA records, the first left out
	for {
		text, err := c.ReadMsgHeader(nil)
		if err != nil {
			return nil, nil, fmt.Errorf("message %d: %w", len(msgs)+1, err)
		}
		r := new(dns.Msg)
		if err := r.Unpack(text); err != nil {
			return nil, nil, fmt.Errorf("message %d: %w", len(msgs)+1, err)
		}
		raw = append(raw, text...)
		if r.Rcode != dns.RcodeSuccess {
			return nil, nil, fmt.Errorf("answer is %s", dns.RcodeToString[r.Rcode])
		}
		msgs = append(msgs, r)
		for _, rr := range r.Answer {
			soa, ok := rr.(*dns.SOA)
			if first == nil {
				if !ok {
					return nil, nil, fmt.Errorf("first record is %v", rr)
				}
				first = soa
				continue
			}
			if ok {
				seen++
			}
			// The newest serial closes the transfer, and it also starts the
			// additions of an IXFR's last step, as an even SOA.
			if ok && soa.Serial == first.Serial && seen%2 == 1 {
				return msgs, raw, nil
			}
		}
		if m.Question[0].Qtype == dns.TypeIXFR && len(msgs) == 1 && len(r.Answer) == 1 {
			return msgs, raw, nil // the client is up to date
		}
	}
}

// axfr transfers a zone and returns its records, the closing SOA left out.
func axfr(t *testing.T, addr, zone string) []dns.RR {
	t.Helper()
	m := new(dns.Msg)
	m.SetAxfr(dns.Fqdn(zone))
	var msgs []*dns.Msg
	await(t, fmt.Sprintf("AXFR of %s from %s", zone, addr), 10*time.Second, func() (bool, string) {
		var err error
		msgs, _, err = transfer(addr, m)
		return err == nil, fmt.Sprint(err)
	})
	var all []dns.RR
	for _, m := range msgs {
		all = append(all, m.Answer...)
	}
	return all[:len(all)-1]
}

// axfrBytes transfers a zone and returns the octets of its messages.
func axfrBytes(t *testing.T, addr, zone string) []byte {
	t.Helper()
	m := new(dns.Msg)
	m.SetAxfr(dns.Fqdn(zone))
	m.Id = 4711 // the same each time
	var raw []byte
	await(t, fmt.Sprintf("AXFR of %s from %s", zone, addr), 10*time.Second, func() (bool, string) {
		var err error
		_, raw, err = transfer(addr, m)
		return err == nil, fmt.Sprint(err)
	})
	return raw
}

// ixfr asks for the way from a serial to the newest one.
func ixfr(t *testing.T, addr, zone string, from uint32) []dns.RR {
	t.Helper()
	m := new(dns.Msg)
	m.SetIxfr(dns.Fqdn(zone), from, "ns.example.", "h.example.")
	msgs, _, err := transfer(addr, m)
	if err != nil {
		t.Fatalf("IXFR of %s from %s: %v", zone, addr, err)
	}
	var all []dns.RR
	for _, m := range msgs {
		all = append(all, m.Answer...)
	}
	return all
}

// applyIXFR applies the steps of an IXFR to a zone (RFC 1995, 4) and fails on
// a removal of what is not there or an addition of what is.
func applyIXFR(t *testing.T, zone, diff []dns.RR) []dns.RR {
	t.Helper()
	if _, ok := diff[1].(*dns.SOA); !ok {
		t.Fatalf("the answer to IXFR is a whole zone of %d records", len(diff))
	}
	have := map[string]dns.RR{}
	for _, rr := range zone {
		have[normal(rr)] = rr
	}
	adding := true // the first SOA of a step turns it
	for _, rr := range diff[1 : len(diff)-1] {
		if _, ok := rr.(*dns.SOA); ok {
			adding = !adding
		}
		key := normal(rr)
		if _, there := have[key]; there == adding {
			t.Fatalf("IXFR: adding %v, but there %v: %s", adding, there, key)
		}
		if adding {
			have[key] = rr
		} else {
			delete(have, key)
		}
	}
	var after []dns.RR
	for _, rr := range have {
		after = append(after, rr)
	}
	return after
}

// normal is a record's text with what may differ between servers made equal:
// the owner's case, which a server may keep once a name, and the hex digits'.
func normal(rr dns.RR) string {
	return strings.ToLower(rr.String())
}

// records is a zone as sorted text, for comparison.
func records(rrs []dns.RR) []string {
	lines := make([]string, len(rrs))
	for i, rr := range rrs {
		lines[i] = normal(rr)
	}
	slices.Sort(lines)
	return lines
}

// sameZone compares two zones record by record.
func sameZone(t *testing.T, what string, a, b []dns.RR) {
	t.Helper()
	left, right := records(a), records(b)
	if slices.Equal(left, right) {
		return
	}
	shown := 0
	differ := func(from, in []string, sign string) {
		for _, line := range from {
			if _, found := slices.BinarySearch(in, line); !found && shown < 20 {
				t.Logf("%s %s", sign, line)
				shown++
			}
		}
	}
	differ(left, right, "-")
	differ(right, left, "+")
	t.Errorf("%s: the zones differ (%d and %d records)", what, len(left), len(right))
}

// zoneText is a zone as a file that any tool reads.
func zoneText(rrs []dns.RR) string {
	var b strings.Builder
	for _, rr := range rrs {
		// Knot does not read the class in the form of RFC 3597.
		b.WriteString(strings.Replace(rr.String(), "\tCLASS1\t", "\tIN\t", 1))
		b.WriteByte('\n')
	}
	return b.String()
}

// parseFile reads a zone file with another parser than ours.
func parseFile(t *testing.T, zone, file string) []dns.RR {
	t.Helper()
	p := dns.NewZoneParser(strings.NewReader(readFile(t, file)), dns.Fqdn(zone), file)
	var rrs []dns.RR
	for rr, ok := p.Next(); ok; rr, ok = p.Next() {
		rrs = append(rrs, rr)
	}
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	return rrs
}

func uintText(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
