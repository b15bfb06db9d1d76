package pipeline

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/journal/journaltest"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
	"sluice/xfr"
)

const pushSecret = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="

// pushParent is a parent that takes dynamic updates of DS records.
type pushParent struct {
	t    *testing.T
	addr string

	mu      sync.Mutex
	ds      []dns.RR // guarded by mu
	rcode   int      // guarded by mu; of every update, where it is not 0
	updates int      // guarded by mu
	onAsk   func()   // guarded by mu; before an update is looked at
}

func newPushParent(t *testing.T) *pushParent {
	t.Helper()
	p := &pushParent{t: t}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no listener: ", err)
	}
	p.addr = l.Addr().String()
	s := &dns.Server{Listener: l, Handler: p, TsigSecret: map[string]string{"push.": pushSecret}, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction {
		return dns.MsgAccept
	}}
	done := make(chan error, 1)
	go func() { done <- s.ActivateAndServe() }()
	t.Cleanup(func() {
		_ = l.Close()
		if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	return p
}

// ServeDNS implements dns.Handler.
func (p *pushParent) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := new(dns.Msg).SetReply(r)
	m.Authoritative = true
	q := r.Question[0]
	soa, err := dns.NewRR("com. 600 IN SOA ns.com. h.com. 1 60 60 86400 60")
	if err != nil {
		p.t.Error(err)
	}
	switch {
	case r.IsTsig() == nil || w.TsigStatus() != nil:
		m.Rcode = dns.RcodeRefused
	case r.Opcode == dns.OpcodeUpdate:
		m.Rcode = p.update(r)
	case q.Qtype == dns.TypeSOA && q.Name == "com.":
		m.Answer = []dns.RR{soa}
	case q.Qtype == dns.TypeDS && q.Name == "example.com.":
		m.Answer = slices.Clone(p.ds)
	default:
		m.Ns = []dns.RR{soa}
	}
	if t := r.IsTsig(); t != nil {
		m.SetTsig(t.Hdr.Name, t.Algorithm, 300, time.Now().Unix())
	}
	_ = w.WriteMsg(m) // who asked may be gone
}

func (p *pushParent) update(r *dns.Msg) int {
	p.updates++
	if p.onAsk != nil {
		p.onAsk()
	}
	if p.rcode != 0 {
		return p.rcode
	}
	var have []string
	for _, rr := range p.ds {
		have = append(have, dsRData(rr))
	}
	var wants []string
	cut := false
	for _, rr := range r.Answer {
		switch h := rr.Header(); {
		case h.Rrtype == dns.TypeNS && h.Class == dns.ClassANY:
			cut = true
		case h.Rrtype == dns.TypeDS && h.Class == dns.ClassINET:
			wants = append(wants, dsRData(rr))
		case h.Rrtype == dns.TypeDS && h.Class == dns.ClassNONE && len(have) > 0:
			return dns.RcodeYXRrset
		}
	}
	slices.Sort(have)
	slices.Sort(wants)
	if len(wants) > 0 && !slices.Equal(have, wants) || !cut || r.Question[0].Name != "com." {
		return dns.RcodeNXRrset
	}
	for _, rr := range r.Ns {
		if rr.Header().Class == dns.ClassNONE {
			p.ds = slices.DeleteFunc(p.ds, func(d dns.RR) bool { return dsRData(d) == dsRData(rr) })
		} else {
			p.ds = append(p.ds, rr)
		}
	}
	return dns.RcodeSuccess
}

func dsRData(rr dns.RR) string {
	d := rr.(*dns.DS)
	return fmt.Sprint(d.KeyTag, d.Algorithm, d.DigestType, strings.ToLower(d.Digest))
}

func (p *pushParent) has() (out []event.DS) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, rr := range p.ds {
		d := rr.(*dns.DS)
		out = append(out, event.DS{Tag: d.KeyTag, Algorithm: d.Algorithm, DigestType: d.DigestType, Digest: strings.ToLower(d.Digest)})
	}
	return out
}

func (p *pushParent) set(fn func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fn()
}

// newTelling is a rolling zone whose parent has what is pushed to it alone.
func newTelling(t *testing.T, policy string, parent *pushParent, changes ...func(*rolling, *outside)) *rolling {
	t.Helper()
	w := &rolling{h: newHand(dayOne)}
	store := &memoryTSIG{keys: map[zone.Name][2]string{}}
	w.rig = &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), clock: w.h.clock(), tsig: store, client: xfr.ClientConfig{Keys: store}}
	o := &outside{shows: func(q observe.Question) (z, p []keymgr.Seen) {
		z, p = w.shows(q)
		if parent != nil {
			p = parentHas(86400, 2, parent.has()...)
		}
		return z, p
	}}
	w.observe = o.observe
	for _, change := range changes {
		change(w, o)
	}
	p, err := Parse("default", []byte("version = \"v1\"\n"+policy))
	if err != nil {
		t.Fatal(err)
	}
	w.start(map[string]Policy{"default": p})
	if _, err := w.e.AddTSIG(t.Context(), testActor, NewTSIG{Name: "push", Secret: pushSecret}); err != nil {
		t.Fatal(err)
	}
	w.add(smallZone)
	return w
}

// told lets time pass until a condition holds, and waits for those who tell
// the parent meanwhile.
func (w *rolling) told(what string, met func(ZoneStatus) bool) ZoneStatus {
	w.t.Helper()
	var last ZoneStatus
	w.runs(what, func(ZoneStatus) bool {
		r, err := w.e.find("example.com")
		if err != nil {
			w.t.Fatal(err)
		}
		until(w.t, "nobody is being told", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return !r.lanes[HookLane].busy && !r.lanes[ParentLane].busy
		})
		last = w.status()
		return met(last)
	})
	return last
}

// TestParent_PushedDSLetsEveryMethodRunByItself has the DS go to the parent by
// dynamic update alone, also by the methods that CDS cannot tell of.
func TestParent_PushedDSLetsEveryMethodRunByItself(t *testing.T) {
	for _, method := range []keymgr.Method{keymgr.DoubleKSK, keymgr.DoubleDS, keymgr.DoubleRRset} {
		t.Run(string(method), func(t *testing.T) {
			parent := newPushParent(t)
			w := newTelling(t, fmt.Sprintf("key-manager.cds = \"never\"\nkey-manager.parent.update.servers = [\"%s^push\"]\n", parent.addr), parent)
			w.told("the first DS", quiet)
			if len(parent.has()) != 1 {
				t.Fatalf("parent has %v", parent.has())
			}
			foreign, err := dns.NewRR("example.com. 3600 IN DS 4711 13 2 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f")
			if err != nil {
				t.Fatal(err)
			}
			before := parent.has()
			parent.set(func() { parent.ds = append(parent.ds, foreign) })
			w.rolls(RolloverRequest{Kind: keymgr.RollKSK, Method: method})
			w.told("the end", func(st ZoneStatus) bool { return quiet(st) && len(parent.has()) == 2 && parent.has()[1] != before[0] })
			after := parent.has()
			if after[0].Tag != 4711 || after[1] == before[0] {
				t.Errorf("the parent has %v, before %v", after, before)
			}
			pushed := w.historyOf("ds.pushed")
			if last := pushed[len(pushed)-1]; !strings.Contains(last, "zone com.: ") || !strings.Contains(last, "not ours and left there: DS 4711") {
				t.Errorf("history %q", pushed)
			}
			if strings.Contains(w.dump(), "\tCDS\t") {
				t.Error("CDS in the zone")
			}
			w.verifies()
		})
	}
}

func TestParent_PushFailsAndIsRepeatedUntilItSucceeds(t *testing.T) {
	parent := newPushParent(t)
	parent.rcode = dns.RcodeRefused
	w := newTelling(t, fmt.Sprintf("key-manager.cds = \"never\"\nkey-manager.parent.update.servers = [\"127.0.0.1:1^push\", \"%s^push\"]\n", parent.addr), parent)
	st := w.told("the third failure", func(st ZoneStatus) bool { return st.ParentTold != nil && st.ParentTold.Ways[0].Failed >= 3 })
	way := st.ParentTold.Ways[0]
	if way.Done || way.RetryAt == nil || way.RetryAt.Sub(way.At) != 4*time.Minute && way.Failed == 3 {
		t.Errorf("%+v", way)
	}
	for _, want := range []string{"127.0.0.1:1^push.: ", "REFUSED", "does not let TSIG key push. change DS records there"} {
		if !strings.Contains(way.Text, want) {
			t.Errorf("%q lacks %q", way.Text, want)
		}
	}
	if !slices.ContainsFunc(st.Notices, func(n Notice) bool {
		return n.Severity == severityWarning && strings.Contains(n.Text, "the push of the DS failed") && strings.Contains(n.Hint, "sluice key ds example.com.")
	}) {
		t.Errorf("notices %+v", st.Notices)
	}
	failures := len(w.historyOf("ds.pushed"))
	w.stop()
	w.start(nil)
	w.settle()
	if got := len(w.historyOf("ds.pushed")); got > failures+1 {
		t.Errorf("%d tries after a restart, %d before", got, failures)
	}
	parent.set(func() { parent.rcode = 0 })
	w.told("the first DS", quiet)
	if len(parent.has()) != 1 {
		t.Errorf("the parent has %v", parent.has())
	}
	w.settle()
	done := len(w.historyOf("ds.pushed"))
	w.h.move(w.h.now().Add(2 * day))
	w.settle()
	if got := len(w.historyOf("ds.pushed")); got != done {
		t.Errorf("%d pushes after the parent has it, %d before", got, done)
	}
}

// TestParent_PushSeesWhatChangedMeanwhile has somebody else change the DS RRset
// between reading and updating it.
func TestParent_PushSeesWhatChangedMeanwhile(t *testing.T) {
	parent := newPushParent(t)
	foreign, err := dns.NewRR("example.com. 3600 IN DS 4711 13 2 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f")
	if err != nil {
		t.Fatal(err)
	}
	parent.onAsk = func() {
		if parent.updates == 1 {
			parent.ds = append(parent.ds, foreign)
		}
	}
	w := newTelling(t, fmt.Sprintf("key-manager.cds = \"never\"\nkey-manager.parent.update.servers = [\"%s^push\"]\n", parent.addr), parent)
	w.told("the first DS", quiet)
	if got := parent.has(); len(got) != 2 || got[0].Tag != 4711 {
		t.Errorf("the parent has %v", got)
	}
	if got := w.historyOf("ds.pushed"); len(got) != 1 || !strings.Contains(got[0], "left there: DS 4711") {
		t.Errorf("history %q", got)
	}
	// Going insecure removes our DS, and no other.
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure})
	w.told("our DS is gone", func(ZoneStatus) bool { return len(parent.has()) == 1 })
	if got := parent.has(); got[0].Tag != 4711 {
		t.Errorf("the parent has %v", got)
	}
}

func TestParent_HooksAreToldUntilTheySucceed(t *testing.T) {
	dir := t.TempDir()
	out, gate := filepath.Join(dir, "out"), filepath.Join(dir, "gate")
	script := filepath.Join(dir, "hook")
	if err := os.WriteFile(script, []byte(`#!/bin/sh
echo "$SLUICE_ZONE $SLUICE_EVENT try $SLUICE_TRY keys $SLUICE_KEYS rollover $SLUICE_ROLLOVER reason $SLUICE_REASON" >>`+out+`
cat "$SLUICE_DS" >>`+out+`
cat "$SLUICE_CDS" >>`+out+`
echo done with the registrar
test -e `+gate+"\n"), 0o700); err != nil { //nolint:gosec // a script
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	w := newTelling(t, fmt.Sprintf("[key-manager.parent]\nhooks = [{ command = %q, timeout = \"1m\" }, { command = \"echo $SLUICE_EVENT >>%s\" }]\n", script, other), nil)
	st := w.told("two failures", func(st ZoneStatus) bool { return st.ParentTold != nil && st.ParentTold.Ways[0].Failed >= 1 })
	if way := st.ParentTold.Ways[0]; !strings.Contains(way.Text, "exit code 1: done with the registrar") {
		t.Errorf("%+v", way)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w.secure()
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure, Reason: "moving away"})
	w.told("both hooks know that the DS goes", func(st ZoneStatus) bool {
		return st.ParentTold.Event == eventDSGone && st.ParentTold.Ways[0].Done && st.ParentTold.Ways[1].Done
	})
	text := readText(t, out)
	id := ""
	for _, k := range w.status().Keys {
		if k.SignsKeys() {
			id = k.ID
		}
	}
	for _, want := range []string{
		"example.com ds-ready try 1 keys " + id + " rollover ", "example.com. 3600 IN DS ", "example.com. 3600 IN CDS ", "example.com. 3600 IN CDNSKEY 257 3 13 ",
		"example.com ds-gone try 1 keys  rollover ", "reason moving away", "example.com. 3600 IN CDS 0 0 0 00\nexample.com. 3600 IN CDNSKEY 0 3 0 AA==\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the hook was told %q, want %q in it", text, want)
		}
	}
	if got := readText(t, other); got != "ds-ready\nds-gone\n" {
		t.Errorf("the other hook was told %q", got)
	}
	w.stop()
	w.start(nil)
	w.told("the engine is up again", func(ZoneStatus) bool { return true })
	w.h.move(w.h.now().Add(day))
	w.told("time passes", func(ZoneStatus) bool { return true })
	if again := readText(t, out); again != text {
		t.Errorf("after a restart the hook was told %q", strings.TrimPrefix(again, text))
	}
	ran := w.historyOf("hook.ran")
	if len(ran) < 4 || !strings.Contains(ran[0], "hook 1 told of ds-ready") {
		t.Errorf("history %q", ran)
	}
	left, err := filepath.Glob(filepath.Join(w.dir, "spill", "parent-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files left %q, %v", left, err)
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestParent_HangingHookStopsNothing has a hook that never ends: the zone is
// signed and published meanwhile, and whoever waits for it does not wait for
// the hook.
func TestParent_HangingHookStopsNothing(t *testing.T) {
	mark := filepath.Join(t.TempDir(), "mark")
	w := newTelling(t, fmt.Sprintf("[key-manager.parent]\nhooks = [{ command = \"echo >%s; exec cat /dev/zero >/dev/null\", timeout = \"1h\" }]\n", mark), nil)
	w.secure()
	until(t, "the hook hangs", func() bool { _, err := os.Stat(mark); return err == nil })
	st := w.reload(strings.Replace(smallZone, "hostmaster 7 ", "hostmaster 8 ", 1) + "new IN A 192.0.2.99\n")
	if !strings.Contains(w.dump(), "new.example.com.") {
		t.Errorf("not published: %+v", st)
	}
	w.rolls(RolloverRequest{Kind: keymgr.RollKSK})
	w.runs("a rollover beside it", quiet)
}

// TestParent_WhatWasSettledBeforeThePolicyIsNotToldAgain binds a zone whose
// parent has its DS to a policy with a hook.
func TestParent_WhatWasSettledBeforeThePolicyIsNotToldAgain(t *testing.T) {
	w := newTelling(t, "", nil)
	w.secure()
	out := filepath.Join(t.TempDir(), "out")
	p, err := Parse("hooked", fmt.Appendf(nil, "version = \"v1\"\n[key-manager.parent]\nhooks = [{ command = \"echo $SLUICE_EVENT >>%s\" }]\n", out))
	if err != nil {
		t.Fatal(err)
	}
	w.stop()
	w.start(map[string]Policy{"hooked": p})
	if _, err := w.turn("hooked"); err != nil {
		t.Fatal(err)
	}
	st := w.told("the policy is bound", func(st ZoneStatus) bool { return st.Policy == "hooked" && st.ParentTold != nil })
	if way := st.ParentTold.Ways[0]; way.Text != "the hook echo $SLUICE_EVENT >>"+out+" is not needed: the parent has what it is to have" {
		t.Errorf("%+v", way)
	}
	if text, err := os.ReadFile(out); err == nil {
		t.Errorf("the hook was told %q", text)
	}
	// What comes later is told.
	w.rolls(RolloverRequest{Kind: keymgr.RollInsecure})
	w.told("the hook runs", func(st ZoneStatus) bool { return st.ParentTold.Ways[0].Done })
	if got := readText(t, out); got != "ds-gone\n" {
		t.Errorf("the hook was told %q", got)
	}
}

func TestParent_CDSLeavesOnceTheParentHasIt(t *testing.T) {
	parent := newPushParent(t)
	w := newTelling(t, "key-manager.cds = \"during-rolls\"\n", parent)
	w.told("CDS", func(ZoneStatus) bool { return strings.Contains(w.dump(), "\tCDS\t") })
	rr, err := dns.NewRR(fmt.Sprintf("example.com. 3600 IN DS %d %d %d %s", w.dsOf().Tag, w.dsOf().Algorithm, w.dsOf().DigestType, w.dsOf().Digest))
	if err != nil {
		t.Fatal(err)
	}
	w.told("CDS stays until the parent has it", func(st ZoneStatus) bool {
		if !strings.Contains(w.dump(), "\tCDS\t") {
			t.Fatal("CDS is gone before")
		}
		return w.h.now().Sub(dayOne) > day
	})
	parent.set(func() { parent.ds = append(parent.ds, rr) })
	w.told("CDS leaves", func(st ZoneStatus) bool { return quiet(st) && !strings.Contains(w.dump(), "\tCDS\t") })
	if dump := w.dump(); strings.Contains(dump, "\tCDNSKEY\t") {
		t.Error("CDNSKEY stays")
	}
	w.verifies()
	if got := w.historyOf("cds.changed"); len(got) != 1 || got[0] != "CDS and CDNSKEY leave with the next version: the parent has what they say" {
		t.Errorf("history %q", got)
	}
	w.rolls(RolloverRequest{Kind: keymgr.RollKSK})
	w.told("CDS comes with the next rollover", func(ZoneStatus) bool { return strings.Contains(w.dump(), "\tCDS\t") })
}

func TestPolicy_ParentFaults(t *testing.T) {
	for text, want := range map[string]string{
		"key-manager.cds = \"sometimes\"":                                                 "\"always\", \"during-rolls\" or \"never\"",
		"[key-manager.parent.update]\nservers = [\"192.0.2.1\"]":                          "names no TSIG key",
		"[key-manager.parent.update]\nservers = [\"192.0.2.1^a\", \"192.0.2.1:53^a\"]":    "stands there twice",
		"[key-manager.parent.update]\nttl = 0":                                            "at least a second",
		"[key-manager.parent]\nhooks = [{ timeout = \"1m\" }]":                            "want a list such as",
		"[key-manager.parent]\nnotify-report-agent = \"agent.example\"":                   "needs notify = true",
		"[key-manager.ksk]\nmethod = \"double-ds\"\nauto-start = true\nvalidity = \"1w\"": "key-manager.parent.update.servers",
	} {
		if _, err := Parse("p", []byte("version = \"v1\"\n"+text+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	p, err := Parse("p", []byte("version = \"v1\"\n[key-manager.parent.update]\nservers = [\"192.0.2.1^Push\"]\nzone = \"COM\"\n[key-manager.ksk]\nmethod = \"double-ds\"\nauto-start = true\nvalidity = \"1w\"\n"))
	if err != nil || !p.namesTSIG("push.") || p.Parent().Zone.String() != "com." {
		t.Errorf("%+v, %v", p.Parent(), err)
	}
	if secret, err := base64.StdEncoding.DecodeString(pushSecret); err != nil || len(secret) != 32 {
		t.Error("the test's secret is wrong")
	}
}
