package kmip

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"sluice/keymgr"
)

// pinPrefix stands before the hash of a pinned public key.
const pinPrefix = "sha256:"

// CheckServer refuses what cannot be a KMIP server, or its login.
func CheckServer(s keymgr.Server, login keymgr.ServerLogin) error {
	_, err := tlsConfig(s, login)
	return err
}

// tlsConfig is how connections to a server are protected.
func tlsConfig(s keymgr.Server, login keymgr.ServerLogin) (*tls.Config, error) {
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("KMIP server %q: want HOST:PORT, such as kmip.example.net:5696", s.Address)
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: s.Name}
	if c.ServerName == "" {
		c.ServerName = host
	}
	switch {
	case s.Pin != "":
		pin, err := parsePin(s.Pin)
		if err != nil {
			return nil, err
		}
		// The key is checked instead of who vouches for it.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(state tls.ConnectionState) error { return checkPin(pin, state) }
	case login.CA != "":
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM([]byte(login.CA)) {
			return nil, problem{errors.New("the CA file has no certificate in PEM"), "give the certificate of the CA that vouches for the server: --ca-file FILE"}
		}
	default:
		return nil, problem{errors.New("nothing says how the KMIP server proves itself"), "give the CA of its certificate, --ca-file FILE, or its public key, --server-pin sha256:..."}
	}
	switch {
	case (login.Certificate == "") != (login.Key == ""):
		return nil, errors.New("a client's certificate needs its key, and a key its certificate: --cert-file FILE --key-file FILE")
	case login.Certificate != "":
		pair, err := tls.X509KeyPair([]byte(login.Certificate), []byte(login.Key))
		if err != nil {
			// The error tells of the form alone.
			return nil, problem{fmt.Errorf("the client's certificate and key: %w", err), "both are in PEM, and the key belongs to the first certificate in the file"}
		}
		c.Certificates = []tls.Certificate{pair}
	case login.Username == "":
		return nil, problem{errors.New("nothing says how this client proves itself to the KMIP server"), "give --cert-file FILE --key-file FILE, or --username USER --password-file FILE, or all of them"}
	}
	return c, nil
}

func parsePin(text string) ([]byte, error) {
	code, ok := strings.CutPrefix(text, pinPrefix)
	pin, err := base64.StdEncoding.DecodeString(code)
	if !ok || err != nil || len(pin) != sha256.Size {
		return nil, fmt.Errorf("pin %q of the KMIP server: want %s and 44 characters of base64", text, pinPrefix)
	}
	return pin, nil
}

func checkPin(pin []byte, state tls.ConnectionState) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the server shows no certificate")
	}
	sum := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if subtle.ConstantTimeCompare(pin, sum[:]) != 1 {
		return problem{
			fmt.Errorf("the server has another public key than the pinned one: %s%s", pinPrefix, base64.StdEncoding.EncodeToString(sum[:])),
			"see that this is the right server; then add the keystore anew with that pin",
		}
	}
	return nil
}

// lostError reports that a connection broke, or that a server did not answer: a
// new connection may do better.
type lostError struct {
	error
	slow bool // the time was up
}

func (e lostError) Unwrap() error { return e.error }

func lost(err error) (lostError, bool) { return errors.AsType[lostError](err) }

// conn is a connection to a server. One request is on it at a time.
type conn struct {
	c  *tls.Conn
	of *server
	// spent: its time was up just as the answer came.
	spent bool
	used  bool // it has carried an answer: the server may have closed it since
}

// dial connects and shakes hands.
func dial(ctx context.Context, s keymgr.Server, of *server) (*conn, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: of.config}
	c, err := d.DialContext(ctx, "tcp", s.Address)
	if err != nil {
		return nil, explainDial(ctx, err)
	}
	secured, ok := c.(*tls.Conn)
	if !ok {
		return nil, errors.Join(errors.New("the connection is not protected"), c.Close())
	}
	return &conn{c: secured, of: of}, nil
}

// explainDial says what to do about the errors of a first connection.
func explainDial(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded) {
		return lostError{fmt.Errorf("it cannot be reached: %w", slowness(ctx, err)), true}
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return lostError{problem{err, "name what the certificate is for: --server-name NAME"}, false}
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return lostError{problem{err, "give the CA that vouches for the server: sluice keystore test NAME --ca-file FILE"}, false}
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return lostError{problem{err, "have the server's certificate renewed"}, false}
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok || isAlert(err) {
		return lostError{problem{err, clientHint}, false}
	}
	return lostError{err, false}
}

// clientHint is what to do where a server does not accept this client.
const clientHint = "see that the server knows this client's certificate; another one: sluice keystore test NAME --cert-file FILE --key-file FILE"

// isAlert reports whether the other side broke off the handshake.
func isAlert(err error) bool {
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op == "remote error"
}

// slowness is the error of a call whose time is up.
func slowness(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// exchange sends a request and reads the answer. answered says whether a part of
// one came: what was asked has been done then, or may have been.
func (c *conn) exchange(ctx context.Context, request []byte) (response []byte, answered bool, err error) {
	stop := context.AfterFunc(ctx, func() { _ = c.c.SetDeadline(time.Unix(1, 0)) }) // it fails only where the connection is over
	defer func() { c.spent = !stop() }()
	broken := func(err error) error {
		switch {
		case ctx.Err() != nil || errors.Is(err, os.ErrDeadlineExceeded):
			return lostError{fmt.Errorf("no answer: %w", slowness(ctx, err)), true}
		case isAlert(err):
			return lostError{problem{err, clientHint}, false} // with TLS 1.3 a certificate is refused this late
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return lostError{errors.New("the server closed the connection"), false}
		}
		return lostError{err, false}
	}
	if _, err := c.c.Write(request); err != nil {
		return nil, false, broken(err)
	}
	var head [headerLength]byte
	if n, err := io.ReadFull(c.c, head[:]); err != nil {
		return nil, n > 0, broken(err)
	}
	length := binary.BigEndian.Uint32(head[4:])
	switch {
	case !bytes.Equal(head[:4], []byte{tagResponseMessage >> 16, tagResponseMessage >> 8 & 0xff, tagResponseMessage & 0xff, typeStructure}):
		return nil, true, lostError{fmt.Errorf("%w: what answers there does not speak KMIP", errEncoding), false}
	case length > maxResponse:
		return nil, true, lostError{fmt.Errorf("the answer has %d bytes, at most %d are read", length, maxResponse), false}
	}
	response = make([]byte, headerLength+int(length))
	copy(response, head[:])
	if _, err := io.ReadFull(c.c, response[headerLength:]); err != nil {
		return nil, true, broken(err)
	}
	c.used = true
	return response, true, nil
}

func (c *conn) close() { _ = c.c.Close() } // nothing is lost by it
