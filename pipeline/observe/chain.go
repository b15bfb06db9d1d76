package observe

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// Bounds of what is remembered of the way down from the anchors.
const (
	maxLinks = 4096
	linkTime = time.Hour // a link is validated anew after this at the latest
)

// link is what was validated of a name on the way down.
type link struct {
	apex     zone.Name      // the zone that the name is in; its own where it is a cut
	keys     []validate.Key // of that zone
	insecure bool           // it is proven that nothing from here down can be validated
	until    time.Time
}

// errInsecure reports proof that a zone is not signed, in the sense of RFC
// 4035, 4.3.
var errInsecure = errors.New("the zone is proven not to be signed")

var errUnusable = errors.New("its DS records have algorithms or digest types that are not supported here")

// fetch gets the DNSKEY or DS RRset of a name, or the proof that there is none.
type fetch func(ctx context.Context, name zone.Name, t zone.Type) (answer, error)

// trusted are the keys of a zone, validated from a trust anchor down. near is
// asked for the zone's own keys first, where it is not nil; all else comes
// from the resolvers. None of them need be trusted. fresh passes over what is
// remembered of that zone.
func (o *Observer) trusted(ctx context.Context, apex zone.Name, near fetch, now time.Time, fresh bool) ([]validate.Key, error) {
	apex = apex.Fold()
	anchor, known := o.anchorOf(apex)
	if !known {
		return nil, fmt.Errorf("no trust anchor is at or above %s", apex)
	}
	at, err := o.link(ctx, anchor, nil, o.from(near, anchor.Equal(apex)), now, fresh && anchor.Equal(apex))
	for n := apex.Labels() - anchor.Labels() - 1; err == nil && n >= 0 && !at.insecure; n-- {
		name := apex
		for range n {
			name = name.Parent()
		}
		up := at
		at, err = o.link(ctx, name, &up, o.from(near, n == 0), now, fresh && n == 0)
	}
	switch {
	case err != nil:
		return nil, err
	case at.insecure:
		return nil, fmt.Errorf("%s: %w", at.apex, errInsecure)
	case !at.apex.Equal(apex):
		return nil, fmt.Errorf("%s is not a zone of its own", apex)
	}
	return at.keys, nil
}

// from is near where it may be asked, and the resolvers.
func (o *Observer) from(near fetch, ask bool) []fetch {
	if near == nil || !ask {
		return []fetch{o.resolve}
	}
	return []fetch{near, o.resolve}
}

// link is what is remembered of a name, or what can be validated of it now. up
// is the link above; nil at an anchor.
func (o *Observer) link(ctx context.Context, name zone.Name, up *link, keysFrom []fetch, now time.Time, fresh bool) (link, error) {
	o.mu.Lock()
	l, ok := o.links[name]
	o.mu.Unlock()
	if ok && !fresh && now.Before(l.until) && now.After(l.until.Add(-2*linkTime)) {
		return l, nil
	}
	l, err := o.validate(ctx, name, up, keysFrom, now)
	if err != nil {
		return link{}, fmt.Errorf("chain of trust at %s: %w", name, err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.links) >= maxLinks {
		clear(o.links)
	}
	o.links[name] = l
	return l, nil
}

// validate follows one link of the chain.
func (o *Observer) validate(ctx context.Context, name zone.Name, up *link, keysFrom []fetch, now time.Time) (link, error) {
	until := now.Add(linkTime)
	trusts := func(k validate.Key) bool { return o.isAnchor(name, k) }
	if up != nil {
		ds, l, err := o.delegation(ctx, name, up, now)
		if err != nil || ds == nil {
			return l, err
		}
		until = l.until
		trusts = func(k validate.Key) bool {
			for _, data := range ds {
				if k.Matches(name, data) {
					return true
				}
			}
			return false
		}
	}
	var err error
	for _, get := range keysFrom {
		var a answer
		if a, err = get(ctx, name, zone.TypeDNSKEY); err != nil {
			continue
		}
		var keys []validate.Key
		var ends time.Time
		if keys, ends, err = trustedSet(name, a.of(name, zone.TypeDNSKEY), trusts, now); err == nil {
			return link{apex: name, keys: keys, until: earlier(until, ends)}, nil
		}
	}
	return link{}, err
}

// delegation reads what the zone above says of a name: its DS RRset, or with
// nil the whole link, since nothing is to be validated there.
func (o *Observer) delegation(ctx context.Context, name zone.Name, up *link, now time.Time) (ds [][]byte, l link, err error) {
	a, err := o.resolve(ctx, name, zone.TypeDS)
	if err != nil {
		return nil, l, err
	}
	l = *up
	l.until = earlier(up.until, now.Add(linkTime))
	set := a.of(name, zone.TypeDS)
	if set == nil {
		proof, err := validate.NoDS(name, up.apex, a.authority, up.keys, now)
		if err != nil {
			return nil, link{}, err
		}
		l.insecure = proof.Cut
		return nil, l, nil
	}
	sig, _, err := set.Verified(up.apex, up.keys, now)
	if err != nil {
		return nil, link{}, fmt.Errorf("DS: %w", err)
	}
	for _, data := range set.Data {
		if validate.Usable(data) {
			ds = append(ds, bytes.Clone(data))
		}
	}
	l.until = earlier(l.until, holds(set, sig, now))
	if ds == nil {
		// Others may be able to validate it: this is no proof of insecurity.
		return nil, link{}, errUnusable
	}
	return ds, l, nil
}

// trustedSet validates a DNSKEY RRset by one of its keys that is trusted.
func trustedSet(apex zone.Name, set *validate.RRset, trusts func(validate.Key) bool, now time.Time) ([]validate.Key, time.Time, error) {
	if set == nil {
		return nil, time.Time{}, errors.New("no DNSKEY")
	}
	keys := validate.ZoneKeys(set.Data)
	var entry []validate.Key
	for _, k := range keys {
		if trusts(k) {
			entry = append(entry, k)
		}
	}
	if len(entry) == 0 {
		return nil, time.Time{}, errors.New("no DNSKEY that the DS or the trust anchor stands for")
	}
	sig, _, err := set.Verified(apex, entry, now)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("DNSKEY: %w", err)
	}
	return keys, holds(set, sig, now), nil
}

// holds is until when a validated RRset may be used (RFC 4035, 5.3.3).
func holds(set *validate.RRset, sig *validate.Signature, now time.Time) time.Time {
	ends := now.Add(time.Duration(min(set.TTL, sig.OriginalTTL)) * time.Second)
	left := int32(sig.Expiration - uint32(now.Unix())) //nolint:gosec // modulo 2^32 is meant
	return earlier(ends, now.Add(time.Duration(left)*time.Second))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}
