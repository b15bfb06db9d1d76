package chain

import (
	"slices"
	"strings"
)

// tally is what the servers of a zone say to one question.
type tally struct {
	good  int // servers whose answer is well
	asked int // that gave one
	found []counted
}

type counted struct {
	problem
	by []string
}

// add takes note of a server's answer.
func (t *tally) add(s *server, ok bool, problems []problem) {
	t.asked++
	if ok {
		t.good++
	}
	for _, p := range problems {
		i := slices.IndexFunc(t.found, func(c counted) bool {
			return c.code == p.code && c.text == p.text && c.owner == p.owner && c.t == p.t
		})
		if i < 0 {
			t.found = append(t.found, counted{problem: p})
			i = len(t.found) - 1
		}
		t.found[i].by = append(t.found[i].by, s.String())
	}
}

// broken reports whether no server gives an answer that is well.
func (t *tally) broken() bool { return t.asked > 0 && t.good == 0 }

// into adds what was found to a link.
func (t *tally) into(z *zoneLink) {
	for _, c := range t.found {
		m, _ := MeaningOf(c.code)
		severity := m.Severity
		if severity == Broken && t.good > 0 {
			severity = Fault
			if c.code == CodeSignatureMissing || c.code == CodeDNSKEYMissing || c.code == CodeDenialMissing {
				// Others have them: it is not the zone that lacks them.
				m, _ = MeaningOf(CodeServerNoDNSSEC)
			}
		}
		f := Finding{Code: m.Code, Severity: severity, Zone: z.apex.String(), Text: c.text, Do: m.Do, At: c.at}
		if c.owner != "" {
			f.Owner = c.owner.String()
		}
		if c.t != 0 {
			f.Type = c.t.String()
		}
		if len(c.by) < t.asked {
			f.Servers = c.by
		}
		z.find(f)
	}
}

// maxFindings bounds what is told of one zone.
const maxFindings = 64

// find adds a finding, unless the same is told already of another RRset or,
// where it is about a server, of this one.
func (z *zoneLink) find(f Finding) {
	slices.Sort(f.Servers)
	for i := range z.out.Findings {
		known := &z.out.Findings[i]
		if known.Code != f.Code || known.Severity != f.Severity || strings.Join(known.Servers, ",") != strings.Join(f.Servers, ",") {
			continue
		}
		if known.Owner == f.Owner && known.Type == f.Type && known.Text != f.Text {
			continue
		}
		if known.Text != f.Text {
			known.More++
		}
		return
	}
	if len(z.out.Findings) < maxFindings {
		z.out.Findings = append(z.out.Findings, f)
	}
}

// say adds a finding that all of the zone shows.
func (z *zoneLink) say(code Code, text string) {
	m, _ := MeaningOf(code)
	z.find(Finding{Code: code, Severity: m.Severity, Zone: z.apex.String(), Text: text, Do: m.Do})
}

// troubles adds what is wrong with the servers themselves. Of zones above the
// last it is for their operators, and no fault of the name's.
func (z *zoneLink) troubles(last bool) {
	var order []trouble
	by := map[trouble][]string{}
	for _, s := range z.servers {
		s.mu.Lock()
		seen := slices.Clone(s.seen)
		if s.dead != nil {
			seen = []trouble{*s.dead}
		}
		s.mu.Unlock()
		for _, t := range seen {
			if by[t] == nil {
				order = append(order, t)
			}
			by[t] = append(by[t], s.String())
		}
	}
	for _, o := range order {
		m, _ := MeaningOf(o.code)
		f := Finding{Code: o.code, Severity: m.Severity, Zone: z.apex.String(), Do: m.Do, Servers: by[o]}
		if f.Severity == Fault && !last {
			f.Severity = Warning
		}
		f.Text = strings.Join(firstOf(by[o], 3), ", ") + " " + o.text
		if len(by[o]) > 1 {
			f.Text = strings.Join(firstOf(by[o], 3), ", ") + ": each " + o.text
		}
		z.find(f)
	}
}

// firstOf is the first of some texts, and how many more there are.
func firstOf(texts []string, n int) []string {
	if len(texts) <= n {
		return texts
	}
	return append(slices.Clone(texts[:n]), "and others")
}
