package observe

import (
	"context"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"sluice/signer/zone"
)

// Probe is a question to a validating resolver.
type Probe struct {
	Resolver netip.AddrPort
	Name     zone.Name
	Type     zone.Type
	TCP      bool // over TCP at once; else over UDP, and over TCP where that was truncated
}

// Validated is what a validating resolver said.
type Validated struct {
	// Error says why there is no answer; all below is empty then.
	Error string
	Rcode int
	// AD: the resolver says that it validated the answer (RFC 4035, 3.2.3).
	AD bool
	// Extended are the codes of extended errors (RFC 8914), and their texts.
	Extended []Extended
	// Unchecked: it answered SERVFAIL, and has an answer where it is told not to
	// validate (CD). So validation is what failed.
	Unchecked bool
	TCP       bool // it came over TCP
}

// Extended is one extended error.
type Extended struct {
	Code uint16
	Text string // of the resolver, shortened
}

const (
	// maxExtended bounds the extended errors that are kept of an answer.
	maxExtended = 4
	// maxExtendedText bounds their texts, in bytes.
	maxExtendedText = 200
)

// ExtendedText is the name of an extended error's code (RFC 8914, 5.2); "" where
// it is not known.
func ExtendedText(code uint16) string { return dns.ExtendedErrorCodeToString[code] }

// Bogus reports whether an extended error says that an answer does not validate
// (RFC 8914, 4).
func (x Extended) Bogus() bool {
	switch x.Code {
	case dns.ExtendedErrorCodeDNSBogus, dns.ExtendedErrorCodeSignatureExpired, dns.ExtendedErrorCodeSignatureNotYetValid,
		dns.ExtendedErrorCodeDNSKEYMissing, dns.ExtendedErrorCodeRRSIGsMissing, dns.ExtendedErrorCodeNoZoneKeyBitSet,
		dns.ExtendedErrorCodeNSECMissing, dns.ExtendedErrorCodeSignatureExpiredBeforeValid:
		return true
	}
	return false
}

// Validate asks a resolver, and leaves the validation to it. One that answers
// SERVFAIL is asked once more not to validate.
func (o *Observer) Validate(ctx context.Context, p Probe) Validated {
	q := question{name: p.Name, t: p.Type, recurse: true, validated: true}
	m, tcp, err := o.exchange(ctx, p, q)
	v := Validated{TCP: tcp}
	if err != nil {
		v.Error = err.Error()
		return v
	}
	v.Rcode, v.AD = m.Rcode, m.AuthenticatedData
	if opt := m.IsEdns0(); opt != nil {
		v.Extended = extendedOf(opt)
	}
	if v.Rcode == dns.RcodeServerFailure {
		q.validated = false
		m, _, err := o.exchange(ctx, p, q)
		v.Unchecked = err == nil && (m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError)
	}
	return v
}

// exchange asks over UDP, and over TCP where that is wanted or needed.
func (o *Observer) exchange(ctx context.Context, p Probe, q question) (m *dns.Msg, tcp bool, err error) {
	if !p.TCP {
		if m, err = o.exchangeUDP(ctx, p.Resolver, q); err != nil || !m.Truncated {
			return m, false, err
		}
	}
	s, done, err := o.connect(ctx, p.Resolver)
	if err != nil {
		return nil, true, err
	}
	defer done()
	m, err = s.exchange(ctx, q)
	return m, true, err
}

// extendedOf are the extended errors of an answer.
func extendedOf(opt *dns.OPT) (out []Extended) {
	for _, option := range opt.Option {
		ede, ok := option.(*dns.EDNS0_EDE)
		if !ok || len(out) == maxExtended {
			continue
		}
		x := Extended{Code: ede.InfoCode, Text: ede.ExtraText[:min(len(ede.ExtraText), maxExtendedText)]}
		if !slices.Contains(out, x) {
			out = append(out, x)
		}
	}
	return out
}
