package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/pipeline"
)

// printStatus tells how a zone is.
func (e *env) printStatus(s pipeline.ZoneStatus, detailed bool) error {
	if e.json {
		return e.printJSON(s)
	}
	err := e.fields(
		"zone", s.Name,
		"state", e.paintState(s.State),
		"progress", progressText(s.Progress),
		"policy", s.Policy,
		"mode", modeText(s.Mode),
		"source", s.Source,
		"catalog", catalogText(s),
	)
	if err != nil {
		return err
	}
	if drawn := e.picture(s.Stages); drawn != nil {
		if err := e.printf("\n%s\n\n", strings.Join(drawn, "\n")); err != nil {
			return err
		}
	}
	if err := e.printNotices(s); err != nil {
		return err
	}
	var expiry string
	if s.NextExpiry != nil {
		expiry = when(*s.NextExpiry)
	}
	waits := s.WaitsFor
	if waits != "" && s.Since != nil {
		waits += ", since " + when(*s.Since)
	}
	err = e.fields(
		"loaded", instanceText(s.Loaded),
		"published", instanceText(s.Published),
		"updates", updatesText(s.Updates),
		"signatures valid until", expiry,
		"signatures replaced", exchangeText(s.Exchange),
		"seen from outside", observationText(s.Observation),
		"resolvers", probeText(s.Probe),
		"last error", e.paint(red, untold(s)),
		"waits for", waits,
	)
	if err := errors.Join(err, e.printComing(s, detailed), e.printReviews(s)); err != nil {
		return err
	}
	if !detailed {
		return e.rolloverLines(s)
	}
	return e.printDetails(s)
}

// updatesText tells what dynamic updates did to a zone.
func updatesText(u *pipeline.UpdatesStatus) string {
	if u == nil {
		return ""
	}
	text := fmt.Sprintf("%d taken since the source was read", u.Taken)
	if u.Waiting > 0 {
		text += fmt.Sprintf(", %d wait", u.Waiting)
	}
	if u.LastAt != nil {
		text += fmt.Sprintf("; the last by key %s, %s", u.LastKey, when(*u.LastAt))
	}
	return text
}

// untold is the last error where no notice tells it.
func untold(s pipeline.ZoneStatus) string {
	if slices.ContainsFunc(s.Notices, func(n pipeline.Notice) bool { return strings.Contains(n.Text, s.LastError) }) {
		return ""
	}
	return s.LastError
}

// shownComing is how much of what comes is told of a zone, but in detail.
const shownComing = 4

// printComing tells what will happen, and when.
func (e *env) printComing(s pipeline.ZoneStatus, all bool) error {
	list := s.Coming
	if !all {
		list = list[:min(len(list), shownComing)]
	}
	for i, c := range list {
		label := "next:"
		if i > 0 {
			label = "then:"
		}
		if err := e.printf("%s %s, %s\n", label, when(c.At), c.Text); err != nil {
			return err
		}
	}
	return nil
}

// progressText tells where long work stands, and who signs parts of the zone.
func progressText(p *pipeline.Progress) string {
	if p == nil || p.Done == 0 && len(p.Parts) == 0 {
		return ""
	}
	text := fmt.Sprintf("%s, %d", p.Stage, p.Done)
	if p.Total > 0 {
		text = fmt.Sprintf("%s, %d %%", p.Stage, min(100, 100*p.Done/p.Total))
	}
	return text + pipeline.PartsText(p.Parts)
}

// exchangeText tells how far signatures are replaced by those of other keys.
func exchangeText(x *pipeline.ExchangeStatus) string {
	if x == nil {
		return ""
	}
	return fmt.Sprintf("of %d RRsets, %d are left with signatures of %s; until %s", x.RRsets, x.Left, strings.Join(x.Keys, ", "), when(x.Until))
}

func (e *env) paintState(state string) string {
	return e.paint(stateColor(state), state)
}

// stateColor is the colour of a zone's state.
func stateColor(state string) string {
	switch {
	case state == "published":
		return green
	case strings.Contains(state, "failed"), state == "halted", state == "expired":
		return red
	}
	return yellow
}

// severityColor is the colour of a severity; "" for none.
func severityColor(severity string) string {
	switch severity {
	case "alarm":
		return red
	case "warning":
		return yellow
	}
	return ""
}

// modeText tells what is done to a zone that is not signed here.
func modeText(m pipeline.Mode) string {
	switch m {
	case pipeline.ModePassThrough:
		return "pass-through: signed by its source, published as it is"
	case pipeline.ModeUnsigned:
		return "unsigned: published without DNSSEC"
	case pipeline.ModeSign:
	}
	return ""
}

// instanceText tells an instance in one line.
func instanceText(i *pipeline.InstanceSummary) string {
	if i == nil {
		return ""
	}
	text := fmt.Sprintf("%s, serial %d, %s", i.Instance, i.Serial, count(i.Records, "record"))
	if i.Signatures > 0 {
		text += ", " + count(i.Signatures, "signature")
	}
	return text + ", " + when(i.Time)
}

// printNotices prints what the operator should know, the worst first.
func (e *env) printNotices(s pipeline.ZoneStatus) error {
	notices := slices.Clone(s.Notices)
	slices.SortStableFunc(notices, func(a, b pipeline.Notice) int {
		switch {
		case pipeline.Worse(a.Severity, b.Severity):
			return -1
		case pipeline.Worse(b.Severity, a.Severity):
			return 1
		}
		return 0
	})
	var lines []string
	for _, n := range notices {
		lines = append(lines, e.paint(cmp.Or(severityColor(n.Severity), yellow), n.Severity)+": "+n.Text)
		if n.Hint != "" {
			lines = append(lines, "  "+n.Hint)
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return e.printf("%s\n", strings.Join(lines, "\n"))
}

// printDetails prints instances in full, and the keys.
func (e *env) printDetails(s pipeline.ZoneStatus) error {
	for _, part := range []struct {
		name     string
		instance *pipeline.InstanceSummary
	}{{"loaded", s.Loaded}, {"signed", s.Signed}, {"published", s.Published}} {
		i := part.instance
		if i == nil {
			continue
		}
		if err := e.printf("\n%s %s\n", part.name, i.Instance); err != nil {
			return err
		}
		err := e.fields(
			"  serial", fmt.Sprint(i.Serial),
			"  time", when(i.Time),
			"  took", (time.Duration(i.DurationMS) * time.Millisecond).String(),
			"  records", recordText(i),
			"  signatures", signatureText(i),
			"  content digest", i.ContentDigest,
			"  signed digest", i.SignedDigest,
			"  left out of the input", strippedText(i.Stripped),
			"  ZONEMD of the input", i.ZONEMD,
		)
		if err != nil {
			return err
		}
	}
	if len(s.Rollovers) > 0 {
		if err := errors.Join(e.printf("\n"), e.printRollovers(s.Name, s.Rollovers)); err != nil {
			return err
		}
	}
	if err := errors.Join(e.printServers(s), e.printTold(s.ParentTold), e.printObservation(s.Observation), e.printProbe(s.Probe)); err != nil || len(s.Keys) == 0 {
		return err
	}
	if err := e.printf("\n"); err != nil {
		return err
	}
	return e.keyTable(s.Keys)
}

func recordText(i *pipeline.InstanceSummary) string {
	if i.SignedDigest != "" {
		return fmt.Sprint(i.Records)
	}
	return fmt.Sprintf("%d (%d added, %d removed)", i.Records, i.Added, i.Removed)
}

func signatureText(i *pipeline.InstanceSummary) string {
	if i.Signatures == 0 {
		return ""
	}
	return fmt.Sprintf("%d (%d made, %d kept)", i.Signatures, i.Made, i.Reused)
}

// strippedText lists the signer's own records that were left out.
func strippedText(stripped map[string]uint64) string {
	var parts []string
	for name, n := range stripped {
		parts = append(parts, fmt.Sprintf("%s %d", name, n))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
