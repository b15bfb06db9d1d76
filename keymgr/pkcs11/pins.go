package pkcs11

import (
	"bytes"
	"fmt"
	"strings"

	"sluice/keymgr"
	"sluice/keymgr/secrets"
)

// maxPIN bounds a PIN in bytes.
const maxPIN = 255

// pins is a folder with the PIN of each keystore.
type pins struct{ secrets.Folder }

func newPINs(dir string) pins {
	return pins{secrets.Folder{
		Dir: dir, Word: "PIN", Suffix: ".pin", Most: maxPIN + len("\r\n"),
		Give: func(name string) string { return fmt.Sprintf("sluice keystore test %s --pin-file FILE", name) },
	}}
}

// read is the PIN of a keystore.
func (p pins) read(name string) (string, error) {
	text, err := p.Read(name)
	if err != nil {
		return "", err
	}
	defer clear(text)
	pin := string(bytes.TrimRight(text, "\r\n"))
	return pin, checkPIN(pin)
}

// checkPIN refuses what cannot be a PIN, without showing it.
func checkPIN(pin string) error {
	if pin == "" || len(pin) > maxPIN || strings.ContainsAny(pin, "\r\n\x00") {
		return fmt.Errorf("a PIN has 1 to %d bytes, on one line", maxPIN)
	}
	return nil
}

// keep stores a PIN. One that was refused before is no longer.
func (p pins) keep(name, pin string) error {
	if err := checkPIN(pin); err != nil {
		return err
	}
	return p.Keep(name, pin+"\n")
}

// problem is an error with what to do about it.
type problem struct {
	error
	hint string
}

func (p problem) Unwrap() error { return p.error }

// Hint implements keymgr.Hinter.
func (p problem) Hint() string { return p.hint }

// hintOf is what an error says to do; "" where it does not.
func hintOf(err error) string { return keymgr.HintOf(err) }
