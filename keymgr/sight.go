package keymgr

import (
	"slices"

	"sluice/signer/zone"
)

// reasons of Missing that are no contradiction: the server says nothing.
const (
	notAsked     = "were not asked yet"
	notAnswering = "gives no answer: "
	notValidated = "gives an answer about the DS that is not validated"
	notChanging  = "whose keys are published shows nowhere that it signs with the new algorithm: if it is gone, take its keys out (sluice key remove)"
	notCurrent   = "does not have the zone with the newest keys' signatures yet"
)

// contrary reports whether the server shows something else, rather than
// nothing.
func (m Missing) contrary() bool {
	return m.Since.IsZero() && m.Reason != notAsked && m.Reason != notValidated && m.Reason != notCurrent && m.Reason != notChanging
}

// look lists the servers that do not show what a sight is about.
func (r *Rollover) look(ks KeySet, s Sight, k Known) []Missing {
	if r.untold(ks, s, k) {
		return nil
	}
	o := k.Observation
	after := r.Since
	if s == SeeKeys || s == SeeSigs {
		after = k.Served.At
	}
	if o == nil || o.At.Before(after) {
		return []Missing{{Server: whose(s), Reason: notAsked}}
	}
	seen, parent := o.Zone, false
	if s == SeeDS || s == SeeDSGone {
		seen, parent = o.Parent, true
	}
	if len(seen) == 0 {
		return []Missing{{Server: whose(s), Reason: notAsked}}
	}
	out := r.silentSigner(ks, s, seen)
	for _, at := range seen {
		m := Missing{Server: at.Server, Address: at.Address}
		switch {
		case at.Error != "":
			m.Reason, m.Since = notAnswering+at.Error, at.Since
			if m.Since.IsZero() {
				m.Since = o.At
			}
		case parent && !at.Validated:
			m.Reason = notValidated
		default:
			m.Reason = r.lacks(ks, s, k, at)
		}
		if m.Reason != "" {
			out = append(out, m)
		}
	}
	return out
}

// whose names the servers that a sight is looked for at.
func whose(s Sight) string {
	if s == SeeDS || s == SeeDSGone {
		return "the parent's servers"
	}
	return "the zone's servers"
}

// lacks says what a server that answers does not show; "" where it shows all.
func (r *Rollover) lacks(ks KeySet, s Sight, k Known, at Seen) string {
	switch s {
	case SeeKeys:
		return r.lacksKeys(ks, at)
	case SeeSigs:
		return r.lacksSigs(ks, k, at)
	case SeeDS:
		for _, id := range ks.only(r.New, (*Key).SignsKeys) {
			if !hasDSOf(at.DS, []string{id}) {
				return "does not show the DS of key " + id
			}
		}
	case SeeDSGone:
		if r.Kind == RollInsecure && !at.NoDS {
			return "still shows a DS"
		}
		for _, id := range ks.only(r.Old, (*Key).SignsKeys) {
			if hasDSOf(at.DS, []string{id}) {
				return "still shows the DS of key " + id
			}
		}
	case ReportNext:
	}
	return ""
}

// lacksKeys looks at the DNSKEY RRset and its signatures: a key that stood by
// was shown before it signed.
func (r *Rollover) lacksKeys(ks KeySet, at Seen) string {
	for _, id := range ks.only(r.New, (*Key).InRRset) {
		if !slices.Contains(at.Keys, id) {
			return "does not show key " + id
		}
	}
	for _, id := range ks.only(r.Old, func(k *Key) bool { return !k.InRRset() }) {
		if slices.Contains(at.Keys, id) {
			return "still shows key " + id
		}
	}
	if ks.OtherSigner(at) {
		return "" // its own keys sign it
	}
	for _, id := range ks.only(r.New, func(k *Key) bool { return k.InRRset() && k.Signs() && k.SignsKeys() }) {
		if !slices.ContainsFunc(at.Signed, func(s SeenSignature) bool { return s.Type == "DNSKEY" && s.Key == id }) {
			return "does not show the DNSKEY RRset signed by key " + id
		}
	}
	return ""
}

// lacksSigs compares the serial, which vouches for all signatures, and the
// signatures that were looked at.
func (r *Rollover) lacksSigs(ks KeySet, k Known, at Seen) string {
	if ks.OtherSigner(at) {
		return r.lacksSigsOfOther(ks, at)
	}
	if zone.Serial(at.Serial).Before(k.Served.Serial) {
		return notCurrent
	}
	has := func(id string) bool {
		key := &ks.Keys[ks.index(id)]
		return slices.ContainsFunc(at.Signed, func(s SeenSignature) bool {
			// What the DNSKEY RRset does not hold cannot be verified.
			return s.Type == "SOA" && s.Tag == key.Tag && s.Algorithm == key.Algorithm && (s.Key == id || !slices.Contains(at.Keys, id))
		})
	}
	for _, id := range ks.only(r.New, func(k *Key) bool { return k.SignsZone() && k.Signs() }) {
		if !has(id) {
			return "does not show signatures of key " + id
		}
	}
	for _, id := range ks.only(r.Old, func(k *Key) bool { return k.SignsZone() && !k.Signs() && !k.Foreign }) {
		if has(id) {
			return "still shows signatures of key " + id
		}
	}
	return r.signedBy(ks, at)
}
