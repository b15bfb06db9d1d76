package pipeline

import (
	"maps"
	"slices"
	"time"

	"sluice/keymgr"
)

// roleFile is how keys of a role are exchanged, as policy files write it.
type roleFile struct {
	Validity any `toml:"validity"`
	Method   any `toml:"method"`
	Keystore any `toml:"keystore"`
	autoFile
}

// autoFile is what goes on by itself.
type autoFile struct {
	Start  any `toml:"auto-start"`
	Report any `toml:"auto-report"`
	Expire any `toml:"auto-expire"`
	Done   any `toml:"auto-done"`
}

// defaultRoll has ZSKs exchanged by themselves, all else once a person began
// it: a parent that reads no CDS would leave that hanging.
func defaultRoll() keymgr.RollPolicy {
	on := keymgr.Auto{Start: true, Report: true, Expire: true, Done: true}
	asked := keymgr.Auto{Report: true, Expire: true, Done: true}
	return keymgr.RollPolicy{
		ZSK: keymgr.RolePolicy{Validity: 90 * day, Method: keymgr.PrePublication, Auto: on},
		KSK: keymgr.RolePolicy{Method: keymgr.DoubleKSK, Auto: asked},
		CSK: keymgr.RolePolicy{Method: keymgr.DoubleSignature, Auto: asked}, Algorithm: asked, CDS: true,
	}
}

// Rollovers says how keys are exchanged.
func (p Policy) Rollovers() keymgr.RollPolicy { return p.set.roll }

// Margin is how long it takes from when a server shows something until each
// of its sites does; fixed is false where it follows from the zone's SOA.
func (p Policy) Margin() (d time.Duration, fixed bool) { return p.set.margin, p.set.margin >= 0 }

// ParentMargin is that of the parent's servers; fixed is false where it follows
// from the parent's SOA.
func (p Policy) ParentMargin() (d time.Duration, fixed bool) {
	if p.set.above < 0 {
		return p.Margin()
	}
	return p.set.above, true
}

// Pool says how many keys are made ahead.
func (p Policy) Pool() keymgr.Pool { return p.set.pool }

// DestroyAfter is how long after its removal the private part of a key is
// deleted; ok is false where it is kept.
func (p Policy) DestroyAfter() (d time.Duration, ok bool) { return p.set.keepFor, !p.set.keepKeys }

// minValidity is the shortest life of a key: below, a rollover would follow
// the other.
const minValidity = time.Minute

func (r *policyReader) rollovers(f *policyFile) {
	m := &f.KeyManager
	r.role("key-manager.ksk", m.KSK, &r.set.roll.KSK, keymgr.RollKSK)
	r.role("key-manager.zsk", m.ZSK, &r.set.roll.ZSK, keymgr.RollZSK)
	r.role("key-manager.csk", m.CSK, &r.set.roll.CSK, keymgr.RollCSK)
	r.auto("key-manager.algorithm", m.Algorithm, &r.set.roll.Algorithm)
	remove := true
	r.flag("key-manager.auto-remove", m.AutoRemove, &remove)
	r.set.keepKeys = !remove
	r.duration("key-manager.auto-remove-delay", m.AutoRemoveDelay, &r.set.keepFor)
	r.cds(m.CDS)
	r.parent(&m.Parent)
	if text, ok := m.PropagationMargin.(string); !ok || text != "auto" {
		r.duration("key-manager.propagation-margin", m.PropagationMargin, &r.set.margin)
	}
	if text, ok := m.ParentMargin.(string); !ok || text != "auto" {
		r.duration("key-manager.parent-propagation-margin", m.ParentMargin, &r.set.above)
	}
	r.pool(m.Pool)
	r.flag("key-manager.require-backup", m.RequireBackup, &r.set.roll.Backup)
	if k := r.set.roll.KSK; k.Method != keymgr.DoubleKSK && k.Auto.Start && k.Validity != 0 && !r.set.parent.hands() {
		r.fault("key-manager.ksk.auto-start", "= true needs method = \"double-ksk\", or key-manager.parent.update.servers or hooks: the DS of the others goes to the parent by hand, by push or by hook, before CDS could tell it")
	}
}

func (r *policyReader) role(table string, f roleFile, to *keymgr.RolePolicy, kind keymgr.Kind) {
	if text, ok := f.Validity.(string); ok && text == "forever" {
		to.Validity = 0
	} else if f.Validity != nil {
		before := len(r.faults)
		r.duration(table+".validity", f.Validity, &to.Validity)
		if len(r.faults) == before && to.Validity < minValidity {
			r.fault(table+".validity", "= %v: want at least a minute, or \"forever\"", f.Validity)
		}
	}
	methods := keymgr.Methods(kind)
	words := make([]string, 0, len(methods))
	for _, m := range methods {
		words = append(words, string(m))
	}
	if i := r.choice(table+".method", f.Method, words...); i >= 0 {
		to.Method = methods[i]
	}
	r.auto(table, f.autoFile, &to.Auto)
}

func (r *policyReader) auto(table string, f autoFile, to *keymgr.Auto) {
	r.flag(table+".auto-start", f.Start, &to.Start)
	r.flag(table+".auto-report", f.Report, &to.Report)
	r.flag(table+".auto-expire", f.Expire, &to.Expire)
	r.flag(table+".auto-done", f.Done, &to.Done)
}

// maxPool bounds the keys of a role that are made ahead for a zone.
const maxPool = 100

// pool reads one number for every role, or one for each.
func (r *policyReader) pool(value any) {
	const key = "key-manager.pool"
	size := func(key string, value any, to ...*int) {
		n, ok := value.(int64)
		if !ok || n < 0 || n > maxPool {
			r.fault(key, "= %v: want a number of keys from 0 to %d, or a table such as { ksk = 1, zsk = 4 }", value, maxPool)
			return
		}
		for _, role := range to {
			*role = int(n)
		}
	}
	p := &r.set.pool
	table, ok := value.(map[string]any)
	if !ok {
		if value != nil {
			size(key, value, &p.KSK, &p.ZSK, &p.CSK)
		}
		return
	}
	roles := map[string]*int{"ksk": &p.KSK, "zsk": &p.ZSK, "csk": &p.CSK}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		if roles[name] == nil {
			r.fault(key, "has no %s: want ksk, zsk, csk", name)
			continue
		}
		size(key+"."+name, table[name], roles[name])
	}
}
