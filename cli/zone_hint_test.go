package cli

import (
	"errors"
	"strings"
	"testing"
)

func TestMissingHint_SaysWhereToLook(t *testing.T) {
	for text, want := range map[string]string{
		"zone a.: not found":                                                       "sluice zone list",
		"zone a.: no version has the serial 7: not found":                          "see: sluice zone history a.",
		"zone a.: no published version has the serial 7, but l1 has it: not found": "see: sluice zone history a.",
		"zone a.: no version was published by 1970-01-01T00:00:01Z: not found":     "see: sluice zone history a.",
		"rollover 9 of zone a.: not found":                                         "sluice key status a.",
		`keystore "k" is not known: not found; add it: sluice keystore add k`:      "sluice keystore list",
		`policy "p": not found`:                                                    "see: sluice policy list",
	} {
		if got := missingHint(errors.New(text), "a."); !strings.HasPrefix(got, "see: ") || !strings.Contains(got, want) ||
			strings.Contains(want, "history") && got != want {
			t.Errorf("%s: %s", text, got)
		}
	}
}
