package zone

import (
	"errors"
	"strings"
	"testing"
	"testing/fstest"
)

// received gives every record of a zone file to a Receiver.
func received(t *testing.T, text string) (*Loaded, error) {
	t.Helper()
	opts := LoadOptions{
		FS: fstest.MapFS{"z": {Data: []byte(text)}}, File: "z", Origin: mustName(t, "example."),
		Spill: &memSpill{}, KeepSigned: true,
	}
	in, err := Load(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	opts.File, opts.KeepSigned = "192.0.2.1:53", false
	c, err := NewReceiver(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	for in.Items.Next() {
		set, err := RRsetOf(in.Items.Key(), in.Items.Value())
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range set.Data {
			if err := c.Add([]byte(set.Owner), set.Type, set.TTL, d); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := in.Items.Err(); err != nil {
		t.Fatal(err)
	}
	return c.Finish()
}

const receivedZone = "$TTL 60\n@ SOA ns host 1 2 3 4 5\n@ NS ns\nns A 192.0.2.1\nMiXed TXT x\n@ DNSKEY 257 3 13 AAAA\n"

func TestReceiver_MakesWhatLoadMakes(t *testing.T) {
	got, err := received(t, receivedZone)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	want, err := Load(t.Context(), LoadOptions{
		FS: fstest.MapFS{"z": {Data: []byte(receivedZone)}}, File: "z", Origin: mustName(t, "example."), Spill: &memSpill{},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	err = DiffItems(want.Items, got.Items, func(key, _, _ []byte) error {
		t.Errorf("item %x differs", key)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.ContentState.Sum() != want.ContentState.Sum() || got.Serial != want.Serial || got.Stripped["DNSKEY"] != 1 {
		t.Errorf("serial %d, stripped %v", got.Serial, got.Stripped)
	}
}

func TestReceiver_NamesPeerAndRecord(t *testing.T) {
	c, err := NewReceiver(t.Context(), LoadOptions{File: "192.0.2.1:53", Origin: mustName(t, "example."), Spill: &memSpill{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Add([]byte(mustName(t, "www.elsewhere.")), TypeA, 60, []byte{1, 2, 3, 4}); err != nil {
		t.Fatal(err)
	}
	if err := c.Add([]byte(mustName(t, "www.example.")), TypeA, 60, []byte{1, 2, 3}); err != nil {
		t.Fatal(err)
	}
	_, err = c.Finish()
	var le *LoadError
	if !errors.As(err, &le) || le.Total != 2 {
		t.Fatalf("error %v", err)
	}
	if text := le.Errors[0].Error(); !strings.HasPrefix(text, "192.0.2.1:53:1: owner is not in the zone") {
		t.Errorf("error %q", text)
	}
}

func mustName(t *testing.T, text string) Name {
	t.Helper()
	n, err := ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
