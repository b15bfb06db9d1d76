// Package cli is the command line: the daemon (sluice serve), the commands
// that are clients of its API, and the tools that need no daemon. The manual
// is in docs.
package cli
