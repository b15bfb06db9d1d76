package pipeline

import (
	_ "embed"
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer"
	"sluice/signer/zone"
	"sluice/xfr"
)

// Policy is how zones are loaded, signed and served. Parse makes one of a
// policy file. The zero value belongs to a zone that is not bound to a policy
// yet: it allows nobody and signs with nothing.
type Policy struct {
	Name   string     // the file's stem
	Text   []byte     // the file, word for word
	SHA256 event.Hash // of Text
	set    settings
}

// settings is what a policy file says, with the defaults filled in.
type settings struct {
	maxTTL   time.Duration
	clampTTL bool
	stop     bool // on expiry
	updates  []UpdateRule

	useCSK    bool
	algorithm uint8
	bits      int
	keystore  string                 // of new keys; "" where the policy does not say
	storeOf   map[keymgr.Role]string // in its place for a role
	dsDigest  uint8
	keyTTL    time.Duration
	roll      keymgr.RollPolicy
	margin    time.Duration // < 0: SOA refresh + retry
	above     time.Duration // likewise, of the parent's
	pool      keymgr.Pool   // keys made ahead
	keepKeys  bool          // removed keys are not deleted
	keepFor   time.Duration // how long they are kept else
	cdsRolls  bool          // CDS only until the parent has what it says
	parent    ParentPolicy

	publicServers []netip.AddrPort
	parentServers []netip.AddrPort
	observation   time.Duration

	mode            Mode // "" is ModeSign
	serial          SerialPolicy
	inceptionOffset time.Duration
	lifetime        time.Duration
	remain          time.Duration
	refreshInterval time.Duration
	keyRoll         time.Duration // < 0: lifetime - remain
	denial          signer.Denial
	iterations      uint16
	salt            string // bytes
	zonemd          bool
	verifyAll       bool
	verifyNone      bool   // pass-through only
	shareAbove      uint64 // RRsets; 0 never

	transfer   xfr.Prefixes
	axfrOnly   xfr.Prefixes
	diffs      event.DiffLimits
	retention  RetentionPolicy
	notifyFrom xfr.Prefixes
	notifyTo   []xfr.Endpoint
	notifyNS   bool

	loadedReview reviewSettings
	signedReview reviewSettings
	checks       Checks
	fourEyes     []string // event.ProposeOverride, event.ProposeRollback
}

//go:embed policy.template.toml
var template string

// Template is the annotated policy file of the built-in policy: every option
// with its default.
func Template() string { return template }

const (
	day  = 24 * time.Hour
	week = 7 * day
)

// usualDiffs is what is kept for IXFR where an event does not say otherwise.
var usualDiffs = event.DiffLimits{Steps: 20} //nolint:gochecknoglobals // a constant in all but name

func defaults() settings {
	return settings{
		maxTTL: week, clampTTL: true,
		algorithm: dns.ECDSAP256SHA256, dsDigest: keymgr.DigestSHA256, keyTTL: time.Hour, observation: time.Hour,
		roll: defaultRoll(), margin: -1, above: -1, keepFor: 90 * day,
		parent: ParentPolicy{TTL: time.Hour},
		serial: SerialDateCounter, inceptionOffset: day, lifetime: 4 * week, remain: 2 * week, refreshInterval: day / 2, keyRoll: -1,
		denial: signer.NSEC, verifyAll: true, shareAbove: 100_000,
		transfer: loopback(), axfrOnly: xfr.Prefixes{}, notifyFrom: xfr.Prefixes{}, diffs: usualDiffs,
		checks: Checks{ZONEMD: zonemdVerify},

		loadedReview: reviewSettings{ReviewPolicy: ReviewPolicy{Transfer: loopback()}},
		signedReview: reviewSettings{ReviewPolicy: ReviewPolicy{Transfer: loopback()}},
	}
}

// Default is the built-in policy "default"; its text is Template.
func Default() Policy {
	return newPolicy("default", []byte(template), defaults())
}

// UseCSK reports whether a new zone gets one CSK instead of a KSK and a ZSK.
func (p Policy) UseCSK() bool { return p.set.useCSK }

// Algorithm is the IANA number of the DNSSEC algorithm of new keys.
func (p Policy) Algorithm() uint8 { return p.set.algorithm }

// Bits is the length of the modulus of new RSA keys; 0 for other algorithms.
func (p Policy) Bits() int { return p.set.bits }

// DSDigests is the digest types of CDS and DS records.
func (p Policy) DSDigests() []uint8 {
	if p.set.dsDigest == 0 {
		return nil
	}
	return []uint8{p.set.dsDigest}
}

// DNSKEYTTL is the TTL of the DNSKEY, CDS and CDNSKEY RRsets in seconds.
func (p Policy) DNSKEYTTL() uint32 { return seconds(p.set.keyTTL) }

// PublicNameServers are asked what the world sees of a zone, in place of those
// of its NS RRset; ParentNameServers in place of the parent's. Neither is to be
// changed.
func (p Policy) PublicNameServers() []netip.AddrPort { return p.set.publicServers }

// ParentNameServers are the parent's servers; without any they are found.
func (p Policy) ParentNameServers() []netip.AddrPort { return p.set.parentServers }

// ObservationInterval is how often that is asked at the least; 0 is never by
// itself.
func (p Policy) ObservationInterval() time.Duration { return p.set.observation }

// MaxTTL is the highest TTL allowed in the input, in seconds.
func (p Policy) MaxTTL() uint32 { return seconds(p.set.maxTTL) }

// ClampTTL reports whether a TTL above MaxTTL is lowered to it with a notice;
// else the input is refused.
func (p Policy) ClampTTL() bool { return p.set.clampTTL }

// StopsOnExpire reports whether a zone is neither signed again nor served once
// its source was not to be had for the time that its SOA allows; else it goes
// on, with an alarm.
func (p Policy) StopsOnExpire() bool { return p.set.stop }

// AllowNotifyFrom is who may send NOTIFY beside the servers of the source. It
// is not to be changed.
func (p Policy) AllowNotifyFrom() xfr.Prefixes { return p.set.notifyFrom }

// NotifyTo is whom a published zone is announced to. It is not to be changed.
func (p Policy) NotifyTo() []xfr.Endpoint { return p.set.notifyTo }

// SerialPolicy says where the serials of signed instances come from. What is
// passed through has the source's.
func (p Policy) SerialPolicy() SerialPolicy {
	if p.Mode() == ModePassThrough {
		return SerialKeepStrict
	}
	return p.set.serial
}

// NotifiesNS reports whether a published zone is also announced to the servers
// of its NS RRset (RFC 1996, 2.1).
func (p Policy) NotifiesNS() bool { return p.set.notifyNS }

// AXFROnlyTo is who gets whole zones only. It is not to be changed.
func (p Policy) AXFROnlyTo() xfr.Prefixes { return p.set.axfrOnly }

// DiffLimits bounds what is kept for IXFR; nil are the usual limits.
func (p Policy) DiffLimits() *event.DiffLimits {
	if p.set.diffs == usualDiffs {
		return nil
	}
	return &p.set.diffs
}

// RemainTime is how much of its time each signature still has when it is
// made again, at least.
func (p Policy) RemainTime() time.Duration { return p.set.remain }

// refreshLead is how long before that a refresh begins, so that it is done in
// time.
func (p Policy) refreshLead() time.Duration {
	return min(p.set.refreshInterval, p.set.lifetime-p.set.remain-p.set.refreshInterval) / 4
}

// freshFor is how long signatures must still be valid that a signing does not
// make again: until the refresh after the next one.
func (p Policy) freshFor() time.Duration {
	return p.set.remain + p.refreshLead() + p.set.refreshInterval
}

// window is the time over which a zone's signatures are spread: each is made
// again once in it.
func (p Policy) window() time.Duration {
	return max(0, p.set.lifetime-p.freshFor()-time.Second).Truncate(time.Second)
}

// SliceSize is how many of a zone's signatures one refresh makes again at
// most: twice the share of a refresh interval in the window.
func (p Policy) SliceSize(signatures uint64) int {
	share := float64(p.set.refreshInterval) / float64(max(p.window(), p.set.refreshInterval))
	return max(leastSlice, int(math.Ceil(2*share*float64(signatures))))
}

// ProvideXFRTo is who may transfer the published zone. It is not to be
// changed.
func (p Policy) ProvideXFRTo() xfr.Prefixes { return p.set.transfer }

// seconds is d in whole seconds; Parse bounds all durations to 31 bits.
func seconds(d time.Duration) uint32 {
	return uint32(d / time.Second) //nolint:gosec // bounded
}

// Parameters is one line that names everything of the policy that a signed
// zone depends on beside its content, keys and time: where it changes, the
// zone is signed again. Lifetimes are not among them, they concern new
// signatures only.
func (p Policy) Parameters() string {
	if mode := p.Mode(); mode != ModeSign {
		return "mode=" + string(mode)
	}
	return p.signParameters()
}

// signParameters is Parameters of ModeSign.
func (p Policy) signParameters() string {
	salt := "-"
	if p.set.salt != "" {
		salt = hex.EncodeToString([]byte(p.set.salt))
	}
	return fmt.Sprintf("denial=%s iterations=%d salt=%s dnskey-ttl=%d ds=%d zonemd=%t",
		p.set.denial, p.set.iterations, salt, p.DNSKEYTTL(), p.set.dsDigest, p.set.zonemd)
}

// SignParams is the signer's parameters for an instance that is signed now.
//
// Expirations are spread evenly over a window, so that a zone that was signed
// at once is not signed again at once. A run takes with it what comes due
// within the refresh interval, so that a zone gets one new version an
// interval, not one a signature; what it makes is never due at once.
func (p Policy) SignParams(apex zone.Name, serial zone.Serial, now time.Time) signer.Params {
	s := p.set
	now = now.Truncate(time.Second)
	return signer.Params{
		Apex:       apex,
		Serial:     serial,
		Inception:  now.Add(-s.inceptionOffset),
		Expiration: now.Add(s.lifetime),
		Jitter:     p.window(),
		Refresh:    now.Add(p.freshFor()),
		Denial:     s.denial,
		Iterations: s.iterations,
		Salt:       []byte(s.salt),
		DNSKEYTTL:  p.DNSKEYTTL(),
		CDSDigest:  p.DSDigests(),
		ZONEMD:     s.zonemd,
		VerifyAll:  s.verifyAll,
	}
}

// Notices is what is allowed in the policy but not advised, a sentence each.
func (p Policy) Notices() []string {
	var out []string
	s := p.set
	if s.iterations > 0 {
		out = append(out, fmt.Sprintf("signer.denial.iterations = %d: RFC 9276, 3.1 wants 0; validators may treat the zone as insecure", s.iterations))
	}
	if s.salt != "" {
		out = append(out, "signer.denial.salt is set: RFC 9276, 3.1 wants none")
	}
	if s.bits > 0 && s.bits < 2048 {
		out = append(out, fmt.Sprintf("an RSA modulus of %d bits is too short by today's standards: take 2048", s.bits))
	}
	remain, which := s.remain, ""
	if p.keepsSerial() {
		remain, which = remain/2, "half of "
	}
	if remain < max(s.maxTTL, s.keyTTL) {
		out = append(out, which+"signer.signature-remain-time is below the highest TTL: caches may hold records longer than their signatures are valid (RFC 6781, 4.4.1)")
	}
	return append(append(out, p.reviewNotices()...), p.parentNotices()...)
}

// ParseAlgorithm reads an algorithm as policies and commands write it:
// ECDSAP256SHA256, ECDSAP384SHA384, ED25519, ED448, or RSASHA256 and RSASHA512
// with an optional length of the modulus (RSASHA256:3072), 2048 by default.
// bits is 0 for other algorithms.
func ParseAlgorithm(text string) (algorithm uint8, bits int, err error) {
	name, length, hasLength := strings.Cut(strings.ToUpper(text), ":")
	switch name {
	case "ECDSAP256SHA256":
		algorithm = dns.ECDSAP256SHA256
	case "ECDSAP384SHA384":
		algorithm = dns.ECDSAP384SHA384
	case "ED25519":
		algorithm = dns.ED25519
	case "ED448":
		algorithm = dns.ED448
	case "RSASHA256":
		algorithm, bits = dns.RSASHA256, 2048
	case "RSASHA512":
		algorithm, bits = dns.RSASHA512, 2048
	default:
		return 0, 0, fmt.Errorf("algorithm %q: want RSASHA256[:bits], RSASHA512[:bits], ECDSAP256SHA256, ECDSAP384SHA384, ED25519 or ED448", text)
	}
	if !hasLength {
		return algorithm, bits, nil
	}
	if bits == 0 {
		return 0, 0, fmt.Errorf("algorithm %q: only RSA takes a length", text)
	}
	if bits, err = strconv.Atoi(length); err != nil || bits < 1024 || bits > 4096 || bits%8 != 0 {
		return 0, 0, fmt.Errorf("algorithm %q: want a length of 1024 to 4096 bits, a multiple of 8", text)
	}
	return algorithm, bits, nil
}

// ParseDuration reads a duration as policies and commands write it: whole
// seconds (3600), or numbers with the units w, d, h, m and s (90s, 2h30m, 14d,
// 1w 2d). It is never negative and at most 2^31-1 seconds, 68 years.
func ParseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("duration %q: want for example 90s, 2h30m, 14d, 2w, or seconds, up to 68 years", text)
	const most = 1<<31 - 1
	rest := strings.TrimSpace(text)
	if n, err := strconv.ParseUint(rest, 10, 31); err == nil {
		return time.Duration(n) * time.Second, nil
	}
	total, last := uint64(0), uint64(most)
	for rest != "" {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 31)
		if err != nil || digits == len(rest) {
			return 0, bad
		}
		unit, ok := map[byte]uint64{'s': 1, 'm': 60, 'h': 3600, 'd': 86400, 'w': 604800}[rest[digits]]
		if !ok || unit >= last {
			return 0, bad // unknown, or not smaller than the one before
		}
		if total += n * unit; total > most {
			return 0, bad
		}
		rest, last = strings.TrimLeft(rest[digits+1:], " "), unit
	}
	if last == most {
		return 0, bad
	}
	return time.Duration(total) * time.Second, nil //nolint:gosec // at most 31 bits
}

// DurationText writes a duration as ParseDuration reads it, in whole seconds:
// 2w, 90d, 2h30m, 0s.
func DurationText(d time.Duration) string {
	if weeks := d / (7 * day); weeks > 0 && d == weeks*7*day {
		return strconv.FormatInt(int64(weeks), 10) + "w"
	}
	var text []byte
	for _, unit := range []struct {
		name   byte
		length time.Duration
	}{{'d', day}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}} {
		if n := d / unit.length; n > 0 {
			text = append(strconv.AppendInt(text, int64(n), 10), unit.name)
			d -= n * unit.length
		}
	}
	if text == nil {
		return "0s"
	}
	return string(text)
}
