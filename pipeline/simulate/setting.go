// Package simulate rehearses the key life of a zone on paper: the decisions are
// the pipeline's own, on events that are kept in memory; what they would have
// done to a keystore, a journal and a zone is noted instead. Around them is a
// world with public servers that follow late, a parent that reads CDS or a
// person who tells it, servers that fail, and all caches, which is searched for
// what a validator anywhere may hold together that does not validate.
package simulate

import (
	"fmt"
	"slices"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
)

// Setting is what is rehearsed. Usual is one to begin with.
type Setting struct {
	Zone        string // absolute name
	Policy      pipeline.Policy
	From, Until time.Time

	// The zone.
	ZoneTTL                time.Duration // the largest in its contents
	RRsets                 int           // that are signed
	Refresh, Retry, Expire time.Duration // of its SOA

	// Its public servers.
	Servers     int
	Propagation time.Duration // until each of them shows what is published
	Late        time.Duration // until each site behind them does, from there

	// Its parent.
	Parents  int           // its servers
	DSTTL    time.Duration // TTL of the DS RRset, also while there is none
	ReadsCDS bool
	// HooksTell: the policy's hooks have the parent change the DS; else they
	// tell nobody who acts.
	HooksTell      bool
	ParentInterval time.Duration // how often it reads CDS
	ParentDelay    time.Duration // from when it takes up a change until its servers have it
	Bootstrap      time.Duration // for how long the first CDS must stand unchanged (RFC 8078, 3.3)

	// OperatorDelay is how long a person takes for what waits for one; below 0
	// nobody comes.
	OperatorDelay time.Duration

	Rolls    []Roll
	Failures []Failure
}

// Roll is a rollover that somebody asks for.
type Roll struct {
	At      time.Time
	Request pipeline.RolloverRequest
}

// Failure is a time in which a server neither takes anything new nor answers
// the signer, though validators may still reach it until the zone expires
// there.
type Failure struct {
	Server      string // ns1, ns2 ... of the zone, parent1 ... of the parent
	From, Until time.Time
}

const day = 24 * time.Hour

// Usual is a setting with what is usual under a policy: two public servers, and
// a parent that reads CDS every day where the policy publishes it.
func Usual(p pipeline.Policy, from, until time.Time) Setting {
	return Setting{
		Zone: "example.", Policy: p, From: from, Until: until,
		ZoneTTL: time.Hour, RRsets: 1000, Refresh: 2 * time.Hour, Retry: time.Hour, Expire: 14 * day,
		Servers: 2, Propagation: 5 * time.Minute, Late: 30 * time.Minute,
		Parents: 2, DSTTL: day, ReadsCDS: p.Rollovers().CDS, ParentInterval: day, ParentDelay: time.Hour, Bootstrap: 3 * day,
		OperatorDelay: -1,
	}
}

// Bounds of a setting, so that a rehearsal ends.
const (
	maxServers = 64
	maxRRsets  = 100_000
	maxSpan    = 50 * 366 * day
)

// serverName is the name of a server of the zone, parentName of the parent.
func serverName(i int) string { return fmt.Sprintf("ns%d", i+1) }
func parentName(i int) string { return fmt.Sprintf("parent%d", i+1) }

// Check says what is wrong with a setting, in words for a person.
func (s Setting) Check() error {
	switch {
	case s.Policy.Mode() != pipeline.ModeSign:
		return fmt.Errorf("policy %q does not sign (signer.mode = %q): its zones have no keys of ours", s.Policy.Name, s.Policy.Mode())
	case !s.Until.After(s.From):
		return fmt.Errorf("the rehearsal ends at %s, which is not after its begin at %s", rfc(s.Until), rfc(s.From))
	case s.Until.Sub(s.From) > maxSpan:
		return fmt.Errorf("a rehearsal is of at most 50 years")
	case s.Servers < 1 || s.Servers > maxServers || s.Parents < 1 || s.Parents > maxServers:
		return fmt.Errorf("want 1 to %d servers of zone and parent", maxServers)
	case s.RRsets < 1 || s.RRsets > maxRRsets:
		return fmt.Errorf("want 1 to %d signed RRsets", maxRRsets)
	case s.ZoneTTL < time.Second || s.DSTTL < time.Second || s.Refresh < time.Second || s.Retry < time.Second || s.Expire < time.Second:
		return fmt.Errorf("TTLs and the SOA's timers are at least a second")
	case s.ReadsCDS && s.ParentInterval < time.Second:
		return fmt.Errorf("the parent reads CDS at most once a second")
	case s.Policy.ObservationInterval() > 0 && s.Until.Sub(s.From)/s.Policy.ObservationInterval() > maxLooks:
		return fmt.Errorf("the policy's key-manager.observation-interval of %s means more than %d looks: rehearse a shorter time", s.Policy.ObservationInterval(), maxLooks)
	}
	for _, r := range s.Rolls {
		if r.At.Before(s.From) || r.At.After(s.Until) {
			return fmt.Errorf("the rollover of %s at %s is outside the rehearsal, %s to %s", r.Request.Kind, rfc(r.At), rfc(s.From), rfc(s.Until))
		}
		if methods := keymgr.Methods(r.Request.Kind); r.Request.Method != "" && !slices.Contains(methods, r.Request.Method) {
			return fmt.Errorf("a rollover of %s has no method %q", r.Request.Kind, r.Request.Method)
		}
	}
	for _, f := range s.Failures {
		if _, _, ok := s.server(f.Server); !ok {
			return fmt.Errorf("no server %q: there are %s to %s and %s to %s", f.Server,
				serverName(0), serverName(s.Servers-1), parentName(0), parentName(s.Parents-1))
		}
		if !f.Until.After(f.From) {
			return fmt.Errorf("%s fails until %s, which is not after %s", f.Server, rfc(f.Until), rfc(f.From))
		}
	}
	return nil
}

// maxLooks bounds the observations of a rehearsal.
const maxLooks = 2_000_000

// server finds a server by its name.
func (s Setting) server(name string) (number int, ofParent, ok bool) {
	for i := range s.Servers {
		if name == serverName(i) {
			return i, false, true
		}
	}
	for i := range s.Parents {
		if name == parentName(i) {
			return i, true, true
		}
	}
	return 0, false, false
}

func rfc(t time.Time) string { return t.UTC().Format(time.RFC3339) }
