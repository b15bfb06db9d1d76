package cli

import (
	"crypto/tls"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"

	"sluice/cli/api"
	"sluice/xfr"
)

// client makes the way to the daemon. The caller closes it.
func (e *env) client() (*api.Client, error) {
	address := e.apiAddress
	if address == "" {
		address = "unix:sluice-data/sluice.sock"
		for _, path := range []string{"sluice-data/sluice.sock", "/run/sluice/sluice.sock"} {
			if _, err := os.Stat(path); err == nil || errors.Is(err, fs.ErrPermission) {
				address = "unix:" + path
				break
			}
		}
	}
	cfg := api.ClientConfig{Address: address, Roots: e.apiRoots, Logger: e.log}
	switch remote := strings.HasPrefix(address, "https:") || strings.HasPrefix(address, "http:"); {
	case remote && e.tokenFile == "":
		return nil, &usageError{
			msg:  "--token-file is missing: over the network the daemon wants a token",
			hint: "--token-file FILE, or SLUICE_TOKEN_FILE; make one at the daemon: sluice token add NAME --role ROLE -o FILE",
		}
	case remote:
		var err error
		if cfg.Token, err = readToken(e.tokenFile); err != nil {
			return nil, err
		}
	}
	c, err := api.Dial(cfg)
	if errors.Is(err, api.ErrRequest) {
		return nil, usagef("%v", err)
	}
	return c, err
}

// explain adds what to do next to an error of the daemon.
func explain(err error) error {
	if hintOf(err) != "" || !errors.Is(err, api.ErrUnreachable) {
		return err
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return withHint(err, "it stopped meanwhile, or the token was withdrawn or expired; see: sluice health")
	}
	if strings.Contains(err.Error(), "https://") || strings.Contains(err.Error(), "http://") {
		return explainRemote(err)
	}
	if errors.Is(err, fs.ErrPermission) {
		return withHint(err, "the socket is for the user that the daemon runs as: run this command as that user")
	}
	return withHint(err, "start it with: sluice serve; or name its socket: --api unix:PATH (by default ./sluice-data/sluice.sock, then /run/sluice/sluice.sock)")
}

// explainRemote adds what to do where a daemon is not reached over the network.
func explainRemote(err error) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return withHint(err, "nobody that this machine trusts vouches for its certificate: name who does with --api-roots FILE, or its key as sluice serve prints it: --api https://HOST:PORT#sha256:...")
	}
	if errors.Is(err, xfr.ErrOtherKey) {
		return withHint(err, "somebody else answers there, or the daemon has another key by now: compare with what sluice serve prints")
	}
	return withHint(err, "is it started with --http IP:PORT, and can this machine reach that?")
}
