// Package journal is the only writer of truth: an append-only stream of
// events with per-zone links, and the chunks that events name. DESIGN.md
// states its invariants and its format.
package journal
