package web

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"sluice/pipeline"
)

// stage is one part of the channel that a zone's contents run through.
type stage struct {
	Name string
	// Kind says how it is drawn: basin, or gate for a review.
	Kind string
	// State is ok, wait, work, alarm or idle; Word says it.
	State string
	Word  string
	Lines []string
	Since *time.Time
	// Flows: contents have come through it.
	Flows bool
}

// Icon is the sign of the stage's state.
func (s stage) Icon() string {
	return map[string]string{"ok": "ok", "wait": "person", "work": "work", "alarm": "alarm", "idle": "idle"}[s.State]
}

// stagesOf draws the way of a zone's contents from its source to its
// secondaries as the API tells it.
func stagesOf(z pipeline.ZoneStatus) []stage {
	out := make([]stage, 0, len(z.Stages))
	for _, at := range z.Stages {
		s := stage{Kind: "basin", State: stateOf(at.State), Word: wordOf(at.State), Flows: at.State == "done"}
		if at.Serial != nil && at.State != "none" && at.State != "off" {
			s.Lines = []string{fmt.Sprintf("serial %d", *at.Serial)}
		}
		switch at.Stage {
		case "source":
			s.source(z, at)
		case "load":
			s.load(z, at)
		case "review-loaded":
			s.review(z, at, stageLoaded, z.Loaded)
		case "sign":
			s.sign(z, at)
		case "review-signed":
			s.review(z, at, stageSigned, z.Signed)
		case "publish":
			s.publish(z, at)
		case "secondaries":
			s.secondaries(z, at)
		default:
			s.Name = at.Stage
		}
		out = append(out, s)
	}
	return out
}

// stateOf is a stage's state as it is drawn.
func stateOf(state string) string {
	return cmp.Or(map[string]string{"done": "ok", "busy": "work", "waiting": "wait", "failed": "alarm"}[state], "idle")
}

// wordOf says a stage's state where the stage itself has no better word.
func wordOf(state string) string {
	return cmp.Or(map[string]string{"done": "done", "busy": "at work", "waiting": "waits", "failed": "failed"}[state], "nothing yet")
}

func (s *stage) source(z pipeline.ZoneStatus, at pipeline.StageStatus) {
	s.Name, s.Flows = "Source", z.Loaded != nil
	from, name := "file", base(z.Source)
	switch {
	case pipeline.IsUpdateSource(z.Source):
		from, name = "updates alone", ""
	case z.Source == pipeline.CatalogSource:
		from, name = "made here", ""
	case z.Upstream != nil:
		from, name = "server", cmp.Or(z.Upstream.Server, z.Source)
	}
	if name != "" {
		s.Lines = append([]string{name}, s.Lines...)
	}
	switch at.State {
	case "off":
		s.Word = "not followed"
	case "failed":
		if z.Upstream != nil {
			s.Since = z.Upstream.Since
		}
	default:
		s.State, s.Word = "ok", from
	}
}

// base is the last part of a file's path.
func base(source string) string {
	if i := strings.LastIndexByte(source, '/'); i >= 0 && i+1 < len(source) {
		return source[i+1:]
	}
	return source
}

func (s *stage) load(z pipeline.ZoneStatus, at pipeline.StageStatus) {
	s.Name, s.Flows = "Load", z.Loaded != nil
	s.passed(z.Loaded)
	switch at.State {
	case "done":
		s.Word = "loaded"
	case "busy":
		s.Word = "loading" + percent(z.Progress)
	case "waiting":
		s.Lines = append(s.Lines, "for "+at.Text)
	}
}

// passed tells of the instance that got there.
func (s *stage) passed(i *pipeline.InstanceSummary) {
	if i != nil {
		s.Lines, s.Since = append(s.Lines, i.Instance+", "+plural(i.Records, "record")), &i.Time
	}
}

// percent tells how far long work is.
func percent(p *pipeline.Progress) string {
	if p == nil || p.Total <= 0 {
		return ""
	}
	return fmt.Sprintf(", %d %%", min(100, 100*p.Done/p.Total))
}

// review is a gate: shut while somebody is waited for.
func (s *stage) review(z pipeline.ZoneStatus, at pipeline.StageStatus, name string, got *pipeline.InstanceSummary) {
	s.Name, s.Kind = "Review", "gate"
	switch at.State {
	case "done":
		s.Word = "passed"
	case "off":
		s.Word, s.Flows = "none is asked for", got != nil
	case "failed":
		s.Word = "dropped"
	}
	for _, rv := range z.Reviews {
		if rv.Stage != name {
			continue
		}
		s.Kind, s.Since = "gate shut", &rv.Since
		s.Lines = append(s.Lines, rv.Instance)
		if at.State == "failed" {
			s.Word = "halted"
		} else {
			s.Lines = append(s.Lines, rv.WaitsFor)
		}
	}
}

func (s *stage) sign(z pipeline.ZoneStatus, at pipeline.StageStatus) {
	s.Name, s.Flows = "Sign", z.Signed != nil
	s.passed(z.Signed)
	switch at.State {
	case "done":
		s.Word = "signed"
	case "busy":
		s.Word = z.State + percent(z.Progress)
	case "off":
		s.State, s.Word = "ok", "left unsigned"
		if z.Mode == pipeline.ModePassThrough {
			s.Word = "passed through"
		}
	}
}

func (s *stage) publish(z pipeline.ZoneStatus, at pipeline.StageStatus) {
	s.Name, s.Flows = "Publish", z.Published != nil
	if p := z.Published; p != nil {
		s.Lines, s.Since = append(s.Lines, p.Instance), &p.Time
	}
	switch at.State {
	case "done":
		s.Word = "served"
	case "failed":
		s.Word = "expired"
	}
}

func (s *stage) secondaries(z pipeline.ZoneStatus, at pipeline.StageStatus) {
	s.Name = "Secondaries"
	if at.State != "off" {
		s.Word, s.Flows = at.Text, at.Serial != nil
		return
	}
	s.Word = "none is told"
	if n := len(z.Fetched); n > 0 {
		s.State, s.Word, s.Flows = "ok", plural(n, "peer")+" fetched", true
		s.Lines, s.Since = []string{fmt.Sprintf("serial %d", z.Fetched[0].Serial)}, &z.Fetched[0].Time
	}
}
