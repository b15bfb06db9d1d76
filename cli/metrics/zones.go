package metrics

import (
	"slices"
	"strconv"
	"time"

	"sluice/keymgr"
	"sluice/pipeline"
)

// severities are those of notices.
func severities() []string { return []string{"info", "warning", "alarm"} }

// results are what resolvers say of a zone, the worst last.
func results() []string {
	return []string{pipeline.ProbeValidated, pipeline.ProbeInsecure, pipeline.ProbeSilent, pipeline.ProbeFailed, pipeline.ProbeBogus}
}

// urgencies of signatures that were not made anew.
const (
	overdueDue     = "due"
	overdueAlarm   = "alarm"
	overdueExpired = "expired"
)

// zone tells of one zone.
func (s *scrape) zone(z *pipeline.ZoneMeasure) {
	name := z.Name
	s.set("zone_info", 1, name, z.Policy, string(z.Mode))
	s.set("zone_stage", 1, name, z.Stage)
	s.atPointer("zone_waiting_since_timestamp_seconds", z.Since, name)
	if l := z.Loaded; l != nil {
		s.set("zone_serial", float64(l.Serial), name, "loaded")
		s.at("zone_loaded_timestamp_seconds", l.Time, name)
		s.set("zone_load_duration_seconds", float64(l.DurationMS)/1000, name)
	}
	if l := z.Signed; l != nil {
		s.set("zone_serial", float64(l.Serial), name, "signed")
		s.set("zone_sign_duration_seconds", float64(l.DurationMS)/1000, name)
	}
	if p := z.Published; p != nil {
		s.set("zone_serial", float64(p.Serial), name, "published")
		s.at("zone_published_timestamp_seconds", p.Time, name)
		s.count("zone_records", p.Records, name)
		s.count("zone_signatures", p.Signatures, name)
	}
	if u := z.Upstream; u != nil && u.Serial != nil {
		s.set("zone_serial", float64(*u.Serial), name, "upstream")
	}
	s.atPointer("zone_signature_expiry_timestamp_seconds", z.NextExpiry, name)
	s.at("zone_signature_due_timestamp_seconds", z.Due, name)
	s.at("zone_signature_alarm_timestamp_seconds", z.Alarm, name)
	s.at("zone_load_failed_timestamp_seconds", z.LoadFailed, name)
	s.at("zone_sign_failed_timestamp_seconds", z.SignFailed, name)
	for _, rv := range z.Reviews {
		if rv.State == "pending" {
			s.at("zone_review_pending_since_timestamp_seconds", rv.Since, name, rv.Stage)
		}
	}
	notices := noticesOf(z)
	for i, severity := range severities() {
		s.set("zone_notices", float64(notices[i]), name, severity)
	}
	s.keys(z)
	s.servers(z)
	s.parent(z)
	s.rollovers(z)
	s.probes(z)
}

// atPointer sends a time, where there is one.
func (s *scrape) atPointer(name string, t *time.Time, labels ...string) {
	if t != nil {
		s.at(name, *t, labels...)
	}
}

// noticesOf counts notices by severity, in the order of severities.
func noticesOf(z *pipeline.ZoneMeasure) (out [3]int) {
	for _, n := range z.Notices {
		if i := slices.Index(severities(), n.Severity); i >= 0 {
			out[i]++
		}
	}
	return out
}

// keys counts the zone's keys.
func (s *scrape) keys(z *pipeline.ZoneMeasure) {
	type kind struct{ role, state string }
	var order []kind
	n := map[kind]int{}
	for i := range z.Keys {
		k := &z.Keys[i]
		if k.State == keymgr.Removed {
			continue
		}
		at := kind{k.Role, string(k.State)}
		if n[at]++; n[at] == 1 {
			order = append(order, at)
		}
	}
	for _, at := range order {
		s.set("zone_keys", float64(n[at]), z.Name, at.role, at.state)
	}
}

// servers tells what the zone's public name servers and secondaries have.
func (s *scrape) servers(z *pipeline.ZoneMeasure) {
	if z.Published == nil {
		return
	}
	if len(z.Secondaries) > 0 {
		n := 0
		for _, sec := range z.Secondaries {
			if unaware(sec) {
				n++
			}
		}
		s.set("zone_secondaries_unaware", float64(n), z.Name)
	}
	o := z.Observation
	if o == nil || o.At.IsZero() {
		return
	}
	oldest, server := z.Published.Serial, ""
	for _, at := range o.Zone {
		if at.Error == "" && (server == "" || int32(at.Serial-oldest) < 0) { //nolint:gosec // RFC 1982
			oldest, server = at.Serial, at.Address.String()
		}
	}
	n := serversOf(z)
	for _, state := range sortedKeys(n) {
		s.set("zone_servers", float64(n[state]), z.Name, state)
	}
	if server != "" {
		s.set("zone_server_oldest_serial", float64(oldest), z.Name, server)
	}
}

// serversOf counts the public servers by what they showed when last asked.
func serversOf(z *pipeline.ZoneMeasure) map[string]int {
	n := map[string]int{"current": 0, "behind": 0, "silent": 0}
	for _, at := range z.Observation.Zone {
		switch {
		case at.Error != "":
			n["silent"]++
		case at.Serial == z.Published.Serial:
			n["current"]++
		default:
			n["behind"]++
		}
	}
	return n
}

// unaware reports whether a secondary has not acknowledged what is published.
func unaware(sec pipeline.SecondaryStatus) bool { return sec.Telling != nil || sec.Serial == nil }

// parent tells how the zone stands with its parent.
func (s *scrape) parent(z *pipeline.ZoneMeasure) {
	if z.DS.Known {
		s.is("zone_ds_at_parent", z.DS.AtParent, z.Name)
	}
	if z.DS.Told && z.DS.Known {
		s.is("zone_ds_in_step", z.DS.InStep, z.Name)
		s.at("zone_ds_since_timestamp_seconds", z.DS.Since, z.Name)
	}
}

// rollovers tells of those that run.
func (s *scrape) rollovers(z *pipeline.ZoneMeasure) {
	for i, ro := range z.Rollovers {
		kind, id := string(ro.Kind), strconv.FormatUint(ro.ID, 10)
		s.set("zone_rollover_step", float64(ro.Step), z.Name, kind, id)
		s.set("zone_rollover_steps", float64(ro.Steps), z.Name, kind, id)
		s.set("zone_rollover_phase", 1, z.Name, kind, id, string(ro.Phase))
		s.at("zone_rollover_step_timestamp_seconds", ro.Since, z.Name, kind, id)
		s.atPointer("zone_rollover_wait_timestamp_seconds", ro.Until, z.Name, kind, id)
		s.at("zone_rollover_late_timestamp_seconds", z.Late[i], z.Name, kind, id)
	}
}

// probes tells what validating resolvers said.
func (s *scrape) probes(z *pipeline.ZoneMeasure) {
	p := z.Probe
	if p == nil || len(p.Answers) == 0 {
		return
	}
	s.atPointer("zone_probe_timestamp_seconds", p.At, z.Name)
	worst := map[string]string{}
	for _, a := range p.Answers {
		worst[a.Resolver] = worse(worst[a.Resolver], a.Outcome)
	}
	for _, resolver := range sortedKeys(worst) {
		s.set("zone_probe_result", 1, z.Name, resolver, worst[resolver])
	}
}

// worse is the worse one of two results; "" is none.
func worse(a, b string) string {
	if slices.Index(results(), b) > slices.Index(results(), a) {
		return b
	}
	return a
}

// sums are those over all zones.
type sums struct {
	stages, noticed, probed, reviews, rollovers, stopped map[string]int

	codes          map[[2]string]int // by code and severity of notices
	overdue        map[string]int
	outOfStep      int
	late           int
	oldest         map[string]time.Time // pending review by stage
	expiry, alarm  time.Time
	expiryAt, next string // zones whose these are
}

// fleet sums all zones up.
func (s *scrape) fleet(m pipeline.Measurement) {
	t := newSums()
	for i := range m.Zones {
		t.add(&m.Zones[i], m.Clock.Now)
	}
	for name, by := range map[string]map[string]int{
		"zones": t.stages, "zones_signatures_overdue": t.overdue, "zones_with_notices": t.noticed, "zones_probed": t.probed,
		"rollovers": t.rollovers, "rollovers_stopped": t.stopped, "reviews_pending": t.reviews,
	} {
		for _, label := range sortedKeys(by) {
			s.set(name, float64(by[label]), label)
		}
	}
	s.set("zones_ds_out_of_step", float64(t.outOfStep))
	s.set("rollovers_late", float64(t.late))
	for code, n := range t.codes {
		s.set("zones_by_notice", float64(n), code[0], code[1])
	}
	for _, stage := range sortedKeys(t.oldest) {
		s.at("review_oldest_timestamp_seconds", t.oldest[stage], stage)
	}
	if t.expiryAt != "" {
		s.at("signature_expiry_min_timestamp_seconds", t.expiry, t.expiryAt)
	}
	if t.next != "" {
		s.at("signature_alarm_min_timestamp_seconds", t.alarm, t.next)
	}
}

func newSums() *sums {
	zero := func(words ...string) map[string]int {
		m := map[string]int{}
		for _, w := range words {
			m[w] = 0
		}
		return m
	}
	t := &sums{
		stages: zero(pipeline.Stages()...), noticed: zero(severities()...), probed: zero(results()...),
		reviews:   zero("loaded", "signed"),
		rollovers: zero(string(keymgr.RollZSK), string(keymgr.RollKSK), string(keymgr.RollCSK), string(keymgr.RollAlgorithm)),
		stopped:   map[string]int{},
		overdue:   zero(overdueDue, overdueAlarm, overdueExpired), oldest: map[string]time.Time{}, codes: map[[2]string]int{},
	}
	for _, phase := range stops() {
		t.stopped[string(phase)] = 0
	}
	return t
}

// add takes one zone into the sums.
func (t *sums) add(z *pipeline.ZoneMeasure, now time.Time) {
	t.stages[z.Stage]++
	for i, n := range noticesOf(z) {
		if n > 0 {
			t.noticed[severities()[i]]++
		}
	}
	told := map[[2]string]bool{}
	for _, n := range z.Notices {
		if code := [2]string{string(n.Code), n.Severity}; n.Code != "" && !told[code] {
			told[code] = true
			t.codes[code]++
		}
	}
	t.addSignatures(z, now)
	if z.DS.Told && z.DS.Known && !z.DS.InStep {
		t.outOfStep++
	}
	for i, ro := range z.Rollovers {
		t.rollovers[string(ro.Kind)]++
		if _, ok := t.stopped[string(ro.Phase)]; ok {
			t.stopped[string(ro.Phase)]++
		}
		if late := z.Late[i]; !late.IsZero() && now.After(late) {
			t.late++
		}
	}
	for _, rv := range z.Reviews {
		if rv.State != "pending" {
			continue
		}
		t.reviews[rv.Stage]++
		if at, ok := t.oldest[rv.Stage]; !ok || rv.Since.Before(at) {
			t.oldest[rv.Stage] = rv.Since
		}
	}
	if p := z.Probe; p != nil {
		worst := ""
		for _, a := range p.Answers {
			worst = worse(worst, a.Outcome)
		}
		if worst != "" {
			t.probed[worst]++
		}
	}
}

// addSignatures takes the times of a zone's signatures into the sums.
func (t *sums) addSignatures(z *pipeline.ZoneMeasure, now time.Time) {
	if z.NextExpiry != nil {
		if t.expiryAt == "" || z.NextExpiry.Before(t.expiry) {
			t.expiry, t.expiryAt = *z.NextExpiry, z.Name
		}
		if !now.Before(*z.NextExpiry) {
			t.overdue[overdueExpired]++
		}
	}
	if !z.Due.IsZero() && !now.Before(z.Due) {
		t.overdue[overdueDue]++
	}
	if z.Alarm.IsZero() {
		return
	}
	if t.next == "" || z.Alarm.Before(t.alarm) {
		t.alarm, t.next = z.Alarm, z.Name
	}
	if !now.Before(z.Alarm) {
		t.overdue[overdueAlarm]++
	}
}
