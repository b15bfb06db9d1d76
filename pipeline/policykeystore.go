package pipeline

import (
	"slices"

	"sluice/keymgr"
)

// fileKeystore is the name of the keystore in files, which is always there.
const fileKeystore = "file"

// Keystore is the name of the keystore that new keys of a role are made in.
// wished is false where the policy does not say: then keys stay where they
// are, and new ones are made in files.
func (p Policy) Keystore(role keymgr.Role) (name string, wished bool) {
	if name = p.set.storeOf[role]; name == "" {
		name = p.set.keystore
	}
	if name == "" {
		return fileKeystore, false
	}
	return name, true
}

// keystoresOf is the keystore of each role, "" for files.
func (p Policy) keystoresOf(roles []keymgr.Role) []string {
	var out []string
	for _, role := range roles {
		name, _ := p.Keystore(role)
		if name == fileKeystore {
			name = ""
		}
		out = append(out, name)
	}
	if !slices.ContainsFunc(out, func(name string) bool { return name != "" }) {
		return nil
	}
	return out
}

// namesKeystore reports whether the policy names a keystore.
func (p Policy) namesKeystore(name string) bool {
	if p.set.keystore == name {
		return true
	}
	for _, other := range p.set.storeOf {
		if other == name {
			return true
		}
	}
	return false
}

// eligible is a key set without the keys that wait to be used in another
// keystore than the policy wants.
func (p Policy) eligible(ks keymgr.KeySet) keymgr.KeySet {
	ks.Keys = slices.DeleteFunc(slices.Clone(ks.Keys), func(k keymgr.Key) bool {
		name, wished := p.Keystore(keymgr.Role(k.Role))
		return wished && k.Keystore != name && (k.State == keymgr.Generated || k.State == keymgr.Published)
	})
	return ks
}

// otherKeystore says which rollovers would lead to keys in the keystores that
// the policy wants, and why; none where they are there.
func otherKeystore(s State, p Policy) []wantedRoll {
	var out []wantedRoll
	for _, row := range []struct {
		role keymgr.Role
		kind keymgr.Kind
	}{{keymgr.ZSK, keymgr.RollZSK}, {keymgr.KSK, keymgr.RollKSK}, {keymgr.CSK, keymgr.RollCSK}} {
		name, wished := p.Keystore(row.role)
		if !wished {
			continue
		}
		for _, k := range s.Keys.InState(keymgr.Active) {
			if k.HasRole(row.role) && k.Keystore != name {
				out = append(out, wantedRoll{row.kind, "the policy wants its " + string(row.role) + " in keystore " + name + " instead of " + k.Keystore})
				break
			}
		}
	}
	return out
}

func (r *policyReader) keystores(f *policyFile) {
	m := &f.KeyManager
	if m.Generation.HSMServer != nil {
		r.fault("key-manager.generation.hsm-server-id", `is called keystore here: keystore = "NAME", as sluice keystore list shows it`)
	}
	r.keystore("key-manager.generation.keystore", m.Generation.Keystore, &r.set.keystore)
	for _, row := range []struct {
		role  keymgr.Role
		value any
	}{{keymgr.KSK, m.KSK.Keystore}, {keymgr.ZSK, m.ZSK.Keystore}, {keymgr.CSK, m.CSK.Keystore}} {
		name := ""
		if r.keystore("key-manager."+string(row.role)+".keystore", row.value, &name); name == "" {
			continue
		}
		if r.set.storeOf == nil {
			r.set.storeOf = map[keymgr.Role]string{}
		}
		r.set.storeOf[row.role] = name
	}
}

func (r *policyReader) keystore(key string, value any, to *string) {
	name, ok := r.word(key, value)
	if !ok || name == "" {
		return
	}
	if !keystoreName(name) {
		r.fault(key, "= %q is no name of a keystore: want lower-case letters, digits and -", name)
		return
	}
	*to = name
}

// maxKeystoreName bounds the name of a keystore in bytes.
const maxKeystoreName = 32

// keystoreName reports whether a keystore may have a name.
func keystoreName(name string) bool {
	for i, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && (c != '-' || i == 0) {
			return false
		}
	}
	return name != "" && len(name) <= maxKeystoreName
}
