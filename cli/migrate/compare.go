package migrate

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/cli/api"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// buckets is into how many parts the records of a zone are sorted by their
// hash: where two contents differ is told from those that do.
const buckets = 1 << 16

// maxNamed is how many records that differ are named.
const maxNamed = 5

// contents is what a zone holds without DNSSEC, whatever its order: the sum and
// the number of the hashes in each bucket. Its size does not grow with the zone.
type contents struct {
	sums   []uint64 // two a bucket
	counts []uint32
	all    uint64
	// only and picked are of a second look: the records in these buckets.
	only   map[uint16]bool
	picked map[string]bool
}

func newContents() *contents {
	return &contents{sums: make([]uint64, 2*buckets), counts: make([]uint32, buckets)}
}

// typePrivate is named's own record of what it has signed.
const typePrivate = 65534

// counts reports whether a record is compared: not what a signer makes.
func compared(rr dns.RR, apex string) bool {
	switch t := rr.Header().Rrtype; t {
	case dns.TypeRRSIG, dns.TypeNSEC, dns.TypeNSEC3:
		return false
	case dns.TypeDNSKEY, dns.TypeCDS, dns.TypeCDNSKEY, dns.TypeNSEC3PARAM, dns.TypeZONEMD, typePrivate:
		return !strings.EqualFold(rr.Header().Name, apex)
	}
	return true
}

// add takes a record.
func (c *contents) add(rr dns.RR, apex string, buf []byte) error {
	if !compared(rr, apex) {
		return nil
	}
	rr.Header().Name = strings.ToLower(rr.Header().Name)
	if soa, ok := rr.(*dns.SOA); ok {
		soa.Serial = 0
	}
	n, err := dns.PackRR(rr, buf, 0, nil, false)
	if err != nil {
		return fmt.Errorf("%s %s: %w", rr.Header().Name, dns.TypeToString[rr.Header().Rrtype], err)
	}
	_, off, err := dns.UnpackDomainName(buf[:n], 0)
	if err != nil || n < off+10 {
		return fmt.Errorf("%s: malformed record", rr.Header().Name)
	}
	// Servers may change the case of names in RDATA that they compress.
	canonical := zone.AppendCanonicalRData(append([]byte(nil), buf[:off+8]...), zone.Type(rr.Header().Rrtype), buf[off+10:n])
	sum := sha256.Sum256(canonical)
	b := binary.BigEndian.Uint16(sum[:])
	if c.only != nil {
		if c.only[b] && len(c.picked) < 1000 {
			c.picked[strings.Join(strings.Fields(rr.String()), " ")] = true
		}
		return nil
	}
	c.sums[2*int(b)] += binary.BigEndian.Uint64(sum[2:])
	c.sums[2*int(b)+1] += binary.BigEndian.Uint64(sum[10:])
	c.counts[b]++
	c.all++
	return nil
}

// differ is the buckets in which two contents differ.
func (c *contents) differ(o *contents) map[uint16]bool {
	out := map[uint16]bool{}
	for b := range buckets {
		if c.counts[b] != o.counts[b] || c.sums[2*b] != o.sums[2*b] || c.sums[2*b+1] != o.sums[2*b+1] {
			out[uint16(b)] = true
		}
	}
	return out
}

// stream gives all records of a zone to fn.
type stream func(ctx context.Context, fn func(dns.RR) error) error

// read reads contents; only is as in contents.
func read(ctx context.Context, s stream, apex string, only map[uint16]bool) (*contents, error) {
	c := newContents()
	if only != nil {
		c.only, c.picked = only, map[string]bool{}
	}
	buf := make([]byte, 70000)
	first := true
	err := s(ctx, func(rr dns.RR) error {
		if rr.Header().Rrtype == dns.TypeSOA {
			if !first {
				return nil // the last one of a transfer
			}
			first = false
		}
		return c.add(rr, apex, buf)
	})
	return c, err
}

// differences compares what two servers have, and names the first records that
// one of them lacks, with "+" what only ours has and "-" what only theirs has.
func differences(ctx context.Context, ours, theirs stream, apex string) (named []string, err error) {
	a, err := read(ctx, ours, apex, nil)
	if err != nil {
		return nil, fmt.Errorf("read the zone here: %w", err)
	}
	b, err := read(ctx, theirs, apex, nil)
	if err != nil {
		return nil, &theirError{err}
	}
	only := a.differ(b)
	if len(only) == 0 {
		return nil, nil
	}
	if a, err = read(ctx, ours, apex, only); err != nil {
		return nil, fmt.Errorf("read the zone here: %w", err)
	}
	if b, err = read(ctx, theirs, apex, only); err != nil {
		return nil, &theirError{err}
	}
	for text := range a.picked {
		if !b.picked[text] {
			named = append(named, "+ "+text)
		}
	}
	for text := range b.picked {
		if !a.picked[text] {
			named = append(named, "- "+text)
		}
	}
	slices.SortFunc(named, func(x, y string) int { return strings.Compare(x[2:], y[2:]) })
	if len(named) > maxNamed {
		named = append(named[:maxNamed], fmt.Sprintf("and %d more", len(named)-maxNamed))
	}
	return named, nil
}

// theirError is an error of the former signer's server.
type theirError struct{ error }

func (t *theirError) Unwrap() error { return t.error }

// dumped is what is published here.
func dumped(client *api.Client, name string) stream {
	return func(ctx context.Context, fn func(dns.RR) error) error {
		r, w := io.Pipe()
		go func() { w.CloseWithError(client.Dump(ctx, name, pipeline.DumpQuery{}, w)) }()
		defer r.Close() //nolint:errcheck // ends the dump
		p := dns.NewZoneParser(bufio.NewReaderSize(r, 1<<16), ".", "")
		for rr, ok := p.Next(); ok; rr, ok = p.Next() {
			if err := fn(rr); err != nil {
				return err
			}
		}
		return p.Err()
	}
}

// transferred is what a server gives out by AXFR. secrets are those of TSIG keys
// in base64, by name.
func transferred(server, name string, tsig map[string]PlannedTSIG, secrets map[string]string) stream {
	return func(ctx context.Context, fn func(dns.RR) error) error {
		address, key := hostPort(server)
		m := new(dns.Msg)
		m.SetAxfr(dns.Fqdn(name))
		t := &dns.Transfer{DialTimeout: 5 * time.Second, ReadTimeout: 30 * time.Second}
		if key != "" {
			k, ok := tsig[dotted(strings.ToLower(key))]
			if !ok {
				return fmt.Errorf("TSIG key %s is not in the plan", key)
			}
			t.TsigSecret = secrets
			m.SetTsig(dotted(strings.ToLower(key)), dotted(k.Algorithm), 300, time.Now().Unix())
		}
		envelopes, err := t.In(m, address)
		if err != nil {
			return err
		}
		var failed error
		for e := range envelopes { // to its end: the library's goroutine waits for us
			if failed == nil {
				failed = errors.Join(e.Error, ctx.Err())
			}
			for _, rr := range e.RR {
				if failed == nil {
					failed = fn(rr)
				}
			}
			if failed != nil {
				t.Close() //nolint:errcheck // it is given up
			}
		}
		return failed
	}
}

// hostPort is the address and the TSIG key of IP[:PORT][^TSIGKEY].
func hostPort(server string) (address, key string) {
	address, key, _ = strings.Cut(server, "^")
	address = strings.TrimPrefix(address, "tls://")
	switch {
	case strings.HasPrefix(address, "["):
		if !strings.Contains(address, "]:") {
			address += ":53"
		}
	case strings.Count(address, ":") > 1:
		address = "[" + address + "]:53"
	case !strings.Contains(address, ":"):
		address += ":53"
	}
	return address, key
}

// keysAt is the keys that a server has in a zone's DNSKEY RRset: tags by ID.
func keysAt(ctx context.Context, server, name string) (map[string]uint16, error) {
	address, _ := hostPort(server)
	m := new(dns.Msg)
	m.SetQuestion(dns.Fqdn(name), dns.TypeDNSKEY)
	m.SetEdns0(4096, true)
	c := &dns.Client{Net: "tcp", Timeout: 5 * time.Second}
	r, _, err := c.ExchangeContext(ctx, m, address)
	if err != nil {
		return nil, err
	}
	if r.Rcode != dns.RcodeSuccess {
		return nil, fmt.Errorf("it answers %s", dns.RcodeToString[r.Rcode])
	}
	out := map[string]uint16{}
	for _, rr := range r.Answer {
		k, ok := rr.(*dns.DNSKEY)
		if !ok {
			continue
		}
		rdata, err := rdataOf(k)
		if err != nil {
			return nil, err
		}
		out[zone.KeyID(rdata)] = k.KeyTag()
	}
	return out, nil
}

// tsigSecrets reads the secrets of a plan's TSIG keys: the keys, and their
// secrets in base64, by name.
func (p Plan) tsigSecrets(dir string) (map[string]PlannedTSIG, map[string]string, error) {
	keys, secrets := map[string]PlannedTSIG{}, map[string]string{}
	for _, k := range p.TSIG {
		text, err := os.ReadFile(filepath.Join(dir, k.File))
		if err != nil {
			return nil, nil, fmt.Errorf("TSIG key %s: %w", k.Name, err)
		}
		secret := strings.TrimSpace(string(text))
		if _, err := base64.StdEncoding.DecodeString(secret); err != nil {
			return nil, nil, fmt.Errorf("TSIG key %s: its secret is not base64", k.Name)
		}
		name := dotted(strings.ToLower(k.Name))
		keys[name], secrets[name] = k, secret
	}
	return keys, secrets, nil
}
