package pipeline

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/store"
	"sluice/signer/zone"
	"sluice/xfr"
)

// ToldStatus is what became of telling the parent what it is to have.
type ToldStatus struct {
	Event   string    `json:"event"`   // ds-ready or ds-gone
	Request uint64    `json:"request"` // number of the ds.submitted or ds.withdrawn
	Since   time.Time `json:"since"`
	Ways    []ToldWay `json:"ways,omitempty"`
	ByCDS   bool      `json:"by_cds,omitempty"`  // CDS and CDNSKEY say so
	Settled bool      `json:"settled,omitempty"` // the parent has what it is to have
}

// ToldWay is one way of telling the parent.
type ToldWay struct {
	Way     string     `json:"way"` // hook, push, signal or notify
	Command string     `json:"command,omitempty"`
	Done    bool       `json:"done"`
	Failed  int        `json:"failed,omitempty"` // tries that failed
	Text    string     `json:"text"`
	At      time.Time  `json:"at,omitzero"` // of the last try
	RetryAt *time.Time `json:"retry_at,omitempty"`
}

// toldStatus tells what became of telling the parent. The caller holds mu.
func (r *runner) toldStatus(st *ZoneStatus) {
	s := r.state
	p, err := r.e.boundPolicy(s)
	if err != nil || s.Told == nil || p.Mode() != ModeSign {
		return
	}
	over := s.Keys.AtParent()
	told := &ToldStatus{Event: s.parentEvent(), Request: s.Told.Request, Since: s.Told.Time, ByCDS: s.Keys.DS.CDS, Settled: over}
	to := p.Parent()
	for _, h := range to.Hooks {
		told.Ways = append(told.Ways, s.way("hook", "the hook "+oneLine(h.Command), h.Command, s.Told.hook(h.Command), over))
	}
	if len(to.Servers) > 0 {
		told.Ways = append(told.Ways, s.way("push", "the push of the DS", "", s.Told.Push, over))
	}
	if len(to.Signal) > 0 || s.Signal != nil {
		told.Ways = append(told.Ways, s.signalWay(p))
	}
	if to.Notify {
		told.Ways = append(told.Ways, s.way("notify", "the NOTIFY to the parent's agent", "", s.Told.Notify, over))
	}
	st.ParentTold = told
	for _, w := range told.Ways {
		if w.Failed == 0 || w.Done || w.RetryAt == nil {
			continue
		}
		n := Notice{Severity: severityWarning, Code: NoticeParentNotTold, Since: sinceOf(told.Since), Text: fmt.Sprintf("%s (try %d)", w.Text, w.Failed)}
		switch w.Way {
		case "hook":
			n.Hint = "it runs again at " + w.RetryAt.Format(time.RFC3339) + "; its output: sluice --json zone history " + s.Name + " --type hook.ran"
		case "push":
			n.Hint = "it is tried again at " + w.RetryAt.Format(time.RFC3339) + "; or hand over what this prints: sluice key ds " + s.Name
		case "signal":
			n.Hint = "it is tried again at " + w.RetryAt.Format(time.RFC3339) + "; what is to stand there: sluice key ds " + s.Name + " --format signal"
		default:
			n.Hint = "it is tried again at " + w.RetryAt.Format(time.RFC3339) + "; a parent that looks for CDS by itself will find it"
		}
		st.Notices = append(st.Notices, n)
	}
}

// way tells one way of telling the parent.
func (s State) way(way, subject, command string, t *Telling, over bool) ToldWay {
	w := ToldWay{Way: way, Command: command}
	switch {
	case t == nil && (over && (way == "notify" || s.Policy.Seq > s.Told.Seq)):
		w.Text = subject + " is not needed: the parent has what it is to have"
	case t == nil && way == "notify" && !s.Keys.DS.CDS:
		w.Text = subject + " is not sent: the zone has no CDS that says what the parent is to have"
	case t == nil && way == "notify":
		w.Text = subject + " waits until all public servers show CDS and CDNSKEY"
	case t == nil:
		w.Text = subject + " is due"
	case t.Done:
		w.Done, w.Failed, w.At, w.Text = true, t.Failed, t.Time, subject+" succeeded"
		if t.Text != "" {
			w.Text = subject + ": " + t.Text
		}
	default:
		w.Failed, w.At, w.Text = t.Failed, t.Time, subject+" failed: "+t.Error
		if !over {
			w.RetryAt = timeOrNil(t.tellAgain())
		}
	}
	return w
}

// hookRanText tells a run of a hook.
func hookRanText(f *event.HookRan) string {
	text := fmt.Sprintf("hook %d told of %s (%s, %d ms)", f.Number, f.Event, oneLine(f.Hook.Command), f.Hook.DurationMS)
	if f.Error != "" {
		return text + " failed: " + f.Error
	}
	return text
}

// pushedText tells an update of the parent.
func pushedText(f *event.DSPushed) string {
	if f.Error != "" {
		return "DS not pushed to the parent: " + f.Error
	}
	var parts []string
	if len(f.Added) > 0 {
		parts = append(parts, "added "+dsText(f.Added))
	}
	if len(f.Removed) > 0 {
		parts = append(parts, "removed "+dsText(f.Removed))
	}
	text := fmt.Sprintf("%s, zone %s, has what it is to have already", f.Server, f.Zone)
	if len(parts) > 0 {
		text = fmt.Sprintf("pushed to %s, zone %s: %s", f.Server, f.Zone, strings.Join(parts, ", "))
	}
	if len(f.Kept) > 0 {
		text += "; not ours and left there: " + dsText(f.Kept)
	}
	return text
}

// notifiedText tells a NOTIFY to the parent's agent.
func notifiedText(f *event.DSNotified) string {
	switch {
	case f.Error != "":
		return "parent not notified of CDS: " + f.Error
	case f.None:
		return "the parent names no agent to notify of CDS (RFC 9859)"
	}
	text := fmt.Sprintf("%s at %s, which the parent names at %s, was notified of CDS", f.Target, f.Server, f.Owner)
	if !f.Validated {
		text += "; the parent is not signed"
	}
	return text
}

// describeTold tells an event about the parent that was told as a sentence; ""
// for others.
func describeTold(ev event.Event) string {
	switch f := ev.Facts.(type) {
	case *event.CDSChanged:
		if f.CDS {
			return "CDS and CDNSKEY come with the next version" + because(f.Reason)
		}
		return "CDS and CDNSKEY leave with the next version" + because(f.Reason)
	case *event.HookRan:
		return hookRanText(f)
	case *event.DSPushed:
		return pushedText(f)
	case *event.DSNotified:
		return notifiedText(f)
	case *event.SignalPushed:
		return signalText(f)
	}
	return ""
}

// cdsNotices name servers that show other CDS or CDNSKEY than what is published
// here: a parent that asks all of them takes neither (RFC 9615, 4.2).
func (v expectation) cdsNotices(o keymgr.Observation) []Notice {
	if v.mode != ModeSign || v.ahead {
		return nil
	}
	var out []Notice
	for _, s := range o.Zone {
		if s.Error != "" || s.Serial != v.serial || !cdsDiffers(s, v.cds) {
			continue
		}
		what, shown := "CDS", s.CDS
		if slices.Equal(s.CDS, v.cds) {
			what, shown = "CDNSKEY", s.CDNSKEY
		}
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeServerCDSDiffers,
			Text: fmt.Sprintf("name server %s shows another %s than what is published here: %s instead of %s", serverText(s), what, cdsText(shown), cdsText(v.cds)),
			Hint: "a parent that asks every server takes nothing while they differ; find out where it transfers the zone from",
		})
	}
	return few(out)
}

func cdsText(ids []string) string {
	if len(ids) == 0 {
		return "none"
	}
	return strings.Join(ids, ", ")
}

// parentRecords is the records of a key in a format.
func (e *Engine) parentRecords(s State, p Policy, apex zone.Name, k event.Key, format string) (out []string, err error) {
	if format != FormatSignal {
		if out, err = keymgr.ParentRecords(apex, k, format, p.DSDigests(), p.DNSKEYTTL()); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return out, nil
	}
	v, err := e.store.Published(s.Zone)
	if err != nil {
		if errors.Is(err, store.ErrNoInstance) || errors.Is(err, xfr.ErrNotReady) {
			return nil, errorState("zone %s is not published yet: its name servers are not known", s.Name)
		}
		return nil, e.note(err)
	}
	defer func() { err = errors.Join(err, e.note(v.Close())) }()
	servers, err := publicServers(v)
	if err != nil {
		return nil, err
	}
	var failed error
	for _, server := range servers {
		host, err := zone.ParseName(server.Name)
		if err != nil {
			return nil, err
		}
		records, err := keymgr.SignalRecords(apex, host, k, p.DSDigests(), p.DNSKEYTTL())
		if err != nil {
			failed = errors.Join(failed, err) // the others vouch for the zone
			continue
		}
		out = append(out, records...)
	}
	if len(out) == 0 {
		return nil, errorState("no name server of zone %s can vouch for it (RFC 9615): %v", s.Name, failed)
	}
	return out, nil
}
