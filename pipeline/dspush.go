package pipeline

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer/zone"
	"sluice/xfr"
)

// doPush changes the DS RRset at the first of the parent's servers that takes
// it. Each try is an event.
func (e *Engine) doPush(ctx context.Context, s State, c PushDS) ([]event.Facts, error) {
	if s.Told == nil || s.Told.Request != c.Request {
		return nil, nil // something else is to be told now
	}
	p, err := e.boundPolicy(s)
	if err != nil {
		return nil, err
	}
	if err := take(ctx, e.telling); err != nil {
		return nil, err
	}
	defer give(e.telling)
	var facts *event.DSPushed
	var failed []string
	for _, ep := range p.Parent().Servers {
		facts = &event.DSPushed{Request: c.Request, Server: ep.String()}
		err := e.pushTo(ctx, s, p, ep, facts)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err == nil {
			facts.Rcode = rcodeWord(dns.RcodeSuccess)
			return []event.Facts{facts}, nil
		}
		if code, ok := errors.AsType[*xfr.RcodeError](err); ok {
			facts.Rcode = rcodeWord(code.Rcode)
		}
		facts.Added, facts.Removed = nil, nil // nothing was changed
		failed = append(failed, ep.String()+": "+pushFailure(ep, facts.Zone, err))
	}
	if facts == nil {
		return nil, nil // the policy names nobody any more
	}
	facts.Error = oneLine(strings.Join(failed, "; "))
	return []event.Facts{facts}, nil
}

// pushTries is how often an update is made anew where the DS RRset changed
// since it was read.
const pushTries = 3

// pushTo brings the DS RRset at one server to what it is to be, and says in
// facts what that took.
func (e *Engine) pushTo(ctx context.Context, s State, p Policy, ep xfr.Endpoint, facts *event.DSPushed) error {
	apex, err := apexOf(s)
	if err != nil {
		return err
	}
	parent := p.Parent().Zone
	if parent == "" {
		if parent, err = e.zoneAbove(ctx, ep, apex); err != nil {
			return err
		}
	}
	if !apex.Under(parent) || apex.Equal(parent) {
		return fmt.Errorf("%s is no zone above %s", parent, apex)
	}
	facts.Zone = parent.String()
	want, err := wantedDS(apex, s, p)
	if err != nil {
		return err
	}
	for try := 1; ; try++ {
		u, err := e.dsUpdate(ctx, s, p, ep, apex, want, facts)
		if err != nil {
			return err
		}
		if len(u.Add)+len(u.Remove) == 0 {
			return nil
		}
		err = e.client.Update(ctx, ep, xfr.Update{Zone: parent, Owner: apex, Cut: true, Sets: []xfr.UpdateSet{u}})
		if !changedMeanwhile(err) || try == pushTries {
			return err
		}
	}
}

// changedMeanwhile reports whether an update failed since its RRsets are not as
// they were read.
func changedMeanwhile(err error) bool {
	code, isCode := errors.AsType[*xfr.RcodeError](err)
	return isCode && (code.Rcode == dns.RcodeNXRrset || code.Rcode == dns.RcodeYXRrset)
}

// zoneAbove asks a server which of its zones holds the DS of a zone.
func (e *Engine) zoneAbove(ctx context.Context, ep xfr.Endpoint, apex zone.Name) (zone.Name, error) {
	found, err := e.zoneOf(ctx, ep, apex.Parent())
	if err == nil && found == "" {
		err = errors.New("it does not say which zone holds the DS: name it in key-manager.parent.update.zone")
	}
	return found, err
}

// zoneOf asks a server which of its zones a name is in; "" where it does not
// say.
func (e *Engine) zoneOf(ctx context.Context, ep xfr.Endpoint, name zone.Name) (zone.Name, error) {
	m, err := e.client.Ask(ctx, ep, name, zone.TypeSOA)
	code, isCode := errors.AsType[*xfr.RcodeError](err)
	if err != nil && (!isCode || code.Rcode != dns.RcodeNameError) {
		return "", err
	}
	for _, rr := range slices.Concat(m.Answer, m.Ns) {
		if rr.Header().Rrtype != dns.TypeSOA {
			continue
		}
		owner, err := zone.ParseName(rr.Header().Name)
		if err == nil && name.Under(owner) {
			return owner.Fold(), nil
		}
	}
	return "", nil
}

// dsUpdate reads the DS RRset at a server, and says what of it is to change.
// Only DS records of keys that the zone had here leave.
func (e *Engine) dsUpdate(ctx context.Context, s State, p Policy, ep xfr.Endpoint, apex zone.Name, want [][]byte, facts *event.DSPushed) (xfr.UpdateSet, error) {
	u := xfr.UpdateSet{Type: zone.TypeDS, TTL: seconds(p.Parent().TTL)}
	m, err := e.client.Ask(ctx, ep, apex, zone.TypeDS)
	if err != nil {
		return u, err
	}
	facts.Added, facts.Removed, facts.Kept = nil, nil, nil
	for _, rr := range m.Answer {
		ds, ok := rr.(*dns.DS)
		if !ok || !equalName(rr.Header().Name, apex) {
			continue
		}
		rdata, err := hex.DecodeString(ds.Digest)
		if err != nil {
			return u, fmt.Errorf("DS: %w", err)
		}
		rdata = append([]byte{byte(ds.KeyTag >> 8), byte(ds.KeyTag), ds.Algorithm, ds.DigestType}, rdata...)
		u.TTL = rr.Header().Ttl
		u.Have = append(u.Have, rdata)
		fact := dsFact(apex, rdata, s.Keys.Keys)
		switch {
		case slices.ContainsFunc(want, func(w []byte) bool { return bytes.Equal(w, rdata) }):
		case fact.Key != "":
			u.Remove = append(u.Remove, rdata)
			facts.Removed = append(facts.Removed, fact)
		default:
			facts.Kept = append(facts.Kept, fact)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(u.Have, func(h []byte) bool { return bytes.Equal(h, w) }) {
			u.Add = append(u.Add, w)
			facts.Added = append(facts.Added, dsFact(apex, w, s.Keys.Keys))
		}
	}
	return u, nil
}

func equalName(text string, name zone.Name) bool {
	n, err := zone.ParseName(text)
	return err == nil && n.Equal(name)
}

// wantedDS is the RDATA of the DS RRset that the parent is to have.
func wantedDS(apex zone.Name, s State, p Policy) ([][]byte, error) {
	var out [][]byte
	for _, id := range s.Keys.DS.Wanted {
		k, ok := s.Keys.ByID(id)
		if !ok {
			return nil, fmt.Errorf("key %s: %w", id, ErrNotFound)
		}
		rdata, err := keymgr.RData(k.Key)
		if err != nil {
			return nil, err
		}
		for _, digest := range p.DSDigests() {
			ds, err := keymgr.DS(apex, rdata, digest)
			if err != nil {
				return nil, err
			}
			out = append(out, ds)
		}
	}
	return out, nil
}

// dsFact tells DS RDATA, which must be longer than its fixed part of 4 bytes or
// stands for nothing.
func dsFact(apex zone.Name, rdata []byte, keys []keymgr.Key) event.DS {
	d := event.DS{
		Tag: binary.BigEndian.Uint16(rdata), Algorithm: rdata[2], DigestType: rdata[3], Digest: hex.EncodeToString(rdata[4:]),
	}
	d.Key = keymgr.DSKey(apex, d, keys)
	return d
}

// rcodeWord is an RCODE in words.
func rcodeWord(code int) string {
	if word, ok := dns.RcodeToString[code]; ok {
		return word
	}
	return fmt.Sprintf("RCODE %d", code)
}

// pushFailure says why an update failed, and what to do.
func pushFailure(ep xfr.Endpoint, parent string, err error) string {
	text := err.Error()
	code, ok := errors.AsType[*xfr.RcodeError](err)
	if !ok {
		return text
	}
	hint := ""
	switch {
	case code.TSIG == dns.RcodeBadKey:
		hint = "it does not know TSIG key " + ep.Key
	case code.TSIG == dns.RcodeBadSig:
		hint = "it has another secret or algorithm for TSIG key " + ep.Key
	case code.TSIG == dns.RcodeBadTime:
		hint = "its clock and this one differ by more than five minutes"
	case code.Rcode == dns.RcodeRefused:
		hint = "it does not let TSIG key " + ep.Key + " change DS records there"
	case code.Rcode == dns.RcodeNotAuth || code.Rcode == dns.RcodeNotZone:
		hint = "it is not the primary of " + parent + ": see key-manager.parent.update.zone"
	case code.Rcode == dns.RcodeNotImplemented:
		hint = "it takes no dynamic updates"
	case code.Rcode == dns.RcodeNXRrset:
		hint = "it has no delegation of the zone, or its DS records change all the time"
	}
	if hint != "" {
		text += " (" + hint + ")"
	}
	return text
}
