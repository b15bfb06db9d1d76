package cli

import (
	"time"

	"github.com/schollz/progressbar/v3"

	"sluice/pipeline"
)

// meter shows progress on a terminal; elsewhere it does nothing.
type meter struct {
	e     *env
	stage string
	bar   *progressbar.ProgressBar
}

// newMeter makes a meter. The caller ends it.
func (e *env) newMeter() *meter { return &meter{e: e} }

// watched reports whether anyone sees progress.
func (e *env) watched() bool { return !e.json && isTerminal(e.stderr) }

// show says where the work stands.
func (m *meter) show(p pipeline.Progress) {
	if !m.e.watched() || p.Stage == "" {
		return
	}
	if m.bar == nil || m.stage != p.Stage {
		m.end()
		m.stage = p.Stage
		options := []progressbar.Option{
			progressbar.OptionSetWriter(m.e.stderr),
			progressbar.OptionSetDescription(p.Stage),
			progressbar.OptionSetWidth(40),
			progressbar.OptionThrottle(100 * time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetPredictTime(true),
		}
		total := p.Total
		if total <= 0 { // not known: a count instead of a bar
			total = -1
			options = append(options, progressbar.OptionShowCount())
		}
		m.bar = progressbar.NewOptions64(total, options...)
	}
	done := p.Done
	if p.Total > 0 {
		done = min(done, p.Total)
	}
	_ = m.bar.Set64(done) // what a terminal does not take is lost
}

// end removes the bar.
func (m *meter) end() {
	if m.bar != nil {
		_ = m.bar.Clear() // as above
		m.bar = nil
	}
}
