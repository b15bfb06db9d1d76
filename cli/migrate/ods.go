package migrate

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// ReadOpenDNSSEC reads OpenDNSSEC 2: source is its conf.xml, or the folder of
// that. Zones, keys and the policies in force come from the enforcer's database,
// which is not touched; public keys from the tokens, else from what the signer
// has published.
func ReadOpenDNSSEC(ctx context.Context, source string, o Options) (Former, error) {
	conf, err := readODSConf(source)
	if err != nil {
		return Former{}, err
	}
	db, err := readODSDB(ctx, conf.at(conf.Enforcer.SQLite.text))
	if err != nil {
		return Former{}, err
	}
	r := &odsReading{
		conf: conf, db: db, now: o.Now, adapters: map[string]*odsAdapter{}, policies: map[string]*odsMade{},
		tokens: newODSTokens(conf, time.Now), tsig: map[string]TSIGKey{},
	}
	if r.listen, err = conf.listener(); err != nil {
		return Former{}, err
	}
	if r.kasp, err = readODSKASP(conf.at(conf.PolicyFile.text)); err != nil {
		return Former{}, err
	}
	err = r.read(ctx, o.Zones)
	if err = errors.Join(err, r.tokens.close()); err != nil {
		return Former{}, err
	}
	return r.f, nil
}

// odsReading is the work on one installation.
type odsReading struct {
	conf   *odsConf
	db     *odsDB
	kasp   map[string]*odsPolicy
	listen fmt.Stringer
	tokens *odsTokens
	now    time.Time

	adapters map[string]*odsAdapter // by path
	policies map[string]*odsMade    // by the policy and who is served
	made     policySet
	tsig     map[string]TSIGKey // by name
	f        Former
}

// odsMade is a policy as it was written, or why it was not.
type odsMade struct{ name, refused string }

func (r *odsReading) read(ctx context.Context, wanted []string) error {
	r.f.Software = "OpenDNSSEC 2"
	zones, err := r.chosen(wanted)
	if err != nil {
		return err
	}
	for _, z := range zones {
		if err := ctx.Err(); err != nil {
			return err
		}
		one, err := r.zone(ctx, z)
		if err != nil {
			return err
		}
		r.f.Zones = append(r.f.Zones, one)
	}
	r.f.Policies = r.made.list
	r.keystores()
	for _, k := range r.tsig {
		r.f.TSIG = append(r.f.TSIG, k)
	}
	slices.SortFunc(r.f.TSIG, func(a, b TSIGKey) int { return strings.Compare(a.Name, b.Name) })
	r.unequal(len(wanted) == 0)
	r.steps()
	return nil
}

// chosen is the zones of the database that are wanted, all where none is named.
func (r *odsReading) chosen(wanted []string) ([]*odsZone, error) {
	var out []*odsZone
	named := map[string]bool{}
	for _, name := range wanted {
		apex, err := zone.ParseName(name)
		if err != nil {
			return nil, fmt.Errorf("%w: zone %q: %w", pipeline.ErrInvalid, name, err)
		}
		named[zoneName(apex)] = false
	}
	for i := range r.db.zones {
		z := &r.db.zones[i]
		apex, err := zone.ParseName(z.name)
		if err != nil {
			return nil, fmt.Errorf("zone %q of the enforcer's database: %w", z.name, err)
		}
		z.name = zoneName(apex)
		if _, is := named[z.name]; is {
			named[z.name] = true
		}
		if len(wanted) == 0 || named[z.name] {
			out = append(out, z)
		}
	}
	for name, found := range named {
		if !found {
			return nil, fmt.Errorf("zone %s is not in the enforcer's database: %w; see: ods-enforcer zone list", name, pipeline.ErrNotFound)
		}
	}
	return out, nil
}

// zone reads one zone.
func (r *odsReading) zone(ctx context.Context, z *odsZone) (Zone, error) {
	out := Zone{Name: z.name}
	serving, err := r.outside(z, &out)
	if err != nil {
		return out, err
	}
	p := r.db.policies[z.policy]
	made := r.policy(p, serving)
	out.Policy, out.Refused = made.name, orElse(out.Refused, made.refused)
	published, err := readODSPublished(r.conf, z)
	if err != nil {
		return out, err
	}
	if out.Serial = published.serial; out.Serial == nil {
		out.Notes = append(out.Notes, "no file of the signer tells the serial that it published: the servers are asked")
	}
	out.Back = []string{
		"Its signer forgets the signatures that it has, and takes a serial: in place of N one above ours.",
		"$ ods-signer clear " + z.name, "$ ods-signer sign " + z.name + " --serial N",
	}
	if !odsFile(z.inputType) {
		out.Back = append(out.Back, "$ ods-signer retransfer "+z.name)
	}
	if out.Refused != "" || p.passthrough || len(p.keys) == 0 && len(z.keys) == 0 {
		return out, nil
	}
	if z.signconfNeedsWriting {
		out.Notes = append(out.Notes, "the enforcer has not told the signer yet how the keys stand: ods-enforcer signconf, then make the plan anew")
	}
	r.keys(ctx, z, p, published, &out)
	return out, nil
}

// keys reads the keys of a zone.
func (r *odsReading) keys(ctx context.Context, z *odsZone, p *odsPolicy, published odsPublished, out *Zone) {
	refuse := func(format string, args ...any) {
		if out.Refused == "" {
			out.Refused = fmt.Sprintf(format, args...)
		}
	}
	inUse := false
	for _, k := range z.keys {
		if k.dead() {
			out.Notes = append(out.Notes, k.describe()+" is hidden everywhere, and left out")
			continue
		}
		if r.conf.repository(k.repository) == nil {
			refuse("%s: %s has no such repository: add it there", k.describe(), r.conf.path)
			continue
		}
		if !odsSupports(k.algorithm) {
			refuse("%s: keys of this algorithm are not signed with here; roll to algorithm 8 or 13 in OpenDNSSEC, and wait until the old key is gone", k.describe())
			continue
		}
		public, why := r.tokens.of(ctx, k)
		rdata, err := k.record(public, published.keys)
		switch {
		case err != nil:
			refuse("%s: %v", k.describe(), err)
			continue
		case rdata == nil:
			refuse("%s: its public key is neither on the token (%v) nor in what the signer published; make the plan as a user who may use the token, "+
				"with <PIN> in conf.xml", k.describe(), why)
			continue
		case public == nil:
			out.Notes = append(out.Notes, fmt.Sprintf("%s: its public key was taken from what the signer published, since the token was not to be had: %v", k.describe(), why))
		}
		life := k.life(p)
		out.Keys = append(out.Keys, Key{
			Role: odsRole(k.role), Algorithm: uint8(k.algorithm), Tag: uint16(k.tag), //nolint:gosec // checked when it was read
			DNSKEY: fmt.Sprintf("%s. %d IN DNSKEY %d %d %d %s", strings.TrimSuffix(z.name, "."), life.TTL,
				int(rdata[0])<<8|int(rdata[1]), rdata[2], rdata[3], base64.StdEncoding.EncodeToString(rdata[4:])),
			Keystore: odsKeystoreName(k.repository), ID: strings.ToLower(k.locator), Life: life,
		})
		state, _ := keymgr.ReadLife(life, odsRole(k.role), r.now)
		inUse = inUse || state == keymgr.Active
		if k.standby {
			out.Notes = append(out.Notes, k.describe()+" stands by")
		}
		if k.signsKeys() && k.dsAtParent != odsDSSeen && k.introducing && k.records[odsRecordDNSKEY].state == odsOmnipresent {
			out.Notes = append(out.Notes, k.describe()+" waits for its DS at the parent, as the enforcer sees it; what the parent has counts here")
		}
	}
	if !inUse {
		refuse("none of its keys signs yet: see ods-enforcer key list --verbose --zone %s, and wait until they do", z.name)
	}
}

// outside reads where a zone comes from and who takes it.
func (r *odsReading) outside(z *odsZone, out *Zone) (s odsServing, err error) {
	if odsFile(z.inputType) {
		out.Source = r.conf.at(z.input)
		if _, err := os.Stat(out.Source); err != nil {
			out.Notes = append(out.Notes, fmt.Sprintf("its source cannot be read now: %v", err))
		}
	} else {
		in, err := r.adapter(z.input)
		if err != nil {
			return s, fmt.Errorf("zone %s: %w", z.name, err)
		}
		var servers []string
		for _, remote := range in.Request {
			text, err := in.server(remote)
			if err != nil {
				return s, err
			}
			servers = append(servers, odsWithKey(text, remote.Key))
		}
		if out.Source = strings.Join(servers, ","); out.Source == "" {
			out.Refused = in.path + " has no <RequestTransfer>: where does the zone come from?"
		}
		if s.allow, err = in.peers(in.Allow); err != nil {
			return s, err
		}
	}
	if s.byFile = odsFile(z.outputType); s.byFile {
		out.Notes = append(out.Notes, "its signed zone was written to "+r.conf.at(z.output))
		return s, nil
	}
	at, err := r.adapter(z.output)
	if err != nil {
		return s, fmt.Errorf("zone %s: %w", z.name, err)
	}
	if s.provide, err = at.peers(at.Provide); err != nil {
		return s, err
	}
	for _, remote := range at.Notify {
		text, err := at.server(remote)
		if err != nil {
			return s, err
		}
		out.Secondaries = append(out.Secondaries, text)
		s.notify = append(s.notify, odsWithKey(text, remote.Key))
	}
	out.Primary = r.listen.String()
	if !slices.ContainsFunc(at.Provide, func(p odsPeer) bool { return p.Key.text == "" }) && len(at.Provide) > 0 {
		out.Primary = odsWithKey(out.Primary, at.Provide[0].Key)
	}
	return s, nil
}

// adapter reads an adapter's file, and keeps its TSIG keys.
func (r *odsReading) adapter(path string) (*odsAdapter, error) {
	path = r.conf.at(path)
	if a, ok := r.adapters[path]; ok {
		return a, nil
	}
	a, err := readODSAdapter(path)
	if err != nil {
		return nil, err
	}
	keys, err := a.keys()
	if err != nil {
		return nil, err
	}
	for _, k := range keys {
		had, twice := r.tsig[k.Name]
		if twice && (had.Algorithm != k.Algorithm || string(had.Secret) != string(k.Secret)) {
			return nil, fmt.Errorf("%s: TSIG key %s has another secret or algorithm in another file: give one of them another name", path, k.Name)
		}
		if k.Algorithm == "hmac-md5" || k.Algorithm == "hmac-sha1" {
			r.f.Unequal = append(r.f.Unequal, fmt.Sprintf("TSIG key %s is %s, which is taken here only where the daemon's config allows weak algorithms: give both sides a new one (sluice tsig add --generate).", k.Name, k.Algorithm))
		}
		r.tsig[k.Name] = k
	}
	r.adapters[path] = a
	return a, nil
}

// policy writes a policy for zones that are served alike.
func (r *odsReading) policy(p *odsPolicy, serving odsServing) *odsMade {
	id := p.name + "\x00" + serving.key()
	if made, ok := r.policies[id]; ok {
		return made
	}
	text, unequal, refused := odsPolicyText(p, r.conf, serving)
	made := &odsMade{refused: refused}
	r.policies[id] = made
	if refused != "" {
		return made
	}
	if said := r.kasp[p.name]; said == nil {
		unequal = append(unequal, fmt.Sprintf("The policy stands in the enforcer's database alone, and no longer in %s.", r.conf.PolicyFile.text))
	} else if other := said.differs(p); len(other) > 0 {
		unequal = append(unequal, fmt.Sprintf("The enforcer's database counts, and %s says otherwise: %s. ods-enforcer policy import was not run since: "+
			"change the policy as you want it.", r.conf.PolicyFile.text, few(other, 8)))
	}
	name, err := r.made.put(odsPolicyName(p.name), fmt.Sprintf("policy %q:", p.name), Policy{Former: p.name, Text: text, Unequal: unequal})
	if err != nil {
		made.refused = err.Error()
	}
	made.name = name
	return made
}

// odsPolicyName is the name of a policy as files here may be called; that which is
// built in is not replaced.
func odsPolicyName(name string) string {
	out := strings.Trim(policyName(strings.ToLower(name)), "._")
	if out == "" || out == "default" {
		return strings.TrimSuffix("opendnssec-"+out, "-")
	}
	return out
}

// keystores tells the tokens that the keys are on.
func (r *odsReading) keystores() {
	for _, one := range r.conf.Repositories {
		name := odsKeystoreName(one.Name)
		used := slices.ContainsFunc(r.f.Zones, func(z Zone) bool {
			return slices.ContainsFunc(z.Keys, func(k Key) bool { return k.Keystore == name })
		})
		if !used {
			continue
		}
		if i := slices.IndexFunc(r.f.Keystores, func(k Keystore) bool { return k.Name == name }); i >= 0 {
			r.f.Unequal = append(r.f.Unequal, fmt.Sprintf("Repositories %s and another one are both called %s here: rename one in conf.xml for the time of the plan.", one.Name, name))
			continue
		}
		r.f.Keystores = append(r.f.Keystores, Keystore{Name: name, Module: one.Module.text, Token: one.TokenLabel.text, PIN: []byte(one.PIN.text)})
		if one.PIN.text == "" {
			r.f.Unequal = append(r.f.Unequal, fmt.Sprintf("Repository %s has no <PIN> in conf.xml (it was given by ods-hsmutil login): add the token yourself, "+
				"sluice keystore add %s --pkcs11 %s --token %s --pin-file FILE.", one.Name, name, quote(one.Module.text), quote(one.TokenLabel.text)))
		}
	}
}

// unequal tells what concerns the whole.
func (r *odsReading) unequal(all bool) {
	tell := func(format string, args ...any) { r.f.Unequal = append(r.f.Unequal, fmt.Sprintf(format, args...)) }
	e := r.conf.Enforcer
	if e.Submit.text != "" || e.Retract.text != "" {
		tell("<DelegationSignerSubmitCommand> and <DelegationSignerRetractCommand> got DNSKEY records. A hook here gets a file with the DS records "+
			"($SLUICE_DS), and whether they are to come or to go: key-manager.parent.hooks in the policy, sluice help parents. Yours was: %s", e.Submit.text)
	}
	if e.Manual != nil {
		tell("<ManualKeyGeneration/> has no equal: a key that is needed is made. For keys made ahead: key-manager.pool.")
	}
	if text := r.conf.Signer.NotifyCommand.text; text != "" {
		tell("<NotifyCommand> (%s) has no equal: secondaries are told by NOTIFY, server.outbound.send-notify-to; a command after each version may be a hook of signer.review.", text)
	}
	if path := r.conf.ZoneListFile.text; path != "" && all {
		r.zoneList(r.conf.at(path))
	}
	if len(r.f.Keystores) > 0 {
		tell("Keys stay on their token: the daemon's user needs the right to use it (for SoftHSM the group of its folder of tokens, and $SOFTHSM2_CONF where it is not the default).")
	}
}

// zoneList compares zonelist.xml with the database, which counts.
func (r *odsReading) zoneList(path string) {
	var list struct {
		Zones []struct {
			Name string `xml:"name,attr"`
		} `xml:"Zone"`
	}
	if err := readODS(path, &list); err != nil {
		r.f.Unequal = append(r.f.Unequal, fmt.Sprintf("The list of zones cannot be read (%v): the enforcer's database was taken.", err))
		return
	}
	listed := map[string]bool{}
	var missing []string
	for _, z := range list.Zones {
		apex, err := zone.ParseName(z.Name)
		if err != nil {
			continue
		}
		listed[zoneName(apex)] = true
		if !slices.ContainsFunc(r.db.zones, func(o odsZone) bool { return o.name == zoneName(apex) }) {
			missing = append(missing, zoneName(apex))
		}
	}
	if len(missing) > 0 {
		r.f.Unequal = append(r.f.Unequal, fmt.Sprintf("Zones that %s lists and the enforcer does not have are left out: %s.", path, few(missing, 20)))
	}
	var extra []string
	for _, z := range r.db.zones {
		if !listed[z.name] {
			extra = append(extra, z.name)
		}
	}
	if len(extra) > 0 {
		r.f.Unequal = append(r.f.Unequal, fmt.Sprintf("Zones that the enforcer has and %s does not list are taken over, too: %s.", path, few(extra, 20)))
	}
}

// steps says how the enforcer is stopped, and how it goes on.
func (r *odsReading) steps() {
	r.f.Stop = []string{
		"The enforcer exchanges keys, and deletes old ones from the token. Stop it, and see that nothing starts it again; the signer goes on serving and re-signing with the keys as they stand:",
		"$ ods-enforcer stop",
		"$ systemctl disable --now opendnssec-enforcer",
		"From here on neither ods-enforcer zone delete nor ods-enforcer key purge: both delete keys from the token that sign here. When all zones are switched, and caches have forgotten: ods-signer stop.",
	}
	r.f.Back = []string{
		"OpenDNSSEC has its keys on the token as before, and its database says how they stood. It can go on from there as long as, of each zone, all keys that sign here stand in its " +
			"DNSKEY RRset, all keys that sign there stand in ours, and the parent has the DS that it had. So as long as you may want to go back, let no rollover " +
			"remove a key here: auto-done = false in the tables of the policy's roles. Keys that were made here since are given to it by ods-enforcer key import.",
		"Its enforcer goes on with the rollovers that it was in; the signer has to run. Compare both before the secondaries go back:",
		"$ ods-enforcer start",
		"$ ods-enforcer key list --verbose",
		"$ sluice key list ZONE",
		"Then give each zone its serial, as said with the zone.",
	}
}
