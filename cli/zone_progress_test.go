package cli

import (
	"testing"

	"sluice/journal/event"
	"sluice/pipeline"
)

func TestProgressText_TellsWhoSigns(t *testing.T) {
	for want, p := range map[string]*pipeline.Progress{
		"":           nil,
		"sign, 40 %": {Stage: "sign", Done: 40, Total: 100},
		"load, 7":    {Stage: "load", Done: 7},
		"sign, 40 %, of 5 parts 3 by main, 2 by w1": {
			Stage: "sign", Done: 400, Total: 1000,
			Parts: []event.SignedParts{{Worker: "main", Parts: 3}, {Worker: "w1", Parts: 2}},
		},
	} {
		if got := progressText(p); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
