package pipeline

import (
	"errors"
	"fmt"
	"net"

	"sluice/journal/event"
	"sluice/keymgr"
)

// ServerLogin is how this program proves itself to a KMIP server, and the server
// to it. It is kept beside the private keys, and shown nowhere.
type ServerLogin struct {
	CA          string `json:"ca,omitempty"`          // certificates in PEM; not needed with a pin
	Certificate string `json:"certificate,omitempty"` // of this program, in PEM
	Key         string `json:"key,omitempty"`         // its private key, in PEM
	Username    string `json:"username,omitempty"`
	Password    string `json:"password,omitempty"`
}

// NewServer is a KMIP server that AddKeystore takes up.
type NewServer struct {
	Address string `json:"address"` // host:port
	// ServerName is what the server's certificate must be for; "" is the host.
	ServerName string `json:"server_name,omitempty"`
	// ServerPin is "sha256:" and the SHA-256 hash of the server's public key in
	// base64; "" where a CA vouches for it.
	ServerPin string `json:"server_pin,omitempty"`
	ServerLogin
}

// check refuses what cannot be a server.
func (n *NewServer) check() error {
	host, port, err := net.SplitHostPort(n.Address)
	switch {
	case err != nil || host == "" || port == "":
		return fmt.Errorf("KMIP server %q: want HOST:PORT, such as kmip.example.net:5696", n.Address)
	case n.CA == "" && n.ServerPin == "":
		return errors.New("nothing says how the KMIP server proves itself: a CA or a pin is needed")
	case n.Certificate == "" && n.Username == "":
		return errors.New("nothing says how this program proves itself to the KMIP server: a certificate with its key, or a user with a password, is needed")
	case (n.Certificate == "") != (n.Key == ""):
		return errors.New("a client's certificate needs its key, and a key its certificate")
	}
	return nil
}

// facts is what is public of a new keystore.
func (n *NewKeystore) facts() *event.KeystoreAdded {
	f := &event.KeystoreAdded{Name: n.Name, Module: n.Module, Token: n.Token, Serial: n.TokenSerial, Sessions: n.Sessions, Timeout: n.TimeoutMS}
	if n.KMIP != nil {
		f.Address, f.ServerName, f.ServerPin = n.KMIP.Address, n.KMIP.ServerName, n.KMIP.ServerPin
	}
	return f
}

// secret is what is not: a token's PIN, or the login for a server.
func (n *NewKeystore) secret() (string, error) {
	if n.KMIP == nil {
		return n.PIN, nil
	}
	return keymgr.ServerLogin(n.KMIP.ServerLogin).Secret()
}

// secret is what a test shall try in place of what is kept; "" for that.
func (q *KeystoreTest) secret(facts event.KeystoreAdded) (string, error) {
	server := facts.Address != ""
	switch {
	case server && q.PIN != "":
		return "", fmt.Errorf("%w: keystore %s is a KMIP server, which has no PIN", ErrInvalid, facts.Name)
	case !server && q.KMIP != nil:
		return "", fmt.Errorf("%w: keystore %s is a token, which wants a PIN", ErrInvalid, facts.Name)
	case q.KMIP == nil:
		return q.PIN, nil
	}
	return keymgr.ServerLogin(*q.KMIP).Secret()
}

// tokensFor is what reaches a keystore of its kind.
func (e *Engine) tokensFor(facts event.KeystoreAdded) (keymgr.Tokens, error) {
	switch {
	case facts.Address != "" && e.cfg.Servers != nil:
		return e.cfg.Servers, nil
	case facts.Address != "":
		return nil, errorState("this process uses no KMIP servers")
	case e.cfg.Tokens != nil:
		return e.cfg.Tokens, nil
	}
	return nil, errorState("this process uses no tokens")
}

// keystoreAddedText tells what was taken up.
func keystoreAddedText(f *event.KeystoreAdded) string {
	if f.Address == "" {
		return fmt.Sprintf("keystore %s added: token %q, serial number %s, by %s", f.Name, f.Token, f.Serial, f.Module)
	}
	text := fmt.Sprintf("keystore %s added: KMIP server %s", f.Name, f.Address)
	if f.ServerName != "" {
		text += ", certificate for " + f.ServerName
	}
	if f.ServerPin != "" {
		text += ", public key " + f.ServerPin
	}
	return text
}
