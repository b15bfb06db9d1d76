package signer

import (
	"bytes"
	"slices"
	"sort"
	"strings"
	"testing"

	"sluice/signer/zone"
)

// memAccess is Access over items in memory. What it hands out is overwritten
// by the next call, as the contract allows.
type memAccess struct {
	kinds map[zone.Kind][]zone.Item
	got   map[zone.Kind][]byte
	walks map[zone.Kind]*memWalk
	fail  int // fail the nth call; 0: never
	calls int
}

func newMemAccess(items ...memZone) *memAccess {
	a := &memAccess{kinds: map[zone.Kind][]zone.Item{}, got: map[zone.Kind][]byte{}, walks: map[zone.Kind]*memWalk{}}
	for _, m := range items {
		for key, value := range m {
			k := zone.Kind(key[0])
			a.kinds[k] = append(a.kinds[k], zone.Item{Key: []byte(key), Value: value})
		}
	}
	for _, list := range a.kinds {
		slices.SortFunc(list, func(x, y zone.Item) int { return bytes.Compare(x.Key, y.Key) })
	}
	return a
}

func (a *memAccess) step() error {
	if a.calls++; a.calls == a.fail {
		return errAccess
	}
	return nil
}

func (a *memAccess) at(key []byte) ([]zone.Item, int) {
	list := a.kinds[zone.Kind(key[0])]
	return list, sort.Search(len(list), func(i int) bool { return bytes.Compare(list[i].Key, key) >= 0 })
}

// lend gives a copy that the next call for the kind spoils.
func (a *memAccess) lend(kind zone.Kind, value []byte) []byte {
	for i := range a.got[kind] {
		a.got[kind][i] = 0xee
	}
	a.got[kind] = bytes.Clone(value)
	return a.got[kind]
}

func (a *memAccess) Get(key []byte) ([]byte, error) {
	if err := a.step(); err != nil {
		return nil, err
	}
	list, i := a.at(key)
	if i == len(list) || !bytes.Equal(list[i].Key, key) {
		return nil, nil
	}
	return a.lend(zone.Kind(key[0]), list[i].Value), nil
}

func (a *memAccess) Last(before []byte) (key, value []byte, err error) {
	if err := a.step(); err != nil {
		return nil, nil, err
	}
	list, i := a.at(before)
	if i == 0 {
		return nil, nil, nil
	}
	return bytes.Clone(list[i-1].Key), bytes.Clone(list[i-1].Value), nil
}

func (a *memAccess) Walk(from []byte) zone.Iterator {
	kind := zone.Kind(from[0])
	if old := a.walks[kind]; old != nil {
		old.ended = true
	}
	list, i := a.at(from)
	w := &memWalk{access: a, rest: list[i:]}
	a.walks[kind] = w
	return w
}

// memWalk fails the test's expectations where it is used after its end.
type memWalk struct {
	access     *memAccess
	rest       []zone.Item
	key, value []byte
	ended      bool
	err        error
}

func (w *memWalk) Next() bool {
	for i := range w.value {
		w.value[i] = 0xee
	}
	if w.ended {
		w.err = errEndedWalk
	} else if w.err == nil {
		w.err = w.access.step()
	}
	if w.err != nil || len(w.rest) == 0 {
		return false
	}
	w.key, w.value = bytes.Clone(w.rest[0].Key), bytes.Clone(w.rest[0].Value)
	w.rest = w.rest[1:]
	return true
}

func (w *memWalk) Key() []byte   { return w.key }
func (w *memWalk) Value() []byte { return w.value }
func (w *memWalk) Err() error    { return w.err }
func (w *memWalk) Close() error  { return nil }

// testError is an error that tests can tell.
type testError string

func (e testError) Error() string { return string(e) }

const (
	errAccess    = testError("access fails")
	errEndedWalk = testError("walk used after the next one began")
)

// changesOf walks the differences of two zones in some kinds.
func changesOf(before, after memZone, kinds ...zone.Kind) func(func(key, before, after []byte) error) error {
	return func(fn func(key, before, after []byte) error) error {
		for _, k := range kinds {
			if err := zone.DiffItems(before.kind(k), after.kind(k), fn); err != nil {
				return err
			}
		}
		return nil
	}
}

// updateInput is what Update needs to bring previous to contents.
func updateInput(t testing.TB, contents, previous memZone) UpdateInput {
	t.Helper()
	state := new(zone.SetHash)
	if err := state.LoadState(previous[string([]byte{byte(zone.KindDigest)})]); err != nil {
		t.Fatal(err)
	}
	return UpdateInput{
		Contents: newMemAccess(contents), Previous: newMemAccess(previous),
		Changes:      changesOf(previous, contents, zone.KindContents),
		ContentState: contents.contentState(t), SignedState: state, Spill: memSpill{},
	}
}

// apply is previous with new contents and what a run put.
func apply(contents, previous memZone) memZone {
	out := memZone{}
	for k, v := range previous {
		if zone.Kind(k[0]) != zone.KindContents {
			out[k] = v
		}
	}
	for k, v := range contents {
		if zone.Kind(k[0]) == zone.KindContents {
			out[k] = v
		}
	}
	return out
}

// mustUpdate updates a zone.
func mustUpdate(t testing.TB, contents, previous memZone, keys []Key, p Params) (memZone, *Result) {
	t.Helper()
	out := apply(contents, previous)
	res, err := Update(t.Context(), updateInput(t, contents, previous), keys, p, &orderSink{t, map[byte]string{}, out})
	if err != nil {
		t.Fatal(err)
	}
	return out, res
}

// zoneOf parses lines of a zone named example.
func zoneOf(t testing.TB, lines ...string) memZone {
	t.Helper()
	return parse(t, "example.", strings.Join(lines, "\n")+"\n")
}
