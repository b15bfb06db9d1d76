package zone

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// LoadOptions says what to load and how.
type LoadOptions struct {
	// FS holds the zone file, and File names it in FS. $INCLUDE reaches only
	// files in File's folder and below, by names relative to the file that
	// has the directive.
	FS   fs.FS
	File string
	// Origin is the zone's apex and the first $ORIGIN.
	Origin Name
	// Spill takes what does not fit into Memory bytes (0: 40 MiB).
	Spill  Spill
	Memory int
	// MaxErrors is how many errors a LoadError holds (0: 20); all are counted.
	MaxErrors int
	// KeepSigned keeps the signer's own records as items of KindMade,
	// KindSigs, KindChain and KindChainSigs instead of dropping them. The
	// content digest then covers them, too, and their ZONEMD is not verified.
	KeepSigned bool
	// SkipZONEMD leaves ZONEMD records of the input unverified.
	SkipZONEMD bool
	// NoDigest skips the content digest: ContentState stays nil.
	NoDigest bool
	// MaxTTL is the highest TTL allowed in seconds (0: no limit). With
	// ClampTTL a higher one is lowered to it with a notice, else it is an
	// error.
	MaxTTL   uint32
	ClampTTL bool
	// Glue says what is done about name servers without an address.
	Glue GlueCheck
	// Progress, where not nil, is told now and then how many of the zone
	// file's bytes were read. Included files are not counted.
	Progress func(read, total int64)
}

// ZONEMDOutcome says what became of a ZONEMD record in the input.
type ZONEMDOutcome string

// The outcomes of verifying a ZONEMD record (RFC 8976, 4). A mismatch is an
// error and has no outcome.
const (
	ZONEMDAbsent      ZONEMDOutcome = "absent"
	ZONEMDVerified    ZONEMDOutcome = "verified"
	ZONEMDUnsupported ZONEMDOutcome = "unsupported" // no scheme and hash that this program knows
	ZONEMDUnchecked   ZONEMDOutcome = "unchecked"   // kept by KeepSigned, or left by SkipZONEMD
)

// Loaded is a zone file that was read without an error so far. Items must be
// walked to its end: what concerns whole RRsets and the zone is found on the
// way, and is reported by Items.Err as a LoadError.
type Loaded struct {
	Apex   Name
	Serial Serial // of the SOA in the input
	// Items walks the zone: first KindContents, then with KeepSigned the
	// kinds after it, each in canonical order.
	Items Iterator

	// What follows is complete when Items.Next has returned false and
	// Items.Err is nil.

	RRsets, Records uint64            // of KindContents
	Kept            Kept              // the other kinds, with KeepSigned
	Stripped        map[string]uint64 // the signer's own records that were dropped, by type
	Notices         []string          // what an operator should know, one line each
	ContentState    *SetHash          // state of the content digest; nil with NoDigest
	ZONEMD          ZONEMDOutcome
}

// Kept is what a zone has of the signer's own records.
type Kept struct {
	Records    uint64 // all of them
	Signatures uint64 // of these, RRSIGs
	Earliest   int64  // the first expiration among these, in epoch seconds; 0 without any
}

// Add counts an item; those of KindContents are passed over.
func (k *Kept) Add(key []byte, value Value) {
	kind := Kind(key[0])
	if kind <= KindContents {
		return
	}
	n := uint64(value.Count())
	k.Records += n
	if kind != KindSigs && kind != KindChainSigs {
		return
	}
	k.Signatures += n
	for data := range value.Records() {
		if len(data) < rrsigFixed {
			continue
		}
		if at := int64(binary.BigEndian.Uint32(data[8:])); k.Earliest == 0 || at < k.Earliest {
			k.Earliest = at
		}
	}
}

// rrsigFixed is the length of what stands before the signer's name in an
// RRSIG (RFC 4034, 3.1).
const rrsigFixed = 18

// Close frees what Items holds; it may be called twice.
func (l *Loaded) Close() error { return l.Items.Close() }

// FileError is one thing wrong with a zone file.
type FileError struct {
	File   string
	Line   int    // from 1; 0 where no line is to blame
	Record string // what stands there, shortened; may be empty
	Err    error
}

// Error is "file:line: reason: record".
func (e FileError) Error() string {
	s := e.File
	if e.Line > 0 {
		s += ":" + strconv.Itoa(e.Line)
	}
	s += ": " + e.Err.Error()
	if e.Record != "" {
		s += ": " + e.Record
	}
	return s
}

// Unwrap is the reason.
func (e FileError) Unwrap() error { return e.Err }

// LoadError reports what is wrong with a zone file.
type LoadError struct {
	Errors []FileError // the first ones, in the order they were found
	Total  int
}

// Error names the first error and counts the others.
func (e *LoadError) Error() string {
	if len(e.Errors) == 0 {
		return fmt.Sprintf("%d errors", e.Total)
	}
	s := e.Errors[0].Error()
	if e.Total > 1 {
		s += fmt.Sprintf(" (and %d more errors)", e.Total-1)
	}
	return s
}

// Unwrap makes the errors reachable for errors.Is and errors.As.
func (e *LoadError) Unwrap() []error {
	all := make([]error, len(e.Errors))
	for i := range e.Errors {
		all[i] = e.Errors[i]
	}
	return all
}

const (
	defaultLoadMemory = 40 << 20
	defaultMaxErrors  = 20
)

// errorList collects errors up to a limit and counts the rest.
type errorList struct {
	list LoadError
	max  int
}

func (l *errorList) add(e FileError) {
	if len(l.list.Errors) < l.max {
		l.list.Errors = append(l.list.Errors, e)
	}
	l.list.Total++
}

// err is nil or the LoadError.
func (l *errorList) err() error {
	if l.list.Total == 0 {
		return nil
	}
	e := l.list
	return &e
}

var (
	errNoSOA    = errors.New("no SOA record at the apex")
	errNoApexNS = errors.New("no NS record at the apex")
	errNoFile   = errors.New("the zone file is empty")
)

// Load reads a zone file (RFC 1035, 5) and sorts it. It returns a *LoadError
// when records cannot be read or SOA or NS are missing; reading goes on after
// a bad record, so that all errors are found at once.
func Load(ctx context.Context, opts LoadOptions) (*Loaded, error) {
	opts = opts.withDefaults()
	if _, err := NameFromWire([]byte(opts.Origin)); err != nil {
		return nil, fmt.Errorf("origin %q: %w", string(opts.Origin), err)
	}
	r := newReader(ctx, opts)
	if err := r.readAll(); err != nil {
		return nil, errors.Join(err, r.closeSorters())
	}
	if err := r.errs.err(); err != nil {
		return nil, errors.Join(err, r.closeSorters())
	}
	return r.loaded()
}

// readAll reads the zone file and what it includes. Errors in the files are
// collected; the error returned is one of the surroundings.
func (r *reader) readAll() error {
	err := r.readFile(r.opts.File, r.opts.Origin, nil, 0)
	if unread, ok := errors.AsType[openError](err); ok {
		r.errs.add(FileError{File: r.opts.File, Err: unread.error})
	} else if err != nil {
		return err
	}
	if r.errs.list.Total == 0 {
		r.checkWhole()
	}
	return nil
}

// checkWhole reports what every zone must have and this one lacks.
func (r *reader) checkWhole() {
	switch {
	case r.records == 0:
		r.errs.add(FileError{File: r.opts.File, Err: errNoFile})
	case !r.haveSOA:
		r.errs.add(FileError{File: r.opts.File, Err: errNoSOA})
	case !r.haveNS:
		r.errs.add(FileError{File: r.opts.File, Err: errNoApexNS})
	}
}

// withDefaults fills in what the zero value stands for.
func (o LoadOptions) withDefaults() LoadOptions {
	if o.Memory <= 0 {
		o.Memory = defaultLoadMemory
	}
	if o.MaxErrors <= 0 {
		o.MaxErrors = defaultMaxErrors
	}
	return o
}

// loaded starts the walk of what was read.
func (r *reader) loaded() (*Loaded, error) {
	l := &Loaded{
		Apex: r.opts.Origin, Serial: r.serial,
		Stripped: r.strippedByName(), ZONEMD: ZONEMDAbsent,
	}
	if !r.opts.NoDigest {
		l.ContentState = &SetHash{}
	}
	items, err := r.main.Sort()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sort zone: %w", err), r.closeSorters())
	}
	a := newAssembler(r, l, items)
	l.Items = a
	if r.zonemd == nil || r.opts.KeepSigned || r.opts.SkipZONEMD {
		if r.zonemd != nil {
			l.ZONEMD = ZONEMDUnchecked
		}
		if err := r.own.Close(); err != nil {
			return nil, errors.Join(err, a.Close())
		}
		return l, nil
	}
	own, err := r.own.Sort()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sort zone: %w", err), a.Close())
	}
	a.check = newZoneDigest(r, own)
	return l, nil
}
