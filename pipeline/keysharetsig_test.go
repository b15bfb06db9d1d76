package pipeline

import (
	"errors"
	"testing"

	"sluice/signer/zone"
)

func TestShare_TSIGSecretsGoToThoseThatNeedThem(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("edge", "publish")
	main.enroll("west", "sign")
	edge, west := s.start("edge", "publish"), s.start("west", "sign")
	name, err := zone.ParseName("transfer.example.")
	if err != nil {
		t.Fatal(err)
	}
	same := func(w *keyWorker) bool {
		_, want, _ := main.e.TSIG().Secret(name)
		_, got, ok := w.e.TSIG().Secret(name)
		return ok && string(want) == string(got)
	}
	if _, err := edge.e.AddTSIG(t.Context(), testActor, NewTSIG{Name: "transfer.example."}); !errors.Is(err, ErrState) {
		t.Errorf("added where no keys are kept: %v", err)
	}
	if _, err := main.e.AddTSIG(t.Context(), testActor, NewTSIG{Name: "transfer.example."}); err != nil {
		t.Fatal(err)
	}
	until(t, "the publisher has it", func() bool { return same(edge) })
	if _, _, ok := west.tsig.Secret(name); ok {
		t.Error("one that only signs has it")
	}
	// What is added anew under the same name takes the place of the old one, also
	// while the worker is away.
	edge.stop()
	if err := main.e.RemoveTSIG(t.Context(), testActor, "transfer.example."); err != nil {
		t.Fatal(err)
	}
	if _, err := main.e.AddTSIG(t.Context(), testActor, NewTSIG{Name: "transfer.example."}); err != nil {
		t.Fatal(err)
	}
	edge = s.start("edge", "publish")
	until(t, "the publisher has the new one", func() bool { return same(edge) })
	if err := main.e.RemoveTSIG(t.Context(), testActor, "transfer.example."); err != nil {
		t.Fatal(err)
	}
	until(t, "it is gone there, too", func() bool {
		_, _, ok := edge.tsig.Secret(name)
		return !ok
	})
}

func TestShare_TSIGSecretOfAnotherKeeperIsReplaced(t *testing.T) {
	s := newKeyCrew(t)
	main := s.start("main", "")
	main.enroll("west", "keys")
	west := s.start("west", "keys")
	name, err := zone.ParseName("transfer.example.")
	if err != nil {
		t.Fatal(err)
	}
	same := func() bool {
		_, a, ok := main.tsig.Secret(name)
		_, b, also := west.tsig.Secret(name)
		return ok && also && string(a) == string(b)
	}
	add := func(w *keyWorker) {
		t.Helper()
		if _, err := w.e.AddTSIG(t.Context(), testActor, NewTSIG{Name: "transfer.example."}); err != nil {
			t.Fatal(err)
		}
	}
	add(main)
	until(t, "both have it", same)
	if err := west.e.RemoveTSIG(t.Context(), testActor, "transfer.example."); err != nil {
		t.Fatal(err)
	}
	add(west)
	_, want, _ := west.tsig.Secret(name)
	until(t, "both have the new one", same)
	if _, got, _ := main.tsig.Secret(name); string(got) != string(want) {
		t.Error("the old secret took the place of the new one")
	}
}
