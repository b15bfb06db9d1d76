package migrate

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"sluice/signer/zone"
)

// ReadKnot reads a configuration of Knot DNS 3.0 or later (knot.conf, or the
// folder that it is in), its policies, and the keys of the zones that it signs:
// by keymgr, which reads the KASP database, and from the PEM files of its
// keystores. Nothing is changed.
func ReadKnot(ctx context.Context, source string, o Options) (Former, error) {
	path := source
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "knot.conf")
	}
	conf, err := readKnotConf(path)
	if err != nil {
		return Former{}, fmt.Errorf("read the configuration of Knot DNS: %w", err)
	}
	k := &knotReader{conf: conf, path: path, o: o, policies: policySet{kind: "knot"}}
	return k.read(ctx)
}

// knotReader is the work on one configuration.
type knotReader struct {
	conf     *knotConf
	path     string
	o        Options
	out      Former
	policies policySet
	kasp     string            // the folder of the KASP database
	pkcs11   map[string]string // names of Former.Keystores, by identifier
	serials  serials
}

// knotZone is a zone with its template.
type knotZone struct {
	name            zone.Name
	block, template *knotBlock
}

// of is the block that has a setting: the zone, or its template.
func (z knotZone) of(name string) *knotBlock {
	if _, _, has := z.block.get(name); has {
		return z.block
	}
	return z.template
}

func (z knotZone) word(name string) string { return z.of(name).word(name) }

func (k *knotReader) read(ctx context.Context) (Former, error) {
	version, err := runTool(ctx, "keymgr", "-V")
	if err != nil {
		return Former{}, fmt.Errorf("the keys of Knot DNS are in its KASP database, which its own keymgr reads (package knot): %w", err)
	}
	k.out.Software = "Knot DNS " + lastWord(version)
	if err := k.tsig(); err != nil {
		return Former{}, err
	}
	database := k.conf.section("database")
	storage := orElse(database.word("storage"), "/var/lib/knot")
	k.kasp = below(storage, orElse(database.word("kasp-db"), "keys"))
	zones, err := k.zones()
	if err != nil {
		return Former{}, err
	}
	for _, z := range zones {
		if err := ctx.Err(); err != nil {
			return Former{}, err
		}
		one, err := k.zone(ctx, z)
		if err != nil {
			return Former{}, fmt.Errorf("zone %s: %w", z.name.Fold(), err)
		}
		k.out.Zones = append(k.out.Zones, one)
	}
	k.out.Policies = k.policies.list
	k.stop()
	return k.out, nil
}

// stop tells how the key management of Knot ends, and begins again.
func (k *knotReader) stop() {
	reload := "$ knotc -c " + quote(k.path) + " reload"
	k.out.Stop = []string{
		"Put `manual: on` into each policy that the zones have; a zone without `dnssec-policy` needs one for this. Knot then signs on with the keys that it has, and begins no rollover.",
		reload,
	}
	k.out.Back = []string{
		"Where no key was exchanged meanwhile, the KASP database still has all of them. Each key that is new is imported, with the times of its .private file:",
		"$ keymgr -c " + quote(k.path) + " ZONE import-bind K*.key",
		"A key that Knot knew in another state gets its times, those of its K*.state file; a CSK both roles (ksk=yes zsk=yes):",
		"$ keymgr -c " + quote(k.path) + " ZONE set TAG publish=YYYYMMDDHHMMSS active=YYYYMMDDHHMMSS",
		"Keys that are removed here are taken out there, or they would stand in the DNSKEY RRset again:",
		"$ keymgr -c " + quote(k.path) + " ZONE delete TAG",
		"Raise the serial in the SOA of the zone file above the one that is named, and load the file. A zone that Knot transfers and signs gets its serial by `keymgr ZONE local-serial`.",
		"$ knotc -c " + quote(k.path) + " zone-reload ZONE",
		"Once the secondaries take the zone from Knot again, take `manual: on` out of the policies.",
	}
}

// tsig reads the TSIG keys.
func (k *knotReader) tsig() error {
	for _, b := range k.conf.sections("key") {
		values, at, has := b.get("secret")
		if !has || len(values) != 1 {
			return b.at.fault("key %s has no secret", b.id)
		}
		secret, err := base64.StdEncoding.DecodeString(values[0])
		if err != nil {
			return at.fault("the secret of key %s is not base64", b.id)
		}
		k.out.TSIG = append(k.out.TSIG, TSIGKey{b.id, strings.ToLower(orElse(b.word("algorithm"), "hmac-sha256")), secret})
	}
	return nil
}

// zones lists those that Knot signs, and tells which are left out.
func (k *knotReader) zones() ([]knotZone, error) {
	var list []knotZone
	var unsigned, generated []string
	wanted, err := wantedNames(k.o.Zones)
	if err != nil {
		return nil, err
	}
	for _, b := range k.conf.sections("zone") {
		name, err := zone.ParseName(b.id)
		if err != nil {
			return nil, b.at.fault("zone %q: %w", b.id, err)
		}
		z := knotZone{name: name, block: b}
		if id := b.word("template"); id != "" {
			if z.template = k.conf.find("template", id); z.template == nil {
				return nil, b.at.fault("zone %s: there is no template %q", b.id, id)
			}
		} else {
			z.template = k.conf.find("template", "default")
		}
		signing, err := z.of("dnssec-signing").on("dnssec-signing", false)
		if err != nil {
			return nil, err
		}
		text := zoneName(name)
		switch role := z.word("catalog-role"); {
		case !wanted.has(name):
		case role == "interpret" || role == "generate":
			generated = append(generated, text)
		case !signing && !strings.Contains(strings.Join(values(z, "module"), " "), "mod-onlinesign"):
			unsigned = append(unsigned, text)
		default:
			list = append(list, z)
		}
	}
	if missing := wanted.missing(); missing != "" {
		return nil, fmt.Errorf("%s: zone %s is not there", k.path, missing)
	}
	if len(unsigned) > 0 {
		k.out.Unequal = append(k.out.Unequal, "Knot does not sign "+listed(unsigned)+": left out. A zone that is to be served unsigned is added with a policy of signer.mode = \"unsigned\".")
	}
	if len(generated) > 0 {
		k.out.Unequal = append(k.out.Unequal, "Catalog zones are left out, and so are member zones that stand in them alone: "+listed(generated)+". Zones that stand in no catalog are here; what else the catalogs have is read by giving those zones in knot.conf for the time of the plan.")
	}
	return list, nil
}

func values(z knotZone, name string) []string {
	list, _, _ := z.of(name).get(name)
	return list
}

// zone reads one zone.
func (k *knotReader) zone(ctx context.Context, z knotZone) (Zone, error) {
	out := Zone{Name: zoneName(z.name), Primary: k.primary()}
	file := k.zoneFile(z)
	head := readHead(file, z.name)
	if err := k.source(z, file, &out); err != nil {
		return out, err
	}
	out.Serial = higher(head.serial, k.serials.ask(ctx, out.Primary, z.name))
	d, err := k.policy(z, &out)
	if err != nil {
		return out, err
	}
	// Where all who may transfer have a key, so has whoever compares.
	if key := keyOfAll(d.lists["server.outbound.provide-xfr-to"]); key != "" && out.Primary != "" {
		if out.Source == out.Primary {
			out.Source += caret(key)
		}
		out.Primary += caret(key)
	}
	if out.Refused == "" {
		if out.Keys, err = k.keys(ctx, z, d, head.ttl, &out); ctx.Err() != nil {
			return out, ctx.Err()
		}
		if err != nil {
			out.Keys, out.Refused = nil, "its keys cannot be read: "+err.Error()
		}
		settleAlgorithm(d, out.Keys)
		if len(out.Keys) == 0 && out.Refused == "" {
			out.Refused = "Knot is to sign it, and the KASP database has no key of it: start Knot, wait until it has signed the zone, and make the plan anew"
		}
	}
	k.policies.give(&out, orElse(z.word("dnssec-policy"), "default"), d)
	return out, nil
}

// zoneFile is the path of a zone's file, with Knot's formatters.
func (k *knotReader) zoneFile(z knotZone) string {
	// A name such as 0/25.2.0.192.in-addr.arpa is no path there either.
	text := strings.ReplaceAll(strings.TrimSuffix(z.name.String(), "."), "/", "_")
	labels := strings.Split(text, ".")
	slices.Reverse(labels)
	name := knotFormat(orElse(z.word("file"), "%s.zone"), text, labels)
	return below(orElse(z.word("storage"), "/var/lib/knot"), name)
}

// knotFormat fills in %s, %c[N], %c[N-M], %l[N] and %%.
func knotFormat(pattern, name string, labels []string) string {
	var b strings.Builder
	whole := name + "."
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' || i+1 == len(pattern) {
			b.WriteByte(pattern[i])
			continue
		}
		i++
		switch pattern[i] {
		case 's':
			b.WriteString(name)
		case '%':
			b.WriteByte('%')
		case 'c', 'l':
			inner, _, ok := strings.Cut(pattern[i+1:], "]")
			if !ok || !strings.HasPrefix(inner, "[") {
				continue
			}
			first, last, ranged := strings.Cut(inner[1:], "-")
			from, err := strconv.Atoi(first)
			to := from
			if ranged && err == nil {
				to, err = strconv.Atoi(last)
			}
			switch {
			case err != nil || from < 0:
			case pattern[i] == 'l' && from < len(labels):
				b.WriteString(labels[from])
			case pattern[i] == 'c' && from < len(whole):
				b.WriteString(whole[from:min(max(to+1, from), len(whole))])
			}
			i += len(inner) + 1
		}
	}
	return b.String()
}

// source settles where the zone comes from.
func (k *knotReader) source(z knotZone, file string, out *Zone) error {
	masters, err := k.remotes(values(z, "master"))
	if err != nil {
		return err
	}
	load, content := orElse(z.word("zonefile-load"), "whole"), orElse(z.word("journal-content"), "changes")
	switch {
	case len(masters) > 0:
		var servers []string
		for _, m := range masters {
			servers = append(servers, m.endpoints()...)
		}
		out.Source = strings.Join(servers, ",")
		out.Notes = append(out.Notes, "Knot transfers it and signs it: it comes from the same servers")
	case load == "none" && content == "all":
		out.Source = out.Primary
		out.Notes = append(out.Notes, "its contents are in Knot's journal alone: it comes by transfer from Knot, without the signatures")
		out.Unequal = append(out.Unequal, "The contents are in Knot's journal alone. Before Knot is given up, write them to a file: knotc zone-flush "+out.Name+" +outdir DIR, then sluice zone set "+out.Name+" --source FILE.")
	default:
		out.Source = file
		if z.word("zonefile-sync") == "-1" {
			out.Notes = append(out.Notes, "Knot does not write changes back to the file (zonefile-sync: -1)")
			out.Unequal = append(out.Unequal, "What was changed by dynamic update or by knotc zone-set is not in the file: have it written by knotc zone-flush "+out.Name+" first.")
		}
	}
	if out.Source == "" {
		out.Refused = "no address of Knot is in the section server (listen), from which the zone could be transferred: write the zone to a file (knotc zone-flush), and set zonefile-load"
	}
	return nil
}

// primary is where Knot listens.
func (k *knotReader) primary() string {
	listen, _, _ := k.conf.section("server").get("listen")
	for _, text := range listen {
		if at, ok := knotAddr(text); ok {
			return reachable(at).String()
		}
	}
	return ""
}

// knotAddr reads ADDR[@PORT]; ok is false for a socket in the file system.
func knotAddr(text string) (netip.AddrPort, bool) {
	addr, port, has := strings.Cut(text, "@")
	if !has {
		port = "53"
	}
	ip, err := netip.ParseAddr(addr)
	n, err2 := strconv.ParseUint(port, 10, 16)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), err == nil && err2 == nil
}

// knotRemote is another server.
type knotRemote struct {
	addrs []netip.AddrPort
	key   string
	auto  bool // automatic-acl
}

// endpoints is it as a list of servers.
func (r knotRemote) endpoints() (list []string) {
	for _, a := range r.addrs {
		list = append(list, a.String()+caret(r.key))
	}
	return list
}

// remotes finds servers by the names of remotes and of groups.
func (k *knotReader) remotes(ids []string) (list []knotRemote, err error) {
	for _, id := range ids {
		members := []string{id}
		if group := k.conf.find("remotes", id); group != nil {
			members, _, _ = group.get("remote") // groups hold no groups
		}
		for _, one := range members {
			r, err := k.remote(one)
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	return list, nil
}

// remote finds a server by its name.
func (k *knotReader) remote(id string) (r knotRemote, err error) {
	b := k.conf.find("remote", id)
	if b == nil {
		return r, fmt.Errorf("%s: there is no remote %q", k.path, id)
	}
	r.key = b.word("key")
	if r.auto, err = b.on("automatic-acl", true); err != nil {
		return r, err
	}
	texts, at, _ := b.get("address")
	for _, text := range texts {
		addr, ok := knotAddr(text)
		if !ok && !strings.HasPrefix(text, "/") {
			return r, at.fault("remote %s: %q is no address", id, text)
		}
		if ok {
			r.addrs = append(r.addrs, addr)
		}
	}
	return r, nil
}

// section is the block of a section without identifiers, all of its parts as
// one.
func (c *knotConf) section(name string) *knotBlock {
	whole := &knotBlock{section: name}
	for _, b := range c.sections(name) {
		whole.items = append(whole.items, b.items...)
	}
	return whole
}

// readable says in a sentence why a file cannot be read.
func readable(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run this as the user who may read it", err)
	}
	if err != nil {
		return err
	}
	return f.Close()
}
