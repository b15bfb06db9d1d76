package pipeline

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/journal/event"
)

// emptied deletes all names of smallZone: of the apex SOA and NS stay (RFC 2136,
// 3.4.2.3).
func emptied(t *testing.T, r *rig) func(*dns.Msg) {
	t.Helper()
	var names []string
	for _, line := range r.contents() {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, rr.Header().Name)
	}
	slices.Sort(names)
	return func(m *dns.Msg) {
		for _, name := range slices.Compact(names) {
			m.RemoveName([]dns.RR{&dns.ANY{Hdr: dns.RR_Header{Name: name}}})
		}
	}
}

// While an instance is under review, all can be deleted: that waits, and is
// judged in a review of its own.
func TestUpdate_DeletesAllWhileAReviewIsPending(t *testing.T) {
	for _, c := range []struct {
		fact   string
		reject bool
	}{{"what is under review is approved", false}, {"what is under review is rejected", true}} {
		t.Run(c.fact, func(t *testing.T) {
			r := newUpdated(t, loadedManual+allUpdates)
			r.add(smallZone)
			r.approve(event.StageLoaded)
			before := r.contents()
			if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, "new 60 A 192.0.2.1")) }); got != "NOERROR" {
				t.Fatalf("answered %s", got)
			}
			under := r.await().Reviews[0].Instance
			served := r.served()
			all := emptied(t, r)
			if got := r.update(func(m *dns.Msg) { all(m); m.RemoveName(rrs(t, "new A 192.0.2.1")) }); got != "NOERROR" {
				t.Fatalf("deleting all: answered %s", got)
			}
			st := r.await()
			if len(st.Reviews) != 1 || st.Reviews[0].Instance != under || st.Updates.Waiting != 1 || r.served() != served {
				t.Fatalf("the review, or what is served, has changed: %+v, %+v", st.Reviews, st.Updates)
			}
			if got := r.update(func(m *dns.Msg) { m.NameNotUsed(rrs(t, "www A 192.0.2.1", "new A 192.0.2.1")) }); got != "NOERROR" {
				t.Errorf("names that are deleted and wait are in use: answered %s", got)
			}
			if c.reject {
				st = r.reject(event.StageLoaded)
			} else {
				st = r.approve(event.StageLoaded)
			}
			if len(st.Reviews) != 1 || st.Reviews[0].Instance == under || st.Updates.Waiting != 0 {
				t.Fatalf("then: reviews %+v, updates %+v", st.Reviews, st.Updates)
			}
			r.approve(event.StageLoaded)
			var want []string
			for _, line := range before {
				rr, err := dns.NewRR(line)
				if err != nil {
					t.Fatal(err)
				}
				if rr.Header().Name == "example.com." && rr.Header().Rrtype == dns.TypeNS {
					want = append(want, line)
				}
			}
			got := slices.DeleteFunc(r.contents(), func(line string) bool {
				rr, err := dns.NewRR(line)
				return err == nil && rr.Header().Rrtype == dns.TypeSOA
			})
			if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
				t.Errorf("left (-want +got):\n%s", diff)
			}
			rep, err := r.e.VerifyZone(t.Context(), "example.com", nil)
			if err != nil || !rep.OK() {
				t.Errorf("verify: %v, %+v", err, rep)
			}
		})
	}
}

// What deletes nothing but what is under review leaves nothing to do where that
// is rejected: it waits no longer, and no review is opened for it.
func TestUpdate_DeletesWhatIsUnderReview(t *testing.T) {
	r := newUpdated(t, loadedManual+allUpdates)
	r.add(smallZone)
	r.approve(event.StageLoaded)
	before, dump := r.contents(), r.dump()
	for _, fill := range []func(*dns.Msg){
		func(m *dns.Msg) { m.Insert(rrs(t, "new 60 A 192.0.2.1")) },
		func(m *dns.Msg) { m.RemoveName(rrs(t, "new A 192.0.2.1")) },
	} {
		if got := r.update(fill); got != "NOERROR" {
			t.Fatalf("answered %s", got)
		}
		r.await()
	}
	st := r.reject(event.StageLoaded)
	if len(st.Reviews) != 0 || st.Updates.Waiting != 0 || r.dump() != dump {
		t.Errorf("after the rejection: reviews %+v, updates %+v", st.Reviews, st.Updates)
	}
	if diff := cmp.Diff(before, r.contents()); diff != "" {
		t.Errorf("contents (-before +after):\n%s", diff)
	}
	if got := r.update(func(m *dns.Msg) { m.Insert(rrs(t, "next 60 A 192.0.2.2")) }); got != "NOERROR" {
		t.Fatalf("the next one: answered %s", got)
	}
	if st := r.await(); len(st.Reviews) != 1 {
		t.Errorf("no review of the next one: %+v", st)
	}
}
