package simulate

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
)

// looks reports whether the policy lets the world be looked at.
func (r *run) looks() bool {
	return r.set.Policy.ObservationInterval() > 0 && r.state.Published != nil
}

func (r *run) lookIsDue() bool { return r.looks() && !r.now.Before(r.sights.Due(r.lookAt)) }

// look observes all servers, and records what the parent has where that
// changed.
func (r *run) look() error {
	obs := keymgr.Observation{At: r.now}
	for i := range r.set.Servers {
		obs.Zone = append(obs.Zone, r.seenZone(i))
	}
	for i := range r.set.Parents {
		seen, err := r.seenParent(i)
		if err != nil {
			return err
		}
		obs.Parent = append(obs.Parent, seen)
	}
	if f := pipeline.DSChange(r.state.ParentDS, obs); f != nil {
		r.record(event.Program, f)
	}
	r.sights.Saw(obs, r.state.Keys.DS.Before)
	r.sights.End(r.now, r.set.Policy.ObservationInterval(), false)
	return nil
}

// address is a documentation address (RFC 5737) of a server.
func address(ofParent bool, i int) netip.AddrPort {
	net := [4]byte{192, 0, 2, byte(i + 1)} //nolint:gosec // few
	if ofParent {
		net = [4]byte{198, 51, 100, byte(i + 1)} //nolint:gosec // few
	}
	return netip.AddrPortFrom(netip.AddrFrom4(net), 53)
}

const timedOut = "time-out"

func (r *run) seenZone(i int) keymgr.Seen {
	seen := keymgr.Seen{Server: serverName(i), Address: address(false, i)}
	if since := r.world.Down(i); !since.IsZero() {
		seen.Error = timedOut
		return seen
	}
	v := r.versions[r.world.Shown(i)]
	seen.Serial, seen.Keys, seen.KeyTTL = v.serial, v.keys, r.set.Policy.DNSKEYTTL()
	seen.CDS, seen.CDNSKEY = v.cds, v.cds
	for _, id := range v.signers {
		if k, ok := r.state.Keys.ByID(id); ok {
			seen.Signed = append(seen.Signed, keymgr.SeenSignature{Owner: r.state.Name, Type: "SOA", Tag: k.Tag, Algorithm: k.Algorithm, Key: id})
		}
	}
	for _, id := range v.madeBy {
		if k, ok := r.state.Keys.ByID(id); ok && k.SignsKeys() && slices.Contains(v.keys, id) {
			seen.Signed = append(seen.Signed, keymgr.SeenSignature{Owner: r.state.Name, Type: "DNSKEY", Tag: k.Tag, Algorithm: k.Algorithm, Key: id})
		}
	}
	return seen
}

func (r *run) seenParent(i int) (keymgr.Seen, error) {
	seen := keymgr.Seen{Server: parentName(i), Address: address(true, i)}
	if since := r.world.DownParent(i); !since.IsZero() {
		seen.Error = timedOut
		return seen, nil
	}
	apex, err := zone.ParseName(r.state.Name)
	if err != nil {
		return seen, err
	}
	set := r.sets[r.world.ShownDS(i)]
	seen.Validated, seen.NoDS, seen.DSTTL = true, len(set) == 0, uint32(r.set.DSTTL/time.Second) //nolint:gosec // not negative
	for _, id := range set {
		k, ok := r.state.Keys.ByID(id)
		if !ok {
			return seen, fmt.Errorf("key %s: %w", id, pipeline.ErrNotFound)
		}
		digest := uint8(keymgr.DigestSHA256)
		if d := r.set.Policy.DSDigests(); len(d) > 0 {
			digest = d[0]
		}
		ds, err := keymgr.DSOf(apex, k, digest)
		if err != nil {
			return seen, err
		}
		seen.DS = append(seen.DS, ds)
	}
	return seen, nil
}

// arrivals tells when all public servers have the zone with new keys.
func (r *run) arrivals() {
	newest := r.world.Newest()
	for i := range r.set.Servers {
		if r.world.Shown(i) < newest {
			return
		}
	}
	r.out.everywhere(r, newest)
}

// outages tells when servers fail and come back.
func (r *run) outages() {
	for len(r.edges) > 0 && !r.now.Before(r.edges[0].at) {
		e := r.edges[0]
		r.edges = r.edges[1:]
		l := Line{Time: r.now, Kind: KindWorld}
		if _, ofParent, _ := r.set.server(e.Server); e.at.Equal(e.From) {
			l.Text = e.Server + " does not answer the signer and takes nothing new until " + rfc(e.Until)
			if !ofParent {
				l.Text += ", but may hand out what it has until " + rfc(e.From.Add(r.set.Expire))
			}
		} else {
			l.Text = e.Server + " answers again"
		}
		r.out.add(l)
	}
}
