package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr/file"
	"sluice/signer"
	"sluice/signer/zone"
)

// following is a journal whose engine follows and begins nothing.
type following struct{ journal.Journal }

func (q following) Follow(ctx context.Context, id event.ZoneID, first uint64, _ func(), fn func(journal.Record) error) error {
	return q.Journal.Follow(ctx, id, first, nil, fn)
}

// sharers is an engine and others on its journal, which do nothing but sign
// parts of zones when they are asked to.
type sharers struct {
	*rig
	coordinator *journaltest.Coordinator
}

func newSharers(t *testing.T, policy string) *sharers {
	t.Helper()
	p, err := Parse("default", []byte("version = \"v1\"\n"+policy))
	if err != nil {
		t.Fatal(err)
	}
	r := &sharers{
		rig:         &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: NewRehearsal(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), 0)},
		coordinator: journaltest.NewCoordinator(time.Hour),
	}
	r.rig.coordinator = r.coordinator
	r.start(map[string]Policy{"default": p})
	// It keeps what it has when others come: the next round is far away.
	until(t, "all work is here", func() bool {
		for i := range Partitions {
			for _, role := range ownedRoles() {
				if !r.e.duties.owns(duty{role, i}) {
					return false
				}
			}
		}
		return true
	})
	return r
}

// join has a worker answer, whatever it answers.
func (r *sharers) join(name string, answer journal.Handler) {
	r.t.Helper()
	if err := r.coordinator.Announce(r.t.Context(), name, []byte(`{"worker_roles":["observe","sign"]}`)); err != nil {
		r.t.Fatal(err)
	}
	if answer == nil {
		return
	}
	stop, err := r.coordinator.Answer(journal.PartSubject(name), "", answer)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(stop)
}

// helper starts a worker that has the keys, and counts the parts that it signs.
func (r *sharers) helper(name string) (*Engine, *atomic.Int32) {
	r.t.Helper()
	ks, err := file.Open(file.Config{Dir: filepath.Join(r.dir, "keys")})
	if err != nil {
		r.t.Fatal(err)
	}
	dir := r.t.TempDir()
	e, err := NewEngine(r.t.Context(), Config{
		Journal: following{r.journal}, Keystore: ks, StoreDir: filepath.Join(dir, "projections"), SpillDir: filepath.Join(dir, "spill"),
		Clock: r.clock, Logger: testLogger(r.t), Worker: name, Coordinator: r.coordinator,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	r.t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, e.Close()); err != nil {
			r.t.Errorf("worker %s ended with %v", name, err)
		}
	})
	n := new(atomic.Int32)
	r.join(name, func(ctx context.Context, data []byte) ([]byte, error) {
		answer, err := e.answerShare(ctx, data)
		if err == nil {
			n.Add(1)
		}
		return answer, err
	})
	return e, n
}

// mixedZone is a zone with so many names of all sorts.
func mixedZone(n int) string {
	var b strings.Builder
	b.WriteString(smallZone)
	for i := range n {
		switch i % 5 {
		case 0:
			fmt.Fprintf(&b, "n%d IN A 192.0.2.1\n", i)
		case 1:
			fmt.Fprintf(&b, "n%d IN NS ns.n%d\nns.n%d IN A 192.0.2.1\n", i, i, i)
		case 2:
			fmt.Fprintf(&b, "n%d IN NS ns.example.net.\n IN DS 1 13 2 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n", i)
		case 3:
			fmt.Fprintf(&b, "a.b%d.c.d%d IN TXT \"%d\"\n", i, i/500, i)
		default:
			fmt.Fprintf(&b, "*.n%d IN AAAA 2001:db8::1\n", i)
		}
	}
	return b.String()
}

// made is what an instance has that the signer made.
func (r *sharers) made(e *Engine, s State, signed uint64) map[string]string {
	r.t.Helper()
	out := map[string]string{}
	for _, kind := range []zone.Kind{zone.KindMade, zone.KindSigs, zone.KindChain, zone.KindChainSigs} {
		it, err := e.store.Made(s.Zone, signed, kind)
		if err != nil {
			r.t.Fatal(err)
		}
		for it.Next() {
			out[string(it.Key())] = string(it.Value())
		}
		if err := errors.Join(it.Err(), it.Close()); err != nil {
			r.t.Fatal(err)
		}
	}
	return out
}

type mapSink map[string]string

func (m mapSink) Put(key, value []byte) error {
	if len(value) == 0 {
		delete(m, string(key))
	} else {
		m[string(key)] = string(value)
	}
	return nil
}

// equalsAlone holds what was published on top of base against what one process
// makes of the same anew: the clock being frozen, that is the same.
func (r *sharers) equalsAlone(base State) {
	r.t.Helper()
	run, err := r.e.find("example.com")
	if err != nil {
		r.t.Fatal(err)
	}
	s := run.snapshot()
	f := s.Published.Signed.Facts
	if f.Base != base.publishedSeq() {
		r.t.Fatalf("signed on %d, want %d", f.Base, base.publishedSeq())
	}
	p, err := r.e.boundPolicy(s)
	if err != nil {
		r.t.Fatal(err)
	}
	apex, err := apexOf(s)
	if err != nil {
		r.t.Fatal(err)
	}
	keys, err := r.e.signerKeys(r.t.Context(), s.Keys)
	if err != nil {
		r.t.Fatal(err)
	}
	want := mapSink{}
	in := signer.Input{Spill: r.e.signSpill}
	if in.Contents, err = r.e.store.Contents(s.Zone, s.Loaded.Seq); err != nil {
		r.t.Fatal(err)
	}
	defer in.Contents.Close() //nolint:errcheck // read only
	if in.ContentState, err = r.e.store.ContentState(s.Zone, s.Loaded.Seq); err != nil {
		r.t.Fatal(err)
	}
	res, err := signer.Sign(r.t.Context(), in, keys, p.SignParams(apex, zone.Serial(f.Serial), r.clock.Now()), want)
	if err != nil {
		r.t.Fatal(err)
	}
	delete(want, string([]byte{byte(zone.KindDigest)}))
	if diff := cmp.Diff(map[string]string(want), r.made(r.e, s, s.Published.Signed.Seq)); diff != "" {
		r.t.Fatalf("zones differ (-alone +shared):\n%.2000s", diff)
	}
	if f.SignedDigest != res.SignedSum || f.Records != res.Records || f.Signatures != res.Signatures ||
		f.Earliest != res.Earliest.Unix() || !reflect.DeepEqual(f.SignedBy, signedByKeys(res.SignedBy, keys)) {
		r.t.Fatalf("event %+v, of one process %+v", f, res)
	}
}

func (s State) publishedSeq() uint64 {
	if s.Published == nil {
		return 0
	}
	return s.Published.Signed.Seq
}

// Two processes make the same bytes as one, of a new zone, on top of what is
// published, and where the way of denial changes.
func TestShare_SameBytesWhoeverSigns(t *testing.T) {
	for _, denial := range []string{
		"type = \"nsec\"\n", "type = \"nsec3\"\n", "type = \"nsec3\"\nopt-out = true\n",
	} {
		t.Run(strings.Fields(denial)[2]+fmt.Sprint(strings.Contains(denial, "opt-out")), func(t *testing.T) {
			t.Parallel()
			policy := "[signer]\nshare-above = 1000\nverify = \"sample\"\nserial-policy = \"counter\"\n[signer.denial]\n"
			r := newSharers(t, policy+denial)
			e, n := r.helper("w1")
			st := r.add(mixedZone(3000))
			if st.State != "published" {
				t.Fatalf("state %s: %s", st.State, st.LastError)
			}
			until(t, "the other process has signed something", func() bool { return n.Load() > 0 })
			first := n.Load()
			r.equalsAlone(State{})

			run, err := r.e.find("example.com")
			if err != nil {
				t.Fatal(err)
			}
			s := run.snapshot()
			r.zoneFile(mixedZone(4500))
			if err := r.e.Reload(t.Context(), testActor, "example.com", false); err != nil {
				t.Fatal(err)
			}
			r.await()
			until(t, "the other process has signed something again", func() bool { return n.Load() > first })
			r.equalsAlone(s)
			until(t, "the other process has folded all", func() bool {
				other, err := e.find("example.com")
				return err == nil && other.snapshot().Head == run.snapshot().Head
			})
			s = run.snapshot()
			if diff := cmp.Diff(r.made(r.e, s, s.publishedSeq()), r.made(e, s, s.publishedSeq())); diff != "" {
				t.Fatalf("projections differ:\n%.2000s", diff)
			}
		})
	}
}

// Whatever other processes do or do not do, the zone is signed.
func TestShare_OthersHelpAndCannotHinder(t *testing.T) {
	garbage := []byte("\x00\x00\x00\x02{}")
	for what, answer := range map[string]journal.Handler{
		"nobody there": nil,
		"refuses":      func(context.Context, []byte) ([]byte, error) { return nil, errors.New("no keys here") },
		"garbage":      func(context.Context, []byte) ([]byte, error) { return garbage, nil },
		"nothing":      func(context.Context, []byte) ([]byte, error) { return nil, nil },
		"died": func(ctx context.Context, _ []byte) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			r := newSharers(t, "[signer]\nshare-above = 1000\nverify = \"sample\"\n")
			r.join("w1", answer)
			_, n := r.helper("w2")
			if st := r.add(mixedZone(3000)); st.State != "published" || st.LastError != "" {
				t.Fatalf("state %s: %s", st.State, st.LastError)
			}
			until(t, "the worker that works has signed something", func() bool { return n.Load() > 0 })
			r.equalsAlone(State{})
		})
	}
}

// Small zones stay in the process, and so do those with ZONEMD.
func TestShare_OnlyLargeZones(t *testing.T) {
	for name, policy := range map[string]string{
		"small": "[signer]\nshare-above = 100000\n", "never": "[signer]\nshare-above = 0\n",
		"zonemd": "[signer]\nshare-above = 10\nzonemd = true\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newSharers(t, policy)
			r.join("w1", func(context.Context, []byte) ([]byte, error) {
				t.Error("another process was asked")
				return nil, errors.New("not asked")
			})
			if st := r.add(mixedZone(100)); st.State != "published" {
				t.Fatalf("state %s: %s", st.State, st.LastError)
			}
		})
	}
}

// A worker whose answer says something else than what it made is found by the
// egress gate; then the zone is signed by one process alone.
func TestShare_WrongPartIsNotPublished(t *testing.T) {
	r := newSharers(t, "[signer]\nshare-above = 1000\nverify = \"sample\"\n")
	e, _ := r.helper("w2")
	var answers atomic.Int64
	r.join("w1", func(ctx context.Context, data []byte) ([]byte, error) {
		answer, err := e.answerShare(ctx, data)
		if err != nil {
			return nil, err
		}
		done := &shareDone{}
		hashes, err := decodeShare(answer, done)
		if err != nil {
			return nil, err
		}
		// Each at another place: they are summed up, and would make up for each other.
		done.Change[int(8*answers.Add(1))%len(done.Change)] ^= 1
		return encodeShare(done, hashes)
	})
	r.add(mixedZone(3000))
	// Where this process was faster everywhere, it is signed once more.
	var failed *event.SignFailed
	var last *event.InstanceSigned
	until(t, "a wrong part is among those of an instance", func() bool {
		took := false
		failed, last = nil, nil
		err := r.journal.Read(t.Context(), "", 1, 0, func(rec journal.Record) error {
			switch f := rec.Event.Facts.(type) {
			case *event.SignFailed:
				failed = f
			case *event.InstanceSigned:
				last = f
				took = took || slices.ContainsFunc(f.Parts, func(p event.SignedParts) bool { return p.Worker == "w1" })
			}
			return nil
		})
		if err == nil && !took {
			if err = r.e.Resign(t.Context(), testActor, "example.com", true); err == nil {
				r.await()
			}
		}
		return err == nil && took && len(last.Parts) == 0
	})
	if failed == nil || !strings.Contains(fmt.Sprint(failed.Errors), "digest") {
		t.Fatalf("failure %+v", failed)
	}
	until(t, "what one process signed is published", func() bool {
		run, err := r.e.find("example.com")
		return err == nil && run.snapshot().Published != nil && run.snapshot().Published.Signed.Facts.SignedDigest == last.SignedDigest
	})
	r.equalsAlone(State{})
}

// Each parameter reaches the other process.
func TestShare_ParamsTravelWhole(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := signer.Params{
		Apex: "\x07ex\xe4mple\x00", Serial: 7, Inception: at, Expiration: at.Add(time.Hour), Jitter: time.Minute,
		Refresh: at.Add(time.Minute), Denial: signer.NSEC3OptOut, Iterations: 3, Salt: []byte{1, 255}, DNSKEYTTL: 60,
		CDSDigest: []uint8{2, 4}, CDSDelete: true, Spread: &signer.Spread{From: 1, To: 2}, VerifyAll: true,
	}
	here := []string{"Workers", "Progress", "ZONEMD", "NoDigest"} // never shared, or of one process
	for _, f := range reflect.VisibleFields(reflect.TypeFor[signer.Params]()) {
		if reflect.ValueOf(want).FieldByIndex(f.Index).IsZero() != slices.Contains(here, f.Name) {
			t.Errorf("parameter %s: should it travel?", f.Name)
		}
	}
	data, err := encodeShare(shareJob{Params: sharedParams(want)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got shareJob
	if _, err := decodeShare(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Params.params()); diff != "" {
		t.Fatal(diff)
	}
}

// A message that does not fit is an error, and no hash gets lost.
func TestShare_HashesTravel(t *testing.T) {
	var l hashList
	for i := range 300 {
		hash := bytes.Repeat([]byte{byte(i >> 8), byte(i)}, signer.HashSize/2)
		l = l.add(hash, bytes.Repeat([]byte{7}, i))
	}
	data, err := encodeShare(shareDone{}, l)
	if err != nil {
		t.Fatal(err)
	}
	back, err := decodeShare(data, &shareDone{})
	if err != nil || !bytes.Equal(back, l) {
		t.Fatal(err)
	}
	n := 0
	it := back.sorted()
	for it.Next() {
		if len(it.Value()) != n || it.Key()[1] != byte(n) {
			t.Fatalf("hash %d: %x with %d bytes", n, it.Key(), len(it.Value()))
		}
		n++
	}
	if n != 300 || it.Err() != nil {
		t.Fatal(n, it.Err())
	}
	if it := append(l, l...).sorted(); drain(it) == nil {
		t.Error("hashes out of order were taken")
	}
	if it := l[:len(l)-1].sorted(); drain(it) == nil {
		t.Error("hashes cut off were taken")
	}
	if _, err := encodeShare(shareDone{}, make(hashList, journal.MaxMessage)); err == nil {
		t.Error("a message that is too long was made")
	}
}

func drain(it zone.Iterator) error {
	for it.Next() {
	}
	return it.Err()
}

func FuzzShare(f *testing.F) {
	job, err := encodeShare(shareJob{Version: shareVersion, Range: &signer.Range{}, Params: shareParams{Apex: []byte{0}}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	done, err := encodeShare(sharedPart("w", "", &signer.Part{Change: new(zone.SetHash)}, nil, nil), hashList{}.add(make([]byte, signer.HashSize), []byte{1}))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(job)
	f.Add(done)
	f.Fuzz(func(_ *testing.T, data []byte) {
		var j shareJob
		if hashes, err := decodeShare(data, &j); err == nil && j.check() == nil {
			_ = drain(hashes.sorted())
		}
		var d shareDone
		if hashes, err := decodeShare(data, &d); err == nil {
			d.hashes = hashes
			_ = d.check(&shareJob{Range: &signer.Range{}})
		}
	})
}
