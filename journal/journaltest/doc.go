// Package journaltest holds a journal in memory that fails on demand, and the
// conformance suite that every journal passes.
package journaltest
