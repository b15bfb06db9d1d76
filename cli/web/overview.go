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
	// Needs is what needs a person, More how many of these are not listed.
	Needs []need
	More  int
	// Rolls is rollovers that run, RollCount how many do, RollMore how many of
	// these are not listed.
	Rolls               []pipeline.ZoneRollover
	RollCount, RollMore int
	Soonest             []zoneRow
	Query               zoneQuery
	Rows                []zoneRow
	Matching            int
	Pages               pages
	Policies            []string
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
	own := ownNotices(z.Notices)
	worst := worstOf(own)
	switch {
	case worst == severityAlarm, z.State == "halted", z.State == "expired", strings.Contains(z.State, "failed"):
		return groupAlarm
	case strings.Contains(z.State, "in review"), slices.ContainsFunc(own, waitsForPerson):
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

// ownNotices leaves out what every zone tells of its process.
func ownNotices(notices []pipeline.Notice) []pipeline.Notice {
	return slices.DeleteFunc(slices.Clone(notices), func(n pipeline.Notice) bool { return pipeline.ProcessNotice(n.Code) })
}

// waitsForPerson reports whether nothing goes on before somebody decides.
func waitsForPerson(n pipeline.Notice) bool {
	switch n.Code {
	case pipeline.NoticeReviewWaits, pipeline.NoticeProposed, pipeline.NoticeHeld, pipeline.NoticeRolloverPerson, pipeline.NoticeRolloverBackup, pipeline.NoticeBackupWanted:
		return n.Severity != severityInfo
	default:
		return false
	}
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

// need is what needs a person, and where something can be done about it.
type need struct {
	pipeline.Need
	Group        group
	Link, Button string
}

func needOf(n pipeline.Need) need {
	out := need{Need: n, Group: group(n.Severity)}
	if waitsForPerson(n.Notice) && n.Severity != severityAlarm {
		out.Group = groupWaiting
	}
	switch {
	case n.Zone == "":
		out.Link, out.Button = "/system", "System"
	case n.Count > 1:
		out.Link, out.Button = "/?code="+url.QueryEscape(string(n.Code))+"#zones", "Show them"
	default:
		out.Link, out.Button = whereTo(n.Zone, string(n.Code))
	}
	return out
}

// whereTo is the page on which something can be done about a zone's notice.
func whereTo(zone, code string) (link, button string) {
	noun, _, _ := strings.Cut(code, "-")
	switch noun {
	case "review":
		return zoneURL(zone) + "#reviews", "Review"
	case "rollover", "ds", "parent", "keys", "backup", "foreign", "algorithm":
		return zoneURL(zone) + "/keys", "Keys and parent"
	}
	return zoneURL(zone), "Open"
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
	own := ownNotices(z.Notices)
	row := zoneRow{ZoneSummary: z, Group: groupOf(z), Worst: worstOf(own)}
	for _, n := range own {
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
	Code   string // of a notice
	Sort   string // "name" or "expiry"
	Page   int    // from 1
}

func zoneQueryOf(q url.Values) zoneQuery {
	page, err := strconv.Atoi(q.Get("page"))
	if err != nil || page < 1 {
		page = 1
	}
	out := zoneQuery{Text: strings.TrimSpace(q.Get("q")), Group: group(q.Get("state")), Policy: q.Get("policy"), Code: q.Get("code"), Sort: q.Get("sort"), Page: page}
	if !slices.Contains(groups(), out.Group) {
		out.Group = ""
	}
	if out.Sort != "expiry" {
		out.Sort = "name"
	}
	return out
}

// Set reports whether anything is selected.
func (q zoneQuery) Set() bool { return q.Text != "" || q.Group != "" || q.Policy != "" || q.Code != "" }

// matches reports whether a zone is asked for; its name may be written in
// either form.
func (q zoneQuery) matches(z pipeline.ZoneSummary, g group) bool {
	if q.Group != "" && q.Group != g || q.Policy != "" && q.Policy != z.Policy {
		return false
	}
	if q.Code != "" && !slices.ContainsFunc(z.Notices, func(n pipeline.Notice) bool { return string(n.Code) == q.Code }) {
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

// overview is the first page: what needs a person, and all zones. It costs the
// same few requests, however many zones there are.
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
	how, err := v.client.Overview(v.ctx(), maxUrgent)
	if err != nil {
		return err
	}
	v.render(http.StatusOK, "overview", "Zones", overviewOf(v.r, zones, how))
	return nil
}

// overviewOf makes the overview in one pass over the zones.
func overviewOf(r *http.Request, zones []pipeline.ZoneSummary, how pipeline.Overview) overviewPage {
	p := overviewPage{
		Total: len(zones), Query: zoneQueryOf(r.URL.Query()), More: how.More,
		Rolls: how.Rollovers, RollCount: how.RolloverCount, RollMore: how.RolloverCount - len(how.Rollovers),
	}
	for _, n := range how.Needs {
		p.Needs = append(p.Needs, needOf(n))
	}
	now := how.Time
	counts, policies := map[group]int{}, map[string]bool{}
	var matching []pipeline.ZoneSummary
	var expiring []pipeline.ZoneSummary
	for _, z := range zones {
		g := groupOf(z)
		counts[g]++
		policies[z.Policy] = true
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
