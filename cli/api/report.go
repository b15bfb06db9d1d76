package api

import (
	"encoding/hex"
	"time"

	"sluice/signer"
)

// Report is what a verification of a signed zone found.
type Report struct {
	Zone       string     `json:"zone"`
	OK         bool       `json:"ok"`
	FaultCount uint64     `json:"fault_count"`
	Faults     []Fault    `json:"faults"` // the first ones
	Notices    []string   `json:"notices,omitempty"`
	Serial     uint32     `json:"serial"`
	Denial     string     `json:"denial"`
	Records    uint64     `json:"records"` // RRSIG and NSEC3 with them
	RRsets     uint64     `json:"rrsets"`  // RRSIGs not counted
	Signatures uint64     `json:"signatures"`
	Checked    uint64     `json:"checked"` // of the signatures, verified with the public key
	Keys       int        `json:"keys"`
	Earliest   *time.Time `json:"earliest_expiry,omitempty"`
	ZONEMD     bool       `json:"zonemd"` // there was one, and it was verified
	// ContentDigest is that of the contents without the signer's own records.
	ContentDigest string `json:"content_digest"`
}

// Fault is one thing wrong with a zone.
type Fault struct {
	Owner  string `json:"owner"`
	Type   string `json:"type"`
	Rule   string `json:"rule"`
	Detail string `json:"detail"`
}

// ReportOf puts a verifier's report into the form of the API.
func ReportOf(name string, r *signer.Report) Report {
	out := Report{
		Zone: name, OK: r.OK(), FaultCount: r.FaultCount, Faults: []Fault{}, Notices: r.Notices,
		Serial: uint32(r.Serial), Denial: string(r.Denial), Records: r.Records, RRsets: r.RRsets,
		Signatures: r.Signatures, Checked: r.Checked, Keys: r.Keys, ZONEMD: r.ZONEMD,
		ContentDigest: hex.EncodeToString(r.ContentSum[:]),
	}
	if !r.Earliest.IsZero() {
		earliest := r.Earliest.UTC()
		out.Earliest = &earliest
	}
	for _, f := range r.Faults {
		out.Faults = append(out.Faults, Fault{
			Owner: f.Owner.String(), Type: f.Type.String(), Rule: string(f.Rule), Detail: f.Detail,
		})
	}
	return out
}
