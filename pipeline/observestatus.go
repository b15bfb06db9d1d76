package pipeline

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline/observe"
	"sluice/signer/zone"
)

// ObservationStatus is what the world was last seen to see of a zone.
type ObservationStatus struct {
	keymgr.Observation
	Text    string     `json:"text"`              // a sentence
	NextAt  *time.Time `json:"next_at,omitempty"` // when it is asked again
	Running bool       `json:"running,omitempty"` // it is being asked now
}

// maxSeenNotices bounds the notices about servers of one side.
const maxSeenNotices = 4

// observationStatus tells what was seen, and what is wrong with it. The caller
// holds mu.
func (r *runner) observationStatus(st *ZoneStatus) {
	l := &r.sight
	if l.last == nil && !l.busy && l.next.IsZero() {
		return
	}
	o := &ObservationStatus{Text: "not asked yet", NextAt: timeOrNil(l.next), Running: l.busy}
	st.Observation = o
	if l.last == nil {
		return
	}
	o.Observation = *l.last
	v := r.expected()
	o.Text = v.text(o.Observation)
	st.Notices = append(st.Notices, v.notices(o.Observation)...)
}

// expectation is what the world should see.
type expectation struct {
	zone    string
	serial  uint32
	mode    Mode
	served  []keymgr.Key // of the published DNSKEY RRset, when it was asked
	cds     []string     // what CDS and CDNSKEY name, as events say it
	signing []string     // IDs of those that sign the DNSKEY RRset
	keys    []keymgr.Key // all that the zone ever had here
	// ahead says that the zone was published anew since it was asked.
	ahead bool
}

// expected is what the last observation should have shown. The caller holds
// mu.
func (r *runner) expected() expectation {
	s, l := r.state, &r.sight
	v := expectation{zone: s.Name, serial: l.serial, mode: ModeSign, keys: s.Keys.Keys}
	if pub := s.Published; pub != nil {
		v.mode = pub.Signed.mode()
		v.ahead = pub.Signed.Facts.Serial != l.serial
		v.cds = pub.Signed.Facts.CDS
	}
	for _, rdata := range l.served {
		role := keymgr.ZSK
		if len(rdata) > 1 && rdata[1]&keymgr.FlagSEP != 0 {
			role = keymgr.KSK
		}
		k := keymgr.Key{Key: keymgr.Describe(role, rdata)}
		own, known := s.Keys.ByID(k.ID)
		if !known || own.SignsKeys() && own.State == keymgr.Active {
			v.signing = append(v.signing, k.ID)
		}
		v.served = append(v.served, k)
	}
	return v
}

// text sums an observation up.
func (v expectation) text(o keymgr.Observation) string {
	answered, current := 0, 0
	for _, s := range o.Zone {
		if s.Error == "" {
			answered++
			if s.Serial == v.serial {
				current++
			}
		}
	}
	parts := []string{fmt.Sprintf("%d of %d addresses of the zone's servers answer, %d with serial %d", answered, len(o.Zone), current, v.serial)}
	switch {
	case len(o.Zone) == 0:
		parts[0] = "the zone has no server to ask"
	case answered == 0:
		parts[0] = fmt.Sprintf("none of %d addresses of the zone's servers answers", len(o.Zone))
	}
	if v.zone == "." {
		return parts[0]
	}
	var sets []string
	counts := map[string]int{}
	for _, s := range o.Parent {
		text := "gives no answer that counts"
		switch {
		case s.Validated && s.NoDS:
			text = "proves that there is no DS"
		case s.Validated:
			text = "has " + dsText(sortedDS(s.DS))
		case s.Insecure:
			text = "is not signed"
		}
		if counts[text]++; counts[text] == 1 {
			sets = append(sets, text)
		}
	}
	for _, text := range sets {
		parts = append(parts, fmt.Sprintf("the parent %s, at %d of %d addresses", text, counts[text], len(o.Parent)))
	}
	return strings.Join(parts, "; ")
}

// notices tells what is wrong with what was seen, and what to do.
func (v expectation) notices(o keymgr.Observation) []Notice {
	out := append(v.serverNotices(o), v.cdsNotices(o)...)
	if v.zone == "." {
		return out
	}
	return append(append(out, v.parentNotices(o)...), v.dsNotices(o)...)
}

// few keeps the first notices of a kind, counts the others, and says once what
// is to be done about all.
func few(list []Notice) []Notice {
	if n := len(list) - maxSeenNotices; n > 0 {
		list = slices.Clone(list[:maxSeenNotices])
		list[maxSeenNotices-1].Text = fmt.Sprintf("the same holds for %d further ones; see: sluice zone status --detailed", n+1)
	}
	for i := 1; i < len(list); i++ {
		if list[i-1].Hint == list[i].Hint {
			list[i-1].Hint = ""
		}
	}
	return list
}

// serverNotices is about the zone's own servers.
func (v expectation) serverNotices(o keymgr.Observation) []Notice {
	var silent, wrong []Notice
	var served []string
	for _, k := range v.served {
		served = append(served, k.ID)
	}
	slices.Sort(served)
	for _, s := range o.Zone {
		if s.Error != "" {
			silent = append(silent, Notice{
				Severity: severityWarning, Code: NoticeServerSilent, Since: sinceOf(s.Since),
				Text: fmt.Sprintf("name server %s gives no usable answer since %s: %s", serverText(s), s.Since.Format(time.RFC3339), s.Error),
				Hint: "steps of rollovers that must see all servers wait for it; where it is not to be asked: key-manager.publication-nameservers",
			})
			continue
		}
		keys := slices.Sorted(slices.Values(s.Keys))
		if s.Serial == v.serial && !v.ahead && !slices.Equal(slices.Compact(keys), served) {
			wrong = append(wrong, Notice{
				Severity: severityAlarm, Code: NoticeServerKeysDiffer,
				Text: fmt.Sprintf("name server %s has serial %d, and another DNSKEY RRset than what is published here", serverText(s), s.Serial),
				Hint: "find out where it transfers the zone from",
			})
		}
		if bad := unverified(s.Signed); bad != "" && len(v.served) > 0 {
			wrong = append(wrong, Notice{
				Severity: severityAlarm, Code: NoticeServerBogus,
				Text: fmt.Sprintf("name server %s shows no signature over %s that its own DNSKEY RRset verifies", serverText(s), bad),
				Hint: "validators that ask it take that for bogus; have it transfer the zone again, and see: sluice zone verify " + v.zone,
			})
		}
	}
	return append(few(silent), few(wrong)...)
}

// unverified names an RRset none of whose signatures verifies; "" where there
// is none.
func unverified(signed []keymgr.SeenSignature) string {
	good := map[string]bool{}
	var order []string
	for _, s := range signed {
		name := s.Owner + " " + s.Type
		if _, known := good[name]; !known {
			order = append(order, name)
		}
		good[name] = good[name] || s.Key != ""
	}
	for _, name := range order {
		if !good[name] {
			return name
		}
	}
	return ""
}

// parentNotices is about the parent's servers.
func (v expectation) parentNotices(o keymgr.Observation) []Notice {
	var silent, unproven []Notice
	for _, s := range o.Parent {
		switch {
		case s.Error != "" && s.Server == observe.UnknownParent:
			silent = append(silent, Notice{
				Severity: severityWarning, Code: NoticeParentUnknown, Since: sinceOf(s.Since),
				Text: fmt.Sprintf("the parent cannot be asked since %s: %s", s.Since.Format(time.RFC3339), s.Error),
				Hint: "name resolvers in the config (daemon.resolvers), or the parent's servers in the policy (key-manager.parent-nameservers)",
			})
		case s.Error != "":
			silent = append(silent, Notice{
				Severity: severityWarning, Code: NoticeParentSilent, Since: sinceOf(s.Since),
				Text: fmt.Sprintf("the parent's server %s gives no usable answer since %s: %s", serverText(s), s.Since.Format(time.RFC3339), s.Error),
				Hint: "steps of rollovers that must see the DS wait for it; where it is not to be asked: key-manager.parent-nameservers",
			})
		case s.Insecure:
			unproven = append(unproven, Notice{
				Severity: severityInfo, Code: NoticeParentUnsigned, Text: "the parent is not signed (" + s.Unvalidated + "): nobody can validate a DS from there",
				Hint: "in a closed network, name the parent's key in the config: daemon.trust-anchors",
			})
		case !s.Validated:
			unproven = append(unproven, Notice{
				Severity: severityWarning, Code: NoticeParentUnproved,
				Text: fmt.Sprintf("what the parent's server %s says of the DS does not count: %s", serverText(s), s.Unvalidated),
				Hint: "see daemon.trust-anchors and daemon.resolvers in the config; until then report what you see with your own eyes",
			})
		}
	}
	return append(few(silent), unproven[:min(len(unproven), 1)]...)
}

// dsNotices is about DS records that fit no key.
func (v expectation) dsNotices(o keymgr.Observation) []Notice {
	var all []event.DS
	for _, s := range o.Parent {
		if s.Validated {
			all = append(all, s.DS...)
		}
	}
	slices.SortFunc(all, compareDS)
	if all = slices.Compact(all); len(all) == 0 {
		return nil
	}
	if len(v.served) == 0 {
		return []Notice{{
			Severity: severityAlarm, Code: NoticeDSMismatch, Text: "the parent has " + dsText(all) + ", and the zone is not signed: it is bogus for everyone who validates",
			Hint: "have the DS removed at the parent, or sign the zone",
		}}
	}
	apex, err := zone.ParseName(v.zone)
	if err != nil {
		return nil
	}
	var out []Notice
	trusted := false
	for _, ds := range all {
		n, signs := v.dsNotice(apex, ds)
		trusted = trusted || signs
		if n != nil {
			out = append(out, *n)
		}
	}
	if !trusted {
		out = append(out, Notice{
			Severity: severityAlarm, Code: NoticeDSMismatch, Text: "no DS at the parent is of a key that signs: the zone is bogus for everyone who validates",
			Hint: "have the parent take what this prints: sluice key ds " + v.zone + "; how it is seen from outside: sluice check " + v.zone,
		})
	}
	return few(out)
}

// dsNotice says what is wrong with one DS, and whether a key that signs is
// behind it.
func (v expectation) dsNotice(apex zone.Name, ds event.DS) (n *Notice, signs bool) {
	text := fmt.Sprintf("DS %d (algorithm %d, digest type %d) at the parent ", ds.Tag, ds.Algorithm, ds.DigestType)
	if id := keymgr.DSKey(apex, ds, v.served); id != "" {
		return nil, slices.Contains(v.signing, id)
	}
	if i := slices.IndexFunc(v.keys, func(k keymgr.Key) bool { return k.ID == ds.Key }); ds.Key != "" && i >= 0 {
		k := v.keys[i]
		if k.State != keymgr.Removed {
			return nil, false // it comes, DS first
		}
		return &Notice{
			Severity: severityWarning, Code: NoticeDSStale, Since: sinceOf(k.Removed), Text: text + "is of key " + k.ID + ", which was removed at " + k.Removed.Format(time.RFC3339),
			Hint: "it is stale: have it removed at the parent",
		}, false
	}
	if slices.ContainsFunc(v.served, func(k keymgr.Key) bool { return k.Algorithm == ds.Algorithm }) {
		return &Notice{
			Severity: severityWarning, Code: NoticeDSUnknown, Text: text + "matches no key of the zone",
			Hint: "it does no harm beside one that matches; have it removed at the parent, unless another signer of the zone needs it",
		}, false
	}
	return &Notice{
		Severity: severityAlarm, Code: NoticeDSAlgorithm, Text: text + "is of an algorithm that no key of the zone has: validators may take the zone for bogus (RFC 6840, 5.11)",
		Hint: "have it removed at the parent; keys do not change before",
	}, false
}
