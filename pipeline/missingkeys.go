package pipeline

import (
	"fmt"
	"strings"

	"sluice/keymgr"
)

// holder is a keystore that can tell at little cost whether it has a private
// key.
type holder interface {
	Has(ref string) bool
}

// missingKeys are the keys that sign a zone and whose private parts should be
// here and are not: after a restore without keys/, say.
func (e *Engine) missingKeys(s State) (missing []keymgr.Key) {
	h, ok := e.keystore.(holder)
	if !ok || s.Removed != 0 || !e.hasRole(RoleSign) {
		return nil
	}
	for i := range s.Keys.Keys {
		k := &s.Keys.Keys[i]
		if k.Signs() && k.Keystore == e.keystore.Name() && !k.Foreign && !h.Has(k.Reference) {
			missing = append(missing, *k)
		}
	}
	return missing
}

// keyNotices tells what keeps a zone's private keys from being used.
func (e *Engine) keyNotices(s State) (all []Notice) {
	if reason, hint := e.keystoreTrouble(s); reason != "" {
		all = append(all, Notice{Severity: severityAlarm, Code: NoticeKeystoreDown, Text: reason, Hint: hint})
	}
	if n, some := e.missingKeysNotice(s); some {
		all = append(all, n)
	}
	return all
}

// missingKeysNotice says which private keys a zone lacks, and what to do.
func (e *Engine) missingKeysNotice(s State) (n Notice, some bool) {
	missing := e.missingKeys(s)
	if len(missing) == 0 {
		return Notice{}, false
	}
	keys, files := make([]string, 0, len(missing)), make([]string, 0, len(missing))
	for _, k := range missing {
		keys = append(keys, fmt.Sprintf("%s %s (tag %d)", strings.ToUpper(k.Role), k.ID, k.Tag))
		files = append(files, k.Reference)
	}
	return Notice{
		Severity: severityAlarm, Code: NoticeKeysMissing,
		Text: "the zone cannot be signed: private keys are not here: " + strings.Join(keys, ", "),
		Hint: served(s) + "copy " + strings.Join(files, ", ") + " into the folder keys/ from where it was copied to, then: sluice zone resign " + s.Name +
			"; sluice help operate",
	}, true
}

// missingKeysAlarm is a line about all zones that lack private keys; empty
// where none does.
func (e *Engine) missingKeysAlarm() string {
	zones, first := 0, ""
	for s := range e.eachState() {
		if len(e.missingKeys(s)) > 0 {
			if zones++; first == "" || s.Name < first {
				first = s.Name
			}
		}
	}
	if zones == 0 {
		return ""
	}
	return fmt.Sprintf("private keys are not here, of %d zones, which cannot be signed: copy them into the folder keys/; see: sluice zone status %s", zones, first)
}
