package keymgr

import (
	"fmt"
	"slices"
	"strings"

	"sluice/journal/event"
)

// Takeover is how a zone goes over from its former signer to this one: what
// its first signed instance has, and which rollovers of the former signer go
// on here.
type Takeover struct {
	// Adopted is how each key stands from then on. Keys that are left out wait
	// to be used.
	Adopted []event.AdoptedKey
	// Do is what is to be recorded. Keys that it lets sign must have proved
	// themselves.
	Do []event.Facts
	// Notes tells what was found, and how it was read.
	Notes []string
	// Refused says why caches would take the zone for bogus, and what to do; ""
	// where nothing speaks against it.
	Refused string
}

// TakeOver says how the keys that wait, imported ones among them, are taken
// over. What was observed counts more than what the former signer noted, and
// where neither says enough, a key stays in use. ks has what the parent has,
// where that is known; k.Observation what the public servers showed, with
// their key tags. It is pure.
func (ks KeySet) TakeOver(p RollPolicy, k Known) Takeover {
	t := takeover{ks: ks, k: k, p: p, state: map[string]State{}}
	t.look()
	for i := range ks.Keys {
		if key := &ks.Keys[i]; key.State == Generated && !key.Foreign {
			t.read(key)
		}
	}
	t.spare()
	for _, algorithm := range t.algorithms() {
		t.zoneKeys(algorithm)
	}
	t.introduced()
	t.foreign()
	t.parent()
	t.exchanges()
	return t.result()
}

// takeover is the work on one.
type takeover struct {
	ks KeySet
	k  Known
	p  RollPolicy

	// What the public servers show: the keys in their DNSKEY RRsets with their
	// tags, and those whose signatures over it and over the SOA they have.
	asked, insecure      bool
	shown                map[string]uint16
	signsKeys, signsZone map[string]bool
	keyTTL               uint32

	state map[string]State // of the keys that wait
	notes []string

	secure []string // IDs of the keys that the parent has a DS of, or is said to have
	seen   bool     // what the parent has was seen
	told   bool     // the keys in secure are those that it is said to have, and their DS were not seen
	leaves []string // IDs of the keys that it had a DS of, or was told to have, and has none any more
	wanted []string // IDs of those that it is to have

	rolls []event.Facts
}

func (t *takeover) note(format string, args ...any) {
	t.notes = append(t.notes, fmt.Sprintf(format, args...))
}

// look sums up what the public servers show.
func (t *takeover) look() {
	t.shown, t.signsKeys, t.signsZone = map[string]uint16{}, map[string]bool{}, map[string]bool{}
	o := t.k.Observation
	if o == nil {
		return
	}
	for _, at := range o.Zone {
		if at.Error != "" {
			continue
		}
		t.asked = true
		t.keyTTL = max(t.keyTTL, at.KeyTTL)
		for i, id := range at.Keys {
			var tag uint16
			if i < len(at.Tags) {
				tag = at.Tags[i]
			}
			t.shown[id] = tag
		}
		for _, s := range at.Signed {
			switch {
			case s.Key == "":
			case s.Type == "DNSKEY":
				t.signsKeys[s.Key] = true
			case s.Type == "SOA":
				t.signsZone[s.Key] = true
			}
		}
	}
	t.insecure = len(o.Parent) > 0 && !slices.ContainsFunc(o.Parent, func(s Seen) bool { return !s.Insecure })
}

// read says how one key stands.
func (t *takeover) read(key *Key) {
	noted := Active
	if key.Life != nil {
		noted = State(key.Life.State)
		t.keyTTL = max(t.keyTTL, key.Life.TTL)
	}
	state, why := noted, ""
	_, shown := t.shown[key.ID]
	switch {
	case t.hasDS(key.ID) && state != Active:
		state, why = Active, "the parent has a DS of it"
	case shown && state != Active && (t.signsKeys[key.ID] && key.SignsKeys() || t.signsZone[key.ID] && key.SignsZone()):
		state, why = Active, "the public servers show its signatures"
	case shown && state == Generated:
		state, why = Published, "the public servers show it"
	case shown && state == Removed && key.HasRole(CSK):
		state, why = Active, "the public servers show it, and caches may hold its signatures"
	case shown && state == Removed && key.SignsZone():
		state, why = Retired, "the public servers show it, and caches may hold its signatures"
	}
	if why != "" && key.Life != nil {
		t.note("%s is noted as %s, but %s: taken for %s", keyText(key), noted, why, state)
	}
	t.state[key.ID] = state
}

func keyText(k *Key) string { return fmt.Sprintf("%s %d", strings.ToUpper(k.Role), k.Tag) }

func (t *takeover) hasDS(id string) bool {
	return slices.ContainsFunc(t.ks.DS.Sets, func(s event.DSSet) bool { return hasDSOf(s.DS, []string{id}) })
}

// waiting lists the keys that wait and stand in a state, of an algorithm; 0 is
// any.
func (t *takeover) waiting(s State, algorithm uint8, has func(*Key) bool) []*Key {
	var out []*Key
	for i := range t.ks.Keys {
		key := &t.ks.Keys[i]
		if state, ok := t.state[key.ID]; ok && state == s && (algorithm == 0 || key.Algorithm == algorithm) && has(key) {
			out = append(out, key)
		}
	}
	return out
}

func everyKey(*Key) bool { return true }

func isZSK(k *Key) bool { return k.HasRole(ZSK) }

func keyIDs(keys []*Key) []string {
	out := make([]string, 0, len(keys))
	for _, k := range keys {
		out = append(out, k.ID)
	}
	slices.Sort(out)
	return out
}

// algorithms lists those of the keys in use.
func (t *takeover) algorithms() []uint8 {
	var out []uint8
	for i := range t.ks.Keys {
		key := &t.ks.Keys[i]
		switch t.state[key.ID] {
		case Active, Published, Retired:
			out = append(out, key.Algorithm)
		case Generated, Removed, Ready, Dead, Revoked, Introduced, Withdrawn:
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// spare lets keys that were made here wait where an imported one has their
// role: no cache knows them.
func (t *takeover) spare() {
	for i := range t.ks.Keys {
		key := &t.ks.Keys[i]
		if _, waits := t.state[key.ID]; !waits || key.Imported {
			continue
		}
		if slices.ContainsFunc(t.ks.Keys, func(k Key) bool {
			in := t.state[k.ID] == Active || t.state[k.ID] == Retired || t.state[k.ID] == Published
			return in && k.Imported && (k.Role == key.Role || k.HasRole(CSK))
		}) {
			t.state[key.ID] = Generated
		}
	}
}

// zoneKeys settles which of the ZSKs of an algorithm sign.
func (t *takeover) zoneKeys(algorithm uint8) {
	known := slices.ContainsFunc(t.waiting(Active, algorithm, isZSK), func(k *Key) bool { return k.Life != nil && in(k.Life.DNSKEY, omnipresent) })
	for _, key := range t.waiting(Active, algorithm, isZSK) {
		// One that caches may not have must not sign in the place of one that they
		// have.
		if known && key.Life != nil && key.Life.DNSKEY != nil && in(key.Life.DNSKEY, rumoured) && !t.signsZone[key.ID] {
			t.state[key.ID] = Published
		}
	}
	if len(t.waiting(Active, algorithm, (*Key).SignsZone)) > 0 {
		return
	}
	for _, state := range []State{Retired, Published} {
		keys := t.waiting(state, algorithm, isZSK)
		for _, key := range keys {
			t.state[key.ID] = Active
			t.note("%s is noted as %s, and no other ZSK of its algorithm signs: it signs", keyText(key), state)
		}
		if len(keys) > 0 {
			return
		}
	}
}

// introduced settles which keys of a new algorithm sign without being
// published: no cache may see them before it holds none but their signatures.
func (t *takeover) introduced() {
	var keys []*Key
	for _, key := range t.waiting(Active, 0, everyKey) {
		_, shown := t.shown[key.ID]
		if l := key.Life; !shown && l != nil && l.DNSKEY != nil && in(l.DNSKEY, hidden) && in(l.DS, hidden) && !t.hasDS(key.ID) {
			keys = append(keys, key)
		}
	}
	for _, key := range keys {
		if slices.ContainsFunc(t.waiting(Active, 0, everyKey), func(o *Key) bool {
			return o.Algorithm != key.Algorithm && !slices.Contains(keys, o)
		}) {
			t.state[key.ID] = Introduced
		}
	}
}

// foreign has public keys of other signers that the public servers show stand
// in the first version, too: caches may hold signatures of them.
func (t *takeover) foreign() {
	for i := range t.ks.Keys {
		key := &t.ks.Keys[i]
		_, shown := t.shown[key.ID]
		same := func(o *Key) bool { return o.Algorithm == key.Algorithm }
		if key.Foreign && key.State == Generated && shown && len(t.waiting(Active, 0, same)) > 0 {
			t.state[key.ID] = Published
		}
	}
}

// parent settles which keys the parent has a DS of. Where it was told to have the
// first one and none is seen, it may be about to add it.
func (t *takeover) parent() {
	sets := t.ks.DS.Sets
	t.seen = len(sets) > 0
	for _, key := range t.waiting(Active, 0, (*Key).SignsKeys) {
		said := key.Life != nil && in(key.Life.DS, rumoured, omnipresent, unretentive)
		asked := said && t.ks.DS.absent() && in(key.Life.DS, rumoured) && !goal(key, hidden)
		switch {
		case t.hasDS(key.ID):
			t.secure = append(t.secure, key.ID)
		case asked, !t.seen && said:
			t.secure, t.told = append(t.secure, key.ID), true
		case said && in(key.Life.DS, unretentive) && t.ks.DS.absent():
			t.leaves = append(t.leaves, key.ID)
		case t.seen && said && in(key.Life.DS, omnipresent):
			t.note("%s is noted to have a DS at the parent, which has none of it", keyText(key))
		}
	}
	slices.Sort(t.secure)
	if t.seen {
		for _, set := range sets {
			if len(set.DS) == 0 {
				t.note("it is proven that the parent has no DS")
			} else {
				t.note("the parent has DS %s", tagsOf(set.DS))
			}
		}
	}
}

// goal reports whether a key was to stay, or to go, by the former signer's
// notes.
func goal(k *Key, word string) bool { return k.Life != nil && k.Life.Goal == word }

// exchanges finds the rollovers that the former signer was in the middle of.
func (t *takeover) exchanges() {
	signers := t.waiting(Active, 0, (*Key).SignsKeys)
	has := func(k *Key) bool { return slices.Contains(t.secure, k.ID) }
	pick := func(keep func(*Key) bool) (out []*Key) {
		for _, k := range signers {
			if keep(k) {
				out = append(out, k)
			}
		}
		return out
	}
	stays := pick(func(k *Key) bool { return has(k) && !goal(k, hidden) })
	leaves := pick(func(k *Key) bool { return has(k) && goal(k, hidden) })
	comes := pick(func(k *Key) bool {
		return !has(k) && goal(k, omnipresent) && (len(leaves) > 0 || k.Life.Predecessor != 0)
	})
	gone := pick(func(k *Key) bool { return !has(k) && goal(k, hidden) })
	t.wanted = t.secure
	exchanged := true
	switch {
	case len(t.secure) == 0:
		exchanged = false
	case len(leaves) > 0 && len(stays) > 0:
		// The DS of both may be there before caches have the new DNSKEY.
		known := !slices.ContainsFunc(stays, func(k *Key) bool { return k.Life == nil || !in(k.Life.DNSKEY, omnipresent) })
		if known {
			t.wanted = keyIDs(stays)
		}
		t.exchange(leaves, stays, known)
	case len(comes) > 0:
		old := append(leaves, stays...)
		told := !slices.ContainsFunc(comes, func(k *Key) bool { return !in(k.Life.DS, rumoured, omnipresent) || !in(k.Life.DNSKEY, omnipresent) })
		if told {
			t.wanted = keyIDs(comes)
		}
		t.exchange(old, comes, told)
	case len(gone) > 0 && len(stays) > 0:
		t.exchange(gone, stays, true)
	default:
		exchanged = false
	}
	if len(t.secure) > 0 {
		t.rolls = append([]event.Facts{&event.DSSubmitted{IDs: t.wanted, CDS: t.p.CDS}}, t.rolls...)
	}
	if len(t.secure) == 0 && len(t.leaves) > 0 {
		t.rolls = append(t.rolls, &event.DSWithdrawn{CDS: t.p.CDS})
		t.begin(RollInsecure, t.leaves, nil, 1, 0)
	}
	if len(t.secure) > 0 && t.told && !exchanged {
		t.begin(RollSecure, nil, t.wanted, 2, 0)
	}
	if added := keyIDs(t.waiting(Introduced, 0, everyKey)); len(added) > 0 {
		t.begin(RollAlgorithm, keyIDs(t.waiting(Active, 0, everyKey)), added, 1, 0)
	}
	if !slices.ContainsFunc(t.rolls, func(f event.Facts) bool {
		r, ok := f.(*event.RolloverStarted)
		return ok && (r.Kind == string(RollAlgorithm) || r.Kind == string(RollCSK))
	}) {
		for _, algorithm := range t.algorithms() {
			t.exchangeZSK(algorithm)
		}
	}
}

// exchange goes on with an exchange of keys that sign the DNSKEY RRset; told
// says that the parent was told of the new ones.
func (t *takeover) exchange(before, after []*Key, told bool) {
	kind, step := RollKSK, uint64(1)
	if told {
		step = 2
	}
	for _, k := range append(slices.Clone(before), after...) {
		if k.HasRole(CSK) {
			kind = RollCSK
		}
	}
	old, added := keyIDs(before), keyIDs(after)
	if before[0].Algorithm != after[0].Algorithm {
		kind, step = RollAlgorithm, step+1
		old, added = keyIDs(t.waiting(Active, before[0].Algorithm, everyKey)), keyIDs(t.waiting(Active, after[0].Algorithm, everyKey))
	}
	since := int64(0)
	if kind == RollKSK && !told {
		since = t.publicSince(after)
	}
	t.begin(kind, old, added, step, since)
}

// exchangeZSK goes on with an exchange of ZSKs.
func (t *takeover) exchangeZSK(algorithm uint8) {
	active := t.waiting(Active, algorithm, isZSK)
	retired := t.waiting(Retired, algorithm, isZSK)
	var next []*Key
	for _, k := range t.waiting(Published, algorithm, isZSK) {
		if k.Life != nil && (k.Life.Goal == omnipresent || k.Life.Goal == "" && k.Life.Activated != 0) {
			next = append(next, k)
		}
	}
	leaves := slices.DeleteFunc(slices.Clone(active), func(k *Key) bool { return !goal(k, hidden) })
	stays := slices.DeleteFunc(slices.Clone(active), func(k *Key) bool { return goal(k, hidden) })
	switch {
	case len(active) == 0:
	case len(leaves) > 0 && len(stays) > 0:
		t.begin(RollZSK, keyIDs(append(leaves, retired...)), keyIDs(stays), 1, 0)
		t.rolls[len(t.rolls)-1].(*event.RolloverStarted).Method = string(DoubleSignature) //nolint:forcetypeassert // begin made it
	case len(retired) > 0:
		t.begin(RollZSK, keyIDs(retired), keyIDs(active), 2, 0)
	case len(next) > 0:
		t.begin(RollZSK, keyIDs(active), keyIDs(next), 1, t.publicSince(next))
	}
}

// publicSince is since when keys are public, and sign the DNSKEY RRset where that
// is their role, where the former signer noted that as it came about and the
// public servers show it; 0 where not.
func (t *takeover) publicSince(keys []*Key) int64 {
	var since int64
	for _, k := range keys {
		_, shown := t.shown[k.ID]
		if !shown || k.Life == nil || !in(k.Life.DNSKEY, rumoured, omnipresent) || !past(k.Life.DNSKEY.Since, t.k.Now) {
			return 0
		}
		since = max(since, k.Life.DNSKEY.Since)
		if !k.SignsKeys() {
			continue
		}
		if !t.signsKeys[k.ID] || !in(k.Life.KeySigs, rumoured, omnipresent) || !past(k.Life.KeySigs.Since, t.k.Now) {
			return 0
		}
		since = max(since, k.Life.KeySigs.Since)
	}
	return since
}

func (t *takeover) begin(kind Kind, before, after []string, step uint64, since int64) {
	method := Methods(kind)[0]
	t.rolls = append(t.rolls, &event.RolloverStarted{
		Kind: string(kind), Method: string(method), Old: before, New: after, Reason: "taken over from the former signer", Step: step, Since: since,
	})
}

// result sums up.
func (t *takeover) result() Takeover {
	out := Takeover{}
	for i := range t.ks.Keys {
		key := &t.ks.Keys[i]
		if state, ok := t.state[key.ID]; ok && state != Generated {
			out.Adopted = append(out.Adopted, adopted(key, state, t.k.Now))
		}
	}
	if !t.asked {
		t.note("no public server of the zone answered: what the keys' files note is all that is known")
	}
	if len(out.Adopted) > 0 {
		out.Do = append(out.Do, &event.KeyAdopted{Keys: out.Adopted, KeyTTL: t.keyTTL, Notes: t.notes})
	}
	out.Do = append(out.Do, t.rolls...)
	out.Notes = t.notes
	out.Refused = t.refuse(out.Do)
	return out
}

// refuse says why the keys would not do.
func (t *takeover) refuse(do []event.Facts) string {
	after := t.ks
	for _, f := range do {
		after = Evolve(after, event.Event{Time: t.k.Now, Facts: f})
	}
	all := t.algorithms()
	for _, algorithm := range all {
		keys := len(t.waiting(Active, algorithm, (*Key).SignsKeys)) > 0
		zone := len(t.waiting(Active, algorithm, (*Key).SignsZone)) > 0
		// Of one algorithm, what lacks is made.
		if keys != zone && (len(all) > 1 || len(t.secure) > 0) {
			return fmt.Sprintf("the keys of algorithm %d sign only a part of the zone: import its %s, too", algorithm, map[bool]string{true: "ZSK", false: "KSK"}[keys])
		}
	}
	if t.insecure || t.ks.DS.absent() && !t.told && len(t.leaves) == 0 {
		return ""
	}
	if len(t.secure) == 0 {
		for _, set := range t.ks.DS.Sets {
			if len(set.DS) > 0 {
				return fmt.Sprintf("the parent has a DS of tag %s, and none of the keys matches it: import the KSK with that tag, "+
					"or have the DS removed at the parent and wait until its TTL has run out", tagsOf(set.DS))
			}
		}
	}
	if err := after.holds(t.k); err != nil {
		return err.Error()
	}
	var missing []string
	for id, tag := range t.shown {
		if _, ok := t.ks.ByID(id); !ok {
			missing = append(missing, fmt.Sprintf("%d (%s)", tag, id))
		}
	}
	slices.Sort(missing)
	switch {
	case len(missing) > 0:
		return fmt.Sprintf("the public servers show keys that are not here, with the tags %s: caches may hold signatures of them; import them, too "+
			"(where there is no private part: --import-public-key), or wait until the former signer has removed them", strings.Join(missing, ", "))
	case len(t.secure) == 0:
		return ""
	}
	for _, a := range after.Signing() {
		if _, waited := t.state[a.ID]; waited && !a.Imported {
			return fmt.Sprintf("caches do not know the new %s, and the parent has a DS: import the keys that the zone is signed with now", keyText(&a))
		}
	}
	return ""
}

// Imports reports whether keys wait that were imported while none signs: they
// are taken over.
func (ks KeySet) Imports() bool {
	return len(ks.Signing()) == 0 && slices.ContainsFunc(ks.Keys, func(k Key) bool { return k.State == Generated && k.Imported && !k.Foreign })
}
