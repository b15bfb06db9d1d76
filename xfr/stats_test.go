package xfr

import (
	"errors"
	"runtime"
	"testing"
	"time"
)

// failingSink takes nothing.
type failingSink struct{ memSink }

func (*failingSink) Begin(TransferKind, *Record) error { return errors.New("full") }

func TestStats_CountTransfersByForm(t *testing.T) {
	view := ixfrView(t)
	addr, s := startServer(t, Config{Source: memSource{exampleName: view}})
	c := NewClient(ClientConfig{})
	ep := endpoint(t, addr)
	for _, have := range []uint32{5, 4, 7} { // an IXFR, an AXFR in its place, nothing newer
		if _, err := c.Transfer(t.Context(), ep, exampleName, serialOf(have), new(memSink)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Transfer(t.Context(), ep, "\x05other\x00", nil, new(memSink)); err == nil {
		t.Error("a zone that is not there was transferred")
	}
	if _, err := c.Transfer(t.Context(), ep, exampleName, nil, new(failingSink)); err == nil {
		t.Error("a sink that fails took a transfer")
	}
	if _, _, err := c.SOA(t.Context(), ep, exampleName); err != nil {
		t.Error(err)
	}
	if _, _, err := c.SOA(t.Context(), ep, "\x05other\x00"); err == nil {
		t.Error("a zone that is not there has a serial")
	}
	got := c.Stats()
	if got.IXFR.Whole != 1 || got.AXFR.Whole != 1 || got.UpToDate.Whole != 1 || got.AXFR.Broken+got.Failed != 2 || got.Asked != 1 || got.AskedFailed != 1 {
		t.Errorf("client %+v", got)
	}
	st := s.Stats()
	// The server counts a transfer once it knows that it is over.
	for deadline := time.Now().Add(10 * time.Second); st.TransfersUnderWay > 0 && time.Now().Before(deadline); st = s.Stats() {
		runtime.Gosched()
	}
	if st.IXFR.Whole != 1 || st.AXFR.Whole < 1 || st.IXFR.Bytes != got.IXFR.Bytes || st.AXFR.Bytes < got.AXFR.Bytes || st.IXFR.Bytes == 0 {
		t.Errorf("server %+v, client %+v", st, got)
	}
}
