package chain

import (
	"net/netip"
	"time"

	"sluice/keymgr/validate"
	"sluice/signer/zone"
)

// Verdict is what a validator makes of the name.
type Verdict string

// The verdicts (RFC 4035, 4.3).
const (
	Secure      Verdict = "secure"      // all is signed and valid from the anchor down
	Insecure    Verdict = "insecure"    // it is proven that the zone is not signed
	Bogus       Verdict = "bogus"       // validators refuse the answers
	Unreachable Verdict = "unreachable" // no server of a zone on the way answers
	// Indeterminate: no trust anchor is at or above the zone.
	Indeterminate Verdict = "indeterminate"
)

// Report is what a check found.
type Report struct {
	Name    string    `json:"name"`
	Types   []string  `json:"types,omitempty"`
	Time    time.Time `json:"time"` // as of when signatures must be valid
	Verdict Verdict   `json:"verdict"`
	Healthy bool      `json:"healthy"` // nothing is broken and nothing a fault
	// Absent: it is answered that the name does not exist.
	Absent bool `json:"absent,omitempty"`
	// Summary says in one sentence how it is; of what is wrong, the first broken
	// link.
	Summary string `json:"summary"`
	// Do says what to do; empty where nothing is to be done.
	Do string `json:"do,omitempty"`
	// Anchors are those that the chain begins at.
	Anchors []string `json:"anchors"`
	// Links are the zones on the way, from the first that was asked. Those of an
	// alias's target follow.
	Links     []Link `json:"links"`
	Questions int64  `json:"questions"` // that were asked in all

	sets []found
}

// found is an RRset that was asked for.
type found struct {
	set    *validate.RRset
	secure bool
}

// Link is one zone on the way.
type Link struct {
	Zone    string  `json:"zone"`
	Verdict Verdict `json:"verdict"`
	// AboveAnchor: it is on the way to the anchor, and nothing of it counts.
	AboveAnchor bool `json:"above_anchor,omitempty"`

	DS       []DS         `json:"ds,omitempty"`
	Keys     []Key        `json:"keys,omitempty"`
	Denial   string       `json:"denial,omitempty"` // nsec, nsec3, nsec3-opt-out
	Expires  *time.Time   `json:"expires,omitempty"`
	Servers  []ServerSeen `json:"servers"`
	Findings []Finding    `json:"findings,omitempty"`
	Answers  []Answer     `json:"answers,omitempty"` // of the last zone: what was asked for; a DS is of its parent
}

// DS is a DS record of a zone at its parent.
type DS struct {
	Tag        uint16 `json:"tag"`
	Algorithm  uint8  `json:"algorithm"`
	DigestType uint8  `json:"digest_type"`
	Digest     string `json:"digest"`
	Matches    bool   `json:"matches"` // a key of the zone
}

// Key is a key of a DNSKEY RRset.
type Key struct {
	Tag       uint16 `json:"tag"`
	Algorithm uint8  `json:"algorithm"`
	Flags     uint16 `json:"flags"`
	Trusted   bool   `json:"trusted"` // a DS or the anchor stands for it
	Signs     bool   `json:"signs"`   // the DNSKEY RRset
}

// ServerSeen is a server's address, and what became of asking it.
type ServerSeen struct {
	Name    string         `json:"name"`
	Address netip.AddrPort `json:"address"`
	Serial  *uint32        `json:"serial,omitempty"`
	Millis  int64          `json:"took_ms,omitempty"` // the first answer
	Error   string         `json:"error,omitempty"`
}

// Finding is something that was found.
type Finding struct {
	Code     Code     `json:"code"`
	Severity Severity `json:"severity"`
	Zone     string   `json:"zone"`
	Owner    string   `json:"owner,omitempty"`
	Type     string   `json:"type,omitempty"`
	Text     string   `json:"text"` // a sentence, without the full stop
	Do       string   `json:"do"`
	// Servers show it; without any it is a matter of all.
	Servers []string `json:"servers,omitempty"`
	// More is how many further RRsets show the same.
	More int `json:"more,omitempty"`
	// At is when what it tells of happens or happened.
	At *time.Time `json:"at,omitempty"`
}

// Answer is what was answered to a question about the name.
type Answer struct {
	Owner  string   `json:"owner"`
	Type   string   `json:"type"`
	Result string   `json:"result"` // records, alias, no-data, no-name, none
	Secure bool     `json:"secure"`
	Data   []string `json:"data,omitempty"` // the records' data, as in a zone file

	open string // why validators do not count it as validated, though nothing is wrong
}

// Records are the RDATA of an RRset that was asked for, after aliases; secure
// says that they are validated from the anchor down, and each alias too.
func (r *Report) Records(t zone.Type) (owner zone.Name, data [][]byte, secure bool) {
	for _, f := range r.sets {
		if f.set.Type == t {
			return f.set.Owner, f.set.Data, f.secure && r.Verdict == Secure
		}
	}
	return "", nil, false
}

// Worst finds the first of the worst findings; nil where there is none that is
// a fault.
func (r *Report) Worst() *Finding {
	var worst *Finding
	for i := range r.Links {
		for j := range r.Links[i].Findings {
			f := &r.Links[i].Findings[j]
			if f.Severity.Rank() <= Fault.Rank() && (worst == nil || f.Severity.Rank() < worst.Severity.Rank()) {
				worst = f
			}
		}
	}
	return worst
}
