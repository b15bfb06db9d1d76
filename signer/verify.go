package signer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"sluice/signer/zone"
)

// VerifyOptions says what Verify holds a zone against.
type VerifyOptions struct {
	Apex zone.Name
	// At is the moment at which all signatures must be valid.
	At time.Time
	// Anchors are trust anchors; one of them must stand for a key that signs
	// the DNSKEY RRset. Without any, a key of the set with the SEP flag must.
	Anchors []Anchor
	// AlsoSigning lists, as DNSKEY RDATA, the keys that may sign without
	// standing in the DNSKEY RRset: those that an algorithm rollover is
	// introducing or withdrawing (RFC 6781, 4.1.4). Their RRSIGs must verify.
	AlsoSigning [][]byte
	// Every, above 1, checks with the public key the signatures of the first
	// 1,000 RRsets and of 1 in so many of the others. All else is checked in
	// full.
	Every   uint64
	Workers int // 0: one a core
	// MaxFaults is how many faults the report lists; 0: 100.
	MaxFaults int
	// Spill is needed for a zone with NSEC3.
	Spill zone.Spill
	// ContentSum and SignedSum, where set, are the digests that the zone must
	// have.
	ContentSum, SignedSum *[32]byte
}

// Anchor is a trust anchor: a DS or a DNSKEY record.
type Anchor struct {
	Type  zone.Type // TypeDS or TypeDNSKEY
	RData []byte
}

// Rule names what a fault breaks.
type Rule string

// The rules.
const (
	RuleApex      Rule = "apex"      // SOA, NS and DNSKEY as they must be
	RuleTrust     Rule = "trust"     // the DNSKEY RRset is signed by an anchor or a SEP key
	RuleSignature Rule = "signature" // an RRSIG verifies, and its fields fit
	RuleTime      Rule = "time"      // an RRSIG is valid at the moment
	RuleUnsigned  Rule = "unsigned"  // each algorithm signs each RRset
	RuleOrphan    Rule = "orphan"    // no RRSIG by an unpublished key or over nothing
	RuleGlue      Rule = "glue"      // no RRSIG over data that is not authoritative
	RuleTTL       Rule = "ttl"       // TTLs fit the original TTL
	RuleChain     Rule = "chain"     // the denial chain is whole
	RuleBitmap    Rule = "bitmap"    // a denial record shows the right types
	RuleZONEMD    Rule = "zonemd"    // the ZONEMD digest is right
	RuleCDS       Rule = "cds"       // CDS and CDNSKEY fit the DNSKEY RRset
	RuleDigest    Rule = "digest"    // the zone is the one expected
)

// Fault is one thing wrong with a zone.
type Fault struct {
	Owner  zone.Name
	Type   zone.Type
	Rule   Rule
	Detail string
}

// String is the fault in one line.
func (f Fault) String() string {
	return fmt.Sprintf("%v %v: %s: %s", f.Owner, f.Type, f.Rule, f.Detail)
}

// Report is what Verify found.
type Report struct {
	Faults     []Fault // the first ones, in the order of the zone
	FaultCount uint64  // of all faults
	Notices    []string
	Records    uint64 // RRSIG and NSEC3 with them
	RRsets     uint64 // RRSIGs not counted
	Signatures uint64 // RRSIG records
	Checked    uint64 // of these, verified with the public key
	Serial     zone.Serial
	Denial     Denial
	Keys       int
	// Earliest is the first expiration among all RRSIGs; zero without any.
	Earliest   time.Time
	ContentSum [32]byte // digest of the contents without the signer's own records
	ZONEMD     bool     // a ZONEMD record was there and was verified
}

// OK reports whether the zone has no fault.
func (r *Report) OK() bool { return r.FaultCount == 0 }

// Err is nil for a zone without a fault, else an error with the first faults.
func (r *Report) Err() error {
	if r.OK() {
		return nil
	}
	shown := r.Faults[:min(3, len(r.Faults))]
	errs := make([]error, 0, len(shown)+1)
	for _, f := range shown {
		errs = append(errs, errors.New(f.String()))
	}
	if more := r.FaultCount - uint64(len(shown)); more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// Verify checks a signed zone from its records alone. items are those of all
// kinds in the order of zone.Merge. What is wrong with the zone stands in the
// report; the error is for what kept Verify from looking (an iterator, the
// spill, items out of order, the context). Its memory does not grow with the
// zone.
func Verify(ctx context.Context, items zone.Iterator, o VerifyOptions) (*Report, error) {
	v, err := newVerifier(o)
	if err == nil {
		err = v.run(ctx, items)
	}
	if err != nil {
		return nil, fmt.Errorf("verify %v: %w", o.Apex, err)
	}
	return v.report, nil
}

// verifier is one call of Verify. Its fields belong to the goroutine that
// reads the items, but for faults.
type verifier struct {
	opts    VerifyOptions
	apex    zone.Name
	apexKey []byte
	at      uint32
	report  *Report
	faults  faultList
	pool    *checkPool
	seq     uint64 // RRsets so far

	group    group
	lastKey  []byte
	keys     verifyKeys
	unsigned bool // no DNSKEY: nothing can be verified
	partial  bool // not the whole zone is read: no digests
	zonemd   *zonemdCheck
	denial   denialCheck
}

func newVerifier(o VerifyOptions) (*verifier, error) {
	if _, err := zone.NameFromWire([]byte(o.Apex)); err != nil {
		return nil, fmt.Errorf("apex: %w", err)
	}
	if o.MaxFaults <= 0 {
		o.MaxFaults = 100
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	v := &verifier{
		opts:    o,
		apex:    o.Apex.Fold(),
		apexKey: zone.AppendOwnerKey(nil, o.Apex),
		at:      uint32(o.At.Unix()),
		report:  &Report{},
	}
	v.faults.limit = o.MaxFaults
	for _, rdata := range o.AlsoSigning {
		k, err := parsePublicKey(rdata)
		if err != nil {
			return nil, fmt.Errorf("key that signs unpublished: %w", err)
		}
		v.keys.also = append(v.keys.also, k)
	}
	return v, nil
}

// run walks the items. Names are judged here, signatures by the pool.
func (v *verifier) run(ctx context.Context, items zone.Iterator) (err error) {
	v.pool = newCheckPool(ctx, v)
	err = v.walk(ctx, items)
	err = errors.Join(err, v.pool.finish())
	if err == nil {
		err = v.denial.finish(v)
		v.zonemd.finish(v)
	}
	err = errors.Join(err, v.denial.close())
	if err != nil {
		return err
	}
	v.compareDigests()
	v.report.Faults, v.report.FaultCount = v.faults.sorted()
	return nil
}

func (v *verifier) walk(ctx context.Context, items zone.Iterator) error {
	for n := 0; items.Next(); n++ {
		if n%1024 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := v.item(items.Key(), items.Value()); err != nil {
			return err
		}
	}
	if err := items.Err(); err != nil {
		return fmt.Errorf("read zone: %w", err)
	}
	if v.group.ownerKey == nil {
		return errors.New("the zone is empty")
	}
	return v.endGroup()
}

// item takes one item into the group of its owner.
func (v *verifier) item(key, value []byte) error {
	_, ownerKey, t, err := zone.SplitKey(key)
	if err == nil {
		err = checkItem(ownerKey, value)
	}
	if err != nil {
		return fmt.Errorf("read zone: %w", err)
	}
	if v.lastKey != nil {
		c := bytes.Compare(key[1:], v.lastKey[1:])
		if c < 0 || c == 0 && key[0] <= v.lastKey[0] {
			return errors.New("read zone: items out of order")
		}
	}
	v.lastKey = append(v.lastKey[:0], key...)
	if v.group.ownerKey == nil || !bytes.Equal(ownerKey, v.group.ownerKey) {
		if v.group.ownerKey != nil {
			if err := v.endGroup(); err != nil {
				return err
			}
		} else if !bytes.Equal(ownerKey, v.apexKey) {
			return errors.New("the zone does not begin with its apex")
		}
		if !bytes.HasPrefix(ownerKey, v.apexKey[:len(v.apexKey)-1]) {
			return errors.New("the zone goes beyond its apex")
		}
		if err := v.group.begin(ownerKey); err != nil {
			return fmt.Errorf("read zone: %w", err)
		}
	}
	v.group.add(zone.Kind(key[0]), t, key, value)
	return nil
}

// group is all items of one owner.
type group struct {
	ownerKey []byte
	name     []byte // wire form, lower case
	items    []groupItem
	data     []byte
}

type groupItem struct {
	kind       zone.Kind
	typ        zone.Type
	key, value span
}

func (g *group) begin(ownerKey []byte) (err error) {
	g.ownerKey = append(g.ownerKey[:0], ownerKey...)
	g.items, g.data = g.items[:0], g.data[:0]
	g.name, err = zone.AppendNameOfKey(g.name[:0], ownerKey)
	return err
}

func (g *group) add(kind zone.Kind, t zone.Type, key, value []byte) {
	i := groupItem{kind: kind, typ: t}
	i.key.from = len(g.data)
	g.data = append(g.data, key...)
	i.key.to, i.value.from = len(g.data), len(g.data)
	g.data = append(g.data, value...)
	i.value.to = len(g.data)
	g.items = append(g.items, i)
}

func (g *group) bytes(s span) []byte { return g.data[s.from:s.to] }

func (g *group) value(i *groupItem) zone.Value { return g.data[i.value.from:i.value.to] }

// find gives the RRset of a type, or nil.
func (g *group) find(t zone.Type) zone.Value {
	for i := range g.items {
		if it := &g.items[i]; it.typ == t && (it.kind == zone.KindContents || it.kind == zone.KindMade) {
			return g.value(it)
		}
	}
	return nil
}

// fault reports a fault at the present name.
func (v *verifier) fault(t zone.Type, rule Rule, format string, args ...any) {
	v.faultAt(zone.Name(v.group.name), t, rule, format, args...)
}

func (v *verifier) faultAt(owner zone.Name, t zone.Type, rule Rule, format string, args ...any) {
	v.faults.add(v.seq, Fault{owner, t, rule, fmt.Sprintf(format, args...)})
}

func (v *verifier) notice(format string, args ...any) {
	v.report.Notices = append(v.report.Notices, fmt.Sprintf(format, args...))
}

func (v *verifier) compareDigests() {
	v.seq++
	r := v.report
	var signed zone.SetHash
	content := new(zone.SetHash)
	for _, w := range v.pool.workers {
		content.AddSet(&w.content.Set)
		signed.AddSet(&w.signed.Set)
	}
	r.ContentSum = content.Sum()
	if want := v.opts.ContentSum; want != nil && *want != r.ContentSum {
		v.faultAt(v.apex, zone.TypeSOA, RuleDigest, "the contents are not those expected: digest %x, want %x", r.ContentSum, *want)
	}
	if want := v.opts.SignedSum; want != nil && *want != signed.Sum() {
		v.faultAt(v.apex, zone.TypeSOA, RuleDigest, "the signed zone is not the one expected: digest %x, want %x", signed.Sum(), *want)
	}
}

// faultList keeps the first faults in the order of the zone.
type faultList struct {
	limit int
	mu    sync.Mutex
	list  []orderedFault // guarded by mu
	count uint64         // guarded by mu
}

type orderedFault struct {
	seq uint64
	Fault
}

func (l *faultList) add(seq uint64, f Fault) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	l.list = append(l.list, orderedFault{seq, f})
	if len(l.list) >= 2*l.limit {
		l.cut()
	}
}

func (l *faultList) cut() {
	slices.SortStableFunc(l.list, func(a, b orderedFault) int {
		switch {
		case a.seq < b.seq:
			return -1
		case a.seq > b.seq:
			return 1
		}
		return bytes.Compare([]byte(a.Rule+Rule(a.Detail)), []byte(b.Rule+Rule(b.Detail)))
	})
	l.list = l.list[:min(l.limit, len(l.list))]
}

func (l *faultList) sorted() ([]Fault, uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut()
	out := make([]Fault, 0, len(l.list))
	for _, f := range l.list {
		out = append(out, f.Fault)
	}
	return out, l.count
}
