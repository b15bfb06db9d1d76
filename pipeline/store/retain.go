package store

import (
	"slices"

	"sluice/signer/zone"
)

// Whole generations that were never published are bounded in number, so that
// a zone that is loaded again and again while nothing is published does not
// grow without end.
const (
	maxLoadedGenerations = 3
	maxSignedGenerations = 2
)

// retained says which instances stay readable once h is published: what is
// published, whatever is newer, and what a signed one of these was made of.
// An older instance stays too while some of these in its generation build on
// it and others do not, since it tells their entries apart.
func retained(all metas, h head) map[uint64]bool {
	keep := map[uint64]bool{}
	allowed := newest(all, true, maxSignedGenerations)
	if m := all.find(h.Signed); m != nil {
		allowed[m.Generation] = true
	}
	used := newest(all, false, maxLoadedGenerations)
	if m := all.find(h.Loaded); m != nil {
		used[m.Generation] = true
	}
	for _, m := range all {
		if m.Signed && m.Seq >= h.Signed && allowed[m.Generation] {
			keep[m.Seq], keep[m.Loaded] = true, true
			if l := all.find(m.Loaded); l != nil {
				used[l.Generation] = true
			}
		}
	}
	for _, m := range all {
		if !m.Signed && m.Seq >= h.Loaded && used[m.Generation] {
			keep[m.Seq] = true
		}
	}
	keepForks(all, keep)
	return keep
}

// newest are the newest generations of one sort.
func newest(all metas, signed bool, count int) map[uint64]bool {
	var found []uint64
	for _, m := range all {
		if m.Signed == signed {
			found = append(found, m.Generation)
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	out := map[uint64]bool{}
	for _, g := range found[max(0, len(found)-count):] {
		out[g] = true
	}
	return out
}

// keepForks adds the instances on which some but not all kept ones of their
// generation build.
func keepForks(all metas, keep map[uint64]bool) {
	kept := map[uint64]int{}     // by generation
	builders := map[uint64]int{} // by instance: kept ones that are it or build on it
	for i := len(all) - 1; i >= 0; i-- {
		m := all[i]
		if keep[m.Seq] {
			kept[m.Generation]++
			builders[m.Seq]++
		}
		if m.Base != 0 {
			builders[m.Base] += builders[m.Seq]
		}
	}
	for _, m := range all {
		if n := builders[m.Seq]; n > 0 && n < kept[m.Generation] {
			keep[m.Seq] = true
		}
	}
}

// walked are the instances of one generation whose changed keys may have
// entries that no kept instance reads: those dropped, those now published,
// and, where a branch is dropped, those that it did not see.
func walked(all, mates metas, keep map[uint64]bool, also metas) (walk metas) {
	in := map[uint64]bool{}
	for _, m := range also {
		in[m.Seq] = true
	}
	kept := mates[:0:0]
	for _, m := range mates {
		if keep[m.Seq] {
			kept = append(kept, m)
		} else {
			in[m.Seq] = true
		}
	}
	if len(kept) == 0 {
		return nil
	}
	line, _ := all.lineage(kept[0])
	for _, m := range mates {
		if keep[m.Seq] || slices.Contains(line, m) {
			continue
		}
		own, _ := all.lineage(m)
		for _, o := range mates {
			if !slices.Contains(own, o) {
				in[o.Seq] = true
			}
		}
	}
	for _, m := range mates {
		if in[m.Seq] {
			walk = append(walk, m)
		}
	}
	return walk
}

// generations are the instances by generation: loaded ones first, then
// signed ones, each in ascending order.
func (all metas) generations() (out []metas) {
	byNumber := map[uint64]int{}
	for _, m := range all {
		i, ok := byNumber[m.Generation]
		if !ok {
			i = len(out)
			byNumber[m.Generation] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], m)
	}
	slices.SortFunc(out, func(a, b metas) int {
		switch x, y := a[0], b[0]; {
		case x.Signed != y.Signed && y.Signed, x.Signed == y.Signed && x.Generation < y.Generation:
			return -1
		}
		return 1
	})
	return out
}

// sweep drops what is not kept: whole generations at once, else each entry
// that no kept instance reads. also are further instances to look through,
// and d, where not nil, takes the changes between what was published and
// what is now.
func (s *Store) sweep(e edit, z uint32, all metas, keep map[uint64]bool, also metas, d *differ) error {
	for _, mates := range all.generations() {
		if err := s.sweepGeneration(e, z, all, mates, keep, also, d); err != nil {
			return err
		}
	}
	for _, m := range all {
		if keep[m.Seq] {
			continue
		}
		if err := e.remove(laneMeta, metaSeqKey(z, tagInstance, m.Seq)); err != nil {
			return err
		}
		if err := e.remove(laneMeta, metaSeqKey(z, tagDigest, m.Seq)); err != nil {
			return err
		}
		if m.changed() == 0 {
			continue
		}
		if err := e.removeAll(listKey(z, m.Seq)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) sweepGeneration(e edit, z uint32, all, mates metas, keep map[uint64]bool, also metas, d *differ) (err error) {
	var kept []lens
	for _, m := range mates {
		if keep[m.Seq] {
			kept = append(kept, all.lens(m))
		}
	}
	generation := mates[0].Generation
	if len(kept) == 0 {
		return e.removeAll(generationKey(z, generation))
	}
	walk := walked(all, mates, keep, also)
	if len(walk) == 0 {
		return nil
	}
	r, err := s.entries(s.db, z, generation)
	if err != nil {
		return err
	}
	defer func() { err = r.closeWith(err) }()
	for _, kind := range mates[0].kinds() {
		err := s.eachChanged(s.db, z, walk, kind, func(key []byte) error {
			if err := r.seek(key); err != nil {
				return err
			}
			if err := r.dropUnread(e, laneData+lane(kindIndex(zone.Kind(key[0]))), kept); err != nil {
				return err
			}
			if d == nil {
				return nil
			}
			return d.visit(generation, key, r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}
