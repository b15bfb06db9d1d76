package migrate

import (
	"bufio"
	"bytes"
	"context"
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

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/file"
	"sluice/signer/zone"
)

// ReadPowerDNS reads the zones that PowerDNS signs: from pdns.conf (or the
// folder that it is in) with the SQLite database that it names (backend
// gsqlite3), from such a database itself, or, for other backends, by pdnsutil.
// Nothing is changed.
func ReadPowerDNS(ctx context.Context, source string, o Options) (Former, error) {
	p := &pdnsReader{o: o, policies: policySet{kind: "powerdns"}, source: source}
	if err := p.find(ctx); err != nil {
		return Former{}, fmt.Errorf("read PowerDNS: %w", err)
	}
	return p.read(ctx)
}

// pdnsReader is the work on one server.
type pdnsReader struct {
	o        Options
	source   string
	conf     pdnsConf
	data     pdnsData
	out      Former
	policies policySet
	serials  serials
	mute     int // zones whose serial PowerDNS did not tell
}

// pdnsConf is the settings of pdns.conf, the last of each.
type pdnsConf map[string]string

// pdnsData is what a backend has, of all zones.
type pdnsData struct {
	zones []pdnsZone
	tsig  []TSIGKey
}

// pdnsZone is a zone as a backend has it.
type pdnsZone struct {
	name    string
	kind    string // NATIVE, MASTER, SLAVE, PRODUCER, CONSUMER
	masters []string
	meta    map[string][]string
	keys    []pdnsKey
	serial  *uint32        // in the database
	minimum uint32         // of the SOA
	live    map[string]int // records that are made when they are asked for, by type
}

// pdnsKey is a key as a backend has it.
type pdnsKey struct {
	id                int
	flags             uint16
	active, published bool
	content           []byte // in BIND's format
}

// first is the first value of a kind of metadata.
func (z *pdnsZone) first(kind string) string {
	if list := z.meta[kind]; len(list) > 0 {
		return list[0]
	}
	return ""
}

// find says what the source is, and reads the data.
func (p *pdnsReader) find(ctx context.Context) error {
	path := p.source
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		path = filepath.Join(path, "pdns.conf")
	}
	sqlite, err := isSQLite(path)
	if err != nil {
		return err
	}
	if sqlite {
		p.data, err = readPDNSDatabase(ctx, path)
		return err
	}
	p.source = path
	if p.conf, err = readPDNSConf(path); err != nil {
		return err
	}
	if db := p.conf.sqlite(); db != "" {
		p.data, err = readPDNSDatabase(ctx, below(filepath.Dir(path), db))
		return err
	}
	p.data, err = readPDNSUtil(ctx, filepath.Dir(path))
	return err
}

// sqlite is the database of the backend gsqlite3, where that is the only one.
func (c pdnsConf) sqlite() string {
	backends := strings.FieldsFunc(c["launch"], func(r rune) bool { return r == ',' || r == ' ' })
	if len(backends) != 1 {
		return ""
	}
	kind, name, named := strings.Cut(backends[0], ":")
	if kind != "gsqlite3" {
		return ""
	}
	if named {
		return c["gsqlite3-"+name+"-database"]
	}
	return c["gsqlite3-database"]
}

// readPDNSConf reads pdns.conf with its include-dir.
func readPDNSConf(path string) (pdnsConf, error) {
	c := pdnsConf{}
	if err := c.read(path); err != nil {
		return nil, err
	}
	dir := c["include-dir"]
	if dir == "" {
		return c, nil
	}
	files, err := filepath.Glob(filepath.Join(below(filepath.Dir(path), dir), "*.conf"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		if err := c.read(file); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c pdnsConf) read(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return c.parse(path, text)
}

// parse reads lines "name=value" and "name+=value".
func (c pdnsConf) parse(path string, text []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	whole, n, began := "", 0, 0
	for lines.Scan() {
		n++
		if whole == "" {
			began = n
		}
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimRight(line, " \t\r")
		if rest, more := strings.CutSuffix(line, "\\"); more {
			whole += rest
			continue
		}
		whole += line
		text := strings.TrimSpace(whole)
		whole = ""
		if text == "" {
			continue
		}
		name, value, ok := strings.Cut(text, "=")
		if !ok {
			return place{path, began}.fault("want a line of the form name=value")
		}
		value = strings.TrimSpace(value)
		if base, adds := strings.CutSuffix(strings.TrimSpace(name), "+"); adds {
			name = strings.TrimSpace(base)
			c[name] = strings.Trim(c[name]+","+value, ",")
			continue
		}
		c[strings.TrimSpace(name)] = value
	}
	if err := lines.Err(); err != nil {
		return place{path, n + 1}.fault("%w", err)
	}
	return nil
}

func (c pdnsConf) list(name string) []string {
	return strings.FieldsFunc(c[name], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

func (p *pdnsReader) read(ctx context.Context) (Former, error) {
	p.out.Software = "PowerDNS"
	if text, err := runTool(ctx, "pdnsutil", "--version"); err == nil {
		p.out.Software = "PowerDNS " + lastWord(text)
	}
	p.out.TSIG = p.data.tsig
	wanted, err := wantedNames(p.o.Zones)
	if err != nil {
		return Former{}, err
	}
	var unsigned, catalogs []string
	for i := range p.data.zones {
		z := &p.data.zones[i]
		if z.name == "" {
			z.name = "."
		}
		apex, err := zone.ParseName(z.name)
		if err != nil {
			return Former{}, fmt.Errorf("zone %q: %w", z.name, err)
		}
		switch {
		case !wanted.has(apex):
		case z.kind == "PRODUCER" || z.kind == "CONSUMER":
			catalogs = append(catalogs, zoneName(apex))
		case len(z.keys) == 0 && z.first("PRESIGNED") != "1":
			unsigned = append(unsigned, zoneName(apex))
		default:
			if err := ctx.Err(); err != nil {
				return Former{}, err
			}
			p.out.Zones = append(p.out.Zones, p.zone(ctx, z, apex))
		}
	}
	if missing := wanted.missing(); missing != "" {
		return Former{}, fmt.Errorf("%s: zone %s is not there", p.source, missing)
	}
	if len(unsigned) > 0 {
		p.out.Unequal = append(p.out.Unequal, "PowerDNS does not sign "+listed(unsigned)+": left out. A zone that is to be served unsigned is added with a policy of signer.mode = \"unsigned\".")
	}
	if p.mute > 0 {
		p.out.Unequal = append(p.out.Unequal, fmt.Sprintf("PowerDNS did not tell the serials of %d zones at %s. What it gives out follows from SOA-EDIT, and may be higher than what is in its database: make the plan while it runs.", p.mute, p.primary()))
	}
	if len(catalogs) > 0 {
		p.out.Unequal = append(p.out.Unequal, "Catalog zones are left out: "+listed(catalogs)+".")
	}
	p.out.Policies = p.policies.list
	p.out.Stop = []string{
		"PowerDNS exchanges no keys by itself: see to it that nobody, and no program of yours, uses pdnsutil or its API to add, activate or remove keys from here on.",
		"Where zones come by transfer from PowerDNS, and after the plan was made anew: allow Sluice to transfer them, and have it told of changes, for each zone:",
		"$ pdnsutil add-meta ZONE ALLOW-AXFR-FROM ADDRESS",
		"$ pdnsutil add-meta ZONE ALSO-NOTIFY ADDRESS:PORT",
	}
	p.out.Back = []string{
		"PowerDNS still has its keys, and signs all the time. Where no key was exchanged meanwhile, only the serial has to be raised. Each key that is new is imported; a KSK or CSK as ksk, a ZSK as zsk, one that is not in use as inactive:",
		"$ pdnsutil import-zone-key ZONE K*.private active ksk published",
		"Keys that are removed here are taken out there:",
		"$ pdnsutil list-keys ZONE",
		"$ pdnsutil remove-zone-key ZONE ID",
		"Set the serial in the SOA record to the one that is named, and have the caches of PowerDNS forget:",
		"$ pdnsutil edit-zone ZONE",
		"$ pdns_control purge ZONE$",
	}
	return p.out, nil
}

// primary is where PowerDNS listens.
func (p *pdnsReader) primary() string {
	port := orElse(p.conf["local-port"], "53")
	for _, text := range p.conf.list("local-address") {
		if at, err := netip.ParseAddrPort(text); err == nil {
			return reachable(at).String()
		}
		addr, err := netip.ParseAddr(text)
		n, err2 := strconv.ParseUint(port, 10, 16)
		if err == nil && err2 == nil {
			return reachable(netip.AddrPortFrom(addr, uint16(n))).String()
		}
	}
	return "127.0.0.1:" + port
}

// zone reads one zone.
func (p *pdnsReader) zone(ctx context.Context, z *pdnsZone, apex zone.Name) Zone {
	out := Zone{Name: zoneName(apex), Primary: p.primary()}
	if keys := z.meta["TSIG-ALLOW-AXFR"]; len(keys) > 0 && len(z.meta["ALLOW-AXFR-FROM"]) == 0 {
		out.Primary += caret(keys[0])
	}
	p.from(z, &out)
	served := p.serials.ask(ctx, out.Primary, apex)
	out.Serial = higher(z.serial, served)
	if served == nil {
		p.mute++
	}
	d := p.policy(z, &out)
	switch {
	case z.first("PRESIGNED") == "1":
		out.Refused = "it is signed elsewhere (PRESIGNED), and PowerDNS gives it out as it is: take it over from the signer that has its keys"
	default:
		var err error
		if out.Keys, err = p.keys(z, apex, &out); err != nil {
			out.Keys, out.Refused = nil, "its keys cannot be read: "+err.Error()
		}
	}
	settleAlgorithm(d, out.Keys)
	p.policies.give(&out, "", d)
	return out
}

// from settles where the zone comes from.
func (p *pdnsReader) from(z *pdnsZone, out *Zone) {
	if z.kind != "SLAVE" {
		out.Source = out.Primary
		out.Notes = append(out.Notes, "it stays in PowerDNS, and comes from there by transfer, without the signatures")
		return
	}
	var servers []string
	key := caret(z.first("AXFR-MASTER-TSIG"))
	for _, m := range z.masters {
		if at, ok := pdnsServer(m); ok {
			servers = append(servers, at.String()+key)
		}
	}
	if out.Source = strings.Join(servers, ","); out.Source == "" {
		out.Source = out.Primary
		out.Notes = append(out.Notes, "PowerDNS is a secondary of it, and no address of a primary is there: it comes from PowerDNS by transfer, without the signatures")
		return
	}
	out.Notes = append(out.Notes, "PowerDNS transfers it and signs it: it comes from the same servers")
}

// pdnsServer reads IP[:PORT].
func pdnsServer(text string) (netip.AddrPort, bool) {
	text = strings.TrimSpace(text)
	if at, err := netip.ParseAddrPort(text); err == nil {
		return at, true
	}
	addr, err := netip.ParseAddr(strings.Trim(text, "[]"))
	return netip.AddrPortFrom(addr, 53), err == nil
}

// policy is what is set for a zone, in our words.
func (p *pdnsReader) policy(z *pdnsZone, out *Zone) *draft {
	d := newDraft("the metadata of zones", "From the settings of zones in PowerDNS.")
	for _, role := range []string{"ksk", "zsk", "csk"} {
		d.validity(role, 0, "PowerDNS exchanges no keys by itself")
	}
	p.denial(d, z)
	p.serialPolicy(d, z)
	p.cds(d, z)
	p.transfers(d, z, out)
	if z.minimum > 0 {
		d.duration("key-manager.records.ttl", time.Duration(z.minimum)*time.Second, "PowerDNS takes the SOA's minimum")
	}
	for _, kind := range []string{"ALLOW-DNSUPDATE-FROM", "TSIG-ALLOW-DNSUPDATE", "LUA-AXFR-SCRIPT", "FORWARD-DNSUPDATE"} {
		if len(z.meta[kind]) > 0 {
			out.Unequal = append(out.Unequal, kind+": it goes on in PowerDNS where the zone comes from there; Sluice transfers what comes of it.")
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(z.live)) {
		out.Unequal = append(out.Unequal, fmt.Sprintf("Records of type %[2]s (%[1]d): PowerDNS makes their answers when it is asked, and a transfer does not have them. Servers that take the zone by transfer, from PowerDNS or from Sluice, do not answer them; for ALIAS, outgoing-axfr-expand-alias=yes in pdns.conf puts addresses into the transfer.", z.live[kind], kind))
	}
	return d
}

// denial maps NSEC and NSEC3.
func (p *pdnsReader) denial(d *draft, z *pdnsZone) {
	words := strings.Fields(z.first("NSEC3PARAM"))
	if len(words) != 4 {
		return
	}
	d.word("signer.denial.type", "nsec3", "NSEC3PARAM")
	if words[1] == "1" {
		d.flag("signer.denial.opt-out", true, "NSEC3PARAM")
	}
	if n, err := strconv.Atoi(words[2]); err == nil {
		d.iterations(n, "NSEC3PARAM")
	}
	if salt := strings.ToLower(words[3]); salt != "-" && strings.Trim(salt, "0123456789abcdef") == "" && len(salt)%2 == 0 {
		d.word("signer.denial.salt", salt, "NSEC3PARAM")
	}
	if z.first("NSEC3NARROW") == "1" {
		d.tell("NSEC3NARROW: answers that are made when they are asked for (white lies) need the key on each server. Here the whole NSEC3 chain is in the zone, and names can be guessed from it.")
	}
}

// serialPolicy maps SOA-EDIT.
func (p *pdnsReader) serialPolicy(d *draft, z *pdnsZone) {
	edit := strings.ToUpper(orElse(z.first("SOA-EDIT"), orElse(p.conf["default-soa-edit-signed"], p.conf["default-soa-edit"])))
	switch edit {
	case "EPOCH", "INCEPTION-EPOCH":
		d.word("signer.serial-policy", "unix-time", "SOA-EDIT "+edit)
	case "INCEPTION-INCREMENT":
		d.word("signer.serial-policy", "date-counter", "SOA-EDIT "+edit)
	default:
		d.word("signer.serial-policy", "counter", strings.TrimSpace("SOA-EDIT "+edit))
	}
}

// cds maps PUBLISH-CDS.
func (p *pdnsReader) cds(d *draft, z *pdnsZone) {
	digests := orElse(z.first("PUBLISH-CDS"), p.conf["default-publish-cds"])
	keys := orElse(z.first("PUBLISH-CDNSKEY"), p.conf["default-publish-cdnskey"])
	switch {
	case strings.HasPrefix(digests, "0") || strings.HasPrefix(keys, "0"):
		d.word("key-manager.cds", "never", "PUBLISH-CDS 0")
		d.tell("PUBLISH-CDS or PUBLISH-CDNSKEY of 0 asks the parent to remove the DS: for that see sluice help keys (sluice key roll ZONE insecure), once the zone is here.")
	case digests == "" && keys == "":
		d.word("key-manager.cds", "never", "no PUBLISH-CDS")
	default:
		d.word("key-manager.cds", "always", "PUBLISH-CDS")
	}
	if digests == "4" {
		d.word("key-manager.ds-algorithm", "SHA-384", "PUBLISH-CDS 4")
	}
}

// transfers maps who may transfer, and who is told.
func (p *pdnsReader) transfers(d *draft, z *pdnsZone, out *Zone) {
	const provide, told = "server.outbound.provide-xfr-to", "server.outbound.send-notify-to"
	allowed := p.conf.list("allow-axfr-ips")
	if p.conf["allow-axfr-ips"] == "" {
		allowed = []string{"127.0.0.0/8", "::1"}
	}
	for _, from := range append(allowed, z.meta["ALLOW-AXFR-FROM"]...) {
		switch _, err := netip.ParsePrefix(from); {
		case strings.EqualFold(from, "AUTO-NS"):
			d.tell("ALLOW-AXFR-FROM AUTO-NS: give the addresses of the name servers in server.outbound.provide-xfr-to.")
		case err == nil:
			d.add(provide, from)
		default:
			if _, err := netip.ParseAddr(from); err == nil {
				d.add(provide, from)
			}
		}
	}
	for _, key := range z.meta["TSIG-ALLOW-AXFR"] {
		d.add(provide, "0.0.0.0/0"+caret(key), "::/0"+caret(key))
	}
	for _, to := range append(p.conf.list("also-notify"), z.meta["ALSO-NOTIFY"]...) {
		if at, ok := pdnsServer(to); ok {
			d.add(told, at.String())
			if !slices.Contains(out.Secondaries, at.String()) {
				out.Secondaries = append(out.Secondaries, at.String())
			}
		} else {
			d.tell("ALSO-NOTIFY %s: give its address in server.outbound.send-notify-to.", to)
		}
	}
	if z.kind == "MASTER" && p.conf["only-notify"] == "" {
		d.flag("server.outbound.notify-ns", true, "as PowerDNS does for zones of kind MASTER")
	}
}

// keys turns the keys of a zone into ours. PowerDNS lets a key do all that the
// keys of its algorithm with the other flags would do, where none is active.
func (p *pdnsReader) keys(z *pdnsZone, apex zone.Name, out *Zone) ([]Key, error) {
	type one struct {
		pdnsKey
		algorithm uint8
		rdata     []byte
	}
	var list []one
	sep, nosep := map[uint8]bool{}, map[uint8]bool{}
	for _, k := range z.keys {
		algorithm, rdata, err := file.PublicOf(k.content, k.flags)
		switch {
		case errors.Is(err, file.ErrElsewhere):
			out.Refused = fmt.Sprintf("its key of ID %d is on a token that PowerDNS reaches by label: make keys of their own for the zone in PowerDNS, and roll over to them first", k.id)
			return nil, nil
		case err != nil:
			if n, bad := pdnsAlgorithm(k.content); bad {
				out.Refused = errAlgorithm(n).Error()
				return nil, nil
			}
			return nil, fmt.Errorf("key of ID %d: %w", k.id, err)
		}
		list = append(list, one{k, algorithm, rdata})
		if k.active {
			if k.flags&keymgr.FlagSEP != 0 {
				sep[algorithm] = true
			} else {
				nosep[algorithm] = true
			}
		}
	}
	keys := make([]Key, 0, len(list))
	newest := map[uint8]int{} // ID of the newest active key of an algorithm
	for _, k := range list {
		if k.active {
			newest[k.algorithm] = max(newest[k.algorithm], k.id)
		}
	}
	for _, k := range list {
		if !k.active && !k.published {
			out.Notes = append(out.Notes, fmt.Sprintf("key %d (ID %d) is neither active nor published: left out", keymgr.Describe(keymgr.ZSK, k.rdata).Tag, k.id))
			clear(k.content)
			continue
		}
		role := pdnsRole(k.flags, sep[k.algorithm], nosep[k.algorithm])
		made := keymgr.Describe(role, k.rdata)
		life, note := pdnsLife(k.pdnsKey, role, k.id > newest[k.algorithm])
		out.Notes = append(out.Notes, fmt.Sprintf("%s %d (ID %d): %s", strings.ToUpper(string(role)), made.Tag, k.id, note))
		keys = append(keys, Key{
			Role: role, Algorithm: k.algorithm, Tag: made.Tag, DNSKEY: dnskeyText(apex, z.minimum, k.rdata), Private: k.content, Life: life,
		})
	}
	if len(keys) == 0 {
		out.Refused = "none of its keys is active or published: PowerDNS does not sign it; add it as a zone of its own (sluice zone add)"
	}
	return keys, nil
}

// pdnsRole is what a key does: with both kinds of flags active in an algorithm,
// each does its own part; else one does all.
func pdnsRole(flags uint16, sep, nosep bool) keymgr.Role {
	hasSEP := flags&keymgr.FlagSEP != 0
	switch {
	case hasSEP && nosep:
		return keymgr.KSK
	case !hasSEP && sep:
		return keymgr.ZSK
	}
	return keymgr.CSK
}

// pdnsLife is how a key stands, in BIND's words. PowerDNS notes no times.
func pdnsLife(k pdnsKey, role keymgr.Role, newer bool) (*event.KeyLife, string) {
	spread := func(state string) *event.Spread { return &event.Spread{State: state} }
	l := &event.KeyLife{Goal: "omnipresent", DNSKEY: spread("omnipresent")}
	signs, note := "omnipresent", "active"
	switch {
	case k.active && !k.published:
		l.DNSKEY, signs, note = spread("hidden"), "rumoured", "signs, and is not published"
	case !k.active && newer:
		l.DNSKEY, signs, note = spread("rumoured"), "hidden", "published and not active, with a higher ID than those that sign: taken for the next one"
	case !k.active:
		l.Goal, signs, note = "hidden", "unretentive", "published and not active, with a lower ID than those that sign: taken for one that goes"
	}
	if role != keymgr.KSK {
		l.ZoneSigs = spread(signs)
	}
	if role != keymgr.ZSK {
		l.KeySigs, l.DS = spread(signs), spread("hidden")
		if k.active && k.published {
			l.DS = spread("omnipresent")
		}
	}
	return l, note
}

// pdnsAlgorithm is the algorithm of a key that cannot be used here.
func pdnsAlgorithm(content []byte) (uint8, bool) {
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, "Algorithm:"); ok {
			words := strings.Fields(rest)
			if len(words) == 0 {
				return 0, false
			}
			n, err := strconv.ParseUint(words[0], 10, 8)
			return uint8(n), err == nil && !supported(uint8(n))
		}
	}
	return 0, false
}
