package xfr

import (
	"net/netip"
	"testing"
)

func TestPrefixes_AllowWhoMeetsALine(t *testing.T) {
	list, err := ParsePrefixes([]string{"192.0.2.0/24", "2001:db8::/32^Transfer.Key", "203.0.113.7", "::ffff:198.51.100.1", "198.51.100.0/25^k.", "tls://203.0.113.0/28", "tls://203.0.113.9^t."})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		fact, addr, key string
		want            bool
		tls             bool
	}{
		{"inside a prefix", "192.0.2.255", "", true, false},
		{"a key that is not asked for does no harm", "192.0.2.1", "any.", true, false},
		{"beside a prefix", "192.0.3.0", "", false, false},
		{"IPv4 mapped into IPv6", "::ffff:192.0.2.9", "", true, false},
		{"prefix without its key", "2001:db8::1", "", false, false},
		{"prefix with another key", "2001:db8::1", "other.", false, false},
		{"prefix with its key", "2001:db8::1", "transfer.key.", true, false},
		{"key from elsewhere", "2001:db9::1", "transfer.key.", false, false},
		{"single address", "203.0.113.7", "", true, false},
		{"beside a single address", "203.0.113.8", "", false, false},
		{"mapped line", "198.51.100.1", "", true, false},
		{"second line of overlapping ones", "198.51.100.2", "k.", true, false},
		{"no address", "", "", false, false},
		{"clear text where TLS is asked for", "203.0.113.1", "", false, false},
		{"TLS where it is asked for", "203.0.113.1", "", true, true},
		{"TLS where it is not asked for", "192.0.2.1", "", true, true},
		{"one line over TLS, another with a key too", "203.0.113.9", "t.", true, true},
		{"key without TLS", "203.0.113.9", "t.", false, false},
	} {
		var addr netip.Addr
		if tc.addr != "" {
			addr = netip.MustParseAddr(tc.addr)
		}
		if got := list.Allows(Peer{Addr: netip.AddrPortFrom(addr, 53), Key: tc.key, TLS: tc.tls}); got != tc.want {
			t.Errorf("%s: allowed is %v", tc.fact, got)
		}
	}
	if Prefixes(nil).Allows(Peer{Addr: netip.MustParseAddrPort("127.0.0.1:53")}) {
		t.Error("the empty list allows somebody")
	}
}

func TestParsePrefix_BadLines(t *testing.T) {
	for _, line := range []string{"", "^key", "192.0.2.1/24", "192.0.2.0/33", "host.example", "fe80::1%eth0", "::ffff:192.0.2.0/120", "192.0.2.1^", "192.0.2.1^a..b", " 192.0.2.1", "tls://", "tls:///24", "tls://tls://::", "TLS://192.0.2.1"} {
		if p, err := ParsePrefix(line); err == nil {
			t.Errorf("%q gives %v", line, p)
		}
	}
}

func FuzzParsePrefix(f *testing.F) {
	for _, s := range []string{"192.0.2.0/24", "2001:db8::/32^Key.", "::", "0.0.0.0/0^a\\.b", "tls://192.0.2.1^k."} {
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
