package journal_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"

	"sluice/journal"
)

// standbyOf copies a journal into a directory once.
func standbyOf(t *testing.T, srv *server.Server, dir string) (st journal.StandbyStatus, err error) {
	t.Helper()
	err = journal.Standby(t.Context(), journal.StandbyConfig{
		Dir: dir, Remote: journal.Remote{URLs: []string{srv.ClientURL()}, Name: "standby"}, Once: true,
		Told: func(s journal.StandbyStatus) { st = s },
	})
	return st, err
}

// sameCopy compares a standby's store with the journal that it copies.
func sameCopy(t *testing.T, j journal.Journal, dir string) {
	t.Helper()
	copied, _, err := journal.OpenStandby(t.Context(), journal.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close() //nolint:errcheck // nothing was written
	if d := cmp.Diff(mustStatus(t, j), mustStatus(t, copied)); d != "" {
		t.Errorf("status (-journal +copy):\n%s", d)
	}
	if d := cmp.Diff(mustVerify(t, j), mustVerify(t, copied)); d != "" {
		t.Errorf("verify (-journal +copy):\n%s", d)
	}
}

func TestStandby_HasWhatTheJournalHas(t *testing.T) {
	srv := natsServer(t, nil)
	j := mustConnect(t, srv, nil)
	dir := t.TempDir()

	mustPut(t, j, "orphan-first", noise(1, 5000), noise(2, 5000))
	kept := mustPut(t, j, "kept", noise(3, 300_000))
	mustPut(t, j, "orphan-between", noise(4, 5000))
	head := mustAppend(t, j, journal.Head{}, loaded(kept))
	sweep := func() {
		t.Helper()
		r, err := j.SweepOrphans(t.Context(), time.Hour, time.Now().Add(2*time.Hour))
		if err != nil || r.Chunks == 0 {
			t.Fatalf("sweep: %+v, %v", r, err)
		}
		if head, err = j.Head(t.Context(), zone); err != nil {
			t.Fatal(err)
		}
	}
	sweep() // before the copy begins: sequences that are not there
	head = mustAppend(t, j, head, changed(1), changed(2))
	st, err := standbyOf(t, srv, dir)
	if err != nil || !st.InTouch || st.Events != head.Seq || st.Behind != 0 {
		t.Fatalf("first copy: %+v, %v", st, err)
	}
	sameCopy(t, j, dir)
	if _, err := journal.Open(t.Context(), journal.Config{Dir: dir}); !errors.Is(err, journal.ErrMode) {
		t.Fatalf("open a standby's store: %v", err)
	}

	// Chunks of which the copy has some are removed: whole subjects, and one of
	// two under a subject that stays.
	mustPut(t, j, "orphan-later", noise(5, 5000))
	mustPut(t, j, "twice", noise(6, 5000))
	head = mustAppend(t, j, head, loaded(mustPut(t, j, "twice", noise(7, 5000))))
	if _, err := standbyOf(t, srv, dir); err != nil {
		t.Fatal(err)
	}
	sameCopy(t, j, dir)
	sweep()
	if _, err := standbyOf(t, srv, dir); err != nil {
		t.Fatal(err)
	}
	sameCopy(t, j, dir)
}

func TestStandby_FollowsAndWaitsOutAnAbsence(t *testing.T) {
	srv := natsServer(t, nil)
	j := mustConnect(t, srv, nil)
	head := mustAppend(t, j, journal.Head{}, changed(1))
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	seen, ended := make(chan journal.StandbyStatus, 100), make(chan error, 1)
	go func() {
		ended <- journal.Standby(ctx, journal.StandbyConfig{
			Dir: dir, Remote: journal.Remote{URLs: []string{srv.ClientURL()}, Name: "standby"}, Timeout: time.Second,
			Told: func(s journal.StandbyStatus) { seen <- s },
		})
	}()
	awaitStatus := func(what string, is func(journal.StandbyStatus) bool) {
		t.Helper()
		late := time.After(time.Minute)
		for {
			select {
			case s := <-seen:
				if is(s) {
					return
				}
			case err := <-ended:
				t.Fatalf("%s: the standby ended: %v", what, err)
			case <-late:
				t.Fatalf("no %s", what)
			}
		}
	}
	awaitStatus("first event", func(s journal.StandbyStatus) bool { return s.InTouch && s.Events == head.Seq })
	head = mustAppend(t, j, head, changed(2))
	awaitStatus("second event", func(s journal.StandbyStatus) bool { return s.InTouch && s.Events == head.Seq })

	store, port := srv.StoreDir(), serverPort(t, srv)
	srv.Shutdown()
	srv.WaitForShutdown()
	awaitStatus("word of the absence", func(s journal.StandbyStatus) bool { return !s.InTouch && s.Problem != "" })
	srv = natsServer(t, func(o *server.Options) { o.Port, o.StoreDir = port, store })
	again := mustConnect(t, srv, nil)
	head = mustAppend(t, again, head, changed(3))
	awaitStatus("third event", func(s journal.StandbyStatus) bool { return s.InTouch && s.Events == head.Seq })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the standby ended: %v", err)
	}
	sameCopy(t, again, dir)
}

func TestStandby_RefusesAnotherJournal(t *testing.T) {
	dir := t.TempDir()
	for i := range 2 {
		srv := natsServer(t, nil)
		j := mustConnect(t, srv, nil)
		mustAppend(t, j, journal.Head{}, changed(1))
		_, err := standbyOf(t, srv, dir)
		if want := i == 1; errors.Is(err, journal.ErrServer) != want {
			t.Errorf("journal %d: %v", i, err)
		}
	}
	own := t.TempDir()
	if err := openDir(t, journal.Config{Dir: own}).Close(); err != nil {
		t.Fatal(err)
	}
	srv := natsServer(t, nil)
	mustConnect(t, srv, nil)
	if _, err := standbyOf(t, srv, own); !errors.Is(err, journal.ErrMode) {
		t.Errorf("copy over a journal: %v", err)
	}
}

func TestPromote_CopyBecomesAJournalOfItsOwn(t *testing.T) {
	srv := natsServer(t, nil)
	j := mustConnect(t, srv, nil)
	head := mustAppend(t, j, journal.Head{}, loaded(mustPut(t, j, "kept", noise(1, 5000))), changed(1))
	dir := t.TempDir()
	if _, err := standbyOf(t, srv, dir); err != nil {
		t.Fatal(err)
	}
	was, _, err := j.Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cfg := journal.Config{Dir: dir}
	for i := range 2 { // the first one is interrupted
		copied, from, err := journal.OpenStandby(t.Context(), cfg)
		if err != nil || from != srv.ClientURL() {
			t.Fatalf("open: from %q, %v", from, err)
		}
		resumed, err := copied.BeginPromotion()
		if err != nil || resumed != (i == 1) {
			t.Fatalf("begin: resumed %t, %v", resumed, err)
		}
		head = mustAppend(t, copied, head, changed(10+i))
		if i == 1 {
			if _, err := copied.FinishPromotion([]string{"first"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := copied.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := standbyOf(t, srv, dir); !errors.Is(err, journal.ErrMode) {
			t.Errorf("copy over a promotion: %v", err)
		}
	}
	if _, _, err := journal.OpenStandby(t.Context(), cfg); !errors.Is(err, journal.ErrMode) {
		t.Errorf("promote again: %v", err)
	}
	for range 2 {
		own, err := journal.Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if former := own.Former(); !slices.Equal(former, []string{"first"}) {
			t.Errorf("former logs: %v", former)
		}
		identity, _, err := own.Stream(t.Context())
		if err != nil || identity == was {
			t.Errorf("identity %s, was %s, %v", identity, was, err)
		}
		head = mustAppend(t, own, head, changed(20))
		if r := mustVerify(t, own); r.FaultCount > 0 || r.Identity != identity || r.Chunks != 1 {
			t.Errorf("verify: %+v", r)
		}
		if err := own.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for url, identity := range map[string]string{srv.ClientURL(): was, "nats://127.0.0.1:1": was} {
		cfg := journal.Config{Remote: journal.Remote{URLs: []string{url}, Name: "main"}, Timeout: time.Second}
		if answers, err := journal.Answers(t.Context(), cfg, identity); err != nil || answers != (url == srv.ClientURL()) {
			t.Errorf("%s answers: %t, %v", url, answers, err)
		}
	}
}
