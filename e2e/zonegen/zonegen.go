// Package zonegen writes zones of any size for tests and measurements. What it
// writes depends on its Config alone, so that two runs, or two machines, work
// on the same bytes.
package zonegen

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// Kind says what sort of zone is written.
type Kind string

const (
	// TLD is a zone of delegations: 2.5 NS each, drawn from 4,000 name servers
	// of 1,000 providers, 60 % with a DS, 5 % with glue.
	TLD Kind = "tld"
	// Hosting is a zone of hosts: A, AAAA, MX, TXT and CNAME, 2.36 records a
	// name.
	Hosting Kind = "hosting"
)

const (
	ttl       = 3600
	providers = 1000
)

// Config describes a zone. Kind and Names must be given.
type Config struct {
	Kind  Kind
	Names int // delegations or host names below the apex
	// Zone is the apex; "tld." or "hosting.example." when empty.
	Zone string
	// Serial is the SOA serial before any change; 1 when zero.
	Serial uint32
	// Change is the number of names that an edit changes: one is modified, the
	// next added, the next removed, in turn. At most Names. The serial is then
	// higher by Round.
	Change int
	// ModifyOnly changes one signed RRset in place at each of the names: the DS
	// set of a delegation (which may be new), an A or CNAME of a host.
	ModifyOnly bool
	// Round tells one set of changes from another; 1 when zero. Each round is
	// made from the base zone.
	Round uint32
	// Offset moves the changes on by so many names.
	Offset int
}

// Apex returns the zone's name with its final dot.
func (c Config) Apex() string {
	switch {
	case c.Zone == "" && c.Kind == Hosting:
		return "hosting.example."
	case c.Zone == "":
		return "tld."
	case strings.HasSuffix(c.Zone, "."):
		return c.Zone
	default:
		return c.Zone + "."
	}
}

// SOASerial returns the serial of the zone that Write writes.
func (c Config) SOASerial() uint32 {
	serial := max(c.Serial, 1)
	if c.Change > 0 {
		serial += max(c.Round, 1)
	}
	return serial
}

// Write writes the zone as a zone file. The names come in an order that is
// random with respect to the canonical one.
func Write(w io.Writer, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	g := newGenerator(w, c)
	g.apex(c)
	for i := range c.Names {
		g.name(c, i, editOf(c, i))
	}
	return g.flush()
}

// WriteChanged writes the apex and those names that the edit changes, and no
// others: to before as they are without it, to after as they are with it.
func WriteChanged(before, after io.Writer, c Config) error {
	if err := c.check(); err != nil {
		return err
	}
	base := c
	base.Change = 0
	one, two := newGenerator(before, c), newGenerator(after, c)
	one.apex(base)
	two.apex(c)
	for j := range c.Change {
		i := (j*c.Names/c.Change + c.Offset) % c.Names
		one.name(c, i, unchanged)
		two.name(c, i, editOf(c, i))
	}
	return errors.Join(one.flush(), two.flush())
}

func (c Config) check() error {
	if c.Kind != TLD && c.Kind != Hosting {
		return fmt.Errorf("zone kind %q: want %s or %s", c.Kind, TLD, Hosting)
	}
	if c.Names < 1 || c.Change < 0 || c.Change > c.Names {
		return fmt.Errorf("%d names, %d changes: want at least one name and at most as many changes", c.Names, c.Change)
	}
	if c.Names > maxNames {
		return fmt.Errorf("%d names: want at most %d", c.Names, maxNames)
	}
	if c.Offset < 0 || c.Offset >= c.Names {
		return fmt.Errorf("offset %d: want one of the %d names", c.Offset, c.Names)
	}
	return nil
}

type edit int

const (
	unchanged edit = iota
	modified
	added
	removed
)

// editOf spreads the changes evenly over the names.
func editOf(c Config, i int) edit {
	if c.Change == 0 {
		return unchanged
	}
	i = (i - c.Offset + c.Names) % c.Names
	// j is the change whose name this is, if it is one.
	j := (i*c.Change + c.Names - 1) / c.Names
	if j >= c.Change || j*c.Names/c.Change != i {
		return unchanged
	}
	if c.ModifyOnly {
		return modified
	}
	return modified + edit(j%3)
}

type generator struct {
	w     *bufio.Writer
	round uint64
	line  []byte
	owner []byte
}

func newGenerator(w io.Writer, c Config) *generator {
	return &generator{w: bufio.NewWriterSize(w, 1<<16), round: uint64(max(c.Round, 1))}
}

func (g *generator) flush() error {
	if err := g.w.Flush(); err != nil {
		return fmt.Errorf("write zone: %w", err)
	}
	return nil
}

// name writes the name of that number as an edit leaves it.
func (g *generator) name(c Config, i int, e edit) {
	write := g.delegation
	if c.Kind == Hosting {
		write = g.host
	}
	switch e {
	case removed:
	case added:
		write(uint64(i), unchanged)
		write(uint64(i)+uint64(c.Names)*g.round, unchanged)
	case unchanged, modified:
		write(uint64(i), e)
	}
}

func (g *generator) apex(c Config) {
	apex := c.Apex()
	fmt.Fprintf(g.w, "$ORIGIN %s\n$TTL %d\n", apex, ttl)
	fmt.Fprintf(g.w, "@\t%d\tIN\tSOA\tns1 hostmaster %d 1800 900 604800 %d\n", ttl, c.SOASerial(), ttl)
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(g.w, "@\t%d\tIN\tNS\tns%d\n", ttl, i)
	}
	for i := 1; i <= 3; i++ {
		fmt.Fprintf(g.w, "ns%d\t%d\tIN\tA\t192.0.2.%d\n", i, ttl, i)
		fmt.Fprintf(g.w, "ns%d\t%d\tIN\tAAAA\t2001:db8::%d\n", i, ttl, i)
	}
	if c.Kind == Hosting {
		fmt.Fprintf(g.w, "@\t%d\tIN\tMX\t10 mail.provider.example.\n@\t%d\tIN\tTXT\t\"v=spf1 -all\"\n", ttl, ttl)
	}
}

func (g *generator) delegation(i uint64, e edit) {
	r := newDraw(i)
	g.setOwner(i)
	glue := r.percent(5)
	n := 2 + r.below(2)
	provider := r.below(providers)
	first := r.below(4)
	for k := range n {
		g.start("NS")
		if glue && k == 0 {
			g.line = append(append(g.line, "ns1."...), g.owner...)
		} else {
			g.line = fmt.Appendf(g.line, "ns%d.p%d.example.", 1+(first+k)%4, provider)
		}
		g.end()
	}
	hasDS := r.percent(60)
	tag, d := r.below(65536), r
	if e == modified {
		hasDS, d = true, newDraw(i+g.round<<48)
	}
	if hasDS {
		g.start("DS")
		g.line = fmt.Appendf(g.line, "%d 13 2 %016X%016X%016X%016X", tag, d.next(), d.next(), d.next(), d.next())
		g.end()
	}
	if glue {
		g.owner = append([]byte("ns1."), g.owner...)
		g.address(&r, r.percent(50))
	}
}

func (g *generator) host(i uint64, e edit) {
	r := newDraw(i)
	g.setOwner(i)
	d := r
	if e == modified {
		d = newDraw(i + g.round<<48)
	}
	if r.percent(12) {
		g.start("CNAME")
		g.line = fmt.Appendf(g.line, "web%d.provider.example.", d.below(1<<20))
		g.end()
		return
	}
	g.address(&d, false)
	r.next()
	if r.percent(60) {
		g.start("AAAA")
		g.line = fmt.Appendf(g.line, "2001:db8:%x::%x", r.below(65536), 1+r.below(65535))
		g.end()
	}
	if r.percent(50) {
		g.start("MX")
		g.line = fmt.Appendf(g.line, "10 mx%d.provider.example.", r.below(500))
		g.end()
	}
	if r.percent(45) {
		g.start("TXT")
		g.line = fmt.Appendf(g.line, "\"v=spf1 include:_spf%d.example -all\"", r.below(500))
		g.end()
	}
}

// address writes an A record and, if six, an AAAA record at the owner.
func (g *generator) address(r *draw, six bool) {
	g.start("A")
	g.line = fmt.Appendf(g.line, "10.%d.%d.%d", r.below(256), r.below(256), 1+r.below(254))
	g.end()
	if six {
		g.start("AAAA")
		g.line = fmt.Appendf(g.line, "2001:db8:%x::%x", r.below(65536), 1+r.below(65535))
		g.end()
	}
}

func (g *generator) setOwner(i uint64) {
	m := mix40(i)
	g.owner = strconv.AppendUint(g.owner[:0], m, 36)
	// Labels differ in length; the hyphen keeps them apart from short ones.
	if extra := m >> 7 % 8; extra > 1 {
		g.owner = append(g.owner, '-')
		for k := range extra {
			g.owner = append(g.owner, 'a'+byte(m>>(3*k)%26))
		}
	}
}

func (g *generator) start(rrtype string) {
	g.line = append(append(g.line[:0], g.owner...), "\t3600\tIN\t"...)
	g.line = append(append(g.line, rrtype...), '\t')
}

// end writes the line; an error stays in the writer until Flush.
func (g *generator) end() {
	_, _ = g.w.Write(append(g.line, '\n'))
}

// maxNames keeps the added names of 2^16 rounds within 40 bits.
const maxNames = 1 << 24

// mix40 is a bijection on 40 bits: different names stay different.
func mix40(i uint64) uint64 {
	const mask = 1<<40 - 1
	x := (i + 0x5bd1e995) & mask
	for range 3 {
		x = x * 0xd1342543de82ef95 & mask
		x ^= x >> 21
	}
	return x
}

// draw is a SplitMix64 sequence: the same start gives the same numbers.
type draw struct{ state uint64 }

func newDraw(seed uint64) draw {
	d := draw{seed * 0xff51afd7ed558ccd}
	d.next()
	return d
}

func (d *draw) next() uint64 {
	d.state += 0x9e3779b97f4a7c15
	z := d.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

func (d *draw) below(n int) int { return int(d.next() >> 33 % uint64(n)) }

func (d *draw) percent(p int) bool { return d.below(100) < p }
