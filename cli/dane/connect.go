package dane

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// Protocols are those that STARTTLS is known of.
func Protocols() []string { return []string{"smtp", "imap", "pop3", "xmpp"} }

// maxLine and maxLines bound what is read before TLS begins.
const (
	maxLine  = 4096
	maxLines = 64
)

var errLine = errors.New("the server says too much before TLS")

// Fetch gets the certificates that a server shows for a host. starttls is one
// of Protocols, or empty for TLS at once. They are not validated.
func Fetch(ctx context.Context, address, host, starttls string) ([]*x509.Certificate, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })() // reading tells
	if starttls != "" {
		if err := begin(conn, host, starttls); err != nil {
			return nil, fmt.Errorf("%s STARTTLS: %w", starttls, err)
		}
	}
	// The record decides whether the certificate is good; see Check.
	c := tls.Client(conn, &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return c.ConnectionState().PeerCertificates, nil
}

// talk is the conversation before TLS.
type talk struct {
	conn net.Conn
	in   *bufio.Reader
	read int
}

func begin(conn net.Conn, host, protocol string) error {
	t := &talk{conn: conn, in: bufio.NewReaderSize(conn, maxLine)}
	switch protocol {
	case "smtp":
		if err := t.reply("220"); err != nil {
			return err
		}
		if err := t.ask("EHLO sluice.invalid\r\n", "250"); err != nil {
			return err
		}
		return t.ask("STARTTLS\r\n", "220")
	case "imap":
		if err := t.reply("* OK"); err != nil {
			return err
		}
		return t.ask("a1 STARTTLS\r\n", "a1 OK")
	case "pop3":
		if err := t.reply("+OK"); err != nil {
			return err
		}
		return t.ask("STLS\r\n", "+OK")
	case "xmpp":
		return t.xmpp(host)
	}
	return fmt.Errorf("protocol %q: want %s", protocol, strings.Join(Protocols(), ", "))
}

// line reads one line.
func (t *talk) line() (string, error) {
	if t.read++; t.read > maxLines {
		return "", errLine
	}
	text, err := t.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return "", errLine
	}
	return strings.TrimRight(string(text), "\r\n"), err
}

// reply reads an answer, of several lines where they say so, which must begin
// with want.
func (t *talk) reply(want string) error {
	for {
		text, err := t.line()
		if err != nil {
			return err
		}
		switch {
		case !strings.HasPrefix(text, want) && strings.HasPrefix(want, "a1") && strings.HasPrefix(text, "*"):
			continue // untagged, of IMAP
		case !strings.HasPrefix(text, want):
			return fmt.Errorf("the server says %q", text)
		case len(want) == 3 && want != "+OK" && len(text) > 3 && text[3] == '-':
			continue // more lines follow, of SMTP
		}
		return nil
	}
}

func (t *talk) ask(text, want string) error {
	if _, err := io.WriteString(t.conn, text); err != nil {
		return err
	}
	return t.reply(want)
}

// xmpp is RFC 6120, 5.4: the features are not looked at, the answer says
// whether TLS may begin.
func (t *talk) xmpp(host string) error {
	const header = "<?xml version='1.0'?><stream:stream to='%s' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
	if strings.ContainsAny(host, "'<>&") {
		return fmt.Errorf("host %q", host)
	}
	if _, err := fmt.Fprintf(t.conn, header, host); err != nil {
		return err
	}
	if err := t.until("</stream:features>"); err != nil {
		return err
	}
	if _, err := io.WriteString(t.conn, "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"); err != nil {
		return err
	}
	return t.until("<proceed")
}

// until reads up to the end of an element.
func (t *talk) until(element string) error {
	var seen strings.Builder
	for range maxLines {
		text, err := t.in.ReadSlice('>')
		if errors.Is(err, bufio.ErrBufferFull) {
			return errLine
		}
		if err != nil {
			return err
		}
		seen.Write(text)
		if strings.Contains(string(text), element) {
			return nil
		}
		if strings.Contains(string(text), "<failure") || strings.Contains(string(text), "</stream:stream") {
			break
		}
	}
	return fmt.Errorf("the server does not begin TLS: %q", seen.String()[:min(seen.Len(), 200)])
}
