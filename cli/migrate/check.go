package migrate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
	"sluice/signer/zone"
	"sluice/xfr"
)

// Verdict is how far a zone is.
type Verdict string

// The verdicts.
const (
	Ready    Verdict = "ready"     // secondaries may be switched
	Switched Verdict = "switched"  // all public servers show ours
	NotReady Verdict = "not ready" // see the reasons
)

// Reason is why a zone is not ready.
type Reason struct {
	Text string `json:"text"`
	Do   string `json:"do"` // what to do about it
}

// Checked is how a zone stands between its former signer and this one.
type Checked struct {
	Zone    string   `json:"zone"`
	Verdict Verdict  `json:"verdict"`
	Reasons []Reason `json:"reasons,omitempty"`
	Notes   []string `json:"notes,omitempty"`
	// Serial is that of what is published here, Former that of the former
	// signer's primary.
	Serial *uint32 `json:"serial,omitempty"`
	Former *uint32 `json:"former_serial,omitempty"`
	// Ours is how many addresses of public servers show what is published here,
	// of all Servers that answer.
	Ours    int `json:"ours"`
	Servers int `json:"servers"`
}

func (c *Checked) reason(do, format string, args ...any) {
	c.Reasons = append(c.Reasons, Reason{fmt.Sprintf(format, args...), do})
}

func (c *Checked) note(format string, args ...any) {
	c.Notes = append(c.Notes, fmt.Sprintf(format, args...))
}

// CheckQuery says what is checked.
type CheckQuery struct {
	Zones []string // none: all
	// SkipContents does not compare the contents with those of the former
	// signer.
	SkipContents bool
}

// Check compares what is served here with what the former signer's primary and
// the public servers serve.
func Check(ctx context.Context, client *api.Client, dir string, q CheckQuery) ([]Checked, error) {
	c := &checker{client: client, asks: xfr.NewClient(quick()), q: q}
	full, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if c.plan, err = Load(full); err != nil {
		return nil, err
	}
	if c.tsig, c.secrets, err = c.plan.tsigSecrets(full); err != nil {
		return nil, err
	}
	zones, err := c.plan.Select(q.Zones)
	if err != nil {
		return nil, err
	}
	out := make([]Checked, len(zones))
	var mu sync.Mutex
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i, z := range zones {
		g.Go(func() error {
			one, err := c.one(inner, z)
			if err != nil {
				return fmt.Errorf("zone %s: %w", z.Zone, err)
			}
			mu.Lock()
			defer mu.Unlock()
			out[i] = one
			return nil
		})
	}
	return out, g.Wait()
}

type checker struct {
	client  *api.Client
	asks    *xfr.Client
	q       CheckQuery
	plan    Plan
	tsig    map[string]PlannedTSIG
	secrets map[string]string
}

// one checks one zone. An error is of the daemon, and ends it all.
func (c *checker) one(ctx context.Context, z PlannedZone) (Checked, error) {
	out := Checked{Zone: z.Zone, Verdict: NotReady}
	if z.Refused != "" {
		out.reason("do that, and make the plan anew", "it is not taken over: %s", z.Refused)
		return out, nil
	}
	st, err := c.client.Observe(ctx, z.Zone)
	switch {
	case errors.Is(err, pipeline.ErrNotFound):
		out.reason("sluice migrate import DIR --zone "+z.Zone, "it is not here")
		return out, nil
	case errors.Is(err, pipeline.ErrState):
		if st, err = c.client.Zone(ctx, z.Zone); err != nil {
			return out, err
		}
	case err != nil:
		return out, err
	}
	if st.Published == nil {
		out.reason("sluice zone status "+z.Zone, "it is not published here")
		return out, nil
	}
	serial := st.Published.Serial
	out.Serial = &serial
	former, err := primarySerial(ctx, c.asks, z)
	if err == nil {
		out.Former = &former
	}
	c.shown(&out, z, st)
	if out.Servers > 0 && out.Ours == out.Servers {
		out.Verdict = Switched
	}
	if err := c.verify(ctx, &out); err != nil {
		return out, err
	}
	c.parent(&out, st)
	c.keys(ctx, &out, z, st)
	if out.Verdict != Switched {
		c.serials(&out, z)
		if !c.q.SkipContents {
			if err := c.contents(ctx, &out, z); err != nil {
				return out, err
			}
		}
	}
	switch {
	case len(out.Reasons) > 0:
		out.Verdict = NotReady
	case out.Verdict != Switched:
		out.Verdict = Ready
	}
	return out, nil
}

// floor is the highest serial that the former signer is known to have given
// out.
func (c *checker) floor(out Checked, z PlannedZone) *uint32 {
	floor := z.Serial
	if n := out.Former; n != nil && (floor == nil || zone.Serial(*floor).Before(zone.Serial(*n))) {
		floor = n
	}
	return floor
}

// older reports whether the former signer has gone beyond what is here.
func (c *checker) older(out Checked, z PlannedZone) bool {
	floor := c.floor(out, z)
	return floor != nil && !zone.Serial(*floor).Before(zone.Serial(*out.Serial))
}

// shown counts the public servers that show what is published here: its serial,
// where the former signer does not have the same, or one from here that is above
// all of the former signer.
func (c *checker) shown(out *Checked, z PlannedZone, st pipeline.ZoneStatus) {
	if st.Observation == nil {
		return
	}
	floor := c.floor(*out, z)
	for _, s := range st.Observation.Zone {
		if s.Error != "" {
			out.note("public server %s does not answer: %s", s.Server, s.Error)
			continue
		}
		out.Servers++
		n := zone.Serial(s.Serial)
		same := s.Serial == *out.Serial && (out.Former == nil || *out.Former != s.Serial) && (z.Serial == nil || *z.Serial != s.Serial)
		if same || !zone.Serial(*out.Serial).Before(n) && (floor == nil || zone.Serial(*floor).Before(n)) {
			out.Ours++
		}
	}
	if len(st.Observation.Zone) == 0 {
		out.note("no public server is known: name them in the policy, key-manager.publication-nameservers")
	}
	if len(st.Observation.Zone) > out.Servers && out.Ours > 0 && out.Ours == out.Servers {
		out.Servers = len(st.Observation.Zone) // one that is silent may show anything
	}
}

// serials wants ours to be higher.
func (c *checker) serials(out *Checked, z PlannedZone) {
	if c.older(*out, z) {
		floor := *c.floor(*out, z)
		out.reason(fmt.Sprintf("sluice zone serial %s --set %d", z.Zone, uint32(zone.Serial(floor)+1)),
			"the former signer has serial %d, and %d is published here: secondaries would not take it", floor, *out.Serial)
	}
	if out.Former == nil && z.Primary != "" {
		out.note("%s, where the former signer gave it out, does not answer", z.Primary)
	}
}

// verify wants every signature to be good.
func (c *checker) verify(ctx context.Context, out *Checked) error {
	report, err := c.client.VerifyZone(ctx, out.Zone, nil)
	if err != nil {
		return err
	}
	if !report.OK {
		out.reason("sluice zone verify "+out.Zone, "what is published here does not verify")
	}
	return nil
}

// parent wants each DS RRset of the parent's servers to have a key that signs.
func (c *checker) parent(out *Checked, st pipeline.ZoneStatus) {
	if st.Observation == nil || len(st.Observation.Parent) == 0 {
		out.note("the parent was not asked: see sluice zone observe %s", out.Zone)
		return
	}
	signs := map[string]bool{}
	for _, k := range st.Keys {
		if k.State == keymgr.Active && k.SignsKeys() {
			signs[k.ID] = true
		}
	}
	asked := false
	for _, s := range st.Observation.Parent {
		switch {
		case s.Insecure:
			asked = true
			out.note("the parent is not signed")
		case !s.Validated:
			out.note("parent server %s gives no DS that counts: %s%s", s.Server, s.Error, s.Unvalidated)
		case s.NoDS:
			asked = true
			out.note("the parent has no DS: validators take the zone for insecure")
		default:
			asked = true
			if !slices.ContainsFunc(s.DS, func(d event.DS) bool { return signs[d.Key] }) {
				out.reason("sluice key list "+out.Zone, "parent server %s has no DS of a key that signs here", s.Server)
			}
		}
	}
	if !asked {
		out.reason("sluice zone observe "+out.Zone, "no server of the parent says what DS it has")
	}
	slices.Sort(out.Notes)
	out.Notes = slices.Compact(out.Notes)
}

// keys wants all keys that others show to be published here.
func (c *checker) keys(ctx context.Context, out *Checked, z PlannedZone, st pipeline.ZoneStatus) {
	has := map[string]bool{}
	for _, k := range st.Keys {
		switch k.State {
		case keymgr.Published, keymgr.Ready, keymgr.Active, keymgr.Retired, keymgr.Dead, keymgr.Revoked:
			has[k.ID] = true
		case keymgr.Generated, keymgr.Introduced, keymgr.Withdrawn, keymgr.Removed:
		}
	}
	lacks := func(who string, id string, tag uint16) {
		if !has[id] {
			out.reason("give it: sluice key import "+z.Zone+" FILE; or wait until it is gone there", "%s has key %d (%s), which is not published here", who, tag, id)
		}
	}
	if out.Verdict != Switched && out.Former != nil {
		theirs, err := keysAt(ctx, z.Primary, z.Zone)
		if err != nil {
			out.reason("look at "+z.Primary, "the former signer's keys are not to be had: %v", err)
		}
		for id, tag := range theirs {
			lacks("the former signer", id, tag)
		}
	}
	if st.Observation == nil {
		return
	}
	for _, s := range st.Observation.Zone {
		for i, id := range s.Keys {
			var tag uint16
			if i < len(s.Tags) {
				tag = s.Tags[i]
			}
			lacks("public server "+s.Server, id, tag)
		}
	}
}

// contents wants the records of both to be the same.
func (c *checker) contents(ctx context.Context, out *Checked, z PlannedZone) error {
	if out.Former == nil {
		if z.Primary == "" {
			out.note("the contents were not compared: it is not known where the former signer gives the zone out")
		}
		return nil
	}
	named, err := differences(ctx, dumped(c.client, z.Zone), transferred(z.Primary, z.Zone, c.tsig, c.secrets), z.Zone+".")
	var theirs *theirError
	switch {
	case errors.As(err, &theirs):
		out.reason("let this machine transfer it there, or: sluice migrate check DIR --skip-contents", "the contents cannot be compared with %s: %v", z.Primary, err)
	case err != nil:
		return err
	case len(named) > 0:
		out.reason("sluice zone reload "+z.Zone, "the contents differ (+ here, - there): %s", strings.Join(named, "; "))
	}
	return nil
}
