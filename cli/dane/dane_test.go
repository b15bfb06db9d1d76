package dane

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// pair is a certificate with its key.
type pair struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issue makes a certificate; by is nil for a root's.
func issue(t testing.TB, name string, ca bool, by *pair, until time.Time) *pair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-1000 * time.Hour), NotAfter: until,
		IsCA: ca, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ca {
		template.KeyUsage = x509.KeyUsageCertSign
	} else {
		template.DNSNames = []string{name}
	}
	parent, signer := template, crypto.Signer(key)
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &pair{cert, key}
}

func record(t testing.TB, p *pair, usage, selector, matching uint8) Record {
	t.Helper()
	r, err := Make(p.cert, usage, selector, matching)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRFC7671_5_WhatEachUsageLooksAt(t *testing.T) {
	later := now.Add(2000 * time.Hour)
	root := issue(t, "Root", true, nil, later)
	between := issue(t, "Between", true, root, later)
	leaf := issue(t, "www.example", false, between, later)
	old := issue(t, "www.example", false, between, now.Add(-time.Hour))
	self := issue(t, "other.example", false, nil, now.Add(-time.Hour))
	trusted := x509.NewCertPool()
	trusted.AddCert(root.cert)
	chainOf := func(all ...*pair) (out []*x509.Certificate) {
		for _, p := range all {
			out = append(out, p.cert)
		}
		return out
	}
	for _, c := range []struct {
		fact   string
		chain  []*x509.Certificate
		record Record
		ok     bool
	}{
		{"3 1 1 of the key", chainOf(leaf), record(t, leaf, 3, 1, 1), true},
		{"3 0 1 of the certificate", chainOf(leaf), record(t, leaf, 3, 0, 1), true},
		{"3 1 0 in full", chainOf(leaf), record(t, leaf, 3, 1, 0), true},
		{"3 0 2 of SHA-512", chainOf(leaf), record(t, leaf, 3, 0, 2), true},
		{"3 1 1 of an expired certificate of another name", chainOf(self), record(t, self, 3, 1, 1), true},
		{"3 1 1 of another key", chainOf(leaf), record(t, self, 3, 1, 1), false},
		{"2 0 1 of the CA between", chainOf(leaf, between), record(t, between, 2, 0, 1), true},
		{"2 1 1 of the root that is shown", chainOf(leaf, between, root), record(t, root, 2, 1, 1), true},
		{"2 0 1 of a root that is not shown", chainOf(leaf, between), record(t, root, 2, 0, 1), false},
		{"2 0 0 of a root that is not shown", chainOf(leaf, between), record(t, root, 2, 0, 0), true},
		{"2 0 1 of an expired certificate", chainOf(old, between), record(t, between, 2, 0, 1), false},
		{"1 1 1 of a valid certificate", chainOf(leaf, between), record(t, leaf, 1, 1, 1), true},
		{"1 1 1 of an expired one", chainOf(old, between), record(t, old, 1, 1, 1), false},
		{"1 1 1 of one that nobody signed", chainOf(self), record(t, self, 1, 1, 1), false},
		{"0 0 1 of the CA between", chainOf(leaf, between), record(t, between, 0, 0, 1), true},
		{"0 0 1 of a CA that is another's", chainOf(leaf, between), record(t, issue(t, "Other", true, nil, later), 0, 0, 1), false},
		{"an unknown usage", chainOf(leaf), Record{Usage: 4, Selector: 1, Matching: 1, Data: record(t, leaf, 3, 1, 1).Data}, false},
		{"an unknown matching", chainOf(leaf), Record{Usage: 3, Selector: 1, Matching: 3, Data: record(t, leaf, 3, 1, 1).Data}, false},
	} {
		t.Run(c.fact, func(t *testing.T) {
			s := Server{Host: "www.example", Chain: c.chain, Roots: trusted, Now: now}
			res, err := s.Check([]Record{c.record})
			if err != nil {
				t.Fatal(err)
			}
			if res.OK != c.ok || res.Matches[0].OK != c.ok || res.Matches[0].Text == "" {
				t.Errorf("%v: %s", res.OK, res.Matches[0].Text)
			}
		})
	}
	wrong := Server{Host: "mail.example", Chain: chainOf(leaf, between), Roots: trusted, Now: now}
	for usage := range uint8(3) {
		r := record(t, between, 2, 0, 1)
		if usage == PKIXEE {
			r = record(t, leaf, 1, 1, 1)
		}
		r.Usage = usage
		if res, err := wrong.Check([]Record{r}); err != nil || res.OK {
			t.Errorf("usage %d: a certificate of another name: %v %v", usage, res, err)
		}
	}
	mail := Server{Host: "www.example", SMTP: true, Chain: chainOf(leaf, between), Roots: trusted, Now: now}
	if res, err := mail.Check([]Record{record(t, leaf, 1, 1, 1)}); err != nil || res.OK {
		t.Errorf("RFC 7672, 3.1.3: usage 1 counts for mail: %v %v", res, err)
	}
}

func TestHints_SayWhatARenewalBreaks(t *testing.T) {
	leaf, next := issue(t, "www.example", false, nil, now.Add(time.Hour)), issue(t, "www.example", false, nil, now.Add(time.Hour))
	for _, c := range []struct {
		fact    string
		records []Record
		want    string
	}{
		{"the whole certificate", []Record{record(t, leaf, 3, 0, 1)}, "every renewal"},
		{"one key", []Record{record(t, leaf, 3, 1, 1)}, "only what the server has now"},
		{"the next key too", []Record{record(t, leaf, 3, 1, 1), record(t, next, 3, 1, 1)}, "fine for a next key"},
	} {
		s := Server{Host: "www.example", Chain: []*x509.Certificate{leaf.cert}, Now: now}
		res, err := s.Check(c.records)
		if err != nil || !res.OK || len(res.Hints) != 1 || !strings.Contains(res.Hints[0], c.want) {
			t.Errorf("%s: %q %v", c.fact, res.Hints, err)
		}
	}
}

func TestMake_AServersCertificateIsNoCAs(t *testing.T) {
	if _, err := Make(issue(t, "www.example", false, nil, now).cert, 2, 0, 1); err == nil {
		t.Error("made")
	}
	for _, bad := range [][3]uint8{{4, 0, 0}, {3, 2, 0}, {3, 1, 3}} {
		if _, err := Make(issue(t, "www.example", true, nil, now).cert, bad[0], bad[1], bad[2]); err == nil {
			t.Errorf("%v: made", bad)
		}
	}
}

func TestReadCertificates_PEMAndDER(t *testing.T) {
	leaf, ca := issue(t, "www.example", false, nil, now), issue(t, "CA", true, nil, now)
	var text []byte
	for _, p := range []*pair{leaf, ca} {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.cert.Raw})...)
	}
	all, err := ReadCertificates(text)
	if err != nil || len(all) != 2 || !all[1].Equal(ca.cert) || Pick(all, 2) != all[1] || Pick(all, 3) != all[0] {
		t.Errorf("%d %v", len(all), err)
	}
	if all, err := ReadCertificates(leaf.cert.Raw); err != nil || !all[0].Equal(leaf.cert) {
		t.Error(err)
	}
	if _, err := ReadCertificates([]byte("nothing")); err == nil {
		t.Error("read")
	}
}

// script is a server that says lines and waits for those that begin so.
func script(t *testing.T, p *pair, lines ...string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in := bufio.NewReader(conn)
		for _, line := range lines {
			if want, ok := strings.CutPrefix(line, "< "); ok {
				end := byte('\n')
				if strings.HasPrefix(want, "<") {
					end = '>'
				}
				for got := ""; !strings.Contains(got, want); {
					if got, err = in.ReadString(end); err != nil {
						return
					}
				}
				continue
			}
			fmt.Fprint(conn, line)
		}
		if p != nil {
			_ = tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{p.cert.Raw}, PrivateKey: p.key}}}).Handshake() // the client tells
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

func TestFetch_GetsTheCertificate(t *testing.T) {
	p := issue(t, "www.example", false, nil, now.Add(-time.Hour))
	for _, c := range []struct {
		protocol string
		lines    []string
	}{
		{"", nil},
		{"smtp", []string{"220-mail\r\n220 ready\r\n", "< EHLO", "250-mail\r\n250 STARTTLS\r\n", "< STARTTLS", "220 go\r\n"}},
		{"imap", []string{"* OK ready\r\n", "< a1 STARTTLS", "* BYE not yet\r\na1 OK go\r\n"}},
		{"pop3", []string{"+OK ready\r\n", "< STLS", "+OK go\r\n"}},
		{"xmpp", []string{"< <stream:stream", "<?xml version='1.0'?><stream:stream><stream:features><starttls/></stream:features>", "< <starttls", "<proceed xmlns='x'/>"}},
	} {
		t.Run(c.protocol, func(t *testing.T) {
			certs, err := Fetch(t.Context(), script(t, p, c.lines...), "www.example", c.protocol)
			if err != nil || len(certs) != 1 || !certs[0].Equal(p.cert) {
				t.Errorf("%d certificates: %v", len(certs), err)
			}
		})
	}
}

func TestFetch_ServersThatDoNotBeginTLS(t *testing.T) {
	for _, c := range []struct {
		fact, protocol string
		lines          []string
	}{
		{"refuses", "smtp", []string{"220 ready\r\n", "< EHLO", "502 no\r\n"}},
		{"has no STARTTLS", "imap", []string{"* OK ready\r\n", "< a1", "a1 BAD no\r\n"}},
		{"talks without end", "smtp", []string{strings.Repeat("220-on and on\r\n", 1000)}},
		{"has a line without end", "pop3", []string{strings.Repeat("x", 100000)}},
		{"fails", "xmpp", []string{"< <stream:stream", "<stream:stream></stream:features>", "< <starttls", "<failure/></stream:stream>"}},
		{"hangs up", "smtp", nil},
	} {
		t.Run(c.fact, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			if certs, err := Fetch(ctx, script(t, nil, c.lines...), "www.example", c.protocol); err == nil {
				t.Errorf("%d certificates", len(certs))
			} else if ctx.Err() != nil {
				t.Errorf("it waits: %v", err)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	leaf := issue(f, "www.example", true, nil, now)
	f.Add([]byte{3, 1, 1, 5})
	f.Add(append([]byte{2, 0, 0}, leaf.cert.Raw...))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRecord(data)
		if err != nil {
			return
		}
		s := Server{Host: "www.example", Chain: []*x509.Certificate{leaf.cert}, Roots: x509.NewCertPool(), Now: now}
		if res, err := s.Check([]Record{r}); err != nil || len(res.Matches) != 1 {
			t.Errorf("%v %v", res, err)
		}
	})
}
