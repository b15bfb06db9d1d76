// Package world is a model of what validators anywhere may hold of a zone: its
// public servers and its parent's, sites behind them that nobody observes and
// that are late, and all caches. It knows no rollover: what is published is told
// to it, time is let pass, and it says whether a validator may hold together
// what does not validate.
package world

import (
	"slices"
	"time"
)

// Key is one key as validators know it.
type Key struct {
	ID        string
	Algorithm uint8
	SignsKeys bool // its role is to sign the DNSKEY RRset
	SignsZone bool // its role is to sign everything else
}

// Version is a zone as it was published at a time.
type Version struct {
	Published []Key // in the DNSKEY RRset
	// Signers made the signatures. Where some RRsets are signed by others than
	// the rest, Mixed has those of each sort in place of Signers; the DNSKEY
	// RRset is signed by all Signers whose role that is.
	Signers        []Key
	Mixed          [][]Key
	Serial         uint32
	KeyTTL, SigTTL time.Duration // of the DNSKEY RRset, and the largest of the zone

	last time.Time // when a site handed it out last
}

// DSSet is a DS RRset of the parent.
type DSSet struct {
	Keys []Key // that it stands for; none: the zone is insecure
	TTL  time.Duration

	last time.Time
}

// Outage is a time in which a server takes nothing new and does not answer who
// observes it, though validators may still reach it. It hands out what it has
// for as long as Expire; zero is without end. The site behind it is no later than
// it ever is: it still takes what the server had shown before.
type Outage struct {
	From, Until time.Time
	Expire      time.Duration
}

// site is an observed server and the late one behind it: the version that each
// has, and when it takes the next one.
type site struct {
	shown, late int
	next        []arrival
	outages     []Outage
}

type arrival struct {
	version    int
	shown, all time.Time
}

// World is the model. It is not safe for concurrent use.
type World struct {
	now      time.Time
	versions []Version
	sets     []DSSet
	zone     []site
	parent   []site
	// What a cache may hold now: indexes of versions and sets.
	live, liveDS []int
	elsewhere    []Version // what another signer of the zone hands out
}

// New is a world in which all servers show one version and one DS RRset.
func New(now time.Time, servers, parents int, v Version, d DSSet) *World {
	v.last, d.last = now, now
	return &World{
		now: now, versions: []Version{v}, sets: []DSSet{d}, zone: make([]site, servers), parent: make([]site, parents),
		live: []int{0}, liveDS: []int{0},
	}
}

// Now is up to when time has passed.
func (w *World) Now() time.Time { return w.now }

// Lag is how long a version takes to a server, and from there to the late site
// behind it.
type Lag struct{ Shown, Late time.Duration }

// Publish makes a version the newest. lag says how late each server is; none
// overtakes an earlier version.
func (w *World) Publish(v Version, lag func(server int) Lag) {
	v.last = time.Time{}
	w.versions = append(w.versions, v)
	w.live = append(w.live, len(w.versions)-1)
	for i := range w.zone {
		w.zone[i].take(len(w.versions)-1, w.now, lag(i))
	}
}

// Elsewhere is a version that another signer of the zone makes (RFC 8901), on
// servers that the model does not have; its number is for HandOut.
func (w *World) Elsewhere(v Version) (number int) {
	v.last = time.Time{}
	w.elsewhere = append(w.elsewhere, v)
	return len(w.elsewhere) - 1
}

// HandOut notes that such a version was handed out at a time.
func (w *World) HandOut(number int, at time.Time) {
	w.elsewhere[number].last = later(w.elsewhere[number].last, at)
}

// SetDS gives the parent another DS RRset.
func (w *World) SetDS(d DSSet, lag func(server int) Lag) {
	d.last = time.Time{}
	w.sets = append(w.sets, d)
	w.liveDS = append(w.liveDS, len(w.sets)-1)
	for i := range w.parent {
		w.parent[i].take(len(w.sets)-1, w.now, lag(i))
	}
}

// Fail plans an outage of a server of the zone, before what it holds up.
func (w *World) Fail(server int, o Outage) {
	w.zone[server].outages = append(w.zone[server].outages, o)
}

// FailParent plans an outage of a server of the parent.
func (w *World) FailParent(server int, o Outage) {
	w.parent[server].outages = append(w.parent[server].outages, o)
}

// Newest is the number of the version that was published last, from 0 in the
// order of publication.
func (w *World) Newest() int { return len(w.versions) - 1 }

// Shown is the number of the version that a server of the zone shows.
func (w *World) Shown(server int) int { return w.zone[server].shown }

// Version is a version by its number.
func (w *World) Version(number int) Version { return w.versions[number] }

// NewestDS is the number of the parent's newest DS RRset, from 0.
func (w *World) NewestDS() int { return len(w.sets) - 1 }

// ShownDS is the number of the DS RRset that a server of the parent shows.
func (w *World) ShownDS(server int) int { return w.parent[server].shown }

// DS is a DS RRset by its number.
func (w *World) DS(number int) DSSet { return w.sets[number] }

// Down reports since when a server of the zone does not answer who observes
// it; zero where it does.
func (w *World) Down(server int) time.Time { return w.zone[server].down(w.now) }

// DownParent is Down of a server of the parent.
func (w *World) DownParent(server int) time.Time { return w.parent[server].down(w.now) }

// Next is when a server or site takes the next version, zero for never: at
// these times alone something new can be held together.
func (w *World) Next() time.Time {
	var next time.Time
	for _, sites := range [][]site{w.zone, w.parent} {
		for i := range sites {
			for _, a := range sites[i].next {
				for _, at := range []time.Time{a.shown, a.all} {
					if at.After(w.now) && (next.IsZero() || at.Before(next)) {
						next = at
					}
				}
			}
		}
	}
	return next
}

// Pass lets time pass: versions arrive, and what is handed out until then is
// noted. Where Bogus is to find all, it is asked at each time that Next says.
func (w *World) Pass(to time.Time) {
	w.now = to
	for i := range w.zone {
		w.zone[i].pass(to, func(v int, at time.Time) { w.versions[v].last = later(w.versions[v].last, at) })
	}
	for i := range w.parent {
		w.parent[i].pass(to, func(v int, at time.Time) { w.sets[v].last = later(w.sets[v].last, at) })
	}
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// take plans that the site takes a version.
func (s *site) take(version int, now time.Time, lag Lag) {
	at := s.up(now.Add(lag.Shown))
	if n := len(s.next); n > 0 && at.Before(s.next[n-1].shown) {
		at = s.next[n-1].shown
	}
	all := at.Add(lag.Late)
	if n := len(s.next); n > 0 && all.Before(s.next[n-1].all) {
		all = s.next[n-1].all
	}
	s.next = append(s.next, arrival{version, at, all})
}

// up is when a server can take what would reach it at a time.
func (s *site) up(at time.Time) time.Time {
	for _, o := range s.outages {
		if !at.Before(o.From) && at.Before(o.Until) {
			at = o.Until
		}
	}
	return at
}

func (s *site) down(now time.Time) time.Time {
	for _, o := range s.outages {
		if !now.Before(o.From) && now.Before(o.Until) {
			return o.From
		}
	}
	return time.Time{}
}

// spoke is when a site handed out something last before a time.
func (s *site) spoke(at time.Time) time.Time {
	for _, o := range s.outages {
		if end := o.From.Add(o.Expire); o.Expire > 0 && at.After(end) && !at.After(o.Until) {
			return end
		}
	}
	return at
}

func (s *site) pass(now time.Time, handed func(version int, at time.Time)) {
	kept := s.next[:0]
	for _, a := range s.next {
		if !now.Before(a.shown) && s.shown < a.version {
			handed(s.shown, s.spoke(a.shown))
			handed(a.version, a.shown)
			s.shown = a.version
		}
		if !now.Before(a.all) && s.late < a.version {
			handed(s.late, s.spoke(a.all))
			handed(a.version, a.all)
			s.late = a.version
		}
		if now.Before(a.all) {
			kept = append(kept, a)
		}
	}
	s.next = kept
	handed(s.shown, s.spoke(now))
	handed(s.late, s.spoke(now))
}

// held lists what a cache may hold now, of all that is not known to be over,
// and forgets what is.
func (w *World) held() (sets []int, keys, data []*Version) {
	shown := func(sites []site, i int) bool {
		return slices.ContainsFunc(sites, func(s site) bool {
			return s.shown == i || s.late == i || slices.ContainsFunc(s.next, func(a arrival) bool { return a.version == i })
		})
	}
	w.live = slices.DeleteFunc(w.live, func(i int) bool {
		v := &w.versions[i]
		inKeys, inData := w.now.Before(v.last.Add(v.KeyTTL)), w.now.Before(v.last.Add(v.SigTTL))
		if inKeys {
			keys = append(keys, v)
		}
		if inData {
			data = append(data, v)
		}
		return !inKeys && !inData && i < len(w.versions)-1 && !shown(w.zone, i)
	})
	for i := range w.elsewhere {
		v := &w.elsewhere[i]
		if w.now.Before(v.last.Add(v.KeyTTL)) {
			keys = append(keys, v)
		}
		if w.now.Before(v.last.Add(v.SigTTL)) {
			data = append(data, v)
		}
	}
	w.liveDS = slices.DeleteFunc(w.liveDS, func(i int) bool {
		held := w.now.Before(w.sets[i].last.Add(w.sets[i].TTL))
		if held {
			sets = append(sets, i)
		}
		return !held && i < len(w.sets)-1 && !shown(w.parent, i)
	})
	return sets, keys, data
}
