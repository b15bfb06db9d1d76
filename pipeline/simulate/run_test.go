package simulate

import (
	"testing"
	"time"

	"sluice/pipeline"
)

func begin0() time.Time { return time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC) }

func TestX(t *testing.T) {
	s := Usual(pipeline.Default(), begin0(), begin0().AddDate(3, 0, 0))
	began := time.Now()
	sum, err := Run(t.Context(), s, func(l Line) error {
		t.Logf("%s %-8s r%d %s\n\twhy %s\n\tnext %s", l.Time.Format(time.RFC3339), l.Kind, l.Rollover, l.Text, l.Why, l.Next)
		return nil
	})
	t.Logf("%+v %v %s", sum, err, time.Since(began))
}
