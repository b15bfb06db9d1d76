package store

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

// Access gives what a model of whole maps has, whatever branches and versions
// stand in the store.
func TestAccess_EqualsModel(t *testing.T) {
	for seed := range 12 {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			p := newSeeded(seed + 500)
			s := openTest(t, vfs.NewMem(), Config{})
			defer func() { s.Close() }()
			m := newModel("example.", 2+p.pick(5))
			m.apply(t, s, m.events[0])
			for range 30 {
				held, err := s.Instances(m.id)
				if err != nil {
					t.Fatal(err)
				}
				m.step(p, held)
				m.apply(t, s, m.events[len(m.events)-1])
			}
			held, err := s.Instances(m.id)
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range held {
				m.checkAccess(t, p, s, m.instances[h.Seq])
			}
		})
	}
}

func (m *model) checkAccess(t *testing.T, p picker, s *Store, in *instance) {
	t.Helper()
	open, all := s.Loaded, maps.Clone(in.items)
	if in.signed {
		open = s.Signed
		maps.Copy(all, m.instances[in.loaded].items)
	}
	v, err := open(m.id, in.seq)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	a := v.Access()
	defer a.Close()
	sorted := slices.Sorted(maps.Keys(all))
	for range 60 {
		key := m.key(kinds[p.pick(len(kinds))], p.pick(m.names+2), []zone.Type{0, zone.TypeSOA, zone.TypeNS, zone.TypeTXT, 0xffff}[p.pick(5)])
		if got, err := a.Get([]byte(key)); err != nil || string(got) != all[key] || (got == nil) != (all[key] == "") {
			t.Fatalf("get %x: %x, %v; want %x", key, got, err, all[key])
		}
		if p.pick(3) == 0 {
			key = key[:1+p.pick(len(key))] // the beginning of a key
		}
		at, _ := slices.BinarySearch(sorted, key)
		want := ""
		if at > 0 && sorted[at-1][0] == key[0] {
			want = sorted[at-1]
		}
		k, value, err := a.Last([]byte(key))
		if err != nil || string(k) != want || string(value) != all[want] {
			t.Fatalf("last before %x: %x, %x, %v; want %x, %x", key, k, value, err, want, all[want])
		}
		it := a.Walk([]byte(key))
		for n := p.pick(20); it.Next(); n-- {
			if at == len(sorted) || string(it.Key()) != sorted[at] || string(it.Value()) != all[sorted[at]] {
				t.Fatalf("walk from %x: %x, %x", key, it.Key(), it.Value())
			}
			// Other reads do not disturb a walk.
			if _, err := a.Get([]byte(sorted[0])); err != nil {
				t.Fatal(err)
			}
			if at++; n == 0 {
				break
			}
		}
		if err := it.Err(); err != nil {
			t.Fatal(err)
		}
		if it.Key() == nil && at < len(sorted) && sorted[at][0] == key[0] {
			t.Fatalf("walk from %x ends before %x", key, sorted[at])
		}
	}
}

func TestAccess_KindsThatAnInstanceLacksAreEmpty(t *testing.T) {
	m, s := published(t)
	v, err := s.Loaded(m.id, m.instances[m.published].loaded)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	a := v.Access()
	for _, key := range []string{"", "\x7f", string([]byte{byte(zone.KindSigs)}), m.key(zone.KindMade, 0, zone.TypeSOA)} {
		value, err := a.Get([]byte(key))
		k, last, err2 := a.Last([]byte(key))
		it := a.Walk([]byte(key))
		if value != nil || k != nil || last != nil || it.Next() || errors.Join(err, err2, it.Err()) != nil {
			t.Errorf("key %x: %x, %x, %x, %v", key, value, k, last, errors.Join(err, err2, it.Err()))
		}
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if it := a.Walk([]byte(m.key(zone.KindContents, 0, zone.TypeSOA))); it.Next() {
		t.Error("closed access walks")
	}
}

// Updates that read a store make what signing anew makes, and their check
// finds nothing.
func TestAccess_CarriesUpdates(t *testing.T) {
	for seed, denial := range []signer.Denial{signer.NSEC, signer.NSEC3, signer.NSEC3OptOut} {
		t.Run(string(denial), func(t *testing.T) {
			u := &updated{
				model: newModel("example.", 1), t: t, p: newSeeded(seed), s: openTest(t, vfs.NewMem(), Config{}),
				keys: benchKeys(t), contents: sink{}, signed: sink{},
			}
			t.Cleanup(func() { // after the views
				if err := u.s.Close(); err != nil {
					t.Error(err)
				}
			})
			u.model.apply(t, u.s, u.events[0])
			now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
			u.params = signer.Params{
				Apex: u.apex, Inception: now, Expiration: now.Add(time.Hour), Denial: denial, DNSKEYTTL: 60, VerifyAll: true,
			}
			u.put(u.apex, zone.TypeSOA, append([]byte("\x02ns\x00\x04root\x00"), make([]byte, 20)...))
			u.put(u.apex, zone.TypeNS, []byte("\x02ns\x00"))
			for range 20 {
				u.step()
			}
		})
	}
}

// sink keeps the items that a run puts, deletions as empty values.
type sink map[string]string

func (s sink) Put(key, value []byte) error {
	s[string(key)] = string(value)
	return nil
}

func (s sink) items() []zone.Item {
	var items []zone.Item
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if k[0] != byte(zone.KindDigest) {
			items = append(items, zone.Item{Key: []byte(k), Value: []byte(s[k])})
		}
	}
	return items
}

// updated is a zone that changes, is signed and published in a store.
type updated struct {
	*model
	t                *testing.T
	p                picker
	s                *Store
	keys             []signer.Key
	params           signer.Params
	contents, signed sink
	loaded           uint64 // the last loaded instance
	last             uint64 // the last signed one
}

func (u *updated) put(owner zone.Name, typ zone.Type, rdata []byte) {
	u.contents[string(zone.AppendKey(nil, zone.KindContents, owner, typ))] = string(zone.AppendValue(nil, owner, 60, rdata))
}

// change changes some names.
func (u *updated) change() {
	for range 1 + u.p.pick(6) {
		owner := u.apex
		for range 1 + u.p.pick(3) {
			owner = zone.Name([]byte{1, byte('a' + u.p.pick(4))}) + owner
		}
		switch u.p.pick(6) {
		case 0:
			u.put(owner, zone.TypeNS, []byte("\x02ns\x00"))
		case 1:
			u.put(owner, zone.TypeNS, []byte("\x02ns\x00"))
			u.put(owner, zone.TypeDS, []byte{1, 2, 13, 2, 5})
		case 2, 3:
			u.put(owner, zone.TypeA, []byte{192, 0, 2, byte(u.p.pick(9))})
		default:
			for _, typ := range []zone.Type{zone.TypeNS, zone.TypeDS, zone.TypeA} {
				delete(u.contents, string(zone.AppendKey(nil, zone.KindContents, owner, typ)))
			}
		}
	}
}

// step makes a version of the zone: in full the first time, then by Update.
func (u *updated) step() {
	before := u.contents.items()
	u.change()
	u.params.Serial++
	var hasher zone.Hasher
	for _, it := range u.contents.items() {
		if err := hasher.AddContent(it.Key, it.Value); err != nil {
			u.t.Fatal(err)
		}
	}
	content, full, diff := &hasher.Set, sink{}, u.contents
	in := signer.Input{Contents: zone.Slice(u.contents.items()...), ContentState: content, Spill: fileSpill{u.t.TempDir()}}
	res, err := signer.Sign(u.t.Context(), in, u.keys, u.params, full)
	if err != nil {
		u.t.Fatal(err)
	}
	if u.loaded != 0 {
		diff = sink{}
		if err := zone.DiffItems(zone.Slice(before...), zone.Slice(u.contents.items()...), func(key, _, after []byte) error {
			return diff.Put(key, after)
		}); err != nil {
			u.t.Fatal(err)
		}
	}
	from := u.loaded
	u.loaded = u.take(&event.InstanceLoaded{Base: from, ContentDigest: content.Sum(), Manifest: u.manifest(u.next(), diff, content, 3)})
	diff = full
	if u.last != 0 {
		diff = u.update(from, content)
	}
	delete(diff, string([]byte{byte(zone.KindDigest)}))
	delete(full, string([]byte{byte(zone.KindDigest)}))
	base := u.last
	u.last = u.take(&event.InstanceSigned{
		Loaded: u.loaded, Base: base, Serial: uint32(u.params.Serial), ContentDigest: content.Sum(), SignedDigest: res.SignedSum,
		Manifest: u.manifest(u.next(), diff, res.SignedState, 3),
	})
	u.compare(full)
	if base != 0 {
		u.check(from, base, res)
	}
	u.take(&event.InstancePublished{Signed: u.last, Loaded: u.loaded})
}

func (u *updated) take(f event.Facts) uint64 {
	seq := u.add(u.id, f)
	u.model.apply(u.t, u.s, u.events[len(u.events)-1])
	return seq
}

// access opens random access to an instance until the test ends.
func (u *updated) access(open func(event.ZoneID, uint64) (*View, error), seq uint64) *Access {
	v, err := open(u.id, seq)
	if err != nil {
		u.t.Fatal(err)
	}
	a := v.Access()
	u.t.Cleanup(func() {
		if err := errors.Join(a.Close(), v.Close()); err != nil {
			u.t.Error(err)
		}
	})
	return a
}

// update is what Update makes of the last loaded instance.
func (u *updated) update(from uint64, content *zone.SetHash) sink {
	state, err := u.s.SignedState(u.id, u.last)
	if err != nil {
		u.t.Fatal(err)
	}
	out := sink{}
	_, err = signer.Update(u.t.Context(), signer.UpdateInput{
		Contents: u.access(u.s.Loaded, u.loaded), Previous: u.access(u.s.Signed, u.last),
		Changes:      func(fn func(key, before, after []byte) error) error { return u.changes(from, u.loaded, fn) },
		ContentState: content, SignedState: state, Spill: fileSpill{u.t.TempDir()},
	}, u.keys, u.params, out)
	if err != nil {
		u.t.Fatal(err)
	}
	return out
}

func (u *updated) changes(from, to uint64, fn func(key, before, after []byte) error) error {
	known, err := u.s.Changes(u.id, from, to, fn)
	if err == nil && !known {
		err = errors.New("the way is not known")
	}
	return err
}

// compare compares the last signed instance with one signed in full.
func (u *updated) compare(full sink) {
	got := sink{}
	for _, k := range kinds[1:] {
		it, err := u.s.Made(u.id, u.last, k)
		_, items := collect(u.t, it, err)
		maps.Copy(got, items)
	}
	if !maps.Equal(got, full) {
		u.t.Fatalf("s%d differs from full signing:\n%q\n%q", u.last, got, full)
	}
}

// check checks the changes from an earlier instance to the last one.
func (u *updated) check(loaded, signed uint64, res *signer.Result) {
	contents, err := u.s.ContentState(u.id, loaded)
	if err != nil {
		u.t.Fatal(err)
	}
	state, err := u.s.SignedState(u.id, signed)
	if err != nil {
		u.t.Fatal(err)
	}
	r, err := signer.CheckChanges(u.t.Context(), signer.CheckInput{
		Previous: u.access(u.s.Signed, signed), Signed: u.access(u.s.Signed, u.last),
		ContentState: contents, SignedState: state,
		Changes: func(fn func(key, before, after []byte) error) error {
			return errors.Join(u.changes(loaded, u.loaded, fn), u.changes(signed, u.last, fn))
		},
	}, signer.VerifyOptions{
		Apex: u.apex, At: u.params.Inception, Spill: fileSpill{u.t.TempDir()}, ContentSum: &res.ContentSum, SignedSum: &res.SignedSum,
	})
	if err != nil || !r.OK() {
		u.t.Fatal(err, r.Err())
	}
}

// fileSpill makes temporary files.
type fileSpill struct{ dir string }

type tempFile struct{ *os.File }

func (f tempFile) Close() error { return errors.Join(f.File.Close(), os.Remove(f.Name())) }

func (s fileSpill) Create() (zone.SpillFile, error) {
	f, err := os.CreateTemp(s.dir, "spill")
	return tempFile{f}, err
}

func benchKeys(b testing.TB) []signer.Key {
	b.Helper()
	var keys []signer.Key
	for i, flags := range []byte{1, 0} {
		scalar := bytes.Repeat([]byte{byte(i + 1)}, 32)
		priv, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar)
		if err != nil {
			b.Fatal(err)
		}
		point, err := priv.PublicKey.Bytes()
		if err != nil {
			b.Fatal(err)
		}
		keys = append(keys, signer.Key{
			DNSKEY: append([]byte{1, flags, 3, 13}, point[1:]...), Signer: priv,
			Published: true, SignsKeys: flags == 1, SignsZone: flags == 0,
		})
	}
	return keys
}
