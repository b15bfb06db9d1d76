package journaltest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
)

// ConformCoordinator checks that an implementation keeps the contract of
// journal.Coordinator. open returns one that nobody else uses, whose leases
// hold for about a second.
func ConformCoordinator(t *testing.T, open func(*testing.T) journal.Coordinator) {
	for name, run := range map[string]func(*testing.T, journal.Coordinator){
		"a lease has one holder":                 leaseHasOneHolder,
		"a released lease can be taken":          releasedLease,
		"a lease runs out unless it is renewed":  leaseRunsOut,
		"a lost lease is not renewed":            lostLease,
		"what is announced is seen, and left":    announced,
		"a question is answered once in a queue": questionAnswered,
		"an error is refused with its text":      questionRefused,
		"nobody answers after stop":              nobodyAnswers,
		"who asks waits no longer than its ctx":  askEnds,
	} {
		t.Run(name, func(t *testing.T) { run(t, open(t)) })
	}
}

func leaseHasOneHolder(t *testing.T, c journal.Coordinator) {
	l, err := c.TakeLease(t.Context(), journal.LeaseName("sign", 3), "a")
	if err != nil || l.Name != "sign.3" || l.Holder != "a" {
		t.Fatalf("got %+v, %v", l, err)
	}
	if _, err := c.TakeLease(t.Context(), "sign.3", "b"); !errors.Is(err, journal.ErrHeld) {
		t.Fatalf("a second holder: %v, want ErrHeld", err)
	}
	if _, err := c.TakeLease(t.Context(), "sign.4", "b"); err != nil {
		t.Fatalf("another lease: %v", err)
	}
	// A worker that lost the answer, or was started anew, finds its own.
	again, err := c.TakeLease(t.Context(), "sign.3", "a")
	if err != nil {
		t.Fatalf("its own lease: %v", err)
	}
	if _, err := c.RenewLease(t.Context(), again); err != nil {
		t.Fatalf("renew: %v", err)
	}
	st, err := c.Standing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range st.Leases {
		st.Leases[i].Revision = 0
	}
	want := []journal.Lease{{Name: "sign.3", Holder: "a"}, {Name: "sign.4", Holder: "b"}}
	if d := cmp.Diff(want, st.Leases); d != "" {
		t.Error(d)
	}
}

func releasedLease(t *testing.T, c journal.Coordinator) {
	for _, holder := range []string{"a", "b", "a"} {
		l, err := c.TakeLease(t.Context(), "load.0", holder)
		if err != nil {
			t.Fatalf("take by %s: %v", holder, err)
		}
		if err := c.ReleaseLease(t.Context(), l); err != nil {
			t.Fatalf("release by %s: %v", holder, err)
		}
		if err := c.ReleaseLease(t.Context(), l); err != nil {
			t.Fatalf("release again by %s: %v", holder, err)
		}
	}
	st, err := c.Standing(t.Context())
	if err != nil || len(st.Leases) != 0 {
		t.Fatalf("left: %+v, %v", st, err)
	}
}

func leaseRunsOut(t *testing.T, c journal.Coordinator) {
	kept, err := c.TakeLease(t.Context(), "keys.1", "a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.TakeLease(t.Context(), "keys.2", "a"); err != nil {
		t.Fatal(err)
	}
	for {
		if kept, err = c.RenewLease(t.Context(), kept); err != nil {
			t.Fatalf("renew: %v", err)
		}
		_, err = c.TakeLease(t.Context(), "keys.2", "b")
		if err == nil {
			break
		}
		if !errors.Is(err, journal.ErrHeld) {
			t.Fatal(err)
		}
		pause(t, c.LeaseTime()/20)
	}
	if _, err := c.TakeLease(t.Context(), "keys.1", "b"); !errors.Is(err, journal.ErrHeld) {
		t.Fatalf("the renewed one: %v, want ErrHeld", err)
	}
}

// pause waits between two looks at something that takes real time.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
		t.Fatal("the test ended")
	}
}

func lostLease(t *testing.T, c journal.Coordinator) {
	l, err := c.TakeLease(t.Context(), "keys.1", "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ReleaseLease(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	other, err := c.TakeLease(t.Context(), "keys.1", "b")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.RenewLease(t.Context(), l); !errors.Is(err, journal.ErrHeld) {
		t.Fatalf("renew what was lost: %v, want ErrHeld", err)
	}
	if err := c.ReleaseLease(t.Context(), l); err != nil {
		t.Fatalf("release what was lost: %v", err)
	}
	if _, err := c.RenewLease(t.Context(), other); err != nil {
		t.Fatalf("the other's lease was touched: %v", err)
	}
}

func announced(t *testing.T, c journal.Coordinator) {
	for _, w := range []string{"w2", "w1"} {
		if err := c.Announce(t.Context(), w, []byte("about "+w)); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Announce(t.Context(), "No.Name", nil); err == nil {
		t.Fatal("a bad name was taken")
	}
	st, err := c.Standing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []journal.Living{{Worker: "w1", About: []byte("about w1")}, {Worker: "w2", About: []byte("about w2")}}
	if d := cmp.Diff(want, st.Workers); d != "" {
		t.Error(d)
	}
	if err := c.Leave(t.Context(), "w1"); err != nil {
		t.Fatal(err)
	}
	for len(st.Workers) > 0 { // w2 says no more of itself
		if st, err = c.Standing(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, w := range st.Workers {
			if w.Worker == "w1" {
				t.Fatal("w1 is still there")
			}
		}
		pause(t, c.LeaseTime()/20)
	}
}

func questionAnswered(t *testing.T, c journal.Coordinator) {
	answered := make(chan string, 8)
	for _, who := range []string{"a", "b"} {
		stop, err := c.Answer("do.observe", "observe", func(_ context.Context, data []byte) ([]byte, error) {
			answered <- who
			return append([]byte("answer to "), data...), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
	}
	for _, q := range []string{"one", "two", strings.Repeat("x", 100_000)} {
		got, err := c.Ask(t.Context(), "do.observe", []byte(q))
		if err != nil || string(got) != "answer to "+q {
			t.Fatalf("got %.40q, %v", got, err)
		}
		<-answered
		if len(answered) != 0 {
			t.Fatal("two answered")
		}
	}
}

func questionRefused(t *testing.T, c journal.Coordinator) {
	stop, err := c.Answer("to.a", "", func(context.Context, []byte) ([]byte, error) {
		return nil, errors.New("not today")
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	_, err = c.Ask(t.Context(), "to.a", nil)
	if r, ok := errors.AsType[journal.Refused](err); !ok || r.Text != "not today" {
		t.Fatalf("got %v", err)
	}
}

func nobodyAnswers(t *testing.T, c journal.Coordinator) {
	if _, err := c.Ask(t.Context(), "ask.load.1", nil); !errors.Is(err, journal.ErrNobody) {
		t.Fatalf("before: %v, want ErrNobody", err)
	}
	stop, err := c.Answer("ask.load.1", "", func(context.Context, []byte) ([]byte, error) { return nil, nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Ask(t.Context(), "ask.load.1", nil); err != nil {
		t.Fatal(err)
	}
	stop()
	if _, err := c.Ask(t.Context(), "ask.load.1", nil); !errors.Is(err, journal.ErrNobody) {
		t.Fatalf("after: %v, want ErrNobody", err)
	}
}

func askEnds(t *testing.T, c journal.Coordinator) {
	asked := make(chan struct{})
	stop, err := c.Answer("to.a", "", func(ctx context.Context, _ []byte) ([]byte, error) {
		close(asked)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if _, err := c.Ask(ctx, "to.a", nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}
