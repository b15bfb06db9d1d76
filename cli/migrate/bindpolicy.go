package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
)

// bindDuration reads a duration of named: seconds, numbers with the units w, d,
// h, m and s, or ISO 8601 (P90D, PT1H).
func bindDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is no duration", text)
	units := map[byte]uint64{'w': 604800, 'd': 86400, 'h': 3600, 'm': 60, 's': 1}
	rest, iso := strings.CutPrefix(strings.ToLower(text), "p")
	if n, err := strconv.ParseUint(rest, 10, 32); err == nil && !iso {
		return time.Duration(n) * time.Second, nil
	}
	if iso {
		units = map[byte]uint64{'y': 365 * 86400, 'm': 31 * 86400, 'w': 604800, 'd': 86400}
	}
	if rest == "" {
		return 0, bad
	}
	var total uint64
	for rest != "" {
		if iso && rest[0] == 't' {
			units, rest = map[byte]uint64{'h': 3600, 'm': 60, 's': 1}, rest[1:]
			continue
		}
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 32)
		if err != nil || digits == len(rest) || units[rest[digits]] == 0 {
			return 0, bad
		}
		if total += n * units[rest[digits]]; total > 1<<31-1 {
			return 0, bad
		}
		rest = rest[digits+1:]
	}
	return time.Duration(total) * time.Second, nil
}

// bindAlgorithms are the names of algorithms in dnssec-policy.
func bindAlgorithm(name string) (uint8, error) {
	switch strings.ToLower(name) {
	case "8", "rsasha256":
		return 8, nil
	case "10", "rsasha512":
		return 10, nil
	case "13", "ecdsap256sha256", "ecdsa256":
		return 13, nil
	case "14", "ecdsap384sha384", "ecdsa384":
		return 14, nil
	case "15", "ed25519":
		return 15, nil
	case "16", "ed448":
		return 16, nil
	}
	return 0, fmt.Errorf("algorithm %s cannot be signed with here: roll to ecdsap256sha256 there first", name)
}

// bindPolicy is a dnssec-policy that becomes one of ours.
type bindPolicy struct{ *draft }

func newBindPolicy() *bindPolicy { return &bindPolicy{newDraft("", "")} }

// bindDefaults is what named has where a policy does not say otherwise.
func bindDefaults() map[string]string {
	return map[string]string{
		"dnskey-ttl": "1h", "publish-safety": "1h", "retire-safety": "1h", "zone-propagation-delay": "5m",
		"parent-propagation-delay": "1h", "signatures-validity": "14d", "signatures-refresh": "5d", "purge-keys": "90d",
	}
}

// policyOf makes our words of a dnssec-policy. Errors name file and line.
func policyOf(b block) (*bindPolicy, error) {
	p := newBindPolicy()
	d := map[string]time.Duration{}
	for name, text := range bindDefaults() {
		at := statement{}
		if s, ok := b.last(name); ok {
			text, at = s.word(1), s
		}
		if text == "unlimited" {
			continue
		}
		var err error
		if d[name], err = bindDuration(text); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", at.at(), name, err)
		}
	}
	if err := p.keys(b); err != nil {
		return nil, err
	}
	p.duration("key-manager.records.ttl", max(d["dnskey-ttl"], time.Second), "")
	p.duration("key-manager.propagation-margin", d["zone-propagation-delay"]+max(d["publish-safety"], d["retire-safety"]), "zone-propagation-delay and the longer of publish-safety and retire-safety")
	p.duration("key-manager.parent-propagation-margin", d["parent-propagation-delay"]+d["retire-safety"], "parent-propagation-delay and retire-safety")
	if d["purge-keys"] == 0 {
		p.flag("key-manager.auto-remove", false, "purge-keys 0")
	} else {
		p.duration("key-manager.auto-remove-delay", d["purge-keys"], "purge-keys")
	}
	p.signatures(d)
	return p, p.rest(b)
}

// signatures sets for how long signatures are valid, and when they are renewed.
func (p *bindPolicy) signatures(d map[string]time.Duration) {
	lifetime, remain := d["signatures-validity"], d["signatures-refresh"]
	interval := 12 * time.Hour
	if remain >= lifetime {
		p.tell("signatures-refresh (%s) is not below signatures-validity (%s): here they are renewed when half of their time is left", pipeline.DurationText(remain), pipeline.DurationText(lifetime))
		remain = lifetime / 2
	}
	if interval > (lifetime-remain)/4 {
		interval = max((lifetime-remain)/4, time.Second)
	}
	p.duration("signer.signature-lifetime", lifetime, "signatures-validity")
	p.duration("signer.signature-remain-time", max(remain, time.Second), "signatures-refresh")
	p.duration("signer.signature-refresh-interval", interval, "")
	p.word("signer.signature-inception-offset", "1h", "as named has it")
}

// keys sets algorithm, roles and lifetimes.
func (p *bindPolicy) keys(b block) error {
	s, ok := b.last("keys")
	list, _ := s.inner()
	if !ok || len(list) == 0 {
		p.flag("key-manager.generation.use-csk", true, "")
		p.word("key-manager.generation.algorithm", "ECDSAP256SHA256", "")
		return nil
	}
	algorithm := ""
	csk, pair := false, false
	for _, k := range list {
		name := k.after("algorithm")
		number, err := bindAlgorithm(name)
		if err != nil {
			return fmt.Errorf("%s: %w", k.at(), err)
		}
		text := keymgr.AlgorithmName(number)
		if number == 8 || number == 10 {
			words := k.words()
			if bits, err := strconv.Atoi(words[len(words)-1]); err == nil && bits >= 1024 && words[len(words)-2] == name {
				text += fmt.Sprintf(":%d", bits)
			}
		}
		switch {
		case algorithm == "":
			algorithm = text
		case algorithm != text:
			p.tell("its keys have several algorithms or lengths (%s, %s): here a zone has one; all keys come along, new ones are of %s", algorithm, text, algorithm)
		}
		role := k.word(0)
		csk, pair = csk || role == "csk", pair || role == "ksk" || role == "zsk"
		if err := p.role(role, k); err != nil {
			return err
		}
	}
	if csk && pair {
		p.tell("it has a CSK beside a KSK or a ZSK: here it is one or the other; all keys come along")
	}
	p.flag("key-manager.generation.use-csk", csk && !pair, "")
	p.word("key-manager.generation.algorithm", algorithm, "")
	return nil
}

// role sets the lifetime of keys of one role.
func (p *bindPolicy) role(role string, k statement) error {
	if role != "ksk" && role != "zsk" && role != "csk" {
		return fmt.Errorf("%s: %q: want ksk, zsk or csk", k.at(), role)
	}
	if _, twice := p.lines["key-manager."+role+".validity"]; twice {
		p.tell("it has several keys of role %s: here a zone has one that signs; all keys come along", role)
		return nil
	}
	life := k.after("lifetime")
	if life == "" || life == "unlimited" || life == "0" {
		p.validity(role, 0, "")
		return nil
	}
	d, err := bindDuration(life)
	if err != nil {
		return fmt.Errorf("%s: lifetime: %w", k.at(), err)
	}
	p.validity(role, d, "")
	p.flag("key-manager."+role+".auto-start", true, "as named begins rollovers by itself")
	return nil
}

// rest sets what else a policy says, and tells what has no equal.
func (p *bindPolicy) rest(b block) error {
	if s, ok := b.last("max-zone-ttl"); ok && s.word(1) != "unlimited" && s.word(1) != "0" {
		d, err := bindDuration(s.word(1))
		if err != nil {
			return fmt.Errorf("%s: max-zone-ttl: %w", s.at(), err)
		}
		p.duration("loader.checks.max-ttl", d, "")
		p.word("loader.checks.max-ttl-action", "reject", "")
	}
	p.word("signer.denial.type", map[bool]string{true: "nsec3", false: "nsec"}[len(b.all("nsec3param")) > 0], "")
	if s, ok := b.last("nsec3param"); ok {
		if text := s.after("iterations"); text != "" {
			n, err := strconv.ParseUint(text, 10, 16)
			if err != nil {
				return fmt.Errorf("%s: nsec3param iterations %q: want a number", s.at(), text)
			}
			p.iterations(int(n), "nsec3param iterations")
		}
		p.flag("signer.denial.opt-out", slices.Contains([]string{"yes", "true", "1"}, s.after("optout")), "")
		if n := s.after("salt-length"); n != "" && n != "0" {
			p.tell("nsec3param salt-length %s: here there is no salt (RFC 9276); the chain is made anew without it", n)
		}
	}
	if s, ok := b.last("cds-digest-types"); ok {
		list, _ := s.inner()
		for i, one := range list {
			name := strings.ToUpper(strings.ReplaceAll(one.word(0), "_", "-"))
			name = map[string]string{"2": "SHA-256", "4": "SHA-384", "SHA256": "SHA-256", "SHA384": "SHA-384"}[strings.ReplaceAll(name, "-", "")]
			switch {
			case i == 0 && name != "":
				p.word("key-manager.ds-algorithm", name, "")
			default:
				p.tell("cds-digest-types %s: here CDS records have one digest type, see key-manager.ds-algorithm", one.word(0))
			}
		}
	}
	told := map[string]string{
		"signatures-validity-dnskey": "here all signatures of a zone are valid for as long as signature-lifetime says",
		"signatures-jitter":          "here the ends of signatures are spread evenly, see signature-refresh-interval",
		"parent-ds-ttl":              "here the TTL of the DS is the one that is seen at the parent",
		"manual-mode":                "here each step of a rollover has a switch of its own, auto-start to auto-done",
		"cdnskey":                    "here CDS and CDNSKEY go together, see key-manager.cds",
	}
	for _, s := range b {
		if text, ok := told[s.word(0)]; ok {
			p.tell("%s %s: %s", s.word(0), s.word(1), text)
		} else if known := bindKnown(); !slices.Contains(known, s.word(0)) {
			p.tell("%s: not known to this program: look whether it matters", strings.Join(s.words(), " "))
		}
	}
	return nil
}

// bindKnown are the statements of a dnssec-policy that were read.
func bindKnown() []string {
	return []string{
		"keys", "dnskey-ttl", "publish-safety", "retire-safety", "zone-propagation-delay", "parent-propagation-delay", "signatures-validity",
		"signatures-refresh", "purge-keys", "max-zone-ttl", "nsec3param", "cds-digest-types", "inline-signing", "offline-ksk",
	}
}
