// Package audit makes the journal prove itself: a Merkle tree over all events
// (RFC 6962, by golang.org/x/mod/sumdb/tlog), checkpoints that sign it (C2SP
// tlog-checkpoint), exports that carry their proofs, and their verification
// without a daemon. cli/docs/audit-format.md has the formats.
package audit
