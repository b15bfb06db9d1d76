package keymgr

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/signer/zone"
)

// A zone may have several signers, each with keys of its own (RFC 8901, model
// 2). Each publishes the public keys of all, so that whatever a cache holds of
// one validates with the DNSKEY RRset of another. A foreign key stands in our
// RRset and never signs here.

// MaxForeign bounds the foreign keys of a zone, whose DNSKEY RRset every
// validator has to fetch.
const MaxForeign = 16

// usesForeign reports whether a key of another signer is in use.
func (k *Key) usesForeign() bool { return k.Foreign && k.InRRset() }

// ReadPublic reads the DNSKEY records of a zone out of text in zone file form,
// as BIND's K*.key files or the answer of another signer's server have it.
// Other records are passed over. Each becomes the description of a key: a KSK
// with SEP, a ZSK without.
func ReadPublic(text []byte, apex zone.Name) ([]event.Key, error) {
	parser := dns.NewZoneParser(bytes.NewReader(text), apex.String(), "")
	parser.SetDefaultTTL(0)
	var out []event.Key
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		record, isKey := rr.(*dns.DNSKEY)
		if !isKey {
			continue
		}
		owner, err := zone.ParseName(record.Hdr.Name)
		if err != nil {
			return nil, err
		}
		if !owner.Equal(apex) {
			return nil, fmt.Errorf("the DNSKEY with tag %d belongs to zone %s, not to %s", record.KeyTag(), owner, apex)
		}
		k, err := foreignKey(record)
		if err != nil {
			return nil, fmt.Errorf("DNSKEY with tag %d: %w", record.KeyTag(), err)
		}
		if !slices.ContainsFunc(out, func(o event.Key) bool { return o.ID == k.ID }) {
			out = append(out, k)
		}
		if len(out) > 2*MaxForeign {
			return nil, fmt.Errorf("more than %d DNSKEY records", 2*MaxForeign)
		}
	}
	if err := parser.Err(); err != nil {
		return nil, err
	}
	if len(out) == 0 {
		return nil, errors.New("no DNSKEY record")
	}
	return out, nil
}

// foreignKey describes the key of a DNSKEY record.
func foreignKey(record *dns.DNSKEY) (event.Key, error) {
	field, err := base64.StdEncoding.DecodeString(record.PublicKey)
	if err != nil {
		return event.Key{}, fmt.Errorf("public key: %w", err)
	}
	rdata := append([]byte{byte(record.Flags >> 8), byte(record.Flags), record.Protocol, record.Algorithm}, field...)
	switch {
	case record.Flags&FlagZone == 0:
		return event.Key{}, errors.New("its flags say that it is no zone key (RFC 4034, 2.1.1)")
	case record.Flags&FlagRevoke != 0:
		return event.Key{}, errors.New("it is revoked (RFC 5011)")
	}
	if _, err := PublicKey(rdata); err != nil {
		return event.Key{}, err
	}
	role := ZSK
	if record.Flags&FlagSEP != 0 {
		role = KSK
	}
	return Describe(role, rdata), nil
}

// joining is the foreign keys that stand nowhere yet, and whether they may: each
// algorithm must be one that the zone is signed with here, since a DNSKEY
// RRset wants signatures of each of its algorithms (RFC 4035, 2.2; RFC 8901,
// 4).
func (ks KeySet) joining() (ids []string, err error) {
	for i := range ks.Keys {
		k := &ks.Keys[i]
		if !k.Foreign || k.State != Generated || ks.taken(k.ID) {
			continue
		}
		if !ks.signsWith(k.Algorithm) {
			return nil, conflict("key %s of another signer has algorithm %d, with which the zone is not signed here: "+
				"all signers need the same algorithms (RFC 8901, 4); have the other signer change, and take the key out: sluice key remove", k.ID, k.Algorithm)
		}
		ids = append(ids, k.ID)
	}
	slices.Sort(ids)
	return ids, nil
}

// signsWith reports whether keys that stand in the DNSKEY RRset sign all with
// an algorithm.
func (ks KeySet) signsWith(algorithm uint8) bool {
	var keys, zone bool
	for _, k := range ks.Signing() {
		if k.Algorithm == algorithm && k.InRRset() {
			keys, zone = keys || k.SignsKeys(), zone || k.SignsZone()
		}
	}
	return keys && zone
}

// Algorithms is the algorithms that the zone is signed with, keys and all else,
// ascending; none for one that has no keys yet.
func (ks KeySet) Algorithms() []uint8 {
	var out []uint8
	for _, k := range ks.Signing() {
		if !slices.Contains(out, k.Algorithm) && ks.signsWith(k.Algorithm) {
			out = append(out, k.Algorithm)
		}
	}
	slices.Sort(out)
	return out
}

// PlanLeave is the way out for a key of another signer: it goes once no server
// shows signatures by it, and no cache holds any.
func (ks KeySet) PlanLeave(id string) (Plan, error) {
	k, ok := ks.ByID(id)
	switch {
	case !ok || !k.Foreign:
		return Plan{}, conflict("key %s is no key of another signer", id)
	case !k.InRRset():
		return Plan{}, conflict("key %s is %s", id, k.State)
	}
	plan := Plan{Kind: RollForeign, Method: Leave, Old: []string{id}, Reason: "the other signer leaves, or has another key"}
	if k.SignsKeys() {
		plan.Method = LeaveDS
	}
	return plan, nil
}

// planJoin is the way in for the keys of other signers.
func (ks KeySet) planJoin(plan Plan) (Plan, error) {
	ids, err := ks.joining()
	if err != nil {
		return plan, err
	}
	if len(ids) == 0 {
		return plan, conflict("no key of another signer waits to be published: sluice key import --public")
	}
	plan.New, plan.Method = ids, Join
	if len(ks.only(ids, (*Key).SignsKeys)) > 0 {
		plan.Method = JoinDS
	}
	return plan, nil
}

// stepsForeign is the course of keys of other signers.
func (r *Rollover) stepsForeign() []step {
	publish := step{name: "publish", text: "publish the other signer's keys", enter: publishNew, see: []Sight{SeeKeys}, wait: Timing.ipub}
	welcome := step{name: "done", text: "the other signer's answers validate with what caches have from here", enter: nothing}
	leave := step{
		name: "leave", text: "wait until the other signer's signatures are gone",
		enter: nothing, see: []Sight{SeeSigs}, wait: Timing.iretForeign,
	}
	switch r.Method {
	case JoinDS:
		ds := step{name: "add-ds", text: "have the parent add the DS of the other signer's keys", enter: submitForeign, see: []Sight{SeeDS}, wait: Timing.ipubP}
		return []step{publish, ds, welcome}
	case Leave:
		return []step{leave, stepRemove()}
	case LeaveDS:
		ds := step{name: "remove-ds", text: "have the parent remove the DS of the other signer's key", enter: dropForeign, see: []Sight{SeeDSGone}}
		return []step{leave, ds, stepRemove()}
	case Join, PrePublication, DoubleSignature, DoubleKSK, DoubleDS, DoubleRRset, Conservative, FirstDS, LastDS:
	}
	return []step{publish, welcome}
}

// submitForeign tells the parent of foreign keys.
func submitForeign(ks KeySet, r *Rollover, p RollPolicy) []event.Facts {
	if ks.DS.Since.IsZero() || ks.DS.Withdrawn {
		return nil
	}
	return []event.Facts{ks.submitAs(ks.only(r.New, (*Key).SignsKeys), nil, p)}
}

// submitAs adds keys to what the parent was told, and takes some out: all else
// stays, also that of a key that a rollover has removed already. CDS stay away
// where a rollover keeps them away.
func (ks KeySet) submitAs(come, leave []string, p RollPolicy) *event.DSSubmitted {
	ids := slices.Concat(ks.DS.Wanted, ks.foreignDS(), come)
	ids = slices.DeleteFunc(ids, func(id string) bool { return slices.Contains(leave, id) })
	slices.Sort(ids)
	byHand := slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool {
		return r.Kind == RollKSK && (r.Method == DoubleDS || r.Method == DoubleRRset)
	})
	return &event.DSSubmitted{IDs: slices.Compact(ids), CDS: p.CDS && !byHand}
}

func dropForeign(ks KeySet, r *Rollover, p RollPolicy) []event.Facts {
	if !slices.ContainsFunc(r.Old, func(id string) bool { return slices.Contains(ks.DS.Wanted, id) }) {
		return nil
	}
	return []event.Facts{ks.submitAs(nil, r.Old, p)}
}

// foreignDS is the keys of other signers that the parent is to have DS records
// of: those that every cache knows, but those that leave.
func (ks KeySet) foreignDS() []string {
	var out []string
	for i := range ks.Keys {
		k := &ks.Keys[i]
		on := !slices.ContainsFunc(ks.Rollovers, func(r Rollover) bool {
			coming := slices.Contains(r.New, k.ID) && r.Step < 2
			going := slices.Contains(r.Old, k.ID) && r.Step > 1
			return r.Kind == RollForeign && (coming || going)
		})
		if k.usesForeign() && k.SignsKeys() && on {
			out = append(out, k.ID)
		}
	}
	return out
}

// abortForeign ends the way of foreign keys.
func (r *Rollover) abortForeign(ks KeySet, p RollPolicy, end []event.Facts) ([]event.Facts, error) {
	joins := r.Method == Join || r.Method == JoinDS
	switch {
	case r.Step <= 1 && joins:
		return append(end, &event.KeyRemoved{IDs: r.New}), nil
	case joins:
		return nil, errors.New("the parent may have taken up the DS: let the rollover end, then: sluice key remove")
	case r.Step <= 1:
		return end, nil
	}
	if ks.DS.Since.IsZero() || ks.DS.Withdrawn {
		return end, nil
	}
	return append(end, ks.submitAs(r.Old, nil, p)), nil
}

// untold reports whether the parent has nothing to do with the keys: it was
// told of none, and no cache holds a DS, or none that names those foreign ones
// that leave.
func (r *Rollover) untold(ks KeySet, s Sight, k Known) bool {
	switch r.Kind {
	case RollForeign:
	case RollCSK, RollAlgorithm:
		return (s == SeeDS || s == SeeDSGone) && !ks.secure() && ks.DS.HeldUntil(k.Now, k.Timing.DSMargin()).IsZero()
	case RollZSK, RollKSK, RollSecure, RollInsecure:
		return false
	}
	switch s {
	case SeeDS:
		return !ks.MayGetDS() && ks.DS.HeldUntil(k.Now, k.Timing.DSMargin()).IsZero()
	case SeeDSGone:
		return ks.DS.Since.IsZero() && !slices.ContainsFunc(ks.DS.Sets, func(set event.DSSet) bool { return hasDSOf(set.DS, r.Old) })
	case SeeKeys, SeeSigs, ReportNext:
	}
	return false
}

// OtherSigner reports whether a server of the zone shows what another signer
// made: its SOA has signatures by foreign keys, and none by ours.
func (ks KeySet) OtherSigner(at Seen) bool {
	foreign := false
	for _, s := range at.Signed {
		if s.Type != "SOA" || s.Key == "" {
			continue
		}
		if k, ok := ks.ByID(s.Key); ok && !k.Foreign {
			return false
		} else if ok {
			foreign = true
		}
	}
	return foreign
}

// lacksSigsOfOther is what another signer's server has to show: nothing by keys
// that leave, and all by an algorithm that comes.
func (r *Rollover) lacksSigsOfOther(ks KeySet, at Seen) string {
	if by := r.signedBy(ks, at); by != "" {
		return by
	}
	if r.Kind != RollAlgorithm {
		return ""
	}
	for _, id := range r.New {
		k, ok := ks.ByID(id)
		signs := slices.ContainsFunc(at.Signed, func(s SeenSignature) bool { return s.Type == "SOA" && s.Algorithm == k.Algorithm })
		if ok && !signs {
			return fmt.Sprintf("does not show signatures of algorithm %d: its signer has to change, too (RFC 8901, 4)", k.Algorithm)
		}
	}
	return ""
}

// silentSigner is another signer whose keys are published, and none of whose
// servers shows that it changes its algorithm with us: resolvers may ask them
// for as long as they know the delegation.
func (r *Rollover) silentSigner(ks KeySet, s Sight, seen []Seen) []Missing {
	if r.Kind != RollAlgorithm || r.Step != 1 || s != SeeSigs || len(ks.filter((*Key).usesForeign)) == 0 ||
		slices.ContainsFunc(seen, ks.OtherSigner) {
		return nil
	}
	return []Missing{{
		Server: "another signer of the zone", Reason: notChanging,
	}}
}

// signedBy says that a server shows signatures of foreign keys that leave.
func (r *Rollover) signedBy(ks KeySet, at Seen) string {
	for _, id := range ks.only(r.Old, func(k *Key) bool { return k.Foreign }) {
		if slices.ContainsFunc(at.Signed, func(s SeenSignature) bool { return s.Key == id }) {
			return "still shows signatures of key " + id
		}
	}
	return ""
}

// carriesOthers reports whether keys that sign have each algorithm of those in
// the DNSKEY RRset that do not: of other signers, or standing by.
func (ks KeySet) carriesOthers() error {
	for _, k := range ks.Published() {
		if k.Signs() || ks.signsWith(k.Algorithm) {
			continue
		}
		if k.Foreign {
			return fmt.Errorf("the DNSKEY RRset would keep key %s of another signer of algorithm %d, with which nothing would be signed here: "+
				"have that signer change, import its new keys, and take this one out: sluice key remove", k.ID, k.Algorithm)
		}
		if k.State == Published {
			return fmt.Errorf("the DNSKEY RRset would keep key %s of algorithm %d, with which nothing would be signed any more: "+
				"take it out: sluice key remove", k.ID, k.Algorithm)
		}
	}
	return nil
}
