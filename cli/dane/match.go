package dane

import (
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Server is what is checked against records.
type Server struct {
	Host  string              // without the final dot
	SMTP  bool                // mail: usages 0 and 1 do not count there (RFC 7672, 3.1.3)
	Chain []*x509.Certificate // as the server shows it, its own first
	Roots *x509.CertPool      // of the system where it is nil
	Now   time.Time
}

// Match is what came of one record.
type Match struct {
	Record
	OK   bool   `json:"ok"`
	Text string `json:"text"` // why, in a sentence
}

// Result is what came of all records.
type Result struct {
	OK      bool    `json:"ok"` // one record is enough (RFC 6698, 2.1)
	Matches []Match `json:"matches"`
	// Hints say what would break, and when.
	Hints []string `json:"hints,omitempty"`
}

// maxTLSA is how many records are looked at.
const maxTLSA = 64

var errNoChain = errors.New("the server shows no certificate")

// Check checks a server's certificates against records.
func (s *Server) Check(records []Record) (Result, error) {
	if len(s.Chain) == 0 {
		return Result{}, errNoChain
	}
	var res Result
	for _, r := range records[:min(len(records), maxTLSA)] {
		ok, text := s.one(r)
		res.Matches = append(res.Matches, Match{Record: r, OK: ok, Text: text})
		res.OK = res.OK || ok
	}
	res.Hints = s.hints(res)
	return res, nil
}

// one checks one record.
func (s *Server) one(r Record) (ok bool, text string) {
	if err := r.Usable(); err != nil {
		return false, "it counts as not there: " + err.Error()
	}
	if s.SMTP && r.Usage <= PKIXEE {
		return false, fmt.Sprintf("usage %d counts as not there for mail (RFC 7672, 3.1.3): use 3 1 1", r.Usage)
	}
	switch r.Usage {
	case DANEEE:
		if !r.Is(s.Chain[0]) {
			return false, "it is not of the " + r.what() + " that the server shows"
		}
		return true, "it is of the server's " + r.what() + "; its names and its end do not matter (RFC 7671, 5.1)"
	case PKIXEE:
		if !r.Is(s.Chain[0]) {
			return false, "it is not of the " + r.what() + " that the server shows"
		}
		if _, err := s.verify(s.Roots); err != nil {
			return false, fmt.Sprintf("it is of the server's %s, and the certificate is not valid: %v", r.what(), err)
		}
		return true, "it is of the server's " + r.what() + ", and the certificate is valid"
	case PKIXTA:
		chains, err := s.verify(s.Roots)
		if err != nil {
			return false, fmt.Sprintf("the server's certificate is not valid: %v", err)
		}
		for _, chain := range chains {
			if slices.ContainsFunc(chain[1:], r.Is) {
				return true, "it is of a CA of the server's certificate, which is valid"
			}
		}
		return false, "it is of no CA of the server's certificate"
	}
	return s.trustAnchor(r)
}

// what the record is of.
func (r Record) what() string {
	if r.Selector == 1 {
		return "key"
	}
	return "certificate"
}

// trustAnchor checks a record of usage 2 (RFC 7671, 5.2).
func (s *Server) trustAnchor(r Record) (ok bool, text string) {
	var anchor *x509.Certificate
	for _, cert := range s.Chain[1:min(len(s.Chain), maxChain)] {
		if r.Is(cert) {
			anchor = cert
			break
		}
	}
	if anchor == nil && r.Selector == 0 && r.Matching == 0 {
		if der, err := hex.DecodeString(r.Data); err == nil {
			anchor, _ = x509.ParseCertificate(der) // nil where it is none
		}
	}
	if anchor == nil && r.Is(s.Chain[0]) && s.Chain[0].IsCA {
		anchor = s.Chain[0]
	}
	if anchor == nil {
		return false, "it is of no CA certificate that the server shows: the server must send that of the CA too (RFC 7671, 5.2.2)"
	}
	roots := x509.NewCertPool()
	roots.AddCert(anchor)
	if _, err := s.verify(roots); err != nil {
		return false, fmt.Sprintf("it is of the CA %s, and the server's certificate is not valid under it: %v", anchor.Subject, err)
	}
	return true, fmt.Sprintf("it is of the CA %s, and the server's certificate is valid under it", anchor.Subject)
}

// verify validates the server's certificate in the usual way.
func (s *Server) verify(roots *x509.CertPool) ([][]*x509.Certificate, error) {
	between := x509.NewCertPool()
	for _, cert := range s.Chain[1:min(len(s.Chain), maxChain)] {
		between.AddCert(cert)
	}
	return s.Chain[0].Verify(x509.VerifyOptions{
		DNSName: s.Host, Roots: roots, Intermediates: between, CurrentTime: s.Now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// hints say what a renewal breaks.
func (s *Server) hints(res Result) []string {
	var out []string
	spare, good, whole, named := false, 0, 0, 0
	for _, m := range res.Matches {
		switch {
		case m.OK:
			good++
			if m.Selector == 0 && (m.Usage == DANEEE || m.Usage == PKIXEE) {
				whole++
			}
			if m.Usage != DANEEE {
				named++
			}
		case m.Usable() == nil:
			spare = true
		}
	}
	end := s.Chain[0].NotAfter.UTC().Format(time.DateOnly)
	if good > 0 && good == whole {
		out = append(out, fmt.Sprintf("every renewal of the certificate, at the latest on %s, makes the records wrong: use selector 1 and keep the key, or publish the next one's record first", end))
	}
	if good > 0 && !spare && whole < good {
		out = append(out, "only what the server has now is listed: before its key changes, publish the record of the next key and wait for the TTL of the old records")
	}
	if good > 0 && good == named {
		out = append(out, fmt.Sprintf("the certificate ends on %s: without a new one no record counts from then on", end))
	}
	if spare && good > 0 {
		out = append(out, "a record fits nothing that the server has: fine for a next key, else remove it")
	}
	return out
}
