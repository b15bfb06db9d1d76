package pipeline

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/keymgr"
)

// Overview is how everything is that this process knows of: what needs a
// person first.
type Overview struct {
	Time time.Time `json:"time"` // by the daemon's clock
	// Severity is that of the worst notice: alarm, warning, or ok.
	Severity string       `json:"severity"`
	Daemon   DaemonStatus `json:"daemon"`
	// Needs is what needs a person, worst first: alarms and warnings. Where more
	// than a few zones have the same, they are one item. More counts the items
	// that are left out.
	Needs    []Need         `json:"needs"`
	More     int            `json:"more,omitempty"`
	Alarms   int            `json:"alarms"`   // notices of this severity, each zone's counted
	Warnings int            `json:"warnings"` // likewise
	Zones    int            `json:"zones"`
	States   map[string]int `json:"states"` // zones by state
	// Expiries is whose signatures end first.
	Expiries []ZoneExpiry `json:"expiries,omitempty"`
	// Rollovers is those that run, next ones first, at most maxListed;
	// RolloverCount counts all. Reviews likewise, oldest first.
	Rollovers     []ZoneRollover `json:"rollovers,omitempty"`
	RolloverCount int            `json:"rollover_count"`
	Reviews       []ZoneReview   `json:"reviews,omitempty"`
	ReviewCount   int            `json:"review_count"`
	Workers       WorkersSummary `json:"workers"`
	Journal       JournalSummary `json:"journal"`
}

// Need is something that a person should see to.
type Need struct {
	// Zone is the first zone by name that has it, Count how many do, Others the
	// next few of them; "" and 0 where it is about the process.
	Zone   string   `json:"zone,omitempty"`
	Count  int      `json:"count,omitempty"`
	Others []string `json:"others,omitempty"`
	// Of that zone; where Count zones have texts of their own, Text begins with
	// its name.
	Notice
}

// DaemonStatus is the process that answers.
type DaemonStatus struct {
	Version   string      `json:"version"`
	Worker    string      `json:"worker"`
	Roles     []Role      `json:"worker_roles"`
	Since     time.Time   `json:"since"` // when it started, by the machine's clock
	Clock     ClockStatus `json:"clock"`
	Listeners []Listener  `json:"listeners"`
}

// Listener is an address that the daemon listens on.
type Listener struct {
	Name    string `json:"name"` // publication, publication-tls, review-loaded, review-signed, api, http, nats
	Address string `json:"address"`
}

// ZoneExpiry is when the first signature of what a zone publishes ends.
type ZoneExpiry struct {
	Zone string    `json:"zone"`
	At   time.Time `json:"at"`
}

// ZoneRollover is a rollover that runs.
type ZoneRollover struct {
	Zone  string       `json:"zone"`
	ID    uint64       `json:"id"`
	Kind  keymgr.Kind  `json:"kind"`
	Step  int          `json:"step"`
	Steps int          `json:"steps"`
	Phase keymgr.Phase `json:"phase"`
	Text  string       `json:"text"`
	Since time.Time    `json:"since"`
	Until *time.Time   `json:"until,omitempty"` // when the wait is over
}

// ZoneReview is a review that waits.
type ZoneReview struct {
	Zone     string    `json:"zone"`
	Stage    string    `json:"stage"`
	Instance string    `json:"instance"`
	Serial   uint32    `json:"serial"`
	Since    time.Time `json:"since"`
	WaitsFor string    `json:"waits_for"`
}

// WorkersSummary is who shares the work.
type WorkersSummary struct {
	Shared bool     `json:"shared"`
	Living []string `json:"living"`           // names
	Silent []string `json:"silent,omitempty"` // enrolled, and not living
	// Unheld are the roles that nobody holds in some partitions, with their number.
	Unheld map[Role]int `json:"unheld,omitempty"`
	Error  string       `json:"error,omitempty"` // why nothing is known of others
}

// JournalSummary is how large the journal is, and how far it was read.
type JournalSummary struct {
	LastSeq    uint64     `json:"last_seq"`
	Lag        uint64     `json:"lag"` // events not yet folded
	Events     uint64     `json:"events_bytes"`
	EventsFill int        `json:"events_percent,omitempty"` // of its limit; absent without one
	Bulk       uint64     `json:"bulk_bytes"`
	BulkFill   int        `json:"bulk_percent,omitempty"`
	Disks      []DiskRoom `json:"disks,omitempty"`
	Error      string     `json:"error,omitempty"` // why nothing is known of it
}

// DiskRoom is how much room the disk of a folder has, in bytes.
type DiskRoom struct {
	Dir  string `json:"dir"`
	Free uint64 `json:"free_bytes"`
	Size uint64 `json:"size_bytes"`
}

const (
	// maxListed bounds each list of an overview but the needs.
	maxListed = 10
	// fewZones is up to how many zones with the same need are told one by one.
	fewZones = 3
	// overviewTime bounds what an overview asks the journal's store.
	overviewTime = 2 * time.Second
)

// SetListeners notes where the daemon listens, for Overview.
func (e *Engine) SetListeners(list []Listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.listeners = slices.Clone(list)
}

// Overview tells how everything is, with at most so many needs (0: all).
func (e *Engine) Overview(ctx context.Context, most int) (Overview, error) {
	o := Overview{Time: e.clock.Now().Truncate(time.Second), States: map[string]int{}, Severity: "ok"}
	o.Daemon = DaemonStatus{Version: e.cfg.Version, Worker: e.worker, Roles: e.roles, Since: e.since.UTC().Truncate(time.Second), Clock: e.ClockStatus()}
	e.mu.RLock()
	o.Daemon.Listeners = append([]Listener{}, e.listeners...)
	all := make([]*runner, 0, len(e.names))
	for _, id := range e.names {
		all = append(all, e.runners[id])
	}
	e.mu.RUnlock()
	needs := needList{by: map[needKey][]Need{}}
	for _, n := range e.ProcessNotices() {
		needs.add("", n)
	}
	for _, r := range all {
		if err := ctx.Err(); err != nil {
			return o, err
		}
		o.take(r.describedAs(true), &needs)
	}
	o.Needs = needs.list()
	for _, n := range o.Needs {
		if Worse(n.Severity, o.Severity) {
			o.Severity = n.Severity
		}
		switch n.Severity {
		case severityAlarm:
			o.Alarms += max(n.Count, 1)
		case severityWarning:
			o.Warnings += max(n.Count, 1)
		}
	}
	if most > 0 && len(o.Needs) > most {
		o.Needs, o.More = o.Needs[:most], len(o.Needs)-most
	}
	o.sort()
	o.Workers, o.Journal = e.workersSummary(ctx), e.journalSummary(ctx)
	return o, nil
}

// take adds one zone.
func (o *Overview) take(st ZoneStatus, needs *needList) {
	o.Zones++
	o.States[st.State]++
	for _, n := range st.Notices {
		if !ProcessNotice(n.Code) {
			needs.add(st.Name, n)
		}
	}
	if st.NextExpiry != nil {
		o.Expiries = append(o.Expiries, ZoneExpiry{st.Name, *st.NextExpiry})
	}
	for _, ro := range st.Rollovers {
		o.RolloverCount++
		o.Rollovers = append(o.Rollovers, ZoneRollover{
			Zone: st.Name, ID: ro.ID, Kind: ro.Kind, Step: ro.Step, Steps: ro.Steps, Phase: ro.Phase, Text: ro.Text, Since: ro.Since, Until: ro.Until,
		})
	}
	for _, rv := range st.Reviews {
		if rv.State != "pending" {
			continue
		}
		o.ReviewCount++
		o.Reviews = append(o.Reviews, ZoneReview{
			Zone: st.Name, Stage: rv.Stage, Instance: rv.Instance, Serial: rv.Serial, Since: rv.Since, WaitsFor: rv.WaitsFor,
		})
	}
	if len(o.Expiries) > 1000 { // memory does not grow with the zones
		o.sort()
	}
}

// sort puts the lists in order and bounds them.
func (o *Overview) sort() {
	slices.SortFunc(o.Expiries, func(a, b ZoneExpiry) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Zone, b.Zone))
	})
	slices.SortFunc(o.Rollovers, func(a, b ZoneRollover) int {
		return cmp.Or(compareTimes(a.Until, b.Until), a.Since.Compare(b.Since), strings.Compare(a.Zone, b.Zone))
	})
	slices.SortFunc(o.Reviews, func(a, b ZoneReview) int {
		return cmp.Or(a.Since.Compare(b.Since), strings.Compare(a.Zone, b.Zone))
	})
	o.Expiries = o.Expiries[:min(len(o.Expiries), fewZones)]
	o.Rollovers = o.Rollovers[:min(len(o.Rollovers), maxListed)]
	o.Reviews = o.Reviews[:min(len(o.Reviews), maxListed)]
}

// compareTimes puts the earlier time first, and what has none last.
func compareTimes(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return a.Compare(*b)
}

// needKey is what needs have in common that are told as one.
type needKey struct {
	process  bool
	severity string
	code     NoticeCode
}

// needList collects needs by kind.
type needList struct {
	by map[needKey][]Need
}

func (l *needList) add(zone string, n Notice) {
	if n.Severity == severityInfo {
		return
	}
	key := needKey{zone == "", n.Severity, n.Code}
	l.by[key] = append(l.by[key], Need{Zone: zone, Notice: n})
}

// list is what was collected, worst first; the same of many zones is one item.
func (l *needList) list() []Need {
	out := []Need{}
	for key, needs := range l.by {
		slices.SortStableFunc(needs, func(a, b Need) int { return strings.Compare(a.Zone, b.Zone) })
		zones := slices.CompactFunc(slices.Clone(needs), func(a, b Need) bool { return a.Zone == b.Zone })
		if key.process || len(zones) <= fewZones {
			for i := range needs {
				if !key.process {
					needs[i].Count = 1
				}
			}
			out = append(out, needs...)
			continue
		}
		one := zones[0]
		one.Count = len(zones)
		for _, n := range zones[1:] {
			if compareTimes(n.Since, one.Since) < 0 {
				one.Since = n.Since
			}
			if len(one.Others) < fewZones {
				one.Others = append(one.Others, n.Zone)
			}
		}
		if slices.ContainsFunc(zones, func(n Need) bool { return n.Text != zones[0].Text }) {
			// Each has a text of its own: this one is of the first.
			one.Text = one.Zone + ": " + one.Text
			one.Hint = strings.TrimPrefix(one.Hint+"; all of them: sluice zone list --notices "+string(one.Code), "; ")
		}
		out = append(out, one)
	}
	slices.SortFunc(out, compareNeeds)
	return out
}

// compareNeeds puts what is worse first, then what concerns all zones, many
// zones, and what has been so for longest.
func compareNeeds(a, b Need) int {
	return cmp.Or(
		cmp.Compare(severityRank(b.Severity), severityRank(a.Severity)),
		cmp.Compare(zeroFirst(a.Count), zeroFirst(b.Count)),
		compareTimes(a.Since, b.Since),
		strings.Compare(a.Zone, b.Zone),
		strings.Compare(string(a.Code), string(b.Code)),
		strings.Compare(a.Text, b.Text),
	)
}

// zeroFirst orders counts: none at all (the process), then the most.
func zeroFirst(n int) int {
	if n == 0 {
		return -1 << 62
	}
	return -n
}

// workersSummary is who shares the work.
func (e *Engine) workersSummary(ctx context.Context) WorkersSummary {
	ctx, done := context.WithTimeout(ctx, overviewTime)
	defer done()
	st, err := e.Workers(ctx)
	out := WorkersSummary{Shared: st.Shared, Living: []string{}}
	if err != nil {
		out.Error = oneLine(err.Error())
		return out
	}
	if len(st.Unheld) > 0 {
		out.Unheld = st.Unheld
	}
	for _, w := range st.Workers {
		if !w.Alive && !w.This {
			out.Silent = append(out.Silent, w.Name)
		} else {
			out.Living = append(out.Living, w.Name)
		}
	}
	return out
}

// journalSummary is how large the journal is.
func (e *Engine) journalSummary(ctx context.Context) JournalSummary {
	ctx, done := context.WithTimeout(ctx, overviewTime)
	defer done()
	var out JournalSummary
	var devices []uint64
	for _, dir := range []string{e.cfg.JournalDir, e.cfg.StoreDir} {
		if dir == "" {
			continue
		}
		d, err := lookDisk(dir)
		if err != nil || slices.Contains(devices, d.device) {
			continue
		}
		devices = append(devices, d.device)
		out.Disks = append(out.Disks, DiskRoom{Dir: dir, Free: d.free, Size: d.size})
	}
	st, err := e.fill.look(ctx, e.cfg.Journal, lookFillEvery)
	if err != nil {
		out.Error = oneLine(err.Error())
		return out
	}
	out.LastSeq, out.Events, out.Bulk = st.Events.LastSeq, st.Events.Bytes, st.Bulk.Bytes
	out.EventsFill, out.BulkFill = fillOf(st.Events), fillOf(st.Bulk)
	if folded := e.foldedSeq(); out.LastSeq > folded {
		out.Lag = out.LastSeq - folded
	} else {
		out.LastSeq = folded // what was looked at may be a few seconds old
	}
	return out
}

// Whose names the zones of a need, with their number.
func (n Need) Whose() string {
	switch {
	case n.Count == 0:
		return "this process"
	case n.Count == 1:
		return n.Zone
	}
	names := append([]string{n.Zone}, n.Others...)
	if left := n.Count - len(names); left > 0 {
		return fmt.Sprintf("%d zones: %s and %d more", n.Count, strings.Join(names, " "), left)
	}
	return fmt.Sprintf("%d zones: %s", n.Count, strings.Join(names, " "))
}
