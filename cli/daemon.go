package cli

import (
	"errors"
	"io/fs"
	"os"

	"sluice/cli/api"
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
	c, err := api.NewClient(address, e.log)
	if err != nil {
		return nil, usagef("%v", err)
	}
	return c, nil
}

// explain adds what to do next to an error of the daemon.
func explain(err error) error {
	if hintOf(err) != "" || !errors.Is(err, api.ErrUnreachable) {
		return err
	}
	if errors.Is(err, fs.ErrPermission) {
		return withHint(err, "the socket is for the user that the daemon runs as: run this command as that user")
	}
	return withHint(err, "start it with: sluice serve; or name its socket: --api unix:PATH (by default ./sluice-data/sluice.sock, then /run/sluice/sluice.sock)")
}
