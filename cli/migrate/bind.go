package migrate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"sluice/signer/zone"
)

// byHand is the policy of zones whose keys nobody manages.
const byHand = "by-hand"

// bindReader reads the configuration of named.
type bindReader struct {
	conf    block
	options block
	dir     string // that named works in
	o       Options
	lists   map[string]statement // primaries and parental-agents, by name
	acls    map[string]block
	keys    map[string]string    // TSIG keys: algorithm by name in lower case
	rules   map[string]statement // dnssec-policy
	tls     map[string]block
	stores  map[string]block // key-store, by name
	version string
	entries int // entries of the address match list that is being read

	out      Former
	policies policySet
	used     map[string]bool     // TSIG keys
	left     map[string][]string // zones that are left out, by why
	why      []string
}

// bindZone is a zone statement with what it inherits from.
type bindZone struct {
	name, view string
	at         statement
	chain      []block // itself, its template, its view, the options
}

// stmt is the statement that counts for a zone.
func (z bindZone) stmt(word string) (statement, bool) {
	for _, b := range z.chain {
		if s, ok := b.last(word); ok {
			return s, true
		}
	}
	return statement{}, false
}

// word is its first word.
func (z bindZone) word(name string) string {
	s, _ := z.stmt(name)
	return s.word(1)
}

func (z bindZone) yes(name string) bool {
	return slices.Contains([]string{"yes", "true", "1"}, strings.ToLower(z.word(name)))
}

// ReadBIND reads named.conf, what it includes, and the keys of its zones. Zones
// that named does not sign are left out, and told.
func ReadBIND(ctx context.Context, source string, o Options) (Former, error) {
	conf, err := readConf(source)
	if err != nil {
		return Former{}, fmt.Errorf("read the configuration of named: %w", err)
	}
	r := &bindReader{
		conf: conf, o: o, dir: filepath.Dir(source), policies: policySet{kind: "bind"}, used: map[string]bool{},
		lists: map[string]statement{}, acls: map[string]block{}, keys: map[string]string{}, rules: map[string]statement{}, tls: map[string]block{},
		stores: map[string]block{},
	}
	r.out.Software = r.software(ctx)
	if err := r.definitions(conf); err != nil {
		return Former{}, err
	}
	seen := map[string]string{}
	zones := r.zones()
	for _, z := range zones {
		if err := ctx.Err(); err != nil {
			return Former{}, err
		}
		if err := r.zone(z, seen); err != nil {
			return Former{}, err
		}
	}
	for _, name := range o.Zones {
		if !slices.ContainsFunc(r.out.Zones, func(z Zone) bool { return z.Name == name }) {
			return Former{}, fmt.Errorf("%s: zone %s is not signed there, or not there", source, name)
		}
	}
	r.out.Policies = r.policies.list
	r.out.TSIG = slices.DeleteFunc(r.out.TSIG, func(k TSIGKey) bool { return !r.used[strings.ToLower(k.Name)] })
	for _, why := range r.why {
		r.out.Unequal = append(r.out.Unequal, fmt.Sprintf("left out: %s: %s", few(r.left[why], 20), why))
	}
	r.steps()
	return r.out, nil
}

// software asks named for its version, where it is installed here.
func (r *bindReader) software(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, path := range []string{"named", "/usr/sbin/named", "/usr/local/sbin/named"} {
		out, err := exec.CommandContext(ctx, path, "-v").Output()
		if err == nil {
			r.version = strings.TrimSpace(string(bytes.SplitN(out, []byte("\n"), 2)[0]))
			return r.version
		}
	}
	return "BIND, its version is not known (named is not installed here)"
}

// definitions collects what zones refer to by name.
func (r *bindReader) definitions(conf block) error {
	for _, s := range conf {
		b, _ := s.inner()
		switch s.word(0) {
		case "options":
			r.options = append(r.options, b...)
		case "primaries", "masters", "parental-agents", "remote-servers":
			r.lists[s.word(1)] = s
		case "acl":
			r.acls[s.word(1)] = b
		case "dnssec-policy":
			r.rules[s.word(1)] = s
		case "tls":
			r.tls[s.word(1)] = b
		case "key-store":
			r.stores[s.word(1)] = b
		case "key":
			if err := r.tsig(s, b); err != nil {
				return err
			}
		}
	}
	for _, s := range conf.all("view") {
		b, _ := s.inner()
		for _, k := range b.all("key") {
			inner, _ := k.inner()
			if err := r.tsig(k, inner); err != nil {
				return err
			}
		}
	}
	if dir := (bindZone{chain: []block{r.options}}).word("directory"); dir != "" {
		r.dir = dir
	}
	return nil
}

// tsig reads a key statement.
func (r *bindReader) tsig(s statement, b block) error {
	name := strings.TrimSuffix(s.word(1), ".")
	secret, _ := b.last("secret")
	algorithm, _ := b.last("algorithm")
	raw, err := base64.StdEncoding.DecodeString(secret.word(1))
	if err != nil || len(raw) == 0 {
		return fmt.Errorf("%s: key %q: its secret is not base64", s.at(), name)
	}
	text := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(algorithm.word(1)), "."), ".sig-alg.reg.int")
	r.keys[strings.ToLower(name)] = text
	r.out.TSIG = append(r.out.TSIG, TSIGKey{Name: name, Algorithm: text, Secret: raw})
	if text == "hmac-md5" || text == "hmac-sha1" {
		r.out.Unequal = append(r.out.Unequal, fmt.Sprintf("TSIG key %s is of %s, which is weak: here it needs weak-tsig in the daemon's config; better agree on a new one of hmac-sha256", name, text))
	}
	return nil
}

// zones lists all zone statements of class IN.
func (r *bindReader) zones() (out []bindZone) {
	templates := map[string]block{}
	for _, s := range r.conf.all("template") {
		templates[s.word(1)], _ = s.inner()
	}
	add := func(list block, view string, around []block) {
		for _, s := range list.all("zone") {
			if class := s.word(2); class != "" && !strings.EqualFold(class, "in") {
				continue
			}
			b, _ := s.inner()
			z := bindZone{view: view, at: s, chain: []block{b}}
			if t, ok := b.last("template"); ok {
				z.chain = append(z.chain, templates[t.word(1)])
			}
			z.chain = append(z.chain, around...)
			z.name = s.word(1)
			out = append(out, z)
		}
	}
	add(r.conf, "", []block{r.options})
	for _, s := range r.conf.all("view") {
		b, _ := s.inner()
		add(b, s.word(1), []block{b, r.options})
	}
	return out
}

// leave tells that a zone is left out.
func (r *bindReader) leave(z bindZone, why string) {
	if r.left == nil {
		r.left = map[string][]string{}
	}
	if r.left[why] = append(r.left[why], z.name); len(r.left[why]) == 1 {
		r.why = append(r.why, why)
	}
}

// zone reads one zone.
func (r *bindReader) zone(z bindZone, seen map[string]string) error {
	apex, err := zone.ParseName(z.name)
	if err != nil {
		return fmt.Errorf("%s: zone: %w", z.at.at(), err)
	}
	z.name = zoneName(apex)
	if len(r.o.Zones) > 0 && !slices.Contains(r.o.Zones, z.name) {
		return nil
	}
	kind, _ := z.chain[0].last("type")
	switch kind.word(1) {
	case "primary", "master", "secondary", "slave":
	case "":
		if _, ok := z.chain[0].last("in-view"); ok {
			r.leave(z, "it is in another view, too (in-view)")
			return nil
		}
	default:
		if kind.word(1) != "hint" {
			r.leave(z, "it is of type "+kind.word(1)+", which named does not sign")
		}
		return nil
	}
	isSecondary := slices.Contains([]string{"secondary", "slave"}, kind.word(1))
	rule := z.word("dnssec-policy")
	managed := rule != "" && rule != "none" && (!isSecondary || r.inlines(z, rule))
	if !managed && !z.inline() && z.word("auto-dnssec") != "maintain" && z.word("auto-dnssec") != "allow" {
		r.leave(z, "named does not sign it; to have it signed here: sluice zone add")
		return nil
	}
	one := Zone{Name: z.name}
	if before, twice := seen[z.name]; twice {
		i := slices.IndexFunc(r.out.Zones, func(o Zone) bool { return o.Name == z.name })
		r.out.Zones[i].Refused = fmt.Sprintf("it is in the views %q and %q: a daemon has one zone of a name; plan each view from a configuration of its own, for a daemon of its own", before, z.view)
		return nil
	}
	seen[z.name] = z.view
	if !managed {
		rule = ""
	}
	if err := r.fill(&one, z, apex, rule, isSecondary); err != nil {
		return err
	}
	r.out.Zones = append(r.out.Zones, one)
	return nil
}

// inlines reports whether a policy has what is signed stand apart: it may say so
// itself, and from 9.20 on it does unless it says otherwise.
func (r *bindReader) inlines(z bindZone, rule string) bool {
	if _, said := z.stmt("inline-signing"); said {
		return z.inline()
	}
	b, _ := r.rules[rule].inner()
	if _, said := b.last("inline-signing"); said {
		return bindZone{chain: []block{b}}.inline()
	}
	return r.newer()
}

// newer reports whether named is of version 9.20 or later.
func (r *bindReader) newer() bool {
	_, text, ok := strings.Cut(r.version, "BIND 9.")
	var minor int
	_, err := fmt.Sscanf(text, "%d", &minor)
	return ok && err == nil && minor >= 20
}

// inline reports whether what is signed stands apart from what is loaded.
func (z bindZone) inline() bool { return z.yes("inline-signing") }

// fill reads what a zone has.
func (r *bindReader) fill(one *Zone, z bindZone, apex zone.Name, rule string, isSecondary bool) error {
	file := z.word("file")
	if file != "" {
		file = below(r.dir, file)
	}
	switch {
	case isSecondary:
		servers, err := r.servers(z, "primaries", "masters")
		if err != nil {
			return err
		}
		if len(servers) == 0 {
			one.Refused = "it has no primaries"
		}
		one.Source = strings.Join(servers, ",")
		one.Notes = append(one.Notes, "named takes it from its primaries, and so does Sluice: let Sluice transfer it there, and have them send NOTIFY")
	case file == "":
		one.Refused = "it has no file"
	default:
		one.Source = file
	}
	dynamic := false
	for _, word := range []string{"allow-update", "update-policy"} {
		if s, ok := z.stmt(word); ok {
			b, inner := s.inner()
			dynamic = dynamic || !inner && s.word(1) != "none" || len(b) > 0 && b[0].word(0) != "none"
		}
	}
	if dynamic {
		one.Unequal = append(one.Unequal, "it takes dynamic updates ("+"allow-update or update-policy"+"): give them to Sluice in place of named, see `sluice help takeover`")
		one.Stop = append(one.Stop, "Write all updates of "+z.name+" to its file, and let no more come:", "$ rndc freeze "+z.name)
	}
	dir := below(r.dir, cmp.Or(z.word("key-directory"), "."))
	if err := r.readKeys(one, z, apex, r.keyFolders(rule, dir)); err != nil {
		return err
	}
	if file != "" {
		// Without inline-signing the file itself is the signed zone.
		one.Serial = higher(signedSerial(file+".signed"), higher(signedSerial(file), readHead(file, apex).serial))
	}
	if err := r.outbound(one, z); err != nil {
		return err
	}
	if one.Refused != "" {
		return nil
	}
	if rule == "insecure" {
		one.Refused = "dnssec-policy insecure: named is making it insecure; let that end, then: sluice zone add"
		return nil
	}
	return r.policy(one, z, rule, file, dir)
}

// policy has a zone get its policy, and says how named is stopped and comes
// back.
func (r *bindReader) policy(one *Zone, z bindZone, rule, file, dir string) error {
	p, err := r.rule(rule)
	if err != nil {
		one.Refused = err.Error()
		return nil //nolint:nilerr // of this zone alone
	}
	serial := map[string]string{"unixtime": "unix-time", "date": "date-counter"}[z.word("serial-update-method")]
	p.word("signer.serial-policy", cmp.Or(serial, "counter"), "")
	if agents, err := r.servers(z, "parental-agents"); err == nil && len(agents) > 0 {
		p.set("key-manager.parent-nameservers", tomlList(agents), "parental-agents")
	}
	if err := r.transfers(p, z); err != nil {
		return err
	}
	if one.Policy, err = r.name(cmp.Or(rule, byHand), p); err != nil {
		one.Refused = err.Error()
		return nil //nolint:nilerr // of this zone alone
	}
	signed := file + ".signed"
	one.Back = []string{
		fmt.Sprintf("Put the K* files of %s that were written into %s, in place of those that are there, readable for named.", z.name, dir),
		fmt.Sprintf("Raise the serial in %s above the one named here, and take the signed copy of named away while it does not run:", cmp.Or(file, "the zone's source")),
	}
	if file != "" {
		one.Back = append(one.Back, fmt.Sprintf("$ rm -f %s %s.jnl %s.jbk %s.jnl", quote(signed), quote(signed), quote(file), quote(file)))
	}
	return nil
}

// rule is a dnssec-policy in our words.
func (r *bindReader) rule(rule string) (*bindPolicy, error) {
	switch s, ok := r.rules[rule]; {
	case ok:
		b, _ := s.inner()
		if off, _ := b.last("offline-ksk"); slices.Contains([]string{"yes", "true", "1"}, off.word(1)) {
			return nil, fmt.Errorf("dnssec-policy %q has offline-ksk: its KSK is not there, and Sluice signs the DNSKEY RRset itself; give the policy its KSK online first", rule)
		}
		return policyOf(b)
	case rule == "default":
		return policyOf(nil)
	case rule != "":
		return nil, fmt.Errorf("dnssec-policy %q is not in the configuration", rule)
	}
	p := newBindPolicy()
	p.flag("key-manager.ksk.auto-start", false, "")
	p.flag("key-manager.zsk.auto-start", false, "named exchanged no keys by itself")
	p.flag("key-manager.csk.auto-start", false, "")
	p.tell("its zones have no dnssec-policy: keys are exchanged when somebody says so (sluice key roll); new ones are ECDSAP256SHA256, change key-manager.generation where the zones have another algorithm")
	return p, nil
}

// name is the name of a policy with a text; equal ones have one.
func (r *bindReader) name(former string, p *bindPolicy) (string, error) {
	p.title = fmt.Sprintf("From BIND's dnssec-policy %q.", former)
	if former == byHand {
		p.title = "For zones that BIND signs without a dnssec-policy."
	}
	base := r.policies.kind + "-" + strings.ToLower(policyName(former))
	if former == byHand {
		base, former = byHand, ""
	}
	return r.policies.put(base, p.title, Policy{Former: former, Text: p.text(), Unequal: p.unequal})
}

// steps says how named's key management ends, and how it takes zones back.
func (r *bindReader) steps() {
	if r.newer() {
		r.out.Stop = []string{
			"In named.conf put `manual-mode yes;` into each dnssec-policy (named 9.20.13 and later; earlier ones: take dnssec-policy out of the zones and stop named). Then:",
			"$ rndc reconfig",
		}
	} else {
		r.out.Stop = []string{
			"In named.conf take `dnssec-policy ...;` away from the zones, and keep (or add) `inline-signing yes;` and key-directory. named then goes on signing what changes with the keys that it has, and brings or takes none. Then:",
			"$ rndc reconfig",
		}
	}
	r.out.Stop = append(r.out.Stop, "Or stop named: the secondaries go on with what they have, and check has nothing to compare.")
	r.out.Back = []string{
		"Put dnssec-policy back into named.conf, of the same algorithm and roles, and with lifetimes that are not over yet, start named, and see that no rollover begins:",
		"$ rndc dnssec -status ZONE",
	}
}
