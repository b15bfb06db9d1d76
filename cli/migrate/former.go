// Package migrate takes zones over from other signers: a plan that is read from
// the former signer's own files and written as a folder of package fleet, and
// then steps that can be stopped and taken back.
package migrate

import (
	"context"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
)

// Former is what another signer has.
type Former struct {
	Software string // name and version, as it tells
	Policies []Policy
	Zones    []Zone
	TSIG     []TSIGKey
	// Keystores are the tokens that it keeps keys on.
	Keystores []Keystore
	// Unequal tells what has no equal here, of the whole of it: one sentence each,
	// with what to do in place of it.
	Unequal []string
	// Stop says how its key management is ended while it goes on serving what it
	// has signed, and Back how it takes zones back with the keys that migrate back
	// wrote for it: steps in their order. A step that begins with "$ " is a
	// command to type; the others are sentences.
	Stop, Back []string
}

// Policy is one of its policies in our words.
type Policy struct {
	Name    string
	Former  string   // its name there
	Text    []byte   // the policy file
	Unequal []string // as in Former
}

// Zone is one of its zones.
type Zone struct {
	Name, Source, Policy string
	Keys                 []Key
	Serial               *uint32 // the last that it published, where its files say so
	// Primary is where the former signer gives out the signed zone,
	// IP[:PORT][^TSIGKEY]; "" where its files do not say so.
	Primary string
	// Secondaries take the zone from there, IP[:PORT].
	Secondaries []string
	Notes       []string // how it was read
	Unequal     []string // as in Former
	// Refused says why it cannot be taken over, and what to do first.
	Refused string
	// Stop and Back are as in Former, of this zone alone.
	Stop, Back []string
}

// Key is one of a zone's keys.
type Key struct {
	Role      keymgr.Role
	Algorithm uint8
	Tag       uint16
	DNSKEY    string // its record, as text
	// Private is the private part in BIND's format; empty where it is on a token.
	// A key with neither is another signer's: it is published, and never signs.
	Private []byte
	// Keystore and ID name it on a token: the name of one of Keystores, and CKA_ID
	// in hex.
	Keystore, ID string
	// Life is its state and timings there; it goes into a BIND .state file.
	Life *event.KeyLife
}

// Keystore is a token.
type Keystore struct {
	Name, Module, Token string
	PINFile             string // where the PIN was found; it is never printed
	// PIN is written to a file of the folder, for its owner alone, and never
	// printed; empty where there is a PINFile, or none was found.
	PIN []byte
}

// TSIGKey is a TSIG key.
type TSIGKey struct {
	Name, Algorithm string
	Secret          []byte
}

// Options says how a former signer is read.
type Options struct {
	Zones []string // none: all
	Now   time.Time
}

// Reader reads one kind of signer. source is what the command got: a folder, a
// config file, a database. Errors name file and line.
type Reader func(ctx context.Context, source string, o Options) (Former, error)
