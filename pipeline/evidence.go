package pipeline

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
)

// Proof is a fact of an event by which it can be checked against other things: a
// digest, an identity, a count, a time that was planned.
type Proof struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// proofs collects those that have a value.
type proofs []Proof

func (p *proofs) add(name, value string) {
	if value != "" {
		*p = append(*p, Proof{name, value})
	}
}

func (p *proofs) hash(name string, h event.Hash) {
	if !h.IsZero() {
		p.add(name, h.String())
	}
}

func (p *proofs) count(name string, n uint64) { p.add(name, fmt.Sprint(n)) }

func (p *proofs) time(name string, at int64) {
	if at != 0 {
		p.add(name, time.Unix(at, 0).UTC().Format(time.RFC3339))
	}
}

// Evidence lists what an event holds beyond its sentence, in a fixed order.
func Evidence(ev event.Event) []Proof {
	var p proofs
	if ev.Cause != 0 {
		p.add("cause", fmt.Sprintf("seq:%d", ev.Cause))
	}
	switch f := ev.Facts.(type) {
	case *event.InstanceLoaded:
		p.loaded(f)
	case *event.InstanceSigned:
		p.signed(f)
	case *event.InstancePublished:
		p.hash("signed_digest", f.SignedDigest)
		p.gate(f.Gate)
	case *event.PolicyBound:
		p.hash("policy_sha256", f.SHA256)
	case *event.ReviewRequested:
		p.hash("digest", f.Digest)
		p.add("checks", strings.Join(f.Checks, ", "))
		p.gate(f.Gate)
	case *event.ReviewApproved:
		p.hash("digest", f.Digest)
		p.hook(f.Hook)
	case *event.ReviewRejected:
		p.hash("digest", f.Digest)
		p.hook(f.Hook)
	case *event.ReviewOverridden:
		p.hash("digest", f.Digest)
	case *event.HookRan:
		p.hook(&f.Hook)
	case *event.ZoneHeld:
		p.hash("content_digest", f.ContentDigest)
	case *event.JournalCheckpointed:
		p.hash("root", f.Root)
		p.hash("zones_root", f.ZonesRoot)
	default:
		p.keys(ev)
	}
	p.add("software", event.SoftwareOf(ev.Facts))
	return p
}

func (p *proofs) loaded(f *event.InstanceLoaded) {
	p.hash("content_digest", f.ContentDigest)
	p.add("zonemd", f.ZONEMD)
	if f.Peer != "" {
		p.count("bytes", f.Bytes)
	}
	if who := f.PeerIdentity; who != nil {
		p.add("peer", who.Address)
		if who.Key != "" {
			p.add("tsig", who.Key+" "+who.Algorithm)
		}
		p.add("tls_pin", who.Pin)
		p.add("tls_certificate", who.Certificate)
		p.add("tls_name", who.Name)
	}
}

func (p *proofs) signed(f *event.InstanceSigned) {
	p.hash("content_digest", f.ContentDigest)
	p.hash("signed_digest", f.SignedDigest)
	p.add("params", f.Params)
	p.add("keys", strings.Join(f.Keys, " "))
	p.add("signers", strings.Join(f.Signers, " "))
	if f.Mode == "" {
		p.count("rrsets_signed", f.NewSets)
		p.count("made", f.Made)
		p.count("reused", f.Reused)
		p.count("dropped", f.Dropped)
		p.count("denial_changed", f.DenialChanged)
	}
	p.count("verified", f.Verified)
	p.time("earliest_expiry", f.Earliest)
	for _, part := range f.Parts {
		p.add("part", fmt.Sprintf("%s: %d signatures by %s", part.Worker, part.Signatures, cmp.Or(part.Software, f.Software, "the same software")))
	}
}

func (p *proofs) gate(g *event.Gate) {
	if g != nil {
		p.add("gate", fmt.Sprintf("%d RRsets, %d signatures, %d verified", g.RRsets, g.Signatures, g.Verified))
	}
}

func (p *proofs) hook(h *event.HookOutcome) {
	if h == nil {
		return
	}
	p.add("command", oneLine(h.Command))
	p.add("exit_code", fmt.Sprint(h.ExitCode))
	if h.TimedOut {
		p.add("timed_out", "true")
	}
	p.count("output_bytes", h.OutputBytes)
	p.add("output_sha256", h.OutputSHA256)
	for _, program := range h.Programs {
		p.add("program", program.Path+" "+program.SHA256.String())
	}
}

// keys lists what an event about keys, rollovers or the parent holds.
func (p *proofs) keys(ev event.Event) {
	for _, k := range event.Keys(ev.Facts) {
		p.add("dnskey", fmt.Sprintf("%s %s, kept in %s", k.ID, k.DNSKEY, k.Keystore))
	}
	switch f := ev.Facts.(type) {
	case *event.KeyActivated:
		for _, life := range f.Lives {
			p.add("planned_until", life.ID+" "+ev.Time.Add(time.Duration(life.Seconds)*time.Second).Format(time.RFC3339)) //nolint:gosec // a policy's duration
		}
	case *event.KeyProved:
		p.add("worker", f.Worker)
		p.add("nkey", f.NKey)
	case *event.RolloverStarted:
		p.time("planned_start", f.Start)
	case *event.RolloverAdvanced:
		p.time("seen", f.Seen)
		p.wait(f.Wait)
	case *event.DSObserved:
		p.time("asked", f.Time)
		p.count("servers", f.Servers)
		p.add("unreachable", strings.Join(f.Unreachable, " "))
		for _, set := range f.Sets {
			p.add("ds", dsText(set.DS)+fmt.Sprintf(", TTL %d", set.TTL))
		}
	case *event.DSPushed:
		p.add("server", f.Server)
		p.add("rcode", f.Rcode)
	case *event.DSNotified:
		p.add("server", f.Server)
		p.add("rcode", f.Rcode)
	}
}

// wait lists what a rollover waits for and why so long.
func (p *proofs) wait(w *event.Wait) {
	if w == nil {
		return
	}
	p.time("planned", w.Earliest)
	p.add("formula", w.Formula)
	for _, in := range w.Inputs {
		p.add(in.Name, fmt.Sprintf("%d s, %s", in.Seconds, in.Source))
	}
}

// doorCause is the event that somebody answers with what he asks for: the
// instance or the halt that he was shown; 0 for none.
func doorCause(s State, facts []event.Facts) uint64 {
	at := func(stage string, instance uint64) uint64 {
		if stop := s.Stopped; stop != nil && stop.Stage == stage && stop.Instance == instance {
			return stop.Seq
		}
		return instance
	}
	i := slices.IndexFunc(facts, func(f event.Facts) bool {
		_, follows := f.(*event.ZoneReset)
		return !follows
	})
	if i < 0 {
		return 0
	}
	switch f := facts[i].(type) {
	case *event.ReviewApproved:
		return at(f.Stage, f.Instance)
	case *event.ReviewRejected:
		return at(f.Stage, f.Instance)
	case *event.ReviewOverridden:
		return at(f.Stage, f.Instance)
	case *event.InstanceAbandoned:
		return at(f.Stage, f.Instance)
	case *event.ZoneReleased:
		if s.Held != nil {
			return s.Held.Seq
		}
	case *event.MaintenanceChanged:
		if s.Maintenance != nil {
			return s.Maintenance.Seq
		}
	}
	return 0
}
