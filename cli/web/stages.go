package web

import (
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
	return map[string]string{"ok": "ok", "wait": "person", "work": "work", "alarm": "alarm", "idle": "idle", "warning": "warning"}[s.State]
}

// stagesOf draws the way of a zone's contents from its source to its
// secondaries.
func stagesOf(z pipeline.ZoneStatus) []stage {
	return []stage{
		sourceStage(z), loadStage(z), reviewStage(z, stageLoaded, z.Loaded != nil),
		signStage(z), reviewStage(z, stageSigned, z.Signed != nil), publishStage(z), secondariesStage(z),
	}
}

func sourceStage(z pipeline.ZoneStatus) stage {
	s := stage{Name: "Source", Kind: "basin", State: "ok", Word: "file", Lines: []string{base(z.Source)}, Flows: z.Loaded != nil}
	u := z.Upstream
	if u == nil {
		return s
	}
	s.Word, s.Lines = "server", nil
	if u.Server != "" {
		s.Lines = append(s.Lines, u.Server)
	} else {
		s.Lines = append(s.Lines, z.Source)
	}
	if u.Serial != nil {
		s.Lines = append(s.Lines, fmt.Sprintf("serial %d", *u.Serial))
	}
	if u.LastError != "" {
		s.State, s.Word, s.Since = "warning", "no answer", u.Since
	}
	return s
}

// base is the last part of a file's path.
func base(source string) string {
	if i := strings.LastIndexByte(source, '/'); i >= 0 && i+1 < len(source) {
		return source[i+1:]
	}
	return source
}

func loadStage(z pipeline.ZoneStatus) stage {
	s := stage{Name: "Load", Kind: "basin", State: "idle", Word: "nothing yet", Flows: z.Loaded != nil}
	if l := z.Loaded; l != nil {
		s.State, s.Word, s.Since = "ok", "loaded", &l.Time
		s.Lines = []string{fmt.Sprintf("serial %d", l.Serial), l.Instance + ", " + plural(l.Records, "record")}
	}
	switch {
	case busy(z, "load"):
		s.State, s.Word = "work", "loading"+percent(z.Progress)
	case strings.Contains(z.State, "input failed"), z.LastError != "" && z.Loaded == nil:
		s.State, s.Word = "alarm", "failed"
	}
	return s
}

func busy(z pipeline.ZoneStatus, what string) bool {
	return z.Progress != nil && z.Progress.Stage == what
}

// percent tells how far long work is.
func percent(p *pipeline.Progress) string {
	if p == nil || p.Total <= 0 {
		return ""
	}
	return fmt.Sprintf(", %d %%", min(100, 100*p.Done/p.Total))
}

// reviewStage is a gate: shut while somebody is waited for.
func reviewStage(z pipeline.ZoneStatus, at string, reached bool) stage {
	s := stage{Name: "Review", Kind: "gate", State: "idle", Word: "open"}
	if reached {
		s.State, s.Flows = "ok", true
	}
	for _, rv := range z.Reviews {
		if rv.Stage != at {
			continue
		}
		s.Kind, s.Flows, s.Since = "gate shut", false, &rv.Since
		s.Lines = []string{fmt.Sprintf("%s, serial %d", rv.Instance, rv.Serial), rv.WaitsFor}
		s.State, s.Word = "wait", "waits"
		if rv.State == "halted" {
			s.State, s.Word = "alarm", "halted"
		}
	}
	return s
}

func signStage(z pipeline.ZoneStatus) stage {
	s := stage{Name: "Sign", Kind: "basin", State: "idle", Word: "nothing yet", Flows: z.Signed != nil}
	if g := z.Signed; g != nil {
		s.State, s.Word, s.Since = "ok", "signed", &g.Time
		switch g.Mode {
		case pipeline.ModePassThrough:
			s.Word = "passed through"
		case pipeline.ModeUnsigned:
			s.Word = "left unsigned"
		case pipeline.ModeSign:
		}
		s.Lines = []string{fmt.Sprintf("serial %d", g.Serial), g.Instance + ", " + plural(g.Signatures, "signature")}
	}
	switch {
	case busy(z, "sign"), busy(z, "verify"):
		s.State, s.Word = "work", z.State+percent(z.Progress)
	case strings.Contains(z.State, "signing failed"):
		s.State, s.Word = "alarm", "failed"
	}
	return s
}

func publishStage(z pipeline.ZoneStatus) stage {
	s := stage{Name: "Publish", Kind: "basin", State: "idle", Word: "nothing yet", Flows: z.Published != nil}
	if p := z.Published; p != nil {
		s.State, s.Word, s.Since = "ok", "served", &p.Time
		s.Lines = []string{fmt.Sprintf("serial %d", p.Serial), p.Instance}
	}
	if z.State == "expired" {
		s.State, s.Word = "alarm", "expired"
	}
	return s
}

func secondariesStage(z pipeline.ZoneStatus) stage {
	s := stage{Name: "Secondaries", Kind: "basin", State: "idle", Word: "none is told"}
	if len(z.Secondaries) == 0 || z.PublishedSerial == nil {
		if n := len(z.Fetched); n > 0 {
			s.State, s.Word, s.Flows = "ok", plural(n, "peer")+" fetched", true
			s.Lines, s.Since = []string{fmt.Sprintf("serial %d", z.Fetched[0].Serial)}, &z.Fetched[0].Time
		}
		return s
	}
	current := 0
	for _, peer := range z.Secondaries {
		if peer.Serial != nil && *peer.Serial == *z.PublishedSerial {
			current++
		}
		if peer.LastError != "" {
			s.Lines = []string{peer.Server + ": " + peer.LastError}
		}
	}
	s.Word = fmt.Sprintf("%d of %d know", current, len(z.Secondaries))
	s.State, s.Flows = "work", current > 0
	switch {
	case current == len(z.Secondaries):
		s.State = "ok"
	case len(s.Lines) > 0:
		s.State = "warning"
	}
	return s
}
