package pipeline

import (
	"slices"
	"time"

	"sluice/keymgr"
)

// RunParentHook runs a hook that tells the parent what DS it is to have.
type RunParentHook struct {
	Request uint64 // number of the ds.submitted or ds.withdrawn
	Event   string // ds-ready or ds-gone
	Number  int    // from 1
	Command string
	Timeout time.Duration
}

// PushDS changes the DS RRset at the parent by dynamic update.
type PushDS struct {
	Request uint64
	Servers []string
	Zone    string // that holds the DS; "" where the servers say
}

// NotifyParent tells the parent's agent that CDS changed.
type NotifyParent struct {
	Request uint64
	Agent   string // where errors may be reported; "" for nowhere
}

// ChangeCDS has CDS and CDNSKEY come or go with the next signed instance.
type ChangeCDS struct {
	CDS    bool
	Reason string
}

// Lane implements Command.
func (RunParentHook) Lane() Lane { return HookLane }

// Lane implements Command.
func (PushDS) Lane() Lane { return ParentLane }

// Lane implements Command.
func (NotifyParent) Lane() Lane { return ParentLane }

// Lane implements Command.
func (ChangeCDS) Lane() Lane { return SigningLane }

// Identity implements Command.
func (c RunParentHook) Identity() string { return identity("parent hook", c) }

// Identity implements Command.
func (c PushDS) Identity() string { return identity("push DS", c) }

// Identity implements Command.
func (c NotifyParent) Identity() string { return identity("notify parent", c) }

// Identity implements Command.
func (c ChangeCDS) Identity() string { return identity("change CDS", c) }

func (RunParentHook) command() {}
func (PushDS) command()        {}
func (NotifyParent) command()  {}
func (ChangeCDS) command()     {}

// maxTellingPause is the longest time between two tries to tell the parent.
const maxTellingPause = 6 * time.Hour

// tellAgain is when what failed so often is tried again: after a minute,
// doubled up to six hours.
func (t *Telling) tellAgain() time.Time {
	return t.Time.Add(min(time.Minute<<max(0, min(t.Failed-1, 10)), maxTellingPause))
}

// tells reports whether somebody is still to be told, and from when on. over
// says that the parent has what it is to have. Each is told at least once, but
// for what was settled before the policy named it.
func (s State) tells(t *Telling, over bool, now time.Time) (at time.Time, tells bool) {
	switch {
	case t != nil && t.Done, over && t != nil, over && s.Policy.Seq > s.Told.Seq:
		return time.Time{}, false
	case t == nil:
		return now, true
	}
	if again := t.tellAgain(); stampHolds(t.Time, again, now) {
		return again, true
	}
	return now, true
}

// decideParent tells the parent what DS it is to have, by all ways that the
// policy names. None of them counts for anything: what is seen does.
func decideParent(d *Decision, s State, p Policy, m Moment) {
	if s.Told == nil || p.Mode() != ModeSign || m.ClockDoubted || s.Published == nil {
		return
	}
	to := p.Parent()
	if !to.hands() && !to.Notify && len(to.Signal) == 0 {
		return
	}
	over := s.Keys.AtParent()
	for i, h := range to.Hooks {
		at, tells := s.tells(s.Told.hook(h.Command), over, m.Now)
		if !tells {
			continue
		}
		if m.Now.Before(at) {
			d.wake(at, "a hook that tells the parent runs again")
			continue
		}
		d.add(m, RunParentHook{Request: s.Told.Request, Event: s.parentEvent(), Number: i + 1, Command: h.Command, Timeout: h.Timeout})
		break
	}
	if decidePush(d, s, p, m, over) || decideSignal(d, s, p, m) {
		return
	}
	decideNotifyParent(d, s, p, m, over)
}

// decidePush reports whether DS records are pushed now.
func decidePush(d *Decision, s State, p Policy, m Moment, over bool) bool {
	to := p.Parent()
	at, tells := s.tells(s.Told.Push, over, m.Now)
	switch {
	case len(to.Servers) == 0 || !tells:
		return false
	case m.Now.Before(at):
		d.wake(at, "the DS is pushed to the parent again")
		return false
	}
	c := PushDS{Request: s.Told.Request}
	for _, ep := range to.Servers {
		c.Servers = append(c.Servers, ep.String())
	}
	if to.Zone != "" {
		c.Zone = to.Zone.String()
	}
	d.add(m, c)
	return true
}

// decideNotifyParent waits until all public servers show the same CDS and
// CDNSKEY (RFC 9859, 4.2). A parent that has what these say needs no word.
func decideNotifyParent(d *Decision, s State, p Policy, m Moment, over bool) {
	at, tells := s.tells(s.Told.Notify, over, m.Now)
	switch {
	case !p.Parent().Notify || !s.Keys.DS.CDS || over || !tells || !s.showsCDS():
	case len(p.Parent().Signal) > 0 && s.bootstraps() && !s.signals(cdsOf(s.Keys)):
		// A parent that looks now would not find them vouched for.
	case m.Now.Before(at):
		d.wake(at, "the parent is notified again")
	case !s.cdsSeen(m.Sights.Observation):
		if p.ObservationInterval() > 0 {
			d.look(s.lookForCDS(m, p.ObservationInterval()))
		}
	default:
		c := NotifyParent{Request: s.Told.Request}
		if agent := p.Parent().Agent; agent != "" {
			c.Agent = agent.String()
		}
		d.add(m, c)
	}
}

// showsCDS reports whether what is published says what the parent is to have.
func (s State) showsCDS() bool {
	want := cdsOf(s.Keys)
	return len(want) > 0 && s.Published != nil && slices.Equal(s.Published.Signed.Facts.CDS, want)
}

// cdsSeen reports whether every address of every public server was seen to
// show the CDS and CDNSKEY that are published.
func (s State) cdsSeen(o *keymgr.Observation) bool {
	if o == nil || len(o.Zone) == 0 || o.At.Before(s.Told.Time) {
		return false
	}
	return !slices.ContainsFunc(o.Zone, func(at keymgr.Seen) bool {
		return at.Error != "" || cdsDiffers(at, s.Published.Signed.Facts.CDS)
	})
}

// cdsDiffers reports whether a server shows another CDS or CDNSKEY than what
// names these keys.
func cdsDiffers(at keymgr.Seen, want []string) bool {
	return !slices.Equal(at.CDS, want) || !slices.Equal(at.CDNSKEY, want)
}

// lookForCDS is when the servers are looked at again for CDS, within most.
func (s State) lookForCDS(m Moment, most time.Duration) time.Time {
	since := s.Published.Time
	if o := m.Sights.Observation; o != nil && !o.At.Before(since) {
		return o.At.Add(min(max(m.Now.Sub(since)/4, leastLook), most))
	}
	return since.Add(leastLook)
}

// decideCDS has CDS and CDNSKEY come or go where the policy says otherwise than
// the last request to the parent did, and nothing is changing.
func decideCDS(s State, p Policy) Command {
	ds, shows := s.Keys.DS, p.Rollovers().CDS
	if ds.Since.IsZero() || s.Keys.ChangesDS() {
		return nil
	}
	settled := s.Keys.AtParent()
	switch {
	case ds.CDS && !shows:
		return ChangeCDS{Reason: `the policy says key-manager.cds = "never"`}
	case ds.CDS && p.CDSDuringRolls() && settled:
		return ChangeCDS{Reason: "the parent has what they say"}
	case !ds.CDS && shows && (!p.CDSDuringRolls() || len(ds.Sets) > 0 && !settled) && s.Keys.MayShowCDS():
		return ChangeCDS{CDS: true, Reason: "the parent is to have what they say, and no rollover changes that"}
	}
	return nil
}
