package migrate

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// policy is a zone's policy in our words: what its policy says, and what is set
// here by policy and there by zone.
func (k *knotReader) policy(z knotZone, out *Zone) (*draft, error) {
	id := z.word("dnssec-policy")
	var b *knotBlock
	if id != "" && id != "default" {
		if b = k.conf.find("policy", id); b == nil {
			return nil, fmt.Errorf("%s: there is no policy %q", k.path, id)
		}
	} else if id == "default" {
		b = k.conf.find("policy", id) // or the one with all defaults
	}
	if b == nil {
		b = &knotBlock{section: "policy", id: id}
	}
	d := newDraft(orElse(id, "default"), "From policy "+orElse(id, "default")+" of Knot DNS.")
	for _, step := range []func(*draft, *knotBlock) error{k.generation, k.lifetimes, k.signing, k.parents, k.special} {
		if err := step(d, b); err != nil {
			return nil, err
		}
	}
	manual, err := b.on("manual", false)
	if err != nil {
		return nil, err
	}
	if manual {
		d.tell("manual: on stops Knot's key management, and is not carried over. Where keys are to be exchanged by hand here, too: key-manager.zsk.auto-start = false.")
	}
	if offline, err := b.on("offline-ksk", false); err != nil {
		return nil, err
	} else if offline {
		out.Refused = "its KSK is kept offline (offline-ksk), and signs elsewhere: there is no way to take over such signatures. Bring the KSK into the KASP database (keymgr import-pem), turn offline-ksk off, and make the plan anew"
	}
	return d, k.byZone(d, z, out)
}

// generation maps how keys are made.
func (k *knotReader) generation(d *draft, b *knotBlock) error {
	single, err := b.on("single-type-signing", false)
	if err != nil {
		return err
	}
	d.flag("key-manager.generation.use-csk", single, "single-type-signing")
	algorithm := strings.ToUpper(orElse(b.word("algorithm"), "ecdsap256sha256"))
	switch algorithm {
	case "RSASHA1", "RSASHA1-NSEC3-SHA1":
		d.tell("algorithm %s: not here; new keys are of ECDSAP256SHA256.", strings.ToLower(algorithm))
		algorithm = "ECDSAP256SHA256"
	case "RSASHA256", "RSASHA512":
		ksk, err := b.count("ksk-size", 2048)
		if err != nil {
			return err
		}
		zsk, err := b.count("zsk-size", ksk)
		if err != nil {
			return err
		}
		bits := max(ksk, zsk)
		algorithm = fmt.Sprintf("%s:%d", algorithm, min(max(bits, 1024), 4096)/8*8)
		if ksk != zsk {
			d.tell("ksk-size %d and zsk-size %d: one length for both, %d.", ksk, zsk, bits)
		}
	}
	d.word("key-manager.generation.algorithm", algorithm, "algorithm")
	shared, err := b.on("ksk-shared", false)
	if err != nil {
		return err
	}
	if shared {
		d.tell("ksk-shared: zones keep the KSK that they share now, and the next is made for each of them.")
	}
	return nil
}

// lifetimes maps how long keys and their records live.
func (k *knotReader) lifetimes(d *draft, b *knotBlock) error {
	for _, row := range []struct{ item, key string }{
		{"dnskey-ttl", "key-manager.records.ttl"},
		{"delete-delay", "key-manager.auto-remove-delay"},
		{"zone-max-ttl", "loader.checks.max-ttl"},
	} {
		t, has, err := b.time(row.item)
		if err != nil {
			return err
		}
		if has {
			d.duration(row.key, max(t, time.Second), row.item)
		}
	}
	margin, has, err := b.time("propagation-delay")
	if err != nil {
		return err
	}
	if !has {
		margin = time.Hour
	}
	d.duration("key-manager.propagation-margin", margin, "propagation-delay")
	ksk, _, err := b.time("ksk-lifetime")
	if err != nil {
		return err
	}
	zsk, has, err := b.time("zsk-lifetime")
	if err != nil {
		return err
	}
	if !has {
		zsk = 30 * 24 * time.Hour
	}
	d.validity("ksk", ksk, "ksk-lifetime")
	d.validity("csk", ksk, "ksk-lifetime")
	d.validity("zsk", zsk, "zsk-lifetime")
	// Knot begins a rollover by itself, and waits for the parent if it may look.
	if ksk != 0 {
		d.flag("key-manager.ksk.auto-start", true, "ksk-lifetime")
		d.flag("key-manager.csk.auto-start", true, "ksk-lifetime")
	}
	return nil
}

// signing maps signatures and denial.
func (k *knotReader) signing(d *draft, b *knotBlock) error {
	lifetime, has, err := b.time("rrsig-lifetime")
	if err != nil {
		return err
	}
	if !has {
		lifetime = 14 * 24 * time.Hour
	}
	refresh, _, err := b.time("rrsig-refresh")
	if err != nil {
		return err
	}
	before, _, err := b.time("rrsig-pre-refresh")
	if err != nil {
		return err
	}
	d.signatures(lifetime, refresh, before, [3]string{"rrsig-lifetime", "rrsig-refresh", "rrsig-pre-refresh"})
	d.duration("signer.signature-inception-offset", 90*time.Minute, "as in Knot")
	nsec3, err := b.on("nsec3", false)
	if err != nil || !nsec3 {
		return err
	}
	d.word("signer.denial.type", "nsec3", "nsec3")
	iterations, err := b.count("nsec3-iterations", 0)
	if err != nil {
		return err
	}
	d.iterations(iterations, "nsec3-iterations")
	optOut, err := b.on("nsec3-opt-out", false)
	if err != nil {
		return err
	}
	d.flag("signer.denial.opt-out", optOut, "nsec3-opt-out")
	salt, err := b.count("nsec3-salt-length", 8)
	if err != nil {
		return err
	}
	if salt > 0 {
		d.tell("nsec3-salt-length %d, nsec3-salt-lifetime: no salt, as RFC 9276 has it; the chain is made anew once, when the zone comes over.", salt)
	}
	return nil
}

// maxIterations is how many iterations of NSEC3 policies may have.
const maxIterations = 100

// iterations sets NSEC3 iterations, as many as validators put up with.
func (d *draft) iterations(n int, remark string) {
	if n > maxIterations {
		d.tell("%s %d: validators take a zone with so many for insecure (RFC 9276); 0 here.", remark, n)
		n = 0
	}
	d.number("signer.denial.iterations", n, remark)
}

// parents maps how the parent comes to know of keys, and who looks.
func (k *knotReader) parents(d *draft, b *knotBlock) error {
	switch publish := orElse(b.word("cds-cdnskey-publish"), "rollover"); publish {
	case "none":
		d.word("key-manager.cds", "never", "cds-cdnskey-publish")
	case "rollover":
		d.word("key-manager.cds", "during-rolls", "cds-cdnskey-publish")
	case "always", "double-ds":
		d.word("key-manager.cds", "always", "cds-cdnskey-publish")
	case "delete-dnssec":
		d.word("key-manager.cds", "never", "cds-cdnskey-publish")
		d.tell("cds-cdnskey-publish: delete-dnssec asks the parent to remove the DS: for that see sluice help keys (sluice key roll ZONE insecure), once the zone is here.")
	default:
		_, at, _ := b.get("cds-cdnskey-publish")
		return at.fault("cds-cdnskey-publish: %q is not known", publish)
	}
	if strings.EqualFold(b.word("cds-digest-type"), "sha384") {
		d.word("key-manager.ds-algorithm", "SHA-384", "cds-digest-type")
	}
	if id := b.word("ksk-submission"); id != "" {
		s := k.conf.find("submission", id)
		if s == nil {
			return b.at.fault("policy %s: there is no submission %q", b.id, id)
		}
		if err := k.submission(d, s); err != nil {
			return err
		}
	}
	push, _, _ := b.get("ds-push")
	return k.dsPush(d, push)
}

// submission maps how the DS at the parent is looked for.
func (k *knotReader) submission(d *draft, s *knotBlock) error {
	ids, _, _ := s.get("parent")
	remotes, err := k.remotes(ids)
	if err != nil {
		return err
	}
	for _, r := range remotes {
		for _, a := range r.addrs {
			d.add("key-manager.parent-nameservers", a.String())
		}
	}
	if len(remotes) == 0 {
		d.tell("ksk-submission without a parent: Knot waits for keymgr or knotc zone-ksk-submitted; here the parent's servers are asked.")
	} else {
		d.tell("ksk-submission: its servers are asked for the DS (key-manager.parent-nameservers). Take those out that are resolvers: Sluice asks the servers of the parent, and finds them itself where none are given.")
	}
	every, has, err := s.time("check-interval")
	if err != nil {
		return err
	}
	if has {
		d.duration("key-manager.observation-interval", max(every, time.Minute), "check-interval")
	}
	after, has, err := s.time("parent-delay")
	if err != nil {
		return err
	}
	if has {
		d.duration("key-manager.parent-propagation-margin", after, "parent-delay")
	}
	if give, has, err := s.time("timeout"); err != nil {
		return err
	} else if has && give > 0 {
		d.tell("timeout %s of the submission: a DS that nobody saw is never taken for seen; where it cannot be seen, sluice key step ZONE --ds-seen TTL.", pipeline.DurationText(give))
	}
	return nil
}

// dsPush maps DS by dynamic update.
func (k *knotReader) dsPush(d *draft, ids []string) error {
	remotes, err := k.remotes(ids)
	if err != nil {
		return err
	}
	for _, r := range remotes {
		if r.key == "" {
			d.tell("ds-push without a TSIG key: key-manager.parent.update wants one for each server.")
			continue
		}
		d.add("key-manager.parent.update.servers", r.endpoints()...)
	}
	return nil
}

// special tells what else a policy may say.
func (k *knotReader) special(d *draft, b *knotBlock) error {
	if b.word("dnskey-management") == "incremental" {
		d.tell("dnskey-management: incremental: keys of other signers do not come from the source; they are given with sluice key import ZONE FILE --public.")
	}
	if list, _, has := b.get("unsafe-operation"); has && !slices.Equal(list, []string{"none"}) {
		d.tell("unsafe-operation: nothing of the kind is here.")
	}
	if b.word("signing-threads") != "" {
		d.tell("signing-threads: Sluice takes the processors that are there.")
	}
	return nil
}

// byZone maps what is set for each zone.
func (k *knotReader) byZone(d *draft, z knotZone, out *Zone) error {
	serial := map[string]string{"increment": "counter", "unixtime": "unix-time", "dateserial": "date-counter"}
	word := orElse(z.word("serial-policy"), "increment")
	if serial[word] == "" {
		_, at, _ := z.of("serial-policy").get("serial-policy")
		return at.fault("serial-policy: %q is not known", word)
	}
	d.word("signer.serial-policy", serial[word], "serial-policy")
	if made := z.word("zonemd-generate"); strings.HasPrefix(made, "zonemd-") {
		d.flag("signer.zonemd", true, "zonemd-generate")
		if made == "zonemd-sha512" {
			d.tell("zonemd-generate: zonemd-sha512: with SHA-384 here.")
		}
	}
	verify, err := z.of("zonemd-verify").on("zonemd-verify", false)
	if err != nil {
		return err
	}
	if verify {
		d.word("loader.checks.zonemd", "require", "zonemd-verify")
	}
	if push := values(z, "ds-push"); len(push) > 0 {
		delete(d.lists, "key-manager.parent.update.servers")
		if err := k.dsPush(d, push); err != nil {
			return err
		}
	}
	for _, module := range values(z, "module") {
		out.Unequal = append(out.Unequal, fmt.Sprintf("Query module %s: Sluice answers transfers alone; where the module changes answers, have it on the servers that are public.", module))
	}
	if err := k.notify(d, z, out); err != nil {
		return err
	}
	if err := k.access(d, z, out); err != nil {
		return err
	}
	ixfr, err := z.of("provide-ixfr").on("provide-ixfr", true)
	if err != nil {
		return err
	}
	if !ixfr {
		d.add("server.outbound.provide-axfr-only-to", d.lists["server.outbound.provide-xfr-to"]...)
	}
	return nil
}

// notify maps who is told of changes.
func (k *knotReader) notify(d *draft, z knotZone, out *Zone) error {
	remotes, err := k.remotes(values(z, "notify"))
	if err != nil {
		return err
	}
	automatic, err := k.conf.section("server").on("automatic-acl", false)
	if err != nil {
		return err
	}
	for _, r := range remotes {
		d.add("server.outbound.send-notify-to", r.endpoints()...)
		for _, a := range r.addrs {
			if !slices.Contains(out.Secondaries, a.String()) {
				out.Secondaries = append(out.Secondaries, a.String())
			}
			if automatic && r.auto {
				d.add("server.outbound.provide-xfr-to", a.Addr().String()+caret(r.key))
			}
		}
	}
	return nil
}

// access maps who may transfer, and who may send NOTIFY.
func (k *knotReader) access(d *draft, z knotZone, out *Zone) error {
	for _, id := range values(z, "acl") {
		b := k.conf.find("acl", id)
		if b == nil {
			return fmt.Errorf("%s: there is no acl %q", k.path, id)
		}
		deny, err := b.on("deny", false)
		if err != nil {
			return err
		}
		actions, _, _ := b.get("action")
		if deny {
			d.tell("acl %s denies: here only those may transfer who are allowed to (server.outbound.provide-xfr-to); look at the list.", id)
			continue
		}
		from, err := k.prefixes(b)
		if err != nil {
			return err
		}
		for _, action := range actions {
			switch action {
			case "transfer":
				d.add("server.outbound.provide-xfr-to", from...)
			case "notify":
				d.add("server.inbound.allow-notify-from", from...)
			case "update":
				out.Unequal = append(out.Unequal, fmt.Sprintf("acl %s allows dynamic update, which Knot takes itself: see sluice help policy (server.inbound) for who may change a zone here; where contents come from a file or a primary, change them there.", id))
			}
		}
	}
	return nil
}

// prefixes is who an access rule is for.
func (k *knotReader) prefixes(b *knotBlock) (list []string, err error) {
	ids, _, _ := b.get("remote")
	remotes, err := k.remotes(ids)
	if err != nil {
		return nil, err
	}
	for _, r := range remotes {
		for _, a := range r.addrs {
			list = append(list, a.Addr().String()+caret(r.key))
		}
	}
	addresses, at, has := b.get("address")
	keys, _, _ := b.get("key")
	if len(ids) > 0 {
		return list, nil
	}
	var from []string
	for _, text := range addresses {
		p, err := knotRange(text)
		if err != nil {
			return nil, at.fault("acl %s: %w", b.id, err)
		}
		from = append(from, p...)
	}
	if !has {
		from = []string{"0.0.0.0/0", "::/0"}
	}
	for _, p := range from {
		if len(keys) == 0 {
			list = append(list, p)
		}
		for _, key := range keys {
			list = append(list, p+caret(key))
		}
	}
	return list, nil
}

// knotRange reads ADDR, ADDR/LENGTH or ADDR-ADDR as prefixes.
func knotRange(text string) ([]string, error) {
	first, last, ranged := strings.Cut(text, "-")
	if !ranged {
		if _, err := netip.ParsePrefix(text); err == nil {
			return []string{text}, nil
		}
		if _, err := netip.ParseAddr(text); err == nil {
			return []string{text}, nil
		}
		return nil, fmt.Errorf("%q is no address, network or range", text)
	}
	from, err := netip.ParseAddr(first)
	to, err2 := netip.ParseAddr(last)
	// An address with a zone is in no prefix.
	if err != nil || err2 != nil || from.BitLen() != to.BitLen() || to.Less(from) || from.Zone() != "" || to.Zone() != "" {
		return nil, fmt.Errorf("%q is no range of addresses", text)
	}
	var list []string
	for {
		// The largest prefix that begins here and does not go beyond the end.
		bits := from.BitLen()
		for bits > 0 {
			p, err := from.Prefix(bits - 1)
			if err != nil || p.Addr() != from || to.Less(lastOf(p)) {
				break
			}
			bits--
		}
		p := netip.PrefixFrom(from, bits)
		list = append(list, p.String())
		end := lastOf(p)
		if end == to || !end.Next().IsValid() {
			return list, nil
		}
		from = end.Next()
	}
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	raw := p.Addr().AsSlice()
	for bit := p.Bits(); bit < len(raw)*8; bit++ {
		raw[bit/8] |= 1 << (7 - bit%8)
	}
	addr, _ := netip.AddrFromSlice(raw)
	return addr
}
