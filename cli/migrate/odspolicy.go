package migrate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"sluice/keymgr"
)

// odsServing is what a zone's adapters say of who is served.
type odsServing struct {
	byFile                 bool // the signed zone went out as a file
	provide, notify, allow []string
}

func (s odsServing) key() string {
	return fmt.Sprint(s.byFile, s.provide, s.notify, s.allow)
}

// odsWriter writes a policy of OpenDNSSEC as one of ours.
type odsWriter struct {
	p       *odsPolicy
	conf    *odsConf
	serving odsServing
	b       strings.Builder
	unequal []string
}

func (w *odsWriter) tell(format string, args ...any) {
	w.unequal = append(w.unequal, fmt.Sprintf(format, args...))
}

func (w *odsWriter) line(format string, args ...any) { fmt.Fprintf(&w.b, format+"\n", args...) }

// odsPolicyText writes a policy. Where its zones cannot be signed here, refused
// says why, and what to do.
func odsPolicyText(p *odsPolicy, conf *odsConf, serving odsServing) (text []byte, unequal []string, refused string) {
	w := &odsWriter{p: p, conf: conf, serving: serving}
	w.line("# OpenDNSSEC's policy %s: %s", strconv.Quote(p.name), strings.Join(strings.Fields(p.description), " "))
	w.line("version = \"v1\"")
	w.line("\n[loader.checks]\nmax-ttl = %q", odsDuration(max(p.maxTTL, 1)))
	switch {
	case p.passthrough:
		w.line("\n[signer]\nmode = \"pass-through\"")
	case len(p.keys) == 0:
		w.line("\n[signer]\nmode = \"unsigned\"")
		w.serial()
	default:
		if refused = w.keys(); refused != "" {
			return nil, nil, refused
		}
		w.signatures()
		w.denial()
	}
	w.serve()
	w.soa()
	return []byte(w.b.String()), w.unequal, ""
}

// keys writes [key-manager].
func (w *odsWriter) keys() (refused string) {
	p := w.p
	algorithm, bits, refused := w.algorithm()
	if refused != "" {
		return refused
	}
	safety := max(p.publish, p.retire)
	w.line("\n[key-manager]")
	w.line("# Zone/PropagationDelay and the larger of PublishSafety and RetireSafety.")
	w.line("propagation-margin = %q", odsDuration(p.propagation+safety))
	w.line("# Parent/PropagationDelay and RegistrationDelay.")
	w.line("parent-propagation-margin = %q", odsDuration(p.above+p.registration))
	w.line("# OpenDNSSEC publishes no CDS records; \"always\" would.")
	w.line("cds = \"never\"")
	w.tell("OpenDNSSEC publishes no CDS and CDNSKEY records, and neither does the policy (key-manager.cds = \"never\"): where the parent reads them, say \"always\", and it exchanges the DS by itself.")
	if p.purge > 0 {
		w.line("auto-remove-delay = %q", odsDuration(p.purge))
		w.tell("<Purge> deletes keys from the token. Here that is done to keys made here alone: those of OpenDNSSEC stay on it until you delete them (ods-hsmutil remove).")
	} else {
		w.line("auto-remove = false")
	}
	if w.backedUp() {
		w.line("require-backup = true")
		w.tell("<RequireBackup>: a key made here is used once it is marked: sluice key backup mark ZONE, in place of ods-enforcer backup commit.")
	}
	for _, role := range []int64{odsKSK, odsZSK, odsCSK} {
		for _, k := range p.keys {
			if k.role == role {
				w.role(k)
				break
			}
		}
	}
	w.line("\n[key-manager.generation]")
	if w.has(odsCSK) {
		w.line("use-csk = true")
	}
	name := dns.AlgorithmToString[algorithm]
	if bits > 0 {
		name += ":" + strconv.FormatInt(bits, 10)
	}
	w.line("algorithm = %q", name)
	if p.keyTTL > 0 {
		w.line("\n[key-manager.records]\nttl = %q", odsDuration(p.keyTTL))
	}
	if p.dsTTL > 0 {
		w.tell("Parent/DS/TTL (%s) is not taken over: the TTL of the DS is seen at the parent's servers, and counts until it has run out.", odsDuration(p.dsTTL))
	}
	if p.shared {
		w.tell("<ShareKeys/>: the zones go on with the keys that they share; each exchanges them by itself from then on, for keys of its own.")
	}
	return ""
}

func (w *odsWriter) has(role int64) bool {
	return slices.ContainsFunc(w.p.keys, func(k odsPolicyKey) bool { return k.role == role })
}

// backedUp reports whether a repository of the policy wants backups.
func (w *odsWriter) backedUp() bool {
	return slices.ContainsFunc(w.p.keys, func(k odsPolicyKey) bool {
		r := w.conf.repository(k.repository)
		return r != nil && r.Backup != nil
	})
}

// algorithm is the one algorithm of all keys.
func (w *odsWriter) algorithm() (algorithm uint8, bits int64, refused string) {
	for _, k := range w.p.keys {
		if algorithm != 0 && int64(algorithm) != k.algorithm {
			return 0, 0, fmt.Sprintf("its policy %q has keys of several algorithms, %d and %d: give all of them one in kasp.xml "+
				"(ods-enforcer policy import), and wait until the rollover is over", w.p.name, algorithm, k.algorithm)
		}
		if !odsSupports(k.algorithm) {
			return 0, 0, fmt.Sprintf("its policy %q has keys of algorithm %d (%s), which is not signed with here: choose 8 or 13 in kasp.xml "+
				"(ods-enforcer policy import), and wait until the rollover is over", w.p.name, k.algorithm, dns.AlgorithmToString[uint8(k.algorithm)]) //nolint:gosec // for people
		}
		algorithm = uint8(k.algorithm) //nolint:gosec // checked above
		if algorithm != dns.RSASHA256 && algorithm != dns.RSASHA512 {
			continue
		}
		if bits != 0 && bits != k.bits {
			w.tell("KSK and ZSK have different lengths, %d and %d bits. Here all new keys of a policy have one, %d bits: key-manager.generation.algorithm.", min(bits, k.bits), max(bits, k.bits), max(bits, k.bits))
		}
		bits = max(bits, k.bits)
	}
	if bits != 0 && (bits < 1024 || bits > 4096 || bits%8 != 0) {
		w.tell("New keys have 2048 bits instead of %d.", bits)
		bits = 2048
	}
	return algorithm, bits, ""
}

func odsSupports(n int64) bool {
	return slices.Contains([]int64{
		int64(dns.RSASHA256), int64(dns.RSASHA512), int64(dns.ECDSAP256SHA256), int64(dns.ECDSAP384SHA384), int64(dns.ED25519), int64(dns.ED448),
	}, n)
}

// role writes the table of a role.
func (w *odsWriter) role(k odsPolicyKey) {
	role := odsRole(k.role)
	word := odsRollTypes()[k.role][k.minimize]
	name := strings.ToUpper(string(role))
	method := map[string]keymgr.Method{
		"KskDoubleRRset": keymgr.DoubleRRset, "KskDoubleDS": keymgr.DoubleDS, "KskDoubleSignature": keymgr.DoubleKSK,
		"ZskDoubleSignature": keymgr.DoubleSignature, "ZskPrePublication": keymgr.PrePublication, "CskDoubleSignature": keymgr.DoubleSignature,
	}[word]
	if method == "" {
		method = map[keymgr.Role]keymgr.Method{keymgr.ZSK: keymgr.PrePublication, keymgr.CSK: keymgr.DoubleSignature}[role]
		w.tell("<%sRollType>%s</%sRollType> has no equal: %ss are exchanged by %s.", odsTitle(string(role)), word, odsTitle(string(role)), name, method)
	}
	w.line("\n[key-manager.%s]", role)
	if k.lifetime >= 60 {
		w.line("validity = %q", odsDuration(k.lifetime))
	} else {
		w.line("validity = \"forever\"")
	}
	start := !k.manual && k.lifetime >= 60
	if start && role == keymgr.KSK && method != keymgr.DoubleKSK {
		start = false
		w.tell("%s: rollovers wait for sluice key roll ZONE ksk, since the DS of this method goes to the parent before anything else; with key-manager.parent.hooks they may begin by themselves.", word)
	}
	w.line("auto-start = %v", start)
	if role != keymgr.ZSK && start {
		w.tell("A rollover of the %s begins by itself at its lifetime, as with OpenDNSSEC, and waits for the DS at the parent, which is seen here: ods-enforcer key ds-seen has no equal, since nobody has to type it.", name)
	}
	w.line("method = %q", method)
	w.line("keystore = %q", odsKeystoreName(k.repository))
	if k.standby > 0 {
		w.tell("<Standby>%d</Standby> of %ss has no equal: have one made and published yourself, sluice key generate ZONE --role %s and sluice key publish ZONE ID, or keys made ahead, key-manager.pool.", k.standby, name, role)
	}
	if k.rfc5011 {
		w.tell("<RFC5011/> did nothing in OpenDNSSEC, and is left out.")
	}
}

func odsTitle(text string) string { return strings.ToUpper(text[:1]) + text[1:] }

// serial writes the serial policy.
func (w *odsWriter) serial() {
	w.line("serial-policy = %q", map[string]string{
		"counter": "counter", "datecounter": "date-counter", "unixtime": "unix-time", "keep": "keep",
	}[odsSerials()[w.p.serial]])
}

// signatures writes [signer].
func (w *odsWriter) signatures() {
	p := w.p
	w.line("\n[signer]")
	w.serial()
	lifetime, remain, interval := max(p.validity, 4), p.refresh, max(p.resign, 1)
	if remain <= 0 {
		remain = lifetime / 2
		w.tell("<Refresh> 0 renews all signatures at each run. Here they are renewed when half of their time is left (signer.signature-remain-time).")
	}
	if remain+interval >= lifetime {
		remain = lifetime / 2
		interval = max(lifetime/4, 1)
		w.tell("<Validity> %s is not longer than <Refresh> %s and <Resign> %s: the latter two are lowered to %s and %s.",
			odsDuration(p.validity), odsDuration(p.refresh), odsDuration(p.resign), odsDuration(remain), odsDuration(interval))
	}
	w.line("signature-inception-offset = %q", odsDuration(p.inception))
	w.line("signature-lifetime = %q", odsDuration(lifetime))
	w.line("signature-remain-time = %q", odsDuration(remain))
	w.line("signature-refresh-interval = %q", odsDuration(interval))
	if p.denial != p.validity && p.denial != 0 {
		w.tell("<Denial> signatures lasted %s. Here all signatures last as long as the others, %s.", odsDuration(p.denial), odsDuration(lifetime))
	}
	if p.keyset != p.validity && p.keyset != 0 {
		w.tell("<Keyset> signatures lasted %s. Here all signatures last as long as the others, %s.", odsDuration(p.keyset), odsDuration(lifetime))
	}
	if p.jitter > 0 {
		w.tell("<Jitter> (%s) is not needed: the ends of signatures are spread evenly.", odsDuration(p.jitter))
	}
}

// denial writes [signer.denial].
func (w *odsWriter) denial() {
	p := w.p
	w.line("\n[signer.denial]")
	if !p.nsec3 {
		w.line("type = \"nsec\"")
		return
	}
	w.line("type = \"nsec3\"\nopt-out = %v", p.optOut)
	iterations := p.iterations
	if iterations > maxIterations {
		iterations = 0
		w.tell("%d iterations of NSEC3 make a zone insecure for validators (RFC 9276): 0 here.", p.iterations)
	}
	w.line("iterations = %d", iterations)
	salt := p.salt
	if salt == "-" {
		salt = ""
	}
	w.line("salt = %q", strings.ToLower(salt))
	if iterations > 0 || salt != "" {
		w.tell("NSEC3 goes on with iterations = %d and salt = %q. RFC 9276 wants 0 and none: take the two lines out of the policy when the zone has settled here.", iterations, salt)
	}
	if p.resalt > 0 && p.saltLength > 0 {
		w.tell("<Resalt> has no equal: a salt is changed by hand, signer.denial.salt.")
	}
	if p.nsec3TTL > 0 {
		w.tell("<NSEC3><TTL> (%s, of NSEC3PARAM) has no equal.", odsDuration(p.nsec3TTL))
	}
}

// serve writes [server.outbound] and [server.inbound].
func (w *odsWriter) serve() {
	if w.serving.byFile {
		w.tell("The signed zone went out as a file. Here it goes out by transfer: have the name server that read the file take it as a secondary, " +
			"and name it in server.outbound.provide-xfr-to and send-notify-to, where loopback alone is allowed now.")
		return
	}
	w.line("\n[server.outbound]\nprovide-xfr-to = %s", tomlList(w.serving.provide))
	if len(w.serving.notify) > 0 {
		w.line("send-notify-to = %s", tomlList(w.serving.notify))
	}
	if len(w.serving.allow) > 0 {
		w.line("\n[server.inbound]\nallow-notify-from = %s", tomlList(w.serving.allow))
	}
}

// soa tells what OpenDNSSEC does to the SOA record.
func (w *odsWriter) soa() {
	if p := w.p; !p.passthrough && len(p.keys) > 0 {
		w.tell("OpenDNSSEC sets TTL (%s) and MINIMUM (%s) of the SOA record. Here they are those of the source: change them there where they differ.",
			odsDuration(p.soaTTL), odsDuration(p.soaMinimum))
	}
}
