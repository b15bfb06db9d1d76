package pipeline

import (
	"encoding/binary"
	"fmt"
	"iter"
	"path/filepath"
	"strings"
	"time"

	"sluice/signer/zone"
	"sluice/xfr"
)

// ParseSource reads the source of a zone: servers in order of preference,
// separated by commas or spaces, each as xfr.ParseEndpoint reads it; or a file
// path, for which it returns nil. A path is told from a server by its first
// word: ./192.0.2.1 is a file.
func ParseSource(source string) ([]xfr.Endpoint, error) {
	if !IsTransfer(source) {
		return nil, nil
	}
	var servers []xfr.Endpoint
	for _, word := range sourceWords(source) {
		ep, err := xfr.ParseEndpoint(word)
		if err != nil {
			return nil, fmt.Errorf("source: %w", err)
		}
		servers = append(servers, ep)
	}
	if len(servers) > maxServers {
		return nil, fmt.Errorf("source: %d servers, at most %d are asked", len(servers), maxServers)
	}
	return servers, nil
}

// maxServers bounds the servers of one source.
const maxServers = 16

func sourceWords(source string) []string {
	return strings.FieldsFunc(source, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
}

// IsTransfer reports whether a source names servers.
func IsTransfer(source string) bool {
	if strings.HasPrefix(source, "/") || IsUpdateSource(source) {
		return false
	}
	words := sourceWords(source)
	if len(words) == 0 {
		return false
	}
	if strings.HasPrefix(words[0], "tls://") {
		return true
	}
	where, _, _ := strings.Cut(words[0], "^")
	where, _, _ = strings.Cut(where, "#")
	_, err := xfr.ParseEndpoint(where)
	return err == nil
}

// CanonicalSource is a source as events write it: servers in full and
// separated by commas, the absolute path of a file, or update: with the names of
// name servers in full.
func CanonicalSource(source string) (string, error) {
	if IsUpdateSource(source) {
		return canonicalUpdateSource(source)
	}
	servers, err := ParseSource(source)
	if err != nil {
		return "", err
	}
	if servers == nil {
		return filepath.Abs(source)
	}
	words := make([]string, 0, len(servers))
	for _, ep := range servers {
		words = append(words, ep.String())
	}
	return strings.Join(words, ","), nil
}

// soaTimers is how often a zone's servers are asked, from its SOA (RFC 1035,
// 3.3.13).
type soaTimers struct {
	refresh, retry, expire time.Duration
}

// The bounds of what an SOA may ask for.
const (
	minRefresh = 10 * time.Second
	minRetry   = 5 * time.Second
	maxRefresh = 4 * week
	maxRetry   = week
)

// timersOf reads the timers of the value of an SOA RRset.
func timersOf(soa zone.Value) soaTimers {
	t := soaTimers{refresh: time.Hour, retry: 10 * time.Minute, expire: 2 * week}
	for data := range recordsOf(soa) {
		if len(data) < 20 {
			break
		}
		field := func(at int) time.Duration {
			return time.Duration(binary.BigEndian.Uint32(data[len(data)-at:])) * time.Second
		}
		t = soaTimers{refresh: field(16), retry: field(12), expire: field(8)}
	}
	t.refresh = min(max(t.refresh, minRefresh), maxRefresh)
	t.retry = min(max(t.retry, minRetry), maxRetry)
	// A zone that expires before it was asked for again twice cannot be kept.
	t.expire = max(t.expire, t.refresh+t.retry)
	return t
}

// serialOf is the serial of the value of an SOA RRset, 0 where there is none.
func serialOf(soa zone.Value) zone.Serial {
	for data := range recordsOf(soa) {
		if len(data) >= 20 {
			return zone.Serial(binary.BigEndian.Uint32(data[len(data)-20:]))
		}
	}
	return 0
}

// recordsOf is v.Records, also of no value.
func recordsOf(v zone.Value) iter.Seq[[]byte] {
	if len(v) == 0 {
		return func(func([]byte) bool) {}
	}
	return v.Records()
}

// Inbound is where a zone stands with its servers, as far as Decide needs it.
// It is known in this process only.
type Inbound struct {
	// Read is the source that was read last without a failure; "" for none.
	Read string
	// Next is when the servers are asked again; zero means now.
	Next time.Time
	// Expires is when the contents are too old to be vouched for; zero where
	// they cannot be.
	Expires time.Time
}

// upstream is what the servers of a zone said.
type upstream struct {
	source string    // that it is about
	good   time.Time // when one of them last answered with nothing newer, or was loaded from
	next   time.Time // when they are asked again
	peer   string    // who answered last
	serial zone.Serial
	known  bool   // serial is set
	behind bool   // its serial stands before the loaded one
	fault  string // why the last attempt failed; "" where it did not
	since  time.Time
	hint   zone.Serial // of a NOTIFY not yet followed up; 0 for none

	timers   soaTimers // of the loaded instance timersOf
	timersOf uint64
}

// heard notes what a server said.
func (e *Engine) heard(s State, peer string, serial zone.Serial, behind bool) {
	e.mu.RLock()
	r := e.runners[s.Zone]
	e.mu.RUnlock()
	if r == nil {
		return
	}
	r.mu.Lock()
	r.up.peer, r.up.serial, r.up.known, r.up.behind = peer, serial, true, behind
	r.mu.Unlock()
}

// soaTimers is the timers of the loaded instance; where that was dropped, its
// contents are gone, and those of the approved one count. The caller holds mu.
func (r *runner) soaTimers() soaTimers {
	l := r.state.Loaded
	if l != nil && l.Abandoned != "" {
		l = r.state.Approved
	}
	if l == nil || l.Broken != "" {
		return timersOf(nil)
	}
	if r.up.timersOf == l.Seq {
		return r.up.timers
	}
	t := timersOf(nil)
	v, err := r.e.store.Loaded(r.state.Zone, l.Seq)
	if err == nil {
		_, soa := v.SOA()
		t = timersOf(soa)
		err = v.Close()
	}
	if err != nil {
		r.e.log.Error("SOA unreadable", "zone", r.state.Name, "error", err)
		return t
	}
	r.up.timers, r.up.timersOf = t, l.Seq
	return t
}

// inbound is what Decide is told. The caller holds mu.
func (r *runner) inbound() Inbound {
	s := r.state
	if s.Held != nil {
		return Inbound{Read: r.up.read()} // nobody is asked, and a person vouches for the contents
	}
	if !IsTransfer(s.Source) {
		return Inbound{Read: r.up.read()}
	}
	in := Inbound{Read: r.up.read(), Next: r.up.next}
	if r.up.source != s.Source {
		in.Next = time.Time{}
	}
	if s.Loaded != nil && s.Loaded.Broken == "" {
		since := r.began
		for _, t := range []time.Time{s.Loaded.Time, r.up.good, r.answered, s.releasedAt()} {
			if t.After(since) && !t.After(r.e.clock.Now()) {
				since = t
			}
		}
		in.Expires = since.Add(r.soaTimers().expire)
	}
	return in
}

// hasExpired reports whether a zone is to be served no longer.
func (r *runner) hasExpired(p Policy) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.e.watch.check() == nil && expired(p, Moment{Now: r.e.clock.Now(), Inbound: r.inbound()})
}

func (u *upstream) read() string {
	if u.good.IsZero() {
		return ""
	}
	return u.source
}

// loaded notes how an attempt to load ended, and when the servers are asked
// again. The caller holds mu.
func (r *runner) loadEnded(c Load, err error) (again time.Time) {
	now := r.e.clock.Now()
	if r.up.source != c.Source {
		r.up.good, r.up.fault = time.Time{}, ""
	}
	r.up.source = c.Source
	t := r.soaTimers()
	if err == nil {
		r.up.good, r.up.fault, r.up.next = now, "", now.Add(t.refresh)
		r.e.answered.Store(true)
		if c.Hint == r.up.hint {
			r.up.hint = 0
		}
		return time.Time{}
	}
	if r.up.fault == "" {
		r.up.since = now
	}
	r.up.fault = loadFailed(c.Source, err).Reason
	if !IsTransfer(c.Source) {
		return time.Time{}
	}
	wait := t.retry
	if r.state.Loaded == nil {
		wait = backoff(r.lanes[ContentLane].tries)
	}
	r.up.next = now.Add(wait)
	return r.up.next
}
