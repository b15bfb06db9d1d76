package cli

import (
	"math"
	"strconv"
	"strings"
	"time"

	"sluice/pipeline"
)

// parseClock reads --clock START[,RATE]: a simulated clock that shows START
// now and runs at RATE seconds a second (1 where it is left out, 0 is
// frozen). An empty text is the machine's clock.
func parseClock(text string) (clock pipeline.Clock, name string, err error) {
	if text == "" {
		return pipeline.Clock{}, realClock, nil
	}
	startText, rateText, hasRate := strings.Cut(text, ",")
	start, err := parseTime(startText, time.Now())
	if err != nil {
		return clock, "", err
	}
	rate := 1.0
	if hasRate {
		rate, err = strconv.ParseFloat(rateText, 64)
		if err != nil || math.IsNaN(rate) || rate < 0 || rate > 1e6 {
			return clock, "", usagef("--clock %q: want a rate of 0 to 1000000 after the comma", text)
		}
	}
	return pipeline.NewRehearsal(start, rate), rehearsalClock, nil
}
