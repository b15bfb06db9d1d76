package pipeline

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/signer/zone"
	"sluice/xfr"
)

// ReviewPolicy is how instances of one stage are reviewed.
type ReviewPolicy struct {
	// Manual wants the verdict of a person.
	Manual bool
	// Hooks must all approve. They run one after the other.
	Hooks []Hook
	// Halt stops the zone after a bad verdict; else the instance is dropped
	// and the zone goes on.
	Halt bool
	// FourEyes wants two persons for a good verdict, and for an override.
	FourEyes bool
	// Transfer is who may fetch what is under review.
	Transfer xfr.Prefixes
}

// Hook is a command that gives a verdict: exit code 0 is a good one.
type Hook struct {
	Command string // for sh -c
	Timeout time.Duration
}

// Off reports whether there is no review.
func (r ReviewPolicy) Off() bool { return !r.Manual && len(r.Hooks) == 0 }

// Review is how instances of a stage, event.StageLoaded or event.StageSigned,
// are reviewed. It is not to be changed.
func (p Policy) Review(stage string) ReviewPolicy {
	r := p.set.loadedReview
	if stage == event.StageSigned {
		r = p.set.signedReview
	}
	if !r.on {
		r.Manual, r.Hooks = false, nil
	}
	return r.ReviewPolicy
}

// Checks are the limits that what was loaded must keep.
type Checks struct {
	// MaxChangePercent bounds the share of RRsets that differ from the last
	// approved instance; 0 is no limit.
	MaxChangePercent int
	// MinRecords is the lowest number of records; 0 is no limit.
	MinRecords uint64
	// Required are RRsets that must be there: owner and type, the owner
	// relative to the apex ("@") or absolute.
	Required []string
	// ZONEMD says what is done about ZONEMD records of the input (RFC 8976):
	// "verify", "require", "ignore".
	ZONEMD string
	// Glue says what is done about name servers that have no address where
	// they need one.
	Glue zone.GlueCheck
}

// What is done about ZONEMD records of the input.
const (
	zonemdVerify  = "verify"  // one that is there must match
	zonemdRequire = "require" // one must be there and match
	zonemdIgnore  = "ignore"
)

// Checks are the policy's limits for what was loaded. They are not to be
// changed.
func (p Policy) Checks() Checks { return p.set.checks }

// Any reports whether there is a limit at all for the review; ZONEMD and glue
// are looked at when a zone is loaded.
func (c Checks) Any() bool {
	return c.MaxChangePercent > 0 || c.MinRecords > 0 || len(c.Required) > 0
}

// reviewSettings is a review as the file has it: hooks stay also where the
// mode leaves them out.
type reviewSettings struct {
	ReviewPolicy
	on bool // the mode is not off
}

// reviewFile is a review table of a policy file.
type reviewFile struct {
	Mode         any `toml:"mode"`
	Hook         any `toml:"hook"`
	Hooks        any `toml:"hooks"`
	OnReject     any `toml:"on-reject"`
	FourEyes     any `toml:"four-eyes"`
	ProvideXFRTo any `toml:"provide-xfr-to"`
}

const (
	// hookTimeout is how long a hook may run where the policy does not say.
	hookTimeout = 10 * time.Minute
	// maxHooks and maxRequired bound what one policy may ask for.
	maxHooks    = 16
	maxRequired = 1000
)

func loopback() xfr.Prefixes {
	return xfr.Prefixes{
		{Net: netip.PrefixFrom(netip.AddrFrom4([4]byte{127}), 8)},
		{Net: netip.PrefixFrom(netip.IPv6Loopback(), 128)},
	}
}

// review reads the table under a key such as "loader.review".
func (r *policyReader) review(table string, f *reviewFile, to *reviewSettings) {
	mode := r.choice(table+".mode", f.Mode, "off", "manual", "script", "script+manual")
	if i := r.choice(table+".on-reject", f.OnReject, "discard", "halt"); i >= 0 {
		to.Halt = i == 1
	}
	r.flag(table+".four-eyes", f.FourEyes, &to.FourEyes)
	if f.ProvideXFRTo != nil {
		r.prefixes(table+".provide-xfr-to", f.ProvideXFRTo, &to.Transfer)
	}
	before := len(r.faults)
	r.hooks(table, f, to)
	if mode < 0 || len(r.faults) > before {
		return
	}
	to.on = mode > 0
	to.Manual = mode == 1 || mode == 3
	switch {
	case mode >= 2 && len(to.Hooks) == 0:
		r.fault(table+".mode", "= %q: wants hooks", f.Mode)
	case mode == 1 && len(to.Hooks) > 0:
		r.fault(table+".mode", `= "manual": hooks do not run; want "script+manual"`)
	}
}

func (r *policyReader) hooks(table string, f *reviewFile, to *reviewSettings) {
	if text, ok := r.word(table+".hook", f.Hook); ok && text != "" {
		to.Hooks = append(to.Hooks, Hook{Command: text, Timeout: hookTimeout})
	}
	key := table + ".hooks"
	if list, ok := f.Hooks.([]any); ok && len(list) > 0 && len(to.Hooks) > 0 {
		r.fault(table+".hook", "is not allowed beside hooks")
		return
	}
	r.hookList(key, f.Hooks, `[{ command = "/usr/local/bin/check", timeout = "10m" }]`, &to.Hooks)
}

func (r *policyReader) checks(f *checksFile) {
	c := &r.set.checks
	if i := r.choice("loader.checks.zonemd", f.ZONEMD, zonemdVerify, zonemdRequire, zonemdIgnore); i >= 0 {
		c.ZONEMD = []string{zonemdVerify, zonemdRequire, zonemdIgnore}[i]
	}
	switch r.choice("loader.checks.glue", f.Glue, "notice", "require", "ignore") {
	case 0:
		c.Glue = zone.GlueNotice
	case 1:
		c.Glue = zone.GlueRequire
	case 2:
		c.Glue = zone.GlueIgnore
	}
	if n, ok := r.number("loader.checks.max-change-percent", f.MaxChangePercent, 100); ok {
		c.MaxChangePercent = int(n)
	}
	if n, ok := r.number("loader.checks.min-records", f.MinRecords, 1<<40); ok {
		c.MinRecords = uint64(n)
	}
	if f.Required == nil {
		return
	}
	const key = "loader.checks.required-records"
	list, ok := f.Required.([]any)
	if !ok || len(list) > maxRequired {
		r.fault(key, `: want a list of up to %d such as ["@ MX", "www A"]`, maxRequired)
		return
	}
	for _, item := range list {
		text, _ := item.(string)
		if _, _, err := parseRequired(text, zone.Root); err != nil {
			r.fault(key, ": %v", err)
			continue
		}
		c.Required = append(c.Required, text)
	}
}

// number reads a whole number from 0 to most.
func (r *policyReader) number(key string, value any, most int64) (n int64, ok bool) {
	if value == nil {
		return 0, false
	}
	n, ok = value.(int64)
	if !ok || n < 0 || n > most {
		r.fault(key, "= %#v: want a number from 0 to %d", value, most)
		return 0, false
	}
	return n, true
}

// parseRequired reads an owner and a type.
func parseRequired(text string, apex zone.Name) (owner zone.Name, t zone.Type, err error) {
	fields := strings.Fields(text)
	if len(fields) != 2 {
		return "", 0, fmt.Errorf("%q: want an owner and a type, such as \"@ MX\"", text)
	}
	t, ok := zone.ParseType(strings.ToUpper(fields[1]))
	if !ok {
		return "", 0, fmt.Errorf("%q: %s is no record type", text, fields[1])
	}
	if fields[0] == "@" {
		return apex, t, nil
	}
	owner, err = zone.ParseNameAt(fields[0], apex)
	if err != nil {
		return "", 0, fmt.Errorf("%q: %w", text, err)
	}
	return owner, t, nil
}

// reviewNotices is what is allowed but not advised.
func (p Policy) reviewNotices() []string {
	var out []string
	for _, part := range []struct {
		table string
		set   reviewSettings
	}{{"loader.review", p.set.loadedReview}, {"signer.review", p.set.signedReview}} {
		if !part.set.on && len(part.set.Hooks) > 0 {
			out = append(out, part.table+`.mode is "off": its hooks do not run`)
		}
		if part.set.FourEyes && !(part.set.on && part.set.Manual) {
			out = append(out, part.table+".four-eyes: no person's verdict is asked for there; it counts for overrides alone")
		}
	}
	if r := p.Review(event.StageSigned); !r.Off() && slices.ContainsFunc(r.Hooks, func(h Hook) bool { return h.Timeout > p.set.remain/2 }) {
		out = append(out, "a hook of signer.review may take longer than half of signature-remain-time: signatures may come near their end while it runs")
	}
	return out
}
