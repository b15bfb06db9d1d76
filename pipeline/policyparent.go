package pipeline

import (
	"slices"
	"strings"
	"time"

	"sluice/signer/zone"
	"sluice/xfr"
)

// ParentPolicy is how a zone's parent is told what DS it is to have, beside CDS
// and CDNSKEY.
type ParentPolicy struct {
	// Hooks are run, each until it succeeded once for what is to be told.
	Hooks []Hook
	// Servers take dynamic updates of the DS RRset (RFC 2136), in order of
	// preference; each names a TSIG key. Zone is the zone that holds the DS, in
	// lower case; empty where the servers say which it is. TTL is that of a DS
	// RRset that was not there before.
	Servers []xfr.Endpoint
	Zone    zone.Name
	TTL     time.Duration
	// Notify: the parent's agent is told that CDS changed (RFC 9859). Agent is
	// where it may report errors (RFC 9567); empty for nowhere.
	Notify bool
	Agent  zone.Name
	// Signal are the servers that take updates of the records by which the
	// operator of the name servers vouches for a zone (RFC 9615).
	Signal []xfr.Endpoint
}

// hands reports whether DS records get to the parent without CDS and by
// themselves.
func (p ParentPolicy) hands() bool { return len(p.Hooks) > 0 || len(p.Servers) > 0 }

// parentFile is ParentPolicy as policy files write it.
type parentFile struct {
	Hooks  any `toml:"hooks"`
	Notify any `toml:"notify"`
	Agent  any `toml:"notify-report-agent"`
	Update struct {
		Servers any `toml:"servers"`
		Zone    any `toml:"zone"`
		TTL     any `toml:"ttl"`
	} `toml:"update"`
	Signal struct {
		Servers any `toml:"servers"`
	} `toml:"signal"`
}

// Parent says how a zone's parent is told. It is not to be changed.
func (p Policy) Parent() ParentPolicy { return p.set.parent }

// CDSDuringRolls reports whether CDS and CDNSKEY stand in a zone only until its
// parent has what they say.
func (p Policy) CDSDuringRolls() bool { return p.set.cdsRolls }

// maxPushed bounds key-manager.parent.update.servers.
const maxPushed = 8

func (r *policyReader) parent(f *parentFile) {
	const table = "key-manager.parent"
	to := &r.set.parent
	r.hookList(table+".hooks", f.Hooks, `[{ command = "/usr/local/bin/tell-parent", timeout = "10m" }]`, &to.Hooks)
	r.flag(table+".notify", f.Notify, &to.Notify)
	if text, ok := r.word(table+".notify-report-agent", f.Agent); ok && text != "" {
		name, err := zone.ParseName(text)
		if err != nil || name == zone.Root {
			r.fault(table+".notify-report-agent", "= %q: want the name of an agent domain (RFC 9567)", text)
		}
		to.Agent = name
	}
	if to.Agent != "" && !to.Notify {
		r.fault(table+".notify-report-agent", "needs notify = true")
	}
	if text, ok := r.word(table+".update.zone", f.Update.Zone); ok && text != "" {
		name, err := zone.ParseName(text)
		if err != nil {
			r.fault(table+".update.zone", ": %v", err)
		}
		to.Zone = name.Fold()
	}
	r.duration(table+".update.ttl", f.Update.TTL, &to.TTL)
	if to.TTL < time.Second {
		r.fault(table+".update.ttl", "must be at least a second")
	}
	r.pushed(table+".update.servers", f.Update.Servers, &to.Servers)
	r.pushed(table+".signal.servers", f.Signal.Servers, &to.Signal)
}

// pushed reads a list of servers that take updates.
func (r *policyReader) pushed(key string, value any, to *[]xfr.Endpoint) {
	words, ok := r.words(key, value, `a list of servers with TSIG keys such as ["192.0.2.1^update.example"]`)
	if !ok {
		return
	}
	if len(words) > maxPushed {
		r.fault(key, ": %d servers, at most %d are tried", len(words), maxPushed)
		return
	}
	for _, word := range words {
		ep, err := xfr.ParseEndpoint(word)
		switch {
		case err != nil:
			r.fault(key, ": %v", err)
		case ep.Key == "":
			r.fault(key, ": %q names no TSIG key: want IP[:PORT]^KEY, with a key from sluice tsig add", word)
		case slices.ContainsFunc(*to, func(o xfr.Endpoint) bool { return o.String() == ep.String() }):
			r.fault(key, ": %q stands there twice", word)
		default:
			*to = append(*to, ep)
		}
	}
}

// cds reads when CDS and CDNSKEY stand in zones.
func (r *policyReader) cds(value any) {
	const key = "key-manager.cds"
	switch v := value.(type) {
	case nil:
	case bool:
		r.set.roll.CDS, r.set.cdsRolls = v, false
	case string:
		r.set.roll.CDS, r.set.cdsRolls = v != "never", v == "during-rolls"
		if !slices.Contains([]string{"always", "during-rolls", "never"}, v) {
			r.fault(key, `= %q: want "always", "during-rolls" or "never"`, v)
		}
	default:
		r.fault(key, `= %#v: want "always", "during-rolls" or "never"`, value)
	}
}

// parentNotices is what is allowed but does not do what it seems to.
func (p Policy) parentNotices() []string {
	var out []string
	if p.set.parent.Notify && !p.set.roll.CDS {
		out = append(out, `key-manager.parent.notify = true does nothing: key-manager.cds = "never" leaves the parent nothing to look at`)
	}
	if len(p.set.parent.Signal) > 0 && !p.set.roll.CDS {
		out = append(out, `key-manager.parent.signal.servers does nothing: key-manager.cds = "never" leaves nothing to vouch for`)
	}
	if p.set.parent.Notify && p.set.observation == 0 {
		out = append(out, "key-manager.parent.notify = true waits until CDS was seen at all servers, and key-manager.observation-interval = 0 looks only when sluice zone observe is run")
	}
	return out
}

// hookList reads a list of hooks; example is one.
func (r *policyReader) hookList(key string, value any, example string, to *[]Hook) {
	if value == nil {
		return
	}
	want := ": want a list such as " + example
	list, ok := value.([]any)
	if !ok {
		r.fault(key, "%s", want)
		return
	}
	if len(list) > maxHooks {
		r.fault(key, ": more than %d", maxHooks)
		return
	}
	for _, item := range list {
		fields, ok := item.(map[string]any)
		h := Hook{Timeout: hookTimeout}
		for name, value := range fields {
			switch name {
			case "command":
				h.Command, _ = value.(string)
			case "timeout":
				r.duration(key+".timeout", value, &h.Timeout)
			default:
				ok = false
			}
		}
		if !ok || strings.TrimSpace(h.Command) == "" || strings.Contains(h.Command, "\x00") {
			r.fault(key, "%s", want)
			return
		}
		if h.Timeout < time.Second {
			r.fault(key, ": timeout must be at least a second")
			return
		}
		*to = append(*to, h)
	}
}
