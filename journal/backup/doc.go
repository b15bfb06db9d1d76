// Package backup copies a journal into a folder while it is written to, and
// makes a journal of such a folder again. The format is in DESIGN.md of package
// journal. Everything is verified on the way in and again on the way out: lines,
// links, sequences, chunks, and the signed checkpoints among the events.
package backup
