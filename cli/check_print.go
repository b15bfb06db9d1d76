package cli

import (
	"fmt"
	"strings"

	"sluice/cli/chain"
	"sluice/keymgr"
)

// printChain prints a check as a tree from the first zone to the last.
func (e *env) printChain(r *chain.Report, detailed bool) error {
	color := green
	switch {
	case !r.Healthy:
		color = red
	case r.Verdict != chain.Secure:
		color = yellow
	}
	if err := e.printf("%s\n\n", e.paint(color, r.Summary)); err != nil {
		return err
	}
	if err := e.printf("trusted: %s\n", strings.Join(shortAnchors(r.Anchors), ", ")); err != nil {
		return err
	}
	for i := range r.Links {
		if err := e.printLink(&r.Links[i], detailed); err != nil {
			return err
		}
	}
	if r.Do != "" {
		return e.printf("\nto do: %s\n", r.Do)
	}
	return nil
}

// shortAnchors leaves out all of a digest but its beginning.
func shortAnchors(all []string) []string {
	out := make([]string, 0, len(all))
	for _, text := range all {
		if fields := strings.Fields(text); len(fields) > 0 {
			if last := fields[len(fields)-1]; len(last) > 12 {
				fields[len(fields)-1] = last[:12] + "..."
			}
			text = strings.Join(fields, " ")
		}
		out = append(out, text)
	}
	return out
}

// linkMark is how a link is marked.
func (e *env) linkMark(l *chain.Link) string {
	worst := chain.Info
	for _, f := range l.Findings {
		if f.Severity.Rank() < worst.Rank() {
			worst = f.Severity
		}
	}
	mark, ascii, color := "✓", "ok    ", green
	switch {
	case l.Verdict == chain.Bogus:
		mark, ascii, color = "✗", "BROKEN", red
	case l.Verdict == chain.Unreachable:
		mark, ascii, color = "✗", "SILENT", red
	case worst == chain.Broken || worst == chain.Fault:
		mark, ascii, color = "✗", "FAULT ", red
	case l.Verdict == chain.Insecure || l.Verdict == chain.Indeterminate:
		mark, ascii, color = "-", "-     ", yellow
	case worst == chain.Warning:
		mark, ascii, color = "!", "warn  ", yellow
	}
	if !e.unicode {
		mark = ascii
	}
	return e.paint(color, mark)
}

func (e *env) printLink(l *chain.Link, detailed bool) error {
	var facts []string
	if l.Verdict == chain.Insecure {
		facts = append(facts, "not signed")
	}
	if l.AboveAnchor {
		facts = append(facts, "above the anchor")
	}
	facts = append(facts, keyFacts(l)...)
	if answered := answered(l); len(l.Servers) > 0 {
		facts = append(facts, fmt.Sprintf("%d of %d addresses answer", answered, len(l.Servers)))
	}
	if l.Expires != nil {
		facts = append(facts, "signed until "+when(*l.Expires))
	}
	if err := e.printf("%s %s  %s\n", e.linkMark(l), l.Zone, strings.Join(facts, ", ")); err != nil {
		return err
	}
	for _, a := range l.Answers {
		text := fmt.Sprintf("%s %s: %s", a.Owner, a.Type, resultText(a))
		if err := e.printf("         %s\n", text); err != nil {
			return err
		}
	}
	for _, f := range l.Findings {
		if f.Severity == chain.Info && !detailed {
			continue
		}
		if err := e.printFinding(f, detailed); err != nil {
			return err
		}
	}
	if !detailed {
		return nil
	}
	return e.printLinkServers(l)
}

func answered(l *chain.Link) (n int) {
	for _, s := range l.Servers {
		if s.Millis > 0 {
			n++
		}
	}
	return n
}

// keyFacts are the tags of the DS and of the keys that they stand for.
func keyFacts(l *chain.Link) (out []string) {
	var ds, keys []string
	for _, d := range l.DS {
		text := fmt.Sprintf("%d/%s", d.Tag, keymgr.AlgorithmName(d.Algorithm))
		if !d.Matches {
			text += " (no key)"
		}
		if len(ds) == 0 || ds[len(ds)-1] != text {
			ds = append(ds, text)
		}
	}
	for _, k := range l.Keys {
		if k.Trusted {
			keys = append(keys, fmt.Sprint(k.Tag))
		}
	}
	if len(ds) > 0 {
		out = append(out, "DS "+strings.Join(ds, " "))
	} else if len(keys) > 0 {
		out = append(out, "key "+strings.Join(keys, " "))
	}
	return out
}

// resultText says what was answered.
func resultText(a chain.Answer) string {
	text := ""
	switch a.Result {
	case "records":
		text = fmt.Sprintf("%d, %s", len(a.Data), strings.Join(a.Data[:min(len(a.Data), 3)], "; "))
	case "alias":
		text = "an alias, " + strings.Join(a.Data, " ")
	case "no-data":
		text = "no such records"
	case "no-name":
		text = "no such name"
	default:
		text = "no answer"
	}
	if a.Secure {
		text += " (secure)"
	}
	return text
}

func (e *env) printFinding(f chain.Finding, detailed bool) error {
	color := yellow
	if f.Severity.Rank() <= chain.Fault.Rank() {
		color = red
	}
	text := f.Text
	if f.More > 0 {
		text += fmt.Sprintf(" (and %s more)", count(uint64(f.More), "RRset")) //nolint:gosec // a small count
	}
	if len(f.Servers) > 0 && !strings.HasPrefix(string(f.Code), "server-") {
		text += ", at " + strings.Join(f.Servers[:min(len(f.Servers), 3)], ", ")
		if len(f.Servers) > 3 {
			text += fmt.Sprintf(" and %d more", len(f.Servers)-3)
		}
	}
	if err := e.printf("         %s %s: %s\n", e.paint(color, string(f.Severity)), f.Code, text); err != nil || !detailed || f.Do == "" {
		return err
	}
	return e.printf("           to do: %s\n", f.Do)
}

// printLinkServers tells of each address, and of each key.
func (e *env) printLinkServers(l *chain.Link) error {
	for _, s := range l.Servers {
		state := fmt.Sprintf("%d ms", s.Millis)
		if s.Serial != nil {
			state += fmt.Sprintf(", serial %d", *s.Serial)
		}
		if s.Error != "" {
			state = s.Error
		}
		if err := e.printf("         %s %s: %s\n", s.Name, s.Address, state); err != nil {
			return err
		}
	}
	for _, k := range l.Keys {
		marks := []string{keymgr.AlgorithmName(k.Algorithm), fmt.Sprintf("flags %d", k.Flags)}
		if k.Trusted {
			marks = append(marks, "trusted")
		}
		if k.Signs {
			marks = append(marks, "signs the keys")
		}
		if err := e.printf("         key %d: %s\n", k.Tag, strings.Join(marks, ", ")); err != nil {
			return err
		}
	}
	if l.Denial != "" {
		return e.printf("         denial: %s\n", l.Denial)
	}
	return nil
}
