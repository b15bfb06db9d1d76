package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"sluice/cli/api"
	"sluice/pipeline"
)

// What became of a change.
const (
	Done    = "done"
	Failed  = "failed"
	Refused = "refused" // by the state of things, or for lack of a role
	// Proposed: the policy wants a second person, who asks for the same.
	Proposed = "proposed"
	// Skipped: what it needs was not done.
	Skipped = "skipped"
)

// Report is what became of a plan.
type Report struct {
	Reason   string    `json:"reason"` // what the events say
	Policies []Outcome `json:"policies"`
	Zones    []Outcome `json:"zones"`
	Done     int       `json:"done"`
	Failed   int       `json:"failed"`
	Refused  int       `json:"refused"` // proposed and skipped ones too
}

// Outcome is what became of one change.
type Outcome struct {
	Policy  string `json:"policy,omitempty"`
	Zone    string `json:"zone,omitempty"`
	Action  string `json:"action"`         // add, change, remove
	Outcome string `json:"outcome"`        // done, failed, refused, proposed, skipped
	Text    string `json:"text,omitempty"` // why, or what it led to
}

// Applying says how a plan is carried out.
type Applying struct {
	Reason string // for the events, as Commit.Reason makes it
	// MaxRemovals is how many zones may be removed; 0 is a tenth of those that
	// run.
	MaxRemovals int
	// Wait waits until zones that were added or changed are at rest: one that
	// does not load has failed.
	Wait bool
	// Floor finds the serial of a zone whose serial-floor is "auto".
	Floor func(ctx context.Context, zone, text string) (*uint32, error)
	// Progress is told how far it is; nil tells nobody.
	Progress func(pipeline.Progress)
}

// parallel is how many requests are under way at a time. The daemon appends as
// many events at a time as it can write at once.
const parallel = 32

// CheckRemovals is pipeline.ErrState where a plan removes more zones than most
// allows; 0 allows a tenth of those that run.
func (p Plan) CheckRemovals(most int) error {
	n := p.Summary.Remove
	switch {
	case most > 0 && n > most:
		return fmt.Errorf("%d of %d zones would be removed, and --max-removals allows %d: %w", n, p.Summary.Running, most, pipeline.ErrState)
	case most == 0 && n*10 > p.Summary.Running:
		return fmt.Errorf("%d of %d zones would be removed, more than a tenth: where that is meant, say --max-removals %d: %w",
			n, p.Summary.Running, n, pipeline.ErrState)
	}
	return nil
}

// Apply carries a plan out that Make has made: first new policies, then zones and
// removals, then policies that change, then zones that go over to those. A
// zone changes in one event or not at all, and only where nobody changed it since
// the plan was made; what fails for one stops no other. Errors: the brake on
// removals, and a daemon that went away, with what was done by then.
func Apply(ctx context.Context, client *api.Client, p Plan, how Applying) (Report, error) {
	r := &applier{client: client, plan: p, how: how, lost: map[string]string{}, Report: Report{
		Reason: how.Reason, Policies: make([]Outcome, len(p.Policies)), Zones: make([]Outcome, len(p.Zones)),
	}}
	if err := p.CheckRemovals(how.MaxRemovals); err != nil {
		return r.Report, err
	}
	r.byName = make(map[string]Zone, p.Summary.Add)
	for _, z := range p.fleet.Zones {
		r.byName[canonical(z.Name)] = z
	}
	changing := map[string]bool{}
	for _, one := range p.Policies {
		changing[one.Policy] = one.Action == Change
	}
	ctx, r.stop = context.WithCancelCause(ctx)
	defer r.stop(nil)
	r.policies(ctx, Add)
	r.changing = changing
	late := func(z ZoneChange) bool { return changing[z.Policy] && (z.Action == Add || z.WasPolicy != "") }
	r.zones(ctx, func(z ZoneChange) bool { return z.Action != Remove && !late(z) })
	r.zones(ctx, func(z ZoneChange) bool { return z.Action == Remove })
	r.policies(ctx, Change)
	r.zones(ctx, func(z ZoneChange) bool { return z.Action != Remove && late(z) })
	r.policies(ctx, Remove)
	if how.Wait {
		r.wait(ctx)
	}
	r.count()
	return r.Report, context.Cause(ctx)
}

// applier carries out one plan.
type applier struct {
	client *api.Client
	plan   Plan
	how    Applying
	byName map[string]Zone   // of the folder, by canonical name
	lost   map[string]string // why policies were not put
	// changing are the policies whose texts change.
	changing map[string]bool
	done     atomic.Int64
	stop     context.CancelCauseFunc
	Report
}

// tell tells how far the work is.
func (r *applier) tell(stage string, done, total int64) {
	if r.how.Progress != nil {
		r.how.Progress(pipeline.Progress{Stage: stage, Done: done, Total: total})
	}
}

// policies puts or removes policies.
func (r *applier) policies(ctx context.Context, action string) {
	for i, one := range r.plan.Policies {
		if one.Action != action {
			continue
		}
		out := Outcome{Policy: one.Policy, Action: one.Action}
		var err error
		switch {
		case ctx.Err() != nil:
			out.Outcome, out.Text = Skipped, "the work was broken off"
		case one.Refused != "":
			out.Outcome, out.Text = Refused, one.Refused
		case action == Remove:
			err = r.client.RemovePolicy(ctx, one.Policy, r.how.Reason)
		default:
			_, err = r.client.PutPolicy(ctx, one.Policy, pipeline.NewPolicy{
				Text: string(r.plan.fleet.Policies[one.Policy]), Reason: r.how.Reason, At: one.At,
			})
		}
		if out.Outcome == "" {
			out.Outcome, out.Text = r.outcome(err)
		}
		if out.Outcome != Done {
			r.lost[one.Policy] = out.Text
		}
		r.Policies[i] = out
	}
}

// zones carries out the changes of some zones.
func (r *applier) zones(ctx context.Context, which func(ZoneChange) bool) {
	var list []int
	for i, z := range r.plan.Zones {
		if which(z) {
			list = append(list, i)
		}
	}
	total := int64(len(r.plan.Zones))
	each(list, func(i int) {
		z := r.plan.Zones[i]
		out := Outcome{Zone: z.Zone, Action: z.Action}
		switch why, lost := r.lost[z.Policy]; {
		case ctx.Err() != nil:
			out.Outcome, out.Text = Skipped, "the work was broken off"
		case z.Refused != "":
			out.Outcome, out.Text = Refused, z.Refused
		case lost && z.Action != Remove:
			out.Outcome, out.Text = Skipped, "policy "+z.Policy+" is not as planned: "+why
		default:
			out.Outcome, out.Text = r.zone(ctx, z)
		}
		r.Zones[i] = out
		r.tell("zones", r.done.Add(1), total)
	})
}

// each calls fn for all of a list, several at a time.
func each(list []int, fn func(int)) {
	var next atomic.Int64
	var work sync.WaitGroup
	for range min(parallel, len(list)) {
		work.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(list) {
					return
				}
				fn(list[n])
			}
		})
	}
	work.Wait()
}

// zone carries out the change of one zone.
func (r *applier) zone(ctx context.Context, z ZoneChange) (outcome, text string) {
	var at uint64
	if z.Bound != nil {
		at = z.Bound.Position
	}
	if r.changing[z.Policy] && r.changing[z.WasPolicy] {
		at = 0 // the new text of the policy that it leaves was bound just now
	}
	proposed := false
	err := patient(ctx, func() error {
		switch z.Action {
		case Add:
			wish, err := r.newZone(ctx, z)
			if err == nil {
				_, err = r.client.AddZone(ctx, wish)
			}
			return err
		case Change:
			change := pipeline.ZoneChange{Reason: r.how.Reason, At: at}
			if z.WasSource != "" {
				change.Source = z.Source
			}
			if z.WasPolicy != "" {
				change.Policy = z.Policy
			}
			plan, err := r.client.SetZone(ctx, z.Zone, change)
			proposed = plan.Proposed
			return err
		default:
			return r.client.EndZone(ctx, z.Zone, pipeline.Removal{Reason: r.how.Reason, At: at})
		}
	})
	if err == nil && proposed {
		return Proposed, "the policy it is bound to wants a second person, who asks for the same; see: sluice zone status " + z.Zone
	}
	return r.outcome(err)
}

// newZone is what the daemon is asked for to add a zone.
func (r *applier) newZone(ctx context.Context, z ZoneChange) (pipeline.NewZone, error) {
	want := r.byName[z.Zone]
	out := pipeline.NewZone{Name: z.Zone, Source: z.Source, Policy: z.Policy, Reason: r.how.Reason}
	var err error
	if out.Import, err = want.keyFiles(r.plan.fleet.Dir); err != nil {
		return out, err
	}
	switch text := want.SerialFloor; {
	case text == "":
	case text == "auto" && r.how.Floor != nil:
		out.SerialFloor, err = r.how.Floor(ctx, z.Zone, text)
	default:
		n, perr := strconv.ParseUint(text, 10, 32)
		floor := uint32(n)
		out.SerialFloor, err = &floor, perr
	}
	return out, err
}

// pauses are how long a request waits that came too soon after others.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 8 * time.Second
	pauseTries = 12
)

// patient asks again where the daemon says that there were too many requests.
func patient(ctx context.Context, ask func() error) error {
	pause := firstPause
	for try := 0; ; try++ {
		err := ask()
		if !errors.Is(err, api.ErrTooMany) || try == pauseTries {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
		pause = min(2*pause, lastPause)
	}
}

// outcome is what an error comes to. A daemon that went away ends the work.
func (r *applier) outcome(err error) (outcome, text string) {
	switch {
	case err == nil:
		return Done, ""
	case errors.Is(err, api.ErrUnreachable):
		r.stop(err)
		return Failed, err.Error()
	case errors.Is(err, pipeline.ErrState), errors.Is(err, api.ErrNotAllowed):
		return Refused, err.Error()
	}
	return Failed, err.Error()
}

// wait waits for the zones that were added or changed.
func (r *applier) wait(ctx context.Context) {
	var list []int
	for i, out := range r.Zones {
		if out.Outcome == Done && out.Action != Remove {
			list = append(list, i)
		}
	}
	var ready atomic.Int64
	each(list, func(i int) {
		out := &r.Zones[i]
		if ctx.Err() != nil {
			return
		}
		var status pipeline.ZoneStatus
		err := patient(ctx, func() (err error) {
			status, err = r.client.Await(ctx, out.Zone, nil)
			return err
		})
		switch {
		case err != nil:
			_, out.Text = r.outcome(err)
			out.Outcome = Failed
		case status.LastError != "":
			out.Outcome, out.Text = Failed, "it is here as the folder says, but: "+status.LastError
		}
		r.tell("at rest", ready.Add(1), int64(len(list)))
	})
}

func (r *applier) count() {
	for _, list := range [][]Outcome{r.Policies, r.Zones} {
		for _, out := range list {
			switch out.Outcome {
			case Done:
				r.Report.Done++
			case Failed:
				r.Report.Failed++
			default:
				r.Report.Refused++
			}
		}
	}
}

// maxPlan bounds a plan in a file, in bytes.
const maxPlan = 256 << 20

// Load reads a plan as its JSON was kept.
func Load(in io.Reader) (Plan, error) {
	var p Plan
	if err := json.NewDecoder(io.LimitReader(in, maxPlan)).Decode(&p); err != nil {
		return p, fmt.Errorf("%w: not a plan: %w", pipeline.ErrInvalid, err)
	}
	if p.Version != PlanVersion {
		return p, fmt.Errorf("%w: not a plan of this program: version %q, want %q", pipeline.ErrInvalid, p.Version, PlanVersion)
	}
	return p, nil
}

// Still is pipeline.ErrState where a plan that was made now differs from one that
// was kept: the folder changed since, or what runs.
func (p Plan) Still(kept Plan) error {
	if p.Digest != kept.Digest {
		return fmt.Errorf("the folder %s changed since the plan was made: %w; make a new plan", p.Folder, pipeline.ErrState)
	}
	now, before := p.steps(), kept.steps()
	for i := range max(len(now), len(before)) {
		switch {
		case i >= len(before):
			return fmt.Errorf("%s differs since the plan was made: %w; make a new plan", now[i].Name, pipeline.ErrState)
		case i >= len(now), now[i] != before[i]:
			return fmt.Errorf("%s was changed since the plan was made: %w; make a new plan", before[i].Name, pipeline.ErrState)
		}
	}
	return nil
}

// step is what of a change must be as it was when a plan was made.
type step struct {
	Name, Action, Source, Policy, At string
	Position                         uint64
}

func (p Plan) steps() []step {
	var out []step
	for _, one := range p.Policies {
		out = append(out, step{Name: "policy " + one.Policy, Action: one.Action, At: one.At, Policy: one.SHA256})
	}
	for _, z := range p.Zones {
		one := step{Name: "zone " + z.Zone, Action: z.Action, Source: z.Source, Policy: z.Policy}
		if z.Bound != nil {
			one.Position = z.Bound.Position
		}
		out = append(out, one)
	}
	return out
}
