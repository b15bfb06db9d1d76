package chain

import (
	"fmt"
	"slices"
	"time"

	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// soon is how long before they expire signatures are told of.
const soon = 72 * time.Hour

// problem is a finding before it is known which servers show it.
type problem struct {
	code  Code
	owner zone.Name
	t     zone.Type
	text  string
	at    *time.Time
}

// judge is what validates in one zone.
type judge struct {
	apex zone.Name
	keys []validate.Key
	now  time.Time
	// trusted says that something above was valid at now: this machine's clock
	// is right then.
	trusted bool
}

// verdict is what came of an RRset.
type verdict struct {
	ok         bool
	sig        *validate.Signature // a valid one, the last to expire
	algorithms []uint8             // that have a valid signature
	problems   []problem           // why not; where ok, what else is to be told
}

// expires is when the last of the valid signatures does.
func (v *verdict) expires(now time.Time) time.Time { return serialTime(v.sig.Expiration, now) }

// serialTime is the time near now that 32 bits stand for (RFC 4034, 3.1.5).
func serialTime(t uint32, now time.Time) time.Time {
	d := int32(t - uint32(now.Unix())) //nolint:gosec // modulo 2^32 is meant
	return time.Unix(now.Unix()+int64(d), 0).UTC()
}

// set judges an RRset. What a wildcard made is judged too: whether it may stand
// is for the caller.
func (j *judge) set(set *validate.RRset) (v verdict) {
	what := fmt.Sprintf("%s %s", set.Owner.Fold(), set.Type)
	say := func(code Code, format string, args ...any) problem {
		return problem{code: code, owner: set.Owner.Fold(), t: set.Type, text: fmt.Sprintf(format, args...)}
	}
	if len(set.Sigs) == 0 {
		v.problems = []problem{say(CodeSignatureMissing, "%s has no signature", what)}
		return v
	}
	var reasons []problem
	attempts := 0
	for i := range set.Sigs {
		s := &set.Sigs[i]
		if !s.Signer.Equal(j.apex) || !set.Owner.Under(j.apex) || int(s.Labels) > set.Owner.Labels() {
			reasons = append(reasons, say(CodeSignatureSigner, "the signature over %s is in the name of %s, not of %s", what, s.Signer, j.apex))
			continue
		}
		known := false
		for _, k := range j.keys {
			if k.Tag != s.Tag || k.Algorithm != s.Algorithm {
				continue
			}
			known = true
			if attempts++; attempts > validate.MaxAttempts {
				v.problems = append(reasons, say(CodeTooMany, "%s has more than %d signatures by keys of equal tags", what, validate.MaxAttempts))
				v.ok = false
				return v
			}
			if why := j.one(set, s, k, what); why != nil {
				reasons = append(reasons, *why)
				continue
			}
			if v.ok = true; v.sig == nil || int32(s.Expiration-v.sig.Expiration) > 0 { //nolint:gosec // modulo 2^32 is meant
				v.sig = s
			}
			if !slices.Contains(v.algorithms, s.Algorithm) {
				v.algorithms = append(v.algorithms, s.Algorithm)
			}
		}
		if !known {
			reasons = append(reasons, say(CodeSignatureNoKey, "%s is signed by a key with tag %d and algorithm %d, which the DNSKEY RRset does not have", what, s.Tag, s.Algorithm))
		}
	}
	if !v.ok {
		// What comes closest to a valid signature says most.
		slices.SortStableFunc(reasons, func(a, b problem) int { return closeness(a.code) - closeness(b.code) })
		v.problems = reasons[:1]
		return v
	}
	if at := v.expires(j.now); at.Sub(j.now) < soon {
		p := say(CodeSignatureSoon, "the signature over %s expires in %s, at %s", what, about(at.Sub(j.now)), at.Format(time.RFC3339))
		p.at = &at
		v.problems = append(v.problems, p)
	}
	return v
}

// closeness orders reasons by how near to valid a signature is.
func closeness(code Code) int {
	return slices.Index([]Code{CodeSignatureExpired, CodeSignatureNotYet, CodeSignatureWrong, CodeSignatureNoKey, CodeSignatureSigner}, code)
}

// one judges one signature by one key; nil where it is valid.
func (j *judge) one(set *validate.RRset, s *validate.Signature, k validate.Key, what string) *problem {
	p := problem{owner: set.Owner.Fold(), t: set.Type}
	if err := k.Verify(s.Message(set), s.Bytes); err != nil {
		p.code, p.text = CodeSignatureWrong, fmt.Sprintf("the signature over %s by key %d does not fit the data", what, s.Tag)
		return &p
	}
	if s.InTime(j.now) == nil {
		return nil
	}
	from, until := serialTime(s.Inception, j.now), serialTime(s.Expiration, j.now)
	if until.Before(j.now) {
		p.code, p.at = CodeSignatureExpired, &until
		p.text = fmt.Sprintf("the signature over %s by key %d expired %s ago, at %s", what, s.Tag, about(j.now.Sub(until)), until.Format(time.RFC3339))
		return &p
	}
	p.code, p.at = CodeSignatureNotYet, &from
	whose := "the clock of this machine may be behind"
	if j.trusted {
		whose = "the zones above are in time, so the signer's clock is ahead"
	}
	p.text = fmt.Sprintf("the signature over %s by key %d is valid only from %s, in %s: %s", what, s.Tag, from.Format(time.RFC3339), about(from.Sub(j.now)), whose)
	return &p
}

// about is a duration as people say it.
func about(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// algorithms finds those of the keys that have not signed a set.
func (j *judge) lacking(algorithms []uint8) []uint8 {
	var out []uint8
	for _, k := range j.keys {
		if _, known := keymgr.Hash(k.Algorithm); known && !slices.Contains(algorithms, k.Algorithm) && !slices.Contains(out, k.Algorithm) {
			out = append(out, k.Algorithm)
		}
	}
	return out
}

// unsignedBy tells that algorithms of the DNSKEY RRset have not signed a set.
func (j *judge) unsignedBy(set *validate.RRset, v verdict) []problem {
	if !v.ok {
		return nil
	}
	var out []problem
	for _, a := range j.lacking(v.algorithms) {
		out = append(out, problem{
			code: CodeAlgorithmUnsigned, owner: set.Owner.Fold(), t: set.Type,
			text: fmt.Sprintf("%s %s has no signature of %s, which the DNSKEY RRset has a key of", set.Owner.Fold(), set.Type, keymgr.AlgorithmName(a)),
		})
	}
	return out
}
