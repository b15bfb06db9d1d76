package observe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

const (
	typeDSYNC    = zone.Type(66) // RFC 9859, 3
	schemeNotify = 1             // RFC 9859, 6.2
	dsyncLabel   = "\x06_dsync"
	// maxAgents bounds the records of a DSYNC RRset.
	maxAgents = 8
)

// Agents is whom a parent names to be told of changes of CDS (RFC 9859).
type Agents struct {
	// Owner is where its DSYNC RRset stands; empty where it names nobody.
	Owner string
	// Targets are its records for NOTIFY(CDS); there may be none.
	Targets []Agent
	// Validated: the RRset was validated from a trust anchor down; else it is
	// proven that the parent is not signed.
	Validated bool
}

// Agent is one of them.
type Agent struct {
	Host zone.Name // in lower case
	Port uint16
}

// Agents finds whom the parent of a zone wants to be told that its CDS changed
// (RFC 9859, 4.1). Of a parent that is signed only what validates counts.
func (o *Observer) Agents(ctx context.Context, child zone.Name, now time.Time) (Agents, error) {
	child = child.Fold()
	if child == zone.Root {
		return Agents{}, nil
	}
	name, err := dsyncName(child, 1)
	if err != nil {
		return Agents{}, err
	}
	moved := false
	for {
		a, err := o.resolve(ctx, name, typeDSYNC)
		if err != nil {
			return Agents{}, err
		}
		if set := a.of(name, typeDSYNC); set != nil {
			return o.agents(ctx, set, a, now)
		}
		parent, known := soaOwner(a, name)
		switch at := child.Labels() - parent.Labels(); {
		case known && !moved && at > 1 && child.Under(parent):
			// The parent is further up: the label belongs just before it.
			moved = true
			if name, err = dsyncName(child, at); err != nil {
				return Agents{}, err
			}
		case name[:len(dsyncLabel)] != dsyncLabel:
			for name[:len(dsyncLabel)] != dsyncLabel {
				name = name.Parent()
			}
		default:
			return Agents{}, nil
		}
	}
}

// dsyncName is a name with the label _dsync behind its first labels.
func dsyncName(child zone.Name, labels int) (zone.Name, error) {
	rest := child
	for range labels {
		rest = rest.Parent()
	}
	return zone.NameFromWire([]byte(child[:len(child)-len(rest)] + dsyncLabel + rest))
}

// soaOwner is the zone that a negative answer is from.
func soaOwner(a answer, name zone.Name) (apex zone.Name, ok bool) {
	for i := range a.authority {
		if s := &a.authority[i]; s.Type == zone.TypeSOA && name.Under(s.Owner) {
			return s.Owner.Fold(), true
		}
	}
	return zone.Root, false
}

// agents reads and validates a DSYNC RRset.
func (o *Observer) agents(ctx context.Context, set *validate.RRset, a answer, now time.Time) (Agents, error) {
	out := Agents{Owner: set.Owner.Fold().String()}
	switch err := o.validDSYNC(ctx, set, a, now); {
	case err == nil:
		out.Validated = true
	case !errors.Is(err, errInsecure):
		return Agents{}, fmt.Errorf("%s DSYNC: %w", set.Owner, err)
	}
	for _, data := range set.Data {
		if agent, ok := parseDSYNC(data); ok && len(out.Targets) < maxAgents && !slices.Contains(out.Targets, agent) {
			out.Targets = append(out.Targets, agent)
		}
	}
	return out, nil
}

// parseDSYNC reads DSYNC RDATA; ok is false where it names nobody for
// NOTIFY(CDS).
func parseDSYNC(data []byte) (a Agent, ok bool) {
	if len(data) < 6 || zone.Type(binary.BigEndian.Uint16(data)) != zone.TypeCDS || data[2] != schemeNotify {
		return a, false
	}
	host, err := zone.NameFromWire(data[5:])
	a = Agent{Host: host.Fold(), Port: binary.BigEndian.Uint16(data[3:])}
	return a, err == nil && host != zone.Root && a.Port != 0
}

// validDSYNC validates an RRset that a wildcard may have made. Unsigned ones
// are of a parent that is proven not to be signed.
func (o *Observer) validDSYNC(ctx context.Context, set *validate.RRset, a answer, now time.Time) error {
	var apex zone.Name
	for i := range set.Sigs {
		if s := set.Sigs[i].Signer; set.Owner.Under(s) && !set.Owner.Equal(s) {
			apex = s
			break
		}
	}
	if apex == "" {
		found, err := o.zoneOf(ctx, set.Owner)
		if err != nil {
			return err
		}
		apex = found
	}
	keys, err := o.trusted(ctx, apex, nil, now, false)
	if err != nil {
		return err
	}
	sig, _, err := set.VerifiedAny(apex, keys, now, true)
	if err != nil {
		return err
	}
	if !sig.Synthesized(set) {
		return nil
	}
	return validate.NotThere(set.Owner, int(sig.Labels), apex, a.authority, keys, now)
}
