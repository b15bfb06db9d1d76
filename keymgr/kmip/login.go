package kmip

import (
	"fmt"

	"sluice/keymgr"
	"sluice/keymgr/secrets"
)

// maxLogin bounds a login in bytes.
const maxLogin = 256 << 10

// logins is a folder with the login of each keystore.
type logins struct{ secrets.Folder }

func newLogins(dir string) logins {
	return logins{secrets.Folder{
		Dir: dir, Word: "login", Suffix: ".login", Most: maxLogin,
		Give: func(name string) string {
			return fmt.Sprintf("sluice keystore test %s --ca-file FILE --cert-file FILE --key-file FILE", name)
		},
	}}
}

// read is the login of a keystore.
func (l logins) read(name string) (login keymgr.ServerLogin, secret string, err error) {
	text, err := l.Read(name)
	if err != nil {
		return login, "", err
	}
	defer clear(text)
	login, err = keymgr.ParseServerLogin(string(text))
	return login, string(text), err
}

// problem is an error with what to do about it.
type problem struct {
	error
	hint string
}

func (p problem) Unwrap() error { return p.error }

// Hint implements keymgr.Hinter.
func (p problem) Hint() string { return p.hint }
