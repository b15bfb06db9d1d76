package web

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
)

// Bounds of the overview: it stays small however many zones there are.
const (
	maxUrgent   = 12
	maxSoonest  = 8
	zonesOnPage = 50
)

// overviewPage is what the overview shows.
type overviewPage struct {
	Total  int
	Counts []count
	Urgent []urgent
	// NeedPerson is how many zones are urgent, More how many of them are not
	// listed.
	NeedPerson int
	More       int
	Rolls      []rollRow
	Soonest    []zoneRow
	Query      zoneQuery
	Rows       []zoneRow
	Matching   int
	Pages      pages
	Policies   []string
}

// rollRow is a rollover that runs.
type rollRow struct {
	Zone, What, Step, Text string
	Until                  *time.Time
}

// count is how many zones are in a state.
type count struct {
	Group group
	N     int
}

// group is a kind of state: its word for queries, its sign and its colour are
// one.
type group string

// The groups, the worst first.
const (
	groupAlarm   group = "alarm"
	groupWaiting group = "waiting"
	groupWarning group = "warning"
	groupWorking group = "working"
	groupNew     group = "new"
	groupOK      group = "ok"
)

// groups are all, the worst first.
func groups() []group {
	return []group{groupAlarm, groupWaiting, groupWarning, groupWorking, groupNew, groupOK}
}

// Word is what people call it.
func (g group) Word() string {
	switch g {
	case groupAlarm:
		return "in trouble"
	case groupWaiting:
		return "waiting for a person"
	case groupWarning:
		return "with a warning"
	case groupWorking:
		return "at work"
	case groupNew:
		return "new"
	case groupOK:
	}
	return "well"
}

// groupOf sorts a zone into a group.
func groupOf(z pipeline.ZoneSummary) group {
	worst := worstOf(z.Notices)
	switch {
	case worst == severityAlarm, z.State == "halted", z.State == "expired", strings.Contains(z.State, "failed"):
		return groupAlarm
	case strings.Contains(z.State, "in review"), strings.Contains(z.State, "held"):
		return groupWaiting
	case worst == severityWarning:
		return groupWarning
	case z.State == "loading", z.State == "signing", z.State == "verifying", z.State == "working":
		return groupWorking
	case z.State == "new":
		return groupNew
	}
	return groupOK
}

// Severities of notices.
const (
	severityAlarm   = "alarm"
	severityWarning = "warning"
	severityInfo    = "info"
)

// rank orders severities, the worst first.
func rank(severity string) int {
	return slices.Index([]string{severityAlarm, severityWarning, severityInfo}, severity)
}

// worstOf is the worst severity among notices; "" for none.
func worstOf(notices []pipeline.Notice) string {
	if len(notices) == 0 {
		return ""
	}
	return slices.MinFunc(notices, func(a, b pipeline.Notice) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) }).Severity
}

// byRank sorts notices, the worst first.
func byRank(notices []pipeline.Notice) []pipeline.Notice {
	out := slices.Clone(notices)
	slices.SortStableFunc(out, func(a, b pipeline.Notice) int { return cmp.Compare(rank(a.Severity), rank(b.Severity)) })
	return out
}

// urgent is a zone that needs a person, and why.
type urgent struct {
	Zone   string
	Group  group
	Notice pipeline.Notice
	Others int // further notices as bad
	Since  *time.Time
	Link   string
	Button string
}

// urgentOf tells what a zone needs a person for; false for nothing.
func urgentOf(z pipeline.ZoneSummary) (urgent, bool) {
	g := groupOf(z)
	if g != groupAlarm && g != groupWaiting && g != groupWarning {
		return urgent{}, false
	}
	u := urgent{Zone: z.Name, Group: g}
	all := byRank(z.Notices)
	worst := worstOf(all)
	if worst == severityInfo || worst == "" {
		u.Notice = pipeline.Notice{Severity: severityWarning, Text: z.State}
	} else {
		u.Notice = all[0]
		for _, n := range all[1:] {
			if n.Severity == worst {
				u.Others++
			}
		}
	}
	u.Link, u.Button = whereTo(z, u.Notice)
	return u, true
}

// whereTo is the page on which something can be done about a notice.
func whereTo(z pipeline.ZoneSummary, n pipeline.Notice) (link, button string) {
	base := zoneURL(z.Name)
	switch {
	case strings.Contains(n.Hint, "sluice zone approve"), strings.Contains(n.Hint, "sluice zone override"), strings.Contains(z.State, "in review"):
		return base + "#reviews", "Review"
	case strings.Contains(n.Hint, "sluice key "), strings.Contains(n.Text, "rollover"), strings.Contains(n.Text, "DS "):
		return base + "/keys", "Keys and parent"
	}
	return base, "Open"
}

// zoneRow is a zone in a list.
type zoneRow struct {
	pipeline.ZoneSummary
	Group    group
	Worst    string // severity
	Trouble  int    // notices of that severity
	Left     time.Duration
	LeftBar  int // in percent of expiryScale
	Expiring bool
}

// expiryScale is how much time left fills the bar.
const expiryScale = 30 * 24 * time.Hour

func rowOf(z pipeline.ZoneSummary, now time.Time) zoneRow {
	row := zoneRow{ZoneSummary: z, Group: groupOf(z), Worst: worstOf(z.Notices)}
	for _, n := range z.Notices {
		if n.Severity == row.Worst {
			row.Trouble++
		}
	}
	if row.Worst == severityInfo {
		row.Worst, row.Trouble = "", 0
	}
	if z.NextExpiry != nil {
		row.Left = z.NextExpiry.Sub(now)
		row.LeftBar = int(max(1, min(100, 100*row.Left/expiryScale)))
		row.Expiring = row.Left <= 0
	}
	return row
}

// zoneQuery selects zones.
type zoneQuery struct {
	Text   string
	Group  group
	Policy string
	Sort   string // "name" or "expiry"
	Page   int    // from 1
}

func zoneQueryOf(q url.Values) zoneQuery {
	page, err := strconv.Atoi(q.Get("page"))
	if err != nil || page < 1 {
		page = 1
	}
	out := zoneQuery{Text: strings.TrimSpace(q.Get("q")), Group: group(q.Get("state")), Policy: q.Get("policy"), Sort: q.Get("sort"), Page: page}
	if !slices.Contains(groups(), out.Group) {
		out.Group = ""
	}
	if out.Sort != "expiry" {
		out.Sort = "name"
	}
	return out
}

// Set reports whether anything is selected.
func (q zoneQuery) Set() bool { return q.Text != "" || q.Group != "" || q.Policy != "" }

// matches reports whether a zone is asked for; its name may be written in
// either form.
func (q zoneQuery) matches(z pipeline.ZoneSummary, g group) bool {
	if q.Group != "" && q.Group != g || q.Policy != "" && q.Policy != z.Policy {
		return false
	}
	text := strings.ToLower(q.Text)
	return text == "" || strings.Contains(z.Name, text) || strings.Contains(unicodeName(z.Name), text)
}

// pages is where somebody is in a list.
type pages struct {
	Page, Last int
	Base       string // the address without the page's number
}

// At is the address of a page.
func (p pages) At(n int) string { return p.Base + "page=" + strconv.Itoa(n) }

// Before and After are the neighbours, 0 for none.
func (p pages) Before() int { return p.Page - 1 }

// After is the page behind this one, 0 for none.
func (p pages) After() int {
	if p.Page >= p.Last {
		return 0
	}
	return p.Page + 1
}

// pagesOf counts the pages of so many lines.
func pagesOf(r *http.Request, page, lines, size int) pages {
	q := r.URL.Query()
	q.Del("page")
	base := "?"
	if len(q) > 0 {
		base += q.Encode() + "&"
	}
	last := max(1, (lines+size-1)/size)
	return pages{Page: min(page, last), Last: last, Base: base}
}

// overview is the first page: what needs a person, and all zones. It costs one
// request, however many zones there are.
func overview(v *visit) error {
	zones, err := v.client.Zones(v.ctx())
	if err != nil {
		return err
	}
	if len(zones) == 0 {
		if _, err := v.client.Health(v.ctx()); err != nil {
			v.w.Header().Set("Retry-After", "2")
			v.render(http.StatusServiceUnavailable, "starting", "Starting", err.Error())
			return nil
		}
	}
	now := v.now()
	v.render(http.StatusOK, "overview", "Zones", overviewOf(v.r, zones, now))
	return nil
}

// overviewOf makes the overview in one pass over the zones.
func overviewOf(r *http.Request, zones []pipeline.ZoneSummary, now time.Time) overviewPage {
	p := overviewPage{Total: len(zones), Query: zoneQueryOf(r.URL.Query())}
	counts, policies := map[group]int{}, map[string]bool{}
	var matching []pipeline.ZoneSummary
	var expiring []pipeline.ZoneSummary
	for _, z := range zones {
		g := groupOf(z)
		counts[g]++
		policies[z.Policy] = true
		if u, ok := urgentOf(z); ok {
			p.Urgent = append(p.Urgent, u)
		}
		if z.NextExpiry != nil {
			expiring = append(expiring, z)
		}
		if p.Query.matches(z, g) {
			matching = append(matching, z)
		}
	}
	for _, g := range groups() {
		p.Counts = append(p.Counts, count{g, counts[g]})
	}
	for name := range policies {
		p.Policies = append(p.Policies, name)
	}
	slices.Sort(p.Policies)
	slices.SortStableFunc(p.Urgent, func(a, b urgent) int {
		return cmp.Or(cmp.Compare(slices.Index(groups(), a.Group), slices.Index(groups(), b.Group)), cmp.Compare(a.Zone, b.Zone))
	})
	p.NeedPerson = len(p.Urgent)
	p.More = max(0, len(p.Urgent)-maxUrgent)
	p.Urgent = p.Urgent[:len(p.Urgent)-p.More]
	byExpiry(expiring)
	for _, z := range expiring[:min(len(expiring), maxSoonest)] {
		p.Soonest = append(p.Soonest, rowOf(z, now))
	}
	if p.Query.Sort == "expiry" {
		byExpiry(matching)
	}
	p.Matching = len(matching)
	p.Pages = pagesOf(r, p.Query.Page, len(matching), zonesOnPage)
	from := (p.Pages.Page - 1) * zonesOnPage
	for _, z := range matching[from:min(len(matching), from+zonesOnPage)] {
		p.Rows = append(p.Rows, rowOf(z, now))
	}
	return p
}

// byExpiry sorts zones by the time that their signatures have left; those
// without signatures come last.
func byExpiry(zones []pipeline.ZoneSummary) {
	slices.SortStableFunc(zones, func(a, b pipeline.ZoneSummary) int {
		switch {
		case a.NextExpiry == nil && b.NextExpiry == nil:
			return 0
		case a.NextExpiry == nil:
			return 1
		case b.NextExpiry == nil:
			return -1
		}
		return a.NextExpiry.Compare(*b.NextExpiry)
	})
}
