package observe

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// UnknownParent stands for the parent's servers where they are not known.
const UnknownParent = "parent"

// parent asks the servers of the parent for the zone's DS.
func (r *round) parent(ctx context.Context) []keymgr.Seen {
	servers := r.q.Parent
	if len(servers) == 0 {
		apex, err := r.o.zoneOf(ctx, r.q.Zone.Parent())
		if err == nil {
			servers, err = r.o.serversOf(ctx, apex)
		}
		if err != nil {
			return []keymgr.Seen{{Server: UnknownParent, Error: fmt.Sprintf("the parent's servers are not known: %v", err)}}
		}
	}
	return r.ask(ctx, servers, r.parentServer)
}

// parentServer asks one server of the parent. That an answer cannot be
// validated is no error: it is shown, and does not count.
func (r *round) parentServer(ctx context.Context, s *session, seen *keymgr.Seen) error {
	a, err := s.ask(ctx, question{name: r.q.Zone, t: zone.TypeDS})
	if err != nil {
		return fmt.Errorf("DS: %w", err)
	}
	set := a.of(r.q.Zone, zone.TypeDS)
	apex, err := r.parentApex(a, set)
	if err != nil {
		return err
	}
	near := func(ctx context.Context, name zone.Name, t zone.Type) (answer, error) {
		return s.ask(ctx, question{name: name, t: t})
	}
	ttl, err := r.validate(ctx, apex, a, set, near, false)
	if err != nil && !errors.Is(err, errInsecure) {
		// Its keys may have changed since they were validated.
		ttl, err = r.validate(ctx, apex, a, set, near, true)
	}
	seen.Validated = err == nil
	if err != nil {
		seen.Unvalidated = err.Error()
		seen.Insecure = errors.Is(err, errInsecure)
	} else {
		seen.Margin = r.margin(ctx, s, apex, near)
	}
	if set == nil {
		seen.NoDS = seen.Validated
		return nil
	}
	if seen.DSTTL = set.TTL; seen.Validated {
		seen.DSTTL = ttl
	}
	for _, data := range set.Data {
		if len(data) < 5 {
			return errors.New("DS: malformed")
		}
		seen.DS = append(seen.DS, event.DS{
			Tag: binary.BigEndian.Uint16(data), Algorithm: data[2], DigestType: data[3], Digest: hex.EncodeToString(data[4:]),
		})
	}
	return nil
}

// maxMargin bounds what a parent's SOA may have every change wait for.
const maxMargin = 7 * 24 * 3600

// margin is REFRESH + RETRY of the parent's SOA in seconds, for how long a site
// of this server may be late; 0 where it is not to be had validated, which is no
// error of the server's.
func (r *round) margin(ctx context.Context, s *session, apex zone.Name, near fetch) uint32 {
	a, err := s.ask(ctx, question{name: apex, t: zone.TypeSOA})
	if err != nil {
		return 0
	}
	soa := a.of(apex, zone.TypeSOA)
	if soa == nil || len(soa.Data) != 1 || len(soa.Data[0]) < 22 {
		return 0
	}
	keys, err := r.o.trusted(ctx, apex, near, r.q.Now, false)
	if err != nil {
		return 0
	}
	if _, _, err := soa.Verified(apex, keys, r.q.Now); err != nil {
		return 0
	}
	times := soa.Data[0][len(soa.Data[0])-16:]
	refresh, retry := binary.BigEndian.Uint32(times), binary.BigEndian.Uint32(times[4:])
	return uint32(min(uint64(refresh)+uint64(retry), maxMargin)) //nolint:gosec // bounded
}

// parentApex is the zone that an answer claims to be from: that of the
// signatures over the DS, else that of the SOA beside their absence.
func (r *round) parentApex(a answer, set *validate.RRset) (zone.Name, error) {
	above := func(name zone.Name) bool { return r.q.Zone.Under(name) && !r.q.Zone.Equal(name) }
	if set != nil {
		for _, sig := range set.Sigs {
			if above(sig.Signer) {
				return sig.Signer, nil
			}
		}
		return r.q.Zone.Parent(), nil // unsigned: validation will say so
	}
	for i := range a.authority {
		if a.authority[i].Type != zone.TypeSOA {
			continue
		}
		if above(a.authority[i].Owner) {
			return a.authority[i].Owner.Fold(), nil
		}
		return "", errors.New("DS: the server answers for the zone itself, not for its parent")
	}
	return "", errors.New("DS: the answer has neither a DS nor the parent's SOA")
}

// validate checks the DS, or the proof that there is none, by the keys of the
// parent. ttl is for how long caches may hold the DS.
func (r *round) validate(ctx context.Context, apex zone.Name, a answer, set *validate.RRset, near fetch, fresh bool) (ttl uint32, err error) {
	keys, err := r.o.trusted(ctx, apex, near, r.q.Now, fresh)
	if err != nil {
		return 0, err
	}
	if set == nil {
		_, err = validate.NoDS(r.q.Zone, apex, a.authority, keys, r.q.Now)
		return 0, err
	}
	sig, _, err := set.Verified(apex, keys, r.q.Now)
	if err != nil {
		return 0, err
	}
	return min(set.TTL, sig.OriginalTTL), nil // RFC 4035, 5.3.3
}

// At makes servers of addresses, each named by its address.
func At(addrs []netip.AddrPort) []Server {
	var out []Server
	for _, a := range addrs {
		out = append(out, Server{Name: a.String(), Addresses: []netip.AddrPort{a}})
	}
	return out
}
