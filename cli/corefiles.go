package cli

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// noCoreFiles keeps this process, and what it runs, from leaving its memory in a
// core file when it crashes: private keys and the secrets of sessions are in it.
func noCoreFiles() error {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &limit)
	if err == nil && limit.Cur != 0 {
		limit.Cur = 0
		err = unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	}
	if err != nil {
		return fmt.Errorf("forbid core files: %w", err)
	}
	return nil
}
