package store

import (
	order "cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/google/go-cmp/cmp"

	"sluice/signer/zone"
)

// validity is how long the signatures of the model are valid at most; blocks
// of the expiry index are then 64 seconds long.
const validity = 1 << 15

// expires is when the first signature of an item expires.
func expires(value string) int64 {
	first := int64(math.MaxInt64)
	for d := range zone.Value(value).Records() {
		first = min(first, int64(binary.BigEndian.Uint32(d[8:])))
	}
	return first
}

// expiries are those of all items with signatures.
func (in *instance) expiries() map[string]int64 {
	out := map[string]int64{}
	for k, v := range in.items {
		if isSigs(zone.Kind(k[0])) {
			out[k] = expires(v)
		}
	}
	return out
}

// refresh signs again, in a diff, what expires first.
func (m *model) refresh(p picker, diff, items map[string]string) {
	all := (&instance{items: items}).expiries()
	keys := slices.SortedFunc(maps.Keys(all), func(a, b string) int { return order.Or(order.Compare(all[a], all[b]), order.Compare(a, b)) })
	for _, k := range keys[:len(keys)/2] {
		diff[k] = m.value(p, zone.Kind(k[0]), 1, zone.TypeTXT)
		items[k] = diff[k]
	}
}

// checkDue: the expiry index has each item with signatures once, in the order
// that it promises.
func checkDue(tb tester, v *View, in *instance) {
	tb.Helper()
	got, last := map[string]int64{}, int64(0)
	var halfway []int64
	err := v.Due(func(key []byte, sigs zone.Value, at, floor int64) (bool, error) {
		if _, twice := got[string(key)]; twice || at < floor || floor < last || string(sigs) != in.items[string(key)] {
			return false, fmt.Errorf("item %x: twice %v, expires %d, floor %d after %d", key, twice, at, floor, last)
		}
		halfway = append(halfway, at)
		got[string(key)], last = at, floor
		return true, nil
	})
	if err != nil {
		tb.Fatal(err)
	}
	if d := cmp.Diff(in.expiries(), got); d != "" {
		tb.Fatalf("s%d: the expiry index differs:\n%s", in.seq, d)
	}
	if len(halfway) == 0 {
		return
	}
	slices.Sort(halfway)
	from := halfway[len(halfway)/2]
	want := maps.Clone(got)
	maps.DeleteFunc(want, func(_ string, at int64) bool { return at < from })
	err = v.DueFrom(from, func(key []byte, _ zone.Value, at, _ int64) (bool, error) {
		if at >= from && want[string(key)] != at {
			return false, fmt.Errorf("item %x from %d on: expires %d", key, from, at)
		}
		delete(want, string(key))
		return true, nil
	})
	if err != nil || len(want) > 0 {
		tb.Fatalf("s%d: from %d on the expiry index lacks %v: %v", in.seq, from, want, err)
	}
}

// checkDueEntry: an entry of the expiry index is read by an instance, or its
// time has not passed.
func checkDueEntry(k []byte, z uint32, used map[string]bool, floors map[uint64]int64) error {
	generation := binary.BigEndian.Uint64(k[5:])
	at, version := int64(binary.BigEndian.Uint64(k[dataPrefix:])), binary.BigEndian.Uint64(k[duePrefix+1:])
	floor, ok := floors[generation]
	switch form := k[duePrefix]; {
	case !ok:
		return fmt.Errorf("index entry %x belongs to no generation", k)
	case form == formSingle && !used[string(appendVersion(append(generationKey(z, generation), k[duePrefix+9:]...), version))]:
		return fmt.Errorf("index entry %x names nothing", k)
	case form != formSingle && at+1<<(form-formBlock) <= floor:
		return fmt.Errorf("index block %x has passed", k)
	}
	return nil
}
