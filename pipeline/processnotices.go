package pipeline

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
)

// ProcessNotices tells what an operator should know of this process, not of
// one zone alone.
func (e *Engine) ProcessNotices() []Notice {
	var out []Notice
	if e.lost != "" {
		out = append(out, Notice{
			Severity: severityAlarm, Code: NoticeEventsLost, Text: e.lost,
			Hint: "restore the newest copy of the journal: sluice help operate",
		})
	}
	out = append(out, e.staleNotices()...)
	if doubt := e.watch.check(); doubt != nil {
		out = append(out, clockNotice(*doubt))
	}
	e.mu.RLock()
	troubles, broken, sealing := e.troubles, e.registry.Broken, e.sealTrouble
	faults := maps.Clone(e.faults)
	e.mu.RUnlock()
	if broken != "" {
		out = append(out, Notice{Severity: severityAlarm, Code: NoticeInstanceBroken, Text: broken, Hint: "see: sluice journal verify"})
	}
	for kind, err := range troubles {
		if err != nil {
			out = append(out, troubleNotice(troubleKind(kind), err))
		}
	}
	out = append(out, e.reserveNotices()...)
	out = append(out, e.fillNotices()...)
	if e.cfg.Certificates != nil {
		for _, text := range e.cfg.Certificates() {
			out = append(out, Notice{Severity: severityAlarm, Code: NoticeCertificate, Text: text, Hint: "put a new certificate and its key in the files that the config names"})
		}
	}
	for _, ks := range e.usedKeystores() {
		if st := ks.State(); st.Problem != "" {
			out = append(out, Notice{
				Severity: severityAlarm, Code: NoticeKeystoreDown, Since: sinceOf(st.Since),
				Text: oneLine(st.Problem) + "; what is published stays served", Hint: strings.TrimSpace(st.Hint),
			})
		}
	}
	out = append(out, e.silentNotices()...)
	if sealing != "" {
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeSealFailed, Text: "the journal is not sealed: " + sealing,
			Hint: "it is tried again by itself; see: sluice audit head",
		})
	}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		out = append(out, policyFaultNotice(faults[name]))
	}
	sender, _ := e.alarms.get()
	for _, text := range sender.Faults() {
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeAlarmNotSent, Text: text, Hint: "correct [alarms] in the config, then: sluice alarms test",
		})
	}
	complete(out)
	return out
}

func clockNotice(doubt event.ClockDoubted) Notice {
	return Notice{
		Severity: severityAlarm, Code: NoticeClockDoubted, Since: sinceOf(time.Unix(doubt.Shown, 0)), Text: clockAlarm(doubt), Hint: ClockHint,
	}
}

func policyFaultNotice(err error) Notice {
	return Notice{
		Severity: severityAlarm, Code: NoticePolicyFault, Text: "policy file not loaded: " + err.Error(),
		Hint: "correct it, then: sluice policy reload; until then zones go on with the text that they are bound to",
	}
}

// staleNotices tells that the journal does not answer this process.
func (e *Engine) staleNotices() []Notice {
	err := e.staleError()
	if err == nil {
		return nil
	}
	return []Notice{{
		Severity: severityAlarm, Code: NoticeJournalCutOff, Since: sinceOf(e.staleSince()),
		Text: "stale: " + strings.TrimSuffix(err.Error(), ": "+ErrState.Error()),
		Hint: "secondaries are not told of it; see: sluice health",
	}}
}

// roomNotices tells what keeps all zones from working, and what will once it is
// used up.
func (e *Engine) roomNotices() []Notice {
	e.mu.RLock()
	troubles := e.troubles
	e.mu.RUnlock()
	var out []Notice
	for kind, err := range troubles {
		if err != nil {
			out = append(out, troubleNotice(troubleKind(kind), err))
			break // what comes behind mostly follows from it
		}
	}
	return append(out, e.reserveNotices()...)
}

// troubleNotice tells one thing that keeps all zones from working.
func troubleNotice(kind troubleKind, err error) Notice {
	n := Notice{Text: err.Error()}
	n.Severity = severityAlarm
	const served = "; what is published stays served"
	switch kind {
	case journalTrouble:
		n.Code, n.Hint = NoticeJournalFault, "it is opened again by itself once it answers; see that its disk is well: sluice journal status"
	case limitTrouble:
		n.Code, n.Hint = NoticeJournalFull, "let retention free some: sluice journal compact; or raise events-max-size, bulk-max-size in the config"
	case diskTrouble:
		n.Code, n.Hint = NoticeDiskFull, "free space on the disk or raise the journal's limits"
	case storeTrouble:
		n.Code, n.Hint = NoticeProjection, "free space on the disk; one that is damaged is made anew when the daemon starts"
	case foldTrouble:
		n.Code, n.Hint = NoticeFoldFault, "free space on the disk; it is tried again by itself"
	case troubleKinds:
	}
	n.Hint += served
	return n
}

// reserveNotices tells of a reserve that is not whole.
func (e *Engine) reserveNotices() []Notice {
	if e.cfg.Reserve == nil {
		return nil
	}
	text := e.cfg.Reserve.status().alarm()
	if text == "" {
		return nil
	}
	return []Notice{{Severity: severityAlarm, Code: NoticeReserveShort, Text: text, Hint: "see: sluice journal status"}}
}

// silentNotices tells of workers that were enrolled and are not there.
func (e *Engine) silentNotices() []Notice {
	if e.duties == nil || !e.keeper() {
		return nil
	}
	e.duties.mu.Lock()
	known, standing := e.duties.holders != nil, e.duties.standing
	e.duties.mu.Unlock()
	if !known {
		return nil
	}
	living := map[string]bool{}
	for _, w := range workersIn(standing) {
		living[w.name] = true
	}
	e.mu.RLock()
	enrolled := e.registry.Workers
	e.mu.RUnlock()
	var out []Notice
	for _, name := range slices.Sorted(maps.Keys(enrolled)) {
		if living[name] {
			continue
		}
		out = append(out, Notice{
			Severity: severityWarning, Code: NoticeWorkerSilent, Text: fmt.Sprintf("worker %s was enrolled and does not answer", name),
			Hint: "start it; or if it is not to come back: sluice worker remove " + name,
		})
	}
	return out
}
