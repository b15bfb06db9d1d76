package zone

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path"
	"slices"
	"strings"
)

const (
	maxIncludeDepth = 20
	maxIncludes     = 10_000
	maxTTL          = 1<<31 - 1
)

// reader turns zone files into sorted entries. An entry's key is that of its
// item; its payload is TTL (4 bytes), uvarint number of the file, uvarint
// line, length of the owner (1 byte; 0 when it is in lower case), owner,
// RDATA.
type reader struct {
	// cancelled is the Err of the context that the load runs under.
	cancelled func() error
	opts      LoadOptions
	main      *Sorter
	own       *Sorter // the signer's own records, in case a ZONEMD needs them

	files   []string // by number
	opened  []string // files being read, outermost first
	errs    errorList
	notices noticeList

	// What stays from record to record, over all files.
	defaultTTL, lastTTL     uint32
	haveDefault, haveLast   bool
	soaMinimum              uint32
	haveSOA, haveNS         bool
	serial                  Serial
	soaRData                []byte
	records                 uint64
	stripped                map[Type]uint64
	zonemd                  [][]byte // RDATA at the apex
	key, rdata, payload     []byte
	apexKey                 []byte
	lib                     libParser
	progressDone, fileTotal int64
}

func newReader(ctx context.Context, opts LoadOptions) *reader {
	return &reader{
		cancelled: ctx.Err, opts: opts,
		main: NewSorter(opts.Spill, opts.Memory), own: NewSorter(opts.Spill, opts.Memory/4),
		errs: errorList{max: opts.MaxErrors}, stripped: map[Type]uint64{},
		apexKey: AppendOwnerKey(nil, opts.Origin),
	}
}

func (r *reader) closeSorters() error { return errors.Join(r.main.Close(), r.own.Close()) }

func (r *reader) strippedByName() map[string]uint64 {
	if len(r.stripped) == 0 {
		return nil
	}
	m := make(map[string]uint64, len(r.stripped))
	for t, n := range r.stripped {
		m[t.String()] = n
	}
	return m
}

// fileState is what belongs to one file while it is read.
type fileState struct {
	number int
	lex    *lexer
	origin Name
	owner  []byte // of the last record, in wire form
	text   []byte // the owner as it was written, to know it again
	key    []byte // its owner key
	folded bool   // it is in lower case
	inZone bool
	// badOwner: the last owner could not be read.
	badOwner bool
	read     bool // a record of it, or of a file that it includes
}

// readFile reads one file and collects what is wrong in it. It begins with the
// owner of from, which includes it; the zone file itself has none. It returns
// an openError where the file cannot be read at all, and any other error only
// when reading must end altogether.
func (r *reader) readFile(name string, origin Name, from *fileState, depth int) error {
	f, err := r.opts.FS.Open(name)
	if err != nil {
		return openError{err}
	}
	defer f.Close() //nolint:errcheck // opened for reading
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &fs.PathError{Op: "read", Path: name, Err: errIsFolder}
	}
	if err != nil {
		return openError{err}
	}
	if depth == 0 {
		r.fileTotal = info.Size()
	}
	r.opened = append(r.opened, name)
	defer func() { r.opened = r.opened[:len(r.opened)-1] }()
	r.files = append(r.files, name)
	s := &fileState{number: len(r.files) - 1, origin: origin}
	if from != nil {
		s.owner, s.key = bytes.Clone(from.owner), bytes.Clone(from.key)
		s.folded, s.inZone, s.badOwner = from.folded, from.inZone, from.badOwner
	}
	s.lex = newLexer(f, info.Size(), func(n int) error { return r.onRead(n, depth) })
	first := len(r.errs.list.Errors)
	err = r.readRecords(s, depth)
	if !s.read {
		r.withhold(s, first)
	} else if from != nil {
		from.read = true
	}
	return err
}

// onRead is called after each block that was read.
func (r *reader) onRead(n, depth int) error {
	if depth == 0 && r.opts.Progress != nil {
		r.progressDone += int64(n)
		r.opts.Progress(r.progressDone, max(r.fileTotal, r.progressDone))
	}
	return r.cancelled()
}

func (r *reader) readRecords(s *fileState, depth int) error {
	for {
		err := s.lex.next()
		if err == nil {
			err = r.entry(s, depth)
		}
		if err == nil {
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if fatal, ok := errors.AsType[fatalError](err); ok {
			return fatal.error
		}
		if r.cancelled() != nil {
			return r.cancelled()
		}
		bad, ok := errors.AsType[recordError](err)
		if !ok {
			r.fail(s, err)
			return nil // the rest of the file cannot be read
		}
		r.fail(s, bad.error)
	}
}

// openError says that a file cannot be read; it is noted where the file is
// named.
type openError struct{ error }

// fatalError ends the whole load: the spill fails, say.
type fatalError struct{ error }

// fail notes an error of the present record.
func (r *reader) fail(s *fileState, err error) {
	r.errs.add(FileError{File: r.files[s.number], Line: s.lex.first, Record: excerpt(s.lex.raw), Err: err})
}

// excerpt is the beginning of a record, on one line and printable.
func excerpt(raw []byte) string {
	const longest = 100
	cut := len(raw) > longest
	if cut {
		raw = raw[:longest]
	}
	s := strings.Join(strings.Fields(strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f || c == 0xfffd {
			return ' '
		}
		return c
	}, string(raw))), " ")
	if cut {
		s += " ..."
	}
	return s
}

// entry handles the present record or directive.
func (r *reader) entry(s *fileState, depth int) error {
	tokens := s.lex.tokens
	if first := tokens[0]; !s.lex.indented && !first.quoted && first.text[0] == '$' {
		return r.directive(s, tokens, depth)
	}
	return r.record(s, tokens, s.lex.indented, s.lex.first)
}

var (
	errIsFolder         = errors.New("is a folder")
	errNoOwner          = errors.New("no owner: there is no record before this one")
	errOutOfZone        = errors.New("owner is not in the zone")
	errNoType           = errors.New("no record type")
	errNoTTL            = errors.New("no TTL, and neither $TTL nor an earlier record gives one")
	errTwoSOA           = errors.New("a second SOA record")
	errSOABelow         = errors.New("SOA record below the apex")
	errRDataLong        = errors.New("RDATA longer than 65535 bytes")
	errRecordLong       = errors.New("no server can transfer a record this long: it does not fit into a DNS message")
	errApexDS           = errors.New("DS record at the apex: it belongs to the parent zone")
	errNotData          = errors.New("this type cannot stand in a zone")
	errUnknownDirective = errors.New("unknown directive")
	errTTLTooHigh       = errors.New("TTL is above the limit")
)

// record parses one resource record and hands it to the sorter.
func (r *reader) record(s *fileState, tokens []token, noOwner bool, line int) error {
	if !noOwner {
		if err := s.setOwner(tokens[0], r); err != nil {
			return err
		}
		tokens = tokens[1:]
	} else if s.badOwner {
		return nil // its owner was reported already
	} else if s.owner == nil {
		return recordError{errNoOwner}
	}
	h, tokens, err := parseHeader(tokens)
	if err != nil {
		return recordError{err}
	}
	if !s.inZone {
		return recordError{fmt.Errorf("%w: %s is not below %s", errOutOfZone, Name(s.owner), r.opts.Origin)}
	}
	if err := CheckType(h.t); err != nil {
		return recordError{err}
	}
	rdata, err := r.parseRData(r.rdata[:0], h.t, tokens, s.origin)
	r.rdata = rdata
	if err != nil {
		return recordError{fmt.Errorf("%s: %w", h.t, err)}
	}
	if len(rdata) > 0xffff {
		return recordError{errRDataLong}
	}
	ttl, err := r.ttlOf(h, rdata, s, line)
	if err != nil {
		return recordError{err}
	}
	return r.put(s, h.t, ttl, rdata, line)
}

// put hands a record to the sorter, or counts and drops it when it is the
// signer's own.
func (r *reader) put(s *fileState, t Type, ttl uint32, rdata []byte, line int) error {
	if over := transferLength(r.opts.Origin, s.owner, rdata) - maxMessage; over > 0 {
		return recordError{fmt.Errorf("%s: %w (RDATA of %d bytes, %d too many)", t, errRecordLong, len(rdata), over)}
	}
	atApex := len(s.key) == len(r.apexKey)
	if atApex || t == TypeSOA {
		if err := r.atApex(atApex, t, rdata); err != nil {
			return err
		}
	}
	r.records++
	s.read = true
	kind, keyType, sorter := KindContents, t, r.main
	if SignersOwn(t, atApex) {
		if r.opts.KeepSigned {
			kind, keyType = ownKind(t, rdata)
		} else {
			r.stripped[t]++
			sorter = r.own
		}
	}
	r.key = append(append(r.key[:0], byte(kind)), s.key...)
	r.key = append(r.key, byte(keyType>>8), byte(keyType))
	p := binary.BigEndian.AppendUint32(r.payload[:0], ttl)
	p = binary.AppendUvarint(p, uint64(s.number))
	p = binary.AppendUvarint(p, uint64(line))
	if s.folded {
		p = append(p, 0)
	} else {
		p = append(append(p, byte(len(s.owner))), s.owner...)
	}
	r.payload = append(p, rdata...)
	if err := sorter.Add(r.key, r.payload); err != nil {
		return fatalError{fmt.Errorf("sort zone: %w", err)}
	}
	return nil
}

const (
	// maxMessage is the longest DNS message (RFC 1035, 4.2.2).
	maxMessage = 0xffff
	// messageHeader, questionFields and recordFields are the lengths of a
	// message's header, and of a question and a record without name and RDATA
	// (RFC 1035, 4.1).
	messageHeader, questionFields, recordFields = 12, 4, 10
)

// transferLength is the length of the message that carries a record alone in
// a transfer of the zone apex, without TSIG.
func transferLength(apex Name, owner, rdata []byte) int {
	return messageHeader + len(apex) + questionFields + len(owner) + recordFields + len(rdata)
}

// OwnItem is the kind of a record's item where the signer's own records are
// kept, and the type in the item's key: that covered by an RRSIG, else t.
// rdata was checked.
func OwnItem(t Type, atApex bool, rdata []byte) (Kind, Type) {
	if !SignersOwn(t, atApex) {
		return KindContents, t
	}
	return ownKind(t, rdata)
}

// ownKind is where one of the signer's own records belongs.
func ownKind(t Type, rdata []byte) (Kind, Type) {
	switch t {
	case TypeRRSIG:
		covered := Type(binary.BigEndian.Uint16(rdata))
		if covered == TypeNSEC3 {
			return KindChainSigs, covered
		}
		return KindSigs, covered
	case TypeNSEC3:
		return KindChain, t
	default:
		return KindMade, t
	}
}

// atApex notes what the zone as a whole needs.
func (r *reader) atApex(atApex bool, t Type, rdata []byte) error {
	switch {
	case t == TypeSOA && !atApex:
		return recordError{errSOABelow}
	case t == TypeSOA && r.haveSOA:
		if CompareRData(t, r.soaRData, rdata) != 0 {
			return recordError{errTwoSOA}
		}
	case t == TypeSOA:
		r.haveSOA = true
		r.soaRData = bytes.Clone(rdata)
		r.serial = Serial(binary.BigEndian.Uint32(rdata[len(rdata)-20:]))
	case t == TypeNS:
		r.haveNS = true
	case t == TypeDS:
		return recordError{errApexDS}
	case t == TypeZONEMD && len(r.zonemd) < maxZONEMD:
		r.zonemd = append(r.zonemd, bytes.Clone(rdata))
	}
	return nil
}

// ttlOf is a record's TTL: its own, that of $TTL (RFC 2308, 4), that of the
// record before (RFC 1035, 5.1), or the SOA's minimum.
func (r *reader) ttlOf(h header, rdata []byte, s *fileState, line int) (uint32, error) {
	ttl := h.ttl
	switch {
	case h.haveTTL:
		r.lastTTL, r.haveLast = ttl, true
	case r.haveDefault:
		ttl = r.defaultTTL
	case r.haveLast:
		ttl = r.lastTTL
	case h.t == TypeSOA:
		ttl = binary.BigEndian.Uint32(rdata[len(rdata)-4:])
	case r.haveSOA:
		ttl = r.soaMinimum
	default:
		return 0, errNoTTL
	}
	if h.t == TypeSOA {
		r.soaMinimum = binary.BigEndian.Uint32(rdata[len(rdata)-4:])
	}
	if r.opts.MaxTTL == 0 || ttl <= r.opts.MaxTTL {
		return ttl, nil
	}
	if !r.opts.ClampTTL {
		return 0, fmt.Errorf("%w: %d, the limit is %d", errTTLTooHigh, ttl, r.opts.MaxTTL)
	}
	r.notices.add(noticeClamped, r.files[s.number], line)
	return ttl, nil
}

// highestTTL is what a higher TTL is lowered to once all that a ZONEMD covers
// was read with the TTL that it came with.
func (r *reader) highestTTL() uint32 {
	if r.opts.MaxTTL != 0 && r.opts.ClampTTL {
		return r.opts.MaxTTL
	}
	return math.MaxUint32
}

// setOwner parses the owner of a record, unless it is the one before again.
func (s *fileState) setOwner(tok token, r *reader) error {
	if s.text != nil && bytes.Equal(tok.text, s.text) {
		return nil
	}
	owner, err := appendNameText(s.owner[:0], tok.text, s.origin)
	s.owner, s.badOwner = owner, err != nil
	if err != nil {
		s.text = nil
		return recordError{fmt.Errorf("owner: %w", err)}
	}
	s.text = append(s.text[:0], tok.text...)
	s.key = appendOwnerKey(s.key[:0], owner)
	s.folded = isFolded(owner)
	s.inZone = bytes.HasPrefix(s.key, r.apexKey[:len(r.apexKey)-1])
	return nil
}

// directive handles a line that begins with $.
func (r *reader) directive(s *fileState, tokens []token, depth int) error {
	name, args := strings.ToUpper(string(tokens[0].text)), tokens[1:]
	var err error
	switch name {
	case "$TTL":
		err = r.setTTL(args)
	case "$ORIGIN":
		err = s.setOrigin(args)
	case "$INCLUDE":
		return r.include(s, args, depth)
	case "$GENERATE":
		return r.generate(s, args)
	default:
		err = errUnknownDirective
	}
	if err != nil {
		return recordError{fmt.Errorf("%s: %w", name, err)}
	}
	return nil
}

func (r *reader) setTTL(args []token) error {
	if len(args) != 1 {
		return errors.New("want one TTL")
	}
	ttl, err := parseTTL(args[0].text)
	if err != nil {
		return err
	}
	r.defaultTTL, r.haveDefault = ttl, true
	return nil
}

func (s *fileState) setOrigin(args []token) error {
	if len(args) != 1 {
		return errors.New("want one name")
	}
	wire, err := appendNameText(nil, args[0].text, s.origin)
	if err != nil {
		return err
	}
	// The same text may now be another name.
	s.origin, s.text = Name(wire), nil
	return nil
}

var (
	errIncludeDepth  = fmt.Errorf("more than %d files include one another", maxIncludeDepth)
	errIncludeCycle  = errors.New("the file includes itself")
	errIncludeMany   = fmt.Errorf("more than %d files", maxIncludes)
	errIncludePath   = errors.New("an absolute path; name the file from the folder of the file that includes it")
	errIncludeEscape = errors.New("the file is not below the zone file's folder")
)

// include reads a further file. It begins without an owner; origin and owner
// of the file that includes it stay as they were (RFC 1035, 5.1), while $TTL
// goes on.
func (r *reader) include(s *fileState, args []token, depth int) error {
	wrap := func(err error) error { return recordError{fmt.Errorf("$INCLUDE: %w", err)} }
	if len(args) != 1 && len(args) != 2 {
		return wrap(errors.New("want a file and perhaps an origin"))
	}
	name := string(args[0].text)
	full := path.Join(path.Dir(r.files[s.number]), name)
	root := path.Dir(r.opts.File)
	switch {
	case path.IsAbs(name):
		return wrap(errIncludePath)
	case !fs.ValidPath(full) || (root != "." && !strings.HasPrefix(full, root+"/")):
		return wrap(errIncludeEscape)
	case slices.Contains(r.opened, full):
		return wrap(errIncludeCycle)
	case depth >= maxIncludeDepth:
		return wrap(errIncludeDepth)
	case len(r.files) >= maxIncludes:
		return wrap(errIncludeMany)
	}
	origin := s.origin
	if len(args) == 2 {
		wire, err := appendNameText(nil, args[1].text, s.origin)
		if err != nil {
			return wrap(err)
		}
		origin = Name(wire)
	}
	err := r.readFile(full, origin, s, depth+1)
	if unread, ok := errors.AsType[openError](err); ok {
		return wrap(unread.error)
	}
	if err != nil {
		return fatalError{err}
	}
	return nil
}
