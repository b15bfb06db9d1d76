package signer

import (
	"fmt"
	"maps"
	"sync"
	"testing"

	"sluice/signer/zone"
)

// benchAccess is Access over sorted items; it lends what it has.
type benchAccess struct{ memAccess }

func (a *benchAccess) Get(key []byte) ([]byte, error) {
	list, i := a.at(key)
	if i == len(list) || string(list[i].Key) != string(key) {
		return nil, nil
	}
	return list[i].Value, nil
}

func (a *benchAccess) Last(before []byte) (key, value []byte, err error) {
	list, i := a.at(before)
	if i == 0 {
		return nil, nil, nil
	}
	return list[i-1].Key, list[i-1].Value, nil
}

func (a *benchAccess) Walk(from []byte) zone.Iterator {
	list, i := a.at(from)
	return zone.Slice(list[i:]...)
}

// benchUpdate is a signed zone of delegations and what updates it needs.
type benchUpdate struct {
	items    []zone.Item // contents
	signed   memZone
	previous *benchAccess
	state    *zone.SetHash
	signedBy *zone.SetHash
}

func newBenchUpdate(b *testing.B, n int, denial Denial, constant bool) *benchUpdate {
	b.Helper()
	u := &benchUpdate{signed: memZone{}}
	u.items, u.state = delegations(b, n)
	p := testParams("tld.", denial)
	p.VerifyAll = false
	for _, it := range u.items {
		u.signed[string(it.Key)] = it.Value
	}
	keys := testKeys(b, algP256)
	for i := range keys {
		if constant {
			keys[i].Signer = constantKey{keys[i].Signer}
		}
	}
	in := Input{Contents: zone.Slice(u.items...), ContentState: u.state, Spill: memSpill{}}
	r, err := newRun(in, keys, p)
	if err != nil {
		b.Fatal(err)
	}
	if r.every = 1 << 40; constant {
		r.always = 0
	}
	res, err := r.sign(b.Context(), in, u.signed)
	if err != nil {
		b.Fatal(err)
	}
	u.signedBy = res.SignedState
	u.previous = &benchAccess{*newMemAccess(u.signed)}
	return u
}

// change gives the contents with another DS RRset, or one less, at k names.
func (u *benchUpdate) change(k int, drop bool) (*benchAccess, func(func(key, before, after []byte) error) error) {
	type change struct{ key, before, after []byte }
	var changes []change
	items := make([]zone.Item, 0, len(u.items))
	every := max(len(u.items)/(4*k), 1)
	next := len(u.items) / 7 % every
	for i, it := range u.items {
		if len(changes) < k && i >= next && it.Key[len(it.Key)-1] == byte(zone.TypeDS) && it.Key[len(it.Key)-2] == 0 {
			next = i + every
			c := change{key: it.Key, before: it.Value}
			if !drop {
				c.after = append([]byte(nil), it.Value...)
				c.after[len(c.after)-1] ^= 1
				items = append(items, zone.Item{Key: it.Key, Value: c.after})
			}
			changes = append(changes, c)
			continue
		}
		items = append(items, it)
	}
	a := &benchAccess{memAccess{kinds: map[zone.Kind][]zone.Item{zone.KindContents: items}}}
	return a, func(fn func(key, before, after []byte) error) error {
		for _, c := range changes {
			if err := fn(c.key, c.before, c.after); err != nil {
				return err
			}
		}
		return nil
	}
}

func benchmarkUpdate(b *testing.B, u *benchUpdate, denial Denial, k int, drop, constant bool) {
	contents, changes := u.change(k, drop)
	keys := testKeys(b, algP256)
	if constant {
		for i := range keys {
			keys[i].Signer = constantKey{keys[i].Signer}
		}
	}
	p := testParams("tld.", denial)
	p.VerifyAll = false
	p.Serial = 7
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		run, err := newUpdate(UpdateInput{
			Contents: contents, Previous: u.previous, Changes: changes,
			ContentState: u.state, SignedState: u.signedBy, Spill: memSpill{},
		}, keys, p)
		if err != nil {
			b.Fatal(err)
		}
		if constant {
			run.run.always, run.run.every = 0, 1<<40
		}
		if _, err := run.sign(b.Context(), &countSink{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkUpdate changes DS RRsets of a zone with 100,000 delegations.
func BenchmarkUpdate(b *testing.B) {
	for _, denial := range []Denial{NSEC, NSEC3OptOut} {
		var once sync.Once
		var u *benchUpdate
		for _, k := range []int{1, 100, 10_000} {
			for _, drop := range []bool{false, true} {
				for _, constant := range []bool{false, true} {
					name := fmt.Sprintf("%s/%d", denial, k)
					if drop {
						name += "-drop"
					}
					if constant {
						name += "-constant-key"
					}
					b.Run(name, func(b *testing.B) {
						once.Do(func() { u = newBenchUpdate(b, 100_000, denial, true) })
						benchmarkUpdate(b, u, denial, k, drop, constant)
					})
				}
			}
		}
	}
}

// BenchmarkCheckChanges checks what updates of a zone with 100,000 delegations
// made.
func BenchmarkCheckChanges(b *testing.B) {
	for _, denial := range []Denial{NSEC, NSEC3OptOut} {
		var once sync.Once
		var u *benchUpdate
		for _, k := range []int{1, 100, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", denial, k), func(b *testing.B) {
				once.Do(func() { u = newBenchUpdate(b, 100_000, denial, false) })
				benchmarkCheck(b, u, denial, k)
			})
		}
	}
}

func benchmarkCheck(b *testing.B, u *benchUpdate, denial Denial, k int) {
	contents, changes := u.change(k, true)
	p := testParams("tld.", denial)
	p.VerifyAll, p.Serial = false, 7
	put := memZone{}
	in := UpdateInput{
		Contents: contents, Previous: u.previous, Changes: changes,
		ContentState: u.state, SignedState: u.signedBy, Spill: memSpill{},
	}
	diff := &diffSink{memZone: put}
	res, err := Update(b.Context(), in, testKeys(b, algP256), p, diff)
	if err != nil {
		b.Fatal(err)
	}
	signed := apply(u.signed, u.signed)
	for _, key := range diff.gone {
		delete(signed, key)
	}
	maps.Copy(signed, put)
	now := &benchAccess{*newMemAccess(signed)}
	now.kinds[zone.KindContents] = contents.kinds[zone.KindContents]
	check := CheckInput{
		Previous: u.previous, Signed: now, SignedState: u.signedBy,
		Changes: func(fn func(key, before, after []byte) error) error {
			if err := changes(fn); err != nil {
				return err
			}
			for _, key := range append(put.keys(), diff.gone...) {
				if zone.Kind(key[0]) == zone.KindDigest {
					continue
				}
				if err := fn([]byte(key), u.signed[key], put[key]); err != nil {
					return err
				}
			}
			return nil
		},
	}
	o := VerifyOptions{Apex: p.Apex, At: testTime(), Every: 512, Spill: memSpill{}, SignedSum: &res.SignedSum}
	b.ReportAllocs()
	b.ResetTimer()
	for b.Loop() {
		r, err := CheckChanges(b.Context(), check, o)
		if err != nil || !r.OK() {
			b.Fatal(err, r.Err())
		}
	}
}

// diffSink keeps what a diff deletes beside what it puts.
type diffSink struct {
	memZone
	gone []string
}

func (s *diffSink) Put(key, value []byte) error {
	if len(value) == 0 {
		s.gone = append(s.gone, string(key))
	}
	return s.memZone.Put(key, value)
}
