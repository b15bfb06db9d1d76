// Package keymgr holds key sets and their states (RFC 7583), and the keystores
// that make signatures.
package keymgr
