package keymgr

import (
	"encoding/json"
	"errors"
)

// Server is what is public of a keystore on a KMIP server.
type Server struct {
	Address string // host:port
	// Name is what the server's certificate must be for; "" is the host of
	// Address.
	Name string
	// Pin is "sha256:" and the base64 form of the SHA-256 hash of the public
	// key that the server's certificate must have; "" where a CA vouches for
	// it.
	Pin string
}

// ServerLogin is how a client proves itself to a KMIP server, and the server to
// it. It is secret: it stands in no event, log or export.
type ServerLogin struct {
	CA          string `json:"ca,omitempty"`          // certificates in PEM; "" with a pin
	Certificate string `json:"certificate,omitempty"` // the client's, and those between it and a CA, in PEM
	Key         string `json:"key,omitempty"`         // its private key in PEM
	Username    string `json:"username,omitempty"`
	Password    string `json:"password,omitempty"`
}

// Secret is the login as Tokens keep it, in place of a token's PIN.
func (l ServerLogin) Secret() (string, error) {
	text, err := json.Marshal(l)
	return string(text), err
}

// Over is l, with what it does not say taken from base. A certificate and its key
// belong together.
func (l ServerLogin) Over(base ServerLogin) ServerLogin {
	if l.CA == "" {
		l.CA = base.CA
	}
	if l.Certificate == "" && l.Key == "" {
		l.Certificate, l.Key = base.Certificate, base.Key
	}
	if l.Username == "" {
		l.Username = base.Username
	}
	if l.Password == "" {
		l.Password = base.Password
	}
	return l
}

// ParseServerLogin reads what Secret made. No error shows a part of it.
func ParseServerLogin(secret string) (ServerLogin, error) {
	var l ServerLogin
	if json.Unmarshal([]byte(secret), &l) != nil {
		return ServerLogin{}, errors.New("the login for the KMIP server cannot be read")
	}
	return l, nil
}
