package pipeline

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sluice/keymgr"
)

func TestParse_Rollovers(t *testing.T) {
	p, err := Parse("p", []byte(`version = "v1"
[key-manager]
cds = false
propagation-margin = "90m"
parent-propagation-margin = "2h"
pool = { ksk = 1, zsk = 4 }
require-backup = true
auto-remove = false
auto-remove-delay = "1d"
[key-manager.zsk]
validity = "30d"
method = "double-signature"
auto-start = false
[key-manager.ksk]
validity = "2w"
method = "double-ds"
auto-report = false
auto-done = false
[key-manager.csk]
validity = 86400
auto-expire = false
[key-manager.algorithm]
auto-start = true
`))
	if err != nil {
		t.Fatal(err)
	}
	want := keymgr.RollPolicy{
		ZSK:       keymgr.RolePolicy{Validity: 30 * day, Method: keymgr.DoubleSignature, Auto: keymgr.Auto{Report: true, Expire: true, Done: true}},
		KSK:       keymgr.RolePolicy{Validity: 2 * week, Method: keymgr.DoubleDS, Auto: keymgr.Auto{Expire: true}},
		CSK:       keymgr.RolePolicy{Validity: day, Method: keymgr.DoubleSignature, Auto: keymgr.Auto{Report: true, Done: true}},
		Algorithm: keymgr.Auto{Start: true, Report: true, Expire: true, Done: true},
		Backup:    true,
	}
	if d := cmp.Diff(want, p.Rollovers()); d != "" {
		t.Error(d)
	}
	if d, fixed := p.Margin(); d != 90*time.Minute || !fixed {
		t.Errorf("margin %s, %t", d, fixed)
	}
	if d, fixed := p.ParentMargin(); d != 2*time.Hour || !fixed {
		t.Errorf("margin of the parent %s, %t", d, fixed)
	}
	if got := p.Pool(); got != (keymgr.Pool{KSK: 1, ZSK: 4}) {
		t.Errorf("pool %+v", got)
	}
	if d, ok := p.DestroyAfter(); d != day || ok {
		t.Errorf("keys are deleted after %s, %t", d, ok)
	}
	if _, fixed := Default().Margin(); fixed {
		t.Error("the default margin does not follow the SOA")
	}
}

func TestParse_BadRolloversNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"[key-manager.zsk]\nvalidity = \"soon\"":                                          "line 3: key-manager.zsk.validity",
		"[key-manager.zsk]\nvalidity = 5":                                                 "at least a minute",
		"[key-manager.zsk]\nmethod = \"double-ds\"":                                       "pre-publication, double-signature",
		"[key-manager.ksk]\nmethod = \"pre-publication\"":                                 "double-ksk, double-ds, double-rrset",
		"[key-manager.csk]\nauto-start = \"yes\"":                                         "want true or false",
		"[key-manager]\npropagation-margin = \"some\"":                                    "key-manager.propagation-margin",
		"[key-manager.algorithm]\nvalidity = \"1d\"":                                      "unknown key key-manager.algorithm.validity",
		"[key-manager.ksk]\nmethod = \"double-ds\"\nvalidity = \"1d\"\nauto-start = true": "key-manager.ksk.auto-start",
		"[key-manager]\npool = -1":                                                        "line 3: key-manager.pool",
		"[key-manager]\npool = { zsk = \"two\" }":                                         "from 0 to 100",
		"[key-manager]\npool = { dsk = 1 }":                                               "has no dsk",
		"[key-manager]\nrequire-backup = 1":                                               "key-manager.require-backup",
		"[key-manager]\nparent-propagation-margin = \"some\"":                             "key-manager.parent-propagation-margin",
		"[key-manager]\ncds = 1":                                                          "key-manager.cds",
	} {
		_, err := Parse("p", []byte("version = \"v1\"\n"+text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
