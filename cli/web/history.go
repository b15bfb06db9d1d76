package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/cli/api"
	"sluice/journal/event"
	"sluice/pipeline"
)

// eventsOnPage is how many events a page shows.
const eventsOnPage = 50

// lookBack is how many events before the newest are looked through for those of
// all zones.
const lookBack = 2000

// historyPage is what a page of events shows.
type historyPage struct {
	zonePage
	All      bool // of all zones
	Query    historyQuery
	Families []string
	Events   []eventView
	Older    string // the address of the page before, "" for none
	Newest   bool   // it is the newest page
	Back     int    // how far back all zones are looked through
}

// eventView is one event.
type eventView struct {
	pipeline.HistoryLine
	Family string
	Raw    string
}

// historyQuery selects events.
type historyQuery struct {
	Family, Text, Since, Until string
	since, until               time.Time
	before                     uint64
}

func historyQueryOf(q url.Values) (historyQuery, error) {
	out := historyQuery{Family: q.Get("type"), Text: strings.TrimSpace(q.Get("q")), Since: q.Get("since"), Until: q.Get("until")}
	if !slices.Contains(families(), out.Family) {
		out.Family = ""
	}
	var err error
	if out.since, err = formTime(out.Since); err != nil {
		return out, err
	}
	if out.until, err = formTime(out.Until); err != nil {
		return out, err
	}
	out.before, _ = strconv.ParseUint(q.Get("before"), 10, 63) // 0 where it is none
	return out, nil
}

// formTime reads what a form's field for a time sends, in UTC; zero for none.
// Browsers without such fields send what people type.
func formTime(text string) (time.Time, error) {
	if text = strings.TrimSpace(text); text == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04", time.DateTime, time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%w: %q is no time: want one in UTC such as 2027-01-31 15:04", errForm, text)
}

// Set reports whether anything is selected.
func (q historyQuery) Set() bool {
	return q.Family != "" || q.Text != "" || q.Since != "" || q.Until != ""
}

// families are the nouns that types of events begin with.
func families() []string {
	var out []string
	for _, t := range event.Types() {
		out = append(out, familyOf(t))
	}
	return slices.Compact(out)
}

func familyOf(eventType string) string {
	noun, _, _ := strings.Cut(eventType, ".")
	return noun
}

// types are those of the family that is asked for; nil for all.
func (q historyQuery) types() []string {
	if q.Family == "" {
		return nil
	}
	return slices.DeleteFunc(event.Types(), func(t string) bool { return familyOf(t) != q.Family })
}

// matches reports whether an event is asked for, as far as the API has not
// selected it already.
func (q historyQuery) matches(e api.Event) bool {
	if q.before != 0 && e.Seq >= q.before {
		return false
	}
	text := strings.ToLower(q.Text)
	return text == "" || strings.Contains(strings.ToLower(e.Text+" "+e.Type+" "+e.Actor+" "+e.Zone), text)
}

// window keeps the newest events of a walk.
type window struct {
	events []api.Event
	more   bool // there were older ones
}

func (w *window) add(e api.Event) {
	if len(w.events) == eventsOnPage {
		w.events, w.more = slices.Delete(w.events, 0, 1), true
	}
	w.events = append(w.events, e)
}

// zoneHistory shows a zone's events, newest first.
func zoneHistory(v *visit) error {
	head, err := v.zone("history")
	if err != nil {
		return err
	}
	p := historyPage{zonePage: head}
	if p.Query, err = historyQueryOf(v.r.URL.Query()); err != nil {
		return err
	}
	w, err := v.zoneEvents(head.Zone.Name, p.Query)
	if err != nil {
		return err
	}
	p.fill(v.r, w)
	v.render(http.StatusOK, "history", titleOf(head.Zone.Name)+": history", p)
	return nil
}

// zoneEvents looks for the newest events of a zone that are asked for. Where a
// text is sought, it looks back step by step until there are enough.
func (v *visit) zoneEvents(name string, asked historyQuery) (w window, err error) {
	q := pipeline.HistoryQuery{
		Since: asked.since, Until: asked.until, Types: asked.types(), Before: asked.before, Limit: eventsOnPage + 1,
	}
	if asked.Text != "" {
		q.Limit = api.MaxLimit
	}
	var found []api.Event // newest first
	for len(found) <= eventsOnPage {
		var step []api.Event
		met := 0
		err := v.client.History(v.ctx(), name, q, func(e api.Event) error {
			if met++; met == 1 {
				q.Before = e.Seq
			}
			if asked.matches(e) {
				step = append(step, e)
			}
			return nil
		})
		if err != nil {
			return w, err
		}
		slices.Reverse(step)
		if found = append(found, step...); met < q.Limit {
			break
		}
	}
	for _, e := range slices.Backward(found) {
		w.add(e)
	}
	return w, nil
}

// fill turns what was found into a page.
func (p *historyPage) fill(r *http.Request, w window) {
	p.Families, p.Newest = families(), p.Query.before == 0
	for _, e := range slices.Backward(w.events) {
		p.Events = append(p.Events, eventView{HistoryLine: e.HistoryLine, Family: familyOf(e.Type), Raw: indented(e.Event)})
	}
	if w.more {
		q := r.URL.Query()
		q.Set("before", strconv.FormatUint(w.events[0].Seq, 10))
		p.Older = "?" + q.Encode()
	}
}

// allHistory shows the newest events of all zones.
func allHistory(v *visit) error {
	workers, err := v.client.Workers(v.ctx())
	if err != nil {
		return err
	}
	p := historyPage{All: true, Back: lookBack}
	if p.Query, err = historyQueryOf(v.r.URL.Query()); err != nil {
		return err
	}
	last := workers.LastSeq
	if p.Query.before > 1 && p.Query.before <= last {
		last = p.Query.before - 1
	}
	var w window
	if last > 0 {
		if err := v.tailTo(last, &w, p.Query); err != nil {
			return err
		}
	}
	p.fill(v.r, w)
	if first := last - min(last, lookBack); !w.more && first > 0 {
		q := v.r.URL.Query()
		q.Set("before", strconv.FormatUint(first+1, 10))
		p.Older = "?" + q.Encode()
	}
	v.render(http.StatusOK, "history", "Events", p)
	return nil
}

// tailTo follows the events up to one that is there already.
func (v *visit) tailTo(last uint64, w *window, q historyQuery) error {
	ctx, cancel := context.WithTimeout(v.ctx(), 20*time.Second)
	defer cancel()
	from := last - min(last-1, lookBack-1)
	types := q.types()
	err := v.client.Tail(ctx, "", strconv.FormatUint(from, 10), func(e api.Event) error {
		if e.Seq > last {
			return errEnough
		}
		in := (types == nil || slices.Contains(types, e.Type)) &&
			(q.since.IsZero() || !e.Time.Before(q.since)) && (q.until.IsZero() || !e.Time.After(q.until))
		if in && q.matches(e) {
			w.add(e)
		}
		if e.Seq == last {
			return errEnough
		}
		return nil
	})
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}
