package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func fixedSalt(salt []byte) {
	for i := range salt {
		salt[i] = byte(i)
	}
}

// sealedSample is a verdict of a hook with all texts sealed.
func sealedSample(t testing.TB) Event {
	t.Helper()
	e := sample(&ReviewRejected{
		Stage: StageLoaded, Instance: 8, Checker: "hook 1", Reason: "exit code 1: é",
		Hook: &HookOutcome{Command: "check", ExitCode: 1, Output: "one\nö\n", OutputBytes: 7},
	})
	e.Sealed = nil
	if err := Seal(&e, []string{ActorName, "facts.reason", "facts.hook.output"}, fixedSalt); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSeal_MovesTextsOutOfThePublicLine(t *testing.T) {
	e := sealedSample(t)
	message, line, err := EncodeMessage(&e)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"sealed":{` +
		`"actor.name":{"salt":"AAECAwQFBgcICQoLDA0ODw==","value":"op"},` +
		`"facts.hook.output":{"salt":"AAECAwQFBgcICQoLDA0ODw==","value":"one\nö\n"},` +
		`"facts.reason":{"salt":"AAECAwQFBgcICQoLDA0ODw==","value":"exit code 1: é"}}}`
	if diff := cmp.Diff(string(line)+"\n"+want, string(message)); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	if bytes.Contains(line, []byte("exit code")) || bytes.Contains(line, []byte("ö")) || bytes.Contains(line, []byte(`"op"`)) {
		t.Errorf("the public line shows it: %s", line)
	}
	var public struct{ Sealed map[string]Hash }
	if err := json.Unmarshal(line, &public); err != nil {
		t.Fatal(err)
	}
	for field, value := range map[string]string{ActorName: "op", "facts.hook.output": "one\nö\n", "facts.reason": "exit code 1: é"} {
		sum := sha256.Sum256([]byte("\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f" + value))
		if public.Sealed[field] != sum {
			t.Errorf("%s: hash %s", field, public.Sealed[field])
		}
	}
}

func TestOpen_PutsValuesBackOrSaysTheyAreDropped(t *testing.T) {
	e := sealedSample(t)
	message, line, err := EncodeMessage(&e)
	if err != nil {
		t.Fatal(err)
	}
	read, values, err := DecodeMessage(message)
	if err != nil {
		t.Fatal(err)
	}
	bare, none, err := DecodeMessage(line)
	if err != nil || none != nil {
		t.Fatalf("without the sealed line: %v, %v", none, err)
	}
	if diff := cmp.Diff(bare, read); diff != "" {
		t.Errorf("the event depends on its sealed line (-without +with):\n%s", diff)
	}
	shown := Open(read, values)
	f := shown.Facts.(*ReviewRejected)
	if shown.Actor.Name != "op" || f.Reason != "exit code 1: é" || f.Hook.Output != "one\nö\n" || f.Instance != 8 {
		t.Errorf("opened: %+v, %+v", shown.Actor, f)
	}
	if f := read.Facts.(*ReviewRejected); f.Reason != SealedText || f.Hook.Output != SealedText {
		t.Errorf("opening changed what was read: %+v", f)
	}
	delete(values, "facts.reason")
	if f := Open(read, values).Facts.(*ReviewRejected); f.Reason != Dropped || f.Hook.Output != "one\nö\n" {
		t.Errorf("with one dropped: %+v", f)
	}
	once := len(e.Sealed)
	if err := Seal(&e, []string{"facts.reason", "facts.hook.command.x", "facts.none"}, fixedSalt); err != nil || len(e.Sealed) != once {
		t.Errorf("sealed again: %v, %v", e.Sealed, err)
	}
	if err := Seal(&e, []string{"zone"}, fixedSalt); err == nil {
		t.Error("a field outside of the facts was sealed")
	}
}

func TestDecodeMessage_IsStrict(t *testing.T) {
	e := sealedSample(t)
	message, line, err := EncodeMessage(&e)
	if err != nil {
		t.Fatal(err)
	}
	sealed := string(message[len(line)+1:])
	part := func(field string) string {
		raw, err := EncodeSealed(map[string]SealedValue{field: e.Values[field]})
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	if _, values, err := DecodeMessage([]byte(string(line) + "\n" + part("facts.reason"))); err != nil || len(values) != 1 {
		t.Errorf("one field of three: %v, %v", values, err)
	}
	for name, bad := range map[string]string{
		"end of the line alone": "", "no field": `{"sealed":{}}`, "spaces": strings.Replace(sealed, ":", ": ", 1), "a line more": sealed + "\n",
		"another value": strings.Replace(sealed, "exit code 1", "exit code 0", 1), "another salt": strings.Replace(sealed, "AAEC", "AAED", 1),
		"a short salt":    strings.Replace(part("facts.reason"), "AAECAwQFBgcICQoLDA0ODw==", "AAEC", 1),
		"a field more":    strings.Replace(part("facts.reason"), "facts.reason", "facts.other", 1),
		"a member more":   strings.Replace(sealed, `"value":"op"`, `"value":"op","x":1`, 1),
		"no sealed line":  `{"x":{}}`,
		"a field of null": strings.Replace(part("facts.reason"), `"value":"exit code 1: é"`, `"value":null`, 1),
	} {
		if _, values, err := DecodeMessage([]byte(string(line) + "\n" + bad)); err == nil {
			t.Errorf("%s: taken: %v", name, values)
		}
	}
	if IsSealedLine(line) || !IsSealedLine([]byte(sealed)) {
		t.Error("lines are not told apart")
	}
}

func FuzzDecodeMessage(f *testing.F) {
	e := sealedSample(f)
	message, line, err := EncodeMessage(&e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(message)
	f.Add(line)
	f.Add(append(bytes.Clone(line), '\n'))
	f.Fuzz(func(t *testing.T, message []byte) {
		e, values, err := DecodeMessage(message)
		if err != nil {
			return
		}
		e.Values = values
		again, line, err := EncodeMessage(&e)
		if err != nil || !bytes.Equal(again, message) || !bytes.Equal(line, PublicLine(message)) {
			t.Fatalf("decoded, but encodes as %q, %v", again, err)
		}
		Open(e, values)
		Open(e, nil)
	})
}
