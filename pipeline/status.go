package pipeline

import (
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/keymgr"
)

// Zones lists all zones by name.
func (e *Engine) Zones(ctx context.Context) ([]ZoneSummary, error) {
	return e.FindZones(ctx, ZoneQuery{})
}

// Zone tells how a zone is.
func (e *Engine) Zone(_ context.Context, name string) (ZoneStatus, error) {
	r, err := e.find(name)
	if err != nil {
		return ZoneStatus{}, err
	}
	return r.status(), nil
}

// Keys lists all keys that a zone ever had.
func (e *Engine) Keys(_ context.Context, name string) ([]keymgr.Key, error) {
	r, err := e.find(name)
	if err != nil {
		return nil, err
	}
	return r.snapshot().Keys.Keys, nil
}

// status describes the zone as it stands.
func (r *runner) status() ZoneStatus { return r.describedAs(false) }

// summary is what a list has of the zone: nothing is decided for it.
func (r *runner) summary() ZoneSummary { return r.describedAs(true).ZoneSummary }

// describedAs describes the zone; with brief nothing is decided, and what comes
// next is left out.
func (r *runner) describedAs(brief bool) ZoneStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	st := ZoneStatus{ZoneSummary: ZoneSummary{
		Name: s.Name, ID: string(s.Zone), Policy: s.Policy.Name, Source: s.Source,
	}, Keys: s.Keys.Keys}
	if st.Policy == "" {
		st.Policy = s.Added.Facts.Policy
	}
	if s.Loaded != nil {
		st.LoadedSerial = &s.Loaded.Facts.Serial
		st.Loaded = loadedSummary(*s.Loaded)
		for _, text := range s.Loaded.Facts.Notices {
			st.Notices = append(st.Notices, Notice{Severity: severityInfo, Code: NoticeInput, Text: text, Since: sinceOf(s.Loaded.Time)})
		}
	}
	if s.Signed != nil {
		st.Signed = signedSummary(*s.Signed)
	}
	if p := s.Published; p != nil {
		st.PublishedSerial = &p.Signed.Facts.Serial
		st.Published = signedSummary(p.Signed)
		st.Published.Time = p.Time
		if p.Signed.Facts.Earliest != 0 {
			expiry := time.Unix(p.Signed.Facts.Earliest, 0).UTC()
			st.NextExpiry = &expiry
		}
	}
	if at := r.progress; at.Stage != "" {
		st.Progress = &at
	}
	st.Exchange = r.exchangeStatus(s)
	st.Upstream, st.Secondaries, st.Fetched = r.upstreamStatus(), r.secondaries(), fetchStatuses(s)
	r.describe(&st, brief)
	return st
}

// describe says what the zone waits for, and what is next, the latter not where
// it is brief. The caller holds mu.
func (r *runner) describe(st *ZoneStatus, brief bool) {
	s := r.state
	if f := s.LoadFailure; f != nil && r.up.good.After(f.Time) {
		s.LoadFailure = nil // a server answered since, with nothing newer
	}
	var d Decision
	if !brief {
		d = r.decide()
	}
	st.State = stateWord(s, r.progress, r.lanes[ContentLane].runs() || r.lanes[SigningLane].runs())
	if f := s.LoadFailure; f != nil {
		st.LastError = f.Reason
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeLoadFailed, Since: sinceOf(f.Time),
			Text: fmt.Sprintf("loading %s failed at %s: %s", f.Source, f.Time.Format(time.RFC3339), f.Reason),
			Hint: r.state.afterLoadFailure(f.Reason),
		})
	}
	if f := s.SignFailure; f != nil {
		st.LastError = f.Reason
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeSignFailed, Since: sinceOf(f.Time),
			Text: fmt.Sprintf("%s of l%d failed at %s: %s", f.Stage, f.Loaded, f.Time.Format(time.RFC3339), f.Reason),
			Hint: served(s) + "see: sluice zone history " + s.Name,
		})
	}
	for _, lane := range r.lanes {
		if st.LastError == "" && lane.failure != nil {
			st.LastError = lane.failure.Error()
			st.Notices = append(st.Notices, Notice{
				Severity: severityAlarm, Code: NoticeWorkFailed, Text: st.LastError, Since: sinceOf(lane.failedAt),
				Hint: "it is tried again by itself; see: sluice zone history " + s.Name,
			})
		}
	}
	st.Notices = append(st.Notices, r.e.roomNotices()...)
	r.workerNotices(st)
	st.Notices = append(st.Notices, r.e.fillNotices()...)
	doubt := r.e.watch.check()
	if doubt != nil {
		st.Notices = append(st.Notices, clockNotice(*doubt))
	}
	if err := r.e.policyFault(st.Policy); err != nil {
		st.Notices = append(st.Notices, policyFaultNotice(err))
	}
	if s.Halted != nil {
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeZoneBroken, Text: s.Halted.Reason, Hint: "see: sluice journal verify; what is published stays served, but is not signed again",
		})
	}
	if p, err := r.e.boundPolicy(s); err == nil {
		if n, some := r.overdueNotice(p, r.e.overdueAt()); some {
			st.Notices = append(st.Notices, n)
		}
	}
	st.Notices = append(st.Notices, r.e.keyNotices(s)...)
	r.upstreamNotices(st)
	r.observationStatus(st)
	r.probeStatus(st)
	r.rolloverStatus(st)
	r.toldStatus(st)
	r.describeMode(st)
	r.describeReviews(st)
	r.describeCatalogs(st)
	r.describeUpdates(st)
	st.WaitsFor, st.Since = waits(s, *st, r.lanes)
	if p, err := r.e.boundPolicy(s); err == nil && st.WaitsFor == "" && len(s.Keys.Signing()) == 0 && len(backupNotices(s, p)) > 0 {
		st.WaitsFor = "its keys to be marked as backed up"
	}
	if doubt != nil && !r.lanes[ContentLane].runs() {
		since := time.Unix(doubt.Shown, 0).UTC()
		st.WaitsFor, st.Since = "a clock that is trusted", &since
	}
	complete(st.Notices)
	if !brief {
		r.describeNext(st, d)
	}
}

// describeNext says what comes next, and where the zone stands on its way. The
// caller holds mu.
func (r *runner) describeNext(st *ZoneStatus, d Decision) {
	if !d.WakeAt.IsZero() {
		at := d.WakeAt
		st.NextAt, st.Next = &at, d.WakeFor
	}
	st.Coming = r.coming(*st, d)
	if p, err := r.e.boundPolicy(r.state); err == nil {
		st.Stages = stagesOf(*st, p)
	}
}

// served says what stays served, if anything.
func served(s State) string {
	if s.Published == nil {
		return "nothing is served yet; "
	}
	return "what was published stays served; "
}

// loadHint says what to do about a failed load from a source.
func loadHint(source, reason string) string {
	if strings.HasPrefix(reason, journal.ErrNoSpace.Error()) || strings.HasSuffix(reason, syscall.ENOSPC.Error()) {
		return "free space on the disk or raise the journal's limits"
	}
	if IsTransfer(source) {
		return "see that a server of the source answers, with a zone that can be read"
	}
	return "correct the source"
}

// stateWord sums a zone up.
func stateWord(s State, p Progress, busy bool) string {
	switch {
	case s.Halted != nil, s.Stopped != nil:
		return "halted"
	case busy && p.Stage == "load":
		return "loading"
	case busy && p.Stage == "sign":
		return "signing"
	case busy && p.Stage == "verify":
		return "verifying"
	case busy:
		return "working"
	case s.Published != nil && s.SignFailure != nil:
		return "published, signing failed"
	case s.Published != nil && s.LoadFailure != nil:
		return "published, input failed"
	case s.LoadFailure != nil || s.SignFailure != nil:
		return "failed"
	case s.Published != nil:
		return "published"
	}
	return "new"
}

// describeReviews tells what is under review, halted or blocked. The caller
// holds mu.
func (r *runner) describeReviews(st *ZoneStatus) {
	s := r.state
	p, err := r.e.boundPolicy(s)
	if err != nil {
		return
	}
	st.Reviews = r.e.reviews(s, p)
	for _, rv := range st.Reviews {
		if n, some := reviewNotice(rv); some {
			st.Notices = append(st.Notices, n)
		}
		if rv.State == "pending" && (st.State == "new" || strings.HasPrefix(st.State, "published")) {
			st.State = strings.TrimPrefix(st.State+", in review", "new, ")
		}
	}
	if m := s.Maintenance; m != nil {
		st.Maintenance = &MaintenanceStatus{Since: m.Time, Actor: m.Actor.Name, Reason: m.Reason}
		st.Notices = append(st.Notices, Notice{
			Severity: severityWarning, Code: NoticeMaintenance, Since: sinceOf(m.Time), Text: "maintenance: new work is blocked" + because(m.Reason),
			Hint: "sluice zone maintenance disable " + s.Name,
		})
	}
	describeProposals(s, r.e.clock.Now(), st)
	describeHeld(s, st)
	if stop := s.Stopped; stop != nil {
		st.Notices = append(st.Notices, Notice{
			Severity: severityAlarm, Code: NoticeReviewHalted, Since: sinceOf(stop.Time),
			Text: fmt.Sprintf("halted at the %s review of %s: %s", stop.Stage, instanceWordOf(stop.Stage, stop.Instance), stop.Reason),
			Hint: overrideOrReset(s, stop.Stage),
		})
	} else {
		st.Notices = append(st.Notices, dropped(s)...)
	}
}

// reviewNotice tells of an instance that waits for a person; false where it
// waits for something else.
func reviewNotice(rv ReviewStatus) (Notice, bool) {
	if rv.State != "pending" || rv.WaitsFor != personVerdict && rv.WaitsFor != personsVerdict {
		return Notice{}, false
	}
	return Notice{
		Severity: severityWarning, Code: NoticeReviewWaits, Since: sinceOf(rv.Since),
		Text: fmt.Sprintf("%s, serial %d, waits for %s", rv.Instance, rv.Serial, rv.WaitsFor),
		Hint: strings.Join(rv.Actions, ", or: "),
	}, true
}

// overrideOrReset is what a person can do about a halt.
func overrideOrReset(s State, stage string) string {
	reset := "sluice zone reset " + s.Name
	if s.review(stage, s.Stopped.Instance) == nil {
		return reset
	}
	return overrideLine(s, stage) + ", or: " + reset
}

// dropped tells of the newest instances that did not pass their review.
func dropped(s State) []Notice {
	var out []Notice
	if l := s.Loaded; l != nil && l.Abandoned != "" {
		hint := "correct the source, then: sluice zone reload " + s.Name
		if s.Held != nil {
			hint = "roll back to another version, or: sluice zone release " + s.Name
		}
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeLoadedDropped, Since: sinceOf(l.Time),
			Text: fmt.Sprintf("l%d, serial %d, was dropped: %s", l.Seq, l.Facts.Serial, l.Abandoned), Hint: hint,
		})
	}
	if r := s.Rejected; r != nil && s.Published != nil && s.Published.Loaded.Seq < r.Made.Loaded || r != nil && s.Published == nil {
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeSignedDropped, Since: sinceOf(r.Time),
			Text: fmt.Sprintf("s%d, signed from l%d, was dropped: %s", r.Instance, r.Made.Loaded, r.Reason),
			Hint: "it is not made again before content, keys or policy change",
		})
	}
	if r := s.RefreshRejected; r != nil && s.Published != nil && s.Published.Signed.Seq < r.Instance {
		out = append(out, Notice{
			Severity: severityAlarm, Code: NoticeRefreshDropped, Since: sinceOf(r.Time),
			Text: fmt.Sprintf("s%d, new signatures for what is published, was dropped: %s", r.Instance, r.Reason),
			Hint: "correct the review, or the signatures will expire",
		})
	}
	return out
}

// waits says in a sentence what a zone waits for.
func waits(s State, st ZoneStatus, l [lanes]laneWork) (text string, since *time.Time) {
	for _, rv := range st.Reviews {
		return fmt.Sprintf("the %s review of %s: %s", rv.Stage, rv.Instance, rv.WaitsFor), &rv.Since
	}
	switch {
	case l[ContentLane].runs() || l[SigningLane].runs():
		return "its own work: it is " + st.State, nil
	case l[ContentLane].waits() || l[SigningLane].waits():
		return "its turn: many zones have work", nil
	case s.Stopped != nil:
		return "a person, after a review halted it", &s.Stopped.Time
	case s.Maintenance != nil:
		return "the end of maintenance", &s.Maintenance.Time
	case s.Held != nil && s.LoadFailure == nil && s.SignFailure == nil:
		return "a person, to release it", &s.Held.Time
	case s.SignFailure != nil:
		return "its signing to succeed", &s.SignFailure.Time
	case s.LoadFailure != nil:
		return "a source that can be loaded", &s.LoadFailure.Time
	case s.Published != nil && s.Published.Signed.mode() != ModeSign:
		return "new input", &s.Published.Time
	case s.Published != nil:
		return "new input, or the time to sign again", &s.Published.Time
	}
	return "", nil
}

func loadedSummary(l Loaded) *InstanceSummary {
	f := l.Facts
	return &InstanceSummary{
		Instance: fmt.Sprintf("l%d", l.Seq), Serial: f.Serial, Time: l.Time, Records: f.Records,
		ContentDigest: hex.EncodeToString(f.ContentDigest[:]), DurationMS: f.DurationMS,
		Stripped: f.Stripped, Added: f.Added, Removed: f.Removed, Notices: f.Notices,
		Signatures: f.Signatures, ZONEMD: f.ZONEMD,
	}
}

func signedSummary(s Signed) *InstanceSummary {
	f := s.Facts
	return &InstanceSummary{
		Instance: fmt.Sprintf("s%d", s.Seq), Serial: f.Serial, Time: s.Time, Records: f.Records,
		ContentDigest: hex.EncodeToString(f.ContentDigest[:]), SignedDigest: hex.EncodeToString(f.SignedDigest[:]),
		Signatures: f.Signatures, Made: f.Made, Reused: f.Reused, DurationMS: f.DurationMS,
		Mode: s.mode(), SignedBy: f.SignedBy, Parts: f.Parts,
	}
}

// FormatSignal is the format of DS for the operator of a zone's name servers.
const FormatSignal = "signal"

// DS lists what a zone's key-signing keys look like at the parent, as ds,
// cds, cdnskey or dnskey records; as signal, the records by which the operator
// of its name servers vouches for them (RFC 9615).
func (e *Engine) DS(_ context.Context, name, format string) ([]DSRecord, error) {
	s, p, m, err := e.zoneMoment(name)
	if err != nil {
		return nil, err
	}
	apex, err := apexOf(s)
	if err != nil {
		return nil, err
	}
	var out []DSRecord
	for _, k := range s.Keys.Keys {
		if wanted := slices.Contains(s.Keys.DS.Wanted, k.ID); !k.SignsKeys() || !k.InRRset() && !wanted {
			continue
		}
		records, err := e.parentRecords(s, p, apex, k.Key, format)
		if err != nil {
			return nil, err
		}
		for _, record := range records {
			out = append(out, dsRecord(s, p, m, k, record))
		}
	}
	return out, nil
}

// dsRecord says whether the parent is to have the record: not before nothing
// unsigned is left in caches (RFC 6781, 4.3.2), and of a new key not before
// its rollover says so.
func dsRecord(s State, p Policy, m Moment, k keymgr.Key, record string) DSRecord {
	out := DSRecord{KeyID: k.ID, Tag: k.Tag, State: string(k.State), Record: record}
	has := slices.ContainsFunc(s.Keys.DS.Sets, func(set event.DSSet) bool {
		return slices.ContainsFunc(set.DS, func(d event.DS) bool { return d.Key == k.ID })
	})
	d := s.Keys.DS
	switch {
	case s.Published == nil:
		out.Note = "not yet to be submitted: the signed zone is not published"
	case s.Published.Signed.mode() != ModeSign:
		out.Note = fmt.Sprintf("not to be submitted: the zone is published %s, not signed with this key", s.Published.Signed.mode())
	case d.Withdrawn:
		out.Note = "not to be submitted: the parent is to remove all DS records"
	case slices.Contains(d.Wanted, k.ID):
		out.Submit = true
		if out.Note = "to be submitted"; has {
			out.Note = "the parent has it"
		}
		if d.CDS {
			out.Note += "; CDS and CDNSKEY say so, too"
		}
	case len(d.Wanted) > 0 && !s.takesPartAsNew(k.ID):
		out.Note = "to be removed at the parent"
	default:
		out.Note = "not yet to be submitted: caches may not know the key, or hold the unsigned zone"
		for _, ro := range s.Rolling(p, m) {
			if slices.Contains(ro.New, k.ID) {
				out.Note = "not yet to be submitted: " + ro.Text
			}
		}
	}
	return out
}

// takesPartAsNew reports whether a rollover brings the key.
func (s State) takesPartAsNew(id string) bool {
	return slices.ContainsFunc(s.Keys.Rollovers, func(r keymgr.Rollover) bool { return slices.Contains(r.New, id) })
}

// Health reports whether the fold is running and has caught up.
func (e *Engine) Health(context.Context) error {
	if err := e.staleError(); err != nil {
		return err
	}
	if !e.running() {
		return fmt.Errorf("the journal is still being read: %w", ErrState)
	}
	if err := e.Trouble(); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if e.registry.Broken != "" {
		return fmt.Errorf("%w: %s; see: sluice journal verify", ErrState, e.registry.Broken)
	}
	return nil
}

// zoneName is the name of a zone by its id, also of one that was removed.
func (e *Engine) zoneName(id event.ZoneID) string {
	if id == event.Instance {
		return string(id)
	}
	e.mu.RLock()
	r := e.runners[id]
	e.mu.RUnlock()
	if r == nil {
		return string(id)
	}
	return r.snapshot().Name
}
