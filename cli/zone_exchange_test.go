package cli

import (
	"strings"
	"testing"
	"time"

	"sluice/pipeline"
)

func TestExchangeText_TellsWhatIsLeftAndUntilWhen(t *testing.T) {
	if got := exchangeText(nil); got != "" {
		t.Errorf("without an exchange: %q", got)
	}
	got := exchangeText(&pipeline.ExchangeStatus{
		Keys: []string{"00112233aabbccdd"}, RRsets: 3000, Left: 1200, Until: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC),
	})
	for _, want := range []string{"of 3000 RRsets, 1200 are left", "00112233aabbccdd", "2026-12-01"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q lacks %q", got, want)
		}
	}
}
