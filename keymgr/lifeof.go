package keymgr

import (
	"slices"
	"time"

	"sluice/journal/event"
)

// LifeOf is what the next signer of a zone has to know of a key, in the form in
// which a former signer's notes are read. What is not known to have got around
// everywhere is noted as on its way.
func (ks KeySet) LifeOf(key Key, p RollPolicy, k Known) *event.KeyLife {
	l := &event.KeyLife{
		State: string(key.State), Goal: omnipresent,
		TTL:     uint32(min(roundUp(k.Timing.KeyTTL.Value), 1<<31-1)), //nolint:gosec // at most 31 bits
		Created: unixOf(key.Generated), Published: unixOf(key.Published), Activated: unixOf(key.Activated),
		Retired: unixOf(key.Retired), Removed: unixOf(key.Removed),
	}
	if key.Life != nil && key.Life.Created != 0 {
		l.Created = key.Life.Created
	}
	for _, role := range []struct {
		Role
		RolePolicy
	}{{KSK, p.KSK}, {ZSK, p.ZSK}, {CSK, p.CSK}} {
		if key.HasRole(role.Role) {
			l.Lifetime = roundUp(role.Validity)
		}
	}
	comes := ks.exchange(key.ID, l)
	margin := k.Timing.Margin.Value
	keys, sigs := k.Timing.KeyTTL.Value+margin, k.Timing.SigTTL.Value+margin
	around := func(since time.Time, wait time.Duration) *event.Spread {
		if done := since.Add(wait); !comes && !k.Now.Before(done) {
			return &event.Spread{State: omnipresent, Since: unixOf(done)}
		}
		return &event.Spread{State: rumoured, Since: unixOf(since)}
	}
	none := func() *event.Spread { return &event.Spread{State: hidden, Since: l.Created} }
	gone := func(since time.Time) *event.Spread { return &event.Spread{State: unretentive, Since: unixOf(since)} }
	dnskey, signed := none(), none()
	switch key.State {
	case Published, Ready, Revoked:
		dnskey = around(ks.publicSince(key, k, comes), keys)
	case Active:
		dnskey, signed = around(ks.publicSince(key, k, comes), keys), around(key.Activated, sigs)
	case Introduced:
		signed = around(key.Activated, sigs)
	case Withdrawn:
		dnskey, signed = gone(k.Now), around(key.Activated, sigs)
	case Retired, Dead:
		dnskey, signed = around(key.Published, keys), gone(key.Retired)
		l.Goal = hidden
	case Removed:
		dnskey = gone(key.Removed)
		l.Goal = hidden
	case Generated:
		l.Goal = hidden
	}
	if key.State == Published && !comes {
		l.Goal = hidden // it stands by
	}
	l.DNSKEY = dnskey
	if key.SignsZone() {
		l.ZoneSigs = signed
	}
	if key.SignsKeys() {
		l.KeySigs = signed
		l.DS = ks.spreadOfDS(key.ID, k, l)
	}
	return l
}

// publicSince is since when a key is published here: for one that is on its way
// in that is not before a version with it is served.
func (ks KeySet) publicSince(key Key, k Known, comes bool) time.Time {
	switch {
	case !comes:
		return key.Published
	case ks.unserved(k.Served, false) != "":
		return k.Now
	case k.Served.At.After(key.Published):
		return k.Served.At
	}
	return key.Published
}

// exchange notes which keys a rollover puts before and after one, and whether
// it goes. comes says that it is on its way in, and that this may not have got
// around.
func (ks KeySet) exchange(id string, l *event.KeyLife) (comes bool) {
	tag := func(ids []string) uint16 {
		if len(ids) != 1 {
			return 0
		}
		k, _ := ks.ByID(ids[0])
		return k.Tag
	}
	for _, r := range ks.Rollovers {
		switch {
		case r.Step == 0:
		case slices.Contains(r.New, id):
			l.Predecessor = tag(r.Old)
			comes = comes || r.Step == 1
		case slices.Contains(r.Old, id) && r.Kind != RollInsecure:
			l.Successor, l.Goal = tag(r.New), hidden
		}
	}
	return comes
}

// spreadOfDS says how far the DS of a key has got around.
func (ks KeySet) spreadOfDS(id string, k Known, l *event.KeyLife) *event.Spread {
	d := ks.DS
	told := slices.Contains(d.Wanted, id)
	has, all := false, len(d.Sets) > 0
	for _, set := range d.Sets {
		one := hasDSOf(set.DS, []string{id})
		has, all = has || one, all && one
	}
	if told && d.CDS {
		l.CDS = unixOf(d.Since)
	}
	switch {
	case has && !told && (len(d.Wanted) > 0 || d.Withdrawn):
		return &event.Spread{State: unretentive, Since: unixOf(d.Since)}
	case has:
		l.DSPublished = unixOf(d.Observed)
		if done := d.Observed.Add(k.Timing.DSMargin() + k.Timing.DSTTL.Value); all && !k.Now.Before(done) {
			return &event.Spread{State: omnipresent, Since: unixOf(done)}
		}
		return &event.Spread{State: rumoured, Since: unixOf(d.Observed)}
	case told:
		return &event.Spread{State: rumoured, Since: unixOf(d.Since)}
	case slices.Contains(ks.asked(), id): // told in vain, and not any more
		return &event.Spread{State: unretentive, Since: unixOf(d.Since)}
	}
	sets, _ := d.cacheable(k.Now, k.Timing.DSMargin())
	for _, set := range sets {
		if hasDSOf(set.DS, []string{id}) {
			return &event.Spread{State: unretentive, Since: unixOf(d.Observed)}
		}
	}
	return &event.Spread{State: hidden, Since: l.Created}
}

// unixOf is a time in epoch seconds, 0 for the zero time.
func unixOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
