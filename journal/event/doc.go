// Package event defines the events of the journal: the envelope, the facts of
// each type, and their one canonical encoding.
package event
