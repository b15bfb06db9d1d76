package pipeline

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sluice/journal/journaltest"
	"sluice/signer/zone"
)

func at(n uint32) *zone.Serial {
	s := zone.Serial(n)
	return &s
}

func TestNextSerial(t *testing.T) {
	const half = 1 << 31
	now := time.Date(2026, 11, 22, 23, 59, 0, 0, time.FixedZone("", -3600)) // 2026-11-23 in UTC
	unix := zone.Serial(now.Unix())
	rows := []struct {
		fact            string
		policy          SerialPolicy
		source          zone.Serial
		previous, floor *zone.Serial
		want            zone.Serial
		fails           bool
	}{
		{"keep takes the source's", SerialKeep, 7, nil, nil, 7, false},
		{"keep takes a zero", SerialKeep, 0, nil, nil, 0, false},
		{"keep follows a greater source", SerialKeep, 9, at(7), nil, 9, false},
		{"keep counts on where the source stands", SerialKeep, 7, at(7), nil, 8, false},
		{"keep counts on where the source goes back", SerialKeep, 3, at(7), nil, 8, false},
		{"keep counts on where RFC 1982 leaves the order open", SerialKeep, 7 + half, at(7), nil, 8, false},
		{"keep follows a source to the edge of the window", SerialKeep, 7 + half - 1, at(7), nil, 7 + half - 1, false},
		{"keep follows the source around", SerialKeep, 3, at(0xfffffff0), nil, 3, false},
		{"keep goes round and leaves out zero", SerialKeep, 0xffffffff, at(0xffffffff), nil, 1, false},
		{"keep stays above the floor", SerialKeep, 7, nil, at(100), 101, false},
		{"keep above the floor is untouched", SerialKeep, 101, nil, at(100), 101, false},
		{"keep: previous above the floor decides", SerialKeep, 102, at(105), at(100), 106, false},
		{"keep: a floor raised above previous decides", SerialKeep, 102, at(100), at(105), 106, false},
		{"keep: previous wins over a floor without order", SerialKeep, 8, at(7), at(7 + half), 8, false},
		{"keep-strict takes the source's", SerialKeepStrict, 7, at(6), nil, 7, false},
		{"keep-strict refuses an equal serial", SerialKeepStrict, 7, at(7), nil, 0, true},
		{"keep-strict refuses a lower serial", SerialKeepStrict, 6, at(7), nil, 0, true},
		{"keep-strict refuses one below the floor", SerialKeepStrict, 6, nil, at(7), 0, true},
		{"keep-strict follows the source around", SerialKeepStrict, 1, at(0xffffffff), nil, 1, false},
		{"counter begins at the source", SerialCounter, 7, nil, nil, 7, false},
		{"counter begins above the floor", SerialCounter, 7, nil, at(100), 101, false},
		{"counter ignores the source", SerialCounter, 5000, at(7), nil, 8, false},
		{"counter goes round", SerialCounter, 5000, at(0xffffffff), nil, 1, false},
		{"unix-time takes the time", SerialUnixTime, 5, at(7), nil, unix, false},
		{"unix-time counts on within a second", SerialUnixTime, 5, at(uint32(unix)), nil, unix + 1, false},
		{"unix-time counts on where the clock went back", SerialUnixTime, 5, at(uint32(unix) + 90), nil, unix + 91, false},
		{"unix-time from date serials counts on", SerialUnixTime, 5, at(2026112205), nil, 2026112206, false},
		{"date-counter is of the day in UTC", SerialDateCounter, 5, at(2026112207), nil, 2026112300, false},
		{"date-counter counts within a day", SerialDateCounter, 5, at(2026112300), nil, 2026112301, false},
		{"date-counter runs over after 99", SerialDateCounter, 5, at(2026112399), nil, 2026112400, false},
		{"date-counter counts on from the future", SerialDateCounter, 5, at(2027010100), nil, 2027010101, false},
		{"date-counter above the floor", SerialDateCounter, 5, nil, at(2026112303), 2026112304, false},
		{"unknown policy", "lucky", 5, nil, nil, 0, true},
	}
	for _, row := range rows {
		t.Run(row.fact, func(t *testing.T) {
			got, err := NextSerial(row.policy, row.source, row.previous, row.floor, now)
			if (err != nil) != row.fails {
				t.Fatalf("error %v, want one: %v", err, row.fails)
			}
			if got != row.want {
				t.Errorf("NextSerial = %d, want %d", got, row.want)
			}
			if row.policy == SerialKeepStrict && row.fails && !errors.Is(err, ErrSerial) {
				t.Errorf("error %v is not ErrSerial", err)
			}
		})
	}
}

// RFC 1982, 3.1: whatever the inputs, the new serial is after the old one.
func FuzzNextSerial(f *testing.F) {
	f.Add(uint32(0xffffffff), uint32(0), int64(0), true)
	f.Add(uint32(7), uint32(1<<31+7), int64(1<<40), false)
	f.Fuzz(func(t *testing.T, source, previous uint32, unix int64, floor bool) {
		for _, policy := range []SerialPolicy{SerialKeep, SerialCounter, SerialUnixTime, SerialDateCounter} {
			prev, low := at(previous), (*zone.Serial)(nil)
			if floor {
				prev, low = low, prev
			}
			got, err := NextSerial(policy, zone.Serial(source), prev, low, time.Unix(unix%(1<<38), 0))
			if err != nil {
				t.Fatal(err)
			}
			if !zone.Serial(previous).Before(got) {
				t.Errorf("%s: %d is not after %d", policy, got, previous)
			}
		}
	})
}

func TestStatus_SerialThatIsNotKeptIsAnAlarm(t *testing.T) {
	keep := reviewPolicy(t, "[signer]\nserial-policy = \"keep\"\n")
	r := newRig(t, journaltest.New(), map[string]Policy{"default": keep})
	about := func(st ZoneStatus) (found []string) {
		for _, n := range st.Notices {
			if n.Severity == "alarm" && strings.Contains(n.Text, "serial-policy keep") {
				found = append(found, n.Text+" "+n.Hint)
			}
		}
		return found
	}
	if got := about(r.add(smallZone)); len(got) != 0 {
		t.Errorf("a serial that is kept: %q", got)
	}
	st := r.reload(strings.Replace(changedZone(), "hostmaster 7", "hostmaster 3", 1))
	if got := about(st); len(got) != 1 || !strings.Contains(got[0], "the source has 3") || !strings.Contains(got[0], "above 8") || st.Published.Serial != 8 {
		t.Errorf("serial %d, alarms %q", st.Published.Serial, got)
	}
	if got := about(r.reload(strings.Replace(changedZone(), "hostmaster 7", "hostmaster 9", 1))); len(got) != 0 {
		t.Errorf("a serial that is kept again: %q", got)
	}
}
