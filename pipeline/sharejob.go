package pipeline

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sluice/journal"
	"sluice/journal/event"
	"sluice/signer"
	"sluice/signer/zone"
)

// shareVersion is that of the questions and answers of this program. Another
// program might sign otherwise, and is refused.
const shareVersion = 2

// shareJob asks another process to sign a part of an instance: a range of the
// names, or a run of the NSEC3 chain.
type shareJob struct {
	Version int          `json:"v"`
	Zone    event.ZoneID `json:"zone"`
	Head    uint64       `json:"head"`    // what must be folded for it
	Command string       `json:"command"` // its chunks are named after it
	Loaded  uint64       `json:"loaded"`
	Content event.Hash   `json:"content"` // content digest of Loaded
	Base    uint64       `json:"base,omitempty"`
	Keys    []shareKey   `json:"keys"`
	Params  shareParams  `json:"params"`
	Frame   signer.Frame `json:"frame"`
	// Range is the names; nil where Chain is set.
	Range *signer.Range `json:"range,omitempty"`
	Chain *shareChain   `json:"chain,omitempty"`

	hashes hashList // those of Chain
}

// check finds questions that cannot be answered.
func (j *shareJob) check() error {
	switch {
	case j.Version != shareVersion:
		return fmt.Errorf("the question is of version %d, this program knows %d", j.Version, shareVersion)
	case (j.Range == nil) == (j.Chain == nil):
		return errShare
	case len(j.Frame.DNSKEY) > 0 && j.Frame.DNSKEY.Check() != nil:
		return errShare
	}
	_, err := zone.NameFromWire(j.Params.Apex)
	return err
}

// shareKey is a key that was given to the signer.
type shareKey struct {
	ID        string `json:"id"`
	DNSKEY    []byte `json:"dnskey"`
	SignsKeys bool   `json:"signs_keys,omitempty"`
	SignsZone bool   `json:"signs_zone,omitempty"`
	Published bool   `json:"published,omitempty"`
	CDS       bool   `json:"cds,omitempty"`
}

// shareChain is a run of the NSEC3 chain.
type shareChain struct {
	// From and To are the owner keys between which the records of the instance
	// before stand; empty bounds are none.
	From  []byte                `json:"from,omitempty"`
	To    []byte                `json:"to,omitempty"`
	After [signer.HashSize]byte `json:"after"`
	// None: there is no chain any more.
	None bool `json:"none,omitempty"`
}

// shareParams is signer.Params but for what concerns one process or the whole
// zone alone.
type shareParams struct {
	Apex       []byte         `json:"apex"`
	Serial     zone.Serial    `json:"serial"`
	Inception  time.Time      `json:"inception"`
	Expiration time.Time      `json:"expiration"`
	Jitter     time.Duration  `json:"jitter,omitempty"`
	Refresh    time.Time      `json:"refresh"`
	Denial     signer.Denial  `json:"denial"`
	Iterations uint16         `json:"iterations,omitempty"`
	Salt       []byte         `json:"salt,omitempty"`
	DNSKEYTTL  uint32         `json:"dnskey_ttl"`
	CDSDigest  []byte         `json:"cds_digest,omitempty"`
	CDSDelete  bool           `json:"cds_delete,omitempty"`
	Spread     *signer.Spread `json:"spread,omitempty"`
	VerifyAll  bool           `json:"verify_all,omitempty"`
}

func sharedParams(p signer.Params) shareParams {
	return shareParams{
		Apex: []byte(p.Apex), Serial: p.Serial, Inception: p.Inception, Expiration: p.Expiration, Jitter: p.Jitter,
		Refresh: p.Refresh, Denial: p.Denial, Iterations: p.Iterations, Salt: p.Salt, DNSKEYTTL: p.DNSKEYTTL,
		CDSDigest: p.CDSDigest, CDSDelete: p.CDSDelete, Spread: p.Spread, VerifyAll: p.VerifyAll,
	}
}

func (p shareParams) params() signer.Params {
	return signer.Params{
		Apex: zone.Name(p.Apex), Serial: p.Serial, Inception: p.Inception, Expiration: p.Expiration, Jitter: p.Jitter,
		Refresh: p.Refresh, Denial: p.Denial, Iterations: p.Iterations, Salt: p.Salt, DNSKEYTTL: p.DNSKEYTTL,
		CDSDigest: p.CDSDigest, CDSDelete: p.CDSDelete, Spread: p.Spread, VerifyAll: p.VerifyAll,
	}
}

// shareDone is the answer: what was made, and where it stands in BULK.
type shareDone struct {
	Version       int              `json:"v"`
	Worker        string           `json:"worker"`
	Read          uint64           `json:"read"`
	Records       uint64           `json:"records"`
	RRsets        uint64           `json:"rrsets"`
	Signatures    uint64           `json:"signatures"`
	Made          uint64           `json:"made"`
	Reused        uint64           `json:"reused"`
	Verified      uint64           `json:"verified"`
	NewSets       uint64           `json:"rrsets_signed"`
	Dropped       uint64           `json:"dropped"`
	DenialChanged uint64           `json:"denial_changed"`
	Software      string           `json:"software,omitempty"`
	SignedBy      map[uint64]int64 `json:"signed_by"`
	Earliest      *uint32          `json:"earliest,omitempty"`
	Edges         []shareEdge      `json:"edges,omitempty"`
	Change        []byte           `json:"change"` // state of a set hash
	Chunks        []event.Chunk    `json:"chunks"`

	hashes hashList // those of the range
}

// shareEdge is an empty non-terminal that several ranges know of.
type shareEdge struct {
	Name []byte                `json:"name"`
	Hash [signer.HashSize]byte `json:"hash"`
}

func sharedPart(worker, software string, p *signer.Part, chunks []event.Chunk, hashes hashList) *shareDone {
	d := &shareDone{
		Version: shareVersion, Worker: worker, Software: software,
		Read: p.Read, Records: p.Records, RRsets: p.RRsets, Signatures: p.Signatures,
		Made: p.Made, Reused: p.Reused, Verified: p.Verified, SignedBy: p.SignedBy,
		NewSets: p.NewSets, Dropped: p.Dropped, DenialChanged: p.DenialChanged,
		Change: p.Change.AppendState(nil), Chunks: chunks, hashes: hashes,
	}
	if p.Any {
		d.Earliest = &p.Earliest
	}
	for name, hash := range p.Edges {
		d.Edges = append(d.Edges, shareEdge{Name: []byte(name), Hash: hash})
	}
	return d
}

// part is what the signer joins. Edges and hashes are for the chain.
func (d *shareDone) part() (*signer.Part, error) {
	p := &signer.Part{
		Read: d.Read, Records: d.Records, RRsets: d.RRsets, Signatures: d.Signatures,
		Made: d.Made, Reused: d.Reused, Verified: d.Verified, SignedBy: d.SignedBy, Change: new(zone.SetHash),
		NewSets: d.NewSets, Dropped: d.Dropped, DenialChanged: d.DenialChanged,
	}
	if d.Earliest != nil {
		p.Earliest, p.Any = *d.Earliest, true
	}
	return p, p.Change.LoadState(d.Change)
}

// check holds an answer against its question.
func (d *shareDone) check(j *shareJob) error {
	switch {
	case d.Version != shareVersion:
		return fmt.Errorf("its program answers as version %d, this one as %d", d.Version, shareVersion)
	case j.Range != nil && d.Read != j.Range.RRsets:
		return fmt.Errorf("it signed a range of %d RRsets, the range has %d", d.Read, j.Range.RRsets)
	case j.Range == nil && len(d.hashes) > 0:
		return errShare
	}
	for _, c := range d.Chunks {
		if c.Bytes > journal.MaxRawChunk || c.Items == 0 {
			return errShare
		}
	}
	if _, err := d.part(); err != nil {
		return err
	}
	return d.hashes.each(func(_, _ []byte) error { return nil })
}

var errShare = errors.New("malformed part of a zone")

// encodeShare makes a message: the length of the head, the head as JSON, the
// hashes.
func encodeShare(head any, hashes hashList) ([]byte, error) {
	text, err := json.Marshal(head)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 4, 4+len(text)+len(hashes))
	binary.BigEndian.PutUint32(out, uint32(len(text))) //nolint:gosec // far below 2^32
	out = append(append(out, text...), hashes...)
	if len(out) > journal.MaxMessage {
		return nil, fmt.Errorf("a part of a zone takes %d bytes, more than fit into a message", len(out))
	}
	return out, nil
}

// decodeShare reads a message into head. The hashes are a part of data.
func decodeShare(data []byte, head any) (hashList, error) {
	if len(data) < 4 {
		return nil, errShare
	}
	n := binary.BigEndian.Uint32(data)
	if data = data[4:]; uint64(n) > uint64(len(data)) {
		return nil, errShare
	}
	if err := json.Unmarshal(data[:n], head); err != nil {
		return nil, fmt.Errorf("%w: %w", errShare, err)
	}
	return data[n:], nil
}

// hashList is NSEC3 hashes, each followed by the length of its type bitmap in
// two bytes and the bitmap.
type hashList []byte

const hashHead = signer.HashSize + 2

func (l hashList) add(hash, bitmap []byte) hashList {
	l = append(l, hash...)
	l = binary.BigEndian.AppendUint16(l, uint16(len(bitmap))) //nolint:gosec // RFC 4034, 4.1.2: below 9,000
	return append(l, bitmap...)
}

// each calls fn for all of them.
func (l hashList) each(fn func(hash, bitmap []byte) error) error {
	it := &hashIter{rest: l}
	for it.Next() {
		if err := fn(it.Key(), it.Value()); err != nil {
			return err
		}
	}
	return it.Err()
}

// sorted walks them; an error where they do not ascend.
func (l hashList) sorted() zone.Iterator { return &hashIter{rest: l, ascend: true} }

type hashIter struct {
	rest       hashList
	ascend     bool
	key, value []byte
	err        error
}

// Next implements zone.Iterator.
func (i *hashIter) Next() bool {
	if i.err != nil || len(i.rest) == 0 {
		return false
	}
	if len(i.rest) < hashHead {
		i.err = errShare
		return false
	}
	key, n := i.rest[:signer.HashSize], int(binary.BigEndian.Uint16(i.rest[signer.HashSize:]))
	if len(i.rest)-hashHead < n || i.ascend && i.key != nil && string(key) <= string(i.key) {
		i.err = errShare
		return false
	}
	i.key, i.value, i.rest = key, i.rest[hashHead:hashHead+n], i.rest[hashHead+n:]
	return true
}

// Key implements zone.Iterator.
func (i *hashIter) Key() []byte { return i.key }

// Value implements zone.Iterator.
func (i *hashIter) Value() []byte { return i.value }

// Err implements zone.Iterator.
func (i *hashIter) Err() error { return i.err }

// Close implements zone.Iterator.
func (i *hashIter) Close() error { return nil }
