package audit_test

import (
	"bytes"
	"strings"
	"testing"

	"sluice/journal/audit"
	"sluice/journal/event"
)

// An export proves the same with sealed values and without.
func TestExport_SealedValuesCanBeLeftOut(t *testing.T) {
	l := history(t)
	for name, filter := range filters {
		t.Run(name, func(t *testing.T) {
			l.drop = nil
			with := l.verify(l.export(filter))
			if with.FaultCount != 0 || with.Sealed == 0 || with.SealedHere != with.Sealed || with.SealedDropped != 0 {
				t.Errorf("with all: %+v", with)
			}
			l.drop = func(m map[string]event.SealedValue) { clear(m) }
			dir := l.export(filter)
			without := l.verify(dir)
			if without.FaultCount != 0 || without.Sealed != with.Sealed || without.SealedHere != 0 || without.SealedDropped != with.Sealed || without.Root != with.Root {
				t.Errorf("without: %+v", without)
			}
			for path, f := range dir {
				if strings.HasPrefix(path, "sealed-") || bytes.Contains(f.Data, []byte("reason 1")) {
					t.Errorf("%s still holds sealed values", path)
				}
			}
			reasons := map[string]int{}
			err := audit.ReadEvents(dir, func(_ uint64, ev *event.Event) error {
				if f, ok := ev.Facts.(*event.LoadFailed); ok {
					reasons[f.Reason]++
				}
				return nil
			})
			if err != nil || len(reasons) != 1 || reasons[event.Dropped] == 0 {
				t.Errorf("reasons %v, %v", reasons, err)
			}
		})
	}
}

func TestReadEvents_ShowsSealedValues(t *testing.T) {
	l := history(t)
	n := 0
	l.drop = func(m map[string]event.SealedValue) {
		if n++; n%2 == 0 {
			clear(m)
		}
	}
	dir := l.export(audit.Filter{})
	if r := l.verify(dir); r.FaultCount != 0 || r.SealedHere == 0 || r.SealedDropped == 0 || r.SealedHere+r.SealedDropped != r.Sealed {
		t.Errorf("%+v", r)
	}
	shown := map[bool]int{}
	err := audit.ReadEvents(dir, func(_ uint64, ev *event.Event) error {
		if f, ok := ev.Facts.(*event.LoadFailed); ok {
			shown[f.Reason == event.Dropped]++
			if f.Reason != event.Dropped && !strings.HasPrefix(f.Reason, "reason ") && !strings.HasPrefix(f.Reason, "after ") {
				t.Errorf("reason %q", f.Reason)
			}
		}
		return nil
	})
	if err != nil || shown[true] == 0 || shown[false] == 0 {
		t.Errorf("shown %v, %v", shown, err)
	}
}
