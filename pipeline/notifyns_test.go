package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sluice/journal/journaltest"
)

// world is a small one: what resolvers know, and who listens where.
type world struct {
	mu    sync.Mutex
	names map[string][]string // host: addresses
	at    map[string]string   // address with port: where it is in truth
	asked []string
}

func (w *world) resolve(_ context.Context, host string) ([]netip.Addr, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, host)
	texts, ok := w.names[host]
	if !ok {
		return nil, errors.New("no resolver answers")
	}
	var out []netip.Addr
	for _, text := range texts {
		out = append(out, netip.MustParseAddr(text))
	}
	return out, nil
}

func (w *world) dial(ctx context.Context, network, address string) (net.Conn, error) {
	w.mu.Lock()
	to, ok := w.at[address]
	w.mu.Unlock()
	if !ok {
		return nil, fmt.Errorf("nobody is at %s", address)
	}
	var d net.Dialer
	return d.DialContext(ctx, network, to)
}

// secondaryLines are the secondaries in a few words.
func (r *rig) secondaryLines() []string {
	r.t.Helper()
	var out []string
	for _, s := range r.status().Secondaries {
		line := s.Server + " " + s.Name
		if s.Serial != nil {
			line += fmt.Sprintf(" has %d", *s.Serial)
		}
		if s.LastError != "" {
			line += " " + s.LastError
		}
		out = append(out, line)
	}
	return out
}

// TestRFC1996_2_1_NotifySet: "the set of servers to be notified of changes to
// some zone. Default is all servers named in the NS RRset, except for any
// server also named in the SOA MNAME."
func TestRFC1996_2_1_NotifySet(t *testing.T) {
	const text = `$TTL 3600
@ IN SOA Primary hostmaster 7 7200 3600 1209600 300
@ NS primary
@ NS ns1
@ NS Glued.sub
@ NS ns.elsewhere.example.
@ NS gone.elsewhere.example.
primary A 192.0.2.9
ns1 A 192.0.2.1
ns1 AAAA 2001:db8::1
sub NS glued.sub
glued.sub A 192.0.2.2
`
	all := newSecondary(t)
	w := &world{
		names: map[string][]string{"ns.elsewhere.example.": {"198.51.100.1", "198.51.100.1"}},
		at: map[string]string{
			"192.0.2.1:53": all.addr, "[2001:db8::1]:53": all.addr, "192.0.2.2:53": all.addr, "198.51.100.1:53": all.addr, "192.0.2.9:53": all.addr,
			"203.0.113.1:53": all.addr,
		},
	}
	policy := func(more string) map[string]Policy {
		p, err := Parse("default", []byte("version = \"v1\"\n[server.outbound]\nnotify-ns = true\n"+more))
		if err != nil {
			t.Fatal(err)
		}
		return map[string]Policy{"default": p}
	}
	r := &rig{t: t, dir: t.TempDir(), journal: journaltest.New(), resolve: w.resolve}
	r.client.Dial = w.dial
	r.start(policy("send-notify-to = [\"192.0.2.2\"]\n"))
	st := r.add(text)
	has := func(serial uint32) string { return fmt.Sprintf(" has %d", serial) }
	want := []string{
		"192.0.2.2:53 " + has(st.Published.Serial),
		"gone.elsewhere.example. gone.elsewhere.example. resolve gone.elsewhere.example.: no resolver answers",
		"198.51.100.1:53 ns.elsewhere.example." + has(st.Published.Serial),
		"192.0.2.1:53 ns1.example.com." + has(st.Published.Serial),
		"[2001:db8::1]:53 ns1.example.com." + has(st.Published.Serial),
	}
	until(t, "all are told", func() bool { return cmp.Equal(want, r.secondaryLines()) })
	if got := len(all.told()); got != 4 {
		t.Errorf("%d NOTIFYs for 4 addresses", got)
	}
	// The NS RRset changes, and with it who is told.
	w.mu.Lock()
	w.names["new.elsewhere.example."] = []string{"203.0.113.1"}
	w.mu.Unlock()
	st = r.reload(strings.NewReplacer("gone.", "new.", "@ NS ns1\n", "", " 7 7200", " 8 7200").Replace(text))
	want = []string{
		"192.0.2.2:53 " + has(st.Published.Serial),
		"203.0.113.1:53 new.elsewhere.example." + has(st.Published.Serial),
		"198.51.100.1:53 ns.elsewhere.example." + has(st.Published.Serial),
	}
	until(t, "the new set is told", func() bool { return cmp.Equal(want, r.secondaryLines()) })
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, host := range w.asked {
		if strings.HasSuffix(host, ".example.com.") {
			t.Errorf("%s was asked for, though its address is in the zone", host)
		}
	}
}

func TestNotifyNS_WithoutAResolverIsTold(t *testing.T) {
	p, err := Parse("default", []byte("version = \"v1\"\n[server.outbound]\nnotify-ns = true\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, journaltest.New(), map[string]Policy{"default": p})
	r.add("$TTL 300\n@ SOA a.example. h 1 7200 3600 1209600 300\n@ NS ns.elsewhere.example.\n")
	until(t, "what is missing is told", func() bool {
		return cmp.Equal([]string{
			"ns.elsewhere.example. ns.elsewhere.example. its address is not in the zone, and no resolver is known",
		}, r.secondaryLines())
	})
	if err := r.e.NotifySecondaries(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
}
