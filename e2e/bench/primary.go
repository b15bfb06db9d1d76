package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"sluice/e2e/zonegen"
	"sluice/signer/zone"
	"sluice/xfr"
)

// content is the generated zone, in canonical order and in memory.
type content struct {
	apex  zone.Name
	items []zone.Item
	soa   zone.Item // with the serial of the zone file
	bytes int64
}

// noSpill refuses to leave memory, of which a measurement may take enough.
type noSpill struct{}

func (noSpill) Create() (zone.SpillFile, error) { return nil, errors.New("zone larger than memory") }

// loadContent reads a zone file, each item as a copy.
func loadContent(ctx context.Context, file, apex string) (*content, error) {
	name, err := zone.ParseName(apex)
	if err != nil {
		return nil, err
	}
	in, err := zone.Load(ctx, zone.LoadOptions{
		FS: os.DirFS(filepath.Dir(file)), File: filepath.Base(file), Origin: name,
		Spill: noSpill{}, Memory: 16 << 30, NoDigest: true,
	})
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // in memory
	c := &content{apex: name}
	soaKey := zone.AppendKey(nil, zone.KindContents, name, zone.TypeSOA)
	var arena []byte
	for in.Items.Next() {
		key, value := in.Items.Key(), in.Items.Value()
		if n := len(key) + len(value); cap(arena)-len(arena) < n {
			arena = make([]byte, 0, max(n, 1<<20))
		}
		at := len(arena)
		arena = append(append(arena, key...), value...)
		mid := at + len(key)
		item := zone.Item{Key: arena[at:mid:mid], Value: arena[mid:len(arena):len(arena)]}
		c.items = append(c.items, item)
		c.bytes += int64(len(key) + len(value))
		if bytes.Equal(key, soaKey) {
			c.soa = item
		}
	}
	if err := in.Items.Err(); err != nil {
		return nil, err
	}
	if c.soa.Value == nil {
		return nil, errors.New("zone without SOA")
	}
	return c, nil
}

// withSerial is the value of the zone's SOA with another serial.
func (c *content) withSerial(serial zone.Serial) []byte {
	v := bytes.Clone(c.soa.Value)
	binary.BigEndian.PutUint32(v[len(v)-20:], uint32(serial)) // the first of five numbers
	return v
}

// edit is a change of some RRsets, there and back.
type edit struct {
	after         []zone.Item // the changed RRsets; without a value where they go
	removed, come []zone.Item // the records that differ
	bytes         int64
}

// newEdit makes the edit that zonegen makes of the zone.
func newEdit(ctx context.Context, dir string, c zonegen.Config) (edit, error) {
	var both [2]*content
	var texts [2]bytes.Buffer
	if err := zonegen.WriteChanged(&texts[0], &texts[1], c); err != nil {
		return edit{}, err
	}
	for i := range texts {
		file := filepath.Join(dir, "edit")
		if err := os.WriteFile(file, texts[i].Bytes(), 0o644); err != nil {
			return edit{}, err
		}
		var err error
		if both[i], err = loadContent(ctx, file, c.Apex()); err != nil {
			return edit{}, err
		}
	}
	var e edit
	err := zone.DiffItems(zone.Slice(both[0].items...), zone.Slice(both[1].items...), func(key, before, after []byte) error {
		if bytes.Equal(key, both[0].soa.Key) {
			return nil
		}
		e.after = append(e.after, zone.Item{Key: key, Value: after})
		if gone := without(before, after); gone != nil {
			e.removed = append(e.removed, zone.Item{Key: key, Value: gone})
		}
		if came := without(after, before); came != nil {
			e.come = append(e.come, zone.Item{Key: key, Value: came})
		}
		e.bytes += int64(2*len(key) + len(before) + len(after))
		return nil
	})
	return e, err
}

// without is the records of an RRset that another one of the same TTL lacks;
// nil for none.
func without(of, other zone.Value) zone.Value {
	if of == nil || other == nil {
		return of
	}
	var left [][]byte
	for one := range of.Records() {
		if !slices.ContainsFunc(slices.Collect(other.Records()), func(two []byte) bool { return bytes.Equal(one, two) }) {
			left = append(left, one)
		}
	}
	if left == nil {
		return nil
	}
	return zone.AppendValue(nil, zone.Name(of.Owner()), of.TTL(), left...)
}

// primary serves a zone whose edits come and go.
type primary struct {
	*content
	client *xfr.Client
	addr   netip.AddrPort
	stop   func() error

	mu  sync.Mutex
	now *version // guarded by mu
}

// startPrimary serves the zone on a free port until stop.
func startPrimary(c *content) (*primary, error) {
	p := &primary{content: c, client: xfr.NewClient(xfr.ClientConfig{})}
	soa := c.soa.Value
	p.now = &version{content: c, serial: zone.Serial(binary.BigEndian.Uint32(soa[len(soa)-20:])), soaValue: soa}
	server, err := xfr.NewServer(xfr.Config{Source: p})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	if p.addr, err = server.Listen(ctx, "127.0.0.1:0"); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	p.stop = func() error {
		cancel()
		return <-ended
	}
	return p, nil
}

// View implements xfr.Source.
func (p *primary) View(name zone.Name) (xfr.View, error) {
	if !name.Equal(p.apex) {
		return nil, xfr.ErrUnknownZone
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now, nil
}

// change makes a new version: the generated zone with the edit, or, where that
// is there already, the generated zone again.
func (p *primary) change(e *edit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := p.now
	next := &version{content: p.content, serial: was.serial + 1, soaValue: p.withSerial(was.serial + 1)}
	s := step{
		from: was.serial, to: next.serial, fromSOA: was.soaValue, toSOA: next.soaValue,
		removed: e.removed, added: e.come, bytes: e.bytes,
	}
	if was.edit == nil {
		next.edit = e
	} else {
		s.removed, s.added = s.added, s.removed
	}
	const kept = 16
	next.steps = append(slices.Clone(was.steps[max(0, len(was.steps)-kept):]), s)
	p.now = next
}

// notify tells a server of the present version.
func (p *primary) notify(ctx context.Context, addr netip.AddrPort) error {
	p.mu.Lock()
	soa := p.now.soaValue
	p.mu.Unlock()
	return p.client.Notify(ctx, xfr.Endpoint{Addr: addr}, p.apex, soa)
}

// version is one version of the primary's zone. It implements xfr.View and is
// never changed.
type version struct {
	*content
	serial   zone.Serial
	soaValue []byte
	edit     *edit // nil: the zone as generated
	steps    []step
}

func (v *version) Apex() zone.Name              { return v.apex }
func (v *version) Serial() zone.Serial          { return v.serial }
func (v *version) SOA() (key, value []byte)     { return v.soa.Key, v.soaValue }
func (v *version) SOASigs() (key, value []byte) { return nil, nil }
func (v *version) Bytes() int64                 { return v.bytes }
func (v *version) Allows(xfr.Peer) bool         { return true }
func (v *version) Close() error                 { return nil }

// Items walks the generated zone, with the edit over it.
func (v *version) Items() (zone.Iterator, error) {
	w := &overlaid{base: v.items}
	if v.edit != nil {
		w.over = v.edit.after
	}
	return w, nil
}

// Diffs is the way from one of the last versions.
func (v *version) Diffs(from zone.Serial) ([]xfr.Diff, bool) {
	if from == v.serial {
		return nil, true
	}
	at := slices.IndexFunc(v.steps, func(s step) bool { return s.from == from })
	if at < 0 {
		return nil, false
	}
	var out []xfr.Diff
	for _, s := range v.steps[at:] {
		out = append(out, s)
	}
	return out, true
}

// step leads from one version to the next. It implements xfr.Diff.
type step struct {
	from, to       zone.Serial
	fromSOA, toSOA []byte
	removed, added []zone.Item
	bytes          int64
}

func (s step) From() zone.Serial               { return s.from }
func (s step) To() zone.Serial                 { return s.to }
func (s step) FromSOA() []byte                 { return s.fromSOA }
func (s step) ToSOA() []byte                   { return s.toSOA }
func (s step) Removed() (zone.Iterator, error) { return zone.Slice(s.removed...), nil }
func (s step) Added() (zone.Iterator, error)   { return zone.Slice(s.added...), nil }
func (s step) Bytes() int64                    { return s.bytes }

// overlaid walks items with others over them, of which those without a value
// hide and are not there.
type overlaid struct {
	base, over []zone.Item
	now        zone.Item
}

func (w *overlaid) Next() bool {
	for len(w.base)+len(w.over) > 0 {
		c := -1
		switch {
		case len(w.base) == 0:
			c = 1
		case len(w.over) > 0:
			c = bytes.Compare(w.base[0].Key, w.over[0].Key)
		}
		if c < 0 {
			w.now, w.base = w.base[0], w.base[1:]
			return true
		}
		w.now, w.over = w.over[0], w.over[1:]
		if c == 0 {
			w.base = w.base[1:]
		}
		if w.now.Value != nil {
			return true
		}
	}
	w.now = zone.Item{}
	return false
}

func (w *overlaid) Key() []byte   { return w.now.Key }
func (w *overlaid) Value() []byte { return w.now.Value }
func (w *overlaid) Err() error    { return nil }
func (w *overlaid) Close() error  { return nil }
