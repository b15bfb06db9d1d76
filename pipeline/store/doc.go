// Package store is the projection of zone data: contents, what the signer
// made of them, IXFR diffs and the read views that listeners serve, kept in
// Pebble. It follows from the journal alone and may be deleted at any time.
// See DESIGN.md for the layout and what a crash leaves behind.
package store
