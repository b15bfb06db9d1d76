package keymgr

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"sluice/journal/event"
)

// MayBecome is the hard stop: it judges what changes of keys lead to, before
// they are recorded. Every DS RRset that a cache may hold needs a key that
// signs the DNSKEY RRset, and each of its algorithms must sign all (RFC 4035,
// 2.2), as must each of the DNSKEY RRset that did. What the parent was told to
// have counts too: it may have that by now.
func (ks KeySet) MayBecome(changes []event.Facts, k Known) error {
	after := ks
	for _, f := range changes {
		after = Evolve(after, event.Event{Time: k.Now, Facts: f})
	}
	if slices.Equal(ids(ks.Signing()), ids(after.Signing())) && slices.Equal(ids(ks.Published()), ids(after.Published())) {
		return nil
	}
	if k.Timing.blind {
		return nil
	}
	for _, a := range ks.Algorithms() {
		if !after.signsWith(a) && slices.ContainsFunc(after.Published(), func(k Key) bool { return k.Algorithm == a }) {
			return fmt.Errorf("the DNSKEY RRset would keep keys of algorithm %d, with which not all would be signed any more", a)
		}
	}
	return after.holds(k)
}

// holds reports whether the keys of the set carry every DS RRset that a cache
// may hold, and every signature that is published.
func (ks KeySet) holds(k Known) error {
	if err := ks.keepsSignatures(k); err != nil {
		return err
	}
	sets, _ := ks.DS.cacheable(k.Now, k.Timing.DSMargin())
	if asked := ks.asked(); len(asked) > 0 {
		told := event.DSSet{}
		for _, id := range asked {
			if key, ok := ks.ByID(id); ok {
				told.DS = append(told.DS, event.DS{Tag: key.Tag, Algorithm: key.Algorithm, Key: id})
			}
		}
		sets = append(sets, told)
	}
	for _, set := range sets {
		if err := ks.carries(set); err != nil {
			return err
		}
	}
	return nil
}

// keepsSignatures reports whether all that is published keeps a signature by a
// key that is published. Where the parent has no DS, and was not told to have
// one, nobody validates it.
func (ks KeySet) keepsSignatures(k Known) error {
	sets, known := ks.DS.cacheable(k.Now, k.Timing.DSMargin())
	if known && !ks.MayGetDS() && !slices.ContainsFunc(sets, func(s event.DSSet) bool { return len(s.DS) > 0 }) {
		return nil
	}
	for _, set := range k.Served.Sets {
		if len(ks.only(set, (*Key).InRRset)) == 0 {
			return fmt.Errorf("signatures by key %s alone are published still (%d RRsets are left): wait until they are replaced, "+
				"or have that done at once: sluice zone resign --full", strings.Join(set, ", "), k.Served.Left)
		}
	}
	return nil
}

// carries reports whether the keys of the set carry one DS RRset.
func (ks KeySet) carries(set event.DSSet) error {
	if len(set.DS) == 0 {
		return nil
	}
	trusted := slices.ContainsFunc(set.DS, func(d event.DS) bool {
		key, ok := ks.ByID(d.Key)
		return ok && key.InRRset() && key.Signs() && key.SignsKeys()
	})
	if !trusted {
		return fmt.Errorf("caches may hold a DS RRset (tags %s) that none of the keys left would match", tagsOf(set.DS))
	}
	for _, d := range set.DS {
		var keys, zone bool
		for _, key := range ks.Signing() {
			if key.Algorithm == d.Algorithm {
				keys, zone = keys || key.SignsKeys() && key.InRRset(), zone || key.SignsZone()
			}
		}
		if !keys || !zone {
			return fmt.Errorf("caches may hold a DS of algorithm %d (tag %d), with which nothing would be signed any more: "+
				"have it removed at the parent, or wait until its TTL has run out", d.Algorithm, d.Tag)
		}
	}
	return ks.carriesOthers()
}

func tagsOf(records []event.DS) string {
	tags := make([]string, 0, len(records))
	for _, d := range records {
		tags = append(tags, strconv.Itoa(int(d.Tag)))
	}
	return strings.Join(tags, ", ")
}
