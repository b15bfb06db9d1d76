package pipeline

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"sluice/xfr"
)

func TestPushFailure_SaysWhatToDo(t *testing.T) {
	ep, err := xfr.ParseEndpoint("192.0.2.1^push")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		err  error
		want string
	}{
		{&xfr.RcodeError{Rcode: dns.RcodeNotAuth, TSIG: dns.RcodeBadKey}, "TSIG error BADKEY (it does not know TSIG key push.)"},
		{&xfr.RcodeError{Rcode: dns.RcodeNotAuth, TSIG: dns.RcodeBadSig}, "(it has another secret or algorithm for TSIG key push.)"},
		{&xfr.RcodeError{Rcode: dns.RcodeNotAuth, TSIG: dns.RcodeBadTime}, "BADTIME (its clock and this one differ by more than five minutes)"},
		{&xfr.RcodeError{Rcode: dns.RcodeRefused}, "REFUSED (it does not let TSIG key push. change DS records there)"},
		{&xfr.RcodeError{Rcode: dns.RcodeNotAuth}, "NOTAUTH (it is not the primary of com.: see key-manager.parent.update.zone)"},
		{&xfr.RcodeError{Rcode: dns.RcodeNotZone}, "NOTZONE (it is not the primary of com.: see key-manager.parent.update.zone)"},
		{&xfr.RcodeError{Rcode: dns.RcodeNotImplemented}, "NOTIMP (it takes no dynamic updates)"},
		{&xfr.RcodeError{Rcode: dns.RcodeNXRrset}, "(it has no delegation of the zone, or its DS records change all the time)"},
		{&xfr.RcodeError{Rcode: dns.RcodeServerFailure}, "the server answered SERVFAIL"},
		{errors.New("connection refused"), "connection refused"},
	} {
		if got := pushFailure(ep, "com.", fmt.Errorf("update: %w", c.err)); !strings.HasSuffix(got, c.want) {
			t.Errorf("%v is told as %q, want %q at its end", c.err, got, c.want)
		}
	}
}
