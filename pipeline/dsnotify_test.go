package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// notifyAgent is an agent of the parent that takes NOTIFY.
type notifyAgent struct {
	mu    sync.Mutex
	lines []string // guarded by mu
	rcode int      // guarded by mu
}

// ServeDNS implements dns.Handler.
func (a *notifyAgent) ServeDNS(w dns.ResponseWriter, r *dns.Msg) {
	a.mu.Lock()
	defer a.mu.Unlock()
	line := fmt.Sprintf("%s %s %s", dns.OpcodeToString[r.Opcode], r.Question[0].Name, dns.TypeToString[r.Question[0].Qtype])
	if opt := r.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			line += " " + o.String()
		}
	}
	a.lines = append(a.lines, line)
	_ = w.WriteMsg(new(dns.Msg).SetRcode(r, a.rcode)) // who asked may be gone
}

func (a *notifyAgent) told() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.lines)
}

func (a *notifyAgent) answer(rcode int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rcode = rcode
}

func startAgent(t *testing.T) (*notifyAgent, uint16) {
	t.Helper()
	a := &notifyAgent{}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Skip("no listener: ", err)
	}
	s := &dns.Server{PacketConn: u, Handler: a, MsgAcceptFunc: func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept }}
	started, done := make(chan struct{}), make(chan error, 1)
	s.NotifyStartedFunc = func() { close(started) }
	go func() { done <- s.ActivateAndServe() }()
	<-started
	t.Cleanup(func() {
		if err := errors.Join(s.Shutdown(), <-done); err != nil {
			t.Error(err)
		}
	})
	return a, netip.MustParseAddrPort(u.LocalAddr().String()).Port()
}

// TestParent_AgentIsNotifiedOnceAllServersShowTheSameCDS has a public server
// that is late with the version that brings CDS.
func TestParent_AgentIsNotifiedOnceAllServersShowTheSameCDS(t *testing.T) {
	agent, port := startAgent(t)
	agent.answer(dns.RcodeRefused)
	var late atomic.Bool
	late.Store(true)
	text := "key-manager.parent = { notify = true, notify-report-agent = \"report.ns2.example.net\" }\n"
	w := newTelling(t, text, newPushParent(t), func(w *rolling, o *outside) {
		w.agents = func(context.Context, zone.Name, time.Time) (observe.Agents, error) {
			return observe.Agents{Owner: "_dsync.com.", Targets: []observe.Agent{{Host: "\x05agent\x03com\x00", Port: port}}, Validated: true}, nil
		}
		w.resolve = func(context.Context, string) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
		shows := o.shows
		o.shows = func(q observe.Question) (z, p []keymgr.Seen) {
			z, p = shows(q)
			other := z[0]
			other.Server, other.Address = "ns2.example.net.", netip.MustParseAddrPort("192.0.2.2:53")
			if late.Load() {
				other.CDNSKEY = nil
			}
			return append(z, other), p
		}
	})
	st := w.told("the late server is named", func(st ZoneStatus) bool {
		return slices.ContainsFunc(st.Notices, func(n Notice) bool {
			return strings.HasPrefix(n.Text, "name server ns2.example.net. at 192.0.2.2:53 shows another CDNSKEY than what is published here: none instead of ")
		})
	})
	if got := agent.told(); len(got) > 0 || st.ParentTold.Ways[0].Text != "the NOTIFY to the parent's agent waits until all public servers show CDS and CDNSKEY" {
		t.Errorf("the agent was told %q: %+v", got, st.ParentTold)
	}
	late.Store(false)
	st = w.told("the agent refuses", func(st ZoneStatus) bool { return st.ParentTold.Ways[0].Failed > 0 })
	if !slices.ContainsFunc(st.Notices, func(n Notice) bool {
		return strings.Contains(n.Text, "the NOTIFY to the parent's agent failed: agent.com.:")
	}) {
		t.Errorf("notices %+v", st.Notices)
	}
	agent.answer(dns.RcodeSuccess)
	st = w.told("the agent knows", func(st ZoneStatus) bool { return st.ParentTold.Ways[0].Done })
	told := agent.told()
	if last := told[len(told)-1]; last != "NOTIFY example.com. CDS report.ns2.example.net." {
		t.Errorf("the agent was told %q", told)
	}
	if want := "which the parent names at _dsync.com., was notified of CDS"; !strings.Contains(st.ParentTold.Ways[0].Text, want) {
		t.Errorf("%+v lacks %q", st.ParentTold, want)
	}
	w.h.move(w.h.now().Add(day))
	w.settle()
	if again := agent.told(); len(again) != len(told) {
		t.Errorf("the agent was told again: %q", again)
	}
	if got := w.historyOf("ds.notified"); len(got) < 2 || !strings.HasPrefix(got[0], "parent not notified of CDS: ") {
		t.Errorf("history %q", got)
	}
}

func TestParent_ReportAgentElsewhereIsRefused(t *testing.T) {
	w := newTelling(t, "key-manager.parent = { notify = true, notify-report-agent = \"report.elsewhere\" }\n", newPushParent(t), func(w *rolling, _ *outside) {
		w.agents = func(context.Context, zone.Name, time.Time) (observe.Agents, error) {
			t.Error("asked for agents")
			return observe.Agents{}, nil
		}
		w.resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, nil }
	})
	st := w.told("that is told", func(st ZoneStatus) bool { return st.ParentTold != nil && st.ParentTold.Ways[0].Failed > 0 })
	if text := st.ParentTold.Ways[0].Text; !strings.Contains(text, "at or below no name server's name") {
		t.Error(text)
	}
}

func TestParent_ThatNamesNoAgentIsNotAskedAgain(t *testing.T) {
	var asked atomic.Int32
	w := newTelling(t, "key-manager.parent = { notify = true }\n", newPushParent(t), func(w *rolling, _ *outside) {
		w.agents = func(context.Context, zone.Name, time.Time) (observe.Agents, error) {
			asked.Add(1)
			return observe.Agents{}, nil
		}
		w.resolve = func(context.Context, string) ([]netip.Addr, error) { return nil, nil }
	})
	st := w.told("that there is none is known", func(st ZoneStatus) bool { return st.ParentTold != nil && st.ParentTold.Ways[0].Done })
	if text := st.ParentTold.Ways[0].Text; !strings.Contains(text, "the parent names no agent to notify of CDS") {
		t.Error(text)
	}
	w.h.move(w.h.now().Add(day))
	w.settle()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}
