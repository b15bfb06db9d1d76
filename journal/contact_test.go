package journal

import (
	"testing"
	"time"
)

func TestContact_ServerThatAnswersNothingIsLeft(t *testing.T) {
	var c contact
	now := time.Unix(1_700_000_000, 0)
	after := func(d time.Duration) bool { return c.unanswered(now.Add(d)) }
	if after(0) || after(loneAfter-1) {
		t.Error("left too early")
	}
	c.answered("$JS.API.DIRECT.GET.EVENTS")
	c.answered("$JS.API.STREAM.INFO.EVENTS")
	if !after(loneAfter) {
		t.Error("not left, though it only answered what it could by itself")
	}
	if after(loneAfter+1) || after(2*loneAfter) {
		t.Error("the next one was left too early")
	}
	c.answered("ev.00000000000000aa.zone")
	if after(3 * loneAfter) {
		t.Error("left right after an answer")
	}
}
