package cli

import (
	"fmt"
	"io"
	"os"
	"strings"

	urfave "github.com/urfave/cli/v2"

	"sluice/pipeline"
)

// serverLoginFlags are the options that say how a KMIP server and this program
// prove themselves to each other.
func serverLoginFlags() []urfave.Flag {
	return []urfave.Flag{
		&urfave.StringFlag{Name: "ca-file", Usage: "the CA that vouches for the KMIP server, in PEM (`FILE`)"},
		&urfave.StringFlag{Name: "cert-file", Usage: "the certificate for the KMIP server to know us by, in PEM (`FILE`)"},
		&urfave.StringFlag{Name: "key-file", Usage: "its private key, in PEM, which nobody else may read (`FILE`)"},
		&urfave.StringFlag{Name: "username", Usage: "`USER` on the KMIP server"},
		&urfave.StringFlag{Name: "password-file", Usage: "read the user's password from `FILE`, which nobody else may read"},
	}
}

// maxPEM bounds a file of certificates or of a key, in bytes.
const maxPEM = 64 << 10

// readServerLogin reads the files that the options name.
func readServerLogin(c *urfave.Context) (pipeline.ServerLogin, error) {
	login := pipeline.ServerLogin{Username: c.String("username")}
	for _, row := range []struct {
		flag, secret string
		to           *string
	}{
		{"ca-file", "", &login.CA},
		{"cert-file", "", &login.Certificate},
		{"key-file", "private key", &login.Key},
		{"password-file", "password", &login.Password},
	} {
		path := c.String(row.flag)
		if path == "" {
			continue
		}
		if row.secret != "" {
			if err := closedToOthers(path, row.secret); err != nil {
				return login, err
			}
		}
		var err error
		if row.flag == "password-file" {
			*row.to, err = readSecret(path)
		} else {
			*row.to, err = readPEM(path)
		}
		if err != nil {
			return login, fmt.Errorf("--%s: %w", row.flag, err)
		}
	}
	return login, nil
}

// readPEM reads a file that has PEM blocks.
func readPEM(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	switch {
	case err != nil:
		return "", err
	case len(text) > maxPEM:
		return "", fmt.Errorf("%s has more than %d bytes", path, maxPEM)
	case !strings.Contains(string(text), "-----BEGIN "):
		return "", fmt.Errorf("%s is not in PEM, which begins with -----BEGIN", path)
	}
	return string(text), nil
}

// readServer reads what names a KMIP server, and the login for it.
func readServer(c *urfave.Context, n *pipeline.NewKeystore) error {
	for _, flag := range []string{"pkcs11", "token", "serial", "pin-file"} {
		if c.IsSet(flag) {
			return &usageError{msg: "--" + flag + " is for a token, --kmip for a server: one of them", hint: keystoreAddUsage}
		}
	}
	has := func(flag string) bool { return c.String(flag) != "" }
	switch {
	case !has("ca-file") && !has("server-pin"):
		return &usageError{msg: "--ca-file or --server-pin is missing: one of them says how the server proves itself", hint: keystoreAddUsage}
	case has("cert-file") != has("key-file"):
		return &usageError{msg: "--cert-file and --key-file belong together", hint: keystoreAddUsage}
	case has("username") != has("password-file"):
		return &usageError{msg: "--username and --password-file belong together", hint: keystoreAddUsage}
	case !has("cert-file") && !has("username"):
		return &usageError{msg: "--cert-file or --username is missing: one of them says who we are", hint: keystoreAddUsage}
	}
	login, err := readServerLogin(c)
	n.KMIP = &pipeline.NewServer{
		Address: c.String("kmip"), ServerName: c.String("server-name"), ServerPin: c.String("server-pin"), ServerLogin: login,
	}
	return err
}

// serverProof tells how a server proves itself.
func serverProof(k pipeline.KeystoreInfo) string {
	text := ""
	if k.ServerName != "" {
		text += ", certificate for " + k.ServerName
	}
	if k.ServerPin != "" {
		text += ", public key " + k.ServerPin
	}
	return text
}

// keystoreTestText tells what came of a test.
func keystoreTestText(r pipeline.KeystoreReport) string {
	place := fmt.Sprintf("token %q, serial number %s, %s %s", r.Token, r.TokenSerial, r.Manufacturer, r.Model)
	if r.Address != "" {
		place = strings.Join(strings.Fields(fmt.Sprintf("KMIP server %s, %s, %s %s", r.Address, r.Protocol, r.Manufacturer, r.Model)), " ")
	}
	text := fmt.Sprintf("keystore %s works: %s\n"+
		"%s: key made in %.1f ms; %d signatures made and verified, %.2f ms each (median; longest %.2f ms), %.0f/s in %d sessions\n",
		r.Keystore, place, r.Algorithm, r.GenerateMS, r.Signatures, r.SignMS, r.SlowestMS, r.PerSecond, r.Sessions)
	switch {
	case r.Batch > 0:
		text += fmt.Sprintf("%.0f/s with %d signatures a request\n", r.BatchedPerSecond, r.Batch)
	case r.Address != "":
		text += "the server takes one signature a request\n"
	}
	return text
}
