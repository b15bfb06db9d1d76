package migrate

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
	"sluice/signer/zone"
)

// What readers have in common.

// orElse is a word, or another where it is empty.
func orElse(word, other string) string {
	if word == "" {
		return other
	}
	return word
}

// below is a path, below a folder where it is relative.
func below(dir, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}

// caret is a TSIG key's name behind a server.
func caret(key string) string {
	if key == "" {
		return ""
	}
	return "^" + strings.TrimSuffix(key, ".")
}

// keyOfAll is the TSIG key of the first of those who may transfer, where all of
// them need one.
func keyOfAll(prefixes []string) string {
	first := ""
	for _, p := range prefixes {
		_, key, has := strings.Cut(p, "^")
		if !has {
			return ""
		}
		first = orElse(first, key)
	}
	return first
}

// listed is a list as a sentence has it, shortened.
func listed(names []string) string {
	slices.Sort(names)
	if len(names) > 10 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:10], ", "), len(names)-10)
	}
	return strings.Join(names, ", ")
}

func lastWord(text []byte) string {
	words := strings.Fields(string(text))
	if len(words) == 0 {
		return ""
	}
	return words[len(words)-1]
}

// keystoreName is a token's name as keystores here may be called, or another
// where nothing is left of it.
func keystoreName(name, other string) string {
	var b strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9':
			b.WriteRune(c)
		case b.Len() > 0:
			b.WriteByte('-')
		}
	}
	out := strings.Trim(b.String()[:min(b.Len(), 32)], "-")
	if out == "" || out == "file" {
		return other
	}
	return out
}

// reachable is an address that a server listens on as one that it can be asked
// at from the same machine.
func reachable(at netip.AddrPort) netip.AddrPort {
	switch {
	case !at.Addr().IsUnspecified():
		return at
	case at.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
}

// toolTime bounds one run of a former signer's tool.
const toolTime = time.Minute

// runTool runs a tool of the former signer, and is what it prints. Errors hold
// what it says.
func runTool(ctx context.Context, name string, args ...string) ([]byte, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s is not installed here", name)
	}
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		text := strings.Join(strings.Fields(stderr.String()), " ")
		if len(text) > 500 {
			text = text[:500]
		}
		return nil, fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
	}
	return out, nil
}

// names is the zones that were asked for, none: all.
type names map[string]bool // whether it was found

func wantedNames(list []string) (names, error) {
	n := names{}
	for _, text := range list {
		apex, err := zone.ParseName(text)
		if err != nil {
			return nil, fmt.Errorf("zone %q: %w", text, err)
		}
		n[zoneName(apex)] = false
	}
	return n, nil
}

func (n names) has(name zone.Name) bool {
	text := zoneName(name)
	if _, ok := n[text]; ok {
		n[text] = true
	}
	return len(n) == 0 || n[text]
}

// missing is those that were not found.
func (n names) missing() string {
	var list []string
	for name, found := range n {
		if !found {
			list = append(list, name)
		}
	}
	return listed(list)
}

// zoneHead is what the first record of a zone file tells.
type zoneHead struct {
	serial *uint32
	ttl    uint32 // of the SOA
}

// readHead reads a zone file up to its SOA; nothing where there is none.
func readHead(path string, apex zone.Name) zoneHead {
	f, err := os.Open(path)
	if err != nil {
		return zoneHead{}
	}
	defer f.Close() //nolint:errcheck // opened for reading
	p := dns.NewZoneParser(f, apex.String(), path)
	for range 1000 {
		rr, ok := p.Next()
		if !ok {
			return zoneHead{}
		}
		if soa, ok := rr.(*dns.SOA); ok {
			return zoneHead{&soa.Serial, soa.Hdr.Ttl}
		}
	}
	return zoneHead{}
}

// serials asks servers for serials. One that is silent is not asked again.
type serials struct{ silent map[string]bool }

// ask is the serial of a zone at a server; nil where it does not say.
func (s *serials) ask(ctx context.Context, server string, apex zone.Name) *uint32 {
	server, _, _ = strings.Cut(server, "^")
	if server == "" || s.silent[server] {
		return nil
	}
	at := server
	if _, _, err := net.SplitHostPort(at); err != nil {
		at = net.JoinHostPort(strings.Trim(at, "[]"), "53")
	}
	q := new(dns.Msg)
	q.SetQuestion(apex.String(), dns.TypeSOA)
	q.RecursionDesired = false
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	m, _, err := (&dns.Client{Timeout: 2 * time.Second}).ExchangeContext(ctx, q, at)
	if err != nil {
		if s.silent == nil {
			s.silent = map[string]bool{}
		}
		s.silent[server] = true
		return nil
	}
	for _, rr := range m.Answer {
		if soa, ok := rr.(*dns.SOA); ok && strings.EqualFold(soa.Hdr.Name, apex.String()) {
			return &soa.Serial
		}
	}
	return nil
}

// higher is the higher of two serials (RFC 1982).
func higher(a, b *uint32) *uint32 {
	if a == nil || b != nil && zone.Serial(*a).Before(zone.Serial(*b)) {
		return b
	}
	return a
}

// errAlgorithm says that keys of an algorithm cannot be used here.
func errAlgorithm(algorithm uint8) error {
	return fmt.Errorf("a key of algorithm %d (%s), which Sluice does not sign with: have the former signer roll it over to ECDSAP256SHA256 first",
		algorithm, keymgr.AlgorithmName(algorithm))
}

// supported reports whether keys of an algorithm can be used here.
func supported(algorithm uint8) bool {
	_, ok := keymgr.Hash(algorithm)
	return ok
}

// settleAlgorithm has new keys be of the kind and algorithm that the zone has:
// else a rollover would begin at once.
func settleAlgorithm(d *draft, keys []Key) {
	if _, set := d.lines["key-manager.generation.algorithm"]; set {
		return
	}
	for _, k := range keys {
		if k.Role == "" || k.Role == keymgr.ZSK || k.Life != nil && k.Life.Goal == "hidden" {
			continue
		}
		name := keymgr.AlgorithmName(k.Algorithm)
		if bits := rsaBits(k); bits != 0 {
			name = fmt.Sprintf("%s:%d", name, bits)
		}
		d.word("key-manager.generation.algorithm", name, "as its keys are")
		d.flag("key-manager.generation.use-csk", k.Role == keymgr.CSK, "")
		return
	}
}

// rsaBits is the length of an RSA key, as a policy may have it; 0 for others.
func rsaBits(k Key) int {
	rr, err := dns.NewRR(k.DNSKEY)
	record, ok := rr.(*dns.DNSKEY)
	if err != nil || !ok || (k.Algorithm != dns.RSASHA256 && k.Algorithm != dns.RSASHA512) {
		return 0
	}
	public, err := base64.StdEncoding.DecodeString(record.PublicKey)
	if err != nil || len(public) < 4 {
		return 0
	}
	return min(max((len(public)-4)*8, 1024), 4096)
}
