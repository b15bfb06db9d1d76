package migrate

import (
	"bufio"
	"context"
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/pkcs11"
)

// dead reports whether a key has gone, and no cache holds anything of it.
func (k *odsKey) dead() bool {
	if k.introducing {
		return false
	}
	for _, r := range k.records {
		if r.there && r.state != odsHidden && r.state != odsNA {
			return false
		}
	}
	return true
}

// signsZone and signsKeys say what the key's role is for.
func (k *odsKey) signsZone() bool { return k.role&odsZSK != 0 }
func (k *odsKey) signsKeys() bool { return k.role&odsKSK != 0 }

// spread is how far a record has got around; nil where the key has none.
func (k *odsKey) spread(record int) *event.Spread {
	r := k.records[record]
	if !r.there || r.state == odsNA {
		return nil
	}
	words := [...]string{odsHidden: "hidden", odsRumoured: "rumoured", odsOmnipresent: "omnipresent", odsUnretentive: "unretentive"}
	return &event.Spread{State: words[r.state], Since: r.since}
}

// life is what the enforcer knows of a key in the form of BIND's .state files,
// whose states are the same. Of what has got around everywhere the enforcer notes
// when that was; when it began it is taken to have been when the key came to the
// zone, from which the enforcer counts its age.
func (k *odsKey) life(p *odsPolicy) *event.KeyLife {
	l := &event.KeyLife{
		Created: k.made, Goal: "hidden", TTL: uint32(min(max(p.keyTTL, k.records[odsRecordDNSKEY].ttl), 1<<31-1)), //nolint:gosec // at most 31 bits
		Predecessor: uint16(k.predecessor), Successor: uint16(k.successor), //nolint:gosec // key tags
		DNSKEY: k.spread(odsRecordDNSKEY),
	}
	if k.introducing {
		l.Goal = "omnipresent"
	}
	if l.Created == 0 {
		l.Created = k.inception
	}
	if l.DNSKEY == nil {
		l.DNSKEY = &event.Spread{State: "hidden", Since: k.inception}
	}
	for _, w := range p.keys {
		if w.role == k.role && !w.manual && w.lifetime > 0 {
			l.Lifetime = uint64(w.lifetime)
		}
	}
	began := func(r odsRecord) int64 {
		switch r.state {
		case odsRumoured:
			return r.since
		case odsOmnipresent, odsUnretentive:
			return k.inception
		}
		return 0
	}
	dnskey := k.records[odsRecordDNSKEY]
	l.Published = began(dnskey)
	switch {
	case dnskey.state == odsUnretentive:
		l.Removed = dnskey.since
	case dnskey.state == odsHidden && !k.introducing:
		l.Published, l.Removed = k.inception, dnskey.since
	}
	if k.signsZone() {
		r := k.records[odsRecordRRSIG]
		l.ZoneSigs, l.Activated = k.spread(odsRecordRRSIG), began(r)
		if r.state == odsUnretentive {
			l.Retired = r.since
		}
	}
	if k.signsKeys() {
		l.KeySigs, l.DS = k.spread(odsRecordKeyRRSIG), k.spread(odsRecordDS)
		if l.Activated == 0 {
			l.Activated = began(k.records[odsRecordKeyRRSIG])
		}
		switch k.dsAtParent {
		case odsDSSeen:
			l.DSPublished = k.records[odsRecordDS].since
		case odsDSRetracted:
			l.DSRemoved = k.records[odsRecordDS].since
		}
	}
	return l
}

// describe says where a key is in the enforcer's words, for people.
func (k *odsKey) describe() string {
	return fmt.Sprintf("%s %d (algorithm %d, CKA_ID %s in repository %s)", strings.ToUpper(string(odsRole(k.role))), k.tag, k.algorithm, k.locator, k.repository)
}

// odsTokens reads public keys from tokens. One that cannot be used is asked once.
type odsTokens struct {
	conf   *odsConf
	now    func() time.Time
	open   map[string]odsOpened // by repository
	public map[string]odsPublic
}

// odsOpened is a token, or why it cannot be used.
type odsOpened struct {
	odsToken
	err error
}

// odsToken is what is used of a token.
type odsToken interface {
	keymgr.Adopter
	Check(ctx context.Context) error
	Close() error
}

// odsPublic is the public key behind a locator, or why it cannot be had.
type odsPublic struct {
	key crypto.PublicKey
	err error
}

func newODSTokens(c *odsConf, now func() time.Time) *odsTokens {
	return &odsTokens{conf: c, now: now, open: map[string]odsOpened{}, public: map[string]odsPublic{}}
}

// odsTokenTime bounds how long a call to a token may take.
const odsTokenTime = 20 * time.Second

// token gives the token of a repository.
func (t *odsTokens) token(ctx context.Context, name string) (odsToken, error) {
	in, ok := t.open[name]
	if !ok {
		in.odsToken, in.err = t.connect(ctx, name)
		t.open[name] = in
	}
	return in.odsToken, in.err
}

func (t *odsTokens) connect(ctx context.Context, name string) (odsToken, error) {
	r := t.conf.repository(name)
	switch {
	case r == nil:
		return nil, fmt.Errorf("%s has no repository %q", t.conf.path, name)
	case r.PIN.text == "":
		return nil, fmt.Errorf("%s has no <PIN> of repository %s", t.conf.path, name)
	}
	// Nothing is kept: the folder of PINs is not used.
	in, ok := pkcs11.NewTokens("", t.now).OpenWith(keymgr.Token{
		Name: odsKeystoreName(name), Module: r.Module.text, Label: r.TokenLabel.text, Sessions: 1, Timeout: odsTokenTime,
	}, r.PIN.text).(odsToken)
	if !ok {
		return nil, errors.New("tokens cannot be read by this program")
	}
	if err := in.Check(ctx); err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return in, nil
}

// of gives the public key of a key pair.
func (t *odsTokens) of(ctx context.Context, k *odsKey) (crypto.PublicKey, error) {
	id := k.repository + "\x00" + k.locator
	if p, ok := t.public[id]; ok {
		return p.key, p.err
	}
	var p odsPublic
	in, err := t.token(ctx, k.repository)
	if err != nil {
		p.err = err
	} else {
		p.key, p.err = in.Public(ctx, k.locator)
	}
	t.public[id] = p
	return p.key, p.err
}

// close ends the use of all tokens.
func (t *odsTokens) close() error {
	var all error
	for _, in := range t.open {
		if in.err == nil {
			all = errors.Join(all, in.Close())
		}
	}
	return all
}

// odsPublished is what files of the signer say of a zone as it was published.
type odsPublished struct {
	serial *uint32
	keys   []*dns.DNSKEY
}

// maxODSLine bounds a line of the signer's files in bytes.
const maxODSLine = 1 << 20

// readODSPublished reads what the signer has published of a zone: the signed file
// where there is one, and the signer's own files.
func readODSPublished(conf *odsConf, z *odsZone) (odsPublished, error) {
	base := filepath.Join(conf.signerFolder(), strings.TrimSuffix(z.name, "."))
	paths := []string{base + ".axfr", base + ".backup2"}
	if odsFile(z.outputType) {
		paths = append(paths, conf.at(z.output))
	}
	var out odsPublished
	for _, path := range paths {
		if err := out.read(path, z.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return out, err
		}
	}
	return out, nil
}

// odsFile reports whether an adapter is one by file.
func odsFile(kind string) bool { return strings.EqualFold(kind, "File") }

func (p *odsPublished) read(path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, maxODSLine)
	for lines.Scan() {
		line := lines.Text()
		if rest, ok := strings.CutPrefix(line, ";;Zone:"); ok {
			p.backup(rest)
			continue
		}
		if strings.HasPrefix(line, ";") || !strings.Contains(line, "DNSKEY") && !strings.Contains(line, "SOA") {
			continue
		}
		rr, err := dns.NewRR(line)
		if err != nil || rr == nil || dns.CanonicalName(rr.Header().Name) != dns.CanonicalName(name) {
			continue
		}
		switch rr := rr.(type) {
		case *dns.SOA:
			// The backup has the serial before the last one in its records.
			if !strings.HasSuffix(path, ".backup2") {
				p.raise(rr.Serial)
			}
		case *dns.DNSKEY:
			p.keys = append(p.keys, rr)
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// backup reads the serial of ";;Zone: name N class N inbound N internal N outbound N".
func (p *odsPublished) backup(text string) {
	words := strings.Fields(text)
	for i := 0; i+1 < len(words); i++ {
		if words[i] == "outbound" {
			if n, err := strconv.ParseUint(words[i+1], 10, 32); err == nil && n > 0 {
				p.raise(uint32(n))
			}
		}
	}
}

func (p *odsPublished) raise(n uint32) {
	if p.serial == nil || int32(n-*p.serial) > 0 { //nolint:gosec // RFC 1982
		p.serial = &n
	}
}

// record is the DNSKEY record of a key: by its token, else as it was published.
func (k *odsKey) record(public crypto.PublicKey, published []*dns.DNSKEY) ([]byte, error) {
	role := odsRole(k.role)
	if public != nil {
		made, err := keymgr.NewKey(role, uint8(k.algorithm), public) //nolint:gosec // checked when it was read
		if err != nil {
			return nil, err
		}
		if int64(made.Tag) != k.tag {
			return nil, fmt.Errorf("the key that the token has under the CKA_ID %s has the tag %d, the enforcer noted %d: is it the right token?", k.locator, made.Tag, k.tag)
		}
		return keymgr.RData(made)
	}
	flags := uint16(keymgr.FlagZone)
	if k.signsKeys() {
		flags |= keymgr.FlagSEP
	}
	var found []byte
	for _, r := range published {
		if int64(r.Algorithm) != k.algorithm || r.Flags != flags || int64(r.KeyTag()) != k.tag {
			continue
		}
		field, err := base64.StdEncoding.DecodeString(r.PublicKey)
		if err != nil {
			continue
		}
		rdata := append([]byte{byte(flags >> 8), byte(flags), r.Protocol, r.Algorithm}, field...)
		if found != nil && string(found) != string(rdata) {
			return nil, fmt.Errorf("two keys with the tag %d were published", k.tag)
		}
		found = rdata
	}
	return found, nil
}
