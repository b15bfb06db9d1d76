package migrate

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"sluice/pipeline"
)

// cascadePolicy is a policy file that is being read.
type cascadePolicy struct {
	path   string
	text   []byte
	values map[string]any // by key with its table
	read   map[string]bool
	errs   []error
}

// policy maps a policy. Cascade's keys have the same names here.
func (c *cascadeReader) policy(name string, out *Zone) (*draft, error) {
	if strings.ContainsAny(name, "/\\") {
		return nil, fmt.Errorf("policy %q: not the name of a file", name)
	}
	p := &cascadePolicy{path: filepath.Join(c.conf.PolicyDir, name+".toml"), values: map[string]any{}, read: map[string]bool{"version": true}}
	var err error
	if p.text, err = os.ReadFile(p.path); err != nil {
		return nil, err
	}
	var tables map[string]any
	if err := toml.Unmarshal(p.text, &tables); err != nil {
		return nil, tomlFault(p.path, err)
	}
	flatten(p.values, "", tables)
	d := newDraft(name, "From policy "+name+" of Cascade.")
	p.reviews(d)
	p.keyManager(d)
	p.signer(d)
	p.outbound(d, out)
	for _, key := range slices.Sorted(maps.Keys(p.values)) {
		if !p.read[key] {
			d.tell("%s: not known here.", key)
		}
	}
	return d, errors.Join(p.errs...)
}

// flatten gives the keys of nested tables their whole names.
func flatten(to map[string]any, prefix string, tables map[string]any) {
	for key, value := range tables {
		if table, ok := value.(map[string]any); ok {
			flatten(to, prefix+key+".", table)
			continue
		}
		to[prefix+key] = value
	}
}

// fault notes a mistake with the line of its key.
func (p *cascadePolicy) fault(key, format string, args ...any) {
	last := key[strings.LastIndexByte(key, '.')+1:]
	at := place{p.path, 0}
	for i, line := range strings.Split(string(p.text), "\n") {
		if name, _, ok := strings.Cut(line, "="); ok && strings.TrimSpace(name) == last {
			at.line = i + 1
			break
		}
	}
	p.errs = append(p.errs, at.fault("%s: %s", key, fmt.Sprintf(format, args...)))
}

// value is what a key says; has is false where it is not there.
func (p *cascadePolicy) value(key string) (any, bool) {
	p.read[key] = true
	v, ok := p.values[key]
	return v, ok
}

func (p *cascadePolicy) word(key, usually string) string {
	v, has := p.value(key)
	if !has {
		return usually
	}
	text, ok := v.(string)
	if !ok {
		p.fault(key, "want a word in quotes")
	}
	return text
}

func (p *cascadePolicy) flag(key string, usually bool) bool {
	v, has := p.value(key)
	if !has {
		return usually
	}
	on, ok := v.(bool)
	if !ok {
		p.fault(key, "want true or false")
	}
	return on
}

// duration reads whole seconds, "2h 3m", or ISO 8601 ("P1DT2H").
func (p *cascadePolicy) duration(key string, usually time.Duration) time.Duration {
	v, has := p.value(key)
	if !has {
		return usually
	}
	switch v := v.(type) {
	case int64:
		if v >= 0 && v < 1<<31 {
			return time.Duration(v) * time.Second
		}
	case string:
		if t, err := cascadeTime(v); err == nil {
			return t
		}
	}
	p.fault(key, "%v is no length of time", v)
	return usually
}

// cascadeTime reads a length of time.
func cascadeTime(text string) (time.Duration, error) {
	if t, err := pipeline.ParseDuration(text); err == nil {
		return t, nil
	}
	bad := fmt.Errorf("%q is no length of time", text)
	rest, ok := strings.CutPrefix(strings.ToUpper(text), "P")
	if !ok || rest == "" {
		return 0, bad
	}
	day, clock, timed := strings.Cut(rest, "T")
	if timed && clock == "" {
		return 0, bad
	}
	var total time.Duration
	for _, part := range []struct {
		text  string
		units map[byte]time.Duration
	}{
		{day, map[byte]time.Duration{'W': 7 * 24 * time.Hour, 'D': 24 * time.Hour}},
		{clock, map[byte]time.Duration{'H': time.Hour, 'M': time.Minute, 'S': time.Second}},
	} {
		for rest := part.text; rest != ""; {
			i := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
			if i <= 0 {
				return 0, bad
			}
			n, err := strconv.ParseUint(rest[:i], 10, 31)
			unit, ok := part.units[rest[i]]
			if err != nil || !ok || time.Duration(n) > (1<<31)*time.Second/unit {
				return 0, bad
			}
			if total += time.Duration(n) * unit; total >= (1<<31)*time.Second {
				return 0, bad
			}
			rest = rest[i+1:]
		}
	}
	return total, nil
}

// reviews maps the reviews; hooks run as they are.
func (p *cascadePolicy) reviews(d *draft) {
	for _, stage := range []string{"loader", "signer"} {
		mode := p.word(stage+".review.mode", "off")
		hook := p.word(stage+".review.hook", "")
		reject := p.word(stage+".review.on-reject", "discard")
		if mode == "off" {
			continue
		}
		d.word(stage+".review.mode", mode, "")
		d.word(stage+".review.on-reject", reject, "")
		if mode == "script" {
			d.word(stage+".review.hook", hook, "killed after ten minutes; see hooks for another time")
		}
	}
}

// keyManager maps the management of keys.
func (p *cascadePolicy) keyManager(d *draft) {
	const day = 24 * time.Hour
	for role, age := range map[string]time.Duration{"ksk": 365 * day, "zsk": 30 * day, "csk": 365 * day} {
		key := "key-manager." + role + ".validity"
		if v, _ := p.value(key); v == "forever" {
			d.validity(role, 0, "")
		} else {
			d.validity(role, p.duration(key, age), "")
		}
	}
	for _, kind := range []string{"ksk", "zsk", "csk", "algorithm"} {
		for _, step := range []string{"auto-start", "auto-report", "auto-expire", "auto-done"} {
			key := "key-manager." + kind + "." + step
			if p.flag(key, true) {
				d.flag(key, true, "")
				continue
			}
			d.tell("%s = false ends the key management of Cascade, and is not carried over. Where it is meant for good, set it here, too.", key)
		}
	}
	d.word("key-manager.cds", "during-rolls", "as in Cascade")
	d.word("key-manager.ds-algorithm", p.word("key-manager.ds-algorithm", "SHA-256"), "")
	d.flag("key-manager.auto-remove", p.flag("key-manager.auto-remove", true), "")
	d.duration("key-manager.auto-remove-delay", p.duration("key-manager.auto-remove-delay", 7*day), "")
	d.duration("key-manager.records.ttl", max(p.duration("key-manager.records.ttl", time.Hour), time.Second), "")
	d.flag("key-manager.generation.use-csk", p.flag("key-manager.generation.use-csk", false), "")
	d.word("key-manager.generation.algorithm", p.word("key-manager.generation.algorithm", "ECDSAP256SHA256"), "")
	if id := p.word("key-manager.generation.hsm-server-id", ""); id != "" {
		d.word("key-manager.generation.keystore", id, "hsm-server-id")
		d.tell("hsm-server-id %s: add a keystore of that name before the import (sluice keystore add), or take the line out and keep new keys in files.", id)
	}
	for _, at := range p.servers("key-manager.publication-nameservers") {
		if at.key != "" {
			d.tell("publication-nameservers: asked without a TSIG key here; no transfer is needed.")
		}
		d.add("key-manager.publication-nameservers", at.addr.String())
	}
	for _, set := range []string{"dnskey", "cds"} {
		for _, key := range []string{"signature-inception-offset", "signature-lifetime", "signature-remain-time"} {
			if _, has := p.value("key-manager.records." + set + "." + key); has {
				d.tell("key-manager.records.%s.%s: all signatures are alike here, by signer.%s.", set, key, key)
			}
		}
	}
}

// signer maps signatures, serials and denial.
func (p *cascadePolicy) signer(d *draft) {
	const day = 24 * time.Hour
	remark := ""
	serial := p.word("signer.serial-policy", "date-counter")
	if serial == "keep" {
		remark = "keep-strict lets signatures expire as Cascade does"
	}
	d.word("signer.serial-policy", serial, remark)
	d.duration("signer.signature-inception-offset", p.duration("signer.signature-inception-offset", day), "")
	d.signatures(p.duration("signer.signature-lifetime", 14*day), p.duration("signer.signature-remain-time", 7*day),
		p.duration("signer.signature-refresh-interval", day/2), [3]string{})
	d.duration("signer.key-roll-time", p.duration("signer.key-roll-time", day), "")
	kind := p.word("signer.denial.type", "nsec")
	optOut := p.flag("signer.denial.opt-out", false)
	if kind == "nsec3" {
		d.word("signer.denial.type", kind, "")
		d.flag("signer.denial.opt-out", optOut, "")
	}
}

// cascadeServer is a server as policies name it.
type cascadeServer struct {
	addr netip.AddrPort
	key  string
}

// servers reads a list of "IP[:PORT][^KEY]" and { addr, tsig-key-name }.
func (p *cascadePolicy) servers(key string) (list []cascadeServer) {
	v, has := p.value(key)
	if !has {
		return nil
	}
	words, ok := v.([]any)
	if !ok {
		p.fault(key, "want a list")
		return nil
	}
	for _, w := range words {
		var s cascadeServer
		text, isWord := w.(string)
		if table, is := w.(map[string]any); is {
			text, isWord = table["addr"].(string)
			s.key, _ = table["tsig-key-name"].(string)
		} else {
			text, s.key, _ = strings.Cut(text, "^")
		}
		if s.addr, ok = pdnsServer(text); !ok || !isWord {
			p.fault(key, "%v is no server", w)
			continue
		}
		list = append(list, s)
	}
	return list
}

// outbound maps who may transfer, and who is told.
func (p *cascadePolicy) outbound(d *draft, out *Zone) {
	for _, s := range p.servers("server.outbound.send-notify-to") {
		d.add("server.outbound.send-notify-to", s.addr.String()+caret(s.key))
		if !slices.Contains(out.Secondaries, s.addr.String()) {
			out.Secondaries = append(out.Secondaries, s.addr.String())
		}
	}
	allowed := p.servers("server.outbound.provide-xfr-to")
	for _, s := range allowed {
		d.add("server.outbound.provide-xfr-to", s.addr.Addr().String()+caret(s.key))
	}
	if len(allowed) == 0 {
		d.tell("provide-xfr-to is empty, which lets everybody transfer in Cascade. Here it is this machine alone: name the secondaries in server.outbound.provide-xfr-to.")
	}
	if v, has := p.value("server.outbound.max-diffs"); has {
		if n, ok := v.(int64); ok && n >= 0 && n < 1<<20 {
			d.number("retention.ixfr-versions", int(n), "max-diffs")
		} else {
			p.fault("server.outbound.max-diffs", "want a number")
		}
	}
	if _, has := p.value("server.outbound.max-diffs-size"); has {
		d.tell("max-diffs-size: differences are kept on disk here; retention.ixfr-size bounds them in bytes.")
	}
}
