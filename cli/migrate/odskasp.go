package migrate

import (
	"encoding/xml"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
)

// Roles, roll types and serials as the enforcer's database numbers them
// (enforcer/src/db/dbw.h of OpenDNSSEC 2.1).
const (
	odsKSK = 1
	odsZSK = 2
	odsCSK = 3

	odsMinimizeRRSIG  = 1
	odsMinimizeDNSKEY = 2
	odsMinimizeDS     = 4
)

// odsPolicy is a policy, of kasp.xml or of the enforcer's database. Durations are
// in seconds.
type odsPolicy struct {
	name, description                  string
	passthrough                        bool
	resign, refresh, jitter, inception int64
	validity, denial, keyset           int64
	maxTTL                             int64
	nsec3, optOut                      bool
	nsec3TTL, resalt                   int64
	iterations, saltLength             int64
	salt                               string // of the database alone
	keyTTL, retire, publish, purge     int64
	shared                             bool
	keys                               []odsPolicyKey
	propagation, soaTTL, soaMinimum    int64
	serial                             int64
	registration, above, dsTTL         int64
}

type odsPolicyKey struct {
	role, algorithm, bits, lifetime int64
	repository                      string
	standby, minimize               int64
	manual, rfc5011                 bool
}

// odsSerials is the words for a serial, by their numbers.
func odsSerials() []string { return []string{"counter", "datecounter", "unixtime", "keep"} }

// odsRollTypes is the words for how keys are exchanged, by role and number.
func odsRollTypes() map[int64]map[int64]string {
	return map[int64]map[int64]string{
		odsKSK: {0: "KskDoubleRRset", odsMinimizeDNSKEY: "KskDoubleDS", odsMinimizeDS: "KskDoubleSignature"},
		odsZSK: {0: "ZskDoubleSignature", odsMinimizeRRSIG: "ZskPrePublication", odsMinimizeDNSKEY: "ZskDoubleRRsig"},
		odsCSK: {
			0: "CskDoubleRRset", odsMinimizeRRSIG: "CskSingleSignature", odsMinimizeDNSKEY: "CskDoubleDS",
			odsMinimizeDS: "CskDoubleSignature", odsMinimizeDS | odsMinimizeRRSIG: "CskPrePublication",
		},
	}
}

// odsRole is a role of the database in our words; "" where it is none.
func odsRole(n int64) keymgr.Role {
	return map[int64]keymgr.Role{odsKSK: keymgr.KSK, odsZSK: keymgr.ZSK, odsCSK: keymgr.CSK}[n]
}

// facts is what a policy says, one line each, for comparisons.
func (p *odsPolicy) facts() []string {
	var out []string
	add := func(name string, value any) { out = append(out, fmt.Sprintf("%s %v", name, value)) }
	add("Passthrough", p.passthrough)
	for _, row := range []struct {
		name string
		n    int64
	}{
		{"Resign", p.resign},
		{"Refresh", p.refresh},
		{"Jitter", p.jitter},
		{"InceptionOffset", p.inception},
		{"Validity/Default", p.validity},
		{"Validity/Denial", p.denial},
		{"MaxZoneTTL", p.maxTTL},
		{"Keys/TTL", p.keyTTL},
		{"RetireSafety", p.retire},
		{"PublishSafety", p.publish},
		{"Purge", p.purge},
		{"Zone/PropagationDelay", p.propagation},
		{"Parent/PropagationDelay", p.above},
		{"DS/TTL", p.dsTTL},
		{"RegistrationDelay", p.registration},
	} {
		add(row.name, odsDuration(row.n))
	}
	add("NSEC3", p.nsec3)
	if p.nsec3 {
		add("OptOut", p.optOut)
		add("Iterations", p.iterations)
		add("Salt length", p.saltLength)
	}
	add("ShareKeys", p.shared)
	add("Serial", p.serial)
	for _, k := range p.keys {
		add("key", fmt.Sprintf("%s algorithm %d, %d bits, %s, %s, standby %d, manual %v, %s", strings.ToUpper(string(odsRole(k.role))),
			k.algorithm, k.bits, odsDuration(k.lifetime), k.repository, k.standby, k.manual, odsRollTypes()[k.role][k.minimize]))
	}
	return out
}

// differs tells what a policy says that another does not.
func (p *odsPolicy) differs(o *odsPolicy) []string {
	theirs := o.facts()
	return slices.DeleteFunc(p.facts(), func(f string) bool { return slices.Contains(theirs, f) })
}

// odsKASP is kasp.xml.
type odsKASP struct {
	XMLName  xml.Name    `xml:"KASP"`
	Policies []odsKASPOf `xml:"Policy"`
}

type odsKASPOf struct {
	Name        string    `xml:"name,attr"`
	Passthrough *struct{} `xml:"Passthrough"`
	Description odsText   `xml:"Description"`
	Signatures  struct {
		Resign, Refresh, Jitter, InceptionOffset, MaxZoneTTL odsText
		Validity                                             struct{ Default, Denial, Keyset odsText }
	}
	NSEC3 *struct {
		TTL, Resalt odsText
		OptOut      *struct{}
		Hash        struct {
			Iterations odsText
			Salt       struct {
				Length string `xml:"length,attr"`
				Text   string `xml:",chardata"`
			}
		}
	} `xml:"Denial>NSEC3"`
	Keys struct {
		TTL, RetireSafety, PublishSafety, Purge odsText
		ShareKeys                               *struct{}
		KSK, ZSK, CSK                           []odsKASPKey
	}
	Zone struct {
		PropagationDelay odsText
		SOA              struct{ TTL, Minimum, Serial odsText }
	}
	Parent struct {
		PropagationDelay, RegistrationDelay odsText
		DS                                  struct{ TTL odsText }
	}
}

type odsKASPKey struct {
	Algorithm struct {
		Length string `xml:"length,attr"`
		Text   string `xml:",chardata"`
	}
	Lifetime, Repository, Standby         odsText
	KskRollType, ZskRollType, CskRollType odsText
	ManualRollover, RFC5011               *struct{}
}

// readODSKASP reads kasp.xml.
func readODSKASP(path string) (map[string]*odsPolicy, error) {
	var k odsKASP
	if err := readODS(path, &k); err != nil {
		return nil, err
	}
	return k.policies(path)
}

func (k *odsKASP) policies(path string) (map[string]*odsPolicy, error) {
	out := map[string]*odsPolicy{}
	for i := range k.Policies {
		r := odsReader{path: path}
		p := r.policy(&k.Policies[i])
		if r.err != nil {
			return nil, r.err
		}
		if _, twice := out[p.name]; twice {
			return nil, fmt.Errorf("%s: policy %q stands twice", path, p.name)
		}
		out[p.name] = p
	}
	return out, nil
}

// odsReader reads values, up to the first fault.
type odsReader struct {
	path string
	err  error
}

func (r *odsReader) fault(line int, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%s:%d: %s", r.path, line, fmt.Sprintf(format, args...))
	}
}

// seconds reads a duration; where there is none it is otherwise.
func (r *odsReader) seconds(name string, t odsText, otherwise int64) int64 {
	if t.line == 0 {
		return otherwise
	}
	n, err := parseODSDuration(t.text)
	if err != nil {
		r.fault(t.line, "<%s>: %v", name, err)
	}
	return n
}

func (r *odsReader) number(name, text string, line int) int64 {
	text = strings.TrimSpace(text)
	if text == "" {
		return 0
	}
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		r.fault(line, "<%s> %q is no number", name, text)
	}
	return n
}

func (r *odsReader) policy(f *odsKASPOf) *odsPolicy {
	p := &odsPolicy{
		name: f.Name, description: f.Description.text, passthrough: f.Passthrough != nil,
		resign:       r.seconds("Resign", f.Signatures.Resign, 0),
		refresh:      r.seconds("Refresh", f.Signatures.Refresh, 0),
		jitter:       r.seconds("Jitter", f.Signatures.Jitter, 0),
		inception:    r.seconds("InceptionOffset", f.Signatures.InceptionOffset, 0),
		validity:     r.seconds("Default", f.Signatures.Validity.Default, 0),
		denial:       r.seconds("Denial", f.Signatures.Validity.Denial, 0),
		keyset:       r.seconds("Keyset", f.Signatures.Validity.Keyset, 0),
		maxTTL:       r.seconds("MaxZoneTTL", f.Signatures.MaxZoneTTL, 86400),
		keyTTL:       r.seconds("TTL", f.Keys.TTL, 0),
		retire:       r.seconds("RetireSafety", f.Keys.RetireSafety, 0),
		publish:      r.seconds("PublishSafety", f.Keys.PublishSafety, 0),
		purge:        r.seconds("Purge", f.Keys.Purge, 0),
		shared:       f.Keys.ShareKeys != nil,
		propagation:  r.seconds("PropagationDelay", f.Zone.PropagationDelay, 0),
		soaTTL:       r.seconds("TTL", f.Zone.SOA.TTL, 0),
		soaMinimum:   r.seconds("Minimum", f.Zone.SOA.Minimum, 0),
		registration: r.seconds("RegistrationDelay", f.Parent.RegistrationDelay, 0),
		above:        r.seconds("PropagationDelay", f.Parent.PropagationDelay, 0),
		dsTTL:        r.seconds("TTL", f.Parent.DS.TTL, 0),
	}
	if n := f.NSEC3; n != nil {
		p.nsec3, p.optOut = true, n.OptOut != nil
		p.nsec3TTL, p.resalt = r.seconds("TTL", n.TTL, 0), r.seconds("Resalt", n.Resalt, 0)
		p.iterations = r.number("Iterations", n.Hash.Iterations.text, n.Hash.Iterations.line)
		p.saltLength = r.number("Salt", n.Hash.Salt.Length, n.Hash.Iterations.line)
		p.salt = strings.TrimSpace(n.Hash.Salt.Text)
	}
	p.serial = int64(slices.Index(odsSerials(), strings.ToLower(f.Zone.SOA.Serial.text)))
	if p.serial < 0 {
		r.fault(f.Zone.SOA.Serial.line, "<Serial> %q: want counter, datecounter, unixtime or keep", f.Zone.SOA.Serial.text)
	}
	for role, list := range map[int64][]odsKASPKey{odsKSK: f.Keys.KSK, odsZSK: f.Keys.ZSK, odsCSK: f.Keys.CSK} {
		for i := range list {
			p.keys = append(p.keys, r.key(role, &list[i]))
		}
	}
	p.sort()
	return p
}

// sort puts the keys in order, so that two policies can be compared.
func (p *odsPolicy) sort() {
	slices.SortFunc(p.keys, func(a, b odsPolicyKey) int {
		return strings.Compare(fmt.Sprint(a.role, a.algorithm, a.bits, a.repository), fmt.Sprint(b.role, b.algorithm, b.bits, b.repository))
	})
}

func (r *odsReader) key(role int64, f *odsKASPKey) odsPolicyKey {
	line := f.Lifetime.line
	k := odsPolicyKey{
		role: role, repository: f.Repository.text, manual: f.ManualRollover != nil, rfc5011: f.RFC5011 != nil,
		algorithm: r.number("Algorithm", f.Algorithm.Text, line), bits: r.number("Algorithm", f.Algorithm.Length, line),
		lifetime: r.seconds("Lifetime", f.Lifetime, 0), standby: r.number("Standby", f.Standby.text, f.Standby.line),
	}
	word := map[int64]odsText{odsKSK: f.KskRollType, odsZSK: f.ZskRollType, odsCSK: f.CskRollType}[role]
	if word.text == "" {
		k.minimize = map[int64]int64{odsKSK: odsMinimizeDS, odsZSK: odsMinimizeRRSIG, odsCSK: odsMinimizeDS | odsMinimizeRRSIG}[role]
		return k
	}
	for n, text := range odsRollTypes()[role] {
		if strings.EqualFold(text, word.text) {
			k.minimize = n
			return k
		}
	}
	r.fault(word.line, "%q is no way to exchange keys of this role", word.text)
	return k
}

// parseODSDuration reads a duration as OpenDNSSEC does: P[n]Y[n]M[n]W[n]DT[n]H[n]M[n]S,
// with years of 365 days and months of 31 (ods-timing(5)).
func parseODSDuration(text string) (int64, error) {
	bad := fmt.Errorf("duration %q: want for example P14D or PT3600S", text)
	rest, ok := strings.CutPrefix(text, "P")
	if !ok || rest == "" {
		return 0, bad
	}
	const day = 86400
	units := []struct {
		letter  byte
		seconds int64
		time    bool
	}{
		{'Y', 365 * day, false},
		{'M', 31 * day, false},
		{'W', 7 * day, false},
		{'D', day, false},
		{'H', 3600, true},
		{'M', 60, true},
		{'S', 1, true},
	}
	var total int64
	time, next := false, 0
	for rest != "" {
		if rest[0] == 'T' && !time {
			time, rest = true, rest[1:]
			if rest == "" {
				return 0, bad
			}
			continue
		}
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		if digits == 0 || digits == len(rest) || digits > 10 {
			return 0, bad
		}
		n, err := strconv.ParseInt(rest[:digits], 10, 64)
		if err != nil {
			return 0, bad
		}
		i := next
		for i < len(units) && (units[i].letter != rest[digits] || units[i].time != time) {
			i++
		}
		if i == len(units) {
			return 0, bad
		}
		total, next, rest = total+n*units[i].seconds, i+1, rest[digits+1:]
		if total > 1<<31-1 {
			return 0, fmt.Errorf("duration %q: more than 68 years", text)
		}
	}
	return total, nil
}

// odsDuration writes seconds as policies here do.
func odsDuration(n int64) string {
	return pipeline.DurationText(time.Duration(n) * time.Second)
}
