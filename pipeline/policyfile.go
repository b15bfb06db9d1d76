package pipeline

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"

	"sluice/keymgr"
	"sluice/signer"
	"sluice/xfr"
)

// maxPolicy bounds a policy file in bytes: its text stands in events.
const maxPolicy = 64 << 10

// policyFile is a policy file as it is written. Values are of any type, nil is
// an absent key: the reader checks them, because it can name the line.
type policyFile struct {
	Version any `toml:"version"`
	Loader  struct {
		OnExpire any          `toml:"on-expire"`
		Review   reviewFile   `toml:"review"`
		Checks   checksFile   `toml:"checks"`
		Update   []updateFile `toml:"update"`
	} `toml:"loader"`
	KeyManager struct {
		DSAlgorithm         any `toml:"ds-algorithm"`
		PublicNameServers   any `toml:"publication-nameservers"`
		ParentNameServers   any `toml:"parent-nameservers"`
		ObservationInterval any `toml:"observation-interval"`
		Generation          struct {
			UseCSK    any `toml:"use-csk"`
			Algorithm any `toml:"algorithm"`
			Keystore  any `toml:"keystore"`
			HSMServer any `toml:"hsm-server-id"` // Cascade's word, to say ours
		} `toml:"generation"`
		Records struct {
			TTL any `toml:"ttl"`
		} `toml:"records"`
		AutoRemove        any        `toml:"auto-remove"`
		AutoRemoveDelay   any        `toml:"auto-remove-delay"`
		CDS               any        `toml:"cds"`
		PropagationMargin any        `toml:"propagation-margin"`
		ParentMargin      any        `toml:"parent-propagation-margin"`
		Pool              any        `toml:"pool"`
		RequireBackup     any        `toml:"require-backup"`
		Parent            parentFile `toml:"parent"`
		KSK               roleFile   `toml:"ksk"`
		ZSK               roleFile   `toml:"zsk"`
		CSK               roleFile   `toml:"csk"`
		Algorithm         autoFile   `toml:"algorithm"`
	} `toml:"key-manager"`
	Signer struct {
		Mode            any        `toml:"mode"`
		SerialPolicy    any        `toml:"serial-policy"`
		InceptionOffset any        `toml:"signature-inception-offset"`
		Lifetime        any        `toml:"signature-lifetime"`
		RemainTime      any        `toml:"signature-remain-time"`
		RefreshInterval any        `toml:"signature-refresh-interval"`
		KeyRollTime     any        `toml:"key-roll-time"`
		ZONEMD          any        `toml:"zonemd"`
		Verify          any        `toml:"verify"`
		ShareAbove      any        `toml:"share-above"`
		Review          reviewFile `toml:"review"`
		Denial          struct {
			Type       any `toml:"type"`
			OptOut     any `toml:"opt-out"`
			Iterations any `toml:"iterations"`
			Salt       any `toml:"salt"`
		} `toml:"denial"`
	} `toml:"signer"`
	Server struct {
		Outbound struct {
			ProvideXFRTo any `toml:"provide-xfr-to"`
			AXFROnlyTo   any `toml:"provide-axfr-only-to"`
			SendNotifyTo any `toml:"send-notify-to"`
			NotifyNS     any `toml:"notify-ns"`
		} `toml:"outbound"`
		Inbound struct {
			AllowNotifyFrom any `toml:"allow-notify-from"`
		} `toml:"inbound"`
	} `toml:"server"`
	Access    accessFile `toml:"access"`
	Retention struct {
		Versions     any `toml:"versions"`
		Days         any `toml:"days"`
		Hold         any `toml:"hold"`
		IXFRVersions any `toml:"ixfr-versions"`
		IXFRSize     any `toml:"ixfr-size"`
	} `toml:"retention"`
}

type checksFile struct {
	MaxTTL           any `toml:"max-ttl"`
	MaxTTLAction     any `toml:"max-ttl-action"`
	MaxChangePercent any `toml:"max-change-percent"`
	MinRecords       any `toml:"min-records"`
	Required         any `toml:"required-records"`
	ZONEMD           any `toml:"zonemd"`
	Glue             any `toml:"glue"`
}

func newPolicy(name string, text []byte, s settings) Policy {
	return Policy{Name: name, Text: text, SHA256: sha256.Sum256(text), set: s}
}

// Parse reads a policy file. name is its file's stem. The error tells all that
// is wrong, a line each, with the line in the file where it can be told.
func Parse(name string, text []byte) (Policy, error) {
	r := policyReader{name: name, text: text, set: defaults()}
	if len(text) > maxPolicy {
		return Policy{}, fmt.Errorf("policy %q: larger than %d bytes", name, maxPolicy)
	}
	if !utf8.Valid(text) {
		return Policy{}, fmt.Errorf("policy %q: not UTF-8 text", name)
	}
	var f policyFile
	if err := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(&f); err != nil {
		return Policy{}, decodeErrors(name, err)
	}
	switch v := f.Version.(type) {
	case nil:
		r.fault("version", `is missing: want version = "v1"`)
	default:
		if v != "v1" {
			r.fault("version", `= %#v is not known: want "v1"`, v)
		}
	}
	r.loader(&f)
	r.keyManager(&f)
	r.signer(&f)
	r.updates(&f)
	r.denial(&f)
	r.server(&f)
	r.retention(&f)
	r.access(&f.Access)
	if err := errors.Join(r.faults...); err != nil {
		return Policy{}, err
	}
	return newPolicy(name, bytes.Clone(text), r.set), nil
}

// decodeErrors gives line numbers to what the TOML decoder found.
func decodeErrors(name string, err error) error {
	if strict, ok := errors.AsType[*toml.StrictMissingError](err); ok {
		var all []error
		for i := range strict.Errors {
			e := &strict.Errors[i]
			row, _ := e.Position()
			all = append(all, fmt.Errorf("policy %q, line %d: unknown key %s", name, row, strings.Join(e.Key(), ".")))
		}
		return errors.Join(all...)
	}
	if decode, ok := errors.AsType[*toml.DecodeError](err); ok {
		row, _ := decode.Position()
		return fmt.Errorf("policy %q, line %d: %s", name, row, strings.TrimPrefix(decode.Error(), "toml: "))
	}
	if strings.Contains(err.Error(), "cannot decode TOML") {
		// The decoder names Go types here and no line.
		return fmt.Errorf("policy %q: a plain value stands where a table such as [signer] belongs", name)
	}
	return fmt.Errorf("policy %q: %s", name, strings.TrimPrefix(err.Error(), "toml: "))
}

// policyReader turns a decoded file into settings and collects what is wrong.
type policyReader struct {
	name   string
	text   []byte
	set    settings
	faults []error
}

func (r *policyReader) fault(key, format string, args ...any) {
	where := ""
	if line := lineOf(r.text, key); line > 0 {
		where = fmt.Sprintf(", line %d", line)
	}
	text := fmt.Sprintf(format, args...)
	if !strings.HasPrefix(text, ":") {
		text = " " + text
	}
	r.faults = append(r.faults, fmt.Errorf("policy %q%s: %s%s", r.name, where, key, text))
}

// lineOf finds the line that sets a dotted key; 0 where it cannot be told, as
// in an inline table.
func lineOf(text []byte, key string) int {
	table, n := "", 0
	for line := range bytes.Lines(text) {
		n++
		s := strings.TrimSpace(string(line))
		if strings.HasPrefix(s, "[") {
			table, _, _ = strings.Cut(strings.Trim(s, "[ "), "]")
			table = strings.TrimSpace(table) + "."
			continue
		}
		name, _, ok := strings.Cut(s, "=")
		if ok && strings.EqualFold(table+strings.TrimSpace(name), key) {
			return n
		}
	}
	return 0
}

// duration reads a duration into to, where it is given.
func (r *policyReader) duration(key string, value any, to *time.Duration) {
	switch v := value.(type) {
	case nil:
	case int64:
		if v < 0 || v > math.MaxInt32 {
			r.fault(key, "= %d: want seconds from 0 to 2147483647", v)
			return
		}
		*to = time.Duration(v) * time.Second
	case string:
		d, err := ParseDuration(v)
		if err != nil {
			r.fault(key, ": %v", err)
			return
		}
		*to = d
	default:
		r.fault(key, "= %v: want a duration such as \"14d\", or seconds", v)
	}
}

// choice reads one of a few words and gives back its index; -1 where the key
// is absent or wrong.
func (r *policyReader) choice(key string, value any, words ...string) int {
	if value == nil {
		return -1
	}
	word, _ := value.(string)
	i := slices.Index(words, word)
	if i < 0 {
		r.fault(key, "= %#v: want one of %s", value, strings.Join(words, ", "))
	}
	return i
}

// flag reads true or false into to, where it is given.
func (r *policyReader) flag(key string, value any, to *bool) {
	switch v := value.(type) {
	case nil:
	case bool:
		*to = v
	default:
		r.fault(key, "= %#v: want true or false", value)
	}
}

// word reads a string; ok is false where it is absent or wrong.
func (r *policyReader) word(key string, value any) (text string, ok bool) {
	switch v := value.(type) {
	case nil:
	case string:
		return v, true
	default:
		r.fault(key, "= %#v: want a string", value)
	}
	return "", false
}

func (r *policyReader) loader(f *policyFile) {
	r.review("loader.review", &f.Loader.Review, &r.set.loadedReview)
	r.checks(&f.Loader.Checks)
	r.set.stop = r.choice("loader.on-expire", f.Loader.OnExpire, "keep", "stop") == 1
	r.duration("loader.checks.max-ttl", f.Loader.Checks.MaxTTL, &r.set.maxTTL)
	if r.set.maxTTL < time.Second {
		r.fault("loader.checks.max-ttl", "must be at least a second")
	}
	if i := r.choice("loader.checks.max-ttl-action", f.Loader.Checks.MaxTTLAction, "reject", "clamp"); i >= 0 {
		r.set.clampTTL = i == 1
	}
}

func (r *policyReader) keyManager(f *policyFile) {
	g := &f.KeyManager.Generation
	r.flag("key-manager.generation.use-csk", g.UseCSK, &r.set.useCSK)
	r.keystores(f)
	if text, ok := r.word("key-manager.generation.algorithm", g.Algorithm); ok {
		var err error
		if r.set.algorithm, r.set.bits, err = ParseAlgorithm(text); err != nil {
			r.fault("key-manager.generation.algorithm", ": %v", err)
		}
	}
	switch r.choice("key-manager.ds-algorithm", f.KeyManager.DSAlgorithm, "SHA-256", "SHA-384") {
	case 0:
		r.set.dsDigest = keymgr.DigestSHA256
	case 1:
		r.set.dsDigest = keymgr.DigestSHA384
	}
	r.addresses("key-manager.publication-nameservers", f.KeyManager.PublicNameServers, &r.set.publicServers)
	r.addresses("key-manager.parent-nameservers", f.KeyManager.ParentNameServers, &r.set.parentServers)
	r.duration("key-manager.observation-interval", f.KeyManager.ObservationInterval, &r.set.observation)
	if d := r.set.observation; d != 0 && d < time.Minute {
		r.fault("key-manager.observation-interval", `must be at least a minute, or "0s" for never`)
	}
	r.rollovers(f)
	r.duration("key-manager.records.ttl", f.KeyManager.Records.TTL, &r.set.keyTTL)
	if r.set.keyTTL < time.Second {
		r.fault("key-manager.records.ttl", "must be at least a second")
	}
}

func (r *policyReader) signer(f *policyFile) {
	s := &f.Signer
	r.review("signer.review", &s.Review, &r.set.signedReview)
	serials := []string{
		string(SerialKeep), string(SerialKeepStrict), string(SerialCounter), string(SerialUnixTime), string(SerialDateCounter),
	}
	if i := r.choice("signer.serial-policy", s.SerialPolicy, serials...); i >= 0 {
		r.set.serial = SerialPolicy(serials[i])
	}
	r.mode(s.Mode, s.Verify)
	r.flag("signer.zonemd", s.ZONEMD, &r.set.zonemd)
	if n, ok := r.number("signer.share-above", s.ShareAbove, 1<<40); ok {
		r.set.shareAbove = uint64(n)
	}
	if r.set.zonemd && r.set.mode != "" {
		r.fault("signer.zonemd", `needs mode = "sign"`)
	}
	before := len(r.faults)
	r.duration("signer.signature-inception-offset", s.InceptionOffset, &r.set.inceptionOffset)
	r.duration("signer.signature-lifetime", s.Lifetime, &r.set.lifetime)
	r.duration("signer.signature-remain-time", s.RemainTime, &r.set.remain)
	r.duration("signer.signature-refresh-interval", s.RefreshInterval, &r.set.refreshInterval)
	if text, ok := s.KeyRollTime.(string); !ok || text != "auto" {
		r.duration("signer.key-roll-time", s.KeyRollTime, &r.set.keyRoll)
	}
	if len(r.faults) > before {
		return
	}
	t := &r.set
	switch {
	// RRSIG times compare by RFC 1982 (RFC 4034, 3.1.5): a window of more
	// than 2^30 s leaves no room for clocks that differ.
	case t.lifetime+t.inceptionOffset >= 1<<30*time.Second:
		r.fault("signer.signature-lifetime", "and signature-inception-offset must stay below 2^30 seconds (34 years)")
	case t.remain < time.Second:
		r.fault("signer.signature-remain-time", "must be at least a second")
	case t.refreshInterval < time.Second:
		r.fault("signer.signature-refresh-interval", "must be at least a second")
	case t.lifetime <= t.remain:
		r.fault("signer.signature-lifetime", "(%s) must be longer than signature-remain-time (%s)", t.lifetime, t.remain)
	case t.lifetime <= t.remain+t.refreshInterval:
		r.fault("signer.signature-lifetime", "(%s) must be longer than signature-remain-time (%s) plus signature-refresh-interval (%s)",
			t.lifetime, t.remain, t.refreshInterval)
	}
}

// mode reads what is done to zones, and what of it is verified.
func (r *policyReader) mode(mode, verify any) {
	modes := []string{string(ModeSign), string(ModePassThrough), string(ModeUnsigned)}
	if i := r.choice("signer.mode", mode, modes...); i > 0 {
		r.set.mode = Mode(modes[i])
	}
	if i := r.choice("signer.verify", verify, "all", "sample", "none"); i >= 0 {
		r.set.verifyAll, r.set.verifyNone = i == 0, i == 2
	}
	if r.set.verifyNone && r.set.checks.ZONEMD == zonemdRequire {
		r.fault("signer.verify", `= "none": what is passed through has its ZONEMD verified with all else, and loader.checks.zonemd requires that`)
	}
	if r.set.verifyNone && r.set.mode != ModePassThrough {
		r.fault("signer.verify", `= "none": is for mode = "pass-through" alone; want "all" or "sample"`)
	}
}

func (r *policyReader) denial(f *policyFile) {
	d := &f.Signer.Denial
	nsec3 := r.choice("signer.denial.type", d.Type, "nsec", "nsec3") == 1
	if nsec3 {
		r.set.denial = signer.NSEC3
	}
	optOut := false
	r.flag("signer.denial.opt-out", d.OptOut, &optOut)
	if optOut {
		if !nsec3 {
			r.fault("signer.denial.opt-out", `needs type = "nsec3"`)
		}
		r.set.denial = signer.NSEC3OptOut
	}
	if d.Iterations != nil {
		n, ok := d.Iterations.(int64)
		switch {
		case !ok || n < 0 || n > maxIterations:
			r.fault("signer.denial.iterations", "= %#v: want 0 (RFC 9276), at most %d", d.Iterations, maxIterations)
		case n > 0 && !nsec3:
			r.fault("signer.denial.iterations", `needs type = "nsec3"`)
		default:
			r.set.iterations = uint16(n)
		}
	}
	if text, ok := r.word("signer.denial.salt", d.Salt); ok && text != "" && text != "-" {
		salt, err := hex.DecodeString(text)
		switch {
		case err != nil || len(salt) > 255:
			r.fault("signer.denial.salt", `= %q: want "" (RFC 9276), or up to 255 bytes in hex`, text)
		case !nsec3:
			r.fault("signer.denial.salt", `needs type = "nsec3"`)
		default:
			r.set.salt = string(salt)
		}
	}
}

// maxIterations is the number of NSEC3 iterations above which validators treat
// a zone as insecure or bogus (RFC 9276, 3.2 and appendix A).
const maxIterations = 100

func (r *policyReader) server(f *policyFile) {
	const provide, from, to = "server.outbound.provide-xfr-to", "server.inbound.allow-notify-from", "server.outbound.send-notify-to"
	r.prefixes(provide, f.Server.Outbound.ProvideXFRTo, &r.set.transfer)
	r.prefixes("server.outbound.provide-axfr-only-to", f.Server.Outbound.AXFROnlyTo, &r.set.axfrOnly)
	r.flag("server.outbound.notify-ns", f.Server.Outbound.NotifyNS, &r.set.notifyNS)
	r.prefixes(from, f.Server.Inbound.AllowNotifyFrom, &r.set.notifyFrom)
	words, ok := r.words(to, f.Server.Outbound.SendNotifyTo, `a list of servers such as ["192.0.2.1", "192.0.2.2:5353^key.example"]`)
	if !ok {
		return
	}
	if len(words) > maxNotified {
		r.fault(to, ": %d servers, at most %d are told", len(words), maxNotified)
		return
	}
	for _, word := range words {
		ep, err := xfr.ParseEndpoint(word)
		if err != nil {
			r.fault(to, ": %v", err)
			return
		}
		r.set.notifyTo = append(r.set.notifyTo, ep)
	}
}

// maxIXFRVersions bounds retention.ixfr-versions: each step is described in
// memory while an IXFR is answered.
const maxIXFRVersions = 1000

func (r *policyReader) retention(f *policyFile) {
	if n, ok := r.number("retention.ixfr-versions", f.Retention.IXFRVersions, maxIXFRVersions); ok {
		r.set.diffs.Steps = uint64(n)
	}
	r.size("retention.ixfr-size", f.Retention.IXFRSize, &r.set.diffs.Bytes)
	if n, ok := r.number("retention.versions", f.Retention.Versions, maxRetentionVersions); ok {
		r.set.retention.Versions = uint64(n)
	}
	if n, ok := r.number("retention.days", f.Retention.Days, maxRetentionDays); ok {
		r.set.retention.Days = uint64(n)
	}
	r.flag("retention.hold", f.Retention.Hold, &r.set.retention.Hold)
}

// size reads a number of bytes into to, where it is given.
func (r *policyReader) size(key string, value any, to *uint64) {
	if value == nil {
		return
	}
	text, _ := value.(string)
	digits := strings.TrimRight(text, "KMGiB")
	n, err := strconv.ParseUint(digits, 10, 32)
	shift, ok := map[string]uint{"": 0, "KiB": 10, "MiB": 20, "GiB": 30}[text[len(digits):]]
	if err != nil || !ok {
		r.fault(key, `= %#v: want a text such as "64MiB", with KiB, MiB or GiB`, value)
		return
	}
	*to = n << shift
}

// maxNotified bounds send-notify-to.
const maxNotified = 256

// prefixes reads an access list into list, where it is given.
func (r *policyReader) prefixes(key string, value any, list *xfr.Prefixes) {
	words, ok := r.words(key, value, `a list of prefixes such as ["192.0.2.0/24", "2001:db8::1"]`)
	if !ok {
		return
	}
	var err error
	if *list, err = xfr.ParsePrefixes(words); err != nil {
		r.fault(key, ": %v", err)
	}
}

// maxObserved bounds a list of servers to observe.
const maxObserved = 64

// addresses reads a list of servers without TSIG or TLS into list.
func (r *policyReader) addresses(key string, value any, list *[]netip.AddrPort) {
	const want = `a list of servers such as ["192.0.2.1", "[2001:db8::1]:5353"]`
	words, ok := r.words(key, value, want)
	if !ok {
		return
	}
	if len(words) > maxObserved {
		r.fault(key, ": %d servers, at most %d are asked", len(words), maxObserved)
		return
	}
	for _, word := range words {
		ep, err := xfr.ParseEndpoint(word)
		if err != nil || ep.Key != "" || ep.TLS != nil {
			r.fault(key, ": %q: want %s", word, want)
			return
		}
		*list = append(*list, ep.Addr)
	}
}

// words reads a list of strings; ok is false where it is absent or wrong.
func (r *policyReader) words(key string, value any, want string) (words []string, ok bool) {
	if value == nil {
		return nil, false
	}
	list, ok := value.([]any)
	for _, item := range list {
		word, isText := item.(string)
		ok = ok && isText
		words = append(words, word)
	}
	if !ok {
		r.fault(key, ": want %s", want)
	}
	return words, ok
}

// PolicyFault is a policy file that cannot be used.
type PolicyFault struct {
	Policy string // the file's stem
	Err    error
}

// Error is what is wrong, with the policy's name.
func (f *PolicyFault) Error() string { return f.Err.Error() }

// Unwrap is Err.
func (f *PolicyFault) Unwrap() error { return f.Err }

// LoadDir reads every *.toml in dir; a policy's name is its file's stem. A
// file with a fault is told in the errors, as a *PolicyFault, and never hides
// the others. Another error is about the folder.
func LoadDir(dir string) (map[string]Policy, []error) {
	policies := map[string]Policy{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return policies, []error{fmt.Errorf("read policies: %w", err)}
	}
	var faults []error
	for _, entry := range entries {
		name, isPolicy := strings.CutSuffix(entry.Name(), ".toml")
		if !isPolicy || entry.IsDir() || strings.HasPrefix(name, ".") {
			continue
		}
		p, err := readPolicy(filepath.Join(dir, entry.Name()), name)
		if err != nil {
			faults = append(faults, &PolicyFault{Policy: name, Err: err})
			continue
		}
		policies[name] = p
	}
	return policies, faults
}

func readPolicy(path, name string) (Policy, error) {
	if !validPolicyName(name) {
		return Policy{}, fmt.Errorf("read policy %q: a policy's name has 1 to 64 letters, digits, dots, dashes and underscores", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return Policy{}, fmt.Errorf("read policy %q: %w", name, err)
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxPolicy+1))
	if err != nil {
		return Policy{}, fmt.Errorf("read policy %q: %w", name, err)
	}
	return Parse(name, text)
}

func validPolicyName(name string) bool {
	return len(name) >= 1 && len(name) <= 64 && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("._-", c)
	})
}
