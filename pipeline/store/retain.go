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

// use is what an instance is kept for.
type use byte

const (
	unused use = iota
	// past: it cannot be read any more, but some instances of its generation
	// build on it and others do not, so it tells their entries apart.
	past
	readable
)

// retained says which instances stay readable once h is published: what is
// published, whatever is newer and not abandoned, and what a signed one of
// these was made of.
func retained(all metas, h head) map[uint64]use {
	keep := map[uint64]use{}
	allowed := newest(all, true, maxSignedGenerations)
	if m := all.find(h.Signed); m != nil {
		allowed[m.Generation] = true
	}
	used := newest(all, false, maxLoadedGenerations)
	if m := all.find(h.Loaded); m != nil {
		used[m.Generation] = true
	}
	for _, m := range all {
		if m.Signed && !m.Past && m.Seq >= h.Signed && allowed[m.Generation] && (!m.Abandoned || m.Seq == h.Signed) {
			keep[m.Seq], keep[m.Loaded] = readable, readable
			if l := all.find(m.Loaded); l != nil {
				used[l.Generation] = true
			}
		}
	}
	for _, m := range all {
		if !m.Signed && !m.Past && m.Seq >= h.Loaded && used[m.Generation] && (!m.Abandoned || m.Seq == h.Loaded) {
			keep[m.Seq] = readable
		}
	}
	keepForks(all, keep)
	return keep
}

// newest are the newest generations of one sort, and that of the newest
// instance.
func newest(all metas, signed bool, count int) map[uint64]bool {
	var found []uint64
	out := map[uint64]bool{}
	for _, m := range slices.Backward(all) {
		if m.Signed == signed {
			if len(found) == 0 {
				out[m.Generation] = true
			}
			found = append(found, m.Generation)
		}
	}
	slices.Sort(found)
	found = slices.Compact(found)
	for _, g := range found[max(0, len(found)-count):] {
		out[g] = true
	}
	return out
}

// keepForks adds the instances on which some but not all kept ones of their
// generation build.
func keepForks(all metas, keep map[uint64]use) {
	kept := map[uint64]int{}     // by generation
	builders := map[uint64]int{} // by instance: kept ones that are it or build on it
	for _, m := range slices.Backward(all) {
		if keep[m.Seq] == readable {
			kept[m.Generation]++
			builders[m.Seq]++
		}
		if m.Base != 0 {
			builders[m.Base] += builders[m.Seq]
		}
	}
	for _, m := range all {
		if n := builders[m.Seq]; n > 0 && n < kept[m.Generation] && keep[m.Seq] == unused {
			keep[m.Seq] = past
		}
	}
}

// walked are the instances of one generation whose changed keys may have
// entries that no readable instance reads any more: those that are none, those
// whose base is none, where a branch goes those that it did not see, and
// those of also.
func walked(all, mates metas, keep map[uint64]use, also metas) (walk metas) {
	in := map[uint64]bool{}
	for _, m := range also {
		in[m.Seq] = true
	}
	var first *InstanceMeta
	for _, m := range mates {
		if keep[m.Seq] != readable {
			in[m.Seq] = true
			continue
		}
		if first == nil {
			first = m
		}
		if keep[m.Base] != readable && all.find(m.Base) != nil {
			in[m.Seq] = true
		}
	}
	if first == nil {
		return nil
	}
	line, _ := all.lineage(first)
	for _, m := range mates {
		if keep[m.Seq] == readable || slices.Contains(line, m) {
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
func (s *Store) sweep(e edit, z uint32, all metas, keep map[uint64]use, also metas, d *differ) error {
	due := &dueCleaner{e: e, z: z}
	n := uint64(0)
	for _, mates := range all.generations() {
		for _, m := range walked(all, mates, keep, also) {
			n += m.changed()
		}
		for _, m := range mates {
			due.about = max(due.about, m.Expiration)
		}
	}
	due.off = n > manyDue
	for _, mates := range all.generations() {
		if err := s.sweepGeneration(e, z, all, mates, keep, also, d, due); err != nil {
			return err
		}
	}
	for _, m := range all {
		if err := s.retire(e, z, m, keep[m.Seq]); err != nil {
			return err
		}
	}
	return nil
}

// retire drops what the store knows of an instance that is not readable any
// more.
func (s *Store) retire(e edit, z uint32, m *InstanceMeta, u use) error {
	if u == readable || (u == past && m.Past) {
		return nil
	}
	if err := e.remove(laneMeta, metaSeqKey(z, tagDigest, m.Seq)); err != nil {
		return err
	}
	if u == past {
		gone := *m
		gone.Past = true
		return setJSON(e, metaSeqKey(z, tagInstance, m.Seq), gone)
	}
	if err := e.remove(laneMeta, metaSeqKey(z, tagInstance, m.Seq)); err != nil {
		return err
	}
	if m.changed() == 0 {
		return nil
	}
	return e.removeAll(listKey(z, m.Seq))
}

func (s *Store) sweepGeneration(e edit, z uint32, all, mates metas, keep map[uint64]use, also metas, d *differ, due *dueCleaner) (err error) {
	var readers, kept []lens // before and after
	for _, m := range mates {
		if !m.Past {
			readers = append(readers, all.lens(m))
		}
		if keep[m.Seq] == readable {
			kept = append(kept, all.lens(m))
		}
	}
	generation := mates[0].Generation
	if len(kept) == 0 {
		if err := e.removeAll(generationKey(z, generation)); err != nil || !mates[0].Signed {
			return err
		}
		return e.removeAll(dueKey(z, generation))
	}
	if !mates[0].Signed {
		due = nil // signatures that are passed through are not made again here
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
			if err := r.seek(key, readers); err != nil {
				return err
			}
			if err := r.dropUnread(e, laneData+lane(kindIndex(zone.Kind(key[0]))), kept, due); err != nil {
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
