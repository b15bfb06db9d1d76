package xfr

import (
	"net/netip"
	"testing"
)

func TestPrefixes_AllowWhoMeetsALine(t *testing.T) {
	list, err := ParsePrefixes([]string{"192.0.2.0/24", "2001:db8::/32^Transfer.Key", "203.0.113.7", "::ffff:198.51.100.1", "198.51.100.0/25^k."})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		fact, addr, key string
		want            bool
	}{
		{"inside a prefix", "192.0.2.255", "", true},
		{"a key that is not asked for does no harm", "192.0.2.1", "any.", true},
		{"beside a prefix", "192.0.3.0", "", false},
		{"IPv4 mapped into IPv6", "::ffff:192.0.2.9", "", true},
		{"prefix without its key", "2001:db8::1", "", false},
		{"prefix with another key", "2001:db8::1", "other.", false},
		{"prefix with its key", "2001:db8::1", "transfer.key.", true},
		{"key from elsewhere", "2001:db9::1", "transfer.key.", false},
		{"single address", "203.0.113.7", "", true},
		{"beside a single address", "203.0.113.8", "", false},
		{"mapped line", "198.51.100.1", "", true},
		{"second line of overlapping ones", "198.51.100.2", "k.", true},
		{"no address", "", "", false},
	} {
		var addr netip.Addr
		if tc.addr != "" {
			addr = netip.MustParseAddr(tc.addr)
		}
		if got := list.Allows(Peer{Addr: netip.AddrPortFrom(addr, 53), Key: tc.key}); got != tc.want {
			t.Errorf("%s: allowed is %v", tc.fact, got)
		}
	}
	if Prefixes(nil).Allows(Peer{Addr: netip.MustParseAddrPort("127.0.0.1:53")}) {
		t.Error("the empty list allows somebody")
	}
}

func TestParsePrefix_BadLines(t *testing.T) {
	for _, line := range []string{"", "^key", "192.0.2.1/24", "192.0.2.0/33", "host.example", "fe80::1%eth0", "::ffff:192.0.2.0/120", "192.0.2.1^", "192.0.2.1^a..b", " 192.0.2.1"} {
		if p, err := ParsePrefix(line); err == nil {
			t.Errorf("%q gives %v", line, p)
		}
	}
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "2001:db8::/32^Key.", "::", "0.0.0.0/0^a\\.b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePrefix(s)
		if err != nil {
			return
		}
		again, err := ParsePrefix(p.String())
		if err != nil || again != p {
			t.Errorf("%q reads as %v, then %v, %v", s, p, again, err)
		}
	})
}
