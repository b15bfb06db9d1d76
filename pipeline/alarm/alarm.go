package alarm

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Alarm is a condition that needs a person.
type Alarm struct {
	Zone     string // "" is the process
	Code     string // of a closed list
	Severity string // warning or alarm
	Text     string
	Hint     string
	Topic    string
	Since    time.Time // zero where that is not known
}

// key is what tells conditions apart: those of one zone and code are one.
func (a Alarm) key() string { return a.Zone + " " + a.Code }

// What a Message says.
const (
	Raised  = "raised"
	Cleared = "cleared"
	Test    = "test"
)

// CodeNotSent is the code of a condition about the targets themselves: one that
// is alone is not told of itself.
const CodeNotSent = "alarm-not-sent"

// CodeMany is the code of a message that sums up conditions of several codes.
const CodeMany = "many"

// Message is what a target is told.
type Message struct {
	State    string `json:"state"` // raised, cleared, test
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Zone     string `json:"zone,omitempty"` // "" is the process, or several zones
	Text     string `json:"text"`
	Hint     string `json:"hint,omitempty"`
	// Since is from when on it is so, or was; Time when it is told.
	Since time.Time `json:"since"`
	Time  time.Time `json:"time"`
	// Worker is the process that tells it.
	Worker string `json:"worker,omitempty"`
	// Count is how many conditions it sums up, Zones the first zones of them; 0
	// and none for one condition.
	Count int      `json:"count,omitempty"`
	Zones []string `json:"zones,omitempty"`
	// Repeated: it was told before and is still so.
	Repeated bool `json:"repeated,omitempty"`
}

// env is what a command finds in its environment.
func (m Message) env() []string {
	return []string{
		"SLUICE_ALARM_STATE=" + m.State,
		"SLUICE_ALARM_CODE=" + m.Code,
		"SLUICE_ALARM_SEVERITY=" + m.Severity,
		"SLUICE_ALARM_ZONE=" + m.Zone,
		"SLUICE_ALARM_TEXT=" + clean(m.Text),
		"SLUICE_ALARM_HINT=" + clean(m.Hint),
		"SLUICE_ALARM_SINCE=" + m.Since.UTC().Format(time.RFC3339),
		"SLUICE_ALARM_WORKER=" + m.Worker,
		fmt.Sprintf("SLUICE_ALARM_COUNT=%d", max(m.Count, 1)),
		fmt.Sprintf("SLUICE_ALARM_REPEATED=%t", m.Repeated),
	}
}

// clean leaves out what an environment cannot hold.
func clean(text string) string { return strings.ReplaceAll(text, "\x00", "?") }

// Told is a condition that a target was told of and that was not cleared.
type Told struct {
	Zone     string    `json:"zone,omitempty"`
	Code     string    `json:"code"`
	Severity string    `json:"severity"`
	Text     string    `json:"text"`
	Since    time.Time `json:"since"`
	Sent     time.Time `json:"sent"` // last
}

// standing is a condition as it was seen lately.
type standing struct {
	Alarm
	first, last time.Time // when it was seen first, without a break, and last
	worse       time.Time // when it reached its severity
}

// watch is what is so, over time. It is pure: time is a parameter.
type watch struct {
	began time.Time // of the first look
	seen  map[string]standing
}

func newWatch() *watch { return &watch{seen: map[string]standing{}} }

// look takes up what is so now. Conditions of one zone and code are one: the
// worst, which says how many they are.
func (w *watch) look(now time.Time, all []Alarm, delay time.Duration) {
	if w.began.IsZero() {
		w.began = now
	}
	merged, count := map[string]Alarm{}, map[string]int{}
	for _, a := range all {
		k := a.key()
		count[k]++
		if was, ok := merged[k]; !ok || rank(a.Severity) > rank(was.Severity) {
			merged[k] = a
		}
	}
	for k, a := range merged {
		if n := count[k]; n > 1 {
			a.Text += fmt.Sprintf(" (and %d more of this kind)", n-1)
		}
		s, ok := w.seen[k]
		if !ok {
			s = standing{first: now, worse: now}
		}
		if rank(a.Severity) > rank(s.Severity) {
			s.worse = now
		}
		s.Alarm, s.last = a, now
		w.seen[k] = s
	}
	for k, s := range w.seen {
		if now.Sub(s.last) > delay {
			delete(w.seen, k)
		}
	}
}

// change is what a target is to be told.
type change struct {
	Alarm
	state    string
	repeated bool
}

// changes is what a target is to be told now, worst first, given what it was told.
func (w *watch) changes(now time.Time, told map[string]Told, c Config) []change {
	var out []change
	for k, s := range w.seen {
		t, was := told[k]
		switch {
		case rank(s.Severity) < rank(c.MinSeverity):
			continue
		case !was && (s.last.Sub(s.first) < c.Delay || s.last.Sub(s.worse) < c.Delay):
			continue
		case !was || rank(s.Severity) > rank(t.Severity) && s.last.Sub(s.worse) >= c.Delay:
			out = append(out, change{Alarm: s.Alarm, state: Raised})
		case c.Repeat > 0 && now.Sub(t.Sent) >= c.Repeat:
			out = append(out, change{Alarm: s.Alarm, state: Raised, repeated: true})
		}
	}
	// After a start some things are not known before they were asked for.
	if now.Sub(w.began) >= 2*c.Delay {
		for k, t := range told {
			s, still := w.seen[k]
			if still && rank(s.Severity) >= rank(c.MinSeverity) {
				continue
			}
			out = append(out, change{state: Cleared, Alarm: Alarm{
				Zone: t.Zone, Code: t.Code, Severity: t.Severity, Text: t.Text, Since: t.Since,
			}})
		}
	}
	slices.SortFunc(out, func(a, b change) int {
		return cmp.Or(strings.Compare(b.state, a.state), cmp.Compare(rank(b.Severity), rank(a.Severity)), strings.Compare(a.key(), b.key()))
	})
	return out
}

// batch is a message and the conditions that it tells.
type batch struct {
	Message
	tells []change
}

// maxNamed bounds the zones that a summary names.
const maxNamed = 20

// batches puts changes into messages: one for each, or where there are more than
// most of a state, one for all of these.
func batches(changes []change, now time.Time, worker string, most int) []batch {
	var out []batch
	for _, state := range []string{Raised, Cleared} {
		var list []change
		for _, c := range changes {
			if c.state == state {
				list = append(list, c)
			}
		}
		if len(list) > most {
			out = append(out, summary(list, now, worker))
			continue
		}
		for _, c := range list {
			m := Message{
				State: state, Code: c.Code, Severity: c.Severity, Zone: c.Zone, Text: c.Text, Hint: c.Hint,
				Since: c.Since, Time: now, Worker: worker, Repeated: c.repeated,
			}
			if m.Since.IsZero() {
				m.Since = now
			}
			out = append(out, batch{m, []change{c}})
		}
	}
	return out
}

// summary is one message for many changes.
func summary(list []change, now time.Time, worker string) batch {
	m := Message{State: list[0].state, Severity: list[0].Severity, Code: list[0].Code, Since: now, Time: now, Worker: worker, Count: len(list)}
	kinds := map[string]int{}
	zones := map[string]bool{}
	for _, c := range list {
		kinds[c.Code]++
		if rank(c.Severity) > rank(m.Severity) {
			m.Severity = c.Severity
		}
		if !c.Since.IsZero() && c.Since.Before(m.Since) {
			m.Since = c.Since
		}
		if c.Zone != "" && !zones[c.Zone] {
			zones[c.Zone] = true
			if len(m.Zones) < maxNamed {
				m.Zones = append(m.Zones, c.Zone)
			}
		}
	}
	if len(kinds) > 1 {
		m.Code = CodeMany
	}
	var parts []string
	for code, n := range kinds {
		parts = append(parts, fmt.Sprintf("%s %d", code, n))
	}
	slices.Sort(parts)
	m.Text = fmt.Sprintf("%d at once, of %d zones: %s", len(list), len(zones), strings.Join(parts, ", "))
	m.Hint = "see: sluice status"
	return batch{m, list}
}

// rank orders severities: the worse, the higher; what is unknown is 0.
func rank(severity string) int {
	return slices.Index([]string{"info", "warning", "alarm"}, severity) + 1
}
