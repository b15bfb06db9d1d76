package journal

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readText(text string) (operation, *bufio.Reader, error) {
	r := bufio.NewReaderSize(strings.NewReader(text), 32<<10)
	op, err := readOperation(r)
	return op, r, err
}

// What the server might read otherwise than the gate does not pass.
func TestReadOperation_RefusesWhatIsNotPlain(t *testing.T) {
	for _, text := range []string{
		"INFO {}\r\n", "MSG a 1 0\r\n\r\n", "RMSG a\r\n", "+OK\r\n", "\r\n", " PING\r\n", "PING\n", "PING x\r\n",
		"PUB a\r\n", "PUB a b c 1\r\nx\r\n", "PUB a -1\r\n", "PUB a 0x1\r\n", "PUB a +1\r\n", "PUB a 99999999\r\n", "PUB a\x00b 1\r\nx\r\n", "PUB \xc3\xa4 1\r\nx\r\n",
		"HPUB a 10 5\r\n", "HPUB a 5000 5000\r\n", "HPUB a 4 4\r\nabcd\r\n",
		"HPUB a 26 26\r\nNATS/1.0 503\r\nA: b\r\n\r\n\r\n\r\n\r\n",
		"HPUB a 35 35\r\nNATS/1.0\r\nNats-Trace-Dest: ev.x.y\r\n\r\n\r\n",
		"HPUB a 28 28\r\nNATS/1.0\r\nNats-Rollup: sub\r\n\r\n\r\n",
		"HPUB a 56 56\r\nNATS/1.0\r\nKV-Operation: DEL\r\nKV-Operation: PURGE\r\n\r\n\r\n",
		"HPUB a 24 24\r\nNATS/1.0\r\nkv-operation\r\n\r\n",
		"SUB a\r\n", "SUB a b c d\r\n", "UNSUB\r\n", "SUB " + strings.Repeat("a", 5000) + " 1\r\n",
	} {
		if op, _, err := readText(text); err == nil {
			t.Errorf("%.60q: read as %+v", text, op)
		} else if !errors.Is(err, errProtocol) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func TestReadConnect_LeavesOutOtherWaysIn(t *testing.T) {
	op, _, err := readText(`CONNECT {"nkey":"UA","sig":"s","jwt":"e","user":"u","pass":"p","auth_token":"t","tls_required":true,"NKEY":"UB"}` + "\r\n")
	if err != nil {
		t.Fatal(err)
	}
	nkey, err := op.readConnect()
	if err != nil || nkey != "UB" {
		t.Fatalf("nkey %q, %v", nkey, err)
	}
	for _, word := range []string{"jwt", "user", "pass", "auth_token", "tls_required", "UA"} {
		if strings.Contains(op.args[0], `"`+word+`"`) {
			t.Errorf("%s is left in %s", word, op.args[0])
		}
	}
}

// What is passed on reads as what was read, and only that.
func FuzzReadOperation(f *testing.F) {
	for _, text := range []string{
		"PING\r\n", "sub a.> 1\r\n", "SUB a q 1\r\n", "UNSUB 1 5\r\n", "PUB a 3\r\nxyz\r\n", "PUB a r 0\r\n\r\n", `CONNECT {"nkey":"U"}` + "\r\n",
		"HPUB ev.a.b _INBOX_w.x 35 36\r\nNATS/1.0\r\nKV-Operation: DEL\r\n\r\n\r\nx\r\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bufio.NewReaderSize(bytes.NewReader(data), 32<<10)
		op, err := readOperation(r)
		if err != nil {
			return
		}
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := op.write(w); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		again, err := readOperation(bufio.NewReaderSize(&out, 32<<10))
		if err != nil {
			t.Fatalf("%q written as %q: %v", data, out.Bytes(), err)
		}
		op.args, again.args = nil, nil
		if diff := cmp.Diff(op, again, cmp.AllowUnexported(operation{})); diff != "" {
			t.Errorf("(-read +written):\n%s", diff)
		}
		if out.Len() != 0 {
			t.Errorf("%q is left", out.Bytes())
		}
	})
}
