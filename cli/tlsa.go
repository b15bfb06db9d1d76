package cli

import (
	"context"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
	urfave "github.com/urfave/cli/v2"

	"sluice/cli/chain"
	"sluice/cli/dane"
	"sluice/pipeline"
	"sluice/signer/zone"
)

func tlsaCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name:         "tlsa",
		Usage:        "make TLSA records for a certificate (DANE), and check them; needs no daemon",
		OnUsageError: onUsageError,
		Action:       commandMissing,
		Subcommands:  []*urfave.Command{tlsaMakeCommand(e), tlsaCheckCommand(e)},
	}
}

// tlsaFlags say which service is meant, and where its certificates come from.
func tlsaFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.IntFlag{Name: "port", Value: 443, Usage: "of the service"},
		&urfave.StringFlag{Name: "proto", Value: "tcp", Usage: "of the service: tcp, udp or sctp"},
		&urfave.StringFlag{Name: "cert", Usage: "read certificates, the server's first, from `FILE` (PEM or DER) instead of the server"},
		&urfave.StringFlag{Name: "connect", Usage: "get the certificates from `HOST:PORT`"},
		&urfave.StringFlag{Name: "starttls", Usage: "begin TLS as this protocol does: " + strings.Join(dane.Protocols(), ", ")},
	}
}

func tlsaMakeCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "make", Usage: "print the TLSA record of a certificate", ArgsUsage: "HOST",
		OnUsageError: onUsageError,
		Flags: append(tlsaFlags(),
			&urfave.IntFlag{Name: "usage", Value: dane.DANEEE, Usage: "0 PKIX-TA, 1 PKIX-EE, 2 DANE-TA, 3 DANE-EE"},
			&urfave.IntFlag{Name: "selector", Value: 1, Usage: "0 the whole certificate, 1 its public key"},
			&urfave.IntFlag{Name: "matching", Value: 1, Usage: "0 in full, 1 SHA-256, 2 SHA-512"},
		),
		Action: func(c *urfave.Context) error {
			s, err := tlsaService(c)
			if err != nil {
				return err
			}
			if !c.IsSet("cert") && !c.IsSet("connect") {
				return &usageError{msg: "no certificate", hint: "give --cert FILE or --connect HOST:PORT"}
			}
			var field [3]uint8
			for i, name := range []string{"usage", "selector", "matching"} {
				n := c.Int(name)
				if n < 0 || n > 255 {
					return usagef("--%s %d: want a number from 0 to 3", name, n)
				}
				field[i] = uint8(n)
			}
			certs, err := s.certificates(c.Context)
			if err != nil {
				return err
			}
			r, err := dane.Make(dane.Pick(certs, field[0]), field[0], field[1], field[2])
			if err != nil {
				return usagef("%v", err)
			}
			if e.json {
				return e.printJSON(tlsaRecord{Owner: s.owner.String(), Record: r, Line: s.line(r)})
			}
			return e.printf("%s\n", s.line(r))
		},
	}
}

// tlsaRecord is a record with its owner.
type tlsaRecord struct {
	Owner string `json:"owner"`
	dane.Record
	Line string `json:"line"` // of a zone file
}

func tlsaCheckCommand(e *env) *urfave.Command {
	return &urfave.Command{
		Name: "check", Usage: "check a service's certificate against its TLSA records", ArgsUsage: "HOST",
		OnUsageError: onUsageError,
		Flags:        append(tlsaFlags(), chainFlags()...),
		Action: func(c *urfave.Context) error {
			s, err := tlsaService(c)
			if err != nil {
				return err
			}
			cfg, err := chainConfig(c, time.Now())
			if err != nil {
				return err
			}
			r, err := chain.Check(c.Context, cfg, s.owner, []zone.Type{zone.Type(dns.TypeTLSA)})
			if err != nil {
				return noAnchor(err)
			}
			out := tlsaReport{Host: s.host, Owner: s.owner.String(), Verdict: r.Verdict, Chain: r.Summary}
			if err := s.check(c.Context, r, cfg.Now, &out); err != nil {
				return err
			}
			return errors.Join(e.printTLSA(out), tlsaError(r, out))
		},
	}
}

// tlsaReport is what came of checking a service.
type tlsaReport struct {
	Host    string        `json:"host"`
	Owner   string        `json:"owner"`
	Verdict chain.Verdict `json:"verdict"` // of the TLSA records
	Chain   string        `json:"chain"`   // why, in a sentence
	OK      bool          `json:"ok"`      // a client that does DANE gets through
	Summary string        `json:"summary"`
	Matches []dane.Match  `json:"matches,omitempty"`
	Hints   []string      `json:"hints,omitempty"`
	// Certificates are the subjects of those that were shown, the server's first.
	Certificates []string `json:"certificates,omitempty"`
}

// service is what TLSA records are of.
type service struct {
	host     string // without the final dot
	owner    zone.Name
	file     string
	connect  string
	starttls string
}

func tlsaService(c *urfave.Context) (*service, error) {
	args, err := arguments(c, "HOST")
	if err != nil {
		return nil, err
	}
	host, err := parseZone(args[0])
	if err != nil {
		return nil, err
	}
	s := &service{host: strings.TrimSuffix(host.Fold().String(), "."), file: c.String("cert"), connect: c.String("connect"), starttls: c.String("starttls")}
	port := c.Int("port")
	if port < 1 || port > 65535 {
		return nil, usagef("--port %d: want 1 to 65535", port)
	}
	proto := c.String("proto")
	switch {
	case proto != "tcp" && proto != "udp" && proto != "sctp":
		return nil, usagef("--proto %q: want tcp, udp or sctp", proto)
	case s.file != "" && (s.connect != "" || s.starttls != ""):
		return nil, usagef("--cert: with it, nothing is connected to")
	case s.file == "" && proto != "tcp":
		return nil, usagef("--proto %s: want --cert FILE, since only TCP can be connected to", proto)
	}
	if s.starttls != "" && !slices.Contains(dane.Protocols(), s.starttls) {
		return nil, usagef("--starttls %q: want %s", s.starttls, strings.Join(dane.Protocols(), ", "))
	}
	if s.connect == "" {
		s.connect = net.JoinHostPort(s.host, strconv.Itoa(port))
	} else if _, _, err := net.SplitHostPort(s.connect); err != nil {
		return nil, usagef("--connect %q: want HOST:PORT", s.connect)
	}
	if s.owner, err = zone.ParseName(fmt.Sprintf("_%d._%s.%s", port, proto, host)); err != nil {
		return nil, usagef("%v", err)
	}
	s.owner = s.owner.Fold()
	return s, nil
}

// line is a record as a zone file has it.
func (s *service) line(r dane.Record) string { return fmt.Sprintf("%s IN TLSA %s", s.owner, r) }

// tlsTimeout is how long a server may take to show its certificates.
const tlsTimeout = 15 * time.Second

// certificates are those of the file or of the server.
func (s *service) certificates(ctx context.Context) ([]*x509.Certificate, error) {
	if s.file == "" {
		ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
		defer cancel()
		certs, err := dane.Fetch(ctx, s.connect, s.host, s.starttls)
		if err != nil {
			return nil, withHint(fmt.Errorf("get the certificate of %s: %w", s.connect, err), "give it with --cert FILE, or say where to ask with --connect HOST:PORT")
		}
		return certs, nil
	}
	info, err := os.Stat(s.file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxAnchorFile {
		return nil, fmt.Errorf("%s: larger than %d bytes: not a file of certificates", s.file, maxAnchorFile)
	}
	text, err := os.ReadFile(filepath.Clean(s.file))
	if err != nil {
		return nil, err
	}
	certs, err := dane.ReadCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.file, err)
	}
	return certs, nil
}

// check checks the certificates against the records of a report.
func (s *service) check(ctx context.Context, r *chain.Report, now time.Time, out *tlsaReport) error {
	_, data, secure := r.Records(zone.Type(dns.TypeTLSA))
	switch {
	case r.Verdict == chain.Bogus || r.Verdict == chain.Unreachable:
		out.Summary = "the TLSA records cannot be had: " + r.Summary
		return nil
	case len(data) == 0:
		out.Summary = fmt.Sprintf("%s has no TLSA records: make one with sluice tlsa make %s", out.Owner, s.host)
		return nil
	case !secure:
		out.Summary = fmt.Sprintf("the TLSA records of %s do not count, since they are not secure: %s", out.Owner, r.Summary)
		return nil
	}
	certs, err := s.certificates(ctx)
	if err != nil {
		return err
	}
	for _, cert := range certs {
		out.Certificates = append(out.Certificates, fmt.Sprintf("%s, until %s", cert.Subject, cert.NotAfter.UTC().Format(time.DateOnly)))
	}
	var records []dane.Record
	for _, rdata := range data {
		record, err := dane.ParseRecord(rdata)
		if err != nil {
			record = dane.Record{Usage: 255, Data: hex.EncodeToString(rdata)}
		}
		records = append(records, record)
	}
	server := dane.Server{Host: s.host, SMTP: s.starttls == "smtp", Chain: certs, Now: now}
	res, err := server.Check(records)
	if err != nil {
		return err
	}
	out.OK, out.Matches, out.Hints = res.OK, res.Matches, res.Hints
	out.Summary = fmt.Sprintf("the certificate of %s fits its TLSA records", s.host)
	if !res.OK {
		out.Summary = fmt.Sprintf("the certificate of %s fits none of its TLSA records: clients that do DANE refuse it; publish the record of sluice tlsa make %s, or go back to the certificate that is listed", s.host, s.host)
	}
	return nil
}

// tlsaError is what a report means for the exit code.
func tlsaError(r *chain.Report, out tlsaReport) error {
	switch {
	case r.Verdict == chain.Unreachable:
		return chainError(r, false)
	case out.OK:
		return nil
	case r.Healthy && len(out.Matches) == 0 && r.Verdict == chain.Secure:
		return errors.Join(errSilent, pipeline.ErrNotFound)
	}
	return errSilent
}

func (e *env) printTLSA(out tlsaReport) error {
	if e.json {
		return e.printJSON(out)
	}
	color := green
	if !out.OK {
		color = red
	}
	if err := e.printf("%s\n\n%s: %s\n", e.paint(color, out.Summary), out.Owner, out.Chain); err != nil {
		return err
	}
	for i, cert := range out.Certificates {
		if err := e.printf("certificate %d: %s\n", i+1, cert); err != nil {
			return err
		}
	}
	for _, m := range out.Matches {
		mark := e.paint(green, "fits    ")
		if !m.OK {
			mark = e.paint(yellow, "fits not")
		}
		data := m.Record.String()
		if len(data) > 32 {
			data = data[:32] + "..."
		}
		if err := e.printf("%s %s: %s\n", mark, data, m.Text); err != nil {
			return err
		}
	}
	for _, h := range out.Hints {
		if err := e.printf("note: %s\n", h); err != nil {
			return err
		}
	}
	return nil
}
